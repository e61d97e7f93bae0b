//! Network namespaces of a test, and veth pairs between them.
//!
//! Names carry the test's pid and a counter, so tests running side by side never meet. A namespace is removed when
//! its [`Netns`] is dropped, also on a panic; what an interrupted run left is removed by the next one. IPv6 is off in
//! them, so that an interface says nothing of its own and frames can be counted.

use std::fs::File;
use std::process::{Command, ExitStatus};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::process;

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "lswt-";
static COUNTER: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace; `tag` is part of its name.
    pub fn new(tag: &str) -> Self {
        SWEEP.call_once(remove_stale);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{tag}-{}-{n}", std::process::id());
        process::run(Command::new("ip").args(["netns", "add", &name]));
        let ns = Self { name };
        ns.enter(|| {
            for scope in ["all", "default"] {
                // Absent on a kernel without IPv6, which suits as well.
                drop(std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1"));
            }
        });
        ns.ip(&["link", "set", "lo", "up"]);
        ns
    }

    /// The namespace's name, as `ip netns` and `labswd` know it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. The child's pid is the program's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program inside that has to succeed; gives what it printed.
    pub fn run(&self, argv: &[&str]) -> String {
        process::run(self.command(argv[0]).args(&argv[1..]))
    }

    /// Runs a program inside; gives its exit status and what it printed.
    pub fn try_run(&self, argv: &[&str]) -> (ExitStatus, String) {
        process::output(self.command(argv[0]).args(&argv[1..]))
    }

    /// `ip ARGS` inside, has to succeed.
    pub fn ip(&self, args: &[&str]) -> String {
        process::run(Command::new("ip").args(["-n", &self.name]).args(args))
    }

    /// Gives an interface an address and sets it up.
    pub fn address(&self, interface: &str, address: &str) {
        self.ip(&["addr", "add", address, "dev", interface]);
        self.ip(&["link", "set", interface, "up"]);
    }

    /// Every interface inside as `ip -json -details link` describes it.
    pub fn links(&self) -> Vec<Value> {
        let text = self.ip(&["-json", "-details", "link", "show"]);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("ip -json link: {e}: {text}"))
    }

    /// Names of the interfaces inside, sorted, without the loopback.
    pub fn link_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.links().iter().filter_map(|l| l["ifname"].as_str().map(str::to_owned)).filter(|n| n != "lo").collect();
        names.sort();
        names
    }

    /// Runs a closure on a thread of its own inside. Sockets opened there stay in this namespace wherever they are
    /// used later.
    pub fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                use std::os::fd::AsFd;
                let file = File::open(format!("{DIRECTORY}/{}", self.name)).expect("namespace exists");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("may enter");
                f()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(process::output(Command::new("ip").args(["netns", "del", &self.name])));
    }
}

/// Removes namespaces whose test process is gone.
fn remove_stale() {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit('-').nth(1)).and_then(|p| p.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            drop(process::output(Command::new("ip").args(["netns", "del", &name])));
        }
    }
}

/// A veth pair between two namespaces, both ends up, which behaves like a wire: every offload that would leave a
/// checksum unfinished, a VLAN tag out of the frame, or frames merged is off at both ends, so that what is seen at one
/// end is byte for byte what was sent at the other.
pub fn wire(a: (&Netns, &str), b: (&Netns, &str)) {
    veth(a, b);
    for (ns, name) in [a, b] {
        ns.run(&["ethtool", "-K", name, "tx", "off", "txvlan", "off", "rxvlan", "off", "gro", "off", "gso", "off"]);
    }
}

/// A plain veth pair between two namespaces, both ends up, offloads as the kernel sets them. One queue at each end: an
/// AF_XDP program must take every receive queue there is.
pub fn veth(a: (&Netns, &str), b: (&Netns, &str)) {
    process::run(Command::new("ip").args([
        "-n",
        a.0.name(),
        "link",
        "add",
        a.1,
        "numrxqueues",
        "1",
        "numtxqueues",
        "1",
        "type",
        "veth",
        "peer",
        "name",
        b.1,
        "numrxqueues",
        "1",
        "numtxqueues",
        "1",
        "netns",
        b.0.name(),
    ]));
    a.0.ip(&["link", "set", a.1, "up"]);
    b.0.ip(&["link", "set", b.1, "up"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::require::{self, Need};

    #[test]
    fn removed_after_a_panic() {
        if !require::all(&[Need::Root]) {
            return;
        }
        let name = std::sync::Mutex::new(String::new());
        let result = std::panic::catch_unwind(|| {
            let ns = Netns::new("panic");
            ns.name().clone_into(&mut name.lock().unwrap());
            assert!(std::path::Path::new(DIRECTORY).join(ns.name()).exists());
            panic!("on purpose");
        });
        assert!(result.is_err());
        let name = name.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(!name.is_empty() && !std::path::Path::new(DIRECTORY).join(name).exists());
    }

    #[test]
    fn closure_runs_inside() {
        if !require::all(&[Need::Root]) {
            return;
        }
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        veth((&a, "w0"), (&b, "w1"));
        let seen = b.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        assert!(seen.contains("w1:") && !seen.contains("w0:"));
        assert_eq!(a.link_names(), ["w0"]);
    }
}
