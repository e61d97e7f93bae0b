//! Capture files read frame by frame: pcap and pcapng, as they are written on any machine.
//!
//! The `pcap-parser` crate parses the file; this module makes frames of the blocks. Memory is bounded by one buffer: a
//! block that does not fit is refused. Every error names the byte of the file at which the block begins.

use std::io::{self, Read};

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// The longest block that is read, bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// The shortest frame: an Ethernet header.
pub const MIN_FRAME_BYTES: usize = 14;
/// The longest frame: 64 KiB with its header.
pub const MAX_FRAME_BYTES: usize = 65_549;
const NS_PER_SECOND: i128 = 1_000_000_000;

/// A frame of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Time of capture, in ns; the file defines the start of its clock.
    pub at_ns: i128,
    /// The whole frame, without a frame check sequence.
    pub bytes: Vec<u8>,
}

/// A mistake in a file, and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {what}")]
pub struct CaptureError {
    offset: u64,
    what: String,
}

/// A file that is being read.
pub struct Capture<'a> {
    blocks: Box<dyn PcapReaderIterator + Send + 'a>,
    section: Section,
    /// The byte at which the next block begins.
    offset: u64,
}

/// The settings of the current section, read before its frames.
#[derive(Default)]
struct Section {
    /// Nanoseconds per unit of a pcap's time stamps.
    unit_ns: i128,
    /// Bytes of frame check sequence at the end of each frame of a pcap.
    fcs_bytes: usize,
    interfaces: Vec<Interface>,
    /// The time of the previous frame: some frames have none of their own.
    last_ns: i128,
    frames: u64,
}

#[derive(Clone, Copy)]
struct Interface {
    link_type: Linktype,
    resolution: Resolution,
    offset_seconds: i64,
}

/// The unit of an interface's time stamps, as the option `if_tsresol` of pcapng states it: a negative power of 10, or
/// of 2 if the highest bit is set.
#[derive(Clone, Copy)]
struct Resolution(u8);

impl Resolution {
    const BINARY: u8 = 0x80;

    /// `units` in nanoseconds; `None` if the unit is finer than the arithmetic (10⁻²⁷ s, 2⁻⁹⁰ s).
    fn nanoseconds(self, units: u64) -> Option<i128> {
        let exponent = u32::from(self.0 & !Resolution::BINARY);
        let per_second = match self.0 & Resolution::BINARY {
            0 if exponent <= 27 => 10i128.pow(exponent),
            Resolution::BINARY if exponent <= 90 => 1i128 << exponent,
            _ => return None,
        };
        Some(i128::from(units) * NS_PER_SECOND / per_second)
    }
}

impl<'a> Capture<'a> {
    /// Begins to read.
    ///
    /// # Errors
    /// The file is empty, or has neither format.
    pub fn open(file: impl Read + Send + 'a) -> Result<Capture<'a>, CaptureError> {
        let blocks = create_reader(BUFFER_BYTES, Filling(file)).map_err(|error| CaptureError {
            offset: 0,
            what: match error {
                PcapError::Eof => "the file is empty".to_owned(),
                PcapError::ReadError => "it can't be read".to_owned(),
                _ => "it does not begin like a pcap or pcapng file".to_owned(),
            },
        })?;
        Ok(Capture { blocks, section: Section::default(), offset: 0 })
    }

    /// The next frame; `None` at the end of the file.
    ///
    /// # Errors
    /// The block at this place is malformed, or holds a frame that can't be replayed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        loop {
            let at = self.offset;
            let wrong = |what: String| CaptureError { offset: at, what };
            let (used, found) = match self.blocks.next() {
                Ok((used, block)) => (used, self.section.take(block)),
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    self.blocks.refill().map_err(|_| wrong("it can't be read on".to_owned()))?;
                    continue;
                }
                Err(error) => return Err(wrong(explain(&error))),
            };
            if used == 0 {
                return Err(wrong("a block without a length".to_owned()));
            }
            self.blocks.consume(used);
            self.offset += used as u64;
            if let Some(frame) = found.map_err(wrong)? {
                return Ok(Some(frame));
            }
        }
    }
}

