//! Writes pcapng, the file format of Wireshark: a section header, an interface description per port, an enhanced packet
//! block per frame and, at the end, interface statistics.
//!
//! Integers are little-endian; time stamps count nanoseconds since 1970 (`if_tsresol` 9). A block may follow any other,
//! except that an interface is described before its first frame. Four kinds of blocks and eight options are enough
//! here, and each frame is written straight into its reply.
//!
//! Reference: draft-ietf-opsawg-pcapng, 3 (blocks) and 4.

pub mod annotate;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;
const NANOSECONDS: u8 = 9;
/// Longest comment or name, in bytes; the rest is cut off.
const MAX_TEXT_BYTES: usize = 1024;

const COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const IF_FILTER: u16 = 11;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// The direction of a frame, in the encoding of `epb_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Into the switch.
    Inbound = 1,
    /// Out of the switch.
    Outbound = 2,
}

/// A frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Number of the frame's interface, from 0 in the order of the descriptions.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Direction of the frame.
    pub bound: Bound,
    /// Length of the frame; `bytes` may be shorter.
    pub wire_bytes: u32,
    /// The frame, or its beginning.
    pub bytes: &'a [u8],
    /// Comment on the frame.
    pub comment: &'a str,
}

/// Counters of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Number of the interface.
    pub interface: u32,
    /// Start and end of the capture, in nanoseconds since 1970.
    pub start_ns: u64,
    /// See `start_ns`.
    pub end_ns: u64,
    /// Frames for the capture, including those dropped.
    pub received: u64,
    /// Frames that the capture had no room for.
    pub dropped: u64,
}

/// Begins a section.
pub fn section(out: &mut Vec<u8>, application: &str) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0; the length of the section is not known.
        out.extend([1, 0, 0, 0]);
        out.extend(u64::MAX.to_le_bytes());
        text(out, SHB_USERAPPL, application);
        end_of_options(out);
    });
}

/// Describes the next interface. At most `snaplen` bytes of a frame are kept; 0: all.
pub fn interface(out: &mut Vec<u8>, name: &str, description: &str, snaplen: u32, filter: Option<&str>) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(LINKTYPE_ETHERNET.to_le_bytes());
        out.extend([0, 0]);
        out.extend(snaplen.to_le_bytes());
        text(out, IF_NAME, name);
        text(out, IF_DESCRIPTION, description);
        option(out, IF_TSRESOL, &[NANOSECONDS]);
        if let Some(filter) = filter {
            // 0: a filter in tcpdump's syntax.
            option(out, IF_FILTER, &[&[0], cut(filter).as_bytes()].concat());
        }
        end_of_options(out);
    });
}

/// Adds a frame.
pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, ENHANCED_PACKET, |out| {
        out.extend(packet.interface.to_le_bytes());
        timestamp(out, packet.time_ns);
        out.extend(length(packet.bytes).to_le_bytes());
        out.extend(packet.wire_bytes.to_le_bytes());
        out.extend_from_slice(packet.bytes);
        pad(out);
        text(out, COMMENT, packet.comment);
        option(out, EPB_FLAGS, &(packet.bound as u32).to_le_bytes());
        end_of_options(out);
    });
}

/// Adds the counters of an interface.
pub fn statistics(out: &mut Vec<u8>, statistics: &Statistics) {
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend(statistics.interface.to_le_bytes());
        timestamp(out, statistics.end_ns);
        for (code, time_ns) in [(ISB_STARTTIME, statistics.start_ns), (ISB_ENDTIME, statistics.end_ns)] {
            let mut value = Vec::new();
            timestamp(&mut value, time_ns);
            option(out, code, &value);
        }
        option(out, ISB_IFRECV, &statistics.received.to_le_bytes());
        option(out, ISB_IFDROP, &statistics.dropped.to_le_bytes());
        end_of_options(out);
    });
}

/// Writes a block: type and length, body, length.
fn block(out: &mut Vec<u8>, block_type: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(block_type.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let bytes = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&bytes);
    }
    out.extend(bytes);
}

/// The high half of a time stamp comes first.
#[allow(clippy::cast_possible_truncation, reason = "the two halves")]
fn timestamp(out: &mut Vec<u8>, time_ns: u64) {
    out.extend(((time_ns >> 32) as u32).to_le_bytes());
    out.extend((time_ns as u32).to_le_bytes());
}

fn text(out: &mut Vec<u8>, code: u16, value: &str) {
    option(out, code, cut(value).as_bytes());
}

fn cut(text: &str) -> &str {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// Writes an option; `value` is shorter than 64 KiB.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(value);
    pad(out);
}

fn end_of_options(out: &mut Vec<u8>) {
    out.extend([0; 4]);
}

/// Aligns to a multiple of four bytes, as every block and option must be.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
