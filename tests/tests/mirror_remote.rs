//! Proves that copies reach another machine: as ERSPAN and as VXLAN, over IPv4 and IPv6, as tshark reads them, and
//! unwrapped by the kernel's own VXLAN device; that the next hop is found and the switch's address is answered for, and
//! nothing else; and that copies which are too long, or for which there is no next hop, are counted and told of.
#![allow(clippy::panic, clippy::unwrap_used, reason = "test helpers report by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use labsw_tests::packet::{Frame, Mac, RawSocket};
use labsw_tests::process::{self, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::Lab;

const PATIENCE: Duration = Duration::from_secs(15);
const QUIET: Duration = Duration::from_millis(100);
const PORTS: [(&str, &str); 4] = [
    ("web", r#"vlan = { mode = "access", tag = 10 }"#),
    ("db", r#"vlan = { mode = "access", tag = 10 }"#),
    ("trunk", r#"vlan = { mode = "trunk", trunks = [10] }"#),
    ("span", "mirror_only = true"),
];
const WEB: Mac = [2, 0, 0, 0, 0, 0x10];
const DB: Mac = [2, 0, 0, 0, 0, 0x11];
/// Bytes of Ethernet, IPv4 and the headers of the tunnel.
const HEAD_V4: usize = 14 + 20 + 16;
const HEAD_V6: usize = 14 + 40 + 16;

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd, Need::Program("tshark"), Need::Program("ip"), Need::Program("sysctl")])
}

/// Gives the far end of `span` the addresses of a receiver.
fn receiver(lab: &Lab) {
    lab.peers.run(&["sysctl", "-qw", "net.ipv6.conf.span.disable_ipv6=0"]);
    lab.peers.run(&["ip", "addr", "add", "192.0.2.2/24", "dev", "span"]);
    lab.peers.run(&["ip", "addr", "add", "2001:db8::2/64", "dev", "span", "nodad"]);
}

fn set(switch: &Labswd<'_>, arguments: &str) {
    let arguments: Vec<&str> = ["mirror", "replace", "far"].into_iter().chain(arguments.split(' ')).collect();
    switch.ctl(&arguments);
}

/// Waits until the mirror has a next hop.
fn wait_up(switch: &Labswd<'_>) {
    wait_for("next hop", PATIENCE, || (switch.ctl(&["mirror", "show", "far"])["state"] == "up").then_some(()));
}

/// The next `count` packets of the mirror at the receiver.
fn packets(socket: &RawSocket, count: usize) -> Vec<Vec<u8>> {
    let is_wrapped = |frame: &[u8]| match frame[12..14] {
        [8, 0] => [17, 47].contains(&frame[23]) && frame[26..30] == [192, 0, 2, 1],
        [0x86, 0xdd] => [17, 47].contains(&frame[20]),
        _ => false,
    };
    let found = (0..count).map(|_| socket.recv_matching(PATIENCE, is_wrapped).unwrap_or_else(|| panic!("no packet")));
    found.collect()
}

/// These fields of each frame, as tshark has them.
fn tshark(dir: &Path, frames: &[Vec<u8>], fields: &[&str]) -> Vec<String> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let mut file = words(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1]);
    for frame in frames {
        file.extend(words(&[0, 0, frame.len() as u32, frame.len() as u32]));
        file.extend(frame);
    }
    let path = dir.join("seen.pcap");
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new("tshark");
    command.args([
        "-o",
        "ip.check_checksum:TRUE",
        "-o",
        "udp.check_checksum:TRUE",
        "-T",
        "fields",
        "-E",
        "separator=;",
    ]);
    command.arg("-r").arg(&path).stderr(Stdio::null());
    for field in fields {
        command.args(["-e", field]);
    }
    // Some versions have words for flags.
    let told = process::run(&mut command).replace("True", "1").replace("False", "0");
    told.lines().map(str::to_owned).collect()
}

/// Frames of `web` with these numbers in them.
fn send(lab: &Lab, numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = numbers.map(|number| Frame::new(DB, WEB).number(number).build()).collect();
    let socket = lab.socket("web");
    frames.iter().for_each(|frame| socket.send(frame));
    frames
}

