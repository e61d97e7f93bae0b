//! Capture files that are to be replayed: any bytes, read at once and in small pieces.
//!
//! A file gives frames of possible lengths, no more bytes than it has, or a complaint of one line that names a byte of
//! it; reading in pieces makes no difference; each call takes at least one byte further.

use std::io::Read;
use std::time::{Duration, Instant};

use labsw_control::ctl::inject::capture::{Capture, CaptureError, Frame, MAX_FRAME_BYTES, MIN_FRAME_BYTES};

/// Much longer than any input takes, also under a sanitizer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a capture file.
///
/// # Panics
/// When a frame is impossible, or reading costs more than the file has.
pub fn capture(data: &[u8]) {
    let Some((&piece, file)) = data.split_first() else { return };
    let begin = Instant::now();
    let (frames, complaint) = read(file, file.len());
    assert_eq!(read(Pieces { rest: file, most: usize::from(piece).max(1) }, file.len()), (frames.clone(), complaint));
    let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
    assert!(bytes <= file.len(), "{bytes} bytes of frames out of {}", file.len());
    assert!(begin.elapsed() < PATIENCE, "{} bytes took {:?}", file.len(), begin.elapsed());
}

/// All frames up to the end or the first complaint.
fn read(file: impl Read + Send, bytes: usize) -> (Vec<Frame>, Option<String>) {
    let mut frames = Vec::new();
    let complain = |error: CaptureError| {
        let text = error.to_string();
        let place = text.strip_prefix("byte ").and_then(|text| text.split_once(": "));
        let (place, rest) = place.unwrap_or_else(|| panic!("{text:?} names no byte"));
        assert!(place.parse::<usize>().expect("a number") <= bytes && !rest.is_empty() && !text.contains('\n'));
        text
    };
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(complain(error))),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => {
                assert!((MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&frame.bytes.len()));
                frames.push(frame);
                assert!(frames.len() <= bytes / MIN_FRAME_BYTES, "frames without end");
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(complain(error))),
        }
    }
}

/// A file that is read a few bytes at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    most: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let (taken, rest) = self.rest.split_at(self.most.min(to.len()).min(self.rest.len()));
        to[..taken.len()].copy_from_slice(taken);
        self.rest = rest;
        Ok(taken.len())
    }
}
