//! Mirrors in the file and in commands, and what their destinations may inject.

use super::*;
use crate::api::MirrorSettings;

#[test]
fn a_mirror_of_a_command_is_read_as_the_file_is() {
    let set = |more: &[&str]| settings(&[&["sources=['a:rx', 'b', 'a:tx']", "to=span"], more].concat());
    let mirror = MirrorConfig::from_settings("m", &set(&["vlans=[20]", "filter=tcp port 445 or arp"]), None).unwrap();
    let both = |port: &str| MirrorSource { port: port.to_owned(), rx: true, tx: true };
    assert_eq!(mirror.sources, [both("a"), both("b")]);
    assert_eq!(mirror.missing_port(&["a", "b", "span"]), None);
    assert_eq!(mirror.missing_port(&["a", "span"]), Some(("sources", "b")));
    let error = MirrorConfig::from_settings("m", &set(&["vlans=[4095]"]), None).unwrap_err().to_string();
    assert_eq!(error, "mirrors.m.vlans[0]: 4095 is not a VLAN id (1 to 4094)");
    let error = MirrorConfig::from_settings("m", &set(&["snaplen=5"]), None).unwrap_err().to_string();
    assert_eq!(error, "mirrors.m.snaplen: 5 cuts into the Ethernet header; use 0 or at least 14");
}

#[test]
fn a_change_keeps_what_it_does_not_name_and_a_destination_takes_the_place_of_the_other() {
    let change = |before: &MirrorConfig, set: MirrorSettings| {
        MirrorConfig::from_settings("m", &set.to_keys(), Some(before)).unwrap()
    };
    let first = settings(&["sources=['a:rx']", "to=span", "vlans=[20]", "filter=arp", "inject={vlan=20}"]);
    let first = MirrorConfig::from_settings("m", &first, None).unwrap();
    let moved = change(&first, MirrorSettings { to: Some("other".to_owned()), ..MirrorSettings::default() });
    assert_eq!(moved.to.port(), Some("other"));
    assert_eq!((&moved.sources, &moved.vlans, &moved.inject), (&first.sources, &first.vlans, &first.inject));
    let all = change(&first, MirrorSettings { vlans: Some(vec![]), ..MirrorSettings::default() });
    assert!(all.vlans.is_none() && all.filter == first.filter && all.inject == first.inject);
    let away = MirrorSettings { to_vlan: Some(900), force: Some(true), ..MirrorSettings::default() };
    let away = change(&first, away);
    assert_eq!((away.to.vlan().map(u16::from), away.to.is_forced(), &away.inject), (Some(900), true, &None));
    let back = change(&away, MirrorSettings { to: Some("span".to_owned()), ..MirrorSettings::default() });
    assert_eq!((back.to.port(), back.to.vlan(), back.to.is_forced()), (Some("span"), None, false));
}

#[test]
fn another_machine_as_the_destination() {
    let file = |keys: &str| {
        let ports = "[ports.a]\ntype = 'vhost_user'\n[ports.span]\ntype = 'vhost_user'\n";
        let mirror = format!("[mirrors.m]\nsources = ['a']\n[mirrors.m.to_remote]\nport = 'span'\n{keys}\n");
        Config::parse(&format!("{ports}{mirror}"), "x.toml")
    };
    let keys = "kind = 'erspan'\nsource = '192.0.2.1'\ndestination = '198.51.100.7'\nid = 5";
    let config = file(&format!("{keys}\nnext_hop = '192.0.2.254'\nvlan = 30\nstrip_tag = true")).unwrap();
    let mirror = &config.mirrors[0];
    assert_eq!((mirror.to.port(), mirror.to.key()), (Some("span"), "to_remote"));
    assert_eq!(mirror.to.to_string(), "ERSPAN 5 to 198.51.100.7 by span");
    assert_eq!(
        Config::parse(&config.to_toml().to_string(), "x.toml").unwrap().mirrors,
        config.mirrors,
        "written and read again"
    );
    let moved = MirrorSettings { to: Some("span".to_owned()), ..MirrorSettings::default() };
    let moved = MirrorConfig::from_settings("m", &moved.to_keys(), Some(mirror)).unwrap();
    assert_eq!((moved.to.key(), moved.to.remote()), ("to", None));
    for (keys, wrong) in [
        ("kind = 'gre'".to_owned(), "mirrors.m.to_remote.kind"),
        (keys.replace("192.0.2.1", "2001:db8::1"), "mirrors.m.to_remote: `source` and `destination` are of different"),
        (keys.replace("192.0.2.1", "224.0.0.1"), "is not the IP address of a machine: it is that of a group"),
        (keys.replace("192.0.2.1", "127.0.0.1"), "no other machine has it"),
        (keys.replace("192.0.2.1", "span"), "use the form 192.0.2.1 or 2001:db8::1"),
        (keys.replace("192.0.2.1", "198.51.100.7"), "`source` is `destination`"),
        (keys.replace("= 5", "= 1024"), "sessions of ERSPAN are 0 to 1023"),
        (keys.replace("= 5", "= 16777216"), "16777216 is not a session id or network identifier"),
        (format!("{keys}\nnext_hop = '2001:db8::1'"), "`next_hop` is of another family than `source`"),
        (format!("{keys}\nnext_hop = '192.0.2.9'\nnext_hop_mac = '52:54:00:00:00:01'"), "one of them is enough"),
        (format!("{keys}\n[mirrors.m.inject]\nvlan = 1"), "inject: can't stand beside `to_remote`"),
        (format!("{keys}\n[mirrors.n]\nsources = ['a']\nto = 'span'"), "sends to \"span\" in another way"),
        (keys.replace("id = 5", "id = 5\nforce = true"), "mirrors.m.to_remote.force: unknown key"),
    ] {
        let refused = file(&keys).unwrap_err().to_string();
        assert!(refused.contains(wrong), "{keys}\n{refused}");
    }
}

