//! An AF_XDP port: its sockets opened, its halves handed to the workers, and everything closed when the last half goes.
//!
//! **Chunks.** Every chunk the kernel or a burst holds for this port is the port's in the pool's owner table; `rx` and
//! `tx` say how chunks go round. When the port is closed, what was still under way goes back to the pool.
//!
//! **Closing** is dropping: the last half to go drops the [`Core`], which detaches the program, closes the
//! sockets, waits until the kernel has let go of the queues (milliseconds: so the control thread drops last), and only
//! then reclaims the chunks. The port's id must not be given to another port before.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use labsw_switch::forward::TxItem;
use rustix::io::Errno;

use super::open::{BusyPoll, ONE_CHUNK_MTU, Opened, XdpConfig, XdpError, XdpMode, XdpStatus, open};
use super::program::Program;
use super::rx::{COPY_FILL, XdpRx};
use super::socket::{Binding, Descriptor, RING_ENTRIES, XskSocket};
use super::statistics::Statistics;
use super::tx::XdpTx;
use super::umem::{NotOwned, PacketMemory};
use crate::frame::Burst;
use crate::isolate::Silence;
use crate::port::{Fault, RxQueue, Turn, TxPort, next_connection};
use crate::stats::PortDelta;

/// An AF_XDP port in one hand: as it is opened, and as tests and benches drive it.
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

/// The most chunks that each fill ring of a port is given. A large frame takes several, so that a veth's burst of them takes
/// most of a ring; so the port's MTU decides, which may change while the port runs.
#[derive(Clone, Debug)]
pub struct FillDepth(Arc<AtomicU32>);

impl FillDepth {
    pub(super) fn of_chunks(chunks: u32) -> FillDepth {
        FillDepth(Arc::new(AtomicU32::new(chunks)))
    }

    /// Suits it to an MTU; the rings follow as they are refilled.
    pub fn set_mtu(&self, mode: XdpMode, mtu: u32) {
        let deep = mode == XdpMode::ZeroCopy || mtu > ONE_CHUNK_MTU;
        self.0.store(if deep { RING_ENTRIES } else { COPY_FILL }, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn chunks(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the halves of a port hold in common.
#[derive(Debug)]
pub(super) struct Core {
    /// There until drop.
    program: Option<Program>,
    /// Keeps the host's own stack from sending through the device.
    _silence: Option<Silence>,
    pub(super) sockets: Vec<Descriptor>,
    /// One unbound socket per queue, see drop.
    spares: Vec<OwnedFd>,
    pub(super) memory: Arc<PacketMemory>,
    interface: String,
    ifindex: u32,
    /// The id under which the pool keeps the port's chunks.
    pub(super) owner: u16,
    connection: u64,
}

impl XdpPort {
    /// Opens the port. All system calls that may take time are made here, on the calling (control) thread; the halves
    /// then move to the workers.
    pub fn open(config: XdpConfig, memory: &Arc<PacketMemory>) -> Result<XdpPort, XdpError> {
        let Opened { program, sockets, spares, tx_queues, status, silence, pad } = open(&config, &memory.umem)?;
        let (mut rx, mut tx, mut descriptors) = (Vec::new(), Vec::new(), Vec::new());
        for XskSocket { rx: rx_rings, tx: tx_rings, descriptor } in sockets {
            rx.push(rx_rings);
            tx.push(tx_rings);
            descriptors.push(descriptor);
        }
        tx.truncate(tx_queues);
        let core = Arc::new(Core {
            program: Some(program),
            _silence: silence,
            sockets: descriptors,
            spares,
            memory: Arc::clone(memory),
            interface: config.interface,
            ifindex: config.ifindex,
            owner: config.owner,
            connection: next_connection(),
        });
        let depth = FillDepth::of_chunks(COPY_FILL);
        depth.set_mtu(status.mode, config.mtu);
        let busy = status.busy_poll == BusyPoll::Asked;
        let rx = rx.into_iter().enumerate();
        let rx = rx.map(|(queue, rings)| XdpRx::new(rings, queue, depth.clone(), busy, Arc::clone(&core))).collect();
        let tx = Arc::new(XdpTx::new(tx, pad, status.multi_buffer, Arc::clone(&core)));
        Ok(XdpPort { tx, rx, depth, status, core })
    }

    /// The mode it got, and why not a better one.
    pub fn status(&self) -> &XdpStatus {
        &self.status
    }

    /// The number by which its faults are known.
    pub fn connection(&self) -> u64 {
        self.core.connection
    }

    /// Readers of the kernel's counters, one per queue, for any thread.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.core.sockets.iter().map(Descriptor::statistics).collect()
    }

    /// As [`RxQueue::receive`] of one queue.
    pub fn receive(&mut self, queue: usize, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        self.rx.get_mut(queue).map_or(Ok(()), |rx| rx.receive(&Turn::ONLY, burst, stats))
    }

    /// As [`RxQueue::release`] of one queue.
    pub fn release(&mut self, queue: usize, burst: &mut Burst) -> Result<(), Fault> {
        self.rx.get_mut(queue).map_or(Ok(()), |rx| rx.release(burst))
    }

    /// As [`TxPort::send_set`] of the only worker.
    pub fn send(
        &mut self,
        burst: &mut Burst,
        items: &[TxItem],
        sole: u64,
        stats: &mut PortDelta,
    ) -> Result<u64, Fault> {
        self.tx.send_set(&Turn::ONLY, burst, items, sole, stats)
    }

    /// The timed work of all halves, whenever it is due.
    pub fn tick(&mut self) -> Result<(), Fault> {
        self.rx.iter_mut().try_for_each(|rx| rx.run_due(&Turn::ONLY))?;
        self.tx.run_due(&Turn::ONLY, &mut PortDelta::ZERO.clone())
    }
}

impl Core {
    pub(super) fn fault(&self, what: impl std::fmt::Display) -> Fault {
        Fault::new(self.connection, format!("{}: {what}", self.interface))
    }

    pub(super) fn device_fault(&self, errno: Errno) -> Fault {
        match errno {
            Errno::NETDOWN => self.fault("the device is down or was removed"),
            Errno::NXIO | Errno::NODEV => self.fault("the device was removed"),
            other => self.fault(format_args!("the kernel refused to go on: {other}")),
        }
    }
}

pub(super) fn accounting_fault(core: &Core, error: NotOwned) -> Fault {
    core.fault(error)
}

impl Drop for Core {
    /// Closes everything and waits until the kernel has really let go of the queues. That happens on a kernel work queue
    /// after the socket is closed; until then a zero-copy device may still write to chunks, and the queue is busy. A socket
    /// can be bound to the queue when it is over, so one is bound, and closed. It was made when the port was opened, because
    /// the interface index means something else in another network namespace. The rings were unmapped with the halves.
    fn drop(&mut self) {
        // First the program: nothing is received any more when the sockets close.
        self.program = None;
        self.sockets.clear();
        for (queue, spare) in (0u32..).zip(self.spares.drain(..)) {
            drop(XskSocket::bind(spare, self.ifindex, queue, Binding::Copy, false, &self.memory.umem));
        }
        self.memory.pool().reclaim(self.owner);
    }
}
