//! Settings of a command (`--set key=value`) as a piece of configuration, so that they are read by the same code.
//!
//! Each setting becomes one line of TOML. A value that is a TOML value stays as it is; anything else is a bare
//! string and gets its quotes here.

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::section::{Section, Source};

/// Writes `set` down as the table called `path` and hands it to `read`.
pub(super) fn read<T>(
    path: &str,
    set: &[(String, String)],
    read: impl FnOnce(&Section<'_>) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let mut text = String::new();
    for (key, value) in set {
        let legal =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if !key.split('.').all(legal) {
            return Err(ConfigError::new(None, path, &format!("{key:?} is not a key (as in mtu or vlan.tag)")));
        }
        let one_line = !value.contains(['\n', '\r']);
        if one_line && DeValue::parse(value).is_ok() {
            text.push_str(&format!("{key} = {value}\n"));
        } else {
            text.push_str(&format!("{key} = {}\n", quoted(value)));
        }
    }
    let source = Source { file: None, text: &text };
    let table = DeTable::parse(&text).map_err(|error| source.parse_error(path, &error))?;
    read(&Section::root(source, path, &table))
}

/// A TOML string on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut string = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => string.extend(['\\', c]),
            c if c.is_control() => string.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => string.push(c),
        }
    }
    string.push('"');
    string
}

/// Splits `key=value` of a command line.
pub fn split(setting: &str) -> Result<(String, String), ConfigError> {
    match setting.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(ConfigError::new(None, "", &format!("{setting:?} is not KEY=VALUE (as in vlan.tag=20)"))),
    }
}
