//! The worker over in-memory ports: who gets what, what a fault does, what a command waits for.

use std::sync::Mutex;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use labsw_switch::Vid;
use labsw_switch::fdb::Fdb;
use labsw_switch::forward::TxItem;
use labsw_switch::inject::{IngressAs, InjectSpec, Injection};
use labsw_switch::inline::InlineSpec;
use labsw_switch::tables::{Direction, MirrorSpec, PortRules};
use labsw_switch::vlan::{PortVlan, VlanMode};
use labsw_switch::{BURST_FRAMES, MAX_MIRRORS, MirrorId};
use labsw_testkit::offload_frames::{Packet, noise};

use super::memory_port::{MemoryTx, Wire, frame, memory_port};
use labsw_switch::DropReason;

use super::*;
use crate::mirror::{BACKLOG_FRAMES, MirrorTx};
use crate::offload::Offers;
use crate::offload::whole::{request_of, resolved};
use crate::port::TxPort;
use crate::stats::PortStats;

mod capture;
mod impair;
mod inline;
mod single_read;

/// A worker with memory ports 0, 1, … that are driven turn by turn.
struct Lab {
    worker: Worker,
    wires: Vec<Arc<Mutex<Wire>>>,
    wires_tx: Vec<Arc<MemoryTx>>,
    stats: Vec<Arc<PortStats>>,
    outputs: Vec<Option<Output>>,
    commands: Sender<Command>,
    events: Receiver<Event>,
    specs: Vec<(PortId, PortRules)>,
    mirrors: Arc<[MirrorStats]>,
}

impl Lab {
    fn new(ports: u16) -> Lab {
        let shared = Shared {
            fdb: Arc::new(Fdb::new(1024, 300, 1)),
            mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(1)).collect(),
        };
        let mirrors = Arc::clone(&shared.mirrors);
        let specs: Vec<_> = (0..ports).map(|id| (PortId(id), PortRules::default())).collect();
        let (commands, receiver) = unbounded();
        let (event_sender, events) = unbounded();
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).unwrap());
        let control = ControlEnds { commands: receiver, events: event_sender, waker };
        let load = Arc::new(WorkerLoad::default());
        let worker = Worker::new(Turn::ONLY, shared, Power::Adaptive, load, control, poll);
        let (wires, stats, outputs) = (Vec::new(), Vec::new(), Vec::new());
        let mut lab = Lab { worker, wires, wires_tx: Vec::new(), stats, outputs, commands, events, specs, mirrors };
        for id in 0..ports {
            let (rx, tx, wire) = memory_port();
            let stats = Arc::new(PortStats::new(1));
            lab.command(Command::AddQueue { port: PortId(id), queue: 0, rx });
            lab.wires.push(wire);
            lab.wires_tx.push(Arc::clone(&tx));
            lab.outputs.push(Some(Output::new(Some(tx), Arc::clone(&stats))));
            lab.stats.push(stats);
        }
        lab.set_tables(Vec::new());
        lab
    }

    fn command(&mut self, command: Command) {
        self.commands.send(command).unwrap();
        assert!(self.worker.obey());
    }

    fn set_tables(&mut self, mirrors: Vec<MirrorSpec>) {
        self.set_tables_with(mirrors, &[]);
    }

    fn set_tables_with(&mut self, mirrors: Vec<MirrorSpec>, inlines: &[InlineSpec]) {
        let (done, answered) = bounded(1);
        let tables = Arc::new(Tables::build_with(self.specs.clone(), mirrors, inlines).unwrap());
        let snapshot = Snapshot { tables, outputs: self.outputs.clone().into() };
        self.command(Command::SetSnapshot { snapshot, done });
        answered.try_recv().unwrap();
    }

    fn send(&mut self, port: usize, frame: &[u8]) {
        self.wires[port].lock().unwrap().to_switch.push_back(frame.to_vec());
    }

    /// Runs a turn. Returns the frames that each port got since the last call.
    fn turn(&mut self) -> Vec<Vec<Vec<u8>>> {
        self.worker.turn();
        self.wires.iter().map(|wire| std::mem::take(&mut wire.lock().unwrap().from_switch)).collect()
    }

    /// When the worker has a delayed frame to send or to receive, ns.
    fn next_delayed(&self) -> u64 {
        let Worker { now, ports, queues, impairments, .. } = &self.worker;
        impairments.next_due(now, ports, queues)
    }

    /// Sends delayed frames that are due.
    fn send_delayed(&mut self) {
        let Worker { now, ports, control, impairments, .. } = &mut self.worker;
        impairments.send_due(now, ports, control);
    }

    /// Ends what a sleep began.
    fn disarm(&mut self) {
        let Worker { sleeper, queues, .. } = &mut self.worker;
        sleeper.disarm(queues);
    }

    fn drops(&self, port: usize, reason: DropReason) -> u64 {
        self.stats[port].snapshot().drops[reason as usize]
    }
}

