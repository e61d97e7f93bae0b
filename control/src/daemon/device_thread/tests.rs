//! The device thread at work while the test plays the control thread.

use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};

use super::*;
use crate::api::{Change, Handler, InjectFrame, Peer, PortState, Request};
use crate::daemon::attach::fake::world;
use crate::daemon::tests::{Bench, switch};

/// Longest wait for something that has to happen. A machine may be busy.
const SOON: Duration = Duration::from_secs(20);

/// A switch with a port, and its device thread, which has opened all ports.
fn begin(text: &str) -> (Arc<Mutex<Switch>>, DeviceThread) {
    let Bench { switch, host, waker } = switch(text);
    let mut devices = DeviceThread::start(Arc::clone(&switch), host, waker).unwrap();
    assert!(!devices.is_idle(), "not before its ports are open");
    assert!(matches!(next(&mut devices), News::Opened));
    assert!(devices.is_idle());
    (switch, devices)
}

fn next(devices: &mut DeviceThread) -> News {
    let news = wait(|| devices.next());
    if let News::Refused(refusal) = &news {
        panic!("{refusal:?}");
    }
    news
}

fn wait<T>(mut until: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = until() {
            return found;
        }
        assert!(begin.elapsed() < SOON, "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Makes the opening of a port wait for the returned sender.
fn slow(port: &str) -> Sender<()> {
    let (go_on, waits) = bounded(1);
    world(|world| world.slow.insert(port.to_owned(), waits));
    go_on
}

fn reload(text: &str) -> Job {
    Job::Reload(ConfigText { file: "x.toml".to_owned(), text: text.to_owned() })
}

fn veth(name: &str, peer: &str) -> String {
    format!("[ports.{name}]\ntype='veth'\npeer='{peer}'\n")
}

fn state(switch: &Mutex<Switch>, port: &str) -> Option<PortState> {
    switch.lock().show_port(port).ok().map(|port| port.state)
}

#[test]
fn no_more_than_so_many_requests_wait() {
    let a = veth("a", "x");
    let (switch, mut devices) = begin(&a);
    let go_on = slow("b");
    devices.send(reload(&(a.clone() + &veth("b", "y"))));
    let mut sent = 1;
    while devices.has_room() {
        devices.send(reload(&a));
        sent += 1;
        assert!(sent <= MOST_JOBS);
    }
    assert_eq!(sent, MOST_JOBS);
    go_on.send(()).unwrap();
    for _ in 0..sent {
        assert!(matches!(next(&mut devices), News::Reloaded(_)));
    }
    assert!(devices.has_room() && devices.is_idle());
    assert_eq!(state(&switch, "b"), None, "the last change is the one that holds");
}

#[test]
fn while_a_port_is_opened_the_switch_is_free_and_other_changes_wait() {
    let a = veth("a", "x");
    let (switch, mut devices) = begin(&a);
    let go_on = slow("b");
    devices.send(reload(&(a.clone() + &veth("b", "y"))));
    devices.send(reload(&(a + &veth("c", "z"))));
    devices.want(Regular::Second);
    devices.want(Regular::Second);
    wait(|| (state(&switch, "b") == Some(PortState::Opening)).then_some(()));
    // The lock is free, and what is shown is true.
    for _ in 0..10 {
        assert_eq!(state(&switch, "a"), Some(PortState::Up));
        assert_eq!(state(&switch, "b"), Some(PortState::Opening));
        assert_eq!(state(&switch, "c"), None, "the second change waits");
        switch.lock().notice_states();
    }
    assert!(devices.next().is_none() && !devices.is_idle() && devices.does(Regular::Second));
    go_on.send(()).unwrap();
    assert!(matches!(next(&mut devices), News::Reloaded(Ok(()))));
    assert!(matches!(next(&mut devices), News::Reloaded(Ok(()))));
    assert_eq!([state(&switch, "b"), state(&switch, "c")], [None, Some(PortState::Up)]);
    assert!(matches!(next(&mut devices), News::Did(Regular::Second)));
    assert!(devices.next().is_none() && devices.is_idle(), "once");
    devices.end(SOON);
    assert!(switch.lock().ports.names().is_empty() && world(|world| world.taken.is_empty()));
}

#[test]
fn a_change_that_is_refused_late_leaves_everything_as_it_was() {
    let from = veth("a", "x") + &veth("d", "w");
    let (switch, mut devices) = begin(&from);
    let before = switch.lock().running().normalised();
    let go_on = slow("b");
    world(|world| world.refuses.insert("c".to_owned()));
    devices.send(reload(&(veth("a", "v") + &veth("b", "y") + &veth("c", "z"))));
    wait(|| (state(&switch, "b") == Some(PortState::Opening)).then_some(()));
    go_on.send(()).unwrap();
    let News::Reloaded(Err(error)) = next(&mut devices) else { panic!("not refused") };
    assert!(error.to_string().ends_with("nothing was changed"), "{error}");
    assert_eq!(switch.lock().running().normalised(), before);
    assert_eq!(world(|world| world.taken.keys().cloned().collect::<Vec<_>>()), ["w", "x"]);
    devices.end(SOON);
}

#[test]
fn nothing_is_left_of_an_injection_into_a_port_that_can_not_be_opened() {
    let (switch, mut devices) = begin(&veth("a", "x"));
    let go_on = slow("b");
    world(|world| world.refuses.insert("b".to_owned()));
    devices.send(reload(&(veth("a", "x") + &veth("b", "y"))));
    wait(|| (state(&switch, "b") == Some(PortState::Opening)).then_some(()));
    let port = "b".to_owned();
    let injection = Change::Inject { port, injection: None, beside: None, frames: Vec::new(), end: false };
    switch.lock().call(&Peer::new(0, 0, 1, true), Request::Change(injection)).unwrap();
    assert!(!switch.lock().injections.is_empty());
    go_on.send(()).unwrap();
    assert!(matches!(next(&mut devices), News::Reloaded(Err(_))));
    assert!(switch.lock().injections.is_empty(), "the next port may get the number of this one");
    devices.end(SOON);
}

#[test]
fn injections_beside_each_other_count_from_the_same_moment() {
    let (switch, devices) = begin(&(veth("a", "x") + &veth("b", "y")));
    let call = |port: &str, injection, beside, frames| {
        let change = Change::Inject { port: port.to_owned(), injection, beside, frames, end: false };
        switch.lock().call(&Peer::new(0, 0, 1, true), Request::Change(change))
    };
    call("a", None, None, Vec::new()).unwrap();
    assert_eq!(switch.lock().injections.starts(), [None], "from its first frame");
    call("b", None, Some(1), Vec::new()).unwrap();
    let starts = switch.lock().injections.starts();
    assert!(starts[0].is_some() && starts[0] == starts[1], "{starts:?}");
    call("a", Some(1), None, vec![InjectFrame::new(5, &[0; 60])]).unwrap();
    assert_eq!(switch.lock().injections.starts(), starts);
    let refused = call("b", None, Some(77), Vec::new()).unwrap_err();
    assert_eq!(refused.to_string(), "injection \"77\" does not exist");
    assert_eq!(switch.lock().injections.starts().len(), 2);
    devices.end(SOON);
}

#[test]
fn the_end_comes_after_the_port_that_is_being_opened_and_before_the_rest() {
    let (switch, mut devices) = begin("");
    let go_on = slow("a");
    devices.send(reload(&(veth("a", "x") + &veth("b", "y"))));
    devices.send(reload(&veth("c", "z")));
    wait(|| (state(&switch, "a") == Some(PortState::Opening)).then_some(()));
    switch.lock().ending = true;
    let opened = world(|world| world.opened);
    let end = std::thread::spawn(move || devices.end(SOON));
    go_on.send(()).unwrap();
    end.join().unwrap();
    assert_eq!(world(|world| world.opened), opened + 1, "the other ports are not opened any more");
    assert!(switch.lock().ports.names().is_empty() && world(|world| world.taken.is_empty()));
}

/// All ports leave the tables at once: one by one, each would cost a look at all others.
#[test]
fn many_ports_are_closed_in_a_moment() {
    const PORTS: usize = 500;
    let ports: String = (0..PORTS).map(|n| veth(&format!("p{n}"), &format!("x{n}"))).collect();
    let (switch, devices) = begin(&ports);
    assert_eq!(world(|world| world.taken.len()), PORTS);
    let began = Instant::now();
    devices.end(SOON);
    let took = began.elapsed();
    assert!(switch.lock().ports.names().is_empty() && world(|world| world.taken.is_empty()));
    assert!(took < LAST_PATIENCE, "{took:?}");
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let (switch, mut devices) = begin("");
    let never = slow("a");
    devices.send(reload(&veth("a", "x")));
    wait(|| (state(&switch, "a") == Some(PortState::Opening)).then_some(()));
    switch.lock().ending = true;
    devices.end(Duration::from_millis(50));
    assert_eq!(state(&switch, "a"), Some(PortState::Opening), "left to the next run");
    drop(never);
    wait(|| switch.lock().ports.names().is_empty().then_some(()));
}
