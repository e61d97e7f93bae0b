//! What mirror destinations have beside their ports: the gate for what they inject, and the backlog of their copies.
//!
//! Both outlive tables and replaced mirrors, so that a rate is met and copies that come back are known whatever changes
//! meanwhile. A gate goes when no mirror to the port says the same any more; the backlog when the port's transmit side
//! does.

use std::hash::RandomState;
use std::sync::Arc;

use labsw_dataplane::mirror::MirrorTx;
use labsw_dataplane::port::TxPort;
use labsw_switch::inject::{InjectSpec, Injection};

use crate::config::PortConfig;

/// An Ethernet header and a VLAN tag: devices take so many bytes beside their MTU.
const HEADER_AND_TAG_BYTES: u32 = 18;

/// Of one port.
#[derive(Default)]
pub(super) struct Destination {
    pub(super) gate: Option<Arc<Injection>>,
    tx: Option<Arc<MirrorTx>>,
}

impl Destination {
    /// The copies that wait for room at the port, as another process takes them over.
    pub(super) fn backlog(&self) -> Vec<(usize, Vec<u8>)> {
        self.tx.as_ref().map(|tx| tx.kept()).unwrap_or_default()
    }

    /// Goes on with the copies that waited in another process; returns for how many there was no room.
    pub(super) fn keep_on(&self, frames: impl Iterator<Item = (usize, Vec<u8>)>) -> usize {
        match &self.tx {
            Some(tx) => tx.keep_on(frames, labsw_dataplane::clock::now_ns()),
            None => frames.count(),
        }
    }

    /// What the workers send by: the backlog, or else the port itself.
    pub(super) fn before(&self, port: Option<&Arc<dyn TxPort>>) -> Option<Arc<dyn TxPort>> {
        match &self.tx {
            Some(tx) => Some(Arc::clone(tx) as Arc<dyn TxPort>),
            None => port.cloned(),
        }
    }
}

/// What a destination is to have.
pub(super) struct Wanted {
    /// What it may inject.
    pub(super) inject: Option<InjectSpec>,
}

impl Destination {
    /// Gives the port what it needs as a destination, or takes that from one that is none any more. `largest_mtu` is
    /// that of all ports.
    pub(super) fn follow(
        &mut self,
        config: &PortConfig,
        tx: Option<&Arc<dyn TxPort>>,
        wanted: Option<Wanted>,
        largest_mtu: u32,
    ) {
        let is_destination = wanted.is_some();
        let inject = wanted.and_then(|wanted| wanted.inject);
        if self.gate.as_ref().map(|gate| gate.spec()) != inject.as_ref() {
            self.gate = inject.map(|spec| Arc::new(Injection::new(spec, RandomState::new())));
        }
        let Some(port) = tx.filter(|_| is_destination) else {
            self.tx = None;
            return;
        };
        let kept = self.tx.take().filter(|tx| tx.is_of(port, self.gate.as_ref()));
        let tx = kept.unwrap_or_else(|| Arc::new(MirrorTx::new(Arc::clone(port), self.gate.clone())));
        let mtu = config.mtu;
        let limit = (largest_mtu > mtu).then_some(mtu + HEADER_AND_TAG_BYTES);
        if tx.set_limit(limit) && limit.is_some() {
            tracing::warn!(
                port = config.name,
                mtu,
                "mirrors send to it, and other ports have an mtu of up to {largest_mtu}: longer copies are dropped and \
                 counted (oversize); set its mtu to {largest_mtu} if its device can"
            );
        }
        self.tx = Some(tx);
    }
}
