//! Cutting a TCP frame into segments, or a UDP frame into datagrams (TSO and USO in software).
//!
//! **How it works.** [`Cutter::new`] takes a copy of the headers and sums once what is the same in every segment. Then,
//! per segment: [`Cutter::next_cut`] says which bytes of the frame it carries; the caller copies them to where the
//! segment is to lie, [`Cutter::header_bytes`] behind its start, and takes their [`Sum`]; [`Cut::finish`] gives the
//! header to put in front. Nothing is allocated, and a caller that runs out of room stops in the middle.
//!
//! These fields change from segment to segment: IPv4 total length, identification (counting up from the guest's) and
//! header checksum, or IPv6 payload length. TCP: sequence number; FIN and PSH, which only the last keeps; CWR, which
//! only the first keeps (RFC 3168, 6.1.2), whether the request says ECN or not; the checksum. UDP: length and checksum.
//! All else is repeated, the urgent pointer included, as Linux does.
//!
//! The pseudo-header's sum is the one the guest left in the checksum field, corrected by the change in length. So a
//! packet with a routing header, whose pseudo-header has an address that is not in the IP header, comes out right. The
//! length that a UDP pseudo-header counts is taken from the UDP header, where Linux reads it. A
//! frame that fits a single segment only gets its checksum finished: nothing else in it is touched.

use std::ops::Range;

use super::finish::finish_checksum;
use labsw_switch::wire::u16_at;

use super::gso::{GsoKind, Partial};
use super::layout::{Layout, MAX_HEADER_BYTES, TCP_CHECKSUM, UDP_CHECKSUM};
use super::refused::Refused;
use super::request::Request;
use super::sum::{Sum, get_u32, put};

const FIN: u16 = 1;
const PSH: u16 = 1 << 3;
const CWR: u16 = 1 << 7;

/// A frame being cut.
#[derive(Clone, Debug)]
pub struct Cutter {
    /// The headers, changed in place for each segment.
    headers: [u8; MAX_HEADER_BYTES],
    layout: Layout,
    header_bytes: u32,
    frame_bytes: u32,
    /// Payload of each segment but the last, bytes.
    size: u32,
    segments: u32,
    /// Number of the next segment.
    index: u32,
    sequence: u32,
    identification: u16,
    /// Header length and flags of TCP, as the guest set them.
    offset_and_flags: u16,
    /// Sum of the pseudo-header without the length, and of the TCP header without sequence number, length and flags, or
    /// of the UDP header without the length.
    l4_sum: Sum,
    /// Sum of the IPv4 header without length and identification.
    ipv4_sum: Sum,
}

impl Cutter {
    /// Prepares to cut the frame of `frame_bytes` that begins with `headers`, as `request` asks.
    ///
    /// # Errors
    /// [`Refused`]: the frame does not fit the request, or its headers are not whole in `headers`.
    pub fn new(headers: &[u8], frame_bytes: u32, request: Request) -> Result<Cutter, Refused> {
        let layout = request.layout(headers, frame_bytes)?;
        let Some(gso) = request.gso else { return Err(Refused::NotAsked) };
        let mut copy = [0; MAX_HEADER_BYTES];
        if let (Some(to), Some(from)) = (copy.get_mut(..layout.header_bytes), headers.get(..layout.header_bytes)) {
            to.copy_from_slice(from);
        }
        let header_bytes = u32::try_from(layout.header_bytes).map_err(|_| Refused::HeadersTooLong)?;
        let size = u32::from(gso.size);
        let payload_bytes = frame_bytes - header_bytes;
        let mut cutter = Cutter {
            headers: copy,
            layout,
            header_bytes,
            frame_bytes,
            size,
            segments: payload_bytes.div_ceil(size).max(1),
            index: 0,
            sequence: get_u32(&copy, layout.l4 + 4).unwrap_or_default(),
            identification: u16_at(&copy, layout.l3 + 4).unwrap_or_default(),
            offset_and_flags: u16_at(&copy, layout.l4 + 12).unwrap_or_default(),
            l4_sum: Sum::default(),
            ipv4_sum: Sum::default(),
        };
        if cutter.segments > 1 {
            cutter.sum_what_stays();
        }
        Ok(cutter)
    }

