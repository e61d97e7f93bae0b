//! A switch under attack while others work: what a hostile peer may cost everybody else, measured.
//!
//! [`Arena`] is a switch with one guest port for attackers ([`EVIL`]), a container port in its VLAN ([`WEB`]), and two
//! guests in another VLAN between which [`Probe`] sends numbered frames, one after the other, and times each. A
//! [`Watch`] asks the control socket for the status ten times a second and counts what the process holds.
//! [`Arena::withstands`] runs an attack and holds what was measured meanwhile against [`Bounds`].
//!
//! **Invariants.** The probe's frames never meet an attacker's: only the worker, the control thread and the memory of
//! the process are shared. So no frame of the probe may be lost, whatever the attack.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::hostile::{FrontEnd, MEMORY_BYTES, Script};
use crate::packet::{BROADCAST, Frame, mac};
use crate::process::wait_for;
use crate::switch::Labswd;
use crate::veth_lab::Lab;

/// The port that attackers connect to: a guest in VLAN 10.
pub const EVIL: &str = "evil";
/// A container in VLAN 10.
pub const WEB: &str = "web";
const ALICE: &str = "alice";
const BOB: &str = "bob";
const GUESTS: &str = r#"
[ports.alice]
type = "vhost_user"
vlan = { mode = "access", tag = 99 }
[ports.bob]
type = "vhost_user"
vlan = { mode = "access", tag = 99 }
[ports.evil]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
"#;
/// Room for the largest attacker of these tests; what goes beyond has to be refused.
const LIMITS: &str = "max_guest_memory = \"2GiB\"\n";
const WEB_KEYS: &str = r#"vlan = { mode = "access", tag = 10 }"#;
const STATUS: &[u8] = b"{\"method\":\"org.labsw.Switch1.GetStatus\"}\0";
const SECOND: Duration = Duration::from_secs(1);
/// When a frame of the probe counts as lost, and an answer as none.
const GIVEN_UP: Duration = Duration::from_secs(20);
const PROBE_PAUSE: Duration = Duration::from_millis(2);
const PROBE_SLEEP: Duration = Duration::from_micros(50);
const WATCH_PAUSE: Duration = Duration::from_millis(100);
const FORGIVE_PAUSE: Duration = Duration::from_millis(20);

/// What an attack may cost the others.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// 99 of 100 frames of the probe take no longer.
    pub p99: Duration,
    /// No frame takes longer.
    pub gap: Duration,
    /// `GetStatus` is answered within.
    pub status: Duration,
    /// SIGTERM ends the process within.
    pub stop: Duration,
    /// Mappings of the process.
    pub mappings: usize,
    /// Descriptors of the process beyond those before the attack.
    pub descriptors: usize,
    /// Address space of the process, bytes.
    pub address_space: u64,
}

impl Bounds {
    /// What is promised (`LABSW_TEST_QUIET=1`: a release build, alone on its machine), or what a debug build on a
    /// machine with much else to do keeps easily. Every fault that these tests are about exceeds both.
    pub fn here() -> Self {
        let quiet = std::env::var("LABSW_TEST_QUIET").as_deref() == Ok("1");
        let (p99, gap, status) = if quiet { (2, 50, 200) } else { (400, 3000, 3000) };
        Self {
            p99: Duration::from_millis(p99),
            gap: Duration::from_millis(gap),
            status: Duration::from_millis(status),
            stop: 5 * SECOND,
            mappings: 1000,
            descriptors: 64,
            address_space: 12 << 30,
        }
    }
}

/// Numbered frames from one guest to another, each sent when the last has arrived.
#[derive(Debug)]
struct Probe {
    stop: Arc<AtomicBool>,
    /// How long each frame took.
    times: Arc<Mutex<Vec<Duration>>>,
    /// Frames that have arrived.
    arrived: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Probe {
    fn start(switch: &Labswd<'_>) -> Self {
        let guest = |port: &str| FrontEnd::start(&switch.vhost_socket(port), Script::sized([256, 64], MEMORY_BYTES));
        let (mut alice, mut bob) = (guest(ALICE), guest(BOB));
        [ALICE, BOB].iter().for_each(|port| switch.wait_port_up(port));
        alice.send_frame(&Frame::new(BROADCAST, mac(1)).build());
        assert!(bob.receive_frame(5 * SECOND).is_some(), "no way from {ALICE} to {BOB}");
        let stop = Arc::new(AtomicBool::new(false));
        let (times, arrived) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(0)));
        let thread = {
            let (stop, times, arrived) = (Arc::clone(&stop), Arc::clone(&times), Arc::clone(&arrived));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let took = pass(&mut bob, &mut alice, arrived.load(Ordering::Relaxed));
                    times.lock().expect("no panic with it").push(took);
                    arrived.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PROBE_PAUSE);
                }
            })
        };
        Self { stop, times, arrived, thread }
    }

    /// Waits until a frame that was sent after this call has arrived: the one that is on its way now came before it.
    fn pass_one(&self, after: &str) {
        let next = self.arrived.load(Ordering::Relaxed) + 2;
        wait_for(&format!("frame between two other ports after {after}"), 2 * GIVEN_UP, || {
            assert!(!self.thread.is_finished(), "a frame between two other ports was lost by {after}");
            (self.arrived.load(Ordering::Relaxed) >= next).then_some(())
        });
    }

    /// The times since the last call, sorted.
    fn take(&self) -> Vec<Duration> {
        let mut times = std::mem::take(&mut *self.times.lock().expect("no panic with it"));
        times.sort_unstable();
        times
    }
}

