//! A device as one would explain it: it works on a copy of the guest's file, one byte string at a time.
//!
//! It reads descriptors where they stand, collects a chain as a list of ranges of the file, and knows nothing of host
//! pointers, segments or windows. Here is the device with a split ring, and what it shares with the one that has a
//! packed ring ([`super::packed_model`]). Reference: Virtio 1.2, 2.7 and 5.1.6.

use std::ops::Range;

use labsw_dataplane::frame::MAX_FRAME_BYTES;
use labsw_dataplane::virtio::Sent;
use labsw_dataplane::virtio::memory::RegionInfo;
use labsw_dataplane::virtio::{
    BURST_BYTES, BURST_DESCRIPTORS, FRAME_DESCRIPTORS, MAX_CHAIN_DESCRIPTORS, RingAddresses,
};
use labsw_switch::DropReason;
use labsw_switch::header::SNAPSHOT_BYTES;

/// The guest's memory: two neighbours in guest addresses, whose files are none, and a second view of part of the first.
/// None of them begins or ends at a page. Apart from
/// them, [`BIG`].
pub const REGIONS: [RegionInfo; 4] = [
    RegionInfo { guest_start: 0x1_0000, bytes: 0x2fc4, user_start: 0x7f00_0000_0000, file_offset: 0x1040 },
    RegionInfo { guest_start: 0x1_2fc4, bytes: 0x1234, user_start: 0x7f00_1000_0000, file_offset: 0x5008 },
    RegionInfo { guest_start: 0x1_0000_0000, bytes: 0x1000, user_start: 0x7f00_1000_1234, file_offset: 0x2000 },
    BIG,
];
/// Where a ring of many entries lies: longer than the longest chain allowed.
pub const BIG: RegionInfo =
    RegionInfo { guest_start: 0x2_0000_0000, bytes: 0x5c04, user_start: 0x7f00_2000_0000, file_offset: 0x8010 };

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The buffers of a chain, as ranges of the file.
pub type Parts = Vec<Range<usize>>;

/// The guest broke its ring.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// A frame lent by the guest: what was looked at when it came, and where the rest stands.
#[derive(Debug)]
pub struct Lent {
    snapshot: Vec<u8>,
    rest: Vec<Range<usize>>,
}

/// What a receive led to.
#[derive(Debug, Default)]
pub struct Received {
    pub frames: Vec<Lent>,
    pub drops: Vec<DropReason>,
    /// Bytes of all frames that could be measured, headers not counted.
    pub bytes: u64,
}

/// The ranges of the guest's file that a device wrote.
#[derive(Default)]
pub struct Written {
    /// Every byte of them has to be marked in a log of pages.
    pub surely: Vec<Range<usize>>,
    /// They may be marked.
    pub perhaps: Vec<Range<usize>>,
}

/// What a device with a ring of any kind can be asked.
pub trait Device {
    /// Its view of the guest's file.
    fn memory(&mut self) -> &mut Vec<u8>;
    /// What was written since the last call.
    fn take_written(&mut self) -> Written;
    /// Takes over from the switch's ring what is its own business, when the file is compared.
    fn adopt(&mut self, seen: &[u8]);
    /// Interrupts since the last call; `None` if there may be any number.
    fn take_interrupts(&mut self) -> Option<u64>;
    /// Goes on where the ring in memory stands, a ring that frames go `to_guest` by or not.
    fn start(&mut self, to_guest: bool);
    /// Where the next start would go on.
    fn base(&self) -> u32;
    /// Takes up to 64 frames, fewer if they are costly. The switch took `taken`: if their bytes are many, it is free to
    /// end where it likes.
    fn receive(&mut self, taken: u64) -> Result<Received, Broken>;
    /// Gives all lent frames back.
    fn release(&mut self);
    /// Writes a frame into the guest's buffers.
    fn send(&mut self, frame: &[u8]) -> Result<Sent, Broken>;
    /// Shows the guest what is completed, and counts the interrupt it may want.
    fn flush(&mut self);
    /// Asks for a kick; whether something is there already.
    fn arm(&mut self) -> bool;
    /// Asks for no kicks.
    fn disarm(&mut self);
}

