//! Proves the switch on real NIC drivers, in a whole Linux host that QEMU emulates: the modes that they get, tags both
//! ways, cables pulled, NICs unplugged, drivers unloaded, kills, and what others change on a NIC behind the switch's
//! back.
//!
//! The checks share one machine, whose boot takes seconds. With `LABHOST=all` there are many more numbered frames, and
//! older NICs go through all that newer ones do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

#[path = "lab_host/multi_host.rs"]
mod multi_host;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use labsw_tests::lab_host::{HostNic, LabHost, NICS, PATIENCE, assert_passes};
use labsw_tests::packet::{BROADCAST, Frame, Mac, TPID_8021AD, TPID_8021Q, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};

const SECOND: Duration = Duration::from_secs(1);
/// A tag of VLAN 20 beside the native VLAN 1: what a device that takes it out would deliver in VLAN 1.
const TAGGED: u16 = 20;
/// So many numbered frames are under way at once: fewer than any ring holds.
const BATCH: u32 = 64;

fn config(nics: &[HostNic]) -> String {
    let port = |nic: &HostNic| {
        format!(
            "[ports.{}]\ntype = \"af_xdp\"\ndevice = \"mac:52:54:00:00:00:{:02x}\"\nmtu = 2000\n\
             vlan = {{ mode = \"native-untagged\", tag = 1 }}\n",
            nic.name, nic.mac
        )
    };
    nics.iter().map(port).collect()
}

/// Frames of one source with the tags that occur; the number tells them apart.
fn tagged_frames(source: Mac) -> Vec<Vec<u8>> {
    let plain = || Frame::new(BROADCAST, source);
    let frames = [
        plain(),
        plain().tag(TPID_8021Q, TAGGED | 3 << 13),
        plain().tag(TPID_8021AD, TAGGED),
        plain().tag(TPID_8021AD, TAGGED).tag(TPID_8021Q, 30),
        plain().tag(TPID_8021Q, TAGGED).tag(TPID_8021Q, 30),
        plain().payload(&vec![0x5a; 1900]),
    ];
    (0..).zip(frames).map(|(n, frame)| frame.number(n).build()).collect()
}

/// Sends frames by every cable until all of them have come out of every other one, unchanged.
fn assert_all_pass(host: &LabHost, nics: &[HostNic], round: u8) {
    for (n, from) in (0..).zip(nics) {
        let frames = tagged_frames(mac(16 * round + n));
        for (frame, to) in frames.iter().flat_map(|frame| nics.iter().map(move |to| (frame, to))) {
            if to.name != from.name {
                assert_passes(host, from.name, to.name, frame);
            }
        }
    }
}

/// The interface of a NIC: drivers are loaded in the order of the NICs' addresses.
fn interface(nic: &HostNic) -> String {
    format!("eth{}", nic.mac - 1)
}

/// What was changed and is to be put back, by device.
fn settings(host: &mut LabHost, nics: &[HostNic]) -> BTreeMap<String, String> {
    let of = |eth: &str| {
        format!("/bin/ip -o link show {eth} | cut -d' ' -f2-5; ethtool -k {eth}; ethtool -l {eth} 2>&1; true")
    };
    nics.iter().map(interface).map(|eth| (eth.clone(), host.ok(&of(&eth)))).collect()
}

/// True if all checks are asked for, those that take minutes included.
fn all() -> bool {
    std::env::var("LABHOST").is_ok_and(|which| which == "all")
}

/// Says on standard error how far the test is: which check takes how long.
fn done(since: &mut Instant, check: &str) {
    eprintln!("lab host: {check}: {:.1} s", since.elapsed().as_secs_f32());
    *since = Instant::now();
}

