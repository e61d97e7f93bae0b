//! The server against good, bad and slow clients, all in one thread: the test plays the control thread.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Server;
use super::connection::{Connection, Next, PATIENCE};
use super::seats::MAX_CLIENTS;
use super::shares::SHARE;
use crate::api::{
    CaptureSpec, Change, Counters, Done, Error, FdbEntries, Feed, Handler, Peer, PortStats, Ports, Removed, Reply,
    Request, Stats,
};

mod clients;
mod feed;
mod socket;

const FIRST_TOKEN: usize = 100;

/// A switch whose answers are easy to tell apart.
#[derive(Default)]
struct Fake {
    calls: Vec<Request>,
    /// The time that it takes to list the ports.
    takes: Duration,
    fdb_entries: usize,
    feeds: Arc<feed::Feeds>,
}

impl Handler for Fake {
    fn call(&mut self, _peer: &Peer, request: Request) -> Result<Reply, Error> {
        self.calls.push(request.clone());
        match request {
            Request::ListPorts => {
                std::thread::sleep(self.takes);
                Ok(Reply::Ports(Ports { ports: Vec::new() }))
            }
            Request::ShowPort { name } => Err(Error::not_found("port", name)),
            Request::Change(Change::FlushFdb { vlan, .. }) => {
                Ok(Reply::Removed(Removed { removed: vlan.unwrap_or_default().into() }))
            }
            Request::Change(_) => Ok(Reply::Done(Done {})),
            Request::ListFdb { .. } => {
                let entry = crate::api::FdbEntry {
                    vlan: 1,
                    mac: "52:54:00:00:00:01".into(),
                    port: "a".into(),
                    is_static: false,
                    sticky: false,
                    fast_path: false,
                    age_seconds: 1,
                };
                Ok(Reply::Fdb(FdbEntries { entries: vec![entry; self.fdb_entries] }))
            }
            Request::GetStats { port: Some(port), .. } if self.calls.len() > 3 => Err(Error::not_found("port", port)),
            Request::GetStats { .. } => {
                let counters = Counters { drops: BTreeMap::new(), ..Counters::default() };
                let ports = vec![PortStats { name: "a".into(), counters }];
                Ok(Reply::Stats(Stats { uptime_milliseconds: self.calls.len() as u64, ports }))
            }
            other => Err(Error::refused("fake", format!("{other:?}"))),
        }
    }

    fn capture(&mut self, _peer: &Peer, _spec: CaptureSpec) -> Result<Box<dyn Feed>, Error> {
        Ok(Box::new(feed::FakeFeed::new(&self.feeds)))
    }
}

/// A path of its own for each test.
fn socket_path() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("labsw-varlink-{}-{number}.sock", std::process::id()))
}

/// A server and its loop.
struct Bench {
    poll: Poll,
    server: Server,
    fake: Fake,
    path: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let path = socket_path();
        let poll = Poll::new().unwrap();
        let mut server = Server::bind(&path, 0o660, None, None).unwrap();
        server.register(poll.registry(), FIRST_TOKEN).unwrap();
        Bench { poll, server, fake: Fake::default(), path }
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(&self.path).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }

    /// Runs the loop until nothing happens for a while.
    fn run(&mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let timeout = self.server.next_tick(Instant::now()).unwrap_or(Duration::MAX).min(Duration::from_millis(20));
            self.poll.poll(&mut events, Some(timeout)).unwrap();
            for event in &events {
                assert!(self.server.owns(event.token()));
                self.server.ready(event.token(), &mut self.fake);
            }
            self.server.tick(Instant::now(), &mut self.fake);
            if events.is_empty() && !timeout.is_zero() {
                return;
            }
        }
    }

    /// Sends bytes and collects the replies.
    fn exchange(&mut self, client: &mut UnixStream, bytes: &[u8]) -> Vec<Value> {
        client.write_all(bytes).unwrap();
        self.run();
        replies(client).0
    }

    /// The switch still answers a good client.
    fn assert_alive(&mut self) {
        let mut client = self.connect();
        let got = self.exchange(&mut client, &call("ListPorts", json!({})));
        assert_eq!(got, [json!({"parameters": {"ports": []}})]);
    }
}

fn call(method: &str, parameters: Value) -> Vec<u8> {
    message(json!({"method": format!("org.labsw.Switch1.{method}"), "parameters": parameters}))
}

fn message(message: Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(0);
    bytes
}

