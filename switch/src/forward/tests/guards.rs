//! Guards in the decision: which frame they refuse, where it is counted, and what it may still teach.

use std::sync::Arc;

use super::*;
use crate::guard::{FrameRate, GuardSpec, GuardState, Guards, LimitAction, MacLimit, OverLimitSeen, Storm};

const SECOND_NS: u64 = 1_000_000_000;

/// Ports of which the first guards as in `spec`.
fn guarded(spec: GuardSpec) -> (Vec<(PortId, PortRules)>, Arc<GuardState>) {
    let state = Arc::default();
    let mut ports = ports();
    ports[0].1.guards = Guards::new(spec, &state);
    (ports, state)
}

fn bed(spec: GuardSpec) -> (Bed, Arc<GuardState>) {
    let (ports, state) = guarded(spec);
    (Bed::new(ports, vec![]), state)
}

/// An observer that only asks.
struct Asks(Vec<(PortId, DropReason)>);

impl Observer for Asks {
    const DRY_RUN: bool = true;

    fn dropped(&mut self, _: u8, port: PortId, reason: DropReason) {
        self.0.push((port, reason));
    }
}

impl Bed {
    /// The drops a frame would lead to.
    fn ask(&mut self, ingress: PortId, dst: Mac, src: Mac, now_ns: u64) -> Vec<(PortId, DropReason)> {
        let forwarder = Forwarder { tables: &self.tables, fdb: &self.fdb, now_seconds: 0 };
        let mut asks = Asks(Vec::new());
        let mut ingress = forwarder.ingress_at(ingress, now_ns);
        ingress.frame(0, &bytes(dst, src), 60, &mut Egress::new(), &mut asks);
        asks.0
    }

    /// Sends `count` equal frames as one burst; gives how many were not dropped.
    fn burst(&mut self, ingress: PortId, count: u8, dst: Mac, src: Mac, now_ns: u64) -> usize {
        let now_seconds = u32::try_from(now_ns / SECOND_NS).unwrap();
        let forwarder = Forwarder { tables: &self.tables, fdb: &self.fdb, now_seconds };
        let mut ingress = forwarder.ingress_at(ingress, now_ns);
        let before = self.drops.len();
        self.egress.clear();
        for index in 0..count {
            let drops = &mut |_: u8, port: PortId, reason: DropReason| self.drops.push((port, reason));
            ingress.frame(index, &bytes(dst, src), 60, &mut self.egress, drops);
        }
        usize::from(count) - (self.drops.len() - before)
    }

    fn take_drops(&mut self) -> Vec<(PortId, DropReason)> {
        std::mem::take(&mut self.drops)
    }
}

#[test]
fn a_storm_is_cut_by_kind_and_known_traffic_passes() {
    let storm =
        Storm { broadcast: FrameRate::new(10), multicast: FrameRate::new(20), unknown_unicast: FrameRate::new(40) };
    let (mut bed, _) = bed(GuardSpec { storm, ..GuardSpec::default() });
    bed.fdb.learn(Vid::DEFAULT, mac(2), B, 0);
    let group = Mac::new([1, 0, 0x5e, 0, 0, 1]);
    let kinds = [
        (Mac::BROADCAST, 10, DropReason::StormBroadcast),
        (group, 20, DropReason::StormMulticast),
        (mac(9), 40, DropReason::StormUnknownUnicast),
    ];
    for (dst, rate, reason) in kinds {
        assert_eq!(bed.burst(A, 60, dst, mac(1), 0), 8, "the burst, then nothing");
        assert_eq!(bed.take_drops(), vec![(A, reason); 52]);
        assert_eq!(bed.ask(A, dst, mac(1), 0), [(A, reason)]);
        assert_eq!(bed.ask(A, dst, mac(1), SECOND_NS / 2), [], "asking takes no token");
        let passed: usize = (1..=100).map(|n| bed.burst(A, 3, dst, mac(1), n * SECOND_NS / 100)).sum();
        assert_eq!(passed, rate, "the rate");
        bed.take_drops();
    }
    assert_eq!(bed.burst(A, 64, mac(2), mac(1), SECOND_NS), 64, "what is known is no storm");
    assert_eq!(bed.burst(B, 64, Mac::BROADCAST, mac(2), SECOND_NS), 64, "nor what comes from another port");
}

#[test]
fn tokens_outlive_the_tables() {
    let spec = GuardSpec { storm: Storm { broadcast: FrameRate::new(10), ..Storm::default() }, ..GuardSpec::default() };
    let (ports, _) = guarded(spec);
    let mut bed = Bed::new(ports.clone(), vec![]);
    assert_eq!(bed.burst(A, 60, Mac::BROADCAST, mac(1), 0), 8);
    bed.tables = Tables::build(ports, vec![]).unwrap();
    assert_eq!(bed.burst(A, 60, Mac::BROADCAST, mac(1), 0), 0);
}