#[test]
fn nic_drivers_under_a_switch() {
    if !require::all(&[Need::Labswd, Need::LabHost]) {
        return;
    }
    let mut since = Instant::now();
    let nics = &NICS[..4];
    let mut host = LabHost::boot(&NICS);
    // As on any host: IPv6 speaks on an interface as soon as it is set up.
    host.ok("echo 0 | tee /proc/sys/net/ipv6/conf/all/disable_ipv6 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
    for nic in nics {
        host.load(nic.driver);
    }
    let before = settings(&mut host, nics);
    done(&mut since, "boot");
    host.start(&config(nics));
    modes(&mut host);
    done(&mut since, "modes");
    host_is_silent(&host, nics);
    assert_all_pass(&host, nics, 1);
    done(&mut since, "tags");
    cable_pulled(&mut host, nics);
    done(&mut since, "cable");
    let count = if all() { 250_000 } else { 3000 };
    for (from, to) in [("igb", "e1000e"), ("e1000e", "igb"), ("igb", "virtio"), ("virtio", "igb")] {
        numbered_frames(&mut host, from, to, count);
    }
    done(&mut since, "numbered frames");
    tags_taken_out(&mut host, nics);
    done(&mut since, "receive VLAN offload");
    channels_changed(&mut host, nics);
    done(&mut since, "channels");
    device_reset(&mut host, nics);
    done(&mut since, "reset");
    driver_unloaded(&mut host, "igb");
    assert_all_pass(&host, nics, 4);
    done(&mut since, "driver");
    unplugged(&mut host, "igb", "e1000e");
    done(&mut since, "unplugged");
    answers_while_a_port_is_attached(&mut host);
    done(&mut since, "answers");
    // In copy mode the kernel tells no receive loop to poll.
    if best_mode(&mut host, "igb") == "zero_copy" {
        busy_polling(&mut host);
        done(&mut since, "busy polling");
    }
    mtu_without_xdp(&mut host);
    done(&mut since, "MTU");
    host.end("KILL");
    host.start_again();
    nics.iter().for_each(|nic| drop(host.wait_up(nic.name)));
    assert_passes(&host, "igb", "e1000e", &tagged_frames(mac(9))[1]);
    done(&mut since, "kill");
    host.end("TERM");
    assert_eq!(settings(&mut host, nics), before);
    done(&mut since, "put back");
    older_nics(&mut host);
    done(&mut since, "older NICs");
    multi_host::two_hosts(&mut host, all());
    done(&mut since, "two hosts");
}

/// Drivers without XDP and with one queue, of NICs that have been in QEMU from its beginnings, beside igb.
fn older_nics(host: &mut LabHost) {
    let nics = &[NICS[0], NICS[4], NICS[5]];
    nics[1..].iter().for_each(|nic| host.load(nic.driver));
    let before = settings(host, nics);
    host.start(&config(nics));
    for nic in nics {
        let mode = best_mode(host, nic.name);
        assert_eq!(host.wait_up(nic.name)["xdp_mode"], mode);
    }
    assert_all_pass(host, nics, 7);
    for (from, to) in [("igb", "e1000"), ("e1000", "rtl8139"), ("rtl8139", "igb")] {
        numbered_frames(host, from, to, if all() { 3000 } else { 500 });
    }
    if all() {
        cable_pulled(host, nics);
        device_reset(host, nics);
        for name in ["e1000", "rtl8139"] {
            driver_unloaded(host, name);
            unplugged(host, name, "igb");
        }
        host.end("KILL");
        host.start_again();
        nics.iter().for_each(|nic| drop(host.wait_up(nic.name)));
        assert_all_pass(host, nics, 8);
    }
    host.end("TERM");
    assert_eq!(settings(host, nics), before);
}

/// The best mode that a NIC's driver has in the machine's kernel.
fn best_mode(host: &mut LabHost, name: &str) -> &'static str {
    let release = host.ok("uname -r");
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let release = (numbers.next().unwrap(), numbers.next().unwrap());
    match name {
        "igb" if release >= (6, 14) => "zero_copy",
        "vmxnet3" if release < (6, 6) => "skb",
        "igb" | "virtio" | "vmxnet3" => "copy",
        _ => "skb",
    }
}

