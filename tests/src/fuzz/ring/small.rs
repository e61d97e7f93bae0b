//! Small rings, all of them: every descriptor that an alphabet can spell, at every place of rings of 1 to 4 entries,
//! split and packed, frames going either way; against the same models as in the fuzz targets.
//!
//! A descriptor is spelled by its flags, its next (split) or its lap (packed), its length and where its buffer lies:
//! right, over the end of a region, or nowhere. Lengths are none, less than a header, a whole frame (and two entries of
//! a table), and too many. The right buffer holds such a table, so that the same bytes are tried as data and as an
//! indirect table. Larger rings have smaller alphabets. After each situation both sides start over, which for a packed
//! ring finds out where it stood.
//!
//! **Work.** Descriptors read and bytes of frames have bounds here that follow from the number of entries, far below
//! those of a burst.

use labsw_dataplane::virtio::{RingAddresses, RingLayout};

use super::packed_model::{PackedDevice, Position};
use super::*;

const USER: u64 = REGIONS[0].user_start;
/// Offsets in the first region; the split ring's are those of the fuzz target.
const DRIVER_EVENT: u64 = 0x500;
const DEVICE_EVENT: u64 = 0x600;
/// A frame of 20 bytes with its header, and a table of two entries.
const BUFFER: u32 = 32;
/// Entries of the table in the right buffer.
const TABLE_ENTRIES: u64 = 2;
const MERGEABLE: u64 = 1 << 15 | 1 << 28 | 1 << 32;
const PLAIN: u64 = 1 << 32;
const IN_NO_REGION: u64 = 0x9_0000_0000;
/// Two frames to the guest, as [`Pair::send`] takes them: of 20 bytes and of 52, one buffer and two.
const FRAMES: [u8; 7] = [1, 7, 0x40, 1, 9, 0x40, 3];

/// Does something with the guest of this thread.
fn with(play: impl FnOnce(&Guest)) {
    Guest::with(|guest| {
        play(guest);
        0
    });
}

/// A length and an address.
type Part = (u32, u64);

fn right() -> u64 {
    REGIONS[0].guest_start + BUFFERS
}

/// Every length at every place; an empty buffer lies nowhere.
fn parts() -> Vec<Part> {
    let end = REGIONS[0].guest_start + REGIONS[0].bytes;
    let places = [right(), end - 8, IN_NO_REGION];
    let parts = places.into_iter().flat_map(|place| [11, BUFFER, u32::MAX].map(|len| (len, place)));
    parts.chain([(0, IN_NO_REGION)]).collect()
}

/// Every word of `letters` with so many of them.
fn words<T: Copy>(letters: &[T], length: u16, mut each: impl FnMut(&[T])) {
    let mut word = vec![letters[0]; length.into()];
    let count = letters.len().pow(length.into());
    for number in 0..count {
        let mut rest = number;
        for letter in &mut word {
            *letter = letters[rest % letters.len()];
            rest /= letters.len();
        }
        each(&word);
    }
}

/// A guest's memory that is put back after each situation.
struct Slate {
    blank: Vec<u8>,
}

impl Slate {
    fn new(guest: &Guest, to_guest: bool) -> Slate {
        let mut blank = guest.blank();
        let at = usize::try_from(user_offset(USER + BUFFERS)).expect("small");
        // Two parts of the same buffer, as a split table links them; a packed one is read in order.
        let table = [descriptor_bytes(right(), 16, u16::from(to_guest) << 1 | 1, 1), {
            descriptor_bytes(right() + 16, 16, u16::from(to_guest) << 1, 0)
        }];
        blank[at..at + 32].copy_from_slice(&table.concat());
        Slate { blank }
    }