/// Everything that can be read now, and whether the server has hung up.
fn replies(client: &mut UnixStream) -> (Vec<Value>, bool) {
    let mut bytes = Vec::new();
    let closed = match client.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => false,
            ErrorKind::ConnectionReset => true,
            other => panic!("{other}"),
        },
    };
    let messages = bytes.split(|&byte| byte == 0).filter(|message| !message.is_empty());
    (messages.map(|message| serde_json::from_slice(message).unwrap()).collect(), closed)
}

fn error(reply: &Value) -> &str {
    reply["error"].as_str().unwrap()
}

#[test]
fn pipelined_calls_are_answered_in_order() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let bytes: Vec<u8> = (1..=200).flat_map(|vlan| call("FlushFdb", json!({"vlan": vlan}))).collect();
    let got = bench.exchange(&mut client, &bytes);
    let removed: Vec<u64> = got.iter().map(|reply| reply["parameters"]["removed"].as_u64().unwrap()).collect();
    assert_eq!(removed, (1..=200).collect::<Vec<u64>>());
}

#[test]
fn a_call_may_come_byte_by_byte() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let bytes = call("ListPorts", json!({}));
    let (last, first) = bytes.split_last().unwrap();
    for byte in first {
        client.write_all(&[*byte]).unwrap();
        bench.server.ready(mio::Token(FIRST_TOKEN), &mut bench.fake);
        bench.server.ready(mio::Token(FIRST_TOKEN + 1), &mut bench.fake);
    }
    assert_eq!(replies(&mut client), (vec![], false));
    assert_eq!(bench.exchange(&mut client, &[*last]).len(), 1);
}

#[test]
fn oneway_calls_are_done_and_not_answered() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let mut bytes = message(json!({"method": "org.labsw.Switch1.FlushFdb", "oneway": true}));
    bytes.extend(message(json!({"method": "org.labsw.Switch1.Nonsense", "oneway": true})));
    bytes.extend(call("ListPorts", json!({})));
    assert_eq!(bench.exchange(&mut client, &bytes), [json!({"parameters": {"ports": []}})]);
    assert_eq!(bench.fake.calls.len(), 2);
}

#[test]
fn errors_name_what_is_wrong() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    for (bytes, name, parameters) in [
        (call("ShowPort", json!({"name": "x"})), "org.labsw.Switch1.NotFound", json!({"kind": "port", "name": "x"})),
        (call("ListPorts", json!({"a": 1})), "org.varlink.service.InvalidParameter", json!({"parameter": "a"})),
        (
            call("Reboot", json!({})),
            "org.varlink.service.MethodNotFound",
            json!({"method": "org.labsw.Switch1.Reboot"}),
        ),
        (
            message(json!({"method": "org.example.A"})),
            "org.varlink.service.InterfaceNotFound",
            json!({"interface": "org.example"}),
        ),
        (
            message(json!({"method": "org.labsw.Switch1.ListPorts", "upgrade": true})),
            "org.varlink.service.MethodNotImplemented",
            json!({"method": "org.labsw.Switch1.ListPorts"}),
        ),
    ] {
        assert_eq!(bench.exchange(&mut client, &bytes), [json!({"error": name, "parameters": parameters})]);
    }
}

#[test]
fn nonsense_gets_an_error_and_a_closed_connection() {
    let deep = [vec![b'['; 100_000], vec![0]].concat();
    let huge = [vec![b' '; (1 << 20) + 1], vec![0]].concat();
    let endless = vec![b'x'; (1 << 20) + (128 << 10)];
    for bytes in
        [b"{\0".to_vec(), b"\0".to_vec(), b"[]\0".to_vec(), b"{}\0".to_vec(), b"\xff\0".to_vec(), deep, huge, endless]
    {
        let mut bench = Bench::new();
        let mut client = bench.connect();
        let path = bench.path.clone();
        let mut rest = bytes.as_slice();
        let mut got = (Vec::new(), false);
        while !got.1 {
            match client.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe), "{error}"),
            }
            bench.run();
            let (more, closed) = replies(&mut client);
            got.0.extend(more);
            got.1 = closed;
        }
        assert_eq!(got.0.len(), 1, "{:?}…", &bytes[..bytes.len().min(8)]);
        assert_eq!(error(&got.0[0]), "org.varlink.service.InvalidParameter");
        assert_eq!(bench.server.clients(), 0);
        assert!(path.exists());
        bench.assert_alive();
    }
}

