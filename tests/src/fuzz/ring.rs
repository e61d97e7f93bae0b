//! The ring walk in both directions, in memory of a guest that writes anything anywhere, against a naive device
//! ([`model`]) that works on a copy of the memory. Here are the split ring and what is the same for the packed one
//! ([`mod@packed`]).
//!
//! After each step the whole file behind the guest's memory is compared with the copy, byte for byte, with what lies
//! before, between and behind its regions: what the ring wrote is what it had to write, and nothing else. The frames
//! that come out, the drops, the interrupts, and whether the ring is broken are compared as well. Half of the rings
//! mark the pages they write ([`mod@log`]): all that the model wrote are marked, and no others.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::losses::{Losses, TxReport};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::virtio::Sent;
use labsw_dataplane::virtio::dirty_log::RingLog;
use labsw_dataplane::virtio::memory::{GuestMemory, Region, RegionInfo};
use labsw_dataplane::virtio::{
    BURST_DESCRIPTORS, Direction, FRAME_DESCRIPTORS, MAX_CHAIN_DESCRIPTORS, Ring, RingAddresses, RingLayout, RingSetup,
};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::feed::Feed;
use crate::hostile::descriptor_bytes;
use log::SharedLog;
use model::{BIG, Broken, Device, REGIONS, SplitDevice, bytes as bytes_now};

mod log;
mod model;
mod packed;
mod packed_model;
#[cfg(test)]
mod small;

pub use packed::{packed, packed_operations};

const FILE_BYTES: usize = 0xe000;
/// What stands in the file outside the regions.
const OUTSIDE: u8 = 0xc5;
const STEPS: u64 = 64;
/// After so many bytes of frames an input ends, however large its frames are.
const COMPARED_BYTES: usize = 1 << 20;
/// Offsets in the first region: the ring as a well-behaved driver lays it out, tables for indirect chains, buffers.
const TABLE: u64 = 0;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x500;
const INDIRECT: u64 = 0x800;
const BUFFERS: u64 = 0x1000;
const BUFFER_BYTES: u64 = 0x80;
/// Entries of the ring that lies in a region of its own.
const BIG_SIZE: u16 = 512;
/// Offsets in that region.
const BIG_AVAILABLE: u64 = 0x2000;
const BIG_USED: u64 = 0x2800;
const BIG_TABLE: u64 = 0x3c00;
const FEATURES: [u64; 4] = [1 << 15, 1 << 28, 1 << 29, 1 << 32];

/// Lays out a ring, then lets guest and switch work on it.
///
/// # Panics
/// When the ring does other than the model.
pub fn ring(data: &[u8]) {
    ring_operations(data);
}

/// As [`ring`]; how many operations the bytes were. The highest bit of the second byte has the ring log its pages.
pub fn ring_operations(data: &[u8]) -> u64 {
    Guest::with(|guest| guest.play(&mut Feed::new(data)))
}

/// The file of the guest's memory and the eventfd of its interrupts, kept from one input to the next.
struct Guest {
    file: File,
    memory: Arc<GuestMemory>,
    call: Arc<OwnedFd>,
    log: SharedLog,
}

/// A ring, the model of it, and where it lies.
struct Pair<'a, D> {
    guest: &'a Guest,
    setup: RingSetup,
    ring: Ring,
    device: D,
    to_guest: bool,
    /// How often the ring was restarted.
    starts: usize,
    /// The file as last seen.
    seen: Vec<u8>,
    /// Bytes of frames compared so far.
    compared: usize,
    /// Descriptors read so far, those for a start not counted.
    reads: u64,
}

impl Guest {
    fn with(play: impl FnOnce(&Guest) -> u64) -> u64 {
        thread_local!(static GUEST: Guest = Guest::new());
        GUEST.with(play)
    }