/// Each driver gets the best mode that it has, and says why no better one.
fn modes(host: &mut LabHost) {
    for name in ["igb", "virtio", "vmxnet3", "e1000e"] {
        let (mode, port) = (best_mode(host, name), host.wait_up(name));
        assert_eq!(port["xdp_mode"], mode, "{port}");
        assert_eq!(port["xdp_mode_reason"].is_null(), mode == "zero_copy", "{port}");
    }
}

/// No frame of the host's own has left by any cable since the start.
fn host_is_silent(host: &LabHost, nics: &[HostNic]) {
    for nic in nics {
        let own = host.wire(nic.name).drain().into_iter().find(|frame| frame[6..11] == [0x52, 0x54, 0, 0, 0]);
        assert_eq!(own, None, "{}: the host speaks", nic.name);
    }
}

/// A port has as many sockets as its device has queues, whoever changes their number.
fn channels_changed(host: &mut LabHost, nics: &[HostNic]) {
    // The kernel refuses to take a queue away that has a socket.
    host.ok("ethtool -L eth0 combined 4");
    host.wait_port("igb", "reopened", |port| port["state"] == "up" && port["queues"] == 4);
    assert_all_pass(host, nics, 5);
    assert!(host.log().contains("eth0 has 4 receive queues now; the port was opened with 2"), "{}", host.log());
}

/// A device that is reset serves its port again, also one whose driver then knows nothing of the port's sockets.
fn device_reset(host: &mut LabHost, nics: &[HostNic]) {
    for nic in nics {
        let eth = interface(nic);
        host.ok(&format!("/bin/ip link set {eth} down; /bin/ip link set {eth} up"));
        host.wait_up(nic.name);
    }
    assert_all_pass(host, nics, 6);
}

/// A cable that is pulled takes the port down, and what is sent meanwhile is not kept for later.
fn cable_pulled(host: &mut LabHost, nics: &[HostNic]) {
    for (n, nic) in nics.iter().enumerate() {
        let [other, third] = [1, 2].map(|further| nics[(n + further) % nics.len()].name);
        let number = u8::try_from(n).expect("a NIC's number is small");
        let stale = |number_of: u32| Frame::new(BROADCAST, mac(220 + number)).number(number_of).build();
        let fresh = Frame::new(BROADCAST, mac(230 + number)).build();
        host.cable(nic.name, false);
        let port = host.wait_port(nic.name, "down", |port| port["state"] == "down");
        assert!(port["reason"].as_str().is_some_and(|reason| reason.contains("no carrier")), "{port}");
        (0..30).for_each(|n| host.wire(other).send(&stale(n)));
        assert_passes(host, other, third, &stale(30));
        host.cable(nic.name, true);
        host.wait_up(nic.name);
        let first = wait_for("a frame once the cable is back", PATIENCE, || {
            host.wire(other).send(&fresh);
            host.wire(nic.name).receive(SECOND / 2, |frame| frame == fresh || frame[6..12] == stale(0)[6..12])
        });
        assert_eq!(first, fresh, "{}: sent while the cable was out", nic.name);
    }
    assert_all_pass(host, nics, 2);
}

/// Receive VLAN offload that somebody switches on is switched off again, and no frame of another VLAN gets into the
/// native one meanwhile.
fn tags_taken_out(host: &mut LabHost, nics: &[HostNic]) {
    for (from, to, device) in [("igb", "virtio", "eth0"), ("e1000e", "igb", "eth1")] {
        let frame = Frame::new(BROADCAST, mac(200)).vlan(TAGGED).build();
        let tag_lost = |other: &[u8]| other[6..12] == frame[6..12] && other[12..14] != frame[12..14];
        assert_passes(host, from, to, &frame);
        host.ok(&format!("ethtool -K {device} rxvlan on"));
        for _ in 0..100 {
            host.wire(from).send(&frame);
            let leaked = host.wire(to).receive(Duration::from_millis(5), tag_lost);
            assert_eq!(leaked, None, "a frame of VLAN {TAGGED} is in VLAN 1");
        }
        host.wait_port(from, "up, and put right", |port| port["state"] == "up" && port["put_right"]["times"] == 1);
        assert!(host.ok(&format!("ethtool -k {device}")).contains("rx-vlan-offload: off"));
        assert_passes(host, from, to, &frame);
    }
    assert_eq!(host.log().matches("switched off again: somebody had switched it on").count(), 2);
    assert_all_pass(host, nics, 3);
}

