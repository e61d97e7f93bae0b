//! The log of pages: shared, switched on and off, in every order, while the rings run; and logs that cannot be.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{SealFlags, fcntl_add_seals};

use super::*;
use crate::virtio::dirty_log::LogError;
use crate::virtio::features::F_LOG_ALL;

/// A log that covers [`MEMORY_BYTES`].
const LOG_BYTES: u64 = MEMORY_BYTES / 4096 / 8;

fn memfd(bytes: u64) -> OwnedFd {
    let fd = memfd_create("log", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, bytes).unwrap();
    fd
}

impl Front {
    fn share_log(&mut self, bytes: u64, offset: u64, file: OwnedFd) -> Result<Option<u64>, SessionError> {
        self.try_send(Req::SET_LOG_BASE, &[bytes, offset], vec![file])
    }

    fn good_log(&mut self) {
        assert_eq!(self.share_log(LOG_BYTES, 0, memfd(LOG_BYTES)).unwrap(), Some(0), "answered unasked");
    }

    fn refused_log(&mut self, bytes: u64, offset: u64, file: OwnedFd) -> String {
        let error = self.share_log(bytes, offset, file).unwrap_err();
        assert!(matches!(error, SessionError::Log(_)), "{error}");
        let error = error.to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }
}

#[test]
fn logging_is_switched_while_the_rings_run_on() {
    let mut front = Front::running(F_VERSION_1);
    // As QEMU does: the log, then the feature, then the rings.
    front.good_log();
    assert_eq!(front.took(), ["log 0 false"]);
    front.send(Req::SET_FEATURES, &[F_VERSION_1 | F_LOG_ALL]);
    assert_eq!(front.took(), ["log 0 true"]);
    front.send(Req::SET_VRING_ADDR, &[1 << 32, USER, USER + 0x2000, USER + 0x1000, 0x2000]);
    assert_eq!(front.took(), ["log 0 true"], "the same addresses");
    // A larger log takes the place of the first.
    front.share_log(2 * LOG_BYTES, 0, memfd(2 * LOG_BYTES)).unwrap();
    assert_eq!(front.took(), ["log 0 true"]);
    front.send(Req::SET_FEATURES, &[F_VERSION_1]);
    assert_eq!(front.took(), ["log 0 false"]);
    assert!(front.session.log.is_none(), "it is unmapped");
    front.send(Req::SET_VRING_ADDR, &[0, USER, USER + 0x2000, USER + 0x1000, 0]);
    assert_eq!(front.took(), ["log 0 false"]);
}

#[test]
fn rings_wait_for_a_log_that_they_need() {
    let mut front = Front::new(1);
    front.send(Req::SET_FEATURES, &[F_LOG_ALL]);
    front.table();
    front.describe(0);
    front.event(Req::SET_VRING_KICK, 0);
    assert!(front.took().is_empty() && front.session.waits_for_log());
    front.good_log();
    assert_eq!(front.took(), ["start 0 enabled kick silent 0x4000000 logged"]);
    // The feature without a log stops what runs.
    let mut front = Front::running(0);
    front.send(Req::SET_FEATURES, &[F_LOG_ALL]);
    assert_eq!(front.took(), ["stop 0"]);
    front.send(Req::SET_FEATURES, &[0]);
    assert_eq!(front.took(), ["start 0 enabled kick silent 0x0"]);
    // The log of before is not used after all rings were stopped.
    let mut front = Front::running(0);
    front.good_log();
    front.send(Req::SET_FEATURES, &[F_LOG_ALL]);
    front.took();
    front.send(Req::GET_VRING_BASE, &[0]);
    front.event(Req::SET_VRING_KICK, 0);
    assert_eq!(front.took(), ["stop 0"]);
    front.good_log();
    assert_eq!(front.took(), ["start 0 enabled kick silent 0x4000000 logged"]);
}

#[test]
fn a_log_that_cannot_be_ends_the_session() {
    let mut front = Front::running(F_LOG_ALL);
    let small = front.refused_log(LOG_BYTES - 1, 0, memfd(LOG_BYTES));
    assert!(small.contains("needs 32") && small.contains("has 31 bytes"), "{small}");
    assert!(front.refused_log(LOG_BYTES, 0, memfd(LOG_BYTES - 1)).contains("has only 31"));
    assert!(front.refused_log(LOG_BYTES, 1, memfd(LOG_BYTES)).contains("needs 33 bytes of its file"));
    assert!(front.refused_log(0, 0, memfd(LOG_BYTES)).contains("cannot be"));
    assert!(front.refused_log(LOG_BYTES, u64::MAX, memfd(LOG_BYTES)).contains("cannot be"));
    for file in [File::open("/dev/zero").unwrap().into(), eventfd(0, EventfdFlags::empty()).unwrap()] {
        assert!(front.refused_log(LOG_BYTES, 0, file).contains("neither shared memory"), "no shared memory");
    }
    let error = front.try_send(Req::SET_LOG_BASE, &[LOG_BYTES, 0], vec![]).unwrap_err();
    assert!(matches!(error, SessionError::Descriptors { count: 0, expected: 1, .. }));
    for words in [&[][..], &[LOG_BYTES], &[LOG_BYTES, 0, 0]] {
        let error = front.try_send(Req::SET_LOG_BASE, words, vec![]).unwrap_err();
        assert!(matches!(error, SessionError::PayloadSize { .. } | SessionError::Descriptors { .. }), "{error}");
    }
    assert!(front.took().is_empty());
}

