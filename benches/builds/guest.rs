//! The generator's guests: two split rings each, whose descriptors and frames are written once.
//!
//! Guest memory is one memfd of huge pages where there are any, mapped here and by the switch. Each ring's tables are
//! followed by its buffers, one for each descriptor; descriptor `i` always stands at place `i` of the available ring,
//! and every switch that completes in order returns it at place `i` of the used ring, which is checked by samples.
//!
//! **Invariant.** All offsets into [`Memory`] come from [`Memory::ring`], which lays them out within its length.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const BUFFER_BYTES: usize = 2048;
/// Where the virtio-net header begins in a buffer, so that the frame behind it begins a cache line.
const HEADER_AT: usize = 52;
const HEADER_BYTES: usize = 12;
const HUGE_PAGE: usize = 2 << 20;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const WRITE: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;
/// `VIRTIO_F_VERSION_1`, `VIRTIO_NET_F_MRG_RXBUF`, `VHOST_USER_F_PROTOCOL_FEATURES`.
const FEATURES: u64 = 1 << 32 | 1 << 15 | 1 << 30;

/// The memory of both guests.
pub struct Memory {
    memfd: OwnedFd,
    base: NonNull<u8>,
    bytes: usize,
    ring: u16,
}

impl Memory {
    /// Room for four rings of `ring` entries.
    pub fn new(ring: u16) -> Memory {
        let bytes = (4 * Memory::ring_bytes(ring)).next_multiple_of(HUGE_PAGE);
        Memory::map(bytes, ring, MemfdFlags::HUGETLB)
            .or_else(|_| Memory::map(bytes, ring, MemfdFlags::empty()))
            .expect("memory for the guests")
    }

