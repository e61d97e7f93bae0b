//! The AF_XDP driver a worker runs: bursts out of the receive rings, frames into the transmit rings.
//!
//! **Chunks.** Every chunk the kernel or a burst holds for this port is the port's in the pool's owner table. Receive: fill
//! ring → kernel → receive ring → burst → (release) fill ring or pool. Send: pool (a copy) or another port's burst
//! (the chunk itself is taken over) → transmit ring → kernel → completion ring → pool. When the port is dropped, what was
//! still under way comes back with [`FramePool::reclaim`].
//!
//! **Fill rings** hold a share of what the pool has free: full while there are few ports, less the more there are, and
//! a busy port's released chunks go to the pool while its ring holds more than its share. So tens of containers fit one
//! packet memory and none starves another; a ring that ran dry is refilled by the next receive or tick.
//!
//! **Moving.** A frame without another taker whose chunk lies in the pool's memory is not copied: its descriptor moves. A
//! tag edit is done in place, in the headroom in front of the frame: the MACs are written anew from the snapshot. The rest of
//! the chunk is what was received, since only the kernel could have written to it and it gave it away.
//!
//! **Transmit queues.** A frame goes to queue hash(destination MAC, source MAC): the same pair of stations always
//! uses the same queue, whatever port it came from, so the order within a conversation is kept.
//!
//! **Short frames.** A wire takes no frame under 60 bytes: on devices that have one, shorter frames are padded with zeros.
//! On veth and tap they leave as they are, because captures there have to be byte for byte.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use rustix::io::Errno;
use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use super::open::{Opened, XdpConfig, XdpError, XdpMode, XdpStatus, open};
use super::program::Program;
use super::socket::{Binding, RING_ENTRIES, Statistics, XskSocket};
use super::umem::{CHUNK_BYTES, CHUNK_FRAME_BYTES, FramePool, HEADROOM_BYTES, NotOwned, Umem};
use crate::frame::Burst;
use crate::port::{Fault, PortDriver, Resources};
use crate::stats::PortDelta;

/// Fill rings are refilled in steps of at least this many chunks.
const FILL_STEP: u32 = 64;
/// The most chunks in the fill ring of a device that the kernel copies for: twice what a veth hands over in one go.
const COPY_FILL: u32 = 512;
/// Of the chunks that are free or in the ring, a fill ring may hold one in so many.
const FILL_SHARE: usize = 16;
/// The shortest frame on a wire, bytes without FCS.
const WIRE_FRAME_BYTES: u32 = 60;
/// The shortest frame that can be sent at all: an Ethernet header.
const HEADER_BYTES: u32 = 14;
/// A sleeping worker tries again after this long to send what was left in a transmit ring, or to fill a fill ring that the
/// pool had too little for: nothing else need wake it then.
const RETRY: Duration = Duration::from_millis(5);
/// A sleeping worker looks this often whether the device is still there: that does not wake it.
const LOOK: Duration = Duration::from_millis(500);
/// Destination and source MAC.
const MACS_BYTES: usize = 12;

/// An AF_XDP port, driven by one worker.
#[derive(Debug)]
pub struct XdpPort {
    /// There until drop.
    program: Option<Program>,
    queues: Vec<Queue>,
    /// One unbound socket per queue, see drop.
    spares: Vec<OwnedFd>,
    tx_queues: usize,
    umem: Arc<Umem>,
    interface: String,
    ifindex: u32,
    owner: u16,
    pad: bool,
    status: XdpStatus,
}

/// How many chunks a fill ring should hold that holds `filled` of at most `most`, with `free` in the pool.
#[inline]
fn fill_goal(free: usize, filled: u32, most: u32) -> u32 {
    let share = (free + filled as usize) / FILL_SHARE;
    u32::try_from(share).unwrap_or(most).clamp(FILL_STEP, most)
}

/// One queue of the port.
#[derive(Debug)]
struct Queue {
    socket: XskSocket,
    /// The most chunks its fill ring is given.
    most_filled: u32,
    /// The fill ring was filled for the first time.
    primed: bool,
    /// Inside a frame in several buffers, of which this many bytes were dropped so far.
    skipping_bytes: Option<u32>,
    /// Frames were written to the transmit ring and not submitted yet.
    unsubmitted: bool,
    /// Frames were left in the transmit ring by the last kick.
    unsent: bool,
    /// The pool had too little for the fill ring at the last refill.
    starving: bool,
}

