//! The receiving half of one queue of an AF_XDP port, owned by one worker: bursts out of the receive ring.
//!
//! **Chunks.** Fill ring → kernel → receive ring → burst → (release) fill ring or pool. A burst takes the
//! pool's lock twice, an empty receive ring not at all.
//!
//! **Fill rings** hold a share of what the pool has free: full while there are few ports, less the more there are, and
//! a busy port's released chunks go to the pool while its ring holds more than its share. So tens of containers fit one
//! packet memory and none starves another; a ring that ran dry is refilled by the next release or tick.
//!
//! **Frames in several buffers** (larger than a chunk) come as several descriptors, all but the last marked as
//! continued. They become one frame of the burst with a segment for each; the chunks behind the first are kept beside
//! the burst until it is released. The beginning of a frame whose end does not fit the burst is left in the ring.
//!
//! **A gate that is shut** ([`Gate`]): whatever is read from the ring is dropped. Once the gate is open again, so is
//! everything that lies in the ring by then.
//!
//! **Invariant.** Between two bursts all that is the port's lies in its rings: another process can go on there.

#![allow(unsafe_code, reason = "rings and packet memory shared with the kernel, and its socket calls")]

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use labsw_switch::{BURST_FRAMES, DropReason};
use rustix::io::Errno;
use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use super::core::{Core, FillDepth};
use super::gate::Gate;
use super::socket::{Descriptor, RxRings};
use super::umem::{CHUNK_BYTES, FramePool, MAX_PIECES, NotOwned};
use crate::clock::NEVER;
use crate::frame::Burst;
use crate::port::{Fault, RxQueue, Turn};
use crate::stats::PortDelta;

/// Fill rings are refilled in steps of at least this many chunks.
pub(super) const FILL_STEP: u32 = 64;
/// A fill ring may hold one in this many of the chunks that are free or in the ring.
const FILL_SHARE: usize = 16;

/// How many chunks a fill ring should hold that holds `filled` of at most `most`, with `free` in the pool.
#[inline]
fn fill_goal(free: usize, filled: u32, most: u32) -> u32 {
    let share = (free + filled as usize) / FILL_SHARE;
    u32::try_from(share).unwrap_or(most).clamp(FILL_STEP, most)
}

/// A sleeping worker tries again after this long to fill a fill ring that the pool had too little for: nothing else
/// need wake it then.
const RETRY_NS: u64 = 5_000_000;
/// A sleeping worker looks this often whether the device is still there: that does not wake it.
const LOOK_NS: u64 = 500_000_000;

/// The receiving half of one queue.
#[derive(Debug)]
pub struct XdpRx {
    rings: RxRings,
    queue: usize,
    /// The most chunks its fill ring is given.
    depth: FillDepth,
    /// True if the sockets poll busily and the kernel knows a receive loop to poll.
    polls: bool,
    /// It has begun to receive.
    begun: bool,
    /// The descriptors of a frame in several buffers, filled and emptied within a burst.
    pieces: Vec<XdpDesc>,
    /// The chunks of the burst's frames behind the first of each.
    further: Vec<u64>,
    /// The descriptors read from the receive ring, filled and emptied within a burst.
    read: Vec<XdpDesc>,
    /// The number of the gate when it was last found open.
    epoch: u64,
    /// Out of service after a fault.
    failed: bool,
    /// The pool had too little for the fill ring at the last refill.
    starving: bool,
    // Declared last: the descriptors that it holds are closed after the rings are unmapped.
    core: Arc<Core>,
}

impl XdpRx {
    pub(super) fn new(rings: RxRings, queue: usize, depth: FillDepth, core: Arc<Core>) -> XdpRx {
        XdpRx {
            rings,
            queue,
            depth,
            polls: false,
            begun: false,
            pieces: Vec::with_capacity(MAX_PIECES),
            further: Vec::with_capacity(BURST_FRAMES),
            read: Vec::with_capacity(BURST_FRAMES),
            epoch: core.gate.epoch(),
            failed: false,
            starving: false,
            core,
        }
    }

    /// Tops the fill ring up to its share, publishes it, and tells the kernel if it waits for that.
    #[inline]
    fn refill(&mut self) -> Result<(), Fault> {
        let XdpRx { rings, core, depth, .. } = self;
        self.starving = refill(rings, &mut core.memory.pool(), depth.chunks(), core.owner);
        self.wake()
    }

    /// Begins where the rings stand: another process may have used them until now.
    #[cold]
    fn begin(&mut self) -> Result<(), Fault> {
        self.rings.rx.resume();
        self.rings.fill.resume();
        self.begun = true;
        self.refill()
    }

