//! Explanations, word for word, of a small lab: two access ports and one guest that is not connected in VLAN 20, an
//! uplink, a port that is switched off, and a mirror's destination.

use labsw_switch::Mac;
use labsw_switch::fdb::Fdb;
use labsw_switch::tables::{Direction, LinkLocal, MirrorSpec, PortRules, Tables};
use labsw_switch::vlan::{PortVlan, VlanMode};

use super::*;
use crate::api::parse_frame;
use crate::config::{Config, SwitchConfig, split_setting};

const DC01: PortId = PortId(0);
const UPLINK: PortId = PortId(1);
const WEB: PortId = PortId(2);
const GUEST: PortId = PortId(3);
const OFF: PortId = PortId(4);
const SPAN: PortId = PortId(5);

struct Lab {
    tables: Tables,
    fdb: Fdb,
}

impl Lab {
    fn new() -> Lab {
        let vlan = |mode, tag, trunks: &[_]| PortVlan::new(mode, tag, trunks).unwrap();
        let port = |vlan| PortRules { vlan, ..PortRules::default() };
        let access = || port(vlan(VlanMode::Access, Some(20), &[]));
        let uplink = port(vlan(VlanMode::NativeUntagged, Some(10), &[20..=29]));
        let ports = vec![
            (DC01, PortRules { link_local: LinkLocal::Drop, ..access() }),
            (UPLINK, uplink),
            (WEB, access()),
            (GUEST, access()),
            (OFF, PortRules { enabled: false, ..access() }),
            (SPAN, PortRules { mirror_only: true, ..access() }),
        ];
        let mirror = |id, sources| MirrorSpec {
            id: MirrorId(id),
            sources,
            all_ports: None,
            vlans: None,
            to: Some(SPAN.into()),
            snaplen_bytes: 0,
            filter: None,
        };
        let mirrors = vec![
            mirror(0, vec![(DC01, Direction::BOTH)]),
            mirror(1, vec![(UPLINK, Direction::TX), (GUEST, Direction::TX)]),
        ];
        Lab { tables: Tables::build(ports, mirrors).unwrap(), fdb: Fdb::new(100, 300, 1) }
    }

    fn trace(&self, ingress: PortId, frame: &[u8]) -> Trace {
        let trouble = |state, reason: &str| Some(Trouble { state, reason: reason.into(), takes_frames: false });
        let view = |name: &str, trouble| {
            let impaired_rx = (name == "web").then(|| "loss 5%".to_owned());
            let impaired_tx = (name == "uplink").then(|| "delay 20ms".to_owned());
            PortView { name: name.into(), trouble, impaired_rx, impaired_tx, fast_path: None }
        };
        let scene = Scene {
            now_ns: 112_000_000_000,
            by: Forwarder { tables: &self.tables, fdb: &self.fdb, now_seconds: 112 },
            ports: BTreeMap::from([
                (DC01, view("dc01", None)),
                (UPLINK, view("uplink", None)),
                (WEB, view("web", None)),
                (GUEST, view("guest", trouble(PortState::Down, "no front end is connected"))),
                (OFF, view("off", trouble(PortState::Down, "administratively down"))),
                (SPAN, view("span", None)),
            ]),
            mirrors: BTreeMap::from([(MirrorId(0), "detect".into()), (MirrorId(1), "edge".into())]),
        };
        let before = self.fdb.len();
        let trace = explain(&scene, ingress, frame);
        assert_eq!(self.fdb.len(), before);
        trace
    }
}

/// An IPv4 frame of 60 bytes between two stations.
fn frame(dst: u8, src: u8, tag: &[u8]) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src], tag, &[8, 0]].concat();
    frame.resize(60, 0);
    frame
}

fn said(trace: &Trace) -> String {
    let lines = trace.steps.iter().map(|step| {
        let hint = step.hint.as_deref().map(|hint| format!(" -> {hint}")).unwrap_or_default();
        format!("{} {:?}: {}{hint}\n", step.stage.name(), step.outcome, step.text)
    });
    lines.chain([format!("{:?}: {}\n", trace.verdict, trace.summary)]).collect()
}

fn learn(lab: &Lab, station: u8, port: PortId) {
    let vid = Vid::try_from(20).unwrap();
    lab.fdb.learn(vid, Mac::new([2, 0, 0, 0, 0, station]), port, 100);
}

