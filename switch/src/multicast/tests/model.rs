//! Random sequences of messages and waits through the whole decision, against a model that keeps a list of who said
//! what until when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::frames::Record;
use super::*;
use crate::DropReason;
use crate::fdb::Fdb;
use crate::forward::{Egress, Forwarder};
use crate::tables::{PortRules, Tables};

const PORTS: u16 = 4;
const VLANS: [u16; 2] = [10, 20];
const GROUPS: [&str; 6] = ["239.1.1.1", "239.129.1.1", "224.0.0.9", "ff05::1", "ff0e::2", "ff02::9"];

#[derive(Clone, Debug)]
enum Step {
    One(u8, usize),
    Listed(bool, Vec<(u8, u16, usize)>),
    Query { ipv4: bool, zero: bool, group: Option<usize>, tenths: u16 },
    Hello(bool),
    Broken(usize),
    Wait(u32),
    Forget,
    TakeOver,
}

fn step() -> impl Strategy<Value = (u16, usize, Step)> {
    let kind = prop::sample::select(vec![0x12u8, 0x16, 0x17, 131, 132]);
    let record = (0u8..8, 0u16..3, 0..GROUPS.len());
    let query = (any::<bool>(), prop::bool::weighted(0.2), prop::option::weighted(0.2, 0..GROUPS.len()), 0u16..100);
    let step = prop_oneof![
        6 => (kind, 0..GROUPS.len()).prop_map(|(kind, group)| Step::One(kind, group)),
        4 => (any::<bool>(), prop::collection::vec(record, 0..5)).prop_map(|(ipv4, records)| Step::Listed(ipv4, records)),
        5 => query.prop_map(|(ipv4, zero, group, tenths)| Step::Query { ipv4, zero, group, tenths }),
        1 => any::<bool>().prop_map(Step::Hello),
        1 => (0..GROUPS.len()).prop_map(Step::Broken),
        4 => prop_oneof![1u32..5, 1u32..300].prop_map(Step::Wait),
        1 => Just(Step::Forget),
        1 => Just(Step::TakeOver),
    ];
    (0..PORTS, 0..VLANS.len(), step)
}

type Key = (u16, Family);

#[derive(Default)]
struct Naive {
    now: u64,
    /// VLAN, group, port: until when.
    members: BTreeMap<(u16, IpAddr, u16), u64>,
    routers: BTreeMap<(u16, Family, u16), u64>,
    /// Port, until when, and from when on it counts.
    queriers: BTreeMap<Key, (u16, u64, u64)>,
}

impl Naive {
    fn say(&mut self, vlan: u16, port: u16, group: IpAddr, wants: bool) {
        let scope_is_local = match group {
            IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
            IpAddr::V6(group) => group.segments()[0] == 0xff02,
        };
        if scope_is_local {
            return;
        }
        if wants {
            self.members.insert((vlan, group, port), self.now + 260);
        } else if let Some(until) = self.members.get_mut(&(vlan, group, port)) {
            *until = (*until).min(self.now + 3);
        }
    }

    /// A report of version 3 (IGMP) or 2 (MLD) at `port`.
    fn report(&mut self, vlan: u16, port: u16, records: Vec<Record>) {
        for (kind, sources, group) in records {
            match (kind, sources) {
                (3, 0) => self.say(vlan, port, group, false),
                (2 | 4, _) | (1 | 3 | 5, 1..) => self.say(vlan, port, group, true),
                _ => {}
            }
        }
    }

    /// A query at `port`, a general one or about one group, whose answers are due within so many tenths of a second.
    fn ask(&mut self, vlan: u16, family: Family, port: u16, general: bool, tenths: u16) {
        self.is_router(vlan, family, port);
        let (until, due) = (self.now + 255, self.now + u64::from(tenths).div_ceil(10) + 1);
        match self.queriers.get(&(vlan, family)).copied() {
            Some((.., due)) => drop(self.queriers.insert((vlan, family), (port, until, due))),
            None if general => drop(self.queriers.insert((vlan, family), (port, until, due))),
            None => {}
        }
    }

