//! What is refused in the file, word for word.

use super::*;

#[test]
fn every_refusal_names_place_key_and_remedy() {
    // The text after the table header of a vhost_user port `dc01` (lines 1 and 2), and the whole refusal.
    let of_a_port = [
        ("vlan.tag = 5000", "lab.toml:3:12: ports.dc01.vlan.tag: 5000 is not a VLAN id (1 to 4094)"),
        ("vlan.tag = 0", "lab.toml:3:12: ports.dc01.vlan.tag: 0 is not a VLAN id (1 to 4094)"),
        ("vlan.tag = -1", "lab.toml:3:12: ports.dc01.vlan.tag: -1 is not a VLAN id (1 to 4094)"),
        ("vlan.tag = '7'", "lab.toml:3:12: ports.dc01.vlan.tag: should be a VLAN id (1 to 4094), is the string \"7\""),
        (
            "vlan = { trunks = [10, '30-20'] }",
            "lab.toml:3:24: ports.dc01.vlan.trunks[1]: \"30-20\" is not a range of VLAN ids \
             (as in \"20-29\", within 1 to 4094)",
        ),
        (
            "vlan = { mode = 'acces', tag = 1 }",
            "lab.toml:3:17: ports.dc01.vlan.mode: \"acces\" is not one of access, trunk, native-tagged, \
             native-untagged, dot1q-tunnel",
        ),
        (
            "vlan = { mode = 'dot1q-tunnel' }",
            "lab.toml:3:1: ports.dc01.vlan: `tag` is missing; a tunnel port needs the VLAN id of the tunnel (1 to 4094)",
        ),
        (
            "vlan = { mode = 'dot1q-tunnel', tag = 100, trunks = [1] }",
            "lab.toml:3:53: ports.dc01.vlan.trunks: a tunnel port has no trunks; `cvlans` lists its customer's VLANs",
        ),
        (
            "vlan = { mode = 'dot1q-tunnel', tag = 100, cvlans = [0, 5, 0] }",
            "lab.toml:3:60: ports.dc01.vlan.cvlans[2]: VLAN 0 is named twice; name each VLAN once",
        ),
        (
            "vlan = { mode = 'dot1q-tunnel', tag = 100, ethertype = '0x9100' }",
            "lab.toml:3:56: ports.dc01.vlan.ethertype: \"0x9100\" is not one of 0x88a8, 0x8100",
        ),
        (
            "vlan = { tag = 100, cvlans = [5] }",
            "lab.toml:3:21: ports.dc01.vlan.cvlans: is a key of a tunnel port; set mode = \"dot1q-tunnel\", or leave it out",
        ),
        (
            "vlan = { mode = 'access' }",
            "lab.toml:3:1: ports.dc01.vlan: `tag` is missing; an access port needs its VLAN id (1 to 4094)",
        ),
        ("vlan = 20", "lab.toml:3:8: ports.dc01.vlan: should be a table, is the number 20"),
        ("vlna = 20", "lab.toml:3:1: ports.dc01.vlna: unknown key; did you mean `vlan`?"),
        ("peer = 'x'", "lab.toml:3:1: ports.dc01.peer: is a key of type veth; this port is of type vhost_user"),
        ("mtu = 9300", "lab.toml:3:7: ports.dc01.mtu: 9300 is not an MTU in bytes (68 to 9216)"),
        ("mirror_only = 1", "lab.toml:3:15: ports.dc01.mirror_only: should be true or false, is the number 1"),
        ("mtu = 1400\nmtu = 1500", "lab.toml:4:1: ports.dc01.mtu: given twice; keep one of the two"),
        (
            "vlan.tag = 1\n[ports.tag]\ntag = 1\ntag = 2",
            "lab.toml:6:1: ports.tag.tag: given twice; keep one of the two",
        ),
        (
            "mtu = 99999999999999999999",
            "lab.toml:3:7: ports.dc01.mtu: 99999999999999999999 is not an MTU in bytes (68 to 9216)",
        ),
        ("[ports.dc01]", "lab.toml:3:8: ports.dc01: given twice; keep one of the two"),
        ("queue_pairs = 9", "lab.toml:3:15: ports.dc01.queue_pairs: 9 is not a number of queue pairs (1 to 8)"),
    ];
    for (text, expected) in of_a_port {
        assert_eq!(refusal(&format!("[ports.dc01]\ntype = 'vhost_user'\n{text}\n")), expected);
    }
}

/// The lines that `text` is refused with.
fn every_refusal(text: &str) -> Vec<String> {
    Config::read(text, "lab.toml").expect_err(text).0.iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_text() {
    let text = "\
[switch]
workers = [1, 1]
powr = 'adaptive'
[ports.a]
type = 'veth'
mtu = 1
vlan = { mode = 'acces', tag = 5000, trunks = [10, 10], cvlans = [1] }
[ports.'b c']
type = 'tap'
[ports.d]
type = 'vhost'
[ports.e]
type = 'vhost_user'
peer = 'x'
storm = { broadcast = '1mbit', multicast = 5 }
mac_limit_action = 'drop'
[mirrors.m]
sources = ['a:up', 'a']
to = 'nowhere'
snaplen = -1
[mirrors.n]
sources = ['d']
to = 'e'
[impair.a]
delay = 20
loss = '5'
";
    let begins = [
        "lab.toml:2:15: switch.workers[1]: CPU 1 has a worker already",
        "lab.toml:3:1: switch.powr: unknown key; did you mean `power`?",
        "lab.toml:4:8: ports.a: `peer` is missing; it should be an interface name",
        "lab.toml:6:7: ports.a.mtu: 1 is not an MTU in bytes (68 to 9216)",
        "lab.toml:7:17: ports.a.vlan.mode: \"acces\" is not one of access, trunk",
        "lab.toml:7:32: ports.a.vlan.tag: 5000 is not a VLAN id (1 to 4094)",
        "lab.toml:7:52: ports.a.vlan.trunks[1]: VLAN 10 is named twice",
        "lab.toml:8:8: ports.b c: \"b c\" is not a port name",
        "lab.toml:11:8: ports.d.type: \"vhost\" is not one of af_xdp, vhost_user, veth, tap",
        "lab.toml:14:1: ports.e.peer: is a key of type veth; this port is of type vhost_user",
        "lab.toml:15:23: ports.e.storm.broadcast: \"1mbit\" is not a rate of frames",
        "lab.toml:15:44: ports.e.storm.multicast: should be a rate of frames",
        "lab.toml:18:12: mirrors.m.sources[0]: \"a:up\" has no direction rx, tx or both",
        "lab.toml:20:11: mirrors.m.snaplen: -1 is not a length in bytes (0 to 65535)",
        "lab.toml:25:9: impair.a.delay: should be a time, as in \"20ms\", is the number 20",
        "lab.toml:26:8: impair.a.loss: \"5\" is not a share, as in \"5%\"",
    ];
    let lines = every_refusal(text);
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "got {line}\nwanted {begin}");
    }
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
}

#[test]
fn as_many_mistakes_as_anybody_reads_are_told() {
    let keys: String = (0..1000).map(|n| format!("key{n} = {n}\n")).collect();
    assert_eq!(every_refusal(&format!("[switch]\n{keys}")).len(), crate::model::MAX_DIAGNOSTICS);
    assert_eq!(every_refusal(&format!("[ports.x]\ntype = 'tap'\n{keys}")).len(), crate::model::MAX_DIAGNOSTICS);
}
