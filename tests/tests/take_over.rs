//! Proves that a new `labswd` takes over from a running one without a frame lost or doubled, and that a take-over that
//! fails leaves the old one as it was.
//!
//! Numbered frames go from one front end to another, with as many on their way as the rings take, while one `labswd`
//! after the other takes over: each has to arrive once, in order. `LABSW_TAKE_OVERS` says how many times (else 5).
//! The longest pause between two frames, per take-over, is printed.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use labsw_control::takeover::{Message, WireError, socket_path, wire};
use labsw_testkit::frontend;
use labsw_testkit::station::Station;
use labsw_tests::netns::{self, Netns};
use labsw_tests::numbered::{End, RING, Stream, number_of, numbered};
use labsw_tests::packet::RawSocket;
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};
use labsw_tests::take_over::{PACKED, SPLIT, as_far_as_the_state, meet, ports, report, take_overs};

const SECOND: Duration = Duration::from_secs(1);
/// A guest's program at its end of a TAP interface.
struct Tun(File);

/// The length of the virtio-net header that a descriptor has from the beginning, bytes.
const TUN_HEADER: usize = 10;

impl Tun {
    fn open(ns: &Netns, interface: &str) -> Tun {
        ns.enter(|| {
            let file =
                File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
            // SAFETY: all-zero is a valid `ifreq`.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            request.ifr_name.iter_mut().zip(interface.bytes()).for_each(|(to, from)| *to = from.cast_signed());
            let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
            request.ifr_ifru.ifru_flags = flags.try_into().unwrap();
            // SAFETY: the kernel reads and writes one `ifreq`, which lives across the call.
            let attached = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
            assert_eq!(attached, 0, "{interface}: {}", std::io::Error::last_os_error());
            Tun(file)
        })
    }
}

impl End for Tun {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        self.0.write(&[&[0; TUN_HEADER], frame].concat()).is_ok()
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = vec![0; 2048];
        let one = || self.0.read(&mut bytes).ok().map(|length| bytes[TUN_HEADER.min(length)..length].to_vec());
        std::iter::from_fn(one).take(64).collect()
    }
}

fn frames_survive(features: [u64; 2]) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takeover");
    let mut switch = Labswd::start(&site, &ports(&["a", "b", "idle"]));
    let (mut a, mut b) = meet(&switch, features);
    switch.ctl(&["fdb", "add", "02:00:00:00:00:77", "--vlan", "1", "--port", "idle"]);
    let mut stream = Stream::default();
    let (mut gaps, mut still) = (Vec::new(), Vec::new());
    for round in 0..take_overs() {
        let before = switch.pid();
        let passed = stream.during(&mut a, &mut b, || {
            std::thread::sleep(SECOND / 10);
            still.push(switch.take_over());
            std::thread::sleep(SECOND / 10);
        });
        assert_ne!(switch.pid(), before);
        assert!(passed.frames > 100, "round {round}: only {} frames passed", passed.frames);
        gaps.push(passed.longest);
    }
    // The counters go on, and the database: nothing was flooded to the port that has nothing to do with it.
    assert_eq!(switch.counter("a", "rx_frames"), stream.sent);
    assert_eq!(switch.counter("b", "tx_frames"), stream.received);
    assert_eq!(switch.port("a")["drops"], switch.port("b")["drops"], "nothing was dropped");
    assert_eq!(switch.counter("idle", "tx_frames") + switch.drops("idle", "not_connected"), 1, "the very first frame");
    assert_eq!(switch.fdb_port(1, "02:00:00:00:00:77").as_deref(), Some("idle"));
    let shown = switch.ctl(&["port", "show", "a"]);
    assert_eq!(shown["connected"], true);
    // The front ends were not disconnected, and are answered.
    let offered = {
        a.front.send(frontend::GET_FEATURES, &[], &[]);
        a.front.reply(frontend::GET_FEATURES)
    };
    assert_eq!(offered & features[0], features[0]);
    report(&format!("vhost-user to vhost-user, features {:#x}", features[0]), [gaps, still], stream.received);
    drop((a, b));
    switch.stop();
}

/// Two ends of which the second gets a copy of whatever the first gets.
struct Watched {
    end: Station,
    sensor: Station,
    copies: u64,
}

impl End for Watched {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        self.end.try_send(frame)
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        for copy in self.sensor.receive() {
            assert_eq!(number_of(&copy), self.copies, "each copy once, in order");
            self.copies += 1;
        }
        self.end.receive()
    }
}

