//! What is refused in the file, word for word.

use super::*;

/// The text behind the table header of a vhost_user port `dc01` (lines 1 and 2), and the whole refusal.
pub(super) const OF_A_PORT: &[(&str, &str)] = &[
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
    ("vlan.tag = 1\n[ports.tag]\ntag = 1\ntag = 2", "lab.toml:6:1: ports.tag.tag: given twice; keep one of the two"),
    (
        "mtu = 99999999999999999999",
        "lab.toml:3:7: ports.dc01.mtu: 99999999999999999999 is not an MTU in bytes (68 to 9216)",
    ),
    ("[ports.dc01]", "lab.toml:3:8: ports.dc01: given twice; keep one of the two"),
    ("queue_pairs = 9", "lab.toml:3:15: ports.dc01.queue_pairs: 9 is not a number of queue pairs (1 to 8)"),
];

/// The text of a file, and how the refusal begins.
pub(super) const OF_A_FILE: &[(&str, &str)] = &[
    ("[ports.x]\n", "lab.toml:1:8: ports.x: `type` is missing; it should be one of"),
    (
        "[ports.x-with-a-long-name]\ntype = 'tap'\n",
        "lab.toml:1:8: ports.x-with-a-long-name.interface: the port's name is no interface name (it has 18 characters",
    ),
    (
        "[ports.x]\ntype = 'tap'\ninterface = 'sixteen-letters-'\n",
        "lab.toml:3:13: ports.x.interface: \"sixteen-letters-\" is not an interface name",
    ),
    (
        "[ports.x]\ntype = 'tap'\nowner = 'nobody'\n",
        "lab.toml:3:1: ports.x.owner: is a key of for = \"guest\"; the host's end needs none",
    ),
    (
        "[ports.x]\ntype = 'vhost_user'\nrole = 'client'\ngroup = 'kvm'\n",
        "lab.toml:4:1: ports.x.group: is a key of role = \"server\"; the front end makes this socket",
    ),
    (
        "[ports.x]\ntype = 'vhost_user'\nmode = '888'\n",
        "lab.toml:3:8: ports.x.mode: \"888\" is not permission bits in octal",
    ),
    ("[ports.x]\ntype = 'vhost_user'\npeer_uid = -1\n", "lab.toml:3:12: ports.x.peer_uid: -1 is not a user's number"),
    (
        "[ports.x]\ntype = 'tap'\nfor = 'guest'\nqueues = 2\n",
        "lab.toml:4:1: ports.x.queues: is a key of for = \"host\"; a guest's NIC has its own",
    ),
    ("[ports.x]\ntype = 'tap'\nfor = 'vm'\n", "lab.toml:3:7: ports.x.for: \"vm\" is not one of host, guest"),
    (
        "[ports.x]\ntype = 'tap'\nmac = '01:00:5e:00:00:01'\n",
        "lab.toml:3:7: ports.x.mac: \"01:00:5e:00:00:01\" is not a MAC address: it is not the address of one device",
    ),
    ("[ports.x]\ntype = 'tap'\nqueues = 65\n", "lab.toml:3:10: ports.x.queues: 65 is not a number of queues (1 to 64)"),
    (
        "[ports.x]\ntype = 'vhost_user'\nqueues = 2\n",
        "lab.toml:3:1: ports.x.queues: is a key of type af_xdp, veth and tap; this port is of type vhost_user",
    ),
    (
        "[ports.x]\ntype = 'tap'\n[ports.y]\ntype = 'tap'\ninterface = 'x'\n",
        "lab.toml:5:13: ports.y.interface: interface x is already used by port x; each port needs its own",
    ),
    (
        "[switch]\nprotected_interfaces = ['x']\n[ports.x]\ntype = 'tap'\n",
        "lab.toml:3:8: ports.x.interface: x is protected (switch.protected_interfaces); use another device",
    ),
    ("[ports.'a b']\ntype = 'veth'\n", "lab.toml:1:8: ports.a b: \"a b\" is not a port name: use 1 to 32 of"),
    ("[ports.'../x']\ntype = 'veth'\n", "lab.toml:1:8: ports.../x: \"../x\" is not a port name"),
    ("[ports.\"a\\nb\"]\n", "lab.toml:1:8: ports.a\\nb: \"a\\nb\" is not a port name"),
    ("ports = 3\n", "lab.toml:1:9: ports: should be a table, is the number 3"),
    ("[swich]\n", "lab.toml:1:2: swich: unknown key; did you mean `switch`?"),
    ("[impair.x]\n", "lab.toml:1:9: impair.x: there is no port \"x\"; add it under [ports]"),
    ("[switch]\nworkers = [1, 2, 1]\n", "lab.toml:2:18: switch.workers[2]: CPU 1 has a worker already"),
    ("[switch]\nworkers = [-1]\n", "lab.toml:2:12: switch.workers[0]: -1 is not a CPU number"),
    (
        "[switch]\nmetrics_listen = ':1'\n",
        "lab.toml:2:18: switch.metrics_listen: \":1\" is not an IP address and a port (as in \"127.0.0.1:9477\"",
    ),
    (
        "[switch]\nmetrics_listen = '127.0.0.1:0'\n",
        "lab.toml:2:18: switch.metrics_listen: \"127.0.0.1:0\" is not an IP address and a port",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\nvlan = { trunks = [10, '20-29', '25-40'] }\n",
        "lab.toml:3:33: ports.a.vlan.trunks[2]: VLAN 25 is named twice",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\nvlan = { trunks = ['1-100', 7] }\n",
        "lab.toml:3:29: ports.a.vlan.trunks[1]: VLAN 7 is named twice",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\nmirror_only = true\n[mirrors.m]\nsources = ['a']\nto = 'b'\n[ports.b]\ntype = 'vhost_user'\n\n",
        "lab.toml:5:11: mirrors.m.sources: \"a\" is mirror_only, so it can't be a source",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n\n[ports.b]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['a']\nto = 'b'\n[mirrors.n]\nsources = ['*']\nto = 'a'\n",
        "lab.toml:11:6: mirrors.n.to: \"a\" is a source of mirror \"m\", so it can't be a destination",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['a']\nto = 'b'\n[ports.b]\ntype = 'vhost_user'\nallow_mirror = false\n",
        "lab.toml:5:6: mirrors.m.to: \"b\" can't be a destination: its allow_mirror is false; set allow_mirror = true",
    ),
    (
        "[switch]\nallow_mirror = 'declared'\n[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['*', 'a']\nto = 'b'\n[ports.b]\ntype = 'vhost_user'\nallow_mirror = true\n",
        "lab.toml:6:11: mirrors.m.sources: \"a\" can't be a source: its allow_mirror is false; set allow_mirror = true",
    ),
    (
        "[switch]\nmulticast_snooping = 'on'\n",
        "lab.toml:2:22: switch.multicast_snooping: should be true, false or an array of VLAN ids and ranges, as in [10, \"20-29\"], is the string \"on\"",
    ),
    (
        "[switch]\nmulticast_snooping = [10, 4095]\n",
        "lab.toml:2:27: switch.multicast_snooping[1]: 4095 is not a VLAN id (1 to 4094)",
    ),
    ("[switch]\nallow_mirror = true\n", "lab.toml:2:16: switch.allow_mirror: should be one of all, declared"),
    ("[switch]\nsocket_mode = '999'\n", "lab.toml:2:15: switch.socket_mode: \"999\" is not permission bits"),
    ("[switch]\nmac_ageing = '0s'\n", "lab.toml:2:14: switch.mac_ageing: \"0s\" is not a time in whole seconds"),
    ("[switch]\nmac_ageing = '1500ms'\n", "lab.toml:2:14: switch.mac_ageing: \"1500ms\" is not a time"),
    ("[switch\n", "lab.toml:1:8: "),
    (
        "[ports.x]\ntype = 'veth'\npeer = 'sixteen-letters-'\n",
        "lab.toml:3:8: ports.x.peer: \"sixteen-letters-\" is not an interface name: it has 16 characters",
    ),
    ("[ports.x]\ntype = 'veth'\npeer = 'p'\npeer_name = 'eth0'\n", "lab.toml:4:13: ports.x.peer_name: needs `netns`"),
    (
        "[ports.x]\ntype = 'af_xdp'\ndevice = 'enp3s0'\n",
        "lab.toml:3:10: ports.x.device: \"enp3s0\" does not begin with one of pci: mac: name:",
    ),
    (
        "[ports.x]\ntype = 'af_xdp'\ndevice = 'pci:03:00.1'\n",
        "lab.toml:3:10: ports.x.device: \"pci:03:00.1\" is not a PCI address with its domain",
    ),
    (
        "[switch]\nprotected_interfaces = ['eno1']\n[ports.x]\ntype = 'af_xdp'\ndevice = 'name:eno1'\n",
        "lab.toml:5:10: ports.x.device: eno1 is protected (switch.protected_interfaces)",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\nsocket = '/s'\n[ports.b]\ntype = 'vhost_user'\nsocket = '/s'\n",
        "lab.toml:6:10: ports.b.socket: socket /s is already used by port a",
    ),
    (
        "[ports.a]\ntype = 'veth'\npeer = 'p'\n[ports.b]\ntype = 'af_xdp'\ndevice = 'name:lsw-a'\n",
        "lab.toml:6:10: ports.b.device: interface lsw-a is already used by port a",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['b']\nto = 'a'\n",
        "lab.toml:4:11: mirrors.m.sources: there is no port \"b\"",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['*']\nto = 'aa'\n",
        "lab.toml:5:6: mirrors.m.to: there is no port \"aa\"; did you mean \"a\"?",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['a:rx']\nto = 'a'\n",
        "lab.toml:5:6: mirrors.m.to: \"a\" is also a source",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['a:up']\nto = 'a'\n",
        "lab.toml:4:12: mirrors.m.sources[0]: \"a:up\" has no direction rx, tx or both",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['*']\nto = 'a'\nfilter = 'tcp prot'\n",
        "lab.toml:6:10: mirrors.m.filter: \"tcp prot\": ",
    ),
    (
        "[ports.a]\ntype = 'vhost_user'\n[mirrors.m]\nsources = ['*']\nto = 'a'\ninject = { vlan = 1, rates = '1pps' }\n",
        "lab.toml:6:22: mirrors.m.inject.rates: unknown key; did you mean `rate`?",
    ),
];

/// A file with [`OF_A_PORT`]'s text.
pub(super) fn with_port(text: &str) -> String {
    format!("[ports.dc01]\ntype = 'vhost_user'\n{text}\n")
}

#[test]
fn every_refusal_names_place_key_and_remedy() {
    for (text, expected) in OF_A_PORT {
        assert_eq!(refusal(&with_port(text)), *expected);
    }
}

#[test]
fn the_rest_of_the_file_is_refused_as_clearly() {
    let workers = format!("[switch]\nworkers = {:?}\n", (0..65).collect::<Vec<_>>());
    let too_many = "lab.toml:2:258: switch.workers[64]: is one worker too many; a switch has at most 64";
    for (text, expected) in OF_A_FILE.iter().copied().chain([(workers.as_str(), too_many)]) {
        let line = refusal(text);
        assert!(line.starts_with(expected), "{text}\n   got {line}\nwanted {expected}");
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
