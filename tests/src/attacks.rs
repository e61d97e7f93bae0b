//! What hostile peers do to a switch. Each function plays one attack from a [`Seat`] and returns when it is over,
//! refused or not; the tests (`tests/hostile_*.rs`) and the soak hold the consequences against the arena's bounds.
//!
//! An attack leaves nothing behind in the switch's namespace: its front ends hang up when they are dropped.

pub mod dhcp;
pub mod fuse;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, ftruncate, memfd_create};
use rustix::net::sockopt::set_socket_linger;

use crate::arena::{Seat, WEB};
use crate::hostile::request::{
    ADD_MEM_REG, GET_FEATURES, SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_PROTOCOL_FEATURES,
};
use crate::hostile::{
    F_CSUM, F_HOST_TSO4, F_MRG_RXBUF, F_PROTOCOL, F_RING_PACKED, F_VERSION_1, FrontEnd, GUEST_START, INDIRECT,
    NET_HEADER, NEXT, RX, Script, TX, USER_START, VERSION, WRITE, Wire, descriptor_bytes,
};
use crate::netns::Netns;
use crate::packet::{BROADCAST, Frame, Mac, mac};
use crate::veth_lab::Lab;

/// The largest ring of the standard.
pub const LARGEST_RING: u16 = 32768;
/// The largest ring that QEMU gives a guest.
pub const QEMU_RING: u16 = 1024;
const MOMENT: Duration = Duration::from_millis(100);
/// A flag of a request: the switch is to acknowledge it.
const NEED_REPLY: u32 = 1 << 3;

/// Where an attack keeps tables of its own: behind all buffers.
fn behind(script: &Script, ring_size: u16) -> u64 {
    script.buffer_offset(TX, ring_size)
}

/// Writes a table of `count` descriptors into guest memory.
fn table(script: &Script, offset: u64, count: u16, entry: impl Fn(u16) -> (u64, u32, u16)) {
    for index in 0..count {
        let (address, len, flags) = entry(index);
        let next = if flags & NEXT == 0 { 0 } else { index + 1 };
        script.memory.write(offset + 16 * u64::from(index), &descriptor_bytes(address, len, flags, next));
    }
}

/// Receive chains of as many empty descriptors as the ring has, each chain the same, the last one an indirect table of
/// 1024 more. Then a few broadcasts, each of which looks for room in them.
pub fn receive_chains_without_room(seat: &Seat<'_>, size: u16, broadcasts: u32) {
    let mut script = Script::sized([size, 64], 96 << 20);
    script.posted = 0;
    script.features |= F_MRG_RXBUF;
    let indirect = behind(&script, 64);
    table(&script, indirect, 1024, |index| (GUEST_START, 0, if index < 1023 { WRITE | NEXT } else { WRITE }));
    for index in 0..size {
        script.descriptor(RX, index, GUEST_START, 0, WRITE | NEXT, index + 1);
        script.available_entry(RX, index, 0);
    }
    script.descriptor(RX, size - 1, GUEST_START + indirect, 16 * 1024, INDIRECT, 0);
    let mut front = seat.front(script);
    front.set_available_index(RX, size);
    sleep(3 * MOMENT);
    let web = seat.lab.socket(WEB);
    (0..broadcasts).for_each(|number| web.send(&Frame::new(BROADCAST, mac(7)).number(number).build()));
    sleep(3 * MOMENT);
}

/// Packed rings whose every slot is available and an indirect table of as many one-byte buffers as the ring has slots.
/// Starting such a ring is all there is to do.
pub fn packed_ring_full_of_tables(seat: &Seat<'_>, size: u16) {
    let mut script = Script::sized([size; 2], 160 << 20);
    script.posted = 0;
    script.features |= F_RING_PACKED | F_MRG_RXBUF;
    let indirect = behind(&script, size);
    let available = 1 << 7;
    for index in 0..size {
        // In a packed table the last halves are id and flags.
        script.memory.write(indirect + 16 * u64::from(index), &descriptor_bytes(GUEST_START + indirect, 1, 0, WRITE));
        for ring in [RX, TX] {
            let bytes = 16 * u32::from(size);
            let slot = script.place(ring).descriptors + 16 * u64::from(index);
            let entry = descriptor_bytes(GUEST_START + indirect, bytes, index, INDIRECT | available);
            script.memory.write(slot, &entry);
        }
    }
    // The device's event area: at the first slot of the first lap.
    for ring in [RX, TX] {
        script.memory.write(script.place(ring).used, &[0, 0x80, 0, 0]);
    }
    for _ in 0..3 {
        let front = seat.front(script);
        sleep(3 * MOMENT);
        seat.lab.socket(WEB).send(&Frame::new(BROADCAST, mac(7)).build());
        sleep(MOMENT);
        script = front.script;
    }
}

