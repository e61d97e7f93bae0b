//! Tables for people: aligned columns without lines, numbers to the right, nothing but text a terminal can show.

use comfy_table::{Cell, CellAlignment, Table, presets};

/// A cell of a table.
#[derive(Debug)]
pub(super) enum Value {
    /// To the left.
    Text(String),
    /// To the right.
    Number(String),
}

/// A cell with text.
pub(super) fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

/// A cell with a number.
pub(super) fn number(value: impl ToString) -> Value {
    Value::Number(value.to_string())
}

/// Aligns rows under their headings; `empty` if there are none.
pub(super) fn rows(headings: &[&str], rows: Vec<Vec<Value>>, empty: &str) -> String {
    let Some(first) = rows.first() else { return format!("{empty}\n") };
    let heading = |(name, below): (&&str, &Value)| cell(name.to_uppercase(), matches!(below, Value::Number(_)));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.iter().zip(first).map(heading).collect::<Vec<Cell>>());
    for row in rows {
        table.add_row(row.into_iter().map(|value| match value {
            Value::Text(text) => cell(text, false),
            Value::Number(number) => cell(number, true),
        }));
    }
    lines(&table)
}

/// Aligns names and values, one pair a line.
pub(super) fn pairs(pairs: Vec<(&str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in pairs {
        table.add_row([cell(name.to_owned(), false), cell(value, false)]);
    }
    lines(&table)
}

fn cell(text: String, to_the_right: bool) -> Cell {
    let alignment = if to_the_right { CellAlignment::Right } else { CellAlignment::Left };
    Cell::new(one_line(&text)).set_alignment(alignment)
}

/// Keeps names and reasons on one line, and from steering the terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// The lines of a table without the blanks around them.
fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

/// A list in one cell; `none` if it is empty.
pub(super) fn list(items: impl IntoIterator<Item = impl ToString>, none: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

/// Cuts text that would make a column too wide.
pub(super) fn shortened(text: &str, most_characters: usize) -> String {
    match text.char_indices().nth(most_characters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most_characters.saturating_sub(1)).chain(['…']).collect(),
    }
}
