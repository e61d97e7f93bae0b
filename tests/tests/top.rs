//! Proves `labsw-ctl top` in a real terminal, as a person uses it: rates and drops of traffic that flows, keys, a
//! terminal that changes its size, a switch that goes and comes back, and a terminal that is as before at the end;
//! `stats --watch` in a pipe.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use labsw_tests::packet::{Frame, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::{Flow, Lab};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(10);

/// A terminal with a program in it.
struct Terminal {
    master: File,
    /// The program's side; kept, so that its settings can be looked at.
    slave: OwnedFd,
    parser: Arc<Mutex<vt100::Parser>>,
    child: Child,
}

fn size(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

impl Terminal {
    /// `labsw-ctl ARGUMENTS` in a terminal of 80 × 24.
    fn start(switch: &Labswd<'_>, arguments: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(size(24), size(80), 0)));
        let end = || Stdio::from(slave.as_fd().try_clone_to_owned().unwrap());
        set_size(&master, 24, 80);
        // A session of its own, whose terminal this is: so it is told of a new size.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(find_binary("labsw-ctl").unwrap());
        command.arg("--socket").arg(switch.site().control_socket()).args(arguments).env("TERM", "xterm-256color");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (master, screen) = (File::from(master), Arc::clone(&parser));
        let mut reader = master.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                screen.lock().unwrap().process(&bytes[..count]);
            }
        });
        Terminal { master, slave, parser, child }
    }

    fn screen(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as wanted, and gives it.
    fn wait(&self, what: &str, mut is_there: impl FnMut(&str) -> bool) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(what, PATIENCE, || {
                last = self.screen();
                is_there(&last).then_some(())
            });
        }));
        assert!(found.is_ok(), "no {what}; the screen is:\n{last}");
        last
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the program to end; the terminal has to be as it was before.
    fn end(mut self) -> ExitStatus {
        let status = wait_for("end of top", PATIENCE, || self.child.try_wait().unwrap());
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{modes:?}");
        self.wait("first screen", |_| {
            let parser = self.parser.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        });
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

/// The cells of the row of a port: name, state, frames in, bits in, frames out, bits out, drops, reason.
fn row<'s>(screen: &'s str, port: &str) -> Vec<&'s str> {
    let rows = screen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|cells| cells.first() == Some(&port)).unwrap_or_default()
}

/// Whether a rate is one of some hundred a second.
fn hundreds(rate: Option<&&str>) -> bool {
    rate.is_some_and(|rate| rate.parse::<u32>().is_ok_and(|rate| rate >= 100) || rate.ends_with('k'))
}

#[test]
fn the_view_shows_what_flows_obeys_keys_and_leaves_the_terminal_as_it_was() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("top");
    let access = r#"vlan = { mode = "access", tag = 10 }"#;
    let more = "[ports.vm]\ntype = \"vhost_user\"\nvlan = { mode = \"access\", tag = 30 }\n\
                [mirrors.detect]\nsources = [\"a\"]\nto = \"span\"";
    let ports = [("a", access), ("b", access), ("bad", access), ("span", "mirror_only = true")];
    let mut switch = lab.start("", &ports, more);
    let flow = Flow::start(&lab, "a", "b");
    let bad = lab.socket("bad");
    let mut top = Terminal::start(&switch, &["top", "--interval", "300ms"]);

    // What flows: some thousand frames a second from a to b and to the mirror, and drops with their reason.
    let screen = top.wait("rates", |screen| {
        (0..10).for_each(|_| bad.send(&Frame::new(mac(1), mac(2)).vlan(10).build()));
        let (a, b, bad) = (row(screen, "a"), row(screen, "b"), row(screen, "bad"));
        let mirrored = hundreds(row(screen, "detect").get(3));
        hundreds(a.get(2)) && hundreds(b.get(4)) && mirrored && bad.get(7) == Some(&"tagged_not_allowed")
    });
    assert!(screen.starts_with("labswd ") && screen.contains("workers busy:  0 "), "{screen}");
    assert_eq!(row(&screen, "vm").get(1), Some(&"down"), "{screen}");
    assert_eq!(screen.lines().count(), 24, "{screen}");
    assert!(screen.lines().last().unwrap().starts_with("q quit"), "{screen}");

    keys_change_the_view(&mut top, &screen);
    // Another size.
    top.parser.lock().unwrap().screen_mut().set_size(size(30), size(100));
    set_size(&top.master, 30, 100);
    top.wait("30 lines", |screen| {
        screen.lines().count() == 30 && screen.lines().last().is_some_and(|line| line.starts_with("q quit"))
    });

    // The switch goes and comes back.
    flow.finish();
    switch.kill9();
    top.wait("trouble", |screen| {
        screen
            .lines()
            .next()
            .is_some_and(|line| line.starts_with("trying again: ") && line.contains("can't be reached"))
    });
    switch.restart();
    top.wait("the switch again", |screen| screen.starts_with("labswd ") && screen.contains("vm"));
    top.press("q");
    assert!(top.end().success());

    // SIGTERM ends it as well.
    let top = Terminal::start(&switch, &["top"]);
    top.wait("the view", |screen| screen.contains("vm"));
    top.signal(Signal::TERM);
    assert!(top.end().success());

    without_a_terminal(&switch);
    switch.stop();
}

/// Keys: the order of the ports, and one port in full.
fn keys_change_the_view(top: &mut Terminal, screen: &str) {
    let first =
        |screen: &str| screen.lines().nth(4).unwrap_or_default().split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(first(screen), "a");
    top.press("n");
    top.wait("names from the last on", |screen| first(screen) == "vm");
    top.press("\x1b[H\r");
    top.wait("details", |screen| screen.contains("vm  vhost_user  down: no front end is connected"));
    top.press("r\x1b[H");
    let screen =
        top.wait("details of another port", |screen| screen.contains("veth  up") && screen.contains("no drops"));
    assert!(screen.contains("BIT/S↓"), "{screen}");
    top.press("\r");
    top.wait("mirrors again", |screen| screen.contains("MIRROR"));
}

/// `top` refuses in one line; what is for pipes works.
fn without_a_terminal(switch: &Labswd<'_>) {
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(find_binary("labsw-ctl").unwrap());
        command.arg("--socket").arg(switch.site().control_socket()).args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    };
    let output = ctl(&["top"]);
    let line = "labsw-ctl: top needs a terminal; `stats --watch` is for pipes and files\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(2), line));
    let program = find_binary("labsw-ctl").unwrap();
    let watch = format!(
        "{} --socket {} --json stats a --watch --interval 100ms | head -n 3",
        program.display(),
        switch.site().control_socket().display()
    );
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &watch]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(lines.lines().nth(2).unwrap()).unwrap();
    assert!(last[0]["rates"]["rx_frames_per_second"].is_number(), "{last}");
}
