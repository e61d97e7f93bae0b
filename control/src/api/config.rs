//! Configurations: the text that a client sends, and the changes that result.

use std::fmt;
use std::time::Duration;

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
    /// A sensor in the wire of a port.
    Inline,
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
            ConfigKind::Inline => "inline",
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
    /// Name of the port, mirror, sensor or profile; empty for the switch.
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
    /// The file that the switch was started with, an absolute path.
    #[serde(default)]
    pub file: String,
    /// The configuration that waits for its confirmation, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Unconfirmed>,
}

/// A configuration that is taken back unless somebody confirms it in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// The name of the file that was applied.
    pub file: String,
    /// Milliseconds that are left.
    pub milliseconds_left: u64,
}

/// `lab.toml waits 23s more for its confirmation`.
impl fmt::Display for Unconfirmed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = Duration::from_secs(self.milliseconds_left.div_ceil(1000));
        write!(out, "{} waits {} more for its confirmation", self.file, humantime::format_duration(left))
    }
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

/// A configuration to apply, for good or on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AppliedKeys", into = "AppliedKeys")]
pub struct AppliedConfig {
    /// The configuration, and the treatment of changes made at run time.
    pub wanted: WantedConfig,
    /// The configuration is taken back after so many milliseconds, unless somebody confirms it.
    pub confirm_milliseconds: Option<u64>,
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

/// An [`AppliedConfig`] as the parameters of a call.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppliedKeys {
    #[serde(deserialize_with = "name")]
    file: String,
    text: String,
    #[serde(default)]
    keep_runtime: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirm_milliseconds: Option<u64>,
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

impl From<AppliedKeys> for AppliedConfig {
    fn from(AppliedKeys { file, text, keep_runtime, confirm_milliseconds }: AppliedKeys) -> AppliedConfig {
        AppliedConfig { wanted: WantedKeys { file, text, keep_runtime }.into(), confirm_milliseconds }
    }
}

impl From<AppliedConfig> for AppliedKeys {
    fn from(AppliedConfig { wanted, confirm_milliseconds }: AppliedConfig) -> AppliedKeys {
        let WantedKeys { file, text, keep_runtime } = wanted.into();
        AppliedKeys { file, text, keep_runtime, confirm_milliseconds }
    }
}
