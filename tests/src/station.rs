//! One end of traffic, whatever it is: a namespace behind a veth pair, a NIC or a TAP interface, or a guest. All take
//! the same commands, so that a test can be written once for every kind of pair.
//!
//! Station `n` has on its plain interface the addresses 10.1.0.n and fd00:1::n, and on the interface for VLAN 7 the
//! addresses 10.7.0.n and fd00:7::n. In a guest that one is a VLAN device. A namespace's is a TAP interface of
//! `labsw-vlan-gateway`, because not every kernel has VLAN devices; the host's own is a second TAP port, an access port
//! of that VLAN.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::capture::Place;
use crate::guest::Guest;
use crate::iperf;
use crate::netns::Netns;
use crate::process::{self, Process, wait_for};
use crate::switch::find_binary;

/// The VLAN of tagged frames.
pub const VLAN: u16 = 7;
/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);
/// The TCP port that files are sent to.
const FILE_PORT: u16 = 5000;
/// Where [`Station::start_services`] puts the sweep's program in a guest.
const GUEST_SWEEP: &str = "/bin/labsw-sweep";

enum Body<'a> {
    Namespace(&'a Netns),
    Guest(Box<RefCell<Guest>>),
}

/// How two stations reach each other.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// In VLAN 7, else untagged.
    pub tagged: bool,
}

/// One end.
pub struct Station<'a> {
    /// The switch's port it is at.
    pub port: &'static str,
    number: u8,
    body: Body<'a>,
    plain: &'static str,
    tagged: &'static str,
    place: Place,
    services: RefCell<Vec<Process>>,
}

impl<'a> Station<'a> {
    /// A namespace whose interface `plain` is joined to the switch by a wire or a veth pair.
    pub fn namespace(port: &'static str, number: u8, ns: &'a Netns, plain: &'static str) -> Self {
        let station = Self::new(port, number, Body::Namespace(ns), plain, "v7", Place::Wire);
        let program = find_binary("labsw-vlan-gateway").unwrap_or_else(|e| panic!("{e}"));
        let mut splitter = ns.command(&program.to_string_lossy());
        splitter.args(["--parent", plain, "--vlan", &format!("{VLAN}={}", station.tagged)]);
        let mut splitter = Process::spawn("labsw-vlan-gateway", &mut splitter);
        splitter.wait_for_text(0, "ready", PATIENCE);
        station.services.borrow_mut().push(splitter);
        station.address_namespace(ns);
        station
    }

    /// The host, with one TAP interface for each of the two networks.
    pub fn host(port: &'static str, number: u8, ns: &'a Netns, interfaces: [&'static str; 2]) -> Self {
        let [plain, tagged] = interfaces;
        let station = Self::new(port, number, Body::Namespace(ns), plain, tagged, Place::HostTap);
        station.address_namespace(ns);
        station
    }

    /// A guest that has booted without an address.
    pub fn guest(port: &'static str, number: u8, mut guest: Guest) -> Self {
        guest.ok(&format!("ip link add link eth0 name eth0.{VLAN} type vlan id {VLAN}"));
        for (interface, net) in [("eth0", 1), ("eth0.7", VLAN)] {
            let conf = format!("/proc/sys/net/ipv6/conf/{interface}");
            guest.ok(&format!("ip link set {interface} up; ip addr add 10.{net}.0.{number}/24 dev {interface}"));
            guest.ok(&format!("echo 0 >{conf}/accept_dad; echo 0 >{conf}/disable_ipv6"));
            guest.ok(&format!("ip addr add fd00:{net}::{number}/64 dev {interface}"));
        }
        Self::new(port, number, Body::Guest(Box::new(RefCell::new(guest))), "eth0", "eth0.7", Place::Wire)
    }

    fn new(
        port: &'static str,
        number: u8,
        body: Body<'a>,
        plain: &'static str,
        tagged: &'static str,
        place: Place,
    ) -> Self {
        Self { port, number, body, plain, tagged, place, services: RefCell::default() }
    }

    fn address_namespace(&self, ns: &Netns) {
        for (interface, net) in [(self.plain, 1), (self.tagged, VLAN)] {
            ns.enter(|| std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "0"))
                .unwrap_or_else(|e| panic!("IPv6 on {interface}: {e}"));
            ns.address(interface, &format!("10.{net}.0.{}/24", self.number));
            ns.ip(&["addr", "add", &format!("fd00:{net}::{}/64", self.number), "dev", interface, "nodad"]);
        }
    }

