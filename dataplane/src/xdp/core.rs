//! The state that the halves of an AF_XDP port share, and the closing of a port.
//!
//! **Closing** is dropping: the last half to go drops the [`Core`], which detaches the program, closes the sockets,
//! waits until the kernel has let go of the queues (`closing.rs`: up to 100 ms here, then elsewhere), and only then
//! gives the chunks back. The device thread drops last.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::io::Errno;

use super::closing::{Closing, finish};
use super::gate::Gate;
use super::open::{ONE_CHUNK_MTU, XdpMode};
use super::program::Program;
use super::socket::{Descriptor, RING_ENTRIES};
use super::umem::{NotOwned, PacketMemory};
use crate::port::Fault;
use crate::sys::isolate::Silence;

/// The most chunks in the fill ring of a device that the kernel copies for: twice what a veth hands over in one go.
pub(super) const COPY_FILL: u32 = 512;

/// The most chunks that each fill ring of a port is given. A large frame takes several, so that a veth's burst of them
/// takes most of a ring; so the port's MTU decides, which may change while the port runs.
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

/// The state that the halves of a port share.
#[derive(Debug)]
pub(super) struct Core {
    /// There until drop.
    pub(super) program: Option<Program>,
    /// Keeps the host's own stack from sending through the device.
    pub(super) silence: Option<Silence>,
    pub(super) sockets: Vec<Descriptor>,
    /// One unbound socket per queue, to find out when the queue is released.
    pub(super) spares: Vec<OwnedFd>,
    pub(super) memory: Arc<PacketMemory>,
    /// The sockets poll busily.
    pub(super) busy: AtomicBool,
    /// Shut, nothing that is received passes.
    pub(super) gate: Arc<Gate>,
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// The number under which the pool keeps the port's chunks.
    pub(super) owner: u16,
    /// The connection number that the port's faults carry.
    pub(super) connection: u64,
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

    /// The kernel handed over a chunk that is not the port's.
    pub(super) fn accounting_fault(&self, error: NotOwned) -> Fault {
        self.fault(error)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // First the program: nothing is received any more when the sockets close. The rings were unmapped with the
        // halves.
        self.program = None;
        self.sockets.clear();
        let spares = (0u32..).zip(self.spares.drain(..)).collect();
        finish(Closing { ifindex: self.ifindex, spares, memory: Arc::clone(&self.memory), owner: self.owner });
    }
}
