//! The parts that a port gets as a mirror destination: the gate for injected frames, the backlog of copies, and the
//! headers of copies that go to another machine.
//!
//! Both outlive tables and replaced mirrors, so that a rate holds and returning copies are recognised across changes.
//! The gate goes when no mirror to the port has the same `inject` settings any more; the backlog goes with the port's
//! transmit side.

use std::sync::Arc;

use labsw_dataplane::clock::now_ns;
use labsw_dataplane::handover::HandoverError;
use labsw_dataplane::mirror::{MirrorTx, RemoteTx};
use labsw_dataplane::port::TxPort;
use labsw_switch::inject::{InjectSpec, Injection};
use labsw_switch::remote::{Remote, RemoteSpec};

use super::seed::random_seed;
use crate::config::PortConfig;
use crate::takeover::impairment::{DelayedFrames, InjectRecord};

/// An Ethernet header and a VLAN tag, in bytes: devices take this much beside their MTU.
const HEADER_AND_TAG_BYTES: u32 = 18;

/// The mirror destination parts of one port.
#[derive(Default)]
pub(super) struct Destination {
    pub(super) gate: Option<Arc<Injection>>,
    /// The other machine that copies go to.
    pub(super) remote: Option<Arc<Remote>>,
    wrapping: Option<Arc<RemoteTx>>,
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
    /// The other machine that copies go to.
    pub(super) remote: Option<RemoteSpec>,
}

/// The longest copy that leaves by a port with this MTU, with Ethernet header and tag, bytes; to another machine if
/// there is a `remote`.
pub(super) fn longest_copy(mtu: u32, remote: Option<&RemoteSpec>) -> u32 {
    match remote {
        None => mtu.saturating_add(HEADER_AND_TAG_BYTES),
        Some(remote) => mtu.saturating_sub(remote.overhead_bytes()),
    }
}

/// Says that copies may be too long for a port with this MTU, if ports have an MTU of up to `largest_mtu`.
pub(super) fn warning(port: &str, mtu: u32, remote: Option<&RemoteSpec>, largest_mtu: u32) -> Option<String> {
    let (longest, most) = (longest_copy(mtu, remote), largest_mtu.saturating_add(HEADER_AND_TAG_BYTES));
    let enough = remote.map_or(largest_mtu, |remote| most.saturating_add(remote.overhead_bytes()));
    (longest < most).then(|| {
        format!(
            "copies of more than {longest} bytes are dropped (oversize): {port:?} has an mtu of {mtu}; set its mtu to \
             {enough} if its device can"
        )
    })
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
        let (inject, remote) = wanted.map_or((None, None), |wanted| (wanted.inject, wanted.remote));
        if self.remote.as_ref().map(|known| known.spec()) != remote.as_ref() {
            self.remote = remote.map(|spec| Arc::new(Remote::new(spec)));
        }
        if self.gate.as_ref().map(|gate| gate.spec()) != inject.as_ref() {
            self.gate = inject.map(|spec| Arc::new(Injection::new(spec, random_seed())));
        }
        let Some(port) = tx.filter(|_| is_destination) else {
            (self.tx, self.wrapping) = (None, None);
            return;
        };
        let port = &self.wrapped(port);
        let kept = self.tx.take().filter(|tx| tx.is_of(port, self.gate.as_ref()));
        let tx = kept.unwrap_or_else(|| Arc::new(MirrorTx::new(Arc::clone(port), self.gate.clone())));
        let spec = self.remote.as_ref().map(|remote| remote.spec());
        let warning = warning(&config.name, config.mtu, spec, largest_mtu);
        let limit = warning.as_ref().map(|_| longest_copy(config.mtu, spec));
        if let Some(warning) = warning.filter(|_| tx.set_limit(limit)) {
            tracing::warn!(port = config.name, "mirrors send to it: {warning}");
        }
        self.tx = Some(tx);
    }

    /// The transmit side before which the backlog stands: the port, or what wraps copies for another machine.
    fn wrapped(&mut self, port: &Arc<dyn TxPort>) -> Arc<dyn TxPort> {
        let Some(remote) = &self.remote else {
            self.wrapping = None;
            return Arc::clone(port);
        };
        let kept = self.wrapping.take().filter(|wrapping| wrapping.is_of(port, remote));
        let wrapping = kept.unwrap_or_else(|| Arc::new(RemoteTx::new(Arc::clone(port), Arc::clone(remote))));
        self.wrapping = Some(Arc::clone(&wrapping));
        wrapping
    }
}
