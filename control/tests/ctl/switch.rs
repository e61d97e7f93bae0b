//! A made-up switch behind a real server, and `labsw-ctl` run against it.

use labsw_control::api::*;
use labsw_control::varlink::Server;
use labsw_switch::vlan::{PortVlan, VlanMode};
use mio::{Events, Poll};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub struct Fake {
    changes: Arc<Mutex<Vec<Change>>>,
    readings: u64,
    /// The file that the switch says it was started with.
    file: String,
}

pub fn counters(rx_frames: u64, drops: &[(&str, u64)]) -> Counters {
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

pub fn ports() -> Vec<Port> {
    let uplink = Vlan::shown(&PortVlan::new(VlanMode::NativeUntagged, Some(10), &[10..=10, 20..=29]).unwrap());
    let dc01 = Vlan::shown(&PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap());
    vec![
        Port {
            counters: Counters {
                kernel: BTreeMap::from([("rx_dropped".into(), 0), ("rx_ring_full".into(), 3)]),
                ..counters(1000, &[("runt", 0), ("vlan_not_member", 7)])
            },
            busy_poll: Some("off".into()),
            device: Some("name:enp3s0f1".into()),
            xdp_mode: Some(XdpMode::ZeroCopy),
            queues: Some(8),
            interface: Some("enp3s0f1".into()),
            ..Port::new("uplink", PortType::AfXdp, uplink)
        },
        Port {
            state: PortState::Waiting,
            reason: Some("no guest is connected".into()),
            counters: counters(0, &[("runt", 0), ("vlan_not_member", 0)]),
            settings: serde_json::from_value(json!({"mtu": 1500, "offloads": true, "owner": "alice", "peer_uid": 7}))
                .unwrap(),
            socket: Some("/run/labsw/vhost/dc01.sock".into()),
            role: Some(PortRole::Server),
            features: Some(Vec::new()),
            queue_pairs: Some(1),
            connected: Some(false),
            ..Port::new("dc01", PortType::VhostUser, dc01.clone())
        },
        Port {
            state: PortState::Waiting,
            reason: Some("no guest is connected".into()),
            impaired: PortDirection::ALL.to_vec(),
            mirrors: vec!["detect".into()],
            workers: vec![0],
            stations: 3,
            rewind: Some(PortRewind { bytes: 64 << 20, used_bytes: 1, oldest_seconds_ago: Some(95), missed_frames: 2 }),
            ..Port::new("lossy", PortType::VhostUser, dc01)
        },
    ]
}

pub fn multicast() -> Multicast {
    let port = |port: &str, age_seconds| MulticastPort { port: port.into(), age_seconds };
    let routers = |family, state, querier: Option<&str>, ports| MulticastRouters {
        vlan: 20,
        family,
        state,
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
            routers(MulticastFamily::Ipv4, MulticastState::InForce, Some("10.0.0.1"), vec![port("uplink", 3)]),
            routers(MulticastFamily::Ipv6, MulticastState::NoQuerier, None, vec![]),
        ],
        totals: MulticastTotals { groups: 1, ..MulticastTotals::default() },
    }
}

