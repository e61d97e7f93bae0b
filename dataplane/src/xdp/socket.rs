//! One AF_XDP socket: packet memory registered, four rings mapped, bound to one queue of one device.
//!
//! **How it works.** All system calls of opening are made here, on the device thread. Afterwards the socket comes
//! apart: one worker drives the rings of [`RxRings`], all workers in turn those of [`TxRings`], and both need the
//! [`Descriptor`] only to wake the kernel.
//!
//! **Closing.** The kernel lets go of the queue when the descriptor *and* the ring mappings are gone, and a little
//! later (a work queue ends the registration), hence the retry on EBUSY. Readers of statistics share the
//! descriptor under a lock and never a duplicate of it, so dropping it really closes it.
//!
//! **Busy polling** makes the caller of recv(2) run the kernel's receive loop of the queue, in place of the processor
//! that takes the interrupt. The kernel does so on a socket with the three options of [`busy_poll`].
//!
//! References: kernel `Documentation/networking/af_xdp.rst`, `include/uapi/linux/if_xdp.h`.

#![allow(unsafe_code, reason = "rings and packet memory shared with the kernel, and its socket calls")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpDesc, XdpMmapOffsets, XdpRingOffset};
use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::ring::{Consumer, Producer, RingMemory};
use super::statistics::Statistics;
use super::umem::{CHUNK_BYTES, Umem};
use crate::sys::raw::{self, RawSocket};

/// Entries of each of the four rings, a power of two. A veth hands over at most 256 frames per NAPI run (its XDP ring)
/// and NICs up to 64, so 2048 rides out a turn of some milliseconds on a busy worker; the transmit and completion ring
/// are equal because the kernel sends only as many frames as it can complete.
pub(super) const RING_ENTRIES: u32 = 2048;
/// Bytes of frames the kernel may hold for us in copy mode; the default (208 KiB) is fewer than 100 full-size frames.
const SEND_BUFFER_BYTES: usize = 16 << 20;
/// Frames copied per system call in copy mode (kernel ≥ 6.17; 32 otherwise).
const COPY_BUDGET_FRAMES: u32 = 256;
/// Most system calls per kick: enough for a whole ring at 32 frames each.
const KICKS: u32 = RING_ENTRIES / 32 + 8;
/// Frames a call may bring in that polls busily: a burst.
const BUSY_POLL_FRAMES: u32 = 64;
/// Any time but 0 makes a socket one that polls busily; a call that does not block looks once, whatever it is.
const BUSY_POLL_MICROSECONDS: u32 = 20;
/// How long a queue is waited for whose last socket, perhaps that of a killed run, is still being released.
pub(super) const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// `XDP_PGOFF_*` and `XDP_UMEM_PGOFF_*`.
const RX_RING_AT: u64 = 0;
const TX_RING_AT: u64 = 0x8000_0000;
const FILL_RING_AT: u64 = 0x1_0000_0000;
const COMPLETION_RING_AT: u64 = 0x1_8000_0000;
/// Socket option of kernel ≥ 6.17, `include/uapi/linux/if_xdp.h`.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// How frames get from the device into packet memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The device reads and writes packet memory itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl Binding {
    fn flag(self) -> SocketAddrXdpFlags {
        match self {
            Binding::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
            Binding::Copy => SocketAddrXdpFlags::XDP_COPY,
        }
    }
}

/// The step of opening that failed.
#[derive(Debug)]
pub(super) enum SocketError {
    /// socket(2).
    Socket(io::Error),
    /// Registering packet memory.
    Register(io::Error),
    /// Making or mapping the rings.
    Rings(io::Error),
    /// bind(2).
    Bind(io::Error),
}

/// A bound socket and its rings.
#[derive(Debug)]
pub(super) struct XskSocket {
    pub(super) rx: RxRings,
    pub(super) tx: TxRings,
    pub(super) descriptor: Descriptor,
}

/// The rings of the receiving half.
#[derive(Debug)]
pub(super) struct RxRings {
    /// Frames received.
    pub(super) rx: Consumer<XdpDesc>,
    /// Free chunks for the kernel to receive into.
    pub(super) fill: Producer<u64>,
}

/// The rings of the sending half.
#[derive(Debug)]
pub(super) struct TxRings {
    /// Frames to send.
    pub(super) tx: Producer<XdpDesc>,
    /// Chunks that were sent.
    pub(super) completion: Consumer<u64>,
}

/// The socket itself; closed when this is dropped.
#[derive(Debug)]
pub(super) struct Descriptor {
    raw: RawFd,
    statistics: Statistics,
}

