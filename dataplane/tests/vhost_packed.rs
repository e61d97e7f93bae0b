//! Packed rings, end to end in memory, against a driver model that is independent of the switch's code: every mix of
//! features, sizes that are no power of two, the same frames as through a split ring, notifications.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::sync::atomic::{AtomicU64, Ordering};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::port::{RxQueue, Turn};
use labsw_dataplane::stats::PortDelta;
use labsw_switch::DropReason;
use labsw_testkit::guest::packed::{Side, turn};
use labsw_testkit::guest::{EVENT_IDX, Guest, IN_ORDER, INDIRECT, MRG_RXBUF, USER_BASE, VERSION_1, frame, frames_of};
use proptest::prelude::*;

#[test]
fn frames_cross_between_guests_of_every_mix_and_size() {
    for mix in 0u64..16 {
        let features: u64 = [MRG_RXBUF, INDIRECT, EVENT_IDX, IN_ORDER]
            .iter()
            .enumerate()
            .filter(|(bit, _)| mix >> bit & 1 == 1)
            .map(|(_, feature)| feature)
            .sum();
        for size in [8, 13, 64, 100] {
            let (mut a, mut b) = (Side::new(features, size), Side::new(features, size));
            let mut stats = PortDelta::ZERO;
            let cuts: [&[usize]; 4] = [&[], &[12], &[5, 20], &[1, 1, 1, 40]];
            let mut count = 0;
            for round in 0..60u8 {
                let mut sent = Vec::new();
                for number in 0..3u8 {
                    let bytes = frame(14 + usize::from(round) * 25, round * 4 + number);
                    if a.tx.transmit(&a.guest, &bytes, cuts[usize::from(round + number) % 4]) {
                        sent.push(bytes);
                    }
                }
                while b.rx.post(&b.guest, if round % 2 == 0 { &[2000] } else { &[7, 2000] }) {}
                assert_eq!(turn(&mut a.port, &mut b.port, &mut stats), 0);
                assert_eq!(b.rx.received(&b.guest), sent, "{features:#x}, {size} slots, round {round}");
                assert_eq!(a.tx.reap(&a.guest), sent.len());
                count += sent.len() as u64;
            }
            assert!(count >= 100 && (stats.rx_frames, stats.tx_frames) == (count, count));
        }
    }
}

#[test]
fn a_large_frame_takes_several_mergeable_buffers_or_is_dropped() {
    for features in [0, MRG_RXBUF] {
        let (mut a, mut b) = (Side::new(INDIRECT, 64), Side::new(features, 64));
        let mut stats = PortDelta::ZERO;
        (0..4).for_each(|_| assert!(b.rx.post(&b.guest, &[600])));
        let (large, small) = (frame(1514, 3), frame(60, 4));
        [&large, &large, &small].iter().for_each(|frame| assert!(a.tx.transmit(&a.guest, frame, &[])));
        let unsent = turn(&mut a.port, &mut b.port, &mut stats);
        if features == 0 {
            assert_eq!((unsent, stats.drops[DropReason::GuestBufferTooSmall as usize]), (0b011, 2));
            assert_eq!(b.rx.received(&b.guest), [small]);
        } else {
            assert_eq!((unsent, stats.drops[DropReason::GuestRingFull as usize]), (0b010, 1));
            assert_eq!(b.rx.received(&b.guest), [large, small]);
        }
        assert_eq!(a.tx.reap(&a.guest), 3);
    }
    // Larger than all buffers of a ring together.
    let (mut a, mut b) = (Side::new(0, 64), Side::new(MRG_RXBUF, 5));
    (0..5).for_each(|_| assert!(b.rx.post(&b.guest, &[100])));
    assert!(a.tx.transmit(&a.guest, &frame(1514, 1), &[]));
    let mut stats = PortDelta::ZERO;
    assert_eq!(turn(&mut a.port, &mut b.port, &mut stats), 1);
    assert_eq!(stats.drops[DropReason::GuestBufferTooSmall as usize], 1);
}

