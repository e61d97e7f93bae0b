//! The options of the NixOS module are the keys of the model, each of them, and take the same values.
//!
//! The test reads the module's file as text: an option is `NAME = optional TYPE "TEXT"`, or `NAME = mkOption {` with a
//! line `type = TYPE;`. Its type and the JSON schema of the key become sets of alternatives in one spelling
//! (`int 1..4094`, `word drop`, `list of text`), and the test compares the sets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::*;

/// What a value may be.
type Alternatives = BTreeSet<String>;

fn one(alternative: impl Into<String>) -> Alternatives {
    BTreeSet::from([alternative.into()])
}

/// A list of values that may be `elements`.
fn list(elements: &Alternatives) -> Alternatives {
    one(format!("list of {}", elements.iter().cloned().collect::<Vec<_>>().join(" or ")))
}

/// The words of a type: names, numbers, strings with a quote in front, and brackets.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' | '[' | ']' | ';' | '{' => 1,
            '"' => rest[1..].find('"').unwrap() + 2,
            _ => rest.find(|end: char| end.is_whitespace() || "()[];".contains(end)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].trim_end_matches('"').to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// What a type of Nix takes; it begins at the first token.
fn alternatives(tokens: &mut impl Iterator<Item = String>) -> Alternatives {
    let number = |tokens: &mut dyn Iterator<Item = String>| tokens.next().unwrap();
    match tokens.next().unwrap().as_str() {
        "(" => {
            let inner = alternatives(tokens);
            assert_eq!(tokens.next().as_deref(), Some(")"));
            inner
        }
        "vid" => one("int 1..4094"),
        "types.bool" => one("bool"),
        "types.str" => one("text"),
        "types.strMatching" => {
            tokens.next();
            one("text")
        }
        "types.ints.between" => one(format!("int {}..{}", number(tokens), number(tokens))),
        "types.enum" => {
            tokens.next();
            let words = tokens.take_while(|token| token != "]");
            words.map(|word| format!("word {}", word.trim_start_matches('"'))).collect()
        }
        "types.listOf" | "types.nonEmptyListOf" => list(&alternatives(tokens)),
        "types.either" => &alternatives(tokens) | &alternatives(tokens),
        "types.nullOr" => alternatives(tokens),
        "format.type" => one("table"),
        // The short form of VLANs is the module's own.
        "vlan" => one("vlan"),
        other => panic!("a type that the test does not know: {other}"),
    }
}

/// The options between two marks of the module's file, with what each takes.
fn options(text: &str, from: &str, to: &str) -> BTreeMap<String, Alternatives> {
    let (_, rest) = text.split_once(from).unwrap();
    let (part, _) = rest.split_once(to).unwrap();
    let mut options = BTreeMap::new();
    let mut open = None;
    for line in part.lines() {
        let Some((name, value)) = line.trim_start().split_once(" = ") else { continue };
        let name = name.trim_matches('"').to_owned();
        if let Some(value) = value.strip_prefix("optional ") {
            options.insert(name, alternatives(&mut tokens(value).into_iter()));
        } else if value.starts_with("mkOption ") {
            open = Some(name);
        } else if let Some(option) = open.take_if(|_| name == "type") {
            options.insert(option, alternatives(&mut tokens(value).into_iter()));
        }
    }
    assert_eq!(open, None, "an option without a type");
    options
}

/// What a value may be by its JSON schema.
fn by_schema(schema: &Value) -> Alternatives {
    if schema["type"] == "object" {
        return one("table");
    }
    let kinds = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    if let Some(kinds) = kinds {
        let all: Alternatives = kinds.iter().flat_map(by_schema).collect();
        // A list may also be written as a text in commands.
        let lists = all.iter().any(|kind| kind.starts_with("list"));
        return all.into_iter().filter(|kind| !lists || kind != "text").collect();
    }
    let word = |word: &Value| format!("word {}", word.as_str().unwrap());
    match (schema.get("enum").and_then(Value::as_array), schema.get("const"), schema["type"].as_str()) {
        (Some(words), _, _) => words.iter().map(word).collect(),
        (_, Some(only), _) => one(word(only)),
        (_, _, Some("boolean")) => one("bool"),
        (_, _, Some("integer")) => one(format!("int {}..{}", schema["minimum"], schema["maximum"])),
        (_, _, Some("string")) => one("text"),
        (_, _, Some("array")) => list(&by_schema(&schema["items"])),
        other => panic!("a schema that the test does not know: {other:?}"),
    }
}

/// The keys of tables by their schemas, and what each may be in any of them.
fn keys_of<'s>(tables: impl IntoIterator<Item = &'s Value>) -> BTreeMap<String, Alternatives> {
    let mut keys: BTreeMap<String, Alternatives> = BTreeMap::new();
    for (key, schema) in tables.into_iter().flat_map(|table| table["properties"].as_object().unwrap()) {
        let known = keys.entry(key.clone()).or_default();
        known.extend(by_schema(schema));
        if known.contains("text") {
            known.retain(|kind| !kind.starts_with("word "));
        }
    }
    keys
}

#[test]
fn options_of_the_module_are_the_keys_of_the_model_and_take_the_same() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nix/module/settings.nix");
    let text = std::fs::read_to_string(file).unwrap();
    let schema = Config::schema();
    let table = |key: &str| &schema["properties"][key]["additionalProperties"];
    let types = table("ports")["oneOf"].as_array().unwrap();

    let mut ports = keys_of(types);
    let vlan = keys_of([&types[0]["properties"]["vlan"]]);
    ports.insert("vlan".to_owned(), one("vlan"));
    assert_eq!(options(&text, "port = types.submodule {", "mirror = types.submodule {"), ports);
    assert_eq!(options(&text, "vlanTable = types.submodule {", "vlanSettings ="), vlan);
    assert_eq!(options(&text, "mirror = types.submodule {", "inline = types.submodule {"), keys_of([table("mirrors")]));
    assert_eq!(options(&text, "inline = types.submodule {", "withoutNulls ="), keys_of([table("inline")]));
    let switch = keys_of([&schema["properties"]["switch"]]);
    assert_eq!(options(&text, "description = \"The `[switch]` table.\";", "ports = mkOption {"), switch);
}
