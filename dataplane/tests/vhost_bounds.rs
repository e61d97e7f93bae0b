//! Bounds on a hostile guest: the number of descriptors that the switch reads has a bound that no ring size, chain or
//! buffer raises, and nothing of a well-behaved guest is lost for it.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::sync::atomic::Ordering;

use labsw_dataplane::frame::{Burst, MAX_FRAME_BYTES, Segment};
use labsw_dataplane::losses::{Losses, TxReport};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::virtio::{
    BURST_BYTES, BURST_DESCRIPTORS, Direction, FRAME_DESCRIPTORS, MAX_CHAIN_DESCRIPTORS, MAX_RING_SIZE, Ring,
    RingError, SEND_DESCRIPTORS,
};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::packed::{Driver, PACKED};
use labsw_testkit::guest::{
    BUFFER_BYTES, GUEST_BASE, Guest, INDIRECT, INDIRECT_FLAG, MRG_RXBUF, NEXT, VERSION_1, WRITE, frame, frames_of,
};

const ALL: u64 = VERSION_1 | MRG_RXBUF | INDIRECT;
const CHAIN: u64 = MAX_CHAIN_DESCRIPTORS as u64;
const AVAILABLE: u16 = 1 << 7;

/// Sends `count` frames of `bytes` bytes in one call; the tag edit keeps them off the way of plain frames.
fn send(ring: &mut Ring, count: usize, bytes: usize, stats: &mut PortDelta) -> Result<u64, RingError> {
    let bytes_sent = vec![7; bytes];
    let mut burst = Burst::new();
    for _ in 0..count {
        let segment = Segment { ptr: bytes_sent.as_ptr(), len: bytes as u32 };
        // SAFETY: the frame outlives the burst and does not change.
        assert!(unsafe { burst.push(0, &[segment]) });
    }
    let items: Vec<_> =
        (0..count).map(|at| TxItem::whole(at as u8, TagEdit { insert: None, strip_bytes: 0 })).collect();
    let mut losses = Losses::NONE;
    let sent = ring.send(&burst, &items, &mut TxReport { stats, losses: &mut losses });
    ring.flush();
    sent.map(|()| losses.frames())
}

/// A guest with a receive ring of this size, in which each available entry is the chain at descriptor 0.
fn posted(size: u16, features: u64, chain: impl Fn(&Guest)) -> (Guest, Ring) {
    let guest = Guest::new(features, size);
    chain(&guest);
    guest.avail(0, 2).store(size, Ordering::Release);
    let ring = Ring::start(guest.setup(0), Direction::ToGuest);
    (guest, ring)
}

/// Writes a chain of `count` descriptors of `len` bytes each at descriptor 0 of a ring.
fn chain(guest: &Guest, ring: usize, count: u16, len: u32, flags: u16) {
    let address = GUEST_BASE + guest.buffer(ring, 0) as u64;
    for entry in 0..count {
        let next = if entry + 1 < count { NEXT } else { 0 };
        guest.set_descriptor(ring, entry, address, len, flags | next, entry + 1);
    }
}

#[test]
fn receive_buffers_without_room_break_the_ring_at_the_first_look() {
    for size in [64, 1024, MAX_RING_SIZE] {
        // Empty, and a byte less than the header.
        for (count, len) in [(1, 0), (64, 0), (11, 1)] {
            let (_guest, mut ring) = posted(size, ALL, |guest| chain(guest, 0, count, len, WRITE));
            let mut stats = PortDelta::ZERO;
            let error = send(&mut ring, 64, 60, &mut stats).unwrap_err();
            assert_eq!(
                error,
                RingError::ReceiveBufferShort { bytes: u64::from(len) * u64::from(count), header_bytes: 12 }
            );
            assert!(ring.descriptors_read() <= 64);
        }
    }
}

#[test]
fn a_chain_has_a_bound_whatever_the_size_of_the_ring() {
    for (size, direction) in [1024, MAX_RING_SIZE].into_iter().flat_map(|size| [(size, 0), (size, 1)]) {
        let flags = if direction == 0 { WRITE } else { 0 };
        for (count, len) in [(257, 0), (257, 1), (1024, 0)] {
            let guest = Guest::new(ALL, size);
            chain(&guest, direction, count, len, flags);
            guest.avail(direction, 2).store(size, Ordering::Release);
            let to = if direction == 0 { Direction::ToGuest } else { Direction::FromGuest };
            let mut ring = Ring::start(guest.setup(direction), to);
            let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
            let outcome = match to {
                Direction::ToGuest => send(&mut ring, 64, 1500, &mut stats).map(|_| ()),
                Direction::FromGuest => ring.receive(&mut burst, &mut stats),
            };
            assert_eq!(outcome, Err(RingError::TooManyDescriptors), "{size} {count} {len}");
            assert_eq!(ring.descriptors_read(), CHAIN);
        }
    }
}

