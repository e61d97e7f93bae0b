//! A destination that is slow: order, bounds, counters, and that nobody waits for it.

#![allow(unsafe_code, reason = "tests lend memory of their own")]

use labsw_switch::Vid;
use labsw_switch::inject::{IngressAs, InjectSpec};

use super::*;
use crate::frame::Segment;
use crate::losses::Losses;
use crate::worker::memory_port::{Wire, memory_port};

struct Bed {
    tx: MirrorTx,
    wire: Arc<Mutex<Wire>>,
    stats: PortDelta,
    number: u32,
}

impl Bed {
    fn new() -> Bed {
        let (_, port, wire) = memory_port();
        Bed { tx: MirrorTx::new(port, None), wire, stats: PortDelta::ZERO, number: 0 }
    }

    /// Sends numbered frames of so many bytes; gives how many were lost.
    fn send(&mut self, frames: usize, len: usize) -> u32 {
        let bytes: Vec<Vec<u8>> = (0..frames)
            .map(|_| {
                self.number += 1;
                let mut frame = vec![0; len];
                frame[..4].copy_from_slice(&self.number.to_be_bytes());
                frame
            })
            .collect();
        let mut burst = Burst::new();
        for frame in &bytes {
            let segment = Segment { ptr: frame.as_ptr(), len: u32::try_from(len).unwrap() };
            // SAFETY: `bytes` outlives the burst.
            assert!(unsafe { burst.push_whole(0, segment) });
        }
        let items: Vec<TxItem> =
            (0..u8::try_from(frames).unwrap()).map(|at| TxItem::whole(at, TagEdit::KEEP)).collect();
        let mut losses = Losses::NONE;
        let report = &mut TxReport { stats: &mut self.stats, losses: &mut losses };
        self.tx.send(&Turn::ONLY, &mut burst, &items, report).unwrap();
        losses.frames().count_ones()
    }

    fn run_due(&mut self) -> Result<(), Fault> {
        self.tx.run_due(&Turn::ONLY, &mut self.stats)
    }

    fn room(&self, frames: Option<usize>) {
        self.wire.lock().unwrap().room = frames;
    }

    /// The numbers of the frames that arrived since the last look.
    fn arrived(&self) -> Vec<u32> {
        let frames = std::mem::take(&mut self.wire.lock().unwrap().from_switch);
        frames.iter().map(|frame| u32::from_be_bytes(frame[..4].try_into().unwrap())).collect()
    }
}

#[test]
fn who_keeps_up_has_no_backlog() {
    let mut bed = Bed::new();
    assert_eq!(bed.send(64, 100), 0);
    assert_eq!(bed.arrived(), (1..=64).collect::<Vec<_>>());
    assert!(bed.tx.backlog.lock().unwrap().bytes.is_empty() && bed.tx.next_due(&Turn::ONLY) == NEVER);
}

#[test]
fn copies_longer_than_the_port_takes_are_counted_and_the_others_sent() {
    let mut bed = Bed::new();
    assert_eq!(bed.send(2, 9000), 0, "without a limit");
    assert!(bed.tx.set_limit(Some(1518)) && !bed.tx.set_limit(Some(1518)));
    assert_eq!((bed.send(3, 1518), bed.send(5, 1519)), (0, 5));
    assert_eq!(bed.arrived(), [1, 2, 3, 4, 5]);
    // Also behind kept ones, of which none is too long.
    bed.room(Some(0));
    assert_eq!((bed.send(1, 100), bed.send(1, 2000), bed.send(1, 200)), (0, 1, 0));
    assert_eq!(bed.stats.drops[DropReason::Oversize as usize], 6);
    assert!(bed.tx.set_limit(None));
    assert_eq!(bed.send(1, 9000), 0);
}

#[test]
fn a_slow_destination_gets_all_frames_in_order_as_long_as_there_is_room() {
    let mut bed = Bed::new();
    let (mut got, mut sent) = (Vec::new(), 0u32);
    for round in 0..200usize {
        bed.room(Some(round * 7 % 13));
        assert_eq!(bed.send(round % 12, 60 + round * 5), 0);
        sent += u32::try_from(round % 12).unwrap();
        if round % 3 == 0 {
            bed.run_due().unwrap();
        }
        got.extend(bed.arrived());
    }
    bed.room(None);
    bed.run_due().unwrap();
    got.extend(bed.arrived());
    assert_eq!(got, (1..=sent).collect::<Vec<_>>());
    assert_eq!((bed.stats.tx_frames, bed.stats.drops.iter().sum::<u64>()), (u64::from(sent), 0));
    assert!(bed.tx.next_due(&Turn::ONLY) == NEVER, "nothing is kept");
}