#[test]
fn the_largest_call_is_taken() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let mut bytes = call("ListPorts", json!({}));
    bytes.pop();
    bytes.resize(1 << 20, b' ');
    bytes.push(0);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match client.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        bench.run();
    }
    assert_eq!(replies(&mut client), (vec![json!({"parameters": {"ports": []}})], false));
}

#[test]
fn half_a_call_is_closed_after_a_while() {
    let mut bench = Bench::new();
    let (mut half, idle) = (bench.connect(), bench.connect());
    assert_eq!(bench.exchange(&mut half, b"{\"method\""), Vec::<Value>::new());
    bench.server.tick(Instant::now() + PATIENCE / 2, &mut bench.fake);
    assert_eq!(bench.server.clients(), 2);
    bench.server.tick(Instant::now() + PATIENCE, &mut bench.fake);
    assert_eq!(replies(&mut half), (vec![], true));
    assert_eq!(bench.server.clients(), 1, "a client that waits between calls stays");
    drop(idle);
    bench.assert_alive();
}

#[test]
fn the_last_calls_of_a_client_that_stops_sending_are_answered() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.write_all(&call("ListPorts", json!({}))).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    bench.run();
    assert_eq!(replies(&mut client), (vec![json!({"parameters": {"ports": []}})], true));
    assert_eq!(bench.server.clients(), 0);
}

#[test]
fn a_hundred_clients_are_served_and_too_many_turned_away() {
    let mut bench = Bench::new();
    let mut clients: Vec<UnixStream> = Vec::new();
    while clients.len() < MAX_CLIENTS {
        let burst = 64.min(MAX_CLIENTS - clients.len());
        clients.extend((0..burst).map(|_| bench.connect()));
        bench.run();
    }
    assert_eq!(bench.server.clients(), MAX_CLIENTS);
    for client in &mut clients {
        assert_eq!(bench.exchange(client, &call("ListPorts", json!({}))).len(), 1);
    }
    let mut late = bench.connect();
    let answer = bench.exchange(&mut late, &call("ListPorts", json!({})));
    if rustix::process::geteuid().is_root() {
        // Root is never turned away: the client that was silent for longest has given way.
        assert_eq!(answer, [json!({"parameters": {"ports": []}})]);
        assert!(replies(&mut clients[0]).1);
    } else {
        let parameters =
            json!({"object": "control socket", "reason": "128 clients are connected", "code": "impossible"});
        assert_eq!(answer, [json!({"error": "org.labsw.Switch1.Refused", "parameters": parameters})]);
    }
    drop((clients, late));
    bench.run();
    assert_eq!(bench.server.clients(), 0);
    bench.assert_alive();
}

/// Clients with many calls that take long do not hold up one with a single call: it waits for one round of theirs.
#[test]
fn clients_that_ask_for_much_are_served_in_turn() {
    const BUSY: usize = 30;
    const CALLS: usize = 50;
    let mut bench = Bench::new();
    bench.fake.takes = Duration::from_millis(2);
    let many = call("ListPorts", json!({})).repeat(CALLS);
    let mut busy: Vec<UnixStream> = (0..BUSY).map(|_| bench.connect()).collect();
    let mut late = bench.connect();
    late.write_all(&call("ShowPort", json!({"name": "late"}))).unwrap();
    for client in &mut busy {
        client.write_all(&many).unwrap();
    }
    bench.run();
    assert_eq!(bench.fake.calls.len(), BUSY * CALLS + 1, "all are answered in the end");
    let before = bench.fake.calls.iter().position(|call| matches!(call, Request::ShowPort { .. })).unwrap();
    assert!(before <= BUSY * 4, "{before} calls came first");
}

/// A configuration with filters is compiled by the helper thread; the answer comes in its turn.
#[test]
fn calls_behind_one_with_filters_wait_for_it() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let config = json!({"file": "f", "text": "[ports.a]\ntype = \"vhost_user\"\n"});
    let bytes = [call("ListPorts", json!({})), call("CheckConfig", config), call("ListPorts", json!({}))].concat();
    client.write_all(&bytes).unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        bench.run();
        got.extend(replies(&mut client).0);
    }
    assert_eq!(error(&got[1]), "org.labsw.Switch1.Refused", "{got:?}");
    assert!(matches!(bench.fake.calls[..], [Request::ListPorts, Request::CheckConfig(_), Request::ListPorts]));
}

