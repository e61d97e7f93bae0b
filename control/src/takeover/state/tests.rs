//! Which readers a state needs, and that it is the same after the way.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

use labsw_dataplane::handover::Given;
use labsw_dataplane::stats::PortSnapshot;
use labsw_switch::PortId;
use labsw_switch::multicast::Snooping;
use serde_json::json;

use super::*;
use crate::takeover::impairment::DirectionRecord;
use crate::takeover::timed::Due;

/// The message as the other process reads it.
fn sent(message: &Message) -> Message {
    serde_json::from_slice(&serde_json::to_vec(message).unwrap()).unwrap()
}

#[test]
fn a_state_with_a_capture_needs_a_reader_that_knows_of_captures() {
    let null = File::open("/dev/null").unwrap();
    let mut given = Given::default();
    let mut slot = || serde_json::to_value(given.put(null.as_fd())).unwrap();
    // A state of format 1, which knows of no clients.
    let text = json!({"config": "", "control": slot(), "take_over": slot(), "metrics": null, "ports": {}, "fdb": []});
    let mut state: State = serde_json::from_value(text).unwrap();
    assert!(state.clients.is_empty());
    let client = |stream: Value| json!({"socket": 0, "input": "", "output": "", "ending": false, "stream": stream});
    let repeat = json!({"repeat": {"method": "org.labsw.Switch1.GetStats", "parameters": {}}});
    for (stream, reader) in [(Value::Null, 1), (repeat, 1), (json!({"feed": {"number": 1}}), 2)] {
        state.clients.push(serde_json::from_value(client(stream)).unwrap());
        let message = Message::State(Box::new(state));
        assert_eq!(message.oldest_reader(), reader);
        let Message::State(read) = sent(&message) else { panic!("another message") };
        state = *read;
    }
    assert_eq!(state.clients.len(), 3);
}

#[test]
fn a_state_with_an_impairment_needs_a_reader_that_knows_of_impairments() {
    let port = json!({"enabled": true, "pins": [], "attached": null});
    let text = json!({"config": "", "control": 0, "take_over": 0, "metrics": null, "ports": {"a": port}, "fdb": []});
    let mut state: State = serde_json::from_value(text).unwrap();
    assert_eq!(state.oldest_reader(), 1);
    state.ports.values_mut().for_each(|port| port.impaired = true);
    assert_eq!(state.oldest_reader(), 3);
    let flap = FlapRecord { every_ns: 1, left: 1, due: Due::at(Instant::now()) };
    let flapping = PortState { flap: Some(flap), ..PortState::default() };
    let injecting = PortState { injects: true, ..PortState::default() };
    for port in [flapping, injecting] {
        state.ports.insert("a".to_owned(), port);
        assert_eq!(state.oldest_reader(), 3);
    }
    let direction = DirectionRecord { seed: 7, ..DirectionRecord::default() };
    let record = ImpairRecord { rx: None, tx: Some(direction) };
    let last = Last { impairments: [("a".to_owned(), record)].into(), ..Last::default() };
    let Message::Last(read) = sent(&Message::Last(Box::new(last))) else { panic!("another message") };
    assert_eq!(read.impairments["a"].directions().map(|direction| direction.seed).collect::<Vec<_>>(), [7]);
    // A progress of a version that knows less is one from the beginning where it says nothing.
    let older: DirectionRecord = serde_json::from_value(json!({"seed": 1, "progress": {}, "lines": []})).unwrap();
    assert_eq!(older.progress, labsw_switch::impair::Progress::default());
}

#[test]
fn a_state_with_snooping_needs_a_reader_that_knows_of_it() {
    let text = json!({"config": "", "control": 0, "take_over": 0, "metrics": null, "ports": {}, "fdb": []});
    let mut state: State = serde_json::from_value(text).unwrap();
    assert!(state.multicast.is_none(), "of format 2");
    let record = MulticastRecord::new(Snooping::new(1).record(), &[(PortId(7), "a")].into());
    state.multicast = Some(record.clone());
    let message = Message::State(Box::new(state));
    assert_eq!(message.oldest_reader(), 3);
    assert!(matches!(sent(&message), Message::State(read) if read.multicast == Some(record)));
}

#[test]
fn a_state_with_a_sensor_or_a_replay_needs_a_reader_that_knows_of_them() {
    let text = json!({"config": "", "control": 0, "take_over": 0, "metrics": null, "ports": {}, "fdb": []});
    let mut state: State = serde_json::from_value(text).unwrap();
    assert_eq!((state.oldest_reader(), state.sensors.len(), state.replays.len()), (1, 0, 0), "of format 3");
    let sensor = SensorRecord { key: u64::MAX, alive: 3, through: true };
    state.sensors.insert("ips".to_owned(), sensor);
    assert_eq!(state.oldest_reader(), 4);
    let Message::State(mut state) = sent(&Message::State(Box::new(state))) else { panic!("another message") };
    assert_eq!(state.sensors.remove("ips"), Some(sensor));
    let before = PortCounters::from(&PortSnapshot::ZERO);
    state.replays.push(ReplayRecord { number: 7, port: "a".to_owned(), before, start_ns: Some(1), given: 2 });
    assert_eq!(state.oldest_reader(), 4);
    assert!(matches!(sent(&Message::State(state)), Message::State(read) if read.replays[0].given == 2));
}

#[test]
fn counts_and_frames_of_captures_arrive() {
    let counts = InterfaceCounts { missed: 3, waiting: 4 };
    let last = Last { captures: vec![(7, vec![counts])], ..Last::default() };
    let Message::Last(read) = sent(&Message::Last(Box::new(last))) else { panic!("another message") };
    assert_eq!(read.captures, [(7, vec![counts])]);
    let Message::Last(older) = sent(&Message::Last(Box::default())) else { panic!("another message") };
    assert!(older.captures.is_empty());
    let rest = Message::Rest(Box::new(Rest { captures: vec![(7, Vec::new())] }));
    assert_eq!(rest.oldest_reader(), 2);
    assert!(matches!(sent(&rest), Message::Rest(read) if read.captures.len() == 1));
}
