//! Exact frames in and out of an interface, and builders for them.
//!
//! [`RawSocket`] is an `AF_PACKET` socket. The kernel takes the outer VLAN tag out of a received frame and hands it
//! over beside it (`PACKET_AUXDATA`, packet(7)); it is put back here, with its own tag protocol id, so a received
//! frame is what was on the wire. Frames are sent as they are given: no offload is asked for. Frames the host itself
//! sends on the interface are not received.
//!
//! Interface MTU and queue limits apply; a frame includes its Ethernet header and no frame check sequence.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "constants and sizes of the C interface fit"
)]

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::netns::Netns;

/// A MAC address.
pub type Mac = [u8; 6];

/// The broadcast address.
pub const BROADCAST: Mac = [0xff; 6];
/// Tag protocol id of an 802.1Q customer tag.
pub const TPID_8021Q: u16 = 0x8100;
/// Tag protocol id of an 802.1ad service tag.
pub const TPID_8021AD: u16 = 0x88a8;
/// IEEE's ethertype for local experiments: no host reacts to it.
pub const ETHERTYPE_TEST: u16 = 0x88b5;

/// A unicast, locally administered address that differs by `n`.
pub fn mac(n: u8) -> Mac {
    [0x02, 0, 0, 0, 0, n]
}

/// Builds one Ethernet frame.
#[derive(Clone, Debug)]
pub struct Frame {
    dst: Mac,
    src: Mac,
    tags: Vec<(u16, u16)>,
    ethertype: u16,
    payload: Vec<u8>,
}

impl Frame {
    /// An untagged frame with [`ETHERTYPE_TEST`] and 46 bytes of zeros.
    pub fn new(dst: Mac, src: Mac) -> Self {
        Self { dst, src, tags: Vec::new(), ethertype: ETHERTYPE_TEST, payload: vec![0; 46] }
    }

    /// Adds an 802.1Q tag behind those there are, priority 0.
    #[must_use]
    pub fn vlan(self, vid: u16) -> Self {
        self.tag(TPID_8021Q, vid)
    }

    /// Adds an 802.1Q tag with VLAN id 0 and the priority `pcp` (0 to 7).
    #[must_use]
    pub fn priority(self, pcp: u16) -> Self {
        self.tag(TPID_8021Q, pcp << 13)
    }

    /// Adds a tag with any tag protocol id and tag control information (PCP 3 bits, DEI 1, VID 12).
    #[must_use]
    pub fn tag(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push((tpid, tci));
        self
    }

    /// Replaces the ethertype.
    #[must_use]
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = ethertype;
        self
    }

    /// Replaces the payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Starts the payload with `n`, big endian, so that frames of a run can be told apart.
    #[must_use]
    pub fn number(mut self, n: u32) -> Self {
        self.payload[..4].copy_from_slice(&n.to_be_bytes());
        self
    }

    /// The frame's bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = [self.dst, self.src].concat();
        for (tpid, tci) in &self.tags {
            frame.extend_from_slice(&tpid.to_be_bytes());
            frame.extend_from_slice(&tci.to_be_bytes());
        }
        frame.extend_from_slice(&self.ethertype.to_be_bytes());
        frame.extend_from_slice(&self.payload);
        frame
    }
}

/// An `AF_PACKET` socket on one interface, promiscuous.
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
}

impl RawSocket {
    /// Opens a socket on an interface of `ns`.
    ///
    /// # Panics
    /// When the interface is missing or the right to open one is.
    pub fn open(ns: &Netns, interface: &str) -> Self {
        ns.enter(|| Self::open_here(interface)).unwrap_or_else(|e| panic!("raw socket on {interface}: {e}"))
    }

    /// Opens a socket on an interface of the caller's own namespace.
    ///
    /// # Errors
    /// What the kernel says: no such interface, no right.
    pub fn open_here(interface: &str) -> io::Result<Self> {
        let protocol = u16::to_be(libc::ETH_P_ALL as u16);
        // Protocol 0 first: nothing may arrive before the socket is bound to its interface.
        // SAFETY: plain system call.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        check(fd)?;
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = CString::new(interface)?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let index = i32::try_from(index).map_err(io::Error::other)?;
        set_option(&fd, libc::PACKET_AUXDATA, &1_i32)?;
        set_option(&fd, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(&fd, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_ll of the given length that outlives the call.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Self { fd })
    }

    /// From now on every frame sent, and received, has a virtio-net header of 10 bytes in front, which the driver gets
    /// or gave.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take_headers(&self) -> io::Result<()> {
        set_option(&self.fd, libc::PACKET_VNET_HDR, &1_i32)
    }

    /// Sends one frame.
    ///
    /// # Panics
    /// When the kernel does not take the whole of it.
    pub fn send(&self, frame: &[u8]) {
        let sent = self.try_send(frame);
        assert_eq!(sent.as_ref().ok(), Some(&frame.len()), "send of {} bytes: {sent:?}", frame.len());
    }

