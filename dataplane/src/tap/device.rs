//! System calls of TAP ports: making and opening the interface, one frame in, one frame out.
//!
//! **How it works.** For the host: a descriptor of `/dev/net/tun` per queue, attached to the interface by name
//! (`TUNSETIFF`), which makes the interface if there is none; it goes with the last descriptor. For a guest: the
//! interface is made persistent, for the guest's program to open, and the switch binds a packet socket to it. The
//! kernel takes the outer VLAN tag out of frames for packet sockets and tells it beside them (`PACKET_AUXDATA`); it is
//! put back where it was. A name in the abstract namespace of Unix sockets, which is the network namespace's, keeps a
//! second switch off the interface.
//!
//! Nothing here blocks.
//!
//! References: kernel `Documentation/networking/tuntap.rst`, `drivers/net/tun.c`; packet(7); unix(7).

#![allow(unsafe_code, reason = "system calls that gather and scatter")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use labsw_switch::wire::{TAG_BYTES, TAG_OFFSET, TPID_C_TAG};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use super::buffers::{HEADROOM_BYTES, ROOM_BYTES};
use super::vnet::{End, Header};
use crate::frame::Segment;
use crate::sys::raw::{self, RawSocket};
use crate::virtio::header::HEADER_BYTES;

/// Most pieces that one frame is sent from without being copied together first.
pub(super) const PIECES: usize = 16;
/// Bytes of frames that may wait in a packet socket.
const SOCKET_BUFFER_BYTES: libc::c_int = 4 << 20;
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GLINK: u32 = 0x0a;

/// Why a TAP interface can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no TAP in this kernel, or we may not.
    #[error("{interface}: /dev/net/tun: {source}; it needs the kernel's tun (modprobe tun) and CAP_NET_ADMIN")]
    NoTun {
        /// The interface.
        interface: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// It exists, and is something else.
    #[error(
        "{interface} exists and is no TAP interface with {wanted}; delete it (ip link del {interface}), or name another"
    )]
    Flags {
        /// The interface.
        interface: String,
        /// The kind of interface that is needed.
        wanted: &'static str,
    },
    /// Another program has it.
    #[error("{interface} is in use by another program; end that one, or name another interface")]
    InUse {
        /// The interface.
        interface: String,
    },
    /// The kernel has no hook to keep the host off the interface.
    #[error(
        "{interface}: the host can't be kept off it ({source}); that needs Linux 6.6 or newer, CAP_BPF and CAP_NET_ADMIN"
    )]
    Isolation {
        /// The interface.
        interface: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Anything else the kernel refused.
    #[error("{interface}: {step} failed: {source}")]
    Kernel {
        /// The interface.
        interface: String,
        /// The step that failed.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl TapError {
    pub(super) fn kernel(interface: &str, step: &'static str, source: impl Into<io::Error>) -> TapError {
        TapError::Kernel { interface: interface.to_owned(), step, source: source.into() }
    }
}

/// Opens `queues` queues of the interface, in the calling thread's network namespace. With `make` it must not exist;
/// otherwise it must.
pub(super) fn open_queues(interface: &str, queues: u16, make: bool) -> Result<Vec<OwnedFd>, TapError> {
    let base = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let several = base | libc::IFF_MULTI_QUEUE;
    let first = match attach(interface, if make { several | libc::IFF_TUN_EXCL } else { several }) {
        // The interface was made for one queue only.
        Err(TapError::Flags { .. }) if !make && queues == 1 => attach(interface, base),
        other => other,
    }?;
    let mut opened = vec![first];
    for _ in 1..queues {
        opened.push(attach(interface, several)?);
    }
    for queue in &opened {
        let kernel = |step| move |error| TapError::kernel(interface, step, error);
        let mut header_bytes = libc::c_int::try_from(HEADER_BYTES).unwrap_or_default();
        // SAFETY: the kernel reads one int at the pointer, which lives across the call.
        unsafe { control(queue, libc::TUNSETVNETHDRSZ, (&raw mut header_bytes).addr()) }
            .map_err(kernel("setting the header length"))?;
    }
    Ok(opened)
}

/// Switches on the offloads of the interface whose queues these are. True if UDP segmentation is among them: the kernel
/// knows it from 6.2 on.
pub(super) fn switch_offloads_on(interface: &str, queues: &[OwnedFd]) -> Result<bool, TapError> {
    let always = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // Every queue sets them for the whole interface.
    let Some(queue) = queues.first() else { return Ok(false) };
    // SAFETY: the argument is a number.
    let set = |offloads: libc::c_uint| unsafe { control(queue, libc::TUNSETOFFLOAD, offloads as usize) };
    match set(always | libc::TUN_F_USO4 | libc::TUN_F_USO6) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => set(always).map(|()| false),
        Err(error) => Err(error),
    }
    .map_err(|error| TapError::kernel(interface, "switching offloads on", error))
}

