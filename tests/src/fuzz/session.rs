//! A vhost-user front end that says anything, with any descriptors, against endpoint, session and rings.
//!
//! The input is a sequence of commands: requests (words picked from what a request may plausibly hold), raw bytes,
//! writes to the shared memory, its truncation, turns of the control loop and of the worker, patience that ends.
//! [`Front::start_up`] is the sequence of a well-behaved front end, so that few bytes lead to rings that run.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use labsw_dataplane::frame::{Burst, MAX_FRAME_BYTES, Segment};
use labsw_dataplane::port::{Fault, RxQueue, Turn};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::sys::socket::SocketAccess;
use labsw_dataplane::vhost_user::{
    Endpoint, EndpointConfig, Rings, RingsError, Role, Timing, VhostOp, VhostPort, VhostReply,
};
use labsw_switch::forward::{TagEdit, TxItem};
use mio::{Poll, Token};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::feed::Feed;
use crate::hostile::{Wire, descriptor_bytes, request as code};

const LISTENER: Token = Token(1);
const CONNECTION: Token = Token(2);
const PAIRS: u16 = 2;
const COMMANDS: usize = 96;
const PATIENCE: Duration = Duration::from_secs(5);
/// Turns after which an endpoint whose front end is gone must have noticed.
const TURNS: usize = 4096;

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
/// Within this time all descriptors of a front end that has gone are closed.
const REAPED: Duration = Duration::from_secs(5);
/// Between two looks whether the reaper is done.
const REAPER_PAUSE: Duration = Duration::from_millis(1);

/// Plays the commands to a port that then has to be as it was before.
///
/// # Panics
/// When a reply is malformed or not asked for, a burst holds impossible frames, a reason is not one line, a descriptor
/// leaks, or the port does not come to rest after its front end has gone.
pub fn session(data: &[u8]) {
    thread_local!(static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) });
    BENCH.with_borrow_mut(|bench| {
        let bench = bench.get_or_insert_with(Bench::new);
        let before = open_descriptors();
        bench.play(&mut Feed::new(data));
        // The reaper closes what the front end sent, on a thread of its own.
        let end = Instant::now() + REAPED;
        while open_descriptors() != before && Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(open_descriptors(), before, "descriptors leaked");
    });
}

/// How many descriptors the process has: the same before and after, unless one leaked.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count()
}

/// A port without a worker: operations are done at once.
struct Direct(Arc<Mutex<VhostPort>>);

impl Rings for Direct {
    fn operate(&mut self, op: VhostOp) -> Result<VhostReply, RingsError> {
        Ok(self.0.lock().expect("not poisoned").operate(op))
    }
}

/// A port that outlives the inputs.
struct Bench {
    _poll: Poll,
    endpoint: Endpoint,
    port: Arc<Mutex<VhostPort>>,
    path: PathBuf,
    /// How far the endpoint's time is ahead of ours.
    skipped: Duration,
}

impl Bench {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("labsw-fuzz-session-{}.sock", std::process::id()));
        let port = Arc::new(Mutex::new(VhostPort::new(PAIRS)));
        let config = EndpointConfig {
            port_name: "fuzz".to_owned(),
            path: path.clone(),
            role: Role::Server,
            access: SocketAccess { mode: 0o600, owner: None, group: None },
            peer_uid: None,
            queue_pairs: PAIRS,
            offloads: true,
            mtu: 1500,
            timing: Timing { patience: PATIENCE, fault_wait: Duration::ZERO, ..Timing::default() },
            memory_limit: Arc::default(),
        };
        let poll = Poll::new().expect("epoll");
        let rings = Box::new(Direct(Arc::clone(&port)));
        let mut endpoint = Endpoint::open(config, rings).unwrap_or_else(|e| panic!("{e}"));
        endpoint.register(poll.registry(), LISTENER, CONNECTION).expect("register");
        Self { _poll: poll, endpoint, port, path, skipped: Duration::ZERO }
    }

    fn play(&mut self, feed: &mut Feed<'_>) {
        let mut front = self.connect();
        for _ in 0..COMMANDS {
            if feed.is_empty() {
                break;
            }
            let command = feed.u8();
            match command % 16 {
                0..4 => front.request(feed),
                4 => front.raw(feed),
                5 => front.start_up(feed, command >= 128),
                6 | 7 if command >= 128 => front.offer_packed(feed),
                6 | 7 => front.offer(feed),
                8 => front.write(feed),
                9 if command >= 128 => {
                    let bytes = u64::from(feed.u8()) << 8;
                    let _ = ftruncate(&front.log, bytes);
                }
                9 => {
                    let bytes = u64::from(feed.u8()) << 10;
                    // A descriptor that was sealed stays as it is.
                    let _ = ftruncate(&front.memory[usize::from(feed.flag())], bytes);
                }
                10 => {
                    self.skipped += Duration::from_secs(u64::from(feed.u8() % 8));
                    let now = self.now();
                    self.endpoint.tick(now);
                }
                11 => {
                    drop(front);
                    self.settle();
                    front = self.connect();
                }
                12 if command >= 128 => front.log(feed),
                12 => front.receive(),
                13 => self.control_turn(),
                _ => {
                    self.control_turn();
                    self.worker_turn(feed);
                }
            }
        }
        self.control_turn();
        self.worker_turn(feed);
        front.receive();
        drop(front);
        self.settle();
    }

    fn connect(&mut self) -> Front {
        let wire = Wire::connect(&self.path);
        wire.socket.set_nonblocking(true).expect("non-blocking");
        let now = self.now();
        self.endpoint.ready(LISTENER, now);
        // While the reaper still closes many descriptors of earlier front ends, the next one waits.
        let end = Instant::now() + REAPED;
        while !self.endpoint.status().connected && Instant::now() < end {
            std::thread::sleep(REAPER_PAUSE);
            let now = self.now();
            self.endpoint.tick(now);
        }
        assert!(self.endpoint.status().connected, "{:?}", self.endpoint.status());
        Front::new(wire)
    }

    /// The time of the endpoint, which never goes back.
    fn now(&self) -> Instant {
        Instant::now() + self.skipped
    }

    /// What the daemon's loop does for events of the connection.
    fn control_turn(&mut self) {
        let now = self.now();
        self.endpoint.ready(CONNECTION, now);
        self.endpoint.tick(now);
        let status = self.endpoint.status();
        assert_eq!(status.rings.len(), 2 * usize::from(PAIRS));
        assert!(status.reason.is_none_or(|reason| is_one_line(&reason)));
    }

    /// The front end has gone: the endpoint has to notice, and to let go of everything.
    fn settle(&mut self) {
        for _ in 0..TURNS {
            self.control_turn();
            if !self.endpoint.status().connected {
                break;
            }
            // Half a request may hold the last descriptor of the front end's own socket.
            self.skipped += 2 * PATIENCE;
            let now = self.now();
            self.endpoint.tick(now);
        }
        let status = self.endpoint.status();
        assert!(!status.connected && status.rings.iter().all(|ring| !ring.started), "{status:?}");
        let port = self.port.lock().expect("not poisoned");
        assert!(port.rx.iter().all(|rx| rx.wait_fd().is_none()));
    }

    /// One turn of a worker: frames in, frames out; a fault is told to the endpoint.
    fn worker_turn(&mut self, feed: &mut Feed<'_>) {
        let port = Arc::clone(&self.port);
        let mut port = port.lock().expect("not poisoned");
        if let Err(fault) = work(&mut port, feed) {
            assert!(is_one_line(&fault.reason), "{fault:?}");
            drop(port);
            let now = self.now();
            self.endpoint.fault(&fault, now);
            assert!(!self.endpoint.status().connected);
        }
    }
}

