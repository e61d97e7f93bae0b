//! Proves that what a front end does with its socket, its descriptors and its doorbells costs nobody else anything:
//! descriptors whose close waits, interrupts that block, and whoever waits for the place of another.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::thread::sleep;
use std::time::Duration;

use labsw_tests::arena::{Arena, EVIL, WEB};
use labsw_tests::attacks;
use labsw_tests::hostile::{FrontEnd, Script, Wire};
use labsw_tests::packet::{BROADCAST, Frame, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::Lab;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any bound of an answer.
const LINGER_SECONDS: u64 = 12;

fn with_arena(test: impl FnOnce(&mut Arena<'_>)) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hs");
    let mut arena = Arena::start(&lab, "", &[], "");
    test(&mut arena);
    arena.finish();
}

#[test]
fn descriptors_that_linger() {
    with_arena(|arena| {
        arena.withstands("descriptors that linger", |seat| attacks::descriptors_that_linger(seat, LINGER_SECONDS));
    });
}

#[test]
fn doorbells_that_block() {
    with_arena(|arena| {
        let time = 10 * SECOND;
        let stalled = arena.stalled_by("doorbells that block", |seat| {
            println!("caught {} times", attacks::doorbell_race(seat, time));
        });
        assert!(stalled <= time / 20, "other ports stood still for {stalled:?} of {time:?}");
    });
}

/// Who waits for the place of a guest does not get that place, nor a frame, when the guest leaves.
#[test]
fn the_place_of_another() {
    with_arena(|arena| {
        let guest = arena.seat().attacker(Script::default());
        let mut thief = FrontEnd::start(&arena.seat().socket(), Script::default());
        thief.wire.wait_closed(2 * SECOND);
        drop(guest);
        let mut guest = arena.seat().attacker(Script::default());
        let web = arena.lab.socket(WEB);
        web.send(&Frame::new(BROADCAST, mac(7)).number(77).build());
        let seen = std::iter::from_fn(|| guest.receive_frame(2 * SECOND)).find(|frame| frame[6..12] == mac(7));
        assert!(seen.is_some(), "the guest that came back gets its frames");
        assert_eq!(thief.try_receive_frame(), None);
        drop(guest);
        // Many that wait at once are all turned away, and the port is free afterwards.
        let guest = arena.seat().attacker(Script::default());
        let waiting: Vec<Wire> = (0..100).map(|_| Wire::connect(&arena.seat().socket())).collect();
        waiting.into_iter().for_each(|mut wire| wire.wait_closed(5 * SECOND));
        assert_eq!(arena.switch.port_state(EVIL), "up");
        drop(guest);
        wait_for("a free port", 5 * SECOND, || (arena.switch.port(EVIL)["connected"] == false).then_some(()));
        sleep(SECOND / 10);
    });
}
