//! A TAP port: receive queues for the workers, and the transmit side that all of them share.
//!
//! **Receiving.** One system call a frame, into the queue's own buffers; an empty queue costs one as well. The frames
//! stay there until the burst is released.
//!
//! **Sending.** One system call a frame, gathered from its pieces: the snapshot and the rest in guest memory or packet
//! memory. The kernel's copy is the only copy. Frames in very many pieces, and frames of a guest that truncated its
//! memory, are copied together first. No lock is taken: the kernel serialises the calls.
//!
//! **Interface down, interface gone.** The host may set the interface down: frames are then dropped and counted. When
//! the interface is gone, the port ends until the device thread has made or found it again. A packet socket does not
//! tell when its interface goes, so the device thread looks as well.

#![allow(unsafe_code, reason = "system calls that gather and scatter")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use labsw_switch::forward::TxItem;
use labsw_switch::wire::ETHERNET_HEADER_BYTES;
use labsw_switch::{BURST_FRAMES, DropReason};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::buffers::Buffers;
use super::device::{self, PIECES, Received, TapError};
use super::vnet::{self, End, Header};
use crate::flow::spread;
use crate::frame::{Burst, FrameReader, MAX_FRAME_BYTES, Segment};
use crate::losses::TxReport;
use crate::offload::Offers;
use crate::port::{Fault, RxQueue, Turn, TxPort, next_connection};
use crate::stats::PortDelta;
use crate::sys::isolate::Isolation;

/// The state that both halves of a port share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) queues: Vec<OwnedFd>,
    end: End,
    interface: String,
    connection: u64,
    /// Keeps the host off the interface.
    pub(super) isolation: Option<Isolation>,
    /// Keeps other switches off the interface.
    pub(super) reservation: Option<OwnedFd>,
}

/// A TAP port with both halves, as it is opened and as tests drive it.
#[derive(Debug)]
pub struct TapPort {
    /// The sending half.
    pub tx: Arc<TapTx>,
    /// The receiving half of each queue.
    pub rx: Vec<TapRx>,
}

impl TapPort {
    /// A port whose other end is the host's or a container's: opens `queues` queues of the interface. With `make` the
    /// interface is made, and goes with the port; otherwise it must be there.
    ///
    /// # Errors
    /// [`TapError`], which names the interface.
    pub fn for_host(interface: &str, queues: u16, make: bool) -> Result<TapPort, TapError> {
        let queues = device::open_queues(interface, queues.clamp(1, super::MAX_QUEUES), make)?;
        TapPort::of_tun(interface, queues)
    }

    /// A port whose other end is a guest's: takes over the interface, which has the index `ifindex`. While the port
    /// lives the host's stack is kept off it.
    ///
    /// # Errors
    /// [`TapError`], which names the interface.
    pub fn for_guest(interface: &str, ifindex: u32) -> Result<TapPort, TapError> {
        let reservation = device::reserve(interface)?;
        let isolation = Isolation::hold(ifindex)
            .map_err(|source| TapError::Isolation { interface: interface.to_owned(), source })?;
        let socket = device::open_interface(interface, ifindex)?;
        TapPort::new(interface, vec![socket], End::Interface, Some(isolation), Some(reservation))
    }

    /// A port of the queues of an interface whose other end is the host's or a container's.
    pub(super) fn of_tun(interface: &str, queues: Vec<OwnedFd>) -> Result<TapPort, TapError> {
        let udp = device::switch_offloads_on(interface, &queues)?;
        TapPort::new(interface, queues, End::Tun { udp }, None, None)
    }

    pub(super) fn new(
        interface: &str,
        queues: Vec<OwnedFd>,
        end: End,
        isolation: Option<Isolation>,
        reservation: Option<OwnedFd>,
    ) -> Result<TapPort, TapError> {
        let core = Arc::new(Core {
            queues,
            end,
            interface: interface.to_owned(),
            connection: next_connection(),
            isolation,
            reservation,
        });
        let rx = (0..core.queues.len()).map(|queue| {
            let buffers = Buffers::new().map_err(|error| TapError::kernel(interface, "mapping buffers", error))?;
            Ok(TapRx { core: Arc::clone(&core), queue, buffers, failed: false })
        });
        let rx = rx.collect::<Result<_, TapError>>()?;
        Ok(TapPort { tx: Arc::new(TapTx { core, failed: AtomicBool::new(false) }), rx })
    }

