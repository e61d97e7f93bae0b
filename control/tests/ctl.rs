//! `labsw-ctl` as a user meets it: the real program against a server with a made-up switch behind it. Tables, JSON,
//! errors and exit statuses, word for word.

#![allow(clippy::unwrap_used, reason = "a test's helpers may assert the plain way, as tests do")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use labsw_control::api::*;
use labsw_control::varlink::Server;
use mio::{Events, Poll};
use serde_json::{Value, json};

/// A switch with three ports and a mirror; it writes down what it is asked to change.
struct Fake {
    changes: Arc<Mutex<Vec<Change>>>,
    readings: u64,
}

fn counters(rx_frames: u64, drops: &[(&str, u64)]) -> Counters {
    let drops = drops.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    Counters {
        rx_frames,
        rx_bytes: rx_frames * 100,
        tx_frames: rx_frames / 2,
        tx_bytes: rx_frames * 50,
        drops,
        kernel: BTreeMap::new(),
    }
}

fn ports() -> Vec<Port> {
    let uplink = Vlan::new(VlanMode::NativeUntagged, Some(10), VlanList::from_ranges([10..=10, 20..=29]));
    let dc01 = Vlan::new(VlanMode::Access, Some(20), VlanList::default());
    vec![
        Port {
            counters: Counters {
                kernel: BTreeMap::from([("rx_dropped".into(), 0), ("rx_ring_full".into(), 3)]),
                ..counters(1000, &[("runt", 0), ("vlan_not_member", 7)])
            },
            busy_poll: Some("off".into()),
            device: Some("name:enp3s0f1".into()),
            xdp_mode: Some("zero_copy".into()),
            queues: Some(8),
            interface: Some("enp3s0f1".into()),
            ..Port::new("uplink", PortType::AfXdp, uplink)
        },
        Port {
            state: PortState::Waiting,
            reason: Some("no guest is connected".into()),
            counters: counters(0, &[("runt", 0), ("vlan_not_member", 0)]),
            socket: Some("/run/labsw/vhost/dc01.sock".into()),
            role: Some("server".into()),
            features: Some(Vec::new()),
            queue_pairs: Some(1),
            connected: Some(false),
            ..Port::new("dc01", PortType::VhostUser, dc01)
        },
    ]
}

fn multicast() -> Multicast {
    let port = |port: &str, age_seconds| MulticastPort { port: port.into(), age_seconds };
    let routers = |family: &str, state: &str, querier: Option<&str>, ports| MulticastRouters {
        vlan: 20,
        family: family.into(),
        state: state.into(),
        querier: querier.map(str::to_owned),
        ports,
    };
    Multicast {
        groups: vec![MulticastGroup {
            vlan: 20,
            group: "239.1.2.3".into(),
            ports: vec![port("dc01", 90), port("uplink", 7)],
        }],
        routers: vec![
            routers("ipv4", "in_force", Some("10.0.0.1"), vec![port("uplink", 3)]),
            routers("ipv6", "no_querier", None, vec![]),
        ],
        totals: MulticastTotals { groups: 1, ..MulticastTotals::default() },
    }
}

fn mirror() -> Mirror {
    Mirror {
        name: "detect".into(),
        state: MirrorState::Up,
        reason: None,
        to: "span".into(),
        sources: vec!["dc01".parse().unwrap(), "web:rx".parse().unwrap()],
        vlans: vec![20],
        filter: Some("tcp port 445 or arp".into()),
        snaplen: 0,
        inject: None,
        matched: 12,
        sent: 11,
        dropped: 1,
        truncated: 0,
    }
}

fn workers() -> Vec<Worker> {
    let queue = |port: &str, queue, pinned| WorkerQueue { port: port.into(), queue, pinned };
    let [busy, idle] = [0, 1].map(|id| Worker {
        id,
        cpu: None,
        busy_percent: 0.0,
        frames_per_burst: 0.0,
        asleep: true,
        asleep_percent: 100.0,
        queues: Vec::new(),
    });
    let busy = Worker {
        cpu: Some(1),
        busy_percent: 12.34,
        frames_per_burst: 31.25,
        asleep: false,
        asleep_percent: 0.0,
        queues: vec![queue("dc01", 0, false), queue("uplink", 3, true)],
        ..busy
    };
    vec![busy, idle]
}

