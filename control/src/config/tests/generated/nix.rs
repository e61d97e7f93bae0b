//! The options of the NixOS module.

use super::key::{self, Key, Kinds};

const HEAD: &str = "\
# The keys of the configuration file as options, made from control/src/model by `make generated`. `optional` and
# `required` make an option of a type and a description; `table` is the type of a table.
{ types, optional, required, table }:
{
";

/// The file with the options.
pub(super) fn options() -> String {
    let tables = [
        ("switch", key::of_switch()),
        ("port", key::of_ports()),
        ("vlan", key::of_vlan()),
        ("mirror", key::of_mirrors()),
        ("inline", key::of_inline()),
    ];
    let mut text = HEAD.to_owned();
    for (name, keys) in tables {
        let options: Vec<String> = keys.iter().map(option).collect();
        text += &format!("  {name} = {{\n{}  }};\n", options.concat());
    }
    text + "}\n"
}

fn option(key: &Key) -> String {
    // A word of the language.
    let name = if key.name == "for" { "\"for\"" } else { key.name };
    let make = if key.required { "required" } else { "optional" };
    let description = key.meaning().replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
    format!("    {name} = {make} {} \"{description}\";\n", nested(&type_of(&key.kinds())))
}

fn type_of(kinds: &Kinds) -> String {
    let mut all = Vec::new();
    if kinds.boolean {
        all.push("types.bool".to_owned());
    }
    if let Some((least, most)) = kinds.integer {
        all.push(format!("types.ints.between {least} {most}"));
    }
    if !kinds.words.is_empty() {
        let words: Vec<String> = kinds.words.iter().map(|word| format!("\"{word}\"")).collect();
        all.push(format!("types.enum [ {} ]", words.join(" ")));
    }
    if let Some(elements) = &kinds.list {
        all.push(format!("types.listOf {}", nested(&type_of(elements))));
    }
    if kinds.text {
        all.push("types.str".to_owned());
    }
    if kinds.table {
        all.push("table".to_owned());
    }
    match all.as_slice() {
        [one] => one.clone(),
        [one, other] => format!("types.either {} {}", nested(one), nested(other)),
        more => format!("types.oneOf [ {} ]", more.iter().map(|one| nested(one)).collect::<Vec<_>>().join(" ")),
    }
}

/// A type as an argument.
fn nested(text: &str) -> String {
    if text.contains(' ') { format!("({text})") } else { text.to_owned() }
}