#[test]
fn a_destination_that_never_takes_anything_costs_bounded_memory_and_the_rest_is_counted() {
    let mut bed = Bed::new();
    bed.room(Some(0));
    let lost: u32 = (0..20).map(|_| bed.send(64, 200)).sum();
    assert_eq!(lost as usize, 20 * 64 - BACKLOG_FRAMES);
    // Under the reason that the port gives, and no other.
    let dropped = bed.stats.drops[DropReason::GuestRingFull as usize];
    assert_eq!((dropped, bed.stats.tx_frames), (lost.into(), BACKLOG_FRAMES as u64));
    assert_eq!(bed.stats.drops.iter().sum::<u64>(), dropped);
    // It is looked at less and less often.
    assert!((0..20).all(|_| bed.run_due().is_ok()));
    assert_eq!(bed.tx.next_due(&Turn::ONLY), FIRST_LOOK_NS * 64);
    // The oldest are those that were kept.
    bed.room(None);
    bed.run_due().unwrap();
    assert_eq!(bed.arrived(), (1..=u32::try_from(BACKLOG_FRAMES).unwrap()).collect::<Vec<_>>());

    // Bytes are a limit, too, with the longest frames as with any.
    bed.room(Some(0));
    let before = bed.number;
    assert_eq!(bed.send(40, 65_599), 40 - u32::try_from(BACKLOG_BYTES / 65_599).unwrap());
    bed.room(None);
    assert_eq!(bed.send(1, 60), 0);
    let kept = u32::try_from(BACKLOG_BYTES / 65_599).unwrap();
    let expected: Vec<u32> = (before + 1..=before + kept).chain([before + 41]).collect();
    assert_eq!(bed.arrived(), expected);
}

#[test]
fn copies_are_noted_as_they_go_out_and_known_when_they_come_back() {
    let spec = InjectSpec { ingress: IngressAs::Vlan(Vid::DEFAULT), rate_fps: 1000, sources: vec![] };
    let injection = Arc::new(Injection::new(spec, 0x5eed));
    let (_, port, wire) = memory_port();
    let tx = MirrorTx::new(port, Some(Arc::clone(&injection)));
    let frame: Vec<u8> = (0..300u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut burst = Burst::new();
    // SAFETY: `frame` outlives the burst.
    assert!(unsafe { burst.push_whole(0, Segment { ptr: frame.as_ptr(), len: 300 }) });
    let edit = TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0, 20]) };
    for item in [
        TxItem::whole(0, TagEdit::KEEP),
        TxItem::whole(0, edit),
        TxItem { frame: 0, edit, snap_bytes: 64 },
        TxItem { frame: 0, edit: TagEdit::KEEP, snap_bytes: 128 },
    ] {
        let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
        let report = &mut TxReport { stats: &mut stats, losses: &mut losses };
        tx.send(&Turn::ONLY, &mut burst, &[item], report).unwrap();
        let sent = wire.lock().unwrap().from_switch.pop().unwrap();
        let back = |bytes: &[u8]| {
            let len = u32::try_from(bytes.len()).unwrap();
            injection.admit(&bytes[..bytes.len().min(SNAPSHOT_BYTES)], len, 1, false)
        };
        assert_eq!(back(&sent), Err(DropReason::MirrorLoop), "{item:?}");
        let mut other = sent.clone();
        other[3] ^= 1;
        assert_eq!(back(&other), Ok(()));
    }
}

/// A frame too short for its tag edit is lost as a runt, also behind a standing backlog.
#[test]
fn a_copy_too_short_for_its_tag_is_a_runt_and_no_sign_of_a_full_port() {
    let edit = TagEdit { strip_bytes: 4, insert: None };
    let memory = [0; 60];
    for backlog in [false, true] {
        let mut bed = Bed::new();
        if backlog {
            bed.room(Some(0));
            assert_eq!(bed.send(1, 100), 0);
        }
        let mut burst = Burst::new();
        for len in [14, 60] {
            // SAFETY: `memory` outlives the burst.
            assert!(unsafe { burst.push_whole(0, Segment { ptr: memory.as_ptr(), len }) });
        }
        let items = [0, 1].map(|frame| TxItem { frame, edit, snap_bytes: 0 });
        let mut losses = Losses::NONE;
        let report = &mut TxReport { stats: &mut bed.stats, losses: &mut losses };
        bed.tx.send(&Turn::ONLY, &mut burst, &items, report).unwrap();
        assert_eq!((losses.frames(), losses.reason(0)), (1, Some(DropReason::Runt)), "backlog: {backlog}");
        assert_eq!(bed.stats.drops.iter().sum::<u64>(), 1);
    }
}

/// Kept frames that a port drops for another reason than a full ring are counted under that reason.
#[test]
fn of_frames_lost_for_several_reasons_only_those_without_room_are_kept() {
    let edit = TagEdit { strip_bytes: 4, insert: None };
    let memory = [0; 60];
    let mut bed = Bed::new();
    bed.room(Some(1));
    let mut burst = Burst::new();
    for len in [60, 14, 60, 60] {
        // SAFETY: `memory` outlives the burst.
        assert!(unsafe { burst.push_whole(0, Segment { ptr: memory.as_ptr(), len }) });
    }
    let items = [0, 1, 2, 3].map(|frame| TxItem { frame, edit, snap_bytes: 0 });
    let mut losses = Losses::NONE;
    let report = &mut TxReport { stats: &mut bed.stats, losses: &mut losses };
    bed.tx.send(&Turn::ONLY, &mut burst, &items, report).unwrap();
    assert_eq!(losses.frames(), 0b10, "the runt; the two without room are kept");
    assert_eq!((bed.stats.tx_frames, bed.stats.drops.iter().sum::<u64>()), (3, 1));
    bed.room(None);
    bed.run_due().unwrap();
    assert_eq!(bed.wire.lock().unwrap().from_switch.len(), 3);
}
