//! The keys of the model's tables, by their JSON schemas.

use std::sync::LazyLock;

use serde_json::Value;

use super::*;
use crate::model::de::keys as keys_of;
use crate::model::{self, Vlan};

/// A key, with its schema in each table that has it.
pub(super) struct Key {
    pub name: &'static str,
    /// The tables (types of ports) that have the key, with its schema there; no name: all tables.
    pub tables: Vec<(Option<&'static str>, &'static Value)>,
    pub required: bool,
}

impl Key {
    /// The meaning of the key, by type where types differ.
    pub fn meaning(&self) -> String {
        let mut meanings: Vec<(Vec<&str>, String)> = Vec::new();
        for (table, schema) in &self.tables {
            let text = schema["description"].as_str().unwrap_or_else(|| panic!("{} has no comment", self.name));
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match meanings.iter_mut().find(|(_, meaning)| *meaning == text) {
                Some((tables, _)) => tables.extend(*table),
                None => meanings.push((table.iter().copied().collect(), text)),
            }
        }
        let shown = meanings.into_iter().map(|(tables, text)| match tables.as_slice() {
            [] => text,
            tables => format!("{}: {text}", tables.join(", ")),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// The values that the key takes, in any of the tables.
    pub fn kinds(&self) -> Kinds {
        let mut kinds = Kinds::default();
        self.tables.iter().for_each(|(_, schema)| kinds.add(schema));
        // A list may also be written as a text in commands, and every word is a text.
        if kinds.list.is_some() {
            kinds.text = false;
        }
        if kinds.text {
            kinds.words.clear();
        }
        kinds
    }
}

/// The kinds of values that a key takes.
#[derive(Default)]
pub(super) struct Kinds {
    pub boolean: bool,
    pub text: bool,
    pub table: bool,
    pub words: Vec<&'static str>,
    /// The smallest and the largest integer.
    pub integer: Option<(i64, i64)>,
    /// The kinds of elements.
    pub list: Option<Box<Kinds>>,
}

impl Kinds {
    fn add(&mut self, schema: &'static Value) {
        let alternatives = ["anyOf", "oneOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
        let alternatives: Vec<&Value> =
            alternatives.flatten().filter(|schema| schema.get("required").is_none()).collect();
        match schema["type"].as_str() {
            _ if !alternatives.is_empty() => alternatives.into_iter().for_each(|schema| self.add(schema)),
            Some("object") => self.table = true,
            Some("boolean") => self.boolean = true,
            Some("integer") => {
                let (low, high) = (schema["minimum"].as_i64().unwrap(), schema["maximum"].as_i64().unwrap());
                let (least, most) = self.integer.unwrap_or((low, high));
                self.integer = Some((low.min(least), high.max(most)));
            }
            Some("array") => {
                let mut elements = self.list.take().unwrap_or_default();
                elements.add(&schema["items"]);
                self.list = Some(elements);
            }
            _ => match schema["enum"].as_array().map_or_else(|| vec![&schema["const"]], |words| words.iter().collect())
            {
                words if words[0].is_null() => self.text = true,
                words => self.words.extend(words.into_iter().map(|word| word.as_str().unwrap())),
            },
        }
    }
}

static SCHEMA: LazyLock<Value> = LazyLock::new(Config::schema);

/// The schema of a table of tables in the file.
fn table(name: &str) -> &'static Value {
    &SCHEMA["properties"][name]["additionalProperties"]
}

/// The keys of one table.
fn of_table(schema: &'static Value, names: &[&'static str]) -> Vec<Key> {
    let required = schema["required"].as_array().into_iter().flatten().collect::<Vec<_>>();
    let key = |name: &&'static str| Key {
        name,
        tables: vec![(None, schema["properties"].get(name).unwrap_or_else(|| panic!("{name} has no schema")))],
        required: required.iter().any(|key| **key == **name),
    };
    names.iter().map(key).collect()
}

/// The keys of ports, without `type`: first those of every type.
pub(super) fn of_ports() -> Vec<Key> {
    let types: Vec<&Value> = table("ports")["oneOf"].as_array().unwrap().iter().collect();
    let mut keys: Vec<Key> = Vec::new();
    for name in PortConfig::keys() {
        let having = types.iter().filter_map(|of| Some((of["title"].as_str(), of["properties"].get(name)?)));
        let mut tables: Vec<_> = having.collect();
        if tables.len() == types.len() && tables.iter().all(|(_, schema)| *schema == tables[0].1) {
            tables = vec![(None, tables[0].1)];
        }
        if keys.iter().all(|key| key.name != name) {
            keys.push(Key { name, tables, required: false });
        }
    }
    keys
}

/// The keys of ports of one type that not every port has.
pub(super) fn of_type(port_type: PortType) -> Vec<Key> {
    let types = table("ports")["oneOf"].as_array().unwrap();
    let schema = types.iter().find(|of| of["title"] == port_type.name()).unwrap();
    of_table(schema, port_type.keys())
}

pub(super) fn of_vlan() -> Vec<Key> {
    of_table(&table("ports")["oneOf"][0]["properties"]["vlan"], keys_of::<Vlan>())
}

pub(super) fn of_storm() -> Vec<Key> {
    of_table(&table("ports")["oneOf"][0]["properties"]["storm"], keys_of::<model::Storm>())
}

pub(super) fn of_mirrors() -> Vec<Key> {
    of_table(table("mirrors"), &MirrorConfig::keys())
}

pub(super) fn of_inject() -> Vec<Key> {
    of_table(&table("mirrors")["properties"]["inject"], keys_of::<model::Inject>())
}

pub(super) fn of_inline() -> Vec<Key> {
    of_table(table("inline"), keys_of::<InlineConfig>())
}

pub(super) fn of_impairments() -> Vec<Key> {
    of_table(&table("impair")["anyOf"][0], &ImpairConfig::keys())
}

pub(super) fn of_switch() -> Vec<Key> {
    of_table(&SCHEMA["properties"]["switch"], keys_of::<SwitchConfig>())
}
