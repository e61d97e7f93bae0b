//! Proves that a hostile guest kernel harms nobody but its own port: `labsw-hostile-guest` runs in two virtual machines
//! at once, one with split and one with packed rings, and breaks rings, headers, resets and negotiation from inside,
//! case after case. After each case its device works again. All the while a frame between two other guests, and an
//! answer of the control socket, take no longer than [`Bounds`](labsw_tests::arena::Bounds) say.
//!
//! Before that the guests' stock drivers send offload requests of a program's choice, as any root may in a guest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers report by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use labsw_tests::arena::{Arena, EVIL, Forgiver, WEB};
use labsw_tests::checksum::{request, sum, with_checksum};
use labsw_tests::guest::{Guest, MEMORY_MIB, Nic};
use labsw_tests::packet::{BROADCAST, ETHERTYPE_TEST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::find_binary;
use labsw_tests::veth_lab::Lab;

const PROGRAM: &str = "labsw-hostile-guest";
const PACKED: &str = "packed";
const MORE: &str = r#"
[ports.packed]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
"#;
/// The guest kernel has the memory below, the hostile program the rest.
const KERNEL_MIB: u32 = 128;
const PATIENCE: Duration = Duration::from_secs(100);
/// Cases of each layout at least.
const CASES: usize = 80;
/// The neighbour that answers the guests.
const NEIGHBOUR: Mac = [0x02, 0, 0, 0, 0, 7];

/// Sends each frame for the neighbour back, until told to stop.
fn echo(socket: &RawSocket, stop: &AtomicBool) {
    assert_eq!(NEIGHBOUR, mac(7));
    socket.send(&Frame::new(BROADCAST, NEIGHBOUR).build());
    while !stop.load(Ordering::Relaxed) {
        let Some(frame) = socket.recv(Duration::from_millis(200)) else { continue };
        if frame[..6] == NEIGHBOUR && frame[12..14] == ETHERTYPE_TEST.to_be_bytes() {
            let _ = socket.try_send(&[&frame[6..12], &frame[..6], &frame[12..]].concat());
        }
    }
}

/// A program in the guest has the stock driver ask for checksums. Those that would write a tag of another VLAN, or
/// another source, end at the switch; one as the kernel itself makes is carried out.
fn asks_by_the_stock_driver(guest: &mut Guest, n: u8, port: &str, arena: &Arena<'_>, web: &RawSocket) {
    const BODY: [u8; 60] = [0x5a; 60];
    let me = [0x52, 0x54, 0, 0, 0, n];
    let frame = |ethertype, payload: &[u8]| Frame::new(BROADCAST, me).ethertype(ethertype).payload(payload).build();
    let mut ask = |start, offset, frame: &[u8]| {
        let bytes = [&request(start, offset)[..10], frame].concat();
        let bytes: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        guest.ok(&format!("ip link set eth0 up && {PROGRAM} request eth0 {bytes}"));
    };
    let tag = frame(ETHERTYPE_TEST, &[&[0, 20, 8, 0], &BODY[..]].concat());
    for (refused, field, wanted, disguised) in [(1, 12, 0x8100, tag), (2, 10, 1, frame(ETHERTYPE_TEST, &BODY))] {
        ask(field, 0, &with_checksum(disguised, field.into(), wanted));
        wait_for("the count of the request", PATIENCE, || {
            (arena.switch.drops(port, "bad_offload") == refused).then_some(())
        });
    }
    let packet =
        [&[0x45, 0, 0, 88, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 9, 10, 0, 0, 8][..], &[0, 9, 0, 9, 0, 68, 0, 0]];
    let mut expected = frame(0x0800, &[&packet.concat(), &BODY[..]].concat());
    ask(34, 6, &expected);
    let checksum = !sum(&[&expected[34..]]);
    expected[40..42].copy_from_slice(&checksum.to_be_bytes());
    // The first of the three that comes out.
    let has_body = |frame: &[u8]| frame.windows(8).any(|bytes| bytes == [0x5a; 8]);
    assert_eq!(web.recv_matching(PATIENCE, has_body), Some(expected), "{port}");
}

/// Without a word from anybody a guest that breaks its ring is served again after a wait, each longer than the last.
fn waits_by_itself(guest: &mut Guest) {
    let running = guest.begin(&format!("{PROGRAM} faults {KERNEL_MIB} {MEMORY_MIB}"));
    let (status, printed) = guest.finish(running, PATIENCE);
    println!("{printed}");
    assert_eq!(status, 0, "{printed}");
}

/// Holds what a guest printed against the tables: all cases as they should be.
fn judge(layout: &str, (status, printed): &(i32, String)) {
    let bad: Vec<&str> = printed.lines().filter(|line| line.starts_with("BAD")).collect();
    let good = printed.lines().filter(|line| line.starts_with("ok")).count();
    assert!(bad.is_empty(), "{layout}: {bad:#?}");
    assert_eq!(*status, 0, "{layout}: the program ended early: {printed}");
    assert!(good >= CASES, "{layout}: {good} cases: {printed}");
    println!("{layout}: {good} cases end as they should");
}

#[test]
fn a_hostile_guest_kernel() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let lab = Lab::new("hg");
    let mut arena = Arena::start(&lab, "", &[], MORE);
    let program = find_binary(PROGRAM).unwrap();
    let nic = |port: &str, n: u8| {
        let nic = Nic::new(arena.switch.vhost_socket(port), n);
        Nic { reconnect_ms: 20, packed: port == PACKED, ..nic }
    };
    let boot = |port: &str, n: u8| {
        let image = lab.site.dir().join(format!("{port}.cpio"));
        Guest::boot_with_program(port, &nic(port, n), &program, KERNEL_MIB, &image)
    };
    let mut guests = [boot(EVIL, 1), boot(PACKED, 2)];
    guests.iter_mut().for_each(Guest::ready);
    let (neighbour, stop) = (lab.socket(WEB), AtomicBool::new(false));
    for ((guest, port), n) in guests.iter_mut().zip([EVIL, PACKED]).zip(1..) {
        asks_by_the_stock_driver(guest, n, port, &arena, &neighbour);
    }
    let mut printed = vec![];
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&neighbour, &stop));
        let forgiver = Forgiver::start(lab.site.control_socket(), &[EVIL, PACKED]);
        arena.withstands("two hostile guest kernels", |_| {
            let command = |layout: &str| format!("{PROGRAM} {layout} {KERNEL_MIB} {MEMORY_MIB}");
            let layouts = ["split", "packed"];
            let running: Vec<_> =
                guests.iter_mut().zip(layouts).map(|(guest, layout)| guest.begin(&command(layout))).collect();
            printed = guests.iter_mut().zip(running).map(|(guest, running)| guest.finish(running, PATIENCE)).collect();
        });
        drop(forgiver);
        waits_by_itself(&mut guests[0]);
        stop.store(true, Ordering::Relaxed);
    });
    judge("split rings", &printed[0]);
    judge("packed rings", &printed[1]);
    drop(guests);
    arena.finish();
}
