//! The driver's side of a packed ring, for tests: knows Virtio 1.2, 2.8, and nothing of the switch's code.
//!
//! It works on a ring of a [`Guest`]. Buffer `id` is the guest's buffer of that number; ids go out last in, first out,
//! as Linux gives them, so that the same one comes again and again.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::VhostPort;
use labsw_switch::forward::{TagEdit, TxItem};

use super::{BUFFER_BYTES, GUEST_BASE, Guest, INDIRECT, INDIRECT_FLAG, MRG_RXBUF, NEXT, RING_PACKED, VERSION_1, WRITE};

/// Descriptor flag: available.
pub const AVAIL: u16 = 1 << 7;
/// Descriptor flag: used.
pub const USED: u16 = 1 << 15;
/// Event suppression: no notifications.
const DISABLE: u16 = 1;

/// Offset and length of each piece of a chain.
pub type Pieces = Vec<(usize, u32)>;

/// One packed ring, as its driver sees it.
pub struct Driver {
    pub ring: usize,
    pub size: u16,
    pub next_avail: u16,
    pub avail_wrap: bool,
    pub next_used: u16,
    pub used_wrap: bool,
    pub free_slots: u16,
    ids: Vec<u16>,
    /// Chains at the device, oldest first: id, slots, pieces.
    pub chains: VecDeque<(u16, u16, Pieces)>,
}

impl Driver {
    pub fn new(guest: &Guest, ring: usize) -> Driver {
        let size = guest.rings[ring].size;
        Driver {
            ring,
            size,
            next_avail: 0,
            avail_wrap: true,
            next_used: 0,
            used_wrap: true,
            free_slots: size,
            ids: (0..size).rev().collect(),
            chains: VecDeque::new(),
        }
    }

    /// Memory offset of a slot.
    pub fn slot(&self, guest: &Guest, index: u16) -> usize {
        Guest::offset_of(guest.addresses(self.ring).descriptors) + 16 * usize::from(index)
    }

    /// Length, id, flags of a slot.
    pub fn read(&self, guest: &Guest, index: u16) -> (u32, u16, u16) {
        let bytes = guest.read(self.slot(guest, index) + 8, 8);
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        (u32::from_le_bytes(bytes[..4].try_into().unwrap()), half(4), half(6))
    }

    /// Writes a whole slot.
    pub fn write(&self, guest: &Guest, index: u16, address: u64, len: u32, id: u16, flags: u16) {
        let (slot, bytes) = (self.slot(guest, index), Guest::descriptor_bytes(address, len, id, flags));
        guest.write(slot, &bytes[..14]);
        // Behind the rest: another process may be looking.
        guest.index(slot + 14).store(flags, Ordering::Release);
    }

    /// The flags that make a slot available in the driver's lap.
    pub fn available(&self) -> u16 {
        if self.avail_wrap { AVAIL } else { USED }
    }

    fn advance(&mut self) {
        self.next_avail += 1;
        if self.next_avail == self.size {
            (self.next_avail, self.avail_wrap) = (0, !self.avail_wrap);
        }
    }

    /// Makes a chain of `pieces` (lengths) available, in the buffer of its id; false if there is no room.
    /// `fill` is called with the offset of each piece.
    pub fn add(&mut self, guest: &Guest, pieces: &[u32], write: u16, mut fill: impl FnMut(usize, usize)) -> bool {
        let indirect = guest.features & INDIRECT != 0 && pieces.len() > 1;
        let slots = if indirect { 1 } else { pieces.len() as u16 };
        if self.free_slots < slots {
            return false;
        }
        let id = self.ids.pop().unwrap();
        let mut offset = guest.buffer(self.ring, id);
        let (mut places, mut table, mut head) = (Vec::new(), Vec::new(), None);
        for (number, &len) in pieces.iter().enumerate() {
            fill(number, offset);
            places.push((offset, len));
            let address = GUEST_BASE + offset as u64;
            offset += len as usize + 4;
            if indirect {
                // Id and the other flags mean nothing in a table.
                table.extend(Guest::descriptor_bytes(address, len, 0xdead, write | NEXT));
                continue;
            }
            let next = if number + 1 < pieces.len() { NEXT } else { 0 };
            let flags = self.available() | write | next;
            // Only the last descriptor's id counts.
            let shown = if next == 0 { id } else { 0xbeef };
            if number == 0 {
                head = Some((self.next_avail, address, len, shown, flags));
            } else {
                self.write(guest, self.next_avail, address, len, shown, flags);
            }
            self.advance();
        }
        if indirect {
            let place = guest.buffer(self.ring, id) + 2 * BUFFER_BYTES - table.len();
            assert!(offset <= place && place.is_multiple_of(4));
            guest.write(place, &table);
            let flags = self.available() | INDIRECT_FLAG;
            head = Some((self.next_avail, GUEST_BASE + place as u64, table.len() as u32, id, flags));
            self.advance();
        }
        let (index, address, len, shown, flags) = head.unwrap();
        self.write(guest, index, address, len, shown, flags);
        self.free_slots -= slots;
        self.chains.push_back((id, slots, places));
        true
    }

