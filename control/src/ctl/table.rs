//! Tables for people: aligned columns without lines, numbers on the right, only characters that are safe for a
//! terminal, no wider than it.

use std::io::{self, IsTerminal};

use comfy_table::{Cell, CellAlignment, Color, Table, presets};

/// A cell of a table.
#[derive(Debug)]
pub(super) enum Value {
    /// Aligned to the left.
    Text(String),
    /// Aligned to the right.
    Number(String),
    /// The state of a port or mirror, in its colour.
    State(String),
    /// Remarks, in the last column; where the row is too wide, they stand below it.
    Notes(String),
}

/// A cell with text.
pub(super) fn text(value: impl ToString) -> Value {
    Value::Text(one_line(&value.to_string()))
}

/// A cell with a number.
pub(super) fn number(value: impl ToString) -> Value {
    Value::Number(one_line(&value.to_string()))
}

/// A cell with a state.
pub(super) fn state(value: impl ToString) -> Value {
    Value::State(one_line(&value.to_string()))
}

/// A cell with remarks.
pub(super) fn notes(value: impl ToString) -> Value {
    Value::Notes(one_line(&value.to_string()))
}

impl Value {
    fn text(&self) -> &str {
        match self {
            Value::Text(text) | Value::Number(text) | Value::State(text) | Value::Notes(text) => text,
        }
    }

    fn width(&self) -> usize {
        self.text().chars().count()
    }

    /// Cuts text to this many characters; numbers and states stay whole.
    fn cut(&mut self, characters: usize) {
        if let Value::Text(text) = self {
            *text = shortened(text, characters);
        }
    }

    fn cell(self) -> Cell {
        match self {
            Value::Text(text) => Cell::new(text),
            Value::Number(text) => Cell::new(text).set_alignment(CellAlignment::Right),
            Value::State(text) => {
                let colour = match text.as_str() {
                    "up" | "hit" => Color::Green,
                    "failed" | "miss" => Color::Red,
                    "down" => Color::DarkGrey,
                    _ => Color::Yellow,
                };
                Cell::new(text).fg(colour)
            }
            Value::Notes(text) => Cell::new(text).fg(Color::Yellow),
        }
    }
}

/// The place for the output: its width, and whether it takes colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Screen {
    width: Option<usize>,
    colour: bool,
}

/// The width of a column that is never cut further.
const LEAST_WIDTH: usize = 8;
/// The blanks between two columns.
const GAP: usize = 2;

impl Screen {
    /// Standard output: the width of the terminal, else `COLUMNS`, else no limit; no limit either with `wide`. Colours
    /// on a terminal, unless `NO_COLOR` is set; `CLICOLOR_FORCE` has them in a pipe as well.
    pub(super) fn of_stdout(wide: bool) -> Screen {
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
        let terminal = io::stdout().is_terminal();
        let width = if terminal {
            rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col))
        } else {
            std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok())
        };
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Screen {
            width: width.filter(|width| *width > 0 && !wide),
            colour: !set("NO_COLOR") && (set("CLICOLOR_FORCE") || (terminal && !dumb)),
        }
    }

    /// Aligns rows under their headings; without rows, prints `empty`. If the rows are wider than the screen, the last
    /// column stands below each row, and then the widest columns with text are cut.
    pub(super) fn rows(self, headings: &[&str], mut rows: Vec<Vec<Value>>, empty: &str) -> String {
        if rows.is_empty() {
            return format!("{empty}\n");
        }
        let mut headings = headings.to_vec();
        let mut below = self.below(&mut headings, &mut rows);
        self.cut(&headings, &mut rows, &mut below);
        let numbers = rows.first().into_iter().flatten().map(|value| matches!(value, Value::Number(_)));
        let heading = |(name, number): (&&str, bool)| {
            let alignment = if number { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(name.to_uppercase()).set_alignment(alignment)
        };
        let heading = headings.iter().zip(numbers).map(heading).collect::<Vec<Cell>>();
        let mut table = self.table();
        table.set_header(heading);
        for row in rows {
            table.add_row(row.into_iter().map(Value::cell));
        }
        let mut lines = lines(&table).into_iter();
        let mut text: String = lines.next().into_iter().collect();
        for (line, below) in lines.zip(below) {
            text += &line;
            text += &below;
        }
        text
    }

    /// Takes the last column out of rows that are too wide, if it is text; returns the lines below each row.
    fn below(self, headings: &mut Vec<&str>, rows: &mut [Vec<Value>]) -> Vec<String> {
        let last = rows.first().and_then(|row| row.last());
        let movable = matches!(last, Some(Value::Text(_) | Value::Notes(_)));
        let Some(width) = self.width.filter(|width| movable && sum(&widths(headings, rows)) > *width) else {
            return vec![String::new(); rows.len()];
        };
        let name = headings.pop().unwrap_or_default();
        let below = rows.iter_mut().filter_map(|row| row.pop()).map(|value| match value {
            value if value.text().is_empty() => String::new(),
            Value::Notes(text) => self.yellow(&wrapped(&text, "  ", width)),
            value => wrapped(&format!("{name}: {}", value.text()), "  ", width),
        });
        below.collect()
    }

    /// Cuts text, from the widest column on, until the rows have the width of the screen. The whole text stands below
    /// the row.
    fn cut(self, headings: &[&str], rows: &mut [Vec<Value>], below: &mut [String]) {
        let Some(width) = self.width else { return };
        let mut was_cut = vec![vec![None; headings.len()]; rows.len()];
        while let Some((column, left)) = self.widest(width, headings, rows) {
            for (row, was_cut) in rows.iter_mut().zip(&mut was_cut) {
                let (Some(value), Some(whole)) = (row.get_mut(column), was_cut.get_mut(column)) else { continue };
                if value.width() > left {
                    whole.get_or_insert_with(|| value.text().to_owned());
                    value.cut(left);
                }
            }
        }
        for (cut, below) in was_cut.into_iter().zip(below) {
            let cut = headings.iter().zip(cut).filter_map(|(name, whole)| Some(format!("{name}: {}", whole?)));
            let lines: String = cut.map(|line| wrapped(&line, "  ", width)).collect();
            *below = lines + below;
        }
    }

    /// The column to cut, and the width to cut it to; `None` if the rows are narrow enough, or as narrow as can be.
    fn widest(self, width: usize, headings: &[&str], rows: &[Vec<Value>]) -> Option<(usize, usize)> {
        let widths = widths(headings, rows);
        let excess = sum(&widths).saturating_sub(width);
        let is_text = |column: usize| {
            rows.first().and_then(|row| row.get(column)).is_some_and(|value| matches!(value, Value::Text(_)))
        };
        // The name in the first column stays whole.
        let texts = widths.iter().enumerate().skip(1).filter(|(column, _)| is_text(*column));
        let (column, widest) = texts.max_by_key(|(_, width)| **width)?;
        let least = headings.get(column).map_or(0, |heading| heading.len()).max(LEAST_WIDTH);
        (excess > 0 && *widest > least).then(|| (column, widest.saturating_sub(excess).max(least)))
    }

    /// Aligns names and values, one pair a line; a long value goes on in the next line.
    pub(super) fn pairs(self, pairs: Vec<(&str, String)>) -> String {
        let names = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + GAP;
        let mut text = String::new();
        for (name, value) in pairs {
            let value = one_line(&value);
            let value = match self.width {
                Some(width) => wrapped(&value, &" ".repeat(names), width),
                None => format!("{:names$}{value}\n", ""),
            };
            let value = value.get(names..).unwrap_or_default();
            let value = match (name, value.trim_end()) {
                ("state", state @ "up") => self.paint(32, state),
                ("state", state @ "failed") => self.paint(31, state),
                ("state" | "reason" | "impaired", text) => self.paint(33, text),
                (_, text) => text.to_owned(),
            };
            text += &format!("{name:names$}{value}\n");
        }
        text
    }

    fn table(self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }

    fn yellow(self, lines: &str) -> String {
        lines.lines().map(|line| self.paint(33, line) + "\n").collect()
    }

    /// Text that must not be overlooked.
    pub(super) fn red(self, text: &str) -> String {
        self.paint(31, text)
    }

    /// Text that stands back.
    pub(super) fn grey(self, text: &str) -> String {
        self.paint(90, text)
    }

    fn paint(self, colour: u8, text: &str) -> String {
        if self.colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn widths(headings: &[&str], rows: &[Vec<Value>]) -> Vec<usize> {
    let widest = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.width())).max().unwrap_or_default();
    headings.iter().enumerate().map(|(column, heading)| heading.len().max(widest(column))).collect()
}

