//! The database against a `HashMap`, and fairness under a flood, over random steps.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Learn(u16, u64, u16),
    Static(u16, u64, u16),
    Remove(u16, u64),
    Flush(Option<u16>, Option<u16>, bool),
    Sticky(u16, bool),
    RemovePort(u16),
    Sweep,
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let vlan = 1u16..3;
    let port = 0u16..4;
    prop_oneof![
        12 => (vlan.clone(), 0u64..12, port.clone()).prop_map(|(v, m, p)| Step::Learn(v, m, p)),
        1 => (vlan.clone(), 0u64..12, port.clone()).prop_map(|(v, m, p)| Step::Static(v, m, p)),
        1 => (vlan.clone(), 0u64..12).prop_map(|(v, m)| Step::Remove(v, m)),
        1 => (prop::option::of(vlan), prop::option::of(port.clone()), any::<bool>())
            .prop_map(|(v, p, sticky_too)| Step::Flush(v, p, sticky_too)),
        1 => (port.clone(), any::<bool>()).prop_map(|(p, sticky)| Step::Sticky(p, sticky)),
        1 => port.prop_map(Step::RemovePort),
        1 => Just(Step::Sweep),
        6 => (0u32..7).prop_map(Step::Wait),
    ]
}

const AGEING: u32 = 10;

/// The expected database: port, kind and stamp of each address; and the sticky ports.
#[derive(Default)]
struct Model(HashMap<(u16, u64), (u16, Kind, u32)>, HashSet<u16>);

impl Model {
    fn get(&self, key: (u16, u64), now: u32) -> Option<(u16, Kind, u32)> {
        let entry = *self.0.get(&key)?;
        (entry.1 != Kind::Dynamic || now.wrapping_sub(entry.2) < AGEING).then_some(entry)
    }

    /// The answer due when the address is seen at `port`.
    fn learned(&self, key: (u16, u64), port: u16, now: u32) -> Learned {
        match self.get(key, now) {
            None => Learned::New,
            Some((at, Kind::Static, _)) if at == port => Learned::Known,
            Some((_, Kind::Static, _)) => Learned::Static,
            Some((at, Kind::Sticky, _)) if at != port => Learned::Sticky,
            Some((at, ..)) if at != port => Learned::Moved { from: PortId(at) },
            Some((_, _, stamp)) if stamp == now => Learned::Known,
            Some(_) => Learned::Refreshed,
        }
    }

    fn learn(&mut self, key: (u16, u64), port: u16, now: u32, learned: Learned) {
        let fixed = self.0.get(&key).is_some_and(|entry| entry.1 == Kind::Static);
        if !fixed && !matches!(learned, Learned::Static | Learned::Sticky) {
            self.0.insert(key, (port, self.kind_at(port), now));
        }
    }

    fn set_sticky(&mut self, port: u16, sticky: bool, now: u32) {
        let changes = if sticky { self.1.insert(port) } else { self.1.remove(&port) };
        if changes {
            self.age(|at| at == port, now);
            let kind = self.kind_at(port);
            let learned = self.0.values_mut().filter(|entry| entry.0 == port && entry.1 != Kind::Static);
            learned.for_each(|entry| entry.1 = kind);
        }
    }

    /// Removes what has become too old at these ports.
    fn age(&mut self, at: impl Fn(u16) -> bool, now: u32) -> usize {
        self.remove(|_, (port, kind, stamp)| at(port) && kind == Kind::Dynamic && now.wrapping_sub(stamp) >= AGEING)
    }

    fn kind_at(&self, port: u16) -> Kind {
        if self.1.contains(&port) { Kind::Sticky } else { Kind::Dynamic }
    }

    fn remove(&mut self, gone: impl Fn(u16, (u16, Kind, u32)) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|key, entry| !gone(key.0, *entry));
        before - self.0.len()
    }
}