#[test]
fn the_log_has_to_cover_memory_that_comes_later_and_the_rings_own_entries() {
    let mut front = Front::running(0);
    front.good_log();
    front.send(Req::SET_FEATURES, &[F_LOG_ALL]);
    let fd = front.memory.try_clone().unwrap();
    let error = front.try_send(Req::ADD_MEM_REG, &[0, MEMORY_BYTES, 0x1000, 1 << 40, 0], vec![fd]).unwrap_err();
    assert!(matches!(error, SessionError::Log(LogError::TooSmall { needed: 33, .. })), "{error}");
    let mut front = Front::running(0);
    front.good_log();
    front.send(Req::SET_FEATURES, &[F_LOG_ALL]);
    // 256 elements of 8 bytes and their index.
    let last = MEMORY_BYTES - 4 - 8 * 256;
    let address = |log| [1 << 32, USER, USER + 0x2000, USER + 0x1000, log];
    front.send(Req::SET_VRING_ADDR, &address(last));
    for outside in [last + 1, MEMORY_BYTES, u64::MAX] {
        let error = front.try_send(Req::SET_VRING_ADDR, &address(outside), vec![]).unwrap_err();
        assert!(matches!(error, SessionError::RingLog { index: 0, .. }), "{error}");
    }
}

#[test]
fn the_log_counts_as_guest_memory() {
    let limit = Arc::new(MemoryLimit::new(MEMORY_BYTES + LOG_BYTES, u64::MAX));
    let mut front = Front::new(1);
    front.session = Session::new(1, 1500, true).within(Arc::clone(&limit));
    front.table();
    assert!(front.refused_log(2 * LOG_BYTES, 0, memfd(2 * LOG_BYTES)).contains("switch.max_guest_memory"));
    front.good_log();
    assert_eq!(limit.mapped(), MEMORY_BYTES + LOG_BYTES);
    front.table();
    let fd = front.memory.try_clone().unwrap();
    let error = front.try_send(Req::ADD_MEM_REG, &[0, 1 << 40, 0x1000, 1 << 40, 0], vec![fd]).unwrap_err();
    assert!(error.to_string().contains("max_guest_memory"), "{error}");
    front.session.reset(&mut front.log).unwrap();
    assert_eq!(limit.mapped(), 0);
}

#[test]
fn a_log_begins_anywhere_in_its_file_and_the_rest_is_not_touched() {
    let mut front = Front::running(0);
    let file = memfd(0x3000);
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let offset = 0x1003;
    front.share_log(LOG_BYTES, offset, file.try_clone().unwrap()).unwrap();
    front.send(Req::SET_FEATURES, &[F_LOG_ALL]);
    let log = front.session.log.as_ref().unwrap();
    log.mark(0x0fff, 2);
    log.mark(MEMORY_BYTES - 1, 1);
    // Behind the end, and over it.
    log.mark(MEMORY_BYTES, 1);
    log.mark(u64::MAX, u64::MAX);
    log.mark(MEMORY_BYTES - 1, u64::MAX);
    log.mark(0x8000, 0);
    let mut bytes = [0; 0x3000];
    File::from(file).read_exact_at(&mut bytes, 0).unwrap();
    let set: Vec<_> = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).collect();
    assert_eq!(set, [(0x1003, &0b11), (0x1003 + 31, &0x80)]);
}

#[test]
fn other_requests_of_a_move() {
    let mut front = Front::running(0);
    front.event_without_index();
    let file = memfd(4096);
    assert!(matches!(front.try_send(Req::SET_LOG_FD, &[], vec![file]), Err(SessionError::NotEventfd { .. })));
    front.send(Req::SEND_RARP, &[u64::from_ne_bytes([0x52, 0x54, 0, 1, 2, 3, 0, 0])]);
    assert_eq!(front.took(), ["announce 1 [52, 54, 00, 01, 02, 03]"]);
    assert!(matches!(front.try_send(Req::SEND_RARP, &[], vec![]), Err(SessionError::PayloadSize { .. })));
}

impl Front {
    fn event_without_index(&mut self) {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        self.try_send(Req::SET_LOG_FD, &[], vec![fd]).unwrap();
    }
}
