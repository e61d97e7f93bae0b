//! Impairments and gates that go on with the new process, as data, and the file in which their frames and copies lie.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use labsw_dataplane::handover::HandoverError;
use labsw_switch::impair::Progress;
use labsw_switch::inject::GateRecord;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

/// Most bytes of delayed frames: more than a switch keeps.
const MAX_BYTES: u64 = 1 << 30;

/// The impairment of a port.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ImpairRecord {
    /// Frames from the port.
    pub rx: Option<DirectionRecord>,
    /// Frames to the port.
    pub tx: Option<DirectionRecord>,
}

impl ImpairRecord {
    /// Both directions.
    pub fn directions(&self) -> impl Iterator<Item = &DirectionRecord> {
        self.rx.iter().chain(&self.tx)
    }
}

/// One direction of an impairment.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DirectionRecord {
    /// The seed that it began with.
    pub seed: u32,
    /// Where it stands.
    pub progress: Progress,
    /// Its frames that wait, for each queue that they wait in.
    pub lines: Vec<Stretch>,
}

/// The gate for frames that a mirror's destination injects.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct InjectRecord {
    /// Its state.
    pub gate: GateRecord,
    /// The copies that may still come back.
    pub copies: Stretch,
}

/// A part of the file of delayed frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    begin: usize,
    bytes: usize,
}

/// The delayed frames of all impairments, and the copies that gates know. As numbers in a message, megabytes of them
/// would take too long while no worker runs.
#[derive(Debug, Default)]
pub struct DelayedFrames(Vec<u8>);

impl DelayedFrames {
    /// Adds frames; returns where they lie.
    pub fn put(&mut self, packed: &[u8]) -> Stretch {
        let begin = self.0.len();
        self.0.extend_from_slice(packed);
        Stretch { begin, bytes: packed.len() }
    }

    /// A file in memory with the frames; `None` if there are none.
    ///
    /// # Errors
    /// Those of memfd_create(2) and write(2).
    pub fn file(&self) -> io::Result<Option<OwnedFd>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let file = memfd_create("labsw-delayed", MemfdFlags::CLOEXEC)?;
        let file = File::from(file);
        file.write_all_at(&self.0, 0)?;
        Ok(Some(file.into()))
    }

    /// Reads the file of another process.
    ///
    /// # Errors
    /// It can't be read, or has more bytes than any switch keeps.
    pub fn read(file: OwnedFd) -> Result<DelayedFrames, HandoverError> {
        let file = File::from(file);
        let bytes = file.metadata().map_err(HandoverError::new)?.len();
        if bytes > MAX_BYTES {
            return Err(HandoverError::new(format!("{bytes} bytes of delayed frames are more than any switch keeps")));
        }
        let mut read = vec![0; usize::try_from(bytes).map_err(HandoverError::new)?];
        file.read_exact_at(&mut read, 0).map_err(HandoverError::new)?;
        Ok(DelayedFrames(read))
    }

    /// The frames of this stretch, with the times at which they are due.
    ///
    /// # Errors
    /// The stretch lies outside of the file, or what lies there are no frames.
    pub fn frames(&self, stretch: Stretch) -> Result<Vec<(u64, &[u8])>, HandoverError> {
        let frames = self.bytes(stretch).and_then(labsw_dataplane::impair::unpack);
        frames.ok_or_else(|| HandoverError::new("the delayed frames of an impairment are garbled"))
    }

    /// The bytes of this stretch; `None`: it lies outside of the file.
    pub fn bytes(&self, stretch: Stretch) -> Option<&[u8]> {
        let Stretch { begin, bytes } = stretch;
        begin.checked_add(bytes).and_then(|end| self.0.get(begin..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_the_file_where_they_were_put_and_nowhere_else() {
        let mut written = DelayedFrames::default();
        assert!(written.file().unwrap().is_none());
        let packed = [&5u64.to_le_bytes()[..], &3u32.to_le_bytes(), &[1, 2, 3]].concat();
        let (one, two) = (written.put(&packed), written.put(&[]));
        let read = DelayedFrames::read(written.file().unwrap().unwrap()).unwrap();
        assert_eq!(read.frames(one).unwrap(), [(5, &[1, 2, 3][..])]);
        assert!(read.frames(two).unwrap().is_empty());
        for (begin, bytes) in [(0, packed.len() + 1), (1, packed.len() - 1), (usize::MAX, 1), (0, 12)] {
            assert!(read.frames(Stretch { begin, bytes }).is_err(), "{begin} {bytes}");
        }
        let long = memfd_create("long", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&long, MAX_BYTES + 1).unwrap();
        assert!(DelayedFrames::read(long).is_err());
    }
}
