//! The front end of the session: its memory, and the requests, right and wrong, that it makes.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::fuzz::feed::Feed;
use crate::hostile::{Wire, descriptor_bytes, request as code};

/// Queue pairs of the port.
pub(super) const PAIRS: u16 = 2;
const GUEST_START: u64 = 0x4000_0000;
const USER_START: u64 = 0x7f00_0000_0000;
const MEMORY_BYTES: u64 = 0x1_0000;
/// A log that covers all of the memory.
const LOG_BYTES: u64 = (GUEST_START + 2 * MEMORY_BYTES) / 4096 / 8 + 1;
const LOG_ALL: u64 = 1 << 26;
/// Distance of the tables of two rings; inside: descriptors, then the available and the used ring.
const RING_AREA: u64 = 0x1000;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x600;
const RING_SIZE: u64 = 64;
const BUFFERS: u64 = 0x8000;

/// The front end of one connection and its memory.
pub(super) struct Front {
    wire: Wire,
    pub(super) memory: [OwnedFd; 2],
    /// The file of its log of pages.
    pub(super) log: OwnedFd,
    /// The features it acknowledged last.
    features: u64,
    /// How many entries it has made available, per ring.
    available: [u16; 2 * PAIRS as usize],
    requests: usize,
    replies: usize,
    /// The rest of a reply of which not all has come.
    partial: Vec<u8>,
}

impl Front {
    pub(super) fn new(wire: Wire) -> Self {
        let file = |bytes| {
            let file = memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
            ftruncate(&file, bytes).expect("its size");
            file
        };
        let (memory, log) = ([(); 2].map(|()| file(MEMORY_BYTES)), file(LOG_BYTES));
        let available = [0; 2 * PAIRS as usize];
        Self { wire, memory, log, features: 0, available, requests: 0, replies: 0, partial: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8], fds: &[OwnedFd]) {
        self.requests += 1 + bytes.len() / 12;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        // The switch may have hung up.
        let _ = self.wire.raw(bytes, &fds);
    }

    fn good(&mut self, code: u32, words: &[u64], fds: &[OwnedFd]) {
        let size = u32::try_from(8 * words.len()).expect("short");
        let mut bytes = [code, 1, size].map(u32::to_ne_bytes).concat();
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        self.send(&bytes, fds);
    }

    /// A request whose parts each may be right.
    pub(super) fn request(&mut self, feed: &mut Feed<'_>) {
        let code = u32::from(feed.u8() % 48);
        let shape = feed.u8();
        let flags = [1, 9, 1, 9, 1, 1, 5, 0][usize::from(shape & 7)];
        let words: Vec<u8> = (0..shape >> 3 & 15).flat_map(|_| word(feed).to_ne_bytes()).collect();
        let size = match feed.u8() {
            size @ 0xf0.. => u32::from(size) << 8 | u32::from(feed.u8()),
            _ => u32::try_from(words.len()).expect("short"),
        };
        let fds = self.descriptors(feed);
        self.send(&[[code, flags, size].map(u32::to_ne_bytes).concat(), words].concat(), &fds);
    }

    pub(super) fn raw(&mut self, feed: &mut Feed<'_>) {
        let count = usize::from(feed.u8());
        let fds = self.descriptors(feed);
        self.send(feed.take(count), &fds);
    }

    /// Descriptors of all kinds, seldom more than belong to a request.
    fn descriptors(&self, feed: &mut Feed<'_>) -> Vec<OwnedFd> {
        let count = match feed.u8() {
            0..128 => 0,
            128..192 => 1,
            many => many & 3 | if many >= 250 { 40 } else { 0 },
        };
        (0..count).map(|_| self.descriptor(feed.u8())).collect()
    }

    fn descriptor(&self, kind: u8) -> OwnedFd {
        let file = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
        match kind % 8 {
            0 | 1 => file(&self.memory[0]),
            2 => file(&self.memory[1]),
            3 => File::open("/dev/null").expect("it is there").into(),
            4 => self.wire.socket.try_clone().expect("a descriptor").into(),
            5 => UnixStream::pair().expect("a pair").0.into(),
            _ => eventfd(0, EventfdFlags::empty()).expect("an eventfd"),
        }
    }

