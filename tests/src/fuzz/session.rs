//! A vhost-user front end that says anything, with any descriptors, against endpoint, session and rings.
//!
//! The input is a sequence of commands: requests (words picked from what a request may plausibly hold), raw bytes,
//! writes to the shared memory, its truncation, turns of the control loop and of the worker, patience that ends.
//! [`Front::start_up`] is the sequence of a well-behaved front end, so that few bytes lead to rings that run.

use std::cell::RefCell;
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
use rustix::fs::ftruncate;

use super::feed::Feed;
use crate::hostile::Wire;
use front::{Front, PAIRS};

mod front;

const LISTENER: Token = Token(1);
const CONNECTION: Token = Token(2);
const COMMANDS: usize = 96;
const PATIENCE: Duration = Duration::from_secs(5);
/// Turns after which an endpoint whose front end is gone must have noticed.
const TURNS: usize = 4096;

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