/// Sends one frame and waits for it.
fn pass(from: &mut FrontEnd, to: &mut FrontEnd, number: u32) -> Duration {
    let frame = Frame::new(mac(1), mac(2)).number(number).build();
    let begin = Instant::now();
    from.send_frame(&frame);
    loop {
        if let Some(seen) = to.try_receive_frame() {
            assert_eq!(seen, frame, "a frame that nobody sent, or one that was changed");
            return begin.elapsed();
        }
        assert!(begin.elapsed() < GIVEN_UP, "frame {number} between two other ports was lost");
        thread::sleep(PROBE_SLEEP);
    }
}

/// The most that was seen at any time.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    status: Duration,
    mappings: usize,
    descriptors: usize,
    address_space: u64,
}

impl Seen {
    /// What the process holds now, and how long it took to answer.
    fn now(pid: u32, socket: &Path) -> Self {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let vm_size = file("status")
            .lines()
            .find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Self {
            status: time_of_status(socket),
            mappings: file("maps").lines().count(),
            descriptors,
            address_space: vm_size.unwrap_or_default() * 1024,
        }
    }

    fn at_most(self, other: Self) -> Self {
        Self {
            status: self.status.max(other.status),
            mappings: self.mappings.max(other.mappings),
            descriptors: self.descriptors.max(other.descriptors),
            address_space: self.address_space.max(other.address_space),
        }
    }
}

/// How long the switch takes to tell its status; [`GIVEN_UP`] when it does not.
pub fn time_of_status(socket: &Path) -> Duration {
    let begin = Instant::now();
    call(socket, STATUS).map_or(GIVEN_UP, |()| begin.elapsed())
}

/// Calls a method of the control socket, by the whole message, and waits for the answer.
fn call(socket: &Path, message: &[u8]) -> std::io::Result<()> {
    let mut client = UnixStream::connect(socket)?;
    client.set_read_timeout(Some(GIVEN_UP))?;
    client.write_all(message)?;
    let mut bytes = [0; 4096];
    loop {
        let len = client.read(&mut bytes)?;
        if len == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if bytes[len - 1] == 0 {
            return Ok(());
        }
    }
}

/// Has ports serve whoever comes next, without the wait that follows a fault, until it is dropped.
#[derive(Debug)]
pub struct Forgiver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forgiver {
    /// Starts to forgive these ports, fifty times a second.
    ///
    /// # Panics
    /// (In its thread) when the switch does not take the word.
    pub fn start(socket: PathBuf, ports: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for port in ports {
                    let method = "org.labsw.Switch1.SetPortState";
                    let parameters = format!("{{\"name\":\"{port}\",\"up\":true}}");
                    let message = format!("{{\"method\":\"{method}\",\"parameters\":{parameters}}}\0");
                    call(&socket, message.as_bytes()).expect("an answer of the switch");
                }
                thread::sleep(FORGIVE_PAUSE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Forgiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Looks at the process again and again.
#[derive(Debug)]
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(pid: u32, socket: PathBuf) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let thread = {
            let (stop, most) = (Arc::clone(&stop), Arc::clone(&most));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seen = Seen::now(pid, &socket);
                    let mut most = most.lock().expect("no panic with it");
                    *most = most.at_most(seen);
                    drop(most);
                    thread::sleep(WATCH_PAUSE);
                }
            })
        };
        Self { stop, most, thread }
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.most.lock().expect("no panic with it"))
    }
}

/// All the places there are for attackers.
#[derive(Clone, Copy, Debug)]
pub struct Seats<'a> {
    switch: &'a Labswd<'a>,
    lab: &'a Lab,
}

impl<'a> Seats<'a> {
    /// The place at a port.
    pub fn at(self, port: &str) -> Seat<'a> {
        Seat { switch: self.switch, lab: self.lab, port: port.to_owned() }
    }
}

/// The place of an attacker: a guest port, and the network around the switch.
#[derive(Debug)]
pub struct Seat<'a> {
    /// The switch.
    pub switch: &'a Labswd<'a>,
    /// Where it is.
    pub lab: &'a Lab,
    port: String,
}

