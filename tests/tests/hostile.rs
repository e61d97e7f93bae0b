//! Proves that a hostile vhost-user front end harms nobody but its own port: whatever it sends, shares or does to its
//! rings, the port is reset with a reason that says what was wrong, every descriptor it sent is closed, the switch runs
//! on, and the next, well-behaved front end can use the same port at once. All the while numbered frames flow between
//! two other ports; each of them arrives.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use labsw_tests::hostile::request::{
    ADD_MEM_REG, GET_FEATURES, GET_VRING_BASE, REM_MEM_REG, SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_VRING_CALL,
    SET_VRING_ENABLE, SET_VRING_ERR, SET_VRING_KICK, SET_VRING_NUM,
};
use labsw_tests::hostile::{
    FrontEnd, GUEST_START, INDIRECT, MEMORY_BYTES, NEXT, RING_SIZE, RX, Script, TX, USER_START, VERSION, WRITE, Wire,
    descriptor_bytes,
};
use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::target::{Target, VICTIM};
use labsw_tests::veth_lab::Lab;
use rustix::fs::OFlags;

const SECOND: Duration = Duration::from_secs(1);
/// How long a front end may be silent after connecting.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The first address behind the guest's memory.
const OUTSIDE: u64 = GUEST_START + MEMORY_BYTES;

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

fn pipe() -> [OwnedFd; 2] {
    let (read, write) = rustix::pipe::pipe().unwrap();
    [read, write]
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

#[test]
fn messages_that_make_no_sense() {
    if !needs() {
        return;
    }
    let lab = Lab::new("hm");
    let mut target = Target::new(&lab);
    random_bytes(&mut target);
    messages_of_a_wrong_shape(&mut target);
    requests_that_ask_too_much(&mut target);
    doorbells_that_are_none(&mut target);
    target.use_well("messages that make no sense");
    target.finish();
}

/// Noise of many lengths.
fn random_bytes(target: &mut Target<'_>) {
    let mut random = 0x9e37_79b9_u32;
    for round in 0..30 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random.to_be_bytes()[0]
        })
        .take(64 + 100 * round)
        .collect();
        target.hangs_up("random bytes", "has flags", |wire| drop(wire.raw(&noise, &[])));
    }
}

