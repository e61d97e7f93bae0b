//! Rewind: a bounded memory of the frames that passed at a port, or were dropped there, up to now.
//!
//! **How it works.** The memory is a number of chunks. A worker writes frames into the open chunk of a *lane*: the
//! first lane that no other thread uses. A full chunk is sealed, and the lane gets another chunk: a new one while the
//! memory is not used up, else the oldest sealed one. There is one lane more than workers, so one is always free.
//!
//! A [`Reading`] goes through the sealed chunks of each lane, then a copy of its open chunk made at the beginning,
//! and gives the frames in the order of their times. It holds one chunk of each lane at a time; chunks that were used
//! again before it came to them are passed over.
//!
//! A frame is stored as its time (8 bytes), length on the wire (4), direction (1) and drop reason (1), then its bytes:
//! 74 bytes for the shortest frame of Ethernet, which has 60 without its frame check sequence.
//!
//! **Invariants.**
//! - Forwarding never waits: a frame for which no lane or no chunk is free is not kept, and counted.
//! - Memory is bounded: the chunks that [`Rewind::new`] allows, and one more for each lane that a reading goes through.
//! - The chunks of a lane, and the frames in them, are in the order in which they were written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use labsw_switch::DropReason;
use labsw_switch::forward::TxItem;

use super::Way;
use crate::frame::Burst;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// The least memory, in bytes.
pub const MIN_REWIND_BYTES: u64 = 4 << 20;
/// The bytes stored before each frame.
const HEADER_BYTES: usize = 14;
/// Most lanes; more workers than that share them.
const MAX_LANES: usize = 16;
/// How often a worker tries to get at the sealed chunks, which a reading looks at for some nanoseconds.
const TRIES: usize = 200;
/// The drop reason of a frame that was not dropped.
const NOT_DROPPED: u8 = u8::MAX;

/// The memory of one port.
#[derive(Debug)]
pub struct Rewind {
    lanes: Box<[Mutex<Lane>]>,
    /// Full chunks of each lane, the oldest first.
    sealed: Mutex<Box<[VecDeque<Arc<Chunk>>]>>,
    /// Chunks there are, and may be.
    chunks: AtomicUsize,
    most_chunks: usize,
    /// The number of the next chunk that is opened.
    next_number: AtomicU64,
    missed: AtomicU64,
}

/// A place where one worker at a time writes.
#[derive(Debug)]
struct Lane {
    number: usize,
    open: Option<Chunk>,
}

/// Frames, one behind the other.
#[derive(Clone, Debug)]
struct Chunk {
    number: u64,
    first_ns: u64,
    last_ns: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    fn new(number: u64, mut bytes: Vec<u8>) -> Chunk {
        bytes.clear();
        bytes.reserve_exact(CHUNK_BYTES);
        Chunk { number, first_ns: 0, last_ns: 0, bytes }
    }

    /// The frame at this offset, and the offset of the next one.
    fn frame(&self, at: usize) -> Option<(Past<'_>, usize)> {
        let (header, rest) = self.bytes.get(at..)?.split_first_chunk::<HEADER_BYTES>()?;
        let [t0, t1, t2, t3, t4, t5, t6, t7, w0, w1, w2, w3, way, reason] = *header;
        let wire_bytes = u32::from_le_bytes([w0, w1, w2, w3]);
        let bytes = rest.get(..wire_bytes as usize)?;
        let past = Past {
            way: if way == 0 { Way::Rx } else { Way::Tx },
            dropped: DropReason::ALL.get(usize::from(reason)).copied(),
            time_ns: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            bytes,
        };
        Some((past, at + HEADER_BYTES + bytes.len()))
    }
}

/// A frame that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past<'a> {
    /// Which way it went.
    pub way: Way,
    /// Why it was dropped; `None`: it was not.
    pub dropped: Option<DropReason>,
    /// When, nanoseconds since 1970.
    pub time_ns: u64,
    /// The frame.
    pub bytes: &'a [u8],
}

