//! Merging segments of one TCP flow into one frame with a segmentation request (GRO), for guests that accept it.
//!
//! **How it works.** [`Coalescer::begin`] takes the headers of the first segment, [`Coalescer::add`] those of further
//! ones as long as they continue it; [`Coalescer::finish`] gives the headers of the merged frame and its request.
//! Payloads stay where they are: the caller keeps the list, and their sums ([`super::Sum`]) are handed in, because
//! nothing is merged whose checksum is wrong.
//!
//! **Invariant.** Nothing is lost by merging: [`super::Cutter`] makes the original segments of the merged frame again,
//! bit for bit. So only segments are merged that it could have cut: the headers differ in nothing but lengths,
//! sequence number, identification (counting up) and checksums; flags are ACK, and PSH which ends the frame; all
//! payloads are as long as the first, but for the last, which may be shorter and ends the frame; nothing follows the IP
//! packet.
//!
//! References: RFC 9293, 3.1; RFC 791, 3.1; RFC 8200, 8.1 (pseudo-header).

use labsw_switch::wire::{PROTOCOL_TCP, u16_at};

use super::gso::{Gso, GsoKind, MIN_SEGMENT_BYTES, Partial};
use super::layout::{IPV6_BYTES, Layout, MAX_HEADER_BYTES, MAX_IP_BYTES, TCP_CHECKSUM};
use super::refused::Refused;
use super::request::Request;
use super::sum::{Sum, get_u32, put};

const ACK: u8 = 1 << 4;
const PSH: u8 = 1 << 3;

/// A frame being put together from segments.
#[derive(Clone, Debug)]
pub struct Coalescer {
    /// The first segment as it came.
    first: [u8; MAX_HEADER_BYTES],
    /// The fields that are equal in all segments.
    same: Segment,
    /// Payload so far, bytes.
    payload_bytes: u32,
    segments: u32,
    /// The last segment ended the frame.
    ended: bool,
    /// The last segment has PSH.
    push: bool,
}

/// A merged frame.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// Its headers; the payloads of the segments follow, in order.
    pub headers: &'a [u8],
    /// The request of the merged frame; [`Request::NONE`] if it is a single segment, whose headers are as they came.
    pub request: Request,
}

impl Coalescer {
    /// The kind of TCP that the frame of `frame_bytes` is which begins with `headers`, if a closer look may be worth
    /// while; `None` of anything else.
    pub fn kind(headers: &[u8], frame_bytes: u32) -> Option<GsoKind> {
        Segment::layout(headers, frame_bytes).map(|layout| layout.kind)
    }

    /// Length of the headers of a whole TCP frame; `None` of anything else.
    pub fn header_bytes(frame: &[u8]) -> Option<usize> {
        Some(Segment::layout(frame, u32::try_from(frame.len()).ok()?)?.header_bytes)
    }

    /// Begins with a segment of `frame_bytes` that begins with `headers`; `payload` is the sum of the bytes behind the
    /// TCP header. `None` if nothing can be merged with it.
    pub fn begin(headers: &[u8], frame_bytes: u32, payload: Sum) -> Option<Coalescer> {
        let same = Segment::read(headers, frame_bytes, payload)?;
        let size = same.payload_bytes;
        if size < u32::from(MIN_SEGMENT_BYTES) {
            return None;
        }
        let mut first = [0; MAX_HEADER_BYTES];
        let header_bytes = same.layout.header_bytes;
        first.get_mut(..header_bytes)?.copy_from_slice(headers.get(..header_bytes)?);
        let push = same.push;
        Some(Coalescer { first, same, payload_bytes: size, segments: 1, ended: push, push })
    }

    /// Adds a segment, described as for [`Coalescer::begin`], if it continues the frame; if not, returns false and
    /// leaves all as it was.
    pub fn add(&mut self, headers: &[u8], frame_bytes: u32, payload: Sum) -> bool {
        let next_sequence = self.same.sequence.wrapping_add(self.payload_bytes);
        // The cheap question first: of another flow, or out of order, are most.
        if self.ended || get_u32(headers, self.same.layout.l4 + 4) != Some(next_sequence) {
            return false;
        }
        let Some(next) = Segment::read(headers, frame_bytes, payload) else { return false };
        #[allow(clippy::cast_possible_truncation, reason = "counts modulo 2^16")]
        let expected = self.same.identification.wrapping_add(self.segments as u16);
        let continues = next.layout == self.same.layout
            && next.constant == self.same.constant
            && next.sequence == next_sequence
            && (next.layout.v6 || next.identification == expected)
            && next.payload_bytes <= self.same.payload_bytes
            && self.ip_bytes() + next.payload_bytes <= MAX_IP_BYTES;
        if continues {
            self.payload_bytes += next.payload_bytes;
            self.segments += 1;
            self.push = next.push;
            self.ended = next.push || next.payload_bytes < self.same.payload_bytes;
        }
        continues
    }

    /// Number of segments so far, at least 1.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// True if no further segment can be added.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Length of the first segment with its headers, bytes.
    pub fn first_frame_bytes(&self) -> u32 {
        self.same.header_bytes() + self.same.payload_bytes
    }

    /// Length of the frame so far, bytes.
    pub fn frame_bytes(&self) -> u32 {
        self.same.header_bytes() + self.payload_bytes
    }

