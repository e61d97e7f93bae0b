//! Guests and front ends that break the rules: each gets a precise reason, and nothing else is touched.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use labsw_dataplane::frame::{Burst, MAX_FRAME_BYTES, Segment};
use labsw_dataplane::port::RxQueue;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{EndpointState, Role};
use labsw_dataplane::virtio::memory::{GuestMemory, MAX_REGIONS, Region, RegionInfo};
use labsw_dataplane::virtio::{RingAddresses, RingLayout};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::frontend::{
    GET_FEATURES, GET_VRING_BASE, Harness, SET_FEATURES, SET_MEM_TABLE, SET_PROTOCOL_FEATURES, SET_VRING_ADDR,
    SET_VRING_CALL, SET_VRING_KICK, SET_VRING_NUM,
};
use labsw_testkit::guest::{
    GUEST_BASE, Guest, INDIRECT, INDIRECT_FLAG, MRG_RXBUF, NEXT, USER_BASE, VERSION_1, WRITE, frame,
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const SIZE: u16 = 64;

/// Receives one burst; the frames and drops, or the fault.
fn receive(guest: &Guest) -> Result<(usize, PortDelta), String> {
    let mut port = guest.port();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).map_err(|fault| {
        assert!(burst.is_empty());
        fault.reason
    })?;
    let frames = burst.len();
    port.release(0, &mut burst).map_err(|fault| fault.reason)?;
    Ok((frames, stats))
}

/// A guest whose transmit ring holds one chain made by `make`, which may offer it by itself.
fn broken(features: u64, make: impl FnOnce(&mut Guest)) -> String {
    let mut guest = Guest::new(features, SIZE);
    make(&mut guest);
    receive(&guest).unwrap_err()
}

/// Entry 0 of the transmit ring, offered.
fn one(guest: &mut Guest, address: u64, len: u32, flags: u16, next: u16) {
    guest.set_descriptor(1, 0, address, len, flags, next);
    guest.offer(1, 0);
}

/// Writes an indirect table of these descriptors and offers it.
fn indirect(guest: &mut Guest, table: &[(u64, u32, u16, u16)], len: u32) {
    let place = guest.buffer(1, 8);
    let bytes: Vec<u8> = table.iter().flat_map(|&(a, l, f, n)| Guest::descriptor_bytes(a, l, f, n)).collect();
    guest.write(place, &bytes);
    one(guest, GUEST_BASE + place as u64, len, INDIRECT_FLAG, 0);
}