    fn is_router(&mut self, vlan: u16, family: Family, port: u16) {
        self.routers.insert((vlan, family, port), self.now + 255);
    }

    fn expire(&mut self) {
        let now = self.now;
        self.members.retain(|_, until| *until > now);
        self.routers.retain(|_, until| *until > now);
        self.queriers.retain(|_, (_, until, _)| *until > now);
    }

    /// The ports that a frame of a group (`None`: a report) goes to from `ingress`.
    fn audience(&self, vlan: u16, family: Family, group: Option<IpAddr>, ingress: u16) -> BTreeSet<u16> {
        let in_force = self.queriers.get(&(vlan, family)).is_some_and(|(_, _, due)| *due <= self.now);
        let wants = |port: &u16| {
            !in_force
                || self.routers.contains_key(&(vlan, family, *port))
                || group.is_some_and(|group| self.members.contains_key(&(vlan, group, *port)))
        };
        (0..PORTS).filter(|port| *port != ingress).filter(wants).collect()
    }
}

struct Bed {
    tables: Tables,
    snooping: Arc<Snooping>,
    fdb: Fdb,
    egress: Egress,
}

impl Bed {
    fn new() -> Bed {
        Bed::with(Snooping::new(99))
    }

    fn with(snooping: Snooping) -> Bed {
        let snooping = Arc::new(snooping);
        let ports = (0..PORTS).map(|port| (PortId(port), PortRules::default())).collect();
        let vlans = VLANS.iter().map(|vlan| Vid::try_from(*vlan).unwrap()).collect();
        let tables = Tables::build(ports, vec![]).unwrap().with_snooping(vlans, Arc::clone(&snooping));
        Bed { tables, snooping, fdb: Fdb::new(100, 300, 1), egress: Egress::new() }
    }

    /// A bed with the table of another process, which has other numbers of ports on the way.
    fn taken_over(&self, now: u64) -> Bed {
        let other_way_round = |port: PortId| Some(PortId(1000 - port.0));
        let record = self.snooping.record().with_ports(other_way_round).with_ports(other_way_round);
        let other = Snooping::new(now + 100);
        other.go_on(&record, u32::try_from(now).unwrap().wrapping_sub(500)).unwrap();
        Bed::with(other)
    }

    /// Sends a frame and lets it teach what it may; returns where it went.
    fn send(&mut self, ingress: u16, frame: &[u8], now: u64) -> BTreeSet<u16> {
        // Far behind the beginning of the clock, and over its end.
        let now_seconds = u32::try_from(now).unwrap().wrapping_sub(500);
        let by = Forwarder { tables: &self.tables, fdb: &self.fdb, now_seconds };
        self.egress.clear();
        let mut dropped = None;
        let mut observer = |_: u8, _: PortId, reason: DropReason| dropped = Some(reason);
        let len = u32::try_from(frame.len()).unwrap();
        by.ingress(PortId(ingress)).frame(0, &frame[..frame.len().min(128)], len, &mut self.egress, &mut observer);
        if self.egress.messages() == 1 {
            by.observe(PortId(ingress), frame);
        }
        let went: BTreeSet<u16> = self.egress.active().iter().map(|port| port.0).collect();
        assert_eq!(dropped, went.is_empty().then_some(DropReason::MulticastNotWanted));
        went
    }
}

fn all_but(ingress: u16) -> BTreeSet<u16> {
    (0..PORTS).filter(|port| *port != ingress).collect()
}