/// Does a step with the database and with the model: both have to say the same of it.
fn take(step: Step, fdb: &Fdb, model: &mut Model, now: &mut u32) -> Result<(), TestCaseError> {
    match step {
        Step::Learn(v, m, p) => {
            let expected = model.learned((v, m), p, *now);
            prop_assert_eq!(fdb.would_learn(vid(v), mac(m), PortId(p), *now), expected);
            prop_assert_eq!(fdb.learn(vid(v), mac(m), PortId(p), *now), expected);
            model.learn((v, m), p, *now, expected);
        }
        Step::Static(v, m, p) => {
            fdb.add_static(vid(v), mac(m), PortId(p)).unwrap();
            model.0.insert((v, m), (p, Kind::Static, 0));
        }
        Step::Remove(v, m) => {
            prop_assert_eq!(fdb.remove(vid(v), mac(m)), model.0.remove(&(v, m)).is_some());
        }
        Step::Flush(v, p, sticky_too) => {
            let expected = model.remove(|vlan, (port, kind, _)| {
                (kind == Kind::Dynamic || sticky_too && kind == Kind::Sticky)
                    && v.is_none_or(|v| v == vlan)
                    && p.is_none_or(|p| p == port)
            });
            let flush = if sticky_too { Fdb::flush_with_sticky } else { Fdb::flush };
            prop_assert_eq!(flush(fdb, v.map(vid), p.map(PortId)), expected);
        }
        Step::Sticky(p, sticky) => {
            fdb.set_port_sticky(PortId(p), sticky, *now);
            model.set_sticky(p, sticky, *now);
        }
        Step::RemovePort(p) => {
            let expected = model.remove(|_, (port, ..)| port == p);
            prop_assert_eq!(fdb.remove_port(PortId(p)), expected);
            model.1.remove(&p);
        }
        Step::Sweep => {
            let expected = model.age(|_| true, *now);
            prop_assert_eq!(fdb.sweep(*now, usize::MAX), expected);
        }
        Step::Wait(seconds) => *now = now.wrapping_add(seconds),
    }
    Ok(())
}

/// The database finds and counts what is in the model.
fn finds_the_same(fdb: &Fdb, model: &Model, now: u32) -> Result<(), TestCaseError> {
    for v in 1..3 {
        for m in 0..12 {
            let expected = model.get((v, m), now).map(|(port, ..)| PortId(port));
            prop_assert_eq!(fdb.lookup(vid(v), mac(m), now), expected);
        }
    }
    prop_assert_eq!(fdb.len(), model.0.len());
    for p in 0..4 {
        let dynamic = model.0.values().filter(|(port, kind, _)| *port == p && *kind != Kind::Static).count();
        prop_assert_eq!(fdb.len_of_port(PortId(p)), dynamic);
    }
    Ok(())
}

/// The database lists what is in the model, all of it and one port's of one VLAN.
fn lists_the_same(fdb: &Fdb, model: &Model, now: u32) -> Result<(), TestCaseError> {
    let mut listed = fdb.entries(FdbFilter::default(), now);
    let entry = |key: &(u16, u64)| {
        let (port, kind, stamp) = model.get(*key, now)?;
        let (is_static, is_sticky) = (kind == Kind::Static, kind == Kind::Sticky);
        let age_seconds = if is_static { 0 } else { now.wrapping_sub(stamp) };
        Some(FdbEntry { vid: vid(key.0), mac: mac(key.1), port: PortId(port), is_static, is_sticky, age_seconds })
    };
    let mut expected: Vec<FdbEntry> = model.0.keys().filter_map(entry).collect();
    listed.sort();
    expected.sort();
    prop_assert_eq!(&listed, &expected);
    let filter = FdbFilter { vid: Some(vid(1)), port: Some(PortId(2)) };
    expected.retain(|entry| entry.vid == vid(1) && entry.port == PortId(2));
    let mut listed = fdb.entries(filter, now);
    listed.sort();
    prop_assert_eq!(listed, expected);
    Ok(())
}

