//! Settings of a command (`--set key=value`) and of the control socket, read by the same model as the file.
//!
//! The settings are a JSON object whose members are the keys of a table. A key with dots (`vlan.tag`) sets one value of
//! a table and leaves the others as they are; a table replaces the whole table; `null` unsets a key. A key that is not
//! known is refused, with null, too; and so are two values for one key (`vlan = { tag = 20 }` and `vlan.tag`).

use serde_json::{Map, Value};

use super::error::ConfigError;
use super::short;
use crate::model::{
    Diagnostic, ImpairConfig, InlineConfig, MirrorConfig, Path, PortConfig, ProfileConfig, Reader, SwitchConfig, Tree,
    names,
};

/// Settings by key.
pub type Settings = Map<String, Value>;

/// Splits `key=value` of a command line. The value is read as TOML if it is valid, otherwise as a string; [`short`] has
/// further spellings.
pub fn split(setting: &str) -> Result<(String, Value), ConfigError> {
    let wrong = || ConfigError::new(None, "", &format!("{setting:?} is not KEY=VALUE (as in vlan.tag=20)"));
    let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
    match key.trim() {
        "" => Err(wrong()),
        key => {
            let key = short::key(key);
            Ok((key.to_owned(), short::value(key, value_of(value.trim()))))
        }
    }
}

