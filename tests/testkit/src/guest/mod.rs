//! A guest's virtio-net driver in plain memory, for tests of the rings: well-behaved unless told otherwise.
//!
//! Guest memory is one memfd, mapped here and by the port. Each ring has its tables at fixed offsets, and
//! buffers of [`BUFFER_BYTES`]. Guest-physical addresses begin at [`GUEST_BASE`], front-end addresses at [`USER_BASE`].

pub mod packed;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::vhost_user::{VhostOp, VhostPort, VhostReply};
use labsw_dataplane::virtio::memory::{GuestMemory, Region, RegionInfo};
use labsw_dataplane::virtio::{RingAddresses, RingLayout, RingSetup};
use labsw_switch::forward::{TagEdit, TxItem};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{FileOffset, MmapRegion};

pub const GUEST_BASE: u64 = 0x4000_0000;
pub const USER_BASE: u64 = 0x7f00_0000_0000;
pub const BUFFER_BYTES: usize = 2048;
/// Room for the tables of one ring with up to 2048 entries.
const TABLES_BYTES: usize = 0x10000;

pub const MTU: u64 = 1 << 3;
pub const MRG_RXBUF: u64 = 1 << 15;
/// GUEST_ANNOUNCE and VHOST_F_LOG_ALL.
pub const MOVES: u64 = 1 << 21 | 1 << 26;
pub const INDIRECT: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
pub const RING_PACKED: u64 = 1 << 34;
pub const IN_ORDER: u64 = 1 << 35;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT_FLAG: u16 = 4;

/// One ring of the guest.
pub struct GuestRing {
    /// Offset of the tables in memory; the buffers follow.
    offset: usize,
    pub size: u16,
    free: Vec<u16>,
    /// Descriptors per head in use.
    pub next_avail: u16,
    pub last_used: u16,
    pub kick: Arc<OwnedFd>,
    pub call: Arc<OwnedFd>,
}

pub struct Guest {
    pub memfd: OwnedFd,
    map: MmapRegion,
    pub memory: Arc<GuestMemory>,
    pub features: u64,
    pub rings: Vec<GuestRing>,
}

impl Guest {
    /// A guest with one queue pair of `size` entries.
    pub fn new(features: u64, size: u16) -> Guest {
        Guest::with_pairs(features, size, 1)
    }

