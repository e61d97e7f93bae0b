//! The vhost-user session: the effect of each request of the front end on the rings. It knows no socket.
//!
//! **How it works.** [`Session::handle`] takes one whole request with its descriptors, changes the state, has rings
//! started and stopped through [`Rings`], and returns the reply that is due. A ring starts as soon as its size,
//! addresses and doorbell and the memory are known, without waiting for a kick; it stops on GET_VRING_BASE. The front
//! end tells its guest an MTU by itself and asks whether the back end has the same (NET_SET_MTU); another MTU is
//! answered with failure, which front ends take as a reason to leave the rings alone. A change under a running ring
//! (memory, size, addresses, features, doorbell) stops the ring and restarts it with everything checked again. QEMU
//! enables rings long before they exist and does not repeat that, so the state remembers it.
//!
//! **Invariants.**
//! - Nothing is offered that is not wholly implemented, and the offer is the same in every run of the switch.
//! - Payload size and number of descriptors are checked exactly; any error ends the session, and dropping
//!   the session closes every descriptor it was given.
//! - A ring is started only on addresses that were resolved in the memory that its worker keeps alive (`start`), and
//!   while the front end logs pages only with a log that covers all of it (`log`).
//!
//! Reference: vhost-user.rst, "Communication", "Front-end message types".

mod handover;
mod log;
mod start;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};

use super::features::{F_PROTOCOL, FEATURES, OFFLOADS, PROTOCOL_FEATURES};
use super::message::{Reply, Request};
use super::operation::{Rings, RingsError, VhostOp};
use super::request::{SessionError, eventfd, is_served, one, region_info, within, words};
use crate::reaper::PeerFd;
use crate::virtio::RingAddresses;
use crate::virtio::dirty_log::DirtyLog;
use crate::virtio::features::F_MQ;
use crate::virtio::memory::{GuestMemory, MAX_REGIONS, Region};
use crate::virtio::memory_limit::MemoryLimit;

pub use handover::SessionHandover;

/// The most queue pairs a port can have: a doorbell message numbers rings in one byte.
pub const MAX_QUEUE_PAIRS: u16 = 128;

/// The smallest MTU that a device may have, bytes (virtio 1.2, 5.1.4.1).
const MTU_MIN: u64 = 68;

/// In the flags of SET_VRING_ADDR: the ring's own writes are logged.
const VRING_F_LOG: u32 = 1;
/// The number of the first queue pair's transmit ring.
const FIRST_TRANSMIT_RING: u16 = 1;

/// A ring's doorbell, as far as the front end has told it.
#[derive(Debug, Default)]
enum Doorbell {
    #[default]
    Unknown,
    Polled,
    Eventfd(Arc<OwnedFd>),
}

/// The settings of one ring, as far as the front end has told them.
#[derive(Debug, Default)]
struct RingState {
    size: Option<u32>,
    addresses: Option<RingAddresses>,
    /// The guest-physical address at which the ring's own writes are logged, if the front end wants that
    /// (VHOST_VRING_F_LOG).
    log_address: Option<u64>,
    /// The ring's position as the front end told it; after a stop, the actual one. 16 bits for a split ring, 32 for a
    /// packed one.
    base: u32,
    kick: Doorbell,
    call: Option<Arc<OwnedFd>>,
    enabled: Option<bool>,
    started: bool,
}

/// One ring, for status reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingStatus {
    /// Entries; 0: not told yet.
    pub size: u32,
    /// True if the ring is started.
    pub started: bool,
    /// True if frames pass once the ring is started.
    pub enabled: bool,
}

/// The state of one front end's connection.
#[derive(Debug)]
pub struct Session {
    /// The number of the connection, which the rings' faults carry.
    connection: u64,
    /// Offloads are offered.
    offloads: bool,
    features: u64,
    protocol_features: VhostUserProtocolFeatures,
    memory: Arc<GuestMemory>,
    memory_limit: Arc<MemoryLimit>,
    /// The log of pages that the rings write, once the front end has shared it; used only with VHOST_F_LOG_ALL.
    log: Option<Arc<DirtyLog>>,
    rings: Vec<RingState>,
    /// MTU of the port, bytes.
    mtu: u32,
    /// The MTU that the front end asked for last.
    mtu_asked: Option<u64>,
}

