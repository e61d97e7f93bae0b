//! Proves that several queue pairs work: a Linux guest that turns queues on and off while traffic runs, with traffic on
//! both queues by its own counters; DPDK's virtio-user with two queues; and containers on veth pairs with four.

use std::time::Duration;

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::netns::Netns;
use labsw_tests::packet::{Frame, mac};
use labsw_tests::process::Process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::testpmd::{Mode, Testpmd};
use labsw_tests::veth_lab::{Lab, receive};

const SECOND: Duration = Duration::from_secs(1);
const PAIRS: &str = "[ports.vm]\ntype = \"vhost_user\"\nqueue_pairs = 2\n";

/// Frames the guest's driver counts on receive and transmit queue `queue`, which must be on.
fn queue_frames(guest: &mut Guest, queue: usize) -> [u64; 2] {
    let text = guest.ok("ethtool -S eth0");
    ["rx", "tx"].map(|way| {
        let label = format!("{way}_queue_{queue}_packets: ");
        let found = text.lines().find_map(|line| line.trim().strip_prefix(&label)?.parse().ok());
        assert!(found.is_some(), "no {label} in {text}");
        found.unwrap_or_default()
    })
}

/// As [`queue_frames`], of the first `count` queues.
fn frames(guest: &mut Guest, count: usize) -> Vec<[u64; 2]> {
    (0..count).map(|queue| queue_frames(guest, queue)).collect()
}

#[test]
fn linux_guest_turns_queues_on_and_off() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest, Need::Program("iperf3")]) {
        return;
    }
    let (site, container) = (Site::new("mq"), Netns::new("box"));
    let config = format!(
        "{PAIRS}[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
        container.name()
    );
    let switch = Labswd::start(&site, &config);
    container.address("eth0", "10.1.0.9/24");
    let mut nic = Nic::new(switch.vhost_socket("vm"), 1);
    nic.queue_pairs = 2;
    let mut guest = Guest::boot("vm", "10.1.0.1/24", &nic);
    guest.ready();
    guest.wait_ping("10.1.0.9", 20 * SECOND);
    // What queue 1 had counted when it was last seen.
    let mut seen = [0, 0];
    for combined in [1, 2, 1, 2] {
        guest.ok(&format!("ethtool -L eth0 combined {combined}"));
        let before = frames(&mut guest, combined);
        if combined == 2 {
            let quiet = (0..2).all(|way| before[1][way] - seen[way] < 20);
            assert!(quiet, "frames on a queue that was off: {seen:?} {before:?}");
        }
        for direction in ["", "--reverse"] {
            let mut server =
                Process::spawn("iperf3 server", container.command("iperf3").args(["-s", "-1", "--forceflush"]));
            server.wait_for_text(0, "Server listening", 20 * SECOND);
            // Eight flows: that all of them hash to one queue happens once in 128 rounds per direction.
            let run = guest.begin(&format!("iperf3 -c 10.1.0.9 -P 8 -t 2 --connect-timeout 5000 -J {direction}"));
            let (status, report) = guest.finish(run, 60 * SECOND);
            assert_eq!(status, 0, "{report}");
            let json = report.get(report.find('{').unwrap_or(0)..).unwrap_or_default();
            let report: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
            let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6;
            assert!(rate > 5.0, "{combined} queues {direction}: {rate} Mbit/s");
            // No stream has stalled.
            let streams = report["end"]["streams"].as_array().cloned().unwrap_or_default();
            assert_eq!(streams.len(), 8);
            for stream in &streams {
                assert!(
                    stream["receiver"]["bytes"].as_u64().unwrap_or(0) > 0,
                    "{combined} queues {direction}: {stream}"
                );
            }
        }
        let after = frames(&mut guest, combined);
        for (queue, (before, after)) in before.iter().zip(&after).enumerate() {
            let busy = (0..2).all(|way| after[way] - before[way] > 50);
            assert!(busy, "{combined} queues, queue {queue}: {before:?} {after:?}");
        }
        seen = after.get(1).copied().unwrap_or(seen);
    }
    drop(guest);
    switch.stop();
}