#[test]
fn mirrors_go_on_and_no_copy_is_lost() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takespan");
    let mut switch = Labswd::start(&site, &ports(&["a", "b", "span"]));
    let (mut a, b) = meet(&switch, [SPLIT, SPLIT]);
    let sensor = Station::attach(&switch.vhost_socket("span"), SPLIT, RING);
    switch.wait_port_up("span");
    switch.ctl(&["mirror", "set", "m", "--source", "a:rx", "--to", "span"]);
    let mut stream = Stream::default();
    let mut watched = Watched { end: b, sensor, copies: 0 };
    for _ in 0..take_overs() {
        stream.during(&mut a, &mut watched, || {
            std::thread::sleep(SECOND / 10);
            switch.take_over();
        });
    }
    process::wait_for("the last copies", 5 * SECOND, || {
        watched.receive();
        (watched.copies == stream.received).then_some(())
    });
    let mirrors = switch.ctl(&["mirror", "list"]);
    let counted = |counter: &str| mirrors[0][counter].as_u64().unwrap();
    assert_eq!((counted("matched"), counted("sent"), counted("dropped")), (stream.received, stream.received, 0));
    drop((a, watched));
    switch.stop();
}

#[test]
fn copies_that_wait_for_room_are_handed_over() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takewait");
    let mut switch = Labswd::start(&site, &ports(&["a", "b", "span"]));
    let (mut a, mut b) = meet(&switch, [SPLIT, SPLIT]);
    let mut sensor = Station::attach(&switch.vhost_socket("span"), SPLIT, RING);
    switch.wait_port_up("span");
    switch.ctl(&["mirror", "set", "m", "--source", "a:rx", "--to", "span"]);
    // More copies than the sensor has buffers, and it takes none of them.
    let count = u64::from(RING) + 100;
    for number in 0..count {
        process::wait_for("room", 5 * SECOND, || a.try_send(&numbered(1, 2, number)).then_some(()));
        b.receive();
    }
    process::wait_for("all are counted", 5 * SECOND, || {
        (switch.ctl(&["mirror", "list"])[0]["sent"].as_u64() == Some(count)).then_some(())
    });
    switch.take_over();
    let mut copies = Vec::new();
    process::wait_for("all copies", 10 * SECOND, || {
        copies.extend(sensor.receive().iter().map(|copy| number_of(copy)));
        (copies.len() as u64 >= count).then_some(())
    });
    assert!(copies.into_iter().eq(0..count), "each once, in order");
    drop((a, b, sensor));
    switch.stop();
}

/// Take-overs under a stream between a port of the kernel's side and a guest, in both directions.
fn frames_survive_beside(what: &str, switch: &mut Labswd<'_>, port: &str, kernel: &mut dyn End) {
    let mut guest = Station::attach(&switch.vhost_socket("b"), SPLIT, RING);
    switch.wait_port_up("b");
    let (mut gaps, mut still) = (Vec::new(), Vec::new());
    let mut frames = 0;
    for to_guest in [true, false] {
        let (from, to): (&mut dyn End, &mut dyn End) =
            if to_guest { (kernel, &mut guest) } else { (&mut guest, kernel) };
        // The destination says where it is.
        assert!(to.try_send(&numbered(2, 1, 0)));
        process::wait_for("the place of the destination", 5 * SECOND, || {
            switch.fdb_port(1, "02:00:00:00:00:02").filter(|at| (at == "b") == to_guest)
        });
        let mut stream = Stream::default();
        for _ in 0..take_overs() {
            let passed = stream.during(from, to, || {
                std::thread::sleep(SECOND / 10);
                still.push(switch.take_over());
                std::thread::sleep(SECOND / 10);
            });
            assert!(passed.frames > 100, "only {} frames passed", passed.frames);
            gaps.push(passed.longest);
        }
        frames += stream.received;
        let drops = switch.port(port)["drops"].clone();
        let dropped: u64 = drops.as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
        assert!(dropped <= 8, "of the host's own chatter at most, while no front end was there: {dropped}");
    }
    report(what, [gaps, still], frames);
}

#[test]
fn no_frame_is_lost_between_a_tap_of_the_host_and_a_guest() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("taketap");
    let ports = ports(&["b"]) + "[ports.host]\ntype = \"tap\"\ninterface = \"t0\"\n";
    let mut switch = Labswd::start(&site, &ports);
    switch.wait_port_up("host");
    let mut host = RawSocket::open(&site.ns, "t0");
    frames_survive_beside("TAP of the host and vhost-user", &mut switch, "host", &mut host);
    // It is still the switch's: it goes with it.
    switch.stop();
}