fn sum(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// Text in lines of at most `width` characters, broken between words, each behind `indent`.
fn wrapped(text: &str, indent: &str, width: usize) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split(' ') {
        let long = indent.len() + line.chars().count() + 1 + word.chars().count() > width;
        if long && !line.is_empty() {
            lines += &format!("{indent}{line}\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("{indent}{line}\n")
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
fn lines(table: &Table) -> Vec<String> {
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
    use super::{Screen, notes, number, one_line, state, text};

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        assert_eq!(one_line("a\u{1b}[2J\n\u{9b}1m\u{202e}b\u{2066}c ä"), "a [2J  1m b c ä");
    }

    const NARROW: Screen = Screen { width: Some(40), colour: false };

    fn table(screen: Screen) -> String {
        let row =
            |name, vlan, frames: u64, reason| vec![text(name), text(vlan), state("up"), number(frames), notes(reason)];
        let rows = vec![
            row("web", "access 20", 12, ""),
            row("uplink", "native-untagged 10 (10,20-29)", 1_000_000, "no carrier: the link of the device is down"),
        ];
        screen.rows(&["name", "vlan", "state", "frames", "reason"], rows, "none")
    }

    #[test]
    fn a_table_is_as_wide_as_the_screen_at_most_and_no_remark_is_cut() {
        let whole = table(Screen::default());
        assert!(whole.lines().all(|line| line.lines().count() == 1) && whole.lines().count() == 3, "{whole}");
        let expected = "NAME    VLAN              STATE   FRAMES\n\
                        web     access 20         up          12\n\
                        uplink  native-untagged…  up     1000000\n\
                        \x20 vlan: native-untagged 10 (10,20-29)\n\
                        \x20 no carrier: the link of the device is\n\
                        \x20 down\n";
        assert_eq!(table(NARROW), expected);
    }

    #[test]
    fn a_long_value_goes_on_below_itself() {
        let pairs =
            vec![("drops", "not_connected 7, vlan_not_member 12, loop 3".to_owned()), ("mtu", "1500".to_owned())];
        let expected = "drops  not_connected 7, vlan_not_member\n       12, loop 3\nmtu    1500\n";
        assert_eq!(NARROW.pairs(pairs), expected);
    }

    #[test]
    fn colours_take_no_room() {
        let coloured = Screen { colour: true, ..NARROW };
        let plain: String = table(coloured)
            .split('\u{1b}')
            .enumerate()
            .map(|(at, piece)| if at == 0 { piece } else { piece.split_once('m').unwrap_or_default().1 })
            .collect();
        assert_ne!(table(coloured), table(NARROW));
        let trimmed: String = plain.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        assert_eq!(trimmed, table(NARROW));
    }
}