pub fn mirror() -> Mirror {
    Mirror {
        name: "detect".into(),
        state: MirrorState::Up,
        reason: None,
        to: Some("span".into()),
        to_vlan: None,
        to_remote: None,
        warning: None,
        force: false,
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

pub fn workers() -> Vec<Worker> {
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

pub fn differences() -> Vec<ConfigChange> {
    let setting = ConfigSetting {
        key: "mtu".into(),
        running: Some("1500".into()),
        wanted: Some("9000".into()),
        drift: true,
        restart: false,
    };
    let change = |action, kind, name: &str, settings: &[ConfigSetting]| ConfigChange {
        action,
        kind,
        name: name.into(),
        settings: settings.to_vec(),
        drift: !settings.is_empty(),
    };
    vec![
        change(ConfigAction::Change, ConfigKind::Port, "web", &[setting]),
        change(ConfigAction::Add, ConfigKind::Port, "db", &[]),
        change(ConfigAction::Remove, ConfigKind::Mirror, "detect", &[]),
    ]
}

fn fdb() -> Vec<FdbEntry> {
    let entry = |mac: &str, is_static, age_seconds| FdbEntry {
        vlan: 20,
        mac: mac.into(),
        port: "dc01".into(),
        is_static,
        sticky: false,
        fast_path: false,
        age_seconds,
    };
    vec![entry("52:54:00:00:00:01", false, 12), entry("52:54:00:00:00:02", true, 0)]
}

fn impairments() -> Vec<Impairment> {
    let settings = |set| serde_json::from_value(set).unwrap();
    vec![
        Impairment {
            port: "dc01".into(),
            direction: PortDirection::Tx,
            profile: Some("lossy".into()),
            settings: settings(json!({"seed": 42, "delay": "20ms", "jitter": "10ms", "loss": "5%"})),
            frames: 1000,
            delayed: 952,
            lost: 48,
            ..Impairment::default()
        },
        Impairment { port: "web".into(), settings: settings(json!({"seed": 7})), ..Impairment::default() },
    ]
}

/// A trace that has what was asked for in it.
fn trace(port: String, frame: &[u8]) -> Trace {
    Trace {
        verdict: TraceVerdict::Dropped,
        summary: "dropped at dc01 (vlan_not_member)".into(),
        steps: vec![
            TraceStep {
                stage: TraceStage::Port,
                outcome: TraceOutcome::Pass,
                port: Some(port),
                mirror: None,
                vlan: None,
                reason: None,
                frame: None,
                text: frame_text(frame),
                hint: None,
            },
            TraceStep {
                stage: TraceStage::Vlan,
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
    }
}

impl Fake {
    fn config(&self) -> ShownConfig {
        let text = "[switch]\npower = \"adaptive\"\n".to_owned();
        let config = json!({"switch": {"power": "adaptive"}});
        ShownConfig { text, config, file: self.file.clone(), unconfirmed: None }
    }

    /// The counters of one port or of all, more with each reading.
    fn stats(&mut self, port: Option<&str>) -> Stats {
        self.readings += 1;
        let wanted = ports().into_iter().filter(|found| port.is_none_or(|name| name == found.name));
        let stats = wanted.map(|port| {
            let rx_frames = port.counters.rx_frames * self.readings;
            PortStats { name: port.name, counters: Counters { rx_frames, ..port.counters } }
        });
        Stats { uptime_milliseconds: self.readings * 500, ports: stats.collect() }
    }

    /// Notes a change, and answers it.
    fn change(&mut self, change: Change) -> Result<Reply, Error> {
        self.changes.lock().unwrap().push(change.clone());
        Ok(match change {
            Change::FlushFdb { .. } => Reply::Removed(Removed { removed: 3 }),
            Change::ApplyConfig(_) | Change::RevertConfig => Reply::Changes(Changes { changes: differences() }),
            Change::AddPort { name, .. } if name == "dc01" => {
                return Err(Error::refused("port \"dc01\"", "a port of this name exists; delete it first"));
            }
            Change::DeletePort { name } if name == "gone" => return Err(Error::not_found("port", name)),
            Change::SetPort { name, .. } => {
                return Err(Error::refused(format!("port {name:?}"), "line\nbreak"));
            }
            _ => Reply::Done(Done {}),
        })
    }
}

fn capture() -> RunningCapture {
    RunningCapture {
        ports: vec!["dc01:rx".parse().unwrap()],
        filter: Some("tcp port 445".into()),
        pid: 4711,
        age_seconds: 12,
        captured: 100,
        dropped: 2,
        ..RunningCapture::default()
    }
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
                inlines: Vec::new(),
                impairments: Vec::new(),
                multicast: MulticastTotals::default(),
                mac_moves: 0,
                unconfirmed: None,
            }),
            Request::ListWorkers => Reply::Workers(Workers { workers: workers() }),
            Request::ListPorts => Reply::Ports(Ports { ports: ports() }),
            Request::ShowPort { name } => match find(&name) {
                Some(port) => Reply::Port(OnePort { port: Box::new(port) }),
                None => return Err(Error::not_found("port", name)),
            },
            Request::ListVlans => Reply::Vlans(Vlans {
                vlans: vec![VlanRow {
                    vlan: 20,
                    ports: vec![
                        VlanMember { port: "dc01".into(), tagged: false },
                        VlanMember { port: "uplink".into(), tagged: true },
                    ],
                }],
            }),
            Request::ListFdb { vlan: Some(99), .. } => Reply::Fdb(FdbEntries { entries: Vec::new() }),
            Request::ListFdb { .. } => Reply::Fdb(FdbEntries { entries: fdb() }),
            Request::ListMulticast { vlan: Some(_) } => Reply::Multicast(Multicast::default()),
            Request::ListMulticast { vlan: None } => Reply::Multicast(multicast()),
            Request::ListMirrors => Reply::Mirrors(Mirrors { mirrors: vec![mirror()] }),
            Request::ShowMirror { name } if name == "detect" => Reply::Mirror(OneMirror { mirror: Box::new(mirror()) }),
            Request::ShowMirror { name } => return Err(Error::not_found("mirror", name)),
            Request::ShowInline { name } => return Err(Error::not_found("inline", name)),
            Request::ListInlines => Reply::Inlines(Inlines { inlines: Vec::new() }),
            Request::ListImpairments => Reply::Impairments(Impairments { impairments: impairments() }),
            Request::GetStats { port, .. } => Reply::Stats(self.stats(port.as_deref())),
            Request::TraceFrame { port, frame } => Reply::Trace(trace(port, &frame)),
            Request::ShowConfig => Reply::Config(self.config()),
            Request::CheckConfig(ConfigText { file, .. }) => {
                Reply::Awaited(Awaited { awaited: vec![format!("{file}: something")] })
            }
            Request::Capture(_) | Request::Monitor { .. } => return Err(Error::ExpectedMore {}),
            Request::ListCaptures => Reply::Captures(Captures { captures: vec![capture()] }),
            Request::DiffConfig(WantedConfig { keep_runtime: true, .. }) => {
                Reply::Changes(Changes { changes: Vec::new() })
            }
            Request::DiffConfig(_) => Reply::Changes(Changes { changes: differences() }),
            Request::Change(change) => return self.change(change),
        })
    }

    fn capture(&mut self, _peer: &Peer, spec: CaptureSpec) -> Result<Box<dyn Feed>, Error> {
        match spec.ports.first() {
            Some(source) if source.port == "nowhere" => Err(Error::not_found("port", "nowhere")),
            Some(source) if source.port == "lines" => Ok(Box::new(two_frames())),
            _ => Ok(Box::new(Hello(spec.count == Some(1), Some(Instant::now())))),
        }
    }
}

