//! One `labswd` of a test: its namespace, its directory, and `labsw-ctl` to ask it.
//!
//! The programs are looked for in `LABSW_BIN_DIR`, else in the target directory of the running test. `make test` builds
//! them and sets the variable; by hand: `cargo build -p labsw-control -p labsw-tests` before
//! `cargo test -p labsw-tests`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::netns::Netns;
use crate::process::{self, Process, wait_for};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest take-over. Each of its steps has a limit of its own; a machine may be busy.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a port may take to come up once its far end is there.
pub const PORT_TIMEOUT: Duration = Duration::from_secs(60);

/// The place of one of the project's own programs.
///
/// # Errors
/// Where it was looked for in vain.
pub fn find_binary(name: &str) -> Result<PathBuf, String> {
    let mut places: Vec<PathBuf> = std::env::var_os("LABSW_BIN_DIR").map(PathBuf::from).into_iter().collect();
    if let Ok(test) = std::env::current_exe() {
        places.extend(test.ancestors().skip(1).take(2).map(Path::to_path_buf));
    }
    let found = places.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("program {name} in {places:?} (cargo build -p labsw-control -p labsw-tests)"))
}

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one under `/tmp`; the name is kept short because a socket's path has 107 bytes at most.
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lswt-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Where a switch lives: a namespace of its own and a directory. It outlives the switch, so that one can be started
/// again there.
#[derive(Debug)]
pub struct Site {
    /// The namespace `labswd` runs in; its `af_xdp` devices and the switch's ends of its veth pairs are here.
    pub ns: Netns,
    dir: TempDir,
}

impl Site {
    /// Makes namespace and directory; `tag` is part of the namespace's name.
    pub fn new(tag: &str) -> Self {
        Self { ns: Netns::new(tag), dir: TempDir::new() }
    }

    /// The directory, for sockets and logs of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The control socket of the switch here.
    pub fn control_socket(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// Writes the configuration file as [`Labswd::start`] describes and gives its path. With `LABSW_TEST_WORKERS` (CPU
    /// numbers, as in `0,1`) a switch that names no workers gets these.
    pub fn write_config(&self, config: &str) -> PathBuf {
        let file = self.dir().join("lab.toml");
        let workers = std::env::var("LABSW_TEST_WORKERS").ok().filter(|_| !config.contains("workers"));
        let workers = workers.map_or_else(String::new, |cpus| format!("workers = [{cpus}]\n"));
        let text = format!(
            "[switch]\ncontrol_socket = \"{}\"\nvhost_user_dir = \"{}\"\n{workers}{config}",
            self.control_socket().display(),
            self.dir().join("vhost").display(),
        );
        std::fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        file
    }
}

/// A running `labswd`. Dropped, it is killed; [`Labswd::stop`] asks it to leave and checks what it leaves.
#[derive(Debug)]
pub struct Labswd<'a> {
    site: &'a Site,
    config: PathBuf,
    links_before: Vec<String>,
    process: Process,
}

impl<'a> Labswd<'a> {
    /// Starts a switch and waits until it answers.
    ///
    /// `config` is a configuration file without the `[switch]` header, which is put in front together with the
    /// socket places of `site`; keys before the first table go into `[switch]`.
    ///
    /// # Panics
    /// When it does not answer within 20 s.
    pub fn start(site: &'a Site, config: &str) -> Self {
        let config = site.write_config(config);
        let links_before = site.ns.link_names();
        let process = Self::spawn(site, &config);
        let mut switch = Self { site, config, links_before, process };
        switch.wait_ready();
        switch
    }

