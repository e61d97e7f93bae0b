//! The types of the interface description whose fields are the keys of a table.

use varlink_parser::{IDL, VStructOrEnum};

use super::key::{self, Key};

/// The longest line, in columns.
const WIDTH: usize = 120;

/// The description with these types made anew.
pub(super) fn description(before: &str) -> String {
    let idl = IDL::try_from(before).unwrap();
    let types = [
        ("PortSettings", key::of_ports()),
        ("VlanSettings", key::of_vlan()),
        ("StormSettings", key::of_storm()),
        ("ImpairmentSettings", key::of_impairments()),
    ];
    let mut text = before.to_owned();
    for (name, keys) in types {
        let start = format!("type {name} (\n");
        let (head, rest) = text.split_once(&start).unwrap();
        let (_, tail) = rest.split_once("\n)\n").unwrap();
        let fields: Vec<String> = keys.iter().map(|key| field(key, &idl)).collect();
        text = format!("{head}{start}{}\n)\n{tail}", fields.join(",\n"));
    }
    text
}

/// The field of a key, below its meaning.
fn field(key: &Key, idl: &IDL<'_>) -> String {
    let mut lines = vec!["  #".to_owned()];
    for word in key.meaning().split(' ') {
        let last = lines.last_mut().unwrap();
        if last.len() + 1 + word.len() > WIDTH {
            lines.push(format!("  # {word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.push(format!("  {}: ?{}", key.name, type_of(key, idl)));
    lines.join("\n")
}

/// The type of a key: `object` if its values are of several.
fn type_of(key: &Key, idl: &IDL<'_>) -> String {
    let kinds = key.kinds();
    let words = !kinds.words.is_empty();
    let several = [kinds.boolean, kinds.text, kinds.table, words, kinds.integer.is_some(), kinds.list.is_some()];
    match several.into_iter().filter(|kind| *kind).count() {
        1 if kinds.boolean => "bool".to_owned(),
        1 if kinds.text => "string".to_owned(),
        1 if kinds.integer.is_some() => "int".to_owned(),
        1 if words => named(&kinds.words, idl).unwrap_or("string").to_owned(),
        1 if kinds.table => format!("{}{}Settings", key.name[..1].to_uppercase(), &key.name[1..]),
        1 if kinds.list.is_some_and(|elements| elements.integer.is_none()) => "[]string".to_owned(),
        1 => "[]object".to_owned(),
        _ => "object".to_owned(),
    }
}

/// The enumeration with these members.
fn named<'i>(words: &[&str], idl: &IDL<'i>) -> Option<&'i str> {
    let types = idl.typedefs.iter();
    types
        .filter(|(_, def)| matches!(&def.elt, VStructOrEnum::VEnum(members) if members.elts == words))
        .map(|(name, _)| *name)
        .next()
}
