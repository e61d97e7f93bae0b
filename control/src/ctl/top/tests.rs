//! The view on a screen in memory: what it shows, in which order, and that it fits.

use labsw_switch::vlan::{PortVlan, VlanMode};
use std::collections::BTreeMap;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::draw;
use super::view::{Flow, View};
use super::*;
use crate::api::{Counters, Inline, InlineState, Mirror, Port, PortState, PortType, Vlan, Worker};
use crate::model::OnFailure;

fn port(name: &str, frames: u64, drops: &[(&str, u64)]) -> Port {
    let vlan = Vlan::shown(&PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap());
    let drops: BTreeMap<String, u64> = drops.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    let counters = Counters {
        rx_frames: frames,
        rx_bytes: 1000 * frames,
        tx_frames: 2 * frames,
        tx_bytes: 100 * frames,
        drops,
        kernel: BTreeMap::new(),
    };
    Port { counters, ..Port::new(name, PortType::VhostUser, vlan) }
}

fn mirror(matched: u64) -> Mirror {
    let to = Some("span".into());
    Mirror { name: "detect".into(), to, matched, sent: matched / 2, ..Mirror::default() }
}

fn status(milliseconds: u64, ports: Vec<Port>) -> Box<Status> {
    let worker = |id, busy_percent| Worker {
        id,
        cpu: Some(id),
        busy_percent,
        frames_per_burst: 1.0,
        asleep: false,
        asleep_percent: 0.0,
        queues: Vec::new(),
    };
    Box::new(Status {
        version: "0.1.0".into(),
        uptime_seconds: milliseconds / 1000,
        uptime_milliseconds: milliseconds,
        power: "adaptive".into(),
        workers: vec![worker(0, 12.4), worker(1, 99.6)],
        ports,
        mirrors: vec![mirror(milliseconds)],
        ..Status::default()
    })
}

/// Half a second apart: `web` receives most, `dc01` drops most, `db` is not connected.
fn view() -> View {
    let mut view = View::new(Duration::from_secs(1));
    let ports = |dc01, web, dropped: u64| {
        let db = PortState::Down;
        vec![
            Port { state: db, reason: Some("no front end is connected".into()), ..port("db", 0, &[]) },
            port("dc01", dc01, &[("guest_ring_full", 40 + dropped), ("runt", 2), ("vlan_not_member", 7 * dropped)]),
            port("web", web, &[("no_buffer", dropped / 2)]),
        ]
    };
    view.hear(Ok(status(60_000, ports(1000, 5_000_000, 0))));
    view.hear(Ok(status(60_500, ports(1500, 11_170_000, 10))));
    view
}

fn screen(view: &mut View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let lines = buffer.content().chunks(width.into()).map(|line| {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

fn press(view: &mut View, keys: &[KeyCode]) -> Flow {
    keys.iter().map(|key| view.key(KeyEvent::new(*key, KeyModifiers::NONE))).last().unwrap()
}

fn order(view: &View) -> Vec<&str> {
    view.ports.iter().map(|row| row.port.name.as_str()).collect()
}

fn assert_is(got: &str, golden: &str) {
    assert!(got == golden, "the screen is:\n{got}");
}

#[test]
fn the_view_fits_80_by_24() {
    assert_is(&screen(&mut view(), 80, 24), include_str!("golden/ports.txt"));
}

#[test]
fn sensors_in_wires_stand_below_the_mirrors() {
    let mut view = view();
    let inline = |name: &str, reason: Option<&str>| Inline {
        name: name.into(),
        state: if reason.is_some() { InlineState::Bypassed } else { InlineState::Through },
        reason: reason.map(str::to_owned),
        of: "web".into(),
        through: vec!["ips-in".into(), "ips-out".into()],
        on_failure: OnFailure::Open,
    };
    let mut now = status(61_000, vec![port("web", 1, &[])]);
    now.inlines = vec![inline("ips", None), inline("old", Some("no probe passes"))];
    view.hear(Ok(now.clone()));
    let shown = screen(&mut view, 80, 24);
    let rows: Vec<&str> = shown.lines().skip(17).collect();
    let expected = [
        "MIRROR                   STATE   TO                    MATCH/S   SENT/S   DROP/S",
        "detect                   up      span                    1.00k      500        0",
        "",
        "INLINE       STATE    OF         THROUGH            REASON",
        "ips          through  web        ips-in, ips-out",
        "old          bypassed web        ips-in, ips-out    no probe passes",
        "q quit  ↑↓ select  Enter details  sort: n name, r in, t out, d drops (twice: ↑)",
    ];
    assert_eq!(rows, expected, "the screen is:\n{shown}");
    // Many leave the ports their room.
    now.inlines = (0..50).map(|number| inline(&format!("ips{number}"), None)).collect();
    view.hear(Ok(now));
    let shown = screen(&mut view, 80, 24);
    assert!(shown.contains("\nand 47 more\n") && shown.contains("\nweb "), "the screen is:\n{shown}");
}

#[test]
fn the_marked_port_is_shown_in_full() {
    let mut view = view();
    press(&mut view, &[KeyCode::Down, KeyCode::Enter]);
    assert_is(&screen(&mut view, 80, 24), include_str!("golden/details.txt"));
}

#[test]
fn ports_are_ordered_by_what_is_asked_and_the_marked_one_stays_marked() {
    let mut view = view();
    assert_eq!(order(&view), ["db", "dc01", "web"]);
    press(&mut view, &[KeyCode::End]);
    for (key, expected) in [
        ('r', ["web", "dc01", "db"]),
        ('r', ["db", "dc01", "web"]),
        ('d', ["dc01", "web", "db"]),
        ('t', ["web", "dc01", "db"]),
        ('n', ["db", "dc01", "web"]),
        ('n', ["web", "dc01", "db"]),
    ] {
        press(&mut view, &[KeyCode::Char(key)]);
        assert_eq!(order(&view), expected, "{key}");
        assert_eq!(view.marked().unwrap().port.name, "web", "{key}");
    }
    assert_eq!(press(&mut view, &[KeyCode::Enter, KeyCode::Esc]), Flow::Go, "closes what is open");
    for quit in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press(&mut view, &[quit]), Flow::Quit);
    }
    assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Flow::Quit);
}

