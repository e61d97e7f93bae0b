//! Whoever monitors knows what the switch is, after any change: a copy that is made of events alone, beside the switch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::api::{
    AppliedConfig, Change, ConfigKind, ConfigText, Event, EventKind, EventSubject, Feed, Handler, Impairments,
    MirrorSettings, Mirrors, Peer, PortDirection, PortType, Ports, Reply, Request, WantedConfig,
};
use crate::daemon::attach::fake::world;
use crate::daemon::errand::Errand;
use crate::daemon::switch::Switch;
use crate::daemon::tests::switch;
use crate::plan::changes;

/// How many changes are made; `LABSW_EVENT_CHANGES` sets another number.
const CHANGES: u32 = 2_000;

/// The switch, according to the events.
#[derive(Debug, Default, PartialEq, Eq)]
struct Copy {
    ports: BTreeMap<String, (String, Option<String>)>,
    mirrors: BTreeMap<String, (String, Option<String>)>,
    impaired: BTreeSet<String>,
    /// The settings of all things: kind and name, key, value.
    settings: BTreeMap<(String, String, String), String>,
}

impl Copy {
    /// The same, of the switch itself.
    fn of(switch: &mut Switch) -> Copy {
        let peer = Peer::new(0, 0, 1, true);
        let Ok(Reply::Ports(Ports { ports })) = switch.call(&peer, Request::ListPorts) else { panic!("no ports") };
        let Ok(Reply::Mirrors(Mirrors { mirrors })) = switch.call(&peer, Request::ListMirrors) else {
            panic!("no mirrors")
        };
        let Ok(Reply::Impairments(Impairments { impairments: impaired })) =
            switch.call(&peer, Request::ListImpairments)
        else {
            panic!()
        };
        let mut copy = Copy {
            ports: ports.into_iter().map(|port| (port.name, (port.state.to_string(), port.reason))).collect(),
            mirrors: mirrors.into_iter().map(|shown| (shown.name, (shown.state.to_string(), shown.reason))).collect(),
            impaired: impaired.into_iter().map(|shown| shown.port).collect(),
            settings: BTreeMap::new(),
        };
        let nothing = crate::config::Config::default();
        for change in changes(&nothing, &nothing, &switch.running())
            .into_iter()
            .filter(|change| change.kind != ConfigKind::Switch)
        {
            let impairment = change.kind == ConfigKind::Impairment;
            let kind = if impairment { "impairment of port".to_owned() } else { change.kind.to_string() };
            for setting in change.settings {
                copy.settings.insert((kind.clone(), change.name.clone(), setting.key), setting.wanted.unwrap());
            }
        }
        copy
    }

    fn follow(&mut self, event: &Event) {
        let (Some(subject), Some(name)) = (event.subject, event.name.clone()) else { return };
        let kind = subject.to_string();
        match (event.kind, subject) {
            (EventKind::State, EventSubject::Port) => {
                self.ports.insert(name, (event.state.clone().unwrap(), event.reason.clone()));
            }
            (EventKind::State, EventSubject::Mirror) => {
                self.mirrors.insert(name, (event.state.clone().unwrap(), event.reason.clone()));
            }
            (EventKind::Removed, _) => {
                match subject {
                    EventSubject::Port => drop(self.ports.remove(&name)),
                    EventSubject::Mirror => drop(self.mirrors.remove(&name)),
                    _ => drop(self.impaired.remove(&name)),
                }
                self.settings.retain(|(of, named, _), _| (of.as_str(), named) != (kind.as_str(), &name));
            }
            (EventKind::Added | EventKind::Changed, _) => {
                if subject == EventSubject::Impairment {
                    self.impaired.insert(name.clone());
                }
                for setting in &event.settings {
                    let key = (kind.clone(), name.clone(), setting.key.clone());
                    assert_eq!(self.settings.get(&key), setting.before.as_ref(), "{event}");
                    match &setting.now {
                        Some(now) => drop(self.settings.insert(key, now.clone())),
                        None => drop(self.settings.remove(&key)),
                    }
                }
            }
            _ => {}
        }
    }
}