    #[inline]
    fn wake(&mut self) -> Result<(), Fault> {
        let Some(socket) = self.core.sockets.get(self.queue) else { return Ok(()) };
        self.rings.wake_receiver(socket).map_err(|errno| self.core.device_fault(errno))
    }

    /// Has the kernel receive.
    fn poll(&mut self) -> Result<(), Fault> {
        let Some(socket) = self.core.sockets.get(self.queue) else { return Ok(()) };
        self.rings.poll(socket).map_err(|errno| self.core.device_fault(errno))
    }

    fn socket(&self) -> Option<&Descriptor> {
        self.core.sockets.get(self.queue)
    }

    /// Leaves the beginning of a frame in the ring whose end was not read. One that fills a burst has no end.
    fn leave_beginning(&mut self) -> Result<(), Fault> {
        let is_end = |desc: &XdpDesc| !desc.options.contains(XdpDescOptions::XDP_PKT_CONTD);
        let whole = self.read.iter().rposition(is_end).map_or(0, |last| last + 1);
        if whole == 0 && self.read.len() == BURST_FRAMES {
            return Err(self.core.fault("the kernel handed over a frame without an end"));
        }
        self.rings.rx.unread(u32::try_from(self.read.len() - whole).unwrap_or(u32::MAX));
        self.read.truncate(whole);
        Ok(())
    }

    /// Checks that every chunk that was read is the port's.
    fn check_read(&self) -> Result<(), NotOwned> {
        let pool = self.core.memory.pool();
        self.read.iter().try_for_each(|desc| pool.check(desc.addr, self.core.owner))
    }

    /// Reads descriptors until a burst is full or the ring has no more.
    #[inline]
    fn read_burst(&mut self) {
        while self.read.len() < BURST_FRAMES
            && let Some(desc) = self.rings.rx.read()
        {
            self.read.push(desc);
        }
    }

    /// Drops the descriptors that were read, because the gate is shut or was shut when their frames were received; if
    /// it is open again, also the frames that lie in the ring.
    #[cold]
    fn turn_away(&mut self, stats: &mut PortDelta) -> Result<(), Fault> {
        let epoch = self.core.gate.epoch();
        let open = Gate::is_open_at(epoch);
        let mut left = if open { self.rings.rx.available() } else { 0 };
        loop {
            self.drop_read(stats).map_err(|error| self.core.accounting_fault(error))?;
            if left == 0 {
                break;
            }
            self.read_burst();
            left = left.saturating_sub(u32::try_from(self.read.len()).unwrap_or(left).max(1));
        }
        if open {
            self.epoch = epoch;
        }
        self.rings.rx.release();
        self.refill()
    }

    /// Returns the chunks of the descriptors that were read to the pool, and counts their frames as dropped.
    fn drop_read(&mut self, stats: &mut PortDelta) -> Result<(), NotOwned> {
        let mut pool = self.core.memory.pool();
        for desc in self.read.drain(..) {
            pool.give(desc.addr, self.core.owner)?;
            // The bytes of a frame in several chunks are counted with its last one.
            if !desc.options.contains(XdpDescOptions::XDP_PKT_CONTD) {
                stats.received(desc.len);
                stats.drop(DropReason::TagUnsure);
            }
        }
        Ok(())
    }

    /// Puts the descriptors that were read into the burst.
    fn lend(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        let XdpRx { rings, core, depth, pieces, further, read, .. } = self;
        let umem = &core.memory.umem;
        let outside = |desc: &XdpDesc| {
            let XdpDesc { addr, len, .. } = desc;
            core.fault(format_args!("the kernel handed over a frame outside packet memory ({len} bytes at {addr:#x})"))
        };
        for desc in read.drain(..) {
            let continued = desc.options.contains(XdpDescOptions::XDP_PKT_CONTD);
            if !continued && pieces.is_empty() {
                // SAFETY: the chunk is this port's (`check_read`) and goes back to pool or kernel in `release` at the
                // earliest, which clears the burst; the queue holds the packet memory, and the worker releases a burst
                // before it gives a queue away or drops it.
                if !unsafe { umem.lend(burst, desc.addr, desc.len) } {
                    return Err(outside(&desc));
                }
                stats.received(desc.len);
                continue;
            }
            pieces.push(desc);
            if continued {
                continue;
            }
            let bytes = pieces.iter().fold(0u32, |sum, desc| sum.saturating_add(desc.len));
            stats.received(bytes);
            if pieces.len() > MAX_PIECES {
                let mut pool = core.memory.pool();
                let mut room = fill_room(rings, &pool, depth.chunks());
                for desc in pieces.drain(..) {
                    recycle(rings, desc.addr, &mut room, &mut pool, core.owner)
                        .map_err(|error| core.accounting_fault(error))?;
                }
                stats.drop(DropReason::Oversize);
                continue;
            }
            // SAFETY: as above, for each of the chunks: the first is the frame's token, the others stand in `further`.
            if !unsafe { umem.lend_pieces(burst, pieces.iter().map(|desc| (desc.addr, desc.len))) } {
                return Err(outside(&desc));
            }
            further.extend(pieces.drain(..).skip(1).map(|desc| desc.addr));
        }
        Ok(())
    }
}

