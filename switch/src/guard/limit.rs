//! Frames from sources beyond a learning limit that only alerts: their number, and the last source.
//!
//! Workers count, and the reader reports at its own pace, so that a flood of addresses is no flood of messages.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Mac;

/// Counts frames; see the module.
#[derive(Debug, Default)]
pub struct OverLimit {
    frames: AtomicU64,
    last: AtomicU64,
}

/// A reading of [`OverLimit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverLimitSeen {
    /// Frames since the port was added.
    pub frames: u64,
    /// The source of the last of them.
    pub last: Mac,
}

impl OverLimit {
    /// Counts a frame from `src`.
    pub(super) fn count(&self, src: Mac) {
        self.last.store(src.to_u64(), Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far. Source and number may be of different frames.
    pub fn seen(&self) -> OverLimitSeen {
        OverLimitSeen {
            frames: self.frames.load(Ordering::Relaxed),
            last: Mac::from_u64(self.last.load(Ordering::Relaxed)),
        }
    }
}