    /// What QEMU says until frames can pass, but for chosen features and sizes.
    pub(super) fn start_up(&mut self, feed: &mut Feed<'_>, packed: bool) {
        let chosen = feed.u8();
        let bit = |number: u8, value: u64| if chosen >> number & 1 == 1 { value } else { 0 };
        let features = bit(0, 1 << 15) | bit(1, 1 << 28) | bit(2, 1 << 29) | bit(3, 1 << 32) | bit(4, 1 << 30);
        self.good(code::GET_FEATURES, &[], &[]);
        if bit(4, 1) == 1 {
            self.good(code::GET_PROTOCOL_FEATURES, &[], &[]);
            self.good(code::SET_PROTOCOL_FEATURES, &[0x8009], &[]);
            self.good(code::GET_QUEUE_NUM, &[], &[]);
        }
        self.good(code::SET_OWNER, &[], &[]);
        self.features = features | bit(5, 1 << 22) | u64::from(packed) << 34;
        self.good(code::SET_FEATURES, &[self.features], &[]);
        let files = [0, 2].map(|kind| self.descriptor(kind));
        let second = [GUEST_START + MEMORY_BYTES, MEMORY_BYTES / 2, USER_START + (1 << 30), 0x1000];
        let table = [2, GUEST_START, MEMORY_BYTES, USER_START, 0].into_iter().chain(second).collect::<Vec<_>>();
        self.good(code::SET_MEM_TABLE, &table, &files);
        let size = RING_SIZE >> (chosen >> 6);
        for ring in 0..2 * u64::from(PAIRS) {
            let start = USER_START + ring * RING_AREA;
            self.good(code::SET_VRING_NUM, &[ring | size << 32], &[]);
            self.good(code::SET_VRING_BASE, &[ring], &[]);
            self.good(code::SET_VRING_ADDR, &[ring, start, start + USED, start + AVAILABLE, 0], &[]);
            let doorbells = [7, 7].map(|kind| self.descriptor(kind));
            let [kick, call] = doorbells.map(|fd| [fd]);
            self.good(code::SET_VRING_KICK, &[ring], &kick);
            self.good(code::SET_VRING_CALL, &[ring], &call);
            self.good(code::SET_VRING_ENABLE, &[ring | 1 << 32], &[]);
        }
    }

    /// A request about the log of pages: the one that QEMU would make, or one that is a little wrong.
    pub(super) fn log(&mut self, feed: &mut Feed<'_>) {
        let choice = feed.u8();
        let ring = u64::from(choice >> 4) % (2 * u64::from(PAIRS));
        let log = [self.log.try_clone().expect("a descriptor")];
        match choice % 8 {
            0..3 => self.good(code::SET_LOG_BASE, &[LOG_BYTES, 0], &log),
            3 => {
                let (bytes, offset) = (word(feed), word(feed));
                let file = if choice >= 128 { [self.descriptor(feed.u8())] } else { log };
                self.good(code::SET_LOG_BASE, &[bytes, offset], &file);
            }
            4 => self.good(code::SET_FEATURES, &[self.features ^ LOG_ALL], &[]),
            5 => self.good(code::SET_FEATURES, &[self.features], &[]),
            6 => {
                let start = ring * RING_AREA;
                let address = if choice >= 128 { word(feed) } else { GUEST_START + start + USED };
                let user = USER_START + start;
                self.good(code::SET_VRING_ADDR, &[ring | 1 << 32, user, user + USED, user + AVAILABLE, address], &[]);
            }
            _ if choice >= 128 => self.good(code::SEND_RARP, &[feed.u64()], &[]),
            _ => {
                let fd = [self.descriptor(feed.u8())];
                self.good(code::SET_LOG_FD, &[], &fd);
            }
        }
    }

