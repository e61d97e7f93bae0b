//! A frame as a filter sees it: snapshot, tag edit, and what lies behind the snapshot.

use std::cell::Cell;

use super::Form;
use crate::header::SNAPSHOT_BYTES;
use crate::tag_edit::TagEdit;
use crate::wire::{self, TPID_C_TAG, TPID_S_TAG};

#[allow(clippy::cast_possible_truncation, reason = "12")]
const TAG_OFFSET: u32 = wire::TAG_OFFSET as u32;
#[allow(clippy::cast_possible_truncation, reason = "4")]
const TAG_BYTES: u32 = wire::TAG_BYTES as u32;

/// The bytes of a frame that its snapshot does not hold.
pub trait Behind {
    /// Copies bytes of the frame as received, from `offset` on, which is behind the snapshot. False if they are not all
    /// there.
    fn read(&self, offset: u32, to: &mut [u8]) -> bool;
}

/// Behind a snapshot that is the whole frame.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Behind for Nothing {
    fn read(&self, _offset: u32, _to: &mut [u8]) -> bool {
        false
    }
}

/// A frame to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a, B> {
    /// Its first bytes as received; see [`SNAPSHOT_BYTES`].
    pub snapshot: &'a [u8],
    /// Its length on the wire as received, bytes: what `len`, `greater` and `less` mean.
    pub wire_bytes: u32,
    /// How the frame that is judged differs from the one received.
    pub edit: TagEdit,
    /// Where the rest is.
    pub behind: B,
}

impl<'a> Frame<'a, Nothing> {
    /// A frame that is all here, as received.
    pub fn whole(bytes: &'a [u8]) -> Frame<'a, Nothing> {
        let wire_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Frame { snapshot: bytes, wire_bytes, edit: TagEdit::KEEP, behind: Nothing }
    }
}

impl<'a, B: Behind> Frame<'a, B> {
    /// The frame as a filter for `form` sees it.
    pub(super) fn view(&self, form: Form) -> View<'_, 'a, B> {
        let mut view = View {
            frame: self,
            skip: self.edit.strip_bytes.into(),
            insert: self.edit.insert,
            seen: Cell::new(0),
            unseen: Cell::new(false),
        };
        if form == Form::Untagged && view.insert.take().is_none() {
            let tpid = view.received(TAG_OFFSET + view.skip).map(u16::from_be_bytes);
            if matches!(tpid, Some(TPID_C_TAG | TPID_S_TAG)) {
                view.skip += TAG_BYTES;
            }
        }
        view
    }
}

/// The bytes that a program reads.
pub(super) struct View<'f, 'a, B> {
    frame: &'f Frame<'a, B>,
    /// Bytes left out at the place of the tag.
    skip: u32,
    /// The tag put there.
    insert: Option<[u8; 4]>,
    /// The bytes of the snapshot that were read (bit = offset).
    seen: Cell<u128>,
    /// Something else was looked at: the length, or bytes that are not in the snapshot.
    unseen: Cell<bool>,
}

const _: () = assert!(SNAPSHOT_BYTES <= 128, "a set of bytes of a snapshot is one u128");

impl<B: Behind> View<'_, '_, B> {
    /// The bytes at `offset`; `None` if they are not all inside the frame.
    #[inline]
    pub(super) fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        #[allow(clippy::cast_possible_truncation, reason = "1, 2 or 4")]
        let count = N as u32;
        let edited = self.skip != 0 || self.insert.is_some();
        if !edited || offset.saturating_add(count) <= TAG_OFFSET {
            return self.received(offset);
        }
        let tag = self.insert.as_ref().map_or(&[][..], |tag| tag);
        #[allow(clippy::cast_possible_truncation, reason = "0 or 4")]
        let tag_bytes = tag.len() as u32;
        if offset >= TAG_OFFSET + tag_bytes {
            return self.received((offset - tag_bytes).checked_add(self.skip)?);
        }
        // Across the place of the tag.
        let mut bytes = [0; N];
        for (offset, byte) in (offset..).zip(&mut bytes) {
            *byte = match offset.checked_sub(TAG_OFFSET).map(|at| (at, tag.get(at as usize))) {
                None => self.received::<1>(offset)?[0],
                Some((_, Some(byte))) => *byte,
                Some((at, None)) => self.received::<1>(TAG_OFFSET + self.skip + at - tag_bytes)?[0],
            };
        }
        Some(bytes)
    }

    /// The bytes at `offset` of the frame as received.
    #[inline]
    fn received<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = offset as usize;
        if let Some(bytes) = self.frame.snapshot.get(at..).and_then(|rest| rest.first_chunk()) {
            if at + N <= SNAPSHOT_BYTES {
                self.seen.set(self.seen.get() | ((1 << N) - 1) << at);
            } else {
                self.unseen.set(true);
            }
            return Some(*bytes);
        }
        self.unseen.set(true);
        let mut bytes = [0; N];
        let here = self.frame.snapshot.get(at..).unwrap_or_default();
        let (near, far) = bytes.split_at_mut_checked(here.len())?;
        near.copy_from_slice(here);
        let far_at = offset.checked_add(u32::try_from(here.len()).ok()?)?;
        self.frame.behind.read(far_at, far).then_some(bytes)
    }

    /// The length of the frame on the wire.
    pub(super) fn wire_bytes(&self) -> u32 {
        self.unseen.set(true);
        let tag_bytes = if self.insert.is_some() { TAG_BYTES } else { 0 };
        self.frame.wire_bytes.saturating_add(tag_bytes).saturating_sub(self.skip)
    }

    /// The bytes of the snapshot that decided (bit = offset): every frame that has the same bytes there, and the same
    /// edit, is judged alike. `None` if something else was looked at, too.
    pub(super) fn deciding(&self) -> Option<u128> {
        (!self.unseen.get()).then_some(self.seen.get())
    }
}
