//! A gate in front of a port's receive queues: while it is shut, whatever they receive is dropped and counted.
//!
//! **How it works.** One number: odd while the gate is shut, and higher whenever it is shut (also if it was) or opened.
//! Any thread shuts it. It is opened by who read the number first and then found the device in order: a gate that was
//! shut once more since stays shut. A receive queue that finds a number it does not know drops what lies in its ring:
//! that was received before the gate was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// The gate of a port; open at first.
#[derive(Debug, Default)]
pub struct Gate(AtomicU64);

impl Gate {
    /// The number that stands for the state it is in.
    #[inline]
    pub fn epoch(&self) -> u64 {
        // Acquire: pairs with the Release of `shut` and `open`; what the shutter knew happened before.
        self.0.load(Ordering::Acquire)
    }

    /// Whether the gate with this number is open.
    #[inline]
    pub fn is_open_at(epoch: u64) -> bool {
        epoch.is_multiple_of(2)
    }

    /// Whether it is open now.
    pub fn is_open(&self) -> bool {
        Gate::is_open_at(self.epoch())
    }

    /// From now on nothing passes.
    pub fn shut(&self) {
        let next = |epoch: u64| Some(epoch + if Gate::is_open_at(epoch) { 1 } else { 2 });
        // Release: see `epoch`. The closure always gives a value.
        let _ = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, next);
    }

    /// Frames pass again, unless the gate was shut since its number was `epoch`; whether they do.
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
