//! Tests that concern the process as a whole: SIGBUS and leaked descriptors. One test at a time.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::port::RxQueue;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{EndpointState, Role};
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::frontend::{GET_FEATURES, Harness, SET_FEATURES, SET_MEM_TABLE, SET_VRING_CALL, SET_VRING_KICK};
use labsw_testkit::guest::{Guest, VERSION_1, frame};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_guest_that_truncates_its_memory_loses_its_port_only() {
    let _alone = alone();
    let (mut victim, mut culprit) = (Guest::new(VERSION_1, 64), Guest::new(VERSION_1, 64));
    let (mut sound, mut broken) = (victim.port(), culprit.port());
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    victim.post(0, 10, 2000, None);
    culprit.transmit(1, &frame(1000, 1), &[]);
    victim.transmit(1, &frame(1000, 2), &[]);
    broken.receive(0, &mut burst, &mut stats).unwrap();
    // While the frame is borrowed its memory goes away; the other port copies it all the same.
    rustix::fs::ftruncate(&culprit.memfd, 0).unwrap();
    let items = [TxItem::whole(0, TagEdit::KEEP)];
    assert_eq!(sound.send(&mut burst, &items, &mut stats).unwrap(), 0);
    let fault = broken.release(0, &mut burst).unwrap_err();
    assert!(fault.reason.contains("truncated"), "{fault}");
    // Every further use faults, too, and nothing dies of it.
    broken.rx[0].disarm();
    broken.receive(0, &mut burst, &mut stats).unwrap_err();
    assert!(burst.is_empty());
    assert_eq!(victim.received(0).len(), 1);
    sound.receive(0, &mut burst, &mut stats).unwrap();
    assert_eq!(burst.len(), 1);
    sound.release(0, &mut burst).unwrap();
    assert_eq!(victim.reap(1), 1);
}

#[test]
fn sending_into_truncated_memory_faults() {
    let _alone = alone();
    let (mut sender, mut culprit) = (Guest::new(VERSION_1, 64), Guest::new(VERSION_1, 64));
    let (mut from, mut to) = (sender.port(), culprit.port());
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    culprit.post(0, 10, 2000, None);
    sender.transmit(1, &frame(1000, 1), &[]);
    from.receive(0, &mut burst, &mut stats).unwrap();
    // The tables stay, the buffers go.
    rustix::fs::ftruncate(&culprit.memfd, culprit.buffer(0, 0) as u64).unwrap();
    let items = [TxItem::whole(0, TagEdit::KEEP)];
    let fault = to.send(&mut burst, &items, &mut stats).unwrap_err();
    assert!(fault.reason.contains("truncated"), "{fault}");
    from.release(0, &mut burst).unwrap();
    assert_eq!(sender.reap(1), 1);
}

#[test]
fn a_sigbus_of_somebody_else_still_kills() {
    let _alone = alone();
    // A child of our own binary, running this very test.
    if std::env::var_os("LABSW_TEST_SIGBUS").is_some() {
        labsw_dataplane::virtio::sigbus::install().unwrap();
        let fd = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = vm_memory::FileOffset::new(std::fs::File::from(fd), 0);
        let map: vm_memory::MmapRegion = vm_memory::MmapRegion::from_file(file, 4096).unwrap();
        // SAFETY: mapped; the file is empty, so the access raises SIGBUS, which is what is tested.
        unsafe { map.as_ptr().read_volatile() };
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_sigbus_of_somebody_else_still_kills"])
        .env("LABSW_TEST_SIGBUS", "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(7));
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[test]
fn no_descriptor_leaks_whatever_is_sent() {
    let _alone = alone();
    let mut harness = Harness::new("leak", Role::Server);
    let guest = Guest::new(VERSION_1, 64);
    let eight = [guest.memfd.as_fd(); 8];
    let before = open_descriptors();
    assert!(before > 0);
    for round in 0..40u32 {
        let mut front = harness.connect();
        front.send(SET_VRING_CALL, &[0], &[guest.rings[0].call.as_fd()]);
        front.send(SET_VRING_KICK, &[1], &[guest.rings[1].kick.as_fd()]);
        front.memory_table(&guest);
        match round % 4 {
            0 => front.send(SET_MEM_TABLE, &[7, 7, 7], &eight),
            1 => front.send(round * 1000, &[1; 20], &eight),
            2 => front.send_bytes(&[0xff; 100], &eight),
            _ => {
                // Half a message with descriptors, then gone.
                front.send_bytes(&[5, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0, 1], &eight);
                harness.turn();
                drop(front);
                harness.until("gone", |endpoint| !endpoint.status().connected);
                continue;
            }
        }
        harness.rejection();
        assert!(front.is_closed());
    }
    // The same once more with rings that run.
    for _ in 0..4 {
        let mut front = harness.connect();
        harness.ask(&mut front, GET_FEATURES, &[]);
        front.send(SET_FEATURES, &[VERSION_1], &[]);
        for _ in 0..3 {
            front.memory_table(&guest);
            front.ring(&guest, 0);
            front.ring(&guest, 1);
            front.call(&guest, 0);
        }
        harness.until("up", |endpoint| endpoint.status().state == EndpointState::Up);
        drop(front);
        harness.until("gone", |endpoint| !endpoint.status().connected);
    }
    // A thread of its own closes what a front end sent.
    harness.until("closed", |_| open_descriptors() == before);
}
