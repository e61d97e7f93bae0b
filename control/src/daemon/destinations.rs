//! The parts that a port gets as a mirror destination: the gate for injected frames, and the backlog of copies.
//!
//! Both outlive tables and replaced mirrors, so that a rate holds and returning copies are recognised across changes.
//! The gate goes when no mirror to the port has the same `inject` settings any more; the backlog goes with the port's
//! transmit side.

use std::sync::Arc;

use labsw_dataplane::clock::now_ns;
use labsw_dataplane::handover::HandoverError;
use labsw_dataplane::mirror::MirrorTx;
use labsw_dataplane::port::TxPort;
use labsw_switch::inject::{InjectSpec, Injection};

use super::seed::random_seed;
use crate::config::PortConfig;
use crate::takeover::impairment::{DelayedFrames, InjectRecord};

/// An Ethernet header and a VLAN tag, in bytes: devices take this much beside their MTU.
const HEADER_AND_TAG_BYTES: u32 = 18;

/// The mirror destination parts of one port.
#[derive(Default)]
pub(super) struct Destination {
    pub(super) gate: Option<Arc<Injection>>,
    tx: Option<Arc<MirrorTx>>,
}

impl Destination {
    /// The copies that wait for room at the port, for another process to take over.
    pub(super) fn backlog(&self) -> Vec<(usize, Vec<u8>)> {
        self.tx.as_ref().map(|tx| tx.kept()).unwrap_or_default()
    }

    /// Goes on with copies that waited in another process; returns the number that found no room.
    pub(super) fn keep_on(&self, frames: impl Iterator<Item = (usize, Vec<u8>)>) -> usize {
        match &self.tx {
            Some(tx) => tx.keep_on(frames, now_ns()),
            None => frames.count(),
        }
    }

    /// The gate, for another process to go on with. The workers stand still.
    pub(super) fn gate_record(&self, file: &mut DelayedFrames) -> Option<InjectRecord> {
        let (gate, copies) = self.gate.as_ref()?.record(now_ns());
        Some(InjectRecord { gate, copies: file.put(&copies) })
    }

    /// Goes on where the gate of another process stood.
    pub(super) fn go_on(&self, record: &InjectRecord, file: &DelayedFrames) -> Result<(), HandoverError> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let copies = file.bytes(record.copies).ok_or_else(|| HandoverError::new("the copies of a gate are missing"))?;
        gate.go_on(&record.gate, copies).map_err(HandoverError::new)
    }

    /// The transmit side that the workers use: the backlog if there is one, otherwise the port itself.
    pub(super) fn before(&self, port: Option<&Arc<dyn TxPort>>) -> Option<Arc<dyn TxPort>> {
        match &self.tx {
            Some(tx) => Some(Arc::clone(tx) as Arc<dyn TxPort>),
            None => port.cloned(),
        }
    }
}

/// The parts that a destination should have.
pub(super) struct Wanted {
    /// The frames that the port may inject.
    pub(super) inject: Option<InjectSpec>,
}

impl Destination {
    /// Gives the port the parts that it needs as a destination, or takes them from a port that is no destination any
    /// more. `largest_mtu` is the largest MTU of all ports.
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
            self.gate = inject.map(|spec| Arc::new(Injection::new(spec, random_seed())));
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