/// xorshift64*: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()].clone()
    }

    fn port(&mut self) -> String {
        self.one(&["a", "b", "c", "d", "e"]).to_owned()
    }

    fn settings(&mut self, of: &[Value]) -> Map<String, Value> {
        let Value::Object(settings) = self.one(of) else { panic!("no object") };
        settings
    }

    fn change(&mut self) -> Change {
        let (port, other, n) = (self.port(), self.port(), self.below(4094) + 1);
        match self.below(10) {
            0 | 1 => {
                let settings =
                    self.settings(&[json!({"peer": format!("x-{port}")}), json!({"peer": "y", "mtu": 9000})]);
                Change::AddPort { name: port, port_type: PortType::Veth, settings }
            }
            2 => Change::DeletePort { name: port },
            3 => {
                let settings = [json!({"vlan.tag": n}), json!({"mtu": 1280 + n}), json!({"peer": "z"})];
                Change::SetPort { name: port, settings: self.settings(&settings), replace: false }
            }
            4 => Change::SetPortState { name: port, up: self.below(2) == 0 },
            5 | 6 => Change::SetMirror(MirrorSettings {
                name: self.one(&["m", "n"]).to_owned(),
                sources: Some(vec![self.one(&["*", "a", "b:rx"]).parse().unwrap()]),
                to: Some(other),
                snaplen: Some(u32::try_from(n).unwrap()),
                ..MirrorSettings::default()
            }),
            7 => Change::DeleteMirror { name: self.one(&["m", "n"]).to_owned() },
            8 => {
                let settings = [json!({"delay": format!("{n}ms")}), json!({"loss": "5%", "direction": "rx"})];
                Change::SetImpairment { port, settings: self.settings(&settings), replace: self.below(2) == 0 }
            }
            _ => Change::ClearImpairment { port, direction: self.one(&[None, Some(PortDirection::Rx)]) },
        }
    }

    /// Something that nobody has asked for through the control socket.
    fn happen(&mut self, switch: &mut Errand<'_>, time: &mut Instant) {
        let name = self.port();
        match self.below(3) {
            0 => {
                world(|world| world.refuses.insert(name));
            }
            1 => world(|world| world.refuses.clear()),
            _ => switch.lose(&name, Some("it was pulled")),
        }
        *time += Duration::from_secs(100);
        switch.look_after_devices(*time + Duration::from_secs(1));
        switch.notice_states();
    }
}

/// Everything a reader has to read.
fn read(reader: &mut dyn Feed) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((Reply::Events(told), _)) = reader.next(Instant::now()) {
        assert_eq!(told.lost, 0);
        events.extend(told.events);
    }
    events
}

#[test]
fn whoever_monitors_misses_no_change() {
    let mut bench = switch("");
    let mut switch = bench.errand();
    let (peer, mut random, mut time) = (Peer::new(0, 0, 1, true), Random(0x6c61_6273_7700_0001), Instant::now());
    let mut reader = switch.monitor(0).unwrap();
    let (mut copy, mut made, mut refused) = (Copy::default(), 0, 0);
    // The start.
    let mut last = 1;
    let wanted = std::env::var("LABSW_EVENT_CHANGES").map_or(CHANGES, |number| number.parse().unwrap());
    for step in 0..wanted {
        if random.below(20) == 0 {
            random.happen(&mut switch, &mut time);
        }
        let change = random.change();
        let outcome = switch.answer(&peer, Request::Change(change.clone()));
        let events = read(&mut *reader);
        events.iter().for_each(|event| copy.follow(event));
        // A change that was missed shows at the latest when its setting changes again: an event has the value before.
        if step % 16 == 0 || step + 1 == wanted {
            assert_eq!(copy, Copy::of(&mut switch), "after change {step}, {change:?}: {events:?}");
        }
        let asked = events.iter().filter(|event| matches!(event.kind, EventKind::Request | EventKind::Refused));
        assert_eq!(asked.map(|event| (event.uid, event.pid)).collect::<Vec<_>>(), [(Some(0), Some(1))]);
        for event in &events {
            assert_eq!(event.number, last + 1, "a gap");
            last = event.number;
        }
        *(if outcome.is_ok() { &mut made } else { &mut refused }) += 1;
    }
    assert!(made > wanted / 3 && refused > wanted / 20, "{made} made, {refused} refused");
}