/// Does what the step says on both sides; a message itself has to go where the model says.
fn take(step: Step, port: u16, vlan: u16, bed: &mut Bed, naive: &mut Naive) {
    let group = |index: usize| ip(GROUPS[index]);
    match step {
        Step::One(kind, index) => {
            // The group is of the family that the kind belongs to.
            let index = if kind < 128 { index % 3 } else { index % 3 + 3 };
            let family = Family::of(&group(index));
            let expected = naive.audience(vlan, family, None, port);
            assert_eq!(bed.send(port, &one(Some(vlan), kind, group(index)), naive.now), expected);
            naive.say(vlan, port, group(index), !matches!(kind, 0x17 | 132));
        }
        Step::Listed(ipv4, records) => {
            let records: Vec<Record> = records
                .iter()
                .map(|(kind, sources, index)| (*kind, *sources, group(if ipv4 { index % 3 } else { index % 3 + 3 })))
                .collect();
            let family = if ipv4 { Family::Ipv4 } else { Family::Ipv6 };
            let expected = naive.audience(vlan, family, None, port);
            assert_eq!(bed.send(port, &listed(Some(vlan), ipv4, &records), naive.now), expected);
            naive.report(vlan, port, records);
        }
        Step::Query { ipv4, zero, group: about, tenths } => {
            let (family, source) = if ipv4 { (Family::Ipv4, HOST_V4.into()) } else { (Family::Ipv6, HOST_V6.into()) };
            let zero = zero && ipv4;
            let source = if zero { ip("0.0.0.0") } else { source };
            let about = about.map(|index| group(if ipv4 { index % 3 } else { index % 3 + 3 }));
            let code = if ipv4 { tenths } else { tenths * 100 };
            let frame = query(Some(vlan), source, about, code, true);
            assert_eq!(bed.send(port, &frame, naive.now), all_but(port), "queries are for everyone");
            if !zero {
                naive.ask(vlan, family, port, about.is_none(), tenths);
            }
        }
        Step::Hello(ipv4) => {
            assert_eq!(bed.send(port, &hello(Some(vlan), ipv4), naive.now), all_but(port));
            naive.is_router(vlan, if ipv4 { Family::Ipv4 } else { Family::Ipv6 }, port);
        }
        Step::Broken(index) => {
            let kind = if index < 3 { 0x16 } else { 131 };
            let mut frame = one(Some(vlan), kind, group(index));
            let before = bed.snooping.counters().invalid;
            let sum = if index < 3 { 18 + 20 + 2 } else { 18 + 48 + 2 };
            frame[sum] ^= 1;
            bed.send(port, &frame, naive.now);
            assert_eq!(bed.snooping.counters().invalid, before + 1);
        }
        Step::Wait(seconds) => naive.now += u64::from(seconds),
        Step::Forget => {
            bed.snooping.forget_port(PortId(port), u32::try_from(naive.now).unwrap().wrapping_sub(500));
            naive.members.retain(|(_, _, member), _| *member != port);
            naive.routers.retain(|(_, _, router), _| *router != port);
            naive.queriers.retain(|_, (querier, ..)| *querier != port);
        }
        Step::TakeOver => *bed = bed.taken_over(naive.now),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn frames_go_where_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        let (mut bed, mut naive) = (Bed::new(), Naive::default());
        for (port, vlan, step) in steps {
            let told = format!("{step:?} at {port} in {}", VLANS[vlan]);
            take(step, port, VLANS[vlan], &mut bed, &mut naive);
            naive.expire();
            bed.snooping.sweep(u32::try_from(naive.now).unwrap().wrapping_sub(500));
            for vlan in VLANS {
                for (index, group) in GROUPS.into_iter().map(ip).enumerate() {
                    let ingress = 0;
                    let expected = if index % 3 == 2 { all_but(ingress) }
                        else { naive.audience(vlan, Family::of(&group), Some(group), ingress) };
                    let went = bed.send(ingress, &data(Some(vlan), group), naive.now);
                    prop_assert_eq!(went, expected, "{} in {} after {}", group, vlan, told);
                }
                // Where there is no snooping, and behind a second tag.
                prop_assert_eq!(bed.send(1, &data(Some(30), ip(GROUPS[0])), naive.now), all_but(1));
                let mut customer = data(Some(vlan), ip(GROUPS[0]));
                customer.splice(16..16, [0x81, 0, 0, 7]);
                prop_assert_eq!(bed.send(1, &customer, naive.now), all_but(1));
            }
        }
    }
}
