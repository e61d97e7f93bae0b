//! Proves that a port's traffic goes through the sensor in its wire, both ways, and nowhere else; that a sensor that
//! dies is passed by or closed, as told, and put back when it lives again, while other ports lose nothing; and that
//! Suricata in the wire of a port stops what its rule says.
#![allow(clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use labsw_tests::packet::{Frame, Mac, RawSocket};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::{Flow, Lab};

const SOON: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(300);
/// The stations: behind the sensor, and at another port.
const WEB: Mac = [0x02, 0, 0, 0, 0, 1];
const DB: Mac = [0x02, 0, 0, 0, 0, 2];
/// The type of the test's own frames.
const TEST: [u8; 2] = [0x88, 0xb6];

/// The ports of the lab.
const PORTS: [(&str, &str); 6] = [
    ("web", "vlan = { mode = \"access\", tag = 20 }"),
    ("db", "vlan = { mode = \"access\", tag = 20 }"),
    ("in", ""),
    ("out", ""),
    ("x", ""),
    ("y", ""),
];

/// A sensor that lets everything pass: it copies the frames of either port to the other one.
struct Copier {
    stop: Arc<AtomicBool>,
    /// Frames of the test that it copied.
    copied: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Copier {
    fn start(lab: &Lab) -> Copier {
        let (stop, copied) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let copy = |from: &str, to: &str| {
            let (from, to) = (lab.socket(from), RawSocket::open(&lab.peers, to));
            let (stop, copied) = (Arc::clone(&stop), Arc::clone(&copied));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(frame) = from.recv(Duration::from_millis(20)) else { continue };
                    copied.fetch_add(u64::from(frame[12..14] == TEST), Ordering::Relaxed);
                    let _ = to.try_send(&frame);
                }
            })
        };
        let threads = vec![copy("in", "out"), copy("out", "in")];
        Copier { stop, copied, threads }
    }

    fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    fn kill(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn state(switch: &Labswd<'_>) -> (String, String) {
    let shown = switch.ctl(&["inline", "show", "ips"]);
    let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

/// Waits until the sensor has this state; says how long it took.
fn wait_state(switch: &Labswd<'_>, wanted: &str) -> Duration {
    let begin = Instant::now();
    wait_for(&format!("sensor {wanted}"), SOON, || (state(switch).0 == wanted).then_some(()));
    begin.elapsed()
}

/// Sends a frame; true if it arrives at the other socket.
fn passes(from: &RawSocket, to: &RawSocket, [dst, src]: [Mac; 2], patience: Duration) -> bool {
    let frame = Frame::new(dst, src).ethertype(u16::from_be_bytes(TEST)).payload(&[7; 100]).build();
    from.send(&frame);
    to.recv_matching(patience, |got| got == frame).is_some()
}

#[test]
fn frames_go_through_a_sensor_and_past_it_when_it_dies() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("inl");
    let switch = lab.start("", &PORTS, "");
    let others = Flow::start(&lab, "x", "y");
    let (web, db) = (lab.socket("web"), lab.socket("db"));
    let there = |patience| passes(&web, &db, [DB, WEB], patience);
    let back = |patience| passes(&db, &web, [WEB, DB], patience);
    assert!(there(SOON) && back(SOON));

    // A sensor of which nothing is known yet gets nothing.
    switch.ctl(&["inline", "set", "ips", "--of", "web", "--through", "in,out", "--on-failure", "open"]);
    let (first, reason) = state(&switch);
    assert!(first == "bypassed" && reason.contains("no probe passes from \"in\" to \"out\""), "{first}: {reason}");
    assert!(there(SOON) && back(SOON), "past it");

    let sensor = Copier::start(&lab);
    eprintln!("put in after {:?}", wait_state(&switch, "through"));
    let before = sensor.copied();
    assert!(there(SOON) && back(SOON), "through it");
    assert_eq!(sensor.copied() - before, 2);
    assert_eq!(switch.fdb_port(20, "02:00:00:00:00:01").as_deref(), Some("web"), "learned at the port");
    let shown = switch.port("web");
    assert_eq!((&shown["inline"]["name"], &shown["inline"]["state"]), (&"ips".into(), &"through".into()));
    let trace = switch.ctl(&["trace", "--in", "web", "--dst", "02:00:00:00:00:02", "--src", "02:00:00:00:00:01"]);
    assert_eq!(trace["summary"], "forwarded to in");
    let trace = switch.ctl(&["trace", "--in", "db", "--dst", "02:00:00:00:00:01", "--src", "02:00:00:00:00:02"]);
    assert_eq!(trace["summary"], "forwarded to out");
    // Probes are nobody's traffic, and nobody's frames.
    let counted = ["in", "out"].map(|port| switch.counter(port, "rx_frames") + switch.counter(port, "tx_frames"));
    std::thread::sleep(MOMENT);
    assert_eq!(
        ["in", "out"].map(|port| switch.counter(port, "rx_frames") + switch.counter(port, "tx_frames")),
        counted
    );
    assert!(db.recv_all(MOMENT).is_empty() && web.recv_all(MOMENT).is_empty());

    // It dies, and lives again.
    sensor.kill();
    let gone = Instant::now();
    wait_for("a frame past the sensor", SOON, || there(Duration::from_millis(20)).then_some(()));
    eprintln!("passed by after {:?}", gone.elapsed());
    assert!(back(SOON));
    let (now, reason) = state(&switch);
    assert!(now == "bypassed" && reason.contains("no probe passes"), "{now}: {reason}");
    let sensor = Copier::start(&lab);
    wait_state(&switch, "through");
    sensor.kill();
    assert!(others.finish() > 0);
    switch.stop();
}

#[test]
fn nothing_goes_past_a_closed_sensor_that_dies() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("inc");
    let switch = lab.start("", &PORTS, "");
    let others = Flow::start(&lab, "x", "y");
    let (web, db) = (lab.socket("web"), lab.socket("db"));
    let there = |patience| passes(&web, &db, [DB, WEB], patience);
    let back = |patience| passes(&db, &web, [WEB, DB], patience);
    switch.ctl(&["inline", "set", "ips", "--of", "web", "--through", "in,out", "--on-failure", "open"]);
    let sensor = Copier::start(&lab);
    wait_state(&switch, "through");
    assert!(there(SOON) && back(SOON));
    switch.ctl(&["inline", "set", "ips", "--on-failure", "closed"]);
    assert_eq!(state(&switch).0, "through", "what is left out stays, and so does the sensor's state");
    sensor.kill();
    eprintln!("closed after {:?}", wait_state(&switch, "closed"));
    assert!(!there(MOMENT) && !back(MOMENT));
    assert!(switch.drops("web", "inline_closed") >= 2);

    // A port of the sensor that is switched off says so at once.
    let sensor = Copier::start(&lab);
    wait_state(&switch, "through");
    assert!(there(SOON) && back(SOON));
    switch.ctl(&["port", "down", "in"]);
    wait_state(&switch, "closed");
    assert!(state(&switch).1.contains("\"in\" is down"));
    switch.ctl(&["port", "up", "in"]);
    wait_state(&switch, "through");

    // Taken out, all is as before.
    switch.ctl(&["inline", "del", "ips"]);
    assert!(there(SOON) && back(SOON));
    sensor.kill();
    assert!(others.finish() > 0);
    switch.stop();
}

