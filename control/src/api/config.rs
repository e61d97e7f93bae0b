//! Configurations: as they are handed in, and what they change.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::parameters::name;

/// What becomes of a port, a mirror or the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigAction {
    /// It comes.
    Add,
    /// Settings of it change.
    Change,
    /// It is attached anew: frames at this port are lost for a moment.
    Remake,
    /// It goes.
    Remove,
}

/// What becomes of one port, one mirror, or the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// What becomes of it.
    pub action: ConfigAction,
    /// `switch`, `port`, `mirror`, `impairment` or `profile`.
    pub kind: String,
    /// Name of the port or mirror; empty for the switch.
    pub name: String,
    /// The settings that differ, by key.
    pub settings: Vec<ConfigSetting>,
    /// Something of it was changed at run time, and would be undone.
    pub drift: bool,
}

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSetting {
    /// The key, keys of tables with a dot.
    pub key: String,
    /// The value that runs, in TOML; null: none.
    pub running: Option<String>,
    /// The value that is wanted, in TOML; null: none.
    pub wanted: Option<String>,
    /// It was changed at run time.
    pub drift: bool,
    /// Only a new start of the daemon can change it.
    pub restart: bool,
}

/// The configuration that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownConfig {
    /// As a file.
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
            ConfigAction::Remake => out.write_str(" is attached anew")?,
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
    /// What messages call it.
    #[serde(deserialize_with = "name")]
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// A configuration file that is wanted, and what becomes of changes made at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WantedKeys", into = "WantedKeys")]
pub struct WantedConfig {
    /// The configuration.
    pub config: ConfigText,
    /// What was changed at run time would stay.
    pub keep_runtime: bool,
}

/// The parameters that a [`WantedConfig`] is.
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
