//! Settings of a command or a call that are refused or unset: null, `nan`, two values for one key; and files and values
//! that are too long.

use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> Settings {
    match value {
        Value::Object(settings) => settings,
        other => panic!("not an object: {other}"),
    }
}

/// The port after a change, or the refusal.
fn changed(set: Value) -> Result<PortConfig, String> {
    let switch =
        SwitchConfig { default_vlan: crate::model::VlanId(Vid::try_from(40).unwrap()), ..SwitchConfig::default() };
    let port = PortConfig::from_settings("a", "veth", &settings(&["peer=p", "mtu=9000", "vlan=20"]), &switch).unwrap();
    port.with_settings(&object(set), &switch).map_err(|error| error.to_string())
}

#[test]
fn null_unsets_a_known_key_and_no_other() {
    assert_eq!(changed(json!({"mtu": null})).unwrap().mtu, 1500);
    let of_switch = PortVlan::access(Vid::try_from(40).unwrap());
    assert_eq!(changed(json!({"vlan": null})).unwrap().vlan, of_switch);
    for known in [json!({"mac": null}), json!({"vlan.trunks": null}), json!({"storm": {"broadcast": null}})] {
        changed(known.clone()).unwrap_or_else(|error| panic!("{known}: {error}"));
    }
    for (set, begins) in [
        (json!({"nosuch": null}), "ports.a.nosuch: unknown key; known here: "),
        (json!({"mtuu": null}), "ports.a.mtuu: unknown key; did you mean `mtu`?"),
        (json!({"vlan": {"tagg": null}}), "ports.a.vlan.tagg: unknown key; did you mean `tag`?"),
        (json!({"vlan.tagg": null}), "ports.a.vlan.tagg: unknown key; did you mean `tag`?"),
        (json!({"device": null}), "ports.a.device: is a key of type af_xdp; this port is of type veth"),
        (json!({"type": null}), "ports.a.type: stays veth; "),
        (json!({"peer": null}), "ports.a: `peer` is missing"),
    ] {
        let error = changed(set.clone()).expect_err(begins);
        assert!(error.starts_with(begins), "{set}: {error}");
    }
    let impaired = |set: Value| ImpairConfig::from_settings("a", &object(set), &[]).map_err(|error| error.to_string());
    assert!(impaired(json!({"delay": "1ms", "loss": null})).is_ok());
    let error = impaired(json!({"delay": "1ms", "los": null})).unwrap_err();
    assert_eq!(error, "impair.a.los: unknown key; did you mean `loss`?");
}

#[test]
fn a_key_with_two_values_is_refused() {
    let twice = "ports.a.vlan.tag: given twice; keep one of the two";
    for set in [json!({"vlan": {"tag": 20}, "vlan.tag": 30}), json!({"vlan": "none", "vlan.tag": 30})] {
        assert_eq!(changed(set).unwrap_err(), twice);
    }
    assert_eq!(changed(Value::Object(settings(&["vlan=20", "tag=30"]))).unwrap_err(), twice);
    let tag = |set| changed(set).unwrap().vlan.tag().map(u16::from);
    assert_eq!(tag(json!({"vlan": {"mode": "access"}, "vlan.tag": 30})), Some(30));
    assert_eq!(tag(json!({"vlan": null, "vlan.tag": 30})), Some(30));
}

#[test]
fn numbers_that_are_none_are_refused_as_words() {
    for number in ["nan", "inf", "-inf"] {
        for (setting, begins) in [("mtu", "ports.a.mtu: should be "), ("nosuch", "ports.a.nosuch: unknown key")] {
            let set = settings(&[&format!("{setting}={number}")]);
            let error = changed(Value::Object(set)).unwrap_err();
            assert!(error.starts_with(begins), "{error}");
        }
        let list = settings(&[&format!("trunks=[{number}]")]);
        assert!(changed(Value::Object(list)).is_err());
    }
}

#[test]
fn a_file_has_a_bound_and_a_mistake_repeats_little_of_it() {
    let error = Config::read_text(Path::new("/dev/zero")).unwrap_err().to_string();
    assert_eq!(error, "/dev/zero: has more than 1048576 bytes");
    let most = usize::try_from(MAX_FILE_BYTES).unwrap();
    assert_eq!(Config::read_from("#".repeat(most).as_bytes(), "x").unwrap().len(), most);
    let long = "9".repeat(100_000);
    for text in [
        format!("[ports.a]\ntype = '{long}'\n"),
        format!("[ports.a]\ntype = 'vhost_user'\nmtu = '{long}'\n"),
        format!("[ports.a]\ntype = 'vhost_user'\nmtu = {long}\n"),
        format!("[ports.a]\ntype = 'vhost_user'\n{long} = 1\n"),
        format!("[ports.{long}]\ntype = 'vhost_user'\n"),
        format!("[ports.a]\ntype = 'veth'\npeer = '\"{long}'\n"),
        format!("[impair.{long}]\nloss = '1%'\n"),
        format!("[switch]\nsocket = '/{long}'\n"),
        format!("[mirrors.m]\nsources = ['{long}']\nto = '{long}'\n"),
        format!("[mirrors.m]\nsources = ['*']\nto = 'a'\nfilter = '{long}'\n"),
        format!("{long}\n"),
        format!("{long} = 1\n{long} = 2\n"),
    ] {
        let errors = Config::read(&text, "lab.toml").unwrap_err().to_string();
        let cut: String = text.chars().take(60).collect();
        assert!(errors.lines().all(|line| line.chars().count() < 1000), "{cut}: {} bytes", errors.len());
    }
    assert!(refusal("[ports.a]\ntype = 'x'\n").contains("\"x\""), "a short value is whole");
}

#[test]
fn a_wrong_name_is_named_once_with_its_article() {
    let inline = InlineConfig::from_settings("a b", &Settings::new(), None).unwrap_err();
    assert!(inline.to_string().starts_with("inline.a b: is not an inline name: use 1 to 32 of"), "{inline}");
    let error = refusal("[inline.'a b']\nof = 'a'\n");
    assert!(error.contains("\"a b\" is not an inline name"), "{error}");
}