fn differences() -> Vec<ConfigChange> {
    let setting = ConfigSetting {
        key: "mtu".into(),
        running: Some("1500".into()),
        wanted: Some("9000".into()),
        drift: true,
        restart: false,
    };
    let change = |action, kind: &str, name: &str, settings: &[ConfigSetting]| ConfigChange {
        action,
        kind: kind.into(),
        name: name.into(),
        settings: settings.to_vec(),
        drift: !settings.is_empty(),
    };
    vec![
        change(ConfigAction::Change, "port", "web", &[setting]),
        change(ConfigAction::Add, "port", "db", &[]),
        change(ConfigAction::Remove, "mirror", "detect", &[]),
    ]
}

impl Handler for Fake {
    fn call(&mut self, _peer: &Peer, request: Request) -> Result<Reply, Error> {
        let find = |name: &str| ports().into_iter().find(|port| port.name == name);
        Ok(match request {
            Request::GetStatus => Reply::Status(Status {
                version: "0.1.0".into(),
                uptime_seconds: 3725,
                uptime_milliseconds: 3725000,
                power: "adaptive".into(),
                workers: workers(),
                ports: ports(),
                mirrors: vec![mirror()],
                impairments: Vec::new(),
                multicast: MulticastTotals::default(),
            }),
            Request::ListWorkers => Reply::Workers(workers()),
            Request::ListPorts => Reply::Ports(ports()),
            Request::ShowPort { name } => match find(&name) {
                Some(port) => Reply::Port(Box::new(port)),
                None => return Err(Error::not_found("port", name)),
            },
            Request::ListVlans => Reply::Vlans(vec![VlanRow {
                vlan: 20,
                ports: vec![
                    VlanMember { port: "dc01".into(), tagged: false },
                    VlanMember { port: "uplink".into(), tagged: true },
                ],
            }]),
            Request::ListFdb { vlan: Some(99), .. } => Reply::Fdb(Vec::new()),
            Request::ListFdb { .. } => {
                let entry = |mac: &str, is_static, age_seconds| FdbEntry {
                    vlan: 20,
                    mac: mac.into(),
                    port: "dc01".into(),
                    is_static,
                    sticky: false,
                    age_seconds,
                };
                Reply::Fdb(vec![entry("52:54:00:00:00:01", false, 12), entry("52:54:00:00:00:02", true, 0)])
            }
            Request::ListMulticast { vlan: Some(_) } => Reply::Multicast(Multicast::default()),
            Request::ListMulticast { vlan: None } => Reply::Multicast(multicast()),
            Request::ListMirrors => Reply::Mirrors(vec![mirror()]),
            Request::ShowMirror { name } if name == "detect" => Reply::Mirror(Box::new(mirror())),
            Request::ShowMirror { name } => return Err(Error::not_found("mirror", name)),
            Request::ListImpairments => Reply::Impairments(vec![
                Impairment {
                    port: "dc01".into(),
                    direction: PortDirection::Tx,
                    profile: Some("lossy".into()),
                    seed: 42,
                    frames: 1000,
                    delayed: 952,
                    lost: 48,
                    delay: Some("20ms".into()),
                    jitter: Some("10ms".into()),
                    loss: Some("5%".into()),
                    ..Impairment::default()
                },
                Impairment { port: "web".into(), seed: 7, ..Impairment::default() },
            ]),
            Request::GetStats { port, .. } => {
                self.readings += 1;
                let wanted = ports().into_iter().filter(|found| port.as_ref().is_none_or(|name| *name == found.name));
                let stats = wanted.map(|port| {
                    let rx_frames = port.counters.rx_frames * self.readings;
                    PortStats { name: port.name, counters: Counters { rx_frames, ..port.counters } }
                });
                Reply::Stats(Stats { uptime_milliseconds: self.readings * 500, ports: stats.collect() })
            }
            // What is asked comes back.
            Request::TraceFrame { port, frame } => Reply::Trace(Trace {
                verdict: TraceVerdict::Dropped,
                summary: "dropped at dc01 (vlan_not_member)".into(),
                steps: vec![
                    TraceStep {
                        stage: "port".into(),
                        outcome: TraceOutcome::Pass,
                        port: Some(port),
                        mirror: None,
                        vlan: None,
                        reason: None,
                        frame: None,
                        text: frame_text(&frame),
                        hint: None,
                    },
                    TraceStep {
                        stage: "vlan".into(),
                        outcome: TraceOutcome::Drop,
                        port: Some("dc01".into()),
                        mirror: None,
                        vlan: Some(30),
                        reason: Some("vlan_not_member".into()),
                        frame: None,
                        text: "dropped at dc01: vlan_not_member: VLAN 30\nis not a member".into(),
                        hint: Some("another VLAN".into()),
                    },
                ],
            }),
            Request::ShowConfig => {
                let text = "[switch]\npower = \"adaptive\"\n".to_owned();
                Reply::Config(ShownConfig { text, config: json!({"switch": {"power": "adaptive"}}) })
            }
            Request::CheckConfig(ConfigText { file, .. }) => Reply::Awaited(vec![format!("{file}: something")]),
            Request::Capture(_) => return Err(Error::ExpectedMore),
            Request::ListCaptures => Reply::Captures(vec![RunningCapture {
                ports: vec!["dc01:rx".parse().unwrap()],
                filter: Some("tcp port 445".into()),
                pid: 4711,
                age_seconds: 12,
                captured: 100,
                dropped: 2,
                ..RunningCapture::default()
            }]),
            Request::DiffConfig { keep_runtime: true, .. } => Reply::Changes(Vec::new()),
            Request::DiffConfig { .. } => Reply::Changes(differences()),
            Request::Change(change) => {
                self.changes.lock().unwrap().push(change.clone());
                match change {
                    Change::FlushFdb { .. } => Reply::Removed(3),
                    Change::ApplyConfig { .. } => Reply::Changes(differences()),
                    Change::AddPort { name, .. } if name == "dc01" => {
                        return Err(Error::refused("port \"dc01\"", "a port of this name exists; delete it first"));
                    }
                    Change::SetPort { name, .. } => {
                        return Err(Error::refused(format!("port {name:?}"), "line\nbreak"));
                    }
                    _ => Reply::Done,
                }
            }
        })
    }