#[test]
fn no_frame_is_lost_between_a_tap_in_another_namespace_and_a_guest() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, container) = (Site::new("takens"), Netns::new("box"));
    let netns = format!("netns = \"{}\"\npeer_name = \"eth0\"\n", container.name());
    let ports = ports(&["b"]) + "[ports.box]\ntype = \"tap\"\ninterface = \"t2\"\nfor = \"container\"\n" + &netns;
    let mut switch = Labswd::start(&site, &ports);
    process::wait_for("the interface", 5 * SECOND, || {
        container.link_names().contains(&"eth0".to_owned()).then_some(())
    });
    container.ip(&["link", "set", "eth0", "up"]);
    switch.wait_port_up("box");
    let mut inside = RawSocket::open(&container, "eth0");
    frames_survive_beside("TAP of a container and vhost-user", &mut switch, "box", &mut inside);
    switch.stop();
    assert!(!container.link_names().contains(&"eth0".to_owned()), "it goes with the switch");
}

#[test]
fn no_frame_is_lost_between_a_veth_pair_and_a_guest() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, container) = (Site::new("takeveth"), Netns::new("veth"));
    let veth = format!("type = \"veth\"\npeer = \"v1\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n", container.name());
    let mut switch = Labswd::start(&site, &(ports(&["b"]) + "[ports.box]\n" + &veth));
    switch.wait_port_up("box");
    let mut inside = RawSocket::open(&container, "eth0");
    frames_survive_beside("veth pair of a container and vhost-user", &mut switch, "box", &mut inside);
    // It is still the switch's: it goes with it.
    switch.stop();
    assert!(!container.link_names().contains(&"eth0".to_owned()), "it goes with the switch");
}

#[test]
fn no_frame_is_lost_between_a_device_of_the_host_and_a_guest() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, outside) = (Site::new("takenic"), Netns::new("outside"));
    netns::wire((&site.ns, "dev0"), (&outside, "out0"));
    let as_it_was = site.ns.ip(&["-d", "link", "show", "dev0"]);
    let nic = "[ports.nic]\ntype = \"af_xdp\"\ndevice = \"name:dev0\"\nmtu = 1400\n\
               vlan = { mode = \"access\", tag = 1 }\n";
    let mut switch = Labswd::start(&site, &(ports(&["b"]) + nic));
    switch.wait_port_up("nic");
    assert_ne!(site.ns.ip(&["-d", "link", "show", "dev0"]), as_it_was);
    let mut far = RawSocket::open(&outside, "out0");
    frames_survive_beside("AF_XDP and vhost-user", &mut switch, "nic", &mut far);
    // The last process puts back what the first one changed.
    switch.stop();
    assert_eq!(site.ns.ip(&["-d", "link", "show", "dev0"]), as_it_was);
}

#[test]
fn no_frame_is_lost_between_a_tap_of_a_guest_and_a_guest() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("taketun");
    let ports = ports(&["b"]) + "[ports.vm]\ntype = \"tap\"\ninterface = \"t1\"\nfor = \"guest\"\n";
    let mut switch = Labswd::start(&site, &ports);
    process::wait_for("the interface", 5 * SECOND, || site.ns.link_names().contains(&"t1".to_owned()).then_some(()));
    let mut tun = Tun::open(&site.ns, "t1");
    switch.wait_port_up("vm");
    frames_survive_beside("TAP of a guest and vhost-user", &mut switch, "vm", &mut tun);
    drop(tun);
    switch.stop();
}

#[test]
fn no_frame_is_lost_between_split_rings() {
    frames_survive([SPLIT, SPLIT]);
}

#[test]
fn no_frame_is_lost_between_packed_rings() {
    frames_survive([PACKED, PACKED]);
}

/// `labswd --take-over` at this site, which has to fail with one line; gives the line.
fn refused(site: &Site) -> String {
    let program = find_binary("labswd").unwrap();
    let mut command = site.ns.command("timeout");
    command.args(["30", &program.to_string_lossy(), "--take-over", "--log-level", "error", "--config"]);
    let (status, text) = process::output(command.arg(site.dir().join("lab.toml")));
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "one line: {text}");
    text
}

