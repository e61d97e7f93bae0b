//! A table of settings as a tree, from the file, `--set key=value` or the control socket.
//!
//! **How it works.** A [`Tree`] is a value with its place in the text, if it came from a text.
//! [`Reader`](super::Reader) reads it into the model. Keys keep the order of the text. A [`Path`] names one value in
//! the tree.

use std::fmt;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One value, and the byte of the text at which it begins (0 without a text).
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    at: usize,
    value: Value,
}

/// The value of a [`Tree`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// The value of a key that is missing or counts as missing.
    Nothing,
    Text(String),
    /// A number as written: it may be too large for any type.
    Integer(String),
    Float(f64),
    Bool(bool),
    Date(String),
    List(Vec<Tree>),
    Table(Vec<Entry>),
}

/// A key of a table, with its place and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub at: usize,
    pub tree: Tree,
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the value of a key.
    Key(String),
    /// To an element of an array, from 0.
    Element(usize),
}

/// The way from the root of a tree to one of its values; written as `ports.dc01.vlan.trunks[1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// A path of keys.
    pub fn of<'k>(keys: impl IntoIterator<Item = &'k str>) -> Path {
        Path(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    /// The path of `key` in the table at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// This path, appended to `prefix`.
    #[must_use]
    pub fn behind(&self, prefix: &Path) -> Path {
        Path(prefix.0.iter().chain(&self.0).cloned().collect())
    }

    /// This path up to its first element of an array.
    pub(super) fn up_to_list(&self) -> Path {
        Path(self.0.iter().take_while(|step| matches!(step, Step::Key(_))).cloned().collect())
    }

    /// The path of the table that has this value.
    pub(super) fn parent(&self) -> Path {
        Path(self.0.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default())
    }

    /// True if the path leads into the table at `table`.
    pub(super) fn is_in(&self, table: &Path) -> bool {
        self.0.len() > table.0.len() && self.0.starts_with(&table.0)
    }

    /// The last key of the path; empty for the root.
    pub(super) fn last_key(&self) -> &str {
        let keys = self.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Element(_) => None,
        });
        keys.unwrap_or_default()
    }

    /// The keys up to the first element of an array.
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map_while(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Element(_) => None,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if number == 0 => out.write_str(key)?,
                Step::Key(key) => write!(out, ".{key}")?,
                Step::Element(element) => write!(out, "[{element}]")?,
            }
        }
        Ok(())
    }
}

impl Tree {
    pub(super) fn new(value: Value) -> Tree {
        Tree { at: 0, value }
    }

    /// True or false.
    pub fn boolean(value: bool) -> Tree {
        Tree::new(Value::Bool(value))
    }

    /// A string.
    pub fn text(text: &str) -> Tree {
        Tree::new(Value::Text(text.to_owned()))
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// The keys and values of a table; empty for any other value.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The keys of a table, in the order of the text.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries().iter().map(|entry| entry.key.as_str())
    }