    /// Its address on a way.
    pub fn address(&self, way: Way) -> String {
        let (net, number) = (if way.tagged { VLAN } else { 1 }, self.number);
        if way.v6 { format!("fd00:{net}::{number}") } else { format!("10.{net}.0.{number}") }
    }

    /// The interface where what the switch sends on a way can be captured, if the test can reach it.
    pub fn interface(&self, way: Way) -> Option<(&'a Netns, &'static str, Place)> {
        let Body::Namespace(ns) = self.body else { return None };
        let own = self.place == Place::HostTap && way.tagged;
        Some((ns, if own { self.tagged } else { self.plain }, self.place))
    }

    /// Runs a shell command; gives exit status and output.
    pub fn run(&self, command: &str) -> (i32, String) {
        match &self.body {
            Body::Namespace(ns) => {
                let limit = TIMEOUT.as_secs().to_string();
                let (status, text) = ns.try_run(&["timeout", &limit, "sh", "-c", command]);
                (status.code().unwrap_or(-1), text)
            }
            Body::Guest(guest) => {
                let mut guest = guest.borrow_mut();
                let running = guest.begin(command);
                guest.finish(running, TIMEOUT)
            }
        }
    }

    /// Runs a shell command that has to succeed; gives its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, command: &str) -> String {
        let (status, output) = self.run(command);
        assert_eq!(status, 0, "at {}: {command}: exit {status}\n{output}", self.port);
        output
    }

    /// Sets the MTU of both its interfaces; the lower one of a VLAN device has to be at least the upper one's.
    pub fn set_mtu(&self, mtu: usize) {
        for interface in [self.plain, self.tagged] {
            self.ok(&format!("ip link set {interface} mtu {mtu}"));
        }
    }

    /// Waits until `to` answers a ping.
    ///
    /// # Panics
    /// When it does not within 20 s.
    pub fn wait_ping(&self, to: &Station<'_>, way: Way) {
        let address = to.address(way);
        wait_for(&format!("answer from {address} to {}", self.port), PATIENCE, || {
            (self.run(&format!("ping -c 1 -W 1 {address}")).0 == 0).then_some(())
        });
    }

    /// Starts iperf3's server and the UDP echo. A guest must have been sent [`Program`].
    pub fn start_services(&self, program: &Program) {
        let sweep = &program.sweep;
        match &self.body {
            Body::Namespace(ns) => {
                let mut services = self.services.borrow_mut();
                services.push(iperf::serve(ns));
                services.push(Process::spawn("labsw-sweep", ns.command(&sweep.to_string_lossy()).arg("echo")));
            }
            Body::Guest(_) => {
                self.ok(&format!("cp {} /lib/x86_64-linux-gnu/", program.library.display()));
                self.ok(&format!("cp {} {GUEST_SWEEP} && chmod 755 {GUEST_SWEEP}", sweep.display()));
                self.ok(&format!("iperf3 -s -D; ({GUEST_SWEEP} echo >/dev/null 2>&1 &)"));
            }
        }
    }

    /// Runs a sweep to `to`, which has to lose and change nothing; gives what it printed.
    pub fn sweep(&self, to: &Station<'_>, way: Way, kind: &str, sizes: &str, program: &Program) -> String {
        let program = match self.body {
            Body::Namespace(_) => &program.sweep,
            Body::Guest(_) => Path::new(GUEST_SWEEP),
        };
        self.ok(&format!("{} {kind} {} {sizes}", program.display(), to.address(way)))
    }

    /// Sends the file `path` to `to` by TCP, where it has the same path if that is a guest, else `path` with `.got`;
    /// asserts that every byte is the same.
    ///
    /// # Panics
    /// When it does not arrive, or not unchanged.
    pub fn send_file(&self, to: &Station<'_>, way: Way, path: &Path) {
        let (from, address) = (path.display(), to.address(way));
        let got = match to.body {
            Body::Namespace(_) => format!("{from}.got"),
            Body::Guest(_) => from.to_string(),
        };
        let dir = path.parent().unwrap_or(path).display();
        // With a program at the far end, the sender ends only when everything has arrived.
        let listener = format!("busybox nc -l -p {FILE_PORT} -e sh -c 'cat >{got}' >/dev/null 2>&1 </dev/null");
        // In a subshell: the end of a job of its own would disturb the guest's interactive shell.
        to.ok(&format!("mkdir -p {dir}; rm -f {got}; ({listener} &); sleep 0.1"));
        self.ok(&format!("busybox nc -w 10 {address} {FILE_PORT} <{from} >/dev/null"));
        let digest = |station: &Station<'_>, file: &str| {
            station.ok(&format!("busybox sha256sum {file}")).split_whitespace().next().map(str::to_owned)
        };
        assert_eq!(digest(to, &got), digest(self, &from.to_string()), "{from} from {} to {}", self.port, to.port);
    }

    /// Segments that its kernel sent again in vain: the receiver had them, and said so (D-SACK, RFC 2883).
    ///
    /// # Panics
    /// When the kernel does not count them.
    pub fn sent_in_vain(&self) -> u64 {
        let text = self.ok("grep TcpExt /proc/net/netstat");
        let (names, values) = text.split_once('\n').unwrap_or_default();
        let column = names.split_whitespace().zip(values.split_whitespace()).find(|(name, _)| *name == "TCPDSACKRecv");
        column.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("no TCPDSACKRecv in {text}"))
    }

    /// Segments, datagrams and messages that its kernel refused for their checksum, by the name of the counter.
    pub fn checksum_errors(&self) -> Vec<String> {
        let text = self.ok("cat /proc/net/snmp /proc/net/snmp6");
        let mut errors = Vec::new();
        let lines: Vec<&str> = text.lines().collect();
        // snmp: a line of names, then a line of values. snmp6: a name and a value each.
        for pair in lines.windows(2) {
            let (names, values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
            let is_names = pair[0].split_once(": ").is_some_and(|(_, rest)| rest.starts_with(char::is_alphabetic));
            let columns = names.zip(values).filter(|(name, _)| is_names && *name == "InCsumErrors");
            errors.extend(columns.filter(|(_, value)| *value != "0").map(|_| pair.join("\n")));
        }
        let named = lines.iter().filter(|line| line.contains("InCsumErrors") && !line.contains(':'));
        errors.extend(
            named.filter(|line| !line.ends_with(" 0") && !line.ends_with("\t0")).map(|line| (*line).to_owned()),
        );
        assert!(text.matches("InCsumErrors").count() >= 5, "counters of checksum errors in {text}");
        errors
    }

    /// Ends what runs beside it in a namespace, before its interfaces go.
    pub fn stop_services(&self) {
        self.services.borrow_mut().clear();
    }
}

/// The program `labsw-sweep` and what the guests' image lacks for it. Guests get both over the network.
pub struct Program {
    /// The program, without what only a debugger needs.
    pub sweep: PathBuf,
    /// The compiler's own library.
    pub library: PathBuf,
}

impl Program {
    /// Puts copies into `dir`.
    ///
    /// # Panics
    /// When the program is not built.
    pub fn new(dir: &Path) -> Self {
        let built = find_binary("labsw-sweep").unwrap_or_else(|e| panic!("{e}"));
        let (sweep, library) = (dir.join("labsw-sweep"), dir.join("libgcc_s.so.1"));
        process::run(Command::new("strip").arg("-o").arg(&sweep).arg(&built));
        let needed = process::run(Command::new("ldd").arg(&built));
        let found = needed.split_whitespace().find(|word| word.starts_with('/') && word.ends_with("libgcc_s.so.1"));
        let found = found.unwrap_or_else(|| panic!("no libgcc_s in {needed}"));
        std::fs::copy(found, &library).unwrap_or_else(|e| panic!("{found}: {e}"));
        Self { sweep, library }
    }
}
