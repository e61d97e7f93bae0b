//! Frames made ready for a port that can't take them unfinished, or that accepts fewer, larger ones.
//!
//! **How it works.** In place of the burst the port is given a second one, the *stage*, with its frames in the same
//! order. [`Stage::resolve`]: a frame whose request the port does not accept is finished, or cut into segments; the
//! others are lent on as they lie. [`Stage::merge`]: TCP segments that follow each other become one frame with a
//! request (GRO), for a port that accepts it; a frame of a flow never overtakes another of the same flow. Everything is
//! done in the form in which the frames were received; the tag edit is applied by the port, to each segment.
//!
//! **Memory.** Frames that are made here are copied into the *arena*, once. When it is full, or the stage has 64
//! frames, they are sent, and it starts from the beginning. Nothing is allocated after [`Stage::new`].
//!
//! **Invariants.**
//! - The stage is empty between two calls.
//! - The arena is written only while no frame is lent from it ([`Burst::lend`]).
//! - The ports need to know nothing of segments: what a port does not accept never reaches it.
//!
//! The engine is [`crate::offload`]. Reference: Virtio 1.2, 5.1.6; kernel
//! `Documentation/networking/segmentation-offloads.rst`.

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::{BURST_FRAMES, DropReason};

use crate::flow::flow_hash;
use crate::frame::{Burst, Lender, MAX_BURST_SEGMENTS, MAX_FRAME_BYTES};
use crate::losses::{Losses, TxReport};
use crate::offload::{Asked, Coalescer, Cutter, Offers, Partial, Resolution, Sum, finish_checksum};
use crate::port::{Fault, FrameSink};

/// Room for frames that are made here, bytes: a few of the largest, or a burst of ordinary ones that stays in a core's
/// own cache.
const ARENA_BYTES: usize = 256 * 1024;
const _: () = assert!(ARENA_BYTES > 2 * MAX_FRAME_BYTES as usize);
/// The most segments that the frames of one burst become, at all ports together: a few milliseconds of work.
const MAX_SEGMENTS: u32 = 4 * MAX_BURST_SEGMENTS;
/// Flows that are merged side by side.
const MAX_MERGES: usize = 16;
/// A shorter frame is not worth merging, bytes.
const MIN_MERGED_BYTES: u32 = 256;

/// The sink of a stage's frames, and their outcome.
struct Delivery<'a, 'r> {
    sink: &'a mut dyn FrameSink,
    /// The burst that the frames are made from.
    from: &'a Burst,
    report: &'a mut TxReport<'r>,
    /// The frames of `from` (bit = index) of which anything was sent.
    sent: u64,
    /// The frames of `from` of which anything was lost, and the first reason. Their loss is counted already.
    lost: Losses,
}

impl Delivery<'_, '_> {
    /// Counts a frame of `from` as dropped.
    #[cold]
    fn lose(&mut self, frame: u8, reason: DropReason) {
        self.report.stats.drop(reason);
        self.note_lost(1 << frame, reason);
    }

    /// Remembers why something of these frames of `from` was lost.
    #[cold]
    fn note_lost(&mut self, frames: u64, reason: DropReason) {
        let new = frames & !self.lost.frames();
        (0..64).filter(|frame| new >> frame & 1 == 1).for_each(|frame| self.lost.insert(frame, reason));
    }

    /// Reports the frames of which nothing was sent.
    fn close(self, items: &[TxItem]) {
        let Delivery { report, sent, lost, .. } = self;
        for item in items.iter().filter(|item| sent >> item.frame & 1 == 0) {
            match lost.reason(item.frame) {
                Some(reason) => report.losses.insert(item.frame, reason),
                // The port went out of service before it was the frame's turn.
                None => report.lose(item.frame, DropReason::NotConnected),
            }
        }
    }
}

/// A frame of the stage.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The frame it was made from, the first of them if merged.
    item: TxItem,
    /// All frames it was made from (bit = index).
    origins: u64,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// The frame as it was received.
    AsIs,
    /// In the arena.
    Made { at: usize, len: usize },
    /// The merge with this index.
    Merged(usize),
}

/// Segments of a flow that become one frame.
#[derive(Debug)]
struct Merge {
    coalescer: Coalescer,
    /// The hash of the frame's flow.
    hash: u32,
    /// Where the first segment lies in the arena, headers first.
    at: usize,
    /// A frame of the same flow that can't be merged with it came behind it.
    closed: bool,
    /// The offload state with which the frame is sent.
    asked: Asked,
}

