//! Datagrams of every size, each sent, sent back by the far end and compared: UDP to an echo service, and ICMP echo.
//! The program `labsw-sweep` runs this in namespaces and guests.
//!
//! A datagram's content depends on its size, so that each has another checksum. Every sixteenth UDP datagram is made to
//! have the checksum zero, which is sent as ones (RFC 768) because zero says that there is none.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::checksum::sum;

/// The port of the echo service.
pub const ECHO_PORT: u16 = 7;
/// How late an answer may be.
const PATIENCE: Duration = Duration::from_secs(5);
/// A sweep ends at so many datagrams that failed.
const FAILURES: usize = 5;
/// ICMP's header for echo.
const ICMP_HEADER: usize = 8;
/// Bytes that fit into no datagram.
const BUFFER: usize = 65_536;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP to [`ECHO_PORT`].
    Udp,
    /// ICMP or ICMPv6 echo.
    Icmp,
}

/// Reads sizes like `0-1472,2000-9000/97`: ranges with a step, and single ones.
///
/// # Errors
/// The part that is not understood.
pub fn sizes(text: &str) -> Result<Vec<usize>, String> {
    let mut sizes = Vec::new();
    for part in text.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().map_err(|e| format!("{part}: {e}"));
        sizes.extend((number(from)?..=number(to)?).step_by(number(step)?.max(1)));
    }
    Ok(sizes)
}

/// Sends back every datagram that comes to [`ECHO_PORT`], for ever.
///
/// # Errors
/// Why the socket can't go on.
pub fn echo() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORT))?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
}

/// Sends a datagram of each size (bytes behind the UDP or ICMP header) and waits for it; gives what failed.
///
/// # Errors
/// Why no datagram can be sent at all.
pub fn run(kind: Kind, to: IpAddr, sizes: &[usize]) -> io::Result<Vec<String>> {
    let socket = open(kind, to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (from, mut buffer, mut failures) = (socket.local_addr()?, vec![0; BUFFER], Vec::new());
    for (number, &size) in sizes.iter().enumerate() {
        let mut data = content(size);
        if kind == Kind::Udp && size % 16 == 5 {
            make_checksum_zero(&mut data, from, SocketAddr::new(to, ECHO_PORT));
        }
        let result = match kind {
            Kind::Udp => exchange(&socket, &data, &data, &mut buffer),
            Kind::Icmp => {
                let (ask, answer) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
                let sequence = u16::try_from(number % BUFFER).unwrap_or(0).to_be_bytes();
                let message = |kind: u8| [&[kind, 0, 0, 0, 0, 0], sequence.as_slice(), &data].concat();
                exchange(&socket, &message(ask), &message(answer)[ICMP_HEADER - 2..], &mut buffer)
            }
        };
        if let Err(why) = result {
            failures.push(format!("{size} bytes: {why}"));
            if failures.len() == FAILURES {
                break;
            }
        }
    }
    Ok(failures)
}

/// A connected socket; for ICMP one of the kernel's own for ping, which fills in identifier and checksum (icmp(7)).
fn open(kind: Kind, to: IpAddr) -> io::Result<UdpSocket> {
    let (family, any, icmp) = if to.is_ipv4() {
        (AddressFamily::INET, "0.0.0.0:0", ipproto::ICMP)
    } else {
        (AddressFamily::INET6, "[::]:0", ipproto::ICMPV6)
    };
    let socket = match kind {
        Kind::Udp => UdpSocket::bind(any)?,
        Kind::Icmp => {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
            UdpSocket::from(socket(family, SocketType::DGRAM, Some(icmp))?)
        }
    };
    socket.connect((to, ECHO_PORT))?;
    Ok(socket)
}

/// Sends `data` and waits for what ends in `expected`.
fn exchange(socket: &UdpSocket, data: &[u8], expected: &[u8], buffer: &mut [u8]) -> Result<(), String> {
    socket.send(data).map_err(|e| format!("send: {e}"))?;
    let sent = Instant::now();
    let length = socket.recv(buffer).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => format!("no answer within {:?}", sent.elapsed()),
        _ => format!("receive: {e}"),
    })?;
    let (got, header) = (&buffer[..length], data.len() - expected.len());
    if got.len() != data.len() {
        return Err(format!("an answer of {} bytes to {}", got.len(), data.len()));
    }
    let differs = got[header..].iter().zip(expected).position(|(got, expected)| got != expected);
    differs.map_or(Ok(()), |at| Err(format!("the answer differs at byte {at}")))
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| ((at + size).wrapping_mul(0x9e37_79b1) >> 13).to_le_bytes()[0]).collect()
}

/// Chooses the first two bytes so that the datagram's UDP checksum is zero.
fn make_checksum_zero(data: &mut [u8], from: SocketAddr, to: SocketAddr) {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    data[..2].fill(0);
    // Addresses and protocol stand in the pseudo-header, the length there and in the header.
    let length = u16::try_from(data.len() + 8).unwrap_or(0);
    let fields = [17, length, length, from.port(), to.port()].map(u16::to_be_bytes).concat();
    let rest = sum(&[&bytes(from.ip()), &bytes(to.ip()), &fields, data]);
    data[..2].copy_from_slice(&(!rest).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_ranges_and_single_numbers() {
        assert_eq!(sizes("0-3,10-20/5,7"), Ok(vec![0, 1, 2, 3, 10, 15, 20, 7]));
        assert!(sizes("1-x").is_err());
    }

    #[test]
    fn chosen_content_sums_to_checksum_zero() {
        let (from, to) = ("10.1.0.1:40000".parse().unwrap(), "10.1.0.2:7".parse().unwrap());
        let mut data = content(21);
        make_checksum_zero(&mut data, from, to);
        let pseudo_header = [10, 1, 0, 1, 10, 1, 0, 2, 0, 17, 0, 29];
        let header = [40000_u16, 7, 29, 0].map(u16::to_be_bytes).concat();
        assert_eq!(!sum(&[&pseudo_header, &header, &data]), 0);
    }
}