    /// Sends one frame, gives the number of bytes taken.
    ///
    /// # Errors
    /// What the kernel says: interface down, frame too long.
    pub fn try_send(&self, frame: &[u8]) -> io::Result<usize> {
        // SAFETY: pointer and length are those of `frame`.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// The next frame with its tag in place; `None` when none comes within `timeout`.
    ///
    /// # Panics
    /// On any error but that.
    pub fn recv(&self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.try_recv() {
                Ok(frame) => return Some(frame),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => panic!("receive on a raw socket: {e}"),
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let left = Timespec::try_from(left).expect("a timeout of a test fits");
            // Woken early or not, the next turn looks again.
            let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&left));
        }
    }

    /// The next frame for which `wanted` holds; others are skipped.
    pub fn recv_matching(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let frame = self.recv(deadline.checked_duration_since(Instant::now())?)?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Every frame until none has come for `quiet`.
    pub fn recv_all(&self, quiet: Duration) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.recv(quiet)).collect()
    }

    /// The next frame that waits already, with its tag in place.
    ///
    /// # Errors
    /// `WouldBlock` when none waits, else what the kernel says (`ENETDOWN` once after the interface went down).
    pub fn try_recv(&self) -> io::Result<Vec<u8>> {
        self.try_recv_with_state().map(|(frame, _)| frame)
    }

    /// As [`RawSocket::try_recv`], and whether the kernel knows that the frame's checksum is still to be finished.
    ///
    /// # Errors
    /// As [`RawSocket::try_recv`].
    pub fn try_recv_with_state(&self) -> io::Result<(Vec<u8>, bool)> {
        let mut frame = vec![0_u8; 65_536 + 18];
        let mut control = [0_u64; 16];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: `message` points to buffers of the lengths it states, which outlive the call.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        frame.truncate(length);
        let auxiliary = auxiliary_data(&message);
        if let Some((tpid, tci)) = auxiliary.as_ref().and_then(stripped_tag) {
            let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
            frame.splice(12..12, tag);
        }
        Ok((frame, auxiliary.is_some_and(|data| data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0)))
    }

    /// Frames that found the socket's buffer full since the last call.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn lost(&self) -> u32 {
        // SAFETY: all-zero is a valid tpacket_stats.
        let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let (fd, place) = (self.fd.as_raw_fd(), (&raw mut stats).cast());
        // SAFETY: pointer and length are those of `stats`, which outlives the call.
        let result = unsafe { libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, place, &raw mut length) };
        check(result).expect("a packet socket has statistics");
        stats.tp_drops
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel says beside the frame of `message`.
fn auxiliary_data(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: the kernel filled in the control part of `message`; the macros stay inside it.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR gave is inside the control part.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
            // SAFETY: this kind of message carries a tpacket_auxdata; it may stand unaligned.
            return Some(unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() });
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// The tag that the kernel took out of a frame: (tag protocol id, tag control information).
fn stripped_tag(data: &libc::tpacket_auxdata) -> Option<(u16, u16)> {
    let has_tpid = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let tpid = if has_tpid { data.tp_vlan_tpid } else { TPID_8021Q };
    (data.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some((tpid, data.tp_vlan_tci))
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_option<T>(fd: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length are those of `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, (&raw const *value).cast(), length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::wire;
    use crate::require::{self, Need};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn frames_are_built_byte_for_byte() {
        let frame = Frame::new(BROADCAST, mac(1)).tag(TPID_8021AD, 0x3064).vlan(20).ethertype(0x0800).payload(b"x");
        let expected = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x88\xa8\x30\x64\x81\x00\x00\x14\x08\x00x";
        assert_eq!(frame.build(), expected);
        assert_eq!(Frame::new(BROADCAST, mac(1)).priority(5).build()[12..16], [0x81, 0, 0xa0, 0]);
    }

    #[test]
    fn tags_survive_a_wire() {
        if !require::all(&[Need::Root]) {
            return;
        }
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        wire((&a, "w0"), (&b, "w1"));
        let (left, right) = (RawSocket::open(&a, "w0"), RawSocket::open(&b, "w1"));
        let plain = Frame::new(BROADCAST, mac(1));
        let frames = [
            plain.clone(),
            plain.clone().vlan(10),
            plain.clone().priority(7),
            plain.clone().vlan(10).vlan(20),
            plain.clone().tag(TPID_8021AD, 0xb00a).vlan(20),
        ];
        for (n, frame) in frames.iter().enumerate() {
            let frame = frame.clone().number(u32::try_from(n).unwrap()).build();
            left.send(&frame);
            assert_eq!(right.recv(SECOND).as_ref(), Some(&frame), "frame {n}");
        }
        assert!(left.recv(Duration::from_millis(50)).is_none(), "own frames are not received");
    }
}
