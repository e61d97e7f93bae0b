//! Proves that each port is in the picture once and in its place, that names can't break a drawing, that 100 ports fit,
//! and that the commands to copy are commands.

use std::path::Path;

use clap::Parser;
use labsw_switch::vlan::{PortVlan, VlanMode};
use serde_json::json;

use super::*;
use crate::api::{FrontEnd, Impairment, InlineState, PortDirection, PortType};
use crate::ctl::Arguments;
use crate::model::OnFailure;

const NASTY: &str = "a<b>&\"'\u{1b}[2J\u{202e}]]>--%%{}|`;#";

fn access(vlan: u16) -> Vlan {
    Vlan::shown(&PortVlan::new(VlanMode::Access, Some(vlan), &[]).unwrap())
}

fn trunk(mode: VlanMode, tag: Option<u16>, trunks: &[std::ops::RangeInclusive<u16>]) -> Vlan {
    Vlan::shown(&PortVlan::new(mode, tag, trunks).unwrap())
}

fn mirror(name: &str, sources: &[&str], to: Option<&str>) -> Mirror {
    Mirror {
        name: name.into(),
        to: to.map(str::to_owned),
        to_vlan: to.is_none().then_some(900),
        sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
        matched: 9,
        sent: 8,
        dropped: 1,
        ..Mirror::default()
    }
}

fn status(ports: Vec<Port>, mirrors: Vec<Mirror>) -> Status {
    Status {
        version: "0.1.0".into(),
        uptime_seconds: 7,
        uptime_milliseconds: 7000,
        power: "adaptive".into(),
        ports,
        mirrors,
        impairments: vec![Impairment {
            port: "web2".into(),
            direction: PortDirection::Tx,
            settings: serde_json::from_value(json!({"delay": "20ms", "loss": "5%"})).unwrap(),
            ..Impairment::default()
        }],
        ..Status::default()
    }
}

/// A trunk, a device in all VLANs, two VLANs, a sensor.
fn lab() -> Status {
    let mut ports = vec![
        Port::new("span", PortType::AfXdp, trunk(VlanMode::NativeUntagged, Some(1), &[])),
        Port::new("uplink", PortType::AfXdp, trunk(VlanMode::Trunk, None, &[10..=10, 30..=39])),
        Port::new("all", PortType::AfXdp, trunk(VlanMode::NativeUntagged, Some(20), &[])),
        Port::new("web10", PortType::Veth, access(20)),
        Port::new("web2", PortType::Veth, access(20)),
        Port::new("dc01", PortType::VhostUser, access(10)),
    ];
    ports[0].mirror_only = true;
    ports[0].mirrors = vec!["m".into()];
    ports[1].interface = Some("lab-b".into());
    (ports[4].peer, ports[4].netns) = (Some("eth0".into()), Some("web".into()));
    ports[4].mirrors = vec!["m".into()];
    ports[4].impaired = vec![PortDirection::Tx];
    ports[4].stations = 3;
    ports[4].counters.drops = [("runt".to_owned(), 7), ("oversize".to_owned(), 0)].into();
    ports[5].front_end = Some(FrontEnd { pid: 4711, uid: 64055 });
    (ports[3].state, ports[3].reason) = (PortState::Down, Some("administratively down".into()));
    status(ports, vec![mirror("m", &["web2:rx"], Some("span"))])
}

fn entry(port: &str, mac: &str) -> FdbEntry {
    FdbEntry {
        vlan: 20,
        mac: mac.into(),
        port: port.into(),
        is_static: false,
        sticky: false,
        fast_path: false,
        age_seconds: 4,
    }
}

fn commands() -> Commands {
    Commands::new(Path::new("/run/my lab.sock"))
}

fn picture(status: &Status) -> Picture {
    Picture::of(status, &[entry("web2", "52:54:00:00:00:01"), entry("nobody", "52:54:00:00:00:02")], &commands())
}

/// The lab with a sensor in the wire of dc01.
fn lab_with_sensor(state: InlineState, reason: Option<&str>) -> Status {
    let mut status = lab();
    for (name, vlan) in [("ips-in", access(1)), ("ips-out", trunk(VlanMode::NativeUntagged, Some(1), &[]))] {
        status.ports.push(Port::new(name, PortType::Veth, vlan));
    }
    status.inlines = vec![Inline {
        name: "ips".into(),
        state,
        reason: reason.map(str::to_owned),
        of: "dc01".into(),
        through: vec!["ips-in".into(), "ips-out".into()],
        on_failure: OnFailure::Open,
    }];
    status
}