/// The file's bytes in these ranges.
pub fn gather(memory: &[u8], parts: &[Range<usize>]) -> Vec<u8> {
    parts.iter().flat_map(|part| memory.get(part.clone())).collect::<Vec<_>>().concat()
}

/// The bytes of a lent frame, as they are now.
pub fn bytes(memory: &[u8], frame: &Lent) -> Vec<u8> {
    [frame.snapshot.clone(), gather(memory, &frame.rest)].concat()
}

impl Received {
    /// Takes the chain of these parts for a frame, or says why not.
    pub fn judge(&mut self, memory: &[u8], parts: &[Range<usize>], header_bytes: usize) {
        let (header, frame) = cut(parts, header_bytes);
        let (header, frame_bytes) = (gather(memory, &header), total(&frame));
        if header.len() < header_bytes || frame_bytes > MAX_FRAME_BYTES as usize {
            self.drops.push(DropReason::BadChain);
            return;
        }
        self.bytes += frame_bytes as u64;
        if header[0] & 1 != 0 || header[1] != 0 {
            self.drops.push(DropReason::BadOffload);
            return;
        }
        let (seen, rest) = cut(&frame, SNAPSHOT_BYTES);
        self.frames.push(Lent { snapshot: gather(memory, &seen), rest });
    }
}

/// How long the header of a frame is.
pub fn header_bytes(features: u64) -> usize {
    if features & (1 << 15 | 1 << 32) != 0 { 12 } else { 10 }
}

/// Writes header and frame into these ranges of the file, which are of so many buffers. The ranges written.
pub fn scatter(memory: &mut [u8], parts: &[Range<usize>], features: u64, buffers: usize, frame: &[u8]) -> Parts {
    let mut header = vec![0; 10];
    header.extend(u16::try_from(buffers).expect("few").to_le_bytes());
    header.truncate(header_bytes(features));
    header.extend(frame);
    let mut rest = header.as_slice();
    let mut written = Vec::new();
    for part in parts {
        let (here, behind) = rest.split_at(part.len().min(rest.len()));
        memory[part.start..][..here.len()].copy_from_slice(here);
        written.push(part.start..part.start + here.len());
        rest = behind;
    }
    written
}

/// The device with a split ring, and its view of the guest's file.
pub struct SplitDevice {
    memory: Vec<u8>,
    interrupts: u64,
    table: usize,
    available: usize,
    used: usize,
    size: u16,
    features: u64,
    next_avail: u16,
    avail_seen: u16,
    next_used: u16,
    published: u16,
    considered: Option<u16>,
    lent: Vec<u16>,
    written: Written,
}

/// The file's part behind a range of a region, if all of it is inside; `start_of` is the address space.
pub fn place(start_of: fn(&RegionInfo) -> u64, address: u64, bytes: u64) -> Option<Range<usize>> {
    let inside = |region: &&RegionInfo| {
        let (from, to) = (u128::from(start_of(region)), u128::from(start_of(region)) + u128::from(region.bytes));
        from <= u128::from(address) && u128::from(address) + u128::from(bytes) <= to
    };
    let region = REGIONS.iter().find(inside)?;
    let start = usize::try_from(region.file_offset + address - start_of(region)).expect("a small file");
    Some(start..start + usize::try_from(bytes).expect("a small region"))
}

pub fn guest(address: u64, bytes: u32) -> Result<Range<usize>, Broken> {
    place(|region| region.guest_start, address, bytes.into()).ok_or(Broken)
}

pub fn total(parts: &[Range<usize>]) -> usize {
    parts.iter().map(Range::len).sum()
}

/// The first `bytes` bytes, and what follows.
pub fn cut(parts: &[Range<usize>], mut bytes: usize) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for part in parts {
        let middle = part.start + bytes.min(part.len());
        bytes -= middle - part.start;
        front.push(part.start..middle);
        back.push(middle..part.end);
    }
    (front, back)
}

