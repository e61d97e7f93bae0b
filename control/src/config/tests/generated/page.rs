//! The tables of keys on the page about the configuration file. A key without a row gets one, made from its schema, to
//! be worded further; a row without a key goes.

use super::key::{self, Key, Kinds};
use super::*;

/// The page, with a row for each key and no others.
pub(super) fn page(before: &str) -> String {
    let common = key::of_ports().into_iter().filter(|key| key.tables[0].0.is_none());
    let mirror = key::of_mirrors().into_iter().filter(|key| key.name != "inject");
    let mut tables = vec![
        ("\n## `[switch]`\n".to_owned(), rows(key::of_switch(), "")),
        ("\n## `[ports.NAME]`\n".to_owned(), [vec![("type".to_owned(), String::new())], rows(common, "")].concat()),
        ("\n## `vlan` of a port\n".to_owned(), rows(key::of_vlan(), "")),
        ("\n## `[mirrors.NAME]`\n".to_owned(), [rows(mirror, ""), rows(key::of_inject(), "inject.")].concat()),
        ("\n## `[inline.NAME]`\n".to_owned(), rows(key::of_inline(), "")),
    ];
    for port_type in PortType::ALL {
        tables.push((format!("\n| `{port_type}` ("), rows(key::of_type(*port_type), "")));
    }
    tables.iter().fold(before.to_owned(), |text, (start, rows)| with_rows(&text, start, rows))
}

/// The keys with the row that each gets if it has none.
fn rows(keys: impl IntoIterator<Item = Key>, prefix: &str) -> Vec<(String, String)> {
    let row = |key: Key| {
        let name = format!("{prefix}{}", key.name);
        let default = match key.tables[0].1.get("default") {
            _ if key.required => "required".to_owned(),
            Some(default) => format!("`{default}`"),
            None => String::new(),
        };
        let row = format!("| `{name}` | {} | {default} | {} |\n", in_words(&key.kinds()), key.meaning());
        (name, row)
    };
    keys.into_iter().map(row).collect()
}

/// The kinds of values in words.
fn in_words(kinds: &Kinds) -> String {
    let words = kinds.words.iter().map(|word| format!("`\"{word}\"`"));
    let mut all: Vec<String> = words.collect();
    all.extend(kinds.boolean.then(|| "boolean".to_owned()));
    all.extend(kinds.integer.map(|(least, most)| format!("integer, {least} to {most}")));
    all.extend(kinds.text.then(|| "string".to_owned()));
    all.extend(kinds.list.as_ref().map(|elements| format!("array of {}", in_words(elements))));
    all.extend(kinds.table.then(|| "table".to_owned()));
    all.join(" or ")
}

/// The text with these rows in the first table from `start` on. A row begins with its keys; those that are there stay
/// as they are.
fn with_rows(text: &str, start: &str, rows: &[(String, String)]) -> String {
    let from = text.find(start).unwrap_or_else(|| panic!("the page has no {start:?}"));
    let body = from + text[from..].find("\n|---").unwrap() + 1;
    let body = body + text[body..].find('\n').unwrap() + 1;
    let end = body + text[body..].find("\n\n").unwrap() + 1;
    let names = |row: &str| -> Vec<String> {
        let first = row.trim_start_matches('|').split('|').next().unwrap_or_default();
        first.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let known = |name: &String| rows.iter().any(|(key, _)| key == name);
    let stay: Vec<&str> = text[body..end].split_inclusive('\n').filter(|row| names(row).iter().any(known)).collect();
    let there: Vec<String> = stay.iter().flat_map(|row| names(row)).collect();
    let missing = rows.iter().filter(|(key, _)| !there.contains(key)).map(|(_, row)| row.as_str());
    let table: String = stay.iter().copied().chain(missing).collect();
    format!("{}{table}{}", &text[..body], &text[end..])
}
