//! The options of the NixOS module are the keys of the model, each of them.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::model::de::keys;

/// The names of options between two marks of the module's file.
fn options(text: &str, from: &str, to: &str) -> BTreeSet<String> {
    let (_, rest) = text.split_once(from).unwrap();
    let (part, _) = rest.split_once(to).unwrap();
    let name = |line: &str| {
        let (name, value) = line.trim_start().split_once(" = ")?;
        let is_option = value.starts_with("optional ") || value.starts_with("mkOption ");
        is_option.then(|| name.trim_matches('"').to_owned())
    };
    part.lines().filter_map(name).collect()
}

#[test]
fn options_of_the_module_are_the_keys_of_the_model() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nix/module/settings.nix");
    let text = std::fs::read_to_string(file).unwrap();
    let set = |keys: &[&str]| -> BTreeSet<String> { keys.iter().map(|key| (*key).to_owned()).collect() };
    let ports = set(&[PortConfig::keys(), vec!["type"]].concat());
    assert_eq!(options(&text, "port = types.submodule {", "mirror = types.submodule {"), ports);
    let mirrors = set(&MirrorConfig::keys());
    assert_eq!(options(&text, "mirror = types.submodule {", "withoutNulls ="), mirrors);
    let switch = set(keys::<SwitchConfig>());
    assert_eq!(options(&text, "description = \"The `[switch]` table.\";", "ports = mkOption {"), switch);
    let vlan = set(keys::<crate::api::Vlan>());
    assert_eq!(options(&text, "vlanTable = types.submodule {", "vlanSettings ="), vlan);
}
