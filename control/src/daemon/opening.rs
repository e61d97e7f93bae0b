//! The ports of the configuration file that are still to be opened when the switch starts.

use std::collections::VecDeque;
use std::time::Instant;

/// What is left of the start.
#[derive(Debug)]
pub(super) struct Opening {
    /// Names of ports, in order.
    pub(super) left: VecDeque<String>,
    /// Some that were opened are in no tables with their transmit side yet.
    pub(super) tables_due: bool,
    /// When tables were last renewed for it.
    pub(super) renewed_at: Instant,
}

impl Opening {
    /// Nothing is to be opened.
    pub(super) fn none() -> Opening {
        Opening { left: VecDeque::new(), tables_due: false, renewed_at: Instant::now() }
    }

    /// A port is opened already.
    pub(super) fn forget(&mut self, name: &str) {
        self.left.retain(|left| left != name);
    }

    /// Whether all have been tried.
    pub(super) fn is_over(&self) -> bool {
        self.left.is_empty() && !self.tables_due
    }
}
