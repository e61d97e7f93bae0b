//! Proves the text word for word, that the dashboard asks for what there is, and what a scrape gets.

use std::time::{Duration, Instant};

use labsw_switch::vlan::{PortVlan, VlanMode};

use super::*;
use crate::api::{Counters, MulticastTotals, PortDirection, PortType, Vlan};
use crate::http::{Answer, Request, Site};
use crate::model::OnFailure;

fn status() -> Status {
    let vlan = Vlan::shown(&PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap());
    let drops = [("oversize".to_owned(), 3), ("runt".to_owned(), 0)].into();
    let kernel = [("rx_dropped".to_owned(), 6)].into();
    let counters = Counters { rx_frames: 5, rx_bytes: 500, tx_frames: 4, tx_bytes: 400, drops, kernel };
    let port = Port { state: PortState::Waiting, counters, ..Port::new("we\"b\\", PortType::Veth, vlan) };
    let mirror =
        Mirror { name: "m".into(), to: Some("span".into()), matched: 9, sent: 8, dropped: 1, ..Mirror::default() };
    let worker = Worker {
        id: 0,
        cpu: Some(3),
        busy_percent: 25.0,
        frames_per_burst: 2.5,
        asleep: false,
        asleep_percent: 50.0,
        queues: Vec::new(),
    };
    Status {
        version: "0.1.0".into(),
        uptime_seconds: 7,
        uptime_milliseconds: 7000,
        power: "adaptive".into(),
        workers: vec![worker],
        ports: vec![port],
        mirrors: vec![mirror],
        impairments: vec![Impairment {
            port: "p".into(),
            direction: PortDirection::Tx,
            frames: 9,
            delayed: 6,
            lost: 2,
            queue_full: 1,
            ..Impairment::default()
        }],
        inlines: vec![Inline {
            name: "ips".into(),
            state: InlineState::Bypassed,
            reason: None,
            of: "web".into(),
            through: vec!["in".into(), "out".into()],
            on_failure: OnFailure::Open,
        }],
        multicast: MulticastTotals { groups: 12, invalid_messages: 13, refused_memberships: 14 },
        mac_moves: 15,
        ..Status::default()
    }
}

#[test]
fn the_text_is_that_of_prometheus() {
    let text = text(&families(&status()));
    for line in [
        "# TYPE labsw_inline_state gauge",
        "labsw_inline_state{port=\"web\",sensor=\"ips\",state=\"bypassed\"} 1",
        "labsw_inline_state{port=\"web\",sensor=\"ips\",state=\"through\"} 0",
        "# TYPE labsw_impair_frames_total counter",
        "labsw_impair_frames_total{direction=\"tx\",outcome=\"passed\",port=\"p\"} 6",
        "labsw_impair_frames_total{direction=\"tx\",outcome=\"lost\",port=\"p\"} 2",
        "labsw_build_info{version=\"0.1.0\"} 1",
        "labsw_uptime_seconds 7",
        "# TYPE labsw_worker_busy_ratio gauge",
        "labsw_worker_busy_ratio{cpu=\"3\",worker=\"0\"} 0.25",
        "labsw_worker_asleep_ratio{cpu=\"3\",worker=\"0\"} 0.5",
        "labsw_worker_frames_per_burst{cpu=\"3\",worker=\"0\"} 2.5",
        "labsw_port_state{port=\"we\\\"b\\\\\",state=\"up\",type=\"veth\"} 0",
        "labsw_port_state{port=\"we\\\"b\\\\\",state=\"waiting\",type=\"veth\"} 1",
        "labsw_port_mtu_bytes{port=\"we\\\"b\\\\\",type=\"veth\"} 1500",
        "# TYPE labsw_port_received_frames_total counter",
        "labsw_port_received_frames_total{port=\"we\\\"b\\\\\",type=\"veth\"} 5",
        "labsw_port_received_bytes_total{port=\"we\\\"b\\\\\",type=\"veth\"} 500",
        "labsw_port_sent_frames_total{port=\"we\\\"b\\\\\",type=\"veth\"} 4",
        "labsw_port_sent_bytes_total{port=\"we\\\"b\\\\\",type=\"veth\"} 400",
        "labsw_port_dropped_frames_total{port=\"we\\\"b\\\\\",reason=\"oversize\",type=\"veth\"} 3",
        "labsw_port_dropped_frames_total{port=\"we\\\"b\\\\\",reason=\"runt\",type=\"veth\"} 0",
        "labsw_port_kernel_events_total{counter=\"rx_dropped\",port=\"we\\\"b\\\\\",type=\"veth\"} 6",
        "labsw_mirror_up{mirror=\"m\",to=\"span\"} 1",
        "labsw_mirror_matched_frames_total{mirror=\"m\",to=\"span\"} 9",
        "labsw_mirror_sent_frames_total{mirror=\"m\",to=\"span\"} 8",
        "labsw_mirror_dropped_frames_total{mirror=\"m\",to=\"span\"} 1",
        "labsw_mirror_truncated_frames_total{mirror=\"m\",to=\"span\"} 0",
        "labsw_multicast_groups 12",
        "labsw_multicast_invalid_messages_total 13",
        "labsw_multicast_refused_memberships_total 14",
        "labsw_mac_moves_total 15",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
    assert!(
        text.ends_with('\n')
            && text.lines().filter(|line| line.starts_with("# HELP ")).count() == families(&status()).len()
    );
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard = include_str!("../../grafana/labsw.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 5));
    let names: Vec<&str> = families(&status()).iter().map(|family| family.name).collect();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut asked: Vec<&str> = dashboard
        .match_indices("labsw_")
        .map(|(at, _)| &dashboard[at..])
        .map(|rest| &rest[..rest.find(|c| !is_name(c)).unwrap()])
        .collect();
    asked.sort_unstable();
    asked.dedup();
    assert!(asked.len() > 8 && asked.iter().all(|name| names.contains(name)), "{asked:?}");
}

#[test]
fn a_scrape_gets_the_text_that_is_rendered_ten_times_a_second_at_most() {
    let mut rendered = 0;
    let mut scrapes = Scrapes::new(|| {
        rendered += 1;
        if rendered < 3 { Ok(format!("labsw {rendered}\n")) } else { Err("nobody there".to_owned()) }
    });
    let begin = Instant::now();
    let mut get = |path, after| {
        let Answer { status, headers, body } =
            scrapes.answer(&Request { path, host: Some("lab") }, begin + Duration::from_millis(after));
        (status, headers, String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!(get("/", 0).0, "404 Not Found");
    assert_eq!(get("/metrics/", 0).0, "404 Not Found");
    let (status, headers, body) = get("/metrics", 0);
    assert_eq!((status, body.as_str()), ("200 OK", "labsw 1\n"));
    assert!(headers.starts_with("Content-Type: text/plain; version=0.0.4"), "{headers}");
    assert_eq!(get("/metrics", 99).2, "labsw 1\n");
    assert_eq!(get("/metrics", 150).2, "labsw 2\n");
    let (status, _, body) = get("/metrics", 300);
    assert_eq!((status, body.as_str()), ("503 Service Unavailable", "nobody there\n"));
}