    fn capture(&mut self, _peer: &Peer, spec: CaptureSpec) -> Result<Box<dyn Feed>, Error> {
        match spec.ports.first() {
            Some(source) if source.port == "nowhere" => Err(Error::not_found("port", "nowhere")),
            _ => Ok(Box::new(Hello(spec.count == Some(1), Some(Instant::now())))),
        }
    }
}

/// A capture of the bytes "hello", and of " end" when it is finished; some are so by themselves.
#[derive(Debug)]
struct Hello(bool, Option<Instant>);

impl Feed for Hello {
    fn due(&self) -> Option<Instant> {
        self.1
    }

    fn next(&mut self, _now: Instant) -> Option<(Reply, bool)> {
        let piece = |pcapng: &str, captured| CapturePiece { pcapng: pcapng.into(), captured, dropped: 1 };
        if self.1.take().is_some() {
            return Some((Reply::CapturePiece(piece("aGVsbG8=", 1)), false));
        }
        self.0.then(|| (Reply::CapturePiece(piece("IGVuZA==", 2)), true))
    }

    fn finish(&mut self, _now: Instant) {
        self.0 = true;
    }
}

/// A made-up switch in a thread of its own.
struct Switch {
    socket: PathBuf,
    changes: Arc<Mutex<Vec<Change>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    fn start() -> Switch {
        Switch::start_with(0o600, None)
    }