#[test]
fn a_frame_to_a_known_station_over_the_trunk() {
    let lab = Lab::new();
    learn(&lab, 2, UPLINK);
    let trace = lab.trace(DC01, &frame(2, 1, &[]));
    assert_eq!(
        said(&trace),
        "port Pass: received on dc01, which is up\n\
         header Pass: from 02:00:00:00:00:01 to 02:00:00:00:00:02, untagged, ethertype 0x0800 (ipv4), 60 bytes\n\
         vlan Pass: in VLAN 20: it is untagged, and that is the VLAN of untagged frames at dc01 (access 20)\n\
         learning Pass: 02:00:00:00:00:01 in VLAN 20 is new, and would be learned at dc01\n\
         lookup Pass: 02:00:00:00:00:02 in VLAN 20 is at uplink (learned, last seen 12 s ago)\n\
         egress Send: uplink: sent with a tag of VLAN 20, which is put in (native-untagged 10, trunks 20-29)\n\
         impairment Note: uplink: impaired on its way out: delay 20ms -> labsw-ctl impair clear uplink --direction tx\n\
         mirror Copy: detect copies it as dc01 received it to span\n\
         mirror Note: edge selects it as uplink sends it, too; span gets one copy of a frame\n\
         Forwarded: forwarded to uplink; copied to span by detect\n"
    );
    let copy = trace.steps.iter().find(|step| step.outcome == TraceOutcome::Copy).unwrap();
    assert_eq!(parse_frame(copy.frame.as_deref().unwrap()).unwrap(), frame(2, 1, &[]));
    let sent = trace.steps.iter().find_map(|step| step.frame.as_deref()).unwrap();
    let mut tagged = frame(2, 1, &[0x81, 0, 0, 20]);
    tagged.resize(64, 0);
    assert_eq!(parse_frame(sent).unwrap(), tagged);
}

