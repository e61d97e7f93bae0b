//! The configuration file and the settings of commands.

use labsw_control::config::{Config, ConfigError, PortConfig, Settings, SwitchConfig, split_setting};

/// Reads the bytes as a configuration file, then each line as a `--set` of a command.
///
/// # Panics
/// When a refusal is not one line with a place in the file, or what was accepted does not read back as the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, "lab.toml") {
        Ok(config) => {
            let written = config.to_toml().to_string();
            let again = Config::parse(&written, "written.toml").unwrap_or_else(|e| panic!("{e}\n{written}"));
            assert_eq!(in_order(again), in_order(config), "{written}");
        }
        Err(error) => {
            check(&error);
            let place = error.place().unwrap_or_else(|| panic!("no place: {error}"));
            let line =
                text.split('\n').nth(place.line.wrapping_sub(1)).unwrap_or_else(|| panic!("no such line: {error}"));
            assert!((1..=line.chars().count() + 1).contains(&place.column), "no such column: {error}");
        }
    }
    let set: Settings =
        text.split('\n').take(8).filter_map(|line| split_setting(line).map_err(|e| check(&e)).ok()).collect();
    for port_type in ["vhost_user", "af_xdp", "veth"] {
        match PortConfig::from_settings("p", port_type, &set, &SwitchConfig::default()) {
            Ok(port) => {
                let changed = port.with_settings(&set, &SwitchConfig::default());
                changed.map_or_else(|error| check(&error), |changed| assert_eq!(changed, port));
            }
            Err(error) => check(&error),
        }
    }
}

/// All tables in order of name.
fn in_order(mut config: Config) -> Config {
    config.ports.sort_by(|a, b| a.name.cmp(&b.name));
    config.mirrors.sort_by(|a, b| a.name.cmp(&b.name));
    config.profiles.sort_by(|a, b| a.name.cmp(&b.name));
    config.impairments.sort_by(|a, b| a.port.cmp(&b.port));
    config
}

fn check(error: &ConfigError) {
    let line = error.to_string();
    assert!(!error.message().is_empty() && line.lines().count() == 1, "not one line: {line:?}");
    assert!(!line.contains(|c: char| c.is_control()), "control characters: {line:?}");
}
