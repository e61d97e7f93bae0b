//! Tables for people: aligned columns without lines, numbers on the right, only characters that are safe for a
//! terminal.

use comfy_table::{Cell, CellAlignment, Table, presets};

/// A cell of a table.
#[derive(Debug)]
pub(super) enum Value {
    /// Aligned to the left.
    Text(String),
    /// Aligned to the right.
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

/// Aligns rows under their headings; without rows, prints `empty`.
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

/// Keeps names and reasons on one line and harmless to the terminal: control characters, line separators and marks that
/// change the direction of writing become blanks.
pub(super) fn one_line(text: &str) -> String {
    let steers = |character: char| {
        character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if steers(character) { ' ' } else { character }).collect()
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

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        assert_eq!(one_line("a\u{1b}[2J\n\u{9b}1m\u{202e}b\u{2066}c ä"), "a [2J  1m b c ä");
    }
}
