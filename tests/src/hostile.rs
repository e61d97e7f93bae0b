//! A vhost-user front end that says what it is told to, right or wrong: messages with any header, payload and
//! descriptors, and two rings in shared memory that are written byte by byte.
//!
//! [`Script`] holds everything a front end tells the switch before frames can pass, correct unless changed;
//! [`FrontEnd::start`] plays it. Rings and memory are small by default; [`Script::sized`] takes other sizes. Guest
//! memory may be written before the script is played. A front end that plays a script unchanged is well-behaved:
//! [`FrontEnd::send_frame`] and [`FrontEnd::receive_frame`] move frames. Requests are sent without waiting for an
//! acknowledgement.
//!
//! Reference: vhost-user.rst, "Message Specification"; Virtio 1.2, 2.7 "Split Virtqueues".

mod memory;

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

pub use labsw_testkit::request;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub use self::memory::Memory;

/// Flags of a request of protocol version 1.
pub const VERSION: u32 = 1;
/// Size of the guest's memory, bytes.
pub const MEMORY_BYTES: u64 = 2 << 20;
/// Guest-physical address of its first byte.
pub const GUEST_START: u64 = 0x4000_0000;
/// The front end's address of its first byte, as it claims.
pub const USER_START: u64 = 0x7000_0000_0000;
/// Entries of each ring.
pub const RING_SIZE: u16 = 64;
/// Descriptor flag: the chain goes on.
pub const NEXT: u16 = 1;
/// Descriptor flag: the switch writes.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;
/// The ring that the switch fills.
pub const RX: usize = 0;
/// The ring that the switch reads.
pub const TX: usize = 1;

/// Alignment of the parts of a ring, and the room of the smallest used ring.
const PAGE: u64 = 0x1000;
const USED_AT_LEAST: u64 = 2 * PAGE;
/// Where buffers begin at the earliest, and how far apart they are.
const BUFFERS: u64 = 0x1_0000;
/// Bytes of a buffer.
pub const BUFFER_BYTES: u64 = 2048;
/// The virtio-net header of a modern device, bytes.
pub const NET_HEADER: usize = 12;
/// The switch finishes checksums.
pub const F_CSUM: u64 = 1 << 0;
/// The guest takes unfinished checksums.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// The guest leaves IPv4 segmentation to the switch.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// A frame may take several receive buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// Indirect descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// The protocol has features of its own.
pub const F_PROTOCOL: u64 = 1 << 30;
/// A modern device.
pub const F_VERSION_1: u64 = 1 << 32;
/// Packed rings.
pub const F_RING_PACKED: u64 = 1 << 34;
const PATIENCE: Duration = Duration::from_secs(5);

/// What the front end says of one ring.
#[derive(Debug)]
pub struct RingScript {
    /// Entries.
    pub size: u32,
    /// Address of the descriptor table, as the front end claims.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
    /// What goes with SET_VRING_KICK.
    pub kick: Option<OwnedFd>,
    /// What goes with SET_VRING_CALL.
    pub call: Option<OwnedFd>,
}

/// Where the parts of a ring lie in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct RingPlace {
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring.
    pub available: u64,
    /// The used ring.
    pub used: u64,
}

impl RingPlace {
    /// A ring of `size` entries from `start` on; and where it ends.
    fn at(start: u64, size: u16) -> (Self, u64) {
        let size = u64::from(size);
        let available = start + (16 * size).next_multiple_of(PAGE);
        let used = available + (6 + 2 * size).next_multiple_of(PAGE);
        (Self { descriptors: start, available, used }, used + (6 + 8 * size).next_multiple_of(PAGE).max(USED_AT_LEAST))
    }
}

/// What a front end says before frames can pass.
#[derive(Debug)]
pub struct Script {
    /// Feature bits it acknowledges.
    pub features: u64,
    /// Memory regions: guest address, size, front end's address, offset in the file.
    pub regions: Vec<[u64; 4]>,
    /// Their files, one each; by default the guest's memory.
    pub files: Vec<OwnedFd>,
    /// The rings.
    pub rings: [RingScript; 2],
    /// Its memory.
    pub memory: Memory,
    /// Receive buffers made available at the start.
    pub posted: u16,
    /// Entries of each ring, and where they truly lie, whatever `rings` claims.
    sizes: [u16; 2],
    places: [RingPlace; 2],
    /// Where buffers begin.
    buffers: u64,
}

impl Default for Script {
    fn default() -> Self {
        Self::sized([RING_SIZE; 2], MEMORY_BYTES)
    }
}