/// Frames of every length, whose bytes follow from their number, arrive unaltered, none twice, in their VLAN, and by no
/// other cable. Between many of them cables are pulled, and drivers loaded anew.
fn numbered_frames(host: &mut LabHost, from: &str, to: &str, count: u32) {
    let is_numbered = |frame: &[u8]| frame[..12] == numbered(0)[..12];
    let learned = Frame::new(BROADCAST, mac(100)).vlan(TAGGED).build();
    assert_passes(host, to, from, &learned);
    let (mut seen, mut lost) = (vec![false; count as usize], 0);
    for first in (0..count).step_by(BATCH as usize) {
        if first > 0 && first % (200 * BATCH) == 0 {
            interrupt(host, from, first / BATCH / 200);
            assert_passes(host, to, from, &learned);
        }
        let batch = first..count.min(first + BATCH);
        batch.clone().for_each(|n| host.wire(from).send(&numbered(n)));
        let mut left = batch.len();
        while left > 0
            && let Some(frame) = host.wire(to).receive(5 * SECOND, is_numbered)
        {
            let n = u32::from_be_bytes(frame[18..22].try_into().unwrap());
            assert_eq!(frame, numbered(n), "{from} to {to}: altered");
            assert!(!std::mem::replace(&mut seen[n as usize], true), "{from} to {to}: {n} came twice");
            left -= 1;
        }
        lost += left;
    }
    eprintln!("lab host: {from} to {to}: {lost} of {count} frames lost");
    assert!(lost * 100 <= count as usize, "{from} to {to}: {lost} of {count} frames were lost");
    for nic in &NICS {
        let more = host.wire(nic.name).drain().into_iter().filter(|frame| is_numbered(frame)).count();
        assert_eq!(more, 0, "{from} to {to}: frames came by {}", nic.name);
    }
}

/// Pulls the cable of a port and puts it back in; every other time the driver of igb is loaded anew as well.
fn interrupt(host: &mut LabHost, name: &str, times: u32) {
    host.cable(name, false);
    host.wait_port(name, "down", |port| port["state"] == "down");
    host.cable(name, true);
    if times.is_multiple_of(2) {
        host.ok("rmmod igb");
        host.wait_port("igb", "waiting", |port| port["state"] == "waiting");
        host.load("igb");
        host.wait_up("igb");
    }
    host.wait_up(name);
}

