//! A value of each type of the contract, with every field given.

use labsw_switch::Vid;
use labsw_switch::vlan::{CustomerVlans, PortVlan, Tunnel, VlanSet};
use serde_json::json;

use super::*;
use crate::model::{OnFailure, Remote};

fn counters() -> Counters {
    Counters { kernel: [("rx_ring_full".to_owned(), 1)].into(), ..Counters::default() }
}

fn port() -> Port {
    let cvlans = CustomerVlans { untagged: true, tagged: VlanSet::from_ranges(&[5..=5]).unwrap() };
    let tunnel = Tunnel { cvlans: Some(cvlans), ..Tunnel::default() };
    let vlan = Vlan::shown(&PortVlan::tunnel_in(Vid::DEFAULT, tunnel));
    Port {
        reason: Some("why".into()),
        settings: object(json!({"mtu": 1500, "busy_poll": false})),
        device: Some("name:eth9".into()),
        xdp_mode: Some(XdpMode::Skb),
        xdp_mode_reason: Some("no driver support".into()),
        busy_poll: Some("off".into()),
        counters: counters(),
        queues: Some(1),
        socket: Some("/run/a.sock".into()),
        role: Some(PortRole::Server),
        features: Some(vec!["mrg_rxbuf".into()]),
        queue_pairs: Some(1),
        connected: Some(true),
        front_end: Some(FrontEnd { pid: 7, uid: 64055 }),
        finish_checksums: true,
        fast_path: Some("on".into()),
        turned_away: Some(1),
        memory_regions: Some(2),
        interface: Some("eth9".into()),
        peer: Some("ls-web".into()),
        netns: Some("web".into()),
        impaired: vec![PortDirection::Tx],
        mirrors: vec!["detect".into()],
        workers: vec![0],
        stations: 3,
        rewind: Some(PortRewind {
            bytes: 64 << 20,
            used_bytes: 1 << 20,
            oldest_seconds_ago: Some(95),
            missed_frames: 2,
        }),
        flap: Some(Flap { every_milliseconds: 2000, left: 3 }),
        guards: Some(Guards {
            mac_limit: Some(8),
            mac_limit_action: Some("alert".into()),
            mac_limit_frames: 3,
            mac_limit_last: Some("52:54:00:12:34:56".into()),
            macs: vec!["52:54:00:12:34:57".into()],
            storm: Storm { broadcast: Some(1000), multicast: Some(2000), unknown_unicast: Some(3000) },
            ..Guards::default()
        }),
        inline: Some(PortInline { name: "ips".into(), state: InlineState::Closed, reason: Some("why".into()) }),
        ..Port::new("uplink", PortType::AfXdp, vlan)
    }
}

fn inject() -> Inject {
    serde_json::from_value(json!({"vlan": 20, "as_port": "dc01", "rate": "10kpps", "sources": ["52:54:00:12:34:56"]}))
        .unwrap()
}

fn remote() -> Box<Remote> {
    serde_json::from_value(json!({"kind": "erspan", "port": "span", "vlan": 30, "source": "192.0.2.1",
        "destination": "198.51.100.7", "next_hop": "192.0.2.254", "next_hop_mac": "52:54:00:12:34:58", "id": 77,
        "strip_tag": true}))
    .unwrap()
}

fn mirror() -> Mirror {
    Mirror {
        name: "detect".into(),
        state: MirrorState::Up,
        reason: Some("why".into()),
        to: Some("span".into()),
        to_vlan: Some(900),
        to_remote: Some(remote()),
        warning: Some("too long".into()),
        force: true,
        sources: vec!["web:rx".parse().unwrap()],
        vlans: vec![20],
        filter: Some("arp".into()),
        snaplen: 0,
        inject: Some(inject()),
        matched: 4,
        sent: 3,
        dropped: 1,
        truncated: 0,
    }
}

fn inline() -> Inline {
    Inline {
        name: "ips".into(),
        state: InlineState::Bypassed,
        reason: Some("why".into()),
        of: "web".into(),
        through: vec!["in".into(), "out".into()],
        on_failure: OnFailure::Open,
    }
}

fn worker() -> Worker {
    Worker {
        id: 0,
        cpu: Some(1),
        busy_percent: 1.5,
        frames_per_burst: 2.0,
        asleep: true,
        asleep_percent: 80.0,
        queues: vec![WorkerQueue { port: "dc01".into(), queue: 1, pinned: true }],
    }
}

pub(super) fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        uptime_seconds: 5,
        uptime_milliseconds: 5000,
        power: "adaptive".into(),
        workers: vec![worker()],
        ports: vec![port()],
        mirrors: vec![mirror()],
        inlines: vec![inline()],
        impairments: vec![impairment()],
        multicast: multicast().totals,
        mac_moves: 4,
        unconfirmed: Some(unconfirmed()),
    }
}