    fn map(bytes: usize, ring: u16, flags: MemfdFlags) -> rustix::io::Result<Memory> {
        let memfd = memfd_create("labsw-builds", flags)?;
        ftruncate(&memfd, bytes as u64)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours; `Memory` unmaps it.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, &memfd, 0) }?;
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at 0");
        Ok(Memory { memfd, base, bytes, ring })
    }

    /// Descriptor table, available ring and used ring, each on pages of its own, and the buffers.
    fn ring_bytes(ring: u16) -> usize {
        let ring = usize::from(ring);
        (16 * ring).next_multiple_of(4096)
            + (6 + 2 * ring).next_multiple_of(4096)
            + (6 + 8 * ring).next_multiple_of(4096)
            + BUFFER_BYTES * ring
    }

    /// The `number`-th of the four rings.
    fn ring(&self, number: usize) -> Ring {
        let size = usize::from(self.ring);
        let descriptors = number * Memory::ring_bytes(self.ring);
        let available = descriptors + (16 * size).next_multiple_of(4096);
        let used = available + (6 + 2 * size).next_multiple_of(4096);
        let buffers = used + (6 + 8 * size).next_multiple_of(4096);
        assert!(buffers + size * BUFFER_BYTES <= self.bytes);
        let base = self.base;
        Ring { base, size: self.ring, descriptors, available, used, buffers, offered: 0, taken: 0 }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `map` mapped exactly this; `main` drops the guests, which point into it, before it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A split ring, as its driver sees it.
struct Ring {
    base: NonNull<u8>,
    size: u16,
    descriptors: usize,
    available: usize,
    used: usize,
    buffers: usize,
    /// Entries put into the available ring, modulo 2¹⁶.
    offered: u16,
    /// Entries taken out of the used ring.
    taken: u16,
}

impl Ring {
    fn write(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: offsets lie in the mapping (`Memory::ring`); the bytes are ours until they are offered.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) };
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: offsets of words are even and lie in the mapping, which outlives the ring; both sides use atomics.
        unsafe { AtomicU16::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn buffer(&self, index: u16) -> usize {
        self.buffers + usize::from(index) * BUFFER_BYTES + HEADER_AT
    }

    /// Writes descriptor and available entry `index`, for a buffer of `bytes`.
    fn describe(&self, index: u16, bytes: usize, flags: u16) {
        let address = self.base.as_ptr() as u64 + self.buffer(index) as u64;
        let mut descriptor = address.to_le_bytes().to_vec();
        descriptor.extend((bytes as u32).to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend([0; 2]);
        self.write(self.descriptors + 16 * usize::from(index), &descriptor);
        self.word(self.available + 4 + 2 * usize::from(index)).store(index.to_le(), Ordering::Relaxed);
    }

    /// Moves the available index by `count`. Returns whether the other side wants to be told.
    fn offer(&mut self, count: u16) -> bool {
        self.offered = self.offered.wrapping_add(count);
        self.word(self.available + 2).store(self.offered, Ordering::Release);
        fence(Ordering::SeqCst);
        self.word(self.used).load(Ordering::Relaxed) & NO_NOTIFY == 0
    }

    /// How much has been used since the last call.
    fn take(&mut self) -> u16 {
        let used = self.word(self.used + 2).load(Ordering::Acquire);
        let count = used.wrapping_sub(self.taken);
        if count > 0 {
            let last = used.wrapping_sub(1) & (self.size - 1);
            let id = self.word(self.used + 4 + 8 * usize::from(last)).load(Ordering::Relaxed);
            assert_eq!(id, last, "a switch that does not complete in order cannot be measured here");
        }
        self.taken = used;
        count
    }
}

/// One guest: its rings and its connection.
pub struct Guest {
    port: u8,
    rings: [Ring; 2],
    kicks: [OwnedFd; 2],
    /// Held open: nobody reads what is signalled.
    _calls: [OwnedFd; 2],
    _connection: UnixStream,
}

impl Guest {
    /// Connects to `socket`, negotiates, and offers all receive buffers.
    pub fn connect(socket: &Path, memory: &Memory, port: u8, patience: Duration) -> Guest {
        let end = Instant::now() + patience;
        let mut connection = loop {
            match UnixStream::connect(socket) {
                Ok(connection) => break connection,
                Err(e) => assert!(Instant::now() < end, "{}: {e}", socket.display()),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        connection.set_read_timeout(Some(patience)).unwrap();
        let new_eventfd = |_| eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let first = 2 * usize::from(port);
        let mut guest = Guest {
            port,
            rings: [memory.ring(first + RECEIVE), memory.ring(first + TRANSMIT)],
            kicks: [0, 1].map(new_eventfd),
            _calls: [0, 1].map(new_eventfd),
            _connection: connection.try_clone().unwrap(),
        };
        guest.negotiate(&mut connection, memory);
        for index in 0..memory.ring {
            guest.rings[RECEIVE].describe(index, BUFFER_BYTES - HEADER_AT, WRITE);
        }
        for ring in &guest.rings {
            ring.word(ring.available).store(NO_INTERRUPT, Ordering::Relaxed);
        }
        guest.rings[RECEIVE].offer(memory.ring);
        guest.kick(RECEIVE);
        guest
    }

    /// The usual order of requests; their numbers are the protocol's.
    fn negotiate(&self, connection: &mut UnixStream, memory: &Memory) {
        send(connection, 3, &[], None);
        send(connection, 1, &[], None);
        let features = reply(connection, 1);
        send(connection, 15, &[], None);
        let protocol = reply(connection, 15);
        send(connection, 16, &[protocol & 1], None);
        for (index, call) in (0..).zip(&self._calls) {
            send(connection, 13, &[index], Some(call.as_fd()));
        }
        send(connection, 2, &[features & FEATURES], None);
        let base = memory.base.as_ptr() as u64;
        send(connection, 5, &[1, base, memory.bytes as u64, base, 0], Some(memory.memfd.as_fd()));
        for (index, ring) in (0u64..).zip(&self.rings) {
            let at = |offset: usize| base + offset as u64;
            send(connection, 8, &[index | u64::from(ring.size) << 32], None);
            send(connection, 10, &[index], None);
            send(connection, 9, &[index, at(ring.descriptors), at(ring.used), at(ring.available), 0], None);
            send(connection, 12, &[index], Some(self.kicks[index as usize].as_fd()));
        }
        for index in 0..2 {
            send(connection, 18, &[index | 1 << 32], None);
        }
    }

    /// Writes a frame into each transmit buffer: `bytes` long, from and to as many stations as there are `flows`.
    pub fn write_frames(&mut self, bytes: usize, flows: u16) {
        let ring = &self.rings[TRANSMIT];
        for index in 0..ring.size {
            ring.describe(index, HEADER_BYTES + bytes, 0);
            ring.write(ring.buffer(index), &[0; HEADER_BYTES]);
            ring.write(ring.buffer(index) + HEADER_BYTES, &frame(bytes, self.port, index % flows));
        }
    }

    /// Offers the frame of every transmit buffer.
    pub fn offer_all(&mut self) {
        let all = self.rings[TRANSMIT].size;
        self.rings[TRANSMIT].offer(all);
        self.kick(TRANSMIT);
    }

    /// All frames that were offered have been taken.
    pub fn is_drained(&self) -> bool {
        self.rings[TRANSMIT].offered == self.rings[TRANSMIT].taken
    }

    /// Takes what has arrived and offers the buffers again. Returns the number of frames.
    pub fn receive(&mut self) -> u16 {
        self.recycle(RECEIVE, true)
    }

    /// Takes the buffers that the switch has read, and offers their frames again if `again`.
    pub fn transmit(&mut self, again: bool) {
        self.recycle(TRANSMIT, again);
    }

    fn recycle(&mut self, ring: usize, again: bool) -> u16 {
        let count = self.rings[ring].take();
        if count > 0 && again && self.rings[ring].offer(count) {
            self.kick(ring);
        }
        count
    }

    fn kick(&self, ring: usize) {
        let _ = rustix::io::write(&self.kicks[ring], &1u64.to_ne_bytes());
    }
}

/// A UDP frame of `flow` from the guest at `port` to the other one.
fn frame(bytes: usize, port: u8, flow: u16) -> Vec<u8> {
    let station = |port: u8| [[2, port, 0, 0].as_slice(), &flow.to_be_bytes()].concat();
    let mut frame = [station(1 - port), station(port), vec![0x08, 0x00, 0x45, 0, 0, 0]].concat();
    frame.resize(bytes, 0xa5);
    // A source port of the flow's own: what spreads flows sees different ones.
    frame[34..36].copy_from_slice(&flow.to_be_bytes());
    frame
}

fn send(connection: &UnixStream, code: u32, payload: &[u64], descriptor: Option<BorrowedFd<'_>>) {
    let mut bytes: Vec<u8> = [code, 1, 8 * payload.len() as u32].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(payload.iter().flat_map(|word| word.to_ne_bytes()));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    sendmsg(connection, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL).expect("the switch listens");
}

fn reply(connection: &mut UnixStream, code: u32) -> u64 {
    let mut bytes = [0; 20];
    connection.read_exact(&mut bytes).expect("the switch answers");
    assert_eq!(bytes[..4], code.to_ne_bytes());
    u64::from_ne_bytes([12, 13, 14, 15, 16, 17, 18, 19].map(|at| bytes[at]))
}