#[test]
fn further_sources_are_dropped_or_reported() {
    let limit = |action| GuardSpec { mac_limit: Some(MacLimit { addresses: 2, action }), ..GuardSpec::default() };
    let (mut bed, state) = bed(limit(LimitAction::Drop));
    bed.fdb.set_port_limit(A, Some(2));
    bed.fdb.learn(Vid::DEFAULT, mac(20), B, 0);
    for source in [1, 2, 1] {
        assert_eq!(bed.burst(A, 3, mac(20), mac(source), 0), 3);
    }
    assert_eq!(bed.ask(A, mac(20), mac(3), 0), [(A, DropReason::MacLimit)]);
    assert_eq!(bed.burst(A, 3, mac(20), mac(3), 0), 0);
    // An address of another port moves no more than a new one does.
    assert_eq!(bed.burst(A, 1, Mac::BROADCAST, mac(20), 0), 0);
    assert_eq!(bed.take_drops(), vec![(A, DropReason::MacLimit); 4]);
    assert_eq!(bed.fdb.lookup(Vid::DEFAULT, mac(3), 0), None);
    assert_eq!(state.over_limit.seen(), OverLimitSeen::default());

    let (ports, state) = guarded(limit(LimitAction::Alert));
    bed.tables = Tables::build(ports, vec![]).unwrap();
    assert_eq!(bed.ask(A, mac(20), mac(3), 0), []);
    assert_eq!(bed.burst(A, 5, mac(20), mac(3), 0), 5, "forwarded");
    assert_eq!(bed.fdb.lookup(Vid::DEFAULT, mac(3), 0), None, "not learned");
    assert_eq!(state.over_limit.seen(), OverLimitSeen { frames: 5, last: mac(3) }, "each counted, equal ones too");
}

#[test]
fn a_sticky_address_is_nobody_elses() {
    let (mut bed, _) = bed(GuardSpec { sticky: true, ..GuardSpec::default() });
    bed.fdb.set_port_sticky(A, true, 0);
    bed.burst(A, 1, Mac::BROADCAST, mac(1), 0);
    assert_eq!(bed.ask(B, Mac::BROADCAST, mac(1), 0), [(B, DropReason::MacSticky)]);
    assert_eq!(bed.burst(B, 3, Mac::BROADCAST, mac(1), 10_000 * SECOND_NS), 0);
    assert_eq!(bed.take_drops(), vec![(B, DropReason::MacSticky); 3]);
    assert_eq!(bed.fdb.lookup(Vid::DEFAULT, mac(1), 10_000), Some(A), "it does not age");
    assert_eq!(bed.burst(A, 3, Mac::BROADCAST, mac(1), 10_000 * SECOND_NS), 3);
    assert_eq!(bed.fdb.flush_with_sticky(None, Some(A)), 1);
    assert_eq!(bed.burst(B, 3, Mac::BROADCAST, mac(1), 10_000 * SECOND_NS), 3, "until it is flushed");
}

#[test]
fn other_sources_than_the_pinned_teach_nothing() {
    let (mut bed, _) = bed(GuardSpec { macs: vec![mac(1), mac(5)], ..GuardSpec::default() });
    for source in 0..8 {
        bed.burst(A, 2, Mac::BROADCAST, mac(source), 0);
    }
    assert_eq!(bed.take_drops(), vec![(A, DropReason::MacNotAllowed); 12]);
    assert_eq!(bed.fdb.len(), 2);
    assert_eq!(bed.burst(B, 1, Mac::BROADCAST, mac(9), 0), 1, "other ports are not pinned");
}

#[test]
fn isolated_ports_talk_to_the_others_only() {
    let mut ports = ports();
    for port in [A, B] {
        let spec = GuardSpec { isolated: true, ..GuardSpec::default() };
        ports[port.index()].1.guards = Guards::new(spec, &Arc::default());
    }
    let mut bed = Bed::new(ports, vec![]);
    for (number, port) in (1..).zip([A, B, C]) {
        bed.fdb.learn(Vid::DEFAULT, mac(number), port, 0);
    }
    bed.burst(A, 2, mac(2), mac(1), 0);
    assert_eq!(bed.take_drops(), vec![(B, DropReason::Isolated); 2]);
    assert_eq!(bed.burst(A, 2, mac(3), mac(1), 0), 2);
    assert_eq!(bed.burst(C, 2, mac(1), mac(3), 0), 2);
    bed.egress.clear();
    bed.send(A, 0, Mac::BROADCAST, mac(1));
    assert_eq!(bed.egress.active(), [C, SPAN]);
    assert_eq!(bed.take_drops(), [(B, DropReason::Isolated)]);
    bed.egress.clear();
    bed.send(C, 0, Mac::BROADCAST, mac(3));
    assert_eq!(bed.egress.active(), [A, B, SPAN]);
}

#[test]
fn what_lies_behind_equal_headers_is_looked_at_each_time() {
    let (mut bed, _) = bed(GuardSpec { dhcp: true, ..GuardSpec::default() });
    bed.fdb.learn(Vid::DEFAULT, mac(2), B, 0);
    let mut client = bytes(mac(2), mac(1));
    client[14] = 0x45;
    client[23] = 17;
    client[35] = 68;
    let mut server = client;
    server[35] = 67;
    let forwarder = Forwarder { tables: &bed.tables, fdb: &bed.fdb, now_seconds: 0 };
    let mut ingress = forwarder.ingress(A);
    for (index, frame) in [client, server, client, server].iter().enumerate() {
        let drops = &mut |frame: u8, port: PortId, reason: DropReason| {
            assert_eq!(frame % 2, 1, "the client's");
            bed.drops.push((port, reason));
        };
        ingress.frame(u8::try_from(index).unwrap(), frame, 60, &mut bed.egress, drops);
    }
    assert_eq!(bed.take_drops(), vec![(A, DropReason::DhcpGuard); 2]);
    assert_eq!(bed.egress.items(B).len(), 2);
    // A server's frame does not even teach where it is.
    bed.frame(
        A,
        4,
        &{
            let mut other = server;
            other[11] = 77;
            other
        },
        60,
    );
    assert_eq!(bed.fdb.lookup(Vid::DEFAULT, mac(77), 0), None);
}
