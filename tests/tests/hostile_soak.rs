//! Proves that attackers at four ports at once, each playing one attack after another at random, harm nobody: a probe
//! between two guests and the control socket keep their bounds, a numbered flow between two containers loses no frame,
//! and its mirror shows each of these frames once, in order.
//!
//! `LABSW_SOAK_SECONDS` says how long (20 if unset; `make soak` plays 20 minutes), `LABSW_SOAK_SEED` repeats a run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use labsw_tests::arena::{Arena, Seat};
use labsw_tests::attacks::{self, LARGEST_RING, QEMU_RING};
use labsw_tests::packet::RawSocket;
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::{Flow, Lab};

const ATTACKERS: [&str; 4] = ["evil", "evil1", "evil2", "evil3"];
const MORE: &str = r#"
[ports.evil1]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
[ports.evil2]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
[ports.evil3]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
[mirrors.m]
sources = ["right:tx"]
to = "span"
"#;
const PORTS: [(&str, &str); 3] = [
    ("left", r#"vlan = { mode = "access", tag = 98 }"#),
    ("right", r#"vlan = { mode = "access", tag = 98 }"#),
    ("span", "mirror_only = true"),
];
const TIME: Duration = Duration::from_millis(500);
const LINGER_SECONDS: u64 = 5;

type Attack = fn(&Seat<'_>);
const ATTACKS: [(&str, Attack); 12] = [
    ("receive chains without room", |seat| attacks::receive_chains_without_room(seat, QEMU_RING, 16)),
    ("large receive chains without room", |seat| attacks::receive_chains_without_room(seat, LARGEST_RING, 16)),
    ("packed ring full of tables", |seat| attacks::packed_ring_full_of_tables(seat, QEMU_RING)),
    ("large packed ring full of tables", |seat| attacks::packed_ring_full_of_tables(seat, LARGEST_RING)),
    ("transmit chains of nothing", |seat| attacks::transmit_chains_of_nothing(seat, TIME)),
    ("transmit chains of crumbs", |seat| attacks::transmit_chains_of_crumbs(seat, TIME)),
    ("segments of a few bytes", |seat| attacks::segments_of_a_few_bytes(seat, 8, TIME)),
    ("segments", |seat| attacks::segments_of_a_few_bytes(seat, 1448, TIME)),
    ("memory that vanishes", |seat| attacks::every_second_page_vanishes(seat, 200)),
    ("all address space", |seat| _ = attacks::all_address_space(seat)),
    ("doorbells that block", |seat| _ = attacks::doorbell_race(seat, TIME)),
    ("descriptors that linger", |seat| attacks::descriptors_that_linger(seat, LINGER_SECONDS)),
];

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The next number of a sequence that looks random.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap_or(0)
}

fn attack_at_random(seat: &Seat<'_>, mut random: u64, end: Instant) -> u32 {
    let mut played = 0;
    while Instant::now() < end {
        let (_, attack) = ATTACKS[next(&mut random) % ATTACKS.len()];
        attack(seat);
        played += 1;
    }
    played
}

/// Counts the frames of the flow at the mirror's destination; each has to be the next.
fn count_copies(span: &RawSocket, stop: &AtomicBool) -> u32 {
    let mut expected = 0;
    loop {
        let Some(frame) = span.recv(Duration::from_millis(300)) else {
            if stop.load(Ordering::Relaxed) {
                return expected;
            }
            continue;
        };
        if frame[..5] == [0x06, 0xf1, 0, 0, 0] && frame[5] == 2 {
            let number = u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]]);
            assert_eq!(number, expected, "the mirror shows another frame than the next of the flow");
            expected += 1;
        }
    }
}

#[test]
fn all_at_once() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let time = Duration::from_secs(setting("LABSW_SOAK_SECONDS").unwrap_or(20));
    let seed = setting("LABSW_SOAK_SEED").unwrap_or_else(|| std::process::id().into());
    println!("LABSW_SOAK_SEED={seed}");
    let lab = Lab::new("soak");
    let mut arena = Arena::start(&lab, "", &PORTS, MORE);
    let (span, stop) = (lab.socket("span"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let copies = scope.spawn(|| count_copies(&span, &stop));
        let flow = Flow::start(&lab, "left", "right");
        let end = Instant::now() + time;
        arena.withstands_all("all at once", |seats| {
            let played: Vec<u32> = std::thread::scope(|scope| {
                let attackers: Vec<_> = (1..)
                    .zip(ATTACKERS)
                    .map(|(n, port)| scope.spawn(move || attack_at_random(&seats.at(port), seed * n, end)))
                    .collect();
                attackers.into_iter().map(join).collect()
            });
            println!("attacks played: {played:?}");
        });
        let sent = flow.finish();
        stop.store(true, Ordering::Relaxed);
        let copied = join(copies);
        assert_eq!(copied, sent, "frames at the mirror, and frames delivered");
    });
    arena.finish();
}