impl Script {
    /// A script of rings with so many entries, and memory of so many bytes.
    pub fn sized(sizes: [u16; 2], memory_bytes: u64) -> Self {
        let memory = Memory::sized(memory_bytes);
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        let (receive, next) = RingPlace::at(0, sizes[RX]);
        let (transmit, end) = RingPlace::at(next, sizes[TX]);
        let places = [receive, transmit];
        let ring = |ring: usize| RingScript {
            size: sizes[ring].into(),
            descriptors: USER_START + places[ring].descriptors,
            available: USER_START + places[ring].available,
            used: USER_START + places[ring].used,
            kick: event(),
            call: event(),
        };
        Self {
            features: F_VERSION_1 | F_INDIRECT_DESC | F_PROTOCOL,
            regions: vec![[GUEST_START, memory_bytes, USER_START, 0]],
            files: memory.file.try_clone().into_iter().collect(),
            rings: [ring(RX), ring(TX)],
            memory,
            posted: sizes[RX] / 2,
            sizes,
            places,
            buffers: end.max(BUFFERS),
        }
    }

    /// Where a ring lies in guest memory.
    pub fn place(&self, ring: usize) -> RingPlace {
        self.places[ring]
    }

    /// Where a buffer lies in guest memory; behind those of both rings, memory is free for a test.
    pub fn buffer_offset(&self, ring: usize, index: u16) -> u64 {
        let before = if ring == TX { u64::from(self.sizes[RX]) } else { 0 };
        self.buffers + (before + u64::from(index)) * BUFFER_BYTES
    }

    /// Writes a descriptor of a ring.
    pub fn descriptor(&self, ring: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let offset = self.places[ring].descriptors + u64::from(index) * 16;
        self.memory.write(offset, &descriptor_bytes(address, len, flags, next));
    }

    /// Writes an entry of the available ring.
    pub fn available_entry(&self, ring: usize, number: u16, head: u16) {
        let slot = u64::from(number % self.sizes[ring]);
        self.memory.write(self.places[ring].available + 4 + 2 * slot, &head.to_le_bytes());
    }

    /// Writes the available index, without a kick.
    pub fn available_index(&self, ring: usize, index: u16) {
        fence(Ordering::Release);
        self.memory.write(self.places[ring].available + 2, &index.to_le_bytes());
    }
}

/// A front end's end of the connection.
#[derive(Debug)]
pub struct Wire {
    /// The socket.
    pub socket: UnixStream,
}

impl Wire {
    /// Connects to the socket of a port.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect(socket: &Path) -> Self {
        let socket = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        socket.set_read_timeout(Some(PATIENCE)).expect("time-out");
        Self { socket }
    }

    /// Sends bytes and descriptors as they are. An error means that the switch has hung up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)), "at most 64 descriptors");
        }
        Ok(sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
    }

    /// Sends a request made of 64-bit words; whether the switch still listened.
    pub fn request(&self, code: u32, words: &[u64], fds: &[BorrowedFd<'_>]) -> bool {
        let size = u32::try_from(8 * words.len()).unwrap_or(u32::MAX);
        self.message(code, VERSION, size, &words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>(), fds)
    }

    /// Sends a message with any header.
    pub fn message(&self, code: u32, flags: u32, size: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let header = [code, flags, size].map(u32::to_ne_bytes).concat();
        self.raw(&[&header, payload].concat(), fds).is_ok()
    }

    /// The value that the next reply carries; `None` when the switch has hung up or does not answer.
    pub fn reply(&mut self) -> Option<u64> {
        let mut reply = [0; 20];
        self.socket.read_exact(&mut reply).ok()?;
        reply.last_chunk().map(|&value| u64::from_ne_bytes(value))
    }

    /// Waits until the switch hangs up.
    ///
    /// # Panics
    /// When it does not within `patience`.
    pub fn wait_closed(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.socket.set_read_timeout(Some(Duration::from_millis(100))).expect("time-out");
        let mut rest = [0; 512];
        loop {
            match self.socket.read(&mut rest) {
                Ok(0) => return,
                Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
                Ok(_) | Err(_) => assert!(Instant::now() < deadline, "the switch does not hang up"),
            }
        }
    }
}

/// A front end with memory and rings.
#[derive(Debug)]
pub struct FrontEnd {
    /// Its connection.
    pub wire: Wire,
    /// What it said.
    pub script: Script,
    /// Chains made available, per ring.
    available: [u16; 2],
    /// Used elements looked at, per ring.
    used: [u16; 2],
}