fn multicast() -> Multicast {
    let ports = vec![MulticastPort { port: "dc01".into(), age_seconds: 9 }];
    let querier = Some("10.0.0.1".into());
    Multicast {
        groups: vec![MulticastGroup { vlan: 20, group: "239.1.2.3".into(), ports: ports.clone() }],
        routers: vec![MulticastRouters {
            vlan: 20,
            family: MulticastFamily::Ipv4,
            state: MulticastState::InForce,
            querier,
            ports,
        }],
        totals: MulticastTotals { groups: 1, invalid_messages: 2, refused_memberships: 3 },
    }
}

fn change() -> ConfigChange {
    let setting = ConfigSetting {
        key: "vlan.tag".into(),
        running: Some("10".into()),
        wanted: Some("20".into()),
        drift: true,
        restart: false,
    };
    ConfigChange {
        action: ConfigAction::Change,
        kind: ConfigKind::Port,
        name: "web".into(),
        settings: vec![setting],
        drift: true,
    }
}

/// One request of every method, all parameters given.
pub(super) fn requests() -> Vec<Request> {
    [questions(), changes().into_iter().map(Request::Change).collect()].concat()
}

fn name() -> String {
    "dc01".to_owned()
}

fn config() -> ConfigText {
    ConfigText { file: "lab.toml".into(), text: "[switch]\n".into() }
}

fn questions() -> Vec<Request> {
    vec![
        Request::GetStatus,
        Request::ListWorkers,
        Request::ListPorts,
        Request::ShowPort { name: name() },
        Request::ListVlans,
        Request::ListFdb { vlan: Some(20), port: Some(name()) },
        Request::ListMulticast { vlan: Some(20) },
        Request::ListMirrors,
        Request::ListInlines,
        Request::ShowInline { name: name() },
        Request::ShowMirror { name: name() },
        Request::GetStats { port: Some(name()), interval_milliseconds: Some(500) },
        Request::TraceFrame { port: name(), frame: vec![2, 0, 0, 0xab] },
        Request::ShowConfig,
        Request::CheckConfig(config()),
        Request::DiffConfig(WantedConfig { config: config(), keep_runtime: true }),
        Request::Capture(CaptureSpec {
            ports: vec!["web:rx".parse().unwrap()],
            drops: true,
            reasons: vec!["runt".into()],
            filter: Some("arp".into()),
            snaplen: 96,
            count: Some(3),
            duration_milliseconds: Some(1500),
            last_milliseconds: Some(30_000),
        }),
        Request::ListCaptures,
        Request::Monitor { last: Some(10) },
        Request::ListImpairments,
    ]
}

fn changes() -> Vec<Change> {
    let mac = "52:54:00:12:34:56".parse().unwrap();
    let settings = || object(json!({"vlan": {"tag": 20}}));
    vec![
        Change::ApplyConfig(AppliedConfig {
            wanted: WantedConfig { config: config(), keep_runtime: false },
            confirm_milliseconds: Some(30_000),
        }),
        Change::ConfirmConfig,
        Change::RevertConfig,
        Change::AddPort { name: name(), port_type: PortType::Veth, settings: settings() },
        Change::SetPort { name: name(), settings: settings(), replace: true },
        Change::DeletePort { name: name() },
        Change::SetPortState { name: name(), up: false },
        Change::FlapPort { name: name(), every_milliseconds: 2000, count: 5 },
        Change::AddFdb { vlan: 4094, mac, port: name() },
        Change::DeleteFdb { vlan: 1, mac },
        Change::FlushFdb { vlan: Some(20), port: Some(name()) },
        Change::SetMirror(MirrorSettings {
            name: name(),
            sources: Some(vec!["web:rx".parse().unwrap(), "*".parse().unwrap()]),
            vlans: Some(vec![20]),
            filter: Some("arp or \"".into()),
            snaplen: Some(96),
            to: Some("span".into()),
            to_vlan: Some(900),
            to_remote: Some(remote()),
            force: Some(true),
            inject: Some(inject()),
            replace: true,
        }),
        Change::DeleteMirror { name: name() },
        Change::SetInline(InlineSettings {
            name: name(),
            of: Some("web".into()),
            through: Some(inline().through),
            on_failure: Some(OnFailure::Closed),
            replace: true,
        }),
        Change::DeleteInline { name: name() },
        Change::SetImpairment { port: name(), settings: object(json!({"delay": "20ms"})), replace: true },
        Change::ClearImpairment { port: name(), direction: Some(PortDirection::Rx) },
        Change::Inject {
            port: name(),
            injection: Some(3),
            beside: Some(2),
            frames: vec![InjectFrame::new(7, &[1, 2, 3])],
            end: true,
        },
        Change::PinQueue { port: name(), queue: 1, worker: 2 },
    ]
}

fn impairment() -> Impairment {
    Impairment {
        port: "dc01".into(),
        direction: PortDirection::Tx,
        profile: Some("lossy".into()),
        filter: Some("arp".into()),
        settings: serde_json::from_value(json!({
            "delay": "20ms", "jitter": "2ms", "loss": "5%", "gemodel": "1% 25% 100% 0%", "duplicate": "1%",
            "reorder": "1%", "corrupt": "1%", "rate": "10mbit", "queue_frames": 100, "queue_bytes": 10_000,
            "outage": "5s after 10s", "lose_segment": 3, "lose_retransmissions": 2, "seed": 7
        }))
        .unwrap(),
        ..Impairment::default()
    }
}

