//! DPDK's `testpmd` on a virtio-user port: a vhost-user client (front end) that nobody here wrote.
//!
//! It is driven through its prompt. It polls: one CPU is busy while it forwards. Huge pages are not used.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::process::{self, Process};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
const PROMPT: &str = "testpmd> ";

/// What testpmd does with frames; the names are its own.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Receives and counts.
    RxOnly,
    /// Sends UDP frames of 64 bytes to the peer's address.
    TxOnly,
    /// Sends UDP frames of many flows, and receives.
    FlowGen,
    /// Sends back what it receives, to the peer's address.
    Mac,
    /// Sends back what it receives with source and destination swapped.
    MacSwap,
    /// Answers ARP requests and pings for any address.
    IcmpEcho,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::RxOnly => "rxonly",
            Self::TxOnly => "txonly",
            Self::FlowGen => "flowgen",
            Self::Mac => "mac",
            Self::MacSwap => "macswap",
            Self::IcmpEcho => "icmpecho",
        }
    }
}

/// Frames and bytes of testpmd's port so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// A running testpmd. Dropped, it is killed.
#[derive(Debug)]
pub struct Testpmd {
    process: Process,
    position: usize,
}

impl Testpmd {
    /// Connects to the vhost-user socket `socket` with the MAC address `mac`, and waits for the prompt; nothing is
    /// forwarded before [`Testpmd::start`]. `peer` is where the modes that choose a destination send to.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn connect(socket: &Path, mac: &str, peer: &str, mode: Mode, queues: u16) -> Self {
        Self::connect_with(socket, mac, peer, mode, queues, "")
    }

    /// As [`Testpmd::connect`], with more options of the virtio-user device (`packed_vq=1,in_order=1`).
    ///
    /// # Panics
    /// When it does not come up.
    pub fn connect_with(socket: &Path, mac: &str, peer: &str, mode: Mode, queues: u16, options: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("lswt{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut device = format!("net_virtio_user0,path={},queues={queues},mac={mac}", socket.display());
        if !options.is_empty() {
            device += &format!(",{options}");
        }
        // Into a pipe its output would come in blocks, long after the prompt.
        let mut command = Command::new("stdbuf");
        command.args(["-o0", "dpdk-testpmd"]);
        command.args(["-l", "0,1", "--no-pci", "--no-huge", "--no-shconf", "-m", "128"]);
        command.args(["--no-telemetry", "--file-prefix", &prefix, "--vdev", &device, "--", "--interactive"]);
        command.args(["--total-num-mbufs=8192", &format!("--rxq={queues}"), &format!("--txq={queues}")]);
        command.args(["--eth-peer", &format!("0,{peer}"), "--forward-mode", mode.name()]);
        let mut process = Process::spawn("testpmd", &mut command);
        // A message on the other stream may come in the midst of the first prompt.
        let (_, links) = process.wait_for_text(0, "Checking link statuses", START_TIMEOUT);
        let (_, position) = process.wait_for_text(links, "> ", START_TIMEOUT);
        Self { process, position }
    }

    /// Runs a command at its prompt and gives what it printed.
    pub fn command(&mut self, command: &str) -> String {
        self.process.write(&format!("{command}\n"));
        let (output, position) = self.process.wait_for_text(self.position, PROMPT, COMMAND_TIMEOUT);
        self.position = position;
        output
    }

    /// Starts forwarding.
    pub fn start(&mut self) {
        self.command("start");
    }

    /// Stops forwarding.
    pub fn stop(&mut self) {
        self.command("stop");
    }

    /// The counters of its port.
    ///
    /// # Panics
    /// When testpmd prints them otherwise than known.
    pub fn stats(&mut self) -> Stats {
        let text = self.command("show port stats 0");
        let number = |label: &str| {
            let rest = text.split_once(label).map(|(_, rest)| rest.trim_start());
            let digits = rest.and_then(|r| r.split(|c: char| !c.is_ascii_digit()).next());
            digits.and_then(|d| d.parse().ok()).unwrap_or_else(|| panic!("no {label} in {text}"))
        };
        Stats {
            rx_frames: number("RX-packets:"),
            rx_bytes: number("RX-bytes:"),
            tx_frames: number("TX-packets:"),
            tx_bytes: number("TX-bytes:"),
        }
    }

    /// Waits until its counters satisfy `enough`; gives them.
    ///
    /// # Panics
    /// When the time is up.
    pub fn wait_stats(&mut self, what: &str, timeout: Duration, enough: impl Fn(&Stats) -> bool) -> Stats {
        process::wait_for(what, timeout, || Some(self.stats()).filter(|stats| enough(stats)))
    }

    /// Leaves as a well-behaved client does.
    pub fn quit(mut self) {
        self.process.write("quit\n");
        self.process.wait(COMMAND_TIMEOUT);
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
