//! A configuration written into the text of a file that people keep: comments, order and spelling stay.
//!
//! **How it works.** The text is read as a configuration, and compared with the one to write, object by object (the
//! switch, each port, mirror, inline sensor, profile and impairment) and key by key, both in the
//! [normal form](Config::normalised). Only keys that differ are touched, so `"1GiB"` stays as it is where the other
//! configuration has the same amount. An object that is gone is taken out with the comment above it; a new one follows
//! the others of its kind. If the result does not read as the configuration to write (an impairment with a table for
//! each direction can get one for both), the objects that differ are written anew as a whole.
//!
//! **Invariant.** [`written_into`] returns only a text that reads as the configuration.

use std::collections::BTreeSet;

use toml::{Table, Value};
use toml_edit::{DocumentMut, Item, TableLike};

use super::{Config, ConfigError, ConfigErrors};

/// The groups of named objects.
const GROUPS: [&str; 5] = ["ports", "mirrors", "inline", "profiles", "impair"];

/// How much of an object that differs is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The keys that differ.
    Keys,
    /// The object.
    Whole,
}

/// The text of a file, changed so that it reads as `config`; `file_name` is its name in errors.
///
/// # Errors
/// The mistakes of the text, or that no text was found that reads as `config`.
pub(super) fn written_into(config: &Config, text: &str, file_name: &str) -> Result<String, ConfigErrors> {
    let normal = config.normalised();
    let before = Config::read(text, file_name)?.normalised();
    if before == normal {
        return Ok(text.to_owned());
    }
    let [from, to] = [&before, &normal].map(Config::to_toml);
    for extent in [Extent::Keys, Extent::Whole] {
        let Ok(mut document) = text.parse::<DocumentMut>() else { break };
        edit(document.as_table_mut(), &from, &to, extent);
        let written = document.to_string();
        if Config::read(&written, file_name).is_ok_and(|read| read.normalised() == normal) {
            return Ok(written);
        }
    }
    let message = format!("{file_name}: the configuration can't be written into this text; save to another file");
    Err(ConfigError::new(None, "", &message).into())
}

/// Changes the tables of a file from one configuration to another.
fn edit(document: &mut dyn TableLike, from: &Table, to: &Table, extent: Extent) {
    if let [Some(Value::Table(from)), Some(Value::Table(to))] = [from, to].map(|all| all.get("switch"))
        && from != to
        && let Some(table) = group(document, "switch", false)
    {
        edit_keys(table, from, to);
    }
    for name in GROUPS {
        let empty = Table::new();
        let [from, to] = [from, to].map(|all| all.get(name).and_then(Value::as_table).unwrap_or(&empty));
        if from != to
            && let Some(tables) = group(document, name, true)
        {
            edit_group(tables, from, to, extent);
        }
    }
}

/// The table of a group, made if there is none. `implicit`: it has no header of its own.
fn group<'a>(document: &'a mut dyn TableLike, name: &str, implicit: bool) -> Option<&'a mut dyn TableLike> {
    let item = document.entry(name).or_insert_with(|| {
        let mut table = toml_edit::Table::new();
        table.set_implicit(implicit);
        Item::Table(table)
    });
    item.as_table_like_mut()
}

/// Changes the objects of one kind.
fn edit_group(tables: &mut dyn TableLike, from: &Table, to: &Table, extent: Extent) {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    for name in names {
        match (from.get(name), to.get(name)) {
            (before, after) if before == after => {}
            (_, None) => drop(tables.remove(name)),
            (Some(Value::Table(before)), Some(Value::Table(after))) if extent == Extent::Keys => {
                if let Some(table) = tables.get_mut(name).and_then(Item::as_table_like_mut) {
                    edit_keys(table, before, after);
                }
            }
            (_, Some(after)) => put_object(tables, name, after),
        }
    }
}

/// Writes an object as a whole; the comment above it stays.
fn put_object(tables: &mut dyn TableLike, name: &str, object: &Value) {
    let mut table = toml_edit::Table::new();
    for (key, value) in object.as_table().into_iter().flatten() {
        table.insert(key, item(value));
    }
    match tables.get_mut(name).and_then(Item::as_table_mut) {
        Some(before) => {
            *table.decor_mut() = before.decor().clone();
            table.set_position(before.position());
            *before = table;
        }
        None => drop(tables.insert(name, Item::Table(table))),
    }
}

/// Changes those keys of a table that differ.
fn edit_keys(table: &mut dyn TableLike, from: &Table, to: &Table) {
    let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    for key in keys {
        match (from.get(key), to.get(key)) {
            (before, after) if before == after => {}
            (_, None) => drop(table.remove(key)),
            (before, Some(after)) => match (before, after, table.get_mut(key)) {
                (Some(Value::Table(before)), Value::Table(after), Some(inner)) if inner.is_table_like() => {
                    if let Some(inner) = inner.as_table_like_mut() {
                        edit_keys(inner, before, after);
                    }
                }
                (_, after, Some(Item::Value(value))) => {
                    let decor = value.decor().clone();
                    if let Item::Value(new) = item(after) {
                        *value = new;
                        *value.decor_mut() = decor;
                    }
                }
                (_, after, _) => drop(table.insert(key, item(after))),
            },
        }
    }
}

/// A value as it stands behind a key.
fn item(value: &Value) -> Item {
    value.to_string().parse::<toml_edit::Value>().map_or(Item::None, Item::Value)
}