#[test]
fn an_apply_and_its_undoing_are_told_as_what_they_have_changed() {
    let mut bench = switch("[ports.a]\ntype='veth'\npeer='x'\n");
    let mut switch = bench.errand();
    switch.notice_states();
    let mut reader = switch.monitor(0).unwrap();
    let mut apply = |switch: &mut Errand<'_>, text: &str| {
        let config = ConfigText { file: "x.toml".to_owned(), text: text.to_owned() };
        let wanted = WantedConfig { config, keep_runtime: false };
        let apply = Change::ApplyConfig(AppliedConfig { wanted, confirm_milliseconds: None });
        let outcome = switch.answer(&Peer::new(7, 7, 70, true), Request::Change(apply));
        (outcome.is_ok(), read(&mut *reader).iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let to = "[ports.a]\ntype='veth'\npeer='x'\nmtu=9000\n[ports.b]\ntype='veth'\npeer='y'\n";
    let told = [
        "file x.toml applied, 2 changes",
        "ApplyConfig x.toml, by uid 7, pid 70",
        "port a changed: mtu 1500 -> 9000",
        "port b added",
        "port b is up",
    ];
    assert_eq!(apply(&mut switch, to), (true, told.map(str::to_owned).to_vec()));
    world(|world| world.refuses.insert("c".to_owned()));
    let (done, told) = apply(&mut switch, "[ports.c]\ntype='veth'\npeer='z'\n");
    assert!(
        !done && told.len() == 1 && told[0].starts_with("ApplyConfig x.toml refused, by uid 7, pid 70: "),
        "{told:?}"
    );
}

#[test]
fn a_port_that_comes_and_goes_by_itself_is_told_eight_times_a_second_and_then_as_it_is() {
    let mut bench = switch("[ports.a]\ntype='veth'\npeer='x'\n");
    let mut switch = bench.errand();
    switch.notice_states();
    switch.events.told.renew_allowances();
    let mut reader = switch.monitor(0).unwrap();
    for turn in 0..101 {
        switch.ports.find_mut("a").unwrap().enabled = turn % 2 == 1;
        switch.notice_states();
    }
    let states = |reader: &mut dyn Feed| read(reader).into_iter().filter_map(|event| event.state).collect::<Vec<_>>();
    assert_eq!(states(&mut *reader), ["down", "up"].repeat(4));
    switch.events.told.renew_allowances();
    switch.notice_states();
    assert_eq!(states(&mut *reader), ["down"]);
}

#[test]
fn addresses_that_move_are_told_with_both_ports() {
    let mut bench = switch("[ports.a]\ntype='veth'\npeer='x'\n[ports.b]\ntype='veth'\npeer='y'\n");
    let mut switch = bench.errand();
    switch.notice_states();
    let mut reader = switch.monitor(0).unwrap();
    let [a, b] = ["a", "b"].map(|name| switch.ports.get(name).unwrap().id);
    let mac = labsw_switch::Mac::new([2, 0, 0, 0, 0, 1]);
    let learn = |switch: &Switch, port| switch.fabric.shared.fdb.learn(labsw_switch::Vid::DEFAULT, mac, port, 5);
    learn(&switch, a);
    learn(&switch, b);
    switch.notice_every_second(Instant::now());
    let told = |reader: &mut dyn Feed| read(reader).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&mut *reader), ["MAC 02:00:00:00:00:01 in VLAN 1 has moved from port a to port b"]);
    for _ in 0..100 {
        learn(&switch, a);
        learn(&switch, b);
    }
    switch.notice_every_second(Instant::now());
    let all = told(&mut *reader);
    assert_eq!((all.len(), all.last().map(String::as_str)), (65, Some("136 more MAC addresses have moved")));
    assert_eq!(switch.show_status().mac_moves, 201);
}
