//! A capture that judges: every frame that arrives at an interface is checked by [`Checker`] for lengths and checksums,
//! and for its size. Only what arrives is looked at: what a host itself sends on the interface it may still have to
//! finish.
//!
//! The kernel says of each frame whether its checksum is still to be finished (`TP_STATUS_CSUMNOTREADY`, packet(7)).
//! Such a frame, which may also be one that is still to be cut, can arrive at a TAP interface of the host, whose driver
//! and stack share memory and know of it; behind a veth pair, a NIC and a mirror there is a wire, and none may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::checksum::{Checker, Counts, header_length};
use crate::netns::Netns;
use crate::packet::RawSocket;

/// No frame is lost here because the judge is slow.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Frames that are on their way when the capture ends arrive within this.
const QUIET: Duration = Duration::from_millis(30);
/// Faults that are told in full.
const TOLD: usize = 8;

/// What there is at a place of capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A wire: frames are whole, no longer than the MTU allows.
    Wire,
    /// A TAP interface of the host: frames may be unfinished and uncut, and are said to be.
    HostTap,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Frames by kind; unfinished ones are not among them.
    pub counts: Counts,
    /// Frames that the kernel knows to be unfinished.
    pub unfinished: u64,
    faults: Vec<String>,
    faulty: u64,
    lost: u32,
    incomplete: usize,
}

impl Seen {
    /// Asserts that every frame was right and none was missed.
    ///
    /// # Panics
    /// When not, with what was wrong.
    pub fn assert_right(&self, what: &str) {
        assert_eq!(self.faulty, 0, "{what}: {} frames, of them wrong:\n{}", self.counts.frames, self.faults.join("\n"));
        assert_eq!((self.lost, self.incomplete), (0, 0), "{what}: frames missed, datagrams in incomplete fragments");
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Capture {
    /// Starts to judge what arrives at `interface`, where an IP packet may have `mtu` bytes.
    ///
    /// # Panics
    /// When the interface is missing.
    pub fn start(ns: &Netns, interface: &str, mtu: usize, place: Place) -> Self {
        let socket = RawSocket::open(ns, interface);
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).expect("root may size buffers");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || judge(&socket, mtu, place, &stop))
        };
        Self { stop, thread }
    }

    /// Judges what is on its way still, and ends.
    ///
    /// # Panics
    /// When reading has failed.
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn judge(socket: &RawSocket, mtu: usize, place: Place, stop: &AtomicBool) -> Seen {
    let (mut seen, mut checker) = (Seen::default(), Checker::default());
    let quiet = Timespec::try_from(QUIET).expect("it fits");
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let (frame, unfinished) = match socket.try_recv_with_state() {
            Ok(received) => received,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let waiting = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&quiet));
                if stopping && waiting == Ok(0) {
                    break;
                }
                continue;
            }
            Err(e) => panic!("receive on a raw socket: {e}"),
        };
        if unfinished && place == Place::HostTap {
            seen.unfinished += 1;
            continue;
        }
        let limit = header_length(&frame) + mtu;
        let verdict = match checker.check(&frame) {
            Ok(()) if unfinished => Err("its checksum is still to be finished".to_owned()),
            Ok(()) if frame.len() > limit => Err(format!("longer than {limit} bytes")),
            verdict => verdict,
        };
        if let Err(fault) = verdict {
            seen.faulty += 1;
            if seen.faults.len() < TOLD {
                let start: String = frame.iter().take(80).map(|byte| format!("{byte:02x}")).collect();
                seen.faults.push(format!("{fault}: {} bytes {start}", frame.len()));
            }
        }
    }
    seen.lost = socket.lost();
    seen.incomplete = checker.incomplete();
    seen.counts = checker.counts;
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{veth, wire};
    use crate::packet::{Frame, mac};
    use crate::require::{self, Need};

    /// A datagram between two namespaces, judged at the receiver; gives what was seen there.
    fn datagram(joined: impl Fn((&Netns, &str), (&Netns, &str)), place: Place) -> Seen {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        joined((&a, "w0"), (&b, "w1"));
        a.address("w0", "10.7.0.1/24");
        b.address("w1", "10.7.0.2/24");
        let capture = Capture::start(&b, "w1", 1500, place);
        a.enter(|| {
            let socket = std::net::UdpSocket::bind("10.7.0.1:0").unwrap();
            socket.send_to(&[7; 3000], "10.7.0.2:9").unwrap();
            socket.send_to(&[7; 1000], "10.7.0.2:9").unwrap();
        });
        std::thread::sleep(Duration::from_millis(50));
        capture.finish()
    }

    #[test]
    fn finished_frames_are_right_and_unfinished_ones_are_not() {
        if !require::all(&[Need::Root, Need::Program("ethtool")]) {
            return;
        }
        let seen = datagram(wire, Place::Wire);
        seen.assert_right("behind a wire");
        assert!(seen.counts.udp == 2 && seen.counts.fragments == 3, "{seen:?}");
        // With its offloads a veth pair hands over datagrams without a checksum, and says so.
        assert!(datagram(veth, Place::Wire).faulty > 0);
        let seen = datagram(veth, Place::HostTap);
        seen.assert_right("unfinished frames are allowed");
        assert!(seen.unfinished > 0, "{seen:?}");
    }

    #[test]
    fn long_frames_are_faults() {
        if !require::all(&[Need::Root, Need::Program("ethtool")]) {
            return;
        }
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        wire((&a, "w0"), (&b, "w1"));
        let sender = RawSocket::open(&a, "w0");
        let capture = Capture::start(&b, "w1", 1000, Place::Wire);
        for (tags, length) in [(0, 1000), (1, 1000), (0, 1001), (1, 1001)] {
            let frame = (0..tags).fold(Frame::new(mac(1), mac(2)).payload(&vec![1; length]), |frame, _| frame.vlan(7));
            sender.send(&frame.build());
        }
        let seen = capture.finish();
        assert_eq!((seen.counts.frames, seen.faulty), (4, 2), "{seen:?}");
    }
}
