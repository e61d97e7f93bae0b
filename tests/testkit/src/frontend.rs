//! A vhost-user front end that says exactly what it is told to, and an endpoint driven by an event loop of its own.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use labsw_dataplane::sys::socket::SocketAccess;
use labsw_dataplane::vhost_user::{
    Endpoint, EndpointConfig, EndpointState, Rings, RingsError, Role, Timing, VhostOp, VhostPort, VhostReply,
};
use mio::{Events, Poll, Token};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub use crate::request::*;

use crate::guest::{Guest, USER_BASE};

pub const LISTENER: Token = Token(1);
pub const CONNECTION: Token = Token(2);

pub const PROTOCOL: u64 = 1 << 30;

/// A port without a worker: operations are done at once.
#[derive(Clone)]
pub struct Port(pub Arc<Mutex<VhostPort>>);

impl Rings for Port {
    fn operate(&mut self, op: VhostOp) -> Result<VhostReply, RingsError> {
        Ok(self.0.lock().unwrap().operate(op))
    }
}

/// A path for a socket that no other test uses.
pub fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("labsw-{}-{name}.sock", std::process::id()))
}

/// How long a front end may be silent. By the harness' clock, which [`Harness::skip`] moves, so that a test on a busy
/// machine never waits that long by accident.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn config(path: &Path, role: Role) -> EndpointConfig {
    let timing = Timing {
        contested: Duration::from_millis(60),
        patience: PATIENCE,
        retry: Duration::from_millis(20),
        fault_wait: Duration::from_millis(20),
        longest_fault_wait: Duration::from_millis(160),
    };
    let port_name = "guest1".to_owned();
    EndpointConfig {
        port_name,
        path: path.to_owned(),
        role,
        access: SocketAccess { mode: 0o660, owner: None, group: None },
        peer_uid: None,
        queue_pairs: 1,
        offloads: true,
        mtu: 1500,
        timing,
        memory_limit: Arc::default(),
    }
}

/// An endpoint, its port and its event loop.
pub struct Harness {
    pub endpoint: Endpoint,
    pub port: Arc<Mutex<VhostPort>>,
    pub path: PathBuf,
    poll: Poll,
    /// The endpoint's time is so far ahead of the clock.
    ahead: Duration,
}

impl Harness {
    pub fn new(name: &str, role: Role) -> Harness {
        Harness::with(config(&socket_path(name), role))
    }

    pub fn with(config: EndpointConfig) -> Harness {
        let path = config.path.clone();
        let port = Arc::new(Mutex::new(VhostPort::new(1)));
        let mut endpoint = Endpoint::open(config, Box::new(Port(Arc::clone(&port)))).unwrap();
        let poll = Poll::new().unwrap();
        endpoint.register(poll.registry(), LISTENER, CONNECTION).unwrap();
        Harness { endpoint, port, path, poll, ahead: Duration::ZERO }
    }

    /// The endpoint's time.
    pub fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// Lets so much of the endpoint's time go by, in no time.
    pub fn skip(&mut self, time: Duration) {
        self.ahead += time;
    }

    /// One turn of the event loop, of at most 20 ms.
    pub fn turn(&mut self) {
        let due = self.endpoint.tick(self.now()).unwrap_or(Duration::from_millis(20));
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(due.min(Duration::from_millis(20)))).unwrap();
        for event in &events {
            self.endpoint.ready(event.token(), self.now());
        }
    }

    /// Turns until `done`, for at most five seconds.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Endpoint) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !done(&self.endpoint) {
            assert!(Instant::now() < end, "not within 5 s: {what}; {:?}", self.endpoint.status());
            self.turn();
        }
    }

    /// Turns while `work` runs on a thread of its own.
    pub fn during<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(work);
            while !thread.is_finished() {
                self.turn();
            }
            thread.join().unwrap()
        })
    }

    /// Connects; if nobody else is, waits until served.
    pub fn connect(&mut self) -> Front {
        let free = !self.endpoint.status().connected;
        let front = Front(UnixStream::connect(&self.path).unwrap());
        front.0.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        if free {
            self.until("connected", |endpoint| endpoint.status().connected);
        }
        front
    }

    /// Sends a request that is answered with a number.
    pub fn ask(&mut self, front: &mut Front, code: u32, payload: &[u64]) -> u64 {
        front.send(code, payload, &[]);
        self.during(|| front.reply(code))
    }

    pub fn is_up(&self) -> bool {
        self.endpoint.status().state == EndpointState::Up
    }

    /// Why the front end was thrown out.
    pub fn rejection(&mut self) -> String {
        self.until("the front end is thrown out", |endpoint| {
            !endpoint.status().connected && endpoint.status().state == EndpointState::Failed
        });
        self.endpoint.status().reason.unwrap()
    }
}

/// The front end's socket.
pub struct Front(pub UnixStream);

impl Front {
    /// Sends a well-formed request of 64-bit words.
    pub fn send(&self, code: u32, payload: &[u64], fds: &[BorrowedFd<'_>]) {
        self.send_flags(code, 1, payload, fds);
    }

    pub fn send_flags(&self, code: u32, flags: u32, payload: &[u64], fds: &[BorrowedFd<'_>]) {
        let mut bytes = Vec::new();
        for word in [code, flags, 8 * payload.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        payload.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        self.send_bytes(&bytes, fds);
    }

    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        // The other side may have hung up on us already, which tests see elsewhere.
        let _ = sendmsg(self.0.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    }

    /// The value of the reply to `code`, checked to be exactly what front ends insist on.
    pub fn reply(&mut self, code: u32) -> u64 {
        let mut bytes = [0; 20];
        self.0.read_exact(&mut bytes).unwrap();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(8)), (code, 5, 8));
        u64::from_ne_bytes(bytes[12..].try_into().unwrap())
    }

    /// Returns true if the other side hung up.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 64]), Ok(0) | Err(_))
    }

    pub fn memory_table(&self, guest: &Guest) {
        let words = [1, crate::guest::GUEST_BASE, guest.bytes(), USER_BASE, 0];
        self.send(SET_MEM_TABLE, &words, &[guest.memfd.as_fd()]);
    }

    /// NUM, BASE, ADDR and KICK of one ring.
    pub fn ring(&self, guest: &Guest, ring: usize) {
        let index = ring as u64;
        let (size, addresses) = (u64::from(guest.rings[ring].size), guest.addresses(ring));
        self.send(SET_VRING_NUM, &[index | size << 32], &[]);
        self.send(SET_VRING_BASE, &[index], &[]);
        self.send(SET_VRING_ADDR, &[index, addresses.descriptors, addresses.used, addresses.available, 0], &[]);
        self.send(SET_VRING_KICK, &[index], &[guest.rings[ring].kick.as_fd()]);
    }

    pub fn call(&self, guest: &Guest, ring: usize) {
        self.send(SET_VRING_CALL, &[ring as u64], &[guest.rings[ring].call.as_fd()]);
    }

    pub fn enable(&self, ring: u64, on: u64) {
        self.send(SET_VRING_ENABLE, &[ring | on << 32], &[]);
    }
}