#[test]
fn a_flooded_frame_says_who_gets_it_and_who_does_not() {
    let lab = Lab::new();
    let trace = lab.trace(WEB, &frame(9, 1, &[]));
    let said = said(&trace);
    for line in [
        "lookup Pass: 02:00:00:00:00:09 is not known in VLAN 20: it goes to every other port of the VLAN\n",
        "egress Send: dc01: sent untagged, as received (access 20)\n",
        "egress Drop: dropped at guest: not_connected: the port is down: no front end is connected -> labsw-ctl port show guest\n",
        "egress Note: off: not sent, the port is down: administratively down\n",
        "egress Note: span: not sent, the port takes only mirror copies\n",
        "mirror Copy: detect copies it as dc01 sends it to span\n",
        "mirror Note: edge would select it as guest sends it, but it is not sent\n",
        "Flooded: flooded in VLAN 20 to dc01, uplink; dropped at guest (not_connected); copied to span by detect\n",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}

/// The port, the frame, the stage and the reason of the drop, and what is said of it.
#[test]
fn every_kind_of_drop_names_what_decided_it_and_what_would_change_it() {
    let lab = Lab::new();
    learn(&lab, 5, WEB);
    learn(&lab, 6, OFF);
    learn(&lab, 7, GUEST);
    learn(&lab, 8, SPAN);
    let mut long = frame(2, 1, &[]);
    long.resize(1600, 0);
    let link_local = [&[0x01, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc], &[0; 46][..]].concat();
    let twice = [0x81, 0, 0, 20, 0x81, 0, 0, 30];
    let cases = [
        (WEB, vec![0; 13], "header", "runt", "13 bytes end before the header does", ""),
        (WEB, vec![1; 60], "header", "source_group_address", "the source is a group address", ""),
        (UPLINK, frame(2, 1, &[0x81, 0, 0x0f, 0xff]), "header", "vid_reserved", "4095", ""),
        (WEB, long, "mtu", "oversize", "1586 bytes behind the header, and the MTU of web is 1500", "mtu=1586"),
        (DC01, link_local, "link_local", "link_local", "01-80-C2", "link_local=transparent"),
        (WEB, frame(2, 1, &[0x81, 0, 0, 30]), "vlan", "tagged_not_allowed", "a tag of VLAN 30", "trunks=30"),
        (
            UPLINK,
            frame(2, 1, &[0x81, 0, 0, 30]),
            "vlan",
            "vlan_not_member",
            "VLAN 30 is not a member of port uplink (native-untagged 10, trunks 20-29)",
            "add VLAN 30 to the trunks of uplink",
        ),
        (WEB, frame(5, 1, &[]), "lookup", "same_port", "learned on the port", "fdb list"),
        (
            UPLINK,
            frame(2, 1, &[]),
            "lookup",
            "no_destination",
            "no other port that is up is a member of VLAN 10",
            "vlan list",
        ),
        (OFF, frame(2, 1, &[]), "port", "port_down", "the port is down: administratively down", "port up off"),
        (SPAN, frame(2, 1, &[]), "port", "mirror_destination", "mirroring", "mirror list"),
        (WEB, frame(6, 1, &[]), "egress", "port_down", "the port is down: administratively down", "port up off"),
        (WEB, frame(7, 1, &[]), "egress", "not_connected", "no front end is connected", "port show guest"),
        (WEB, frame(8, 1, &[]), "egress", "mirror_destination", "mirroring", "mirror list"),
        (UPLINK, frame(5, 1, &twice), "egress", "double_tag", "VLAN hopping", "between trunks"),
    ];
    for (ingress, frame, stage, reason, why, hint) in cases {
        let trace = lab.trace(ingress, &frame);
        let drops: Vec<&TraceStep> = trace.steps.iter().filter(|step| step.outcome == TraceOutcome::Drop).collect();
        let [drop] = drops.as_slice() else { panic!("{reason}: {trace:?}") };
        assert_eq!((drop.stage.name(), drop.reason.as_deref()), (stage, Some(reason)));
        let port = drop.port.as_deref().unwrap();
        assert!(drop.text.starts_with(&format!("dropped at {port}: {reason}: ")), "{}", drop.text);
        assert!(drop.text.to_lowercase().contains(&why.to_lowercase()), "{}", drop.text);
        assert!(drop.hint.as_deref().unwrap_or_default().contains(hint), "{:?}", drop.hint);
        assert_eq!(trace.verdict, TraceVerdict::Dropped);
        assert_eq!(trace.summary.split(';').next(), Some(format!("dropped at {port} ({reason})").as_str()));
    }
}

/// The settings of a port's VLANs, a frame that it drops, and the settings that it has if the hint is followed.
#[test]
fn who_follows_the_hint_lets_in_that_vlan_and_no_other() {
    let tagged = |vid: u8| frame(2, 1, &[0x81, 0, 0, vid]);
    for (before, frame, after) in [
        ("mode='access',tag=20", tagged(30), "native-untagged 20, trunks 30"),
        ("mode='access',tag=20", tagged(20), "native-untagged 20, trunks 20"),
        ("mode='trunk',trunks=[10,'20-29']", frame(2, 1, &[]), "native-untagged 7, trunks 10,20-29"),
        ("mode='trunk',trunks=[10,'20-29']", tagged(30), "trunk, trunks 10,20-30"),
        ("mode='native-untagged',tag=7,trunks=[10]", tagged(30), "native-untagged 7, trunks 10,30"),
    ] {
        let file = format!("[ports.a]\ntype='vhost_user'\nvlan={{{before}}}\n");
        let port = Config::parse(&file, "x.toml").unwrap().ports.remove(0);
        let rules = PortRules { vlan: port.vlan.clone(), ..PortRules::default() };
        let tables = Tables::build(vec![(DC01, rules)], vec![]).unwrap();
        let trace = Lab { tables, fdb: Fdb::new(100, 300, 1) }.trace(DC01, &frame);
        let hint = trace.steps.iter().find_map(|step| step.hint.clone()).unwrap();
        let settings = hint.split("labsw-ctl port set dc01 ").nth(1).unwrap_or_else(|| panic!("{hint}"));
        let settings = settings.replace("tag=N", "tag=7");
        let settings = settings.split(' ').map(|setting| split_setting(setting).unwrap()).collect();
        assert_eq!(
            words::membership(&port.with_settings(&settings, &SwitchConfig::default()).unwrap().vlan),
            after,
            "{before}: {hint}"
        );
    }
}