impl Session {
    /// A new session of a port with this number of queue pairs (1 to [`MAX_QUEUE_PAIRS`]) and this MTU in bytes;
    /// `offloads` is true if the port offers offloads.
    pub fn new(queue_pairs: u16, mtu: u32, offloads: bool) -> Session {
        let pairs = usize::from(queue_pairs.clamp(1, MAX_QUEUE_PAIRS));
        Session {
            connection: 0,
            offloads,
            features: 0,
            protocol_features: VhostUserProtocolFeatures::empty(),
            memory: Arc::default(),
            memory_limit: Arc::default(),
            log: None,
            rings: (0..2 * pairs).map(|_| RingState::default()).collect(),
            mtu,
            mtu_asked: None,
        }
    }

    /// The same session with a limit on the guest's memory.
    #[must_use]
    pub fn within(self, memory_limit: Arc<MemoryLimit>) -> Session {
        Session { memory_limit, ..self }
    }

    /// Begins with a new front end; `connection` is the number of its connection.
    pub fn begin(&mut self, connection: u64) {
        self.connection = connection;
    }

    /// Queue pairs of the port.
    pub fn queue_pairs(&self) -> usize {
        self.rings.len() / 2
    }

    /// The feature bits offered to every front end.
    pub fn offered(&self) -> u64 {
        FEATURES | if self.queue_pairs() > 1 { F_MQ } else { 0 } | if self.offloads { OFFLOADS } else { 0 }
    }

