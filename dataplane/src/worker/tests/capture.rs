//! Captures over memory ports: exactly the frames, which way they went, as they were received and sent; drops and their
//! reason.

use labsw_switch::filter::{Filter, Form, Insn};

use super::*;
use crate::capture::{Budget, Capture, CapturePoint, Captured, Captures, MAX_WAITING_FRAMES, Reasons, Way};

/// One capture and what it missed.
struct Look {
    capture: Arc<Capture>,
    missed: Arc<std::sync::atomic::AtomicU64>,
    budget: Arc<Budget>,
}

impl Look {
    fn new(lab: &Lab) -> Look {
        Look::filtered(lab, None)
    }

    fn filtered(lab: &Lab, filter: Option<Filter>) -> Look {
        let budget: Arc<Budget> = Arc::default();
        let capture = Capture::new(0, filter, Arc::clone(&budget), Arc::clone(&lab.worker.control.waker));
        Look { capture: Arc::new(capture), missed: Arc::default(), budget }
    }

    fn point(&self, interface: u32) -> CapturePoint {
        CapturePoint::new(Arc::clone(&self.capture), interface, Arc::clone(&self.missed))
    }

    fn frames(&self) -> Vec<Captured> {
        std::iter::from_fn(|| self.capture.fetch()).collect()
    }

    /// Interface, way and bytes of each frame.
    fn seen(&self) -> Vec<(u32, Way, Vec<u8>)> {
        let frames = self.frames().into_iter();
        frames
            .inspect(|got| assert_eq!(got.dropped, None))
            .map(|got| (got.interface, got.way, got.bytes.into()))
            .collect()
    }

    /// Interface, way, reason and bytes of each dropped frame.
    fn drops(&self) -> Vec<(u32, Way, DropReason, Vec<u8>)> {
        let frames = self.frames().into_iter();
        frames.map(|got| (got.interface, got.way, got.dropped.unwrap(), got.bytes.into())).collect()
    }
}

impl Lab {
    fn capture(&mut self, captures: Captures) {
        let (done, answered) = bounded(1);
        self.command(Command::SetCaptures { captures: Arc::new(captures), done });
        answered.try_recv().unwrap();
    }
}

/// A capture of these ports in both directions; the interface is the port.
fn of_ports(lab: &mut Lab, ports: &[(u16, Direction)]) -> Look {
    let look = Look::new(lab);
    let mut captures = Captures::default();
    for &(port, direction) in ports {
        captures.add(PortId(port), direction, &look.point(port.into()));
    }
    lab.capture(captures);
    look
}

/// A capture of what is dropped at any port.
fn of_drops(lab: &mut Lab, ports: u16, direction: Direction, reasons: Reasons) -> Look {
    let look = Look::new(lab);
    let mut captures = Captures::default();
    for port in 0..ports {
        captures.add_drops(PortId(port), direction, reasons, &look.point(port.into()));
    }
    lab.capture(captures);
    look
}

/// Port 0 untagged in VLAN 20, port 1 tagged.
fn tagging() -> Lab {
    let mut lab = Lab::new(3);
    lab.specs[0].1.vlan = PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap();
    lab.specs[1].1.vlan = PortVlan::new(VlanMode::Trunk, None, &[]).unwrap();
    lab.specs[2].1.vlan = PortVlan::new(VlanMode::Access, Some(30), &[]).unwrap();
    lab.set_tables(Vec::new());
    lab
}

fn tagged(frame: &[u8], vid: u8) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [0x81, 0x00, 0x00, vid]);
    tagged
}

#[test]
fn frames_are_captured_as_received_and_as_sent_in_order() {
    let mut lab = tagging();
    let look = of_ports(&mut lab, &[(0, Direction::BOTH), (1, Direction::BOTH)]);
    let (plain, other) = (frame(0xff, 1, 9), frame(0xff, 2, 8));
    lab.send(0, &plain);
    lab.send(0, &other);
    lab.turn();
    let expected = vec![
        (0, Way::Rx, plain.clone()),
        (0, Way::Rx, other.clone()),
        (1, Way::Tx, tagged(&plain, 20)),
        (1, Way::Tx, tagged(&other, 20)),
    ];
    assert_eq!(look.seen(), expected);
    lab.send(1, &tagged(&plain, 20));
    lab.turn();
    let frames = look.frames();
    assert!(frames.is_sorted_by_key(|got| got.time_ns) && frames[0].time_ns > 1_600_000_000_000_000_000);
    let seen: Vec<_> = frames.into_iter().map(|got| (got.interface, got.way, got.bytes.into_vec())).collect();
    assert_eq!(seen, [(1, Way::Rx, tagged(&plain, 20)), (0, Way::Tx, plain)]);
}