/// Two testpmd with two queues each, their virtio-user devices with `options`.
fn virtio_user_with_two_queues(options: &str) {
    if !require::all(&[Need::Root, Need::Labswd, Need::Testpmd]) {
        return;
    }
    let site = Site::new("mqpmd");
    let ports = [("one", 2), ("two", 8)]
        .map(|(name, pairs)| format!("[ports.{name}]\ntype = \"vhost_user\"\nqueue_pairs = {pairs}\n"));
    let switch = Labswd::start(&site, &ports.concat());
    let (one, two) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
    let mut echo = Testpmd::connect_with(&switch.vhost_socket("two"), two, one, Mode::MacSwap, 2, options);
    let mut sender = Testpmd::connect_with(&switch.vhost_socket("one"), one, two, Mode::FlowGen, 2, options);
    echo.start();
    sender.start();
    sender.wait_stats("100000 echoed frames", 60 * SECOND, |stats| stats.rx_frames > 100_000);
    sender.stop();
    // What was received on which queue stands in the streams' summary.
    let summary = echo.command("show fwd stats all");
    for queue in ["Queue= 0", "Queue= 1"] {
        let stream = summary.split_once(&format!("RX Port= 0/{queue}")).map_or("", |(_, rest)| rest);
        let frames = stream.split_once("RX-packets:").map_or("", |(_, rest)| rest.trim_start());
        let frames: u64 = frames.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        assert!(frames > 1000, "{queue}: {frames} in {summary}");
    }
    echo.stop();
    sender.quit();
    echo.quit();
    switch.stop();
}

#[test]
fn virtio_user_with_two_split_queues() {
    virtio_user_with_two_queues("packed_vq=0");
}

#[test]
fn virtio_user_with_two_packed_queues() {
    virtio_user_with_two_queues("packed_vq=1,in_order=1");
}

/// A UDP datagram of flow and number in an Ethernet frame; its checksum is left out, as UDP over IPv4 may.
fn datagram(flow: u16, number: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let check = !((sum & 0xffff) + (sum >> 16)) & 0xffff;
    packet[10..12].copy_from_slice(&check.to_be_bytes()[2..]);
    packet.extend((1024 + flow).to_be_bytes());
    packet.extend([0, 9, 0, 12, 0, 0]);
    packet.extend(number.to_be_bytes());
    Frame::new(mac(2), mac(1)).ethertype(0x0800).payload(&packet).build()
}

#[test]
fn frames_of_a_container_come_whole_over_all_queues() {
    const FLOWS: u16 = 64;
    const EACH: u32 = 100;
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("ethtool")]) {
        return;
    }
    let lab = Lab::new("mqveth");
    let switch = lab.start("", &[("a", "queues = 4"), ("b", "queues = 4")], "");
    let (a, b) = (lab.socket("a"), lab.socket("b"));
    for port in ["a", "b"] {
        assert_eq!(switch.port(port)["queues"].as_u64(), Some(4));
        assert!(lab.peers.run(&["ethtool", "-l", port]).matches("RX:\t\t4").count() >= 1);
    }
    b.send(&Frame::new(mac(1), mac(2)).build());
    assert!(a.recv(Duration::from_secs(5)).is_some(), "the way is known");
    for number in 0..EACH {
        (0..FLOWS).for_each(|flow| a.send(&datagram(flow, number)));
        std::thread::sleep(Duration::from_millis(1));
    }
    let count = usize::from(FLOWS) * EACH as usize;
    let received = receive(&b, count, Duration::from_secs(10), Duration::from_millis(300));
    assert_eq!(received.len(), count, "none lost, none twice");
    for flow in 0..FLOWS {
        let port = (1024 + flow).to_be_bytes();
        let of_flow: Vec<&Vec<u8>> = received.iter().filter(|frame| frame[34..36] == port).collect();
        let sent: Vec<Vec<u8>> = (0..EACH).map(|number| datagram(flow, number)).collect();
        assert!(
            of_flow.iter().zip(&sent).all(|(got, sent)| *got == sent) && of_flow.len() == sent.len(),
            "flow {flow}"
        );
    }
    let counters = switch.site().ns.run(&["ethtool", "-S", "lsw-a"]);
    for queue in 0..4 {
        let name = format!("rx_queue_{queue}_xdp_packets:");
        let line = counters.lines().find(|line| line.trim().starts_with(&name)).expect("a counter of each queue");
        let frames: u64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(frames > 100, "queue {queue} took part: {line}");
    }
    switch.stop();
}
