//! The atomics and the mutex of the forwarding database: the standard library's, or, when its models are explored
//! (`--cfg loom`, `fdb/models.rs`), those of loom, which plays every interleaving and every value that the memory
//! model lets a load see.

#[cfg(not(all(loom, test)))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(all(loom, test))]
pub(crate) use explored::{AtomicU32, AtomicU64, Mutex, Ordering};

#[cfg(all(loom, test))]
mod explored {
    pub(crate) use loom::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    /// Loom's atomic, with two of its shortcuts taken out.
    ///
    /// *Turns.* Loom remembers the last access to an object only, and does not try a store before the load of another
    /// thread if its own thread loaded in between. So each access takes its turn in an object where all accesses
    /// exclude each other; being relaxed, that orders nothing else.
    ///
    /// *Stores.* Loom orders two stores of different threads only if one thread saw the other's. So it takes it for
    /// possible that an exchange which found the old value comes after a store that was made later, although nothing
    /// can come between an exchange and the value it found. A swap is ordered behind what it replaces; loads may see
    /// old values as before. A relaxed store stays one: as a swap it would hand on what earlier stores released.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64 {
        value: loom::sync::atomic::AtomicU64,
        turns: AtomicU32,
    }

    impl AtomicU64 {
        fn turn(&self) -> &loom::sync::atomic::AtomicU64 {
            self.turns.fetch_add(1, Ordering::Relaxed);
            &self.value
        }

        pub(crate) fn load(&self, ordering: Ordering) -> u64 {
            self.turn().load(ordering)
        }

        pub(crate) fn store(&self, value: u64, ordering: Ordering) {
            if ordering == Ordering::Relaxed {
                self.turn().store(value, ordering);
            } else {
                self.turn().swap(value, ordering);
            }
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.turn().compare_exchange(current, new, success, failure)
        }
    }
}
