//! Impairments in the worker: delayed, lost, doubled and corrupted frames of one port and direction, and what others
//! notice.

use std::time::Duration;

use labsw_switch::impair::{Chance, ImpairSpec, Loss, Outage, RateSpec, SegmentLoss};

use super::*;
use crate::impair::{Schedule, TxDelay};

const MS: u64 = 1_000_000;
const DELAY_NS: u64 = 20 * MS;
const DELAYED: ImpairSpec = ImpairSpec { delay_ns: DELAY_NS, ..ImpairSpec::NONE };

impl Lab {
    /// Puts an impairment on what comes from a port, on what goes to it, or ends both.
    fn impair(&mut self, port: usize, rx: Option<ImpairSpec>, tx: Option<ImpairSpec>) {
        let inner = self.wires_tx[port].clone();
        let mut output = Output::new(Some(inner), Arc::clone(&self.stats[port]));
        output.impaired_rx = rx.map(|spec| Arc::new(Schedule::new(spec).unwrap()));
        if let Some(spec) = tx {
            output = output.impaired_by(Arc::new(TxDelay::new(Schedule::new(spec).unwrap())));
        }
        self.outputs[port] = Some(output);
        self.set_tables(Vec::new());
    }

    /// Lets time pass.
    fn wait(&mut self, ns: u64) {
        self.worker.now.now_ns += ns;
    }

    /// A turn, and what is due after it.
    fn turn_and_release(&mut self) -> Vec<Vec<Vec<u8>>> {
        let mut got = self.turn();
        self.send_delayed();
        for (got, wire) in got.iter_mut().zip(&self.wires) {
            got.append(&mut wire.lock().unwrap().from_switch);
        }
        got
    }
}

#[test]
fn frames_to_an_impaired_port_leave_when_they_are_due_and_others_at_once() {
    let mut lab = Lab::new(3);
    lab.impair(1, None, Some(DELAYED));
    let frames: Vec<_> = (0..100).map(|n| frame(0xff, 1, n)).collect();
    frames.iter().for_each(|frame| lab.send(0, frame));
    let (first, second) = (lab.turn_and_release(), lab.turn_and_release());
    assert!(first[1].is_empty() && second[1].is_empty());
    assert_eq!([&first[2][..], &second[2][..]].concat(), frames, "at once");
    assert_eq!(lab.next_delayed(), lab.worker.now.now_ns + DELAY_NS);
    assert_eq!(lab.stats[1].snapshot().tx_frames, 0);
    lab.wait(DELAY_NS);
    assert_eq!(lab.turn_and_release()[1], frames, "all of them, in order");
    assert_eq!((lab.stats[1].snapshot().tx_frames, lab.next_delayed()), (100, clock::NEVER));
}

#[test]
fn frames_from_an_impaired_port_are_decided_about_when_they_are_due() {
    let mut lab = Lab::new(3);
    lab.impair(0, Some(DELAYED), None);
    let (slow, fast) = (frame(0xff, 1, 1), frame(0xff, 2, 2));
    (0..100).for_each(|_| lab.send(0, &slow));
    lab.send(1, &fast);
    let got = lab.turn_and_release();
    assert_eq!((got[0].len(), got[1].len(), got[2].len()), (1, 0, 1), "only what came from port 1");
    lab.turn_and_release();
    assert_eq!(lab.stats[0].snapshot().rx_frames, 100, "counted when they came in");
    assert_ne!(lab.next_delayed(), clock::NEVER);
    lab.wait(DELAY_NS);
    let got = [lab.turn_and_release(), lab.turn_and_release()];
    assert_eq!(got.map(|got| got[2].len()), [BURST_FRAMES, 100 - BURST_FRAMES]);
    assert_eq!(lab.next_delayed(), clock::NEVER);
}

