//! The walk over a packed ring in both directions; as [`super::ring`] does it for split rings.
//!
//! A ring begins anywhere in either lap. A well-behaved driver offers chains where it stands; a hostile one writes
//! slots, flags, event areas and anything else. As long as all were well-behaved, a restarted ring goes on where
//! it stood.

use std::sync::Arc;

use labsw_dataplane::virtio::{RingAddresses, RingLayout};

use super::model::{BIG, Device, REGIONS};
use super::packed_model::{PackedDevice, Position};
use super::{
    BIG_AVAILABLE, BIG_SIZE, BIG_TABLE, BIG_USED, BUFFER_BYTES, BUFFERS, COMPARED_BYTES, FEATURES, Guest, INDIRECT,
    Pair, STEPS, TABLE, user_offset,
};
use crate::fuzz::feed::Feed;

/// Offsets in the first region: the driver's and the device's event suppression.
const DRIVER_EVENT: u64 = 0x500;
const DEVICE_EVENT: u64 = 0x600;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Lays out a packed ring, then lets guest and switch work on it.
///
/// # Panics
/// When the ring does other than the model.
pub fn packed(data: &[u8]) {
    packed_operations(data);
}

/// As [`packed`]; how many operations the bytes were. The highest bit of the second byte has the ring log its pages.
pub fn packed_operations(data: &[u8]) -> u64 {
    Guest::with(|guest| play(guest, &mut Feed::new(data)))
}

/// The driver's side.
struct Driver {
    /// Offsets in the file.
    slots: u64,
    event: u64,
    size: u16,
    /// The next slot to make available.
    at: Position,
    /// Whether nobody did what a driver must not.
    behaves: bool,
}

fn play(guest: &Guest, feed: &mut Feed<'_>) -> u64 {
    let chosen = feed.u8();
    let chosen_features = FEATURES.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1);
    let features = chosen_features.map(|(_, feature)| feature).sum::<u64>() | 1 << 34;
    let size = [64, 1, 2, 3, 5, 8, BIG_SIZE, 33][usize::from(chosen >> 4 & 7)];
    let flags = feed.u8();
    let user = REGIONS[0].user_start;
    let [descriptors, available, used] = [TABLE, DRIVER_EVENT, DEVICE_EVENT].map(|offset| user + offset);
    let mut addresses = RingAddresses { descriptors, available, used };
    if size == BIG_SIZE {
        let user = BIG.user_start;
        addresses = RingAddresses { descriptors: user, available: user + BIG_AVAILABLE, used: user + BIG_USED };
    } else if chosen >> 7 == 1 {
        for address in [&mut addresses.descriptors, &mut addresses.available, &mut addresses.used] {
            *address = feed.choose(&REGIONS[..3]).user_start + u64::from(feed.u16());
        }
    }
    let layout = RingLayout::resolve_packed(Arc::clone(&guest.memory), size.into(), addresses);
    let device = PackedDevice::new(guest.blank(), addresses, size, features);
    assert_eq!(layout.is_ok(), device.is_some(), "{layout:?}");
    let (Ok(layout), Some(mut device)) = (layout, device) else { return 0 };
    if device.overlaps() {
        return 0;
    }
    let at = Position { index: if flags & 2 == 0 { 0 } else { u16::from(flags >> 3) % size }, wrap: flags & 4 == 0 };
    let [slots, event, note] = [addresses.descriptors, addresses.available, addresses.used].map(user_offset);
    if flags & 2 != 0 {
        // As another lap left it: all before the place are done in this one, all others in the one before.
        for index in 0..size {
            let done = (index < at.index) == at.wrap;
            let word = if done { AVAIL | USED } else { 0 };
            guest.poke(&mut device, slots + 16 * u64::from(index) + 14, &word.to_le_bytes());
        }
        guest.poke(&mut device, note, &at.word().to_le_bytes());
    }
    // A ring may lie among its own buffers.
    let mut driver = Driver { slots, event, size, at, behaves: chosen >> 7 == 0 };
    let log = if flags >> 7 == 1 { guest.log.of_ring(&guest.memory, addresses.used) } else { None };
    let mut pair = Pair::start(guest, layout, features, device, flags & 1 == 1, log);
    driver.follow(&pair);
    let mut steps = 0;
    while steps < STEPS && !feed.is_empty() && pair.compared <= COMPARED_BYTES {
        steps += 1;
        driver.step(&mut pair, feed);
        pair.compare();
        pair.check_log();
    }
    pair.check_clean();
    steps
}

