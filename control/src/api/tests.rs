//! The contract: requests survive the wire, bad ones are named, and the interface description says what the types say.

use labsw_switch::vlan::{PortVlan, VlanMode};
use serde_json::{Map, Value, json};

use self::samples::{reply_to, requests, status};
use super::*;

mod interface;
mod samples;
mod types;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("not an object: {other}"),
    }
}

/// The parameters that a message with this reply or error has.
fn parameters(answer: &impl serde::Serialize) -> Map<String, Value> {
    object(json!(answer)["parameters"].take())
}

#[test]
fn requests_and_replies_survive_the_wire() {
    for request in requests() {
        let method = format!("{INTERFACE}.{}", request.method());
        assert_eq!(Request::parse(&method, object(request.to_parameters())), Ok(request.clone()));
        let reply = reply_to(&request);
        assert_eq!(Reply::parse(request.method(), parameters(&reply)).unwrap(), reply);
    }
}

#[test]
fn errors_survive_the_wire() {
    let errors = [
        Error::not_found("port", "dc01"),
        Error::refused("port \"dc01\"", "the VLAN is missing"),
        Error::invalid_setting("impairment of \"dc01\"", "delay", "is not a time"),
        Error::PermissionDenied { reason: "root only".into() },
        Error::invalid("vlan"),
        Error::MethodNotFound { method: "a.B".into() },
        Error::MethodNotImplemented { method: "a.B".into() },
        Error::InterfaceNotFound { interface: "a".into() },
        Error::ExpectedMore {},
    ];
    for error in errors {
        let name = json!(error)["error"].take();
        assert_eq!(Error::parse(name.as_str().unwrap(), &parameters(&error)), Some(error));
    }
    assert_eq!(Error::parse("org.example.Odd", &Map::new()), None);
}

#[test]
fn a_refusal_says_for_programs_what_it_is_about() {
    let about = |error: &Error| Value::Object(parameters(error));
    let wrong = Error::invalid_setting("impairment of \"dc01\"", "delay", "delay: is not a time");
    let expected = json!({
        "object": "impairment of \"dc01\"", "reason": "delay: is not a time", "code": "invalid",
        "kind": "impairment", "name": "dc01", "key": "delay"
    });
    assert_eq!(about(&wrong), expected);
    let busy = json!({
        "object": "port \"dc01\"", "reason": "in use", "code": "impossible", "kind": "port", "name": "dc01"
    });
    assert_eq!(about(&Error::refused("port \"dc01\"", "in use")), busy);
    let elsewhere = json!({"object": "filters", "reason": "too many", "code": "impossible"});
    assert_eq!(about(&Error::refused("filters", "too many")), elsewhere);
}

#[test]
fn a_null_in_settings_arrives() {
    let settings = object(json!({"mtu": null, "vlan": {"tag": null}}));
    for (method, parameters) in [
        ("AddPort", json!({"name": "a", "type": "veth", "settings": settings})),
        ("SetPort", json!({"name": "a", "settings": settings, "replace": null})),
        ("SetImpairment", json!({"port": "a", "settings": settings})),
    ] {
        let request = Request::parse(&format!("{INTERFACE}.{method}"), object(parameters)).unwrap();
        assert_eq!(request.to_parameters()["settings"], json!(settings), "{method}");
    }
}