#[test]
fn a_sleeping_worker_wakes_for_a_frame_that_is_due() {
    for (rx, tx) in [(Some(DELAYED), None), (None, Some(DELAYED))] {
        let mut lab = Lab::new(2);
        let port = if rx.is_some() { 0 } else { 1 };
        lab.impair(port, rx, tx);
        lab.send(0, &frame(0xff, 1, 1));
        // Nothing but the due frame ends the sleep early.
        lab.wires.iter().for_each(|wire| wire.lock().unwrap().quiet = true);
        let sent = Instant::now();
        lab.worker.now.now_ns = clock::at(sent);
        while lab.turn_and_release()[1].is_empty() {
            lab.worker.sleep();
            lab.disarm();
            lab.worker.now.now_ns = clock::now_ns();
        }
        let late = sent.elapsed().checked_sub(Duration::from_nanos(DELAY_NS)).expect("not before it is due");
        assert!(late < Duration::from_secs(2), "slept on for {late:?}");
    }
}

#[test]
fn losses_are_counted_where_they_happen_and_not_mirrored() {
    let lossy = ImpairSpec { loss: Loss::Random(Chance::ALWAYS), ..ImpairSpec::NONE };
    let mut lab = Lab::new(4);
    lab.impair(1, None, Some(lossy));
    lab.set_tables(vec![mirror(&[(1, false, true), (2, false, true)], 3, 0)]);
    lab.send(0, &frame(0xff, 1, 1));
    let got = lab.turn_and_release();
    assert_eq!((got[1].len(), got[2].len(), got[3].len()), (0, 1, 1));
    assert_eq!((lab.drops(1, DropReason::ImpairLoss), lab.drops(0, DropReason::ImpairLoss)), (1, 0));
    lab.impair(1, None, None);
    lab.impair(0, Some(lossy), None);
    lab.send(0, &frame(0xff, 1, 1));
    assert!(lab.turn_and_release().iter().all(Vec::is_empty));
    assert_eq!(lab.drops(0, DropReason::ImpairLoss), 1);
}