#[test]
fn only_the_port_and_the_direction_asked_for() {
    let mut lab = tagging();
    let look = of_ports(&mut lab, &[(0, Direction::TX), (2, Direction::BOTH)]);
    let plain = frame(0xff, 1, 9);
    lab.send(0, &plain);
    lab.turn();
    assert_eq!(look.seen(), []);
    lab.send(1, &tagged(&plain, 20));
    lab.turn();
    assert_eq!(look.seen(), [(0, Way::Tx, plain.clone())]);
    lab.capture(Captures::default());
    lab.send(1, &tagged(&plain, 20));
    assert_eq!(lab.turn()[0].len(), 1);
    assert_eq!(look.seen(), [], "no capture any more");
}

#[test]
fn what_a_port_did_not_take_is_no_sent_frame_but_a_drop_with_its_reason() {
    let mut lab = Lab::new(3);
    let sent = of_ports(&mut lab, &[(1, Direction::TX)]);
    let (first, second) = (frame(0xff, 1, 1), frame(0xff, 1, 2));
    let send = |lab: &mut Lab| {
        lab.wires[1].lock().unwrap().room = Some(1);
        lab.send(0, &first);
        lab.send(0, &second);
        assert_eq!(lab.turn()[2].len(), 2);
    };
    send(&mut lab);
    assert_eq!(sent.seen(), [(1, Way::Tx, first.clone())]);
    let drops = of_drops(&mut lab, 3, Direction::BOTH, Reasons::ALL);
    send(&mut lab);
    assert_eq!(drops.drops(), [(1, Way::Tx, DropReason::GuestRingFull, second.clone())]);
    let others = of_drops(&mut lab, 3, Direction::BOTH, DropReason::TxRingFull.into());
    send(&mut lab);
    assert_eq!(others.drops(), [], "another reason");
}

#[test]
fn drops_decided_about_are_captured_at_their_port_as_received() {
    let mut lab = tagging();
    let drops = of_drops(&mut lab, 3, Direction::BOTH, Reasons::ALL);
    let plain = frame(0xff, 1, 9);
    let runt = plain[..10].to_vec();
    let foreign = tagged(&plain, 20);
    lab.send(0, &runt);
    lab.send(0, &plain);
    lab.send(2, &foreign);
    lab.turn();
    let expected = [(0, Way::Rx, DropReason::Runt, runt), (2, Way::Rx, DropReason::TaggedNotAllowed, foreign)];
    assert_eq!(drops.drops(), expected);
    // Too long for port 1 once it is found there.
    lab.specs[1].1.mtu_bytes = 100;
    lab.set_tables(Vec::new());
    lab.send(0, &plain);
    lab.turn();
    assert_eq!(drops.drops(), [(1, Way::Tx, DropReason::Oversize, plain.clone())]);
    let incoming = of_drops(&mut lab, 3, Direction::RX, Reasons::ALL);
    lab.send(0, &plain);
    lab.turn();
    assert_eq!(incoming.drops(), []);
    assert_eq!(lab.drops(1, DropReason::Oversize), 2, "captured or not, it is counted");
}

#[test]
fn a_port_without_a_transmit_side_shows_what_it_did_not_get() {
    let mut lab = Lab::new(2);
    lab.outputs[1].as_mut().unwrap().tx = None;
    lab.set_tables(Vec::new());
    let drops = of_drops(&mut lab, 2, Direction::BOTH, Reasons::ALL);
    let hello = frame(0xff, 1, 1);
    lab.send(0, &hello);
    lab.turn();
    assert_eq!(drops.drops(), [(1, Way::Tx, DropReason::NotConnected, hello)]);
}

#[test]
fn a_full_capture_loses_frames_and_forwarding_none() {
    let mut lab = Lab::new(2);
    let look = of_ports(&mut lab, &[(0, Direction::RX)]);
    let hello = frame(0xff, 1, 1);
    let turns = MAX_WAITING_FRAMES / BURST_FRAMES + 2;
    let mut passed = 0;
    for _ in 0..turns {
        (0..BURST_FRAMES).for_each(|_| lab.send(0, &hello));
        passed += lab.turn()[1].len();
    }
    assert_eq!(passed, turns * BURST_FRAMES);
    assert_eq!(look.missed.load(std::sync::atomic::Ordering::Relaxed), 2 * BURST_FRAMES as u64);
    assert_eq!(look.frames().len(), MAX_WAITING_FRAMES);
    assert!(Arc::strong_count(&look.budget) > 1);
}