#[test]
fn the_longest_chain_allowed_passes() {
    for features in [VERSION_1, ALL] {
        let mut guest = Guest::new(features, 512);
        let sent = frame(4 * 255 - 12, 3);
        let bytes = [vec![0; 12], sent.clone()].concat();
        let place = guest.buffer(1, 0);
        guest.write(place, &bytes);
        // 256 descriptors: an empty one and 255 of 4 bytes, or an indirect one and those in its table.
        let address = GUEST_BASE + place as u64;
        let part = |number: u16| address + 4 * u64::from(number);
        if features & INDIRECT == 0 {
            guest.set_descriptor(1, 0, address, 0, NEXT, 1);
            for number in 0..255 {
                let next = if number == 254 { 0 } else { NEXT };
                guest.set_descriptor(1, number + 1, part(number), 4, next, number + 2);
            }
        } else {
            let more = |number| if number == 254 { 0 } else { NEXT };
            let entry = |number| Guest::descriptor_bytes(part(number), 4, more(number), number + 1);
            guest.write(place + BUFFER_BYTES, &(0..255).flat_map(entry).collect::<Vec<u8>>());
            guest.set_descriptor(1, 0, address + BUFFER_BYTES as u64, 255 * 16, INDIRECT_FLAG, 0);
        }
        guest.offer(1, 0);
        let mut ring = Ring::start(guest.setup(1), Direction::FromGuest);
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        ring.receive(&mut burst, &mut stats).unwrap();
        assert_eq!((frames_of(&burst), ring.descriptors_read()), (vec![sent], CHAIN));
    }
}

#[test]
fn a_burst_of_cut_up_frames_ends_early_and_loses_none() {
    for size in [1024, MAX_RING_SIZE] {
        let mut guest = Guest::new(VERSION_1, size);
        // Frames of 20 descriptors, as many as fit.
        let (total, parts) = (usize::from(size) / 20, 20);
        for number in 0..total {
            guest.transmit(1, &frame(200, number as u8), &vec![10; parts - 1]);
        }
        let mut ring = Ring::start(guest.setup(1), Direction::FromGuest);
        let (mut burst, mut stats, mut frames) = (Burst::new(), PortDelta::ZERO, Vec::new());
        while frames.len() < total {
            let before = ring.descriptors_read();
            ring.receive(&mut burst, &mut stats).unwrap();
            assert!(ring.descriptors_read() - before < BURST_DESCRIPTORS + 64 + CHAIN);
            assert_eq!(burst.len(), 27.min(total - frames.len()));
            frames.extend(frames_of(&burst));
            burst.clear();
            ring.release();
        }
        assert!(frames.iter().enumerate().all(|(number, bytes)| *bytes == frame(200, number as u8)));
        assert_eq!(guest.reap(1), total);
    }
}

#[test]
fn a_burst_of_nothing_but_empty_chains_ends_early() {
    let guest = Guest::new(VERSION_1, MAX_RING_SIZE);
    chain(&guest, 1, 256, 0, 0);
    guest.avail(1, 2).store(MAX_RING_SIZE, Ordering::Release);
    let mut ring = Ring::start(guest.setup(1), Direction::FromGuest);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    for turn in 1..=5 {
        let before = ring.descriptors_read();
        ring.receive(&mut burst, &mut stats).unwrap();
        assert!(burst.is_empty() && ring.descriptors_read() - before < BURST_DESCRIPTORS + 64 + CHAIN);
        assert_eq!(
            (stats.drops[DropReason::BadChain as usize], guest.used(1, 2).load(Ordering::Acquire)),
            (3 * turn, 3 * turn as u16)
        );
    }
}

