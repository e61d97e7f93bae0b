//! Labels in a capture: copies a pcapng file, and gives each frame the labels of its time as comments.
//!
//! **How it works.** Blocks are copied one by one as they are. Section headers tell the byte order, interface
//! descriptions the resolution of time stamps; an enhanced packet block gets a comment (`opt_comment`) in front of its
//! own options for each label in whose time its stamp lies. A block may have several comments.
//!
//! **Bounds.** One block is held at a time, of at most [`MAX_BLOCK_BYTES`].
//!
//! Reference: draft-ietf-opsawg-pcapng, 3.1 (blocks), 3.5 (options), 4.2 (`if_tsresol`, `if_tsoffset`).

use std::io::{self, Read, Write};

use super::{COMMENT, ENHANCED_PACKET, IF_TSRESOL, INTERFACE_DESCRIPTION, SECTION_HEADER, cut};

/// Longest block, bytes.
const MAX_BLOCK_BYTES: usize = 16 << 20;
/// Offset of the time of an interface, in seconds.
const IF_TSOFFSET: u16 = 14;
/// Bytes of an enhanced packet block in front of the frame, without type and length.
const PACKET_HEAD: usize = 20;

/// A label, and its time in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The text of the comment.
    pub text: String,
    /// The beginning.
    pub start_ns: i128,
    /// The end.
    pub end_ns: i128,
}

/// Frames of a file, and those that got a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames.
    pub frames: u64,
    /// Frames with a label.
    pub labelled: u64,
}

/// Why a file can't be copied.
#[derive(Debug, thiserror::Error)]
pub enum AnnotateError {
    /// It is no pcapng file.
    #[error("is no pcapng file (editcap -F pcapng makes one of a pcap file)")]
    NotPcapng,
    /// A block contradicts itself, or the file ends within it.
    #[error("is damaged {0} bytes from the beginning")]
    Damaged(u64),
    /// Reading failed.
    #[error(transparent)]
    Read(io::Error),
    /// Writing failed.
    #[error("writing: {0}")]
    Write(io::Error),
}

/// The time stamps of an interface: units of a second, and the second of the first.
#[derive(Clone, Copy, Debug)]
struct Clock {
    units_per_second: u128,
    offset_seconds: i64,
}

impl Clock {
    /// A time stamp in nanoseconds since 1970.
    fn ns(self, stamp: u64) -> i128 {
        let ns = u128::from(stamp).saturating_mul(1_000_000_000) / self.units_per_second.max(1);
        i128::try_from(ns).unwrap_or(i128::MAX).saturating_add(i128::from(self.offset_seconds) * 1_000_000_000)
    }
}

/// The byte order and the clocks that the blocks so far tell.
#[derive(Default)]
struct Section {
    big_endian: bool,
    clocks: Vec<Clock>,
}

impl Section {
    fn u16(&self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    }

    fn u32(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    }

