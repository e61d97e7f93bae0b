//! An attachment, or its absence.

use std::time::Instant;

use super::absence::Absence;
use super::attachment::Attachment;

/// An attachment, or why there is none.
pub(in crate::daemon) enum Attached {
    /// To this.
    To(Box<dyn Attachment>),
    /// To nothing: it is not there, yet or any more.
    Waiting(Absence),
}

impl Attached {
    /// What the port is attached to, if anything.
    pub(in crate::daemon) fn to(&self) -> Option<&dyn Attachment> {
        match self {
            Attached::To(attachment) => Some(&**attachment),
            Attached::Waiting(_) => None,
        }
    }

    /// As [`Attached::to`].
    pub(in crate::daemon) fn to_mut(&mut self) -> Option<&mut Box<dyn Attachment>> {
        match self {
            Attached::To(attachment) => Some(attachment),
            Attached::Waiting(_) => None,
        }
    }

    /// Whether the port waits, and is to be tried again by now.
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

    /// As [`Attached::absence`].
    pub(in crate::daemon) fn absence_mut(&mut self) -> Option<&mut Absence> {
        match self {
            Attached::To(_) => None,
            Attached::Waiting(absence) => Some(absence),
        }
    }
}