/// Makes the whole transmit ring available again and again, for so long.
fn transmit_without_end(front: &mut FrontEnd, size: u16, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let used = front.used_index(TX);
        front.set_available_index(TX, used.wrapping_add(size));
        sleep(Duration::from_millis(1));
    }
}

/// Transmit chains that hold no frame: as many empty descriptors as the ring has, and a table of 1024 more.
pub fn transmit_chains_of_nothing(seat: &Seat<'_>, time: Duration) {
    let script = Script::sized([64, QEMU_RING], 16 << 20);
    let indirect = behind(&script, QEMU_RING);
    table(&script, indirect, 1024, |index| (GUEST_START, 0, if index < 1023 { NEXT } else { 0 }));
    for index in 0..QEMU_RING {
        script.descriptor(TX, index, GUEST_START, 0, NEXT, index + 1);
        script.available_entry(TX, index, 0);
    }
    script.descriptor(TX, QEMU_RING - 1, GUEST_START + indirect, 16 * 1024, INDIRECT, 0);
    transmit_without_end(&mut seat.front(script), QEMU_RING, time);
}

/// Frames cut into one-byte descriptors.
pub fn transmit_chains_of_crumbs(seat: &Seat<'_>, time: Duration) {
    let script = Script::sized([64, QEMU_RING], 16 << 20);
    let (indirect, frame) = (behind(&script, QEMU_RING), behind(&script, QEMU_RING) + 0x10000);
    let mut bytes = [&[0; NET_HEADER][..], &Frame::new(mac(7), mac(66)).payload(&[0x71; 998]).build()].concat();
    bytes.truncate(1024);
    script.memory.write(frame, &bytes);
    table(&script, indirect, 1024, |index| {
        (GUEST_START + frame + u64::from(index), 1, if index < 1023 { NEXT } else { 0 })
    });
    for index in 0..QEMU_RING {
        script.descriptor(TX, index, GUEST_START + indirect, 16 * 1024, INDIRECT, 0);
        script.available_entry(TX, index, index);
    }
    transmit_without_end(&mut seat.front(script), QEMU_RING, time);
}

/// TCP frames of 64 KiB that are to be cut into segments of `segment` bytes for every container.
pub fn segments_of_a_few_bytes(seat: &Seat<'_>, segment: u16, time: Duration) {
    let mut script = Script::sized([64, QEMU_RING], 16 << 20);
    script.features |= F_MRG_RXBUF | F_CSUM | F_HOST_TSO4;
    let offset = behind(&script, QEMU_RING);
    let frame = tcp_frame(segment);
    script.memory.write(offset, &frame);
    let len = u32::try_from(frame.len()).unwrap_or(0);
    for index in 0..QEMU_RING {
        script.descriptor(TX, index, GUEST_START + offset, len, 0, 0);
        script.available_entry(TX, index, index);
    }
    transmit_without_end(&mut seat.front(script), QEMU_RING, time);
}

/// A broadcast TCP frame of 64 KiB with 40 bytes of options, behind the virtio-net header that asks to cut it.
fn tcp_frame(segment: u16) -> Vec<u8> {
    const TOTAL: u16 = u16::MAX;
    let mut header = vec![1, 1];
    for half in [74 + 40, segment, 34, 16, 0] {
        header.extend(half.to_le_bytes());
    }
    let mut ip = vec![0x45, 0];
    ip.extend(TOTAL.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let tcp = [&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x10, 3, 0xe8, 0, 0, 0, 0][..], &[1; 40]].concat();
    let mut packet = [ip, tcp].concat();
    packet.resize(usize::from(TOTAL), b'z');
    let frame = [&BROADCAST[..], &mac(66), &[8, 0], &packet].concat();
    [header, frame].concat()
}

