//! Proves what the module promises, over random pairs of valid configurations: a model of the switch takes each step
//! only if it is possible at that moment, and has to end up with what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use labsw_switch::tables::LinkLocal;
use proptest::prelude::*;

use super::*;
use crate::api::ConfigAction;
use crate::config::{PortKind, Power};

/// A switch without a network: what it has, and which ports have no attachment.
#[derive(Clone, Debug)]
struct Model {
    switch: SwitchConfig,
    ports: BTreeMap<String, PortConfig>,
    detached: BTreeSet<String>,
    mirrors: BTreeMap<String, MirrorConfig>,
    inlines: BTreeMap<String, InlineConfig>,
    profiles: Vec<ProfileConfig>,
    impairments: BTreeMap<String, ImpairConfig>,
}

impl Model {
    fn of(config: &Config) -> Model {
        let config = config.normalised();
        Model {
            switch: config.switch,
            ports: config.ports.into_iter().map(|port| (port.name.clone(), port)).collect(),
            detached: BTreeSet::new(),
            mirrors: config.mirrors.into_iter().map(|mirror| (mirror.name.clone(), mirror)).collect(),
            inlines: config.inlines.into_iter().map(|inline| (inline.name.clone(), inline)).collect(),
            profiles: config.profiles,
            impairments: config.impairments.into_iter().map(|impair| (impair.port.clone(), impair)).collect(),
        }
    }

    fn config(&self) -> Config {
        assert!(self.detached.is_empty(), "without an attachment: {:?}", self.detached);
        let (ports, mirrors) = (self.ports.values().cloned().collect(), self.mirrors.values().cloned().collect());
        let impairments = self.impairments.values().cloned().collect();
        let (inlines, profiles) = (self.inlines.values().cloned().collect(), self.profiles.clone());
        Config { switch: self.switch.clone(), ports, mirrors, inlines, profiles, impairments }
    }

    /// Every attachment is one port's.
    fn check_attachment(&self, port: &PortConfig) {
        let attached = self.ports.values().filter(|other| !self.detached.contains(&other.name));
        let others: Vec<_> = attached.filter(|other| other.name != port.name).collect();
        port.check_beside(others, &self.switch).unwrap_or_else(|error| panic!("{error}"));
        assert!(self.ports.len() <= MAX_PORTS);
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::DeleteInline(name) => assert!(self.inlines.remove(name).is_some(), "no sensor {name}"),
            Step::DeleteMirror(name) => assert!(self.mirrors.remove(name).is_some(), "no mirror {name}"),
            Step::DetachPort(name) => {
                assert!(self.ports.contains_key(name) && self.detached.insert(name.clone()), "{name}");
            }
            Step::SetSwitch(switch) => self.switch = switch.clone(),
            Step::AddPort(port) => {
                assert!(self.ports.insert(port.name.clone(), port.clone()).is_none(), "{} is there", port.name);
                self.check_attachment(port);
            }
            Step::SetPort(port) => {
                let before = self.ports.insert(port.name.clone(), port.clone()).expect("a port that is there");
                let moved = self.detached.remove(&port.name) || before.kind != port.kind;
                if moved {
                    self.check_attachment(port);
                }
                let watched = |mirror: &MirrorConfig| mirror.sources.iter().any(|source| source.port == port.name);
                assert!(!port.mirror_only || !self.mirrors.values().any(watched), "{} is watched", port.name);
                let cut_off = |mirror: &MirrorConfig| mirror.check_vlan_beside(port).is_err();
                assert!(!self.mirrors.values().any(cut_off), "copies go to the VLAN of {}", port.name);
                let used = self.mirrors.values().any(|mirror| mirror.names(&port.name));
                assert!(port.allow_mirror || !used, "a mirror uses {}", port.name);
                assert!(self.inlines.values().all(|inline| inline.check_port(port).is_ok()), "{}", port.name);
            }
            Step::SetMirror(mirror) => {
                let ports: Vec<&str> = self.ports.keys().map(String::as_str).collect();
                assert_eq!(mirror.missing_port(&ports), None);
                assert_eq!(mirror.check_beside(self.mirrors.values(), self.ports.values()), Ok(()));
                assert!(self.inlines.values().all(|inline| inline.check_mirror(mirror).is_ok()), "{}", mirror.name);
                self.mirrors.insert(mirror.name.clone(), mirror.clone());
            }
            Step::SetInline(inline) => {
                let ports: Vec<&str> = self.ports.keys().map(String::as_str).collect();
                assert_eq!(inline.missing_port(&ports), None);
                let beside = inline.check_beside(self.inlines.values(), self.mirrors.values(), self.ports.values());
                assert_eq!(beside, Ok(()));
                self.inlines.insert(inline.name.clone(), inline.clone());
            }
            Step::SetProfiles(profiles) => self.profiles.clone_from(profiles),
            Step::SetImpairment(impairment) => {
                assert!(self.ports.contains_key(&impairment.port), "no port {}", impairment.port);
                self.impairments.insert(impairment.port.clone(), ImpairConfig::clone(impairment));
            }
            Step::ClearImpairment(name) => assert!(self.impairments.remove(name).is_some(), "{name} is not impaired"),
            Step::DeletePort(name) => {
                assert!(!self.mirrors.values().any(|mirror| mirror.names(name)), "a mirror uses {name}");
                assert!(!self.inlines.values().any(|inline| inline.names(name)), "a sensor uses {name}");
                assert!(self.ports.remove(name).is_some(), "no port {name}");
                self.detached.remove(name);
                self.impairments.remove(name);
            }
        }
    }
}