#[test]
fn broken_transmit_rings() {
    type Case = (&'static str, u64, fn(&mut Guest));
    let cases: [Case; 16] = [
        ("is 65 ahead", 0, |guest| guest.avail(1, 2).store(65, Ordering::Release)),
        ("is 65535 ahead", 0, |guest| guest.avail(1, 2).store(u16::MAX, Ordering::Release)),
        ("names descriptor 64 of 64", 0, |guest| guest.offer(1, 64)),
        ("names descriptor 65535", 0, |guest| guest.offer(1, u16::MAX)),
        ("entry 64 of a table of 64", 0, |guest| one(guest, GUEST_BASE, 20, NEXT, 64)),
        ("(a loop)", 0, |guest| one(guest, GUEST_BASE, 20, NEXT, 0)),
        ("(a loop)", 0, |guest| one(guest, GUEST_BASE, 0, NEXT, 0)),
        ("guest address 0x0 are not", 0, |guest| one(guest, 0, 100, 0, 0)),
        ("guest address 0xffffffffffffffff", 0, |guest| one(guest, u64::MAX, 100, 0, 0)),
        ("100 bytes at", 0, |guest| {
            let end = GUEST_BASE + guest.bytes();
            one(guest, end - 99, 100, 0, 0);
        }),
        ("was not negotiated", 0, |guest| one(guest, GUEST_BASE, 32, INDIRECT_FLAG, 0)),
        ("also has a next", INDIRECT, |guest| one(guest, GUEST_BASE, 32, INDIRECT_FLAG | NEXT, 1)),
        ("table of 40 bytes", INDIRECT, |guest| one(guest, GUEST_BASE, 40, INDIRECT_FLAG, 0)),
        ("table of 0 bytes", INDIRECT, |guest| one(guest, GUEST_BASE, 0, INDIRECT_FLAG, 0)),
        ("table of 16777216 bytes", INDIRECT, |guest| one(guest, GUEST_BASE, 1 << 24, INDIRECT_FLAG, 0)),
        ("16 bytes at guest address 0x1000", INDIRECT, |guest| one(guest, 0x1000, 16, INDIRECT_FLAG, 0)),
    ];
    for (expected, features, make) in cases {
        let reason = broken(features, make);
        assert!(reason.starts_with("the guest broke its transmit ring 0: "), "{reason}");
        assert!(reason.contains(expected), "{reason} instead of {expected}");
    }
}

/// Addresses and lengths of which nothing, or not all, lies in the guest's memory.
fn outside(guest: &Guest) -> [(u64, u32); 6] {
    let end = GUEST_BASE + guest.bytes();
    [(0, 100), (GUEST_BASE - 1, 100), (end - 99, 100), (end - 1, 2), (end, 1), (u64::MAX, 100)]
}

#[test]
fn a_ring_that_was_sound_so_far_is_not_trusted_with_the_next_transmit_buffer() {
    for case in 0..outside(&Guest::new(0, SIZE)).len() {
        let mut guest = Guest::new(VERSION_1, SIZE);
        let (address, len) = outside(&guest)[case];
        let mut port = guest.port();
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        // Twice: the region is known afterwards, and the short way taken.
        for seed in 0..2 {
            guest.transmit(1, &frame(100, seed), &[]);
            port.receive(0, &mut burst, &mut stats).unwrap();
            assert_eq!(burst.len(), 1);
            port.release(0, &mut burst).unwrap();
        }
        guest.set_descriptor(1, 0, address, len, 0, 0);
        guest.offer(1, 0);
        let fault = port.receive(0, &mut burst, &mut stats).unwrap_err();
        assert!(fault.reason.contains("not inside one region"), "{address:#x}, {len}: {}", fault.reason);
        assert!(burst.is_empty());
    }
}

#[test]
fn a_ring_that_was_sound_so_far_is_not_trusted_with_the_next_receive_buffer() {
    for case in 0..outside(&Guest::new(0, SIZE)).len() {
        let mut guest = Guest::new(VERSION_1 | MRG_RXBUF, SIZE);
        let (address, len) = outside(&guest)[case];
        let mut port = guest.port();
        let bytes = frame(60, 1);
        let mut send = |stats: &mut PortDelta| {
            let mut burst = Burst::new();
            let segment = Segment { ptr: bytes.as_ptr(), len: 60 };
            // SAFETY: the frame outlives the burst and does not change.
            assert!(unsafe { burst.push_whole(0, segment) });
            port.send(&mut burst, &[TxItem::whole(0, TagEdit::KEEP)], stats)
        };
        let mut stats = PortDelta::ZERO;
        for _ in 0..2 {
            guest.post(0, 1, 2048, None);
            assert_eq!(send(&mut stats).unwrap(), 0);
        }
        guest.set_descriptor(0, 0, address, len.max(80), WRITE, 0);
        guest.offer(0, 0);
        let fault = send(&mut stats).unwrap_err();
        assert!(fault.reason.contains("not inside one region"), "{address:#x}, {len}: {}", fault.reason);
        assert_eq!(stats.tx_frames, 2);
    }
}

#[test]
fn broken_indirect_tables() {
    let reason = broken(INDIRECT, |guest| indirect(guest, &[(GUEST_BASE, 32, INDIRECT_FLAG, 0)], 16));
    assert!(reason.contains("inside an indirect table"), "{reason}");
    let reason = broken(INDIRECT, |guest| indirect(guest, &[(GUEST_BASE, 32, NEXT, 2)], 32));
    assert!(reason.contains("entry 2 of a table of 2"), "{reason}");
    let reason = broken(INDIRECT, |guest| indirect(guest, &[(GUEST_BASE, 32, NEXT, 0)], 16));
    assert!(reason.contains("entries (a loop)"), "{reason}");
    let reason = broken(INDIRECT, |guest| indirect(guest, &[(8, 32, 0, 0)], 16));
    assert!(reason.contains("32 bytes at guest address 0x8"), "{reason}");
}

#[test]
fn bad_frames_in_sound_rings_are_counted_and_completed() {
    let mut guest = Guest::new(VERSION_1 | INDIRECT, SIZE);
    // Too short for a header; empty; a writable descriptor; one behind a readable one; larger than any frame.
    guest.set_descriptor(1, 1, GUEST_BASE, 11, 0, 0);
    guest.set_descriptor(1, 2, GUEST_BASE, 0, 0, 0);
    guest.set_descriptor(1, 3, GUEST_BASE, 100, WRITE, 0);
    guest.set_descriptor(1, 4, GUEST_BASE, 100, NEXT, 3);
    guest.set_descriptor(1, 5, GUEST_BASE, MAX_FRAME_BYTES + 13, 0, 0);
    // One chain of the largest length, and one good frame.
    guest.set_descriptor(1, 6, GUEST_BASE, MAX_FRAME_BYTES + 12, 0, 0);
    guest.write(0, &[0; 12]);
    (1..=6).for_each(|head| guest.offer(1, head));
    // The header lies in the descriptor table of ring 0, all zero: no offload.
    let (frames, stats) = receive(&guest).unwrap();
    assert_eq!((frames, stats.rx_frames, stats.drops[DropReason::BadChain as usize]), (1, 6, 5));
    let completed: Vec<_> = (0..6).map(|index| guest.used_element(1, index)).collect();
    assert_eq!(completed, (1..=6).map(|head| (head, 0)).collect::<Vec<_>>());
    assert_eq!(guest.used(1, 2).load(Ordering::Acquire), 6);
}

#[test]
fn a_burst_of_nothing_but_bad_frames_is_completed_at_once() {
    let mut guest = Guest::new(VERSION_1, SIZE);
    guest.set_descriptor(1, 0, GUEST_BASE, 3, 0, 0);
    (0..SIZE).for_each(|_| guest.offer(1, 0));
    let mut port = guest.port();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).unwrap();
    assert!(burst.is_empty());
    assert_eq!(guest.used(1, 2).load(Ordering::Acquire), SIZE);
}

