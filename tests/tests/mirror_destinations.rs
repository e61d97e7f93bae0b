//! Proves that copies reach whatever kind of port is their destination: a TAP interface of the host and a guest on
//! vhost-user get the same frames of the same source, one copy each and nothing else.
//! (`mirror.rs` has veth, the demo AF_XDP on a device.)
#![allow(clippy::panic, clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::time::Duration;

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::netns::Netns;
use labsw_tests::packet::RawSocket;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const LAB: &str = r#"
[ports.vm]
type = "vhost_user"
mirror_only = true

[ports.host]
type = "tap"
interface = "sensor"
mirror_only = true
"#;
const PINGS: usize = 5;
const ICMP_AT: usize = 34;

/// The echo requests and replies among some frames: type and sequence number.
fn echoes(frames: &[Vec<u8>]) -> Vec<(u8, u16)> {
    let echo = |frame: &Vec<u8>| {
        let icmp = frame.get(ICMP_AT..ICMP_AT + 8).filter(|_| frame[12..14] == [8, 0] && frame[23] == 1)?;
        Some((icmp[0], u16::from_be_bytes([icmp[6], icmp[7]])))
    };
    frames.iter().filter_map(echo).collect()
}

#[test]
fn a_tap_and_a_guest_get_the_same_copies() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, a, b) = (Site::new("mirdst"), Netns::new("a"), Netns::new("b"));
    let veth = |(name, ns): (&str, &Netns)| {
        format!(
            "[ports.{name}]\ntype = \"veth\"\npeer = \"ls-{name}\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
            ns.name()
        )
    };
    let switch = Labswd::start(&site, &(LAB.to_owned() + &veth(("a", &a)) + &veth(("b", &b))));
    let mut guest = Guest::boot("vm", "none", &Nic::new(switch.vhost_socket("vm"), 1));
    site.ns.ip(&["link", "set", "sensor", "up"]);
    a.address("eth0", "10.1.0.1/24");
    b.address("eth0", "10.1.0.2/24");
    guest.ready();
    guest.ok("ip link set eth0 up");
    switch.wait_port("vm", "up", Duration::from_secs(10));
    // Neighbours are known before, so that nothing but pings is to be seen.
    a.run(&["ping", "-c", "1", "-W", "5", "10.1.0.2"]);

    for (name, to) in [("to-guest", "vm"), ("to-tap", "host")] {
        switch.ctl(&["mirror", "set", name, "--source", "a", "--filter", "icmp", "--to", to]);
    }
    let sensor = RawSocket::open(&site.ns, "sensor");
    guest.ok("tcpdump -pnni eth0 -U -w /tmp/seen ether host 00:00:00:00:00:00 or icmp 2>/tmp/log & \
              for i in 1 2 3 4 5 6 7 8 9 10; do grep -q listening /tmp/log && break; sleep 0.3; done");
    guest.ok("ip link set eth0 promisc on");
    a.run(&["ping", "-c", &PINGS.to_string(), "-i", "0.2", "-W", "5", "10.1.0.2"]);

    let expected: Vec<(u8, u16)> = (1..=u16::try_from(PINGS).unwrap()).flat_map(|n| [(8, n), (0, n)]).collect();
    assert_eq!(echoes(&sensor.recv_all(Duration::from_secs(1))), expected, "at the TAP interface");
    guest.ok("sleep 1; killall tcpdump; sleep 0.5");
    let seen = guest.ok("tcpdump -nnr /tmp/seen 2>/dev/null");
    let lines: Vec<&str> = seen.lines().filter(|line| line.contains("ICMP echo")).collect();
    assert_eq!(lines.len(), 2 * PINGS, "at the guest: {seen}");
    for (line, (kind, number)) in lines.iter().zip(&expected) {
        let what = if *kind == 8 { "request" } else { "reply" };
        assert!(line.contains(what) && line.contains(&format!("seq {number},")), "not {what} {number}: {line}");
    }
    for name in ["to-guest", "to-tap"] {
        let shown = switch.ctl(&["mirror", "show", name]);
        let counted = ["matched", "sent", "dropped"].map(|key| shown[key].as_u64().unwrap());
        assert_eq!(counted, [10, 10, 0], "{name}: matched, sent, dropped");
    }
    drop(guest);
    switch.stop();
}
