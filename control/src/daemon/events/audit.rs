//! The audit: an event for each change that a client requests, with method, object, user, process and outcome.
//!
//! Injected frames come in many calls; only the first and the last call of an injection are told.

use serde_json::Value;

use crate::api::{Change, Error, Event, EventKind, Peer, Reply, Request};

/// The parameters that name the object of a change, in the order in which they are logged.
const NAMES: [&str; 6] = ["name", "port", "vlan", "mac", "direction", "file"];

/// Describes a change before it is carried out; `None` for a change that is not told.
pub(in crate::daemon) fn describe(change: &Change) -> Option<(String, String)> {
    match change {
        Change::Inject { port, injection, end, .. } => {
            (injection.is_none() || *end).then(|| ("Inject".to_owned(), port.clone()))
        }
        change => {
            let request = Request::Change(change.clone());
            let parameters = request.to_parameters();
            let shown = |name: &&str| match parameters.get(name)? {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let object: Vec<String> = NAMES.iter().filter_map(shown).collect();
            Some((request.method().to_owned(), object.join(" ")))
        }
    }
}

/// The event of a change, from its description and its outcome.
pub(in crate::daemon) fn outcome(
    (method, object): (String, String),
    peer: &Peer,
    outcome: &Result<Reply, Error>,
) -> Event {
    let (kind, reason) = match outcome {
        Ok(_) => (EventKind::Request, None),
        Err(error) => (EventKind::Refused, Some(error.to_string())),
    };
    let (method, object) = (Some(method), Some(object).filter(|object| !object.is_empty()));
    Event { method, object, uid: Some(peer.uid), pid: Some(peer.pid), reason, ..Event::new(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_described_by_their_method_and_object() {
        let described = |change: Change| describe(&change);
        let of = |method: &str, object: &str| Some((method.to_owned(), object.to_owned()));
        assert_eq!(described(Change::SetPortState { name: "web".into(), up: false }), of("SetPortState", "web"));
        let mac = labsw_switch::Mac::new([2, 0, 0, 0, 0, 1]);
        assert_eq!(described(Change::DeleteFdb { vlan: 7, mac }), of("DeleteFdb", "7 02:00:00:00:00:01"));
        assert_eq!(described(Change::FlushFdb { vlan: None, port: None }), of("FlushFdb", ""));
        let inject = |injection, end| {
            let (port, frames) = ("a".into(), Vec::new());
            Change::Inject { port, injection, beside: None, frames, end }
        };
        assert_eq!(described(inject(None, false)), of("Inject", "a"));
        assert_eq!(described(inject(Some(1), false)), None);
        assert_eq!(described(inject(Some(1), true)), of("Inject", "a"));
    }
}