impl XskSocket {
    /// Opens a socket on `queue` of the interface, in the calling thread's network namespace. With `multi_buffer`
    /// frames may be in several chunks, both ways. A queue that is busy is waited for, as long as `patience` says.
    pub(super) fn open(
        ifindex: u32,
        queue: u32,
        binding: Binding,
        multi_buffer: bool,
        patience: Duration,
        umem: &Umem,
    ) -> Result<XskSocket, SocketError> {
        let fd = unbound()?;
        let registration = XdpUmemReg {
            addr: umem.address(),
            len: umem.len_bytes(),
            chunk_size: CHUNK_BYTES,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&fd, registration).map_err(|errno| SocketError::Register(errno.into()))?;
        set_up_rings(&fd).map_err(|errno| SocketError::Rings(errno.into()))?;
        let (rx, tx) = map_rings(&fd).map_err(SocketError::Rings)?;
        let several = if multi_buffer { SocketAddrXdpFlags::XDP_USE_SG } else { SocketAddrXdpFlags::empty() };
        let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | binding.flag() | several;
        bind_patiently(fd.as_fd(), flags, ifindex, queue, patience).map_err(|errno| SocketError::Bind(errno.into()))?;
        tune(fd.as_fd());
        Ok(XskSocket { rx, tx, descriptor: Descriptor::new(fd) })
    }

    /// Makes a socket of one that another process has opened and bound, and still uses: nothing of its rings is
    /// written, and their indices are to be read again once it does not any more.
    ///
    /// # Errors
    /// The rings can't be mapped: a kernel before 6.4 does that for sockets that are not bound only.
    pub(super) fn adopt(fd: OwnedFd) -> io::Result<XskSocket> {
        let (rx, tx) = map_rings(&fd)?;
        Ok(XskSocket { rx, tx, descriptor: Descriptor::new(fd) })
    }
}

impl Descriptor {
    fn new(fd: OwnedFd) -> Descriptor {
        Descriptor { raw: fd.as_raw_fd(), statistics: Statistics::new(fd) }
    }

    /// The descriptor.
    #[inline]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: only our drop closes the descriptor, and drop needs `&mut self`.
        unsafe { BorrowedFd::borrow_raw(self.raw) }
    }

    /// For reading the kernel's counters from another thread.
    pub(super) fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    /// Wakes the device's sender, which send(2) on a socket with [busy polling](busy_poll) does not: it runs the loop
    /// of the receive queue, and some drivers (igb, virtio_net) send in another one. poll(2) wakes both.
    #[cold]
    pub(super) fn wake_sender(&self) {
        let mut socket = [PollFd::from_borrowed_fd(self.fd(), PollFlags::OUT)];
        // Frames that stay in the ring are kicked again later, whatever this gave.
        let _ = rustix::event::poll(&mut socket, Some(&Timespec::default()));
    }

    /// Asks the kernel for an error of the socket: the device was removed, for instance.
    pub(super) fn pending_error(&self) -> Result<(), Errno> {
        sockopt::socket_error(self.fd())?
    }
}

impl TxRings {
    /// Makes the kernel send submitted frames, as far as it goes now: `Ok` with frames left over is normal (the peer is
    /// slow), and the rest is kicked again later. In copy mode a call sends a limited number of frames, so it is
    /// repeated while it makes headway (a single kick is known to freeze transmission). An error means that the device
    /// is gone.
    pub(super) fn kick(&mut self, socket: &Descriptor) -> Result<(), Errno> {
        let mut left = self.tx.pending();
        for _ in 0..KICKS {
            if left == 0 || !self.tx.needs_wakeup() {
                return Ok(());
            }
            // A far end that is down takes one frame per call, and drops it: the calls are enough for a burst of that,
            // too.
            tolerate(rustix::net::send(socket.fd(), &[], SendFlags::DONTWAIT))?;
            let now = self.tx.pending();
            if now == left {
                return Ok(());
            }
            left = now;
        }
        Ok(())
    }
}

impl RxRings {
    /// Tells the kernel that the fill ring has chunks again, if it waits for that.
    #[inline]
    pub(super) fn wake_receiver(&mut self, socket: &Descriptor) -> Result<(), Errno> {
        if !self.fill.needs_wakeup() {
            return Ok(());
        }
        self.poll(socket)
    }

    /// Has the kernel look at the queue: for free chunks and, if it [polls busily](busy_poll), for frames.
    #[inline]
    pub(super) fn poll(&mut self, socket: &Descriptor) -> Result<(), Errno> {
        let mut nothing = [0u8; 0];
        tolerate(rustix::net::recv(socket.fd(), &mut nothing, RecvFlags::DONTWAIT).map(|(read, _)| read))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // Readers hold the lock for one getsockopt(2). The kernel lets go of the queue when the rings are unmapped as
        // well.
        self.statistics.close();
    }
}