    fn new() -> Self {
        let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&file, FILE_BYTES as u64).expect("its size");
        let region =
            |info| Region::map(info, file.try_clone().expect("a descriptor")).unwrap_or_else(|e| panic!("{e}"));
        let memory = GuestMemory::new(REGIONS.map(region).map(Arc::new).to_vec()).unwrap_or_else(|e| panic!("{e}"));
        let call = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
        Self { file: File::from(file), memory: Arc::new(memory), call: Arc::new(call), log: SharedLog::new() }
    }

    fn play(&self, feed: &mut Feed<'_>) -> u64 {
        let chosen = feed.u8();
        let chosen_features = FEATURES.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1);
        let features = chosen_features.map(|(_, feature)| feature).sum();
        let size = [64, 1, 2, 4, 8, 16, 32, BIG_SIZE][usize::from(chosen >> 4 & 7)];
        let flags = feed.u8();
        let user = REGIONS[0].user_start;
        let mut addresses = RingAddresses { descriptors: user + TABLE, available: user + AVAILABLE, used: user + USED };
        if size == BIG_SIZE {
            let user = BIG.user_start;
            addresses = RingAddresses { descriptors: user, available: user + BIG_AVAILABLE, used: user + BIG_USED };
        } else if chosen >> 7 == 1 {
            // Anywhere, over each other too.
            for address in [&mut addresses.descriptors, &mut addresses.available, &mut addresses.used] {
                *address = feed.choose(&REGIONS[..3]).user_start + u64::from(feed.u16());
            }
        }
        let layout = RingLayout::resolve(Arc::clone(&self.memory), size.into(), addresses);
        let device = SplitDevice::new(self.blank(), addresses, size, features);
        assert_eq!(layout.is_ok(), device.is_some(), "{layout:?}");
        let (Ok(layout), Some(mut device)) = (layout, device) else { return 0 };
        if flags & 2 != 0 {
            // Near the end of the index.
            let index = 0xffff - u16::from(flags >> 2);
            self.poke(&mut device, user_offset(addresses.used) + 2, &index.to_le_bytes());
            self.poke(&mut device, user_offset(addresses.available) + 2, &index.to_le_bytes());
        }
        let log = if flags >> 7 == 1 { self.log.of_ring(&self.memory, addresses.used) } else { None };
        let mut pair = Pair::start(self, layout, features, device, flags & 1 == 1, log);
        let mut steps = 0;
        while steps < STEPS && !feed.is_empty() && pair.compared <= COMPARED_BYTES {
            steps += 1;
            pair.step(feed, addresses, size);
            pair.compare();
            pair.check_log();
        }
        pair.check_clean();
        steps
    }

    /// Makes the file that of a guest that has just begun; returns a copy of it.
    fn blank(&self) -> Vec<u8> {
        let mut memory = vec![OUTSIDE; FILE_BYTES];
        for region in &REGIONS {
            let (start, bytes) = (region.file_offset, region.bytes);
            memory[usize::try_from(start).expect("small")..][..usize::try_from(bytes).expect("small")].fill(0);
        }
        self.file.write_all_at(&memory, 0).expect("a memfd takes it");
        memory
    }

    /// The guest writes to a place in the file, if that is its own.
    fn poke(&self, device: &mut impl Device, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let own = |info: &RegionInfo| info.file_offset <= offset && end <= info.file_offset + info.bytes;
        if REGIONS.iter().any(own) {
            let start = usize::try_from(offset).expect("small");
            device.memory()[start..start + bytes.len()].copy_from_slice(bytes);
            self.file.write_all_at(bytes, offset).expect("a memfd takes it");
        }
    }
}

