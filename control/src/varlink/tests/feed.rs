//! Streams whose replies come when there is something to say: captures.

use std::net::Shutdown;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::api::CapturePiece;

/// What a test sees of the feeds, and says to them.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    /// Pieces that are there to be taken.
    ready: AtomicU64,
    given: AtomicU64,
    /// Feeds that were not dropped yet.
    alive: AtomicU64,
}

/// Gives pieces that say how many there were, of 100,000 bytes; the last one is empty.
#[derive(Debug)]
pub(super) struct FakeFeed {
    feeds: Arc<Feeds>,
    finishing: bool,
    begun: Instant,
}

impl FakeFeed {
    pub(super) fn new(feeds: &Arc<Feeds>) -> FakeFeed {
        feeds.alive.fetch_add(1, Ordering::Relaxed);
        FakeFeed { feeds: Arc::clone(feeds), finishing: false, begun: Instant::now() }
    }
}

impl Drop for FakeFeed {
    fn drop(&mut self) {
        self.feeds.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feed for FakeFeed {
    fn due(&self) -> Option<Instant> {
        (self.feeds.ready.load(Ordering::Relaxed) > 0).then_some(self.begun)
    }

    fn next(&mut self, _now: Instant) -> Option<(Reply, bool)> {
        let Feeds { ready, given, .. } = &*self.feeds;
        let piece = |pcapng: String, captured| Reply::CapturePiece(CapturePiece { pcapng, captured, dropped: 0 });
        if ready.load(Ordering::Relaxed) > 0 {
            ready.fetch_sub(1, Ordering::Relaxed);
            let captured = given.fetch_add(1, Ordering::Relaxed) + 1;
            return Some((piece("A".repeat(100_000), captured), false));
        }
        self.finishing.then(|| (piece(String::new(), given.load(Ordering::Relaxed)), true))
    }

    fn finish(&mut self, _now: Instant) {
        self.finishing = true;
    }
}

/// Calls Capture; nothing has come yet.
fn start(bench: &mut Bench) -> UnixStream {
    let mut client = bench.connect();
    let capture = json!({"method": "org.labsw.Switch1.Capture", "parameters": {}, "more": true});
    assert_eq!(bench.exchange(&mut client, &message(capture)), [] as [Value; 0]);
    client
}

/// `captured` and `continues` of each reply.
fn pieces(replies: &[Value]) -> Vec<(u64, bool)> {
    let piece = |reply: &Value| (reply["parameters"]["captured"].as_u64().unwrap(), reply["continues"] == true);
    replies.iter().map(piece).collect()
}

fn alive(bench: &Bench) -> u64 {
    bench.fake.feeds.alive.load(Ordering::Relaxed)
}

#[test]
fn pieces_are_sent_as_they_come_and_the_rest_when_the_client_has_finished_sending() {
    let mut bench = Bench::new();
    let mut client = start(&mut bench);
    bench.fake.feeds.ready.store(1, Ordering::Relaxed);
    bench.run();
    assert_eq!(pieces(&replies(&mut client).0), [(1, true)]);
    // A call behind it waits for its end.
    assert_eq!(bench.exchange(&mut client, &call("ListPorts", json!({}))), [] as [Value; 0]);
    bench.fake.feeds.ready.store(1, Ordering::Relaxed);
    client.shutdown(Shutdown::Write).unwrap();
    bench.run();
    let (got, closed) = replies(&mut client);
    assert_eq!((pieces(&got[..2]), closed), (vec![(2, true), (2, false)], true));
    assert_eq!(got[2], json!({"parameters": {"ports": []}}));
    assert_eq!((alive(&bench), bench.server.clients()), (0, 0));
}

#[test]
fn a_client_that_goes_ends_its_feed() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..20).map(|_| start(&mut bench)).collect();
    assert_eq!(alive(&bench), 20);
    drop(clients);
    bench.run();
    assert_eq!((alive(&bench), bench.server.clients()), (0, 0));
    // Also while something waits for it.
    let client = start(&mut bench);
    bench.fake.feeds.ready.store(100, Ordering::Relaxed);
    bench.run();
    drop(client);
    bench.run();
    assert_eq!((alive(&bench), bench.server.clients()), (0, 0));
}

#[test]
fn a_feed_waits_for_a_client_that_does_not_read_and_ends_with_its_patience() {
    let mut bench = Bench::new();
    let client = start(&mut bench);
    bench.fake.feeds.ready.store(1000, Ordering::Relaxed);
    bench.run();
    let given = bench.fake.feeds.given.load(Ordering::Relaxed);
    assert!((1..8).contains(&given), "{given} pieces were made for a client that reads none");
    bench.assert_alive();
    bench.server.tick(Instant::now() + PATIENCE, &mut bench.fake);
    bench.run();
    assert_eq!((alive(&bench), bench.server.clients()), (0, 0));
    drop(client);
}

#[test]
fn frames_are_only_for_those_who_may_change_the_switch_and_only_as_a_stream() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    let got = bench.exchange(&mut client, &call("Capture", json!({})));
    assert_eq!(error(&got[0]), "org.varlink.service.ExpectedMore");
    let (mut stranger, socket) = UnixStream::pair().unwrap();
    stranger.set_nonblocking(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (socket, peer) = (mio::net::UnixStream::from_std(socket), Peer::new(1000, 1000, 1, false));
    let mut connection = Connection::new(socket, peer, "changes need root".into(), 1, Instant::now());
    let capture = json!({"method": "org.labsw.Switch1.Capture", "more": true});
    stranger.write_all(&message(capture)).unwrap();
    assert_eq!(connection.turn(Instant::now(), SHARE, &mut bench.fake), Next::Wait);
    let got = replies(&mut stranger).0;
    assert_eq!(error(&got[0]), "org.labsw.Switch1.PermissionDenied");
    assert_eq!(alive(&bench), 0);
}