impl SplitDevice {
    /// A device whose ring is to lie at these addresses; `None` if it cannot.
    pub fn new(memory: Vec<u8>, addresses: RingAddresses, size: u16, features: u64) -> Option<Self> {
        let part = |address, bytes: usize, align: usize| {
            let range = place(|region| region.user_start, address, bytes as u64)?;
            range.start.is_multiple_of(align).then_some(range.start)
        };
        let entries = usize::from(size);
        Some(Self {
            memory,
            interrupts: 0,
            table: part(addresses.descriptors, 16 * entries, 16)?,
            available: part(addresses.available, 6 + 2 * entries, 2)?,
            used: part(addresses.used, 6 + 8 * entries, 4)?,
            size,
            features,
            next_avail: 0,
            avail_seen: 0,
            next_used: 0,
            published: 0,
            considered: None,
            lent: Vec::new(),
            written: Written::default(),
        })
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.memory[at], self.memory[at + 1]])
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.written.surely.push(at..at + bytes.len());
    }

    /// How many entries are available; looks only if it does not know of enough.
    fn count(&mut self, wanted: u16) -> Result<u16, Broken> {
        if self.avail_seen.wrapping_sub(self.next_avail) < wanted {
            let index = self.u16(self.available + 2);
            if index.wrapping_sub(self.next_avail) > self.size {
                return Err(Broken);
            }
            self.avail_seen = index;
        }
        Ok(self.avail_seen.wrapping_sub(self.next_avail))
    }

    fn head(&self, ahead: u16) -> Result<u16, Broken> {
        let slot = self.next_avail.wrapping_add(ahead) % self.size;
        let head = self.u16(self.available + 4 + 2 * usize::from(slot));
        if head < self.size { Ok(head) } else { Err(Broken) }
    }

    /// The parts of a chain, up to the one with the `until`-th byte; `None` if one goes the wrong way. And how many
    /// descriptors were read.
    fn chain(&self, head: u16, to_guest: bool, until: usize) -> Result<(Option<Parts>, u64), Broken> {
        let (mut table, mut entries, mut inside) = (self.table, u32::from(self.size), false);
        let (mut index, mut steps, mut bytes, mut parts) = (head, 0, 0, Vec::new());
        let mut read = 0;
        loop {
            if u32::from(index) >= entries || steps == entries || read == u64::from(MAX_CHAIN_DESCRIPTORS) {
                return Err(Broken);
            }
            steps += 1;
            read += 1;
            let at = table + 16 * usize::from(index);
            let address = u64::from_le_bytes(self.memory[at..at + 8].try_into().expect("eight"));
            let len = u32::from_le_bytes(self.memory[at + 8..at + 12].try_into().expect("four"));
            let (flags, next) = (self.u16(at + 12), self.u16(at + 14));
            if flags & INDIRECT != 0 {
                let impossible = len == 0 || len % 16 != 0 || len > 16 * 1024;
                if inside || !self.has(1 << 28) || flags & NEXT != 0 || impossible {
                    return Err(Broken);
                }
                (table, entries, inside) = (guest(address, len)?.start, len / 16, true);
                (index, steps) = (0, 0);
                continue;
            }
            if (flags & WRITE != 0) != to_guest {
                return Ok((None, read));
            }
            if len > 0 {
                parts.push(guest(address, len)?);
            }
            bytes += len as usize;
            if bytes >= until || flags & NEXT == 0 {
                return Ok((Some(parts), read));
            }
            index = next;
        }
    }

    fn complete(&mut self, head: u16, bytes: u32) {
        let slot = usize::from(self.next_used % self.size);
        let element = [u32::from(head), bytes].map(u32::to_le_bytes).concat();
        self.write(self.used + 4 + 8 * slot, &element);
        self.next_used = self.next_used.wrapping_add(1);
    }
}