    /// The memory with these bytes in the first region.
    fn with(&self, guest: &Guest, written: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut memory = self.blank.clone();
        for (offset, bytes) in written {
            let at = usize::try_from(user_offset(USER + offset)).expect("small");
            memory[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let (from, to) = (user_offset(USER), user_offset(USER + BUFFERS) + 0x100);
        let part = usize::try_from(from).expect("small")..usize::try_from(to).expect("small");
        guest.file.write_all_at(&memory[part], from).expect("a memfd takes it");
        memory
    }
}

/// Lets the device work on what is available, and holds what that cost against the size of the ring.
fn work<D: Device>(pair: &mut Pair<'_, D>, size: u16) {
    let (reads, compared) = (pair.reads, pair.compared);
    if pair.to_guest {
        pair.send(&mut Feed::new(&FRAMES));
    } else {
        pair.receive(&mut Feed::new(&[]), false);
    }
    pair.compare();
    let (chains, longest) = (u64::from(size), u64::from(size) + TABLE_ENTRIES);
    let frames = if pair.to_guest { 2 } else { 1 };
    let reads = pair.reads - reads;
    assert!(reads <= frames * chains * longest, "{reads} descriptors read of a ring of {size}");
    let bytes = (pair.compared - compared) as u64;
    assert!(bytes <= chains * longest * u64::from(BUFFER), "{bytes} bytes of a ring of {size}");
}

/// One situation of a split ring: its table, and the heads that are made available, twice.
fn split(guest: &Guest, slate: &Slate, features: u64, to_guest: bool, table: &[[u8; 16]], heads: &[u16]) {
    let size = u16::try_from(table.len()).expect("small");
    let addresses = RingAddresses { descriptors: USER + TABLE, available: USER + AVAILABLE, used: USER + USED };
    // The index wraps.
    let start = u16::MAX;
    let words = |words: &[u16]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut ring = vec![0; usize::from(size) + 2];
    ring[1] = start;
    for (number, &head) in (0..).zip(heads) {
        ring[2 + usize::from(start.wrapping_add(number) % size)] = head;
    }
    let written = [(TABLE, table.concat()), (AVAILABLE, words(&ring)), (USED, words(&[0, start]))];
    let memory = slate.with(guest, &written);
    let layout = RingLayout::resolve(Arc::clone(&guest.memory), size.into(), addresses).expect("in the region");
    let device = SplitDevice::new(memory, addresses, size, features).expect("in the region");
    let mut pair = Pair::start(guest, layout, features, device, to_guest, None);
    let mut index = start;
    for _ in 0..2 {
        index = index.wrapping_add(u16::try_from(heads.len()).expect("small"));
        pair.poke(user_offset(addresses.available) + 2, &index.to_le_bytes());
        work(&mut pair, size);
    }
    pair.restart();
    pair.compare();
}

/// One situation of a packed ring: slots that are written when it stands at a place.
fn packed(guest: &Guest, slate: &Slate, features: u64, to_guest: bool, slots: &[Vec<u8>], at: Position) {
    let size = u16::try_from(slots.len()).expect("small");
    let [descriptors, available, used] = [TABLE, DRIVER_EVENT, DEVICE_EVENT].map(|offset| USER + offset);
    let addresses = RingAddresses { descriptors, available, used };
    let done = |index: u16| if (index < at.index) == at.wrap { 0x8080u16 } else { 0 };
    let before = (0..size).flat_map(|index| [&[0; 14][..], &done(index).to_le_bytes()].concat()).collect();
    let memory = slate.with(guest, &[(TABLE, before), (DEVICE_EVENT, at.word().to_le_bytes().to_vec())]);
    let features = features | 1 << 34;
    let layout = RingLayout::resolve_packed(Arc::clone(&guest.memory), size.into(), addresses).expect("in the region");
    let device = PackedDevice::new(memory, addresses, size, features).expect("in the region");
    let mut pair = Pair::start(guest, layout, features, device, to_guest, None);
    pair.poke(user_offset(addresses.descriptors), &slots.concat());
    work(&mut pair, size);
    work(&mut pair, size);
    pair.restart();
    pair.compare();
}

/// Descriptors of a split ring: every flag, with every next where that is used.
fn split_letters(size: u16, parts: &[Part]) -> Vec<[u8; 16]> {
    let mut kinds = vec![(0, 0), (2, 0), (4, 0), (5, 0)];
    kinds.extend((0..=size).flat_map(|next| [(1, next), (3, next)]));
    let spell = |(flags, next)| parts.iter().map(move |&(len, address)| descriptor_bytes(address, len, flags, next));
    kinds.into_iter().flat_map(spell).collect()
}

/// Slots of a packed ring, with these bits of laps.
fn packed_letters(laps: &[u16], kinds: &[u16], parts: &[Part]) -> Vec<Vec<u8>> {
    let mut letters = Vec::new();
    for (lap, kind) in laps.iter().flat_map(|lap| kinds.iter().map(move |kind| (lap, kind))) {
        for (len, address) in parts {
            let words = [5u16.to_le_bytes(), (lap | kind).to_le_bytes()].concat();
            letters.push([&address.to_le_bytes()[..], &len.to_le_bytes(), &words].concat());
        }
    }
    letters
}

#[test]
fn split_rings_of_one_and_two_entries() {
    with(|guest| {
        for (to_guest, features) in [(false, MERGEABLE), (false, PLAIN), (true, MERGEABLE), (true, PLAIN)] {
            let slate = Slate::new(guest, to_guest);
            words(&split_letters(1, &parts()), 1, |table| {
                [0, 1].iter().for_each(|&head| split(guest, &slate, features, to_guest, table, &[head]));
            });
            let heads: &[&[u16]] = if features == PLAIN { &[&[0]] } else { &[&[0, 1], &[1, 1]] };
            words(&split_letters(2, &parts()), 2, |table| {
                heads.iter().for_each(|heads| split(guest, &slate, features, to_guest, table, heads));
            });
        }
    });
}

#[test]
fn split_rings_of_four_entries() {
    with(|guest| {
        for to_guest in [false, true] {
            let slate = Slate::new(guest, to_guest);
            let letters = split_letters(4, &[(BUFFER, right())]);
            words(&letters, 4, |table| split(guest, &slate, MERGEABLE, to_guest, table, &[0, 1]));
        }
    });
}

/// The lap bits of a slot that is available, done, or neither, in either lap.
const LAPS: [u16; 4] = [0x0080, 0x8000, 0x8080, 0];

#[test]
fn packed_rings_of_two_entries() {
    with(|guest| {
        for (to_guest, features) in [(false, MERGEABLE), (false, PLAIN), (true, MERGEABLE), (true, PLAIN)] {
            let slate = Slate::new(guest, to_guest);
            let parts = [(BUFFER, right()), (0, right()), (11, right()), (BUFFER, IN_NO_REGION)];
            let letters = packed_letters(&LAPS, &[0, 1, 2, 3, 4, 5], &parts);
            let letters: Vec<&Vec<u8>> = letters.iter().collect();
            for at in [Position { index: 0, wrap: true }, Position { index: 1, wrap: false }] {
                words(&letters, 2, |slots| {
                    let slots: Vec<Vec<u8>> = slots.iter().map(|slot| slot.to_vec()).collect();
                    packed(guest, &slate, features, to_guest, &slots, at);
                });
            }
        }
    });
}

#[test]
fn packed_rings_of_three_and_four_entries() {
    with(|guest| {
        for to_guest in [false, true] {
            let slate = Slate::new(guest, to_guest);
            let some = [(BUFFER, right()), (0, right())];
            let sizes = [(3, &[0, 1, 2, 3, 4, 5][..], &some[..]), (4, &[0, 1, 2, 3, 4], &some[..1])];
            for (size, kinds, parts) in sizes {
                let letters = packed_letters(&LAPS[..2], kinds, parts);
                let letters: Vec<&Vec<u8>> = letters.iter().collect();
                for at in [Position { index: 0, wrap: true }, Position { index: 1, wrap: false }] {
                    words(&letters, size, |slots| {
                        let slots: Vec<Vec<u8>> = slots.iter().map(|slot| slot.to_vec()).collect();
                        packed(guest, &slate, MERGEABLE, to_guest, &slots, at);
                    });
                }
            }
        }
    });
}