#[test]
fn broken_receive_rings() {
    type Case = (&'static str, fn(&mut Guest));
    let cases: [Case; 6] = [
        ("read-only descriptor", |guest| {
            guest.set_descriptor(0, 0, GUEST_BASE, 2000, 0, 0);
            guest.offer(0, 0);
        }),
        ("is 1000 ahead", |guest| guest.avail(0, 2).store(1000, Ordering::Release)),
        ("names descriptor 99", |guest| guest.offer(0, 99)),
        ("not inside one region", |guest| {
            guest.set_descriptor(0, 0, GUEST_BASE + guest.bytes(), 2000, WRITE, 0);
            guest.offer(0, 0);
        }),
        ("(a loop)", |guest| {
            guest.set_descriptor(0, 0, GUEST_BASE, 1, WRITE | NEXT, 0);
            guest.offer(0, 0);
        }),
        ("was not negotiated", |guest| {
            guest.set_descriptor(0, 0, GUEST_BASE, 16, INDIRECT_FLAG, 0);
            guest.offer(0, 0);
        }),
    ];
    for (expected, make) in cases {
        let (mut sender, mut receiver) = (Guest::new(VERSION_1, SIZE), Guest::new(MRG_RXBUF, SIZE));
        make(&mut receiver);
        // More than 64 bytes, so that a loop of one-byte buffers is longer than the table.
        sender.transmit(1, &frame(300, 1), &[]);
        let (mut from, mut to) = (sender.port(), receiver.port());
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        from.receive(0, &mut burst, &mut stats).unwrap();
        let items = [TxItem::whole(0, TagEdit::KEEP)];
        let reason = to.send(&mut burst, &items, &mut stats).unwrap_err().reason;
        assert!(reason.starts_with("the guest broke its receive ring 0: ") && reason.contains(expected), "{reason}");
        // The sender is not touched by it.
        from.release(0, &mut burst).unwrap();
        assert_eq!(sender.reap(1), 1);
    }
}

fn memfd(bytes: u64) -> OwnedFd {
    let fd = memfd_create("hostile", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    fd
}

fn region(guest_start: u64, bytes: u64, user_start: u64, file_offset: u64) -> RegionInfo {
    RegionInfo { guest_start, bytes, user_start, file_offset }
}

#[test]
fn regions_that_cannot_be() {
    let map = |info| Region::map(info, memfd(0x1000)).map_err(|error| error.to_string());
    let cases = [
        ("needs 1048576 bytes of its file, which has only 4096", region(0, 0x10_0000, 0, 0)),
        ("needs 4097 bytes", region(0, 1, 0, 0x1000)),
        ("is empty", region(0, 0, 0, 0)),
        ("wraps", region(u64::MAX, 0x1000, 0, 0)),
        ("wraps", region(0, 0x1000, u64::MAX - 10, 0)),
        ("wraps", region(0, 0x1000, 0, u64::MAX)),
    ];
    for (expected, info) in cases {
        let error = map(info).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let table = |infos: &[RegionInfo]| {
        GuestMemory::new(infos.iter().map(|&info| Arc::new(map(info).unwrap())).collect())
            .map_err(|error| error.to_string())
    };
    let overlap = table(&[region(0, 0x1000, 0, 0), region(0xfff, 0x1000, 0x10_0000, 0)]).unwrap_err();
    assert!(overlap.contains("overlap"), "{overlap}");
    let overlap = table(&[region(0, 0x1000, 0x800, 0), region(0x10_0000, 0x1000, 0, 0)]).unwrap_err();
    assert!(overlap.contains("overlap"), "{overlap}");
    let many: Vec<_> = (0..=MAX_REGIONS as u64).map(|at| region(at << 12, 0x1000, at << 12, 0)).collect();
    assert!(table(&many).unwrap_err().contains("at most"));
    // Neighbours are fine, but nothing may reach from one into the other.
    let memory = table(&many[1..]).unwrap();
    assert!(memory.host_of_guest(0x1000, 0x1000).is_some());
    assert!(memory.host_of_guest(0x1001, 0x1000).is_none());
    assert!(memory.host_of_guest(0xfff, 1).is_none());
    assert!(memory.host_of_user(0x1fff, 2).is_none());
}

#[test]
fn an_offset_inside_a_page_is_found_again() {
    let fd = memfd(0x3000);
    rustix::io::pwrite(&fd, b"here", 0x1234).unwrap();
    let memory = GuestMemory::new(vec![Arc::new(Region::map(region(0x5000, 4, 0, 0x1234), fd).unwrap())]).unwrap();
    let host = memory.host_of_guest(0x5000, 4).unwrap();
    // SAFETY: four mapped bytes that nobody writes to.
    assert_eq!(unsafe { host.cast::<[u8; 4]>().read() }, *b"here");
}

#[test]
fn rings_that_cannot_be() {
    let guest = Guest::new(0, SIZE);
    let good = guest.addresses(0);
    let resolve = |size, addresses| {
        RingLayout::resolve(Arc::clone(&guest.memory), size, addresses).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(resolve(64, good), Ok(()));
    for size in [0, 3, 65, 65536, u32::MAX] {
        assert!(resolve(size, good).unwrap_err().contains("power of two"), "{size}");
    }
    let shifted = |by| RingAddresses { descriptors: good.descriptors + by, ..good };
    assert!(resolve(64, shifted(8)).unwrap_err().contains("descriptor table"));
    assert!(resolve(64, RingAddresses { available: 1 + good.available, ..good }).unwrap_err().contains("aligned to 2"));
    assert!(resolve(64, RingAddresses { used: 2 + good.used, ..good }).unwrap_err().contains("aligned to 4"));
    let end = USER_BASE + guest.bytes();
    assert!(resolve(64, shifted(guest.bytes() - 16)).unwrap_err().contains("not inside one region"));
    assert!(resolve(64, RingAddresses { used: end - 512, ..good }).unwrap_err().contains("the used ring"));
    assert!(resolve(64, RingAddresses { available: u64::MAX - 1, ..good }).unwrap_err().contains("available ring"));
}

/// Sends one request and returns why the front end was thrown out; the next one is served.
fn rejected(harness: &mut Harness, code: u32, payload: &[u64], fds: &[BorrowedFd<'_>]) -> String {
    let mut front = harness.connect();
    front.send(code, payload, fds);
    let reason = harness.rejection();
    assert!(front.is_closed());
    let mut next = harness.connect();
    assert_ne!(harness.ask(&mut next, GET_FEATURES, &[]), 0);
    drop(next);
    harness.until("free", |endpoint| !endpoint.status().connected);
    reason
}

#[test]
fn requests_that_end_the_connection() {
    let mut harness = Harness::new("hostile", Role::Server);
    let guest = Guest::new(0, SIZE);
    let (memory, kick) = (guest.memfd.as_fd(), guest.rings[0].kick.as_fd());
    let table = |bytes| [1, GUEST_BASE, bytes, USER_BASE, 0];
    let eight = [memory; 8];
    let cases: &[(&str, u32, &[u64], &[BorrowedFd<'_>])] = &[
        ("request 4711", 4711, &[], &[]),
        ("request 0,", 0, &[], &[]),
        ("GET_CONFIG, which belongs to a feature that was not offered", 24, &[0, 0], &[]),
        ("GET_INFLIGHT_FD with 1 descriptors", 31, &[0, 0], &[memory]),
        ("SET_LOG_BASE with 8 descriptors instead of 1", 6, &[4096, 0], &eight),
        ("SET_LOG_BASE with a payload of 8 bytes", 6, &[0], &[]),
        ("the dirty log has 0 bytes", 6, &[0, 0], &[memory]),
        ("the dirty log is neither shared memory", 6, &[4096, 0], &[kick]),
        ("the dirty log needs 1099511627776 bytes", 6, &[1 << 40, 0], &[memory]),
        ("SET_LOG_FD with a descriptor that is no eventfd", 7, &[], &[memory]),
        ("SEND_RARP with a payload of 0 bytes", 19, &[], &[]),
        ("GET_FEATURES with a payload of 8 bytes", GET_FEATURES, &[0], &[]),
        ("GET_FEATURES with 8 descriptors instead of 0", GET_FEATURES, &[], &eight),
        ("bits 0x4,", SET_FEATURES, &[4], &[]),
        ("bits 0x10000,", SET_PROTOCOL_FEATURES, &[1 << 16], &[]),
        ("a payload of 0 bytes", SET_MEM_TABLE, &[], &[]),
        ("a payload of 16 bytes", SET_MEM_TABLE, &[1, 2], &[memory]),
        ("a payload of 40 bytes", SET_MEM_TABLE, &[2, 0, 4096, 0, 0], &[memory, memory]),
        ("0 descriptors instead of 1", SET_MEM_TABLE, &table(4096), &[]),
        ("8 descriptors instead of 1", SET_MEM_TABLE, &table(4096), &eight),
        ("without regions", SET_MEM_TABLE, &[0], &[]),
        ("which has only", SET_MEM_TABLE, &table(1 << 40), &[memory]),
        ("neither shared memory (memfd, tmpfs) nor huge pages", SET_MEM_TABLE, &table(4096), &[kick]),
        ("ring 2; the port has 2 rings", SET_VRING_NUM, &[2 | 256 << 32], &[]),
        ("ring 255", SET_VRING_KICK, &[255], &[kick]),
        ("0 descriptors instead of 1", SET_VRING_KICK, &[0], &[]),
        ("1 descriptors instead of 0", SET_VRING_CALL, &[0x100], &[kick]),
        ("8 descriptors instead of 1", SET_VRING_CALL, &[0], &eight),
        ("no eventfd", SET_VRING_CALL, &[0], &[memory]),
        ("ring 4294967295", GET_VRING_BASE, &[u64::MAX], &[]),
        ("no memory region at guest address 0x5", 38, &[0, 5, 4096, 0, 0], &[]),
    ];
    for &(expected, code, payload, fds) in cases {
        let reason = rejected(&mut harness, code, payload, fds);
        assert!(reason.contains(expected), "{reason} instead of {expected}");
    }
}

#[test]
fn bytes_that_are_no_message() {
    let mut harness = Harness::new("noise", Role::Server);
    let cases: [(&str, &[u8]); 4] = [
        ("flags 0x5;", &[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]),
        ("flags 0x2;", &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
        ("payload of 1048576 bytes", &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 16, 0]),
        ("flags 0xffffffff", &[0xff; 12]),
    ];
    for (expected, bytes) in cases {
        let front = harness.connect();
        front.send_bytes(bytes, &[]);
        let reason = harness.rejection();
        assert!(reason.contains(expected), "{reason} instead of {expected}");
    }
    // More descriptors than any message has, and some in the middle of one.
    let guest = Guest::new(0, SIZE);
    let front = harness.connect();
    front.send_bytes(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &[guest.memfd.as_fd(); 40]);
    assert!(harness.rejection().contains("more than 32"));
    let front = harness.connect();
    front.send_bytes(&[1, 0, 0, 0], &[]);
    harness.until("connected", |endpoint| endpoint.status().connected);
    harness.turn();
    front.send_bytes(&[1, 0, 0, 0, 0, 0, 0, 0], &[guest.memfd.as_fd()]);
    assert!(harness.rejection().contains("in the middle"));
}

#[test]
fn rings_moved_while_they_run_are_checked_again() {
    let mut harness = Harness::new("moved", Role::Server);
    let guest = Guest::new(VERSION_1, SIZE);
    let front = harness.connect();
    front.send(SET_FEATURES, &[VERSION_1], &[]);
    front.memory_table(&guest);
    front.ring(&guest, 0);
    front.ring(&guest, 1);
    harness.until("up", |endpoint| endpoint.status().state == EndpointState::Up);
    front.send(SET_VRING_ADDR, &[1, USER_BASE + guest.bytes(), USER_BASE, USER_BASE, 0], &[]);
    let reason = harness.rejection();
    assert!(reason.contains("ring 1 cannot start") && reason.contains("descriptor table"), "{reason}");
    assert!(harness.port.lock().unwrap().rx[0].wait_fd().is_none());
}