/// Makes an interface that stays without a program at it, which members of `owner` and `group` may open.
///
/// # Errors
/// If there is one of that name already, or the kernel refuses.
pub fn make_persistent(interface: &str, owner: Option<u32>, group: Option<u32>) -> Result<(), TapError> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let tap = attach(interface, flags)?;
    for (request, step, id) in
        [(libc::TUNSETOWNER, "setting the owner", owner), (libc::TUNSETGROUP, "setting the group", group)]
    {
        if let Some(id) = id {
            // SAFETY: the argument is a number.
            unsafe { control(&tap, request, id as usize) }.map_err(|error| TapError::kernel(interface, step, error))?;
        }
    }
    // SAFETY: the argument is a number.
    unsafe { control(&tap, libc::TUNSETPERSIST, 1) }
        .map_err(|error| TapError::kernel(interface, "making it persistent", error))
}

/// A new descriptor of the interface.
fn attach(interface: &str, flags: libc::c_int) -> Result<OwnedFd, TapError> {
    use rustix::fs::{Mode, OFlags, open};
    let no_tun = |error: io::Error| TapError::NoTun { interface: interface.to_owned(), source: error };
    let fd = open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| no_tun(error.into()))?;
    let mut request = named(interface)?;
    #[allow(clippy::cast_possible_truncation, reason = "the kernel's flags are 16 bits")]
    let flag_bits = flags as libc::c_short;
    request.ifr_ifru.ifru_flags = flag_bits;
    // SAFETY: the kernel reads and writes one `ifreq` at the pointer, which lives across the call.
    match unsafe { control(&fd, libc::TUNSETIFF, (&raw mut request).addr()) } {
        Ok(()) => Ok(fd),
        Err(Errno::INVAL) => {
            let several = flags & libc::IFF_MULTI_QUEUE != 0;
            let wanted = if several { "multi_queue (ip tuntap add mode tap multi_queue)" } else { "these flags" };
            Err(TapError::Flags { interface: interface.to_owned(), wanted })
        }
        Err(Errno::BUSY | Errno::TOOBIG) => Err(TapError::InUse { interface: interface.to_owned() }),
        Err(Errno::PERM) => Err(no_tun(Errno::PERM.into())),
        Err(error) => Err(TapError::kernel(interface, "opening the interface", error)),
    }
}

/// Reserves the interface for this process, until the descriptor is closed.
pub(super) fn reserve(interface: &str) -> Result<OwnedFd, TapError> {
    let kernel = |error: Errno| TapError::kernel(interface, "reserving the interface", error);
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(kernel)?;
    let name = SocketAddrUnix::new_abstract_name(format!("labsw-tap-{interface}").as_bytes()).map_err(kernel)?;
    match bind(&socket, &name) {
        Ok(()) => Ok(socket),
        Err(Errno::ADDRINUSE) => Err(TapError::InUse { interface: interface.to_owned() }),
        Err(error) => Err(kernel(error)),
    }
}