#[test]
fn a_sensor_in_the_file_is_planned_shown_and_saved_and_what_contradicts_it_is_refused() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("inf");
    let ports = [("web", ""), ("db", ""), ("in", ""), ("out", "")];
    let table = "[inline.ips]\nof = \"web\"\nthrough = [\"in\", \"out\"]\non_failure = \"closed\"\n";
    let switch = lab.start("", &ports, table);
    assert_eq!(switch.ctl(&["inline", "list"])[0]["state"], "closed");
    let file = switch.site().dir().join("saved.toml");
    let name = file.to_str().unwrap();
    switch.ctl(&["inline", "set", "ips", "--on-failure", "open"]);
    switch.ctl(&["config", "save", name]);
    assert!(std::fs::read_to_string(&file).unwrap().contains("on_failure = \"open\""));
    for (arguments, reason) in [
        (&["port", "del", "in"][..], "inline \"ips\" uses it"),
        (&["port", "set", "out", "mirror_only=true"], "inline \"ips\" uses it, so it can't be mirror_only"),
        (&["mirror", "set", "m", "--source", "db", "--to", "in"], "\"in\" is the destination of mirror \"m\""),
        (
            &["inline", "set", "b", "--of", "db", "--through", "in,web", "--on-failure", "open"],
            "already used by inline",
        ),
        (
            &["inline", "set", "b", "--of", "no", "--through", "in,out", "--on-failure", "open"],
            "there is no port \"no\"",
        ),
        (&["inline", "set", "b", "--of", "db", "--through", "in", "--on-failure", "open"], "a sensor has two"),
        (&["inline", "set", "b", "--of", "db", "--through", "in,out"], "`on_failure` is missing"),
    ] {
        let line = switch.ctl_refused(arguments);
        assert!(line.contains(reason), "{arguments:?}: {line}");
    }
    // Without it in the file, it goes; what was changed at run time is told.
    let text = std::fs::read_to_string(&file).unwrap();
    let (without, _) = text.split_once("[inline.ips]").unwrap();
    std::fs::write(&file, without).unwrap();
    let changes = switch.ctl(&["config", "apply", name]);
    assert_eq!(
        (&changes["changes"][0]["kind"], &changes["changes"][0]["action"]),
        (&"inline".into(), &"remove".into())
    );
    assert!(switch.ctl(&["inline", "list"]).as_array().unwrap().is_empty());
    std::fs::write(&file, text).unwrap();
    switch.ctl(&["config", "apply", name]);
    assert_eq!(switch.ctl(&["inline", "list"])[0]["on_failure"], "open");
    switch.stop();
}

