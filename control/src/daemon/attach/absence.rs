//! An [`Absence`] stands in for an attachment that is not there: it says why, and when to try again.

use std::time::{Duration, Instant};

use labsw_dataplane::xdp::XdpError;

use super::attachment::{Attachment, Halves};
use super::error::{OpenError, RETRY};
use crate::api::PortState;
use crate::daemon::host::Host;

/// How long until a device whose queues the kernel has not released yet is tried again.
const RETRY_CLOSING: Duration = Duration::from_millis(50);

/// Why a port has no attachment, and when to try again.
pub(in crate::daemon) struct Absence {
    /// The reason, as one clause for people.
    pub(in crate::daemon) reason: String,
    /// When the port is tried again.
    next: Next,
    /// State that outlives the lost device.
    pub(in crate::daemon) before: Before,
}

/// When a waiting port is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// When its turn comes at the start of the switch.
    AtStart,
    /// With the next news of links.
    OnNews,
    /// At this time, and with any news of links after it.
    At(Instant),
}

/// State that outlives the device that a port has lost.
#[derive(Default)]
pub(in crate::daemon) struct Before {
    /// The workers that the port's queues were pinned to.
    pub(in crate::daemon) pins: Vec<Option<usize>>,
    /// The part of the attachment that stays while the port waits.
    pub(in crate::daemon) remains: Option<Box<dyn Attachment>>,
}

impl Absence {
    /// The absence at a port of the configuration file that was not tried yet.
    pub(in crate::daemon) fn opening() -> Absence {
        Absence { reason: "is being opened".to_owned(), next: Next::AtStart, before: Before::default() }
    }

    /// The absence at a port whose attachment was taken from it; `pins` are the workers that its queues were pinned to.
    pub(in crate::daemon) fn detached(pins: Vec<Option<usize>>) -> Absence {
        let before = Before { pins, remains: None };
        Absence { reason: "is being re-attached".to_owned(), next: Next::OnNews, before }
    }

    /// The absence at a port that could not be opened.
    pub(in crate::daemon) fn because(error: &OpenError) -> Absence {
        // No news of links announces a new namespace.
        let on_news = matches!(error, OpenError::NoDevice { .. } | OpenError::Removed(_));
        let wait = if matches!(error, OpenError::Xdp(XdpError::Closing { .. })) { RETRY_CLOSING } else { RETRY };
        let next = if on_news { Next::OnNews } else { Next::At(Instant::now() + wait) };
        Absence { reason: error.to_string(), next, before: Before::default() }
    }

    /// The absence at a port that has lost its device, for this reason; the device is opened again at `retry_at`.
    pub(in crate::daemon) fn lost(reason: String, retry_at: Instant) -> Absence {
        Absence { reason, next: Next::At(retry_at), before: Before::default() }
    }

    /// Puts the next try off until `earliest`, if the port waits for a time and not for news.
    pub(in crate::daemon) fn not_before(&mut self, earliest: Instant) {
        if let Next::At(at) = &mut self.next {
            *at = earliest.max(*at);
        }
    }

    /// Makes a port that waits for a time be tried again now.
    pub(in crate::daemon) fn forgive(&mut self) {
        if let Next::At(at) = &mut self.next {
            *at = Instant::now();
        }
    }

    /// The same absence with the workers that the queues were pinned to.
    pub(in crate::daemon) fn with_pins(self, pins: Vec<Option<usize>>) -> Absence {
        Absence { before: Before { pins, ..self.before }, ..self }
    }

    /// The same absence with the state that outlives the lost device.
    pub(in crate::daemon) fn keeping(self, before: Before) -> Absence {
        Absence { before, ..self }
    }

    /// The state that the waiting port is shown in, and the reason.
    pub(in crate::daemon) fn state(&self) -> (PortState, Option<String>) {
        let state = if self.is_opening() { PortState::Opening } else { PortState::Waiting };
        (state, Some(self.reason.clone()))
    }

    /// True if the port waits for its turn at the start of the switch.
    pub(in crate::daemon) fn is_opening(&self) -> bool {
        self.next == Next::AtStart
    }

    /// Has the port tried again soon.
    pub(in crate::daemon) fn retry(&mut self) {
        self.next = Next::At(Instant::now() + RETRY);
    }

    /// True if the port is to be tried now, after news of links or because its time has come.
    pub(in crate::daemon) fn is_due(&self, now: Instant) -> bool {
        match self.next {
            Next::AtStart => false,
            Next::OnNews => true,
            Next::At(at) => at <= now,
        }
    }

    /// When the port is tried even without news of links.
    pub(in crate::daemon) fn retry_at(&self) -> Option<Instant> {
        match self.next {
            Next::At(at) => Some(at),
            Next::AtStart | Next::OnNews => None,
        }
    }

    /// Removes the part of the attachment that stayed.
    pub(in crate::daemon) fn close(self, host: &mut Host) -> Result<(), OpenError> {
        self.before.remains.map_or(Ok(()), |remains| remains.close(Halves::default(), host))
    }
}