/// A packet socket that has all frames of the interface, each with a virtio-net header.
pub(super) fn open_interface(interface: &str, ifindex: u32) -> Result<OwnedFd, TapError> {
    let kernel = |step| move |error: io::Error| TapError::kernel(interface, step, error);
    let opening = kernel("opening a packet socket");
    let socket = raw::open(RawSocket::Packet).map_err(opening)?;
    let header_bytes = libc::c_int::try_from(HEADER_BYTES).unwrap_or_default();
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES),
        (libc::SOL_PACKET, libc::PACKET_VNET_HDR_SZ, header_bytes),
        (libc::SOL_PACKET, libc::PACKET_AUXDATA, 1),
        // Receive only frames from the guest; and frames of the switch bypass the host's queues and hooks.
        (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1),
        (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1),
    ] {
        set(&socket, level, option, value).map_err(kernel("preparing the packet socket"))?;
    }
    // SAFETY: all-zero is a valid `sockaddr_ll`: integers.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    address.sll_ifindex = i32::try_from(ifindex).unwrap_or_default();
    let bytes = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    // SAFETY: the kernel reads `bytes` bytes at the pointer, those of `address`, which lives across the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), bytes) };
    if bound < 0 {
        return Err(kernel("binding the packet socket")(io::Error::last_os_error()));
    }
    // Clears the pending error (ENETDOWN) of an interface that is down; otherwise the next sender would get it.
    rustix::net::sockopt::socket_error(&socket)
        .map(drop)
        .map_err(|error| kernel("asking the packet socket")(error.into()))?;
    Ok(socket)
}

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Its offsets count without a tag that the kernel told beside the frame.
    pub(super) header: Header,
    /// Length of that tag, bytes; 0 if there was none.
    pub(super) tag_bytes: u16,
    /// Where the frame begins in its slot, bytes.
    pub(super) offset: usize,
    /// Its length, bytes, tag included; more than a frame may have if it was longer.
    pub(super) bytes: usize,
}

/// Receives one frame into a slot.
///
/// # Safety
/// `slot` is a slot of [`super::buffers::Buffers`] that nobody reads.
#[inline]
pub(super) unsafe fn receive(fd: BorrowedFd<'_>, end: End, slot: *mut u8) -> Result<Received, Errno> {
    let mut header: Header = [0; HEADER_BYTES];
    // SAFETY: the slot has headroom and room behind it (caller).
    let room = unsafe { slot.add(HEADROOM_BYTES) };
    let mut pieces = [
        libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: HEADER_BYTES },
        libc::iovec { iov_base: room.cast(), iov_len: ROOM_BYTES },
    ];
    let (taken, tag) = match end {
        // SAFETY: both pieces are writable for their lengths (above) and live across the call.
        End::Tun { .. } => (unsafe { libc::readv(fd.as_raw_fd(), pieces.as_ptr(), 2) }, None),
        End::Interface => {
            let mut beside = [0u64; 8];
            // SAFETY: all-zero is a valid `msghdr`.
            let mut message: libc::msghdr = unsafe { zeroed() };
            message.msg_iov = pieces.as_mut_ptr();
            message.msg_iovlen = 2;
            message.msg_control = beside.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&beside) as _;
            // SAFETY: `message` points to the pieces, as above, and to as much room as it says; all live across the
            // call.
            let taken = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
            // SAFETY: on success the kernel left whole control messages in `beside`.
            (taken, if taken < 0 { None } else { unsafe { tag_beside(&message) } })
        }
    };
    let Ok(taken) = usize::try_from(taken) else { return Err(last_errno()) };
    let bytes = taken.saturating_sub(HEADER_BYTES);
    match tag {
        Some(tag) if bytes >= TAG_OFFSET => {
            // SAFETY: all within the slot: the addresses move into the headroom, the tag comes where their end was.
            unsafe {
                std::ptr::copy(room, slot, TAG_OFFSET);
                slot.add(TAG_OFFSET).copy_from_nonoverlapping(tag.as_ptr(), TAG_BYTES);
            }
            let bytes = bytes + TAG_BYTES;
            #[allow(clippy::cast_possible_truncation, reason = "4")]
            let tag_bytes = TAG_BYTES as u16;
            Ok(Received { header, tag_bytes, offset: HEADROOM_BYTES - TAG_BYTES, bytes })
        }
        _ => Ok(Received { header, tag_bytes: 0, offset: HEADROOM_BYTES, bytes }),
    }
}