fn mirror(sources: &[(u16, bool, bool)], to: u16, snaplen_bytes: u32) -> MirrorSpec {
    MirrorSpec {
        id: MirrorId(3),
        sources: sources.iter().map(|&(port, rx, tx)| (PortId(port), Direction { rx, tx })).collect(),
        all_ports: None,
        vlans: None,
        to: Some(PortId(to).into()),
        snaplen_bytes,
        filter: None,
    }
}

#[test]
fn floods_learns_and_then_forwards_to_one_port() {
    let mut lab = Lab::new(3);
    let (hello, answer) = (frame(0xff, 1, 7), frame(1, 2, 8));
    lab.send(0, &hello);
    assert_eq!(lab.turn(), [vec![], vec![hello.clone()], vec![hello]]);
    lab.send(1, &answer);
    assert_eq!(lab.turn(), [vec![answer], vec![], vec![]]);
    let seen = lab.stats[0].snapshot();
    assert_eq!((seen.rx_frames, seen.tx_frames, seen.tx_bytes), (1, 1, 200));
}

#[test]
fn a_burst_keeps_its_order_and_a_second_burst_follows() {
    let mut lab = Lab::new(2);
    let frames: Vec<_> = (0..100).map(|n| frame(0xff, 1, n)).collect();
    for frame in &frames {
        lab.send(0, frame);
    }
    let mut got = lab.turn().swap_remove(1);
    assert_eq!(got.len(), BURST_FRAMES);
    got.extend(lab.turn().swap_remove(1));
    assert_eq!(got, frames);
}

#[test]
fn tags_are_edited_on_the_way_out() {
    let mut lab = Lab::new(2);
    lab.specs[0].1.vlan = PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap();
    lab.specs[1].1.vlan = PortVlan::new(VlanMode::Trunk, None, &[]).unwrap();
    lab.set_tables(Vec::new());
    let plain = frame(0xff, 1, 9);
    lab.send(0, &plain);
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 20]);
    assert_eq!(lab.turn()[1], [tagged.clone()]);
    lab.send(1, &tagged);
    assert_eq!(lab.turn()[0], [plain]);
}

#[test]
fn a_mirror_copies_what_was_received_and_what_was_really_sent() {
    let mut lab = Lab::new(4);
    lab.set_tables(vec![mirror(&[(1, true, true)], 3, 0)]);
    let (first, second, answer) = (frame(0xff, 1, 1), frame(0xff, 1, 2), frame(0xff, 2, 3));
    lab.wires[1].lock().unwrap().room = Some(1);
    lab.send(0, &first);
    lab.send(0, &second);
    let got = lab.turn();
    assert_eq!(got[1], std::slice::from_ref(&first));
    assert_eq!(got[2], [first.clone(), second], "a full port delays nobody");
    assert_eq!(got[3], [first], "what the port did not take is not in the capture");
    assert_eq!(lab.drops(1, DropReason::GuestRingFull), 1);
    lab.send(1, &answer);
    assert_eq!(lab.turn()[3], [answer], "one copy, and the destination is no member of the flood");
    let counted = lab.mirrors[3].snapshot();
    assert_eq!((counted.matched, counted.sent, counted.dropped), (3, 2, 0));
}

#[test]
fn a_mirror_cuts_at_its_snap_length_and_counts_what_its_destination_drops() {
    let mut lab = Lab::new(3);
    lab.set_tables(vec![mirror(&[(0, true, false)], 2, 60)]);
    lab.wires[2].lock().unwrap().room = Some(1);
    let hello = frame(0xff, 1, 1);
    lab.send(0, &hello);
    lab.send(0, &hello);
    let got = lab.turn();
    assert_eq!(got[1].len(), 2);
    assert_eq!(got[2], [hello[..60].to_vec()]);
    let counted = lab.mirrors[3].snapshot();
    assert_eq!((counted.matched, counted.sent, counted.dropped, counted.truncated), (2, 1, 1, 1));
}