#[test]
fn a_client_that_never_reads_is_paused_and_then_closed() {
    let mut bench = Bench::new();
    bench.fake.fdb_entries = 10_000;
    let mut client = bench.connect();
    for _ in 0..200 {
        if client.write_all(&call("ListFdb", json!({}))).is_err() {
            break;
        }
    }
    bench.run();
    assert!(bench.fake.calls.len() < 10, "answered {} calls of a client that reads nothing", bench.fake.calls.len());
    bench.assert_alive();
    let closed_at = Instant::now() + PATIENCE;
    bench.server.tick(closed_at, &mut bench.fake);
    bench.run();
    assert_eq!(bench.server.clients(), 0);
    bench.assert_alive();
}

#[test]
fn a_large_reply_arrives_whole() {
    let mut bench = Bench::new();
    bench.fake.fdb_entries = 65_536;
    let mut client = bench.connect();
    client.write_all(&call("ListFdb", json!({}))).unwrap();
    let mut bytes = Vec::new();
    while bytes.last() != Some(&0) {
        bench.run();
        let _ = client.read_to_end(&mut bytes);
    }
    let reply: Value = serde_json::from_slice(&bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(reply["parameters"]["entries"].as_array().unwrap().len(), 65_536);
}

#[test]
fn a_stream_goes_on_until_the_client_vanishes() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let start = message(json!({"method": "org.labsw.Switch1.GetStats", "more": true, "parameters": {}}));
    let got = bench.exchange(&mut client, &start);
    assert_eq!((got.len(), &got[0]["continues"]), (1, &json!(true)));
    let mut now = Instant::now();
    for _ in 0..3 {
        now += Duration::from_secs(1);
        bench.server.tick(now, &mut bench.fake);
        assert_eq!(replies(&mut client).0.len(), 1);
    }
    drop(client);
    bench.run();
    assert_eq!(bench.server.clients(), 0);
    assert_eq!(bench.fake.calls.len(), 4);
    bench.assert_alive();
}

#[test]
fn an_error_ends_a_stream_and_the_next_call_is_answered() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let parameters = json!({"port": "a", "interval_milliseconds": 100});
    let mut bytes = message(json!({"method": "org.labsw.Switch1.GetStats", "more": true, "parameters": parameters}));
    bytes.extend(call("ListPorts", json!({})));
    client.write_all(&bytes).unwrap();
    bench.server.ready(mio::Token(FIRST_TOKEN), &mut bench.fake);
    let mut now = Instant::now();
    for _ in 0..3 {
        now += Duration::from_millis(100);
        bench.server.tick(now, &mut bench.fake);
    }
    let got = replies(&mut client).0;
    let continues: Vec<bool> = got.iter().map(|reply| reply["continues"] == true).collect();
    assert_eq!(continues, [true, true, true, false, false]);
    assert_eq!(error(&got[3]), "org.labsw.Switch1.NotFound");
    assert_eq!(got[4], json!({"parameters": {"ports": []}}));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever pieces of calls, zero bytes and noise come, in whatever portions: every complete message before the
    /// first senseless one gets one reply, and the server stays.
    #[test]
    fn any_bytes_get_replies_or_a_closed_connection(
        pieces in prop::collection::vec(prop_oneof![
            3 => Just(call("ListPorts", json!({}))),
            1 => Just(call("ListFdb", json!({"vlan": "x"}))),
            1 => Just(message(json!({"method": 7}))),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ], 0..12),
        portion in 1_usize..200,
    ) {
        let bytes = pieces.concat();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut connection = Connection::new(
            mio::net::UnixStream::from_std(ours),
            Peer::new(0, 0, 1, true),
            String::new(),
            1,
            Instant::now(),
        );
        let mut fake = Fake::default();
        for portion in bytes.chunks(portion) {
            theirs.write_all(portion).unwrap();
            let mut next = connection.turn(Instant::now(), SHARE, &mut fake);
            while next == Next::Again {
                next = connection.turn(Instant::now(), SHARE, &mut fake);
            }
            if next == Next::Close {
                break;
            }
        }
        let messages = bytes.split(|&byte| byte == 0);
        let complete: Vec<&[u8]> = messages.take(bytes.iter().filter(|&&byte| byte == 0).count()).collect();
        let sensible = |message: &&[u8]| {
            serde_json::from_slice::<Value>(message).is_ok_and(|value| value["method"].is_string())
        };
        let good = complete.iter().take_while(|message| sensible(message)).count();
        let expected = if good < complete.len() { good + 1 } else { good };
        prop_assert_eq!(replies(&mut theirs).0.len(), expected);
    }
}