impl XdpPort {
    /// Opens the port. All system calls that may take time are made here, on the calling (control) thread; the port then
    /// moves to its worker, whose pool must be one of `umem`.
    ///
    /// To close a port, take it from the worker, drop it (on the control thread: it waits until the kernel has let go, which
    /// takes milliseconds), then have the worker call [`FramePool::reclaim`] with the port's owner id.
    pub fn open(config: XdpConfig, umem: &Arc<Umem>) -> Result<XdpPort, XdpError> {
        let Opened { program, sockets, spares, tx_queues, status, pad } = open(&config, umem)?;
        let most_filled = if status.mode == XdpMode::ZeroCopy { RING_ENTRIES } else { COPY_FILL };
        let queues = sockets
            .into_iter()
            .map(|socket| Queue {
                socket,
                most_filled,
                primed: false,
                skipping_bytes: None,
                unsubmitted: false,
                unsent: false,
                starving: false,
            })
            .collect();
        let umem = Arc::clone(umem);
        let XdpConfig { interface, ifindex, owner, .. } = config;
        Ok(XdpPort { program: Some(program), queues, spares, tx_queues, umem, interface, ifindex, owner, pad, status })
    }

    /// The mode it got, and why not a better one.
    pub fn status(&self) -> &XdpStatus {
        &self.status
    }

    /// The id under which the pool keeps the port's chunks.
    pub fn owner(&self) -> u16 {
        self.owner
    }

    /// Readers of the kernel's counters, one per queue, for any thread.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.queues.iter().map(|queue| queue.socket.statistics()).collect()
    }

    fn check_pool(&self, pool: &FramePool) -> Result<(), Fault> {
        if pool.is_of(&self.umem) {
            return Ok(());
        }
        Err(Fault::new(format!("{}: the worker has no packet memory, or another one than the port", self.interface)))
    }

    /// Puts one frame into a transmit ring, unsubmitted. Returns its length on the way out, or why it was not possible;
    /// the frame is then untouched.
    #[inline]
    fn post(
        &mut self,
        burst: &mut Burst,
        item: &TxItem,
        may_move: bool,
        pool: &mut FramePool,
    ) -> Result<u32, DropReason> {
        let index = usize::from(item.frame);
        let len = burst.reader(item).ok_or(DropReason::Runt)?.remaining();
        if len < HEADER_BYTES {
            return Err(DropReason::Runt);
        }
        if len > CHUNK_FRAME_BYTES {
            return Err(DropReason::Oversize);
        }
        let queue = if self.tx_queues > 1 { flow_hash(burst.snapshot(index)) % self.tx_queues } else { 0 };
        let queue = self.queues.get_mut(queue).ok_or(DropReason::TxRingFull)?;
        if queue.socket.tx.free(1) == 0 {
            return Err(DropReason::TxRingFull);
        }
        let moved = if may_move { move_frame(&self.umem, burst, index, item.edit, pool, self.owner) } else { None };
        let addr = match moved {
            Some(addr) => addr,
            None => copy_frame(&self.umem, burst, item, pool, self.owner)?,
        };
        let wire_len = if self.pad { pad(&self.umem, addr, len) } else { len };
        queue.socket.tx.write(XdpDesc { addr, len: wire_len, options: XdpDescOptions::empty() });
        queue.unsubmitted = true;
        Ok(len)
    }
}

impl Drop for XdpPort {
    /// Closes everything and waits until the kernel has really let go of the queues. That happens on a kernel work queue
    /// after the socket is closed; until then a zero-copy device may still write to chunks, and the queue is busy. A socket
    /// can be bound to the queue when it is over, so one is bound, and closed. It was made when the port was opened, because
    /// the interface index means something else in another network namespace.
    fn drop(&mut self) {
        // First the program: nothing is received any more when the sockets close.
        self.program = None;
        self.queues.clear();
        for (queue, spare) in (0u32..).zip(self.spares.drain(..)) {
            drop(XskSocket::bind(spare, self.ifindex, queue, Binding::Copy, &self.umem));
        }
    }
}

impl Queue {
    /// Tops the fill ring up to its share, and publishes it.
    #[inline]
    fn refill(&mut self, pool: &mut FramePool, owner: u16) -> Result<(), Errno> {
        self.primed = true;
        let room = self.fill_room(pool);
        self.starving = false;
        if room >= FILL_STEP {
            for _ in 0..room {
                let Some(addr) = pool.take(owner) else {
                    self.starving = true;
                    break;
                };
                self.socket.fill.write(addr);
            }
        }
        self.socket.fill.submit();
        self.socket.wake_receiver()
    }

    /// How many chunks the fill ring may still take.
    #[inline]
    fn fill_room(&mut self, pool: &FramePool) -> u32 {
        let filled = self.socket.fill.pending();
        fill_goal(pool.free_chunks(), filled, self.most_filled).saturating_sub(filled)
    }

