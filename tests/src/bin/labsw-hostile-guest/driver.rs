//! A driver that can do it well, and is used by those that do not: set-up, rings of both layouts, echoes.
//!
//! **Layout.** In the unused memory: the receive ring at its start, the transmit ring 64 KiB further, receive buffers
//! at 1 MiB, transmit buffers at 2 MiB, indirect tables at 8 MiB, room for large things from 16 MiB on.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::device::{ACKNOWLEDGE, DRIVER, DRIVER_OK, Device, FEATURES_OK};
use crate::memory::Memory;

pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
/// Flags of a packed descriptor.
pub(crate) const AVAIL: u16 = 1 << 7;
pub(crate) const USED: u16 = 1 << 15;

pub(crate) const F_CSUM: u64 = 1 << 0;
pub(crate) const F_HOST_TSO4: u64 = 1 << 11;
pub(crate) const F_HOST_TSO6: u64 = 1 << 12;
pub(crate) const F_MRG_RXBUF: u64 = 1 << 15;
pub(crate) const F_INDIRECT: u64 = 1 << 28;
pub(crate) const F_EVENT: u64 = 1 << 29;
/// The front end may not have it: QEMU asks for it only where the back end is a TAP device.
pub(crate) const F_HOST_USO: u64 = 1 << 56;
pub(crate) const F_VERSION_1: u64 = 1 << 32;
pub(crate) const F_PACKED: u64 = 1 << 34;
/// What a good driver acknowledges, packed rings aside.
const GOOD: u64 = F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_USO | F_MRG_RXBUF | F_INDIRECT | F_VERSION_1;

/// Entries of a ring.
pub(crate) const SIZE: u16 = 64;
/// Bytes of a receive buffer.
pub(crate) const BUFFER: u32 = 2048;
pub(crate) const NET_HEADER: usize = 12;
/// The neighbour that answers; `tests/tests/hostile_guest.rs` has the same.
const NEIGHBOUR: [u8; 6] = [0x02, 0, 0, 0, 0, 7];
const ECHO: [u8; 2] = [0x88, 0xb5];

/// Where the parts of a ring lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) size: u16,
    pub(crate) table: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    /// The number of the next one in a split ring; if left out, the one behind.
    pub(crate) next: Option<u16>,
}

/// A descriptor.
pub(crate) fn piece(address: u64, len: u32, flags: u16) -> Piece {
    Piece { address, len, flags, next: None }
}

/// Descriptors as one chain.
pub(crate) fn chained(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let last = pieces.len().saturating_sub(1);
    pieces.iter_mut().take(last).for_each(|piece| piece.flags |= NEXT);
    pieces
}

/// One ring as the driver keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    pub(crate) place: Place,
    /// Split: descriptors given away. Packed: the next slot.
    pub(crate) next: u16,
    /// Split: the available index.
    pub(crate) index: u16,
    /// Packed: the wrap counter of `next`.
    pub(crate) wrap: bool,
    /// Split: the used index seen. Packed: the next slot to be used.
    seen: u16,
    seen_wrap: bool,
}

/// The driver.
pub(crate) struct Driver {
    pub(crate) device: Device,
    pub(crate) memory: Memory,
    pub(crate) packed: bool,
    pub(crate) rings: [Ring; 2],
    mac: [u8; 6],
    /// The number in the echo asked for last.
    number: u32,
    /// The generation of the device's configuration when the case began.
    generation: u8,
}

impl Driver {
    pub(crate) fn new(device: Device, memory: Memory, packed: bool) -> Driver {
        let mac = device.mac();
        let places = [RX, TX].map(|ring| usual(&memory, ring));
        Driver { device, memory, packed, rings: places.map(fresh), mac, number: 0, generation: 0 }
    }

    /// What a good driver acknowledges.
    pub(crate) fn good_features(&self) -> u64 {
        GOOD | if self.packed { F_PACKED } else { 0 }
    }

    /// Where the rings usually lie.
    pub(crate) fn usual_places(&self) -> [Place; 2] {
        [RX, TX].map(|ring| usual(&self.memory, ring))
    }

    /// An address so many bytes into the unused memory.
    pub(crate) fn at(&self, offset: u64) -> u64 {
        self.memory.from + offset
    }

    /// A buffer of a ring.
    pub(crate) fn buffer(&self, ring: usize, number: u16) -> u64 {
        self.at(if ring == RX { 1 << 20 } else { 2 << 20 }) + u64::from(BUFFER) * u64::from(number)
    }

    /// Room for an indirect table.
    pub(crate) fn table_room(&self) -> u64 {
        self.at(8 << 20)
    }

    /// Room for large things.
    pub(crate) fn large_room(&self) -> u64 {
        self.at(16 << 20)
    }

