//! Split rings, end to end in memory: what a well-behaved guest sends and gets, with every mix of features.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::sync::atomic::Ordering;

use labsw_dataplane::frame::Burst;
use labsw_dataplane::port::{RxQueue, Turn};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{VhostOp, VhostPort, VhostReply};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::{EVENT_IDX, Guest, INDIRECT, MRG_RXBUF, VERSION_1, frame, frames_of};

const TX: usize = 1;
const RX: usize = 0;

/// Every mix of features.
fn mixes() -> impl Iterator<Item = u64> {
    (0u64..16).map(|bits| {
        [MRG_RXBUF, INDIRECT, EVENT_IDX, VERSION_1]
            .iter()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 == 1)
            .map(|(_, feature)| feature)
            .sum()
    })
}

fn keep(frame: usize) -> TxItem {
    TxItem::whole(u8::try_from(frame).unwrap(), TagEdit::KEEP)
}

/// One turn from the first port to the second; returns the frames that were not sent.
fn turn(from: &mut VhostPort, to: &mut VhostPort, stats: &mut [PortDelta; 2]) -> u64 {
    let mut burst = Burst::new();
    from.receive(0, &mut burst, &mut stats[0]).unwrap();
    let items: Vec<TxItem> = (0..burst.len()).map(keep).collect();
    let unsent = to.send(&mut burst, &items, &mut stats[1]).unwrap();
    from.release(0, &mut burst).unwrap();
    unsent
}

#[test]
fn frames_cross_between_guests_of_every_mix() {
    for sender_features in mixes() {
        for receiver_features in mixes() {
            let (mut sender, mut receiver) = (Guest::new(sender_features, 128), Guest::new(receiver_features, 128));
            let (mut from, mut to) = (sender.port(), receiver.port());
            let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
            // Several times around the ring.
            for round in 0..8u8 {
                let header = sender.header_bytes();
                let cuts: [&[usize]; 4] = [&[], &[header], &[5, 20], &[1, 1, 1, 40, 200]];
                let sent: Vec<_> = [60, 64, 1514, 128, 129, 14, 600, 1518]
                    .into_iter()
                    .map(|len| frame(len, round.wrapping_mul(17).wrapping_add(len as u8)))
                    .collect();
                for (number, frame) in sent.iter().enumerate() {
                    sender.transmit(TX, frame, cuts[number % cuts.len()]);
                }
                let split = (round % 2 == 0).then_some(7);
                receiver.post(RX, 10, 2000, split);
                assert_eq!(turn(&mut from, &mut to, &mut stats), 0);
                assert_eq!(receiver.received(RX), sent, "{sender_features:#x} to {receiver_features:#x}");
                assert_eq!(sender.reap(TX), sent.len());
                // Two buffers are left over each round; use them up.
                for _ in 0..2 {
                    sender.transmit(TX, &frame(60, 1), &[]);
                }
                assert_eq!(turn(&mut from, &mut to, &mut stats), 0);
                assert_eq!((receiver.received(RX).len(), sender.reap(TX)), (2, 2));
            }
            assert_eq!((stats[0].rx_frames, stats[1].tx_frames), (80, 80));
            assert_eq!(stats[0].rx_bytes, stats[1].tx_bytes);
            assert_eq!(stats[0].drops.iter().chain(&stats[1].drops).sum::<u64>(), 0);
        }
    }
}

#[test]
fn a_large_frame_takes_several_mergeable_buffers_or_is_dropped() {
    for features in mixes() {
        let (mut sender, mut receiver) = (Guest::new(features | INDIRECT, 64), Guest::new(features, 64));
        let (mut from, mut to) = (sender.port(), receiver.port());
        let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
        receiver.post(RX, 4, 600, None);
        let (large, small) = (frame(1514, 3), frame(60, 4));
        sender.transmit(TX, &large, &[]);
        sender.transmit(TX, &large, &[]);
        sender.transmit(TX, &small, &[]);
        let unsent = turn(&mut from, &mut to, &mut stats);
        if features & MRG_RXBUF == 0 {
            assert_eq!(unsent, 0b011);
            assert_eq!(stats[1].drops[DropReason::GuestBufferTooSmall as usize], 2);
            assert_eq!(receiver.received(RX), [small]);
        } else {
            // The second large one finds one buffer, takes none, and leaves it to the small one.
            assert_eq!(unsent, 0b010);
            assert_eq!(stats[1].drops[DropReason::GuestRingFull as usize], 1);
            assert_eq!(receiver.received(RX), [large, small]);
        }
        assert_eq!(sender.reap(TX), 3);
    }
}

