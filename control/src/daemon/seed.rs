//! Numbers that nobody outside can predict.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number: for hashes that a guest must not foresee, and for impairments without a seed of their own.
pub(super) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
