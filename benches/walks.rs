//! The same work on the same rings, done by `labsw-dataplane` and by a device made of the `virtio-queue` crate. Each
//! function returns one round of the work: offer [`BURST`] entries, take or fill them, complete them, check the number.
//!
//! Ours is a [`VhostPort`](labsw_dataplane::vhost_user::VhostPort), as a worker drives it. Theirs is `Queue::iter`,
//! each buffer translated by `GuestMemoryMmap`, `add_used` per chain, `needs_notification` once per burst. It is
//! written in the crate's favour: it assumes one buffer a frame when it fills, and panics at what a guest must not do.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a bench of small numbers")]

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::stats::PortDelta;
use labsw_switch::forward::{TagEdit, TxItem};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::lab::{FEATURES, RECEIVE, RING, TRANSMIT, fill_receive, fill_transmit, offer};
use labsw_testkit::guest::{EVENT_IDX, GUEST_BASE, Guest, USER_BASE};

/// Frames a round.
pub const BURST: u16 = 64;
/// The virtio-net header with mergeable buffers, bytes.
const HEADER_BYTES: usize = 12;
const NO_INTERRUPT: u16 = 1;

/// How a guest says which interrupts it wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    /// By the event index, set so that hardly ever one is due.
    EventIdx,
    /// By the flag, which says none.
    Flags,
}

/// A device made of `virtio-queue`, on one ring of a guest.
struct Theirs {
    queue: Queue,
    memory: GuestMemoryMmap,
    segments: Vec<Segment>,
}

impl Theirs {
    fn new(guest: &Guest, ring: usize) -> Theirs {
        let file = FileOffset::new(File::from(guest.memfd.as_fd().try_clone_to_owned().unwrap()), 0);
        let region: MmapRegion = MmapRegion::from_file(file, guest.bytes() as usize).unwrap();
        let region = GuestRegionMmap::new(region, GuestAddress(GUEST_BASE)).unwrap();
        let memory = GuestMemoryMmap::from_regions(vec![region]).unwrap();
        let addresses = guest.addresses(ring);
        let guest_address = |user: u64| GuestAddress(user - USER_BASE + GUEST_BASE);
        let mut queue = Queue::new(RING).unwrap();
        queue.try_set_desc_table_address(guest_address(addresses.descriptors)).unwrap();
        queue.try_set_avail_ring_address(guest_address(addresses.available)).unwrap();
        queue.try_set_used_ring_address(guest_address(addresses.used)).unwrap();
        queue.set_event_idx(guest.features & EVENT_IDX != 0);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        Theirs { queue, memory, segments: Vec::new() }
    }

    /// Does the work of [`RxQueue::receive`](labsw_dataplane::port::RxQueue::receive).
    fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) {
        for chain in self.queue.iter(&self.memory).unwrap() {
            let head = chain.head_index();
            self.segments.clear();
            let mut header = [0; HEADER_BYTES];
            let mut header_done = 0;
            let mut frame_bytes = 0;
            for descriptor in chain.readable() {
                let slice = self.memory.get_slice(descriptor.addr(), descriptor.len() as usize).unwrap();
                let here = slice.len().min(HEADER_BYTES - header_done);
                slice.copy_to(&mut header[header_done..header_done + here]);
                header_done += here;
                let rest = slice.offset(here).unwrap();
                frame_bytes += rest.len() as u32;
                self.segments.push(Segment { ptr: rest.ptr_guard().as_ptr(), len: rest.len() as u32 });
            }
            assert!(header[..2] == [0; 2], "no offloads");
            stats.received(frame_bytes);
            // SAFETY: each segment is part of a slice of the guest's memory, which stays mapped as long as `self`; the
            // burst is cleared by `release`.
            unsafe { burst.push(head.into(), &self.segments) };
        }
    }

    /// Does the work of [`RxQueue::release`](labsw_dataplane::port::RxQueue::release). Returns whether the guest is to
    /// be interrupted.
    fn release(&mut self, burst: &mut Burst) -> bool {
        for frame in burst.frames() {
            self.queue.add_used(&self.memory, frame.token as u16, 0).unwrap();
        }
        burst.clear();
        self.notify()
    }

    /// Does the work of [`TxPort::send`](labsw_dataplane::port::TxPort::send) for frames that fit one buffer. Returns
    /// whether the guest is to be interrupted.
    fn send(&mut self, burst: &Burst, items: &[TxItem], stats: &mut PortDelta) -> bool {
        let mut header = [0; HEADER_BYTES];
        header[10] = 1;
        for item in items {
            let mut reader = burst.reader(item).unwrap();
            let bytes = reader.remaining();
            let chain = self.queue.iter(&self.memory).unwrap().next().unwrap();
            let head = chain.head_index();
            let buffer = chain.writable().next().unwrap();
            let slice = self.memory.get_slice(buffer.addr(), buffer.len() as usize).unwrap();
            slice.copy_from(&header);
            let rest = slice.offset(HEADER_BYTES).unwrap();
            // SAFETY: `rest` is that long, and in the memory of another guest than the frame.
            assert_eq!(unsafe { reader.read(rest.ptr_guard_mut().as_ptr(), rest.len() as u32) }, bytes);
            stats.sent(bytes);
            self.queue.add_used(&self.memory, head, HEADER_BYTES as u32 + bytes).unwrap();
        }
        self.notify()
    }

    fn notify(&mut self) -> bool {
        self.queue.needs_notification(&self.memory).unwrap()
    }
}