/// An IPv4 packet with a UDP datagram.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let bytes = |number: usize| u16::try_from(number).unwrap().to_be_bytes();
    let mut ip = [&[0x45, 0][..], &bytes(28 + payload.len()), &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
    ip.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&ip[..], &[0x10, 0, 0x20, 0], &bytes(8 + payload.len()), &[0, 0], payload].concat()
}

/// Suricata's configuration: two interfaces whose frames it passes on, and one rule.
fn suricata(lab: &Lab) -> Process {
    let dir = lab.site.dir();
    let rule = "drop udp any any -> any any (msg:\"stopped\"; content:\"attack\"; sid:1; rev:1;)\n";
    std::fs::write(dir.join("ips.rules"), rule).unwrap();
    let interface = |name: &str, other: &str, cluster: u8| {
        format!(
            "  - interface: {name}\n    threads: 1\n    cluster-id: {cluster}\n    cluster-type: cluster_flow\n    \
             defrag: no\n    use-mmap: yes\n    tpacket-v3: no\n    copy-mode: ips\n    copy-iface: {other}\n"
        )
    };
    let mut file = std::fs::File::create(dir.join("suricata.yaml")).unwrap();
    write!(
        file,
        "%YAML 1.1\n---\nvars:\n  address-groups:\n    HOME_NET: any\n    EXTERNAL_NET: any\ndefault-log-dir: {dir}\n\
         outputs: []\naf-packet:\n{}{}default-rule-path: {dir}\nrule-files:\n  - ips.rules\n",
        interface("in", "out", 98),
        interface("out", "in", 97),
        dir = dir.display(),
    )
    .unwrap();
    let mut command = lab.peers.command("suricata");
    command.arg("-c").arg(dir.join("suricata.yaml")).arg("--af-packet").arg("-l").arg(dir);
    Process::spawn("suricata", &mut command)
}

#[test]
fn suricata_in_the_wire_of_a_port_stops_what_its_rule_says() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("suricata")]) {
        return;
    }
    let lab = Lab::new("inr");
    let table = "[inline.ips]\nof = \"web\"\nthrough = [\"in\", \"out\"]\non_failure = \"closed\"\n";
    let switch = lab.start("", &[("web", ""), ("db", ""), ("in", ""), ("out", "")], table);
    let mut sensor = suricata(&lab);
    wait_for("Suricata in the wire", 3 * SOON, || {
        assert!(sensor.is_running(), "{}", sensor.log());
        (state(&switch).0 == "through").then_some(())
    });
    let (web, db) = (lab.socket("web"), lab.socket("db"));
    let frame = |payload: &str| Frame::new(WEB, DB).ethertype(0x0800).payload(&datagram(payload.as_bytes())).build();
    let (harmless, harmful) = (frame("a usual datagram"), frame("this is an attack"));
    // The switch knows the way; both are for the station behind Suricata.
    web.send(&Frame::new(DB, WEB).ethertype(0x0800).payload(&datagram(b"here")).build());
    assert!(db.recv_matching(SOON, |got| got[..6] == DB).is_some());
    db.send(&harmful);
    db.send(&harmless);
    let got = web.recv_matching(SOON, |got| got[..6] == WEB);
    assert_eq!(got.as_deref(), Some(&harmless[..]), "only that one");
    assert!(web.recv_matching(MOMENT, |got| got[..6] == WEB).is_none());
    sensor.kill();
    wait_state(&switch, "closed");
    db.send(&harmless);
    assert!(web.recv_matching(MOMENT, |got| got[..6] == WEB).is_none());
    switch.stop();
}
