//! `--keep-runtime`: changes made at run time stay, whatever the file says.
//!
//! Three configurations are merged setting by setting: `base`, which the switch was started with or last given,
//! `running`, its present configuration, and `wanted`, the new file. Where `running` differs from `base`, the setting
//! was changed at run time and is kept; elsewhere `wanted` counts. The settings are those of the tables `[switch]`,
//! `[ports.NAME]` and `[mirrors.NAME]`; `vlan` is one of them. A port whose type was changed is kept or replaced as a
//! whole, and so is an impairment.
//!
//! The result may contradict itself (a mirror of the file to a port removed at run time): [`Config::parse`] then
//! reports that.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::config::Config;

/// The wanted configuration, with the changes made at run time.
pub fn keep_runtime(base: &Config, running: &Config, wanted: &Config) -> Table {
    let [base, running, wanted] = [base, running, wanted].map(|config| config.normalised().to_toml());
    merge(&base, &running, &wanted, |key, base, running, wanted| {
        Some(Value::Table(match key {
            // The settings of an impairment depend on each other, so each impairment is kept or replaced as a whole.
            "switch" | "profiles" | "impair" => merge(&table(base), &table(running), &table(wanted), setting),
            _ => merge(&table(base), &table(running), &table(wanted), named),
        }))
    })
}

/// The rule that merges the values of one key: those of base, running and wanted.
type Rule = fn(&str, Option<&Value>, Option<&Value>, Option<&Value>) -> Option<Value>;

fn merge(base: &Table, running: &Table, wanted: &Table, rule: Rule) -> Table {
    let keys: BTreeSet<&String> = running.keys().chain(wanted.keys()).collect();
    let merged = |key: &String| Some((key.clone(), rule(key, base.get(key), running.get(key), wanted.get(key))?));
    keys.into_iter().filter_map(merged).collect()
}

/// Merges a port or a mirror.
fn named(key: &str, base: Option<&Value>, running: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
    match (running, wanted) {
        (Some(Value::Table(running)), Some(Value::Table(wanted))) if running.get("type") == wanted.get("type") => {
            Some(Value::Table(merge(&table(base), running, wanted, setting)))
        }
        _ => setting(key, base, running, wanted),
    }
}

fn setting(_: &str, base: Option<&Value>, running: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
    if running == base { wanted.cloned() } else { running.cloned() }
}

fn table(value: Option<&Value>) -> Table {
    value.and_then(Value::as_table).cloned().unwrap_or_default()
}