/// Messages whose header, size or descriptors do not fit the request.
fn messages_of_a_wrong_shape(target: &mut Target<'_>) {
    let null = null();
    let many = |count: usize| -> Vec<BorrowedFd<'_>> { vec![null.as_fd(); count] };
    target.hangs_up("a huge size", "payload of 4294967295 bytes", |wire| {
        wire.message(GET_FEATURES, VERSION, u32::MAX, &[], &[]);
    });
    target.hangs_up("a huge size with descriptors", "payload of 65536 bytes", |wire| {
        wire.message(SET_MEM_TABLE, VERSION, 65536, &[0; 4096], &many(8));
    });
    target.hangs_up("a reply instead of a request", "has flags 0x5", |wire| {
        wire.message(GET_FEATURES, VERSION | 4, 8, &[0; 8], &[]);
    });
    target.hangs_up("an unknown request", "9999", |wire| {
        wire.request(9999, &[], &[]);
    });
    target.hangs_up("request 0", "request 0", |wire| {
        wire.request(0, &[], &[]);
    });
    target.hangs_up("a payload that is too short", "SET_FEATURES", |wire| {
        wire.message(SET_FEATURES, VERSION, 4, &[1; 4], &[]);
    });
    target.hangs_up("a payload that is too long", "GET_FEATURES", |wire| {
        wire.request(GET_FEATURES, &[1, 2, 3], &[]);
    });
    target.hangs_up("eight descriptors where none belongs", "8", |wire| {
        wire.request(GET_FEATURES, &[], &many(8));
    });
    target.hangs_up("forty descriptors", "more than 32", |wire| {
        wire.request(SET_OWNER, &[], &many(40));
    });
    target.hangs_up("descriptors in the middle of a message", "middle", |wire| {
        let message = [SET_FEATURES, VERSION, 8, 0, 0].map(u32::to_ne_bytes).concat();
        wire.raw(&message[..6], &[]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let _ = wire.raw(&message[6..], &many(3));
    });
}

/// Whole messages that ask for things that are not there.
fn requests_that_ask_too_much(target: &mut Target<'_>) {
    let null = null();
    let many = |count: usize| -> Vec<BorrowedFd<'_>> { vec![null.as_fd(); count] };
    target.hangs_up("features nobody offered", "not offered", |wire| {
        wire.request(SET_FEATURES, &[!0], &[]);
    });
    target.hangs_up("a ring that does not exist", "ring 200", |wire| {
        wire.request(SET_VRING_NUM, &[200 | 64 << 32], &[]);
    });
    target.hangs_up("a ring that does not exist, enabled", "4294967295", |wire| {
        wire.request(SET_VRING_ENABLE, &[u64::from(u32::MAX) | 1 << 32], &[]);
    });
    target.hangs_up("a base of no ring", "ring 77", |wire| {
        wire.request(GET_VRING_BASE, &[77], &[]);
    });
    target.hangs_up("no descriptor with a kick", "SET_VRING_KICK", |wire| {
        wire.request(SET_VRING_KICK, &[0], &[]);
    });
    target.hangs_up("a descriptor where the kick says none", "SET_VRING_KICK", |wire| {
        wire.request(SET_VRING_KICK, &[0x100], &many(1));
    });
    target.hangs_up("a memory table without files", "SET_MEM_TABLE", |wire| {
        wire.request(SET_MEM_TABLE, &[1, 0, 4096, 0, 0], &[]);
    });
    target.hangs_up("a memory table that claims more regions", "SET_MEM_TABLE", |wire| {
        wire.request(SET_MEM_TABLE, &[8, 0, 4096, 0, 0], &many(8));
    });
    target.hangs_up("an empty memory table", "without regions", |wire| {
        wire.request(SET_MEM_TABLE, &[0], &[]);
    });
    target.hangs_up("removal of memory that is not there", "no memory region", |wire| {
        wire.request(REM_MEM_REG, &[0, 0x1000, 0x1000, 0, 0], &[]);
    });
}

/// Descriptors that are no eventfd, as doorbells.
fn doorbells_that_are_none(target: &mut Target<'_>) {
    let (null, [read, write]) = (null(), pipe());
    for (what, fd) in [("a pipe", &read), ("a pipe", &write), ("a device", &null)] {
        for code in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
            target.hangs_up(&format!("{what} as doorbell"), "eventfd", |wire| {
                wire.request(code, &[1], &[fd.as_fd()]);
            });
        }
    }
}

#[test]
fn memory_and_rings_that_are_not_there() {
    if !needs() {
        return;
    }
    let lab = Lab::new("hr");
    let mut target = Target::new(&lab);
    target.refuses("a region larger than its file", "has only", |script| script.regions[0][1] = MEMORY_BYTES + 1);
    target.refuses("a region behind the end of its file", "has only", |script| script.regions[0][3] = MEMORY_BYTES);
    target.refuses("a region without bytes", "is empty", |script| script.regions[0][1] = 0);
    for field in [0, 2, 3] {
        let what = format!("a region whose field {field} wraps");
        target.refuses(&what, "wraps", |script| script.regions[0][field] = u64::MAX - 100);
    }
    target.refuses("regions that overlap", "overlap", |script| {
        let [guest, bytes, user, offset] = script.regions[0];
        script.regions.push([guest + bytes - 1, 4096, user + 2 * bytes, offset]);
        script.files.push(script.memory.file.try_clone().unwrap());
    });
    target.refuses("regions that overlap for the front end", "overlap", |script| {
        let [guest, bytes, user, offset] = script.regions[0];
        script.regions.push([guest + 2 * bytes, 4096, user + 4096, offset]);
        script.files.push(script.memory.file.try_clone().unwrap());
    });
    target.refuses("a pipe as memory", "neither shared memory", |script| {
        script.files = vec![pipe().into_iter().next().unwrap()]
    });
    target.refuses("a device as memory", "neither shared memory", |script| {
        script.files = vec![File::options().read(true).write(true).open("/dev/zero").unwrap().into()];
    });
    target.refuses("a directory as memory", "memory region", |script| {
        script.files = vec![File::open("/").unwrap().into()];
        script.regions[0][1] = 1;
    });
    target.refuses("memory that may only be read", "cannot map", |script| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&script.memory.file));
        script.files = vec![File::open(path).unwrap().into()];
    });
    for size in [0, 3, 65535, 65536, u32::MAX] {
        let what = format!("a ring of {size}");
        target.refuses(&what, "power of two", |script| script.rings[1].size = size);
    }
    type Place = fn(&mut Script) -> &mut u64;
    let parts: [(&str, Place); 3] = [
        ("descriptor table", |script| &mut script.rings[1].descriptors),
        ("available ring", |script| &mut script.rings[1].available),
        ("used ring", |script| &mut script.rings[0].used),
    ];
    for (part, place) in parts {
        for address in [0, USER_START - 64, USER_START + MEMORY_BYTES - 16, u64::MAX - 8] {
            target.refuses(&format!("{part} at {address:#x}"), part, |script| *place(script) = address);
        }
        let what = format!("{part} at an odd place");
        target.refuses(&what, "not aligned", |script| *place(script) = USER_START + 0x1_8001);
    }
    target.use_well("memory and rings that are not there");
    target.finish();
}

