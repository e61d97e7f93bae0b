//! Facts about the port's device: how many queues are active, and whether it pads short frames.
//!
//! **How it works.** `SIOCETHTOOL` on a datagram socket, in the calling thread's network namespace. The *active*
//! channel counts matter: a veth says 16 is possible while one is active, and binding to another fails.
//!
//! References: kernel `include/uapi/linux/ethtool.h` (`ETHTOOL_GCHANNELS`, `ETHTOOL_GDRVINFO`).

#![allow(unsafe_code, reason = "rings and packet memory shared with the kernel, and its socket calls")]

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// Drivers without a wire: no minimum frame length.
const VIRTUAL_DRIVERS: &[&str] = &["veth", "tun"];

/// Active queues of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    /// Receive queues.
    pub(super) rx: u32,
    /// Transmit queues.
    pub(super) tx: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct EthtoolDriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// The active queues; a driver that can't say has one of each.
pub(super) fn channels(interface: &str) -> io::Result<Channels> {
    let mut channels = EthtoolChannels { command: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    // SAFETY: the layout is the kernel's for this command.
    match unsafe { ethtool(interface, &mut channels) } {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Channels { rx: 1, tx: 1 }),
        Err(error) => return Err(error),
    }
    let sum = |own: u32| own.saturating_add(channels.combined).max(1);
    Ok(Channels { rx: sum(channels.rx), tx: sum(channels.tx) })
}

/// True if the device has a wire, on which no frame is shorter than 60 bytes (without FCS).
pub(super) fn has_wire(interface: &str) -> bool {
    let mut info = EthtoolDriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: the layout is the kernel's for this command: 196 bytes.
    if unsafe { ethtool(interface, &mut info) }.is_err() {
        return true;
    }
    !VIRTUAL_DRIVERS.iter().any(|name| info.driver.split(|&byte| byte == 0).next() == Some(name.as_bytes()))
}

/// One ethtool request.
///
/// # Safety
/// `T` is laid out and at least as long as the kernel expects for the command in its first field.
unsafe fn ethtool<T>(interface: &str, request: &mut T) -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero is a valid `ifreq`: integers and a union with a pointer that is set below.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    ifreq.ifr_ifru.ifru_data = (&raw mut *request).cast::<libc::c_char>();
    // SAFETY: `ifreq` is a terminated name and a pointer to a request of the right layout (caller), both alive across
    // the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut ifreq) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