/// Reads until the buffer is full. `pcap-parser` refuses a file if the first read, say of a pipe, gives less than the
/// first header.
struct Filling<R>(R);

impl<R: Read> Read for Filling<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(room) = to.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.0.read(room) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Section {
    /// Reads one block; returns its frame, if it has one.
    fn take(&mut self, block: PcapBlockOwned<'_>) -> Result<Option<Frame>, String> {
        let (bytes, original, at_ns) = match &block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.unit_ns = if header.is_nanosecond_precision() { 1 } else { 1000 };
                let (link_type, fcs_bytes) = split_network(header.network);
                is_ethernet(link_type)?;
                self.fcs_bytes = fcs_bytes;
                return Ok(None);
            }
            PcapBlockOwned::Legacy(frame) => {
                let at_ns = i128::from(frame.ts_sec) * NS_PER_SECOND + i128::from(frame.ts_usec) * self.unit_ns;
                let (data, original) = without_fcs(frame.data, frame.origlen, self.fcs_bytes);
                (data, original, at_ns)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                return Ok(None);
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                self.interfaces.push(Interface {
                    link_type: interface.linktype,
                    resolution: Resolution(interface.if_tsresol),
                    offset_seconds: interface.ts_offset(),
                });
                return Ok(None);
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => {
                let at_ns = self.interface(frame.if_id)?.time(frame.ts_high, frame.ts_low)?;
                (frame.packet_data(), frame.origlen, at_ns)
            }
            PcapBlockOwned::NG(Block::SimplePacket(frame)) => {
                self.interface(0)?;
                let len = frame.data.len().min(usize::try_from(frame.origlen).unwrap_or(usize::MAX));
                (frame.data.get(..len).unwrap_or_default(), frame.origlen, self.last_ns)
            }
            PcapBlockOwned::NG(_) => return Ok(None),
        };
        self.frames += 1;
        let (number, len) = (self.frames, bytes.len());
        if u32::try_from(len).is_ok_and(|len| len < original) {
            return Err(format!(
                "frame {number} is cut: {len} of {original} bytes; capture whole frames (tcpdump -s 0)"
            ));
        }
        if !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&len) {
            return Err(format!("frame {number} has {len} bytes; a frame has {MIN_FRAME_BYTES} to {MAX_FRAME_BYTES}"));
        }
        self.last_ns = at_ns;
        Ok(Some(Frame { at_ns, bytes: bytes.to_vec() }))
    }

    fn interface(&self, number: u32) -> Result<Interface, String> {
        let found = usize::try_from(number).ok().and_then(|number| self.interfaces.get(number));
        let interface = found.ok_or_else(|| format!("a frame of interface {number}, which was not described"))?;
        is_ethernet(interface.link_type).map(|()| *interface)
    }
}

impl Interface {
    fn time(self, high: u32, low: u32) -> Result<i128, String> {
        let since_offset_ns = self.resolution.nanoseconds(u64::from(high) << 32 | u64::from(low));
        let since_offset_ns = since_offset_ns.ok_or_else(|| {
            format!(
                "the time stamps' resolution (if_tsresol {:#04x}) is finer than 10^-27 or 2^-90 s",
                self.resolution.0
            )
        })?;
        Ok(since_offset_ns + i128::from(self.offset_seconds) * NS_PER_SECOND)
    }
}

/// The link type of a pcap's header field, and the bytes of frame check sequence that the field's upper bits announce:
/// bit 26 says that the number is known, bits 28 to 31 hold the number of 16-bit words.
fn split_network(network: Linktype) -> (Linktype, usize) {
    let field = network.0.cast_unsigned();
    let fcs_words = if field & 1 << 26 == 0 { 0 } else { field >> 28 };
    (Linktype((field & 0xffff).cast_signed()), usize::from(u8::try_from(fcs_words).unwrap_or(0)) * 2)
}

/// The frame without its check sequence. A frame that was cut has lost the sequence already.
fn without_fcs(data: &[u8], original: u32, fcs_bytes: usize) -> (&[u8], u32) {
    let original = original.saturating_sub(u32::try_from(fcs_bytes).unwrap_or(0));
    let len = data.len().min(usize::try_from(original).unwrap_or(usize::MAX));
    (data.get(..len).unwrap_or(data), original)
}

