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

    /// True if this reason is one of them.
    pub fn contains(self, reason: DropReason) -> bool {
        self.0 >> reason as u32 & 1 == 1
    }
}
