//! Drivers of packed rings that break the rules: each gets a precise reason, or a drop; never more.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::sync::Arc;

use labsw_dataplane::frame::{Burst, MAX_FRAME_BYTES};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::virtio::{RingAddresses, RingLayout};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::packed::{Driver, PACKED, Side};
use labsw_testkit::guest::{
    EVENT_IDX, GUEST_BASE, Guest, INDIRECT, INDIRECT_FLAG, MRG_RXBUF, NEXT, USER_BASE, WRITE, frame, frames_of,
};
use proptest::prelude::*;

/// A transmit ring of 8 slots in which `make` makes something available: why it is refused.
fn broken(features: u64, make: impl FnOnce(&Guest, &Driver)) -> String {
    let guest = Guest::new(PACKED | features, 8);
    make(&guest, &Driver::new(&guest, 1));
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let fault = guest.port().receive(0, &mut burst, &mut stats).unwrap_err();
    assert!(burst.is_empty());
    fault.reason
}

const AVAILABLE: u16 = 1 << 7;

#[test]
fn broken_rings() {
    type Case = (&'static str, u64, fn(&Guest, &Driver));
    let table = |guest: &Guest, driver: &Driver, entry: (u64, u32, u16)| {
        let place = guest.buffer(1, 7);
        guest.write(place, &Guest::descriptor_bytes(entry.0, entry.1, 0, entry.2));
        driver.write(guest, 0, GUEST_BASE + place as u64, 16, 0, AVAILABLE | INDIRECT_FLAG);
    };
    let cases: [Case; 8] = [
        ("table of 8 entries (a loop)", 0, |guest, driver| {
            (0..8).for_each(|slot| driver.write(guest, slot, GUEST_BASE, 16, 0, AVAILABLE | NEXT));
        }),
        ("chains of 13 descriptors are available at once in a packed ring of 8", 0, |guest, driver| {
            // Slots 0 to 4, then from 5 to 4 again: the second chain takes all that are in hand.
            for slot in [0, 1, 2, 3, 5, 6, 7] {
                driver.write(guest, slot, GUEST_BASE, 16, 0, AVAILABLE | NEXT);
            }
            driver.write(guest, 4, GUEST_BASE, 16, 0, AVAILABLE);
        }),
        ("not inside one region", 0, |guest, driver| {
            driver.write(guest, 0, GUEST_BASE + guest.bytes() - 99, 100, 0, AVAILABLE);
        }),
        ("was not negotiated", 0, |guest, driver| {
            driver.write(guest, 0, GUEST_BASE, 16, 0, AVAILABLE | INDIRECT_FLAG);
        }),
        ("also has a next", INDIRECT, |guest, driver| {
            driver.write(guest, 0, GUEST_BASE, 16, 0, AVAILABLE | INDIRECT_FLAG | NEXT);
        }),
        ("table of 40 bytes", INDIRECT, |guest, driver| {
            driver.write(guest, 0, GUEST_BASE, 40, 0, AVAILABLE | INDIRECT_FLAG);
        }),
        ("table of 16777216 bytes", INDIRECT, |guest, driver| {
            driver.write(guest, 0, GUEST_BASE, 1 << 24, 0, AVAILABLE | INDIRECT_FLAG);
        }),
        ("16 bytes at guest address 0x1000", INDIRECT, |guest, driver| {
            driver.write(guest, 0, 0x1000, 16, 0, AVAILABLE | INDIRECT_FLAG);
        }),
    ];
    for (expected, features, make) in cases {
        let reason = broken(features, make);
        assert!(reason.starts_with("the guest broke its transmit ring 0: "), "{reason}");
        assert!(reason.contains(expected), "{reason} instead of {expected}");
    }
    let nested = broken(INDIRECT, |guest, driver| table(guest, driver, (GUEST_BASE, 32, INDIRECT_FLAG)));
    assert!(nested.contains("inside an indirect table"), "{nested}");
    let outside = broken(INDIRECT, |guest, driver| table(guest, driver, (8, 32, 0)));
    assert!(outside.contains("32 bytes at guest address 0x8"), "{outside}");
}

#[test]
fn bad_frames_in_sound_rings_are_counted_and_completed() {
    let mut side = Side::new(INDIRECT, 16);
    // Too short for a header; empty; writable; larger than any frame.
    for (pieces, write) in [(&[11][..], 0), (&[0], 0), (&[100], WRITE), (&[50, 5], WRITE)] {
        assert!(side.tx.add(&side.guest, pieces, write, |_, _| {}));
    }
    let (flags, slot) = (side.tx.available(), side.tx.next_avail);
    side.tx.write(&side.guest, slot, GUEST_BASE, MAX_FRAME_BYTES + 13, 4, flags);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    side.port.receive(0, &mut burst, &mut stats).unwrap();
    assert_eq!((burst.len(), stats.rx_frames, stats.drops[DropReason::BadChain as usize]), (0, 5, 5));
    assert_eq!(side.tx.read(&side.guest, slot), (0, 4, 0x8080));
    (0..4).for_each(|_| assert_eq!(side.tx.take(&side.guest).unwrap().1, 0));
    // A receive buffer that may not be written is no bad frame but a broken ring.
    let mut to = Side::new(0, 16);
    assert!(to.rx.add(&to.guest, &[2000], 0, |_, _| {}));
    let mut sender = Side::new(0, 16);
    assert!(sender.tx.transmit(&sender.guest, &frame(60, 1), &[]));
    sender.port.receive(0, &mut burst, &mut stats).unwrap();
    let items = [TxItem::whole(0, TagEdit::KEEP)];
    let reason = to.port.send(&mut burst, &items, &mut stats).unwrap_err().reason;
    assert!(reason.contains("receive ring 0: a read-only descriptor"), "{reason}");
}

#[test]
fn rings_that_cannot_be() {
    let guest = Guest::new(PACKED, 64);
    let good = guest.addresses(0);
    let resolve = |size, addresses| {
        RingLayout::resolve_packed(Arc::clone(&guest.memory), size, addresses).map(|_| ()).map_err(|e| e.to_string())
    };
    for size in [1, 63, 64] {
        assert_eq!(resolve(size, good), Ok(()));
    }
    for size in [0, 32769, 65536, u32::MAX] {
        assert!(resolve(size, good).unwrap_err().contains("1 to 32768"), "{size}");
    }
    let end = USER_BASE + guest.bytes();
    let cases = [
        ("the descriptor ring at", "aligned to 16", RingAddresses { descriptors: good.descriptors + 8, ..good }),
        ("the descriptor ring at", "not inside", RingAddresses { descriptors: end - 64 * 16 + 16, ..good }),
        ("the driver event suppression at", "aligned to 4", RingAddresses { available: good.available + 2, ..good }),
        ("the driver event suppression at", "not inside", RingAddresses { available: end - 2, ..good }),
        ("the device event suppression at", "not inside", RingAddresses { used: u64::MAX - 1, ..good }),
    ];
    for (part, problem, addresses) in cases {
        let error = resolve(64, addresses).unwrap_err();
        assert!(error.contains(part) && error.contains(problem), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes are in the ring: a fault or a burst, and no more chains than slots.
    #[test]
    fn noise_in_the_ring_is_survived(
        noise in prop::collection::vec(any::<u8>(), 24 * 16 + 8),
        plausible in prop::collection::vec((0u64..0x2000, 0u32..3000, 0u16..8, any::<u16>()), 24),
        use_noise: bool,
        features in prop::sample::select(vec![0, INDIRECT, EVENT_IDX, MRG_RXBUF]),
    ) {
        let guest = Guest::new(PACKED | features, 24);
        let driver = Driver::new(&guest, 1);
        for ring in [0, 1] {
            guest.write((guest.addresses(ring).descriptors - USER_BASE) as usize, &noise);
        }
        if !use_noise {
            for (index, &(address, len, flags, more)) in plausible.iter().enumerate() {
                let lap = if more & 1 == 0 { 1 << 7 } else { more & 0x8080 };
                driver.write(&guest, index as u16, GUEST_BASE + address, len, more, flags | lap);
            }
            guest.write(guest.addresses(1).used as usize - USER_BASE as usize, &[0; 4]);
        }
        let mut port = guest.port();
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let received = port.receive(0, &mut burst, &mut stats);
        match received {
            Ok(()) => {
                frames_of(&burst);
                prop_assert!(stats.rx_frames <= 24);
                port.release(0, &mut burst).unwrap();
            }
            Err(fault) => prop_assert!(burst.is_empty() && !fault.reason.is_empty()),
        }
        // Its receive ring, too.
        let mut sender = Side::new(0, 64);
        sender.tx.transmit(&sender.guest, &frame(900, 1), &[]);
        sender.port.receive(0, &mut burst, &mut stats).unwrap();
        let items = [TxItem::whole(0, TagEdit::KEEP)];
        let _ = port.send(&mut burst, &items, &mut stats);
    }
}
