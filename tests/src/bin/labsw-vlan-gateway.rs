//! `labsw-vlan-gateway --parent g0 --vlan 10=gw10 --vlan 20=gw20`: 802.1Q in user space, for a network namespace whose
//! kernel has no VLAN devices.
//!
//! One TAP interface is made per VLAN. A frame that arrives on the parent with an outer 802.1Q tag of a listed VLAN is
//! written untagged to that VLAN's TAP; a frame the host sends on a TAP leaves the parent with the tag, priority 0.
//! Frames of other VLANs, and untagged and priority-tagged ones, are dropped (802.1Q-2022 clause 8.6.2: a port that
//! admits tagged frames only).
//!
//! The TAPs have no vnet header, so the kernel finishes checksums and cuts segments before a frame is read from one.
//! They vanish with the process: any signal that ends it cleans up. It sleeps in poll(2) while nothing comes, and says
//! `ready` on standard output once the TAPs are there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use labsw_tests::packet::{RawSocket, TPID_8021Q};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};

const USAGE: &str = "usage: labsw-vlan-gateway --parent INTERFACE --vlan ID=TAP [--vlan ID=TAP]...";
/// Frames handled per descriptor before the others get their turn.
const BURST: usize = 64;
/// Bytes that the trunk's socket can hold each way.
const BUFFER: usize = 16 << 20;
const TAG_OFFSET: usize = 12;
const TAG_LEN: usize = 4;

struct Vlan {
    id: u16,
    tap: File,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|(parent, vlans)| run(&parent, &vlans).map_err(|e| e.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("labsw-vlan-gateway: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The parent's name, and (VLAN id, TAP name) of each VLAN.
fn parse(mut args: impl Iterator<Item = String>) -> Result<(String, Vec<(u16, String)>), String> {
    let (mut parent, mut vlans) = (None, Vec::new());
    while let Some(option) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match option.as_str() {
            "--parent" => parent = Some(value),
            "--vlan" => {
                let (id, tap) = value.split_once('=').ok_or(USAGE)?;
                let id = id.parse().ok().filter(|id| (1..=4094).contains(id));
                vlans.push((id.ok_or_else(|| format!("{value}: a VLAN id is 1 to 4094"))?, tap.to_owned()));
            }
            _ => return Err(format!("unknown option {option}; {USAGE}")),
        }
    }
    match parent {
        Some(parent) if !vlans.is_empty() => Ok((parent, vlans)),
        _ => Err(USAGE.to_owned()),
    }
}

fn run(parent: &str, vlans: &[(u16, String)]) -> io::Result<()> {
    let trunk = RawSocket::open_here(parent).map_err(|e| io::Error::other(format!("{parent}: {e}")))?;
    // A burst of jumbo frames waits here while this program does.
    set_socket_recv_buffer_size_force(&trunk, BUFFER)?;
    set_socket_send_buffer_size_force(&trunk, BUFFER)?;
    let open = |(id, name): &(u16, String)| {
        let tap = open_tap(name).map_err(|e| io::Error::other(format!("TAP {name}: {e}")))?;
        Ok(Vlan { id: *id, tap })
    };
    let mut vlans = vlans.iter().map(open).collect::<io::Result<Vec<Vlan>>>()?;
    println!("ready");
    loop {
        let mut polled: Vec<PollFd<'_>> = vec![PollFd::new(&trunk, PollFlags::IN)];
        polled.extend(vlans.iter().map(|vlan| PollFd::new(&vlan.tap, PollFlags::IN)));
        poll(&mut polled, None)?;
        from_trunk(&trunk, &mut vlans)?;
        for vlan in &mut vlans {
            to_trunk(vlan, &trunk)?;
        }
    }
}

/// One burst from the trunk to the TAPs.
fn from_trunk(trunk: &RawSocket, vlans: &mut [Vlan]) -> io::Result<()> {
    for _ in 0..BURST {
        let mut frame = match trunk.try_recv() {
            Ok(frame) => frame,
            Err(e) if is_transient(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        let tag = frame.get(TAG_OFFSET..TAG_OFFSET + TAG_LEN);
        let Some(&[t0, t1, c0, c1]) = tag else { continue };
        let id = u16::from_be_bytes([c0, c1]) & 0x0fff;
        let Some(vlan) = vlans.iter_mut().find(|vlan| vlan.id == id) else { continue };
        if u16::from_be_bytes([t0, t1]) == TPID_8021Q {
            frame.drain(TAG_OFFSET..TAG_OFFSET + TAG_LEN);
            // A TAP that is down or full refuses the frame: it is lost, as on any interface.
            drop(vlan.tap.write(&frame));
        }
    }
    Ok(())
}

/// One burst from a TAP to the trunk.
fn to_trunk(vlan: &mut Vlan, trunk: &RawSocket) -> io::Result<()> {
    let mut buffer = [0; 65_536];
    for _ in 0..BURST {
        let length = match vlan.tap.read(&mut buffer) {
            Ok(length) => length,
            Err(e) if is_transient(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        let (Some(addresses), Some(rest)) = (buffer.get(..TAG_OFFSET), buffer.get(TAG_OFFSET..length)) else {
            continue;
        };
        let frame = [addresses, &TPID_8021Q.to_be_bytes(), &vlan.id.to_be_bytes(), rest].concat();
        // A full or down trunk loses the frame, as on any interface.
        drop(trunk.try_send(&frame));
    }
    Ok(())
}

/// Nothing there now, or the interface is down for the moment: poll again.
fn is_transient(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || matches!(e.raw_os_error(), Some(libc::ENETDOWN | libc::EIO))
}

/// Makes the TAP interface `name`, without a vnet header.
fn open_tap(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::other("an interface name has 1 to 15 bytes"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads an ifreq, which `request` is and outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