/// Payload of a further segment, in the arena.
#[derive(Clone, Copy, Debug)]
struct Piece {
    merge: usize,
    at: usize,
    len: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stage {
    burst: Burst,
    items: Vec<TxItem>,
    entries: Vec<Entry>,
    merges: Vec<Merge>,
    pieces: Vec<Piece>,
    /// The frames of the stage that the port lost.
    losses: Losses,
    arena: Box<[u8]>,
    used: usize,
    /// Segments that the burst may still become.
    segments_left: u32,
}

/// True if some of these frames must be changed for a port that accepts `offers`.
pub(crate) fn is_needed(burst: &Burst, items: &[TxItem], offers: Offers) -> bool {
    items.iter().any(|item| !burst.asked(item.frame.into()).passes(offers))
}

/// True if merging some of these frames may be worth while.
pub(crate) fn may_merge(burst: &Burst, items: &[TxItem]) -> bool {
    let long = |item: &&TxItem| burst.frame(item.frame.into()).is_some_and(|frame| frame.len >= MIN_MERGED_BYTES);
    items.iter().filter(long).take(2).count() == 2
}

impl Stage {
    /// An empty stage.
    pub(crate) fn new() -> Stage {
        Stage {
            burst: Burst::new(),
            items: Vec::with_capacity(BURST_FRAMES),
            entries: Vec::with_capacity(BURST_FRAMES),
            merges: Vec::with_capacity(MAX_MERGES),
            pieces: Vec::with_capacity(BURST_FRAMES),
            losses: Losses::NONE,
            arena: vec![0; ARENA_BYTES].into_boxed_slice(),
            used: 0,
            segments_left: MAX_SEGMENTS,
        }
    }

    /// A burst begins, whose frames may become [`MAX_SEGMENTS`].
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.segments_left = MAX_SEGMENTS;
    }

    /// Gives frames of `from` to a sink that accepts `offers`, and finishes the offloads that the sink does not accept.
    /// Otherwise like [`FrameSink::take`]; a frame counts as taken if any of its segments was.
    pub(crate) fn resolve(
        &mut self,
        sink: &mut dyn FrameSink,
        from: &Burst,
        items: &[TxItem],
        offers: Offers,
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        self.deliver(sink, from, items, report, |stage, item, delivery| {
            match from.asked(item.frame.into()).resolve(offers) {
                Resolution::PassOn => stage.add(item, Form::AsIs, delivery),
                Resolution::Finish(partial) => stage.finish(item, partial, delivery),
                Resolution::Cut => stage.cut(item, delivery),
            }
        })
    }

    /// Gives frames of `from` to a sink that takes merged ones, of the kinds in `offers`. As [`FrameSink::take`].
    pub(crate) fn merge(
        &mut self,
        sink: &mut dyn FrameSink,
        from: &Burst,
        items: &[TxItem],
        offers: Offers,
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        self.deliver(sink, from, items, report, |stage, item, delivery| stage.merge_one(item, offers, delivery))
    }

