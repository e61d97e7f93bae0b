//! The loss of one data segment of each TCP connection, and of its first retransmissions.
//!
//! **How it works.** A connection is the addresses and ports of one direction, and the VLAN id of its tag. Its data
//! segments are counted by the highest sequence number so far: one that ends above it is new. The new segment of the
//! number asked for is lost, and so are the next segments that carry its first byte again, as many as asked for. A SYN
//! begins a connection anew; one whose SYN was not seen begins with its first data.
//!
//! **Bound.** [`MAX_CONNECTIONS`] are remembered, in sets of [`WAYS`] that are chosen by a hash with the impairment's
//! seed. A new one takes the place of the one of its set that was silent longest, which begins anew if it speaks again.
//! Frames without data take no place, so a flood of SYNs makes nothing be forgotten.
//!
//! References: RFC 9293 sections 3.1, 3.4 (sequence numbers are compared modulo 2^32); RFC 791; RFC 8200.

use super::SegmentLoss;
use super::random::mix;
use crate::header::Header;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, IPV6_HEADER_BYTES, PROTOCOL_TCP, u16_at};

/// Most connections that are remembered.
pub const MAX_CONNECTIONS: usize = SETS * WAYS;
const SETS: usize = 1024;
const WAYS: usize = 4;

const FLAG_SYN: u8 = 0x02;

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    connection: Connection,
    sequence: u32,
    /// Bytes of data.
    bytes: u32,
    syn: bool,
}

/// One direction of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Connection {
    /// Source and destination; of IPv4 in the first word.
    addresses: [u64; 4],
    /// Ports, VLAN id, EtherType.
    rest: u64,
}

/// The memory of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct Tracked {
    connection: Connection,
    /// The number of the last data segment, of all connections.
    spoke: u64,
    /// The sequence number behind the data so far.
    next: u32,
    /// Data segments so far.
    count: u32,
    /// The first byte of the segment that was lost, once `count` is its number.
    lost: u32,
    /// Retransmissions of it that are still to be lost.
    left: u32,
}

/// The connections of an impairment.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    loss: SegmentLoss,
    seed: u64,
    sets: Vec<[Option<Tracked>; WAYS]>,
    /// Data segments so far, of all connections.
    spoken: u64,
}

impl Segment {
    /// The TCP segment in the frame that begins with `snapshot`. `None` if it has none, or is a later fragment, or its
    /// headers do not lie in the snapshot; extension headers of IPv6 are not passed over.
    pub fn read(snapshot: &[u8]) -> Option<Segment> {
        let header = Header::parse(snapshot).ok()?;
        let ip = snapshot.get(usize::from(header.l3_offset)..)?;
        let (addresses, tcp_at, end) = match header.ethertype {
            ETHERTYPE_IPV4 => {
                let whole = u16_at(ip, 6)? & IPV4_FRAGMENT == 0;
                let is_tcp = ip.first()? >> 4 == 4 && *ip.get(9)? == PROTOCOL_TCP && whole;
                let addresses = is_tcp.then(|| word(ip, 12))??;
                ([addresses, 0, 0, 0], usize::from(ip.first()? & 0xf) * 4, usize::from(u16_at(ip, 2)?))
            }
            ETHERTYPE_IPV6 => {
                let is_tcp = ip.first()? >> 4 == 6 && *ip.get(6)? == PROTOCOL_TCP;
                is_tcp.then_some(())?;
                let addresses = [word(ip, 8)?, word(ip, 16)?, word(ip, 24)?, word(ip, 32)?];
                (addresses, IPV6_HEADER_BYTES, IPV6_HEADER_BYTES + usize::from(u16_at(ip, 4)?))
            }
            _ => return None,
        };
        let tcp = ip.get(tcp_at..)?;
        let [ports @ .., _, _, _, _] = *tcp.first_chunk::<8>()?;
        let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
        let header_bytes = usize::from(tcp.get(12)? >> 4) * 4;
        let bytes = u32::try_from(end.checked_sub(tcp_at + header_bytes)?).ok()?;
        let vlan = header.outer.map_or(0, |tag| tag.vid());
        let rest = u64::from(u32::from_be_bytes(ports)) << 32 | u64::from(vlan) << 16 | u64::from(header.ethertype);
        let syn = tcp.get(13)? & FLAG_SYN != 0;
        Some(Segment { connection: Connection { addresses, rest }, sequence, bytes, syn })
    }