impl Rewind {
    /// A memory of at most `bytes`, at least [`MIN_REWIND_BYTES`], written by so many workers.
    pub fn new(bytes: u64, workers: usize) -> Rewind {
        let lanes = workers.saturating_add(1).min(MAX_LANES);
        let bytes = usize::try_from(bytes.max(MIN_REWIND_BYTES)).unwrap_or(usize::MAX);
        Rewind {
            lanes: (0..lanes).map(|number| Mutex::new(Lane { number, open: None })).collect(),
            sealed: Mutex::new((0..lanes).map(|_| VecDeque::new()).collect()),
            chunks: AtomicUsize::new(0),
            most_chunks: bytes / (CHUNK_BYTES + size_of::<Chunk>()),
            next_number: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }

    /// Frames for which there was no room, since the beginning.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        let chunks = self.chunks.load(Ordering::Relaxed);
        (chunks as u64).saturating_mul(CHUNK_BYTES as u64)
    }

    /// The time of the oldest frame that is kept, nanoseconds since 1970.
    pub fn oldest_ns(&self) -> Option<u64> {
        let open = self.lanes.iter().filter_map(|lane| Some(locked(lane).open.as_ref()?.first_ns)).min();
        let sealed = locked(&self.sealed).iter().filter_map(|lane| Some(lane.front()?.first_ns)).min();
        open.into_iter().chain(sealed).filter(|time| *time > 0).min()
    }

    /// Keeps frames of `burst` as they leave, or as they came if `items` say so.
    pub(super) fn record(&self, burst: &Burst, items: &[TxItem], way: Way, dropped: Option<DropReason>, time_ns: u64) {
        let mut lane = None;
        for item in items {
            let Some(mut reader) = burst.reader(item) else { continue };
            let Some(lane) = self.lane(&mut lane) else {
                self.missed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let wire_bytes = reader.remaining();
            let Some(chunk) = self.chunk_with_room(lane, HEADER_BYTES + wire_bytes as usize) else {
                self.missed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if chunk.bytes.is_empty() {
                chunk.first_ns = time_ns;
            }
            chunk.last_ns = time_ns;
            chunk.bytes.extend_from_slice(&time_ns.to_le_bytes());
            chunk.bytes.extend_from_slice(&wire_bytes.to_le_bytes());
            let reason = dropped.map_or(NOT_DROPPED, |reason| reason as u8);
            chunk.bytes.extend_from_slice(&[u8::from(way == Way::Tx), reason]);
            let from = chunk.bytes.len();
            chunk.bytes.resize(from + wire_bytes as usize, 0);
            if let Some(bytes) = chunk.bytes.get_mut(from..) {
                reader.read_to(bytes);
            }
        }
    }

    /// The lane of this burst: the first that is free.
    fn lane<'a, 'b>(&'a self, taken: &'b mut Option<MutexGuard<'a, Lane>>) -> Option<&'b mut Lane> {
        if taken.is_none() {
            *taken = self.lanes.iter().find_map(free);
        }
        taken.as_deref_mut()
    }

    /// The open chunk of a lane, with room for so many bytes.
    fn chunk_with_room<'a>(&self, lane: &'a mut Lane, bytes: usize) -> Option<&'a mut Chunk> {
        let full = |open: &Chunk| open.bytes.len() + bytes > CHUNK_BYTES;
        if lane.open.as_ref().is_none_or(full) {
            if bytes > CHUNK_BYTES {
                return None;
            }
            self.renew(lane)?;
        }
        lane.open.as_mut()
    }

    /// Seals the open chunk of a lane and gives it an empty one.
    #[cold]
    fn renew(&self, lane: &mut Lane) -> Option<()> {
        let mut sealed = (0..TRIES).find_map(|_| {
            std::hint::spin_loop();
            free(&self.sealed)
        })?;
        if let Some(full) = lane.open.take()
            && let Some(of_lane) = sealed.get_mut(lane.number)
        {
            of_lane.push_back(Arc::new(full));
        }
        let more = |chunks: usize| (chunks < self.most_chunks).then_some(chunks + 1);
        let bytes = match self.chunks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Vec::new(),
            Err(_) => {
                let front = |lane: &&mut VecDeque<Arc<Chunk>>| lane.front().map_or(u64::MAX, |chunk| chunk.number);
                let oldest = sealed.iter_mut().min_by_key(front)?.pop_front()?;
                // While a reading has the chunk, another takes its place.
                Arc::try_unwrap(oldest).map(|chunk| chunk.bytes).unwrap_or_default()
            }
        };
        lane.open = Some(Chunk::new(self.next_number.fetch_add(1, Ordering::Relaxed), bytes));
        Some(())
    }

