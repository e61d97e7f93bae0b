//! A busybox container of systemd-nspawn, without systemd around it, with a shell on a pipe.
//!
//! systemd-nspawn wants the host's control groups, and a `/sys` that shows the links of the namespace it is started in
//! and on which no udev could be at work; both together are made in a mount namespace of its own.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::installed::find_program;
use crate::netns::Netns;
use crate::process::{Process, wait_for};
use crate::switch::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);
/// What busybox is called in the container.
const PROGRAMS: [&str; 7] = ["sh", "cat", "ip", "ping", "echo", "ls", "true"];
/// `$1`: namespace, `$2`: directory, from `$3` on: systemd-nspawn.
const ENTER: &str = r#"
ns=$1 dir=$2; shift 2
mount --rbind /sys/fs/cgroup "$dir/cgroup"
exec nsenter --net="/run/netns/$ns" sh -c '
  dir=$1; shift
  mount -t sysfs -o ro sysfs /sys
  mount --rbind "$dir/cgroup" /sys/fs/cgroup
  exec "$@"' sh "$dir" "$@"
"#;

/// A running container. Dropped, it is killed.
#[derive(Debug)]
pub struct Nspawn {
    process: Process,
    position: usize,
    commands: u32,
    _dir: TempDir,
}

impl Nspawn {
    /// Makes and starts a container in the namespace `ns` with an option as `labsw-ctl guest --for nspawn` prints it
    /// (lines that begin with `#` are left out).
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(ns: &Netns, name: &str, printed: &str) -> Self {
        let dir = TempDir::new();
        make_root(dir.path());
        let options: Vec<&str> =
            printed.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-e", "-c", ENTER, "sh", ns.name()]).arg(dir.path());
        command.args(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", "--machine", name, "-D"]);
        command.arg(dir.path().join("root")).args(options).arg("/bin/sh");
        let process = Process::spawn(&format!("nspawn {name}"), &mut command);
        let mut container = Self { process, position: 0, commands: 0, _dir: dir };
        container.ok("true");
        container
    }

    /// Runs a shell command inside that has to succeed; gives its output.
    ///
    /// # Panics
    /// When it fails, or does not end in time.
    pub fn ok(&mut self, command: &str) -> String {
        self.commands += 1;
        let mark = format!("@@{}@", self.commands);
        self.process.write(&format!("{{ {command}\n}} 2>&1; echo {mark}$?@\n"));
        let (output, position) = self.process.wait_for_text(self.position, &mark, TIMEOUT);
        let (status, position) = self.process.wait_for_text(position, "@", TIMEOUT);
        self.position = position;
        assert_eq!(status, "0", "in the container: {command}\n{output}");
        output
    }

    /// Has the container's first program end.
    ///
    /// # Panics
    /// When systemd-nspawn does not end then.
    pub fn stop(&mut self) {
        self.process.write("exit 0\n");
        self.process.wait(TIMEOUT);
    }

    /// SIGKILL for the container's first program and, if `with_nspawn`, before that for systemd-nspawn, which would
    /// clean up.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill9(&mut self, with_nspawn: bool) {
        let children = format!("/proc/{pid}/task/{pid}/children", pid = self.process.pid());
        let children = std::fs::read_to_string(&children).unwrap_or_else(|e| panic!("{children}: {e}"));
        let leader = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a first program");
        if with_nspawn {
            self.process.kill();
        }
        let leader_pid = rustix::process::Pid::from_raw(leader).expect("a process id");
        // It may have been taken along already.
        let _gone = rustix::process::kill_process(leader_pid, rustix::process::Signal::KILL);
        self.process.wait(TIMEOUT);
        wait_for("end of the container", TIMEOUT, || {
            let stat = std::fs::read_to_string(format!("/proc/{leader}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
        });
    }
}

/// Busybox and what systemd-nspawn looks for in a root directory.
fn make_root(dir: &Path) {
    let root = dir.join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "run", "var", "usr/lib"] {
        std::fs::create_dir_all(root.join(name)).expect("a directory");
    }
    std::fs::create_dir(dir.join("cgroup")).expect("a directory");
    std::fs::write(root.join("usr/lib/os-release"), "ID=labsw\n").expect("a file");
    let busybox = find_program("busybox").expect("busybox");
    std::fs::copy(busybox, root.join("bin/busybox")).expect("busybox copied");
    for program in PROGRAMS {
        symlink("busybox", root.join("bin").join(program)).expect("a link");
    }
}
