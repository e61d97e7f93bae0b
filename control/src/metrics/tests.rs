//! Proves the text word for word, that the dashboard asks for what there is, and how the listener treats who is slow,
//! many or wrong.

use labsw_switch::vlan::{PortVlan, VlanMode};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::*;
use crate::api::{Counters, MulticastTotals, PortDirection, PortType, Vlan};

fn status() -> Status {
    let vlan = Vlan::shown(&PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap());
    let drops = [("oversize".to_owned(), 3), ("runt".to_owned(), 0)].into();
    let kernel = [("rx_dropped".to_owned(), 6)].into();
    let counters = Counters { rx_frames: 5, rx_bytes: 500, tx_frames: 4, tx_bytes: 400, drops, kernel };
    let port = Port { state: PortState::Waiting, counters, ..Port::new("we\"b\\", PortType::Veth, vlan) };
    let mirror = Mirror {
        name: "m".into(),
        state: MirrorState::Up,
        reason: None,
        to: Some("span".into()),
        to_vlan: None,
        force: false,
        sources: Vec::new(),
        vlans: Vec::new(),
        filter: None,
        snaplen: 0,
        inject: None,
        matched: 9,
        sent: 8,
        dropped: 1,
        truncated: 0,
    };
    let worker = Worker {
        id: 0,
        cpu: Some(3),
        busy_percent: 25.0,
        frames_per_burst: 2.5,
        asleep: false,
        asleep_percent: 50.0,
        queues: Vec::new(),
    };
    Status {
        version: "0.1.0".into(),
        uptime_seconds: 7,
        uptime_milliseconds: 7000,
        power: "adaptive".into(),
        workers: vec![worker],
        ports: vec![port],
        mirrors: vec![mirror],
        impairments: vec![Impairment {
            port: "p".into(),
            direction: PortDirection::Tx,
            frames: 9,
            delayed: 6,
            lost: 2,
            queue_full: 1,
            ..Impairment::default()
        }],
        multicast: MulticastTotals { groups: 12, invalid_messages: 13, refused_memberships: 14 },
        mac_moves: 15,
        unconfirmed: None,
    }
}

