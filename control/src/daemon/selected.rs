//! The ports, directions and reasons that a capture selects, and how its frames stand in the file: for captures of what
//! is to come and of the past.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use labsw_dataplane::capture::{Reasons, Way};
use labsw_switch::DropReason;
use labsw_switch::tables::Direction;

use super::view::View;
use crate::api::{self, CaptureSpec, Source};
use crate::pcapng::Bound;

/// A piece ends with the frame that makes it at least this long, in bytes before base64.
pub(super) const PIECE_BYTES: usize = 128 << 10;

/// The ports that a capture watches, by name, and in which direction. `*` leaves out ports that may not be captured. A
/// capture of passing frames also leaves out mirror destinations and the ports of inline sensors, which carry frames
/// that pass at other ports.
pub(super) fn watched<'a>(spec: &CaptureSpec, view: View<'a>) -> BTreeMap<&'a str, Direction> {
    let everywhere = [Source { port: "*".to_owned(), direction: api::Direction::Both }];
    let sources = if spec.ports.is_empty() { &everywhere[..] } else { &spec.ports };
    let mut watched: BTreeMap<&str, Direction> = BTreeMap::new();
    for source in sources {
        let all = source.port == "*";
        for port in view.ports.configs() {
            let elsewhere = || view.mirrors.has_copies_sent_by(port) || view.inlines.are_at(&port.name);
            let wanted = if all { spec.drops || !elsewhere() } else { source.port == port.name };
            if wanted && port.allow_mirror {
                let direction = watched.entry(&port.name).or_default();
                direction.rx |= source.direction != api::Direction::Tx;
                direction.tx |= source.direction != api::Direction::Rx;
            }
        }
    }
    watched
}

/// The direction of a frame, as pcapng has it.
pub(super) fn bound(way: Way) -> Bound {
    match way {
        Way::Rx => Bound::Inbound,
        Way::Tx => Bound::Outbound,
    }
}

/// The comment of a frame: its direction at the port, and why it was dropped there.
pub(super) fn comment(port: &str, way: Way, dropped: Option<DropReason>) -> String {
    let way = match way {
        Way::Rx => "rx",
        Way::Tx => "tx",
    };
    match dropped {
        None => way.to_owned(),
        Some(reason) => format!("{way} dropped at {port}: {}", reason.name()),
    }
}

/// The drop reasons that a capture selects.
pub(super) fn reasons(spec: &CaptureSpec) -> Reasons {
    if spec.reasons.is_empty() {
        return Reasons::ALL;
    }
    let named = DropReason::ALL.iter().filter(|reason| spec.reasons.iter().any(|name| name == reason.name()));
    named.fold(Reasons::NONE, |reasons, reason| reasons.with(*reason))
}

pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