fn event() -> Event {
    Event {
        number: 9,
        time_milliseconds: 1_700_000_000_000,
        level: EventLevel::Warning,
        state: Some("down".into()),
        reason: Some("why".into()),
        settings: vec![EventSetting { key: "mtu".into(), before: Some("1500".into()), now: Some("9000".into()) }],
        vlan: Some(20),
        mac: Some("52:54:00:12:34:56".into()),
        from: Some("web".into()),
        count: Some(3),
        method: Some("SetPort".into()),
        object: Some("dc01".into()),
        uid: Some(0),
        pid: Some(7),
        ..Event::about(EventKind::State, EventSubject::Port, "dc01")
    }
}

fn unconfirmed() -> Unconfirmed {
    Unconfirmed { file: "lab.toml".into(), milliseconds_left: 23_000 }
}

fn entry() -> FdbEntry {
    FdbEntry {
        vlan: 20,
        mac: "52:54:00:12:34:56".into(),
        port: "dc01".into(),
        is_static: true,
        sticky: true,
        fast_path: true,
        age_seconds: 0,
    }
}

fn capture() -> RunningCapture {
    let ports = vec!["web:rx".parse().unwrap()];
    RunningCapture { ports, filter: Some("arp".into()), pid: 7, ..RunningCapture::default() }
}

pub(super) fn reply_to(request: &Request) -> Reply {
    match request {
        Request::GetStatus => Reply::Status(status()),
        Request::ListWorkers => Reply::Workers(Workers { workers: vec![worker()] }),
        Request::ListPorts => {
            let waiting = Port::new("span", PortType::Tap, Vlan::shown(&PortVlan::default()));
            Reply::Ports(Ports { ports: vec![port(), waiting] })
        }
        Request::ShowPort { .. } => Reply::Port(OnePort { port: Box::new(port()) }),
        Request::ListVlans => {
            let members = vec![VlanMember { port: "web".into(), tagged: false }];
            Reply::Vlans(Vlans { vlans: vec![VlanRow { vlan: 20, ports: members }] })
        }
        Request::ListFdb { .. } => Reply::Fdb(FdbEntries { entries: vec![entry()] }),
        Request::ListMulticast { .. } => Reply::Multicast(multicast()),
        Request::ListMirrors => Reply::Mirrors(Mirrors { mirrors: vec![mirror()] }),
        Request::ListInlines => Reply::Inlines(Inlines { inlines: vec![inline()] }),
        Request::ShowInline { .. } => Reply::Inline(OneInline { inline: Box::new(inline()) }),
        Request::ListImpairments => Reply::Impairments(Impairments { impairments: vec![impairment()] }),
        Request::ShowMirror { .. } => Reply::Mirror(OneMirror { mirror: Box::new(mirror()) }),
        Request::GetStats { .. } => Reply::Stats(Stats {
            uptime_milliseconds: 7,
            ports: vec![PortStats { name: "dc01".into(), counters: counters() }],
        }),
        Request::TraceFrame { .. } => Reply::Trace(Trace {
            verdict: TraceVerdict::Dropped,
            summary: "dropped".into(),
            steps: vec![TraceStep {
                stage: TraceStage::Egress,
                outcome: TraceOutcome::Drop,
                port: Some("dc01".into()),
                mirror: Some("detect".into()),
                vlan: Some(20),
                reason: Some("runt".into()),
                frame: Some("02".into()),
                text: "why".into(),
                hint: Some("what else".into()),
            }],
        }),
        Request::ShowConfig => Reply::Config(ShownConfig {
            text: "[switch]\n".into(),
            config: json!({"switch": {}}),
            file: "/etc/labsw/labsw.toml".into(),
            unconfirmed: Some(unconfirmed()),
        }),
        Request::CheckConfig(_) => {
            Reply::Awaited(Awaited { awaited: vec!["ports.a.device: name:b0 is awaited".into()] })
        }
        Request::DiffConfig(_) | Request::Change(Change::ApplyConfig(_) | Change::RevertConfig) => {
            Reply::Changes(Changes { changes: vec![change()] })
        }
        Request::Capture(_) => Reply::CapturePiece(CapturePiece { pcapng: "Cg0NCg==".into(), captured: 2, dropped: 1 }),
        Request::ListCaptures => Reply::Captures(Captures { captures: vec![capture()] }),
        Request::Monitor { .. } => Reply::Events(Events { events: vec![event()], lost: 2 }),
        Request::Change(Change::FlushFdb { .. }) => Reply::Removed(Removed { removed: 3 }),
        Request::Change(Change::Inject { .. }) => Reply::Injected(injected()),
        Request::Change(_) => Reply::Done(Done {}),
    }
}

fn injected() -> Injected {
    Injected { injection: 3, taken: 1, waiting: 0, sent: 1, drops: [("oversize".to_owned(), 1)].into() }
}