impl Device for SplitDevice {
    fn memory(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    fn adopt(&mut self, _seen: &[u8]) {}

    fn take_interrupts(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.interrupts))
    }

    fn start(&mut self, _to_guest: bool) {
        let index = self.u16(self.used + 2);
        (self.next_avail, self.avail_seen, self.next_used, self.published) = (index, index, index, index);
        self.considered = None;
        self.lent.clear();
        self.disarm();
    }

    fn base(&self) -> u32 {
        self.next_avail.into()
    }

    fn receive(&mut self, taken: u64) -> Result<Received, Broken> {
        let mut received = Received::default();
        let count = self.count(64)?.min(64);
        (0..count).try_for_each(|ahead| self.head(ahead).map(|_| ()))?;
        let (mut further, mut bytes) = (0, 0);
        for number in 0..count {
            if u64::from(number) == taken {
                assert!(bytes as u64 >= BURST_BYTES, "a burst ended after {number} chains of {bytes} bytes");
                break;
            }
            let head = self.head(0)?;
            self.next_avail = self.next_avail.wrapping_add(1);
            self.lent.push(head);
            let header_bytes = header_bytes(self.features);
            let most = MAX_FRAME_BYTES as usize + header_bytes;
            let (parts, read) = self.chain(head, false, most + 1)?;
            let parts = parts.unwrap_or_default();
            received.judge(&self.memory, &parts, header_bytes);
            bytes += total(&parts);
            further += read - 1;
            if further >= BURST_DESCRIPTORS {
                break;
            }
        }
        if received.frames.is_empty() {
            self.release();
        }
        Ok(received)
    }

    fn release(&mut self) {
        for head in std::mem::take(&mut self.lent) {
            self.complete(head, 0);
        }
        self.flush();
    }

    fn send(&mut self, frame: &[u8]) -> Result<Sent, Broken> {
        let needed = header_bytes(self.features) + frame.len();
        let (mut parts, mut chains, mut gathered, mut reads) = (Vec::new(), Vec::new(), 0, 0);
        while gathered < needed {
            if reads >= FRAME_DESCRIPTORS {
                return Ok(Sent::BufferTooSmall);
            }
            let count = u16::try_from(chains.len()).expect("at most the ring's size");
            if self.count(count + 1)? <= count {
                return Ok(if count == self.size { Sent::BufferTooSmall } else { Sent::RingFull });
            }
            let head = self.head(count)?;
            let (chain, read) = self.chain(head, true, needed - gathered)?;
            reads += read;
            let chain = chain.ok_or(Broken)?;
            let bytes = total(&chain).min(needed - gathered);
            if bytes < header_bytes(self.features).min(needed - gathered) {
                return Err(Broken);
            }
            parts.extend(chain);
            chains.push((head, bytes));
            gathered += bytes;
            if gathered < needed && !self.has(1 << 15) {
                return Ok(Sent::BufferTooSmall);
            }
        }
        let written = scatter(&mut self.memory, &parts, self.features, chains.len(), frame);
        self.written.surely.extend(written);
        for (head, bytes) in chains {
            self.next_avail = self.next_avail.wrapping_add(1);
            self.complete(head, u32::try_from(bytes).expect("a frame"));
        }
        Ok(Sent::Done)
    }

    fn flush(&mut self) {
        if self.next_used == self.published {
            return;
        }
        self.write(self.used + 2, &self.next_used.to_le_bytes());
        self.published = self.next_used;
        let wanted = if self.has(1 << 29) {
            let event = self.u16(self.available + 4 + 2 * usize::from(self.size));
            // Between the index before and the one now, counted on the circle of 2^16.
            let since = |index: u16| self.published.wrapping_sub(index);
            let passed = self.considered.is_none_or(|old| since(event).wrapping_sub(1) < since(old));
            self.considered = Some(self.published);
            passed
        } else {
            self.u16(self.available) & 1 == 0
        };
        self.interrupts += u64::from(wanted);
    }

    fn arm(&mut self) -> bool {
        if self.has(1 << 29) {
            self.write(self.used + 4 + 8 * usize::from(self.size), &self.next_avail.to_le_bytes());
        } else {
            self.write(self.used, &[0, 0]);
        }
        self.u16(self.available + 2) != self.next_avail
    }

    fn disarm(&mut self) {
        if !self.has(1 << 29) {
            self.write(self.used, &[1, 0]);
        }
    }
}