#[test]
fn a_frame_larger_than_the_whole_mergeable_ring_is_too_large() {
    let (mut sender, mut receiver) = (Guest::new(VERSION_1, 64), Guest::new(VERSION_1 | MRG_RXBUF, 4));
    let (mut from, mut to) = (sender.port(), receiver.port());
    let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
    receiver.post(RX, 4, 100, None);
    sender.transmit(TX, &frame(1514, 1), &[]);
    assert_eq!(turn(&mut from, &mut to, &mut stats), 1);
    assert_eq!(stats[1].drops[DropReason::GuestBufferTooSmall as usize], 1);
    assert_eq!(receiver.received(RX).len(), 0);
}

#[test]
fn a_full_ring_drops_and_a_ring_of_sixty_four_takes_a_burst() {
    let (mut sender, mut receiver) = (Guest::new(VERSION_1, 128), Guest::new(VERSION_1, 64));
    let (mut from, mut to) = (sender.port(), receiver.port());
    let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
    receiver.post(RX, 64, 2000, None);
    for number in 0..70 {
        sender.transmit(TX, &frame(60, number), &[]);
    }
    assert_eq!(turn(&mut from, &mut to, &mut stats), 0);
    assert_eq!(turn(&mut from, &mut to, &mut stats), 0b11_1111);
    assert_eq!((stats[1].tx_frames, stats[1].drops[DropReason::GuestRingFull as usize]), (64, 6));
    assert_eq!((receiver.received(RX).len(), sender.reap(TX)), (64, 70));
}

#[test]
fn a_tag_is_inserted_and_removed_on_the_way() {
    let (mut sender, mut receiver) = (Guest::new(VERSION_1, 64), Guest::new(VERSION_1 | MRG_RXBUF, 64));
    let (mut from, mut to) = (sender.port(), receiver.port());
    receiver.post(RX, 3, 2000, None);
    let plain = frame(200, 9);
    sender.transmit(TX, &plain, &[12, 30]);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    from.receive(0, &mut burst, &mut stats).unwrap();
    let edits = [
        TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0, 20]) },
        TagEdit { strip_bytes: 4, insert: None },
        TagEdit { strip_bytes: 4, insert: Some([0x81, 0, 0, 30]) },
    ];
    let items = edits.map(|edit| TxItem::whole(0, edit));
    to.send(&mut burst, &items, &mut stats).unwrap();
    let (macs, rest) = plain.split_at(12);
    let expected = [
        [macs, &[0x81, 0, 0, 20], rest].concat(),
        [macs, &rest[4..]].concat(),
        [macs, &[0x81, 0, 0, 30], &rest[4..]].concat(),
    ];
    assert_eq!(receiver.received(RX), expected);
}

#[test]
fn offloads_that_were_not_negotiated_are_refused() {
    let mut sender = Guest::new(VERSION_1, 64);
    let mut port = sender.port();
    for header in [[1, 0], [0, 1], [0, 0x81], [2, 0]] {
        let mut bytes = vec![0; 12 + 60];
        bytes[..2].copy_from_slice(&header);
        sender.transmit_raw(TX, &bytes, &[]);
    }
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).unwrap();
    assert_eq!((burst.len(), stats.rx_frames, stats.drops[DropReason::BadOffload as usize]), (1, 4, 3));
    port.release(0, &mut burst).unwrap();
    assert_eq!(sender.reap(TX), 4);
}

