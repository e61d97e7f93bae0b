//! Checks references between the nouns of a configuration: ports that claim the same thing, mirrors from and to
//! existing ports, inline sensors at existing ports, impairments of existing ports.

use super::Config;
use crate::model::{Diagnostic, Path, PortConfig, nearest};

/// The contradictions between nouns that are valid each by itself.
pub fn validate(config: &Config) -> Vec<Diagnostic> {
    let ports: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
    among(config, &ports)
}

/// The same as [`validate`]; `ports` are all port names, including ports that could not be read.
pub(super) fn among(config: &Config, ports: &[&str]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut note = |path: Path, message: String| found.push(Diagnostic { path, of_key: false, message });
    for (number, port) in config.ports.iter().enumerate() {
        let before: &[PortConfig] = config.ports.get(..number).unwrap_or_default();
        if let Err((key, message)) = port.conflict(before, &config.switch) {
            note(at(["ports", &port.name], key), message);
        }
    }
    for (number, mirror) in config.mirrors.iter().enumerate() {
        let table = ["mirrors", &mirror.name];
        if let Some((key, name)) = mirror.missing_port(ports) {
            note(at(table, key), no_port(name, ports));
            continue;
        }
        if let Err(refusal) = mirror.check_beside(config.mirrors.get(..number).unwrap_or_default(), &config.ports) {
            note(at(table, refusal.key()), refusal.to_string());
        }
    }
    for (number, inline) in config.inlines.iter().enumerate() {
        let table = ["inline", &inline.name];
        if let Some((key, name)) = inline.missing_port(ports) {
            note(at(table, key), no_port(name, ports));
            continue;
        }
        let before = config.inlines.get(..number).unwrap_or_default();
        if let Err((key, refusal)) = inline.check_beside(before, &config.mirrors, &config.ports) {
            note(at(table, key), refusal.to_string());
        }
    }
    for impairment in config.impairments.iter().filter(|impairment| !ports.contains(&impairment.port.as_str())) {
        note(Path::of(["impair", &impairment.port]), no_port(&impairment.port, ports));
    }
    found
}

/// The path of `key` in a table; without a key, of the table.
fn at(table: [&str; 2], key: &str) -> Path {
    let path = Path::of(table);
    if key.is_empty() { path } else { path.key(key) }
}

/// The error about a port that does not exist.
pub(super) fn no_port(name: &str, ports: &[&str]) -> String {
    match nearest(name, ports) {
        Some(near) => format!("there is no port {name:?}; did you mean {near:?}?"),
        None => format!("there is no port {name:?}; add it under [ports], or name one that is there"),
    }
}