#[test]
fn a_fault_takes_out_one_port_only() {
    let mut lab = Lab::new(3);
    lab.wires[1].lock().unwrap().broken = true;
    let hello = frame(0xff, 1, 1);
    lab.send(0, &hello);
    let got = lab.turn();
    assert_eq!(got[2], std::slice::from_ref(&hello));
    // Both halves met it: one at the frame, one when it was to receive.
    for _ in 0..2 {
        let Ok(Event::PortFault { id, fault }) = lab.events.try_recv() else { panic!("no event") };
        assert_eq!((id, fault), (PortId(1), Fault::new(7, "broken on purpose")));
    }
    assert_eq!(lab.drops(1, DropReason::NotConnected), 1, "the frame that met the fault");
    // The control thread takes the transmit side away.
    lab.outputs[1].as_mut().unwrap().tx = None;
    lab.set_tables(Vec::new());
    lab.send(0, &hello);
    assert_eq!(lab.turn()[2], [hello]);
    assert!(lab.events.try_recv().is_err(), "told once");
    assert_eq!(lab.drops(1, DropReason::NotConnected), 2);
}

#[test]
fn a_burst_can_be_moved_only_if_its_own_port_said_so() {
    let mut lab = Lab::new(2);
    lab.wires[0].lock().unwrap().movable = true;
    // Port 0 has nothing to say this turn, but says that it could be moved.
    lab.send(1, &frame(0xff, 2, 1));
    assert_eq!(lab.turn()[0].len(), 1);
    assert!(!lab.wires[0].lock().unwrap().sent_movable);
    lab.send(0, &frame(0xff, 1, 1));
    assert_eq!(lab.turn()[1].len(), 1);
    assert!(lab.wires[1].lock().unwrap().sent_movable);
}

#[test]
fn a_removed_port_gets_nothing_more_and_its_queue_comes_back() {
    let mut lab = Lab::new(3);
    lab.specs.remove(1);
    lab.outputs[1] = None;
    lab.set_tables(Vec::new());
    let hello = frame(0xff, 1, 1);
    lab.send(0, &hello);
    lab.send(1, &hello);
    assert_eq!(lab.turn(), [vec![], vec![], vec![hello]]);
    let waiting = lab.wires[1].lock().unwrap().to_switch.len();
    assert_eq!(waiting, 1, "what arrives at a port that is going waits: nothing could count it");
    for expected in [true, false] {
        let (reply, answered) = bounded(1);
        lab.command(Command::TakeQueue { port: PortId(1), queue: 0, reply });
        assert_eq!(answered.try_recv().is_ok(), expected);
    }
}

#[test]
fn a_queue_that_nobody_waits_for_any_more_stays() {
    let mut lab = Lab::new(2);
    let (reply, answered) = bounded(1);
    drop(answered);
    lab.command(Command::TakeQueue { port: PortId(0), queue: 0, reply });
    let hello = frame(0xff, 1, 1);
    lab.send(0, &hello);
    assert_eq!(lab.turn()[1], [hello]);
}

#[test]
fn offloads_are_left_to_who_accepts_them_and_done_for_all_others() {
    let mut lab = Lab::new(5);
    lab.specs[2].1.vlan = PortVlan::new(VlanMode::Trunk, None, &[]).unwrap();
    lab.specs[3].1.mtu_bytes = 1400;
    lab.wires[1].lock().unwrap().offers = Offers::ALL;
    lab.wires[2].lock().unwrap().offers = Offers { tcp4: false, ..Offers::ALL };
    lab.wires[4].lock().unwrap().offers = Offers::ALL;
    for (id, spec) in &mut lab.specs {
        if *id != PortId(2) {
            spec.vlan = PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap();
        }
    }
    lab.set_tables(vec![mirror(&[(0, true, false)], 4, 0)]);
    let packet = Packet::tcp(false, noise(40_000, 1));
    let request = request_of(&packet, Some(1448));
    let (frame, segments) = (packet.partial(), resolved(&packet.partial(), 128, request).unwrap());
    lab.wires[0].lock().unwrap().asks = Some(request.encode(54));
    lab.send(0, &frame);
    let got = lab.turn();
    let tagged = |frame: &Vec<u8>| [&frame[..12], &[0x81, 0x00, 0x00, 20], &frame[12..]].concat();
    assert_eq!(got[1], std::slice::from_ref(&frame), "as it is");
    assert_eq!(lab.wires[1].lock().unwrap().asked, [request.encode(54)]);
    assert_eq!(got[2], segments.iter().map(tagged).collect::<Vec<_>>(), "cut, and then tagged");
    assert_eq!(got[3], [] as [Vec<u8>; 0], "segments are longer than its MTU");
    assert_eq!(lab.drops(3, DropReason::Oversize), 1);
    assert_eq!(got[4], segments, "a mirror shows frames of a wire");
    assert_eq!(lab.mirrors[3].snapshot().sent, 1);
}