#[test]
fn a_take_over_that_fails_leaves_the_old_one_as_it_was() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takefail");
    let mut switch = Labswd::start(&site, &ports(&["a", "b"]));
    let (mut a, mut b) = meet(&switch, [SPLIT, SPLIT]);
    let mut stream = Stream::default();
    // It hangs up at each point of the conversation.
    let passed = stream.during(&mut a, &mut b, || {
        drop(as_far_as_the_state(&site).unwrap());
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Ready, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Last(_)));
        drop(channel);
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Ready, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Last(_)));
        channel.send(&Message::Prepared, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Go));
        // It ends with the switch in its hands: nobody uses the rings, so the old one may.
        drop(channel);
        std::thread::sleep(SECOND / 10);
    });
    assert!(passed.longest < 5 * SECOND, "{passed:?}");
    // It hangs with the state, and with the workers standing still.
    let passed = stream.during(&mut a, &mut b, || {
        let channel = as_far_as_the_state(&site).unwrap();
        assert!(matches!(channel.receive(), Err(WireError::Refused(reason)) if reason.contains("in time")));
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Ready, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Last(_)));
        assert!(matches!(channel.receive(), Err(WireError::Refused(reason)) if reason.contains("in time")));
        // Two at once: the second is told.
        let first = UnixStream::connect(socket_path(&site.control_socket())).unwrap();
        std::thread::sleep(SECOND / 10);
        assert!(as_far_as_the_state(&site).unwrap_err().to_string().contains("under way"));
        drop(first);
        process::wait_for("the end of the first", 5 * SECOND, || as_far_as_the_state(&site).ok().map(drop));
        // Out of turn.
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Running, &[]).unwrap();
        assert!(matches!(channel.receive(), Err(WireError::Refused(reason)) if reason.contains("out of turn")));
    });
    assert!(passed.frames > 1000, "{passed:?}");
    assert_eq!(switch.counter("b", "tx_frames"), stream.received);
    // Now for real.
    switch.take_over();
    let passed = stream.during(&mut a, &mut b, || std::thread::sleep(SECOND / 5));
    assert!(passed.frames > 100);
    switch.stop();
}

#[test]
fn garbled_words_and_unknown_versions_are_refused_in_one_line() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takebad");
    let mut switch = Labswd::start(&site, &ports(&["a"]));
    let header = |words: [u32; 4]| -> Vec<u8> {
        wire::MAGIC.into_iter().chain(words.into_iter().flat_map(u32::to_le_bytes)).collect()
    };
    let newer = wire::FORMAT + 1;
    let cases: [(Vec<u8>, &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: switch\r\n\r\n".to_vec(), "garbled"),
        (header([newer, newer, 2, 0]), "does not know"),
        (header([0, 0, 2, 0]), "needs at least"),
        ([header([wire::FORMAT, wire::OLDEST_READER, 3, 0]), b"[1]".to_vec()].concat(), "garbled"),
    ];
    for (bytes, expected) in cases {
        let mut visitor = UnixStream::connect(socket_path(&site.control_socket())).unwrap();
        visitor.set_read_timeout(Some(10 * SECOND)).unwrap();
        visitor.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        // The end of the connection may be a reset: not all that was sent was read.
        let _ = visitor.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("refused") && answer.contains(expected), "{answer:?} lacks {expected:?}");
        // Then the next one is heard.
        process::wait_for("the end of the visit", 5 * SECOND, || as_far_as_the_state(&site).ok().map(drop));
    }
    assert!(switch.is_running());
    assert_eq!(switch.port_state("a"), "down");
    switch.stop();
}

#[test]
fn the_new_process_has_the_configuration_that_runs() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takename");
    let file = site.write_config(&ports(&["a"]));
    let line = refused(&site);
    assert!(line.contains("no labswd that could be taken over from"), "{line}");
    let mut switch = Labswd::start(&site, &ports(&["a"]));
    process::wait_for("the port", 5 * SECOND, || (switch.port_state("a") == "down").then_some(()));
    // The configuration that runs is what counts.
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "[ports.later]\ntype = \"vhost_user\"\n").unwrap();
    switch.ctl(&["port", "add", "more", "--type", "vhost_user"]);
    switch.ctl(&["port", "down", "a"]);
    switch.take_over();
    let ports = switch.ctl(&["port", "list"]);
    let names: Vec<_> = ports.as_array().unwrap().iter().filter_map(|port| port["name"].as_str()).collect();
    assert_eq!(names, ["a", "more"]);
    assert_eq!(switch.port("a")["reason"], "administratively down");
    switch.stop();
}