#[test]
fn a_sensor_in_a_wire_stands_apart_and_is_marked_at_its_port() {
    let picture = picture(&lab_with_sensor(InlineState::Through, None));
    let names: Vec<&str> = picture.sensors.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["ips-in", "ips-out"]);
    assert_eq!((picture.lanes.len(), picture.trunks.len()), (2, 2), "their VLANs have no effect");
    assert_eq!(picture.nodes().count(), 8);
    assert_eq!(picture.summary(), "labswd 0.1.0: 8 ports, 7 up; 1 mirror and 1 sensor inline");
    let mark = |picture: &Picture, name: &str| {
        let node = picture.nodes().find(|node| node.name == name).unwrap().clone();
        assert!(node.commands.iter().any(|command| command.ends_with(" inline show ips")), "{:?}", node.commands);
        (node.marks[0].kind, node.marks[0].text.clone())
    };
    let through = "frames go through sensor ips at ips-in and ips-out".to_owned();
    assert_eq!(mark(&picture, "dc01"), (MarkKind::Inline, through));
    let side = |of: &str| format!("sensor ips in the wire of dc01, on the side of {of}");
    assert_eq!(mark(&picture, "ips-in"), (MarkKind::Sensor, side("the port")));
    assert_eq!(mark(&picture, "ips-out"), (MarkKind::Sensor, side("the switch")));
    let svg = svg::draw(&picture);
    assert!(svg.contains(">Sensors in wires</text>") && svg.contains("⇄ ips"), "{svg}");
    let text = mermaid::draw(&picture);
    assert!(text.contains("  subgraph sensors[\"Sensors in wires\"]\n    p6["), "{text}");
    assert!(text.contains("\n  p2 == \"ips through\" === p6 === p7\n"), "{text}");

    let dead = self::picture(&lab_with_sensor(InlineState::Closed, Some("no probe passes")));
    let dropped = "frames are dropped before sensor ips at ips-in and ips-out: no probe passes".to_owned();
    assert_eq!(mark(&dead, "dc01"), (MarkKind::Inline, dropped));
    let open = self::picture(&lab_with_sensor(InlineState::Bypassed, Some("no probe passes")));
    let past = "frames go past sensor ips at ips-in and ips-out: no probe passes".to_owned();
    assert_eq!(mark(&open, "dc01"), (MarkKind::Inline, past));
}

/// 100 ports of all kinds in 7 VLANs, with names that nobody would choose.
fn hundred(trunks: usize) -> Picture {
    let ports = (0..100).map(|number| {
        let name = if number % 10 == 0 { format!("{NASTY}{number}") } else { format!("vm{number}") };
        let vlan = if number < trunks {
            trunk(VlanMode::Trunk, None, &[10..=12])
        } else {
            access(10 + u16::try_from(number % 7).unwrap())
        };
        let mut port = Port::new(name, PortType::VhostUser, vlan);
        (port.state, port.reason) = (PortState::Waiting, Some(NASTY.to_owned()));
        port.stations = 2;
        port
    });
    Picture::of(&status(ports.collect(), vec![mirror(NASTY, &["*"], None)]), &[], &commands())
}

#[test]
fn each_port_is_in_its_place() {
    let picture = picture(&lab());
    let names = |nodes: &[Node]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&picture.trunks), ["all", "uplink"]);
    assert_eq!(names(&picture.mirror_only), ["span"]);
    let lanes: Vec<_> = picture.lanes.iter().map(|lane| (lane.vlan, names(&lane.ports))).collect();
    assert_eq!(lanes, [(10, vec!["dc01".to_owned()]), (20, vec!["web2".to_owned(), "web10".to_owned()])]);
    let carried = |lane: usize| -> Vec<(String, bool)> {
        picture.lanes[lane].trunks.iter().map(|member| (member.port.clone(), member.tagged)).collect()
    };
    assert_eq!(carried(0), [("all".to_owned(), true), ("uplink".to_owned(), true)]);
    assert_eq!(carried(1), [("all".to_owned(), false)]);
    assert_eq!(picture.summary(), "labswd 0.1.0: 6 ports, 5 up; 1 mirror");
}

#[test]
fn a_port_shows_who_is_plugged_in_and_what_is_done_to_its_frames() {
    let picture = picture(&lab());
    let node = |name: &str| picture.nodes().find(|node| node.name == name).unwrap().clone();
    let (web, dc, uplink) = (node("web2"), node("dc01"), node("uplink"));
    assert_eq!(web.plugged.as_deref(), Some("eth0 in web"));
    assert_eq!(dc.plugged.as_deref(), Some("process 4711, user 64055"));
    assert_eq!(uplink.plugged.as_deref(), Some("lab-b"));
    assert_eq!(web.stations_text(), "52:54:00:00:00:01 and 2 more");
    assert_eq!((web.dropped, web.drops.len()), (7, 1));
    let marks: Vec<_> = web.marks.iter().map(|mark| (mark.kind, mark.text.as_str())).collect();
    assert_eq!(
        marks,
        [
            (MarkKind::Mirrored, "mirror m copies frames to span"),
            (MarkKind::Impaired, "frames to the port are impaired: delay 20ms, loss 5%")
        ]
    );
    assert_eq!(node("span").marks[0].text, "takes the copies of mirror m");
    assert!(dc.marks.is_empty());
}