/// How many chunks the fill ring may still take.
#[inline]
fn fill_room(rings: &mut RxRings, pool: &FramePool, most_filled: u32) -> u32 {
    let filled = rings.fill.pending();
    fill_goal(pool.free_chunks(), filled, most_filled).saturating_sub(filled)
}

/// Tops the fill ring up to its share, and publishes it. Returns whether the pool had too little.
#[inline]
pub(super) fn refill(rings: &mut RxRings, pool: &mut FramePool, most_filled: u32, owner: u16) -> bool {
    let room = fill_room(rings, pool, most_filled);
    let mut starving = false;
    if room >= FILL_STEP {
        for _ in 0..room {
            let Some(addr) = pool.take(owner) else {
                starving = true;
                break;
            };
            rings.fill.write(addr);
        }
    }
    rings.fill.submit();
    starving
}

/// Gives a chunk that was received straight back to the kernel while there is `room`, otherwise to the pool.
/// Unpublished.
#[inline]
fn recycle(rings: &mut RxRings, addr: u64, room: &mut u32, pool: &mut FramePool, owner: u16) -> Result<(), NotOwned> {
    pool.check(addr, owner)?;
    if *room > 0 && rings.fill.write(addr - addr % u64::from(CHUNK_BYTES)) {
        *room -= 1;
        return Ok(());
    }
    pool.give(addr, owner)
}

impl RxQueue for XdpRx {
    fn receive(&mut self, _turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        if self.failed {
            return Ok(());
        }
        if !self.begun {
            self.begin()?;
        }
        self.read.clear();
        if self.polls && self.rings.rx.available() == 0 {
            self.poll()?;
        }
        self.read_burst();
        if self.read.last().is_some_and(|desc| desc.options.contains(XdpDescOptions::XDP_PKT_CONTD)) {
            self.leave_beginning()?;
        }
        if self.read.is_empty() {
            return Ok(());
        }
        if self.core.gate.epoch() != self.epoch {
            return self.turn_away(stats);
        }
        self.check_read().map_err(|error| self.core.accounting_fault(error))?;
        burst.set_movable();
        self.lend(burst, stats)?;
        self.rings.rx.release();
        self.rings.fill.submit();
        Ok(())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        let XdpRx { rings, core, depth, further, .. } = self;
        let most_filled = depth.chunks();
        let mut result = Ok(());
        let mut pool = core.memory.pool();
        let mut room = fill_room(rings, &pool, most_filled);
        let first = burst.frames().iter().filter(|frame| !frame.moved).map(|frame| frame.token);
        for addr in first.chain(further.drain(..)) {
            if let Err(error) = recycle(rings, addr, &mut room, &mut pool, core.owner) {
                result = Err(core.accounting_fault(error));
            }
        }
        burst.clear();
        self.starving = refill(rings, &mut pool, most_filled, core.owner);
        drop(pool);
        result?;
        self.wake()
    }

    fn run_due(&mut self, _turn: &Turn) -> Result<(), Fault> {
        if self.failed {
            return Ok(());
        }
        let pending: Result<(), Errno> = self.socket().map_or(Ok(()), Descriptor::pending_error);
        pending.map_err(|errno| self.core.device_fault(errno))?;
        let has_loop = || self.socket().is_some_and(|socket| socket.statistics().napi_id().is_some());
        self.polls = self.core.busy.load(Ordering::Relaxed) && (self.polls || has_loop());
        if self.begun { self.refill() } else { self.begin() }
    }

    fn next_due(&self, turn: &Turn) -> u64 {
        let within = if self.starving { RETRY_NS } else { LOOK_NS };
        if self.failed { NEVER } else { turn.now_ns.saturating_add(within) }
    }

    /// The socket is always armed: all it takes is the look for frames that came in the meantime.
    fn arm(&mut self, _turn: &Turn) -> bool {
        !self.failed && self.rings.rx.available() > 0
    }

    fn disarm(&mut self) {}

    fn wait_fd(&self) -> Option<RawFd> {
        self.socket().filter(|_| !self.failed).map(|socket| socket.fd().as_raw_fd())
    }

    fn fail(&mut self) {
        self.failed = true;
    }
}

#[cfg(test)]
#[path = "rx/tests.rs"]
mod tests;