#[test]
fn rings_that_lie() {
    if !needs() {
        return;
    }
    let lab = Lab::new("hl");
    let mut target = Target::new(&lab);
    descriptors(&mut target);
    indirect_tables(&mut target);
    indexes_and_receive_buffers(&mut target);
    bad_frames_cost_the_frame(&target);
    target.use_well("rings that lie");
    target.finish();
}

/// Descriptors that lead in a circle, or to where the guest has nothing.
fn descriptors(target: &mut Target<'_>) {
    target.breaks("a descriptor loop", "loop", |front, _| {
        front.descriptor(TX, 0, FrontEnd::buffer(TX, 0), 1, NEXT, 1);
        front.descriptor(TX, 1, FrontEnd::buffer(TX, 1), 1, NEXT, 0);
        front.make_available(TX, 0);
    });
    target.breaks("a descriptor that is its own next", "loop", |front, _| {
        front.descriptor(TX, 5, FrontEnd::buffer(TX, 0), 0, NEXT, 5);
        front.make_available(TX, 5);
    });
    target.breaks("a next outside the table", "entry 64", |front, _| {
        front.descriptor(TX, 0, FrontEnd::buffer(TX, 0), 100, NEXT, RING_SIZE);
        front.make_available(TX, 0);
    });
    target.breaks("a head outside the table", "descriptor 65535", |front, _| front.make_available(TX, u16::MAX));
    for (what, address, len) in [
        ("a buffer outside memory", OUTSIDE, 64),
        ("a buffer that begins before memory", GUEST_START - 1, 64),
        ("a buffer over the end of memory", OUTSIDE - 63, 64),
        ("a buffer that wraps", u64::MAX - 10, 64),
        ("a buffer of 4 GiB", FrontEnd::buffer(TX, 0), u32::MAX),
        ("a buffer at the front end's address", USER_START, 64),
    ] {
        target.breaks(what, "not inside one region", |front, _| {
            front.descriptor(TX, 0, address, len, 0, 0);
            front.make_available(TX, 0);
        });
    }
}

/// Indirect tables that lead nowhere or are none.
fn indirect_tables(target: &mut Target<'_>) {
    let table = GUEST_START + 0x1_8000;
    let indirect = |front: &mut FrontEnd, len: u32, flags: u16, first: [u8; 16]| {
        front.script.memory.write(0x1_8000, &first);
        front.descriptor(TX, 0, table, len, INDIRECT | flags, 1);
        front.make_available(TX, 0);
    };
    let buffer = FrontEnd::buffer(TX, 1);
    target.breaks("an indirect table in an indirect table", "ndirect", |front, _| {
        indirect(front, 32, 0, descriptor_bytes(table, 16, INDIRECT, 0));
    });
    target.breaks("an indirect loop", "loop", |front, _| {
        indirect(front, 32, 0, descriptor_bytes(buffer, 1, NEXT, 0));
    });
    target.breaks("an indirect next outside its table", "entry 2 of a table of 2", |front, _| {
        indirect(front, 32, 0, descriptor_bytes(buffer, 1, NEXT, 2));
    });
    for len in [0, 15, 17, 16 * 1025, u32::MAX - 15] {
        target.breaks(&format!("an indirect table of {len} bytes"), &len.to_string(), |front, _| {
            indirect(front, len, 0, descriptor_bytes(buffer, 60, 0, 0));
        });
    }
    target.breaks("an indirect table and a next", "ndirect", |front, _| {
        indirect(front, 16, NEXT, descriptor_bytes(buffer, 60, 0, 0));
    });
    target.breaks("an indirect table outside memory", "not inside one region", |front, _| {
        front.descriptor(TX, 0, OUTSIDE - 16, 32, INDIRECT, 0);
        front.make_available(TX, 0);
    });
}