    /// Has a new `labswd` take over from this one, which has to end with exit status 0 by itself. Gives the time that
    /// no worker of either ran, as the old one has it in its log.
    ///
    /// # Panics
    /// When the new one does not take over, or the old one does not end.
    pub fn take_over(&mut self) -> Duration {
        let new = Self::spawn_with(self.site, &self.config, &["--take-over"]);
        let mut old = std::mem::replace(&mut self.process, new);
        let status = old.wait(TAKE_OVER_TIMEOUT);
        assert!(status.success(), "the old labswd ended with {status}:\n{}\nnew:\n{}", old.log(), self.log());
        assert!(self.is_running(), "the new labswd has ended:\n{}\nold:\n{}", self.log(), old.log());
        let log = old.log();
        let still = log.split("still_us=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        still.map(Duration::from_micros).unwrap_or_else(|| panic!("no time in the old log:\n{log}"))
    }

    fn spawn(site: &Site, config: &Path) -> Process {
        Self::spawn_with(site, config, &[])
    }

    fn spawn_with(site: &Site, config: &Path, arguments: &[&str]) -> Process {
        let program = find_binary("labswd").unwrap_or_else(|e| panic!("{e}"));
        let mut command = site.ns.command(&program.to_string_lossy());
        command.arg("--config").arg(config).args(["--log-level", "debug"]).args(arguments);
        Process::spawn("labswd", &mut command)
    }

    fn wait_ready(&mut self) {
        wait_for("answer of labswd", START_TIMEOUT, || {
            assert!(self.process.is_running(), "labswd ended at its start:\n{}", self.process.log());
            let (exit, status, _) = self.ctl_output(&["status"]);
            // It answers from the first moment; its ports are opened meanwhile.
            (exit == 0 && !status.contains("\"opening\"")).then_some(())
        });
    }

    /// The site it was started in.
    pub fn site(&self) -> &'a Site {
        self.site
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The socket of a `vhost_user` port that does not name its own.
    pub fn vhost_socket(&self, port: &str) -> PathBuf {
        self.site.dir().join("vhost").join(format!("{port}.sock"))
    }

    /// `labsw-ctl --json ARGS`: exit status, standard output, and the error as it would be without `--json`.
    pub fn ctl_output(&self, args: &[&str]) -> (i32, String, String) {
        let program = find_binary("labsw-ctl").unwrap_or_else(|e| panic!("{e}"));
        let mut command = Command::new(program);
        command.arg("--socket").arg(self.site.control_socket()).arg("--json").args(args);
        let out = command.output().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), plain(&text(&out.stderr)))
    }

    /// `labsw-ctl --json ARGS`, has to succeed; gives the answer (null when it printed nothing).
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.ctl_output(args);
        assert_eq!(code, 0, "labsw-ctl {args:?}: exit {code}: {err}");
        if out.trim().is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("labsw-ctl {args:?} printed no JSON: {e}: {out}"))
    }

    /// `labsw-ctl ARGS` that the switch has to refuse (exit 1) with one line; gives that line.
    ///
    /// # Panics
    /// When it is not refused that way.
    pub fn ctl_refused(&self, args: &[&str]) -> String {
        let (code, out, err) = self.ctl_output(args);
        assert_eq!(code, 1, "labsw-ctl {args:?} should be refused; printed {out} {err}");
        assert_eq!(err.trim().lines().count(), 1, "one line expected: {err}");
        err.trim().to_owned()
    }

    /// A port as `port list` describes it.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn port(&self, name: &str) -> Value {
        let list = self.ctl(&["port", "list"]);
        let found = list.as_array().and_then(|ports| ports.iter().find(|p| p["name"] == name));
        found.unwrap_or_else(|| panic!("no port {name} in {list}")).clone()
    }

    /// `up`, `down`, `waiting` or `failed`.
    pub fn port_state(&self, name: &str) -> String {
        self.port(name)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a port has the state.
    ///
    /// # Panics
    /// When the time is up.
    pub fn wait_port(&self, name: &str, state: &str, timeout: Duration) {
        let what = format!("port {name} {state} (now {})", self.port(name));
        wait_for(&what, timeout, || (self.port_state(name) == state).then_some(()));
    }

    /// Waits until a port is up.
    pub fn wait_port_up(&self, name: &str) {
        self.wait_port(name, "up", PORT_TIMEOUT);
    }

    /// A counter of a port, like `rx_frames`.
    pub fn counter(&self, port: &str, counter: &str) -> u64 {
        self.port(port)[counter].as_u64().unwrap_or_else(|| panic!("port {port} has no number {counter}"))
    }

    /// Frames of a port dropped for `reason`, 0 when it has dropped none.
    pub fn drops(&self, port: &str, reason: &str) -> u64 {
        self.port(port)["drops"][reason].as_u64().unwrap_or(0)
    }

    /// The ports that the fdb has for a MAC address (`02:00:00:00:00:01`) in a VLAN: none or one.
    pub fn fdb_port(&self, vlan: u16, mac: &str) -> Option<String> {
        let list = self.ctl(&["fdb", "list"]);
        let entry = list.as_array()?.iter().find(|e| e["vlan"] == vlan && e["mac"] == mac)?;
        entry["port"].as_str().map(str::to_owned)
    }

    /// SIGKILL, as a crash would. Sockets and links stay behind; [`Labswd::restart`] follows.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Starts it again with the same configuration and waits until it answers.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(self.site, &self.config);
        self.wait_ready();
    }

    /// SIGTERM; it has to end with exit status 0 within 10 s and leave nothing: no link it made, no XDP program, no
    /// socket.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(mut self) {
        self.process.signal(libc::SIGTERM);
        let status = self.process.wait(STOP_TIMEOUT);
        assert!(status.success(), "labswd ended with {status}:\n{}", self.process.log());
        self.assert_nothing_left();
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.site.ns.link_names(), self.links_before, "links after the switch has left");
        for link in self.site.ns.links() {
            assert!(link["xdp"].is_null(), "an XDP program is left on {}", link["ifname"]);
        }
        assert!(!self.site.control_socket().exists(), "the control socket is left");
        let sockets: Vec<_> =
            std::fs::read_dir(self.site.dir().join("vhost")).into_iter().flatten().flatten().collect();
        assert!(sockets.is_empty(), "sockets are left: {sockets:?}");
    }
}

/// A test that fails shows what the switch counted, before the process is killed.
impl Drop for Labswd<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() || !self.process.is_running() {
            return;
        }
        let socket = self.site.control_socket();
        for args in [&["stats"][..], &["port", "list"], &["fdb", "list"]] {
            let Ok(program) = find_binary("labsw-ctl") else { return };
            let shown = Command::new(program).arg("--socket").arg(&socket).args(args).output();
            if let Ok(shown) = shown {
                eprintln!("---- labsw-ctl {}\n{}", args.join(" "), String::from_utf8_lossy(&shown.stdout));
            }
        }
        let (_, links) = self.site.ns.try_run(&["ip", "-s", "link"]);
        eprintln!("---- ip -s link\n{links}");
    }
}

/// Runs `labswd --check` on a configuration file: exit status and what it printed.
pub fn check_config(file: &Path) -> (Option<i32>, String) {
    let program = find_binary("labswd").unwrap_or_else(|e| panic!("{e}"));
    let (status, text) = process::output(Command::new(program).arg("--config").arg(file).arg("--check"));
    (status.code(), text)
}

/// An error as `labsw-ctl` prints it for people; text that is no JSON object stays as it is.
fn plain(error: &str) -> String {
    let parsed = serde_json::from_str::<Value>(error).ok();
    let Some(message) = parsed.as_ref().and_then(|error| error["message"].as_str()) else { return error.to_owned() };
    message.lines().map(|line| format!("labsw-ctl: {line}\n")).collect()
}