/// True if the step's object differs between the two configurations.
fn differs(step: &Step, running: &Config, wanted: &Config) -> bool {
    let port = |name: &str| running.port(name) != wanted.port(name);
    let mirror = |name: &str| running.mirror(name) != wanted.mirror(name);
    let impairment = |name: &str| running.impairment(name) != wanted.impairment(name);
    match step {
        Step::SetSwitch(_) => running.switch != wanted.switch,
        Step::DeleteMirror(name) => mirror(name),
        Step::SetMirror(set) => mirror(&set.name),
        Step::DeleteInline(name) => running.inline(name) != wanted.inline(name),
        Step::SetInline(set) => running.inline(&set.name) != wanted.inline(&set.name),
        Step::DetachPort(name) | Step::DeletePort(name) => port(name),
        Step::AddPort(set) | Step::SetPort(set) => port(&set.name),
        Step::SetProfiles(_) => running.profiles != wanted.profiles,
        Step::SetImpairment(set) => impairment(&set.port),
        Step::ClearImpairment(name) => impairment(name),
    }
}

const INJECT: [&str; 5] =
    ["", "", "inject={vlan=1}", "inject={vlan=2}", "inject={as_port='b',sources=['52:54:00:00:00:01']}"];

/// The keys of a port: what it is attached to, its VLAN, `mirror_only`, and its MTU with further keys.
fn port() -> impl Strategy<Value = (String, u16, bool, &'static str)> {
    let attachment = prop_oneof![
        (0..4_u8).prop_map(|n| format!("type='af_xdp'\ndevice='name:d{n}'")),
        (0..3_u8).prop_map(|n| format!("type='af_xdp'\ndevice='mac:02:00:00:00:00:0{n}'")),
        (0..3_u8, any::<bool>()).prop_map(|(n, own)| {
            let own = if own { "interface='i0'\n" } else { "" };
            format!("type='veth'\npeer='d{n}'\n{own}")
        }),
        (0..3_u8).prop_map(|n| format!("type='tap'\ninterface='d{n}'")),
        prop::option::of(0..2_u8).prop_map(|n| {
            format!("type='vhost_user'\n{}", n.map_or_else(String::new, |n| format!("socket='/s{n}'")))
        }),
    ];
    (
        attachment,
        0..3_u16,
        any::<bool>(),
        prop::sample::select(vec!["1500", "9000", "9000\nallow_mirror=true", "9000\nallow_mirror=false"]),
    )
}

/// Tables of sensors.
fn inlines() -> impl Strategy<Value = Vec<String>> {
    let inline = ("[a-f]", "[a-f]", "[a-f]", prop::sample::select(vec!["open", "closed"]));
    prop::collection::btree_map("[xyz]", inline, 0..3).prop_map(|inlines| {
        let table = |(name, (of, near, far, way)): (String, (String, String, String, &str))| {
            format!("[inline.{name}]\nof='{of}'\nthrough=['{near}','{far}']\non_failure='{way}'\n")
        };
        inlines.into_iter().map(table).collect()
    })
}

