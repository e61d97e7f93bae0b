//! Faults of other vhost-user back ends, each as a test by the number of its advisory.
//!
//! The advisories are those of DPDK's vhost library, the most attacked back end there is, and the hardening fixes that
//! followed them. A test sends what the advisory describes and asserts what is right here: the frame is dropped under a
//! reason, or the front end is thrown out with one; no descriptor is kept; the process lives.
//!
//! Descriptors are counted for the whole process, so the tests take turns.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{EndpointState, Role};
use labsw_dataplane::virtio::memory::{GuestMemory, Region, RegionInfo};
use labsw_switch::DropReason;
use labsw_testkit::frontend::{
    GET_FEATURES, GET_VRING_BASE, Harness, SET_FEATURES, SET_MEM_TABLE, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL,
    SET_VRING_ENABLE, SET_VRING_ERR, SET_VRING_KICK, SET_VRING_NUM,
};
use labsw_testkit::guest::packed::Driver;
use labsw_testkit::guest::{GUEST_BASE, Guest, MRG_RXBUF, RING_PACKED, USER_BASE, VERSION_1, frame, frames_of};

const SIZE: u16 = 64;
const TX: usize = 1;
const CSUM: u64 = 1;
/// Requests that are not offered: dirty log, in-flight log, device IOTLB, postcopy, crypto sessions, configuration
/// space.
const SET_LOG_BASE: u32 = 6;
const SET_LOG_FD: u32 = 7;
const IOTLB_MSG: u32 = 22;
const SET_CONFIG: u32 = 25;
const CREATE_CRYPTO_SESSION: u32 = 26;
const POSTCOPY_ADVISE: u32 = 28;
const GET_INFLIGHT_FD: u32 = 31;
const SET_INFLIGHT_FD: u32 = 32;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sends one request as a new front end; why that was thrown out. No descriptor stays open.
fn rejected(code: u32, payload: &[u64], fds: &[BorrowedFd<'_>]) -> String {
    let before = open_descriptors();
    let mut harness = Harness::new(&format!("advisory-{code}-{}", fds.len()), Role::Server);
    let mut front = harness.connect();
    front.send(code, payload, fds);
    let reason = harness.rejection();
    assert!(front.is_closed());
    drop((front, harness));
    assert_descriptors(before, &reason);
    reason
}

/// The number of open descriptors is `expected`, or soon is: descriptors of peers are closed by a thread of its own.
fn assert_descriptors(expected: usize, what: &str) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while open_descriptors() > expected {
        assert!(std::time::Instant::now() < end, "{} descriptors instead of {expected}: {what}", open_descriptors());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Receives one burst: its frames and what was dropped, or the fault.
fn receive(guest: &Guest) -> Result<(Vec<Vec<u8>>, PortDelta), String> {
    let mut port = guest.port();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).map_err(|fault| fault.reason)?;
    let frames = frames_of(&burst);
    port.release(0, &mut burst).map_err(|fault| fault.reason)?;
    Ok((frames, stats))
}

#[test]
fn cve_2018_1059_a_buffer_that_spans_two_regions() {
    let _turn = alone();
    let mut guest = Guest::new(VERSION_1, SIZE);
    // The guest's memory in two regions, adjacent for the guest, far from each other here.
    let half = (guest.bytes() / 2).next_multiple_of(4096);
    let region = |guest_start, bytes, user_start, file_offset| {
        let info = RegionInfo { guest_start, bytes, user_start, file_offset };
        Arc::new(Region::map(info, guest.memfd.try_clone().unwrap()).unwrap())
    };
    let low = region(GUEST_BASE, half, USER_BASE, 0);
    let high = region(GUEST_BASE + half, guest.bytes() - half, USER_BASE + half, half);
    guest.memory = Arc::new(GuestMemory::new(vec![low, high]).unwrap());
    let mut port = guest.port();
    guest.set_descriptor(TX, 0, GUEST_BASE + half - 60, 120, 0, 0);
    guest.offer(TX, 0);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let fault = port.receive(0, &mut burst, &mut stats).unwrap_err();
    assert!(fault.reason.contains("not inside one region"), "{}", fault.reason);
    assert!(burst.is_empty());
}

#[test]
fn cve_2019_14818_requests_that_are_repeated_keep_nothing_of_those_before() {
    let _turn = alone();
    let guest = Guest::new(VERSION_1, SIZE);
    let mut harness = Harness::new("advisory-repeated", Role::Server);
    let mut front = harness.connect();
    let mut count = [0, 0];
    for round in 0..200 {
        front.memory_table(&guest);
        for ring in 0..2 {
            front.ring(&guest, ring);
            front.call(&guest, ring);
            front.send(SET_VRING_ERR, &[ring as u64], &[guest.rings[ring].call.as_fd()]);
        }
        assert_ne!(harness.ask(&mut front, GET_FEATURES, &[]), 0);
        if round == 20 {
            count[0] = open_descriptors();
        }
    }
    count[1] = count[0] + 2;
    assert_descriptors(count[1], "after 180 rounds more");
}

#[test]
fn cve_2020_10722_a_log_whose_size_and_offset_overflow() {
    let _turn = alone();
    let guest = Guest::new(0, SIZE);
    let reason = rejected(SET_LOG_BASE, &[u64::MAX - 4095, 8192], &[guest.memfd.as_fd()]);
    assert!(reason.contains("the dirty log has 18446744073709547520 bytes at offset 0x2000"), "{reason}");
    let reason = rejected(SET_LOG_FD, &[], &[guest.memfd.as_fd()]);
    assert!(reason.contains("SET_LOG_FD"), "{reason}");
}

#[test]
fn cve_2020_10723_ring_numbers_are_not_cut_to_fewer_bits() {
    let _turn = alone();
    for (code, payload) in [
        (SET_VRING_NUM, [0x1_0000 | 64 << 32].as_slice()),
        (SET_VRING_BASE, &[0x1_0000]),
        (SET_VRING_ADDR, &[0x1_0001, USER_BASE, USER_BASE, USER_BASE, 0]),
        (SET_VRING_ENABLE, &[0x1_0000 | 1 << 32]),
        (GET_VRING_BASE, &[0x1_0001]),
    ] {
        let reason = rejected(code, payload, &[]);
        assert!(reason.contains("ring 6553"), "{reason}");
    }
}

#[test]
fn cve_2020_10725_a_packed_ring_with_a_buffer_outside_of_memory_amid_a_batch() {
    let _turn = alone();
    for bad in 0..5 {
        let guest = Guest::new(VERSION_1 | RING_PACKED, SIZE);
        let mut driver = Driver::new(&guest, TX);
        for seed in 0..5 {
            driver.transmit(&guest, &frame(100, seed), &[]);
        }
        // The address of one slot of the batch; length, id and flags stay.
        guest.write(driver.slot(&guest, bad), &(u64::MAX - 0xfff).to_le_bytes());
        let mut port = guest.port();
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let mut frames = 0;
        let fault = loop {
            match port.receive(0, &mut burst, &mut stats) {
                Err(fault) => break fault,
                Ok(()) => {
                    assert!(!burst.is_empty(), "the bad buffer was passed over");
                    frames += burst.len();
                    port.release(0, &mut burst).unwrap();
                }
            }
        };
        assert!(fault.reason.contains("0xfffffffffffff000"), "{}", fault.reason);
        assert!(frames <= usize::from(bad), "frames from behind the bad buffer");
    }
}

#[test]
fn cve_2020_10726_and_cve_2021_3839_logs_of_frames_in_flight() {
    let _turn = alone();
    let guest = Guest::new(0, SIZE);
    // mmap_size, mmap_offset, num_queues and queue_size, as large as can be.
    for queues in [0xffff_ffffu64, 0x40_0040] {
        let reason = rejected(GET_INFLIGHT_FD, &[u64::MAX, u64::MAX, queues], &[]);
        assert!(reason.contains("GET_INFLIGHT_FD"), "{reason}");
        let reason = rejected(SET_INFLIGHT_FD, &[u64::MAX, u64::MAX, queues], &[guest.memfd.as_fd()]);
        assert!(reason.contains("SET_INFLIGHT_FD"), "{reason}");
    }
}

#[test]
fn cve_2020_14374_to_14378_devices_that_are_not_offered() {
    let _turn = alone();
    let guest = Guest::new(0, SIZE);
    for (name, code, payload, fds) in [
        ("CREATE_CRYPTO_SESSION", CREATE_CRYPTO_SESSION, [0u64; 30].as_slice(), [].as_slice()),
        ("SET_CONFIG", SET_CONFIG, &[0, 0], &[]),
        ("IOTLB_MSG", IOTLB_MSG, &[0, 4096, USER_BASE, 2 << 8 | 3], &[]),
        ("POSTCOPY_ADVISE", POSTCOPY_ADVISE, &[], &[guest.memfd.as_fd()]),
    ] {
        let reason = rejected(code, payload, fds);
        assert!(reason.contains(name), "{reason}");
    }
}

#[test]
fn cve_2022_0669_descriptors_beside_requests_that_take_none() {
    let _turn = alone();
    let guest = Guest::new(0, SIZE);
    let eight = [guest.memfd.as_fd(); 8];
    for (code, payload) in [
        (GET_FEATURES, [].as_slice()),
        (SET_FEATURES, &[VERSION_1]),
        (SET_VRING_NUM, &[64 << 32]),
        (GET_VRING_BASE, &[0]),
        (GET_INFLIGHT_FD, &[0, 0, 0]),
        (SET_MEM_TABLE, &[1, GUEST_BASE, 4096, USER_BASE, 0]),
    ] {
        let reason = rejected(code, payload, &eight);
        assert!(reason.contains("8 descriptors"), "{reason}");
    }
    // The kick that says that it has no descriptor has one, and a doorbell that is none.
    rejected(SET_VRING_KICK, &[0x100], &eight[..1]);
    rejected(SET_VRING_CALL, &[0], &eight[..1]);
}

#[test]
fn cve_2022_2132_a_header_in_many_descriptors_and_chains_shorter_than_it() {
    let _turn = alone();
    let sent = frame(100, 3);
    let mut guest = Guest::new(VERSION_1 | MRG_RXBUF, SIZE);
    for pieces in [[1; 12].as_slice(), &[3, 3, 3, 3], &[11, 1], &[5, 10, 20]] {
        guest.transmit(TX, &sent, pieces);
    }
    let (frames, stats) = receive(&guest).unwrap();
    assert_eq!(frames, vec![sent; 4]);
    assert_eq!(stats.drops.iter().sum::<u64>(), 0);
    for bytes in 1..26usize {
        let mut guest = Guest::new(VERSION_1 | MRG_RXBUF, SIZE);
        guest.transmit_raw(TX, &vec![0; bytes], &[]);
        match (bytes.checked_sub(12), receive(&guest)) {
            // A frame that is shorter than its Ethernet header is the decision's to drop.
            (Some(frame_bytes), outcome) => assert_eq!(outcome.unwrap().0[0].len(), frame_bytes),
            (None, Ok((frames, stats))) => {
                assert!(frames.is_empty(), "{bytes} bytes");
                assert_eq!(stats.drops.iter().sum::<u64>(), 1, "{bytes} bytes");
            }
            (None, Err(reason)) => assert!(reason.contains("header"), "{bytes} bytes: {reason}"),
        }
    }
}

#[test]
fn cve_2024_11614_a_checksum_outside_of_the_frame() {
    let _turn = alone();
    for (start, offset) in [(200u16, 0u16), (0, 200), (u16::MAX, u16::MAX), (u16::MAX, 1), (99, 0), (98, 1), (34, 65)] {
        let mut guest = Guest::new(VERSION_1 | CSUM, SIZE);
        let mut bytes = vec![0; 12];
        bytes[0] = 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM
        bytes[6..8].copy_from_slice(&start.to_le_bytes());
        bytes[8..10].copy_from_slice(&offset.to_le_bytes());
        bytes.extend(frame(100, 9));
        guest.transmit_raw(TX, &bytes, &[]);
        let (frames, stats) = receive(&guest).unwrap();
        assert!(frames.is_empty(), "start {start}, offset {offset}");
        assert_eq!(stats.drops[DropReason::BadOffload as usize], 1, "start {start}, offset {offset}");
    }
}

#[test]
fn hardening_a_ring_position_that_the_front_end_makes_up_is_not_believed() {
    let _turn = alone();
    for base in [1, 64, 0x7fff, 0xffff, 0x1_0000, 0xffff_ffff] {
        let mut guest = Guest::new(VERSION_1, SIZE);
        let mut harness = Harness::new("advisory-base", Role::Server);
        let front = harness.connect();
        front.send(SET_FEATURES, &[VERSION_1], &[]);
        front.memory_table(&guest);
        for ring in 0..2u64 {
            let (kick, at) = (guest.rings[ring as usize].kick.as_fd(), guest.addresses(ring as usize));
            front.send(SET_VRING_NUM, &[ring | u64::from(SIZE) << 32], &[]);
            front.send(SET_VRING_BASE, &[ring | base << 32], &[]);
            front.send(SET_VRING_ADDR, &[ring, at.descriptors, at.used, at.available, 0], &[]);
            front.send(SET_VRING_KICK, &[ring], &[kick]);
        }
        harness.until("up", |endpoint| endpoint.status().state == EndpointState::Up);
        // The switch goes on where the used ring's own index stands.
        guest.transmit(TX, &frame(100, 1), &[]);
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let mut port = harness.port.lock().unwrap();
        port.receive(0, &mut burst, &mut stats).unwrap();
        assert_eq!(frames_of(&burst), [frame(100, 1)], "base {base:#x}");
        port.release(0, &mut burst).unwrap();
    }
}
