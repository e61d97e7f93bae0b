//! The device with a packed ring, as one would explain it; see [`super::model`].
//!
//! Where it goes on when it starts is the switch's own rule, not the standard's: behind the slots that are done,
//! counted from a place noted in the device's event area; a frame whose last buffers are done gets its first ones done,
//! too. When the note is written is the ring's own business: the model adopts what it finds there, and its own rule
//! then says whether that note leads to the right place. Reference: Virtio 1.2, 2.8.

use std::ops::Range;

use labsw_dataplane::frame::MAX_FRAME_BYTES;
use labsw_dataplane::virtio::Sent;
use labsw_dataplane::virtio::{
    BURST_BYTES, BURST_DESCRIPTORS, FRAME_DESCRIPTORS, MAX_CHAIN_DESCRIPTORS, RingAddresses,
};

use super::model::{Broken, Device, Received, Written, guest, header_bytes, place, scatter, total};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Offsets in a descriptor.
const LEN: usize = 8;
const ID: usize = 12;
const FLAGS: usize = 14;

/// A slot in a lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub index: u16,
    pub wrap: bool,
}

impl Position {
    /// From 16 bits, wherever the standard has them.
    fn of(word: u16) -> Self {
        Self { index: word & 0x7fff, wrap: word >> 15 == 1 }
    }

    pub fn next(self, size: u16) -> Self {
        if self.index + 1 == size {
            Self { index: 0, wrap: !self.wrap }
        } else {
            Self { index: self.index + 1, ..self }
        }
    }

    pub fn word(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }
}

/// A chain in the ring: its slots, its id, and the buffers, or `None` if one goes the wrong way.
#[derive(Clone)]
struct Chain {
    slots: Vec<Position>,
    id: u16,
    parts: Option<Vec<Range<usize>>>,
    /// How many descriptors were read.
    read: u64,
}

/// The device with a packed ring, and its view of the guest's file.
pub struct PackedDevice {
    memory: Vec<u8>,
    interrupts: Option<u64>,
    ring: usize,
    driver_event: usize,
    device_event: usize,
    size: u16,
    features: u64,
    next_avail: Position,
    next_used: Position,
    /// The slots completed since the guest was last thought of.
    completed: Vec<Position>,
    considered: bool,
    lent: Vec<Chain>,
    written: Written,
}

impl PackedDevice {
    /// A device whose ring is to lie at these addresses; `None` if it cannot.
    pub fn new(memory: Vec<u8>, addresses: RingAddresses, size: u16, features: u64) -> Option<Self> {
        let part = |address, bytes: usize, align: usize| {
            let range = place(|region| region.user_start, address, bytes as u64)?;
            range.start.is_multiple_of(align).then_some(range.start)
        };
        let start = Position { index: 0, wrap: true };
        Some(Self {
            memory,
            interrupts: Some(0),
            ring: part(addresses.descriptors, 16 * usize::from(size), 16)?,
            driver_event: part(addresses.available, 4, 4)?,
            device_event: part(addresses.used, 4, 4)?,
            size,
            features,
            next_avail: start,
            next_used: start,
            completed: Vec::new(),
            considered: false,
            lent: Vec::new(),
            written: Written::default(),
        })
    }