#[test]
fn what_a_destination_may_inject() {
    let read = |keys: &str| with_mirrors(&[("m", "span", &format!("inject = {{ {keys} }}"))]);
    let inject = |keys: &str| read(keys).unwrap().mirrors.remove(0).inject.unwrap();
    let by_vlan = InjectEntry::Vlan(Vid::try_from(20).unwrap());
    let expected = InjectConfig { entry: by_vlan, rate_fps: 10_000, sources: vec![] };
    assert_eq!(inject("vlan = 20"), expected, "the default rate");
    assert_eq!(inject("vlan = 20, rate = '10kpps', sources = []"), expected);
    for (rate, fps) in
        [("500pps", 500), ("1pps", 1), ("10 kpps", 10_000), ("1Mpps", 1_000_000), ("1000Mpps", 1_000_000_000)]
    {
        assert_eq!(inject(&format!("vlan = 1, rate = '{rate}'")).rate_fps, fps);
    }
    let sources = "sources = ['52:54:00:00:00:02', '52:54:00:00:00:01', '52:54:00:00:00:02']";
    let as_port = inject(&format!("as_port = 'b', {sources}"));
    assert_eq!((as_port.as_port(), as_port.sources.len()), (Some("b"), 2));
    for (keys, wrong) in [
        ("", "mirrors.m.inject: neither `vlan` nor `as_port` is there"),
        ("rate = '1pps'", "mirrors.m.inject: neither `vlan` nor `as_port` is there"),
        ("vlan = 0", "mirrors.m.inject.vlan: 0 is not a VLAN id (1 to 4094)"),
        ("vlan = 1, as_port = 'b'", "mirrors.m.inject.as_port: can't stand beside `vlan`"),
        ("vlan = 1, rate = 5", "mirrors.m.inject.rate: should be a rate of frames, as in"),
        ("vlan = 1, rate = '0pps'", "mirrors.m.inject.rate: \"0pps\" is not a rate of frames"),
        ("vlan = 1, rate = '5000Mpps'", "1pps to 1000Mpps"),
        ("vlan = 1, rate = '10mbit'", "is not a rate"),
        ("vlan = 1, sources = ['x']", "mirrors.m.inject.sources[0]: \"x\" is not a MAC address"),
        ("vlan = 1, sources = ['33:33:00:00:00:01']", "is a group address, which no frame comes from"),
        ("as_port = 'bb'", "mirrors.m.inject: there is no port \"bb\"; did you mean \"b\"?"),
        ("as_port = 'span'", "mirrors.m.inject: as_port: \"span\" is a mirror destination, which takes nothing in"),
    ] {
        let error = read(keys).unwrap_err().to_string();
        assert!(error.contains(wrong) && !error.contains('\n'), "{keys}: {error}");
    }
    let error =
        Config::parse(&(vhost("a", "") + &vhost("b", "[mirrors.m]\nsources=['a']\nto='b'\ninject=3")), "x.toml");
    assert!(error.unwrap_err().to_string().contains("mirrors.m.inject: should be a table"));
}

