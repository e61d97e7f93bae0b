//! Copies of a mirror that go to another machine: wrapped as ERSPAN type II or VXLAN, in IPv4 or IPv6.
//!
//! **How it works.** A [`Remote`] belongs to a mirror destination. [`Remote::head`] makes the headers that stand before
//! a copy. They are sent to the MAC address of the next hop, which is given, or which the switch asks for by ARP or
//! neighbour discovery; the switch answers for the source address, too. [`neighbour`] reads and writes these messages.
//! Nothing else is answered: no ping, no other address.
//!
//! The caller brings frames and time: [`Remote::hear`] takes a message that arrived at the port, [`Remote::message`]
//! gives the next one to send.
//!
//! **Bounds.** One question a second ([`ASK_NS`]), or every [`REFRESH_NS`] once the next hop is known; ten answers a
//! second ([`ANSWER_NS`]), and [`ANSWERS`] that wait. A next hop that has not been heard for [`FORGET_NS`] is unknown
//! again.
//!
//! References: RFC 7348 (VXLAN); draft-foschiano-erspan-03, 4.2 (ERSPAN type II), RFC 2784 and 2890 (GRE with sequence
//! numbers); RFC 826 (ARP); RFC 4861 (neighbour discovery); RFC 6935 (UDP checksums of tunnels over IPv6).

mod head;
mod neighbour;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Mac, Vid};

pub use head::{HEAD_BYTES, Head};
pub use neighbour::Message;

/// From one question for the next hop to the next while there is no answer, ns.
pub const ASK_NS: u64 = 1_000_000_000;
/// From one question to the next while the next hop answers, ns.
pub const REFRESH_NS: u64 = 20_000_000_000;
/// After so long without an answer the next hop is unknown, ns.
pub const FORGET_NS: u64 = 60_000_000_000;
/// From one answer for the source address to the next at the soonest, ns.
pub const ANSWER_NS: u64 = 100_000_000;
/// Answers that wait until they are sent.
pub const ANSWERS: usize = 4;

/// The form of the wrapped copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// ERSPAN type II, with this session id (10 bits).
    Erspan(u16),
    /// VXLAN, with this network identifier (24 bits).
    Vxlan(u32),
}

impl Tunnel {
    /// Bytes of the headers between IP and the copy.
    fn header_bytes(self) -> u32 {
        match self {
            // GRE with a sequence number, ERSPAN.
            Tunnel::Erspan(_) => 8 + 8,
            // UDP, VXLAN.
            Tunnel::Vxlan(_) => 8 + 8,
        }
    }
}

/// The next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The station with this MAC address.
    Station(Mac),
    /// The station with this IP address, which is asked for its MAC address.
    Address(IpAddr),
}

/// Where the copies of a mirror destination go, and how. The addresses are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSpec {
    /// The form of the copies.
    pub tunnel: Tunnel,
    /// The MAC address that they come from.
    pub mac: Mac,
    /// The VLAN tag of the packets; `None`: untagged.
    pub vlan: Option<Vid>,
    /// The IP address that they come from.
    pub source: IpAddr,
    /// The IP address that they go to.
    pub destination: IpAddr,
    /// The next hop on the way there.
    pub next_hop: NextHop,
    /// Copies lose their outer VLAN tag.
    pub strip_tag: bool,
}

impl RemoteSpec {
    /// Bytes of a packet before the copy, from the IP header on: those that count for an MTU.
    pub fn overhead_bytes(&self) -> u32 {
        let ip = if self.source.is_ipv4() { 20 } else { 40 };
        ip + self.tunnel.header_bytes()
    }
}

/// The remote end of a mirror destination; see the module.
#[derive(Debug)]
pub struct Remote {
    spec: RemoteSpec,
    /// The next sequence number.
    sequence: AtomicU32,
    /// The MAC address of the next hop; 0: unknown.
    station: AtomicU64,
    /// When the next hop was last heard, ns.
    heard_ns: AtomicU64,
    /// When the next question is due, ns.
    ask_ns: AtomicU64,
    answers: Mutex<Answers>,
    /// Some answer waits.
    is_waiting: AtomicBool,
}

/// Answers that wait to be sent.
#[derive(Debug, Default)]
struct Answers {
    waiting: VecDeque<Message>,
    /// No answer is made before this time, ns.
    next_ns: u64,
}