/// The outer VLAN tag that the kernel tells beside a frame.
///
/// # Safety
/// The kernel has filled `message`, and its control messages are still where it points.
unsafe fn tag_beside(message: &libc::msghdr) -> Option<[u8; TAG_BYTES]> {
    // SAFETY: the caller's contract is that of the macro.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    if first.is_null() {
        return None;
    }
    // SAFETY: not null, so a whole header.
    let control = unsafe { first.read_unaligned() };
    if control.cmsg_level != libc::SOL_PACKET || control.cmsg_type != libc::PACKET_AUXDATA {
        return None;
    }
    // SAFETY: the kernel's message of this type holds a `tpacket_auxdata`.
    let auxiliary = unsafe { libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned() };
    if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let typed = auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let [a, b] = if typed { auxiliary.tp_vlan_tpid } else { TPID_C_TAG }.to_be_bytes();
    let [c, d] = auxiliary.tp_vlan_tci.to_be_bytes();
    Some([a, b, c, d])
}

/// Sends one frame that lies in `frame`, in order; at most [`PIECES`] count.
///
/// # Safety
/// Each piece is readable for its length, if only for the kernel: unmapped memory is answered with `EFAULT`.
#[inline]
pub(super) unsafe fn send(fd: BorrowedFd<'_>, header: &Header, frame: &[Segment]) -> Result<(), Errno> {
    let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut pieces = [nothing; PIECES + 1];
    let segments = frame.iter().map(|piece| (piece.ptr, piece.len as usize));
    let mut count: libc::c_int = 0;
    for (to, (ptr, len)) in pieces.iter_mut().zip(std::iter::once((header.as_ptr(), HEADER_BYTES)).chain(segments)) {
        *to = libc::iovec { iov_base: ptr.cast_mut().cast(), iov_len: len };
        count += 1;
    }
    // SAFETY: `count` pieces were set, each readable (caller); the kernel writes to none of them.
    let sent = unsafe { libc::writev(fd.as_raw_fd(), pieces.as_ptr(), count) };
    if sent < 0 { Err(last_errno()) } else { Ok(()) }
}

/// True if this descriptor of `/dev/net/tun` belongs to an interface: one that was deleted leaves it without.
pub(super) fn is_attached(queue: &OwnedFd) -> bool {
    // SAFETY: all-zero is a valid `ifreq`: integers, and a union whose pointer is not used.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // SAFETY: the kernel writes one `ifreq` at the pointer, which lives across the call.
    unsafe { control(queue, libc::TUNGETIFF, (&raw mut request).addr()) }.is_ok()
}

/// True if a program has the other end of the interface open.
pub(super) fn is_opened(socket: &OwnedFd, interface: &str) -> bool {
    // `struct ethtool_value`. The carrier as it is now: `IFF_RUNNING` follows it up to a second late.
    let mut link = [ETHTOOL_GLINK, 0u32];
    let Ok(mut request) = named(interface) else { return false };
    request.ifr_ifru.ifru_data = link.as_mut_ptr().cast();
    // SAFETY: the kernel reads one `ifreq` at the pointer, and reads and writes the two numbers that it points to; both
    // live across the call.
    let asked = unsafe { control(socket, SIOCETHTOOL, (&raw mut request).addr()) };
    asked.is_ok() && link != [ETHTOOL_GLINK, 0]
}

/// A request that names the interface.
fn named(interface: &str) -> Result<libc::ifreq, TapError> {
    // SAFETY: all-zero is a valid `ifreq`: integers, and a union whose pointer is not used.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(TapError::kernel(interface, "naming the interface", Errno::NAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// ioctl(2).
///
/// # Safety
/// `argument` is what the kernel expects for `request`: a number, or the address of something that lives across the
/// call.
unsafe fn control(fd: &OwnedFd, request: libc::Ioctl, argument: usize) -> Result<(), Errno> {
    // SAFETY: the caller's contract.
    if unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) } < 0 { Err(last_errno()) } else { Ok(()) }
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let bytes = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the kernel reads one int at the pointer, which lives across the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
