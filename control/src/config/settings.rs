//! Settings of a command (`--set key=value`) and of the control socket, read by the same model as the file.
//!
//! The settings are a JSON object whose members are the keys of a table. A key with dots (`vlan.tag`) sets one value of
//! a table and leaves the others as they are; a table replaces the whole table; `null` unsets a key.

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

/// A value of TOML on one line; other text is a string.
fn value_of(text: &str) -> Value {
    let one_line = !text.contains(['\n', '\r']);
    let parsed = one_line.then(|| toml::from_str::<toml::Table>(&format!("value = {text}")).ok()).flatten();
    let value = parsed.and_then(|mut table| table.remove("value")).filter(|value| !value.is_datetime());
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_else(|| Value::String(text.to_owned()))
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

/// Checks the name of a new object; `what` is its kind.
fn check_name(name: &str, what: &str, reader: &mut Reader) {
    if let Err(wrong) = names::port(name) {
        reader.note(&Path::default(), true, format!("{name:?} is not a {what} name: {wrong}"));
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
        read(["ports", name], |reader| {
            check_name(name, "port", reader);
            PortConfig::read(name, &tree, switch, reader)
        })
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
    pub fn with_settings(&self, set: &Settings) -> Result<PortConfig, ConfigError> {
        self.check_type_stays(set)?;
        let mut base = json(&self.to_toml());
        if set.contains_key("vlan.mode") {
            base.remove("vlan");
        }
        let tree = merged(base, set);
        // Every key is set, so no default of the switch applies.
        let switch = SwitchConfig::default();
        read(["ports", &self.name], |reader| PortConfig::read(&self.name, &tree, &switch, reader))
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
        read(["mirrors", name], |reader| {
            check_name(name, "mirror", reader);
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
        read(["inline", name], |reader| {
            check_name(name, "inline", reader);
            InlineConfig::read(name, &tree, reader)
        })
    }
}

impl ImpairConfig {
    /// An impairment from a command: `labsw-ctl impair set PORT …`, with the profiles of the configuration.
    pub fn from_settings(port: &str, set: &Settings, profiles: &[ProfileConfig]) -> Result<ImpairConfig, ConfigError> {
        let tree = merged(Settings::new(), set);
        read(["impair", port], |reader| ImpairConfig::read(port, &tree, profiles, reader))
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
