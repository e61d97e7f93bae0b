//! Proves that a mirror with a filter copies exactly the frames that its expression selects, whatever their tag: what
//! arrives behind the destination is compared byte for byte with what the sources received and sent. And that a filter
//! that is none is refused in one line with nothing changed, that filters are shown as they were written, and that they
//! are part of the configuration.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::time::Duration;

use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, check_config};
use labsw_tests::veth_lab::{Lab, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(60);

const PORTS: [(&str, &str); 4] = [
    ("a", r#"vlan = { mode = "access", tag = 10 }"#),
    ("b", r#"vlan = { mode = "access", tag = 10 }"#),
    ("t", r#"vlan = { mode = "trunk", trunks = [10, 20] }"#),
    ("span", "mirror_only = true"),
];
/// The address behind each port.
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const T: Mac = [2, 0, 0, 0, 0, 0x10];

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4(u8, u16),
    V6(u8, u16),
    Arp,
    /// An IPv4 fragment that is not the first, with 445 where the port would be.
    Fragment,
    /// With this byte at offset 200 of the untagged frame.
    Far(u8),
}

const KINDS: [Kind; 9] = [
    Kind::V4(TCP, 445),
    Kind::V4(UDP, 445),
    Kind::V4(TCP, 80),
    Kind::V6(TCP, 445),
    Kind::V6(UDP, 445),
    Kind::Arp,
    Kind::Fragment,
    Kind::Far(0x5a),
    Kind::Far(0x5b),
];

impl Kind {
    /// Whether `tcp port 445 or arp` is for it.
    fn is_smb_or_arp(self) -> bool {
        matches!(self, Kind::V4(TCP, 445) | Kind::V6(TCP, 445) | Kind::Arp)
    }

    /// A frame of this kind.
    fn frame(self, dst: Mac, src: Mac, number: u8) -> Frame {
        let v4 = |protocol: u8, fragment: u8, port: u16| {
            let header = [0x45, 0, 0, 60, 0, number, 0, fragment, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            (0x0800, [&header[..], &4000u16.to_be_bytes(), &port.to_be_bytes(), &[number; 36]].concat())
        };
        let (ethertype, payload) = match self {
            Kind::V4(protocol, port) => v4(protocol, 0, port),
            Kind::Fragment => v4(TCP, 9, 445),
            Kind::V6(protocol, port) => {
                let header = [&[0x60, 0, 0, 0, 0, 20, protocol, 64][..], &[0xfd; 32]].concat();
                (0x86dd, [&header[..], &port.to_be_bytes(), &4000u16.to_be_bytes(), &[number; 16]].concat())
            }
            Kind::Arp => (0x0806, [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[number; 38]].concat()),
            Kind::Far(byte) => {
                let mut payload = vec![number; 300];
                payload[200 - 14] = byte;
                (0x88b5, payload)
            }
        };
        Frame::new(dst, src).ethertype(ethertype).payload(&payload)
    }
}

struct Bench<'a> {
    switch: Labswd<'a>,
    sockets: [RawSocket; 4],
    number: u8,
}

/// One frame of the traffic: its kind, as received from a port, and as sent to another.
struct Passed {
    kind: Kind,
    from: &'static str,
    received: Vec<u8>,
    to: &'static str,
    sent: Vec<u8>,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab, mirrors: &str) -> Self {
        let switch = lab.start("", &PORTS, mirrors);
        for (address, port) in [("0a", "a"), ("0b", "b"), ("10", "t")] {
            switch.ctl(&["fdb", "add", &format!("02:00:00:00:00:{address}"), "--vlan", "10", "--port", port]);
        }
        Self { switch, sockets: PORTS.map(|(port, _)| lab.socket(port)), number: 0 }
    }

    fn socket(&self, port: &str) -> &RawSocket {
        &self.sockets[PORTS.iter().position(|(name, _)| *name == port).unwrap()]
    }

    /// Every kind of frame on each way; gives what passed, in order.
    fn traffic(&mut self) -> Vec<Passed> {
        let ways = [("a", A, None, "b", B, None), ("a", A, None, "t", T, Some(10)), ("t", T, Some(10), "b", B, None)];
        let mut passed = Vec::new();
        for (from, src, tag_in, to, dst, tag_out) in ways {
            for kind in KINDS {
                self.number = self.number.wrapping_add(1);
                let frame = kind.frame(dst, src, self.number);
                let tagged =
                    |tag: Option<u16>| tag.map_or_else(|| frame.clone(), |vid| frame.clone().vlan(vid)).build();
                let (received, sent) = (tagged(tag_in), tagged(tag_out));
                self.socket(from).send(&received);
                let got = self.socket(to).recv(PATIENCE);
                assert_eq!(got.as_ref(), Some(&sent), "the frame itself, from {from} to {to}");
                passed.push(Passed { kind, from, received, to, sent });
            }
        }
        passed
    }

    fn set(&self, arguments: &[&str]) {
        self.switch.ctl(&[&["mirror", "replace", "m", "--to", "span"], arguments].concat());
    }

    /// Sends the traffic and compares what the destination gets with the copies that `copy` makes of it.
    fn assert_copies(&mut self, what: &str, copy: impl Fn(&Passed) -> Option<Vec<u8>>) {
        let expected: Vec<Vec<u8>> = self.traffic().iter().filter_map(copy).collect();
        assert!(!expected.is_empty(), "{what}: shows nothing");
        let got = receive(self.socket("span"), expected.len(), PATIENCE, QUIET);
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn copies_are_those_that_the_expression_selects() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("mf");
    let mut bench = Bench::new(&lab, "");
    let smb_or_arp = "tcp port 445 or arp";

    bench.set(&["--source", "*:rx", "--filter", smb_or_arp]);
    bench.assert_copies("as received, tagged and untagged", |frame| {
        frame.kind.is_smb_or_arp().then(|| frame.received.clone())
    });
    let mirror = bench.switch.ctl(&["mirror", "show", "m"]);
    assert_eq!(mirror["filter"], smb_or_arp);
    assert_eq!([&mirror["matched"], &mirror["sent"], &mirror["dropped"]], [9, 9, 0], "{mirror}");

    bench.set(&["--source", "*:tx", "--filter", smb_or_arp]);
    bench.assert_copies("as sent, tagged and untagged", |frame| frame.kind.is_smb_or_arp().then(|| frame.sent.clone()));

    bench.set(&["--source", "t", "--filter", "vlan 10 and tcp port 445"]);
    let is_smb = |kind: Kind| kind.is_smb_or_arp() && kind != Kind::Arp;
    bench.assert_copies("as on the wire of the trunk", |frame| match frame {
        Passed { kind, .. } if !is_smb(*kind) => None,
        Passed { from: "t", received, .. } => Some(received.clone()),
        Passed { to: "t", sent, .. } => Some(sent.clone()),
        _ => None,
    });

    bench.set(&["--source", "b", "--filter", "udp and not vlan", "--snaplen", "60"]);
    bench.assert_copies("as on the wire of an access port, cut", |frame| {
        let is_udp = matches!(frame.kind, Kind::V4(UDP, _) | Kind::V6(UDP, _));
        (is_udp && frame.to == "b").then(|| frame.sent[..60].to_vec())
    });

    bench.set(&["--source", "a:rx", "--source", "t:rx", "--filter", "ether[200] = 0x5a"]);
    bench.assert_copies("behind the first 128 bytes", |frame| {
        (frame.kind == Kind::Far(0x5a)).then(|| frame.received.clone())
    });

    // A filter and a VLAN: both have to select the frame.
    bench.set(&["--source", "t:rx", "--vlan", "20", "--filter", "arp"]);
    bench.traffic();
    let arp = |vlan: u16| Kind::Arp.frame(BROADCAST, T, 0).vlan(vlan).build();
    for vlan in [10, 20] {
        bench.socket("t").send(&arp(vlan));
    }
    assert_eq!(receive(bench.socket("span"), 1, PATIENCE, QUIET), [arp(20)]);
    bench.switch.stop();
}

#[test]
fn what_is_no_filter_changes_nothing_and_filters_are_configuration() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("mg");
    let mirror = |filter: &str| format!("[mirrors.m]\nsources = [\"*:rx\"]\nto = \"span\"\nfilter = \"{filter}\"\n");
    let mut bench = Bench::new(&lab, &mirror("arp"));
    let arps = |frame: &Passed| (frame.kind == Kind::Arp).then(|| frame.received.clone());
    bench.assert_copies("a filter of the file", arps);

    let before = bench.switch.ctl(&["mirror", "show", "m"]);
    let long = format!("tcp port {}445", " ".repeat(2048));
    for (filter, reason) in [
        ("tcp prot 445", "mirror \"m\": filter: \"tcp prot 445\": \"prot\" is no word of the filter language"),
        ("tcp port", "mirror \"m\": filter: \"tcp port\": "),
        ("(arp", "syntax error"),
        ("host dc01.lab", "\"dc01.lab\" is no word"),
        ("port nosuchservice", "unknown port 'nosuchservice'"),
        ("inbound", "only captures on an interface have"),
        ("", "the expression is empty"),
        (&long, "2048 are allowed"),
    ] {
        let refused =
            bench.switch.ctl_refused(&["mirror", "set", "m", "--source", "a", "--to", "span", "--filter", filter]);
        assert!(refused.contains(reason), "{filter}: {refused}");
    }
    let file = |filter: &str| lab.site.write_config(&format!("{}\n{}", lab.ports(&PORTS), mirror(filter)));
    for command in ["check", "diff", "apply"] {
        let refused = bench.switch.ctl_refused(&["config", command, &file("tcp port").to_string_lossy()]);
        assert!(refused.contains(".toml:") && refused.contains("mirrors.m.filter: \"tcp port\": "), "{refused}");
    }
    assert_eq!(check_config(&file("tcp port")).0, Some(1));
    assert_eq!(bench.switch.ctl(&["mirror", "show", "m"]), before, "nothing was changed");

    // Another filter is a change of this mirror and of nothing else; its counters go on.
    let other = file("udp port 445");
    let changes = bench.switch.ctl(&["config", "diff", &other.to_string_lossy()]);
    assert!(changes.to_string().contains("udp port 445"), "{changes}");
    bench.switch.ctl(&["config", "apply", &other.to_string_lossy()]);
    bench.assert_copies("a filter that was applied", |frame| {
        matches!(frame.kind, Kind::V4(UDP, _) | Kind::V6(UDP, _)).then(|| frame.received.clone())
    });
    let after = bench.switch.ctl(&["mirror", "show", "m"]);
    assert_eq!((&after["filter"], &after["matched"]), (&"udp port 445".into(), &9.into()), "{after}");
    assert!(bench.switch.ctl(&["config", "show"]).to_string().contains("udp port 445"));
    bench.switch.stop();
}