#[test]
fn copies_arrive_at_another_machine_wrapped() {
    if !needs() {
        return;
    }
    let lab = Lab::new("rem");
    let switch = lab.start("", &PORTS, "");
    receiver(&lab);
    let span = lab.socket("span");
    let dir = lab.site.dir().to_owned();

    // The next hop is the receiver itself, and is asked for.
    for (source, destination, head, ip) in
        [("192.0.2.1", "192.0.2.2", HEAD_V4, "ip"), ("2001:db8::1", "2001:db8::2", HEAD_V6, "ipv6")]
    {
        let to = format!("--source web:rx --by span --from {source} --id 77");
        set(&switch, &format!("{to} --erspan {destination}"));
        wait_up(&switch);
        let frames = send(&lab, 0..3);
        let seen = packets(&span, 3);
        let inner: Vec<&[u8]> = seen.iter().map(|packet| &packet[head..]).collect();
        assert_eq!(inner, frames, "ERSPAN over {ip}");
        let fields = [&format!("{ip}.dst"), "gre.proto", "gre.sequence_number", "erspan.spanid", "erspan.version"];
        let told = tshark(&dir, &seen, &fields.map(|field| field as &str));
        let expected = [0, 1, 2].map(|number| format!("{destination};0x88be;{number};77;1"));
        assert_eq!(told, expected, "ERSPAN over {ip}");

        set(&switch, &format!("{to} --vxlan {destination}"));
        wait_up(&switch);
        let frames = send(&lab, 3..6);
        let seen = packets(&span, 3);
        let inner: Vec<&[u8]> = seen.iter().map(|packet| &packet[head..]).collect();
        assert_eq!(inner, frames, "VXLAN over {ip}");
        let told = tshark(&dir, &seen, &["udp.dstport", "vxlan.vni", "udp.checksum.status"]);
        // 1: right; 3: none, as IPv4 may have it.
        let status = if ip == "ip" { 3 } else { 1 };
        assert_eq!(told, vec![format!("4789;77;{status}"); 3], "VXLAN over {ip}");
        if ip == "ip" {
            assert_eq!(tshark(&dir, &seen, &["ip.checksum.status"]), ["1", "1", "1"]);
        }
    }
    the_kernel_unwraps(&lab, &switch);
    a_tag_is_told_of_and_stripped(&lab, &switch, &span, &dir);
    nothing_else_is_answered(&lab);
    let arp = ["--src", "02:00:00:00:00:01", "--dst", "ff:ff:ff:ff:ff:ff", "--ethertype", "arp"];
    let traced = switch.ctl(&[&["trace", "--in", "span"], &arp[..]].concat());
    assert_eq!(traced["summary"], "taken by the switch itself");
    switch.stop();
}

/// The kernel's VXLAN device gets the frames as they were.
fn the_kernel_unwraps(lab: &Lab, switch: &Labswd<'_>) {
    let device = ["ip", "link", "add", "vx", "type", "vxlan", "id", "78", "dstport", "4789", "local", "192.0.2.2"];
    let (made, said) = lab.peers.try_run(&device);
    if !made.success() {
        let required = std::env::var("LABSW_TEST_REQUIRE").as_deref() == Ok("1");
        assert!(!required && said.contains("Unknown device type"), "{said}");
        return eprintln!("SKIPPED the kernel's VXLAN device: {said}");
    }
    lab.peers.run(&["ip", "link", "set", "vx", "up"]);
    let unwrapped = RawSocket::open(&lab.peers, "vx");
    set(switch, "--source web:rx --vxlan 192.0.2.2 --by span --from 192.0.2.1 --id 78");
    wait_up(switch);
    for frame in send(lab, 10..13) {
        assert_eq!(unwrapped.recv_matching(PATIENCE, |got| got[..6] == DB), Some(frame));
    }
}

/// ERSPAN says of the tag of a copy whether it is still there.
fn a_tag_is_told_of_and_stripped(lab: &Lab, switch: &Labswd<'_>, span: &RawSocket, dir: &Path) {
    let plain = Frame::new(DB, WEB).number(20);
    span.recv_all(QUIET);
    for (option, inner, kind) in [("", plain.clone().vlan(10).build(), 3), (" --strip-tag", plain.build(), 2)] {
        let to = "--source trunk:rx --erspan 192.0.2.2 --by span --from 192.0.2.1 --id 5";
        set(switch, &format!("{to}{option}"));
        wait_up(switch);
        lab.socket("trunk").send(&plain.clone().vlan(10).build());
        let seen = packets(span, 1);
        assert_eq!(seen[0][HEAD_V4..], inner, "{option}");
        let told = tshark(dir, &seen, &["erspan.vlan", "erspan.encap", "erspan.truncated"]);
        assert_eq!(told, [format!("10;{kind};0")], "{option}");
    }
    // A cut copy says so.
    set(switch, "--source web:rx --erspan 192.0.2.2 --by span --from 192.0.2.1 --id 5 --snaplen 40");
    wait_up(switch);
    let frame = send(lab, 21..22).remove(0);
    let seen = packets(span, 1);
    assert_eq!(seen[0][HEAD_V4..HEAD_V4 + 40], frame[..40]);
    assert_eq!(tshark(dir, &seen, &["erspan.truncated", "ip.len"]), [format!("1;{}", HEAD_V4 - 14 + 40)]);
}

