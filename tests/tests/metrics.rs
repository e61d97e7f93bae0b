//! Proves that the metrics are what Prometheus reads and what `port list` says, over HTTP and from `labsw-ctl`; that
//! the listener is where the configuration says, at run time, too; and that slow readers do not disturb frames.
#![allow(clippy::expect_used, reason = "test helpers report by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use labsw_tests::installed::promtool;
use labsw_tests::packet::{BROADCAST, Frame, mac};
use labsw_tests::process::{self, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::{Flow, Lab};

const SECOND: Duration = Duration::from_secs(1);

/// What `GET path` gets in the switch's namespace: head and body.
fn get(lab: &Lab, address: &str, path: &str) -> Option<(String, String)> {
    lab.site.ns.enter(|| {
        let mut stream = TcpStream::connect(address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.to_owned(), body.to_owned()))
    })
}

/// `promtool check metrics` finds nothing wrong.
fn assert_checked(text: &str) {
    let mut promtool = Command::new(promtool());
    let promtool =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("to write");
    let out = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success() && said.trim().is_empty(), "{said}\n{text}");
}

/// `labsw-ctl metrics`.
fn metrics(switch: &Labswd<'_>) -> String {
    let mut command = Command::new(find_binary("labsw-ctl").expect("labsw-ctl"));
    let out = command.arg("--socket").arg(switch.site().control_socket()).arg("metrics").output().expect("labsw-ctl");
    String::from_utf8(out.stdout).expect("text")
}

/// The process that serves the switch's metrics; 0: there is none.
fn served_by(lab: &Lab) -> u32 {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let is_server = |pid: &u32| {
        let of = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let net = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = lab.site.ns.enter(|| net("thread-self"));
        of("cmdline") == b"labsw-ctl\0metrics\0--serve\0" && net(&pid.to_string()) == own
    };
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_server).unwrap_or(0)
}

#[test]
fn the_metrics_are_what_the_switch_counts() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Promtool]) {
        return;
    }
    let lab = Lab::new("metrics");
    lab.site.ns.ip(&["link", "set", "lo", "up"]);
    let ports = [("p1", "mtu = 3000"), ("p2", ""), ("span", "mirror_only = true")];
    let mirror = "[mirrors.m]\nsources = [\"p1:rx\"]\nto = \"span\"\n[ports.vm]\ntype = \"vhost_user\"\n";
    let switch = lab.start("metrics_listen = \"127.0.0.1:9477\"", &ports, mirror);
    let near = lab.socket("p1");
    for bytes in [100, 1501, 200] {
        near.send(&Frame::new(BROADCAST, mac(1)).payload(&vec![7; bytes]).build());
    }
    wait_for("the frames", 5 * SECOND, || (switch.counter("p2", "tx_frames") >= 2).then_some(()));
    let (head, body) = get(&lab, "127.0.0.1:9477", "/metrics").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert_checked(&body);
    assert_checked(&metrics(&switch));
    for text in [body, metrics(&switch)] {
        for (port, name, field) in
            [("p1", "labsw_port_received_frames_total", "rx_frames"), ("p2", "labsw_port_sent_bytes_total", "tx_bytes")]
        {
            let line = format!("{name}{{port=\"{port}\",type=\"veth\"}} {}", switch.counter(port, field));
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        for line in [
            "labsw_port_dropped_frames_total{port=\"p2\",reason=\"oversize\",type=\"veth\"} 1",
            "labsw_port_kernel_events_total{counter=\"rx_ring_full\",port=\"p1\",type=\"veth\"} 0",
            "labsw_port_state{port=\"vm\",state=\"down\",type=\"vhost_user\"} 1",
            "labsw_port_state{port=\"p1\",state=\"up\",type=\"veth\"} 1",
            "labsw_mirror_up{mirror=\"m\",to=\"span\"} 1",
            "labsw_mirror_matched_frames_total{mirror=\"m\",to=\"span\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
    assert_eq!(switch.ctl(&["metrics"])[0]["name"], "labsw_build_info");
    assert!(get(&lab, "127.0.0.1:9477", "/").expect("an answer").0.starts_with("HTTP/1.1 404"));

    the_server_has_no_privileges(&lab);
    // Readers that never finish, under a flow.
    let flow = Flow::start(&lab, "p1", "p2");
    let stuck: Vec<TcpStream> = lab.site.ns.enter(|| {
        (0..50)
            .filter_map(|_| TcpStream::connect("127.0.0.1:9477").ok())
            .inspect(|mut s| drop(s.write(b"GET /m")))
            .collect()
    });
    assert_eq!(stuck.len(), 50);
    switch.ctl(&["status"]);
    wait_for("room for another reader", 20 * SECOND, || get(&lab, "127.0.0.1:9477", "/metrics"));
    flow.finish();
    drop(stuck);

    the_listener_moves(&lab, &switch, &ports, mirror);
    switch.stop();
}

/// Who reads requests has no privileges, and is started again.
fn the_server_has_no_privileges(lab: &Lab) {
    let server = served_by(lab);
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).expect("its status");
    for line in ["Uid:\t65534\t65534\t65534\t65534", "CapPrm:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    process::run(Command::new("kill").args(["-9", &server.to_string()]));
    wait_for("another server", 20 * SECOND, || (served_by(lab) != server).then_some(()));
    wait_for("its answer", 20 * SECOND, || get(lab, "127.0.0.1:9477", "/metrics"));
}

/// Elsewhere, at run time; an address that is taken or not ours changes nothing.
fn the_listener_moves(lab: &Lab, switch: &Labswd<'_>, ports: &[(&str, &str)], mirror: &str) {
    let written = |listen: &str| lab.site.write_config(&format!("{listen}\n{}{mirror}", lab.ports(ports)));
    let apply = |listen: &str| written(listen).to_string_lossy().into_owned();
    switch.ctl(&["config", "apply", &apply("metrics_listen = \"127.0.0.1:9478\"")]);
    assert!(get(lab, "127.0.0.1:9477", "/metrics").is_none());
    assert!(get(lab, "127.0.0.1:9478", "/metrics").is_some());
    let refused = switch.ctl_refused(&["config", "apply", &apply("metrics_listen = \"192.0.2.1:9477\"")]);
    assert!(refused.contains("192.0.2.1:9477: ") && refused.contains("nothing was changed"), "{refused}");
    assert!(get(lab, "127.0.0.1:9478", "/metrics").is_some());
    switch.ctl(&["config", "apply", &apply("")]);
    assert!(get(lab, "127.0.0.1:9478", "/metrics").is_none());
}
