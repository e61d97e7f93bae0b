//! Proves that frames which lie, change or are never taken harm nobody: a rogue DHCP server behind a guard gets
//! nobody a lease from whatever port it answers, a mirror shows what the victim got of frames that change on their
//! way, and a container that keeps its frames costs others none.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use labsw_tests::arena::{Arena, WEB};
use labsw_tests::attacks;
use labsw_tests::hostile::Script;
use labsw_tests::packet::RawSocket;
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::{Flow, Lab};

const QUIET: Duration = Duration::from_millis(300);
const VLAN: &str = r#"vlan = { mode = "access", tag = 98 }"#;
const KEEPER: &str = "vlan = { mode = \"access\", tag = 10 }\nqueues = 8";

fn with_arena(ports: &[(&str, &str)], more: &str, test: impl FnOnce(&mut Arena<'_>)) {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("busybox"), Need::Program("tc")]) {
        return;
    }
    let lab = Lab::new("hf");
    let mut arena = Arena::start(&lab, "", ports, more);
    test(&mut arena);
    arena.finish();
}

/// Whether a client in the container gets a lease.
fn gets_a_lease(lab: &Lab) -> bool {
    let mut client = Command::new("ip");
    client.args(["netns", "exec", lab.peers.name(), "busybox", "udhcpc", "-i", WEB, "-n", "-q", "-f"]);
    let (status, printed) = process::output(client.args(["-s", "/bin/true", "-T", "1", "-A", "1", "-t", "2"]));
    println!("{printed}");
    status.success()
}

#[test]
fn a_dhcp_server_that_answers_from_another_port() {
    const ROGUE: &str = "[ports.rogue]\ntype = \"vhost_user\"\nvlan = { mode = \"access\", tag = 10 }\n\
                         dhcp_guard = true\n";
    with_arena(&[], ROGUE, |arena| {
        let lab = arena.lab;
        let mut leased = [true; 2];
        arena.withstands_all("a rogue DHCP server", |seats| {
            let seat = seats.at("rogue");
            let mut front = seat.attacker(Script::default());
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| attacks::dhcp::serve(&mut front, 1067, &stop));
                leased[0] = gets_a_lease(lab);
                // Clients would have believed it.
                seat.switch.ctl(&["port", "set", "rogue", "dhcp_guard=false"]);
                leased[1] = gets_a_lease(lab);
                stop.store(true, Ordering::Relaxed);
            });
        });
        assert_eq!(leased, [false, true], "a lease with the guard, and without");
        assert!(arena.switch.drops("rogue", "dhcp_guard") > 0);
    });
}

/// What a socket has got of the attack: the bytes that changed, by the number of the frame.
fn seen(socket: &RawSocket) -> BTreeMap<[u8; 4], Vec<u8>> {
    let frames = std::iter::from_fn(|| socket.recv(QUIET));
    let ours = frames.filter(|frame| frame.len() >= attacks::CHANGING.end && frame[6..12] == attacks::CHANGING_FROM);
    ours.map(|frame| ([frame[14], frame[15], frame[16], frame[17]], frame[attacks::CHANGING].to_vec())).collect()
}

#[test]
fn frames_that_change_on_their_way() {
    const MIRROR: &str = "[mirrors.m]\nsources = [\"evil:rx\"]\nto = \"span\"\n";
    with_arena(&[("span", "mirror_only = true")], MIRROR, |arena| {
        let (web, span) = (arena.lab.socket(WEB), arena.lab.socket("span"));
        arena.withstands("frames that change on their way", |seat| attacks::frames_that_change(seat, 6400));
        let (victim, sensor) = (seen(&web), seen(&span));
        let both: Vec<_> = victim.iter().filter_map(|(number, got)| Some((got, sensor.get(number)?))).collect();
        let differ = both.iter().filter(|(got, shown)| got != shown).count();
        let mixed = both.iter().filter(|(got, _)| got.iter().any(|byte| *byte != got[0])).count();
        println!("{} frames seen by both, {mixed} of them caught in the middle of a change", both.len());
        assert_eq!(differ, 0, "frames that the sensor saw otherwise than the victim");
        assert!(both.len() > 3200 && mixed > 0, "{} frames, {mixed} mixed", both.len());
    });
}

#[test]
fn frames_that_a_container_keeps() {
    with_arena(&[("keeper", KEEPER), ("inn", VLAN), ("out", VLAN)], "", |arena| {
        if !attacks::keep_frames(&arena.lab.peers, "keeper") {
            return;
        }
        let flow = Flow::start(arena.lab, "inn", "out");
        arena.withstands("frames that a container keeps", |seat| attacks::fill_a_keeper(seat, 20_000));
        assert!(arena.switch.drops("keeper", "held_by_peer") > 0, "{}", arena.switch.port("keeper"));
        assert!(flow.finish() > 100);
        arena.lab.peers.ip(&["link", "del", "ifb0"]);
    });
}
