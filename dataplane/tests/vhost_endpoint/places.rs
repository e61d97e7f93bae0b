//! Who gets the place of the one front end, who is turned away, and who is served later and later.

use super::*;

#[test]
fn a_second_front_end_is_turned_away_at_once_and_the_owner_is_named() {
    let mut harness = Harness::new("busy", Role::Server);
    let mut guest = Guest::new(VERSION_1, 64);
    let mut first = harness.connect();
    qemu_without_features(&mut harness, &mut first, &guest);
    let owner = harness.endpoint.status().front_end.unwrap();
    assert_eq!((owner.pid, owner.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
    for turned_away in 1..=40 {
        let mut second = harness.connect();
        assert!(harness.during(|| second.is_closed()));
        assert_eq!(harness.endpoint.status().turned_away, turned_away);
    }
    // The owner has not noticed.
    assert_frames_pass(&harness, &mut guest);
    // The same guest restarted, before the switch has seen the first one leave: it tries again, as QEMU does.
    drop(first);
    let mut again = Front(UnixStream::connect(&harness.path).unwrap());
    assert!(harness.during(|| again.is_closed()));
    let mut again = harness.connect();
    harness.until("served", |endpoint| endpoint.status().connected);
    let mut guest = Guest::new(VERSION_1, 64);
    qemu_without_features(&mut harness, &mut again, &guest);
    assert_frames_pass(&harness, &mut guest);
}

#[test]
fn who_waits_behind_a_front_end_never_gets_its_place() {
    let mut harness = Harness::new("backlog", Role::Server);
    let mut guest = Guest::new(VERSION_1, 64);
    let mut first = harness.connect();
    qemu_without_features(&mut harness, &mut first, &guest);
    // They connect while the control thread looks elsewhere; then the worker reports the owner's fault.
    let mut thieves: Vec<Front> = (0..5).map(|_| harness.connect()).collect();
    let fault = provoke(&harness, &mut guest);
    assert!(harness.endpoint.fault(&fault, Instant::now()));
    for thief in &mut thieves {
        assert!(harness.during(|| thief.is_closed()));
    }
    let status = harness.endpoint.status();
    assert_eq!((status.connected, status.turned_away), (false, 5));
    harness.endpoint.forgive(Instant::now());
    // The same when the owner just leaves, whichever of the two events the control thread sees first.
    for leaves_first in [false, true] {
        let mut owner = harness.connect();
        harness.ask(&mut owner, GET_FEATURES, &[]);
        let before = harness.endpoint.status().turned_away;
        let connect = || Front(UnixStream::connect(&harness.path).unwrap());
        let mut thieves: Vec<Front> = (0..5).map(|_| connect()).collect();
        drop(owner);
        if leaves_first {
            harness.endpoint.ready(frontend::CONNECTION, Instant::now());
        }
        for thief in &mut thieves {
            assert!(harness.during(|| thief.is_closed()));
        }
        let status = harness.endpoint.status();
        assert_eq!((status.connected, status.turned_away - before), (false, 5));
    }
}

#[test]
fn who_says_nothing_loses_the_place_to_who_comes() {
    let mut harness = Harness::new("mute", Role::Server);
    let mut mute = Front(UnixStream::connect(&harness.path).unwrap());
    harness.until("connected", |endpoint| endpoint.status().connected);
    let begin = Instant::now();
    // Each try is turned away at once, until the silent one has to go.
    let mut guest = loop {
        let mut guest = Front(UnixStream::connect(&harness.path).unwrap());
        guest.send(GET_FEATURES, &[], &[]);
        if harness.during(|| !guest.is_closed()) {
            break guest;
        }
    };
    assert!(mute.is_closed());
    let (took, status) = (begin.elapsed(), harness.endpoint.status());
    let contested = config(&harness.path, Role::Server).timing.contested;
    assert!(took >= contested / 2 && took < config(&harness.path, Role::Server).timing.patience, "{took:?}");
    // That was no fault, and who has spoken is left alone.
    assert_eq!((status.state, status.waits), (EndpointState::Waiting, None));
    let mut late = Front(UnixStream::connect(&harness.path).unwrap());
    assert!(harness.during(|| late.is_closed()));
    std::thread::sleep(2 * contested);
    assert_ne!(harness.ask(&mut guest, GET_FEATURES, &[]), 0);
}

#[test]
fn front_ends_of_another_user_are_turned_away() {
    let path = socket_path("uid");
    for (wanted, served) in [(0, rustix::process::geteuid().is_root()), (4242, false)] {
        let config = EndpointConfig { peer_uid: Some(wanted), ..config(&path, Role::Server) };
        let mut harness = Harness::with(config);
        let mut front = Front(UnixStream::connect(&path).unwrap());
        if served {
            harness.until("served", |endpoint| endpoint.status().connected);
        } else {
            assert!(harness.during(|| front.is_closed()));
            let reason = harness.endpoint.status().reason.unwrap();
            assert!(reason.contains(&format!("pid {}", std::process::id())), "{reason}");
            assert!(reason.contains("peer_uid is 4242"), "{reason}");
        }
    }
}

#[test]
fn a_front_end_that_breaks_its_ring_again_and_again_is_served_later_and_later() {
    let mut harness = Harness::new("again", Role::Server);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let begin = Instant::now();
        let front = Front(UnixStream::connect(&harness.path).unwrap());
        harness.until("served", |endpoint| endpoint.status().connected);
        waits.push(begin.elapsed());
        front.send(9999, &[], &[]);
        harness.until("failed", |endpoint| endpoint.status().state == EndpointState::Failed);
    }
    let least = [0, 20, 40, 80, 160, 160].map(Duration::from_millis);
    // A little of each wait was over before the next front end connected.
    let margin = Duration::from_millis(15);
    assert!(waits.iter().zip(least).all(|(wait, least)| *wait + margin >= least), "{waits:?}");
    // A word of the administrator ends the wait.
    let front = Front(UnixStream::connect(&harness.path).unwrap());
    harness.endpoint.forgive(Instant::now());
    assert!(harness.endpoint.status().connected);
    // Who just comes and goes is at no fault.
    drop(front);
    for _ in 0..20 {
        harness.until("gone", |endpoint| !endpoint.status().connected);
        drop(Front(UnixStream::connect(&harness.path).unwrap()));
        harness.turn();
        let status = harness.endpoint.status();
        assert_eq!((status.waits, status.turned_away), (None, 0), "{:?}", status.reason);
    }
}

#[test]
fn descriptors_that_take_long_to_close_hold_up_nobody() {
    let mut harness = Harness::new("linger", Role::Server);
    let linger = Duration::from_secs(3);
    let mut unread = Vec::new();
    let mut lingering = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        unread.push(listener.accept().unwrap().0);
        stream.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut stream, &[0; 65536]).is_ok() {}
        rustix::net::sockopt::set_socket_linger(&stream, Some(linger)).unwrap();
        stream
    };
    let [first, second, unseen, last] = [lingering(), lingering(), lingering(), lingering()];
    let slow: Vec<std::net::TcpStream> = (0..34).map(|_| lingering()).collect();
    let begin = Instant::now();
    // With a request that takes none, beyond what a message may bring, and never read: in the backlog, then in the
    // connection that is closed for the first.
    let front = harness.connect();
    for fd in [first, second] {
        front.send(GET_FEATURES, &[], &[fd.as_fd()]);
    }
    let behind = Front(UnixStream::connect(&harness.path).unwrap());
    behind.send(GET_FEATURES, &[], &[unseen.as_fd()]);
    drop((behind, unseen));
    let third = Front(UnixStream::connect(&harness.path).unwrap());
    third.send(GET_FEATURES, &[], &slow.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    drop(slow);
    let reason = harness.rejection();
    assert!(reason.contains("GET_FEATURES") && reason.contains("descriptor"), "{reason}");
    harness.until("the others are turned away", |endpoint| endpoint.status().turned_away == 2);
    let front = harness.connect();
    front.send(GET_FEATURES, &[], &[last.as_fd()]);
    drop(last);
    assert!(harness.rejection().contains("descriptor"));
    assert!(begin.elapsed() < linger, "{:?}", begin.elapsed());
}
