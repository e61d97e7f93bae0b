//! The interface description has exactly what the types have: methods, parameters, replies, types, errors.

use std::collections::BTreeSet;

use varlink_parser::{IDL, VStruct, VStructOrEnum};

use super::*;
use crate::model;
use crate::model::de::keys as keys_of;

fn names(fields: &VStruct<'_>) -> BTreeSet<String> {
    fields.elts.iter().map(|field| field.name.to_owned()).collect()
}

fn keys(value: Value) -> BTreeSet<String> {
    object(value).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn the_interface_description_has_exactly_these_methods() {
    let idl = IDL::try_from(DESCRIPTION).unwrap();
    assert_eq!(idl.name, INTERFACE);
    let described: BTreeSet<&str> = idl.methods.keys().copied().collect();
    let implemented: BTreeSet<&str> = requests().iter().map(Request::method).collect();
    assert_eq!(described, implemented);
    for request in requests() {
        let method = &idl.methods[request.method()];
        assert_eq!(names(&method.input), keys(request.to_parameters()), "parameters of {}", method.name);
        let reply = Value::Object(parameters(&reply_to(&request)));
        assert_eq!(names(&method.output), keys(reply), "reply of {}", method.name);
        assert!(!method.doc.is_empty(), "{} is not documented", method.name);
    }
}

/// An example of every type that is shown.
fn samples() -> Vec<(&'static str, Value)> {
    let status = serde_json::to_value(status()).unwrap();
    let mut samples = vec![
        ("Port", status["ports"][0].clone()),
        ("Vlan", status["ports"][0]["vlan"].clone()),
        ("Flap", status["ports"][0]["flap"].clone()),
        ("FrontEnd", status["ports"][0]["front_end"].clone()),
        ("PortRewind", status["ports"][0]["rewind"].clone()),
        ("Guards", status["ports"][0]["guards"].clone()),
        ("Storm", status["ports"][0]["guards"]["storm"].clone()),
        ("Worker", status["workers"][0].clone()),
        ("WorkerQueue", status["workers"][0]["queues"][0].clone()),
        ("Inline", status["inlines"][0].clone()),
        ("PortInline", status["ports"][0]["inline"].clone()),
        ("Mirror", status["mirrors"][0].clone()),
        ("MirrorInject", status["mirrors"][0]["inject"].clone()),
        ("MirrorRemote", status["mirrors"][0]["to_remote"].clone()),
        ("InjectFrame", json!(InjectFrame::new(0, &[]))),
    ];
    for request in requests() {
        let reply = Value::Object(parameters(&reply_to(&request)));
        match request {
            Request::ListVlans => {
                samples.push(("VlanMember", reply["vlans"][0]["ports"][0].clone()));
                samples.push(("VlanRow", reply["vlans"][0].clone()));
            }
            Request::ListFdb { .. } => samples.push(("FdbEntry", reply["entries"][0].clone())),
            Request::ListImpairments => samples.push(("Impairment", reply["impairments"][0].clone())),
            Request::ListMulticast { .. } => {
                samples.push(("MulticastGroup", reply["groups"][0].clone()));
                samples.push(("MulticastPort", reply["groups"][0]["ports"][0].clone()));
                samples.push(("MulticastRouters", reply["routers"][0].clone()));
                samples.push(("MulticastTotals", reply["totals"].clone()));
            }
            Request::DiffConfig(_) => {
                samples.push(("ConfigChange", reply["changes"][0].clone()));
                samples.push(("ConfigSetting", reply["changes"][0]["settings"][0].clone()));
            }
            Request::TraceFrame { .. } => samples.push(("TraceStep", reply["steps"][0].clone())),
            Request::GetStats { .. } => samples.push(("PortStats", reply["ports"][0].clone())),
            Request::Monitor { .. } => {
                samples.push(("Event", reply["events"][0].clone()));
                samples.push(("EventSetting", reply["events"][0]["settings"][0].clone()));
            }
            Request::ShowConfig => samples.push(("Unconfirmed", reply["unconfirmed"].clone())),
            Request::ListCaptures => samples.push(("RunningCapture", reply["captures"][0].clone())),
            _ => {}
        }
    }
    samples
}

/// The members of every enumeration.
fn enums() -> Vec<(&'static str, Value)> {
    vec![
        ("PortType", json!(PortType::ALL)),
        ("ConfigAction", json!([ConfigAction::Add, ConfigAction::Change, ConfigAction::Remake, ConfigAction::Remove])),
        ("TraceVerdict", json!([TraceVerdict::Forwarded, TraceVerdict::Flooded, TraceVerdict::Dropped])),
        (
            "TraceOutcome",
            json!([TraceOutcome::Pass, TraceOutcome::Drop, TraceOutcome::Send, TraceOutcome::Copy, TraceOutcome::Note]),
        ),
        ("PortDirection", json!(PortDirection::ALL)),
        ("ImpairmentDirections", json!(keys_of::<model::Directions>())),
        ("LinkLocal", json!(keys_of::<labsw_switch::tables::LinkLocal>())),
        ("LimitAction", json!(keys_of::<labsw_switch::guard::LimitAction>())),
        ("Power", json!(keys_of::<model::Power>())),
        ("VhostRole", json!(keys_of::<model::VhostRole>())),
        ("TapEnd", json!(keys_of::<model::TapEnd>())),
        ("PortRole", json!(keys_of::<PortRole>())),
        ("XdpMode", json!([XdpMode::ZeroCopy, XdpMode::Copy, XdpMode::Skb])),
        ("MulticastFamily", json!(keys_of::<MulticastFamily>())),
        ("MulticastState", json!(keys_of::<MulticastState>())),
        ("ConfigKind", json!(keys_of::<ConfigKind>())),
        ("TraceStage", json!(keys_of::<TraceStage>())),
        ("RefusedCode", json!([RefusedCode::Invalid, RefusedCode::Impossible])),
        (
            "PortState",
            json!([PortState::Up, PortState::Down, PortState::Waiting, PortState::Failed, PortState::Opening]),
        ),
        ("EventKind", json!(EventKind::ALL)),
        ("EventLevel", json!(EventLevel::ALL)),
        ("EventSubject", json!(EventSubject::ALL)),
        ("InlineState", json!(InlineState::ALL)),
        ("OnFailure", json!(model::OnFailure::ALL)),
        ("RemoteKind", json!(keys_of::<model::RemoteKind>())),
        ("EventState", json!([keys_of::<PortState>(), keys_of::<InlineState>()].concat())),
        ("MirrorState", json!([MirrorState::Up, MirrorState::Waiting, MirrorState::Failed])),
    ]
}

#[test]
fn the_interface_description_has_exactly_these_types_and_errors() {
    let idl = IDL::try_from(DESCRIPTION).unwrap();
    // The types of settings are made from the model (`config/tests/generated`).
    let mut unseen: BTreeSet<&str> = idl.typedefs.keys().copied().filter(|name| !name.ends_with("Settings")).collect();
    for (name, sample) in samples() {
        let VStructOrEnum::VStruct(fields) = &idl.typedefs[name].elt else { panic!("{name} is an enum") };
        assert_eq!(names(fields), keys(sample), "fields of {name}");
        unseen.remove(name);
    }
    for (name, values) in enums() {
        let VStructOrEnum::VEnum(members) = &idl.typedefs[name].elt else { panic!("{name} is no enum") };
        assert_eq!(json!(members.elts), values, "members of {name}");
        unseen.remove(name);
    }
    assert_eq!(unseen, BTreeSet::new(), "described, but not compared with anything");

    let refused = Error::invalid_setting("port \"a\"", "mtu", "why");
    let errors = [Error::not_found("", ""), refused, Error::PermissionDenied { reason: String::new() }];
    assert_eq!(idl.errors.len(), errors.len());
    for error in errors {
        let full_name = json!(error)["error"].take();
        let name = full_name.as_str().unwrap().rsplit('.').next().unwrap();
        assert_eq!(names(&idl.errors[name].parm), keys(Value::Object(parameters(&error))), "parameters of {name}");
    }
}
