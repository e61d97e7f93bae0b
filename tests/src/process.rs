//! Child processes of a test: killed by their pid when dropped, their output collected and shown if the test fails.
//!
//! Standard output and standard error are one pipe, so that the log has their lines in the order in which the child
//! wrote them, as a terminal has. Standard input is a pipe that stays open while the [`Process`] lives.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often conditions are looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the output of a child that has ended is waited for.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Looks at `condition` until it gives a value, at most for `timeout`; `what` goes into the failure message.
///
/// # Panics
/// When the time is up.
pub fn wait_for<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {timeout:?}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// Runs a command to its end and gives its exit status and everything it printed, both streams together.
///
/// # Panics
/// When the program cannot be started.
pub fn output(command: &mut Command) -> (ExitStatus, String) {
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&out.stderr));
    (out.status, text)
}

/// Runs a command that has to succeed and gives what it printed.
///
/// # Panics
/// When it fails, showing its output.
pub fn run(command: &mut Command) -> String {
    let (status, text) = output(command);
    assert!(status.success(), "{command:?}: {status}\n{text}");
    text
}

/// The machine's CPU time so far, all CPUs together.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    all: u64,
    idle: u64,
}

impl CpuTime {
    /// What `/proc/stat` says (proc(5)).
    ///
    /// # Panics
    /// When it says nothing.
    pub fn read() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_else(|e| panic!("/proc/stat: {e}"));
        let ticks: Vec<u64> = text.lines().next().unwrap_or("").split(' ').filter_map(|n| n.parse().ok()).collect();
        Self { all: ticks.iter().sum(), idle: ticks[3] }
    }

    /// Percent of the time since then in which a CPU had nothing to do.
    pub fn idle_percent_since(self) -> u64 {
        let now = Self::read();
        100 * (now.idle - self.idle) / (now.all - self.all).max(1)
    }
}

#[derive(Debug, Default)]
struct Log {
    bytes: Mutex<Vec<u8>>,
    grown: Condvar,
    /// Nobody holds the pipe any more: nothing will be added.
    ended: AtomicBool,
}

impl Log {
    fn append(&self, bytes: &[u8]) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        self.grown.notify_all();
    }
}

fn collect(mut source: impl Read + Send + 'static, log: Arc<Log>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = source.read(&mut buffer) {
            if n == 0 {
                break;
            }
            log.append(&buffer[..n]);
        }
        log.ended.store(true, Ordering::Release);
    });
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

impl Process {
    /// Starts `command`; `name` labels its log.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let (output, end) = std::io::pipe().unwrap();
        let child = command
            .stdin(Stdio::piped())
            .stdout(end.try_clone().unwrap())
            .stderr(end)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {command:?}: {e}"));
        // The command would keep the pipe open behind the child's end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let log = Arc::new(Log::default());
        collect(output, Arc::clone(&log));
        Self { name: name.to_owned(), child, log }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until everything printed by a child that has ended is in the log; not long, its own children may go on.
    fn wait_for_log(&self) {
        let deadline = Instant::now() + LOG_PATIENCE;
        while !self.log.ended.load(Ordering::Acquire) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Everything printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Length of the log in bytes, a position for [`Process::wait_for_text`].
    pub fn log_len(&self) -> usize {
        self.log.bytes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until `text` appears in the log at or after byte `from`; gives the bytes from `from` up to it, and the
    /// position behind it.
    ///
    /// # Panics
    /// When the time is up or the process ends first, showing the log's end.
    pub fn wait_for_text(&mut self, from: usize, text: &str, timeout: Duration) -> (String, usize) {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = !self.is_running();
            let bytes = self.log.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            let tail = bytes.get(from..).unwrap_or_default();
            if let Some(at) = tail.windows(text.len()).position(|w| w == text.as_bytes()) {
                return (String::from_utf8_lossy(&tail[..at]).into_owned(), from + at + text.len());
            }
            let shown = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(3000)..]).into_owned();
            assert!(!ended, "{} ended before printing {text:?}; its log ends:\n{shown}", self.name);
            assert!(Instant::now() < deadline, "{}: no {text:?} within {timeout:?}; log ends:\n{shown}", self.name);
            drop(self.log.grown.wait_timeout(bytes, Duration::from_millis(200)).unwrap());
        }
    }

    /// Writes to the child's standard input.
    ///
    /// # Panics
    /// When the child has closed it.
    pub fn write(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is a pipe");
        let written = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
        assert!(written.is_ok(), "{} takes no input any more: {written:?}\n{}", self.name, self.log());
    }

    /// Whether the child still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal (`libc::SIGTERM` …) to the child.
    pub fn signal(&mut self, signal: i32) {
        if self.is_running() {
            let pid = libc::pid_t::try_from(self.pid()).unwrap();
            // SAFETY: plain system call; the child is not reaped yet, so the pid is still its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Waits for the child to end by itself.
    ///
    /// # Panics
    /// When it does not within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("end of {}", self.name);
        let status = wait_for(&what, timeout, || self.child.try_wait().unwrap());
        self.wait_for_log();
        status
    }

    /// Kills the child with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        if self.is_running() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
        if thread::panicking() {
            let log = self.log();
            let start = log.char_indices().rev().nth(6000).map_or(0, |(i, _)| i);
            eprintln!("---- log of {} ----\n{}\n----", self.name, &log[start..]);
        }
    }
}