/// A guest with full rings.
fn guest(notification: Notification, wire_bytes: usize) -> Guest {
    let without = if notification == Notification::Flags { EVENT_IDX } else { 0 };
    let mut guest = Guest::new(FEATURES & !without, RING);
    fill_transmit(&mut guest, wire_bytes);
    fill_receive(&mut guest);
    for ring in [RECEIVE, TRANSMIT] {
        guest.avail(ring, 0).store(NO_INTERRUPT, Ordering::Release);
    }
    guest
}

fn interrupt(guest: &Guest, ring: usize) {
    rustix::io::write(&guest.rings[ring].call, &1u64.to_ne_bytes()).unwrap();
}

/// Frames borrowed from a guest once and for all.
struct Source {
    burst: Burst,
    items: Vec<TxItem>,
    /// Keeps the frames where they are.
    _guest: Guest,
}

impl Source {
    fn new(wire_bytes: usize) -> Source {
        let guest = guest(Notification::Flags, wire_bytes);
        offer(&guest, TRANSMIT, BURST);
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        guest.port().receive(0, &mut burst, &mut stats).unwrap();
        let items = (0..BURST).map(|n| TxItem::whole(n as u8, TagEdit::KEEP)).collect();
        Source { burst, items, _guest: guest }
    }

    /// The frames, and all of them as items to send. (A method, so that a closure that uses it holds the guest as
    /// well.)
    fn frames(&mut self) -> (&mut Burst, &[TxItem]) {
        (&mut self.burst, &self.items)
    }
}

/// Takes frames of 64 bytes out of a transmit ring into a burst (header check, 128-byte snapshot).
pub fn take_ours(notification: Notification) -> impl FnMut() {
    let guest = guest(notification, 64);
    let mut port = guest.port();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    move || {
        offer(&guest, TRANSMIT, BURST);
        port.receive(0, &mut burst, &mut stats).unwrap();
        assert_eq!(black_box(&burst).len(), usize::from(BURST));
        port.release(0, &mut burst).unwrap();
    }
}

/// Like [`take_ours`]; with `call` the guest is interrupted when the crate says so.
pub fn take_theirs(notification: Notification, call: bool) -> impl FnMut() {
    let guest = guest(notification, 64);
    let mut theirs = Theirs::new(&guest, TRANSMIT);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    move || {
        offer(&guest, TRANSMIT, BURST);
        theirs.receive(&mut burst, &mut stats);
        assert_eq!(black_box(&burst).len(), usize::from(BURST));
        if theirs.release(&mut burst) && call {
            interrupt(&guest, TRANSMIT);
        }
    }
}

/// Copies frames into the buffers of a receive ring.
pub fn fill_ours(notification: Notification, wire_bytes: usize) -> impl FnMut() {
    let mut source = Source::new(wire_bytes);
    let guest = guest(notification, 64);
    let mut port = guest.port();
    let mut stats = PortDelta::ZERO;
    move || {
        offer(&guest, RECEIVE, BURST);
        let (burst, items) = source.frames();
        assert_eq!(port.send(burst, items, &mut stats), Ok(0));
    }
}

/// Like [`fill_ours`]; with `call` the guest is interrupted when the crate says so.
pub fn fill_theirs(notification: Notification, wire_bytes: usize, call: bool) -> impl FnMut() {
    let mut source = Source::new(wire_bytes);
    let guest = guest(notification, 64);
    let mut theirs = Theirs::new(&guest, RECEIVE);
    let mut stats = PortDelta::ZERO;
    move || {
        offer(&guest, RECEIVE, BURST);
        let before = stats.tx_frames;
        let (burst, items) = source.frames();
        if theirs.send(burst, items, &mut stats) && call {
            interrupt(&guest, RECEIVE);
        }
        assert_eq!(stats.tx_frames - before, u64::from(BURST));
    }
}
