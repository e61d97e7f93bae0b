//! A busybox container (LXC) that owns one end of a veth pair, handed to it with `lxc.net.0.type = phys`: the link is
//! moved in at its start as `eth0` and comes back when it stops.
//!
//! Every LXC command runs in the namespace the container was started from: LXC's command socket is abstract, and those
//! are per network namespace.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::netns::Netns;
use crate::process::{self, Process, wait_for};
use crate::switch::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running container. Dropped, it is stopped and removed.
#[derive(Debug)]
pub struct Container<'a> {
    ns: &'a Netns,
    name: String,
    dir: TempDir,
    pid: u32,
    process: Process,
}

impl<'a> Container<'a> {
    /// Makes and starts a container that takes the interface `link` out of `ns` as its `eth0`, up.
    ///
    /// # Panics
    /// When LXC refuses.
    pub fn start(ns: &'a Netns, name: &str, link: &str) -> Self {
        let network =
            format!("lxc.net.0.type = phys\nlxc.net.0.link = {link}\nlxc.net.0.name = eth0\nlxc.net.0.flags = up\n");
        Self::start_with(ns, name, &network)
    }

    /// Makes and starts a container with these lines about its network in its configuration.
    ///
    /// # Panics
    /// When LXC refuses.
    pub fn start_with(ns: &'a Netns, name: &str, network: &str) -> Self {
        let dir = TempDir::new();
        let path = dir.path().to_string_lossy().into_owned();
        process::run(Command::new("lxc-create").args(["-P", &path, "-n", name, "-t", "busybox", "-f", "/dev/null"]));
        let container = dir.path().join(name);
        // The template's own start script asks for an address; a test does that itself, or sets one.
        let script = container.join("rootfs/etc/init.d/rcS");
        let text = std::fs::read_to_string(&script).unwrap_or_else(|e| panic!("{}: {e}", script.display()));
        let kept: String =
            text.lines().filter(|line| !line.contains("udhcpc")).map(|line| format!("{line}\n")).collect();
        std::fs::write(&script, kept).unwrap_or_else(|e| panic!("{}: {e}", script.display()));
        let config = container.join("config");
        let mut text = std::fs::read_to_string(&config).unwrap_or_else(|e| panic!("{}: {e}", config.display()));
        text += "lxc.apparmor.profile = unconfined\nlxc.console.path = none\n";
        text += network;
        std::fs::write(&config, text).unwrap_or_else(|e| panic!("{}: {e}", config.display()));

        let (process, pid) = Self::launch(ns, name, &dir);
        Self { ns, name: name.to_owned(), dir, pid, process }
    }

    /// Starts the container that is in `dir`.
    fn launch(ns: &Netns, name: &str, dir: &TempDir) -> (Process, u32) {
        let path = dir.path().to_string_lossy();
        let mut command = ns.command("lxc-start");
        command.args(["-P", &path, "-n", name, "-F", "-l", "INFO", "-o"]).arg(dir.path().join("lxc.log"));
        let mut process = Process::spawn(&format!("container {name}"), &mut command);
        let pid = wait_for(&format!("start of container {name}"), START_TIMEOUT, || {
            assert!(process.is_running(), "lxc-start {name} ended:\n{}", process.log());
            let text = ns.try_run(&["lxc-info", "-P", &path, "-n", name, "-p", "-H"]).1;
            text.trim().parse().ok()
        });
        (process, pid)
    }

    /// Stops the container as `lxc-stop` with these options does; lxc-start has given the link back then.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(&mut self, options: &[&str]) {
        let path = self.dir.path().to_string_lossy().into_owned();
        let argv: Vec<&str> =
            ["lxc-stop", "-P", &path, "-n", &self.name].into_iter().chain(options.iter().copied()).collect();
        self.ns.run(&argv);
        self.process.wait(START_TIMEOUT);
    }

    /// SIGKILL for the container's first program and, if `with_monitor`, before that for the lxc-start that watches it
    /// and would give the link back.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill9(&mut self, with_monitor: bool) {
        let init = rustix::process::Pid::from_raw(self.pid.cast_signed()).expect("a process id");
        if with_monitor {
            self.process.kill();
        }
        rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("may kill it");
        self.process.wait(START_TIMEOUT);
        let proc = format!("/proc/{}", self.pid);
        wait_for("end of the container", START_TIMEOUT, || {
            let ended = std::fs::read_to_string(format!("{proc}/stat")).map_or(true, |stat| stat.contains(") Z "));
            ended.then_some(())
        });
    }

    /// Starts a stopped or killed container again.
    pub fn start_again(&mut self) {
        (self.process, self.pid) = Self::launch(self.ns, &self.name, &self.dir);
    }

    /// Process id of the container's first program.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Runs a shell command inside, with the container's own programs; gives exit status and output.
    pub fn run(&self, command: &str) -> (i32, String) {
        let path = self.dir.path().to_string_lossy();
        let attach = ["lxc-attach", "-P", &path, "-n", &self.name, "--", "/bin/sh", "-c", command];
        let (status, text) = self.ns.try_run(&attach);
        (status.code().unwrap_or(-1), text)
    }

    /// Runs a shell command inside that has to succeed; gives its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, command: &str) -> String {
        let (status, text) = self.run(command);
        assert_eq!(status, 0, "in container {}: {command}: exit {status}\n{text}", self.name);
        text
    }

    /// A program of the host that will run in the container's network.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-n", program]);
        command
    }

    /// Takes an address for `eth0` by DHCP and gives it, without the prefix length.
    ///
    /// # Panics
    /// When no lease is given.
    pub fn dhcp(&self) -> String {
        self.ok("udhcpc -i eth0 -n -q -t 10 -T 1");
        let text = process::run(self.command("ip").args(["-4", "-o", "addr", "show", "dev", "eth0"]));
        let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        let address = address.and_then(|a| a.split('/').next());
        address.unwrap_or_else(|| panic!("no address on eth0: {text}")).to_owned()
    }

    /// Where the container's files are.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join(&self.name).join("rootfs")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let path = self.dir.path().to_string_lossy().into_owned();
        drop(self.ns.try_run(&["lxc-stop", "-P", &path, "-n", &self.name, "-k"]));
        // lxc-start gives the link back before it ends.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while self.process.is_running() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::veth;
    use crate::require::{self, Need};

    #[test]
    fn link_goes_in_and_comes_back() {
        if !require::all(&[Need::Root, Need::Lxc]) {
            return;
        }
        let ns = Netns::new("lxc");
        let peer = Netns::new("peer");
        veth((&ns, "c0"), (&peer, "p0"));
        peer.address("p0", "10.7.0.1/24");
        {
            let container = Container::start(&ns, "box", "c0");
            assert!(ns.link_names().is_empty(), "the container has the link");
            process::run(container.command("ip").args(["addr", "add", "10.7.0.2/24", "dev", "eth0"]));
            peer.run(&["ping", "-c", "2", "-W", "5", "10.7.0.2"]);
            assert!(container.ok("ifconfig eth0").contains("10.7.0.2"));
        }
        assert_eq!(ns.link_names(), ["c0"]);
    }
}