    /// Gives a chunk that was received straight back to the kernel while there is `room`, otherwise to the pool. Unpublished.
    #[inline]
    fn recycle(&mut self, addr: u64, room: &mut u32, pool: &mut FramePool, owner: u16) -> Result<(), NotOwned> {
        pool.check(addr, owner)?;
        if *room > 0 && self.socket.fill.write(addr - addr % u64::from(CHUNK_BYTES)) {
            *room -= 1;
            return Ok(());
        }
        pool.give(addr, owner)
    }

    /// Gives the chunks of sent frames back to the pool.
    #[inline]
    fn reap(&mut self, pool: &mut FramePool, owner: u16) -> Result<(), NotOwned> {
        let mut result = Ok(());
        while let Some(addr) = self.socket.completion.read() {
            if let Err(error) = pool.give(addr, owner) {
                result = Err(error);
            }
        }
        self.socket.completion.release();
        result
    }

    /// Publishes what was written to the transmit ring and has the kernel send it.
    #[inline]
    fn flush(&mut self) -> Result<(), Errno> {
        if self.unsubmitted {
            self.unsubmitted = false;
            self.socket.tx.submit();
        }
        self.socket.kick()?;
        self.unsent = self.socket.tx.pending() > 0;
        Ok(())
    }
}

impl PortDriver for XdpPort {
    fn rx_queues(&self) -> usize {
        self.queues.len()
    }

    fn receive(
        &mut self,
        queue: usize,
        burst: &mut Burst,
        resources: &mut Resources,
        stats: &mut PortDelta,
    ) -> Result<(), Fault> {
        self.check_pool(&resources.pool)?;
        let Some(queue) = self.queues.get_mut(queue) else { return Ok(()) };
        let pool = &mut resources.pool;
        queue.reap(pool, self.owner).map_err(|error| accounting_fault(&self.interface, error))?;
        if !queue.primed {
            queue.refill(pool, self.owner).map_err(|errno| device_fault(&self.interface, errno))?;
        }
        burst.set_movable();
        while !burst.is_full() {
            let Some(desc) = queue.socket.rx.read() else { break };
            pool.check(desc.addr, self.owner).map_err(|error| accounting_fault(&self.interface, error))?;
            let continued = desc.options.contains(XdpDescOptions::XDP_PKT_CONTD);
            if continued || queue.skipping_bytes.is_some() {
                let bytes = queue.skipping_bytes.unwrap_or(0).saturating_add(desc.len);
                let mut room = queue.fill_room(pool);
                queue
                    .recycle(desc.addr, &mut room, pool, self.owner)
                    .map_err(|error| accounting_fault(&self.interface, error))?;
                queue.skipping_bytes = continued.then_some(bytes);
                if !continued {
                    stats.received(bytes);
                    stats.drop(DropReason::Oversize);
                }
                continue;
            }
            // SAFETY: the chunk is this port's (checked above) and goes back to pool or kernel in `release` at the earliest,
            // which clears the burst; the port holds the Umem, and the worker releases a burst before it drops a port.
            if !unsafe { self.umem.lend(burst, desc.addr, desc.len) } {
                return Err(Fault::new(format!(
                    "{}: the kernel handed over a frame outside packet memory ({} bytes at {:#x})",
                    self.interface, desc.len, desc.addr
                )));
            }
            stats.received(desc.len);
        }
        queue.socket.rx.release();
        queue.socket.fill.submit();
        Ok(())
    }

    fn release(&mut self, queue: usize, burst: &mut Burst, resources: &mut Resources) -> Result<(), Fault> {
        let Some(queue) = self.queues.get_mut(queue) else { return Ok(()) };
        let mut result = Ok(());
        let mut room = queue.fill_room(&resources.pool);
        for frame in burst.frames().iter().filter(|frame| !frame.moved) {
            if let Err(error) = queue.recycle(frame.token, &mut room, &mut resources.pool, self.owner) {
                result = Err(accounting_fault(&self.interface, error));
            }
        }
        burst.clear();
        result?;
        queue.refill(&mut resources.pool, self.owner).map_err(|errno| device_fault(&self.interface, errno))
    }

