//! An AF_XDP port: its sockets opened, and its halves handed to the workers. [`core`](super::core) closes it.
//!
//! **Chunks.** Every chunk the kernel or a burst holds for this port is the port's in the pool's owner table, under a
//! number that the port has while it is open; `rx` and `tx` say how chunks go round. When the port is closed, chunks
//! that were still under way go back to the pool.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use labsw_switch::forward::TxItem;

use super::core::{COPY_FILL, Core, FillDepth};
use super::gate::Gate;
use super::open::{BusyPoll, Opened, XdpConfig, XdpError, XdpStatus, open};
use super::rx::{self, XdpRx};
use super::socket::{Descriptor, RxRings, XskSocket};
use super::statistics::Statistics;
use super::tx::XdpTx;
use super::umem::PacketMemory;
use crate::frame::Burst;
use crate::port::{Fault, RxQueue, Turn, TxPort, next_connection};
use crate::stats::PortDelta;

/// An AF_XDP port with both halves, as it is opened and as tests and benches drive it.
#[derive(Debug)]
pub struct XdpPort {
    /// The sending half.
    pub tx: Arc<XdpTx>,
    /// The receiving half of each queue.
    pub rx: Vec<XdpRx>,
    /// How much its fill rings may hold.
    pub depth: FillDepth,
    status: XdpStatus,
    core: Arc<Core>,
}

impl XdpPort {
    /// Opens the port. All system calls that may take time are made here, on the calling (control) thread; the halves
    /// then move to the workers.
    pub fn open(config: XdpConfig, memory: &Arc<PacketMemory>) -> Result<XdpPort, XdpError> {
        let owner = memory.pool().enter();
        let owner = owner.ok_or_else(|| XdpError::TooMany { interface: config.interface.clone() })?;
        let depth = FillDepth::of_chunks(COPY_FILL);
        let mut prime = |mode, rings: &mut RxRings| {
            depth.set_mtu(mode, config.mtu);
            rx::refill(rings, &mut memory.pool(), depth.chunks(), owner);
        };
        let opened = open(&config, &memory.umem, &mut prime).inspect_err(|_| memory.pool().leave(owner))?;
        Ok(XdpPort::new(config.interface, config.ifindex, opened, depth, memory, owner))
    }

    /// A port with everything it runs on; `owner` is its number in the pool.
    pub(super) fn new(
        interface: String,
        ifindex: u32,
        opened: Opened,
        depth: FillDepth,
        memory: &Arc<PacketMemory>,
        owner: u16,
    ) -> XdpPort {
        let Opened { program, sockets, spares, tx_queues, status, silence, pad } = opened;
        let (mut rx, mut tx, mut descriptors) = (Vec::new(), Vec::new(), Vec::new());
        for XskSocket { rx: rx_rings, tx: tx_rings, descriptor } in sockets {
            rx.push(rx_rings);
            tx.push(tx_rings);
            descriptors.push(descriptor);
        }
        tx.truncate(tx_queues);
        let busy = status.busy_poll == BusyPoll::Asked;
        let core = Arc::new(Core {
            program: Some(program),
            silence,
            sockets: descriptors,
            spares,
            memory: Arc::clone(memory),
            busy: AtomicBool::new(busy),
            gate: Arc::default(),
            interface,
            ifindex,
            owner,
            connection: next_connection(),
        });
        let rx = rx.into_iter().enumerate();
        let rx = rx.map(|(queue, rings)| XdpRx::new(rings, queue, depth.clone(), Arc::clone(&core))).collect();
        let tx = Arc::new(XdpTx::new(tx, pad, status.multi_buffer, busy, Arc::clone(&core)));
        XdpPort { tx, rx, depth, status, core }
    }

    /// The mode it got, and why not a better one.
    pub fn status(&self) -> &XdpStatus {
        &self.status
    }

    /// The gate in front of its receive queues.
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.core.gate)
    }

    /// The connection number that the port's faults carry.
    pub fn connection(&self) -> u64 {
        self.core.connection
    }

    /// Readers of the kernel's counters, one per queue, for any thread.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.core.sockets.iter().map(Descriptor::statistics).collect()
    }

    /// Like [`RxQueue::receive`], on one queue.
    pub fn receive(&mut self, queue: usize, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        self.rx.get_mut(queue).map_or(Ok(()), |rx| rx.receive(&Turn::ONLY, burst, stats))
    }

    /// Like [`RxQueue::release`], on one queue.
    pub fn release(&mut self, queue: usize, burst: &mut Burst) -> Result<(), Fault> {
        self.rx.get_mut(queue).map_or(Ok(()), |rx| rx.release(burst))
    }

    /// Like [`TxPort::send_set`], as the only worker.
    pub fn send(&mut self, burst: &mut Burst, items: &[TxItem], stats: &mut PortDelta) -> Result<u64, Fault> {
        self.tx.send_set(&Turn::ONLY, burst, items, stats)
    }

    /// The timed work of all halves, whenever it is due.
    pub fn tick(&mut self) -> Result<(), Fault> {
        self.rx.iter_mut().try_for_each(|rx| rx.run_due(&Turn::ONLY))?;
        self.tx.run_due(&Turn::ONLY, &mut PortDelta::ZERO.clone())
    }
}
