//! Frames for the offload tests: built field by field, finished by the module under test, and judged by a naive
//! implementation that shares nothing with it.
#[cfg(feature = "proptest")]
pub mod arbitrary;

#[cfg(feature = "dataplane")]
pub use labsw_dataplane::offload::whole::resolved;
#[cfg(feature = "dataplane")]
use labsw_dataplane::offload::{Request, whole};

pub const DESTINATION: [u8; 6] = [0x02, 0x1a, 0xb5, 0x77, 0, 2];
pub const SOURCE: [u8; 6] = [0x02, 0x1a, 0xb5, 0x77, 0, 1];
pub const FIN: u8 = 1;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const CWR: u8 = 128;

/// A TCP or UDP packet to be built.
#[derive(Clone, Debug)]
pub struct Packet {
    /// TPID and TCI of each VLAN tag, from the outside in.
    pub tags: Vec<(u16, u16)>,
    pub v6: bool,
    /// A multiple of four bytes, at most 40.
    pub ip_options: Vec<u8>,
    /// Kind and bytes of each extension header; the first byte is overwritten with what comes next.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub udp: bool,
    /// A multiple of four bytes, at most 40.
    pub tcp_options: Vec<u8>,
    pub flags: u8,
    pub sequence: u32,
    pub identification: u16,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn tcp(v6: bool, payload: Vec<u8>) -> Packet {
        Packet {
            tags: vec![],
            v6,
            ip_options: vec![],
            extensions: vec![],
            udp: false,
            tcp_options: vec![],
            flags: ACK,
            sequence: 0x1234_5678,
            identification: 0xfffe,
            payload,
        }
    }

    /// Length of the headers.
    pub fn header_bytes(&self) -> usize {
        self.l4() + if self.udp { 8 } else { 20 + self.tcp_options.len() }
    }

    /// Where TCP or UDP begins.
    pub fn l4(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let ip = if self.v6 { 40 + extensions } else { 20 + self.ip_options.len() };
        14 + 4 * self.tags.len() + ip
    }

    /// Where the checksum begins, and where its field is behind that.
    pub fn checksum(&self) -> (u16, u16) {
        (self.l4() as u16, if self.udp { 6 } else { 16 })
    }

    /// A UDP packet.
    pub fn udp(v6: bool, payload: Vec<u8>) -> Packet {
        Packet { udp: true, ..Packet::tcp(v6, payload) }
    }

    /// Segments of `size` bytes of payload: the `gso_type` of the virtio-net header, and the size.
    pub fn segments(&self, size: Option<u16>) -> Option<(u8, u16)> {
        let ecn = if self.flags & CWR != 0 { 0x80 } else { 0 };
        let gso_type = match (self.udp, self.v6) {
            (true, _) => 5,
            (false, false) => 1 | ecn,
            (false, true) => 4 | ecn,
        };
        size.map(|size| (gso_type, size))
    }

    /// The request to finish its checksum, and to cut it into segments of `size` if that is given.
    #[cfg(feature = "dataplane")]
    pub fn request(&self, size: Option<u16>) -> Request {
        whole::request(self.checksum(), self.segments(size))
    }