    fn send(
        &mut self,
        burst: &mut Burst,
        items: &[TxItem],
        sole: u64,
        resources: &mut Resources,
        stats: &mut PortDelta,
    ) -> Result<u64, Fault> {
        self.check_pool(&resources.pool)?;
        for queue in &mut self.queues {
            queue.reap(&mut resources.pool, self.owner).map_err(|error| accounting_fault(&self.interface, error))?;
        }
        let mut unsent = 0;
        for item in items {
            let bit = 1u64.checked_shl(u32::from(item.frame)).unwrap_or(0);
            let may_move = sole & bit != 0 && burst.is_movable();
            match self.post(burst, item, may_move, &mut resources.pool) {
                Ok(bytes) => stats.sent(bytes),
                Err(reason) => {
                    stats.drop(reason);
                    unsent |= bit;
                }
            }
        }
        for queue in self.queues.iter_mut().filter(|queue| queue.unsubmitted || queue.unsent) {
            queue.flush().map_err(|errno| device_fault(&self.interface, errno))?;
        }
        Ok(unsent)
    }

    fn tick(&mut self, resources: &mut Resources) -> Result<(), Fault> {
        self.check_pool(&resources.pool)?;
        for queue in &mut self.queues {
            let fault = |errno| device_fault(&self.interface, errno);
            queue.socket.pending_error().map_err(fault)?;
            queue.reap(&mut resources.pool, self.owner).map_err(|error| accounting_fault(&self.interface, error))?;
            if queue.unsent {
                queue.flush().map_err(fault)?;
            }
            queue.refill(&mut resources.pool, self.owner).map_err(fault)?;
        }
        Ok(())
    }

    fn tick_within(&self) -> Option<Duration> {
        let behind = self.queues.iter().any(|queue| queue.unsent || queue.starving);
        Some(if behind { RETRY } else { LOOK })
    }

    /// The sockets are always armed: all it takes is the look for frames that came in the meantime.
    fn arm(&mut self) -> bool {
        self.queues.iter_mut().any(|queue| queue.socket.rx.available() > 0)
    }

    fn disarm(&mut self) {}

    fn wait_fds(&self) -> Vec<RawFd> {
        self.queues.iter().map(|queue| queue.socket.fd().as_raw_fd()).collect()
    }
}

/// Takes the frame's chunk over for `owner`, edits its tag in place, and returns the address of its first byte. `None`, and
/// nothing changed, if the chunk has no room in front or the frame can't be taken: it is copied then.
#[inline]
fn move_frame(
    umem: &Umem,
    burst: &mut Burst,
    index: usize,
    edit: TagEdit,
    pool: &mut FramePool,
    owner: u16,
) -> Option<u64> {
    let addr = burst.frame(index).filter(|frame| !frame.moved)?.token;
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

/// Copies the frame into a chunk of the pool and returns the address of its first byte.
#[inline]
fn copy_frame(umem: &Umem, burst: &Burst, item: &TxItem, pool: &mut FramePool, owner: u16) -> Result<u64, DropReason> {
    let reader = burst.reader(item).ok_or(DropReason::Runt)?;
    let chunk = pool.take(owner).ok_or(DropReason::NoBuffer)?;
    let addr = chunk + u64::from(HEADROOM_BYTES);
    if umem.copy_frame(addr, reader) {
        return Ok(addr);
    }
    // The length was checked, so this does not happen; the chunk must not get lost if it does.
    let _ = pool.give(chunk, owner);
    Err(DropReason::Oversize)
}

/// Zeros behind a frame shorter than a wire takes; returns the length to send.
#[inline]
fn pad(umem: &Umem, addr: u64, len: u32) -> u32 {
    const ZEROS: [u8; WIRE_FRAME_BYTES as usize] = [0; WIRE_FRAME_BYTES as usize];
    let padding = ZEROS.get(len as usize..).unwrap_or_default();
    let fits = addr % u64::from(CHUNK_BYTES) + u64::from(WIRE_FRAME_BYTES) <= u64::from(CHUNK_BYTES);
    if !padding.is_empty() && fits && umem.write(addr + u64::from(len), padding) { WIRE_FRAME_BYTES } else { len }
}

/// Spreads pairs of stations over transmit queues.
#[inline]
fn flow_hash(snapshot: &[u8]) -> usize {
    let macs = snapshot.get(..MACS_BYTES).unwrap_or_default();
    let sum = macs.iter().fold(0u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (sum >> 16) as usize
}

fn device_fault(interface: &str, errno: Errno) -> Fault {
    Fault::new(match errno {
        Errno::NETDOWN => format!("{interface}: the device is down or was removed"),
        Errno::NXIO | Errno::NODEV => format!("{interface}: the device was removed"),
        other => format!("{interface}: the kernel refused to go on: {other}"),
    })
}

fn accounting_fault(interface: &str, error: NotOwned) -> Fault {
    Fault::new(format!("{interface}: {error}"))
}

#[cfg(test)]
#[path = "port/tests.rs"]
mod tests;