#[test]
fn kicks_come_only_when_armed_and_interrupts_once_a_burst() {
    for features in [VERSION_1, VERSION_1 | EVENT_IDX] {
        let (mut sender, mut receiver) = (Guest::new(features, 64), Guest::new(features, 64));
        let (mut from, mut to) = (sender.port(), receiver.port());
        let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
        receiver.post(RX, 60, 2000, None);
        // The first entry may always kick with the event index: nobody has asked for another yet.
        sender.transmit(TX, &frame(60, 0), &[]);
        sender.kick(TX, 0);
        turn(&mut from, &mut to, &mut stats);
        from.rx[0].disarm();
        sender.interrupts(TX);
        receiver.interrupts(RX);

        let old = sender.rings[TX].next_avail;
        sender.transmit(TX, &frame(60, 1), &[]);
        assert!(!sender.kick(TX, old), "no kicks while polling");
        assert!(from.rx[0].arm(&Turn::ONLY), "a frame is waiting");
        from.rx[0].disarm();
        turn(&mut from, &mut to, &mut stats);
        assert!(!from.rx[0].arm(&Turn::ONLY), "nothing is waiting");
        let old = sender.rings[TX].next_avail;
        sender.transmit(TX, &frame(60, 2), &[]);
        assert!(sender.kick(TX, old), "armed: the guest kicks");
        from.rx[0].disarm();
        let mut count = [0; 8];
        assert!(
            rustix::io::read(&sender.rings[TX].kick, &mut count).is_ok(),
            "the switch never reads the doorbell: its owner could make that block"
        );

        // One interrupt per burst, and none if the driver does not want it.
        receiver.interrupts(RX);
        let want = receiver.used(RX, 2).load(Ordering::Acquire);
        receiver.avail(RX, 4 + 2 * 64).store(want, Ordering::Relaxed);
        sender.transmit(TX, &frame(60, 3), &[]);
        turn(&mut from, &mut to, &mut stats);
        assert_eq!(receiver.interrupts(RX), 1);
        receiver.avail(RX, 0).store(1, Ordering::Relaxed);
        sender.transmit(TX, &frame(60, 4), &[]);
        turn(&mut from, &mut to, &mut stats);
        assert_eq!(receiver.interrupts(RX), 0);
    }
}

#[test]
fn a_ring_resumes_at_its_own_used_index() {
    let mut sender = Guest::new(VERSION_1, 64);
    let mut receiver = Guest::new(VERSION_1, 64);
    receiver.post(RX, 40, 2000, None);
    let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
    let (mut from, mut to) = (sender.port(), receiver.port());
    for round in 0..3 {
        for number in 0..5 {
            sender.transmit(TX, &frame(60, round * 8 + number), &[]);
        }
        // The switch dies with frames borrowed: they were never completed, so the next one gets them again.
        let mut burst = Burst::new();
        from.receive(0, &mut burst, &mut PortDelta::ZERO.clone()).unwrap();
        assert_eq!(burst.len(), 5);
        burst.clear();
        drop(from);
        from = sender.port();
        turn(&mut from, &mut to, &mut stats);
        assert_eq!((sender.reap(TX), receiver.received(RX).len()), (5, 5));
        // Stopped and started: the base is where it goes on.
        let base = Some(5 * (u32::from(round) + 1));
        assert_eq!(to.operate(VhostOp::StopRing { index: 0 }), VhostReply::Stopped { base });
        assert_eq!(to.operate(VhostOp::StopRing { index: 0 }), VhostReply::Stopped { base: None });
        receiver.start(&mut to);
    }
}

#[test]
fn a_disabled_ring_is_drained_and_gets_nothing() {
    let (mut sender, mut receiver) = (Guest::new(VERSION_1, 64), Guest::new(VERSION_1, 64));
    let (mut from, mut to) = (sender.port(), receiver.port());
    let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
    receiver.post(RX, 40, 2000, None);
    let enable = |index, enabled| VhostOp::EnableRing { index, enabled };
    to.operate(enable(0, false));
    sender.transmit(TX, &frame(60, 1), &[]);
    assert_eq!(turn(&mut from, &mut to, &mut stats), 1);
    assert_eq!(stats[1].drops[DropReason::NotConnected as usize], 1);
    to.operate(enable(0, true));
    from.operate(enable(1, false));
    sender.transmit(TX, &frame(60, 2), &[]);
    assert_eq!(turn(&mut from, &mut to, &mut stats), 0);
    assert_eq!((stats[0].rx_frames, stats[0].drops[DropReason::NotConnected as usize]), (2, 1));
    assert_eq!((sender.reap(TX), receiver.received(RX).len()), (2, 0));
    from.operate(enable(1, true));
    sender.transmit(TX, &frame(60, 3), &[]);
    turn(&mut from, &mut to, &mut stats);
    assert_eq!(receiver.received(RX), [frame(60, 3)]);
    to.operate(VhostOp::Reset);
    sender.transmit(TX, &frame(60, 4), &[]);
    assert_eq!(turn(&mut from, &mut to, &mut stats), 1);
    assert!(to.rx[0].wait_fd().is_none() && from.rx[0].wait_fd().is_some());
}