impl Driver {
    /// Goes on where the device stands.
    fn follow(&mut self, pair: &Pair<'_, PackedDevice>) {
        let base = pair.ring.base();
        assert_eq!(base >> 16, base & 0xffff);
        self.at = Position { index: u16::try_from(base & 0x7fff).expect("15 bits"), wrap: base >> 31 == 1 };
    }

    fn step(&mut self, pair: &mut Pair<'_, PackedDevice>, feed: &mut Feed<'_>) {
        let starts = pair.starts;
        let choice = feed.u8();
        match choice % 16 {
            0 | 1 => {
                self.behaves = false;
                let place = feed.u8();
                let first = if place < 128 { self.slots } else { user_offset(REGIONS[0].user_start + INDIRECT) };
                let mut bytes = super::descriptor(feed, pair.to_guest);
                let [low, high] = [feed.u8(), feed.u8()];
                // Id, then flags, with the bits of one lap or the other, or of none.
                let flags = bytes[12] & 0x7f | low & 0x80;
                (bytes[12], bytes[13], bytes[14], bytes[15]) = (bytes[14], bytes[15], flags, high & 0x80);
                let size = if place < 128 { self.size } else { 64 };
                pair.poke(first + 16 * (u64::from(place) % u64::from(size)), &bytes);
            }
            2 => {
                self.behaves = false;
                let [place, low, high] = [feed.u8(), feed.u8(), feed.u8()];
                let at = self.slots + 16 * (u64::from(place) % u64::from(self.size));
                pair.poke(at + 14, &[low & 0x87, high & 0x80]);
            }
            3 => {
                // When to be interrupted: as the flags say, or at a place not far from here.
                let flags = [0, 1, 2, 2, 2, 2, 3, feed.u16()][usize::from(choice >> 4 & 7)];
                let place = feed.u8();
                let far = if place >= 250 { feed.u16() } else { u16::from(place) % self.size };
                let word = far | u16::from(choice >> 7) << 15;
                pair.poke(self.event, &[word.to_le_bytes(), flags.to_le_bytes()].concat());
            }
            4 if self.size == BIG_SIZE => {
                self.behaves = false;
                self.offer_long(pair, feed);
            }
            4 => {
                self.behaves = false;
                pair.poke_anything(feed);
            }
            5..10 => self.offer(pair, feed),
            10 => pair.arm(),
            11 => {
                let base = pair.ring.base();
                pair.restart();
                assert!(!self.behaves || pair.ring.base() == base, "goes on at {:#x}, not {base:#x}", pair.ring.base());
            }
            _ if pair.to_guest => pair.send(feed),
            _ => {
                self.behaves &= feed.flag();
                pair.receive(feed, !self.behaves);
            }
        }
        if pair.starts != starts {
            assert!(!self.behaves || choice % 16 == 11, "a well-behaved driver broke its ring");
            self.follow(pair);
        }
    }