    /// Gives frames of `from` to a sink, each as `put` puts it into the stage.
    fn deliver(
        &mut self,
        sink: &mut dyn FrameSink,
        from: &Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
        mut put: impl FnMut(&mut Stage, &TxItem, &mut Delivery<'_, '_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut delivery = Delivery { sink, from, report, sent: 0, lost: Losses::NONE };
        let all_put = items.iter().try_for_each(|item| put(self, item, &mut delivery));
        let outcome = all_put.and_then(|()| self.flush(&mut delivery));
        delivery.close(items);
        outcome
    }

    /// Finishes the checksum of a frame.
    fn finish(&mut self, item: &TxItem, partial: Partial, delivery: &mut Delivery<'_, '_>) -> Result<(), Fault> {
        let Some((at, len)) = self.copy(item, delivery)? else { return Ok(()) };
        let frame = self.arena.get_mut(at..at + len).unwrap_or_default();
        // It was seen to lie inside the frame when the frame was received.
        if finish_checksum(frame, Sum::default(), partial).is_err() {
            delivery.lose(item.frame, DropReason::BadOffload);
            return Ok(());
        }
        self.add(item, Form::Made { at, len }, delivery)
    }

    /// Cuts a frame.
    fn cut(&mut self, item: &TxItem, delivery: &mut Delivery<'_, '_>) -> Result<(), Fault> {
        let from = delivery.from;
        let index = usize::from(item.frame);
        let (Some(frame), Some(mut reader)) = (from.frame(index), from.reader(&as_received(item))) else {
            return Ok(());
        };
        // The snapshot is the one that was judged when the frame was received, so it is not refused here.
        let Ok(mut cutter) = Cutter::new(from.snapshot(index), frame.len, from.asked(index).request) else {
            delivery.lose(item.frame, DropReason::BadOffload);
            return Ok(());
        };
        let Some(left) = self.segments_left.checked_sub(cutter.segments()) else {
            delivery.lose(item.frame, DropReason::SegmentLimit);
            return Ok(());
        };
        self.segments_left = left;
        let header_bytes = cutter.header_bytes();
        reader.skip(header_bytes);
        while let Some(cut) = cutter.next_cut() {
            let len = cut.frame_bytes() as usize;
            let at = self.reserve(len, delivery)?;
            let Some((headers, payload)) =
                self.arena.get_mut(at..at + len).and_then(|place| place.split_at_mut_checked(header_bytes))
            else {
                break;
            };
            reader.read_to(payload);
            headers.copy_from_slice(cut.finish(Sum::of(payload)));
            self.add(item, Form::Made { at, len }, delivery)?;
        }
        Ok(())
    }

    /// Adds a frame, to one of the same flow if it continues that.
    fn merge_one(&mut self, item: &TxItem, offers: Offers, delivery: &mut Delivery<'_, '_>) -> Result<(), Fault> {
        let index = usize::from(item.frame);
        let (snapshot, len) = (delivery.from.snapshot(index), delivery.from.frame(index).map_or(0, |frame| frame.len));
        let worth =
            len >= MIN_MERGED_BYTES && Coalescer::kind(snapshot, len).is_some_and(|kind| offers.takes_merged_of(kind));
        if !worth {
            if !self.merges.is_empty() {
                self.close(flow_hash(snapshot));
            }
            return self.add(item, Form::AsIs, delivery);
        }
        let hash = flow_hash(snapshot);
        let Some((at, len)) = self.copy(item, delivery)? else { return Ok(()) };
        let frame = self.arena.get(at..at + len).unwrap_or_default();
        let Some(header_bytes) = Coalescer::header_bytes(frame) else {
            self.close(hash);
            return self.add(item, Form::Made { at, len }, delivery);
        };
        let payload = Sum::of(frame.get(header_bytes..).unwrap_or_default());
        let frame_bytes = u32::try_from(len).unwrap_or(u32::MAX);
        let open = self.merges.iter_mut().enumerate().find(|(_, merge)| merge.hash == hash && !merge.closed);
        if let Some((merge, open)) = open {
            if open.coalescer.add(frame, frame_bytes, payload) {
                self.pieces.push(Piece { merge, at: at + header_bytes, len: len - header_bytes });
                let first = self.entries.iter_mut().find(|entry| matches!(entry.form, Form::Merged(of) if of == merge));
                if let Some(first) = first {
                    first.origins |= 1 << item.frame;
                }
                return Ok(());
            }
            open.closed = true;
        }
        match Coalescer::begin(frame, frame_bytes, payload) {
            Some(coalescer) if self.merges.len() < MAX_MERGES => {
                self.merges.push(Merge { coalescer, hash, at, closed: false, asked: Asked::VERIFIED });
                self.add(item, Form::Merged(self.merges.len() - 1), delivery)
            }
            _ => self.add(item, Form::Made { at, len }, delivery),
        }
    }

    /// Nothing more is added to the frame of this flow.
    fn close(&mut self, hash: u32) {
        for merge in self.merges.iter_mut().filter(|merge| merge.hash == hash) {
            merge.closed = true;
        }
    }

    /// Copies a frame as it was received into the arena; returns where it lies.
    fn copy(&mut self, item: &TxItem, delivery: &mut Delivery<'_, '_>) -> Result<Option<(usize, usize)>, Fault> {
        let Some(mut reader) = delivery.from.reader(&as_received(item)) else {
            delivery.lose(item.frame, DropReason::Runt);
            return Ok(None);
        };
        let len = reader.remaining() as usize;
        let at = self.reserve(len, delivery)?;
        reader.read_to(self.arena.get_mut(at..at + len).unwrap_or_default());
        Ok(Some((at, len)))
    }

    /// Makes room for `len` bytes in the arena, and for one more frame; sends the present frames if needed.
    fn reserve(&mut self, len: usize, delivery: &mut Delivery<'_, '_>) -> Result<usize, Fault> {
        self.make_room(delivery)?;
        if self.arena.len() - self.used < len {
            self.flush(delivery)?;
        }
        let at = self.used;
        self.used += len;
        Ok(at)
    }

    /// Room for one more frame.
    fn make_room(&mut self, delivery: &mut Delivery<'_, '_>) -> Result<(), Fault> {
        if self.entries.len() >= BURST_FRAMES { self.flush(delivery) } else { Ok(()) }
    }

    fn add(&mut self, item: &TxItem, form: Form, delivery: &mut Delivery<'_, '_>) -> Result<(), Fault> {
        self.make_room(delivery)?;
        self.entries.push(Entry { item: *item, origins: 1 << item.frame, form });
        Ok(())
    }

    /// Gives the sink the frames of the stage.
    fn flush(&mut self, delivery: &mut Delivery<'_, '_>) -> Result<(), Fault> {
        self.finish_merges();
        self.items.clear();
        // The lists go in step: an entry always fits.
        self.items.extend((0u8..).zip(&self.entries).map(|(frame, entry)| TxItem { frame, ..entry.item }));
        self.losses.clear();
        let Stage { burst, items, entries, losses, .. } = self;
        let (entries, made) = (&*entries, Made { arena: &self.arena, merges: &self.merges, pieces: &self.pieces });
        let (from, sink) = (delivery.from, &mut *delivery.sink);
        let mut report = TxReport { stats: delivery.report.stats, losses };
        let outcome = if items.is_empty() {
            Ok(())
        } else {
            burst.lend(
                |lender| entries.iter().for_each(|entry| made.lend(entry, from, lender)),
                |burst| sink.take(burst, items, &mut report),
            )
        };
        for (item, entry) in self.items.iter().zip(&self.entries) {
            match self.losses.reason(item.frame) {
                None => delivery.sent |= entry.origins,
                Some(reason) => delivery.note_lost(entry.origins, reason),
            }
        }
        self.clear();
        outcome
    }

    /// Removes all frames from the stage.
    fn clear(&mut self) {
        self.entries.clear();
        self.merges.clear();
        self.pieces.clear();
        self.used = 0;
    }

    /// Writes the headers of the merged frames.
    fn finish_merges(&mut self) {
        for Merge { coalescer, at, asked, .. } in self.merges.iter_mut().filter(|merge| merge.coalescer.segments() > 1)
        {
            let frame_bytes = coalescer.frame_bytes();
            let merged = coalescer.finish();
            if let Some(headers) = self.arena.get_mut(*at..*at + merged.headers.len()) {
                headers.copy_from_slice(merged.headers);
            }
            let header = merged.request.encode(0);
            *asked = Asked::admit(&header, merged.headers, frame_bytes, Offers::ALL).unwrap_or_default();
        }
    }
}

/// Frames that were made here.
struct Made<'a> {
    arena: &'a [u8],
    merges: &'a [Merge],
    pieces: &'a [Piece],
}