/// A TCP connection whose last close waits `seconds` for a peer that never reads; and what keeps the peer alive.
fn lingering(lab: &Lab, seconds: u64) -> (TcpListener, OwnedFd) {
    lab.peers.enter(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("loopback");
        stream.set_nonblocking(true).expect("a socket");
        while stream.write(&[b'x'; 65536]).is_ok() {}
        set_socket_linger(&stream, Some(Duration::from_secs(seconds))).expect("a socket");
        (listener, stream.into())
    })
}

/// Descriptors whose `close` waits: sent by a front end with a request that takes none, and by one that is not served.
pub fn descriptors_that_linger(seat: &Seat<'_>, seconds: u64) {
    seat.forgive();
    let (_peer, lingers) = lingering(seat.lab, seconds);
    let served = Wire::connect(&seat.socket());
    served.request(GET_FEATURES, &[], &[lingers.as_fd()]);
    drop(lingers);
    sleep(3 * MOMENT);
    drop(served);
    seat.forgive();
    let (_other_peer, lingers) = lingering(seat.lab, seconds);
    let served = Wire::connect(&seat.socket());
    served.request(SET_OWNER, &[], &[]);
    sleep(MOMENT);
    // It may have been turned away already.
    let waiting = Wire::connect(&seat.socket());
    waiting.request(GET_FEATURES, &[], &[lingers.as_fd()]);
    drop((lingers, waiting));
    sleep(MOMENT);
    drop(served);
    sleep(5 * MOMENT);
}

/// A front end that has the switch write to a full interrupt: it empties the counter, asks for an interrupt, and fills
/// the counter before the switch has written, again and again. One that has been thrown out comes back at once, for so
/// long. Gives how often the switch was caught.
pub fn doorbell_race(seat: &Seat<'_>, time: Duration) -> u32 {
    let (end, mut caught) = (Instant::now() + time, 0);
    seat.forgive();
    while Instant::now() < end {
        let mut front = FrontEnd::start(&seat.socket(), Script::default());
        let frame = Frame::new(mac(7), mac(66)).build();
        front.send_frame(&frame);
        let served = Instant::now() + 3 * MOMENT;
        while front.used_index(TX) != 1 && Instant::now() < served {
            sleep(Duration::from_millis(2));
        }
        if front.used_index(TX) == 1 && race(&mut front, &frame, end) {
            caught += 1;
            front.wire.wait_closed(end.saturating_duration_since(Instant::now()) + 100 * MOMENT);
        }
    }
    caught
}

/// Whether the switch was caught writing before `end`.
fn race(front: &mut FrontEnd, frame: &[u8], end: Instant) -> bool {
    const FULL: [u8; 8] = (u64::MAX - 1).to_ne_bytes();
    let Some(Ok(call)) = front.script.rings[TX].call.as_ref().map(OwnedFd::try_clone) else { return false };
    fcntl_setfl(&call, OFlags::empty()).expect("an eventfd");
    let call = Arc::new(call);
    let (writing, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let epoch = Instant::now();
    let now = move || u64::try_from(epoch.elapsed().as_micros()).unwrap_or(0) + 1;
    // Filling the counter may wait itself: somebody has to empty it then.
    let rescue = {
        let (call, writing, over) = (Arc::clone(&call), Arc::clone(&writing), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let since = writing.load(Ordering::Relaxed);
                if since != 0 && now() > since + 1000 {
                    writing.store(0, Ordering::Relaxed);
                    let _ = rustix::io::read(&*call, &mut [0; 8]);
                }
                sleep(Duration::from_micros(300));
            }
        })
    };
    let _ = rustix::io::write(&*call, &1u64.to_ne_bytes());
    let (mut caught, mut round) = (false, 0u32);
    while !caught && Instant::now() < end {
        round += 1;
        let _ = rustix::io::read(&*call, &mut [0; 8]);
        front.send_frame(frame);
        (0..round * 37 % 4000).for_each(|_| std::hint::spin_loop());
        writing.store(now(), Ordering::Relaxed);
        let _ = rustix::io::write(&*call, &FULL);
        writing.store(0, Ordering::Relaxed);
        front.send_frame(frame);
        let patience = Instant::now() + 2 * MOMENT;
        let sent = front.sent();
        while front.used_index(TX) != sent && Instant::now() < patience {
            std::thread::yield_now();
        }
        caught = front.used_index(TX) != sent;
    }
    over.store(true, Ordering::Relaxed);
    drop(rescue.join());
    caught
}

