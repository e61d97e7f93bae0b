//! The switch without a network: apply, change, undo and what is shown, on ports that touch nothing
//! ([`attach::fake`](super::attach::fake)).

use std::sync::Arc;

use crossbeam::channel::unbounded;
use mio::Poll;
use parking_lot::Mutex;

use super::attach::fake::{self, world};
use super::errand::Errand;
use super::host::Host;
use super::switch::Switch;
use super::tokens::WORKER_EVENTS;
use super::trace::trace;
use crate::api::{ConfigText, PortState};
use crate::config::{Config, SwitchConfig, split_setting};
use crate::device::{Ledger, Links};

/// A switch and its host. The test plays the device thread.
pub(super) struct Bench {
    pub(super) switch: Arc<Mutex<Switch>>,
    pub(super) host: Host,
    pub(super) waker: Arc<mio::Waker>,
}

impl Bench {
    pub(super) fn errand(&mut self) -> Errand<'_> {
        Errand::begin(&self.switch, &mut self.host)
    }
}

/// A switch with this configuration, all of its ports open.
pub(super) fn switch(text: &str) -> Bench {
    let mut bench = entered(text);
    let mut switch = bench.errand();
    while !switch.opening.is_over() {
        switch.open_next().unwrap();
    }
    drop(switch);
    bench
}

/// A switch with this configuration, none of its ports open.
fn entered(text: &str) -> Bench {
    fake::begin();
    let config = Config::parse(text, "x.toml").unwrap();
    let poll = Poll::new().unwrap();
    let (events, _) = unbounded();
    let waker = Arc::new(mio::Waker::new(poll.registry(), WORKER_EVENTS).unwrap());
    let registry = poll.registry().try_clone().unwrap();
    let ledger = Ledger::open(std::env::temp_dir().join(format!("labsw-no-ledger-{}", std::process::id())));
    let mut host = Host::new(registry, Links::open().unwrap(), ledger, None, &config.switch);
    let file = std::path::Path::new("x.toml");
    let mut switch = Switch::new(file, config.clone(), &mut host, None, &events, Arc::clone(&waker)).unwrap();
    switch.enter(config).unwrap();
    Bench { switch: Arc::new(Mutex::new(switch)), host, waker }
}

fn apply(switch: &mut Errand<'_>, text: &str) -> Result<(), String> {
    let source = ConfigText { file: "x.toml".to_owned(), text: text.to_owned() };
    switch.apply_config(&source, false).map(drop).map_err(|error| error.to_string())
}

fn veth(name: &str, peer: &str, more: &str) -> String {
    format!("[ports.{name}]\ntype='veth'\npeer='{peer}'\n{more}\n")
}

fn mirror(name: &str, source: &str, to: &str) -> String {
    format!("[mirrors.{name}]\nsources=['{source}']\nto='{to}'\n")
}

/// Configurations that differ in all that a plan has steps for.
fn configurations() -> Vec<String> {
    vec![
        String::new(),
        veth("a", "x", "") + &veth("b", "y", ""),
        veth("a", "y", "") + &veth("b", "x", "vlan={tag=7}"),
        veth("a", "x", "") + &veth("b", "z", "") + &veth("c", "y", "") + &mirror("m", "a", "b"),
        veth("a", "x", "mtu=9000") + &veth("b", "y", "") + &veth("c", "z", "") + &mirror("m", "b", "c"),
        veth("a", "x", "") + &veth("b", "y", "") + "[impair.a]\ndelay='5ms'\n",
        veth("b", "y", "") + &veth("c", "x", "") + "[impair.c]\nloss='5%'\n[profiles.p]\nloss='1%'\n",
        veth("c", "x", "") + &veth("d", "w", "") + &mirror("n", "c", "d") + "[switch]\nmac_ageing='60s'\n",
    ]
}

