//! Configurations: the text that a client sends, and the changes that result.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::parameters::name;

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigAction {
    /// The object is added.
    Add,
    /// Settings of the object change.
    Change,
    /// The port is re-attached: it loses frames for a moment.
    Remake,
    /// The object is removed.
    Remove,
}

/// The kind of thing that a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigKind {
    /// The `[switch]` table.
    Switch,
    /// A port.
    Port,
    /// A mirror.
    Mirror,
    /// An impairment profile.
    Profile,
    /// The impairment of a port, which has the port's name.
    Impairment,
}

impl fmt::Display for ConfigKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            ConfigKind::Switch => "switch",
            ConfigKind::Port => "port",
            ConfigKind::Mirror => "mirror",
            ConfigKind::Profile => "profile",
            ConfigKind::Impairment => "impairment",
        })
    }
}

/// The change of one port, mirror, impairment or profile, or of the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// The kind of the change.
    pub action: ConfigAction,
    /// The kind of the thing that changes.
    pub kind: ConfigKind,
    /// Name of the port, mirror or profile; empty for the switch.
    pub name: String,
    /// The settings that differ, by key.
    pub settings: Vec<ConfigSetting>,
    /// True if the object was changed at run time, and the change would undo that.
    pub drift: bool,
}

/// A setting that differs between the running and the wanted configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSetting {
    /// The key; keys of tables are joined by dots.
    pub key: String,
    /// The running value, in TOML; null: none.
    pub running: Option<String>,
    /// The wanted value, in TOML; null: none.
    pub wanted: Option<String>,
    /// True if the setting was changed at run time.
    pub drift: bool,
    /// True if only a restart of the daemon can change the setting.
    pub restart: bool,
}

/// The running configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownConfig {
    /// The configuration as the text of a file.
    pub text: String,
    /// The same as tables: `switch`, `ports`, `mirrors`.
    pub config: serde_json::Value,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            ConfigAction::Add => '+',
            ConfigAction::Change => '~',
            ConfigAction::Remake => '!',
            ConfigAction::Remove => '-',
        };
        write!(out, "{sign} {}", self.kind)?;
        if !self.name.is_empty() {
            write!(out, " {}", self.name)?;
        }
        match self.action {
            ConfigAction::Remake => out.write_str(" is re-attached")?,
            ConfigAction::Add | ConfigAction::Remove if self.drift => return out.write_str(" (changed at run time)"),
            ConfigAction::Add | ConfigAction::Remove => return Ok(()),
            ConfigAction::Change => {}
        }
        for (number, setting) in self.settings.iter().enumerate() {
            out.write_str(if number == 0 { ": " } else { ", " })?;
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
            write!(out, "{} {} -> {}", setting.key, value(&setting.running), value(&setting.wanted))?;
            if setting.drift {
                out.write_str(" (changed at run time)")?;
            }
            if setting.restart {
                out.write_str(" (needs a restart)")?;
            }
        }
        Ok(())
    }
}

/// A configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// The name of the file in messages.
    #[serde(deserialize_with = "name")]
    pub file: String,
    /// The content of the file.
    pub text: String,
}

/// The wanted configuration, and the treatment of changes made at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WantedKeys", into = "WantedKeys")]
pub struct WantedConfig {
    /// The configuration.
    pub config: ConfigText,
    /// Keeps changes made at run time.
    pub keep_runtime: bool,
}

/// A [`WantedConfig`] as the parameters of a call.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedKeys {
    #[serde(deserialize_with = "name")]
    file: String,
    text: String,
    #[serde(default)]
    keep_runtime: bool,
}

impl From<WantedKeys> for WantedConfig {
    fn from(WantedKeys { file, text, keep_runtime }: WantedKeys) -> WantedConfig {
        WantedConfig { config: ConfigText { file, text }, keep_runtime }
    }
}

impl From<WantedConfig> for WantedKeys {
    fn from(WantedConfig { config: ConfigText { file, text }, keep_runtime }: WantedConfig) -> WantedKeys {
        WantedKeys { file, text, keep_runtime }
    }
}
