//! The sending half of an AF_XDP port, shared by all workers: frames into the transmit rings.
//!
//! **Chunks.** Pool (a copy) or another port's burst (the chunk itself is taken over) → transmit ring → kernel →
//! completion ring → pool. A burst takes the pool's lock once: sent chunks go back, frames that can be moved are, and
//! chunks for the others are taken. The copying is done after that. A port has a bounded share of the packet memory
//! under way ([`FramePool`]): a far end that keeps frames takes nothing from other ports.
//!
//! **Moving.** A frame without another taker whose chunk lies in packet memory is not copied: its descriptor moves. A
//! tag edit is done in place, in the headroom in front of the frame: the MACs are rewritten from the snapshot. The
//! rest of the chunk is what was received, since only the kernel could have written to it and it gave it away.
//!
//! **Large frames.** A frame that does not fit a chunk is copied into several and leaves as several descriptors, if the
//! socket was bound for that.
//!
//! **Short frames.** A wire takes no frame under 60 bytes: on devices that have one, shorter frames are padded with
//! zeros. On veth and tap they leave as they are, because captures there have to be byte for byte.
//!
//! **Locks.** Each transmit ring has one, taken once per burst; inside it, the pool's. Never the other way round.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, TryLockError};

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::wire::ETHERNET_HEADER_BYTES;
use labsw_switch::{BURST_FRAMES, DropReason};
use rustix::io::Errno;
use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use super::core::Core;
use super::socket::{self, Descriptor, TxRings};
use super::umem::{CHUNK_BYTES, CHUNK_FRAME_BYTES, FramePool, HEADROOM_BYTES, MAX_PIECES, NotOwned, Umem};
use crate::clock::NEVER;
use crate::flow::spread;
use crate::frame::Burst;
use crate::losses::TxReport;
use crate::port::{Fault, Turn, TxPort, lock};
use crate::stats::PortDelta;

/// The shortest frame on a wire, bytes without FCS.
const WIRE_FRAME_BYTES: u32 = 60;
/// Destination and source MAC.
const MACS_BYTES: usize = 12;

/// Time after which a sleeping worker tries again to send frames left in a transmit ring: nothing else need wake it
/// then.
const RETRY_NS: u64 = 5_000_000;

/// The sending half of an AF_XDP port.
#[derive(Debug)]
pub struct XdpTx {
    queues: Box<[Mutex<TxQueue>]>,
    pad: bool,
    /// The most chunks of a frame.
    max_pieces: u32,
    // Declared last: the descriptors that it holds are closed after the rings are unmapped.
    core: Arc<Core>,
}

/// One transmit queue.
#[derive(Debug)]
struct TxQueue {
    rings: TxRings,
    /// The frames being sent, filled and emptied within a burst.
    posts: Vec<Post>,
    /// The chunks of the posts behind the first of each.
    further: Vec<u64>,
    /// Its socket polls busily.
    busy: bool,
    /// Frames were left in the transmit ring by the last kick.
    unsent: bool,
    /// Out of service: after a fault, or as long as it is another process'.
    failed: bool,
}

/// A frame about to be written to the transmit ring.
#[derive(Clone, Copy, Debug)]
struct Post {
    item: TxItem,
    /// Where its first byte is or will be.
    addr: u64,
    /// Its length on the way out.
    len: u32,
    /// It has to be copied there.
    copied: bool,
    /// Number of further chunks.
    further: u32,
}

impl XdpTx {
    /// With `busy` the sockets poll busily.
    pub(super) fn new(rings: Vec<TxRings>, pad: bool, multi_buffer: bool, busy: bool, core: Arc<Core>) -> XdpTx {
        let queue = |rings| {
            let (posts, further) = (Vec::with_capacity(BURST_FRAMES), Vec::with_capacity(BURST_FRAMES));
            Mutex::new(TxQueue { rings, posts, further, busy, unsent: false, failed: false })
        };
        #[allow(clippy::cast_possible_truncation, reason = "18")]
        let max_pieces = if multi_buffer { MAX_PIECES as u32 } else { 1 };
        XdpTx { queues: rings.into_iter().map(queue).collect(), pad, max_pieces, core }
    }

    /// Nothing is sent from here, and no ring is touched, until [`XdpTx::resume`].
    pub(super) fn wait(&self) {
        self.queues.iter().for_each(|queue| lock(queue).failed = true);
    }