#[test]
fn the_commands_to_copy_are_commands_for_this_switch() {
    let picture = picture(&lab());
    let mut commands = 0;
    for node in picture.nodes() {
        for command in &node.commands {
            let rest = command.strip_prefix("labsw-ctl --socket '/run/my lab.sock' ").unwrap();
            let parsed = Arguments::try_parse_from(std::iter::once("labsw-ctl").chain(rest.split(' ')));
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
            assert!(rest.contains(&node.name) || rest == "mirror show m", "{command}");
            commands += 1;
        }
    }
    assert!(commands > 30, "{commands}");
    let of = |name: &str| picture.nodes().find(|node| node.name == name).unwrap().commands.join("\n");
    assert!(of("web10").contains("port up web10") && of("web2").contains("port down web2"));
    assert!(of("web2").contains("impair clear web2") && of("dc01").contains("impair set dc01 --profile lossy"));
    assert!(
        of("dc01").contains("mirror set dc01 --source dc01 --to span") && of("dc01").contains("guest dc01 --for qemu")
    );
    let usual = Commands::new(Path::new("/run/labsw/control.sock"));
    let plain = Picture::of(&lab(), &[], &usual);
    assert!(plain.nodes().flat_map(|node| &node.commands).all(|command| !command.contains("--socket")));
}

/// Names of elements and texts of an SVG, if it is well formed.
fn elements(svg: &str) -> Vec<(String, String)> {
    let (mut open, mut found, mut rest) = (Vec::new(), Vec::new(), svg);
    while let Some((text, behind)) = rest.split_once('<') {
        assert!(!text.contains('>') || open.last().is_some_and(|name| name == "style"), "{text:?}");
        let (tag, after) = behind.split_once('>').unwrap();
        let name = tag.trim_matches('/').split_whitespace().next().unwrap().to_owned();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()));
        } else {
            found.push((name.clone(), after.split('<').next().unwrap().to_owned()));
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = after;
    }
    assert!(open.is_empty(), "{open:?}");
    found
}

#[test]
fn the_drawing_is_well_formed_whatever_the_names() {
    for picture in
        [picture(&lab()), hundred(0), hundred(3), hundred(60), Picture::of(&status(vec![], vec![]), &[], &commands())]
    {
        let svg = svg::draw(&picture);
        let cards = elements(&svg).iter().filter(|(name, _)| name == "title").count();
        assert_eq!(cards, picture.nodes().count());
        assert!(!svg.contains(['\u{1b}', '\u{202e}']) && !svg.contains("script"));
    }
    let svg = svg::draw(&hundred(0));
    assert!(svg.contains("a&lt;b&gt;&amp;&quot;&#39; [2J ]]&gt;--%%{}|`;#"), "{svg}");
    // Cards keep within the page.
    let number = |tag: &str, name: &str| -> u32 {
        tag.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap().parse().unwrap()
    };
    for tag in svg.split("<rect x").skip(1).map(|rest| format!(" x{rest}")) {
        assert!(number(&tag, " x") + number(&tag, "width") <= 1000 - 24, "{tag}");
    }
}

#[test]
fn a_trunk_has_a_rail_with_a_stop_at_each_vlan_that_it_carries() {
    let svg = svg::draw(&picture(&lab()));
    let stops = |class: &str| svg.matches(&format!("<circle class=\"{class}\"")).count();
    assert_eq!((stops("stop"), stops("stop untagged")), (2, 1));
    // With many trunks there are no rails.
    let many = svg::draw(&hundred(60));
    assert!(!many.contains("<circle class=\"stop") && many.contains(">Trunks</text>"));
}

#[test]
fn the_flowchart_names_everything_in_quotes() {
    let text = mermaid::draw(&picture(&lab()));
    for line in [
        "%% labswd 0.1.0: 6 ports, 5 up; 1 mirror",
        "flowchart LR",
        "  subgraph vlan20[\"VLAN 20\"]",
        "    p4[\"web10<br/>veth down: administratively down<br/>in 0, out 0\"]:::down",
        "  p0 ---|untagged| vlan20",
        "  p1 ---|tagged| vlan10",
        "  p3 -. \"m rx\" .-> p5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
    let text = mermaid::draw(&hundred(3));
    let boxes = text.lines().filter(|line| line.trim_start().starts_with('p') && line.contains("<br/>"));
    assert_eq!(boxes.count(), 100);
    for line in text.lines().skip(1).filter(|line| !line.starts_with("  classDef")) {
        let quoted: String = line.split('"').skip(1).step_by(2).collect::<String>().replace("<br/>", "");
        assert!(line.matches('"').count() % 2 == 0 && !quoted.contains(['<', '>', '&', '{', '|', '`', '[']), "{line}");
    }
    assert!(text.contains("from0([\"every port\"])") && text.contains("to0[\"VLAN 900\"]"), "{text}");
}

#[test]
fn names_are_ordered_as_people_count() {
    let mut names = ["web10", "web2", "web", "a1b10", "a1b9", "b", "a01", "a1"];
    names.sort_by(|a, b| by_name(a, b));
    assert_eq!(names, ["a01", "a1", "a1b9", "a1b10", "b", "web", "web2", "web10"]);
}