impl<'a> Made<'a> {
    /// Puts an entry into a burst.
    fn lend(&self, entry: &Entry, from: &'a Burst, lender: &mut Lender<'_, 'a>) {
        let lent = match entry.form {
            Form::AsIs => lender.push_from(from, entry.item.frame.into()),
            Form::Made { at, len } => lender.push(self.bytes(at, len)),
            Form::Merged(merge) => self.lend_merged(merge, lender),
        };
        debug_assert!(lent, "an entry is a frame, and there are at most 64");
    }

    fn lend_merged(&self, index: usize, lender: &mut Lender<'_, 'a>) -> bool {
        let Some(Merge { coalescer, at, asked, .. }) = self.merges.get(index) else { return false };
        let first = self.bytes(*at, coalescer.first_frame_bytes() as usize);
        let further = self.pieces.iter().filter(|piece| piece.merge == index);
        let further = further.map(|piece| self.bytes(piece.at, piece.len));
        let lent = lender.push_pieces(std::iter::once(first).chain(further));
        lender.set_asked(*asked);
        lent
    }

    /// The bytes of the arena there.
    fn bytes(&self, at: usize, len: usize) -> &'a [u8] {
        self.arena.get(at..at + len).unwrap_or_default()
    }
}

/// The frame as it was received, whole.
fn as_received(item: &TxItem) -> TxItem {
    TxItem::whole(item.frame, TagEdit::KEEP)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