/// A file without pages, for memory that only the switch would touch.
fn sparse(bytes: u64) -> OwnedFd {
    let file = memfd_create("sparse", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
    ftruncate(&file, bytes).expect("size of a memfd");
    file
}

/// Guest-physical and front-end address of a second region.
const SECOND_REGION: (u64, u64) = (GUEST_START + (1 << 32), USER_START + (1 << 40));

/// A script with a second region of `bytes`, and transmit chains of a frame in the first and `pieces` of one byte in
/// the second, each of these `stride` bytes behind the last.
fn scattered(file: OwnedFd, bytes: u64, pieces: u16, stride: u64) -> Script {
    let mut script = Script::sized([64; 2], 16 << 20);
    script.regions.push([SECOND_REGION.0, bytes, SECOND_REGION.1, 0]);
    script.files.push(file);
    let frame = behind(&script, 64);
    let bytes = [&[0; NET_HEADER][..], &Frame::new(mac(7), mac(66)).payload(&[0x7a; 114]).build()].concat();
    script.memory.write(frame, &bytes);
    let len = u32::try_from(bytes.len()).unwrap_or(0);
    for chain in 0..64 {
        let tables = frame + 0x1000 + u64::from(chain) * 0x4000;
        table(&script, tables, 1 + pieces, |index| match index {
            0 => (GUEST_START + frame, len, NEXT),
            _ => {
                let piece = u64::from(chain) * u64::from(pieces) + u64::from(index) - 1;
                (SECOND_REGION.0 + piece * stride, 1, if index < pieces { NEXT } else { 0 })
            }
        });
        script.descriptor(TX, chain, GUEST_START + tables, 16 * (1 + u32::from(pieces)), INDIRECT, 0);
        script.available_entry(TX, chain, chain);
    }
    script
}

/// Memory that is truncated under frames which touch every second page of it.
pub fn every_second_page_vanishes(seat: &Seat<'_>, pieces: u16) {
    let file = sparse(1 << 30);
    let script = scattered(file.try_clone().expect("a descriptor"), 1 << 30, pieces, 8192);
    let mut front = seat.attacker(script);
    // The container is known, so that each frame is read to its end.
    seat.lab.socket(WEB).send(&Frame::new(BROADCAST, mac(7)).build());
    sleep(MOMENT);
    ftruncate(&file, 0).expect("truncate a memfd");
    front.set_available_index(TX, 64);
    sleep(5 * MOMENT);
}

/// Frames that touch 50 MiB of memory which nobody else has touched; gives the front end, which has them still.
pub fn sparse_memory(seat: &Seat<'_>) -> FrontEnd {
    let script = scattered(sparse(1 << 30), 1 << 30, 200, 4096);
    let mut front = seat.attacker(script);
    // The container is known, so that each frame is read to its end.
    seat.lab.socket(WEB).send(&Frame::new(BROADCAST, mac(7)).build());
    sleep(MOMENT);
    front.set_available_index(TX, 64);
    sleep(5 * MOMENT);
    front
}

/// Memory in a file of somebody else's file system; whether the switch took it.
pub fn memory_of_a_server(seat: &Seat<'_>, file: &OwnedFd) -> bool {
    mapped(seat, file, &[fuse::FILE_BYTES]).is_some()
}

/// The bytes of [`frames_that_change`] that change, and who sends them.
pub const CHANGING: Range<usize> = 200..1500;
/// The address that sends them.
pub const CHANGING_FROM: Mac = [2, 0, 0, 0, 0, 66];

/// Sends numbered frames of 1500 bytes to the container, whose bytes behind the headers are all `A` or all `B`, and
/// changes them all the while.
pub fn frames_that_change(seat: &Seat<'_>, count: u16) {
    const BURST: u16 = 64;
    let script = Script::sized([64, BURST], 16 << 20);
    let place = |index: u16| behind(&script, BURST) + 2048 * u64::from(index);
    let places: Vec<u64> = (0..BURST).map(place).collect();
    for (index, &place) in (0..).zip(&places) {
        script.descriptor(TX, index, GUEST_START + place, 12 + 1500, 0, 0);
        script.available_entry(TX, index, index);
    }
    let again = script.memory.again();
    let mut front = seat.attacker(script);
    seat.lab.socket(WEB).send(&Frame::new(BROADCAST, mac(7)).build());
    sleep(MOMENT);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over_now, all) = (&over, &places);
        scope.spawn(move || {
            // The whole value moves: its pointer alone may not.
            let memory = again;
            let bytes = [b'A', b'B'].map(|byte| vec![byte; CHANGING.len()]);
            for bytes in bytes.iter().cycle().take_while(|_| !over_now.load(Ordering::Relaxed)) {
                all.iter().for_each(|place| memory.write(place + 12 + CHANGING.start as u64, bytes));
            }
        });
        for sent in (0..count).step_by(BURST.into()) {
            for (number, place) in (sent..).zip(&places) {
                let frame = Frame::new(mac(7), CHANGING_FROM).number(number.into()).build();
                front.script.memory.write(*place, &[&[0; NET_HEADER][..], &frame[..18]].concat());
            }
            let sent = sent + BURST;
            front.set_available_index(TX, sent);
            let patience = Instant::now() + 10 * MOMENT;
            while front.used_index(TX) != sent && Instant::now() < patience {
                std::thread::yield_now();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    sleep(MOMENT);
}

/// Has the container whose end is `interface` keep all that it is sent; `false` if this kernel can't.
pub fn keep_frames(keeper: &Netns, interface: &str) -> bool {
    let commands = [
        "ip link add ifb0 type ifb",
        "ip link set ifb0 txqueuelen 100000 up",
        "tc qdisc add dev ifb0 root tbf rate 8bit burst 1540 limit 100000000",
        &format!("tc qdisc add dev {interface} ingress"),
        &format!(
            "tc filter add dev {interface} parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect \
             dev ifb0"
        ),
    ];
    commands.iter().all(|command| {
        let argv: Vec<&str> = command.split(' ').collect();
        let (status, text) = keeper.try_run(&argv);
        if !status.success() {
            println!("skipped: {command}: {text}");
        }
        status.success()
    })
}

/// Broadcasts so many frames, each from another address, in the attackers' VLAN, where a container keeps them.
pub fn fill_a_keeper(seat: &Seat<'_>, count: u16) {
    let web = seat.lab.socket(WEB);
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        let frame = Frame::new(BROADCAST, [2, 0, 0, 1, high, low]).number(number.into()).build();
        while web.try_send(&frame).is_err() {
            sleep(Duration::from_millis(1));
        }
        if number.is_multiple_of(32) {
            sleep(Duration::from_micros(500));
        }
    }
    sleep(5 * MOMENT);
}

/// Regions as large as the kernel maps, halved when one is refused, until nothing more fits or 62 are there.
/// Gives how many bytes were mapped.
pub fn all_address_space(seat: &Seat<'_>) -> u64 {
    let file = sparse(1 << 46);
    let (mut good, mut bytes): (Vec<u64>, u64) = (vec![], 1 << 45);
    let mut kept = None;
    while good.len() < 62 && bytes >= 4096 {
        drop(kept.take());
        let sizes: Vec<u64> = good.iter().copied().chain([bytes]).collect();
        kept = mapped(seat, &file, &sizes);
        if kept.is_some() { good.push(bytes) } else { bytes >>= 1 }
    }
    let kept = kept.or_else(|| mapped(seat, &file, &good));
    sleep(3 * MOMENT);
    drop(kept);
    good.iter().sum()
}

/// A connection that has all these regions; `None` if one of them was refused.
fn mapped(seat: &Seat<'_>, file: &OwnedFd, sizes: &[u64]) -> Option<Wire> {
    seat.forgive();
    let mut wire = Wire::connect(&seat.socket());
    let fds = [file.as_fd()];
    let acknowledged = |wire: &mut Wire, code: u32, words: &[u64]| {
        let payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let size = u32::try_from(payload.len()).unwrap_or(0);
        wire.message(code, VERSION | NEED_REPLY, size, &payload, &fds) && wire.reply() == Some(0)
    };
    wire.request(SET_OWNER, &[], &[]);
    wire.request(SET_FEATURES, &[F_VERSION_1 | F_PROTOCOL], &[]);
    wire.request(SET_PROTOCOL_FEATURES, &[1 << 3 | 1 << 15], &[]);
    let mut next = 4096;
    let all = acknowledged(&mut wire, SET_MEM_TABLE, &[1, 0, 4096, 0, 0])
        && sizes.iter().all(|&bytes| {
            let done = acknowledged(&mut wire, ADD_MEM_REG, &[0, next, bytes, next, 0]);
            next += bytes;
            done
        });
    all.then_some(wire)
}
