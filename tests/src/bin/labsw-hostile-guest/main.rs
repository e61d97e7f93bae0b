//! `labsw-hostile-guest split|packed|faults FROM-MIB TO-MIB`: a guest that breaks its network device in every way it
//! can think of. It runs as root inside a virtual machine whose kernel leaves the memory between the two numbers alone
//! (`mem=`, `iomem=relaxed`) and has let go of the device.
//!
//! **How it works.** The program drives the virtio-net PCI device by itself: registers through the device's BAR, rings
//! and buffers in the unused memory through `/dev/mem`. It plays the tables of [`chains`], [`headers`], [`rings`] and
//! [`control`], one case after the other. A case ends as its table says: the switch disconnects the device (seen as a
//! link that goes down), or goes on. After each case the device is reset, set up well, and has to get an echo from a
//! neighbour.
//!
//! `faults` breaks a split ring a few times, and wants the wait for the next connection to grow.
//!
//! `labsw-hostile-guest request INTERFACE BYTES` leaves the device to the kernel and has its driver send a frame with a
//! virtio-net header of the caller's choice: `BYTES` are the header's ten and the frame's, in hexadecimal.
//!
//! It prints a line a case, `ok` or `BAD` in front, and ends with status 1 if one was bad.
//!
//! Reference: Virtio 1.2, 2.7 "Split Virtqueues", 2.8 "Packed Virtqueues", 4.1 "Virtio Over PCI Bus", 5.1 "Network
//! Device".
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test program reports by panicking")]

mod chains;
mod control;
mod device;
mod driver;
mod headers;
mod memory;
mod rings;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use driver::{Driver, RX, TX};
use labsw_tests::packet::RawSocket;
use memory::Memory;

/// How long a case that is to end in a fault may take.
const FAULT_PATIENCE: Duration = Duration::from_secs(5);
/// How long an echo may take, and how often a case is played until one comes.
const ECHO_PATIENCE: Duration = Duration::from_secs(2);
const ECHO_TRIES: usize = 3;
/// The time between two requests for a frame.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How long a case that is to end in no fault is watched.
const QUIET: Duration = Duration::from_millis(40);
/// How long the device may take to work again, the switch's wait after a fault included.
const RECOVERY: Duration = Duration::from_secs(30);

/// How a case ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The switch disconnects the device.
    Fault,
    /// It does not.
    Lives,
    /// It does not, and the echo of what was sent comes back.
    Passes,
    /// Either: a race decides, or QEMU.
    Either,
    /// The case is not for this kind of ring.
    Never,
}

/// How a case ends for each kind of ring.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// Split rings: receive, transmit.
    split: [End; 2],
    /// Packed rings: receive, transmit.
    packed: [End; 2],
}

impl Ends {
    /// The same for all.
    const fn all(end: End) -> Ends {
        Ends { split: [end; 2], packed: [end; 2] }
    }

    /// The same for both layouts.
    const fn of(receive: End, transmit: End) -> Ends {
        Ends { split: [receive, transmit], packed: [receive, transmit] }
    }

    /// One for each layout.
    const fn by_layout(split: End, packed: End) -> Ends {
        Ends { split: [split; 2], packed: [packed; 2] }
    }

    /// For a case that breaks the device as a whole.
    const fn once(end: End) -> Ends {
        Ends::of(End::Never, end)
    }

    fn here(self, packed: bool, ring: usize) -> End {
        if packed { self.packed[ring] } else { self.split[ring] }
    }
}

/// One thing that a hostile driver does.
struct Case {
    name: &'static str,
    ends: Ends,
    /// Sets the device up and breaks it, by the ring of this number.
    play: fn(&mut Driver, usize),
}