fn is_ethernet(link_type: Linktype) -> Result<(), String> {
    if link_type == Linktype::ETHERNET {
        return Ok(());
    }
    Err(format!("frames of link type {}; only Ethernet (1) can be replayed", link_type.0))
}

/// The parser's error in words.
fn explain(error: &PcapError<&[u8]>) -> String {
    match error {
        PcapError::UnexpectedEof => "the file ends within a block".to_owned(),
        PcapError::BufferTooSmall => format!("a block of more than {BUFFER_BYTES} bytes"),
        PcapError::ReadError => "it can't be read on".to_owned(),
        _ => "no block of a capture".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pcap with these frames: seconds, fraction, bytes, original length.
    fn pcap(link_type: u32, frames: &[(u32, u32, &[u8], usize)]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65_535, link_type] {
            file.extend(word.to_le_bytes());
        }
        for (seconds, micros, bytes, original) in frames {
            for word in [*seconds, *micros, bytes.len() as u32, *original as u32] {
                file.extend(word.to_le_bytes());
            }
            file.extend(*bytes);
        }
        file
    }

    /// A block of a pcapng.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, &body, &len].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn section() -> Vec<u8> {
        block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]))
    }

    /// An interface with a resolution of nanoseconds.
    fn interface(link_type: u32) -> Vec<u8> {
        block(1, &words(&[link_type, 0, 1 << 16 | 9, 9, 0]))
    }

    fn enhanced(interface: u32, at: u64, bytes: &[u8], original: usize) -> Vec<u8> {
        let head = words(&[interface, (at >> 32) as u32, at as u32, bytes.len() as u32, original as u32]);
        block(6, &[&head, bytes].concat())
    }

    fn read(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
        let mut capture = Capture::open(file)?;
        let mut frames = Vec::new();
        while let Some(frame) = capture.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// A reader that gives three bytes at a time, as a pipe may.
    struct Pipe<'a>(&'a [u8]);

    impl Read for Pipe<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let (given, rest) = self.0.split_at(self.0.len().min(to.len()).min(3));
            to[..given.len()].copy_from_slice(given);
            self.0 = rest;
            Ok(given.len())
        }
    }

    #[test]
    fn a_pipe_may_give_a_file_in_small_pieces() {
        let file = pcap(1, &[(7, 5, &[1; 60], 60)]);
        let frame = Capture::open(Pipe(&file)).unwrap().next_frame().unwrap().unwrap();
        assert_eq!(frame, Frame { at_ns: 7_000_005_000, bytes: vec![1; 60] });
    }

    #[test]
    fn both_formats_give_the_frames_and_their_times() {
        let (a, b) = ([1u8; 60], [2u8; 65_549]);
        let frames = read(&pcap(1, &[(5, 7, &a, 60), (6, 0, &b, 65_549)])).unwrap();
        let expected = [(5_000_007_000, &a[..]), (6_000_000_000, &b[..])];
        let expected = expected.map(|(at_ns, bytes)| Frame { at_ns, bytes: bytes.to_vec() });
        assert_eq!(frames, expected);
        let other = block(0x0bad, &[0; 40]);
        let simple = block(3, &[&words(&[61])[..], &[9; 61]].concat());
        let parts =
            [section(), interface(1), other, enhanced(0, 1_000_000_001, &a[..59], 59), simple, section(), interface(1)];
        let file = [parts.concat(), enhanced(0, 3, &b, 65_549)].concat();
        let got: Vec<_> = read(&file).unwrap().iter().map(|frame| (frame.at_ns, frame.bytes.len())).collect();
        assert_eq!(got, [(1_000_000_001, 59), (1_000_000_001, 61), (3, 65_549)]);
        assert_eq!(read(&pcap(1, &[])), Ok(vec![]));
    }

    /// An interface whose time stamps have the resolution `tsresol`.
    fn interface_with_resolution(tsresol: u8) -> Vec<u8> {
        block(1, &words(&[1, 0, 1 << 16 | 9, u32::from(tsresol), 0]))
    }

    #[test]
    fn time_stamps_have_decimal_and_binary_resolutions() {
        for (tsresol, units, expected_ns) in [
            (6, 1_500_000, Some(1_500_000_000)),
            (0, 2, Some(2_000_000_000)),
            (0x94, 3 << 19, Some(1_500_000_000)),
            (0x80, 7, Some(7_000_000_000)),
            (27, 1 << 40, Some(0)),
            (28, 1, None),
            (0xdb, 1, None),
        ] {
            let file = [section(), interface_with_resolution(tsresol), enhanced(0, units, &[1; 60], 60)].concat();
            let got = read(&file).map(|frames| frames[0].at_ns);
            assert_eq!(got.ok(), expected_ns, "resolution {tsresol:#x}");
        }
    }

    #[test]
    fn a_check_sequence_that_the_header_announces_is_no_part_of_the_frame() {
        let with_fcs = |bytes: &[u8], original| read(&pcap(0x2400_0001, &[(1, 0, bytes, original)]));
        assert_eq!(with_fcs(&[5; 64], 64).unwrap()[0].bytes, [5; 60]);
        let error = with_fcs(&[5; 40], 64).unwrap_err().to_string();
        assert!(error.contains("frame 1 is cut: 40 of 60 bytes"), "{error}");
        assert!(read(&pcap(0x2400_0071, &[])).unwrap_err().to_string().contains("link type 113"));
    }

    #[test]
    fn what_can_not_be_replayed_is_named_with_its_place() {
        let frame = [1u8; 60];
        let good = pcap(1, &[(5, 7, &frame, 60)]);
        let ng = [section(), interface(1)].concat();
        let cut = |file: &[u8]| file[..file.len() - 1].to_vec();
        for (file, wrong) in [
            (vec![], "byte 0: the file is empty"),
            (vec![0; 5000], "byte 0: it does not begin like a pcap or pcapng file"),
            (b"hello, world, this is a text".to_vec(), "byte 0: it does not begin like"),
            (cut(&good), "byte 24: the file ends within a block"),
            ([good.clone(), vec![0xff; 16]].concat(), "byte 100: "),
            (pcap(113, &[]), "byte 0: frames of link type 113; only Ethernet (1) can be replayed"),
            (pcap(1, &[(0, 0, &frame, 60), (0, 0, &frame, 61)]), "byte 100: frame 2 is cut: 60 of 61 bytes"),
            (pcap(1, &[(0, 0, &frame[..13], 13)]), "byte 24: frame 1 has 13 bytes; a frame has 14 to 65549"),
            (pcap(1, &[(0, 0, &[0; 65_550], 65_550)]), "byte 24: frame 1 has 65550 bytes"),
            (cut(&ng), "byte 28: the file ends within a block"),
            (
                [ng.clone(), enhanced(1, 0, &frame, 60)].concat(),
                "byte 60: a frame of interface 1, which was not described",
            ),
            ([section(), enhanced(0, 0, &frame, 60)].concat(), "byte 28: a frame of interface 0"),
            ([section(), interface(127), enhanced(0, 0, &frame, 60)].concat(), "byte 60: frames of link type 127"),
            ([ng.clone(), words(&[6, u32::MAX - 3])].concat(), "byte 60: "),
        ] {
            let error = read(&file).unwrap_err().to_string();
            assert!(error.starts_with(wrong) && !error.contains('\n'), "{error}, expected {wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_file_makes_it_panic_or_go_on_for_ever(
            changes in prop::collection::vec((0usize..300, any::<u8>()), 0..6), cut in 0usize..300, ng: bool
        ) {
            let frame = [7u8; 60];
            let mut file = if ng {
                [section(), interface(1), enhanced(0, 5, &frame, 60), enhanced(0, 6, &frame, 60)].concat()
            } else {
                pcap(1, &[(1, 2, &frame, 60), (1, 3, &frame, 60)])
            };
            for (at, byte) in changes {
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            file.truncate(file.len().saturating_sub(cut % 100));
            if let Ok(frames) = read(&file) {
                prop_assert!(frames.len() <= 20);
            }
        }
    }
}