impl Remote {
    /// A remote end with which nothing was exchanged yet.
    pub fn new(spec: RemoteSpec) -> Remote {
        let station = match spec.next_hop {
            NextHop::Station(mac) => mac.to_u64(),
            NextHop::Address(_) => 0,
        };
        Remote {
            spec,
            sequence: AtomicU32::new(0),
            station: AtomicU64::new(station),
            heard_ns: AtomicU64::new(0),
            ask_ns: AtomicU64::new(0),
            answers: Mutex::default(),
            is_waiting: AtomicBool::new(false),
        }
    }

    /// Where the copies go.
    pub fn spec(&self) -> &RemoteSpec {
        &self.spec
    }

    /// The MAC address of the next hop, if it is known.
    #[inline]
    pub fn station(&self) -> Option<Mac> {
        match self.station.load(Ordering::Relaxed) {
            0 => None,
            mac => Some(Mac::from_u64(mac)),
        }
    }

    /// The headers of the next packet, which goes to `station` and holds `copy`. `is_cut`: the copy is the beginning of
    /// a longer frame. `tag` is the control information of the tag that the copy has, or had before it was stripped.
    pub fn head(&self, station: Mac, copy: &[u8], is_cut: bool, tag: Option<u16>) -> Head {
        // One that is counted twice over is as good as any.
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        Head::new(&self.spec, station, sequence, copy, is_cut, tag)
    }

    /// True if a frame may be a message between neighbours, for [`Remote::hear`]. `frame` may be its beginning.
    pub fn concerns(&self, frame: &[u8]) -> bool {
        neighbour::is_message(frame)
    }

    /// Takes a message that arrived at the port; others have no effect.
    pub fn hear(&self, frame: &[u8], now_ns: u64) {
        let RemoteSpec { source, next_hop, vlan, mac, .. } = &self.spec;
        let Some(heard) = neighbour::read(frame, *vlan) else { return };
        if let (NextHop::Address(address), Some((sender, station))) = (next_hop, heard.sender)
            && sender == *address
            && !station.is_group()
            && station.to_u64() != 0
        {
            self.station.store(station.to_u64(), Ordering::Relaxed);
            self.heard_ns.store(now_ns, Ordering::Relaxed);
        }
        if heard.asks_for == Some(*source) {
            let mut answers = self.answers();
            if answers.next_ns <= now_ns && answers.waiting.len() < ANSWERS {
                answers.next_ns = now_ns.saturating_add(ANSWER_NS);
                answers.waiting.push_back(neighbour::answer(&heard, *source, *mac, *vlan));
                self.is_waiting.store(true, Ordering::Release);
            }
        }
    }

    /// The next message to send: an answer, or a question that is due.
    pub fn message(&self, now_ns: u64) -> Option<Message> {
        if self.is_waiting.load(Ordering::Acquire) {
            let mut answers = self.answers();
            let next = answers.waiting.pop_front();
            self.is_waiting.store(!answers.waiting.is_empty(), Ordering::Release);
            if next.is_some() {
                return next;
            }
        }
        self.question(now_ns)
    }

    /// When there will be a message, ns; `u64::MAX`: not by itself.
    pub fn next_due(&self) -> u64 {
        match self.spec.next_hop {
            _ if self.is_waiting.load(Ordering::Acquire) => 0,
            NextHop::Station(_) => u64::MAX,
            NextHop::Address(_) => self.ask_ns.load(Ordering::Relaxed),
        }
    }

    /// The question for the next hop, if it is due. Of several workers one gets it.
    fn question(&self, now_ns: u64) -> Option<Message> {
        let NextHop::Address(address) = self.spec.next_hop else { return None };
        let due = self.ask_ns.load(Ordering::Relaxed);
        if due > now_ns {
            return None;
        }
        let silent_ns = now_ns.saturating_sub(self.heard_ns.load(Ordering::Relaxed));
        let known = self.station();
        if known.is_some() && silent_ns >= FORGET_NS {
            self.station.store(0, Ordering::Relaxed);
        }
        // An answer that is due is missed: ask again soon.
        let wait = if known.is_some() && silent_ns < REFRESH_NS { REFRESH_NS } else { ASK_NS };
        let mine = self.ask_ns.compare_exchange(due, now_ns.saturating_add(wait), Ordering::Relaxed, Ordering::Relaxed);
        mine.ok()?;
        let RemoteSpec { source, mac, vlan, .. } = &self.spec;
        neighbour::question(address, *source, *mac, *vlan)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