    /// Reads the frames from `since_ns` on that are kept now.
    pub fn read(self: &Arc<Rewind>, since_ns: u64) -> Reading {
        let end = self.next_number.load(Ordering::Relaxed);
        let cursor = |lane: &Mutex<Lane>| {
            let open = locked(lane).open.clone();
            Cursor { until: open.as_ref().map_or(end, |open| open.number), from: 0, at: 0, chunk: None, open }
        };
        let lanes = self.lanes.iter().map(cursor).collect();
        Reading { rewind: Arc::clone(self), since_ns, lanes }
    }

    /// The first sealed chunk of a lane from this number on that has frames of `since_ns` or later.
    fn sealed_chunk(&self, lane: usize, from: u64, since_ns: u64) -> Option<Arc<Chunk>> {
        let sealed = locked(&self.sealed);
        let sealed = sealed.get(lane)?;
        let at = sealed.partition_point(|chunk| chunk.number < from || chunk.last_ns < since_ns);
        sealed.get(at).map(Arc::clone)
    }
}

/// Takes a lock if no other thread has it.
fn free<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Takes a lock; for the control thread.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The frames of a [`Rewind`], in the order of their times.
#[derive(Debug)]
pub struct Reading {
    rewind: Arc<Rewind>,
    since_ns: u64,
    lanes: Vec<Cursor>,
}

/// Where a reading is in a lane.
#[derive(Debug)]
struct Cursor {
    /// The sealed chunks to read: numbers from `from` to below `until`.
    from: u64,
    until: u64,
    /// The chunk that is read, and the offset of the next frame.
    chunk: Option<Arc<Chunk>>,
    at: usize,
    /// A copy of the open chunk, to be read last.
    open: Option<Chunk>,
}

impl Cursor {
    /// The time of the next frame of this lane.
    fn next_ns(&mut self, lane: usize, rewind: &Rewind, since_ns: u64) -> Option<u64> {
        loop {
            let Some(chunk) = &self.chunk else {
                self.chunk = Some(self.next_chunk(lane, rewind, since_ns)?);
                self.at = 0;
                continue;
            };
            match chunk.frame(self.at) {
                None => self.chunk = None,
                Some((past, next)) if past.time_ns < since_ns => self.at = next,
                Some((past, _)) => return Some(past.time_ns),
            }
        }
    }

    fn next_chunk(&mut self, lane: usize, rewind: &Rewind, since_ns: u64) -> Option<Arc<Chunk>> {
        let sealed = rewind.sealed_chunk(lane, self.from, since_ns).filter(|chunk| chunk.number < self.until);
        let chunk = sealed.or_else(|| self.open.take().map(Arc::new))?;
        self.from = chunk.number + 1;
        Some(chunk)
    }

    /// The next frame of this lane.
    fn next(&mut self) -> Option<Past<'_>> {
        let (past, next) = self.chunk.as_ref()?.frame(self.at)?;
        self.at = next;
        Some(past)
    }
}

impl Reading {
    /// The time of the next frame.
    pub fn next_ns(&mut self) -> Option<u64> {
        self.first().map(|(_, time)| time)
    }

    /// The lane with the next frame, and its time.
    fn first(&mut self) -> Option<(usize, u64)> {
        let Reading { rewind, since_ns, lanes } = self;
        let times = lanes.iter_mut().enumerate().filter_map(|(number, lane)| {
            let time = lane.next_ns(number, rewind, *since_ns)?;
            Some((number, time))
        });
        times.min_by_key(|(_, time)| *time)
    }

    /// The next frame.
    #[allow(clippy::should_implement_trait, reason = "an iterator can't lend its items")]
    pub fn next(&mut self) -> Option<Past<'_>> {
        let (lane, _) = self.first()?;
        self.lanes.get_mut(lane)?.next()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