impl Pair<'_, SplitDevice> {
    fn step(&mut self, feed: &mut Feed<'_>, addresses: RingAddresses, size: u16) {
        let table = user_offset(addresses.descriptors);
        let available = user_offset(addresses.available);
        match feed.u8() % 16 {
            0..3 => {
                // A descriptor, in the ring's table or one of the indirect ones.
                let place = feed.u8();
                let first = if place < 128 { table } else { user_offset(REGIONS[0].user_start + INDIRECT) };
                let bytes = descriptor(feed, self.to_guest);
                self.poke(first + 16 * u64::from(place % 64), &bytes);
            }
            3 if size == BIG_SIZE => self.offer_long(feed, table, available),
            3 => {
                let slot = u64::from(feed.u8() % 65);
                let entry = feed.u16();
                self.poke(available + 4 + 2 * slot, &entry.to_le_bytes());
            }
            4 => {
                let index = self.ring.base().wrapping_add(u32::from(feed.u8() % 72));
                let index = index.to_le_bytes();
                self.poke(available + 2, &index[..2]);
            }
            5 => self.poke_anything(feed),
            6..10 => {
                // A well-formed chain, made available.
                let head = u16::from(feed.u8()) % size;
                self.offer(feed, table, head, size);
                let index = self.device.memory()[usize::try_from(available).expect("small") + 2..][..2].to_vec();
                let index = u16::from_le_bytes([index[0], index[1]]);
                self.poke(available + 4 + 2 * u64::from(index % size), &head.to_le_bytes());
                self.poke(available + 2, &index.wrapping_add(1).to_le_bytes());
            }
            10 => self.arm(),
            11 => self.restart(),
            _ if self.to_guest => self.send(feed),
            _ => self.receive(feed, true),
        }
    }

    /// Makes available, some times over, a chain of up to 512 parts in the ring's table or in an indirect one.
    fn offer_long(&mut self, feed: &mut Feed<'_>, table: u64, available: u64) {
        let (shape, times) = (feed.u8(), u16::from(feed.u8() % 64) + 1);
        let write = u16::from(self.to_guest) << 1;
        let indirect = shape & 1 != 0;
        let first = if indirect { user_offset(BIG.user_start) + BIG_TABLE } else { table };
        let count = self.write_long(feed, first, |address, len, number| {
            let last = u16::from(shape >> 1) * 2 + 1 == number;
            descriptor_bytes(address, len, write | u16::from(!last), number + 1)
        });
        if indirect {
            let bytes = descriptor_bytes(BIG.guest_start + BIG_TABLE, u32::from(count) * 16, 4, 0);
            self.poke(table, &bytes);
        }
        let memory = self.device.memory();
        let at = usize::try_from(available).expect("small") + 2;
        let index = u16::from_le_bytes([memory[at], memory[at + 1]]);
        for number in 0..times {
            self.poke(available + 4 + 2 * u64::from(index.wrapping_add(number) % BIG_SIZE), &[0, 0]);
        }
        self.poke(available + 2, &index.wrapping_add(times).to_le_bytes());
    }

    /// Writes a chain of up to four parts, in the ring's table or an indirect one.
    fn offer(&mut self, feed: &mut Feed<'_>, table: u64, head: u16, size: u16) {
        let shape = feed.u8();
        let write = u16::from(self.to_guest) << 1;
        let indirect = shape & 4 != 0;
        let parts = u16::from(shape & 3) + 1;
        let first = if indirect { user_offset(REGIONS[0].user_start + INDIRECT) } else { table };
        let entry = |number: u16| if indirect { number } else { head.wrapping_add(number) % size };
        for number in 0..parts {
            let address = REGIONS[0].guest_start + BUFFERS + u64::from(feed.u8() % 48) * BUFFER_BYTES;
            let len = u32::from(feed.u8()) << (shape >> 5 & 3);
            let flags = write | u16::from(number + 1 < parts);
            let bytes = descriptor_bytes(address, len, flags, entry(number + 1));
            self.poke(first + 16 * u64::from(entry(number)), &bytes);
        }
        if indirect {
            let bytes = descriptor_bytes(REGIONS[0].guest_start + INDIRECT, u32::from(parts) * 16, 4, 0);
            self.poke(table + 16 * u64::from(head), &bytes);
        }
    }
}

impl<'a, D: Device> Pair<'a, D> {
    /// Writes up to 512 descriptors, each the next one's, of up to 4 bytes or up to 1 KiB, at an offset of the file; a
    /// few say otherwise.
    fn write_long(&mut self, feed: &mut Feed<'_>, first: u64, describe: impl Fn(u64, u32, u16) -> [u8; 16]) -> u16 {
        let (count, kind) = (feed.u16() % (BIG_SIZE + 1), feed.u8());
        let seed = u32::from(feed.u8());
        for number in 0..count {
            let len = (u32::from(number) * 7 + seed) % if kind & 1 == 0 { 5 } else { 1024 };
            let address = REGIONS[0].guest_start + BUFFERS + u64::from(number % 8) * BUFFER_BYTES;
            let bytes = describe(address, len, number);
            self.poke(first + 16 * u64::from(number % BIG_SIZE), &bytes);
        }
        count
    }