    /// The merged frame.
    pub fn finish(&mut self) -> Merged<'_> {
        let layout = self.same.layout;
        let request = if self.segments > 1 { self.finish_headers(layout) } else { Request::NONE };
        Merged { headers: self.first.get(..layout.header_bytes).unwrap_or_default(), request }
    }

    fn finish_headers(&mut self, layout: Layout) -> Request {
        let Layout { kind, v6, l3, l4, .. } = layout;
        let tcp_bytes = self.frame_bytes() - u32::try_from(l4).unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, reason = "at most 65535: seen to by `add`")]
        let ip_bytes = (self.ip_bytes() as u16).to_be_bytes();
        let pseudo = pseudo_header(&self.first, layout, tcp_bytes);
        let headers = &mut self.first;
        if v6 {
            put(headers, l3 + 4, ip_bytes);
        } else {
            put(headers, l3 + 2, ip_bytes);
            put(headers, l3 + 10, [0; 2]);
            let sum = Sum::of(headers.get(l3..l4).unwrap_or_default());
            put(headers, l3 + 10, sum.checksum().to_be_bytes());
        }
        if self.push {
            put(headers, l4 + 13, [ACK | PSH]);
        }
        put(headers, l4 + usize::from(TCP_CHECKSUM), pseudo.folded().to_be_bytes());
        #[allow(clippy::cast_possible_truncation, reason = "headers are at most 256 bytes, a payload less than 65536")]
        let (start, size) = (l4 as u16, self.same.payload_bytes as u16);
        Request { csum: Some(Partial { start, offset: TCP_CHECKSUM }), gso: Some(Gso { kind, size, ecn: false }) }
    }

    /// The length in the IP header.
    fn ip_bytes(&self) -> u32 {
        self.same.layout.ip_bytes(self.frame_bytes())
    }
}

/// A segment that may be merged.
#[derive(Clone, Debug)]
struct Segment {
    layout: Layout,
    /// The headers without the fields that differ from segment to segment.
    constant: [u8; MAX_HEADER_BYTES],
    sequence: u32,
    identification: u16,
    payload_bytes: u32,
    push: bool,
}

impl Segment {
    /// `None` if it is not TCP.
    fn layout(headers: &[u8], frame_bytes: u32) -> Option<Layout> {
        match Layout::of(headers, frame_bytes, GsoKind::Tcp4) {
            Err(Refused::Ethertype(_)) => Layout::of(headers, frame_bytes, GsoKind::Tcp6),
            found => found,
        }
        .ok()
    }

    /// `None` if it may not be merged with anything.
    fn read(headers: &[u8], frame_bytes: u32, payload: Sum) -> Option<Segment> {
        let layout @ Layout { v6, l3, l4, header_bytes, .. } = Segment::layout(headers, frame_bytes)?;
        let flags = *headers.get(l4 + 13)?;
        let reserved = *headers.get(l4 + 12)? & 0xf;
        let payload_bytes = frame_bytes - u32::try_from(header_bytes).ok()?;
        if flags & !PSH != ACK || reserved != 0 || payload_bytes == 0 {
            return None;
        }
        let mut constant = [0; MAX_HEADER_BYTES];
        constant.get_mut(..header_bytes)?.copy_from_slice(headers.get(..header_bytes)?);
        let (length, identification) = if v6 {
            // An extension header may be meant for one packet only.
            if l4 != l3 + IPV6_BYTES {
                return None;
            }
            put(&mut constant, l3 + 4, [0; 2]);
            (u16_at(headers, l3 + 4)?, 0)
        } else {
            put(&mut constant, l3 + 10, [0; 2]);
            if Some(Sum::of(constant.get(l3..l4)?).checksum()) != u16_at(headers, l3 + 10) {
                return None;
            }
            put(&mut constant, l3 + 2, [0; 4]);
            (u16_at(headers, l3 + 2)?, u16_at(headers, l3 + 4)?)
        };
        if u32::from(length) != layout.ip_bytes(frame_bytes) {
            return None;
        }
        put(&mut constant, l4 + usize::from(TCP_CHECKSUM), [0; 2]);
        let mut sum = pseudo_header(headers, layout, frame_bytes - u32::try_from(l4).ok()?);
        sum.add(constant.get(l4..header_bytes)?);
        sum.append(payload);
        if Some(sum.checksum()) != u16_at(headers, l4 + usize::from(TCP_CHECKSUM)) {
            return None;
        }
        put(&mut constant, l4 + 4, [0; 4]);
        put(&mut constant, l4 + 13, [0]);
        let sequence = get_u32(headers, l4 + 4)?;
        Some(Segment { layout, constant, sequence, identification, payload_bytes, push: flags & PSH != 0 })
    }

    fn header_bytes(&self) -> u32 {
        u32::try_from(self.layout.header_bytes).unwrap_or_default()
    }
}

/// The sum of the pseudo-header of `tcp_bytes` of TCP.
fn pseudo_header(headers: &[u8], layout: Layout, tcp_bytes: u32) -> Sum {
    let addresses = if layout.v6 { layout.l3 + 8..layout.l3 + 40 } else { layout.l3 + 12..layout.l3 + 20 };
    let mut sum = Sum::of(headers.get(addresses).unwrap_or_default());
    sum.add_u16(PROTOCOL_TCP.into());
    sum.add_u32(tcp_bytes);
    sum
}