/// Waits for the end of a case that broke the ring `ring`. The switch reads a receive ring when a frame comes, and the
/// neighbour's socket may lose one on a busy machine: where a fault is expected there, another frame is asked for.
fn outcome(driver: &mut Driver, ring: usize, expected: End) -> End {
    let begin = Instant::now();
    let mut asked = begin;
    let patience = match expected {
        End::Fault => FAULT_PATIENCE,
        End::Passes => ECHO_PATIENCE,
        _ => QUIET,
    };
    while begin.elapsed() < patience {
        if driver.lost_link() {
            return End::Fault;
        }
        if expected == End::Passes && driver.has_echo() {
            return End::Passes;
        }
        if expected == End::Fault && ring == RX && asked.elapsed() > ASK_AGAIN {
            driver.provoke(RX);
            asked = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    End::Lives
}

/// Plays one case of the ring `ring`; whether all was as it should be. An echo may be lost outside the switch: a case
/// that is to pass is played again where none came.
fn play(driver: &mut Driver, what: &str, ring: usize, expected: End, case: impl Fn(&mut Driver)) -> bool {
    let begin = Instant::now();
    let mut seen = End::Lives;
    for _ in 0..if expected == End::Passes { ECHO_TRIES } else { 1 } {
        driver.begin_case();
        case(driver);
        seen = outcome(driver, ring, expected);
        if seen != End::Lives {
            break;
        }
    }
    let broke = begin.elapsed();
    let recovered = driver.recover(RECOVERY);
    let fits = match expected {
        End::Either => true,
        _ => seen == expected,
    };
    let mark = if fits && recovered { "ok" } else { "BAD" };
    let back = if recovered { "works again" } else { "DOES NOT WORK AGAIN" };
    let took = begin.elapsed() - broke;
    println!("{mark} {what}: {seen:?}, {expected:?} expected, after {broke:.0?}; {back} after {took:.0?}");
    fits && recovered
}

/// Breaks the transmit ring a few times; whether the device worked again after each, later and later.
fn faults(driver: &mut Driver) -> bool {
    const TIMES: u32 = 4;
    let waits = (0..TIMES).map_while(|_| {
        driver.begin_case();
        driver.begin();
        driver.post(TX, &[driver::piece(1 << 40, 100, 0)]);
        driver.notify(TX);
        let broken = outcome(driver, TX, End::Fault) == End::Fault;
        let begin = Instant::now();
        (broken && driver.recover(RECOVERY)).then(|| begin.elapsed())
    });
    let waits: Vec<Duration> = waits.collect();
    println!("after faults the device works again after {waits:.0?}");
    waits.len() == TIMES as usize && waits.last() > waits.first()
}

/// Has the kernel's driver send a frame behind its virtio-net header.
fn request(interface: &str, bytes: &str) {
    let byte = |at| u8::from_str_radix(&bytes[at..at + 2], 16).expect("hexadecimal digits");
    let bytes: Vec<u8> = (0..bytes.len()).step_by(2).map(byte).collect();
    let socket = RawSocket::open_here(interface).expect("a packet socket");
    socket.take_headers().expect("virtio-net headers");
    socket.send(&bytes);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, interface, bytes] = arguments.as_slice()
        && command == "request"
    {
        request(interface, bytes);
        return ExitCode::SUCCESS;
    }
    let [layout, from, to] = arguments.as_slice() else {
        panic!("usage: labsw-hostile-guest split|packed|faults FROM TO")
    };
    let mib = |text: &String| text.parse::<u64>().expect("a number of MiB") << 20;
    let packed = layout == "packed";
    let memory = Memory::open(mib(from), mib(to)).expect("memory that the kernel leaves alone");
    let mut driver = Driver::new(device::Device::open().expect("a virtio-net device"), memory, packed);
    assert!(driver.recover(RECOVERY), "no echo from the neighbour before the first case");
    if layout == "faults" {
        return if faults(&mut driver) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (mut played, mut bad) = (0, 0);
    let mut count = |good: bool| {
        played += 1;
        bad += u32::from(!good);
    };
    for ring in [TX, RX] {
        let way = if ring == RX { "receive" } else { "transmit" };
        for case in chains::CHAINS {
            let expected = case.ends.here(packed, ring);
            if expected != End::Never {
                let name = format!("{way}: {}", case.name);
                count(play(&mut driver, &name, ring, expected, |driver| chains::play(driver, ring, case)));
            }
        }
        for case in rings::RINGS.iter().chain(control::CONTROL) {
            let expected = case.ends.here(packed, ring);
            if expected != End::Never {
                let name = format!("{way}: {}", case.name);
                count(play(&mut driver, &name, ring, expected, |driver| (case.play)(driver, ring)));
            }
        }
    }
    for case in headers::HEADERS {
        count(play(&mut driver, &format!("header: {}", case.name), TX, case.end, |driver| headers::play(driver, case)));
    }
    driver.leave();
    println!("{played} cases, {bad} bad");
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