#[test]
fn frames_are_finished_for_a_port_that_is_to_have_them_so() {
    for (packet, cut) in [(Packet::tcp(false, noise(4000, 1)), Some(1448)), (Packet::udp(true, noise(900, 1)), None)] {
        let mut lab = Lab::new(3);
        for port in [1, 2] {
            lab.wires[port].lock().unwrap().offers = Offers::ALL;
        }
        lab.outputs[2].as_mut().unwrap().finished = true;
        lab.set_tables(vec![]);
        let request = request_of(&packet, cut);
        let frame = packet.partial();
        lab.wires[0].lock().unwrap().asks = Some(request.encode(0));
        lab.send(0, &frame);
        let got = lab.turn();
        assert_eq!(got[1], std::slice::from_ref(&frame), "who accepts it gets it as it is");
        assert_eq!(got[2], resolved(&frame, 128, request).unwrap());
        assert!(lab.wires[2].lock().unwrap().asked.iter().all(|header| *header == [0; 10]));
    }
}

#[test]
fn a_mirror_destination_that_takes_nothing_delays_nobody() {
    let mut lab = Lab::new(3);
    let output = lab.outputs[2].as_mut().unwrap();
    output.tx = output.tx.take().map(|tx| Arc::new(MirrorTx::new(tx, None)) as Arc<dyn TxPort>);
    lab.set_tables(vec![mirror(&[(0, true, false)], 2, 0)]);
    lab.wires[2].lock().unwrap().room = Some(0);
    let rounds = BACKLOG_FRAMES + 100;
    let numbered = |number: usize| [&frame(0xff, 1, 0)[..], &number.to_be_bytes()].concat();
    for number in 0..rounds {
        lab.send(0, &numbered(number));
        assert_eq!(lab.turn(), [vec![], vec![numbered(number)], vec![]], "in the same turn");
    }
    let counted = lab.mirrors[3].snapshot();
    assert_eq!((counted.matched, counted.sent, counted.dropped), (rounds as u64, BACKLOG_FRAMES as u64, 100));
    // When it takes frames again, it gets what was kept, in order.
    lab.wires[2].lock().unwrap().room = None;
    lab.worker.run_due();
    assert_eq!(lab.turn()[2], (0..BACKLOG_FRAMES).map(numbered).collect::<Vec<_>>());
}

#[test]
fn what_is_injected_enters_and_what_was_copied_does_not() {
    let mut lab = Lab::new(3);
    let spec = InjectSpec { ingress: IngressAs::Vlan(Vid::DEFAULT), rate_fps: 1000, sources: vec![] };
    let gate = Arc::new(Injection::new(spec, 0x5eed));
    let output = lab.outputs[2].as_mut().unwrap();
    output.tx = output.tx.take().map(|tx| Arc::new(MirrorTx::new(tx, Some(Arc::clone(&gate)))) as Arc<dyn TxPort>);
    lab.specs[2].1.inject = Some(gate);
    lab.set_tables(vec![mirror(&[(0, true, true)], 2, 100)]);
    lab.send(0, &frame(0xff, 1, 1));
    let copy = lab.turn()[2].remove(0);
    assert_eq!(copy.len(), 100);
    lab.send(2, &copy);
    assert_eq!(lab.turn(), [const { Vec::<Vec<u8>>::new() }; 3]);
    assert_eq!(lab.drops(2, DropReason::MirrorLoop), 1);
    let attack = frame(0xff, 9, 9);
    lab.send(2, &attack);
    assert_eq!(lab.turn(), [vec![attack.clone()], vec![attack], vec![]], "and is not copied back");
    lab.send(0, &frame(9, 1, 2));
    assert_eq!(lab.turn()[1].len(), 1, "its source was not learned: flooded");
}