/// The state beside the configuration: ids, slots of mirrors, the port that has each resource, and ports that are up.
fn rest(switch: &Switch) -> String {
    let ports = switch.ports.iter().map(|port| {
        (port.config.name.clone(), port.enabled, port.detached, port.tx.is_some(), port.queues.places.len())
    });
    let mirrors = switch.mirrors.iter().map(|mirror| (mirror.config.name.clone(), mirror.id));
    let taken = world(|world| world.taken.clone());
    format!("{:?} {:?} {taken:?}", ports.collect::<Vec<_>>(), mirrors.collect::<Vec<_>>())
}

#[test]
fn every_configuration_is_applied_over_every_other() {
    let all = configurations();
    for from in &all {
        let mut bench = switch(from);
        let mut switch = bench.errand();
        for to in &all {
            apply(&mut switch, to).unwrap();
            assert_eq!(switch.running().normalised(), Config::parse(to, "x").unwrap().normalised());
            assert!(switch.ports.iter().all(|port| port.state().0 == PortState::Up), "{from} to {to}");
            assert_eq!(world(|world| world.taken.len()), switch.ports.len());
            apply(&mut switch, from).unwrap();
        }
    }
}

#[test]
fn every_mistake_of_a_configuration_is_told_and_nothing_changes() {
    let from = veth("a", "x", "");
    let mut bench = switch(&from);
    let mut switch = bench.errand();
    let error = apply(&mut switch, "[ports.a]\ntype='veth'\npeer='x'\nmtu=1\ncolour=1\n").unwrap_err();
    assert!(
        error.starts_with("x.toml:4:5: ports.a.mtu: ") && error.contains("; x.toml:5:1: ports.a.colour: "),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
    assert_eq!(switch.running().normalised(), Config::parse(&from, "x").unwrap().normalised());
}

#[test]
fn whatever_port_fails_everything_is_as_it_was() {
    let all = configurations();
    let mut failures = 0;
    for from in &all {
        let fresh = || {
            let mut bench = switch(from);
            let mut switch = bench.errand();
            if let Some(port) = switch.ports.names().into_iter().next() {
                switch.switch_port(&port, false).unwrap();
            }
            drop(switch);
            bench
        };
        let mut bench = fresh();
        let before = {
            let switch = bench.errand();
            (switch.running().normalised(), rest(&switch))
        };
        for to in &all {
            for fails in ["a", "b", "c", "d"] {
                world(|world| world.refuses.insert(fails.to_owned()));
                let mut switch = bench.errand();
                let Err(error) = apply(&mut switch, to) else {
                    drop(switch);
                    bench = fresh();
                    continue;
                };
                failures += 1;
                assert!(error.contains(&format!("ports.{fails}")) && error.lines().count() == 1, "{error}");
                assert_eq!(switch.running().normalised(), before.0, "{from} to {to}, {fails}");
                // The port that can't be opened can't be given back either; it is tried again.
                world(|world| world.refuses.clear());
                let later = std::time::Instant::now() + std::time::Duration::from_secs(2);
                switch.look_after_devices(later + std::time::Duration::from_secs(1));
                assert_eq!(rest(&switch), before.1, "{from} to {to}, {fails}: {error}");
            }
        }
    }
    assert!(failures > 40, "{failures} are too few to prove anything");
}

#[test]
fn a_mirror_that_is_put_back_has_its_slot_and_counters() {
    let from = veth("a", "x", "") + &veth("b", "y", "") + &veth("c", "z", "") + &mirror("m", "a", "b");
    let mut bench = switch(&from);
    let mut switch = bench.errand();
    let before = format!("{:?}", switch.mirrors.get("m").ok().map(|mirror| (mirror.id, mirror.config.clone())));
    world(|world| world.refuses.insert("d".to_owned()));
    let to = veth("a", "x", "") + &veth("b", "y", "") + &veth("c", "z", "") + &veth("d", "w", "");
    let error = apply(&mut switch, &(to + &mirror("n", "a", "c"))).unwrap_err();
    assert!(error.ends_with("nothing was changed"), "{error}");
    assert_eq!(format!("{:?}", switch.mirrors.get("m").ok().map(|mirror| (mirror.id, mirror.config.clone()))), before);
    assert!(switch.mirrors.get("n").is_err());
}

#[test]
fn rules_change_in_place_and_attachments_are_opened_anew() {
    let mut bench = switch(&veth("a", "x", ""));
    let mut switch = bench.errand();
    let set = |switch: &mut Errand<'_>, key: &str, value: &str| {
        let config = switch
            .ports
            .get("a")
            .unwrap()
            .config
            .with_settings(
                &[split_setting(&format!("{key}={value}")).unwrap()].into_iter().collect(),
                &SwitchConfig::default(),
            )
            .unwrap();
        switch.set_port("a", config).map_err(|error| error.to_string())
    };
    let opened = || world(|world| world.opened);
    let id = switch.ports.get("a").unwrap().id;
    set(&mut switch, "vlan.tag", "7").unwrap();
    set(&mut switch, "mtu", "9000").unwrap();
    assert_eq!((opened(), switch.ports.get("a").unwrap().config.mtu), (1, 9000));
    world(|world| world.max_mtu = 9000);
    assert!(set(&mut switch, "mtu", "9100").unwrap_err().contains("mtu 9100 is too large"));
    assert_eq!((opened(), switch.ports.get("a").unwrap().config.mtu), (1, 9000), "as it was");
    set(&mut switch, "peer", "'y'").unwrap();
    assert_eq!((opened(), switch.ports.get("a").unwrap().id), (2, id), "the same port");
    assert_eq!(world(|world| world.taken.keys().cloned().collect::<Vec<_>>()), ["y"]);
    switch.delete_port("a").unwrap();
    assert!(world(|world| world.taken.is_empty()));
}