    /// Ends busy polling at the port's sockets.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn end_busy_poll(&self) -> io::Result<()> {
        self.core.busy.store(false, Ordering::Relaxed);
        self.core.sockets.iter().try_for_each(socket::end_busy_poll)
    }

    /// For each queue, the number of the next frame that the kernel will take and of the next one to be written, both
    /// modulo 2³².
    pub fn progress(&self) -> Vec<Range<u32>> {
        self.queues.iter().map(|queue| lock(queue).rings.tx.unread()).collect()
    }

    /// Sends from now on, where another process stopped.
    pub fn resume(&self) {
        for queue in &self.queues {
            let mut queue = lock(queue);
            queue.rings.tx.resume();
            queue.rings.completion.resume();
            queue.unsent = queue.rings.tx.pending() > 0;
            queue.failed = false;
        }
    }

    /// The number under which the pool keeps the port's chunks.
    pub fn owner(&self) -> u16 {
        self.core.owner
    }

    /// How many transmit queues it has.
    pub(super) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// True if it pads short frames.
    pub(super) fn pads(&self) -> bool {
        self.pad
    }

    /// The part of the port that the receiving halves share.
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Sends frames through one transmit ring.
    fn send_on(
        &self,
        index: usize,
        burst: &mut Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        if let (Some(queue), Some(socket)) = (self.queues.get(index), self.core.sockets.get(index)) {
            let mut queue = lock(queue);
            if !queue.failed {
                let outcome = self.send_locked(&mut queue, socket, burst, items, report);
                queue.failed = outcome.is_err();
                return outcome;
            }
        }
        report.lose_all(items, DropReason::NotConnected);
        Ok(())
    }

    fn send_locked(
        &self,
        queue: &mut TxQueue,
        socket: &Descriptor,
        burst: &mut Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        self.plan_posts(queue, burst, items, report)?;
        self.write_posts(queue, burst, report);
        queue.rings.tx.submit();
        queue.kick(socket).map_err(|errno| self.core.device_fault(errno))
    }

    /// Finds room for each frame in the ring and in packet memory, and records its place. Frames whose buffers are
    /// moved are taken out of the burst here.
    #[inline(always)]
    fn plan_posts(
        &self,
        queue: &mut TxQueue,
        burst: &mut Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        let Core { memory, owner, .. } = &*self.core;
        queue.posts.clear();
        queue.further.clear();
        let mut pool = memory.pool();
        if let Err(error) = queue.reap(&mut pool, *owner) {
            report.lose_all(items, DropReason::NotConnected);
            return Err(self.core.accounting_fault(error));
        }
        // The room in the ring, or less if the port has as much packet memory under way as one port may have.
        let allowed = pool.may_send(*owner);
        let mut slots = queue.rings.tx.free(u32::try_from(items.len()).unwrap_or(u32::MAX)).min(allowed);
        for item in items {
            let may_move = burst.may_take(item.frame);
            let (len, pieces) = match size(burst, item, self.max_pieces) {
                Ok(size) => size,
                Err(reason) => {
                    report.lose(item.frame, reason);
                    continue;
                }
            };
            // The room known to be free was enough for frames of one piece.
            if slots < pieces {
                let planned = queue.planned();
                slots = queue.rings.tx.free(planned + pieces).min(allowed).saturating_sub(planned);
            }
            let planned = if slots < pieces {
                Err(queue.why_full(pieces, &pool))
            } else if pieces == 1 {
                plan(&memory.umem, burst, item, len, may_move, &mut pool, *owner)
            } else {
                plan_pieces(item, len, pieces, &mut queue.further, &mut pool, *owner)
            };
            match planned {
                Ok(post) => {
                    slots -= pieces;
                    queue.posts.push(post);
                }
                Err(reason) => report.lose(item.frame, reason),
            }
        }
        pool.note_sending(*owner, queue.planned(), 0);
        Ok(())
    }

    /// Copies the frames that are not moved, and writes the descriptors of all into the ring.
    #[inline(always)]
    fn write_posts(&self, queue: &mut TxQueue, burst: &Burst, report: &mut TxReport<'_>) {
        let Core { memory, owner, .. } = &*self.core;
        let mut further = queue.further.iter();
        for post in &queue.posts {
            let rest = further.as_slice().get(..post.further as usize).unwrap_or_default();
            further = further.as_slice().get(post.further as usize..).unwrap_or_default().iter();
            if !rest.is_empty() {
                let Some(mut reader) = burst.reader(&post.item) else { continue };
                for (at, addr) in std::iter::once(&post.addr).chain(rest).enumerate() {
                    let len = memory.umem.copy_piece(*addr, &mut reader);
                    let last = at == rest.len();
                    let options = if last { XdpDescOptions::empty() } else { XdpDescOptions::XDP_PKT_CONTD };
                    queue.rings.tx.write(XdpDesc { addr: *addr, len, options });
                }
                report.sent(post.len);
                continue;
            }
            if post.copied && !burst.reader(&post.item).is_some_and(|reader| memory.umem.copy_frame(post.addr, reader))
            {
                // The length was checked, so this does not happen; the chunk must not get lost if it does.
                let mut pool = memory.pool();
                let _ = pool.give(post.addr, *owner);
                pool.note_sending(*owner, 0, 1);
                report.lose(post.item.frame, DropReason::Oversize);
                continue;
            }
            let len = if self.pad { pad(&memory.umem, post.addr, post.len) } else { post.len };
            queue.rings.tx.write(XdpDesc { addr: post.addr, len, options: XdpDescOptions::empty() });
            report.sent(post.len);
        }
    }

    fn tick_queue(&self, queue: &mut TxQueue, socket: &Descriptor) -> Result<(), Fault> {
        if queue.rings.completion.available() > 0 {
            let mut pool = self.core.memory.pool();
            queue.reap(&mut pool, self.core.owner).map_err(|error| self.core.accounting_fault(error))?;
        }
        if queue.unsent {
            queue.kick(socket).map_err(|errno| self.core.device_fault(errno))?;
        }
        Ok(())
    }
}

