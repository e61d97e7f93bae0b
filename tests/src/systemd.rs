//! A systemd of its own, as the first program of a PID namespace, that runs the switch's own unit.
//!
//! Its root directory is a tmpfs with the machine's programs and libraries; `/lab` there is the site's directory. It
//! has a control group beneath the machine's, and the site's network namespace. It starts nothing but what a test asks
//! for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers report by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::process::{self, Process, wait_for};
use crate::switch::{Site, find_binary};

const TIMEOUT: Duration = Duration::from_secs(30);
/// `$1`: control group, `$2`: network namespace, `$3`: the new root, `$4`: what is `/lab` there, `$5`: [`INNER`].
const OUTER: &str = r#"
echo $$ >"$1/cgroup.procs"
exec nsenter --net="/run/netns/$2" unshare --cgroup --pid --fork --kill-child --mount --propagation private \
  --uts --ipc -- sh -e -c "$5" sh "$3" "$4"
"#;

/// `$1`: the new root, `$2`: what is `/lab` there.
const INNER: &str = r#"
root=$1
mount -t tmpfs tmpfs "$root"
cd "$root"
mkdir -p proc sys dev run tmp etc/systemd/system var lab usr old
mount --rbind /usr usr
for name in bin sbin lib lib64; do
  if [ -L "/$name" ]; then cp -P "/$name" "$name"; else mkdir "$name"; mount --rbind "/$name" "$name"; fi
done
for name in passwd group nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d os-release; do
  if [ -e "/etc/$name" ]; then cp -rL "/etc/$name" etc/; fi
done
echo 'labsw:x:64126:64126::/:/bin/false' >>etc/passwd
echo 'labsw:x:64126:' >>etc/group
mount --bind "$2" lab
cp -r lab/units/. etc/systemd/system
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
touch lab/console
mount --bind lab/console dev/console
mount -t tmpfs tmpfs run
pivot_root . old
exec env -i container=test PATH="$PATH" sh -e -c 'umount -l /old; exec /lib/systemd/systemd "$@"' sh \
  --unit=lab.target --show-status=no --log-level=info --log-target=console
"#;

const TARGET: &str = "[Unit]\nDefaultDependencies=no\n";
const DROP_IN: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nEnvironment=RUST_BACKTRACE=0\n\
    StandardOutput=append:/lab/log\nStandardError=append:/lab/log\n";

/// A running systemd. Dropped, it and everything in it is killed.
#[derive(Debug)]
pub struct Systemd<'a> {
    site: &'a Site,
    process: Process,
    pid: u32,
    /// Removed after the process has ended.
    _group: Group,
}

impl<'a> Systemd<'a> {
    /// Starts one with the unit of the repository and this configuration for it; the unit is not started.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(site: &'a Site, config: &str) -> Self {
        let lab = site.dir();
        std::fs::create_dir_all(lab.join("units/labsw.service.d")).unwrap();
        std::fs::create_dir(lab.join("bin")).unwrap();
        std::fs::create_dir(lab.join("root")).unwrap();
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control/labsw.service");
        let unit = std::fs::read_to_string(unit).unwrap();
        let unit = unit.replace("/usr/local/bin/", "/lab/bin/").replace("/etc/labsw/labsw.toml", "/lab/labsw.toml");
        std::fs::write(lab.join("units/labsw.service"), unit).unwrap();
        std::fs::write(lab.join("units/labsw.service.d/test.conf"), DROP_IN).unwrap();
        std::fs::write(lab.join("units/lab.target"), TARGET).unwrap();
        std::fs::write(lab.join("labsw.toml"), config).unwrap();
        for program in ["labswd", "labsw-ctl"] {
            std::fs::copy(find_binary(program).unwrap(), lab.join("bin").join(program)).unwrap();
        }
        let group = Group(control_groups().join(format!("{}-systemd", site.ns.name())));
        std::fs::create_dir(&group.0).unwrap();
        let mut command = Command::new("sh");
        command.args(["-e", "-c", OUTER, "sh"]).arg(&group.0).arg(site.ns.name());
        command.arg(lab.join("root")).arg(lab).arg(INNER);
        let mut process = Process::spawn("systemd", &mut command);
        let pid = wait_for("systemd", TIMEOUT, || {
            assert!(process.is_running(), "{}", process.log());
            let children = format!("/proc/{pid}/task/{pid}/children", pid = process.pid());
            let child: u32 = std::fs::read_to_string(children).ok()?.trim().parse().ok()?;
            let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name.trim() == "systemd").then_some(child)
        });
        let systemd = Self { site, process, pid, _group: group };
        wait_for("answer of systemd", TIMEOUT, || {
            let (status, _) = systemd.systemctl(&["is-active", "lab.target"]);
            status.success().then_some(())
        });
        systemd
    }

    /// Puts a new file in place of the switch's program, as an upgrade does.
    pub fn upgrade(&self) {
        let program = self.site.dir().join("bin/labswd");
        let new = program.with_extension("new");
        std::fs::copy(&program, &new).unwrap();
        std::fs::rename(new, program).unwrap();
    }

    /// `systemctl ARGS`: status, and what it printed.
    pub fn systemctl(&self, args: &[&str]) -> (ExitStatus, String) {
        process::output(self.command("systemctl").arg("--no-pager").args(args))
    }

    /// `systemctl ARGS`, which has to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let (status, text) = self.systemctl(args);
        assert!(status.success(), "systemctl {args:?}: {text}");
        text.trim().to_owned()
    }

    /// A property of the switch's unit.
    pub fn property(&self, name: &str) -> String {
        self.ok(&["show", "--property", name, "--value", "labsw.service"])
    }

    /// A command that runs there, outside of the unit.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--mount", "--pid", "--cgroup", "--ipc", "--uts"]);
        command.args([&format!("--net=/run/netns/{}", self.site.ns.name()), "--", program]);
        command
    }

    /// A path there, as it is seen from here.
    pub fn path(&self, there: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{there}", self.pid))
    }

    /// The socket of a guest's port.
    pub fn vhost_socket(&self, port: &str) -> PathBuf {
        self.path(&format!("/run/labsw/vhost/{port}.sock"))
    }

    /// `labsw-ctl --json ARGS` from here, which has to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, args: &[&str]) -> serde_json::Value {
        let mut command = Command::new(find_binary("labsw-ctl").unwrap());
        command.arg("--json").arg("--socket").arg(self.path("/run/labsw/control.sock")).args(args);
        let text = process::run(&mut command);
        serde_json::from_str(&text).unwrap_or(serde_json::Value::Null)
    }

    /// What the switch has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.site.dir().join("log")).unwrap_or_default()
    }

    /// What systemd has logged.
    pub fn own_log(&self) -> String {
        std::fs::read_to_string(self.site.dir().join("console")).unwrap_or_default()
    }
}

impl Drop for Systemd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the switch\n{}\n---- log of systemd\n{}", self.log(), self.own_log());
        }
        self.process.kill();
    }
}

/// A control group, removed with all beneath it.
#[derive(Debug)]
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        // The processes in it end shortly after their first one.
        let deadline = std::time::Instant::now() + TIMEOUT;
        while remove_groups(&self.0).is_err() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Where the machine's control groups of version 2 are mounted.
fn control_groups() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let of = |line: &str| -> Option<PathBuf> {
        let words: Vec<&str> = line.split(' ').collect();
        (words.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(words[1]))
    };
    mounts.lines().find_map(of).unwrap_or_else(|| panic!("no control groups of version 2 are mounted"))
}

fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}