proptest! {
    #[test]
    fn behaves_like_a_map(seed: u64, start: u32, steps in prop::collection::vec(step(), 1..200)) {
        let fdb = Fdb::new(64, AGEING, seed);
        let mut model = Model::default();
        let mut now = start;
        for step in steps {
            take(step, &fdb, &mut model, &mut now)?;
            finds_the_same(&fdb, &model, now)?;
        }
        lists_the_same(&fdb, &model, now)?;
    }

    /// Whatever one port floods, a port with no more than its fair share loses nothing, nor do static entries.
    #[test]
    fn a_flood_evicts_its_own(seed: u64, others in prop::collection::vec(0u64..30, 1..6), flood in 300u64..1500) {
        let fdb = Fdb::new(256, 0, seed);
        let flooder = PortId(0);
        let addresses = |port: usize| (0..others[port - 1]).map(move |number| mac((port as u64) << 24 | number));
        let ports = || (1..=others.len()).map(|port| (port, PortId(u16::try_from(port).unwrap())));
        for (port, id) in ports() {
            for address in addresses(port) {
                prop_assert_eq!(fdb.learn(VLAN, address, id, 5), Learned::New);
            }
        }
        for number in 0..10 {
            fdb.add_static(VLAN, mac(0xff00_0000 | number), flooder).unwrap();
        }
        for number in 0..flood {
            fdb.learn(VLAN, mac(0xee00_0000 | number), flooder, 6);
            prop_assert!(fdb.len() <= 256);
        }
        for (port, id) in ports() {
            for address in addresses(port) {
                prop_assert_eq!(fdb.lookup(VLAN, address, 6), Some(id));
            }
        }
        for number in 0..10 {
            prop_assert_eq!(fdb.lookup(VLAN, mac(0xff00_0000 | number), 6), Some(flooder));
        }
        // The table is full, and the flooder still learns.
        prop_assert!(fdb.len() > 240);
        prop_assert_eq!(fdb.learn(VLAN, mac(0xdd00_0000), flooder, 6), Learned::New);
        // Someone new gets in at the flooder's cost.
        prop_assert_eq!(fdb.learn(VLAN, mac(0xcc00_0000), PortId(9), 6), Learned::New);
        prop_assert_eq!(fdb.lookup(VLAN, mac(0xcc00_0000), 6), Some(PortId(9)));
    }
}

proptest! {
    /// In a table so small that entries evict each other, and with limits, what learning comes to is foretold,
    /// and asking changes nothing.
    #[test]
    fn learning_is_foretold(
        seed: u64,
        capacity in 1usize..6,
        limits in prop::collection::vec(prop::option::of(0u32..4), 3),
        steps in prop::collection::vec((0u64..12, 0u16..3, 0u32..4, prop::bool::weighted(0.1)), 1..120),
    ) {
        let fdb = Fdb::new(capacity, AGEING, seed);
        for (port, limit) in (0..).map(PortId).zip(limits) {
            fdb.set_port_limit(port, limit);
        }
        let mut now = 1000;
        for (address, port, wait, is_static) in steps {
            now += wait;
            if is_static {
                let _ = fdb.add_static(VLAN, mac(address), PortId(port));
                continue;
            }
            let listed = || { let mut list = fdb.entries(FdbFilter::default(), now); list.sort_unstable(); list };
            let before = listed();
            let entry = before.iter().find(|entry| entry.mac == mac(address)).copied();
            prop_assert_eq!(fdb.entry(VLAN, mac(address), now), entry);
            let foretold = fdb.would_learn(VLAN, mac(address), PortId(port), now);
            prop_assert_eq!(listed(), before);
            prop_assert_eq!(fdb.learn(VLAN, mac(address), PortId(port), now), foretold);
            let known_here = fdb.lookup(VLAN, mac(address), now) == Some(PortId(port));
            prop_assert_eq!(known_here, foretold.is_here() || foretold == Learned::PortLimit && entry.is_some_and(|entry| entry.port == PortId(port)));
        }
    }
}
