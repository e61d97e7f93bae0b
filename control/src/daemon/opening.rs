//! The ports of the configuration file that are still to be opened when the switch starts.

use std::collections::VecDeque;
use std::time::Instant;

/// The ports that are still to be opened at the start.
#[derive(Debug)]
pub(super) struct Opening {
    /// Names of the ports, in order of opening.
    pub(super) left: VecDeque<String>,
    /// Some opened ports are in no tables with their transmit side yet.
    pub(super) tables_due: bool,
    /// When the tables were last renewed.
    pub(super) renewed_at: Instant,
}

impl Opening {
    /// No port is to be opened.
    pub(super) fn none() -> Opening {
        Opening { left: VecDeque::new(), tables_due: false, renewed_at: Instant::now() }
    }

    /// Leaves out a port that is opened already.
    pub(super) fn forget(&mut self, name: &str) {
        self.left.retain(|left| left != name);
    }

    /// True if all ports have been tried.
    pub(super) fn is_over(&self) -> bool {
        self.left.is_empty() && !self.tables_due
    }
}