impl TxQueue {
    /// Slots of the transmit ring that the planned frames will take.
    fn planned(&self) -> u32 {
        u32::try_from(self.posts.len() + self.further.len()).unwrap_or(u32::MAX)
    }

    /// Why there is no room for a frame of `pieces` chunks.
    #[cold]
    fn why_full(&mut self, pieces: u32, pool: &FramePool) -> DropReason {
        let wanted = self.planned() + pieces;
        if self.rings.tx.free(wanted) < wanted {
            DropReason::TxRingFull
        } else if pool.send_limit() < wanted {
            DropReason::NoBuffer
        } else {
            DropReason::HeldByPeer
        }
    }

    /// Gives the chunks of sent frames back to the pool.
    #[inline]
    fn reap(&mut self, pool: &mut FramePool, owner: u16) -> Result<(), NotOwned> {
        let mut result = Ok(());
        let mut sent = 0;
        while let Some(addr) = self.rings.completion.read() {
            sent += 1;
            if let Err(error) = pool.give(addr, owner) {
                result = Err(error);
            }
        }
        self.rings.completion.release();
        if sent > 0 {
            pool.note_sending(owner, 0, sent);
        }
        result
    }

    /// Makes the kernel send the frames in the transmit ring.
    #[inline]
    fn kick(&mut self, socket: &Descriptor) -> Result<(), Errno> {
        self.rings.kick(socket)?;
        self.unsent = self.rings.tx.pending() > 0;
        if self.busy && self.unsent {
            socket.wake_sender();
        }
        Ok(())
    }
}

impl TxPort for XdpTx {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let queues = self.queues.len();
        spread(burst, items, turn.count(queues), |nth, burst, items| {
            self.send_on(turn.ring(nth, queues), burst, items, report)
        })
    }

    fn run_due(&self, _turn: &Turn, _stats: &mut PortDelta) -> Result<(), Fault> {
        for (queue, socket) in self.queues.iter().zip(&self.core.sockets) {
            let mut queue = match queue.try_lock() {
                Ok(queue) => queue,
                Err(TryLockError::Poisoned(error)) => error.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            if !queue.failed {
                let outcome = self.tick_queue(&mut queue, socket);
                queue.failed = outcome.is_err();
                outcome?;
            }
        }
        Ok(())
    }

    /// A ring that another worker is at is that worker's to look after: it asks before it sleeps, too.
    fn next_due(&self, turn: &Turn) -> u64 {
        let behind = |queue: &Mutex<TxQueue>| queue.try_lock().is_ok_and(|queue| queue.unsent && !queue.failed);
        if self.queues.iter().any(behind) { turn.now_ns.saturating_add(RETRY_NS) } else { NEVER }
    }
}

