//! An AF_XDP port that goes on in another process: its sockets, its program, and where its rings stand.
//!
//! **How it works.** The rings and the frames in them are the kernel's memory and packet memory: the other process maps
//! both ([`XdpPort::take_over`]) while the first one still uses them. Once that does not any more, the other one reads
//! from the rings themselves how far they are: [`XdpTx::resume`] for those of the sending half, and each receiving half
//! when it is first asked for frames. What is in a ring stays there, and is the port's in the pool that is handed over
//! as well ([`PacketMemory::resume`]). Program and device never notice.
//!
//! **Invariant.** A port that was taken over writes to no ring, and takes and gives no chunk, before it is resumed.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::core::{COPY_FILL, FillDepth};
use super::open::{Opened, XdpStatus};
use super::port::XdpPort;
use super::program::Program;
use super::socket::{Descriptor, RING_ENTRIES, XskSocket};
use super::tx::XdpTx;
use super::umem::PacketMemory;
use crate::handover::{Given, HandoverError, Slot, Taken};
use crate::sys::isolate::Silence;

/// The most sockets of a port: queues that a device may have.
const MAX_SOCKETS: usize = 4096;

/// The state of an AF_XDP port, for the process that takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct XdpHandover {
    ifindex: u32,
    /// Entries of each ring.
    ring_entries: u32,
    /// By receive queue.
    sockets: Vec<Slot>,
    /// By receive queue: an unbound socket.
    spares: Vec<Slot>,
    tx_queues: usize,
    pad: bool,
    /// The program's map, and its attachment.
    program: [Slot; 2],
    silence: Option<Slot>,
    /// Its number in the pool.
    owner: u16,
}

impl XdpHandover {
    /// The index of its interface.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl XdpTx {
    /// The state of the whole port, with its descriptors in `given`; `None`: it is being closed.
    pub fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<XdpHandover> {
        let core = self.core();
        Some(XdpHandover {
            program: core.program.as_ref()?.descriptors().map(|fd| given.put(fd)),
            ifindex: core.ifindex,
            ring_entries: RING_ENTRIES,
            sockets: core.sockets.iter().map(Descriptor::fd).map(|fd| given.put(fd)).collect(),
            spares: core.spares.iter().map(|spare| given.put(spare.as_fd())).collect(),
            tx_queues: self.queues(),
            pad: self.pads(),
            silence: core.silence.as_ref().map(|silence| given.put(silence.link())),
            owner: core.owner,
        })
    }
}

impl XdpPort {
    /// Makes a port of what another process handed over; that one still serves. `memory` is the same packet memory.
    ///
    /// # Errors
    /// A descriptor is missing, or the rings can't be mapped.
    pub fn take_over(
        interface: &str,
        mtu: u32,
        status: XdpStatus,
        handover: XdpHandover,
        memory: &Arc<PacketMemory>,
        taken: &mut Taken,
    ) -> Result<XdpPort, HandoverError> {
        let XdpHandover { ifindex, ring_entries, sockets, spares, tx_queues, pad, program, silence, owner } = handover;
        let count = sockets.len();
        if ring_entries != RING_ENTRIES || count == 0 || count > MAX_SOCKETS || spares.len() != count {
            let rings = format!("it was handed over with {count} sockets of {ring_entries} entries");
            return Err(HandoverError::new(rings));
        }
        let mut adopt = |slot| {
            XskSocket::adopt(taken.take(slot)?)
                .map_err(|error| HandoverError::new(format!("mapping its rings again (needs Linux 6.4): {error}")))
        };
        let sockets = sockets.into_iter().map(&mut adopt).collect::<Result<Vec<_>, _>>()?;
        let spares = spares.into_iter().map(|slot| taken.take(slot)).collect::<Result<Vec<_>, _>>()?;
        let [map, link] = program;
        let program = Program::adopt([taken.take(map)?, taken.take(link)?]);
        let silence = silence.map(|slot| taken.take(slot).map(Silence::adopt)).transpose()?;
        let depth = FillDepth::of_chunks(COPY_FILL);
        depth.set_mtu(status.mode, mtu);
        let opened = Opened { program, sockets, spares, tx_queues, status, silence, pad };
        let port = XdpPort::new(interface.to_owned(), ifindex, opened, depth, memory, owner);
        port.tx.wait();
        Ok(port)
    }
}
