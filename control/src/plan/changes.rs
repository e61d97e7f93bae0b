//! The difference of two configurations for people and scripts: the changes of ports, mirrors, inline sensors,
//! impairments and settings.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::api::{ConfigAction, ConfigChange, ConfigKind, ConfigSetting};
use crate::config::Config;

/// The kinds of objects, and the table of each.
const GROUPS: [(ConfigKind, &str); 6] = [
    (ConfigKind::Switch, "switch"),
    (ConfigKind::Port, "ports"),
    (ConfigKind::Mirror, "mirrors"),
    (ConfigKind::Inline, "inline"),
    (ConfigKind::Profile, "profiles"),
    (ConfigKind::Impairment, "impair"),
];

/// The changes that turn `running` into `wanted`: the switch, ports, mirrors, profiles and impairments, by name. `base`
/// is the configuration that the switch was last given; differences from it were made at run time.
pub fn changes(base: &Config, running: &Config, wanted: &Config) -> Vec<ConfigChange> {
    let remade: BTreeSet<String> = {
        let (running, wanted) = (running.normalised(), wanted.normalised());
        let kind_of = |name: &str| running.port(name).map(|port| port.kind.clone());
        let differs = |port: &&crate::config::PortConfig| kind_of(&port.name).is_some_and(|kind| kind != port.kind);
        wanted.ports.iter().filter(differs).map(|port| port.name.clone()).collect()
    };
    let restart = running.switch.restart_keys(&wanted.switch);
    let [base, running, wanted] = [base, running, wanted].map(|config| config.normalised().to_toml());
    let mut found = Vec::new();
    for (kind, group) in GROUPS {
        let [base, running, wanted] = [&base, &running, &wanted].map(|all| named(all, group));
        let names: BTreeSet<&String> = running.keys().chain(wanted.keys()).collect();
        for name in names {
            let [base, running, wanted] = [&base, &running, &wanted].map(|all| all.get(name).and_then(Value::as_table));
            let action = match (running, wanted) {
                (Some(running), Some(wanted)) if running == wanted => continue,
                (Some(_), Some(_)) if kind == ConfigKind::Port && remade.contains(name) => ConfigAction::Remake,
                (Some(_), Some(_)) => ConfigAction::Change,
                (None, _) => ConfigAction::Add,
                (_, None) => ConfigAction::Remove,
            };
            let settings = settings(running, wanted, base, if kind == ConfigKind::Switch { &restart } else { &[] });
            found.push(ConfigChange {
                action,
                kind,
                name: if kind == ConfigKind::Switch { String::new() } else { name.clone() },
                drift: settings.iter().any(|setting| setting.drift),
                settings,
            });
        }
    }
    found
}

/// The tables of a group by name; the table of the switch has the group's name.
fn named(all: &Table, group: &str) -> Table {
    match all.get(group) {
        Some(Value::Table(table)) if group == "switch" => Table::from_iter([(group.to_owned(), table.clone().into())]),
        Some(Value::Table(tables)) => tables.clone(),
        _ => Table::new(),
    }
}

fn settings(
    running: Option<&Table>,
    wanted: Option<&Table>,
    base: Option<&Table>,
    restart: &[&str],
) -> Vec<ConfigSetting> {
    let [running, wanted, base] = [running, wanted, base].map(|table| table.map(flat).unwrap_or_default());
    let keys: BTreeSet<&String> = running.keys().chain(wanted.keys()).collect();
    let differs = keys.into_iter().filter(|key| running.get(*key) != wanted.get(*key));
    let setting = |key: &String| {
        let text = |table: &Table| table.get(key).map(Value::to_string);
        ConfigSetting {
            key: key.clone(),
            running: text(&running),
            wanted: text(&wanted),
            drift: running.get(key) != base.get(key),
            restart: restart.contains(&key.as_str()),
        }
    };
    differs.map(setting).collect()
}

/// The table with nested tables flattened: their keys are joined by a dot.
fn flat(table: &Table) -> Table {
    let mut flat = Table::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                flat.extend(inner.iter().map(|(inner, value)| (format!("{key}.{inner}"), value.clone())));
            }
            value => drop(flat.insert(key.clone(), value.clone())),
        }
    }
    flat
}