#[test]
fn many_ports_scroll_with_the_mark() {
    let mut view = View::new(Duration::from_secs(1));
    let ports = |frames| (0..100).map(|number| port(&format!("p{number:02}"), frames, &[])).collect();
    view.hear(Ok(status(1000, ports(1))));
    view.hear(Ok(status(2000, ports(2))));
    assert!(screen(&mut view, 80, 24).contains("p00") && !screen(&mut view, 80, 24).contains("p50"));
    press(&mut view, &[KeyCode::PageDown; 5]);
    let shown = screen(&mut view, 80, 24);
    assert!(shown.contains("p50") && !shown.contains("p00"), "{shown}");
    press(&mut view, &[KeyCode::End, KeyCode::Down]);
    assert!(screen(&mut view, 80, 24).contains("p99"));
    press(&mut view, &[KeyCode::Home, KeyCode::Up]);
    assert!(screen(&mut view, 80, 24).contains("p00"));
}

#[test]
fn a_switch_that_goes_is_one_line_and_comes_back_without_false_rates() {
    let mut view = view();
    view.hear(Err("/run/a.sock: the switch can't be reached:\nno".into()));
    let shown = screen(&mut view, 80, 24);
    let expected = "trying again: /run/a.sock: the switch can't be reached: no\n";
    assert_eq!(shown.lines().next().map(|line| format!("{line}\n")).as_deref(), Some(expected), "{shown}");
    assert!(shown.contains("dc01"), "what was there stays in sight:\n{shown}");
    // A new run of the switch counts from 0.
    view.hear(Ok(status(200, vec![port("web", 7, &[])])));
    assert!(view.ports[0].rates.is_none());
    view.hear(Ok(status(1200, vec![port("web", 17, &[])])));
    assert_eq!(view.ports[0].rates.as_ref().unwrap().rx_frames_per_second, 10.0);
    assert_eq!(screen(&mut view, 80, 24).lines().next(), Some("labswd 0.1.0  up 1s  power adaptive  every 1s"));
}

#[test]
fn no_screen_is_too_small_or_too_strange() {
    for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 4), (400, 100)] {
        let mut view = view();
        screen(&mut view, width, height);
        press(&mut view, &[KeyCode::Enter]);
        screen(&mut view, width, height);
    }
    let mut empty = View::new(Duration::from_secs(1));
    press(&mut empty, &[KeyCode::Down, KeyCode::Enter, KeyCode::Char('d')]);
    assert!(screen(&mut empty, 80, 24).starts_with("waiting for the switch\n"));
    empty.hear(Ok(status(1000, vec![port("\u{1b}[2Jevil", 1, &[])])));
    assert!(!screen(&mut empty, 80, 24).contains('\u{1b}'));
}