#[test]
fn a_burst_of_large_frames_ends_when_it_holds_enough_bytes() {
    let largest = MAX_FRAME_BYTES + 12;
    let most = (BURST_BYTES / u64::from(largest)) as usize;
    for packed in [false, true] {
        let mut guest = Guest::new(if packed { PACKED } else { VERSION_1 }, 64);
        let address = GUEST_BASE + guest.buffer(1, 0) as u64;
        let driver = Driver::new(&guest, 1);
        for entry in 0..64 {
            if packed {
                driver.write(&guest, entry, address, largest, entry, AVAILABLE);
            } else {
                guest.set_descriptor(1, entry, address, largest, 0, 0);
                guest.offer(1, entry);
            }
        }
        let mut ring = Ring::start(guest.setup(1), Direction::FromGuest);
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let mut frames = 0;
        while frames < 64 {
            ring.receive(&mut burst, &mut stats).unwrap();
            assert!((1..=most + 1).contains(&burst.len()), "{}", burst.len());
            frames += burst.len();
            burst.clear();
            ring.release();
        }
        assert_eq!((frames, stats.rx_frames, stats.drops.iter().sum::<u64>()), (64, 64, 0));
    }
}

#[test]
fn a_frame_gives_up_on_tiny_buffers_and_the_next_ones_know() {
    for size in [1024, MAX_RING_SIZE] {
        // 12 bytes each, in 12 descriptors: room for nothing but headers.
        let (_guest, mut ring) = posted(size, ALL, |guest| chain(guest, 0, 12, 1, WRITE));
        let mut stats = PortDelta::ZERO;
        let unsent = send(&mut ring, 64, 3000, &mut stats).unwrap();
        assert_eq!((unsent, stats.drops[DropReason::GuestBufferTooSmall as usize]), (u64::MAX, 64));
        assert!(ring.descriptors_read() < FRAME_DESCRIPTORS + CHAIN, "{}", ring.descriptors_read());
        // A frame that needs less is still looked for, and found.
        assert_eq!(send(&mut ring, 1, 60, &mut stats), Ok(0));
    }
}

#[test]
fn a_call_gives_up_when_it_has_read_enough() {
    // Each frame fits, but takes 600 descriptors.
    let (_guest, mut ring) = posted(MAX_RING_SIZE, ALL, |guest| chain(guest, 0, 200, 10, WRITE));
    let mut stats = PortDelta::ZERO;
    let unsent = send(&mut ring, 64, 5900, &mut stats).unwrap();
    assert_eq!((unsent, stats.tx_frames), (u64::MAX << 7, 7));
    assert_eq!(stats.drops[DropReason::GuestBufferTooSmall as usize], 57);
    assert!(ring.descriptors_read() < SEND_DESCRIPTORS + CHAIN);
}

#[test]
fn the_largest_frames_fit_usual_buffers() {
    // Linux' mergeable buffers, DPDK's, and those of a ring of pages: a burst of the largest frames is not refused.
    for bytes in [1526, 2048, 4096] {
        let (_guest, mut ring) = posted(MAX_RING_SIZE, ALL, |guest| chain(guest, 0, 1, bytes, WRITE));
        let mut stats = PortDelta::ZERO;
        assert_eq!(send(&mut ring, 64, MAX_FRAME_BYTES as usize, &mut stats), Ok(0));
        assert_eq!(stats.tx_frames, 64);
    }
    // A driver without mergeable ones: 19 descriptors a buffer.
    let (_guest, mut ring) = posted(MAX_RING_SIZE, VERSION_1, |guest| chain(guest, 0, 19, 4096, WRITE));
    let mut stats = PortDelta::ZERO;
    assert_eq!(send(&mut ring, 64, MAX_FRAME_BYTES as usize, &mut stats), Ok(0));
}

/// A packed ring of which all slots are available, each with what `make` says: address, length, flags.
fn packed(ring: usize, size: u16, make: impl Fn(&Guest, u16) -> (u64, u32, u16)) -> Guest {
    let guest = Guest::new(PACKED | MRG_RXBUF | INDIRECT, size);
    let driver = Driver::new(&guest, ring);
    for slot in 0..size {
        let (address, len, flags) = make(&guest, slot);
        driver.write(&guest, slot, address, len, slot, flags | AVAILABLE);
    }
    // The place that the switch notes: the beginning of the first lap.
    guest.used(ring, 0).store(1 << 15, Ordering::Release);
    guest
}