#[test]
fn mirrors_that_would_contradict_each_other_or_feed_themselves() {
    let vlan = "inject = { vlan = 20 }";
    for (second, wrong) in [
        (("n", "span", "inject = { vlan = 21 }"), "mirrors.n.inject: mirror \"m\" to \"span\" injects otherwise"),
        (
            ("n", "span", "inject = { vlan = 20, rate = '5pps' }"),
            "mirrors.n.inject: mirror \"m\" to \"span\" injects otherwise",
        ),
        (("n", "b", "inject = { as_port = 'span' }"), "mirrors.n.inject: as_port: \"span\" is a mirror destination"),
    ] {
        let error = with_mirrors(&[("m", "span", vlan), second]).unwrap_err().to_string();
        assert!(error.contains(wrong) && !error.contains('\n'), "{error}");
    }
    let as_b = "inject = { as_port = 'b' }";
    let error = with_mirrors(&[("m", "span", as_b), ("n", "b", "")]).unwrap_err().to_string();
    assert!(error.contains("mirrors.n.to: frames are injected as those of \"b\" by mirror \"m\""), "{error}");
    // The same twice, silence beside a word, and a source as what frames enter as: all of that is possible.
    for second in [("n", "span", vlan), ("n", "span", ""), ("n", "b", "inject = { vlan = 9 }")] {
        with_mirrors(&[("m", "span", vlan), second]).unwrap();
    }
    with_mirrors(&[("m", "span", "inject = { as_port = 'a' }")]).unwrap();
}

#[test]
fn a_vlan_as_a_destination_is_checked() {
    let ports = "[ports.a]\ntype='vhost_user'\nvlan={mode='access',tag=10}\n[ports.t]\ntype='vhost_user'\nvlan={mode='trunk',trunks=[10,900]}\n";
    let parse = |mirror: &str| Config::parse(&format!("{ports}[mirrors.m]\nsources=['a']\n{mirror}\n"), "lab.toml");
    let config = parse("to_vlan=900").unwrap();
    assert_eq!(config.mirrors[0].to.vlan().map(u16::from), Some(900));
    assert_eq!((config.mirrors[0].to.port(), config.mirrors[0].to.is_forced()), (None, false));
    assert!(config.mirrors[0].names("a") && !config.mirrors[0].names("t"), "a trunk may come and go");
    assert!(parse("to_vlan=10\nforce=true").unwrap().mirrors[0].to.is_forced());
    for (mirror, wrong) in [
        ("", "lab.toml:7:10: mirrors.m: neither `to` nor `to_vlan` is there; one of them says where the copies go"),
        (
            "to='t'\nto_vlan=900",
            "lab.toml:10:9: mirrors.m.to_vlan: can't stand beside `to`; copies go to a port or to a VLAN, not both",
        ),
        ("to_vlan=0", "lab.toml:9:9: mirrors.m.to_vlan: 0 is not a VLAN id (1 to 4094)"),
        ("to_vlan='t'", "lab.toml:9:9: mirrors.m.to_vlan: should be a VLAN id (1 to 4094), is the string \"t\""),
        (
            "to_vlan=900\nvlans=[10,'800-900']",
            "lab.toml:9:9: mirrors.m.to_vlan: VLAN 900 is also one of `vlans`; a mirror cannot feed itself",
        ),
        (
            "to_vlan=900\ninject={vlan=10}",
            "lab.toml:10:1: mirrors.m.inject: can't stand beside `to_vlan`; only a port that takes nothing but copies can inject",
        ),
        (
            "to_vlan=10",
            "lab.toml:9:9: mirrors.m.to_vlan: VLAN 10 is the VLAN of untagged frames of port \"a\", which would be cut off; take a VLAN that no port uses, or force it",
        ),
        (
            "to='t'\nforce=true",
            "lab.toml:10:7: mirrors.m.force: is for `to_vlan` only; a port as the destination is never forced",
        ),
        ("to_vlan=900\nforce=1", "lab.toml:10:7: mirrors.m.force: should be true or false, is the number 1"),
        (
            "to_vlan=900\nsnaplen=14",
            "lab.toml:10:9: mirrors.m.snaplen: 14 cuts into the Ethernet header; use 0 or at least 20",
        ),
    ] {
        assert_eq!(parse(mirror).unwrap_err().to_string(), wrong, "{mirror}");
    }
}