impl Seat<'_> {
    /// The socket that the attacker connects to.
    pub fn socket(&self) -> PathBuf {
        self.switch.vhost_socket(&self.port)
    }

    /// Has the port serve whoever comes next, without the wait that follows a fault.
    pub fn forgive(&self) {
        wait_for("end of the last attacker's connection", GIVEN_UP, || {
            (self.switch.port(&self.port)["connected"] == false).then_some(())
        });
        self.switch.ctl(&["port", "up", &self.port]);
    }

    /// Starts a front end at the port, whatever the last one did there.
    pub fn front(&self, script: Script) -> FrontEnd {
        self.forgive();
        FrontEnd::start(&self.socket(), script)
    }

    /// The same, and waits until its rings run.
    pub fn attacker(&self, script: Script) -> FrontEnd {
        let front = self.front(script);
        wait_for("rings of the attacker", GIVEN_UP, || (self.switch.port_state(&self.port) == "up").then_some(()));
        front
    }
}

/// The switch, the probe and the watch.
#[derive(Debug)]
pub struct Arena<'a> {
    /// The switch.
    pub switch: Labswd<'a>,
    /// Where it is.
    pub lab: &'a Lab,
    bounds: Bounds,
    probe: Probe,
    watch: Watch,
    before: Seen,
}

impl<'a> Arena<'a> {
    /// Starts the switch: `settings` of `[switch]`, further veth ports, further text.
    pub fn start(lab: &'a Lab, settings: &str, ports: &[(&str, &str)], more: &str) -> Self {
        let ports = [&[(WEB, WEB_KEYS)], ports].concat();
        let switch = lab.start(&format!("{LIMITS}{settings}"), &ports, &format!("{GUESTS}{more}"));
        let probe = Probe::start(&switch);
        let socket = lab.site.control_socket();
        let before = Seen::now(switch.pid(), &socket);
        let watch = Watch::start(switch.pid(), socket);
        let mut arena = Self { switch, lab, bounds: Bounds::here(), probe, watch, before };
        arena.withstands("nothing", |_| thread::sleep(SECOND / 5));
        arena
    }

    /// The place at the port of attackers.
    pub fn seat(&self) -> Seat<'_> {
        self.seats().at(EVIL)
    }

    fn seats(&self) -> Seats<'_> {
        Seats { switch: &self.switch, lab: self.lab }
    }

    /// Runs an attack; meanwhile, and for a moment afterwards, everybody else is served within the bounds.
    ///
    /// # Panics
    /// When they are not.
    pub fn withstands(&mut self, what: &str, attack: impl FnOnce(&Seat<'_>)) {
        self.withstands_all(what, |seats| attack(&seats.at(EVIL)));
    }

    /// The same for attacks at several ports at once.
    ///
    /// # Panics
    /// When others are not served within the bounds.
    pub fn withstands_all(&mut self, what: &str, attack: impl FnOnce(Seats<'_>)) {
        drop(self.probe.take());
        let _ = self.watch.take();
        attack(self.seats());
        thread::sleep(3 * WATCH_PAUSE);
        assert!(self.switch.is_running(), "labswd has died of {what}:\n{}", self.switch.log());
        let Bounds { p99, gap, status, mappings, descriptors, address_space, .. } = self.bounds;
        self.probe.pass_one(what);
        let times = self.probe.take();
        let (late, most) = (times[times.len() * 99 / 100], times[times.len() - 1]);
        let seen = self.watch.take().at_most(Seen::now(self.switch.pid(), &self.lab.site.control_socket()));
        println!("{what}: {} frames, p99 {late:?}, most {most:?}; {seen:?}", times.len());
        assert!(most <= gap, "{what}: a frame between two other ports took {most:?}, at most {gap:?}");
        assert!(late <= p99, "{what}: 99 of 100 frames between two other ports within {late:?}, at most {p99:?}");
        assert!(seen.status <= status, "{what}: status after {:?}, at most {status:?}", seen.status);
        assert!(seen.mappings <= mappings, "{what}: {} mappings, at most {mappings}", seen.mappings);
        let most = self.before.descriptors + descriptors;
        assert!(seen.descriptors <= most, "{what}: {} descriptors, at most {most}", seen.descriptors);
        let space = seen.address_space;
        assert!(space <= address_space, "{what}: {space} bytes of address space, at most {address_space}");
    }

    /// Runs an attack that is known to make others wait; gives how long their frames were late altogether, each by more
    /// than 100 ms. No frame is lost.
    pub fn stalled_by(&mut self, what: &str, attack: impl FnOnce(&Seat<'_>)) -> Duration {
        drop(self.probe.take());
        attack(&self.seat());
        assert!(self.switch.is_running(), "labswd has died of {what}:\n{}", self.switch.log());
        self.probe.pass_one(what);
        let late: Vec<Duration> = self.probe.take().into_iter().filter(|&time| time > WATCH_PAUSE).collect();
        println!("{what}: late {late:?}");
        late.iter().sum()
    }

    /// Ends the probe and the switch.
    ///
    /// # Panics
    /// When the switch takes too long, or leaves something.
    pub fn finish(self) {
        self.probe.stop.store(true, Ordering::Relaxed);
        self.watch.stop.store(true, Ordering::Relaxed);
        self.probe.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        drop(self.watch.thread.join());
        let begin = Instant::now();
        self.switch.stop();
        let took = begin.elapsed();
        assert!(took <= self.bounds.stop, "SIGTERM took {took:?}, at most {:?}", self.bounds.stop);
    }
}