    fn start(
        guest: &'a Guest,
        layout: RingLayout,
        features: u64,
        mut device: D,
        to_guest: bool,
        log: Option<RingLog>,
    ) -> Self {
        let (kick, call) = (Some(Arc::clone(&guest.call)), Some(Arc::clone(&guest.call)));
        let setup = RingSetup { layout, features, kick, call, log };
        device.start(to_guest);
        let ring = Ring::start(setup.clone(), direction(to_guest));
        assert_work(ring.descriptors_read(), FRAME_DESCRIPTORS);
        Pair { guest, setup, ring, device, to_guest, starts: 0, seen: vec![0; FILE_BYTES], compared: 0, reads: 0 }
    }

    fn poke(&mut self, offset: u64, bytes: &[u8]) {
        self.guest.poke(&mut self.device, offset, bytes);
    }

    fn poke_anything(&mut self, feed: &mut Feed<'_>) {
        let (offset, count) = (u64::from(feed.u16()), usize::from(feed.u8() % 32));
        self.poke(offset, feed.take(count));
    }

    fn arm(&mut self) {
        assert_eq!(self.ring.arm(), self.device.arm());
        self.compare();
        self.ring.disarm();
        self.device.disarm();
    }

    /// Both start over: after a broken ring, or as when the front end stops and starts it.
    fn restart(&mut self) {
        self.starts += 1;
        self.ring = Ring::start(self.setup.clone(), direction(self.to_guest));
        assert_work(self.ring.descriptors_read(), FRAME_DESCRIPTORS);
        self.device.start(self.to_guest);
    }

    /// Takes frames; `meddling`, the guest goes on writing while they are on their way.
    fn receive(&mut self, feed: &mut Feed<'_>, meddling: bool) {
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let before = self.ring.descriptors_read();
        let result = self.ring.receive(&mut burst, &mut stats);
        // The first descriptor of each chain is free.
        self.reads += self.ring.descriptors_read() - before;
        assert_work(self.ring.descriptors_read() - before, BURST_DESCRIPTORS + 64);
        let taken = if result.is_ok() { stats.rx_frames } else { 64 };
        let received = match (result, self.device.receive(taken)) {
            (Ok(()), Ok(received)) => received,
            (Err(_), Err(Broken)) => return self.restart(),
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        };
        self.compare();
        let mut expected = PortDelta::ZERO;
        received.drops.iter().for_each(|&reason| expected.drop(reason));
        assert_eq!(stats.drops, expected.drops);
        assert_eq!(stats.rx_frames, (received.frames.len() + received.drops.len()) as u64);
        assert_eq!(stats.rx_bytes, received.bytes);
        assert_eq!(burst.len(), received.frames.len());
        if meddling {
            self.poke_anything(feed);
        }
        for (number, frame) in received.frames.iter().enumerate() {
            let item = TxItem::whole(u8::try_from(number).expect("at most 64"), TagEdit::KEEP);
            let mut reader = burst.reader(&item).expect("no edit");
            let mut bytes = vec![0; reader.remaining() as usize];
            let room = reader.remaining();
            // SAFETY: `bytes` has that length.
            assert_eq!(unsafe { reader.read(bytes.as_mut_ptr(), room) }, room);
            assert!(bytes == bytes_now(self.device.memory(), frame), "frame {number} differs");
            self.compared += bytes.len();
        }
        burst.clear();
        self.ring.release();
        self.device.release();
    }