#[test]
fn bad_parameters_are_named() {
    for (method, parameters, culprit) in [
        ("GetStatus", json!({"verbose": true}), "verbose"),
        ("ShowPort", json!({}), "name"),
        ("ShowPort", json!({"name": 7}), "name"),
        ("ShowPort", json!({"name": ""}), "name"),
        ("ListFdb", json!({"vlan": 0}), "vlan"),
        ("ListFdb", json!({"vlan": 4095}), "vlan"),
        ("ListFdb", json!({"vlan": 70000}), "vlan"),
        ("ListFdb", json!({"vlan": "20"}), "vlan"),
        ("ListMulticast", json!({"vlan": 4095}), "vlan"),
        ("AddFdb", json!({"vlan": 20, "mac": "52:54:00", "port": "a"}), "mac"),
        ("DeleteFdb", json!({"mac": "52:54:00:12:34:56"}), "vlan"),
        ("AddPort", json!({"name": "a", "type": "bridge"}), "type"),
        ("AddPort", json!({"name": "a", "type": "veth", "settings": ["peer"]}), "settings"),
        ("SetPortState", json!({"name": "a", "up": "yes"}), "up"),
        ("TraceFrame", json!({"port": "", "frame": "00"}), "port"),
        ("TraceFrame", json!({"port": "a"}), "frame"),
        ("TraceFrame", json!({"port": "a", "frame": ""}), "frame"),
        ("TraceFrame", json!({"port": "a", "frame": "0"}), "frame"),
        ("TraceFrame", json!({"port": "a", "frame": "zz"}), "frame"),
        ("TraceFrame", json!({"port": "a", "frame": "00".repeat(MAX_TRACED_BYTES + 1)}), "frame"),
        ("FlapPort", json!({"name": "a", "every_milliseconds": "2s", "count": 1}), "every_milliseconds"),
        ("FlapPort", json!({"name": "a", "every_milliseconds": 2000}), "count"),
        ("PinQueue", json!({"port": "a", "queue": -1, "worker": 0}), "queue"),
        ("PinQueue", json!({"port": "a", "queue": 0, "worker": "one"}), "worker"),
        ("SetImpairment", json!({"port": "a", "settings": "seed"}), "settings"),
        ("ClearImpairment", json!({}), "port"),
        ("ClearImpairment", json!({"port": "a", "direction": "both"}), "direction"),
        ("ApplyConfig", json!({"file": "lab.toml"}), "text"),
        ("DiffConfig", json!({"file": "a", "text": "", "keep_runtime": 1}), "keep_runtime"),
        ("CheckConfig", json!({"file": "", "text": ""}), "file"),
        ("Capture", json!({"ports": ["a:up"]}), "ports"),
        ("Capture", json!({"drops": true, "reasons": ["bad_luck"]}), "reasons"),
        ("Capture", json!({"reasons": ["runt"]}), "reasons"),
        ("Capture", json!({"count": 0}), "count"),
        ("Capture", json!({"snaplen": -1}), "snaplen"),
        ("SetMirror", json!({"name": "m", "sources": [], "to": "span"}), "sources"),
        ("SetMirror", json!({"name": "m", "sources": ["a:up"], "to": "span"}), "sources"),
        ("SetMirror", json!({"name": "m", "sources": ["a"], "vlans": [4095], "to": "span"}), "vlans"),
        ("SetMirror", json!({"name": "m", "sources": ["a"], "filter": 445, "to": "span"}), "filter"),
        ("SetMirror", json!({"name": "m", "sources": ["a"], "snaplen": -1, "to": "span"}), "snaplen"),
    ] {
        let full_method = format!("{INTERFACE}.{method}");
        let got = Request::parse(&full_method, object(parameters.clone()));
        assert_eq!(got, Err(Error::invalid(culprit)), "{method} {parameters}");
    }
}

#[test]
fn unknown_methods_and_interfaces_are_named() {
    let unknown = Request::parse("org.labsw.Switch1.Reboot", Map::new());
    assert_eq!(unknown, Err(Error::MethodNotFound { method: "org.labsw.Switch1.Reboot".into() }));
    let elsewhere = Request::parse("org.example.Ping", Map::new());
    assert_eq!(elsewhere, Err(Error::InterfaceNotFound { interface: "org.example".into() }));
    assert_eq!(Request::parse("Ping", Map::new()), Err(Error::InterfaceNotFound { interface: String::new() }));
}

#[test]
fn vlans_are_shown_as_in_the_configuration() {
    let shown = |mode, tag, trunks: &[_]| json!(Vlan::shown(&PortVlan::new(mode, tag, trunks).unwrap()));
    let uplink = shown(VlanMode::NativeUntagged, Some(10), &[29..=29, 20..=22, 10..=10]);
    assert_eq!(uplink, json!({"mode": "native-untagged", "tag": 10, "trunks": [10, "20-22", 29]}));
    assert_eq!(shown(VlanMode::Trunk, None, &[]), json!({"mode": "trunk", "tag": null, "trunks": ["1-4094"]}));
    let access = shown(VlanMode::Access, Some(20), &[]);
    assert_eq!(access, json!({"mode": "access", "tag": 20, "trunks": []}));
    let read: Vlan = serde_json::from_value(access).unwrap();
    assert_eq!(read.trunks.unwrap().to_string(), "");
    let read: Vlan = serde_json::from_value(uplink).unwrap();
    assert_eq!(read.trunks.unwrap().to_string(), "10,20-22,29");
}

#[test]
fn every_drop_reason_is_counted_by_name() {
    let mut snapshot = labsw_dataplane::stats::PortDelta::ZERO;
    snapshot.drop_many(labsw_switch::DropReason::Runt, 3);
    let counters = Counters::from(&snapshot);
    assert_eq!(counters.drops.len(), labsw_switch::drop_reason::DROP_REASONS);
    assert_eq!((counters.drops["runt"], counters.drops["oversize"], counters.dropped()), (3, 0, 3));
}

#[test]
fn frames_are_read_with_what_stands_between_bytes() {
    for text in ["0200ab", "02:00:ab", "02 00 AB", " 02-00\n ab ", "0x0200ab", "0200.ab"] {
        assert_eq!(parse_frame(text), Ok(vec![2, 0, 0xab]), "{text:?}");
    }
    assert_eq!(frame_text(&[2, 0, 0xab]), "0200ab");
    assert_eq!(parse_frame(" : "), Err(InvalidFrame::Empty));
    assert_eq!(parse_frame("02 0"), Err(InvalidFrame::Odd(3)));
    assert_eq!(parse_frame("02xy"), Err(InvalidFrame::NotHexadecimal('x')));
    assert_eq!(parse_frame(&"00".repeat(65_536)), Err(InvalidFrame::TooLong(65_536)));
}