/// Random configurations, as text, out of few names, so that pairs of them get in each other's way.
fn config_strategy() -> impl Strategy<Value = Config> {
    let ports = prop::collection::btree_map("[a-f]", port(), 0..6);
    let to = prop_oneof![
        3 => "[a-f]".prop_map(|port| format!("to='{port}'")),
        1 => (1..4_u8, any::<bool>()).prop_map(|(vlan, force)| format!("to_vlan={vlan}\nforce={force}")),
    ];
    let mirror = (prop::collection::vec("[a-f*]", 1..3), to, 0..2_u32, prop::sample::select(INJECT.to_vec()));
    let mirrors = prop::collection::btree_map("[mno]", mirror, 0..3);
    let switch = prop::sample::select(vec![
        "",
        "allow_mirror='declared'",
        "power='performance'",
        "mac_ageing='60s'",
        "multicast_snooping=[10, '20-29']",
        "socket_mode='0600'",
    ]);
    let settings = || {
        prop::sample::select(vec!["delay='5ms'", "delay='5ms'\njitter='1ms'", "loss='2%'\nseed=1", "profile='lossy'"])
    };
    let profiles = prop::collection::btree_map(prop::sample::select(vec!["far", "lossy"]), 1..4_u8, 0..3);
    let impairment = (
        prop::sample::select(vec!["", "direction='rx'", "direction='tx'", "rx", "tx", "rx tx"]),
        settings(),
        prop_oneof![settings(), Just("profile='far'")],
    );
    let impairments = prop::collection::btree_map("[a-f]", impairment, 0..4);
    let parts = (switch, ports, mirrors, inlines(), profiles, impairments);
    parts.prop_filter_map("a valid configuration", |(switch, ports, mirrors, inlines, profiles, impairments)| {
        let mut text = format!("[switch]\n{switch}\n");
        // What is impossible beside the rest is left out, so that most texts are of use.
        let mut add = |part: &str| {
            let longer = format!("{text}{part}");
            if Config::parse(&longer, "x.toml").is_ok() {
                text = longer;
            }
        };
        for (name, (attachment, vlan, mirror_only, mtu)) in ports {
            let vlan = if vlan == 0 { String::new() } else { format!("vlan={{tag={vlan}}}\n") };
            add(&format!("[ports.{name}]\n{attachment}\nmtu={mtu}\nmirror_only={mirror_only}\n{vlan}"));
        }
        for (name, (sources, to, snaplen, inject)) in mirrors {
            let snaplen = snaplen * 64;
            add(&format!("[mirrors.{name}]\nsources={sources:?}\n{to}\nsnaplen={snaplen}\n{inject}\n"));
        }
        inlines.iter().for_each(|inline| add(inline));
        for (name, loss) in profiles {
            add(&format!("[profiles.{name}]\nloss='{loss}%'\n"));
        }
        for (port, (form, one, other)) in impairments {
            add(&match form {
                "rx tx" => format!("[impair.{port}.rx]\n{one}\n[impair.{port}.tx]\n{other}\n"),
                "rx" | "tx" => format!("[impair.{port}.{form}]\n{other}\n"),
                _ => format!("[impair.{port}]\n{form}\n{other}\n"),
            });
        }
        Config::parse(&text, "x.toml").ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_is_possible_and_leads_to_what_is_wanted(running in config_strategy(), wanted in config_strategy()) {
        let steps = plan(&running, &wanted).unwrap();
        let mut model = Model::of(&running);
        for step in &steps {
            model.take(step);
        }
        prop_assert_eq!(model.config().normalised(), wanted.normalised());
        prop_assert_eq!(plan(&model.config(), &wanted).unwrap(), []);
    }

    #[test]
    fn what_is_the_same_is_not_touched(running in config_strategy(), wanted in config_strategy()) {
        let steps = plan(&running, &wanted).unwrap();
        let (running, wanted) = (running.normalised(), wanted.normalised());
        for step in &steps {
            prop_assert!(differs(step, &running, &wanted), "{:?}", step);
        }
        prop_assert_eq!(plan(&running, &running).unwrap(), []);
    }

    #[test]
    fn a_difference_is_told_if_and_only_if_there_is_a_plan(running in config_strategy(), wanted in config_strategy()) {
        let told = changes(&running, &running, &wanted);
        prop_assert_eq!(told.is_empty(), plan(&running, &wanted).unwrap().is_empty());
        prop_assert!(told.iter().all(|change| !change.drift));
        let back = changes(&wanted, &running, &wanted);
        prop_assert!(back.iter().all(|change| change.drift), "all of it was changed at run time: {:?}", back);
    }

    #[test]
    fn keeping_what_was_changed_at_run_time(base in config_strategy(), other in config_strategy()) {
        let merged = |base: &Config, running: &Config, wanted: &Config| {
            Config::parse(&keep_runtime(base, running, wanted).to_string(), "merged").map(|config| config.normalised())
        };
        // Nothing was changed at run time; the file has not changed.
        prop_assert_eq!(merged(&base, &base, &other), Ok(other.normalised()));
        prop_assert_eq!(merged(&base, &other, &base), Ok(other.normalised()));
    }
}

fn config(text: &str) -> Config {
    Config::parse(text, "x.toml").unwrap()
}

#[test]
fn attachments_change_hands_in_a_circle() {
    let ring = |devices: [&str; 3]| {
        let port = |(name, device): (&str, &str)| format!("[ports.{name}]\ntype='af_xdp'\ndevice='name:{device}'\n");
        config(&["a", "b", "c"].into_iter().zip(devices).map(port).collect::<String>())
    };
    let steps = plan(&ring(["x", "y", "z"]), &ring(["y", "z", "x"])).unwrap();
    let detached = steps.iter().filter(|step| matches!(step, Step::DetachPort(_))).count();
    assert_eq!((detached, steps.len()), (3, 6), "{steps:?}");
    // One that nobody waits for is only detached when its turn comes.
    let steps = plan(&ring(["x", "y", "z"]), &ring(["x", "y", "w"])).unwrap();
    assert!(matches!(steps.as_slice(), [Step::SetPort(port)] if port.name == "c"), "{steps:?}");
}

#[test]
fn ports_go_last_unless_they_are_in_the_way() {
    let veth = |name: &str, peer: &str| format!("[ports.{name}]\ntype='veth'\npeer='{peer}'\n");
    let running = config(&(veth("a", "p") + &veth("b", "q") + "[mirrors.m]\nsources=['a']\nto='b'\n"));
    let steps = plan(&running, &config(&veth("c", "r"))).unwrap();
    assert_eq!(steps[0], Step::DeleteMirror("m".into()));
    assert!(matches!(&steps[1], Step::AddPort(port) if port.name == "c"));
    assert_eq!(steps[2..], [Step::DeletePort("a".into()), Step::DeletePort("b".into())]);
    let steps = plan(&running, &config(&veth("c", "p"))).unwrap();
    assert_eq!(steps[1], Step::DetachPort("a".into()), "its interface is wanted");
    // No room: they have to go first.
    let many = |from: usize| {
        (from..from + MAX_PORTS).map(|n| format!("[ports.p{n}]\ntype='vhost_user'\n")).collect::<String>()
    };
    let steps = plan(&config(&many(0)), &config(&many(1))).unwrap();
    assert_eq!(steps[0], Step::DeletePort("p0".into()));
}

#[test]
fn mirrors_and_devices_get_out_of_each_others_way() {
    let ports = |mirror_only: &str| {
        let port = |name: &str| {
            let only = name == mirror_only;
            format!("[ports.{name}]\ntype='vhost_user'\nmirror_only={only}\n")
        };
        ["a", "b", "c", "d"].map(port).concat()
    };
    let mirror = |name: &str, source: &str, to: &str| format!("[mirrors.{name}]\nsources=['{source}']\nto='{to}'\n");
    let running = config(&(ports("") + &mirror("m", "a", "b") + &mirror("n", "c", "d")));
    // Either of the wanted ones would copy copies of the other as it was.
    let wanted = config(&(ports("") + &mirror("m", "a", "c") + &mirror("n", "b", "d")));
    let steps = plan(&running, &wanted).unwrap();
    assert_eq!(steps[..2], [Step::DeleteMirror("m".into()), Step::DeleteMirror("n".into())]);
    let wanted = config(&(ports("a") + &mirror("m", "c", "b") + &mirror("n", "c", "d")));
    let steps = plan(&running, &wanted).unwrap();
    assert_eq!(steps[0], Step::DeleteMirror("m".into()), "its source is to send copies only: {steps:?}");
    assert_eq!(steps.len(), 3, "n is not touched: {steps:?}");
    for (from, to) in [(&running, &wanted), (&wanted, &running)] {
        let mut model = Model::of(from);
        plan(from, to).unwrap().iter().for_each(|step| model.take(step));
    }

    // What is not to be mirrored any more is not, before it says so; who allows it comes first.
    let declared = |ports: &[&str]| {
        let port = |name: &str| format!("[ports.{name}]\ntype='vhost_user'\nallow_mirror={}\n", ports.contains(&name));
        ["a", "b", "c", "d"].map(port).concat()
    };
    let running = config(&(declared(&["a", "b", "c"]) + &mirror("m", "a", "b")));
    let wanted = config(&(declared(&["b", "c", "d"]) + &mirror("m", "c", "d")));
    let steps = plan(&running, &wanted).unwrap();
    assert_eq!(steps[0], Step::DeleteMirror("m".into()));
    assert!(matches!(steps[1..], [Step::SetPort(_), Step::SetPort(_), Step::SetMirror(_)]), "{steps:?}");

    // One device may be named in several ways.
    let device = |name: &str, device: &str| config(&format!("[ports.{name}]\ntype='af_xdp'\ndevice='{device}'\n"));
    let steps = plan(&device("a", "name:x"), &device("b", "mac:02:00:00:00:00:01")).unwrap();
    assert_eq!(steps[0], Step::DetachPort("a".into()));
    let steps = plan(&device("a", "name:x"), &device("b", "name:y")).unwrap();
    assert!(matches!(steps[0], Step::AddPort(_)), "{steps:?}");
}

#[test]
fn what_means_the_same_is_the_same() {
    let short = config(
        "[ports.a]\ntype='veth'\npeer='p'\n[ports.g]\ntype='vhost_user'\n[mirrors.m]\nsources=['a','g']\nto='b'\n[ports.b]\ntype='veth'\npeer='q'\nnetns='n'\n",
    );
    let long = config(
        "[ports.b]\ntype='veth'\npeer='q'\nnetns='n'\npeer_name='q'\nqueues=1\n[ports.a]\ntype='veth'\npeer='p'\n\
         interface='lsw-a'\nmtu=1500\n[ports.g]\ntype='vhost_user'\nsocket='/run/labsw/vhost/g.sock'\n\
         [mirrors.m]\nsources=['g','a:both']\nto='b'\nsnaplen=0\n",
    );
    assert_eq!(plan(&short, &long).unwrap(), []);
    assert_eq!(changes(&short, &short, &long), []);
}

#[test]
fn what_needs_a_restart_is_named_in_full() {
    let wanted = config("[switch]\nworkers=[0]\nmac_table_size=64\nhugepages='off'\npower='performance'\n");
    let error = plan(&Config::default(), &wanted).unwrap_err();
    let text = "switch.workers, switch.mac_table_size, switch.hugepages can't change while the switch runs";
    assert!(error.to_string().starts_with(text), "{error}");
    let told = changes(&Config::default(), &Config::default(), &wanted);
    let restart: Vec<bool> = told[0].settings.iter().map(|setting| setting.restart).collect();
    assert_eq!((told.len(), restart), (1, vec![true, true, false, true]), "{told:?}");
}

#[test]
fn differences_in_words() {
    let file = "[ports.a]\ntype='veth'\npeer='p'\nvlan={tag=10}\n[ports.b]\ntype='veth'\npeer='q'\n";
    let base = config(file);
    let mut running = base.clone();
    running.ports[0] = running.ports[0]
        .with_settings(&[("vlan.tag".to_owned(), 11.into())].into_iter().collect(), &SwitchConfig::default())
        .unwrap();
    running.switch.power = Power::Performance;
    running.ports.push(config("[ports.c]\ntype='veth'\npeer='r'\n").ports[0].clone());
    let wanted = config(&(file.replace("peer='q'", "peer='q'\nqueues=2") + "[mirrors.m]\nsources=['a']\nto='b'\n"));
    let lines: Vec<String> = changes(&base, &running, &wanted).iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "~ switch: power \"performance\" -> \"adaptive\" (changed at run time)",
            "~ port a: vlan.tag 11 -> 10 (changed at run time)",
            "! port b is re-attached: queues 1 -> 2",
            "- port c (changed at run time)",
            "+ mirror m",
        ]
    );
    let kept = Config::parse(&keep_runtime(&base, &running, &wanted).to_string(), "merged").unwrap();
    let lines: Vec<String> = changes(&base, &running, &kept).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["! port b is re-attached: queues 1 -> 2", "+ mirror m"]);
    assert_eq!((kept.switch.power, kept.ports.len()), (Power::Performance, 3));
}

#[test]
fn a_port_of_another_type_is_kept_or_replaced_as_a_whole() {
    let [veth, tap] =
        ["type='veth'\npeer='p'\nmtu=1400\n", "type='tap'\n"].map(|keys| config(&format!("[ports.a]\n{keys}")));
    let merged = |base: &Config, running: &Config, wanted: &Config| {
        Config::parse(&keep_runtime(base, running, wanted).to_string(), "merged").unwrap()
    };
    assert_eq!(merged(&veth, &veth, &tap), tap);
    assert_eq!(merged(&tap, &veth, &tap), veth);
    assert_eq!(changes(&veth, &veth, &tap)[0].action, ConfigAction::Remake);
    assert!(matches!(tap.ports[0].kind, PortKind::Tap(_)) && tap.ports[0].link_local == LinkLocal::Transparent);
}
