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