    /// Number of segments, at least 1.
    #[inline]
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Length of all segments together with their headers, bytes.
    #[inline]
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.frame_bytes) + u64::from(self.segments - 1) * u64::from(self.header_bytes)
    }

    /// Length of the headers of each segment, bytes.
    #[inline]
    pub fn header_bytes(&self) -> usize {
        self.layout.header_bytes
    }

    /// Where the headers lie.
    #[inline]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The next segment, in order; `None` behind the last.
    #[inline]
    pub fn next_cut(&mut self) -> Option<Cut<'_>> {
        let index = self.index;
        if index >= self.segments {
            return None;
        }
        self.index += 1;
        // Inside the frame, whose length is a u32.
        let start = self.header_bytes + index * self.size;
        let payload = start..self.frame_bytes.min(start.saturating_add(self.size));
        Some(Cut { cutter: self, payload, index })
    }

    /// Clears the fields that change, and sums the rest.
    fn sum_what_stays(&mut self) {
        let Layout { kind, v6, l3, l4, header_bytes } = self.layout;
        let headers = &mut self.headers;
        // The length that the pseudo-header counts.
        let l4_bytes = if kind == GsoKind::Udp {
            let length = u16_at(headers, l4 + 4).unwrap_or_default();
            put(headers, l4 + 4, [0; 2]);
            length
        } else {
            put(headers, l4 + 4, [0; 4]);
            put(headers, l4 + 12, [0; 2]);
            fold_length(self.frame_bytes.saturating_sub(u32::try_from(l4).unwrap_or_default()))
        };
        self.l4_sum = Sum::of(headers.get(l4..header_bytes).unwrap_or_default());
        // The pseudo-header's sum is among that, and in it that length of the whole frame, which is taken out here: to
        // subtract is to add the complement.
        self.l4_sum.add_u16(!l4_bytes);
        if !v6 {
            put(headers, l3 + 2, [0; 4]);
            put(headers, l3 + 10, [0; 2]);
            self.ipv4_sum = Sum::of(headers.get(l3..l4).unwrap_or_default());
        }
    }

    /// Completes the headers of segment `index`, with a payload of `payload_bytes` and its sum.
    #[inline]
    fn finish(&mut self, index: u32, payload_bytes: u32, payload: Sum) -> &[u8] {
        if self.segments == 1 {
            self.finish_single(payload);
        } else {
            self.finish_one(index, payload_bytes, payload);
        }
        self.headers.get(..self.layout.header_bytes).unwrap_or_default()
    }

    fn finish_single(&mut self, payload: Sum) {
        let headers = self.headers.get_mut(..self.layout.header_bytes).unwrap_or_default();
        let start = u16::try_from(self.layout.l4).unwrap_or_default();
        // The checksum's place was found inside the headers by `new`, so this cannot be refused.
        let done = finish_checksum(headers, payload, Partial { start, offset: self.layout.checksum() });
        debug_assert_eq!(done, Ok(()));
    }

    #[inline]
    fn finish_one(&mut self, index: u32, payload_bytes: u32, payload: Sum) {
        let Layout { kind, v6, l3, l4, header_bytes } = self.layout;
        #[allow(clippy::cast_possible_truncation, reason = "at most 65535: seen to by `new`")]
        let ip_bytes = self.layout.ip_bytes(self.header_bytes + payload_bytes) as u16;
        #[allow(clippy::cast_possible_truncation, reason = "less than the IP length")]
        let l4_bytes = (header_bytes - l4) as u16 + payload_bytes as u16;
        if kind == GsoKind::Udp {
            self.finish_udp(l4_bytes, payload);
        } else {
            self.finish_tcp(index, l4_bytes, payload);
        }
        let headers = &mut self.headers;
        if v6 {
            put(headers, l3 + 4, ip_bytes.to_be_bytes());
            return;
        }
        #[allow(clippy::cast_possible_truncation, reason = "counts modulo 2^16")]
        let identification = self.identification.wrapping_add(index as u16);
        let mut sum = self.ipv4_sum;
        sum.add_u16(ip_bytes);
        sum.add_u16(identification);
        put(headers, l3 + 2, ip_bytes.to_be_bytes());
        put(headers, l3 + 4, identification.to_be_bytes());
        put(headers, l3 + 10, sum.checksum().to_be_bytes());
    }

    /// Completes a TCP header; TCP has `tcp_bytes` in this segment.
    #[inline]
    fn finish_tcp(&mut self, index: u32, tcp_bytes: u16, payload: Sum) {
        let l4 = self.layout.l4;
        let sequence = self.sequence.wrapping_add(index.wrapping_mul(self.size));
        let mut flags = self.offset_and_flags;
        if index > 0 {
            flags &= !CWR;
        }
        if index + 1 < self.segments {
            flags &= !(FIN | PSH);
        }
        let mut sum = self.l4_sum;
        sum.add_u16(tcp_bytes);
        sum.add_u32(sequence);
        sum.add_u16(flags);
        // A TCP header has an even length, so the payload's words are aligned with the sum's.
        sum.append(payload);
        let headers = &mut self.headers;
        put(headers, l4 + 4, sequence.to_be_bytes());
        put(headers, l4 + 12, flags.to_be_bytes());
        put(headers, l4 + usize::from(TCP_CHECKSUM), sum.checksum().to_be_bytes());
    }

    /// Completes a UDP header of a datagram of `udp_bytes`.
    #[inline]
    fn finish_udp(&mut self, udp_bytes: u16, payload: Sum) {
        let l4 = self.layout.l4;
        let mut sum = self.l4_sum;
        // In the pseudo-header, and in the header.
        sum.add_u16(udp_bytes);
        sum.add_u16(udp_bytes);
        sum.append(payload);
        // 0 would mean that there is no checksum.
        let checksum = match sum.checksum() {
            0 => 0xffff,
            other => other,
        };
        let headers = &mut self.headers;
        put(headers, l4 + 4, udp_bytes.to_be_bytes());
        put(headers, l4 + usize::from(UDP_CHECKSUM), checksum.to_be_bytes());
    }
}

/// One segment to be made.
#[derive(Debug)]
pub struct Cut<'a> {
    cutter: &'a mut Cutter,
    payload: Range<u32>,
    index: u32,
}

impl<'a> Cut<'a> {
    /// Which bytes of the frame are its payload.
    #[inline]
    pub fn payload(&self) -> Range<u32> {
        self.payload.clone()
    }

    /// Length of the segment with all its headers, bytes.
    #[inline]
    pub fn frame_bytes(&self) -> u32 {
        self.cutter.header_bytes + (self.payload.end - self.payload.start)
    }

    /// The headers, finished, for a payload of which `payload` is the sum.
    #[inline]
    pub fn finish(self, payload: Sum) -> &'a [u8] {
        self.cutter.finish(self.index, self.payload.end - self.payload.start, payload)
    }
}

/// A length as it counts in a ones' complement sum.
#[inline]
fn fold_length(bytes: u32) -> u16 {
    let mut sum = Sum::default();
    sum.add_u32(bytes);
    sum.folded()
}