fn is_one_line(text: &str) -> bool {
    !text.is_empty() && !text.contains('\n')
}

/// Receives on all queues, then sends two frames.
fn work(port: &mut VhostPort, feed: &mut Feed<'_>) -> Result<(), Fault> {
    for queue in 0..port.rx.len() {
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        port.receive(queue, &mut burst, &mut stats)?;
        let (mut frames, mut bytes) = (0, 0);
        for index in 0..burst.len() {
            let frame = read(&burst, u8::try_from(index).expect("at most 64"));
            assert!(frame.len() <= MAX_FRAME_BYTES as usize);
            (frames, bytes) = (frames + 1, bytes + frame.len() as u64);
        }
        let drops: u64 = stats.drops.iter().sum();
        assert!(frames <= stats.rx_frames && stats.rx_frames <= frames + drops && bytes <= stats.rx_bytes, "{stats:?}");
        port.release(queue, &mut burst)?;
        assert!(burst.is_empty());
    }
    let frames = [vec![0x5a; usize::from(feed.u16() >> 2)], vec![0xa5; 60], vec![0xa5; 60]];
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    for frame in &frames {
        let segment = Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).expect("short") };
        // SAFETY: the frames outlive the burst and do not change.
        assert!(unsafe { burst.push(0, &[segment]) });
    }
    let items = [0, 1, 2].map(|frame| TxItem::whole(frame, TagEdit::KEEP));
    let unsent = port.send(&mut burst, &items, &mut stats)?;
    assert!(unsent < 8);
    assert_eq!(stats.tx_frames + stats.drops.iter().sum::<u64>(), items.len() as u64);
    for rx in &mut port.rx {
        rx.arm(&Turn::ONLY);
        rx.disarm();
    }
    Ok(())
}

fn read(burst: &Burst, index: u8) -> Vec<u8> {
    let mut reader = burst.reader(&TxItem::whole(index, TagEdit::KEEP)).expect("a frame");
    let mut bytes = vec![0; reader.remaining() as usize];
    let room = reader.remaining();
    // SAFETY: `bytes` has that length.
    assert_eq!(unsafe { reader.read(bytes.as_mut_ptr(), room) }, room);
    bytes
}

/// The front end of one connection and its memory.
struct Front {
    wire: Wire,
    memory: [OwnedFd; 2],
    /// The file of its log of pages.
    log: OwnedFd,
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
    fn new(wire: Wire) -> Self {
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
    fn request(&mut self, feed: &mut Feed<'_>) {
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

    fn raw(&mut self, feed: &mut Feed<'_>) {
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
    fn start_up(&mut self, feed: &mut Feed<'_>, packed: bool) {
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
    fn log(&mut self, feed: &mut Feed<'_>) {
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
    fn offer(&mut self, feed: &mut Feed<'_>) {
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
    fn offer_packed(&mut self, feed: &mut Feed<'_>) {
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

    fn write(&self, feed: &mut Feed<'_>) {
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
    fn receive(&mut self) {
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
