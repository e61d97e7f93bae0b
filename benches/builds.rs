//! Two builds of labswd, taking turns behind the same generator: the check that finds a loss of speed that instruction
//! counts do not show.
//!
//! usage: `benches/builds.sh REVISION`, which builds both and runs this; or
//! `cargo bench -p labsw-benches --bench builds -- OLD/labswd NEW/labswd [seconds=1] [rounds=5] [ring=1024]
//! [SIZE/FLOWS/DIRECTION ...]`
//!
//! SIZE is that of RFC 2544, with FCS. FLOWS is the number of station pairs, taken in turn. DIRECTION is `uni` (port 0
//! to port 1) or `bi`. Default cells: 64/1/uni 64/1000/uni 64/1000/bi 1518/1/uni.
//!
//! **The generator** plays two guests on CPU 1; the switch's worker has CPU 0. Descriptors and frames are written once.
//! After that only the index of each available ring moves, by as much as the used index moved, so the generator costs
//! next to nothing per frame and the worker is always the bottleneck.
//!
//! **The order** of the two builds alternates from round to round (old new, new old, …). Each start of a build is one
//! sample: the best of eight windows, because whatever else the machine does only slows a window down. A row shows the
//! medians and the median of the ratios, round by round, with the lowest and the highest.
#![allow(missing_docs, reason = "a bench")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench")]
#![allow(clippy::cast_possible_truncation, reason = "ring indexes wrap, sizes are small")]

#[path = "builds/guest.rs"]
mod guest;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest::{Guest, Memory};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

const WINDOWS: u32 = 8;
/// Between two looks at the used rings: a burst of the switch fits in between.
const LOOK: Duration = Duration::from_micros(3);
const WARM_UP: Duration = Duration::from_millis(500);
const START: Duration = Duration::from_secs(10);

/// One measurement: frames of `bytes` (in the ring, without FCS) of `flows` station pairs.
struct Cell {
    name: String,
    bytes: usize,
    flows: u16,
    both: bool,
}

impl Cell {
    fn parse(name: &str) -> Option<Cell> {
        let mut parts = name.split('/');
        let bytes = parts.next()?.parse::<usize>().ok()?.checked_sub(4)?;
        let flows = parts.next()?.parse().ok()?;
        let both = match parts.next()? {
            "uni" => false,
            "bi" => true,
            _ => return None,
        };
        let is_possible = (60..=1514).contains(&bytes) && flows > 0 && parts.next().is_none();
        is_possible.then(|| Cell { name: name.to_owned(), bytes, flows, both })
    }
}

struct Options {
    builds: [PathBuf; 2],
    seconds: f64,
    rounds: usize,
    ring: u16,
    cells: Vec<Cell>,
}

impl Options {
    /// `None`: the words make no sense.
    fn parse(words: impl Iterator<Item = String>) -> Option<Options> {
        let mut paths = Vec::new();
        let (mut seconds, mut rounds, mut ring, mut cells) = (1.0, 5, 1024, Vec::new());
        for word in words.filter(|word| word != "--bench") {
            match word.split_once('=') {
                Some(("seconds", value)) => seconds = value.parse().ok()?,
                Some(("rounds", value)) => rounds = value.parse().ok()?,
                Some(("ring", value)) => ring = value.parse().ok().filter(|ring: &u16| ring.is_power_of_two())?,
                Some(_) => return None,
                None if paths.len() < 2 => paths.push(PathBuf::from(word)),
                None => cells.push(Cell::parse(&word)?),
            }
        }
        if cells.is_empty() {
            let usual = ["64/1/uni", "64/1000/uni", "64/1000/bi", "1518/1/uni"];
            cells = usual.iter().filter_map(|name| Cell::parse(name)).collect();
        }
        let builds = paths.try_into().ok()?;
        (rounds > 0 && seconds > 0.0).then_some(Options { builds, seconds, rounds, ring, cells })
    }
}

/// A running labswd with two vhost-user ports; killed when dropped.
struct Switch {
    child: Child,
    dir: PathBuf,
}

impl Switch {
    fn start(program: &Path) -> Switch {
        let dir = std::env::temp_dir().join(format!("labsw-builds-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.display();
        let mut config = format!(
            "[switch]\nworkers = [0]\npower = \"performance\"\ncontrol_socket = \"{path}/control.sock\"\nvhost_user_dir = \"{path}\"\n"
        );
        for port in ["p0", "p1"] {
            config += &format!("[ports.{port}]\ntype = \"vhost_user\"\nvlan = {{ mode = \"access\", tag = 10 }}\n");
        }
        let file = dir.join("labsw.toml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg("--config")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        Switch { child, dir }
    }

    fn socket(&self, port: u8) -> PathBuf {
        self.dir.join(format!("p{port}.sock"))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("needs two CPUs");
}

/// Keeps the rings of both guests moving for `time`; frames are offered by the guests for which `sends` says so.
/// Returns the number of frames received.
fn exchange(guests: &mut [Guest; 2], sends: [bool; 2], time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut received = 0;
    loop {
        for (guest, sends) in guests.iter_mut().zip(sends) {
            received += u64::from(guest.receive());
            guest.transmit(sends);
        }
        let look = Instant::now();
        if look >= end {
            return received;
        }
        while look.elapsed() < LOOK {
            std::hint::spin_loop();
        }
    }
}

/// The rate of one start of `program`, Mpps: that of the best window.
fn sample(program: &Path, cell: &Cell, options: &Options) -> f64 {
    let switch = Switch::start(program);
    let memory = Memory::new(options.ring);
    let mut guests = [0u8, 1].map(|port| {
        let mut guest = Guest::connect(&switch.socket(port), &memory, port, START);
        guest.write_frames(cell.bytes, cell.flows);
        guest
    });
    std::thread::sleep(Duration::from_millis(300));
    // Each side is heard once, so that every station is known; then both are silent.
    for teacher in 0..2 {
        guests[teacher].offer_all();
        exchange(&mut guests, [false; 2], Duration::from_millis(300));
        assert!(guests[teacher].is_drained(), "{}: a ring is not emptied", program.display());
    }
    let sends = [true, cell.both];
    for (guest, sends) in guests.iter_mut().zip(sends) {
        if sends {
            guest.offer_all();
        }
    }
    exchange(&mut guests, sends, WARM_UP);
    let window = Duration::from_secs_f64(options.seconds / f64::from(WINDOWS));
    let rate = |_| exchange(&mut guests, sends, window) as f64 / window.as_secs_f64() / 1e6;
    let best = (0..WINDOWS).map(rate).fold(0.0, f64::max);
    assert!(best > 0.0, "{}: no frame arrived", program.display());
    best
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        println!("builds: give two programs; see the head of benches/builds.rs. Nothing is measured.");
        return;
    };
    pin(1);
    println!("{:<14} {:>10} {:>10} {:>8}  {:<13}", "cell", "old Mpps", "new Mpps", "new/old", "lowest–highest");
    for cell in &options.cells {
        let (mut rates, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..options.rounds {
            let mut pair = [0.0; 2];
            for build in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                pair[build] = sample(&options.builds[build], cell, &options);
                rates[build].push(pair[build]);
            }
            ratios.push(pair[1] / pair[0]);
        }
        let [old, new] = &mut rates;
        let ratio = median(&mut ratios);
        let (lowest, highest) = (ratios[0], ratios[ratios.len() - 1]);
        let (old, new) = (median(old), median(new));
        println!("{:<14} {old:>10.2} {new:>10.2} {ratio:>8.3}  {lowest:.2}–{highest:.2}", cell.name);
    }
}
