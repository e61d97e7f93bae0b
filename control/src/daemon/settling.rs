//! Gates of the kernel fast path that were shut, and those that have settled since.
//!
//! A gate settles when no program of the kernel goes by it any more ([`fast_path`](super::fast_path)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::api::{Feed, Reply};

/// How many times gates were shut, and how many of these have settled: no program goes by the gate any more.
#[derive(Debug, Default)]
pub(super) struct Settling {
    pub(super) shut: u64,
    settled: Arc<AtomicU64>,
}

impl Settling {
    /// True if all gates that were shut have settled.
    pub(super) fn is_over(&self) -> bool {
        self.settled.load(Ordering::Relaxed) == self.shut
    }

    /// The gates that were shut by then have settled.
    pub(super) fn settled_up_to(&self, shut: u64) {
        self.settled.fetch_max(shut, Ordering::Relaxed);
    }

    /// A stream that begins once the gates that are shut by now have settled.
    pub(super) fn before(&self, feed: Box<dyn Feed>) -> Box<dyn Feed> {
        match self.is_over() {
            true => feed,
            false => Box::new(Later {
                feed,
                shut: self.shut,
                settled: Arc::clone(&self.settled),
                not_begun: Some(Instant::now()),
            }),
        }
    }
}

/// A stream that begins once gates have settled. The device thread then wakes the control thread.
#[derive(Debug)]
struct Later {
    feed: Box<dyn Feed>,
    shut: u64,
    settled: Arc<AtomicU64>,
    /// Since when the stream has not begun.
    not_begun: Option<Instant>,
}

impl Later {
    fn is_due(&self) -> bool {
        self.settled.load(Ordering::Relaxed) >= self.shut
    }
}

impl Feed for Later {
    fn due(&self) -> Option<Instant> {
        self.not_begun.or_else(|| self.feed.due()).filter(|_| self.is_due())
    }

    fn next(&mut self, now: Instant) -> Option<(Reply, bool)> {
        if !self.is_due() {
            return None;
        }
        self.not_begun = None;
        self.feed.next(now)
    }

    fn finish(&mut self, now: Instant) {
        self.feed.finish(now);
    }

    fn hand_over(&self) -> Option<Value> {
        self.feed.hand_over()
    }
}