    fn u64(&self, bytes: &[u8], at: usize) -> Option<u64> {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u64::from_be_bytes(*bytes) } else { u64::from_le_bytes(*bytes) })
    }

    fn put_u16(&self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn put_u32(&self, out: &mut Vec<u8>, value: u32) {
        out.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    /// The clock that an interface description tells; its options begin behind link type and snap length.
    fn clock(&self, body: &[u8]) -> Clock {
        let mut clock = Clock { units_per_second: 1_000_000, offset_seconds: 0 };
        let mut at = 8;
        while let (Some(code), Some(length)) = (self.u16(body, at), self.u16(body, at + 2)) {
            match (code, body.get(at + 4)) {
                (0, _) => break,
                (IF_TSRESOL, Some(&resolution)) => {
                    let (base, power) =
                        if resolution & 0x80 == 0 { (10_u128, resolution) } else { (2, resolution & 0x7f) };
                    clock.units_per_second = base.checked_pow(power.into()).unwrap_or(u128::MAX);
                }
                (IF_TSOFFSET, _) => {
                    clock.offset_seconds = self.u64(body, at + 4).map_or(0, u64::cast_signed);
                }
                _ => {}
            }
            at += 4 + usize::from(length).next_multiple_of(4);
        }
        clock
    }

    /// The body of a packet block with the labels of its time, or `None` if there is none.
    fn labelled(&self, body: &[u8], labels: &[Label]) -> Option<Vec<u8>> {
        let clock = self.clocks.get(usize::try_from(self.u32(body, 0)?).ok()?)?;
        let stamp = u64::from(self.u32(body, 4)?) << 32 | u64::from(self.u32(body, 8)?);
        let time = clock.ns(stamp);
        let frame = usize::try_from(self.u32(body, 12)?).ok()?;
        let (before, options) = body.split_at_checked(PACKET_HEAD.checked_add(frame)?.checked_next_multiple_of(4)?)?;
        let mut of_time = labels.iter().filter(|label| (label.start_ns..=label.end_ns).contains(&time)).peekable();
        of_time.peek()?;
        let mut out = before.to_vec();
        for label in of_time {
            let text = cut(&label.text);
            self.put_u16(&mut out, COMMENT);
            self.put_u16(&mut out, u16::try_from(text.len()).unwrap_or(u16::MAX));
            out.extend_from_slice(text.as_bytes());
            out.resize(out.len().next_multiple_of(4), 0);
        }
        match options {
            [] => out.extend([0; 4]),
            options => out.extend_from_slice(options),
        }
        Some(out)
    }
}

/// Copies a pcapng file, with the labels.
///
/// # Errors
/// Those of reading and writing; the file is damaged, or none of pcapng. What was read until then is written.
pub fn annotate(input: &mut impl Read, output: &mut impl Write, labels: &[Label]) -> Result<Counts, AnnotateError> {
    let (mut section, mut counts, mut offset) = (Section::default(), Counts::default(), 0_u64);
    while let Some((kind, body)) = next_block(input, &mut section, offset)? {
        offset += body.len() as u64 + 12;
        let changed = match kind {
            SECTION_HEADER => {
                section.clocks.clear();
                None
            }
            INTERFACE_DESCRIPTION => {
                let clock = section.clock(&body);
                section.clocks.push(clock);
                None
            }
            ENHANCED_PACKET => {
                counts.frames += 1;
                let labelled = section.labelled(&body, labels);
                counts.labelled += u64::from(labelled.is_some());
                labelled
            }
            _ => None,
        };
        let body = changed.unwrap_or(body);
        let bytes = u32::try_from(body.len() + 12).unwrap_or(u32::MAX);
        let mut block = Vec::with_capacity(body.len() + 12);
        section.put_u32(&mut block, kind);
        section.put_u32(&mut block, bytes);
        block.extend_from_slice(&body);
        section.put_u32(&mut block, bytes);
        output.write_all(&block).map_err(AnnotateError::Write)?;
    }
    output.flush().map_err(AnnotateError::Write)?;
    Ok(counts)
}

/// The type and the body of the next block; `None` at the end of the file. A section header sets the byte order.
fn next_block(
    input: &mut impl Read,
    section: &mut Section,
    offset: u64,
) -> Result<Option<(u32, Vec<u8>)>, AnnotateError> {
    let damaged = || if offset == 0 { AnnotateError::NotPcapng } else { AnnotateError::Damaged(offset) };
    let mut head = Vec::new();
    input.take(12).read_to_end(&mut head).map_err(AnnotateError::Read)?;
    if head.is_empty() && offset > 0 {
        return Ok(None);
    }
    if head.len() < 12 {
        return Err(damaged());
    }
    // The type of a section header reads the same both ways.
    let is_section = head.starts_with(&SECTION_HEADER.to_le_bytes());
    if is_section {
        section.big_endian = match head.get(8..) {
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
            _ => return Err(damaged()),
        };
    } else if offset == 0 {
        return Err(AnnotateError::NotPcapng);
    }
    let length = section.u32(&head, 4).and_then(|length| usize::try_from(length).ok()).ok_or_else(damaged)?;
    if !(12..=MAX_BLOCK_BYTES).contains(&length) || !length.is_multiple_of(4) {
        return Err(damaged());
    }
    let kind = section.u32(&head, 0).ok_or_else(damaged)?;
    let mut rest = head.split_off(8);
    input.take(length as u64 - 12).read_to_end(&mut rest).map_err(AnnotateError::Read)?;
    if rest.len() != length - 8 {
        return Err(damaged());
    }
    let trailer = rest.split_off(length - 12);
    match section.u32(&trailer, 0) {
        Some(again) if again as usize == length => Ok(Some((kind, rest))),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcapng::{Bound, Packet, interface, packet, section, statistics};

    fn label(text: &str, start_ns: i128, end_ns: i128) -> Label {
        Label { text: text.to_owned(), start_ns, end_ns }
    }

    /// A capture with a frame at each of these times, of so many bytes.
    fn file(times: &[(u64, usize)]) -> Vec<u8> {
        let mut out = Vec::new();
        section(&mut out, "test");
        interface(&mut out, "web", "a port", 0, None);
        for (time_ns, bytes) in times {
            let bytes = vec![7; *bytes];
            let wire_bytes = bytes.len().try_into().unwrap();
            let bound = Bound::Inbound;
            packet(
                &mut out,
                &Packet { interface: 0, time_ns: *time_ns, bound, wire_bytes, bytes: &bytes, comment: "rx" },
            );
        }
        statistics(
            &mut out,
            &crate::pcapng::Statistics { interface: 0, start_ns: 0, end_ns: 9, received: 1, dropped: 0 },
        );
        out
    }

    fn copy(file: &[u8], labels: &[Label]) -> (Vec<u8>, Result<Counts, String>) {
        let mut out = Vec::new();
        let counts = annotate(&mut &*file, &mut out, labels).map_err(|error| error.to_string());
        (out, counts)
    }

    #[test]
    fn frames_get_the_labels_of_their_time_and_all_else_stays() {
        let file_bytes = file(&[(99, 60), (100, 61), (150, 62), (200, 63), (201, 64)]);
        let (same, counts) = copy(&file_bytes, &[]);
        assert_eq!((same == file_bytes, counts), (true, Ok(Counts { frames: 5, labelled: 0 })));
        let labels = [label("smb", 100, 200), label("scan", 140, 160)];
        let (labelled, counts) = copy(&file_bytes, &labels);
        assert_eq!(counts, Ok(Counts { frames: 5, labelled: 3 }));
        let count = |text: &str| labelled.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
        assert_eq!((count("smb"), count("scan"), count("rx")), (3, 1, 5));
        // Comments come in front of the options that were there, so the block is as long as it has to be.
        assert_eq!(labelled.len(), file_bytes.len() + 3 * 8 + 8);
        let (again, counts) = copy(&labelled, &[]);
        assert_eq!((again == labelled, counts.map(|counts| counts.frames)), (true, Ok(5)), "it is a file again");
    }

    #[test]
    fn the_clock_of_the_interface_counts() {
        let block = |big: bool, kind: u32, body: &[u8]| {
            let order = Section { big_endian: big, clocks: Vec::new() };
            let (mut out, bytes) = (Vec::new(), u32::try_from(body.len()).unwrap() + 12);
            order.put_u32(&mut out, kind);
            order.put_u32(&mut out, bytes);
            out.extend_from_slice(body);
            order.put_u32(&mut out, bytes);
            out
        };
        // Microseconds without an option; 2^-10 s with one; a second later with an offset. Big-endian.
        let header = [&[0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0][..], &[0xff; 8]].concat();
        let plain = [0, 1, 0, 0, 0, 0, 0, 0];
        let binary =
            [&plain[..], &[0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
        let frame = |interface: u8, stamp: u32| {
            let words = [u32::from(interface), 0, stamp, 2, 2];
            let head: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            block(true, ENHANCED_PACKET, &[&head[..], &[1, 2, 0, 0]].concat())
        };
        let blocks = [
            block(true, SECTION_HEADER, &header),
            block(true, INTERFACE_DESCRIPTION, &plain),
            block(true, INTERFACE_DESCRIPTION, &binary),
            frame(0, 1_500_000),
            frame(1, 512),
            frame(1, 1024),
        ];
        let (out, counts) = copy(&blocks.concat(), &[label("x", 1_500_000_000, 1_500_000_000)]);
        assert_eq!(counts, Ok(Counts { frames: 3, labelled: 2 }));
        // The comment, and the end of the options, which the frames did not have.
        assert_eq!(out.len(), blocks.concat().len() + 2 * (8 + 4));
    }

    #[test]
    fn damaged_files_are_refused_and_none_panics() {
        let whole = file(&[(1, 60), (2, 60)]);
        assert!(copy(b"", &[]).1.unwrap_err().contains("is no pcapng file"));
        assert!(copy(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0], &[]).1.unwrap_err().contains("no pcapng file"));
        let labels = [label("x", 0, 9)];
        for end in 1..whole.len() {
            let _ = copy(&whole[..end], &labels);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut garbled = whole.clone();
                garbled[at] = value;
                let _ = copy(&garbled, &labels);
            }
        }
        let cut_off = copy(&whole[..whole.len() - 1], &labels);
        assert!(cut_off.1.unwrap_err().contains("damaged"));
        assert!(cut_off.0.len() > 200, "what was read is written");
    }
}