    /// The connection number that the port's faults carry.
    pub fn connection(&self) -> u64 {
        self.tx.core.connection
    }

    /// A watch that tells whether the interface exists, in any network namespace, as long as the port is open.
    pub fn watch(&self) -> TapWatch {
        TapWatch(Arc::downgrade(&self.tx.core))
    }
}

/// Looks at a port's interface without keeping it open.
#[derive(Clone, Debug)]
pub struct TapWatch(Weak<Core>);

impl TapWatch {
    /// True if the port's descriptor still belongs to an interface; false for a closed port.
    pub fn has_interface(&self) -> bool {
        self.0.upgrade().is_some_and(|core| core.queues.first().is_some_and(device::is_attached))
    }
}

impl Core {
    #[cold]
    fn fault(&self, errno: Errno) -> Fault {
        let interface = &self.interface;
        Fault::new(
            self.connection,
            match errno {
                Errno::BADFD | Errno::NXIO | Errno::NODEV => format!("{interface} was removed"),
                other => format!("{interface}: the kernel refused to go on: {other}"),
            },
        )
    }
}

/// The receiving half of one queue.
#[derive(Debug)]
pub struct TapRx {
    core: Arc<Core>,
    queue: usize,
    buffers: Buffers,
    /// Out of service after a fault.
    failed: bool,
}

impl TapRx {
    fn fd(&self) -> Option<&OwnedFd> {
        self.core.queues.get(self.queue).filter(|_| !self.failed)
    }
}

impl RxQueue for TapRx {
    fn receive(&mut self, _turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        let Some(fd) = self.fd() else { return Ok(()) };
        // Frames that are dropped here count as well, so that they can't keep a worker busy.
        for _ in 0..BURST_FRAMES {
            let Some(slot) = self.buffers.slot(burst.len()) else { break };
            // SAFETY: no frame of the burst, which is the only one of this queue, lies in that slot yet.
            let Received { header, offset, bytes, tag_bytes } =
                match unsafe { device::receive(fd.as_fd(), self.core.end, slot) } {
                    Ok(received) => received,
                    Err(Errno::INTR) => continue,
                    // The interface was set down. If it is gone, the device thread notices.
                    Err(Errno::AGAIN | Errno::NETDOWN) => break,
                    // A segmentation that the kernel has no word for (UDP fragments), or not yet. The frame is gone.
                    Err(Errno::INVAL) => {
                        stats.received(0);
                        stats.drop(DropReason::BadOffload);
                        continue;
                    }
                    Err(errno) => return Err(self.core.fault(errno)),
                };
            let len = u32::try_from(bytes).unwrap_or(u32::MAX);
            stats.received(len);
            if len > MAX_FRAME_BYTES {
                stats.drop(DropReason::Oversize);
                continue;
            }
            // SAFETY: `len` bytes from `offset` are inside the slot, whose next write is after this burst's release.
            unsafe {
                burst.push_whole(0, Segment { ptr: slot.add(offset), len });
            }
            if let Err(reason) = vnet::ask(header, tag_bytes, burst) {
                stats.drop(reason);
            }
        }
        Ok(())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.clear();
        Ok(())
    }

    /// The descriptor is always armed, so this only looks for frames that arrived in the meantime.
    fn arm(&mut self, _turn: &Turn) -> bool {
        let Some(fd) = self.fd() else { return false };
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    fn disarm(&mut self) {}

    fn wait_fd(&self) -> Option<RawFd> {
        self.fd().map(AsRawFd::as_raw_fd)
    }

    fn fail(&mut self) {
        self.failed = true;
    }
}

/// The sending half.
#[derive(Debug)]
pub struct TapTx {
    core: Arc<Core>,
    /// Out of service after a fault.
    failed: AtomicBool,
}

/// Why a frame did not leave.
enum Lost {
    Dropped(DropReason),
    Broken(Errno),
}

impl TapTx {
    /// The state that both halves of the port share.
    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// Finds out why the kernel refused a frame: it reports a slow guest and an absent one in the same way.
    #[cold]
    fn look_closer(&self, queue: &OwnedFd, lost: Lost) -> Lost {
        match (lost, self.core.end) {
            (Lost::Dropped(DropReason::TxRingFull), End::Interface)
                if !device::is_opened(queue, &self.core.interface) =>
            {
                Lost::Dropped(DropReason::NotConnected)
            }
            (lost, _) => lost,
        }
    }