    /// Whether two parts of the ring share bytes: then it matters in which order they are written, which is not
    /// modelled.
    pub fn overlaps(&self) -> bool {
        let slots = self.ring..self.ring + 16 * usize::from(self.size);
        let events = [self.driver_event, self.device_event].map(|at| at..at + 4);
        let disjoint = |a: &Range<usize>, b: &Range<usize>| a.end <= b.start || b.end <= a.start;
        !(disjoint(&slots, &events[0]) && disjoint(&slots, &events[1]) && disjoint(&events[0], &events[1]))
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

    fn slot(&self, at: Position) -> usize {
        self.ring + 16 * usize::from(at.index)
    }

    fn is_available(&self, at: Position) -> bool {
        let flags = self.u16(self.slot(at) + FLAGS);
        (flags & AVAIL != 0) == at.wrap && (flags & USED != 0) != at.wrap
    }

    fn is_done(&self, at: Position) -> bool {
        (self.u16(self.slot(at) + FLAGS) & USED != 0) == at.wrap
    }

    /// Behind the slots that are done from here on, at most a lap.
    fn skip_done(&self, mut at: Position) -> Position {
        for _ in 0..self.size {
            if !self.is_done(at) {
                break;
            }
            at = at.next(self.size);
        }
        at
    }

    /// The address, length, id and flags of a descriptor.
    fn descriptor(&self, at: usize) -> (u64, u32, u16, u16) {
        let address = u64::from_le_bytes(self.memory[at..at + LEN].try_into().expect("eight"));
        let len = u32::from_le_bytes(self.memory[at + LEN..at + ID].try_into().expect("four"));
        (address, len, self.u16(at + ID), self.u16(at + FLAGS))
    }

    /// Adds a buffer to the chain's; the wrong way ends them.
    fn add(parts: &mut Option<Vec<Range<usize>>>, buffer: (u64, u32, u16, u16), to_guest: bool) -> Result<(), Broken> {
        let (address, len, _, flags) = buffer;
        if (flags & WRITE != 0) != to_guest {
            *parts = None;
        } else if let (Some(parts), 1..) = (parts, len) {
            parts.push(guest(address, len)?);
        }
        Ok(())
    }

    /// Whether no more buffers are looked at.
    fn is_enough(parts: Option<&Vec<Range<usize>>>, until: usize) -> bool {
        parts.is_none_or(|parts| total(parts) >= until)
    }

    /// The buffers in an indirect table; returns how many descriptors were read, at most `left`.
    fn table(
        &self,
        table: (u64, u32, u16, u16),
        parts: &mut Option<Vec<Range<usize>>>,
        to_guest: bool,
        until: usize,
        left: u64,
    ) -> Result<u64, Broken> {
        let (address, len, _, flags) = table;
        if !self.has(1 << 28) || flags & NEXT != 0 || len == 0 || len % 16 != 0 || len > 16 * 1024 {
            return Err(Broken);
        }
        if u64::from(len / 16) > left {
            return Err(Broken);
        }
        let mut read = 0;
        for at in guest(address, len)?.step_by(16) {
            read += 1;
            let buffer = self.descriptor(at);
            if buffer.3 & INDIRECT != 0 {
                return Err(Broken);
            }
            if Self::is_enough(parts.as_ref(), until) {
                break;
            }
            Self::add(parts, buffer, to_guest)?;
            if parts.is_none() {
                break;
            }
        }
        Ok(read)
    }

    /// The chain that is available here, its buffers up to the one with the `until`-th byte.
    fn chain(&self, from: Position, to_guest: bool, until: usize) -> Result<Option<Chain>, Broken> {
        if !self.is_available(from) {
            return Ok(None);
        }
        let (mut at, mut slots, mut parts, mut read) = (from, Vec::new(), Some(Vec::new()), 0);
        let most = u64::from(MAX_CHAIN_DESCRIPTORS);
        while slots.len() < usize::from(self.size) && read < most {
            slots.push(at);
            read += 1;
            let descriptor = self.descriptor(self.slot(at));
            let (_, _, id, flags) = descriptor;
            if parts.is_some() && flags & INDIRECT != 0 {
                read += self.table(descriptor, &mut parts, to_guest, until, most - read)?;
            } else if !Self::is_enough(parts.as_ref(), until) {
                Self::add(&mut parts, descriptor, to_guest)?;
            }
            if flags & NEXT == 0 {
                return Ok(Some(Chain { slots, id, parts, read }));
            }
            at = at.next(self.size);
        }
        Err(Broken)
    }

    fn after(&self, chain: &Chain) -> Position {
        chain.slots.last().expect("at least one").next(self.size)
    }

    /// Gives a chain back: its first slot says so, the others change laps.
    fn complete(&mut self, chain: &Chain, bytes: usize) {
        for &tail in &chain.slots[1..] {
            let flags = self.u16(self.slot(tail) + FLAGS) & !USED | if tail.wrap { USED } else { 0 };
            self.write(self.slot(tail) + FLAGS, &flags.to_le_bytes());
        }
        let head = chain.slots[0];
        let flags = if head.wrap { AVAIL | USED } else { 0 } | if bytes > 0 { WRITE } else { 0 };
        let at = self.slot(head);
        self.write(at + LEN, &u32::try_from(bytes).expect("checked").to_le_bytes());
        self.write(at + ID, &chain.id.to_le_bytes());
        self.write(at + FLAGS, &flags.to_le_bytes());
    }

    /// A frame whose last buffers are done and whose first ones are not was cut off.
    fn finish_frame(&mut self) {
        let (mut at, mut chains, mut slots, mut read) = (self.next_avail, Vec::new(), 0, 0);
        let header_bytes = header_bytes(self.features);
        let mut left = MAX_FRAME_BYTES as usize + header_bytes;
        while read < FRAME_DESCRIPTORS
            && let Ok(Some(chain)) = self.chain(at, true, u32::MAX as usize)
        {
            slots += chain.slots.len();
            read += chain.read;
            let Some(parts) = &chain.parts else { return };
            if slots >= usize::from(self.size) {
                return;
            }
            at = self.after(&chain);
            let bytes = total(parts);
            // A buffer that no driver may offer, or more than any frame.
            if bytes < header_bytes || bytes >= left {
                return;
            }
            left -= bytes;
            chains.push((chain, bytes));
            if self.is_done(at) {
                chains.iter().rev().for_each(|(chain, bytes)| self.complete(chain, *bytes));
                self.next_avail = self.skip_done(at);
                return;
            }
        }
    }
}

impl Device for PackedDevice {
    fn memory(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    fn take_written(&mut self) -> Written {
        let mut written = std::mem::take(&mut self.written);
        written.perhaps.push(self.device_event..self.device_event + 4);
        written
    }

    fn adopt(&mut self, seen: &[u8]) {
        let note = self.device_event..self.device_event + 2;
        if self.memory[note.clone()] != seen[note.clone()] {
            self.written.surely.push(note.clone());
        }
        self.memory[note.clone()].copy_from_slice(&seen[note]);
    }

    fn take_interrupts(&mut self) -> Option<u64> {
        self.interrupts.replace(0)
    }

    fn start(&mut self, to_guest: bool) {
        let mut at = Position::of(self.u16(self.device_event));
        if at.index >= self.size {
            at = Position { index: 0, wrap: false };
        }
        self.next_avail = self.skip_done(at);
        if to_guest {
            self.finish_frame();
        }
        self.next_used = self.next_avail;
        self.considered = false;
        self.completed.clear();
        self.lent.clear();
        self.disarm();
    }

    fn base(&self) -> u32 {
        u32::from(self.next_used.word()) << 16 | u32::from(self.next_used.word())
    }

    fn receive(&mut self, _taken: u64) -> Result<Received, Broken> {
        let (mut received, mut slots) = (Received::default(), 0);
        let header_bytes = header_bytes(self.features);
        let (mut further, mut bytes) = (0, 0);
        for _ in 0..64 {
            if further >= BURST_DESCRIPTORS || bytes as u64 >= BURST_BYTES {
                break;
            }
            let Some(chain) = self.chain(self.next_avail, false, MAX_FRAME_BYTES as usize + header_bytes + 1)? else {
                break;
            };
            slots += chain.slots.len();
            if slots > usize::from(self.size) {
                return Err(Broken);
            }
            further += chain.read - 1;
            bytes += chain.parts.as_deref().map_or(0, total);
            self.next_avail = self.after(&chain);
            received.judge(&self.memory, chain.parts.as_deref().unwrap_or_default(), header_bytes);
            self.lent.push(chain);
        }
        if received.frames.is_empty() {
            self.release();
        }
        Ok(received)
    }

    fn release(&mut self) {
        for chain in std::mem::take(&mut self.lent) {
            self.complete(&chain, 0);
            self.next_used = self.after(&chain);
            self.completed.extend(chain.slots);
        }
        self.flush();
    }

    fn send(&mut self, frame: &[u8]) -> Result<Sent, Broken> {
        let needed = header_bytes(self.features) + frame.len();
        let (mut at, mut parts, mut chains) = (self.next_avail, Vec::new(), Vec::new());
        let (mut gathered, mut slots, mut read) = (0, 0, 0);
        while gathered < needed {
            if read >= FRAME_DESCRIPTORS {
                return Ok(Sent::BufferTooSmall);
            }
            if slots == usize::from(self.size) {
                return Ok(Sent::BufferTooSmall);
            }
            let Some(chain) = self.chain(at, true, needed - gathered)? else { return Ok(Sent::RingFull) };
            let buffers = chain.parts.clone().ok_or(Broken)?;
            slots += chain.slots.len();
            read += chain.read;
            let bytes = total(&buffers).min(needed - gathered);
            if slots > usize::from(self.size) || bytes < header_bytes(self.features).min(needed - gathered) {
                return Err(Broken);
            }
            at = self.after(&chain);
            parts.extend(buffers);
            chains.push((chain, bytes));
            gathered += bytes;
            if gathered < needed && !self.has(1 << 15) {
                return Ok(Sent::BufferTooSmall);
            }
        }
        let written = scatter(&mut self.memory, &parts, self.features, chains.len(), frame);
        self.written.surely.extend(written);
        // The first buffer last.
        chains.iter().rev().for_each(|(chain, bytes)| self.complete(chain, *bytes));
        self.completed.extend(chains.iter().flat_map(|(chain, _)| &chain.slots));
        (self.next_avail, self.next_used) = (at, at);
        Ok(Sent::Done)
    }

    fn flush(&mut self) {
        if self.completed.is_empty() {
            return;
        }
        let completed = std::mem::take(&mut self.completed);
        let first = !std::mem::replace(&mut self.considered, true);
        let place = Position::of(self.u16(self.driver_event));
        let wanted = match self.u16(self.driver_event + 2) {
            1 => Some(false),
            2 if self.has(1 << 29) && !first && completed.len() < usize::from(self.size) => {
                // A place that is not in the ring may be asked for in vain, or not.
                (place.index < self.size).then(|| completed.contains(&place))
            }
            _ => Some(true),
        };
        self.interrupts = self.interrupts.zip(wanted).map(|(before, wanted)| before + u64::from(wanted));
    }

    fn arm(&mut self) -> bool {
        self.write(self.device_event + 2, &[0, 0]);
        self.is_available(self.next_avail)
    }

    fn disarm(&mut self) {
        self.write(self.device_event + 2, &[1, 0]);
    }
}
