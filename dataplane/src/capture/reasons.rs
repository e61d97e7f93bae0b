//! A set of drop reasons.

use labsw_switch::DropReason;
use labsw_switch::drop_reason::DROP_REASONS;

const _: () = assert!(DROP_REASONS <= 128, "a set of reasons is one u128");

/// A set of drop reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reasons(u128);

impl Reasons {
    /// No reason.
    pub const NONE: Reasons = Reasons(0);
    /// Every reason.
    pub const ALL: Reasons = Reasons(u128::MAX);

    /// These and one more.
    #[must_use]
    pub fn with(self, reason: DropReason) -> Reasons {
        Reasons(self.0 | 1 << reason as u32)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether both have one.
    pub fn intersects(self, other: Reasons) -> bool {
        self.0 & other.0 != 0
    }

    /// All of them, in the order of their counters.
    pub fn iter(self) -> impl Iterator<Item = DropReason> {
        DropReason::ALL.iter().copied().filter(move |reason| self.intersects(Reasons::NONE.with(*reason)))
    }

    /// Those counted in `after` and not yet in `before`.
    pub(crate) fn counted(before: &[u64; DROP_REASONS], after: &[u64; DROP_REASONS]) -> Reasons {
        let counts = DropReason::ALL.iter().zip(before.iter().zip(after));
        counts
            .filter(|(_, (before, after))| before != after)
            .fold(Reasons::NONE, |reasons, (reason, _)| reasons.with(*reason))
    }
}
