//! What mirror destinations have beside their ports: the gate for what they inject, and the backlog of their copies.
//!
//! Both outlive tables and replaced mirrors, so that a rate is met and copies that come back are known whatever changes
//! meanwhile. A gate goes when no mirror to the port says the same any more; the backlog when the port's transmit side
//! does.

use std::hash::RandomState;
use std::sync::Arc;

use labsw_dataplane::mirror::MirrorTx;
use labsw_dataplane::port::TxPort;
use labsw_switch::inject::{IngressAs, InjectSpec, Injection};

use super::Switch;
use crate::config::{InjectConfig, InjectEntry};

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

impl Switch {
    /// Gives every mirror destination what it needs, and takes it from ports that are none any more.
    pub(super) fn set_destinations(&mut self) {
        let destinations: Vec<(String, bool, Option<InjectSpec>)> = {
            let mirrors = || self.mirrors.values().map(|mirror| &mirror.config);
            let of = |name: &String| {
                let injects =
                    mirrors().filter(|mirror| mirror.to.port() == Some(name)).find_map(|mirror| mirror.inject.as_ref());
                let is_destination = mirrors().any(|mirror| mirror.to.port() == Some(name));
                (name.clone(), is_destination, injects.and_then(|inject| self.inject_spec(inject)))
            };
            self.ports.keys().map(of).collect()
        };
        // Only frames that some port takes in can be copied.
        let largest = self.ports.values().map(|port| port.config.mtu).max().unwrap_or(0);
        for (name, is_destination, spec) in destinations {
            let Some(port) = self.ports.get_mut(&name) else { continue };
            let mtu = port.config.mtu;
            let Destination { gate, tx } = &mut port.destination;
            if gate.as_ref().map(|gate| gate.spec()) != spec.as_ref() {
                *gate = spec.map(|spec| Arc::new(Injection::new(spec, RandomState::new())));
            }
            *tx = match port.tx.as_ref().filter(|_| is_destination) {
                None => None,
                Some(port) => {
                    let kept = tx.take().filter(|tx| tx.is_of(port, gate.as_ref()));
                    let tx = kept.unwrap_or_else(|| Arc::new(MirrorTx::new(Arc::clone(port), gate.clone())));
                    let limit = (largest > mtu).then_some(mtu + HEADER_AND_TAG_BYTES);
                    if tx.set_limit(limit) && limit.is_some() {
                        tracing::warn!(
                            port = name,
                            mtu,
                            "mirrors send to it, and other ports have an mtu of up to {largest}: longer copies are dropped \
                             and counted (oversize); set its mtu to {largest} if its device can"
                        );
                    }
                    Some(tx)
                }
            };
        }
    }

    fn inject_spec(&self, inject: &InjectConfig) -> Option<InjectSpec> {
        let entry = match &inject.entry {
            InjectEntry::Vlan(vid) => IngressAs::Vlan(*vid),
            InjectEntry::Port(name) => IngressAs::Port(self.ports.get(name)?.id),
        };
        Some(InjectSpec { ingress: entry, rate_fps: inject.rate_fps, sources: inject.sources.clone() })
    }
}