#[test]
fn flows_stay_on_their_queue_and_spread_over_the_enabled_ones() {
    let mut sender = Guest::new(VERSION_1, 128);
    let mut receiver = Guest::with_pairs(VERSION_1, 128, 4);
    let (mut from, mut to) = (sender.port(), receiver.port());
    let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
    for pair in 0..4 {
        receiver.post(2 * pair, 60, 2000, None);
    }
    for _ in 0..2 {
        for flow in 0..32 {
            sender.transmit(TX, &frame(60, flow), &[]);
        }
    }
    assert_eq!(turn(&mut from, &mut to, &mut stats), 0);
    let mut all = 0;
    for pair in 0..4 {
        let mut frames = receiver.received(2 * pair);
        assert!(!frames.is_empty(), "queue {pair} got nothing");
        all += frames.len();
        // Each flow came twice, and both times here.
        frames.sort();
        assert!(frames.chunks(2).all(|two| two[0] == two[1]));
    }
    assert_eq!(all, 64);
}

#[test]
fn flows_move_to_the_queues_that_are_on_while_others_go_on() {
    let mut sender = Guest::with_pairs(VERSION_1, 128, 2);
    let mut receiver = Guest::with_pairs(VERSION_1, 128, 2);
    let (mut from, mut to) = (sender.port(), receiver.port());
    let mut stats = [PortDelta::ZERO, PortDelta::ZERO];
    let mut posted = [0, 0];
    for on in [[true, true], [true, false], [false, true], [true, true]] {
        for pair in 0..2 {
            to.operate(VhostOp::EnableRing { index: 2 * pair, enabled: on[usize::from(pair)] });
            let missing = 100 - posted[usize::from(pair)];
            receiver.post(2 * usize::from(pair), missing, 2000, None);
            posted[usize::from(pair)] = 100;
        }
        for flow in 0..32 {
            sender.transmit(TX, &frame(60, flow), &[]);
        }
        assert_eq!(turn(&mut from, &mut to, &mut stats), 0);
        assert_eq!(sender.reap(TX), 32);
        let got = [receiver.received(0).len(), receiver.received(2).len()];
        for pair in 0..2 {
            assert_eq!(got[pair] > 0, on[pair], "{on:?}: {got:?}");
            posted[pair] -= got[pair];
        }
        assert_eq!(got[0] + got[1], 32);
    }
    // The guest's other transmit ring is a receive queue of its own.
    sender.transmit(3, &frame(60, 1), &[]);
    let mut burst = Burst::new();
    assert_eq!(from.rx.len(), 2);
    from.receive(1, &mut burst, &mut stats[0]).unwrap();
    assert_eq!(frames_of(&burst), [frame(60, 1)]);
    from.release(1, &mut burst).unwrap();
    assert_eq!((sender.reap(3), sender.reap(TX)), (1, 0));
}

#[test]
fn the_reader_sees_what_the_guest_wrote() {
    let mut sender = Guest::new(INDIRECT, 64);
    let mut port = sender.port();
    let frames: Vec<_> = (1..40).map(|number| frame(usize::from(number) * 37, number)).collect();
    for frame in &frames {
        sender.transmit(TX, frame, &[10, 3, 100, 100]);
    }
    let mut burst = Burst::new();
    port.receive(0, &mut burst, &mut PortDelta::ZERO.clone()).unwrap();
    assert_eq!(frames_of(&burst), frames);
}