/// A value of TOML on one line; other text is a string, and so are values that JSON does not have: dates, `nan`, `inf`.
fn value_of(text: &str) -> Value {
    let one_line = !text.contains(['\n', '\r']);
    let parsed = one_line.then(|| toml::from_str::<toml::Table>(&format!("value = {text}")).ok()).flatten();
    let value = parsed.and_then(|mut table| table.remove("value")).filter(is_json);
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// True if JSON has such a value.
fn is_json(value: &toml::Value) -> bool {
    match value {
        toml::Value::Datetime(_) => false,
        toml::Value::Float(number) => number.is_finite(),
        toml::Value::Array(elements) => elements.iter().all(is_json),
        toml::Value::Table(table) => table.iter().all(|(_, value)| is_json(value)),
        _ => true,
    }
}

/// `base` with the settings of `set` applied.
fn merged(base: Settings, set: &Settings) -> Tree {
    Tree::from(&merged_json(base, set))
}

/// The same as [`merged`], as JSON.
fn merged_json(mut base: Settings, set: &Settings) -> Value {
    let [whole, single]: [Vec<_>; 2] =
        [false, true].map(|dotted| set.iter().filter(|(key, _)| key.contains('.') == dotted).collect());
    for (key, value) in whole.into_iter().chain(single) {
        put(&mut base, key, value);
    }
    Value::Object(base)
}

/// Sets the value of a dotted key.
fn put(table: &mut Settings, key: &str, value: &Value) {
    match key.split_once('.') {
        None if value.is_null() => drop(table.remove(key)),
        None => drop(table.insert(key.to_owned(), value.clone())),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Reads a table at `table.name`; the first mistake is the error.
fn read<T>([table, name]: [&str; 2], read: impl FnOnce(&mut Reader) -> Option<T>) -> Result<T, ConfigError> {
    let mut reader = Reader::at(Path::of([table, name]));
    let value = read(&mut reader);
    let wrong = |Diagnostic { path, message, .. }: Diagnostic| ConfigError::new(None, &path.to_string(), &message);
    let unread = || ConfigError::new(None, &Path::of([table, name]).to_string(), "cannot be read");
    reader.or_first(value).map_err(wrong)?.ok_or_else(unread)
}

/// Refuses two values for one key of the table at `table.name`.
fn check_once([table, name]: [&str; 2], set: &Settings) -> Result<(), ConfigError> {
    let wrong = |key: &str| {
        let path = Path::of(key.split('.')).behind(&Path::of([table, name]));
        ConfigError::new(None, &path.to_string(), "given twice; keep one of the two")
    };
    given_twice(set).map_or(Ok(()), |key| Err(wrong(key)))
}

/// Refuses unknown keys that are null. `tree` has the settings of `set`, which `read` reads at `table.name`.
fn check_unset<T>(
    [table, name]: [&str; 2],
    mut tree: Tree,
    set: &Settings,
    read: impl FnOnce(&Tree, &mut Reader) -> Option<T>,
) -> Result<(), ConfigError> {
    let at = Path::of([table, name]);
    let unset = unset(set);
    if unset.is_empty() {
        return Ok(());
    }
    unset.iter().for_each(|path| tree.set_nothing(path));
    let mut reader = Reader::at(at.clone());
    read(&tree, &mut reader);
    let is_unknown = |found: &Diagnostic| found.of_key && unset.iter().any(|path| path.behind(&at) == found.path);
    match reader.finish().into_iter().find(is_unknown) {
        Some(unknown) => Err(ConfigError::new(None, &unknown.path.to_string(), &unknown.message)),
        None => Ok(()),
    }
}

/// The first key with dots that has a value in the table of another key, too.
fn given_twice(set: &Settings) -> Option<&str> {
    let in_table = |key: &str| {
        key.match_indices('.').any(|(dot, _)| {
            let (table, rest) = key.split_at(dot);
            set.get(table).is_some_and(|value| has(value, rest.trim_start_matches('.')))
        })
    };
    set.keys().map(String::as_str).find(|key| in_table(key))
}

/// True if `value` has a value for the dotted `key`: as a table that has it, or in place of a table.
fn has(value: &Value, key: &str) -> bool {
    let Value::Object(table) = value else { return !value.is_null() };
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    table.get(first).is_some_and(|value| rest.is_empty() || has(value, rest))
}

/// The paths of the keys that are null.
fn unset(set: &Settings) -> Vec<Path> {
    let mut unset = Vec::new();
    for (key, value) in set {
        let path = Path::of(key.split('.'));
        match value {
            Value::Null => unset.push(path),
            Value::Object(table) => unset.extend(self::unset(table).iter().map(|inner| inner.behind(&path))),
            _ => {}
        }
    }
    unset
}

/// Checks the name of a new object; `what` is its kind, with the article.
fn check_name(name: &str, what: &str, reader: &mut Reader) {
    if let Err(wrong) = names::port(name) {
        reader.note(&Path::default(), true, format!("is not {what} name: {wrong}"));
    }
}

impl PortConfig {
    /// A port from a command: `labsw-ctl port add NAME --type TYPE --set KEY=VALUE…`; `switch` has defaults for
    /// settings that are left out.
    pub fn from_settings(
        name: &str,
        type_name: &str,
        set: &Settings,
        switch: &SwitchConfig,
    ) -> Result<PortConfig, ConfigError> {
        let mut tree = merged(Settings::new(), set);
        tree.set("type", Tree::text(type_name));
        PortConfig::check_settings(name, type_name, set, switch)?;
        read(["ports", name], |reader| {
            check_name(name, "a port", reader);
            PortConfig::read(name, &tree, switch, reader)
        })
    }

    /// Refuses unknown keys that are null, and two values for one key.
    fn check_settings(name: &str, type_name: &str, set: &Settings, switch: &SwitchConfig) -> Result<(), ConfigError> {
        let at = ["ports", name];
        check_once(at, set)?;
        let mut asked = merged(Settings::new(), set);
        asked.set("type", Tree::text(type_name));
        check_unset(at, asked, set, |tree, reader| PortConfig::read(name, tree, switch, reader))
    }

    /// Every setting of this port, by key, as [`PortConfig::from_settings`] takes them: without the type.
    pub fn to_settings(&self) -> Settings {
        let mut settings = json(&self.to_toml());
        settings.remove("type");
        settings
    }

    /// The port with this name and type and no settings except these, as in `labsw-ctl port replace`.
    pub fn replaced(&self, set: &Settings, switch: &SwitchConfig) -> Result<PortConfig, ConfigError> {
        self.check_type_stays(set)?;
        PortConfig::from_settings(&self.name, self.type_name(), set, switch)
    }

    fn check_type_stays(&self, set: &Settings) -> Result<(), ConfigError> {
        if !set.contains_key("type") {
            return Ok(());
        }
        let path = format!("ports.{}.type", self.name);
        let message = format!("stays {}; remove the port, then add it with the other type", self.type_name());
        Err(ConfigError::new(None, &path, &message))
    }

    /// This port with some settings changed, as in `labsw-ctl port set NAME KEY=VALUE…`. A new `vlan.mode` starts
    /// from an empty `vlan` table, so that the tag of an access port does not stay at a trunk.
    /// `switch` has defaults for settings that are unset.
    pub fn with_settings(&self, set: &Settings, switch: &SwitchConfig) -> Result<PortConfig, ConfigError> {
        self.check_type_stays(set)?;
        PortConfig::check_settings(&self.name, self.type_name(), set, switch)?;
        let mut base = json(&self.to_toml());
        if set.contains_key("vlan.mode") {
            base.remove("vlan");
        }
        let tree = merged(base, set);
        let name = &self.name;
        read(["ports", name], |reader| PortConfig::read(name, &tree, switch, reader))
    }
}

impl MirrorConfig {
    /// A mirror from a command: `labsw-ctl mirror set NAME …`; `before` has the settings that are left out.
    pub fn from_settings(
        name: &str,
        set: &Settings,
        before: Option<&MirrorConfig>,
    ) -> Result<MirrorConfig, ConfigError> {
        let tree = merged(before.map(|before| json(&before.to_toml())).unwrap_or_default(), set);
        check_once(["mirrors", name], set)?;
        read(["mirrors", name], |reader| {
            check_name(name, "a mirror", reader);
            MirrorConfig::read(name, &tree, reader)
        })
    }
}

impl InlineConfig {
    /// An inline sensor from a command: `labsw-ctl inline set NAME …`; `before` has the settings that are left out.
    pub fn from_settings(
        name: &str,
        set: &Settings,
        before: Option<&InlineConfig>,
    ) -> Result<InlineConfig, ConfigError> {
        let tree = merged(before.map(|before| json(&before.to_toml())).unwrap_or_default(), set);
        check_once(["inline", name], set)?;
        read(["inline", name], |reader| {
            check_name(name, "an inline", reader);
            InlineConfig::read(name, &tree, reader)
        })
    }
}

impl ImpairConfig {
    /// An impairment from a command: `labsw-ctl impair set PORT …`, with the profiles of the configuration.
    pub fn from_settings(port: &str, set: &Settings, profiles: &[ProfileConfig]) -> Result<ImpairConfig, ConfigError> {
        let tree = merged(Settings::new(), set);
        ImpairConfig::check_settings(port, set, profiles)?;
        read(["impair", port], |reader| ImpairConfig::read(port, &tree, profiles, reader))
    }

    /// Refuses unknown keys that are null, and two values for one key.
    fn check_settings(port: &str, set: &Settings, profiles: &[ProfileConfig]) -> Result<(), ConfigError> {
        let at = ["impair", port];
        check_once(at, set)?;
        let asked = merged(Settings::new(), set);
        check_unset(at, asked, set, |tree, reader| ImpairConfig::read(port, tree, profiles, reader))
    }

    /// This impairment with some settings changed, in the directions that `set` names; the result has only these
    /// directions. A new profile starts from an empty table. Setting `loss` removes `gemodel`, and the
    /// reverse.
    pub fn with_settings(&self, set: &Settings, profiles: &[ProfileConfig]) -> Result<ImpairConfig, ConfigError> {
        let begins_anew = ["profile", "rx", "tx"].iter().any(|key| set.contains_key(*key));
        let directions = match set.get("direction").and_then(Value::as_str) {
            Some("rx") => [self.rx.as_ref(), None],
            Some("tx") => [None, self.tx.as_ref()],
            None | Some("both") => [self.rx.as_ref(), self.tx.as_ref()],
            Some(_) => [None, None],
        };
        if begins_anew || directions == [None, None] {
            return ImpairConfig::from_settings(&self.port, set, profiles);
        }
        ImpairConfig::check_settings(&self.port, set, profiles)?;
        let mut set = set.clone();
        let direction = set.remove("direction");
        let mut tables = Map::new();
        for (key, before) in ["rx", "tx"].into_iter().zip(directions) {
            if direction.as_ref().and_then(Value::as_str).is_none_or(|wanted| wanted == "both" || wanted == key) {
                let mut base = before.map(|before| json(&before.to_toml())).unwrap_or_default();
                for (one, other) in [("loss", "gemodel"), ("gemodel", "loss")] {
                    if set.contains_key(one) {
                        base.remove(other);
                    }
                }
                let Value::Object(table) = merged_json(base, &set) else { continue };
                tables.insert(key.to_owned(), Value::Object(table));
            }
        }
        let tree = Tree::from(&Value::Object(tables));
        let port = &self.port;
        read(["impair", port], |reader| ImpairConfig::read(port, &tree, profiles, reader))
    }
}

/// A table of the configuration as settings.
fn json(table: &toml::Table) -> Settings {
    match serde_json::to_value(table) {
        Ok(Value::Object(fields)) => fields,
        _ => Settings::new(),
    }
}
