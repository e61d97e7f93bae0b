//! Trials by a clock that the test turns.

use super::*;
use crate::api::{Feed, Handler, PortState, Reply};
use crate::daemon::attach::fake::world;
use crate::daemon::tests::switch;

const A: &str = "[ports.a]\ntype='veth'\npeer='x'\n";
const B: &str = "[ports.b]\ntype='veth'\npeer='x'\nmtu=9000\n[mirrors.m]\nsources=['*']\nto='b'\n";

/// Applies a text, on trial for so many seconds.
fn apply(switch: &mut Errand<'_>, text: &str, seconds: Option<u64>, now: Instant) -> Result<usize, String> {
    let config = ConfigText { file: "new.toml".to_owned(), text: text.to_owned() };
    let wanted = WantedConfig { config, keep_runtime: false };
    let applied = switch.apply_on_trial(&wanted, seconds.map(Duration::from_secs), || now);
    applied.map(|changes| changes.len()).map_err(|error| error.to_string())
}

/// Applies a text for good.
fn apply_now(switch: &mut Errand<'_>, text: &str) -> Result<usize, String> {
    apply(switch, text, None, Instant::now())
}

fn runs(switch: &Switch, text: &str) -> bool {
    switch.running().normalised() == Config::parse(text, "x").unwrap().normalised()
}

fn told(reader: &mut dyn Feed) -> Vec<String> {
    match reader.next(Instant::now()) {
        Some((Reply::Events(told), _)) => told.events.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn what_nobody_confirms_is_taken_back_when_the_time_is_up() {
    let mut bench = switch(A);
    let mut switch = bench.errand();
    switch.switch_port("a", false).unwrap();
    switch.notice_changes();
    let (given, now) = (switch.given.clone(), Instant::now());
    let mut reader = switch.monitor(0).unwrap();
    assert_eq!(apply(&mut switch, B, Some(30), now), Ok(3));
    switch.tick_trial(now + Duration::from_secs(20));
    assert!(runs(&switch, B));
    let waits = switch.show_trial(now + Duration::from_secs(20)).unwrap();
    assert_eq!(waits.to_string(), "new.toml waits 10s more for its confirmation");
    // What is changed meanwhile goes as well.
    let more = crate::config::PortConfig::from_settings("c", "tap", &serde_json::Map::new(), &switch.config).unwrap();
    switch.add_port(more).unwrap();
    switch.notice_changes();
    told(&mut *reader);
    switch.tick_trial(now + Duration::from_secs(30));
    assert!(runs(&switch, A) && switch.given == given && switch.show_trial(now).is_none());
    assert_eq!(switch.ports.get("a").unwrap().state().0, PortState::Down, "it was off before");
    let events = told(&mut *reader);
    assert_eq!(events[0], "file new.toml taken back, 4 changes: nobody confirmed it within 30s");
    assert!(events.contains(&"port b removed".to_owned()), "{events:?}");
    assert_eq!(apply(&mut switch, B, Some(30), now), Ok(3), "another trial");
}

#[test]
fn what_is_confirmed_stays() {
    let mut bench = switch(A);
    let mut switch = bench.errand();
    let now = Instant::now();
    let mut reader = switch.monitor(0).unwrap();
    apply(&mut switch, B, Some(30), now).unwrap();
    assert!(switch.confirm_config().is_ok());
    assert_eq!(told(&mut *reader), ["file new.toml applied, 3 changes: on trial for 30s", "file new.toml confirmed"]);
    switch.tick_trial(now + Duration::from_secs(100));
    assert!(runs(&switch, B) && switch.show_trial(now).is_none());
    let nothing = "config: no configuration waits for its confirmation";
    assert_eq!(switch.confirm_config().unwrap_err().to_string(), nothing);
    assert_eq!(switch.revert_config().unwrap_err().to_string(), nothing);
}

#[test]
fn nothing_else_is_applied_during_a_trial() {
    let mut bench = switch(A);
    let mut switch = bench.errand();
    let now = Instant::now();
    apply(&mut switch, B, Some(3600), now).unwrap();
    for seconds in [None, Some(5)] {
        let refused = apply(&mut switch, A, seconds, now).unwrap_err();
        assert!(refused.starts_with("new.toml: new.toml waits ") && refused.contains("config revert"), "{refused}");
        assert_eq!(refused.lines().count(), 1);
    }
    assert!(runs(&switch, B));
    assert_eq!(switch.revert_config().unwrap().len(), 3);
    assert!(runs(&switch, A));
    assert_eq!(apply_now(&mut switch, B), Ok(3));
}

#[test]
fn a_trial_that_is_refused_or_has_an_odd_time_does_not_begin() {
    let mut bench = switch(A);
    let mut switch = bench.errand();
    let now = Instant::now();
    for seconds in [0, 24 * 3600 + 1] {
        let refused = apply(&mut switch, B, Some(seconds), now).unwrap_err();
        assert!(refused.ends_with("is not between 1s and 1day"), "{refused}");
    }
    world(|world| world.refuses.insert("b".to_owned()));
    assert!(apply(&mut switch, B, Some(30), now).is_err());
    assert!(switch.show_trial(now).is_none() && runs(&switch, A));
}

#[test]
fn a_step_back_that_fails_keeps_no_other_from_being_taken() {
    let mut bench = switch(&format!("{A}[switch]\nmac_ageing='60s'\n"));
    let mut switch = bench.errand();
    let now = Instant::now();
    apply(&mut switch, &B.replace("'x'", "'y'"), Some(30), now).unwrap();
    let mut reader = switch.monitor(0).unwrap();
    world(|world| world.refuses.insert("a".to_owned()));
    switch.tick_trial(now + Duration::from_secs(30));
    let events = told(&mut *reader);
    assert!(events[0].contains("within 30s; not in full: ") && events[0].contains("x can't be opened"), "{events:?}");
    assert!(switch.ports.find("b").is_none() && switch.mirrors.get("m").is_err());
    assert_eq!(switch.config.mac_ageing, Duration::from_secs(60));
}