    /// Resets the device.
    pub(crate) fn reset(&self) {
        self.device.set_status(0);
        let begin = Instant::now();
        while self.device.status() != 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "the device does not come out of its reset");
        }
    }

    /// Resets the device and acknowledges features; whether they were accepted.
    pub(crate) fn negotiate(&self, features: u64) -> bool {
        self.reset();
        self.device.set_status(ACKNOWLEDGE | DRIVER);
        self.device.acknowledge(features & self.device.offered());
        self.device.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.device.status() & FEATURES_OK != 0
    }

    /// Tells the device where a ring lies, and enables the ring.
    pub(crate) fn enable(&self, ring: usize, place: Place) {
        let queue = u16::try_from(ring).expect("a ring");
        self.device.place_queue(queue, place.size, [place.table, place.available, place.used]);
        self.device.enable_queue(queue, 1);
    }

    /// The driver is ready.
    pub(crate) fn go(&self) {
        self.device.set_status(self.device.status() | DRIVER_OK);
    }

    /// Zeroes the memory of both rings: in either layout nothing is available in them.
    pub(crate) fn clear_rings(&self) {
        self.memory.fill(self.memory.from, 0x2_0000, 0);
    }

    /// Sets everything up, right or wrong: nothing is available in the rings yet.
    pub(crate) fn start(&mut self, features: u64, places: [Place; 2]) {
        self.negotiate(features);
        self.clear_rings();
        self.rings = places.map(fresh);
        (RX..=TX).for_each(|ring| self.enable(ring, places[ring]));
        self.go();
    }

    /// Sets everything up well: nothing is available in the rings yet.
    pub(crate) fn begin(&mut self) {
        self.start(self.good_features(), self.usual_places());
    }

    /// The same, with receive buffers unless `ring` is the receive ring.
    pub(crate) fn begin_for(&mut self, ring: usize) {
        self.begin();
        if ring == TX {
            self.fill();
        }
    }

    /// Posts receive buffers, all but one of the ring's.
    pub(crate) fn fill(&mut self) {
        for number in 0..self.rings[RX].place.size.min(SIZE) - 1 {
            self.post(RX, &[piece(self.buffer(RX, number), BUFFER, WRITE)]);
        }
        self.notify(RX);
    }

    /// Rings a doorbell.
    pub(crate) fn notify(&self, ring: usize) {
        let queue = u16::try_from(ring).expect("a ring");
        self.device.notify(queue, queue);
    }

    /// Writes a descriptor of a table, as `layout` has it; `tail` is the next one's number, or the buffer id.
    pub(crate) fn describe(&self, at: u64, piece: Piece, tail: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&piece.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&piece.len.to_le_bytes());
        let halves = if self.packed { [tail, piece.flags] } else { [piece.flags, tail] };
        bytes[12..14].copy_from_slice(&halves[0].to_le_bytes());
        bytes[14..].copy_from_slice(&halves[1].to_le_bytes());
        self.memory.write(at, &bytes);
    }

    /// Writes an indirect table; gives a descriptor of it.
    pub(crate) fn table(&self, at: u64, pieces: &[Piece]) -> Piece {
        for (number, &entry) in (0u16..).zip(pieces) {
            let next = if self.packed { 0 } else { entry.next.unwrap_or(number + 1) };
            self.describe(at + 16 * u64::from(number), entry, next);
        }
        piece(at, 16 * u32::try_from(pieces.len()).expect("fits"), INDIRECT)
    }

    /// Makes a chain available.
    pub(crate) fn post(&mut self, ring: usize, pieces: &[Piece]) {
        if self.packed { self.post_packed(ring, pieces) } else { self.post_split(ring, pieces) }
    }

    fn post_split(&mut self, ring: usize, pieces: &[Piece]) {
        let Ring { place, next, index, .. } = self.rings[ring];
        for (number, &entry) in (next..).zip(pieces) {
            let slot = u64::from(number % place.size);
            self.describe(place.table + 16 * slot, entry, entry.next.unwrap_or((number + 1) % place.size));
        }
        self.memory.set16(place.available + 4 + 2 * u64::from(index % place.size), next % place.size);
        self.memory.set16(place.available + 2, index.wrapping_add(1));
        self.rings[ring].index = index.wrapping_add(1);
        self.rings[ring].next = (next + u16::try_from(pieces.len()).expect("fits")) % place.size;
    }

    fn post_packed(&mut self, ring: usize, pieces: &[Piece]) {
        let Ring { place, next: head, wrap: head_wrap, .. } = self.rings[ring];
        let (mut slot, mut wrap) = (head, head_wrap);
        let mut first = None;
        for &entry in pieces {
            let lap = if wrap { AVAIL } else { USED };
            let entry = Piece { flags: entry.flags | lap, ..entry };
            let at = place.table + 16 * u64::from(slot);
            // The head comes last.
            if first.is_none() {
                first = Some((at, entry))
            } else {
                self.describe(at, entry, head)
            }
            slot += 1;
            if slot == place.size {
                (slot, wrap) = (0, !wrap);
            }
        }
        if let Some((at, entry)) = first {
            self.describe(at, entry, head);
        }
        (self.rings[ring].next, self.rings[ring].wrap) = (slot, wrap);
    }

    /// A request for an echo behind a virtio-net header of zeros.
    pub(crate) fn request(&mut self) -> Vec<u8> {
        self.number += 1;
        let mut bytes = [&[0; NET_HEADER][..], &NEIGHBOUR, &self.mac, &ECHO, &self.number.to_be_bytes()].concat();
        bytes.resize(NET_HEADER + 60, 0x5a);
        bytes
    }

    /// A frame to the neighbour, without header.
    pub(crate) fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&NEIGHBOUR[..], &self.mac, &ethertype.to_be_bytes(), payload].concat()
    }

    /// Asks for an echo, well.
    pub(crate) fn ask(&mut self) {
        let bytes = self.request();
        let at = self.buffer(TX, 100 + self.rings[TX].next);
        self.memory.write(at, &bytes);
        self.post(TX, &[piece(at, u32::try_from(bytes.len()).expect("fits"), 0)]);
        self.notify(TX);
    }

    /// Has the switch look at a ring: what was posted there, or with a frame for us.
    pub(crate) fn provoke(&mut self, ring: usize) {
        self.notify(ring);
        if ring == RX {
            self.ask();
        }
    }

    /// The buffer that was used next, if one was.
    fn take_used(&mut self) -> Option<u16> {
        let Ring { place, seen, seen_wrap, .. } = self.rings[RX];
        if self.packed {
            let at = place.table + 16 * u64::from(seen);
            let flags = self.memory.get16(at + 14);
            if (flags & AVAIL != 0) != seen_wrap || (flags & USED != 0) != seen_wrap {
                return None;
            }
            let next = seen + 1;
            let round = next == place.size;
            (self.rings[RX].seen, self.rings[RX].seen_wrap) = if round { (0, !seen_wrap) } else { (next, seen_wrap) };
            Some(self.memory.get16(at + 12))
        } else {
            if self.memory.get16(place.used + 2) == seen {
                return None;
            }
            self.rings[RX].seen = seen.wrapping_add(1);
            Some(self.memory.get16(place.used + 4 + 8 * u64::from(seen % place.size)))
        }
    }

    /// Whether the echo asked for last has come.
    pub(crate) fn has_echo(&mut self) -> bool {
        while let Some(id) = self.take_used() {
            if id < SIZE {
                let frame: [u8; 18] = self.memory.read(self.buffer(RX, id) + NET_HEADER as u64);
                if frame[..6] == self.mac && frame[6..12] == NEIGHBOUR && frame[14..] == self.number.to_be_bytes() {
                    return true;
                }
            }
        }
        false
    }

    /// A case begins: the device has its link.
    pub(crate) fn begin_case(&mut self) {
        self.generation = self.device.generation();
    }

    /// Whether the link went down since the case began, were it only for a moment between two looks.
    pub(crate) fn lost_link(&self) -> bool {
        !self.has_link() || self.device.generation() != self.generation
    }

    /// Whether the switch serves the device.
    pub(crate) fn has_link(&self) -> bool {
        self.device.has_link()
    }

    /// Sets the device up well, until an echo comes.
    pub(crate) fn recover(&mut self, patience: Duration) -> bool {
        const ECHO_PATIENCE: Duration = Duration::from_millis(500);
        let begin = Instant::now();
        self.reset();
        while begin.elapsed() < patience {
            if !self.has_link() {
                sleep(Duration::from_millis(2));
                continue;
            }
            self.begin();
            self.fill();
            for _ in 0..3 {
                self.ask();
                let asked = Instant::now();
                while self.has_link() && asked.elapsed() < ECHO_PATIENCE {
                    if self.has_echo() {
                        return true;
                    }
                    std::thread::yield_now();
                }
            }
        }
        false
    }

    /// Leaves the device reset.
    pub(crate) fn leave(&self) {
        self.reset();
    }
}

/// Where a ring usually lies.
fn usual(memory: &Memory, ring: usize) -> Place {
    let start = memory.from + 0x1_0000 * ring as u64;
    Place { size: SIZE, table: start, available: start + 0x4000, used: start + 0x8000 }
}

/// A ring that was never used.
fn fresh(place: Place) -> Ring {
    Ring { place, next: 0, index: 0, wrap: true, seen: 0, seen_wrap: true }
}
