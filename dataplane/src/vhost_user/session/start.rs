//! Starts and stops the rings: as soon as everything that they need is known, and around each change of it.
//!
//! **Invariant.** A ring runs on the size, addresses, memory, features and log that the session holds. Code that
//! changes one of them stops the ring before and starts it after, with everything checked again, or tells the ring (its
//! log, its interrupt).

use std::sync::Arc;

use vhost::vhost_user::message::FrontendReq;

use super::{Doorbell, Session};
use crate::reaper::PeerFd;
use crate::vhost_user::operation::{Rings, VhostOp, VhostReply};
use crate::vhost_user::request::{DOORBELL_RING, SessionError, eventfd, region_info};
use crate::virtio::features::{F_LOG_ALL, F_RING_PACKED};
use crate::virtio::memory::{GuestMemory, MAX_REGIONS, MemoryError, Region};
use crate::virtio::{Ring, RingAddresses, RingLayout, RingSetup};

impl Session {
    /// SET_MEM_TABLE: `counts` is the number of regions and padding.
    pub(super) fn set_memory(
        &mut self,
        counts: u64,
        regions: &[u64],
        fds: Vec<PeerFd>,
        rings: &mut dyn Rings,
    ) -> Result<(), SessionError> {
        let request = FrontendReq::SET_MEM_TABLE;
        let count = usize::try_from(counts & 0xffff_ffff).unwrap_or(usize::MAX);
        if count != regions.len() / 4 || !regions.len().is_multiple_of(4) {
            return Err(SessionError::PayloadSize { request, bytes: 8 + 8 * regions.len() });
        }
        if count != fds.len() {
            return Err(SessionError::Descriptors { request, count: fds.len(), expected: count });
        }
        if count == 0 {
            return Err(SessionError::NoRegions);
        }
        if count > MAX_REGIONS {
            return Err(MemoryError::TooMany { count }.into());
        }
        // The regions of before go first: they do not count twice.
        self.stop_all(rings)?;
        self.memory = Arc::default();
        let (mut mapped, mut bytes) = (Vec::with_capacity(count), self.mapped_bytes());
        for (&words, file) in regions.as_chunks().0.iter().zip(fds) {
            let info = region_info(words);
            mapped.push(Arc::new(Region::map_within(&self.memory_limit, bytes, info, file)?));
            bytes = bytes.saturating_add(info.bytes);
        }
        self.change_memory(GuestMemory::new(mapped)?, rings)
    }

    /// SET_FEATURES. The driver cannot tell if pages are logged: that alone leaves the rings as they run.
    pub(super) fn set_features(&mut self, bits: u64, rings: &mut dyn Rings) -> Result<(), SessionError> {
        let changed = bits ^ self.features;
        if changed == 0 {
            return Ok(());
        }
        if changed != F_LOG_ALL {
            self.stop_all(rings)?;
        }
        self.features = bits;
        // Unmapped here, once no ring uses it.
        let ended = if changed & F_LOG_ALL == 0 || self.logs() { None } else { self.log.take() };
        self.log_anew(rings)?;
        drop(ended);
        Ok(())
    }

    /// SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR: `doorbell` is the ring's number and if an eventfd came along.
    pub(super) fn set_doorbell(
        &mut self,
        request: FrontendReq,
        doorbell: u64,
        fds: Vec<PeerFd>,
        rings: &mut dyn Rings,
    ) -> Result<(), SessionError> {
        let index = self.ring_index(request, doorbell & DOORBELL_RING)?;
        let fd = eventfd(request, doorbell, fds)?;
        match request {
            FrontendReq::SET_VRING_KICK => {
                self.stop(index, rings)?;
                self.ring(index, |ring| ring.kick = fd.map_or(Doorbell::Polled, Doorbell::Eventfd));
                self.start(index, rings)?;
            }
            FrontendReq::SET_VRING_CALL => {
                self.ring(index, |ring| ring.call.clone_from(&fd));
                if self.is_started(index) {
                    rings.operate(VhostOp::SetCall { index, call: fd })?;
                }
            }
            // The switch reports errors at its own control socket: the descriptor is closed.
            _ => {}
        }
        Ok(())
    }