    /// With these permission bits on the socket, and this admin group.
    fn start_with(mode: u32, admin_group: Option<u32>) -> Switch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("labsw-ctl-{}-{number}.sock", std::process::id()));
        let (changes, stop) = (Arc::<Mutex<Vec<Change>>>::default(), Arc::<AtomicBool>::default());
        let mut fake = Fake { changes: Arc::clone(&changes), readings: 0 };
        let mut server = Server::bind(&socket, mode, None, admin_group).unwrap();
        let mut poll = Poll::new().unwrap();
        server.register(poll.registry(), 0).unwrap();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut events = Events::with_capacity(16);
            while !stopped.load(Ordering::Relaxed) {
                let timeout = server.next_tick(Instant::now()).unwrap_or(Duration::MAX).min(Duration::from_millis(20));
                match poll.poll(&mut events, Some(timeout)) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    outcome => outcome.unwrap(),
                }
                for event in &events {
                    server.ready(event.token(), &mut fake);
                }
                server.tick(Instant::now(), &mut fake);
            }
        });
        Switch { socket, changes, stop, thread: Some(thread) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(&self.socket, arguments)
    }

    /// What a command that succeeds prints.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
        text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// The change that a command asks for.
    fn change(&self, arguments: &[&str]) -> Change {
        self.command(arguments).output().unwrap();
        let mut changes = self.changes.lock().unwrap();
        assert_eq!(changes.len(), 1, "{arguments:?}");
        changes.pop().unwrap()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_labsw-ctl"));
    command.env("LABSW_SOCKET", socket).args(arguments).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status and stderr of a command that fails and prints nothing on stdout.
fn failure(output: Output) -> (Option<i32>, String) {
    assert_eq!(text(&output.stdout), "");
    (output.status.code(), text(&output.stderr))
}

#[test]
fn tables_are_for_people() {
    let switch = Switch::start();
    let cases: [(&[&str], &str); 15] = [
        (&["status"], include_str!("ctl/status.txt")),
        (&["worker", "list"], include_str!("ctl/worker-list.txt")),
        (&["port", "list"], include_str!("ctl/port-list.txt")),
        (&["port", "show", "uplink"], include_str!("ctl/port-show-af-xdp.txt")),
        (&["port", "show", "dc01"], include_str!("ctl/port-show-vhost-user.txt")),
        (&["vlan", "list"], include_str!("ctl/vlan-list.txt")),
        (&["mcast", "list"], include_str!("ctl/mcast-list.txt")),
        (&["mcast", "list", "--vlan", "9"], "no groups\n\nno routers\n"),
        (&["fdb", "list"], include_str!("ctl/fdb-list.txt")),
        (&["mirror", "list"], include_str!("ctl/mirror-list.txt")),
        (&["mirror", "show", "detect"], include_str!("ctl/mirror-show.txt")),
        (&["impair", "list"], include_str!("ctl/impair-list.txt")),
        (&["stats"], include_str!("ctl/stats.txt")),
        (&["capture", "--list"], include_str!("ctl/capture-list.txt")),
        (&["fdb", "list", "--vlan", "99"], "no entries\n"),
    ];
    for (arguments, golden) in cases {
        // A new switch for each would only be slower: the first reading of the counters is the only one here.
        let got = switch.ok(arguments);
        assert_eq!(got, golden, "{arguments:?} prints:\n{got}");
        assert!(got.lines().all(|line| line.chars().count() <= 120), "{arguments:?} is too wide:\n{got}");
    }
}

#[test]
fn json_is_the_bare_list_or_object() {
    let switch = Switch::start();
    assert_eq!(switch.json(&["port", "list"]), json!(ports()));
    assert_eq!(switch.json(&["port", "show", "dc01"]), json!(ports()[1]));
    assert_eq!(switch.json(&["mirror", "list"]), json!([mirror()]));
    assert_eq!(switch.json(&["mirror", "show", "detect"]), json!(mirror()));
    assert_eq!(switch.json(&["mcast", "list"])["routers"][0]["querier"], json!("10.0.0.1"));
    assert_eq!(switch.json(&["fdb", "flush"]), json!({"removed": 3}));
    assert_eq!(switch.json(&["fdb", "list", "--vlan", "99"]), json!([]));
    assert_eq!(switch.json(&["mirror", "del", "detect"]), json!({}));
    let entry = json!({"vlan": 20, "mac": "52:54:00:00:00:01", "port": "dc01", "static": false, "age_seconds": 12});
    assert_eq!(switch.json(&["fdb", "list"])[0], entry);
    let members = json!([{"port": "dc01", "tagged": false}, {"port": "uplink", "tagged": true}]);
    assert_eq!(switch.json(&["vlan", "list"]), json!([{"vlan": 20, "ports": members}]));
    let stats = switch.json(&["stats", "uplink"]);
    assert_eq!((&stats[0]["name"], &stats[0]["drops"]["vlan_not_member"]), (&json!("uplink"), &json!(7)));

    let guest = ["guest", "dc01", "--for", "qemu", "--memory", "64M"];
    let snippet = switch.json(&guest);
    assert_eq!(snippet, json!({"for": "qemu", "port": "dc01", "text": switch.ok(&guest)}));
    assert!(snippet["text"].as_str().unwrap().contains("-m 64M"), "{snippet}");

    let status = switch.json(&["status"]);
    assert_eq!(status["uptime_seconds"], 3725);
    assert_eq!(status["workers"], switch.json(&["worker", "list"]));
    let queues = json!([
        {"port": "dc01", "queue": 0, "pinned": false},
        {"port": "uplink", "queue": 3, "pinned": true},
    ]);
    let load = json!({"busy_percent": 12.34, "frames_per_burst": 31.25, "asleep": false, "asleep_percent": 0.0});
    let mut worker = json!({"id": 0, "cpu": 1, "queues": queues});
    worker.as_object_mut().unwrap().extend(load.as_object().unwrap().clone());
    assert_eq!(status["workers"][0], worker);
    let uplink = &status["ports"][0];
    assert_eq!(uplink["vlan"], json!({"mode": "native-untagged", "tag": 10, "trunks": [10, "20-29"]}));
    assert_eq!((&uplink["type"], &uplink["state"], &uplink["reason"]), (&json!("af_xdp"), &json!("up"), &Value::Null));
    assert_eq!(uplink.get("socket"), None, "what does not apply is left out");
}

#[test]
fn changes_are_asked_for_as_typed() {
    let switch = Switch::start();
    let mac = "52:54:00:12:34:56".parse().unwrap();
    let settings: BTreeMap<String, String> =
        [("vlan.mode", "access"), ("vlan.tag", "20")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let name = || "web".to_owned();
    let port = || "dc01".to_owned();
    for (line, change) in [
        (
            "port add web --type veth --set vlan.mode=access --set vlan.tag=20",
            Change::AddPort { name: name(), port_type: PortType::Veth, settings: settings.clone() },
        ),
        ("port set web vlan.mode=access vlan.tag=20", Change::SetPort { name: name(), settings }),
        ("port del web", Change::DeletePort { name: name() }),
        ("worker pin dc01 1 2", Change::PinQueue { port: port(), queue: 1, worker: 2 }),
        ("port up web", Change::SetPortState { name: name(), up: true }),
        ("port down web", Change::SetPortState { name: name(), up: false }),
        ("fdb add 52:54:00:12:34:56 --vlan 20 --port dc01", Change::AddFdb { vlan: 20, mac, port: port() }),
        ("fdb del 52-54-00-12-34-56 --vlan 20", Change::DeleteFdb { vlan: 20, mac }),
        ("fdb flush --vlan 20 --port dc01", Change::FlushFdb { vlan: Some(20), port: Some(port()) }),
        (
            "mirror set detect --source dc01 --source web:rx --vlan 20 --filter arp --snaplen 96 --to span",
            Change::SetMirror {
                name: "detect".into(),
                sources: vec!["dc01:both".parse().unwrap(), "web:rx".parse().unwrap()],
                vlans: vec![20],
                filter: Some("arp".into()),
                snaplen: 96,
                to: "span".into(),
                inject: None,
            },
        ),
        (
            "mirror set detect --source dc01 --to span --inject-as web --inject-rate 1kpps --inject-source 52-54-00-12-34-56",
            Change::SetMirror {
                name: "detect".into(),
                sources: vec!["dc01:both".parse().unwrap()],
                vlans: vec![],
                filter: None,
                snaplen: 0,
                to: "span".into(),
                inject: Some(labsw_control::api::Inject {
                    vlan: None,
                    as_port: Some(name()),
                    rate: Some("1kpps".into()),
                    sources: vec!["52:54:00:12:34:56".into()],
                }),
            },
        ),
        ("mirror del detect", Change::DeleteMirror { name: "detect".into() }),
    ] {
        assert_eq!(switch.change(&line.split(' ').collect::<Vec<&str>>()), change, "{line}");
    }
    assert_eq!(switch.ok(&["port", "up", "web"]), "", "a change that was made needs no words");
    assert_eq!(switch.ok(&["fdb", "flush"]), "3 entries removed\n");
}

#[test]
fn refusals_name_the_object_and_exit_with_1() {
    let switch = Switch::start();
    let cases: [(&[&str], &str); 5] = [
        (
            &["guest", "uplink", "--for", "lxc"],
            "labsw-ctl: port \"uplink\" is a network device, which lxc can't be plugged into; plug guests into vhost_user, tap \
             (for = \"guest\") and veth ports\n",
        ),
        (&["port", "show", "nope"], "labsw-ctl: port \"nope\" does not exist\n"),
        (&["mirror", "show", "nope"], "labsw-ctl: mirror \"nope\" does not exist\n"),
        (
            &["port", "add", "dc01", "--type", "tap", "--json"],
            "labsw-ctl: port \"dc01\": a port of this name exists; delete it first\n",
        ),
        (&["port", "set", "web", "mtu=9000"], "labsw-ctl: port \"web\": line break\n"),
    ];
    for (arguments, message) in cases {
        let output = switch.command(arguments).output().unwrap();
        assert_eq!(failure(output), (Some(1), message.to_owned()), "{arguments:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2_before_the_switch_is_asked() {
    let nowhere = Path::new("/nonexistent/labsw.sock");
    for line in [
        "",
        "port",
        "port lst",
        "port show",
        "port add web",
        "port add web --type bridge",
        "port add web --type veth --set tag",
        "port set web",
        "port set web =5",
        "mcast list --vlan 0",
        "fdb list --vlan 0",
        "fdb list --vlan 4095",
        "fdb list --vlan x",
        "fdb add 52:54:00:12:34 --vlan 20 --port dc01",
        "fdb add 01:00:5e:00:00:01 --vlan 20 --port dc01",
        "fdb add 52:54:00:12:34:56 --port dc01",
        "mirror set detect --to span",
        "mirror set detect --source dc01",
        "mirror set detect --source dc01:up --to span",
        "mirror set detect --source dc01 --snaplen -1 --to span",
        "mirror set detect --source dc01 --vlan 4095 --to span",
        "stats --wach",
        "stats --interval 1s",
        "stats --watch --interval 10ms",
        "stats --watch --interval soon",
        "top --interval 0s",
        "top",
        "top --json",
        "trace",
        "trace --in dc01",
        "trace --frame 00",
        "trace --in dc01 --frame 0",
        "trace --in dc01 --frame 0g",
        "trace --in dc01 --src 02:00:00:00:00:01",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02 --vlan 4096",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02 --ethertype ipx",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02 --bytes 59",
        "trace --in dc01 --frame 00 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02",
        "trace --in dc01 --frame 00 --vlan 20",
        "trace --in dc01 --frame 00 --ethertype arp",
        "guest dc01",
        "guest dc01 --for vmware",
        "guest dc01 --for qemu --memory 0G",
        "guest dc01 --for qemu --memory 512",
        "guest dc01 --for qemu --qemu-version new",
        "completions cmd",
    ] {
        let output = command(nowhere, &line.split_whitespace().collect::<Vec<&str>>()).output().unwrap();
        let (status, message) = failure(output);
        assert_eq!(status, Some(2), "{line}: {message}");
        assert!(!message.is_empty(), "{line}");
    }
}

#[test]
fn no_switch_exits_with_3_and_names_the_socket() {
    let output = command(Path::new("/nonexistent/a.sock"), &["status"]).output().unwrap();
    let (status, message) = failure(output);
    assert_eq!((status, message.lines().count()), (Some(3), 1), "{message}");
    assert!(message.starts_with("labsw-ctl: /nonexistent/a.sock: the switch can't be reached: "), "{message}");
    let output = command(Path::new("/nonexistent/a.sock"), &["--socket", "/nonexistent/b.sock", "status"]).output();
    let (status, message) = failure(output.unwrap());
    assert_eq!(status, Some(3));
    assert!(message.contains("/nonexistent/b.sock"), "--socket goes before the environment: {message}");
}

#[test]
fn watching_prints_rates_until_the_reader_goes() {
    let switch = Switch::start();
    let mut child =
        switch.command(&["stats", "--watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let golden = include_str!("ctl/stats-watch.txt");
    let mut first = vec![0; golden.len()];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(text(&first), golden);
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn watching_as_json_has_one_document_a_line_and_ends_quietly_when_interrupted() {
    let switch = Switch::start();
    let mut child = switch
        .command(&["stats", "uplink", "--watch", "--interval", "100ms", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let (first, second) = (next(), next());
    assert_eq!(
        (&first[0]["name"], &first[0]["rx_frames"], &first[0]["rates"]),
        (&json!("uplink"), &json!(1000), &Value::Null)
    );
    assert_eq!(second[0]["rx_frames"], 2000);
    let rates = json!({
        "rx_frames_per_second": 2000.0,
        "rx_bits_per_second": 0.0,
        "tx_frames_per_second": 0.0,
        "tx_bits_per_second": 0.0,
        "dropped_per_second": 0.0,
        "main_drop_reason": null,
    });
    assert_eq!(second[0]["rates"], rates);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn traces_are_numbered_lines_and_frames_are_made_up_as_asked() {
    let switch = Switch::start();
    let hexadecimal = ["trace", "--in", "dc01", "--frame", "02:00 ab-cd"];
    let shown = " 1   port       0200abcd\n \
                 2 ✗ vlan       dropped at dc01: vlan_not_member: VLAN 30 is not a member\n               → another VLAN\n\n\
                 ✗ dropped at dc01 (vlan_not_member)\n";
    assert_eq!(switch.ok(&hexadecimal), shown);
    let trace = switch.json(&hexadecimal);
    let dropped = json!({
        "stage": "vlan", "outcome": "drop", "port": "dc01", "vlan": 30, "reason": "vlan_not_member",
        "text": "dropped at dc01: vlan_not_member: VLAN 30\nis not a member", "hint": "another VLAN",
    });
    assert_eq!((&trace["verdict"], &trace["steps"][1]), (&json!("dropped"), &dropped));
    for (arguments, header, bytes) in [
        ("", "0200000000020200000000 0188b5", 60),
        ("--ethertype arp", "0200000000020200000000010806", 60),
        ("--ethertype 0x86DD --vlan 20", "02000000000202000000000181000014 86dd", 60),
        ("--vlan 0 --bytes 1600", "0200000000020200000000018100 0000 88b5", 1600),
    ] {
        let addresses = "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02";
        let line = format!("{addresses} {arguments}");
        let trace = switch.json(&line.split_whitespace().collect::<Vec<&str>>());
        let frame = trace["steps"][0]["text"].as_str().unwrap();
        assert_eq!(frame.len(), 2 * bytes, "{arguments}");
        assert_eq!(frame.trim_end_matches('0'), header.replace(' ', ""), "{arguments}");
    }
}

#[test]
fn another_user_may_change_only_as_a_member_of_the_admin_group() {
    if rustix::process::geteuid().as_raw() != 0 {
        let required = std::env::var_os("LABSW_TEST_REQUIRE").is_some_and(|value| value == "1");
        assert!(!required, "this test needs root, to become another user");
        println!("skipped: it needs root, to become another user");
        return;
    }
    let switch = Switch::start_with(0o666, Some(4242));
    // The other user may not be able to reach the build directory. Copied by another process: if this one had the file
    // open for writing while another test forks, running it would fail (ETXTBSY).
    let program = switch.socket.with_extension("program");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_labsw-ctl")).arg(&program).status().unwrap();
    assert!(copied.success());
    let run = |groups: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--groups", groups]).arg(&program).args(arguments);
        command.env("LABSW_SOCKET", &switch.socket).current_dir("/").output().unwrap()
    };
    let many_groups = (5000..5200).map(|group| group.to_string()).collect::<Vec<String>>().join(",");
    let down = ["port", "down", "dc01"];
    let read = run("65534", &["port", "list"]);
    let stranger = run(&many_groups, &down);
    let asked = switch.changes.lock().unwrap().len();
    let member = run(&format!("{many_groups},4242"), &down);
    std::fs::remove_file(&program).unwrap();
    assert_eq!((read.status.code(), text(&read.stderr)), (Some(0), String::new()));
    let message = "labsw-ctl: permission denied: changes need root or membership in the group with id 4242\n";
    assert_eq!(failure(stranger), (Some(1), message.to_owned()));
    assert_eq!(asked, 0, "the handler never saw it");
    assert_eq!((member.status.code(), text(&member.stderr)), (Some(0), String::new()));
}

#[test]
fn completions_need_no_switch() {
    for shell in ["bash", "zsh", "fish"] {
        let output = command(Path::new("/nonexistent/a.sock"), &["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("mirror"), "{shell}");
    }
}

#[test]
fn configurations_are_read_here_and_sent_as_text() {
    let switch = Switch::start();
    let file = std::env::temp_dir().join(format!("labsw-ctl-{}.toml", std::process::id()));
    let path = file.display().to_string();
    std::fs::write(&file, "[switch]\n").unwrap();
    let lines = "~ port web: mtu 1500 -> 9000 (changed at run time)\n+ port db\n- mirror detect\n";
    assert_eq!(switch.ok(&["config", "show"]), "[switch]\npower = \"adaptive\"\n");
    assert_eq!(switch.json(&["config", "show"]), json!({"switch": {"power": "adaptive"}}));
    assert_eq!(switch.ok(&["config", "check", &path]), format!("{path}: something\n"));
    assert_eq!(switch.json(&["config", "check", &path]), json!({"awaited": [format!("{path}: something")]}));
    assert_eq!(switch.ok(&["config", "diff", &path]), lines);
    assert_eq!(switch.ok(&["config", "diff", "--keep-runtime", &path]), "no difference\n");
    assert_eq!(switch.json(&["config", "diff", &path])["changes"][0]["settings"][0]["wanted"], "9000");
    assert_eq!(switch.ok(&["config", "apply", &path]), lines);
    let config = ConfigText { file: path.clone(), text: "[switch]\n".into() };
    let applied = switch.changes.lock().unwrap().pop();
    assert_eq!(applied, Some(Change::ApplyConfig { config: config.clone(), keep_runtime: false }));
    let change = switch.change(&["config", "apply", "--keep-runtime", &path]);
    assert_eq!(change, Change::ApplyConfig { config, keep_runtime: true });

    // Without a switch the file alone is checked.
    let nowhere = Path::new("/nonexistent/labsw.sock");
    let output = command(nowhere, &["config", "check", &path]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    assert!(text(&output.stderr).ends_with("only the file itself was checked\n"), "{output:?}");
    assert_eq!(failure(command(nowhere, &["config", "diff", &path]).output().unwrap()).0, Some(3));
    std::fs::write(&file, "[swich]\n").unwrap();
    let line = format!("labsw-ctl: {path}:1:2: swich: unknown key; did you mean `switch`?\n");
    assert_eq!(failure(command(nowhere, &["config", "check", &path]).output().unwrap()), (Some(1), line));
    std::fs::remove_file(&file).unwrap();
    let line = format!("labsw-ctl: {path}: cannot be read: No such file or directory (os error 2)\n");
    assert_eq!(failure(switch.command(&["config", "apply", &path]).output().unwrap()), (Some(1), line));
    assert_eq!(switch.command(&["config", "apply"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn captures_are_written_and_end_with_a_summary() {
    let switch = Switch::start();
    let output = switch.command(&["capture", "dc01", "--count", "1", "-w", "-"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello end".into()));
    assert_eq!(text(&output.stderr), "2 frames captured, 1 dropped because the capture was too slow\n");
    let file = std::env::temp_dir().join(format!("labsw-ctl-capture-{}", std::process::id()));
    let name = file.to_str().unwrap();
    let output = switch.command(&["capture", "--count", "1", "-w", name, "--json"]).output().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text(&output.stderr)).unwrap(), json!({"captured": 2, "dropped": 1}));
    assert_eq!((text(&output.stdout).as_str(), std::fs::read(&file).unwrap()), ("", b"hello end".to_vec()));

    // A signal ends it as if it had been its end.
    let mut child = switch.command(&["capture", "-w", "-"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&first), text(&output.stdout)), (Some(0), "hello".into(), " end".into()));
    assert!(text(&output.stderr).starts_with("2 frames captured"), "{output:?}");

    // What is refused leaves a file alone.
    let output = switch.command(&["capture", "nowhere", "-w", name]).output().unwrap();
    assert_eq!(failure(output), (Some(1), "labsw-ctl: port \"nowhere\" does not exist\n".into()));
    assert_eq!(std::fs::read(&file).unwrap(), b"hello end");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_capture_that_can_t_be_written_says_so_on_one_line() {
    let switch = Switch::start();
    let output = switch.command(&["capture", "-w", "/dev/full"]).output().unwrap();
    assert_eq!(failure(output), (Some(1), "labsw-ctl: /dev/full: No space left on device (os error 28)\n".into()));
    let output = switch.command(&["capture", "-w", "/nonexistent/a"]).output().unwrap();
    assert_eq!(
        failure(output),
        (Some(1), "labsw-ctl: /nonexistent/a: No such file or directory (os error 2)\n".into())
    );
    // Nothing comes any more, and still it is noticed that nobody reads.
    let mut child = switch.command(&["capture", "-w", "-"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn wireshark_learns_of_the_ports() {
    let switch = Switch::start();
    let interfaces = switch.ok(&["extcap", "--extcap-interfaces", "--extcap-version=4.0"]);
    let expected = [
        concat!("extcap {version=", env!("CARGO_PKG_VERSION"), "}{display=labsw}"),
        "interface {value=labsw-uplink}{display=labsw port uplink (af_xdp)}",
        "interface {value=labsw-dc01}{display=labsw port dc01 (vhost_user)}",
        "interface {value=labsw_drops}{display=labsw, what the switch drops}",
    ];
    assert_eq!(interfaces.lines().collect::<Vec<_>>(), expected);
    let dlts = switch.ok(&["extcap", "--extcap-dlts", "--extcap-interface", "labsw-dc01"]);
    assert_eq!(dlts, "dlt {number=1}{name=EN10MB}{display=Ethernet}\n");
    let options = |interface| switch.ok(&["extcap", "--extcap-config", "--extcap-interface", interface]);
    assert!(options("labsw-dc01").contains("{call=--drops}") && !options("labsw_drops").contains("{call=--drops}"));
    let check = |filter| switch.ok(&["extcap", "--extcap-interface", "labsw-dc01", "--extcap-capture-filter", filter]);
    assert_eq!((check("tcp port 445"), check("tcp prot 445").lines().count()), (String::new(), 1));
    let nobody = Path::new("/nonexistent/labsw.sock");
    let output = command(nobody, &["extcap", "--extcap-interfaces"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(0), 1));
}
