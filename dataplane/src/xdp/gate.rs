//! A gate in front of a port's receive queues: while it is shut, all received frames are dropped and counted.
//!
//! **How it works.** The gate is one number, the *epoch*. It is odd while the gate is shut, and grows whenever the gate
//! is opened or shut, even if it was shut already. Any thread may shut the gate. To open it, a thread reads the number,
//! then finds the device in order, and opens the gate with that number: a gate that was shut once more meanwhile stays
//! shut. A receive queue that finds a new number drops the frames in its ring, which were received before the gate was
//! opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// The gate of a port; open at first.
#[derive(Debug, Default)]
pub struct Gate(AtomicU64);

impl Gate {
    /// The number of the gate's present state.
    #[inline]
    pub fn epoch(&self) -> u64 {
        // Acquire: pairs with the Release of `shut` and `open`, so that everything before them happened before this.
        self.0.load(Ordering::Acquire)
    }

    /// True if a gate with the number `epoch` is open.
    #[inline]
    pub fn is_open_at(epoch: u64) -> bool {
        epoch.is_multiple_of(2)
    }

    /// True if the gate is open now.
    pub fn is_open(&self) -> bool {
        Gate::is_open_at(self.epoch())
    }

    /// Shuts the gate: from now on all frames are dropped.
    pub fn shut(&self) {
        let next = |epoch: u64| Some(epoch + if Gate::is_open_at(epoch) { 1 } else { 2 });
        // Release: see `epoch`. The closure always gives a value.
        let _ = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, next);
    }

    /// Opens the gate, unless it was shut since its number was `epoch`. Returns true if it is open.
    pub fn open(&self, epoch: u64) -> bool {
        if Gate::is_open_at(epoch) {
            return self.epoch() == epoch;
        }
        self.0.compare_exchange(epoch, epoch + 1, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_shut_if_it_was_shut_again_since_its_number_was_read() {
        let gate = Gate::default();
        let before = gate.epoch();
        assert!(gate.is_open() && gate.open(before));
        gate.shut();
        assert!(!gate.is_open());
        assert!(!gate.open(before), "a number of before");
        let first = gate.epoch();
        gate.shut();
        assert!(!gate.open(first) && !gate.is_open(), "shut once more");
        assert!(gate.open(gate.epoch()) && gate.is_open());
        assert_ne!(gate.epoch(), before, "a queue sees that it was shut meanwhile");
    }
}