    /// SET_VRING_ADDR. Addresses that stay leave the ring as it runs: only its log may change.
    pub(super) fn set_addresses(
        &mut self,
        index: u16,
        addresses: RingAddresses,
        log_address: Option<u64>,
        rings: &mut dyn Rings,
    ) -> Result<(), SessionError> {
        let same = self.rings.get(usize::from(index)).is_some_and(|ring| ring.addresses == Some(addresses));
        if !same {
            self.stop(index, rings)?;
        }
        self.ring(index, |ring| (ring.addresses, ring.log_address) = (Some(addresses), log_address));
        if self.is_started(index) { self.log_ring_anew(index, rings) } else { self.start(index, rings) }
    }

    /// Replaces the memory under all rings; those that ran go on at the same index.
    pub(super) fn change_memory(&mut self, memory: GuestMemory, rings: &mut dyn Rings) -> Result<(), SessionError> {
        self.stop_all(rings)?;
        self.memory = Arc::new(memory);
        let all: Vec<u16> = (0..self.rings.len()).filter_map(|index| u16::try_from(index).ok()).collect();
        self.start_all(&all, rings)
    }

    /// Starts a ring if all it needs is known.
    pub(super) fn start(&mut self, index: u16, rings: &mut dyn Rings) -> Result<(), SessionError> {
        let Some(ring) = self.rings.get(usize::from(index)) else { return Ok(()) };
        let kick = match &ring.kick {
            Doorbell::Unknown => return Ok(()),
            Doorbell::Polled => None,
            Doorbell::Eventfd(fd) => Some(Arc::clone(fd)),
        };
        let ready = self.has_memory() && !self.waits_for_log() && !ring.started;
        let (Some(size), Some(addresses), true) = (ring.size, ring.addresses, ready) else { return Ok(()) };
        let packed = self.features & F_RING_PACKED != 0;
        let resolve = if packed { RingLayout::resolve_packed } else { RingLayout::resolve };
        let layout = resolve(Arc::clone(&self.memory), size, addresses)
            .map_err(|source| SessionError::Ring { index, source })?;
        let position = Ring::resume_position(&layout);
        if position != ring.base {
            tracing::debug!(index, position, base = ring.base, "ring resumes where its own memory says it stands");
        }
        let log = self.ring_log(index, ring)?;
        let setup = Box::new(RingSetup { layout, features: self.features, kick, call: ring.call.clone(), log });
        let enabled = self.is_enabled(ring);
        rings.operate(VhostOp::StartRing { index, setup, enabled, connection: self.connection })?;
        self.ring(index, |ring| ring.started = true);
        Ok(())
    }

    /// Stops a ring if it is started, keeping all that is known of it.
    pub(super) fn stop(&mut self, index: u16, rings: &mut dyn Rings) -> Result<(), SessionError> {
        if self.is_started(index) {
            let reply = rings.operate(VhostOp::StopRing { index })?;
            self.ring(index, |ring| {
                ring.started = false;
                if let VhostReply::Stopped { base: Some(base) } = reply {
                    ring.base = base;
                }
            });
        }
        Ok(())
    }

    /// Stops all started rings and returns their numbers.
    pub(super) fn stop_all(&mut self, rings: &mut dyn Rings) -> Result<Vec<u16>, SessionError> {
        let running: Vec<u16> = (0..self.rings.len())
            .filter_map(|index| u16::try_from(index).ok())
            .filter(|&i| self.is_started(i))
            .collect();
        running.iter().try_for_each(|&index| self.stop(index, rings))?;
        Ok(running)
    }

    /// Starts those of these rings of which all that is needed is known.
    pub(in crate::vhost_user) fn start_all(
        &mut self,
        indices: &[u16],
        rings: &mut dyn Rings,
    ) -> Result<(), SessionError> {
        indices.iter().try_for_each(|&index| self.start(index, rings))
    }
}