    /// The feature bits acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.features
    }

    /// True if the front end has shared memory.
    pub fn has_memory(&self) -> bool {
        self.memory.region_count() > 0
    }

    /// Gives the port another MTU in bytes.
    pub fn set_mtu(&mut self, mtu: u32) {
        self.mtu = mtu;
    }

    /// Why the MTU that the front end last asked for is refused. A front end may have a smaller MTU than the port's.
    pub fn mtu_refused(&self) -> Option<String> {
        let own = self.mtu;
        match self.mtu_asked? {
            asked @ ..MTU_MIN => {
                Some(format!("the front end asks for an MTU of {asked} bytes, the least is {MTU_MIN} (QEMU: host_mtu)"))
            }
            asked if asked > u64::from(own) => Some(format!(
                "the front end asks for an MTU of {asked} bytes, the port has {own}: set mtu = {asked} at the port, or \
                 host_mtu={own} in QEMU"
            )),
            _ => None,
        }
    }

    /// True if both rings of at least one pair are started and enabled.
    pub fn is_up(&self) -> bool {
        self.rings.chunks(2).any(|pair| pair.iter().all(|ring| ring.started && self.is_enabled(ring)))
    }

    /// Regions of the guest's memory that are mapped.
    pub fn memory_regions(&self) -> usize {
        self.memory.region_count()
    }

    /// Each ring's state.
    pub fn ring_status(&self) -> Vec<RingStatus> {
        let status = |ring: &RingState| RingStatus {
            size: ring.size.unwrap_or(0),
            started: ring.started,
            enabled: self.is_enabled(ring),
        };
        self.rings.iter().map(status).collect()
    }

    /// True if a failed request is to be acknowledged before the connection is closed.
    pub fn acknowledges(&self, request: &Request) -> bool {
        request.need_reply && self.protocol_features.contains(VhostUserProtocolFeatures::REPLY_ACK)
    }

    /// Drops all rings and all state: the front end is gone.
    pub fn reset(&mut self, rings: &mut dyn Rings) -> Result<(), RingsError> {
        // The rings go first, so that the memory is unmapped here and not by the worker.
        let result = rings.operate(VhostOp::Reset);
        let queue_pairs = u16::try_from(self.queue_pairs()).unwrap_or(MAX_QUEUE_PAIRS);
        *self = Session::new(queue_pairs, self.mtu, self.offloads).within(Arc::clone(&self.memory_limit));
        result.map(|_| ())
    }

    /// Carries out a request and returns the reply that is due. After an error the session must be
    /// [`reset`](Session::reset) and the connection closed.
    pub fn handle(
        &mut self,
        request: &Request,
        fds: Vec<PeerFd>,
        rings: &mut dyn Rings,
    ) -> Result<Option<Reply>, SessionError> {
        let code =
            FrontendReq::try_from(request.code).map_err(|_| SessionError::UnknownRequest { code: request.code })?;
        let value = self.execute(code, &request.payload, fds, rings)?;
        let refused = code == FrontendReq::NET_SET_MTU && self.mtu_refused().is_some();
        let value = value.or_else(|| self.acknowledges(request).then_some(u64::from(refused)));
        Ok(value.map(|value| Reply { code: request.code, value }))
    }

    /// Carries out a request; returns the value of the reply, if the request asks for a value.
    fn execute(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        fds: Vec<PeerFd>,
        rings: &mut dyn Rings,
    ) -> Result<Option<u64>, SessionError> {
        use FrontendReq as Req;
        // All payloads of a network device consist of 64-bit words or of halves of them.
        let Some(words) = words(payload) else {
            return Err(SessionError::PayloadSize { request, bytes: payload.len() });
        };
        match (request, words.as_slice()) {
            (Req::SET_MEM_TABLE, [counts, regions @ ..]) => self.set_memory(*counts, regions, fds, rings)?,
            (Req::ADD_MEM_REG, &[_, a, b, c, d]) => {
                let (info, file) = (region_info([a, b, c, d]), one(request, fds)?);
                let region = Region::map_within(&self.memory_limit, self.mapped_bytes(), info, file)?;
                self.change_memory(self.memory.with(region)?, rings)?;
            }
            // Older QEMU attaches the region's descriptor here, too; it is closed.
            (Req::REM_MEM_REG, &[_, a, b, c, d]) => {
                let memory = self.memory.without(region_info([a, b, c, d]))?;
                self.change_memory(memory, rings)?;
            }
            (Req::SET_VRING_KICK | Req::SET_VRING_CALL | Req::SET_VRING_ERR, &[doorbell]) => {
                self.set_doorbell(request, doorbell, fds, rings)?;
            }
            (Req::SET_LOG_BASE, &[bytes, offset]) => {
                self.set_log(bytes, offset, one(request, fds)?, rings)?;
                // This request is answered with or without need_reply.
                return Ok(Some(0));
            }
            // The front end polls the log, so the eventfd is never signalled. The descriptor is checked and closed.
            (Req::SET_LOG_FD, []) => {
                eventfd(request, 0, fds)?;
            }
            (_, words) => {
                if !fds.is_empty() {
                    return Err(SessionError::Descriptors { request, count: fds.len(), expected: 0 });
                }
                return self.execute_plain(request, payload.len(), words, rings);
            }
        }
        Ok(None)
    }

    /// The requests that come without descriptors.
    fn execute_plain(
        &mut self,
        request: FrontendReq,
        bytes: usize,
        words: &[u64],
        rings: &mut dyn Rings,
    ) -> Result<Option<u64>, SessionError> {
        use FrontendReq as Req;
        match (request, words) {
            (Req::GET_FEATURES, []) => return Ok(Some(self.offered())),
            (Req::GET_PROTOCOL_FEATURES, []) => return Ok(Some(PROTOCOL_FEATURES.bits())),
            (Req::GET_QUEUE_NUM, []) => return Ok(Some(self.queue_pairs() as u64)),
            (Req::GET_MAX_MEM_SLOTS, []) => return Ok(Some(MAX_REGIONS as u64)),
            // RESET_OWNER is no longer used; the protocol recommends to ignore it.
            (Req::SET_OWNER | Req::RESET_OWNER, []) => {}
            (Req::SET_FEATURES, &[bits]) => {
                within(request, bits, self.offered())?;
                self.set_features(bits, rings)?;
            }
            (Req::SET_PROTOCOL_FEATURES, &[bits]) => {
                within(request, bits, PROTOCOL_FEATURES.bits())?;
                self.protocol_features = VhostUserProtocolFeatures::from_bits_truncate(bits);
            }
            (Req::NET_SET_MTU, &[mtu]) => self.mtu_asked = Some(mtu),
            (Req::SEND_RARP, &[mac]) => {
                let [mac @ .., _, _] = mac.to_ne_bytes();
                rings.operate(VhostOp::Announce { index: FIRST_TRANSMIT_RING, mac })?;
            }
            _ => return self.execute_on_ring(request, bytes, words, rings),
        }
        Ok(None)
    }

    /// The requests about one ring that come without descriptors.
    fn execute_on_ring(
        &mut self,
        request: FrontendReq,
        bytes: usize,
        words: &[u64],
        rings: &mut dyn Rings,
    ) -> Result<Option<u64>, SessionError> {
        use FrontendReq as Req;
        match (request, words) {
            (Req::SET_VRING_NUM, &[state]) => {
                let (index, size) = self.ring_state(request, state)?;
                self.stop(index, rings)?;
                self.ring(index, |ring| ring.size = Some(size));
                self.start(index, rings)?;
            }
            (Req::SET_VRING_BASE, &[state]) => {
                let (index, base) = self.ring_state(request, state)?;
                self.ring(index, |ring| ring.base = base);
            }
            (Req::SET_VRING_ADDR, &[state, descriptors, used, available, log]) => {
                let (index, flags) = self.ring_state(request, state)?;
                let log = (flags & VRING_F_LOG != 0).then_some(log);
                self.set_addresses(index, RingAddresses { descriptors, available, used }, log, rings)?;
            }
            (Req::GET_VRING_BASE, &[state]) => {
                let (index, _) = self.ring_state(request, state)?;
                self.stop(index, rings)?;
                let mut base = 0;
                self.ring(index, |ring| {
                    ring.kick = Doorbell::Unknown;
                    base = ring.base;
                });
                self.forget_log_at_rest();
                return Ok(Some(u64::from(index) | u64::from(base) << 32));
            }
            (Req::SET_VRING_ENABLE, &[state]) => {
                let (index, enable) = self.ring_state(request, state)?;
                let enabled = enable != 0;
                self.ring(index, |ring| ring.enabled = Some(enabled));
                if self.is_started(index) {
                    rings.operate(VhostOp::EnableRing { index, enabled })?;
                }
            }
            _ if is_served(request) => return Err(SessionError::PayloadSize { request, bytes }),
            _ => return Err(SessionError::NotOffered { request }),
        }
        Ok(None)
    }

    /// True if frames may pass. Without protocol features a ring need not be enabled (but some front ends do so).
    fn is_enabled(&self, ring: &RingState) -> bool {
        ring.enabled.unwrap_or(self.features & F_PROTOCOL == 0)
    }

    fn is_started(&self, index: u16) -> bool {
        self.rings.get(usize::from(index)).is_some_and(|ring| ring.started)
    }

    fn ring(&mut self, index: u16, change: impl FnOnce(&mut RingState)) {
        if let Some(ring) = self.rings.get_mut(usize::from(index)) {
            change(ring);
        }
    }

    /// Checks a ring number.
    fn ring_index(&self, request: FrontendReq, index: u64) -> Result<u16, SessionError> {
        u16::try_from(index)
            .ok()
            .filter(|&index| usize::from(index) < self.rings.len())
            .ok_or(SessionError::RingNumber { request, index, rings: self.rings.len() })
    }

    /// Splits a vring state (or the head of a vring address) into the checked ring number and the value.
    fn ring_state(&self, request: FrontendReq, word: u64) -> Result<(u16, u32), SessionError> {
        #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
        let value = (word >> 32) as u32;
        Ok((self.ring_index(request, word & 0xffff_ffff)?, value))
    }
}

#[cfg(test)]
mod tests;