#[test]
fn the_text_is_that_of_prometheus() {
    let text = text(&families(&status()));
    for line in [
        "# TYPE labsw_impair_frames_total counter",
        "labsw_impair_frames_total{direction=\"tx\",outcome=\"passed\",port=\"p\"} 6",
        "labsw_impair_frames_total{direction=\"tx\",outcome=\"lost\",port=\"p\"} 2",
        "labsw_build_info{version=\"0.1.0\"} 1",
        "labsw_uptime_seconds 7",
        "# TYPE labsw_worker_busy_ratio gauge",
        "labsw_worker_busy_ratio{cpu=\"3\",worker=\"0\"} 0.25",
        "labsw_worker_asleep_ratio{cpu=\"3\",worker=\"0\"} 0.5",
        "labsw_worker_frames_per_burst{cpu=\"3\",worker=\"0\"} 2.5",
        "labsw_port_state{port=\"we\\\"b\\\\\",state=\"up\",type=\"veth\"} 0",
        "labsw_port_state{port=\"we\\\"b\\\\\",state=\"waiting\",type=\"veth\"} 1",
        "labsw_port_mtu_bytes{port=\"we\\\"b\\\\\",type=\"veth\"} 1500",
        "# TYPE labsw_port_received_frames_total counter",
        "labsw_port_received_frames_total{port=\"we\\\"b\\\\\",type=\"veth\"} 5",
        "labsw_port_received_bytes_total{port=\"we\\\"b\\\\\",type=\"veth\"} 500",
        "labsw_port_sent_frames_total{port=\"we\\\"b\\\\\",type=\"veth\"} 4",
        "labsw_port_sent_bytes_total{port=\"we\\\"b\\\\\",type=\"veth\"} 400",
        "labsw_port_dropped_frames_total{port=\"we\\\"b\\\\\",reason=\"oversize\",type=\"veth\"} 3",
        "labsw_port_dropped_frames_total{port=\"we\\\"b\\\\\",reason=\"runt\",type=\"veth\"} 0",
        "labsw_port_kernel_events_total{counter=\"rx_dropped\",port=\"we\\\"b\\\\\",type=\"veth\"} 6",
        "labsw_mirror_up{mirror=\"m\",to=\"span\"} 1",
        "labsw_mirror_matched_frames_total{mirror=\"m\",to=\"span\"} 9",
        "labsw_mirror_sent_frames_total{mirror=\"m\",to=\"span\"} 8",
        "labsw_mirror_dropped_frames_total{mirror=\"m\",to=\"span\"} 1",
        "labsw_mirror_truncated_frames_total{mirror=\"m\",to=\"span\"} 0",
        "labsw_multicast_groups 12",
        "labsw_multicast_invalid_messages_total 13",
        "labsw_multicast_refused_memberships_total 14",
        "labsw_mac_moves_total 15",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
    assert!(
        text.ends_with('\n')
            && text.lines().filter(|line| line.starts_with("# HELP ")).count() == families(&status()).len()
    );
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard = include_str!("../../grafana/labsw.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 5));
    let names: Vec<&str> = families(&status()).iter().map(|family| family.name).collect();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut asked: Vec<&str> = dashboard
        .match_indices("labsw_")
        .map(|(at, _)| &dashboard[at..])
        .map(|rest| &rest[..rest.find(|c| !is_name(c)).unwrap()])
        .collect();
    asked.sort_unstable();
    asked.dedup();
    assert!(asked.len() > 8 && asked.iter().all(|name| names.contains(name)), "{asked:?}");
}

/// A listener in a thread of its own.
struct Server {
    address: SocketAddr,
    rendered: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

use std::net::SocketAddr;

impl Server {
    fn start() -> Server {
        let mut poll = Poll::new().unwrap();
        let mut listener = Listener::open("127.0.0.1:0".parse().unwrap(), poll.registry(), 5).unwrap();
        let (stop, rendered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let address = listener.address().unwrap();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&rendered));
        let thread = std::thread::spawn(move || {
            let mut events = Events::with_capacity(16);
            let mut render = || {
                count.fetch_add(1, Ordering::Relaxed);
                // More than a socket takes at once.
                Ok("labsw 1\n".repeat(1 << 20))
            };
            while !stopped.load(Ordering::Relaxed) {
                let wait = listener.tick(Instant::now(), &mut render).unwrap_or(Duration::MAX);
                poll.poll(&mut events, Some(wait.min(Duration::from_millis(20)))).unwrap();
                for event in &events {
                    listener.ready(event.token(), Instant::now(), &mut render);
                }
            }
        });
        Server { address, rendered, stop, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The whole answer to a request.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

const GOOD: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_scrape_gets_the_text_and_anything_else_a_refusal() {
    let server = Server::start();
    let answer = server.ask(GOOD);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", 8 << 20)), "{head}");
    assert_eq!(body.len(), 8 << 20);
    for (request, status) in [
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("\0\0\r\n\r\n", "400"),
        (&format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(MAX)), "431"),
        (&format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(33)), "431"),
    ] {
        let answer = server.ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {:?}", answer.get(..60));
    }
}

/// Fills a request to its limit with what is before it.
const MAX: usize = 4096 - 26;

#[test]
fn the_slow_and_the_many_harm_nobody() {
    let server = Server::start();
    let began = Instant::now();
    // Silent, half a request, and one that reads nothing.
    let mut idle: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    idle[1].write_all(b"GET /met").unwrap();
    idle[2].write_all(GOOD.as_bytes()).unwrap();
    // The ninth is turned away.
    let mut ninth = server.connect();
    assert!(matches!(ninth.read(&mut [0; 10]), Ok(0) | Err(_)));
    assert!(began.elapsed() < Duration::from_secs(4));
    // When their time is up, there is room again.
    for stream in idle.iter_mut().filter(|stream| stream.peer_addr().is_ok()) {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(server.ask(GOOD).starts_with("HTTP/1.1 200"));
    // Asked in a hurry, it is not worked out again each time.
    let before = server.rendered.load(Ordering::Relaxed);
    let began = Instant::now();
    (0..5).for_each(|_| drop(server.ask(GOOD)));
    let allowed = began.elapsed().as_millis() / 100 + 2;
    assert!(u128::from(server.rendered.load(Ordering::Relaxed) - before) <= allowed);
}