/// Frames of one burst: length and how header and frame are cut into descriptors.
fn bursts() -> impl Strategy<Value = Vec<Vec<(usize, Vec<usize>)>>> {
    let one = (1usize..1500, prop::collection::vec(1usize..300, 0..5));
    prop::collection::vec(prop::collection::vec(one, 1..6), 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The split ring, itself held against `virtio-queue`, is the oracle; the switch is killed now and then, with the
    /// burst in hand.
    #[test]
    fn the_same_frames_as_through_a_split_ring(
        bursts in bursts(),
        indirect: bool,
        size in 32u16..80,
        kills in prop::collection::vec(any::<bool>(), 16),
    ) {
        let features = if indirect { INDIRECT } else { 0 };
        let (mut ours, mut split) = (Side::new(features, size), Guest::new(VERSION_1 | features, 64));
        let mut oracle = split.port();
        for (round, frames) in bursts.iter().enumerate() {
            for (number, (len, pieces)) in frames.iter().enumerate() {
                let bytes = frame(*len, (round * 16 + number) as u8);
                if ours.tx.transmit(&ours.guest, &bytes, pieces) {
                    split.transmit(1, &bytes, pieces);
                }
            }
            let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
            oracle.receive(0, &mut burst, &mut stats).unwrap();
            let expected = frames_of(&burst);
            oracle.release(0, &mut burst).unwrap();
            for _ in 0..=usize::from(kills[round]) {
                ours.restart();
                burst.clear();
                ours.port.receive(0, &mut burst, &mut stats).unwrap();
                prop_assert_eq!(frames_of(&burst), expected.as_slice());
            }
            ours.port.release(0, &mut burst).unwrap();
            prop_assert_eq!(ours.tx.reap(&ours.guest), split.reap(1));
        }
    }
}

#[test]
fn kicks_come_only_when_armed_and_interrupts_as_asked_for() {
    let (mut a, mut b) = (Side::new(EVENT_IDX, 16), Side::new(EVENT_IDX, 16));
    let mut stats = PortDelta::ZERO;
    let device_flags = |side: &Side| side.guest.read((side.guest.addresses(1).used - USER_BASE) as usize + 2, 2);
    // The driver's wish for an interrupt: place with wrap bit, flags.
    let wish = |side: &Side, ring: usize, place: u16, flags: u16| {
        let at = (side.guest.addresses(ring).available - USER_BASE) as usize;
        side.guest.write(at, &[place.to_le_bytes(), flags.to_le_bytes()].concat());
    };
    assert_eq!(device_flags(&a), [1, 0]);
    assert!(!a.port.rx[0].arm(&Turn::ONLY));
    assert_eq!(device_flags(&a), [0, 0]);
    assert!(a.tx.transmit(&a.guest, &frame(60, 1), &[]));
    assert!(a.port.rx[0].arm(&Turn::ONLY), "a frame is waiting");
    a.port.rx[0].disarm();
    assert_eq!(device_flags(&a), [1, 0]);
    assert!(b.rx.post(&b.guest, &[2000]));
    turn(&mut a.port, &mut b.port, &mut stats);
    assert_eq!((b.guest.interrupts(0), a.guest.interrupts(1)), (1, 1), "always: the flags are 0");
    assert_eq!((b.rx.received(&b.guest).len(), a.tx.reap(&a.guest)), (1, 1));
    // From here on slot 1: five frames a turn, around the ring; the driver wants to hear of the third, of none, of all,
    // or of one that is not yet due.
    for round in 0..60u16 {
        for _ in 0..5 {
            assert!(a.tx.transmit(&a.guest, &frame(60, 1), &[]) && b.rx.post(&b.guest, &[2000]));
        }
        let third = 1 + 5 * round + 2 + if round % 4 == 3 { 5 } else { 0 };
        let place = (third % 16) | if third / 16 % 2 == 0 { 0x8000 } else { 0 };
        let (flags, expected) = [(2, 1), (1, 0), (0, 1), (2, 0)][usize::from(round) % 4];
        wish(&b, 0, place, flags);
        assert_eq!(turn(&mut a.port, &mut b.port, &mut stats), 0);
        assert_eq!(b.guest.interrupts(0), expected, "round {round}");
        assert_eq!((b.rx.received(&b.guest).len(), a.tx.reap(&a.guest)), (5, 5));
    }
}

/// Spins, but not for ever if the other thread has failed.
fn spin_until(mut done: impl FnMut() -> bool) {
    assert!((0..1u64 << 30).any(|_| {
        std::hint::spin_loop();
        done()
    }));
}

/// A frame over three buffers appears as a whole to a driver that looks at the first one all the time.
#[test]
fn a_driver_on_another_cpu_never_sees_a_part_of_a_frame() {
    const ROUNDS: u64 = 4000;
    const USED: u64 = 1 << 63;
    let (mut sender, mut side) = (Side::new(0, 64), Side::new(MRG_RXBUF, 3));
    let word = |side: &Side, index| side.guest.at(side.rx.slot(&side.guest, index) + 8, 8).expose_provenance();
    let words = [0, 1, 2].map(|index| word(&side, index));
    let (offered, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let (offered, seen) = (&offered, &seen);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            // SAFETY: the addresses of aligned words in the guest's mapping, which outlives the scope.
            let words = words.map(|at| unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(at)) });
            let mut parts = 0;
            for round in 1..=ROUNDS {
                spin_until(|| offered.load(Ordering::Acquire) >= round);
                // The ring goes round once with each frame.
                let lap = if round % 2 == 1 { USED } else { 0 };
                spin_until(|| words[0].load(Ordering::Acquire) & USED == lap);
                parts += words.iter().filter(|word| word.load(Ordering::Acquire) & USED != lap).count();
                seen.store(round, Ordering::Release);
            }
            parts
        });
        let mut stats = PortDelta::ZERO;
        for round in 1..=ROUNDS {
            (0..3).for_each(|_| assert!(side.rx.post(&side.guest, &[400])));
            assert!(sender.tx.transmit(&sender.guest, &frame(1000, 1), &[]));
            offered.store(round, Ordering::Release);
            assert_eq!(turn(&mut sender.port, &mut side.port, &mut stats), 0);
            while seen.load(Ordering::Acquire) < round {
                std::thread::yield_now();
            }
            assert_eq!((side.rx.received(&side.guest).len(), sender.tx.reap(&sender.guest)), (1, 1));
        }
        assert_eq!(watcher.join().unwrap(), 0, "a first buffer was used before the others");
    });
}
