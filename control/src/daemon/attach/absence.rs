//! What stands in place of an attachment that is not there: why, and when to look again.

use std::time::{Duration, Instant};

use labsw_dataplane::xdp::XdpError;

use super::attachment::{Attachment, Halves};
use super::error::OpenError;
use crate::api::PortState;
use crate::daemon::host::Host;

/// How long until a device that could not be opened is tried again.
pub(in crate::daemon) const RETRY: Duration = Duration::from_secs(1);
/// The same for a device whose queues the kernel has not let go of yet.
const RETRY_CLOSING: Duration = Duration::from_millis(50);

/// Why a port has no attachment, and when to look again.
pub(in crate::daemon) struct Absence {
    /// One clause for people.
    pub(in crate::daemon) reason: String,
    /// When it is tried again.
    next: Next,
    /// What outlives the device that the port has lost.
    pub(in crate::daemon) before: Before,
}

/// When a port that waits is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// When its turn comes at the start of the switch.
    AtStart,
    /// When links have changed.
    OnNews,
    /// When links have changed after this, and at this time.
    At(Instant),
}

/// What outlives the device that a port has lost.
#[derive(Default)]
pub(in crate::daemon) struct Before {
    /// The workers that its queues were pinned to.
    pub(in crate::daemon) pins: Vec<Option<usize>>,
    /// What stayed of the attachment while the port waits.
    pub(in crate::daemon) remains: Option<Box<dyn Attachment>>,
}

impl Absence {
    /// Of a port of the configuration file that was not tried yet.
    pub(in crate::daemon) fn opening() -> Absence {
        Absence { reason: "is being opened".to_owned(), next: Next::AtStart, before: Before::default() }
    }

    /// Of a port whose attachment was taken from it; its queues were pinned like this.
    pub(in crate::daemon) fn detached(pins: Vec<Option<usize>>) -> Absence {
        let before = Before { pins, remains: None };
        Absence { reason: "is being attached anew".to_owned(), next: Next::OnNews, before }
    }

    /// Of a port that could not be opened.
    pub(in crate::daemon) fn because(error: &OpenError) -> Absence {
        // A namespace comes without any news of links.
        let on_news = matches!(error, OpenError::NoDevice { .. } | OpenError::Removed(_));
        let wait = if matches!(error, OpenError::Xdp(XdpError::Closing { .. })) { RETRY_CLOSING } else { RETRY };
        let next = if on_news { Next::OnNews } else { Next::At(Instant::now() + wait) };
        Absence { reason: error.to_string(), next, before: Before::default() }
    }

    /// Of a port that has lost its device, for this reason; the device is opened again at `retry_at`.
    pub(in crate::daemon) fn lost(reason: String, retry_at: Instant) -> Absence {
        Absence { reason, next: Next::At(retry_at), before: Before::default() }
    }

    /// Has it wait until then, if it waits for time and not for news.
    pub(in crate::daemon) fn not_before(&mut self, earliest: Instant) {
        if let Next::At(at) = &mut self.next {
            *at = earliest.max(*at);
        }
    }

    /// Has it tried again now, whatever it waits for.
    pub(in crate::daemon) fn forgive(&mut self) {
        if let Next::At(at) = &mut self.next {
            *at = Instant::now();
        }
    }

    /// With the workers that the queues were pinned to.
    pub(in crate::daemon) fn with_pins(self, pins: Vec<Option<usize>>) -> Absence {
        Absence { before: Before { pins, ..self.before }, ..self }
    }

    /// With what outlives the device that the port has lost.
    pub(in crate::daemon) fn keeping(self, before: Before) -> Absence {
        Absence { before, ..self }
    }

    /// What a port that waits is doing, and why.
    pub(in crate::daemon) fn state(&self) -> (PortState, Option<String>) {
        let state = if self.is_opening() { PortState::Opening } else { PortState::Waiting };
        (state, Some(self.reason.clone()))
    }

    /// Whether the port waits for its turn at the start of the switch.
    pub(in crate::daemon) fn is_opening(&self) -> bool {
        self.next == Next::AtStart
    }

    /// Has it tried again soon.
    pub(in crate::daemon) fn retry(&mut self) {
        self.next = Next::At(Instant::now() + RETRY);
    }

    /// Whether it is to be tried now that links have changed, or that time has passed.
    pub(in crate::daemon) fn is_due(&self, now: Instant) -> bool {
        match self.next {
            Next::AtStart => false,
            Next::OnNews => true,
            Next::At(at) => at <= now,
        }
    }

    /// When it is to be tried whatever links do.
    pub(in crate::daemon) fn retry_at(&self) -> Option<Instant> {
        match self.next {
            Next::At(at) => Some(at),
            Next::AtStart | Next::OnNews => None,
        }
    }

    /// Removes what stayed of the attachment.
    pub(in crate::daemon) fn close(self, host: &mut Host) -> Result<(), OpenError> {
        self.before.remains.map_or(Ok(()), |remains| remains.close(Halves::default(), host))
    }
}
