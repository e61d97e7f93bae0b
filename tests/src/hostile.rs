//! A vhost-user front end that says what it is told to, right or wrong: messages with any header, payload and
//! descriptors, and two rings in shared memory that are written byte by byte.
//!
//! [`Script`] holds everything a front end tells the switch before frames can pass, correct unless changed;
//! [`FrontEnd::start`] plays it. A front end that plays it unchanged is well-behaved: [`FrontEnd::send_frame`] and
//! [`FrontEnd::receive_frame`] move frames. Requests are sent without waiting for an acknowledgement.
//!
//! Reference: vhost-user.rst, "Message Specification"; Virtio 1.2, 2.7 "Split Virtqueues".

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

pub use labsw_testkit::request;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

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

/// Bytes of a ring's area, and where its parts are in it.
const RING_AREA: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Where buffers begin, and how far apart they are.
const BUFFERS: u64 = 0x1_0000;
const BUFFER_BYTES: u64 = 2048;
/// The virtio-net header of a modern device, bytes.
pub const NET_HEADER: usize = 12;
/// The switch finishes checksums.
pub const F_CSUM: u64 = 1 << 0;
const F_INDIRECT_DESC: u64 = 1 << 28;
const F_PROTOCOL: u64 = 1 << 30;
const F_VERSION_1: u64 = 1 << 32;
const PATIENCE: Duration = Duration::from_secs(5);

/// Shared memory of the guest, seen from the front end.
#[derive(Debug)]
pub struct Memory {
    /// The file.
    pub file: OwnedFd,
    start: NonNull<u8>,
}

impl Memory {
    /// A file of [`MEMORY_BYTES`], mapped.
    ///
    /// # Panics
    /// When the kernel has no memory.
    pub fn new() -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&file, MEMORY_BYTES).expect("size of a memfd");
        let bytes = usize::try_from(MEMORY_BYTES).expect("fits");
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
        };
        Self { file, start: NonNull::new(start.expect("map a memfd").cast()).expect("not null") }
    }

    /// Writes bytes at an offset.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= MEMORY_BYTES);
        let offset = usize::try_from(offset).expect("fits");
        // SAFETY: inside the mapping (asserted), which lives as long as `self`; the other process is not Rust's concern.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len()) };
    }

    /// Reads bytes at an offset.
    ///
    /// # Panics
    /// When they are not inside.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        assert!(offset + bytes.len() as u64 <= MEMORY_BYTES);
        let offset = usize::try_from(offset).expect("fits");
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len()) };
    }

    fn read_u16(&self, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Gives the file another length.
    ///
    /// # Panics
    /// When the kernel does not let us.
    pub fn truncate(&self, bytes: u64) {
        ftruncate(&self.file, bytes).expect("truncate a memfd");
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, of the same length; nobody has pointers into it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), usize::try_from(MEMORY_BYTES).unwrap_or(0)) };
    }
}

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
}

impl Default for Script {
    fn default() -> Self {
        let memory = Memory::new();
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        let ring = |number: u64| {
            let start = USER_START + number * RING_AREA;
            let (available, used) = (start + AVAILABLE, start + USED);
            RingScript { size: RING_SIZE.into(), descriptors: start, available, used, kick: event(), call: event() }
        };
        Self {
            features: F_VERSION_1 | F_INDIRECT_DESC | F_PROTOCOL,
            regions: vec![[GUEST_START, MEMORY_BYTES, USER_START, 0]],
            files: memory.file.try_clone().into_iter().collect(),
            rings: [ring(0), ring(1)],
            memory,
        }
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
        for index in 0..RING_SIZE / 2 {
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

    /// The guest-physical address of a buffer.
    pub fn buffer(ring: usize, index: u16) -> u64 {
        GUEST_START + Self::buffer_offset(ring, index)
    }

    fn buffer_offset(ring: usize, index: u16) -> u64 {
        BUFFERS + (ring as u64 * u64::from(RING_SIZE) + u64::from(index)) * BUFFER_BYTES
    }

    /// Writes a descriptor of a ring.
    pub fn descriptor(&self, ring: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let offset = ring as u64 * RING_AREA + u64::from(index) * 16;
        self.script.memory.write(offset, &descriptor_bytes(address, len, flags, next));
    }

    /// Makes the chain at `head` available, and kicks.
    pub fn make_available(&mut self, ring: usize, head: u16) {
        let number = self.available[ring];
        let slot = u64::from(number % RING_SIZE);
        let start = ring as u64 * RING_AREA + AVAILABLE;
        self.script.memory.write(start + 4 + 2 * slot, &head.to_le_bytes());
        self.set_available_index(ring, number.wrapping_add(1));
    }

    /// Stores any available index, and kicks.
    pub fn set_available_index(&mut self, ring: usize, index: u16) {
        self.available[ring] = index;
        self.script.memory.write(ring as u64 * RING_AREA + AVAILABLE + 2, &index.to_le_bytes());
        if let Some(kick) = &self.script.rings[ring].kick {
            // A kick descriptor of the wrong kind need not take it.
            let _ = rustix::io::write(kick, &1u64.to_ne_bytes());
        }
    }

    fn post_receive_buffer(&mut self, index: u16) {
        let bytes = u32::try_from(BUFFER_BYTES).unwrap_or(0);
        self.descriptor(RX, index, Self::buffer(RX, index), bytes, WRITE, 0);
        self.make_available(RX, index);
    }

    /// Sends a frame as a well-behaved guest does, without waiting for its completion.
    pub fn send_frame(&mut self, frame: &[u8]) {
        self.send_with_header(&[0; NET_HEADER], frame);
    }

    /// Sends a frame behind any virtio-net header, without waiting for its completion.
    pub fn send_with_header(&mut self, header: &[u8; NET_HEADER], frame: &[u8]) {
        let index = self.available[TX] % RING_SIZE;
        self.script.memory.write(Self::buffer_offset(TX, index), &[header, frame].concat());
        let bytes = u32::try_from(NET_HEADER + frame.len()).unwrap_or(0);
        self.descriptor(TX, index, Self::buffer(TX, index), bytes, 0, 0);
        self.make_available(TX, index);
    }

    /// The next frame that the switch has put into a receive buffer; the buffer is made available again.
    pub fn receive_frame(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        while self.used_index(RX) == self.used[RX] {
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let slot = u64::from(self.used[RX] % RING_SIZE);
        self.used[RX] = self.used[RX].wrapping_add(1);
        let mut element = [0; 8];
        self.script.memory.read(RX as u64 * RING_AREA + USED + 4 + 8 * slot, &mut element);
        let head = u16::from_le_bytes([element[0], element[1]]);
        let bytes = u32::from_le_bytes([element[4], element[5], element[6], element[7]]);
        let mut frame = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.script.memory.read(Self::buffer_offset(RX, head), &mut frame);
        self.post_receive_buffer(head);
        Some(frame.split_off(NET_HEADER.min(frame.len())))
    }

    /// How many chains the switch has completed.
    pub fn used_index(&self, ring: usize) -> u16 {
        self.script.memory.read_u16(ring as u64 * RING_AREA + USED + 2)
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