#[test]
fn a_segment_of_a_connection_is_lost_and_an_outage_loses_all() {
    let tcp = |sequence: u8| {
        let mut frame = frame(0xff, 1, 1);
        frame.resize(14, 0);
        frame[12..].copy_from_slice(&[8, 0]);
        let ip = [0x45, 0, 0, 41, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let tcp = [1, 1, 1, 1, 0, 0, 0, sequence, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0];
        [&frame, &ip[..], &tcp, &[0xab; 20]].concat()
    };
    let segment = Some(SegmentLoss { number: 2, retransmissions: 1 });
    let spec = ImpairSpec { segment, ..ImpairSpec::NONE };
    let outage = ImpairSpec { outage: Some(Outage { after_ns: 0, lasts_ns: 1 << 60 }), ..ImpairSpec::NONE };
    for is_rx in [true, false] {
        let mut lab = Lab::new(2);
        let port = usize::from(!is_rx);
        let impair = |lab: &mut Lab, spec| {
            let spec = Some(spec);
            if is_rx { lab.impair(port, spec, None) } else { lab.impair(port, None, spec) }
        };
        impair(&mut lab, spec);
        [1, 2, 3, 2, 2].iter().for_each(|sequence| lab.send(0, &tcp(*sequence)));
        assert_eq!(lab.turn_and_release()[1], [1, 3, 2].map(tcp));
        assert_eq!(lab.drops(port, DropReason::ImpairLoss), 2);
        impair(&mut lab, outage);
        lab.send(0, &frame(0xff, 1, 1));
        assert!(lab.turn_and_release()[1].is_empty());
        assert_eq!(lab.drops(port, DropReason::ImpairOutage), 1);
    }
}

#[test]
fn a_copy_follows_its_frame_and_one_bit_is_wrong_in_both() {
    let spec = ImpairSpec { duplicate: Chance::ALWAYS, corrupt: Chance::ALWAYS, ..ImpairSpec::NONE };
    for (rx, tx) in [(None, Some(spec)), (Some(spec), None)] {
        let mut lab = Lab::new(2);
        // Port 1's own transmit side, or what comes from port 0; the latter may hit an address, so all is flooded.
        lab.impair(if rx.is_some() { 0 } else { 1 }, rx, tx);
        let hello = frame(0xff, 1, 1);
        for _ in 0..20 {
            lab.send(0, &hello);
        }
        let got = lab.turn_and_release().swap_remove(1);
        let wrong = |frame: &[u8]| hello.iter().zip(frame).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        assert!(got.len() >= 36 && got.iter().all(|frame| frame.len() == hello.len() && wrong(frame) == 1));
        if tx.is_some() {
            assert!(got.chunks(2).all(|pair| pair[0] == pair[1]));
        }
    }
}

#[test]
fn a_rate_of_a_port_is_one_queue_for_all_senders() {
    let rate = RateSpec { queue_frames: 10, ..RateSpec::new(1_000_000) };
    let mut lab = Lab::new(3);
    lab.impair(2, None, Some(ImpairSpec { rate: Some(rate), ..ImpairSpec::NONE }));
    for n in 0..20 {
        lab.send(0, &frame(0xff, 1, n));
        lab.send(1, &frame(0xff, 2, n));
    }
    lab.turn_and_release();
    // A frame takes 1.6 ms.
    let dropped = lab.drops(2, DropReason::ImpairQueueFull);
    assert!((25..=30).contains(&dropped), "{dropped} of 40 did not fit the queue of 10");
}

#[test]
fn an_impaired_port_gets_a_large_frame_in_segments_each_with_a_fate_of_its_own() {
    let packet = Packet::tcp(false, noise(40_000, 1));
    let request = request_of(&packet, Some(1448));
    let segments = resolved(&packet.partial(), 128, request).unwrap();
    for direction in ["rx", "tx"] {
        let mut lab = Lab::new(2);
        lab.wires[1].lock().unwrap().offers = Offers::ALL;
        match direction {
            "rx" => lab.impair(0, Some(DELAYED), None),
            _ => lab.impair(1, None, Some(DELAYED)),
        }
        lab.wires[0].lock().unwrap().asks = Some(request.encode(54));
        lab.send(0, &packet.partial());
        assert!(lab.turn_and_release()[1].is_empty());
        lab.wait(DELAY_NS);
        assert_eq!(lab.turn_and_release()[1], segments, "{direction}");
    }
}

#[test]
fn what_waits_when_an_impairment_ends_is_counted() {
    let hello = frame(0xff, 1, 1);
    let mut lab = Lab::new(2);
    for (rx, tx) in [(None, Some(DELAYED)), (Some(DELAYED), None)] {
        let port = if rx.is_some() { 0 } else { 1 };
        lab.impair(port, rx, tx);
        lab.send(0, &hello);
        lab.turn_and_release();
        // Other changes of the switch leave it alone.
        lab.set_tables(Vec::new());
        assert_eq!(lab.drops(port, DropReason::ImpairCleared), 0);
        lab.impair(port, None, None);
        assert_eq!(lab.drops(port, DropReason::ImpairCleared), 1);
        assert_eq!(lab.next_delayed(), clock::NEVER);
        lab.send(0, &hello);
        assert_eq!(lab.turn_and_release()[1], std::slice::from_ref(&hello), "at once again");
    }
    lab.impair(0, Some(DELAYED), None);
    lab.send(0, &hello);
    lab.turn_and_release();
    let (reply, taken) = bounded(1);
    lab.command(Command::TakeQueue { port: PortId(0), queue: 0, reply });
    assert_eq!(lab.drops(0, DropReason::ImpairCleared), 2);
    lab.command(Command::AddQueue { port: PortId(0), queue: 0, rx: taken.recv().unwrap() });
    lab.send(0, &hello);
    assert!(lab.turn_and_release()[1].is_empty(), "the queue is impaired where it goes");
}