    /// The frame as a guest leaves it: the sum of the pseudo-header in the checksum field.
    pub fn partial(&self) -> Vec<u8> {
        let mut frame = [DESTINATION, SOURCE].concat();
        for (tpid, tci) in &self.tags {
            frame.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        let l4_bytes = self.header_bytes() - self.l4() + self.payload.len();
        let protocol = if self.udp { 17 } else { 6 };
        let mut pseudo: Vec<u8>;
        if self.v6 {
            frame.extend([0x86, 0xdd]);
            let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).chain([protocol]).collect();
            let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
            frame.extend([0x6a, 0xbc, 0xde, 0xf0]);
            frame.extend(((extensions + l4_bytes) as u16).to_be_bytes());
            frame.extend([kinds[0], 63]);
            let addresses: Vec<u8> = (0..32).map(|n| if n % 16 == 0 { 0xfd } else { n * 7 }).collect();
            frame.extend(&addresses);
            for ((_, bytes), next) in self.extensions.iter().zip(&kinds[1..]) {
                frame.push(*next);
                frame.extend(&bytes[1..]);
            }
            pseudo = addresses;
        } else {
            frame.extend([0x08, 0x00]);
            let l3 = frame.len();
            let bytes = 20 + self.ip_options.len();
            frame.extend([0x40 | (bytes / 4) as u8, 0x02]);
            frame.extend(((bytes + l4_bytes) as u16).to_be_bytes());
            frame.extend(self.identification.to_be_bytes());
            frame.extend([0x40, 0, 61, protocol, 0, 0]);
            let addresses = [10, 1, 2, 3, 10, 200, 201, 202];
            frame.extend(addresses);
            frame.extend(&self.ip_options);
            let checksum = !naive_sum(&frame[l3..]);
            frame[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
            pseudo = addresses.to_vec();
        }
        pseudo.extend([0, protocol]);
        pseudo.extend((l4_bytes as u32).to_be_bytes());
        let pseudo = naive_sum(&pseudo);
        frame.extend([0x9c, 0x40, 0x01, 0xbb]);
        if self.udp {
            frame.extend((l4_bytes as u16).to_be_bytes());
            frame.extend(pseudo.to_be_bytes());
        } else {
            frame.extend(self.sequence.to_be_bytes());
            frame.extend([0x0a, 0x0b, 0x0c, 0x0d]);
            frame.extend([((20 + self.tcp_options.len()) / 4 * 16) as u8, self.flags, 0x20, 0x21]);
            frame.extend(pseudo.to_be_bytes());
            frame.extend([0x00, 0x05]);
            frame.extend(&self.tcp_options);
        }
        frame.extend(&self.payload);
        frame
    }
}

/// Bytes that look like nothing in particular.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The ones' complement sum as RFC 1071 words it: 16 bits at a time, end-around carry.
pub fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u16;
    for pair in bytes.chunks(2) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (wrapped, carry) = sum.overflowing_add(word);
        sum = wrapped + u16::from(carry);
    }
    sum
}

/// A finished TCP or UDP frame without routing headers, as a receiver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// 0 of UDP, and so the flags.
    pub sequence: u32,
    pub flags: u8,
    pub identification: u16,
    pub payload: Vec<u8>,
    /// The headers with everything cleared that differs from segment to segment.
    pub constant: Vec<u8>,
}

/// Reads a finished frame of the form of `packet` and checks all its lengths and checksums.
pub fn received(frame: &[u8], packet: &Packet) -> Seen {
    let (l3, l4, header_bytes) = (14 + 4 * packet.tags.len(), packet.l4(), packet.header_bytes());
    let mut constant = frame[..header_bytes].to_vec();
    let length = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let mut pseudo;
    let mut identification = 0;
    if packet.v6 {
        assert_eq!(length(l3 + 4), frame.len() - l3 - 40, "payload length");
        pseudo = frame[l3 + 8..l3 + 40].to_vec();
        constant[l3 + 4..l3 + 6].fill(0);
    } else {
        assert_eq!(length(l3 + 2), frame.len() - l3, "total length");
        assert_eq!(naive_sum(&frame[l3..l4]), 0xffff, "IPv4 header checksum");
        pseudo = frame[l3 + 12..l3 + 20].to_vec();
        identification = length(l3 + 4) as u16;
        constant[l3 + 2..l3 + 6].fill(0);
        constant[l3 + 10..l3 + 12].fill(0);
    }
    pseudo.extend([0, if packet.udp { 17 } else { 6 }]);
    pseudo.extend(((frame.len() - l4) as u32).to_be_bytes());
    pseudo.extend(&frame[l4..]);
    assert_eq!(naive_sum(&pseudo), 0xffff, "checksum of TCP or UDP");
    let payload = frame[header_bytes..].to_vec();
    if packet.udp {
        assert_eq!(length(l4 + 4), frame.len() - l4, "UDP length");
        assert_ne!(length(l4 + 6), 0, "a UDP checksum of 0 is none");
        constant[l4 + 4..l4 + 8].fill(0);
        return Seen { sequence: 0, flags: 0, identification, payload, constant };
    }
    constant[l4 + 4..l4 + 8].fill(0);
    constant[l4 + 13] &= !(FIN | PSH | CWR);
    constant[l4 + 16..l4 + 18].fill(0);
    Seen {
        sequence: u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().unwrap()),
        flags: frame[l4 + 13],
        identification,
        payload,
        constant,
    }
}
