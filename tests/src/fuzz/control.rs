//! The control socket: bytes of several clients against the server, as the daemon's loop drives it.
//!
//! The input is what the clients send. The byte 0xff, which no JSON text has, starts a command of one byte: it selects
//! the client that speaks next, lets the server work, lets time pass, or hangs up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use labsw_control::api::{
    Awaited, CaptureSpec, Captures, Change, Changes, Counters, Done, Error, FdbEntries, FdbEntry, Feed, Handler,
    INTERFACE, Impairments, Inlines, Mirrors, Multicast, Peer, PortStats, Ports, Removed, Reply, Request, Stats, Vlans,
    Workers,
};
use labsw_control::varlink::Server;
use mio::{Poll, Token};
use serde_json::{Map, Value};

const ESCAPE: u8 = 0xff;
const CLIENTS: usize = 3;
const FIRST_TOKEN: usize = 100;
/// Turns of the loop after which a server that still has work does not come to rest.
const TURNS: usize = 10_000;

/// Has clients send the bytes, the server answer, and checks each answer.
///
/// # Panics
/// When the server answers with something that is no Varlink reply, answers more than it was asked, hands on a request
/// that does not survive being written down, or does not come to rest.
pub fn control(data: &[u8]) {
    thread_local!(static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) });
    BENCH.with_borrow_mut(|bench| bench.get_or_insert_with(Bench::new).play(data));
    if let Ok(Value::Object(reply)) = serde_json::from_slice::<Value>(data) {
        read_as_client(&reply);
    }
}

/// A switch that knows little: what has to be right here is the talk, not the answers.
#[derive(Default)]
struct Fake;

impl Handler for Fake {
    fn call(&mut self, peer: &Peer, request: Request) -> Result<Reply, Error> {
        assert_survives(&request);
        match request {
            Request::ListWorkers => Ok(Reply::Workers(Workers { workers: Vec::new() })),
            Request::ListPorts => Ok(Reply::Ports(Ports { ports: Vec::new() })),
            Request::ListVlans => Ok(Reply::Vlans(Vlans { vlans: Vec::new() })),
            Request::ListMirrors => Ok(Reply::Mirrors(Mirrors { mirrors: Vec::new() })),
            Request::ListInlines => Ok(Reply::Inlines(Inlines { inlines: Vec::new() })),
            Request::ListImpairments => Ok(Reply::Impairments(Impairments { impairments: Vec::new() })),
            Request::ListMulticast { .. } => Ok(Reply::Multicast(Multicast::default())),
            Request::ShowPort { name } => Err(Error::not_found("port", name)),
            Request::ShowMirror { name } => Err(Error::not_found("mirror", name)),
            Request::ShowInline { name } => Err(Error::not_found("inline", name)),
            // More than may wait to be written, for some.
            Request::ListFdb { vlan, port } => {
                let (mac, port) = ("52:54:00:00:00:01".into(), port.unwrap_or_default());
                let vlan = vlan.unwrap_or(1);
                let entry =
                    FdbEntry { vlan, mac, port, is_static: false, sticky: false, fast_path: false, age_seconds: 1 };
                Ok(Reply::Fdb(FdbEntries { entries: vec![entry; usize::from(vlan)] }))
            }
            Request::GetStats { port, .. } if port.as_deref() == Some("gone") => Err(Error::not_found("port", "gone")),
            Request::GetStats { port, .. } => {
                let counters = Counters { drops: BTreeMap::new(), ..Counters::default() };
                let ports = vec![PortStats { name: port.unwrap_or_default(), counters }];
                Ok(Reply::Stats(Stats { uptime_milliseconds: 1, ports }))
            }
            Request::Change(change) => {
                assert!(peer.may_change());
                match change {
                    Change::FlushFdb { .. } => Ok(Reply::Removed(Removed { removed: 0 })),
                    Change::DeletePort { name } => Err(Error::refused("port", name)),
                    _ => Ok(Reply::Done(Done {})),
                }
            }
            Request::CheckConfig(config) => Ok(Reply::Awaited(Awaited { awaited: vec![config.text] })),
            Request::DiffConfig(_) => Ok(Reply::Changes(Changes { changes: Vec::new() })),
            Request::TraceFrame { port, .. } => Err(Error::not_found("port", port)),
            Request::ListCaptures => Ok(Reply::Captures(Captures { captures: Vec::new() })),
            Request::Capture(_) | Request::Monitor { .. } => panic!("a stream is no call with one answer"),
            Request::GetStatus | Request::ShowConfig => Err(Error::refused("status", "none")),
        }
    }

    fn capture(&mut self, peer: &Peer, spec: CaptureSpec) -> Result<Box<dyn Feed>, Error> {
        assert!(peer.may_change());
        assert_survives(&Request::Capture(spec));
        Err(Error::refused("capture", "none"))
    }
}

/// Asserts that a request is the same after it was written down.
fn assert_survives(request: &Request) {
    let Value::Object(parameters) = request.to_parameters() else { panic!("no object: {request:?}") };
    let method = format!("{INTERFACE}.{}", request.method());
    assert_eq!(Request::parse(&method, parameters).as_ref(), Ok(request));
}

/// A client and what passed between it and the server.
struct Client {
    socket: UnixStream,
    sent: Vec<u8>,
    received: Vec<u8>,
    /// It calls no more.
    quiet: bool,
}