    fn send(&mut self, feed: &mut Feed<'_>) {
        for _ in 0..=feed.u8() % 4 {
            let fill = feed.u8();
            let frame: Vec<u8> = (0..feed.u16() >> 4).map(|at| fill.wrapping_add(at.to_le_bytes()[0])).collect();
            let mut burst = Burst::new();
            let segment = Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).expect("short") };
            // SAFETY: the frame outlives the burst and does not change.
            assert!(unsafe { burst.push(0, &[segment]) });
            let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
            let mut report = TxReport { stats: &mut stats, losses: &mut losses };
            // One at a time: of a burst, the ring looks at all buffers before it writes the first frame, which a guest
            // whose buffers lie over its ring can tell.
            let before = self.ring.descriptors_read();
            let sent = self.ring.send(&burst, &[TxItem::whole(0, TagEdit::KEEP)], &mut report);
            self.reads += self.ring.descriptors_read() - before;
            assert_work(self.ring.descriptors_read() - before, FRAME_DESCRIPTORS);
            match (sent, self.device.send(&frame)) {
                (Ok(()), Ok(expected)) => {
                    let mut counted = PortDelta::ZERO;
                    match expected {
                        Sent::Done => counted.sent(u32::try_from(frame.len()).expect("short")),
                        Sent::RingFull => counted.drop(DropReason::GuestRingFull),
                        Sent::BufferTooSmall => counted.drop(DropReason::GuestBufferTooSmall),
                    }
                    assert_eq!((losses.frames(), stats), (u64::from(expected != Sent::Done), counted));
                }
                (Err(_), Err(Broken)) => return self.restart(),
                (result, expected) => panic!("{result:?} instead of {expected:?}"),
            }
            self.compare();
        }
        self.ring.flush();
        self.device.flush();
    }

    /// Holds the log of pages, if there is one, against what the model wrote.
    fn check_log(&mut self) {
        let written = self.device.take_written();
        if self.setup.log.is_some() {
            self.guest.log.check(&written);
        }
    }

    /// Looks for marks where none can be.
    fn check_clean(&mut self) {
        self.check_log();
        if self.setup.log.is_some() {
            self.guest.log.check_clean();
        }
    }

    /// Compares all that can be seen from outside.
    fn compare(&mut self) {
        self.guest.file.read_exact_at(&mut self.seen, 0).expect("a memfd gives it");
        self.device.adopt(&self.seen);
        let (seen, expected) = (&self.seen, self.device.memory());
        if seen != expected {
            let at = (0..FILE_BYTES).find(|&at| seen[at] != expected[at]).expect("they differ");
            panic!("at {at:#x} of the file: {:#x} instead of {:#x}", seen[at], expected[at]);
        }
        assert_eq!(self.ring.base(), self.device.base());
        let mut count = [0; 8];
        let interrupts = rustix::io::read(self.guest.call.as_fd(), &mut count).map_or(0, |_| u64::from_ne_bytes(count));
        assert_eq!(interrupts, self.device.take_interrupts().unwrap_or(interrupts), "interrupts");
    }
}

/// Which of the guest's rings it is.
fn direction(to_guest: bool) -> Direction {
    if to_guest { Direction::ToGuest } else { Direction::FromGuest }
}

/// Holds the number of descriptors read against its bound; the last chain looked at may go over it.
fn assert_work(read: u64, bound: u64) {
    assert!(read < bound + u64::from(MAX_CHAIN_DESCRIPTORS), "{read} descriptors read, {bound} are the bound");
}

/// The file offset behind a front-end address that a ring lies at.
fn user_offset(address: u64) -> u64 {
    let inside = REGIONS.iter().find(|region| address.wrapping_sub(region.user_start) < region.bytes);
    inside.map_or(0, |region| address - region.user_start + region.file_offset)
}

/// A descriptor of which each part may be right.
fn descriptor(feed: &mut Feed<'_>, to_guest: bool) -> [u8; 16] {
    let region = feed.choose(&REGIONS[..3]);
    let place = feed.u8();
    let (start, bytes) = (region.guest_start, region.bytes);
    let address = match place & 7 {
        0 | 1 => REGIONS[0].guest_start + BUFFERS + u64::from(place >> 3) * BUFFER_BYTES,
        2 => REGIONS[0].guest_start + INDIRECT,
        3 => start + u64::from(feed.u16()) % bytes,
        4 => start + bytes - u64::from(feed.u8()),
        5 => start - u64::from(feed.u8()),
        6 => start,
        _ => feed.u64(),
    };
    let rest = u32::try_from(start.wrapping_add(bytes).wrapping_sub(address) & 0xffff).expect("16 bits");
    let kind = feed.u8();
    let len = match kind & 7 {
        0..3 => u32::from(feed.u8()),
        3 => rest,
        4 => rest.wrapping_add(1),
        5 => u32::from(kind >> 3) * 16,
        6 => u32::from(feed.u16()),
        _ => feed.u32(),
    };
    let flags = feed.u8();
    let flags =
        if flags & 0x80 != 0 { u16::from(flags & 0x7f) } else { u16::from(to_guest) << 1 | u16::from(flags & 5) };
    let next = u16::from(feed.u8());
    descriptor_bytes(address, len, flags, if next >= 250 { feed.u16() } else { next % 66 })
}