    /// Makes slots available from where the driver stands, as one long chain, or many that share an indirect table.
    fn offer_long(&mut self, pair: &mut Pair<'_, PackedDevice>, feed: &mut Feed<'_>) {
        let (shape, last) = (feed.u8(), feed.u16() % BIG_SIZE);
        let write = u16::from(pair.to_guest) << 1;
        if shape & 1 == 0 {
            let at = self.at;
            let first = self.slots;
            let count = pair.write_long(feed, first, |address, len, number| {
                let mut here = at;
                (0..(number + BIG_SIZE - at.index) % BIG_SIZE).for_each(|_| here = here.next(BIG_SIZE));
                let flags = write | u16::from(number != last) | lap(here.wrap);
                slot(address, len, number, flags).try_into().expect("16 bytes")
            });
            (0..count).for_each(|_| self.at = self.at.next(BIG_SIZE));
            return;
        }
        let table = user_offset(BIG.user_start) + BIG_TABLE;
        let entries = pair.write_long(feed, table, |address, len, number| {
            slot(address, len, number, write).try_into().expect("16 bytes")
        });
        for _ in 0..=last % 64 {
            let bytes = slot(BIG.guest_start + BIG_TABLE, u32::from(entries) * 16, 1, 4 | lap(self.at.wrap));
            pair.poke(self.slots + 16 * u64::from(self.at.index), &bytes);
            self.at = self.at.next(BIG_SIZE);
        }
    }

    /// Makes a chain of up to four slots available, if there is room; one table in one slot, or slots, or both.
    fn offer(&mut self, pair: &mut Pair<'_, PackedDevice>, feed: &mut Feed<'_>) {
        let shape = feed.u8();
        let indirect = shape & 4 != 0 && pair.setup.features & 1 << 28 != 0;
        let parts = u16::from(shape & 3) + 1;
        let slots = if indirect { 1 } else { parts };
        let mut places = vec![self.at];
        for _ in 1..slots {
            places.push(places[places.len() - 1].next(self.size));
        }
        // A slot is the driver's if it was done in the lap before.
        let memory = pair.device.memory();
        let is_free = |at: &Position| {
            let flags = usize::try_from(self.slots).expect("small") + 16 * usize::from(at.index) + 14;
            (memory[flags + 1] & 0x80 != 0) != at.wrap && (memory[flags] & 0x80 != 0) != at.wrap
        };
        if usize::from(slots) > usize::from(self.size) || !places.iter().all(is_free) {
            return;
        }
        let id = u16::from(feed.u8());
        let write = u16::from(pair.to_guest) << 1;
        let table = INDIRECT + 64 * u64::from(self.at.index % 32);
        let mut bytes_of_all = 0;
        for (number, at) in (0..parts).zip(places.iter().cycle()) {
            let address = REGIONS[0].guest_start + BUFFERS + u64::from(feed.u8() % 48) * BUFFER_BYTES;
            let len = u32::from(feed.u8()) << (shape >> 5 & 3);
            let more = u16::from(number + 1 < parts);
            bytes_of_all += len;
            if indirect {
                let place = user_offset(REGIONS[0].user_start + table) + 16 * u64::from(number);
                pair.poke(place, &slot(address, len, id, write));
            } else {
                let flags = write | more | lap(at.wrap);
                pair.poke(self.slots + 16 * u64::from(at.index), &slot(address, len, id, flags));
            }
        }
        // A receive buffer holds at least the header.
        self.behaves &= !pair.to_guest || bytes_of_all >= 12;
        if indirect {
            let bytes = slot(REGIONS[0].guest_start + table, u32::from(parts) * 16, id, 4 | lap(self.at.wrap));
            pair.poke(self.slots + 16 * u64::from(self.at.index), &bytes);
        }
        self.at = places[places.len() - 1].next(self.size);
    }
}

/// The bits of a slot that is made available.
fn lap(wrap: bool) -> u16 {
    if wrap { AVAIL } else { USED }
}

/// The bytes of a slot.
fn slot(address: u64, len: u32, id: u16, flags: u16) -> Vec<u8> {
    [&address.to_le_bytes()[..], &len.to_le_bytes(), &id.to_le_bytes(), &flags.to_le_bytes()].concat()
}
