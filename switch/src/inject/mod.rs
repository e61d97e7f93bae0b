//! Injection: frames that come from a mirror destination and may enter the switch.
//!
//! **How it works.** A destination that may inject has an [`Injection`], the *gate*. A frame from there passes it if it
//! is no copy that came back ([`Echoes`]), if its source is allowed, and if the rate allows it ([`Allowance`]), in this
//! order. An admitted frame is judged as if received on another port ([`IngressAs`]): one of the switch's own, with its
//! VLAN rules, its guards and its place in learning; or one made for this purpose, which is a member of one VLAN,
//! tagged or not, and learns nothing. So a source that is injected by VLAN never moves the entry of a real port; frames
//! to it are flooded, and a mirror destination gets none of them.
//!
//! **Who uses it.** [`crate::tables::PortRules::inject`] holds the gate, and [`crate::forward::Ingress`] asks it. The
//! dataplane tells [`Injection::echoes`] of every copy before it sends it. The gate is shared by all workers and
//! outlives tables.
//!
//! **Invariant.** Nothing here reads a clock: times are nanoseconds of any clock that all callers share.

use crate::{DropReason, Mac, PortId, Vid};

mod allowance;
mod echo;
mod record;

use allowance::Allowance;
pub use allowance::{MAX_RATE_FPS, MIN_RATE_FPS};
pub use echo::{ECHO_NS, ECHO_SLOTS, Echoes};
pub use record::{GarbledGate, GateRecord};

/// The rate if none is named, frames per second.
pub const DEFAULT_RATE_FPS: u32 = 10_000;

/// The ingress port whose rules apply to an injected frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressAs {
    /// A virtual port in this VLAN, which takes frames untagged or tagged with it.
    Vlan(Vid),
    /// A port of the switch.
    Port(PortId),
}

/// The frames that a destination may inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectSpec {
    /// The ingress of its frames.
    pub ingress: IngressAs,
    /// How many, frames per second.
    pub rate_fps: u32,
    /// The source addresses that may occur; empty: any.
    pub sources: Vec<Mac>,
}

/// The gate of one mirror destination; see the module.
#[derive(Debug)]
pub struct Injection {
    spec: InjectSpec,
    allowance: Allowance,
    echoes: Echoes,
}

impl Injection {
    /// A gate that has seen nothing. Senders of frames should not be able to guess `seed`.
    pub fn new(spec: InjectSpec, seed: u64) -> Injection {
        let allowance = Allowance::new(spec.rate_fps);
        Injection { spec, allowance, echoes: Echoes::new(seed) }
    }

    /// The configuration.
    pub fn spec(&self) -> &InjectSpec {
        &self.spec
    }

    /// The copies that were sent to the destination.
    pub fn echoes(&self) -> &Echoes {
        &self.echoes
    }

    /// Checks that the frame that begins with `snapshot` (see [`crate::header::SNAPSHOT_BYTES`]) and has `frame_bytes`
    /// may enter. If `dry`, no allowance is used up.
    ///
    /// # Errors
    /// Why not: [`DropReason::MirrorLoop`], [`DropReason::InjectSource`] or [`DropReason::InjectRate`].
    pub fn admit(&self, snapshot: &[u8], frame_bytes: u32, now_ns: u64, dry: bool) -> Result<(), DropReason> {
        if self.echoes.is_echo(snapshot, frame_bytes, now_ns) {
            return Err(DropReason::MirrorLoop);
        }
        // A frame without a source is a runt, which is for the port it is judged as to say.
        if let Some(source) = snapshot.get(6..).and_then(|rest| rest.first_chunk())
            && !self.spec.sources.is_empty()
            && !self.spec.sources.contains(&Mac::new(*source))
        {
            return Err(DropReason::InjectSource);
        }
        if self.allowance.take(now_ns, dry) { Ok(()) } else { Err(DropReason::InjectRate) }
    }
}

#[cfg(test)]
mod tests;