    /// A segment of a connection that has this number.
    #[cfg(test)]
    pub(super) fn of(connection: u64, sequence: u32, bytes: u32) -> Segment {
        let connection = Connection { addresses: [connection, 0, 0, 0], rest: 7 };
        Segment { connection, sequence, bytes, syn: false }
    }

    /// True if the byte of this sequence number is in it.
    fn has(&self, sequence: u32) -> bool {
        sequence.wrapping_sub(self.sequence) < self.bytes
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Segments {
    pub(super) fn new(loss: SegmentLoss, seed: u64) -> Segments {
        Segments { loss, seed, sets: vec![[None; WAYS]; SETS], spoken: 0 }
    }

    /// The connections that are remembered.
    pub(super) fn tracked(&self) -> impl Iterator<Item = Tracked> {
        self.sets.iter().flatten().flatten().copied()
    }

    /// Remembers the connections of another impairment, too.
    pub(super) fn go_on(&mut self, tracked: &[Tracked]) {
        for tracked in tracked {
            self.spoken = self.spoken.max(tracked.spoke);
            if let Some(place) = self.place(&tracked.connection) {
                *place = Some(*tracked);
            }
        }
    }

    /// True if the segment is to be lost.
    pub(super) fn loses(&mut self, segment: &Segment) -> bool {
        if segment.syn || segment.bytes == 0 {
            if segment.syn {
                self.forget(&segment.connection);
            }
            return false;
        }
        self.spoken = self.spoken.wrapping_add(1);
        let (spoke, SegmentLoss { number, retransmissions }) = (self.spoken, self.loss);
        let connection = segment.connection;
        let Some(place) = self.place(&connection) else { return false };
        let begins = Tracked { connection, next: segment.sequence, ..Tracked::default() };
        let tracked = match place {
            Some(tracked) if tracked.connection == connection => tracked,
            other => other.insert(begins),
        };
        tracked.spoke = spoke;
        let again = tracked.count >= number && tracked.left > 0 && segment.has(tracked.lost);
        tracked.left -= u32::from(again);
        let end = segment.sequence.wrapping_add(segment.bytes);
        let is_new = end.wrapping_sub(tracked.next).cast_signed() > 0;
        if !is_new {
            return again;
        }
        tracked.next = end;
        tracked.count = tracked.count.saturating_add(1);
        if tracked.count != number {
            return again;
        }
        (tracked.lost, tracked.left) = (segment.sequence, retransmissions);
        true
    }

    fn forget(&mut self, connection: &Connection) {
        let is_own = |tracked: &Tracked| tracked.connection == *connection;
        if let Some(place) = self.place(connection).filter(|place| place.as_ref().is_some_and(is_own)) {
            *place = None;
        }
    }

    /// The place of a connection: its own, or the one that it would take.
    fn place(&mut self, connection: &Connection) -> Option<&mut Option<Tracked>> {
        let hash = connection.addresses.iter().fold(mix(self.seed ^ connection.rest), |hash, word| mix(hash ^ word));
        #[allow(clippy::cast_possible_truncation, reason = "less than the number of sets")]
        let set = (hash % SETS as u64) as usize;
        let set = self.sets.get_mut(set)?;
        let own = set.iter().position(|way| way.is_some_and(|tracked| tracked.connection == *connection));
        match own {
            Some(way) => set.get_mut(way),
            None => set.iter_mut().min_by_key(|way| way.map_or(0, |tracked| tracked.spoke)),
        }
    }
}

#[cfg(test)]
mod tests;