/// Indexes that run away, and receive buffers that can't be written.
fn indexes_and_receive_buffers(target: &mut Target<'_>) {
    target.breaks("a transmit index that runs away", "ahead", |front, _| front.set_available_index(TX, RING_SIZE + 1));
    target.breaks("a transmit index that goes back", "ahead", |front, _| front.set_available_index(TX, u16::MAX));
    let flood = |probe: &RawSocket| (0..100).for_each(|n| probe.send(&Frame::new(BROADCAST, mac(7)).number(n).build()));
    target.breaks("a receive index that runs away", "ahead", |front, probe| {
        front.set_available_index(RX, 1000);
        flood(probe);
    });
    target.breaks("receive buffers that are read-only", "read-only", |front, probe| {
        (0..RING_SIZE).for_each(|index| front.descriptor(RX, index, FrontEnd::buffer(RX, index), 2048, 0, 0));
        flood(probe);
    });
    target.breaks("receive buffers outside memory", "not inside one region", |front, probe| {
        (0..RING_SIZE).for_each(|index| front.descriptor(RX, index, OUTSIDE, 2048, WRITE, 0));
        flood(probe);
    });
    target.breaks("receive buffers that loop", "loop", |front, probe| {
        (0..RING_SIZE).for_each(|index| front.descriptor(RX, index, OUTSIDE, 0, WRITE | NEXT, index));
        flood(probe);
    });
}

/// Frames that are bad while the ring is in order cost the frame, not the port.
fn bad_frames_cost_the_frame(target: &Target<'_>) {
    let mut front = FrontEnd::start(&target.socket(), Script::default());
    wait_for("rings that run", 5 * SECOND, || (target.state().0 == "up").then_some(()));
    front.descriptor(TX, 0, FrontEnd::buffer(TX, 0), 11, 0, 0);
    front.make_available(TX, 0);
    (0..RING_SIZE).for_each(|index| front.descriptor(TX, index, GUEST_START, 1 << 20, NEXT, index + 1));
    front.make_available(TX, 1);
    front.descriptor(TX, 0, FrontEnd::buffer(TX, 0), 100, WRITE, 0);
    front.make_available(TX, 0);
    wait_for("count of bad chains", 3 * SECOND, || (target.switch.drops(VICTIM, "bad_chain") == 3).then_some(()));
    let before = front.used_index(TX);
    front.send_frame(&Frame::new(BROADCAST, mac(1)).build());
    wait_for("completion", 3 * SECOND, || (front.used_index(TX) != before).then_some(()));
    assert_eq!(target.state().0, "up");
    drop(front);
}

#[test]
fn memory_that_vanishes() {
    if !needs() {
        return;
    }
    let lab = Lab::new("hv");
    let mut target = Target::new(&lab);
    let flood = |probe: &RawSocket| (0..100).for_each(|n| probe.send(&Frame::new(BROADCAST, mac(7)).number(n).build()));
    for round in 0..3 {
        target.breaks("rings that vanish", "truncated", |front, _| {
            front.script.memory.truncate(0);
            let kick = front.script.rings[TX].kick.as_ref().unwrap();
            rustix::io::write(kick, &1u64.to_ne_bytes()).unwrap();
        });
        target.breaks("rings that vanish while frames arrive", "truncated", |front, probe| {
            front.script.memory.truncate(0);
            flood(probe);
        });
        target.breaks("frames that vanish", "truncated", |front, _| {
            front.script.memory.truncate(0x1_0000);
            front.descriptor(TX, 0, FrontEnd::buffer(TX, 0), 100, 0, 0);
            front.make_available(TX, 0);
        });
        target.breaks("receive buffers that vanish", "truncated", |front, probe| {
            front.script.memory.truncate(0x1_0000);
            flood(probe);
        });
        target.breaks("a used ring that vanishes", "truncated", |front, _| {
            // The transmit ring's available part stays; the page of its used part and all behind it go.
            front.descriptor(TX, 0, GUEST_START, 100, 0, 0);
            front.script.memory.truncate(0x6000);
            front.make_available(TX, 0);
        });
        target.use_well(&format!("memory that vanished, round {round}"));
    }
    // Memory taken away in due form while the rings run.
    let front = FrontEnd::start(&target.socket(), Script::default());
    wait_for("rings that run", 5 * SECOND, || (target.state().0 == "up").then_some(()));
    let [guest, bytes, user, _] = front.script.regions[0];
    front.wire.request(REM_MEM_REG, &[0, guest, bytes, user, 0], &[]);
    wait_for("rings that stop", 5 * SECOND, || (target.state().0 != "up").then_some(()));
    flood(&target.probe);
    drop(front);
    target.use_well("memory that was removed");
    target.finish();
}

