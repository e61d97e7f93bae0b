//! A session that goes on in another process: its state as data, and the descriptors that belong to it.
//!
//! **How it works.** [`Session::hand_over`] writes down the settings that the front end has told; the rings run on. In
//! the other process [`Session::adopt`] checks all of them as if the front end sent them now, maps the memory, and
//! starts nothing. When the rings are not served any more, [`Session::start_all`] starts those that ran: each resumes
//! at the position in its own memory, so no index is handed over.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost::vhost_user::message::VhostUserProtocolFeatures;

use super::{Doorbell, RingState, Session};
use crate::handover::{Given, HandoverError, Slot, Taken};
use crate::reaper::{Account, PeerFd};
use crate::vhost_user::features::PROTOCOL_FEATURES;
use crate::vhost_user::operation::{Rings, VhostOp};
use crate::vhost_user::request::SessionError;
use crate::virtio::RingAddresses;
use crate::virtio::dirty_log::DirtyLog;
use crate::virtio::memory::{GuestMemory, MAX_REGIONS, MemoryError, Region, RegionInfo};

/// The settings that a front end has told so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SessionHandover {
    pub(super) features: u64,
    pub(super) protocol_features: u64,
    pub(super) mtu_asked: Option<u64>,
    pub(super) regions: Vec<RegionHandover>,
    /// The log of pages that the rings write.
    pub(super) log: Option<LogHandover>,
    pub(super) rings: Vec<RingHandover>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct RegionHandover {
    pub(super) guest_start: u64,
    pub(super) bytes: u64,
    pub(super) user_start: u64,
    pub(super) file_offset: u64,
    pub(super) file: Slot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct LogHandover {
    pub(super) bytes: u64,
    pub(super) offset: u64,
    pub(super) file: Slot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct RingHandover {
    pub(super) size: Option<u32>,
    /// Addresses of descriptors, available ring, used ring.
    pub(super) addresses: Option<[u64; 3]>,
    pub(super) log_address: Option<u64>,
    pub(super) base: u32,
    pub(super) kick: KickHandover,
    pub(super) call: Option<Slot>,
    pub(super) enabled: Option<bool>,
    pub(super) started: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(super) enum KickHandover {
    Unknown,
    Polled,
    Eventfd(Slot),
}

impl Session {
    /// The state of the session, with its descriptors in `given`.
    pub(in crate::vhost_user) fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> SessionHandover {
        let regions = self.memory.regions().map(|region| {
            let RegionInfo { guest_start, bytes, user_start, file_offset } = region.info();
            let file = given.put(region.file());
            RegionHandover { guest_start, bytes, user_start, file_offset, file }
        });
        let regions = regions.collect();
        let log = self.log.as_ref();
        let log = log.map(|log| LogHandover { bytes: log.bytes(), offset: log.offset(), file: given.put(log.file()) });
        let rings = self.rings.iter().map(|ring| RingHandover {
            size: ring.size,
            log_address: ring.log_address,
            addresses: ring.addresses.map(|at| [at.descriptors, at.available, at.used]),
            base: ring.base,
            kick: match &ring.kick {
                Doorbell::Unknown => KickHandover::Unknown,
                Doorbell::Polled => KickHandover::Polled,
                Doorbell::Eventfd(fd) => KickHandover::Eventfd(given.put(fd.as_fd())),
            },
            call: ring.call.as_ref().map(|fd| given.put(fd.as_fd())),
            enabled: ring.enabled,
            started: ring.started,
        });
        SessionHandover {
            features: self.features,
            protocol_features: self.protocol_features.bits(),
            mtu_asked: self.mtu_asked,
            regions,
            log,
            rings: rings.collect(),
        }
    }

    /// Takes over the settings that a front end told another process; returns the rings that ran. Descriptors are
    /// charged to `account`.
    ///
    /// # Errors
    /// The state does not fit this port or this version, or its memory can't be mapped.
    pub(in crate::vhost_user) fn adopt(
        &mut self,
        handover: &SessionHandover,
        taken: &mut Taken,
        account: &Account,
    ) -> Result<Vec<u16>, HandoverError> {
        let unknown = handover.features & !self.offered();
        if unknown != 0 {
            let reason = format!("its front end uses the features {unknown:#x}, which this version does not offer");
            return Err(HandoverError::new(reason));
        }
        let unknown = handover.protocol_features & !PROTOCOL_FEATURES.bits();
        if unknown != 0 {
            let reason = format!("its front end uses the protocol features {unknown:#x}, which this version lacks");
            return Err(HandoverError::new(reason));
        }
        if handover.rings.len() != self.rings.len() {
            let (theirs, own) = (handover.rings.len(), self.rings.len());
            return Err(HandoverError::new(format!("it was handed over with {theirs} rings, and has {own}")));
        }
        self.memory = Arc::new(self.map(&handover.regions, taken, account).map_err(HandoverError::new)?);
        if let Some(&LogHandover { bytes, offset, file }) = handover.log.as_ref() {
            let file = PeerFd::new(taken.take(file)?, account);
            let log = DirtyLog::map(&self.memory_limit, self.memory.bytes(), bytes, offset, file);
            self.log = Some(Arc::new(log.map_err(HandoverError::new)?));
        }
        self.features = handover.features;
        self.protocol_features = VhostUserProtocolFeatures::from_bits_truncate(handover.protocol_features);
        self.mtu_asked = handover.mtu_asked;
        let rings = handover.rings.iter().map(|ring| ring_state(ring, taken));
        self.rings = rings.collect::<Result<_, _>>()?;
        let started = (0u16..).zip(&handover.rings).filter(|(_, ring)| ring.started);
        Ok(started.map(|(index, _)| index).collect())
    }

    /// Interrupts the guest for each of its rings that is started.
    pub(in crate::vhost_user) fn interrupt_all(&self, rings: &mut dyn Rings) -> Result<(), SessionError> {
        let started = (0u16..).zip(&self.rings).filter(|(_, ring)| ring.started);
        started.map(|(index, _)| rings.operate(VhostOp::Interrupt { index })).try_for_each(|outcome| {
            outcome?;
            Ok(())
        })
    }

    fn map(&self, regions: &[RegionHandover], taken: &mut Taken, account: &Account) -> Result<GuestMemory, MapError> {
        if regions.len() > MAX_REGIONS {
            return Err(MemoryError::TooMany { count: regions.len() }.into());
        }
        let (mut mapped, mut others) = (Vec::with_capacity(regions.len()), 0u64);
        for region in regions {
            let &RegionHandover { guest_start, bytes, user_start, file_offset, file } = region;
            let info = RegionInfo { guest_start, bytes, user_start, file_offset };
            let file = PeerFd::new(taken.take(file)?, account);
            mapped.push(Arc::new(Region::map_within(&self.memory_limit, others, info, file)?));
            others = others.saturating_add(bytes);
        }
        Ok(GuestMemory::new(mapped)?)
    }
}

/// Why regions can't be mapped.
#[derive(Debug, thiserror::Error)]
enum MapError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

fn ring_state(ring: &RingHandover, taken: &mut Taken) -> Result<RingState, HandoverError> {
    Ok(RingState {
        size: ring.size,
        log_address: ring.log_address,
        addresses: ring.addresses.map(|[descriptors, available, used]| RingAddresses { descriptors, available, used }),
        base: ring.base,
        kick: match ring.kick {
            KickHandover::Unknown => Doorbell::Unknown,
            KickHandover::Polled => Doorbell::Polled,
            KickHandover::Eventfd(slot) => Doorbell::Eventfd(Arc::new(taken.take(slot)?)),
        },
        call: ring.call.map(|slot| taken.take(slot).map(Arc::new)).transpose()?,
        enabled: ring.enabled,
        started: false,
    })
}
