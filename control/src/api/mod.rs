//! The contract of the control socket: requests, replies and errors of the interface `org.labsw.Switch1`.
//!
//! **How it works.** The server turns each message into a [`Request`] (already validated: VLAN ids, MAC addresses,
//! mirror sources), passes it to the daemon's [`Handler`], and sends back its [`Reply`] or [`Error`]. The client does
//! the reverse, so both sides share these types and cannot disagree on a field name.
//!
//! **Invariants.** The field names are part of the outside contract. `org.labsw.Switch1.varlink` describes the same
//! interface for other Varlink libraries; a test compares the two.
//!
//! Reference: <https://varlink.org/Interface-Definition>.

mod capture;
mod change;
mod config;
mod error;
mod event;
mod feed;
mod guard;
mod impair;
mod inject;
mod inline;
mod mirror;
mod multicast;
mod parameters;
mod port;
mod reply;
mod request;
mod source;
mod trace;
mod vlan;

#[cfg(test)]
mod tests;

pub use crate::model::Inject;
pub use capture::{CapturePiece, CaptureSpec, DEFAULT_SNAPLEN, RunningCapture};
pub use change::Change;
pub use config::{
    AppliedConfig, ConfigAction, ConfigChange, ConfigKind, ConfigSetting, ConfigText, ShownConfig, Unconfirmed,
    WantedConfig,
};
pub use error::{Error, RefusedCode, Subject};
pub use event::{Event, EventKind, EventLevel, EventSetting, EventSubject, Events};
pub use feed::Feed;
pub use guard::{Guards, Storm};
pub use impair::{Impairment, PortDirection};
pub use inject::{InjectFrame, Injected};
pub use inline::{Inline, InlineSettings, InlineState, Inlines, OneInline};
pub use mirror::{Mirror, MirrorSettings, MirrorState};
pub use multicast::{
    Multicast, MulticastFamily, MulticastGroup, MulticastPort, MulticastRouters, MulticastState, MulticastTotals,
};
pub use port::{
    Counters, Flap, FrontEnd, Port, PortInline, PortRewind, PortRole, PortState, PortType, PutRight, XdpMode,
};
pub use reply::{
    Awaited, Captures, Changes, Done, FdbEntries, FdbEntry, Impairments, Mirrors, OneMirror, OnePort, PortStats, Ports,
    Removed, Reply, Stats, Status, UnexpectedReply, Vlans, Worker, WorkerQueue, Workers,
};
pub use request::Request;
pub use source::{Direction, InvalidSource, Source};
pub use trace::{
    InvalidFrame, MAX_TRACED_BYTES, Trace, TraceOutcome, TraceStage, TraceStep, TraceVerdict, frame_text, parse_frame,
};
pub use vlan::{InvalidVlanId, Vlan, VlanMember, VlanRow, parse_vlan_id};

/// The name of the interface.
pub const INTERFACE: &str = "org.labsw.Switch1";

/// The description of the interface, as clients get it from `org.varlink.service.GetInterfaceDescription`.
pub const DESCRIPTION: &str = include_str!("../../org.labsw.Switch1.varlink");

/// The name of the interface that every Varlink service has.
pub const SERVICE_INTERFACE: &str = "org.varlink.service";

/// The process at the other end of a connection, as the kernel knows it (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User id of the peer when it connected.
    pub uid: u32,
    /// Primary group id of the peer when it connected.
    pub gid: u32,
    /// Process id of the peer when it connected; 0 if it is in another pid namespace.
    pub pid: i32,
    may_change: bool,
}

impl Peer {
    /// A peer that may, or may not, change the switch.
    pub fn new(uid: u32, gid: u32, pid: i32, may_change: bool) -> Peer {
        Peer { uid, gid, pid, may_change }
    }

    /// True if this peer may change the switch; otherwise it may only read.
    pub fn may_change(&self) -> bool {
        self.may_change
    }
}

/// Answers requests; implemented by the daemon.
pub trait Handler {
    /// Answers one request, without blocking. Only peers that may change the switch get this far with a change.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that does not exist, [`Error::Refused`] for a request that the switch will not
    /// carry out; the switch is then as it was before.
    fn call(&mut self, peer: &Peer, request: Request) -> Result<Reply, Error>;

    /// True if a request takes longer than an answer may: somebody else carries it out, and tells the server the
    /// answer later ([`Server::answer`](crate::varlink::Server::answer)).
    fn defers(&self, request: &Request) -> bool {
        let _ = request;
        false
    }

    /// Begins a capture, for a peer that may change the switch. The capture ends when the returned feed is dropped.
    ///
    /// # Errors
    /// The same as for [`Handler::call`].
    fn capture(&mut self, _peer: &Peer, spec: CaptureSpec) -> Result<Box<dyn Feed>, Error> {
        let _ = spec;
        Err(Error::MethodNotImplemented { method: format!("{INTERFACE}.Capture") })
    }

    /// Goes on with a stream that another process has [handed over](Feed::hand_over).
    ///
    /// # Errors
    /// The state is garbled, or the switch can't carry it out.
    fn go_on(&mut self, _peer: &Peer, state: serde_json::Value) -> Result<Box<dyn Feed>, Error> {
        let _ = state;
        Err(Error::MethodNotImplemented { method: format!("{INTERFACE}.Capture") })
    }

    /// Begins to tell events, at first the `last` ones that have happened.
    ///
    /// # Errors
    /// Those of [`Handler::call`].
    fn monitor(&mut self, last: u64) -> Result<Box<dyn Feed>, Error> {
        let _ = last;
        Err(Error::MethodNotImplemented { method: format!("{INTERFACE}.Monitor") })
    }
}