#[test]
fn front_ends_that_do_nothing_or_too_much() {
    if !needs() {
        return;
    }
    let lab = Lab::new("hn");
    let mut target = Target::new(&lab);

    doorbells_that_block(&mut target);
    // Regions without end.
    let wire = Wire::connect(&target.socket());
    let memory = labsw_tests::hostile::Memory::new();
    for n in 0..70 {
        let region = [0, GUEST_START + n * 0x1_0000, 4096, USER_START + n * 0x1_0000, 0];
        wire.request(ADD_MEM_REG, &region, &[memory.file.as_fd()]);
    }
    target.assert_thrown_out(wire, "seventy regions", "at most 64");

    // Two hundred front ends that come and go: silent, half-way through, or with everything they have.
    for n in 0..200 {
        match n % 4 {
            0 => drop(Wire::connect(&target.socket())),
            1 => {
                let wire = Wire::connect(&target.socket());
                let _ = wire.raw(&[1, 0, 0], &[]);
            }
            2 => drop(Wire::connect(&target.socket()).request(GET_FEATURES, &[], &[])),
            _ => drop(FrontEnd::start(&target.socket(), Script::default())),
        }
    }
    target.use_well("two hundred connections");

    // One that asks and never reads the answers.
    let wire = Wire::connect(&target.socket());
    wire.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let stuck = (0..200_000).any(|_| !wire.request(GET_FEATURES, &[], &[]));
    assert!(stuck, "a front end that never reads is thrown out or held up");
    drop(wire);
    target.use_well("a front end that never reads");

    front_ends_that_stop(&mut target);
    target.finish();
}

/// The doorbells are shared with the front end, who can make them block, at any time and for ever.
fn doorbells_that_block(target: &mut Target<'_>) {
    let mut front = FrontEnd::start(&target.socket(), Script::default());
    wait_for("rings that run", 5 * SECOND, || (target.state().0 == "up").then_some(()));
    for ring in &front.script.rings {
        let kick = ring.kick.as_ref().unwrap();
        rustix::fs::fcntl_setfl(kick, OFlags::empty()).unwrap();
    }
    for n in 0..50 {
        front.send_frame(&Frame::new(BROADCAST, mac(1)).number(n).build());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(target.state().0, "up");
    // An interrupt that is never taken, so that its counter is full and a write to it would block for ever.
    for ring in &front.script.rings {
        let call = ring.call.as_ref().unwrap();
        // Emptied first, or the write that fills it would block here.
        let _ = rustix::io::read(call, &mut [0; 8]);
        rustix::fs::fcntl_setfl(call, OFlags::empty()).unwrap();
        rustix::io::write(call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    }
    for n in 0..50 {
        front.send_frame(&Frame::new(BROADCAST, mac(1)).number(n).build());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(target.state().0, "up");
    drop(front);
    target.use_well("doorbells that block");
}

/// One that says nothing, and one that stops in the middle: they lose the port.
fn front_ends_that_stop(target: &mut Target<'_>) {
    for (what, bytes, reason) in
        [("silence", &[][..], "sent nothing"), ("half a request", &[1, 0, 0, 0, 1][..], "half a request")]
    {
        let mut wire = Wire::connect(&target.socket());
        if !bytes.is_empty() {
            wire.raw(bytes, &[]).unwrap();
        }
        wait_for("connection", SECOND, || (target.switch.port(VICTIM)["connected"] == true).then_some(()));
        let begin = Instant::now();
        wire.wait_closed(HANDSHAKE + 2 * SECOND);
        assert!(begin.elapsed() > HANDSHAKE - 2 * SECOND, "patience with {what}");
        assert!(target.state().1.contains(reason), "{:?}", target.state());
        drop(wire);
        target.use_well(what);
    }
}
