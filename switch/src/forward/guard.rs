//! What the guards of a port say to a decision.

use crate::tables::Port;
use crate::{DropReason, Mac};

/// Whether a frame from `src` may come in at `port`.
pub(super) fn admit(port: &Port, src: Mac, snapshot: &[u8]) -> Result<(), DropReason> {
    port.rules.guards.as_ref().map_or(Ok(()), |guards| guards.admit(src, snapshot))
}

/// What becomes of a frame from `src`, which is one source too many.
pub(super) fn over_limit(port: &Port, src: Mac, dry: bool) -> Result<(), DropReason> {
    port.rules.guards.as_ref().map_or(Ok(()), |guards| guards.over_limit(src, dry))
}

/// Whether a frame to `dst` may be flooded.
pub(super) fn flood(port: &Port, dst: Mac, now_ns: u64, dry: bool) -> Result<(), DropReason> {
    port.rules.guards.as_ref().map_or(Ok(()), |guards| guards.flood(dst, now_ns, dry))
}

/// Whether frames with equal headers are all treated alike.
pub(super) fn repeats(port: &Port) -> bool {
    port.rules.guards.as_ref().is_none_or(|guards| guards.is_of_headers())
}