/// Ignores the errors of a wake-up that only mean "not now". A device that is set down (`NETDOWN`) comes up again; one
/// that was removed says so otherwise.
fn tolerate(result: Result<usize, Errno>) -> Result<(), Errno> {
    match result {
        Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR | Errno::NOMEM | Errno::NETDOWN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A new socket in this process's network namespace.
pub(super) fn unbound() -> Result<OwnedFd, SocketError> {
    raw::open(RawSocket::Xdp).map_err(SocketError::Socket)
}

/// Makes an [`unbound`] socket fit for [`is_busy`], with the least of memory and rings.
pub(super) fn prepare_look(fd: &OwnedFd, umem: &Umem) {
    let registration = XdpUmemReg {
        addr: umem.address(),
        len: u64::from(CHUNK_BYTES),
        chunk_size: CHUNK_BYTES,
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    // Without them bind(2) fails for another reason than a busy queue, and the queue counts as released.
    let _ = sockopt::set_xdp_umem_reg(fd, registration)
        .and_then(|()| sockopt::set_xdp_rx_ring_size(fd, 2))
        .and_then(|()| sockopt::set_xdp_umem_fill_ring_size(fd, 2))
        .and_then(|()| sockopt::set_xdp_umem_completion_ring_size(fd, 2));
}

/// True if the queue of the interface has a socket, or one that is being released. If not, `fd` has it now, until it is
/// closed.
pub(super) fn is_busy(fd: &OwnedFd, ifindex: u32, queue: u32) -> bool {
    let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | SocketAddrXdpFlags::XDP_COPY;
    rustix::net::bind(fd, &SocketAddrXdp::new(flags, ifindex, queue)) == Err(Errno::BUSY)
}

fn set_up_rings(fd: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_xdp_rx_ring_size(fd, RING_ENTRIES)?;
    sockopt::set_xdp_tx_ring_size(fd, RING_ENTRIES)?;
    sockopt::set_xdp_umem_fill_ring_size(fd, RING_ENTRIES)?;
    sockopt::set_xdp_umem_completion_ring_size(fd, RING_ENTRIES)
}

/// Maps the four rings.
fn map_rings(fd: &OwnedFd) -> io::Result<(RxRings, TxRings)> {
    let offsets: XdpMmapOffsets = sockopt::xdp_mmap_offsets(fd)?;
    let map = |at: u64, offset: &XdpRingOffset, entry_bytes: usize| {
        let bytes = usize::try_from(offset.desc).map_err(io::Error::other)? + RING_ENTRIES as usize * entry_bytes;
        RingMemory::of_socket(fd.as_fd(), at, bytes)
    };
    let rx = RxRings {
        rx: Consumer::new(map(RX_RING_AT, &offsets.rx, size_of::<XdpDesc>())?, &offsets.rx, RING_ENTRIES)?,
        fill: Producer::new(map(FILL_RING_AT, &offsets.fr, size_of::<u64>())?, &offsets.fr, RING_ENTRIES)?,
    };
    let completion = map(COMPLETION_RING_AT, &offsets.cr, size_of::<u64>())?;
    let tx = TxRings {
        tx: Producer::new(map(TX_RING_AT, &offsets.tx, size_of::<XdpDesc>())?, &offsets.tx, RING_ENTRIES)?,
        completion: Consumer::new(completion, &offsets.cr, RING_ENTRIES)?,
    };
    Ok((rx, tx))
}

/// bind(2), waiting for a queue whose last socket is still being released.
fn bind_patiently(
    fd: BorrowedFd<'_>,
    flags: SocketAddrXdpFlags,
    ifindex: u32,
    queue: u32,
    patience: Duration,
) -> Result<(), Errno> {
    let deadline = Instant::now() + patience;
    loop {
        match rustix::net::bind(fd, &SocketAddrXdp::new(flags, ifindex, queue)) {
            Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
}

/// Larger limits where the kernel grants them; without, everything works in smaller steps.
fn tune(fd: BorrowedFd<'_>) {
    if sockopt::set_socket_send_buffer_size_force(fd, SEND_BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER_BYTES);
    }
    // Kernels without the option refuse it.
    let _ = set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, COPY_BUDGET_FRAMES);
}

/// Makes recv(2) and send(2) on the socket run the queue's receive loop, and nothing else as long as that goes on.
pub(super) fn busy_poll(socket: &Descriptor) -> io::Result<()> {
    set_option(socket.fd(), libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
    set_option(socket.fd(), libc::SOL_SOCKET, libc::SO_BUSY_POLL, BUSY_POLL_MICROSECONDS)?;
    set_option(socket.fd(), libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, BUSY_POLL_FRAMES)
}

/// Makes recv(2) and send(2) on the socket wake the device again, as without [`busy_poll`].
pub(super) fn end_busy_poll(socket: &Descriptor) -> io::Result<()> {
    set_option(socket.fd(), libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 0)?;
    set_option(socket.fd(), libc::SOL_SOCKET, libc::SO_BUSY_POLL, 0)
}

fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u32) -> io::Result<()> {
    #[allow(clippy::cast_possible_truncation, reason = "four bytes")]
    let bytes = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the value of the options used here is four bytes, and `value` lives across the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast::<libc::c_void>(), bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
