//! A switch whose ports are all veth pairs: the far end of each is in one namespace, where the test sends and receives
//! exact frames; and [`Flow`], numbered frames between two such ports in the background, of which none may be lost.
//!
//! A port `p` of the switch has its far end `p` in [`Lab::peers`].

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::netns::Netns;
use crate::packet::{ETHERTYPE_TEST, Frame, Mac, RawSocket};
use crate::switch::{Labswd, Site};

/// Bytes a receiving socket can hold: no frame is lost here because the test is late.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Pause between two frames of a [`Flow`].
const FLOW_INTERVAL: Duration = Duration::from_millis(1);
/// How late a frame of a [`Flow`] may be.
const FLOW_PATIENCE: Duration = Duration::from_secs(5);
/// The addresses of a [`Flow`]'s two ends.
const FLOW_FROM: Mac = [0x06, 0xf1, 0, 0, 0, 1];
const FLOW_TO: Mac = [0x06, 0xf1, 0, 0, 0, 2];

/// Two namespaces: one for the switch, one for the far ends of its ports.
#[derive(Debug)]
pub struct Lab {
    /// Where the far ends are.
    pub peers: Netns,
    /// Where the switch runs.
    pub site: Site,
}

impl Lab {
    /// Makes the namespaces; `tag` is part of their names.
    pub fn new(tag: &str) -> Self {
        Self { peers: Netns::new(&format!("{tag}p")), site: Site::new(tag) }
    }

    /// The configuration of veth ports, given as name and further keys (`vlan = { mode = "access", tag = 10 }`).
    pub fn ports(&self, ports: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for (name, keys) in ports {
            let netns = self.peers.name();
            let place = format!("peer = \"x-{name}\"\nnetns = \"{netns}\"\npeer_name = \"{name}\"");
            let _ = write!(text, "\n[ports.{name}]\ntype = \"veth\"\n{place}\n{keys}\n");
        }
        text
    }

    /// Starts a switch with these ports; `before` and `after` are configuration text around them.
    pub fn start(&self, before: &str, ports: &[(&str, &str)], after: &str) -> Labswd<'_> {
        let switch = Labswd::start(&self.site, &format!("{before}\n{}\n{after}\n", self.ports(ports)));
        for (name, _) in ports {
            switch.wait_port_up(name);
        }
        switch
    }

    /// A socket on the far end of a port, with room for many frames.
    ///
    /// # Panics
    /// When the port has no far end.
    pub fn socket(&self, port: &str) -> RawSocket {
        let socket = RawSocket::open(&self.peers, port);
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).expect("root may size buffers");
        socket
    }
}

/// Receives until `count` frames are there (at most for `patience`), then for `quiet` whatever else comes.
pub fn receive(socket: &RawSocket, count: usize, patience: Duration, quiet: Duration) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut frames = Vec::new();
    while frames.len() < count {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
        frames.extend(socket.recv(left));
    }
    frames.extend(socket.recv_all(quiet));
    frames
}

/// Numbered unicast frames from one port to another, one a millisecond.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    /// The sender has ended: `sent` is final.
    sent_all: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    arrived: Arc<AtomicU32>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

impl Flow {
    /// Starts sending untagged frames from the far end of `from` to the far end of `to`.
    ///
    /// # Panics
    /// When no frame gets from `to` to `from`.
    pub fn start(lab: &Lab, from: &str, to: &str) -> Self {
        let (source, sink) = (lab.socket(from), lab.socket(to));
        sink.send(&Frame::new(FLOW_FROM, FLOW_TO).build());
        let first = source.recv_matching(FLOW_PATIENCE, |frame| frame[..6] == FLOW_FROM);
        assert!(first.is_some(), "no way from port {to} to port {from}");
        let (stop, sent_all, sent, arrived) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let sender = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || send_numbered(&source, &stop, &sent))
        };
        let receiver = {
            let (sent_all, sent, arrived) = (Arc::clone(&sent_all), Arc::clone(&sent), Arc::clone(&arrived));
            thread::spawn(move || count_in_order(&sink, &sent_all, &sent, &arrived))
        };
        Self { stop, sent_all, sent, arrived, sender, receiver }
    }

    /// Waits until one more second's worth of frames has been sent at most; asserts that frames still arrive.
    ///
    /// # Panics
    /// When none arrives.
    pub fn assert_flowing(&self, after: &str) {
        let before = self.arrived.load(Ordering::Relaxed);
        crate::process::wait_for(&format!("frame of the flow {after}"), FLOW_PATIENCE, || {
            assert!(!self.receiver.is_finished(), "the flow has broken {after}");
            (self.arrived.load(Ordering::Relaxed) > before).then_some(())
        });
    }

    /// Stops sending; every frame sent has to have arrived, in order. Gives their number.
    ///
    /// # Panics
    /// When a frame is missing or out of order.
    pub fn finish(self) -> u32 {
        // First the sender: it may be about to send one more, which the receiver has to wait for.
        for (stop, thread) in [(self.stop, self.sender), (self.sent_all, self.receiver)] {
            stop.store(true, Ordering::Release);
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let (sent, arrived) = (self.sent.load(Ordering::Relaxed), self.arrived.load(Ordering::Relaxed));
        assert_eq!(sent, arrived, "frames of the flow are lost");
        sent
    }
}

fn send_numbered(source: &RawSocket, stop: &AtomicBool, sent: &AtomicU32) {
    let frame = Frame::new(FLOW_TO, FLOW_FROM);
    while !stop.load(Ordering::Acquire) {
        let number = sent.load(Ordering::Relaxed);
        source.send(&frame.clone().number(number).build());
        sent.store(number + 1, Ordering::Release);
        thread::sleep(FLOW_INTERVAL);
    }
}

fn count_in_order(sink: &RawSocket, sent_all: &AtomicBool, sent: &AtomicU32, arrived: &AtomicU32) {
    let mut last = Instant::now();
    loop {
        let is_last = sent_all.load(Ordering::Acquire);
        let all = arrived.load(Ordering::Relaxed) == sent.load(Ordering::Acquire);
        if is_last && (all || last.elapsed() > FLOW_PATIENCE) {
            return;
        }
        let Some(frame) = sink.recv(Duration::from_millis(20)) else { continue };
        if frame[..6] != FLOW_TO || frame[12..14] != ETHERTYPE_TEST.to_be_bytes() {
            continue;
        }
        let number = u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]]);
        let expected = arrived.load(Ordering::Relaxed);
        assert_eq!(number, expected, "the flow lost frames before this one, or they are out of order");
        arrived.store(expected + 1, Ordering::Relaxed);
        last = Instant::now();
    }
}