    /// True for a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, Value::Table(_))
    }

    /// The value of `key`, if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.tree)
    }

    /// The string at `key`, if the value is one.
    pub fn get_text(&self, key: &str) -> Option<&str> {
        match self.get(key)?.value() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of all strings at this key, also in nested tables.
    pub fn bytes_of(&self, key: &str) -> usize {
        let of = |entry: &Entry| match entry.tree.value() {
            Value::Text(text) if entry.key == key => text.len(),
            _ => entry.tree.bytes_of(key),
        };
        self.entries().iter().map(of).sum()
    }

    /// Sets `key`, if this is a table.
    pub fn set(&mut self, key: &str, tree: Tree) {
        if let Value::Table(entries) = &mut self.value {
            entries.retain(|entry| entry.key != key);
            entries.push(Entry { key: key.to_owned(), at: self.at, tree });
        }
    }

    /// Sets `key` if this is a table that does not have it.
    pub fn set_default(&mut self, key: &str, tree: Tree) {
        if self.get(key).is_none() {
            self.set(key, tree);
        }
    }

    /// This table with only the keys that `wanted` accepts.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Tree {
        let kept = self.entries().iter().filter(|entry| wanted(&entry.key)).cloned();
        Tree { at: self.at, value: Value::Table(kept.collect()) }
    }

    /// Removes the value at the keys of `path`, up to its first array; returns true if it was there.
    pub(super) fn remove(&mut self, path: &Path) -> bool {
        let keys: Vec<&str> = path.keys().collect();
        let Some((last, tables)) = keys.split_last() else { return false };
        let Some(Value::Table(entries)) = self.table_mut(tables).map(|tree| &mut tree.value) else { return false };
        let before = entries.len();
        entries.retain(|entry| entry.key != *last);
        entries.len() < before
    }

    /// Sets the value at the keys of `path` to [`Value::Nothing`], if the table that would have it is there.
    pub fn set_nothing(&mut self, path: &Path) {
        let keys: Vec<&str> = path.keys().collect();
        let Some((last, tables)) = keys.split_last() else { return };
        if let Some(table) = self.table_mut(tables) {
            table.set(last, Tree::new(Value::Nothing));
        }
    }

    fn table_mut(&mut self, keys: &[&str]) -> Option<&mut Tree> {
        keys.iter().try_fold(self, |tree, key| match &mut tree.value {
            Value::Table(entries) => entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.tree),
            _ => None,
        })
    }

    /// The byte of the text at which the value at `path` begins; with `of_key`, and for a table, the byte at which its
    /// key begins. If the value is missing, the key of the longest part of the path that exists.
    pub fn place(&self, path: &Path, of_key: bool) -> usize {
        let (mut tree, mut key_at) = (self, self.at);
        for step in &path.0 {
            match (step, &tree.value) {
                (Step::Key(key), Value::Table(entries)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { return key_at };
                    (tree, key_at) = (&entry.tree, entry.at);
                }
                (Step::Element(element), Value::List(elements)) => {
                    let Some(element) = elements.get(*element) else { return key_at };
                    (tree, key_at) = (element, element.at);
                }
                _ => return key_at,
            }
        }
        if of_key || tree.is_table() { key_at } else { tree.at }
    }
}

impl From<&Spanned<DeTable<'_>>> for Tree {
    fn from(table: &Spanned<DeTable<'_>>) -> Tree {
        Tree { at: table.span().start, value: of_table(table.get_ref()) }
    }
}

impl From<&Spanned<DeValue<'_>>> for Tree {
    fn from(value: &Spanned<DeValue<'_>>) -> Tree {
        let at = value.span().start;
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(number) => Value::Integer(
                i64::from_str_radix(number.as_str(), number.radix())
                    .map_or_else(|_| number.to_string(), |number| number.to_string()),
            ),
            DeValue::Float(number) => number.to_string().parse().map_or(Value::Nothing, Value::Float),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(elements) => Value::List(elements.iter().map(Tree::from).collect()),
            DeValue::Table(table) => of_table(table),
        };
        Tree { at, value }
    }
}

fn of_table(table: &DeTable<'_>) -> Value {
    let entry = |(key, value): (&Spanned<_>, &_)| Entry {
        key: AsRef::<str>::as_ref(key.get_ref()).to_owned(),
        at: key.span().start,
        tree: Tree::from(value),
    };
    let mut entries: Vec<Entry> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    Value::Table(entries)
}

impl From<&Json> for Tree {
    fn from(json: &Json) -> Tree {
        Tree::new(match json {
            Json::Null => Value::Nothing,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) if number.is_f64() => number.as_f64().map_or(Value::Nothing, Value::Float),
            Json::Number(number) => Value::Integer(number.to_string()),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(elements) => Value::List(elements.iter().map(Tree::from).collect()),
            Json::Object(fields) => {
                // A null field counts as left out.
                let given = fields.iter().filter(|(_, value)| !value.is_null());
                let entry = |(key, value): (&String, &Json)| Entry { key: key.clone(), at: 0, tree: Tree::from(value) };
                Value::Table(given.map(entry).collect())
            }
        })
    }
}
