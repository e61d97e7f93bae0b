//! Short spellings of a port's VLANs in settings of a command, for those who know `ovs-vsctl` and `ip`.
//!
//! `tag=20`, `trunks=10,20-29` and `vlan_mode=trunk` are the keys of Open vSwitch (ovs-vsctl(8)) for `vlan.tag`,
//! `vlan.trunks` and `vlan.mode`. `vlan=20` is an access port of that VLAN, `vlan=10,20-29` a trunk of those. Lists
//! have commas, with or without the brackets of TOML.

use serde_json::{Map, Value};

/// The key that a short one stands for.
pub(super) fn key(key: &str) -> &str {
    match key {
        "tag" => "vlan.tag",
        "trunks" => "vlan.trunks",
        "cvlans" => "vlan.cvlans",
        "vlan_mode" => "vlan.mode",
        other => other,
    }
}

/// The value behind a [`key`], if it is one of VLANs; otherwise as it is.
pub(super) fn value(key: &str, value: Value) -> Value {
    match key {
        "vlan.trunks" | "vlan.cvlans" => list(value),
        "vlan" => match list(value) {
            Value::Array(ids) => match (ids.len(), ids.first()) {
                (1, Some(tag @ Value::Number(_))) => table("access", "tag", tag.clone()),
                _ => table("trunk", "trunks", Value::Array(ids)),
            },
            other => other,
        },
        _ => value,
    }
}

/// A number or a text of VLANs as a list; other values as they are.
fn list(value: Value) -> Value {
    match value {
        Value::Number(_) => Value::Array(vec![value]),
        Value::String(text) if text.starts_with(|first: char| first.is_ascii_digit()) => {
            let ids = text.split(',').map(str::trim);
            Value::Array(ids.map(|id| id.parse::<u16>().map_or_else(|_| id.into(), Value::from)).collect())
        }
        other => other,
    }
}

fn table(mode: &str, key: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([("mode".to_owned(), mode.into()), (key.to_owned(), value)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::split_setting;

    #[test]
    fn vlans_may_be_spelt_as_in_open_vswitch_and_shorter() {
        for (setting, key, value) in [
            ("tag=20", "vlan.tag", json!(20)),
            ("vlan.tag=20", "vlan.tag", json!(20)),
            ("trunks=10,20-29", "vlan.trunks", json!([10, "20-29"])),
            ("vlan.trunks=10, 20-29", "vlan.trunks", json!([10, "20-29"])),
            ("trunks=10", "vlan.trunks", json!([10])),
            ("trunks=20-29", "vlan.trunks", json!(["20-29"])),
            ("trunks=[10, \"20-29\"]", "vlan.trunks", json!([10, "20-29"])),
            ("cvlans=0,10", "vlan.cvlans", json!([0, 10])),
            ("vlan_mode=native-untagged", "vlan.mode", json!("native-untagged")),
            ("vlan=20", "vlan", json!({"mode": "access", "tag": 20})),
            ("vlan=10,20-29", "vlan", json!({"mode": "trunk", "trunks": [10, "20-29"]})),
            ("vlan=20-29", "vlan", json!({"mode": "trunk", "trunks": ["20-29"]})),
            ("vlan={tag=20}", "vlan", json!({"tag": 20})),
            ("vlan=none", "vlan", json!("none")),
            ("mtu=9000", "mtu", json!(9000)),
        ] {
            assert_eq!(split_setting(setting).unwrap(), (key.to_owned(), value), "{setting}");
        }
    }
}