/// A server that outlives the inputs; the clients do not.
struct Bench {
    _poll: Poll,
    server: Server,
    path: PathBuf,
    /// How far the clock was set forward.
    ahead: Duration,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.close();
    }
}

impl Bench {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("labsw-fuzz-control-{}.sock", std::process::id()));
        let poll = Poll::new().expect("epoll");
        let mut server = Server::bind(&path, 0o600, None, None).unwrap_or_else(|e| panic!("{e}"));
        server.register(poll.registry(), FIRST_TOKEN).expect("register");
        Self { _poll: poll, server, path, ahead: Duration::ZERO }
    }

    fn play(&mut self, data: &[u8]) {
        self.ahead = Duration::ZERO;
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| self.connect()).collect();
        let mut speaking = 0;
        for (number, part) in data.split(|&byte| byte == ESCAPE).enumerate() {
            let part = match part.split_first() {
                Some((&command, rest)) if number > 0 => {
                    match command {
                        b'0'..=b'2' => speaking = usize::from(command - b'0'),
                        b'q' => clients[speaking].hang_up(Shutdown::Write),
                        b'Q' => clients[speaking].hang_up(Shutdown::Both),
                        b'r' => clients[speaking].receive(),
                        b't' => self.ahead += Duration::from_millis(700),
                        b'T' => self.ahead += Duration::from_secs(29),
                        _ => {}
                    }
                    self.turn();
                    rest
                }
                _ => part,
            };
            clients[speaking].send(part);
        }
        for _ in 0..TURNS {
            self.turn();
            clients.iter_mut().for_each(Client::receive);
            if self.server.next_tick(Instant::now() + self.ahead) != Some(Duration::ZERO) {
                break;
            }
        }
        clients.iter().for_each(Client::check);
        drop(clients);
        for _ in 0..TURNS {
            self.turn();
            if self.server.clients() == 0 {
                return;
            }
        }
        panic!("{} clients have gone and are still served", self.server.clients());
    }

    fn connect(&mut self) -> Client {
        let socket = UnixStream::connect(&self.path).expect("the server listens");
        socket.set_nonblocking(true).expect("non-blocking");
        self.server.ready(Token(FIRST_TOKEN), &mut Fake);
        Client { socket, sent: Vec::new(), received: Vec::new(), quiet: false }
    }

    /// What the daemon's loop does after a wait.
    fn turn(&mut self) {
        for slot in 0..CLIENTS {
            self.server.ready(Token(FIRST_TOKEN + 1 + slot), &mut Fake);
        }
        self.server.tick(Instant::now() + self.ahead, &mut Fake);
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        // The server may have hung up, or not have read yet.
        let sent = if self.quiet { 0 } else { self.socket.write(bytes).unwrap_or(0) };
        self.sent.extend_from_slice(&bytes[..sent]);
    }

    fn hang_up(&mut self, how: Shutdown) {
        self.quiet = true;
        // It may have been hung up by the server.
        let _ = self.socket.shutdown(how);
    }

    fn receive(&mut self) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.socket.read(&mut chunk) {
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// Checks that each whole message is a reply, and that there are no more final ones than calls.
    fn check(&self) {
        let whole = self.received.iter().rposition(|&byte| byte == 0).map_or(0, |end| end + 1);
        let mut finals = 0;
        for message in self.received[..whole].split_inclusive(|&byte| byte == 0) {
            let message = &message[..message.len() - 1];
            let Ok(Value::Object(reply)) = serde_json::from_slice::<Value>(message) else {
                panic!("no object: {:?}", String::from_utf8_lossy(message));
            };
            let continues = reply.get("continues").is_some_and(|value| *value == Value::Bool(true));
            assert!(reply.get("parameters").is_some_and(Value::is_object), "{reply:?}");
            if let Some(error) = reply.get("error") {
                let parameters = reply["parameters"].as_object().expect("checked");
                let error = Error::parse(error.as_str().expect("a name"), parameters).expect("a known error");
                assert!(!continues && !error.to_string().is_empty());
            }
            finals += usize::from(!continues);
        }
        // A stream ends in an error or with the client. What is too long is refused before its end.
        let calls = self.sent.split(|&byte| byte == 0).count();
        assert!(finals <= calls, "{finals} replies to {calls} calls");
    }
}

/// Reads an object as `labsw-ctl` reads what a switch answers.
fn read_as_client(reply: &Map<String, Value>) {
    let name = || "a".to_owned();
    let requests = [
        Request::GetStatus,
        Request::ListPorts,
        Request::ShowPort { name: name() },
        Request::ListVlans,
        Request::ListFdb { vlan: None, port: None },
        Request::ListMirrors,
        Request::ShowMirror { name: name() },
        Request::GetStats { port: None, interval_milliseconds: None },
        Request::Change(Change::FlushFdb { vlan: None, port: None }),
    ];
    for request in requests {
        if let Ok(reply) = Reply::parse(request.method(), reply.clone()) {
            let Ok(Value::Object(mut message)) = serde_json::to_value(&reply) else { panic!("no object: {reply:?}") };
            let Some(Value::Object(written)) = message.remove("parameters") else { panic!("no parameters: {reply:?}") };
            let again = Reply::parse(request.method(), written);
            assert!(again.is_ok_and(|again| again == reply), "{reply:?}");
        }
    }
}