    /// Does a driver's work after adding chains: kicks unless the device asked for none. Returns whether it did. A wish
    /// for a kick at one descriptor counts as one for any, which is a kick too many at worst.
    pub fn kick(&self, guest: &Guest) -> bool {
        fence(Ordering::SeqCst);
        let wanted = guest.used(self.ring, 2).load(Ordering::Acquire) != DISABLE;
        if wanted {
            rustix::io::write(&guest.rings[self.ring].kick, &1u64.to_ne_bytes()).unwrap();
        }
        wanted
    }

    /// Takes the oldest chain back if it is used: its pieces and the length written.
    pub fn take(&mut self, guest: &Guest) -> Option<(Pieces, u32)> {
        let (len, id, flags) = self.read(guest, self.next_used);
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        if avail != used || used != self.used_wrap {
            return None;
        }
        fence(Ordering::Acquire);
        let (expected, slots, pieces) = self.chains.pop_front().unwrap();
        assert_eq!(id, expected, "in order");
        assert_eq!(flags & WRITE != 0, len > 0);
        self.ids.push(id);
        self.free_slots += slots;
        self.next_used += slots;
        if self.next_used >= self.size {
            (self.next_used, self.used_wrap) = (self.next_used - self.size, !self.used_wrap);
        }
        Some((pieces, len))
    }

    /// Sends a frame, header and frame together cut as in [`Guest::transmit`]; false if there is no room.
    pub fn transmit(&mut self, guest: &Guest, frame: &[u8], pieces: &[usize]) -> bool {
        let bytes = [vec![0; guest.header_bytes()], frame.to_vec()].concat();
        let (mut parts, mut rest) = (Vec::new(), bytes.as_slice());
        for &piece in pieces {
            let (part, behind) = rest.split_at(piece.min(rest.len()));
            parts.push(part);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
        let lengths: Vec<u32> = parts.iter().map(|part| part.len() as u32).collect();
        self.add(guest, &lengths, 0, |number, offset| guest.write(offset, parts[number]))
    }

    /// Takes completed transmit chains back and returns how many they were.
    pub fn reap(&mut self, guest: &Guest) -> usize {
        std::iter::from_fn(|| self.take(guest)).inspect(|(_, len)| assert_eq!(*len, 0)).count()
    }

    /// Posts a receive buffer of these pieces; false if there is no room.
    pub fn post(&mut self, guest: &Guest, pieces: &[u32]) -> bool {
        self.add(guest, pieces, WRITE, |_, _| {})
    }

    /// Takes the frames received so far, checking headers and lengths.
    pub fn received(&mut self, guest: &Guest) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(first) = self.take(guest) {
            let mut frame = written(guest, first);
            assert_eq!(frame[..10], [0; 10]);
            let modern = guest.header_bytes() == 12;
            let buffers = if modern { u16::from_le_bytes([frame[10], frame[11]]) } else { 1 };
            assert!(buffers == 1 || guest.features & MRG_RXBUF != 0);
            for _ in 1..buffers {
                // A frame is there as a whole.
                frame.extend(written(guest, self.take(guest).unwrap()));
            }
            frames.push(frame.split_off(guest.header_bytes()));
        }
        frames
    }
}

/// The bytes written into a buffer.
fn written(guest: &Guest, (pieces, mut len): (Pieces, u32)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (offset, piece) in pieces {
        bytes.extend(guest.read(offset, len.min(piece) as usize));
        len -= len.min(piece);
    }
    assert_eq!(len, 0, "no more than the buffer holds");
    bytes
}

/// Features of every guest with packed rings.
pub const PACKED: u64 = VERSION_1 | RING_PACKED;

/// A guest with one pair of packed rings and its drivers: receive, transmit.
pub struct Side {
    pub guest: Guest,
    pub rx: Driver,
    pub tx: Driver,
    pub port: VhostPort,
}

impl Side {
    pub fn new(features: u64, size: u16) -> Side {
        let guest = Guest::new(PACKED | features, size);
        let (rx, tx, port) = (Driver::new(&guest, 0), Driver::new(&guest, 1), guest.port());
        Side { guest, rx, tx, port }
    }

    /// The switch is killed and started again.
    pub fn restart(&mut self) {
        self.port = self.guest.port();
    }
}

/// One turn from the first port to the second; returns the frames that were not sent.
pub fn turn(from: &mut VhostPort, to: &mut VhostPort, stats: &mut PortDelta) -> u64 {
    let mut burst = Burst::new();
    from.receive(0, &mut burst, stats).unwrap();
    let items: Vec<TxItem> = (0..burst.len()).map(|index| TxItem::whole(index as u8, TagEdit::KEEP)).collect();
    let unsent = to.send(&mut burst, &items, stats).unwrap();
    from.release(0, &mut burst).unwrap();
    unsent
}
