//! Proves that a guest's port belongs to one front end at a time and to whom the configuration says: further ones are
//! turned away at once and the owner is named, who waits behind it never gets its place, a front end that is at fault
//! again and again waits longer and longer, floods of connections make few log lines, descriptors that take long to
//! close hold up nobody, and the files of the sockets have the owner, group and mode that the port asks for.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use labsw_tests::hostile::request::{GET_FEATURES, SET_OWNER};
use labsw_tests::hostile::{FrontEnd, Script, Wire};
use labsw_tests::packet::{BROADCAST, Frame, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use rustix::net::sockopt::set_socket_linger;

const SECOND: Duration = Duration::from_secs(1);
const ALICE_AND_BOB: &str = r#"
[ports.alice]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
[ports.bob]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
"#;

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

/// A front end at a port whose last one, if any, is known to have left.
fn front(switch: &Labswd<'_>, port: &str) -> FrontEnd {
    wait_for("a free port", 10 * SECOND, || (switch.port(port)["connected"] == false).then_some(()));
    let front = FrontEnd::start(&switch.vhost_socket(port), Script::default());
    switch.wait_port(port, "up", 10 * SECOND);
    front
}

/// A frame of `from` that `to` has received.
fn passes(from: &mut FrontEnd, to: &mut FrontEnd, number: u8) -> bool {
    let frame = Frame::new(BROADCAST, mac(number)).build();
    from.send_frame(&frame);
    std::iter::from_fn(|| to.receive_frame(SECOND)).any(|got| got == frame)
}

#[test]
fn who_comes_second_is_turned_away_and_gets_nothing_of_the_first() {
    if !needs() {
        return;
    }
    let site = Site::new("wp");
    let switch = Labswd::start(&site, ALICE_AND_BOB);
    let (mut alice, mut bob) = (front(&switch, "alice"), front(&switch, "bob"));
    let own = std::process::id();
    let mut thief = FrontEnd::start(&switch.vhost_socket("alice"), Script::default());
    thief.wire.wait_closed(SECOND);
    let shown = switch.port("alice");
    assert_eq!((&shown["state"], &shown["front_end"]["pid"]), (&"up".into(), &own.into()), "{shown}");
    assert_eq!((&shown["front_end"]["uid"], &shown["turned_away"]), (&0.into(), &1.into()), "{shown}");
    let line = format!("turned away pid {own} (uid 0): the port is in use by pid {own} (uid 0)");
    assert!(switch.log().contains(&line), "{}", switch.log());
    assert!(passes(&mut alice, &mut bob, 1) && passes(&mut bob, &mut alice, 2));
    // Alice is restarted; what is for her goes to her.
    drop(alice);
    let mut alice = front(&switch, "alice");
    assert!(passes(&mut bob, &mut alice, 3));
    assert_eq!(thief.try_receive_frame(), None);
    assert_eq!(switch.port("alice")["turned_away"], 1);
    drop((alice, bob, thief));
    switch.stop();
}

#[test]
fn faults_are_followed_by_longer_and_longer_waits_that_a_word_ends() {
    if !needs() {
        return;
    }
    let site = Site::new("wp");
    let switch = Labswd::start(&site, ALICE_AND_BOB);
    let served = |begin: Instant| {
        // The front end is served when it gets an answer.
        let mut wire = Wire::connect(&switch.vhost_socket("alice"));
        wire.request(GET_FEATURES, &[], &[]);
        assert!(wire.reply().is_some());
        let waited = begin.elapsed();
        wire.request(9999, &[], &[]);
        wire.wait_closed(SECOND);
        waited
    };
    let waits: Vec<Duration> = (0..6).map(|_| served(Instant::now())).collect();
    let least = [0, 100, 200, 400, 800, 1600].map(Duration::from_millis);
    assert!(waits.iter().zip(least).all(|(wait, least)| *wait + Duration::from_millis(60) >= least), "{waits:?}");
    let shown = switch.port("alice");
    let reason = shown["reason"].as_str().unwrap();
    assert!(shown["state"] == "failed" && reason.contains("9999") && reason.contains("served in "), "{shown}");
    let begin = Instant::now();
    switch.ctl(&["port", "up", "alice"]);
    assert!(served(begin) < 2 * SECOND, "3.2 s without the word");
    // Who comes and goes without a fault, however often, waits for nothing.
    switch.ctl(&["port", "up", "bob"]);
    (0..50).for_each(|_| drop(Wire::connect(&switch.vhost_socket("bob"))));
    let begin = Instant::now();
    drop(front(&switch, "bob"));
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
    switch.stop();
}

#[test]
fn a_flood_of_connections_makes_few_log_lines_and_they_are_counted() {
    if !needs() {
        return;
    }
    let site = Site::new("wp");
    let switch = Labswd::start(&site, ALICE_AND_BOB);
    let (mut alice, mut bob) = (front(&switch, "alice"), front(&switch, "bob"));
    let before = switch.log().len();
    let end = Instant::now() + 3 * SECOND;
    let mut connections = 0;
    while Instant::now() < end {
        drop(Wire::connect(&switch.vhost_socket("alice")));
        connections += 1;
    }
    assert!(connections > 100, "{connections}");
    assert!(passes(&mut alice, &mut bob, 1), "the owner is served meanwhile");
    let lines = |text: &str| switch.log()[before..].lines().filter(|line| line.contains(text)).count();
    let withheld = wait_for("the line that counts", 15 * SECOND, || {
        let log = switch.log();
        let line =
            log[before..].lines().find(|line| line.contains("more lines like this in the last 10 s"))?.to_owned();
        line.split_whitespace().find_map(|word| word.parse::<u64>().ok())
    });
    assert!(lines("alice") <= 15, "{} lines", lines("alice"));
    // Those that were interrupted while they were refused may have been too quick for the switch.
    assert!(withheld > 50, "{withheld} of {connections}");
    drop((alice, bob));
    switch.stop();
}

#[test]
fn descriptors_that_take_long_to_close_hold_up_nobody() {
    if !needs() {
        return;
    }
    let site = Site::new("wp");
    let switch = Labswd::start(&site, ALICE_AND_BOB);
    let linger = 8 * SECOND;
    let (slow, _unread) = site.ns.enter(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (unread, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        set_socket_linger(&stream, Some(linger)).unwrap();
        (stream, unread)
    });
    let wire = Wire::connect(&switch.vhost_socket("alice"));
    wire.request(SET_OWNER, &[], &[]);
    wait_for("alice is connected", 5 * SECOND, || (switch.port("alice")["connected"] == true).then_some(()));
    // The last copy of the descriptor waits, unread, in the connection that ends.
    wire.request(9999, &[], &[]);
    wire.request(GET_FEATURES, &[], &[slow.as_fd()]);
    drop(slow);
    drop(wire);
    let begin = Instant::now();
    for _ in 0..10 {
        let asked = Instant::now();
        switch.ctl(&["status"]);
        assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
    }
    let (mut bob, begun) = (front(&switch, "bob"), begin.elapsed());
    bob.send_frame(&Frame::new(BROADCAST, mac(1)).build());
    assert!(begun < linger / 2, "{begun:?}");
    drop(bob);
    let stopping = Instant::now();
    switch.stop();
    assert!(stopping.elapsed() < 5 * SECOND, "{:?}", stopping.elapsed());
}

#[test]
fn sockets_belong_to_whom_the_port_says() {
    if !needs() {
        return;
    }
    let site = Site::new("wp");
    let config = r#"
socket_group = "4100"
control_group = "4200"
[ports.plain]
type = "vhost_user"
[ports.own]
type = "vhost_user"
owner = "4301"
group = "4302"
mode = "0606"
[ports.picky]
type = "vhost_user"
peer_uid = 4303
"#;
    let switch = Labswd::start(&site, config);
    let file = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.uid(), meta.gid(), meta.permissions().mode() & 0o777)
    };
    assert_eq!(file(&site.control_socket()), (0, 4200, 0o660));
    assert_eq!(file(&switch.vhost_socket("plain")), (0, 4100, 0o660));
    assert_eq!(file(&switch.vhost_socket("own")), (4301, 4302, 0o606));
    // What a port says itself stays when the switch's settings change.
    let (changed, back) =
        (config.replace("socket_group = \"4100\"", "socket_group = \"4101\"\nsocket_mode = \"0600\""), config);
    for (config, expected) in [(changed.as_str(), (0, 4101, 0o600)), (back, (0, 4100, 0o660))] {
        let path = site.write_config(config);
        switch.ctl(&["config", "apply", path.to_str().unwrap()]);
        assert_eq!(file(&site.control_socket()), (0, 4200, expected.2));
        assert_eq!(file(&switch.vhost_socket("plain")), expected);
        assert_eq!(file(&switch.vhost_socket("own")), (4301, 4302, 0o606));
    }
    // Root may open the socket, and is not served.
    let mut wire = Wire::connect(&switch.vhost_socket("picky"));
    wire.wait_closed(SECOND);
    let shown = switch.port("picky");
    assert!(shown["reason"].as_str().unwrap().contains("peer_uid is 4303"), "{shown}");
    assert_eq!((&shown["state"], &shown["turned_away"]), (&"down".into(), &1.into()));
    switch.ctl(&["port", "set", "picky", "peer_uid=0"]);
    let mut wire = Wire::connect(&switch.vhost_socket("picky"));
    wire.request(GET_FEATURES, &[], &[]);
    assert!(wire.reply().is_some());
    let refused = switch.ctl_refused(&["port", "set", "own", "group=no-such-group"]);
    assert!(refused.contains("no-such-group"), "{refused}");
    assert_eq!(file(&switch.vhost_socket("own")), (4301, 4302, 0o606));
    switch.stop();
}