#[test]
fn nobody_is_asked_to_answer_what_is_asked() {
    let ports: String = (0..50).map(|n| veth(&format!("p{n}"), &format!("x{n}"), "")).collect();
    let mut bench = switch(&(ports + &mirror("m", "p0", "p1")));
    let mut switch = bench.errand();
    let before = switch.away(|host| host.links.requests());
    let status = switch.show_status();
    assert_eq!((status.ports.len(), status.mirrors.len()), (50, 1));
    assert!(trace(switch.view(), "p0", &[0; 60]).is_ok());
    switch.notice_states();
    assert_eq!(switch.away(|host| host.links.requests()), before, "requests to the kernel");
}

#[test]
fn ports_are_opened_one_by_one_and_may_go_or_change_before_their_turn() {
    let mut bench = entered(&(veth("a", "x", "") + &veth("b", "y", "") + &veth("c", "z", "") + &veth("d", "w", "")));
    let mut switch = bench.errand();
    let state = |switch: &Switch, name: &str| switch.ports.get(name).unwrap().state().0;
    assert_eq!([state(&switch, "a"), state(&switch, "d")], [PortState::Opening; 2]);
    switch.open_next().unwrap();
    assert_eq!([state(&switch, "a"), state(&switch, "b")], [PortState::Up, PortState::Opening]);
    switch.delete_port("b").unwrap();
    let config = switch
        .ports
        .get("c")
        .unwrap()
        .config
        .with_settings(&[split_setting("peer=v").unwrap()].into_iter().collect(), &SwitchConfig::default())
        .unwrap();
    switch.set_port("c", config).unwrap();
    switch.switch_port("d", false).unwrap();
    while !switch.opening.is_over() {
        switch.open_next().unwrap();
    }
    assert_eq!(["a", "c", "d"].map(|name| state(&switch, name)), [PortState::Up, PortState::Up, PortState::Down]);
    assert_eq!(world(|world| world.taken.keys().cloned().collect::<Vec<_>>()), ["v", "w", "x"]);

    drop(switch);
    let mut refused = entered(&(veth("a", "x", "") + &veth("b", "y", "")));
    let mut refused = refused.errand();
    world(|world| world.refuses.insert("b".to_owned()));
    refused.open_next().unwrap();
    let refusal = refused.open_next().unwrap_err();
    assert_eq!((refusal.key.as_str(), refusal.reason.as_str()), ("ports.b", "y can't be opened; use another device"));
}
