//! The attachment of a port, or its absence.

use std::time::Instant;

use super::absence::Absence;
use super::attachment::Attachment;

/// The attachment of a port, or why there is none.
pub(in crate::daemon) enum Attached {
    /// The port is attached to this.
    To(Box<dyn Attachment>),
    /// The port is attached to nothing, not yet or not any more.
    Waiting(Absence),
}

impl Attached {
    /// The attachment, if there is one.
    pub(in crate::daemon) fn to(&self) -> Option<&dyn Attachment> {
        match self {
            Attached::To(attachment) => Some(&**attachment),
            Attached::Waiting(_) => None,
        }
    }

    /// The attachment, to change it; otherwise like [`Attached::to`].
    pub(in crate::daemon) fn to_mut(&mut self) -> Option<&mut Box<dyn Attachment>> {
        match self {
            Attached::To(attachment) => Some(attachment),
            Attached::Waiting(_) => None,
        }
    }

    /// True if the port waits and its next try is due.
    pub(in crate::daemon) fn is_due(&self, now: Instant) -> bool {
        self.absence().is_some_and(|absence| absence.is_due(now))
    }

    /// Why the port waits, if it does.
    pub(in crate::daemon) fn absence(&self) -> Option<&Absence> {
        match self {
            Attached::To(_) => None,
            Attached::Waiting(absence) => Some(absence),
        }
    }

    /// The absence, to change it; otherwise like [`Attached::absence`].
    pub(in crate::daemon) fn absence_mut(&mut self) -> Option<&mut Absence> {
        match self {
            Attached::To(_) => None,
            Attached::Waiting(absence) => Some(absence),
        }
    }
}