    /// Makes a chain of one or two descriptors available in a ring as [`Front::start_up`] lays it out.
    pub(super) fn offer(&mut self, feed: &mut Feed<'_>) {
        let choice = feed.u8();
        let ring = u64::from(choice) % (2 * u64::from(PAIRS));
        let (len, head) = (u32::from(feed.u16() & 0xfff), feed.u8() % 64);
        let write = if choice & 4 == 0 { u16::from(ring % 2 == 0) << 1 } else { u16::from(feed.u8()) };
        let chained = choice & 8 != 0;
        let address = GUEST_START + BUFFERS + u64::from(head) * 0x400;
        let flags = write | u16::from(chained);
        let start = ring * RING_AREA;
        let entry = |index: u8| start + 16 * u64::from(index);
        let next = (head + 1) % 64;
        self.store(entry(head), &descriptor_bytes(address, len, flags, u16::from(next)));
        if chained {
            self.store(entry(next), &descriptor_bytes(address + 64, len / 2, write, 0));
        }
        let available = &mut self.available[usize::try_from(ring).expect("small")];
        let slot = u64::from(*available) % (RING_SIZE >> (choice >> 6));
        *available = available.wrapping_add(1);
        let index = available.to_le_bytes();
        self.store(start + AVAILABLE + 4 + 2 * slot, &[head, 0]);
        self.store(start + AVAILABLE + 2, &index);
    }

    /// Makes a chain of one or two slots available in a packed ring as [`Front::start_up`] lays it out.
    pub(super) fn offer_packed(&mut self, feed: &mut Feed<'_>) {
        let choice = feed.u8();
        let ring = u64::from(choice) % (2 * u64::from(PAIRS));
        let (len, id) = (u32::from(feed.u16() & 0xfff), feed.u8());
        let write = if choice & 4 == 0 { u16::from(ring % 2 == 0) << 1 } else { u16::from(feed.u8()) };
        let size = RING_SIZE >> (choice >> 6);
        let address = GUEST_START + BUFFERS + u64::from(id % 64) * 0x400;
        for more in (0..=u16::from(choice >> 3 & 1)).rev() {
            let available = &mut self.available[usize::try_from(ring).expect("small")];
            let at = u64::from(*available);
            *available = available.wrapping_add(1);
            // One lap has the bit 7, the next one the bit 15.
            let lap = if (at / size).is_multiple_of(2) { 1 << 7 } else { 1 << 15 };
            let slot = descriptor_bytes(address + 64 * u64::from(more), len, id.into(), write | more | lap);
            self.store(ring * RING_AREA + 16 * (at % size), &slot);
        }
    }

    pub(super) fn write(&self, feed: &mut Feed<'_>) {
        let (offset, count) = (u64::from(feed.u16()), usize::from(feed.u8() % 64));
        self.store(offset, feed.take(count));
    }

    /// Writes to the file of the first region, unless it ends before.
    fn store(&self, offset: u64, bytes: &[u8]) {
        let file = File::from(self.descriptor(0));
        if file.metadata().is_ok_and(|meta| offset + bytes.len() as u64 <= meta.len()) {
            file.write_all_at(bytes, offset).expect("a memfd takes it");
        }
    }

    /// Takes the replies and checks that each is one.
    pub(super) fn receive(&mut self) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.wire.socket.read(&mut chunk) {
            self.partial.extend_from_slice(&chunk[..count]);
        }
        let (whole, rest) = self.partial.as_chunks::<20>();
        for reply in whole {
            let word = |at: usize| u32::from_ne_bytes(reply[at..at + 4].try_into().expect("four bytes"));
            // Half a message and a whole one make a request of any number that asks for an acknowledgement.
            let refused = (word(12), word(16)) == (1, 0);
            assert!((word(0) < 48 || refused) && (word(4), word(8)) == (5, 8), "{reply:02x?}");
        }
        self.replies += whole.len();
        self.partial = rest.to_vec();
        assert!(self.replies <= self.requests);
    }
}

/// A word of a payload: a ring with a value, an address in one of the address spaces, a size, or anything.
fn word(feed: &mut Feed<'_>) -> u64 {
    let kind = feed.u8();
    match kind {
        0..64 => u64::from(kind & 7),
        64..128 => u64::from(kind & 7) | u64::from(feed.u16()) << 32,
        128..160 => USER_START + u64::from(feed.u16()),
        160..192 => GUEST_START + (u64::from(feed.u16()) << 4),
        192..208 => u64::from(feed.u16()) << 4,
        208..224 => MEMORY_BYTES >> (kind & 3),
        224..240 => 1 << (kind & 15) << 20,
        240.. => feed.u64(),
    }
}