/// An indirect table of `entries` buffers of `len` bytes, at the first buffer of a ring.
fn table(guest: &Guest, ring: usize, entries: u16, len: u32, flags: u16) -> (u64, u32, u16) {
    let place = guest.buffer(ring, 0);
    let address = GUEST_BASE + (place + 16 * BUFFER_BYTES) as u64;
    let bytes: Vec<u8> = (0..entries).flat_map(|_| Guest::descriptor_bytes(address, len, 0, flags)).collect();
    guest.write(place, &bytes);
    (GUEST_BASE + place as u64, u32::from(entries) * 16, INDIRECT_FLAG)
}

#[test]
fn a_packed_ring_starts_without_a_walk_unless_it_is_filled_and_then_with_a_short_one() {
    for (entries, len) in [(255, 1), (200, 1), (1, 12), (255, 0)] {
        let make = |ring, flags| {
            move |guest: &Guest, slot| {
                if slot == 0 {
                    table(guest, ring, entries, len, flags)
                } else {
                    (GUEST_BASE + guest.buffer(ring, 0) as u64, u32::from(entries) * 16, INDIRECT_FLAG)
                }
            }
        };
        let guest = packed(1, MAX_RING_SIZE, make(1, 0));
        assert_eq!(Ring::start(guest.setup(1), Direction::FromGuest).descriptors_read(), 0);
        let guest = packed(0, MAX_RING_SIZE, make(0, WRITE));
        let read = Ring::start(guest.setup(0), Direction::ToGuest).descriptors_read();
        assert!((1..FRAME_DESCRIPTORS + CHAIN).contains(&read), "{read}");
    }
}

#[test]
fn chains_of_a_packed_ring_have_the_same_bound() {
    // Slots that go on and on, a table that does, and slots that do before a table.
    let slots = |guest: &Guest, _| (GUEST_BASE + guest.buffer(1, 0) as u64, 1, NEXT);
    let long_table = |guest: &Guest, slot| if slot == 0 { table(guest, 1, 256, 1, 0) } else { (GUEST_BASE, 1, 0) };
    let both = |guest: &Guest, slot| match slot {
        0 => table(guest, 1, 200, 1, 0),
        1..60 => (GUEST_BASE, 0, NEXT),
        _ => (GUEST_BASE + guest.buffer(1, 0) as u64, 200 * 16, INDIRECT_FLAG),
    };
    let rings = [packed(1, MAX_RING_SIZE, slots), packed(1, 1024, long_table)];
    for guest in rings {
        let mut ring = Ring::start(guest.setup(1), Direction::FromGuest);
        let mut stats = PortDelta::ZERO;
        let outcome = ring.receive(&mut Burst::new(), &mut stats);
        assert_eq!(outcome, Err(RingError::TooManyDescriptors));
        assert!(ring.descriptors_read() <= CHAIN);
    }
    let guest = packed(1, 1024, both);
    let mut ring = Ring::start(guest.setup(1), Direction::FromGuest);
    // The first chain is the table of slot 0; the one behind it goes on for 59 slots and has 200 more.
    let mut stats = PortDelta::ZERO;
    let outcome = ring.receive(&mut Burst::new(), &mut stats);
    assert_eq!(outcome, Err(RingError::TooManyDescriptors));
    assert!(ring.descriptors_read() <= 2 * CHAIN);
}

#[test]
fn a_packed_ring_of_tiny_buffers_is_given_up_on() {
    let tiny = |guest: &Guest, slot| {
        if slot == 0 {
            table(guest, 0, 255, 1, WRITE)
        } else {
            (GUEST_BASE + guest.buffer(0, 0) as u64, 255 * 16, INDIRECT_FLAG)
        }
    };
    let guest = packed(0, MAX_RING_SIZE, tiny);
    let mut ring = Ring::start(guest.setup(0), Direction::ToGuest);
    let before = ring.descriptors_read();
    let mut stats = PortDelta::ZERO;
    assert_eq!(send(&mut ring, 64, 9000, &mut stats), Ok(u64::MAX));
    assert_eq!(stats.drops[DropReason::GuestBufferTooSmall as usize], 64);
    assert!(ring.descriptors_read() - before < FRAME_DESCRIPTORS + CHAIN);
    // Without room at all: broken.
    let guest = packed(0, MAX_RING_SIZE, |guest, _| (GUEST_BASE + guest.buffer(0, 0) as u64, 11, WRITE));
    let mut ring = Ring::start(guest.setup(0), Direction::ToGuest);
    let error = send(&mut ring, 64, 60, &mut stats).unwrap_err();
    assert_eq!(error, RingError::ReceiveBufferShort { bytes: 11, header_bytes: 12 });
}