    pub fn with_pairs(features: u64, size: u16, pairs: usize) -> Guest {
        // Two buffers' worth of room per entry: data, and an indirect table.
        let per_ring = tables_bytes(size) + usize::from(size) * BUFFER_BYTES * 2;
        let bytes = per_ring * pairs * 2;
        let memfd = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memfd, bytes as u64).unwrap();
        let own = File::from(memfd.as_fd().try_clone_to_owned().unwrap());
        let map = MmapRegion::from_file(FileOffset::new(own, 0), bytes).unwrap();
        let info = RegionInfo { guest_start: GUEST_BASE, bytes: bytes as u64, user_start: USER_BASE, file_offset: 0 };
        let region = Region::map(info, memfd.try_clone().unwrap()).unwrap();
        let memory = Arc::new(GuestMemory::new(vec![Arc::new(region)]).unwrap());
        let event = || Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let rings = (0..2 * pairs)
            .map(|index| GuestRing {
                offset: index * per_ring,
                size,
                free: (0..size).rev().collect(),
                next_avail: 0,
                last_used: 0,
                kick: event(),
                call: event(),
            })
            .collect();
        Guest { memfd, map, memory, features, rings }
    }

    pub fn bytes(&self) -> u64 {
        self.map.size() as u64
    }

    pub fn addresses(&self, ring: usize) -> RingAddresses {
        let at = USER_BASE + self.rings[ring].offset as u64;
        let size = u64::from(self.rings[ring].size);
        let available = at + 16 * size;
        RingAddresses { descriptors: at, available, used: (available + 6 + 2 * size).next_multiple_of(4) }
    }

    pub fn setup(&self, ring: usize) -> RingSetup {
        let size = u32::from(self.rings[ring].size);
        let packed = self.features & RING_PACKED != 0;
        let resolve = if packed { RingLayout::resolve_packed } else { RingLayout::resolve };
        let layout = resolve(Arc::clone(&self.memory), size, self.addresses(ring)).unwrap();
        let (kick, call) = (Arc::clone(&self.rings[ring].kick), Arc::clone(&self.rings[ring].call));
        RingSetup { layout, features: self.features, kick: Some(kick), call: Some(call), log: None }
    }

    /// A port with all of this guest's rings started and enabled.
    pub fn port(&self) -> VhostPort {
        let mut port = VhostPort::new((self.rings.len() / 2) as u16);
        self.start(&mut port);
        port
    }

    pub fn start(&self, port: &mut VhostPort) {
        for ring in 0..self.rings.len() {
            let op = VhostOp::StartRing {
                index: ring as u16,
                setup: Box::new(self.setup(ring)),
                enabled: true,
                connection: 1,
            };
            assert_eq!(port.operate(op), VhostReply::Done);
        }
    }

    /// A host pointer to `len` bytes at a memory offset.
    pub fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset + len <= self.map.size());
        // SAFETY: inside the mapping, by the line above.
        unsafe { self.map.as_ptr().add(offset) }
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `at` checked the range; the port under test runs on this thread.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(self.at(offset, len), bytes.as_mut_ptr(), len) };
        bytes
    }

    fn index(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: in range and even; only accessed as an atomic.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2).cast()) }
    }

    pub fn offset_of(address: u64) -> usize {
        (address - USER_BASE) as usize
    }

    /// The field `offset` bytes into the available ring.
    pub fn avail(&self, ring: usize, offset: usize) -> &AtomicU16 {
        self.index(Guest::offset_of(self.addresses(ring).available) + offset)
    }

    pub fn used(&self, ring: usize, offset: usize) -> &AtomicU16 {
        self.index(Guest::offset_of(self.addresses(ring).used) + offset)
    }

    pub fn used_element(&self, ring: usize, index: u16) -> (u32, u32) {
        let slot = usize::from(index % self.rings[ring].size);
        let bytes = self.read(Guest::offset_of(self.addresses(ring).used) + 4 + 8 * slot, 8);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }

    /// Memory offset of the data buffer of entry `entry`.
    pub fn buffer(&self, ring: usize, entry: u16) -> usize {
        self.rings[ring].offset + tables_bytes(self.rings[ring].size) + usize::from(entry) * 2 * BUFFER_BYTES
    }

    pub fn descriptor_bytes(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    }

    pub fn set_descriptor(&self, ring: usize, entry: u16, address: u64, len: u32, flags: u16, next: u16) {
        let offset = self.rings[ring].offset + 16 * usize::from(entry);
        self.write(offset, &Guest::descriptor_bytes(address, len, flags, next));
    }

    /// Makes a chain available; the port sees it at once.
    pub fn offer(&mut self, ring: usize, head: u16) {
        let next = self.rings[ring].next_avail;
        let slot = usize::from(next % self.rings[ring].size);
        self.avail(ring, 4 + 2 * slot).store(head, Ordering::Relaxed);
        self.rings[ring].next_avail = next.wrapping_add(1);
        self.avail(ring, 2).store(next.wrapping_add(1), Ordering::Release);
    }

    /// Does a driver's work after adding entries `old..next_avail`: returns whether it has to kick, and kicks.
    pub fn kick(&self, ring: usize, old: u16) -> bool {
        fence(Ordering::SeqCst);
        let new = self.rings[ring].next_avail;
        let wanted = if self.features & EVENT_IDX != 0 {
            let event = self.used(ring, 4 + 8 * usize::from(self.rings[ring].size)).load(Ordering::Acquire);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.used(ring, 0).load(Ordering::Acquire) & 1 == 0
        };
        if wanted {
            rustix::io::write(&self.rings[ring].kick, &1u64.to_ne_bytes()).unwrap();
        }
        wanted
    }

    /// Takes the interrupts that came.
    pub fn interrupts(&self, ring: usize) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.rings[ring].call, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    /// Descriptors not in use.
    pub fn free_entries(&self, ring: usize) -> usize {
        self.rings[ring].free.len()
    }

    pub fn header_bytes(&self) -> usize {
        if self.features & (MRG_RXBUF | VERSION_1) != 0 { 12 } else { 10 }
    }

    /// Sends a frame from the guest, header and frame together cut into `pieces` lengths (the last takes the rest).
    pub fn transmit(&mut self, ring: usize, frame: &[u8], pieces: &[usize]) {
        let header = vec![0; self.header_bytes()];
        self.transmit_raw(ring, &[&header, frame].concat(), pieces);
    }

    /// Like [`Guest::transmit`], header included in `bytes`. With indirect descriptors negotiated, uses a table.
    pub fn transmit_raw(&mut self, ring: usize, bytes: &[u8], pieces: &[usize]) {
        let mut rest = bytes;
        let mut parts = Vec::new();
        for &piece in pieces {
            let (part, behind) = rest.split_at(piece.min(rest.len()));
            parts.push(part);
            rest = behind;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(rest);
        }
        let indirect = self.features & INDIRECT != 0;
        let count = if indirect { 1 } else { parts.len() };
        let at = self.rings[ring].free.len() - count;
        let entries: Vec<u16> = self.rings[ring].free.split_off(at).into_iter().rev().collect();
        let base = self.buffer(ring, entries[0]);
        let mut table = Vec::new();
        // Pieces lie behind each other, 16 bytes apart, in the buffers of the first entry (or of each, if large).
        let mut offset = base;
        for (number, part) in parts.iter().enumerate() {
            if !indirect {
                offset = self.buffer(ring, entries[number]);
            }
            self.write(offset, part);
            let last = number + 1 == parts.len();
            let flags = if last { 0 } else { NEXT };
            let address = GUEST_BASE + offset as u64;
            if indirect {
                table.extend(Guest::descriptor_bytes(address, part.len() as u32, flags, number as u16 + 1));
                offset += part.len() + 16;
            } else {
                let next = if last { 0 } else { entries[number + 1] };
                self.set_descriptor(ring, entries[number], address, part.len() as u32, flags, next);
            }
        }
        if indirect {
            let place = base + BUFFER_BYTES;
            self.write(place, &table);
            self.set_descriptor(ring, entries[0], GUEST_BASE + place as u64, table.len() as u32, INDIRECT_FLAG, 0);
        }
        self.offer(ring, entries[0]);
    }

    /// Takes back completed transmit chains and returns how many they were.
    pub fn reap(&mut self, ring: usize) -> usize {
        let mut count = 0;
        while self.rings[ring].last_used != self.used(ring, 2).load(Ordering::Acquire) {
            let (head, len) = self.used_element(ring, self.rings[ring].last_used);
            assert_eq!(len, 0);
            let mut entry = head as u16;
            loop {
                let bytes = self.read(self.rings[ring].offset + 16 * usize::from(entry), 16);
                self.rings[ring].free.push(entry);
                if u16::from_le_bytes([bytes[12], bytes[13]]) & NEXT == 0 {
                    break;
                }
                entry = u16::from_le_bytes([bytes[14], bytes[15]]);
            }
            self.rings[ring].last_used = self.rings[ring].last_used.wrapping_add(1);
            count += 1;
        }
        count
    }

    /// Posts `count` receive buffers of `bytes` each; with `split`, as two descriptors of which the first holds that
    /// many.
    pub fn post(&mut self, ring: usize, count: usize, bytes: u32, split: Option<u32>) {
        for _ in 0..count {
            let head = self.rings[ring].free.pop().unwrap();
            let address = GUEST_BASE + self.buffer(ring, head) as u64;
            if let Some(first) = split {
                let second = self.rings[ring].free.pop().unwrap();
                self.set_descriptor(ring, head, address, first, WRITE | NEXT, second);
                self.set_descriptor(ring, second, address + u64::from(first), bytes - first, WRITE, 0);
            } else {
                self.set_descriptor(ring, head, address, bytes, WRITE, 0);
            }
            self.offer(ring, head);
        }
    }

    /// Takes the frames received so far, checking header and lengths.
    pub fn received(&mut self, ring: usize) -> Vec<Vec<u8>> {
        let without = |(header, frame): ([u8; 10], Vec<u8>)| {
            assert_eq!(header, [0; 10]);
            frame
        };
        self.received_with_headers(ring).into_iter().map(without).collect()
    }

    /// The same, with the front of each frame's virtio-net header.
    pub fn received_with_headers(&mut self, ring: usize) -> Vec<([u8; 10], Vec<u8>)> {
        let mut frames = Vec::new();
        let end = self.used(ring, 2).load(Ordering::Acquire);
        while self.rings[ring].last_used != end {
            let mut frame = Vec::new();
            let mut left = 1;
            while left > 0 {
                assert_ne!(self.rings[ring].last_used, end, "a frame is published as a whole");
                let (head, len) = self.used_element(ring, self.rings[ring].last_used);
                let bytes = self.read(self.buffer(ring, head as u16), len as usize);
                if frame.is_empty() {
                    let header = &bytes[..self.header_bytes()];
                    left = if header.len() == 12 { u16::from_le_bytes([header[10], header[11]]) } else { 1 };
                    assert!(left == 1 || self.features & MRG_RXBUF != 0);
                }
                frame.extend(bytes);
                self.rings[ring].last_used = self.rings[ring].last_used.wrapping_add(1);
                left -= 1;
                let slot = self.rings[ring].offset + 16 * usize::from(head as u16);
                let descriptor = self.read(slot, 16);
                if u16::from_le_bytes([descriptor[12], descriptor[13]]) & NEXT != 0 {
                    self.rings[ring].free.push(u16::from_le_bytes([descriptor[14], descriptor[15]]));
                }
                self.rings[ring].free.push(head as u16);
            }
            let body = frame.split_off(self.header_bytes());
            frames.push((frame[..10].try_into().unwrap(), body));
        }
        frames
    }
}

/// Room for the tables of one ring.
fn tables_bytes(size: u16) -> usize {
    (32 * usize::from(size)).next_multiple_of(TABLES_BYTES)
}

/// All frames of a burst, byte for byte.
pub fn frames_of(burst: &Burst) -> Vec<Vec<u8>> {
    (0..burst.len())
        .map(|index| {
            let mut reader = burst.reader(&TxItem::whole(index as u8, TagEdit::KEEP)).unwrap();
            let mut bytes = vec![0; reader.remaining() as usize];
            // SAFETY: `bytes` is as long as the frame.
            unsafe { reader.read(bytes.as_mut_ptr(), bytes.len() as u32) };
            bytes
        })
        .collect()
}

/// A frame of `len` bytes that differs from others in `seed`.
pub fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}