    fn send_on(&self, queue: usize, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let queue = self.core.queues.get(queue).filter(|_| !self.failed.load(Ordering::Relaxed));
        for (at, item) in items.iter().enumerate() {
            let outcome = match queue {
                Some(queue) => send_one(queue, burst, item).map_err(|lost| self.look_closer(queue, lost)),
                None => Err(Lost::Dropped(DropReason::NotConnected)),
            };
            match outcome {
                Ok(bytes) => report.sent(bytes),
                Err(Lost::Dropped(reason)) => report.lose(item.frame, reason),
                Err(Lost::Broken(errno)) => {
                    self.failed.store(true, Ordering::Relaxed);
                    report.lose_all(items.get(at..).unwrap_or_default(), DropReason::NotConnected);
                    return Err(self.core.fault(errno));
                }
            }
        }
        Ok(())
    }
}

impl TxPort for TapTx {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let queues = self.core.queues.len();
        spread(burst, items, turn.count(queues), |nth, burst, items| {
            self.send_on(turn.ring(nth, queues), burst, items, report)
        })
    }

    fn offers(&self) -> Offers {
        vnet::to_kernel(self.core.end)
    }
}

/// Sends one frame and returns its length.
#[inline]
fn send_one(queue: &OwnedFd, burst: &Burst, item: &TxItem) -> Result<u32, Lost> {
    let reader = burst.reader(item).filter(|reader| reader.remaining() >= ETHERNET_HEADER_BYTES);
    let reader = reader.ok_or(Lost::Dropped(DropReason::Runt))?;
    let header = vnet::header(burst, item).ok_or(Lost::Dropped(DropReason::BadOffload))?;
    let bytes = reader.remaining();
    let mut pieces = [Segment::EMPTY; PIECES];
    let gathered = match reader.gather(&mut pieces) {
        // SAFETY: the pieces lie in the burst, in `reader`, and in the memory that is lent to the burst; all stay where
        // they are until the call returns.
        Some(used) => unsafe { device::send(queue.as_fd(), &header, pieces.get(..used).unwrap_or_default()) },
        None => Err(Errno::FAULT),
    };
    let outcome = match gathered {
        Err(Errno::FAULT) => send_copied(queue, &header, reader),
        other => other,
    };
    match outcome {
        Ok(()) => Ok(bytes),
        // The host's backlog or the guest's ring is full.
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Err(Lost::Dropped(DropReason::TxRingFull)),
        Err(Errno::MSGSIZE) => Err(Lost::Dropped(DropReason::Oversize)),
        // A request that the kernel can't describe in its own terms, or this release refuses.
        Err(Errno::INVAL) => Err(Lost::Dropped(DropReason::BadOffload)),
        // The interface is set down: /dev/net/tun and packet sockets report that with different errors.
        Err(Errno::IO | Errno::NETDOWN) => Err(Lost::Dropped(DropReason::NotConnected)),
        Err(errno) => Err(Lost::Broken(errno)),
    }
}

/// Sends a frame that the kernel can't gather: it has too many pieces, or lies in memory that is no longer there. In
/// the latter case, reading it here marks the memory as truncated.
#[cold]
fn send_copied(queue: &OwnedFd, header: &Header, mut reader: FrameReader<'_>) -> Result<(), Errno> {
    let room = reader.remaining();
    let mut frame = vec![0; room as usize];
    // SAFETY: `frame` is writable for `room` bytes and our own.
    unsafe { reader.read(frame.as_mut_ptr(), room) };
    // SAFETY: `frame` is initialised and lives across the call.
    unsafe { device::send(queue.as_fd(), header, &[Segment { ptr: frame.as_ptr(), len: room }]) }
}