impl FrontEnd {
    /// Connects and says everything in the script. Receive buffers are available from the beginning.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn start(socket: &Path, script: Script) -> Self {
        let mut front = Self { wire: Wire::connect(socket), script, available: [0; 2], used: [0; 2] };
        for index in 0..front.script.posted {
            front.post_receive_buffer(index);
        }
        front.play();
        front
    }

    fn play(&self) {
        use request::{
            SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL, SET_VRING_ENABLE,
            SET_VRING_KICK, SET_VRING_NUM,
        };
        let (wire, script) = (&self.wire, &self.script);
        wire.request(SET_OWNER, &[], &[]);
        wire.request(SET_FEATURES, &[script.features], &[]);
        let mut table = vec![script.regions.len() as u64];
        table.extend(script.regions.iter().flatten());
        let files: Vec<BorrowedFd<'_>> = script.files.iter().map(AsFd::as_fd).collect();
        wire.request(SET_MEM_TABLE, &table, &files);
        for (index, ring) in (0u64..).zip(&script.rings) {
            let fds = |fd: &'_ Option<OwnedFd>| -> (u64, Vec<OwnedFd>) {
                match fd {
                    Some(fd) => (index, fd.try_clone().into_iter().collect()),
                    None => (index | 0x100, vec![]),
                }
            };
            wire.request(SET_VRING_NUM, &[index | u64::from(ring.size) << 32], &[]);
            wire.request(SET_VRING_BASE, &[index], &[]);
            wire.request(SET_VRING_ADDR, &[index, ring.descriptors, ring.used, ring.available, 0], &[]);
            for (code, fd) in [(SET_VRING_CALL, &ring.call), (SET_VRING_KICK, &ring.kick)] {
                let (doorbell, fds) = fds(fd);
                wire.request(code, &[doorbell], &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
            }
            wire.request(SET_VRING_ENABLE, &[index | 1 << 32], &[]);
        }
    }

    /// The guest-physical address of a buffer of a script with rings of the usual size.
    pub fn buffer(ring: usize, index: u16) -> u64 {
        GUEST_START + BUFFERS + (ring as u64 * u64::from(RING_SIZE) + u64::from(index)) * BUFFER_BYTES
    }

    fn address(&self, ring: usize, index: u16) -> u64 {
        GUEST_START + self.script.buffer_offset(ring, index)
    }

    /// Writes a descriptor of a ring.
    pub fn descriptor(&self, ring: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.script.descriptor(ring, index, address, len, flags, next);
    }

    /// Makes the chain at `head` available, and kicks.
    pub fn make_available(&mut self, ring: usize, head: u16) {
        let number = self.available[ring];
        self.script.available_entry(ring, number, head);
        self.set_available_index(ring, number.wrapping_add(1));
    }

    /// Stores any available index, and kicks.
    pub fn set_available_index(&mut self, ring: usize, index: u16) {
        self.available[ring] = index;
        self.script.available_index(ring, index);
        if let Some(kick) = &self.script.rings[ring].kick {
            // A kick descriptor of the wrong kind need not take it.
            let _ = rustix::io::write(kick, &1u64.to_ne_bytes());
        }
    }

    fn post_receive_buffer(&mut self, index: u16) {
        let bytes = u32::try_from(BUFFER_BYTES).unwrap_or(0);
        self.descriptor(RX, index, self.address(RX, index), bytes, WRITE, 0);
        self.make_available(RX, index);
    }

    /// Sends a frame as a well-behaved guest does, without waiting for its completion.
    pub fn send_frame(&mut self, frame: &[u8]) {
        self.send_with_header(&[0; NET_HEADER], frame);
    }

    /// Sends a frame behind any virtio-net header, without waiting for its completion.
    pub fn send_with_header(&mut self, header: &[u8; NET_HEADER], frame: &[u8]) {
        let index = self.available[TX] % self.script.sizes[TX];
        self.script.memory.write(self.script.buffer_offset(TX, index), &[header, frame].concat());
        let bytes = u32::try_from(NET_HEADER + frame.len()).unwrap_or(0);
        self.descriptor(TX, index, self.address(TX, index), bytes, 0, 0);
        self.make_available(TX, index);
    }

    /// The next frame that the switch has put into a receive buffer; the buffer is made available again.
    pub fn receive_frame(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let frame = self.try_receive_frame();
            if frame.is_some() || Instant::now() >= deadline {
                return frame;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The same without waiting.
    pub fn try_receive_frame(&mut self) -> Option<Vec<u8>> {
        if self.used_index(RX) == self.used[RX] {
            return None;
        }
        fence(Ordering::Acquire);
        let slot = u64::from(self.used[RX] % self.script.sizes[RX]);
        self.used[RX] = self.used[RX].wrapping_add(1);
        let mut element = [0; 8];
        self.script.memory.read(self.script.places[RX].used + 4 + 8 * slot, &mut element);
        let head = u16::from_le_bytes([element[0], element[1]]);
        let bytes = u32::from_le_bytes([element[4], element[5], element[6], element[7]]);
        let mut frame = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.script.memory.read(self.script.buffer_offset(RX, head), &mut frame);
        self.post_receive_buffer(head);
        Some(frame.split_off(NET_HEADER.min(frame.len())))
    }

    /// How many transmit chains were made available.
    pub fn sent(&self) -> u16 {
        self.available[TX]
    }

    /// How many chains the switch has completed.
    pub fn used_index(&self, ring: usize) -> u16 {
        self.script.memory.read_u16(self.script.places[ring].used + 2)
    }
}

/// A descriptor as it stands in a table.
pub fn descriptor_bytes(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