/// The length of the frame as it leaves, and the number of chunks it takes; the reason if it can't be sent.
#[inline]
fn size(burst: &Burst, item: &TxItem, most: u32) -> Result<(u32, u32), DropReason> {
    let len = burst.reader(item).ok_or(DropReason::Runt)?.remaining();
    if len < ETHERNET_HEADER_BYTES {
        return Err(DropReason::Runt);
    }
    let pieces = len.div_ceil(CHUNK_FRAME_BYTES);
    if pieces > most { Err(DropReason::Oversize) } else { Ok((len, pieces)) }
}

/// Decides how a frame of one piece gets into a chunk of the port's, and takes the chunk; the reason if it can't be
/// sent. The frame is then untouched.
#[inline]
fn plan(
    umem: &Umem,
    burst: &mut Burst,
    item: &TxItem,
    len: u32,
    may_move: bool,
    pool: &mut FramePool,
    owner: u16,
) -> Result<Post, DropReason> {
    let moved = if may_move { move_frame(umem, burst, item.frame.into(), item.edit, pool, owner) } else { None };
    let addr = match moved {
        Some(addr) => addr,
        None => pool.take(owner).ok_or(DropReason::NoBuffer)? + u64::from(HEADROOM_BYTES),
    };
    Ok(Post { item: *item, addr, len, copied: moved.is_none(), further: 0 })
}

/// Takes `pieces` chunks for a frame, all but the first of them into `further`, or none.
fn plan_pieces(
    item: &TxItem,
    len: u32,
    pieces: u32,
    further: &mut Vec<u64>,
    pool: &mut FramePool,
    owner: u16,
) -> Result<Post, DropReason> {
    if pool.free_chunks() < pieces as usize {
        return Err(DropReason::NoBuffer);
    }
    let mut take = || pool.take(owner).map(|addr| addr + u64::from(HEADROOM_BYTES)).ok_or(DropReason::NoBuffer);
    let addr = take()?;
    for _ in 1..pieces {
        further.push(take()?);
    }
    Ok(Post { item: *item, addr, len, copied: true, further: pieces - 1 })
}

/// Takes the frame's chunk over for `owner`, edits its tag in place, and returns the address of its first byte. `None`,
/// and nothing changed, if the chunk has no room in front or the frame can't be taken: it is copied then.
#[inline]
fn move_frame(
    umem: &Umem,
    burst: &mut Burst,
    index: usize,
    edit: TagEdit,
    pool: &mut FramePool,
    owner: u16,
) -> Option<u64> {
    let addr = burst.frame(index).filter(|frame| frame.is_takeable())?.token;
    let inserted = if edit.insert.is_some() { 4 } else { 0 };
    let headroom = addr % u64::from(CHUNK_BYTES) + u64::from(edit.strip_bytes);
    if headroom < inserted {
        return None;
    }
    let start = addr + u64::from(edit.strip_bytes) - inserted;
    pool.transfer(addr, owner).ok()?;
    burst.take(index)?;
    if edit != TagEdit::KEEP {
        let macs = burst.snapshot(index).get(..MACS_BYTES).unwrap_or_default();
        umem.write(start, macs);
        if let Some(tag) = edit.insert {
            umem.write(start + MACS_BYTES as u64, &tag);
        }
    }
    Some(start)
}

/// Zeros behind a frame shorter than a wire takes; returns the length to send.
#[inline]
fn pad(umem: &Umem, addr: u64, len: u32) -> u32 {
    const ZEROS: [u8; WIRE_FRAME_BYTES as usize] = [0; WIRE_FRAME_BYTES as usize];
    let padding = ZEROS.get(len as usize..).unwrap_or_default();
    let fits = addr % u64::from(CHUNK_BYTES) + u64::from(WIRE_FRAME_BYTES) <= u64::from(CHUNK_BYTES);
    if !padding.is_empty() && fits && umem.write(addr + u64::from(len), padding) { WIRE_FRAME_BYTES } else { len }
}

#[cfg(test)]
#[path = "tx/tests.rs"]
mod tests;
