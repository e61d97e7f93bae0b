//! A guest that is saved or moved, seen at its rings: several workers mark pages in one log, a log that vanishes faults
//! its port only, a guest is announced.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::port::{Fault, RxQueue, Turn, TxPort};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{VhostOp, VhostPort, VhostTx};
use labsw_dataplane::virtio::dirty_log::{DirtyLog, LOG_PAGE, RingLog};
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::{GUEST_BASE, Guest, VERSION_1, frame, frames_of};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const LOG_BYTES: u64 = 1 << 20;
const PAIRS: usize = 3;
const ENTRIES: u16 = 256;

/// A log that covers the guest's memory, and its file.
fn log() -> (Arc<DirtyLog>, OwnedFd) {
    let file = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, LOG_BYTES).unwrap();
    let log = DirtyLog::map(&Arc::default(), 0, LOG_BYTES, 0, file.try_clone().unwrap()).unwrap();
    (Arc::new(log), file)
}

fn marked(file: &OwnedFd) -> BTreeSet<u64> {
    let mut bytes = vec![0; LOG_BYTES as usize];
    File::from(file.try_clone().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
    let bits = |(at, byte): (usize, &u8)| {
        (0..8).filter(|bit| byte >> bit & 1 == 1).map(move |bit| at as u64 * 8 + bit).collect::<Vec<_>>()
    };
    bytes.iter().enumerate().flat_map(bits).collect()
}

/// Sends one frame of 100 bytes as `turn`'s worker.
fn send(tx: &VhostTx, turn: &Turn) -> (Result<u64, Fault>, PortDelta) {
    let bytes = frame(100, turn.worker as u8);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    // SAFETY: the frame outlives the burst.
    assert!(unsafe { burst.push(0, &[Segment { ptr: bytes.as_ptr(), len: 100 }]) });
    let items = [TxItem::whole(0, TagEdit::KEEP)];
    (tx.send_set(turn, &mut burst, &items, &mut stats), stats)
}

#[test]
fn bits_that_several_workers_set_in_one_byte_are_all_there() {
    for _ in 0..4 {
        let mut guest = Guest::with_pairs(VERSION_1, ENTRIES, PAIRS);
        let (log, file) = log();
        let mut port = guest.port();
        for pair in 0..PAIRS {
            guest.post(2 * pair, usize::from(ENTRIES), 2000, None);
            let used = guest.addresses(2 * pair).used - guest.addresses(0).descriptors + GUEST_BASE;
            let log = Some(RingLog::new(Arc::clone(&log), Arc::clone(&guest.memory), Some(used)));
            port.operate(VhostOp::SetLog { index: 2 * pair as u16, log });
        }
        let before = guest.read(0, guest.bytes() as usize);
        std::thread::scope(|scope| {
            for worker in 0..PAIRS {
                let tx = &*port.tx;
                scope.spawn(move || {
                    let turn = Turn { worker, workers: PAIRS, ..Turn::ONLY };
                    for _ in 0..ENTRIES {
                        assert_eq!(send(tx, &turn).0.unwrap(), 0);
                    }
                });
            }
        });
        let after = guest.read(0, guest.bytes() as usize);
        let differ = |(page, (a, b)): (usize, (&[u8], &[u8]))| (a != b).then_some(GUEST_BASE / LOG_PAGE + page as u64);
        let pages = before.chunks(LOG_PAGE as usize).zip(after.chunks(LOG_PAGE as usize));
        let written: BTreeSet<u64> = pages.enumerate().filter_map(differ).collect();
        assert!(written.len() > 100, "{}", written.len());
        assert_eq!(marked(&file), written);
    }
}

#[test]
fn a_log_that_is_truncated_faults_its_port_only() {
    let (mut guest, mut other) = (Guest::new(VERSION_1, 64), Guest::new(VERSION_1, 64));
    let (log, file) = log();
    let (mut port, neighbour) = (guest.port(), other.port());
    let log = Some(RingLog::new(log, Arc::clone(&guest.memory), Some(GUEST_BASE)));
    port.operate(VhostOp::SetLog { index: 0, log });
    guest.post(0, 2, 2000, None);
    other.post(0, 2, 2000, None);
    assert!(send(&port.tx, &Turn::ONLY).0.is_ok());
    ftruncate(&file, 0).unwrap();
    let fault = send(&port.tx, &Turn::ONLY).0.unwrap_err();
    assert!(fault.reason.contains("truncated its dirty log"), "{}", fault.reason);
    let (sent, stats) = send(&neighbour.tx, &Turn::ONLY);
    assert_eq!((sent.unwrap(), stats.tx_frames), (0, 1));
}

#[test]
fn a_guest_is_announced_once_with_or_without_rings() {
    let mac = [0x52, 0x54, 0, 1, 2, 3];
    let mut guest = Guest::new(VERSION_1, 64);
    for started in [true, false] {
        let mut port = if started { guest.port() } else { VhostPort::new(1) };
        port.operate(VhostOp::Announce { index: 1, mac });
        let [rx] = port.rx.as_mut_slice() else { panic!("one queue") };
        assert!(rx.is_waiting(&Turn::ONLY) && rx.arm(&Turn::ONLY), "the worker does not sleep over it");
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        rx.receive(&Turn::ONLY, &mut burst, &mut stats).unwrap();
        let frames = frames_of(&burst);
        assert_eq!(
            (frames.len(), frames[0].len(), &frames[0][6..14]),
            (1, 60, &[&mac[..], &[0x80, 0x35]].concat()[..])
        );
        assert_eq!((stats.rx_frames, stats.rx_bytes), (1, 60));
        rx.release(&mut burst).unwrap();
        assert!(!rx.is_waiting(&Turn::ONLY));
        // The guest's own frames follow.
        if started {
            guest.transmit(1, &frame(100, 1), &[]);
            rx.receive(&Turn::ONLY, &mut burst, &mut stats).unwrap();
            assert_eq!(burst.len(), 1);
            rx.release(&mut burst).unwrap();
        }
    }
    // A front end that has gone is not announced any more.
    let mut port = VhostPort::new(1);
    port.operate(VhostOp::Announce { index: 1, mac });
    port.operate(VhostOp::Reset);
    assert!(!port.rx[0].is_waiting(&Turn::ONLY));
}
