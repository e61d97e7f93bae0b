//! Virtio-net headers that ask for what cannot be done. None of them is a fault: a frame is dropped, or passes.

use crate::End::{self, Lives};
use crate::driver::{Driver, TX, piece};

/// A header before a frame.
pub(crate) struct Header {
    pub(crate) name: &'static str,
    pub(crate) end: End,
    flags: u8,
    gso: u8,
    /// Header length, segment size, start and offset of the checksum, number of buffers.
    numbers: [u16; 5],
    frame: Kind,
}

/// A frame to send.
#[derive(Clone, Copy)]
enum Kind {
    /// 46 bytes of an unknown type.
    Plain,
    /// TCP over IPv4 with so many bytes of payload.
    Tcp(usize),
    /// UDP over IPv4 with so many bytes of payload.
    Udp(usize),
    /// IPv4 whose total length is wrong.
    Lies,
    /// A VLAN tag in front.
    Tagged,
}

const fn header(name: &'static str, flags: u8, gso: u8, numbers: [u16; 5], frame: Kind) -> Header {
    Header { name, end: Lives, flags, gso, numbers, frame }
}

use Kind::{Lies, Plain, Tagged, Tcp, Udp};

const MAX: u16 = u16::MAX;
/// Where TCP begins, and its checksum in there.
const START: u16 = 34;
const OFFSET: u16 = 16;
/// Where UDP has its checksum.
const UDP_OFFSET: u16 = 6;

/// All headers.
pub(crate) const HEADERS: &[Header] = &[
    header("all bits set", MAX.to_le_bytes()[0], MAX.to_le_bytes()[0], [MAX; 5], Plain),
    header("all bits set before TCP", MAX.to_le_bytes()[0], MAX.to_le_bytes()[0], [MAX; 5], Tcp(3000)),
    header("a segmentation that does not exist", 1, 2, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("segmentation kind 127", 1, 0x7f, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("fragmentation of UDP, before TCP", 1, 3, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("segmentation of UDP, before TCP", 1, 5, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("fragmentation of UDP", 1, 3, [42, 1448, START, UDP_OFFSET, 0], Udp(3000)),
    header("segmentation of UDP with a congestion bit", 1, 0x85, [42, 1448, START, UDP_OFFSET, 0], Udp(3000)),
    header("segmentation of UDP without a checksum", 0, 5, [42, 1448, START, UDP_OFFSET, 0], Udp(3000)),
    header("segmentation of UDP with the checksum of TCP", 1, 5, [42, 1448, START, OFFSET, 0], Udp(3000)),
    header("datagrams of 0 bytes", 1, 5, [42, 0, START, UDP_OFFSET, 0], Udp(3000)),
    header("datagrams of 1 byte", 1, 5, [42, 1, START, UDP_OFFSET, 0], Udp(60000)),
    header("datagrams of 120 bytes", 1, 5, [42, 120, START, UDP_OFFSET, 0], Udp(60000)),
    header("segmentation of IPv6, before IPv4", 1, 4, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("congestion notification alone", 1, 0x80, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("congestion notification that was not negotiated", 1, 0x81, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("segmentation without a checksum", 0, 1, [54, 1448, START, OFFSET, 0], Tcp(3000)),
    header("segmentation of what is not IP", 1, 1, [54, 1448, START, OFFSET, 0], Plain),
    header("segmentation of a tagged frame", 1, 1, [58, 1448, START + 4, OFFSET, 0], Tagged),
    header("segments of 0 bytes", 1, 1, [54, 0, START, OFFSET, 0], Tcp(3000)),
    header("segments of 1 byte", 1, 1, [54, 1, START, OFFSET, 0], Tcp(60000)),
    header("segments of 8 bytes", 1, 1, [54, 8, START, OFFSET, 0], Tcp(60000)),
    header("segments of 65535 bytes", 1, 1, [54, MAX, START, OFFSET, 0], Tcp(3000)),
    header("a header of 0 bytes", 1, 1, [0, 1448, START, OFFSET, 0], Tcp(3000)),
    header("a header of 65535 bytes", 1, 1, [MAX, 1448, START, OFFSET, 0], Tcp(3000)),
    header("a total length that lies", 1, 1, [54, 1448, START, OFFSET, 0], Lies),
    header("a checksum from the first byte on", 1, 0, [0, 0, 0, 0, 0], Tcp(100)),
    header("a checksum over the type of the frame", 1, 0, [0, 0, 12, 0, 0], Tcp(100)),
    header("a checksum over the addresses of IP", 1, 0, [0, 0, 14, 12, 0], Tcp(100)),
    header("a checksum over the ports", 1, 0, [0, 0, START, 0, 0], Tcp(100)),
    header("a checksum from the last byte on", 1, 0, [0, 0, 153, 0, 0], Tcp(100)),
    header("a checksum behind the frame", 1, 0, [0, 0, START, 119, 0], Tcp(100)),
    header("a checksum that starts behind the frame", 1, 0, [0, 0, 154, 0, 0], Tcp(100)),
    header("a checksum start of 65535", 1, 0, [0, 0, MAX, OFFSET, 0], Tcp(100)),
    header("a checksum offset of 65535", 1, 0, [0, 0, START, MAX, 0], Tcp(100)),
    header("start and offset that wrap together", 1, 0, [0, 0, MAX - 15, 50, 0], Tcp(100)),
    header("an odd checksum start", 1, 0, [0, 0, START + 1, OFFSET, 0], Tcp(100)),
    header("a checksum of what is not IP", 1, 0, [0, 0, START, OFFSET, 0], Plain),
    Header { end: End::Passes, ..header("65535 buffers in a frame to send", 0, 0, [0, 0, 0, 0, MAX], Plain) },
    Header { end: End::Passes, ..header("numbers without a flag", 0, 0, [MAX; 5], Plain) },
    Header { end: End::Passes, ..header("a checksum that is said to be good", 2, 0, [0; 5], Plain) },
];

/// An IPv4 packet with TCP; `lie` is added to its total length.
fn tcp(payload: usize, lie: u16) -> Vec<u8> {
    let total = u16::try_from(40 + payload).expect("fits").wrapping_add(lie);
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 3, 0xe8, 0, 0, 0, 0]);
    packet.resize(40 + payload, b'z');
    packet
}

/// An IPv4 packet with UDP.
fn udp(payload: usize) -> Vec<u8> {
    let mut packet = tcp(payload - 12, 0);
    packet[9] = 17;
    packet[24..26].copy_from_slice(&u16::try_from(8 + payload).expect("fits").to_be_bytes());
    packet
}

/// Sends a frame behind a header.
pub(crate) fn play(driver: &mut Driver, header: &Header) {
    driver.begin_for(TX);
    let mut bytes = vec![header.flags, header.gso];
    header.numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    match header.frame {
        Plain => bytes.extend(&driver.request()[bytes.len()..]),
        Tcp(payload) => bytes.extend(driver.frame(0x0800, &tcp(payload, 0))),
        Udp(payload) => bytes.extend(driver.frame(0x0800, &udp(payload))),
        Lies => bytes.extend(driver.frame(0x0800, &tcp(3000, 1000))),
        Tagged => bytes.extend(driver.frame(0x8100, &[&[0, 10, 8, 0][..], &tcp(3000, 0)].concat())),
    }
    let at = driver.large_room();
    driver.memory.write(at, &bytes);
    driver.post(TX, &[piece(at, u32::try_from(bytes.len()).expect("fits"), 0)]);
    driver.provoke(TX);
}