/// A capture of the bytes "hello", and of " end" when it is finished; some are so by themselves.
#[derive(Debug)]
pub struct Hello(bool, Option<Instant>);

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

/// A capture of two frames on the port "web", one of them dropped, in pieces that end within a block.
fn two_frames() -> Pieces {
    use labsw_control::pcapng::{Bound, Packet, interface, packet, section};
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 1, 0x81, 0, 0, 20, 8, 6];
    let mut bytes = [&header[..], &arp].concat();
    bytes.resize(64, 0);
    let mut stream = Vec::new();
    section(&mut stream, "labsw");
    interface(&mut stream, "web", "labsw port, veth", 0, None);
    for (time_ns, comment) in
        [(1_700_000_000_123_456_000, "rx"), (1_700_000_000_123_457_000, "rx dropped at web: vlan_not_member")]
    {
        let bound = Bound::Inbound;
        packet(&mut stream, &Packet { interface: 0, time_ns, bound, wire_bytes: 64, bytes: &bytes, comment });
    }
    let (first, second) = stream.split_at(stream.len() - 100);
    Pieces(vec![second.to_vec(), first.to_vec()])
}

/// Pieces of a capture, the last one first.
#[derive(Debug)]
struct Pieces(Vec<Vec<u8>>);

impl Feed for Pieces {
    fn due(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn next(&mut self, _now: Instant) -> Option<(Reply, bool)> {
        let pcapng = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, self.0.pop()?);
        Some((Reply::CapturePiece(CapturePiece { pcapng, captured: 2, dropped: 0 }), self.0.is_empty()))
    }

    fn finish(&mut self, _now: Instant) {
        self.0.truncate(1);
    }
}

/// A made-up switch in a thread of its own.
pub struct Switch {
    pub socket: PathBuf,
    /// The file that it says it was started with; there is none.
    pub file: PathBuf,
    pub changes: Arc<Mutex<Vec<Change>>>,
    pub stop: Arc<AtomicBool>,
    pub thread: Option<JoinHandle<()>>,
}

impl Switch {
    pub fn start() -> Switch {
        Switch::start_with(0o600, None)
    }

    /// With these permission bits on the socket, and this admin group.
    pub fn start_with(mode: u32, admin_group: Option<u32>) -> Switch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("labsw-ctl-{}-{number}.sock", std::process::id()));
        let (changes, stop) = (Arc::<Mutex<Vec<Change>>>::default(), Arc::<AtomicBool>::default());
        let file = socket.with_extension("toml");
        let mut fake = Fake { changes: Arc::clone(&changes), readings: 0, file: file.display().to_string() };
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
        Switch { socket, file, changes, stop, thread: Some(thread) }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        command(&self.socket, arguments)
    }

    /// What a command that succeeds prints.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
        text(&output.stdout)
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// The change that a command asks for.
    pub fn change(&self, arguments: &[&str]) -> Change {
        self.command(arguments).output().unwrap();
        let mut changes = self.changes.lock().unwrap();
        assert_eq!(changes.len(), 1, "{arguments:?}");
        changes.pop().unwrap()
    }

    /// The changes that were asked for since the last look.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock().unwrap())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_labsw-ctl"));
    command.env("LABSW_SOCKET", socket).args(arguments).stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status and stderr of a command that fails and prints nothing on stdout.
pub fn failure(output: Output) -> (Option<i32>, String) {
    assert_eq!(text(&output.stdout), "");
    (output.status.code(), text(&output.stderr))
}
