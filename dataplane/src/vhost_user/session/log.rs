//! The log of pages that the rings write: when there is one, and which ring marks what in it.
//!
//! **How it works.** The front end shares the log with SET_LOG_BASE and switches logging on with VHOST_F_LOG_ALL, in
//! any order, again and again while the rings run. A ring's own entries are logged at an address that comes with its
//! others (VHOST_VRING_F_LOG). Each change is told to the rings between two bursts, and only then answered.
//!
//! **Invariants.**
//! - While the front end logs, a ring runs only with a log that has a bit for each page of the guest's memory. Without
//!   one the rings wait: QEMU starts the rings of a guest that boots while it is moved before it shares the log, and a
//!   page written in between would be lost.
//! - The log ends with VHOST_F_LOG_ALL, and when the last ring is stopped: QEMU shares a new one at the next start.
//!
//! Reference: vhost-user.rst, "Migration".

use std::sync::Arc;

use super::{RingState, Session};
use crate::reaper::PeerFd;
use crate::vhost_user::operation::{Rings, VhostOp};
use crate::vhost_user::request::SessionError;
use crate::virtio::dirty_log::{DirtyLog, RingLog};
use crate::virtio::features::{F_LOG_ALL, F_RING_PACKED};

impl Session {
    /// Tells if the front end wants the pages marked that the rings write.
    pub(super) fn logs(&self) -> bool {
        self.features & F_LOG_ALL != 0
    }

    /// Tells if the rings wait because the front end logs and has not shared its log yet.
    pub fn waits_for_log(&self) -> bool {
        self.logs() && self.log.is_none()
    }

    /// Bytes that count against the limit on the guest's memory: of the memory and of the log.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.memory.bytes() + self.log.as_ref().map_or(0, |log| log.bytes())
    }

    /// SET_LOG_BASE: a log of `bytes` bytes at `offset` of `file`.
    pub(super) fn set_log(
        &mut self,
        bytes: u64,
        offset: u64,
        file: PeerFd,
        rings: &mut dyn Rings,
    ) -> Result<(), SessionError> {
        let log = DirtyLog::map(&self.memory_limit, self.memory.bytes(), bytes, offset, file)?;
        log.covers(&self.memory)?;
        // The log of before is unmapped here, once no ring uses it.
        let before = self.log.replace(Arc::new(log));
        self.log_anew(rings)?;
        drop(before);
        Ok(())
    }

    /// Tells all rings where they mark pages now; without a log that they need they stop, else those that wait start.
    pub(super) fn log_anew(&mut self, rings: &mut dyn Rings) -> Result<(), SessionError> {
        if self.waits_for_log() {
            return self.stop_all(rings).map(|_| ());
        }
        let all = 0..u16::try_from(self.rings.len()).unwrap_or(u16::MAX);
        for index in all {
            if self.is_started(index) {
                self.log_ring_anew(index, rings)?;
            } else {
                self.start(index, rings)?;
            }
        }
        Ok(())
    }

    /// Tells a ring that runs where it marks pages now.
    pub(super) fn log_ring_anew(&mut self, index: u16, rings: &mut dyn Rings) -> Result<(), SessionError> {
        let Some(ring) = self.rings.get(usize::from(index)) else { return Ok(()) };
        let log = self.ring_log(index, ring)?;
        rings.operate(VhostOp::SetLog { index, log })?;
        Ok(())
    }

    /// The log as a ring uses it; `None`: the front end does not log.
    pub(super) fn ring_log(&self, index: u16, ring: &RingState) -> Result<Option<RingLog>, SessionError> {
        let Some(log) = self.log.as_ref().filter(|_| self.logs()) else { return Ok(None) };
        log.covers(&self.memory)?;
        if let Some(address) = ring.log_address {
            // Flags, index and elements; of a packed ring the device event suppression.
            let packed = self.features & F_RING_PACKED != 0;
            let bytes = if packed { 4 } else { 4 + 8 * u64::from(ring.size.unwrap_or(0)) };
            log.covers_ring(address, bytes).map_err(|source| SessionError::RingLog { index, source })?;
        }
        Ok(Some(RingLog::new(Arc::clone(log), Arc::clone(&self.memory), ring.log_address)))
    }

    /// Ends the log if no ring runs that could use it.
    pub(super) fn forget_log_at_rest(&mut self) {
        if !self.rings.iter().any(|ring| ring.started) {
            self.log = None;
        }
    }
}
