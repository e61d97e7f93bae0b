//! Proves how the server treats who asks, who asks wrong, and who is slow or many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::*;

/// A site with one page, of more bytes than a socket takes at once.
struct OnePage(Answer);

impl Site for OnePage {
    fn answer(&mut self, request: &Request<'_>, _: Instant) -> Answer {
        match request.path {
            "/page" => self.0.clone(),
            "/host" => Answer::ok("", request.host.unwrap_or("none").as_bytes().to_vec()),
            _ => Answer::of_status("404 Not Found"),
        }
    }
}

/// A server in a thread of its own.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Server {
        let poll = Poll::new().unwrap();
        let listener = Listener::open("127.0.0.1:0".parse().unwrap(), poll.registry(), 5).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (listener.address().unwrap(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut site =
                OnePage(Answer::ok("Content-Type: text/plain\r\n", "labsw 1\n".repeat(1 << 20).into_bytes()));
            serve(poll, listener, &mut site, &mut || stopped.load(Ordering::Relaxed)).unwrap();
        });
        Server { address, stop, thread: Some(thread) }
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
        // The loop asks whether it is over after an event.
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

const GOOD: &str = "GET /page HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_request_gets_its_answer_and_anything_else_a_refusal() {
    let server = Server::start();
    let answer = server.ask(GOOD);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", 8 << 20)), "{head}");
    assert!(body.len() == 8 << 20 && body.ends_with("labsw 1\n"));
    for (request, status) in [
        ("GET /page?x=1 HTTP/1.0\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /page/ HTTP/1.1\r\n\r\n", "404"),
        ("POST /page HTTP/1.1\r\n\r\n", "405"),
        ("HEAD /page HTTP/1.1\r\n\r\n", "405"),
        ("GET /page HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", "400"),
        ("\0\0\r\n\r\n", "400"),
        (&format!("GET /page HTTP/1.1\r\nX: {}", "x".repeat(MAX)), "431"),
        (&format!("GET /page HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(33)), "431"),
    ] {
        let answer = server.ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {:?}", answer.get(..60));
    }
    assert!(server.ask("GET /host HTTP/1.1\r\nhOST:  lab:80 \r\n\r\n").ends_with("\r\n\r\nlab:80"));
}

/// Fills a request to its limit with what is before it.
const MAX: usize = MAX_REQUEST_BYTES - 23;

#[test]
fn loopback_is_known_by_its_names() {
    let is = |host| Request { path: "/", host }.is_for_loopback();
    for host in ["localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:9480", "127.1.2.3:1", "[::1]", "[::1]:9480"] {
        assert!(is(Some(host)), "{host}");
    }
    for host in ["", "lab", "lab:80", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "[::2]:1"] {
        assert!(!is(Some(host)), "{host}");
    }
    assert!(!is(None));
}

#[test]
fn an_answer_is_given_again_until_it_is_old() {
    let mut cached = Cached::new(Duration::from_millis(100));
    let begin = Instant::now();
    let mut get = |after, status| cached.get(begin + Duration::from_millis(after), || Answer::of_status(status)).status;
    assert_eq!([get(0, "1"), get(99, "2"), get(150, "3"), get(170, "4")], ["1", "1", "3", "3"]);
}

#[test]
fn the_slow_and_the_many_harm_nobody() {
    let server = Server::start();
    let began = Instant::now();
    // Silent, half a request, and one that reads nothing.
    let mut idle: Vec<TcpStream> = (0..MAX_CLIENTS).map(|_| server.connect()).collect();
    idle[1].write_all(b"GET /pag").unwrap();
    idle[2].write_all(GOOD.as_bytes()).unwrap();
    // One more is turned away.
    let mut one_more = server.connect();
    assert!(matches!(one_more.read(&mut [0; 10]), Ok(0) | Err(_)));
    assert!(began.elapsed() < Duration::from_secs(4));
    // When their time is up, there is room again.
    for stream in idle.iter_mut().filter(|stream| stream.peer_addr().is_ok()) {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(server.ask(GOOD).starts_with("HTTP/1.1 200"));
}