/// The switch's address is found by its neighbours, and answers nothing.
fn nothing_else_is_answered(lab: &Lab) {
    lab.peers.run(&["ip", "neigh", "flush", "dev", "span"]);
    let (status, _) = process::output(lab.peers.command("ping").args(["-c", "1", "-W", "1", "192.0.2.1"]));
    assert!(!status.success(), "no ping");
    let known = lab.peers.run(&["ip", "neigh", "show", "192.0.2.1"]);
    assert!(known.contains("lladdr 52:54:02:"), "{known}");
}

#[test]
fn copies_that_can_t_be_sent_are_counted_and_told_of() {
    if !needs() {
        return;
    }
    let lab = Lab::new("remx");
    let table = "[mirrors.far]\nsources = [\"web\"]\n[mirrors.far.to_remote]\nkind = \"vxlan\"\nport = \"span\"\n\
                 source = \"192.0.2.1\"\ndestination = \"198.51.100.7\"\nnext_hop = \"192.0.2.254\"\nid = 9\n";
    let switch = lab.start("", &PORTS, table);
    receiver(&lab);
    // Nobody has the address of the next hop.
    let shown = switch.ctl(&["mirror", "show", "far"]);
    assert_eq!(shown["reason"], "the next hop 192.0.2.254 does not answer ARP");
    assert_eq!((&shown["to"], &shown["to_remote"]["next_hop"]), (&"span".into(), &"192.0.2.254".into()));
    send(&lab, 0..4);
    wait_for("copies without a next hop", PATIENCE, || (switch.drops("span", "no_next_hop") == 4).then_some(()));
    assert_eq!(switch.ctl(&["mirror", "show", "far"])["dropped"], 4);
    // It is there now, and was asked for all the time.
    lab.peers.run(&["ip", "addr", "add", "192.0.2.254/24", "dev", "span"]);
    wait_up(&switch);

    // With its MAC address given nobody is asked. The longest copy that fits, and one byte more.
    let span = lab.socket("span");
    let to = "--source web:rx --vxlan 198.51.100.7 --by span --from 192.0.2.1 --id 9 --next-hop-mac 02:00:00:00:00:99";
    set(&switch, &format!("{to} --outer-vlan 30"));
    let shown = switch.ctl(&["mirror", "show", "far"]);
    assert_eq!(shown["state"], "up");
    let warning = "copies of more than 1464 bytes are dropped (oversize): \"span\" has an mtu of 1500; set its mtu to \
                   1554 if its device can";
    assert_eq!(shown["warning"], warning);
    let web = lab.socket("web");
    let long = |bytes: usize| Frame::new(DB, WEB).payload(&vec![7; bytes - 14]).build();
    web.send(&long(1465));
    web.send(&long(1464));
    let seen = span.recv_matching(PATIENCE, |frame| frame[12..14] == [0x81, 0]).unwrap();
    assert_eq!((&seen[..6], &seen[14..16]), (&[2, 0, 0, 0, 0, 0x99][..], &[0, 30][..]));
    assert_eq!(seen[4 + HEAD_V4..], long(1464), "and not the longer one");
    assert_eq!(switch.drops("span", "oversize"), 1);
    assert!(span.recv_matching(QUIET, |frame| frame[12..14] == [0x81, 0]).is_none());

    // One port sends to one place; it is in the running configuration, and comes back.
    let refused = switch.ctl_refused(&["mirror", "set", "m2", "--source", "db", "--to", "span"]);
    assert!(refused.contains("sends to \"span\" in another way"), "{refused}");
    let file = lab.site.dir().join("again.toml");
    switch.ctl(&["config", "save", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("next_hop_mac = \"02:00:00:00:00:99\""), "{text}");
    assert_eq!(switch.ctl(&["config", "diff", file.to_str().unwrap()])["changes"], serde_json::json!([]));
    switch.stop();
}