#[test]
fn a_mirror_destination_is_captured_like_any_port() {
    let mut lab = Lab::new(3);
    lab.set_tables(vec![mirror(&[(0, true, false)], 2, 60)]);
    let look = of_ports(&mut lab, &[(2, Direction::BOTH)]);
    let hello = frame(0xff, 1, 1);
    lab.send(0, &hello);
    lab.turn();
    assert_eq!(look.seen(), [(2, Way::Tx, hello[..60].to_vec())]);
}

#[test]
fn a_watched_port_is_given_no_buffers_and_others_are() {
    let mut lab = Lab::new(2);
    lab.wires[0].lock().unwrap().movable = true;
    let _look = of_ports(&mut lab, &[(1, Direction::TX)]);
    lab.send(0, &frame(0xff, 1, 1));
    lab.turn();
    assert_eq!(lab.wires[1].lock().unwrap().exclusive, 0);
    lab.capture(Captures::default());
    lab.send(0, &frame(0xff, 1, 1));
    lab.turn();
    assert_eq!(lab.wires[1].lock().unwrap().exclusive, 1);
}

#[test]
fn offloaded_frames_are_captured_as_they_are_on_a_wire() {
    let mut lab = Lab::new(2);
    lab.specs.iter_mut().for_each(|(_, rules)| rules.mtu_bytes = 9000);
    lab.set_tables(Vec::new());
    let look = of_ports(&mut lab, &[(0, Direction::RX), (1, Direction::TX)]);
    let packet = Packet::tcp(false, noise(3000, 1));
    let request = request_of(&packet, Some(1000));
    let (bytes, wire) = (packet.partial(), resolved(&packet.partial(), 128, request).unwrap());
    lab.wires[0].lock().unwrap().asks = Some(request.encode(0));
    lab.wires[1].lock().unwrap().offers = Offers::ALL;
    lab.send(0, &bytes);
    assert_eq!(lab.turn()[1], [bytes], "the port takes it whole");
    assert_eq!(wire.len(), 3);
    let seen = look.seen();
    let of = |way| seen.iter().filter(move |got| got.1 == way).map(|got| got.2.clone()).collect::<Vec<_>>();
    assert_eq!((of(Way::Rx), of(Way::Tx)), (wire.clone(), wire));
}

/// Frames whose byte at `offset` is this.
fn byte_is(offset: u32, byte: u8, form: Form) -> Filter {
    let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
    let program = [insn(0x30, 0, 0, offset), insn(0x15, 0, 1, byte.into()), insn(6, 0, 0, 65535), insn(6, 0, 0, 0)];
    Filter::new(&program, form).unwrap()
}

#[test]
fn a_filter_selects_by_the_frame_as_it_is_at_that_port_and_by_bytes_behind_the_snapshot() {
    let mut lab = tagging();
    let mut captures = Captures::default();
    // The first byte of the type: 0x81 only where the frame is tagged.
    let tags = Look::filtered(&lab, Some(byte_is(12, 0x81, Form::Tagged)));
    let payload = Look::filtered(&lab, Some(byte_is(180, 8, Form::Untagged)));
    let nothing = Look::filtered(&lab, Some(byte_is(180, 7, Form::Untagged)));
    for look in [&tags, &payload, &nothing] {
        captures.add(PortId(0), Direction::BOTH, &look.point(0));
        captures.add(PortId(1), Direction::BOTH, &look.point(1));
    }
    lab.capture(captures);
    let (nine, eight) = (frame(0xff, 1, 9), frame(0xff, 1, 8));
    lab.send(0, &nine);
    lab.send(0, &eight);
    lab.turn();
    assert_eq!(tags.seen(), [(1, Way::Tx, tagged(&nine, 20)), (1, Way::Tx, tagged(&eight, 20))]);
    assert_eq!(payload.seen(), [(0, Way::Rx, eight.clone()), (1, Way::Tx, tagged(&eight, 20))]);
    assert_eq!(nothing.seen(), []);
    assert_eq!(nothing.missed.load(std::sync::atomic::Ordering::Relaxed), 0);
}