/// Frame `n` of VLAN 20: its length, and every byte behind the number, follow from the number (a linear congruential
/// generator).
fn numbered(n: u32) -> Vec<u8> {
    let length = 46 + n.wrapping_mul(7919) % 1454;
    let mut state = n;
    let bytes = (4..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let payload: Vec<u8> = n.to_be_bytes().into_iter().chain(bytes).collect();
    Frame::new(mac(100), mac(101)).vlan(TAGGED).payload(&payload).build()
}

/// A NIC that receives and sends in two loops of the kernel passes all frames under busy polling, which drives one.
fn busy_polling(host: &mut LabHost) {
    let deferral = "cat /sys/class/net/eth0/gro_flush_timeout /sys/class/net/eth0/napi_defer_hard_irqs | xargs";
    let before = host.ok(deferral);
    host.ok("labsw-ctl port set igb busy_poll=true");
    host.wait_port("igb", "polling", |port| port["state"] == "up" && port["busy_poll"] != "off");
    for n in 0..20 {
        let frame = |source| Frame::new(BROADCAST, mac(source)).number(n).build();
        assert_passes(host, "e1000e", "igb", &frame(240));
        assert_passes(host, "igb", "e1000e", &frame(241));
    }
    assert_eq!(host.ok(deferral).trim(), "200000 2");
    let port = host.port("igb");
    assert!(port["busy_poll"].as_str().is_some_and(|verdict| !verdict.contains("ended")), "{port}");
    host.ok("labsw-ctl port set igb busy_poll=false");
    host.wait_port("igb", "as before", |port| port["state"] == "up" && port["busy_poll"] == "off");
    assert_eq!(host.ok(deferral), before);
}

/// Above the MTU up to which the driver takes an XDP program, the port has another mode, says why, and passes frames.
fn mtu_without_xdp(host: &mut LabHost) {
    host.ok("labsw-ctl port del vmxnet3");
    let vlan = "vlan.mode=native-untagged --set vlan.tag=1";
    let device = "device=mac:52:54:00:00:00:04";
    host.ok(&format!("labsw-ctl port add vmxnet3 --type af_xdp --set {device} --set mtu=3498 --set {vlan}"));
    let port = host.wait_up("vmxnet3");
    assert_eq!(port["xdp_mode"], "skb", "{port}");
    let reason = port["xdp_mode_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("copy: the driver has no XDP support, or none with an mtu of 3498"), "{reason}");
    for n in [64, 65, 500, 1500, 1900] {
        let frame = |source| Frame::new(BROADCAST, mac(source)).payload(&vec![0x5a; n]).build();
        assert_passes(host, "vmxnet3", "igb", &frame(242));
        assert_passes(host, "igb", "vmxnet3", &frame(243));
    }
}

/// A driver that is unloaded makes its port wait; loaded again, it serves the port as before.
fn driver_unloaded(host: &mut LabHost, name: &str) {
    let mode = host.port(name)["xdp_mode"].clone();
    let driver = host.nic(name).driver;
    host.ok(&format!("rmmod {driver}"));
    host.wait_port(name, "waiting", |port| port["state"] == "waiting");
    host.load(driver);
    assert_eq!(host.wait_up(name)["xdp_mode"], mode);
}

/// A NIC that is unplugged makes its port wait; plugged in again, it serves the port as before.
fn unplugged(host: &mut LabHost, name: &str, other: &str) {
    let before = host.port(name);
    for n in 0..2 {
        host.unplug(name);
        host.wait_port(name, "waiting", |port| port["state"] == "waiting");
        host.plug(name);
        let port = host.wait_up(name);
        assert_eq!([&port["xdp_mode"], &port["queues"]], [&before["xdp_mode"], &before["queues"]], "{port}");
        assert_passes(host, name, other, &Frame::new(BROADCAST, mac(244)).number(n).build());
        assert_passes(host, other, name, &Frame::new(BROADCAST, mac(245)).number(n).build());
    }
}

/// While a device is set up anew, which takes seconds in this machine, the switch answers as ever.
fn answers_while_a_port_is_attached(host: &mut LabHost) {
    let uptime = "$(cut -d' ' -f1 /proc/uptime)";
    for (mode, gets) in [("copy", "copy"), ("auto", best_mode(host, "igb"))] {
        let times = host.ok(&format!(
            "( (labsw-ctl port set igb mode={mode} >/dev/null 2>&1; echo >/tmp/attached) & )\n\
             while [ ! -e /tmp/attached ]; do echo {uptime}; labsw-ctl status >/dev/null; done\n\
             echo {uptime}; rm /tmp/attached"
        ));
        let times: Vec<f32> = times.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let slowest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f32::max);
        let whole = times[times.len() - 1] - times[0];
        eprintln!(
            "lab host: {} answers while a port was attached in {whole:.1} s, {slowest:.2} s at most",
            times.len()
        );
        assert!(times.len() > 4 && slowest < whole / 2.0, "{times:?}");
        assert_eq!(host.wait_up("igb")["xdp_mode"], gets);
    }
}
