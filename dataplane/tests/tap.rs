//! The TAP driver on real interfaces, driven by hand: bytes, offload requests, tags, several queues, interfaces that
//! are down, deleted, in use or something else; both with the host and with a guest's program at the other end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::losses::{Losses, TxReport};
use labsw_dataplane::offload::{Gso, GsoKind, HEADER_BYTES, MAX_UDP_SEGMENTS_PASSED, Offers, Partial, Request};
use labsw_dataplane::port::{Fault, RxQueue, Turn, TxPort};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::tap::{TapError, TapPort, TapRx, make_persistent};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::{Guest, VERSION_1};
use labsw_testkit::offload_frames::{Packet, noise};
use labsw_testkit::xdp_lab::{self, Lab, RawSocket, burst_of, bytes, frame, ifindex};

const PATIENCE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_millis(100);
const PUSH: TagEdit = TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0x20, 10]) };
const LENGTHS: [usize; 9] = [14, 15, 59, 60, 64, 128, 129, 590, 1514];

/// A port for the host on `t0`, which is up.
fn host_port(lab: &Lab, queues: u16) -> TapPort {
    let port = lab.in_switch(|| TapPort::for_host("t0", queues, true)).unwrap();
    lab.ip(&["link", "set", "t0", "up"]);
    port
}

/// A port for a guest on `g0`, which is up, and the guest's program at its other end.
fn guest_port(lab: &Lab) -> (TapPort, File) {
    let port = lab.in_switch(|| {
        make_persistent("g0", None, None).unwrap();
        TapPort::for_guest("g0", ifindex("g0")).unwrap()
    });
    lab.ip(&["link", "set", "g0", "up"]);
    (port, lab.in_switch(|| open_tap("g0", libc::IFF_VNET_HDR).unwrap()))
}

/// Opens a TAP interface as a guest's program does; its frames have a header of 10 bytes in front.
fn open_tap(name: &str, flags: i32) -> std::io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero is a valid `ifreq`, which lives across the call.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags) as i16;
        libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request)
    };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(file) }
}

fn receive(rx: &mut TapRx, burst: &mut Burst, stats: &mut PortDelta) -> Result<usize, Fault> {
    let deadline = Instant::now() + PATIENCE;
    while burst.is_empty() && Instant::now() < deadline {
        rx.receive(&Turn::ONLY, burst, stats)?;
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(burst.len())
}

fn send(port: &TapPort, frames: &[Vec<u8>], edit: TagEdit, stats: &mut PortDelta) -> Result<u64, Fault> {
    let items: Vec<_> = (0..frames.len()).map(|n| TxItem::whole(n as u8, edit)).collect();
    port.tx.send_set(&Turn::ONLY, &mut burst_of(frames), &items, stats)
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0x20, 10], &frame[12..]].concat()
}

#[test]
fn frames_pass_byte_for_byte_between_switch_and_host() {
    let Some(lab) = Lab::new() else { return };
    let mut port = host_port(&lab, 1);
    let host = lab.in_switch(|| RawSocket::open("t0"));
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let [rx] = port.rx.as_mut_slice() else { panic!("one queue") };
    for (seed, len) in (0u32..).zip(LENGTHS) {
        // The kernel drops tagged frames whose EtherType has nothing behind it.
        for sent in [frame(seed, len), tagged(&frame(seed, len.max(16)))] {
            host.send(&sent);
            assert_eq!(receive(rx, &mut burst, &mut stats), Ok(1), "{len}");
            assert_eq!(bytes(&burst, 0, TagEdit::KEEP), sent);
            rx.release(&mut burst).unwrap();
        }
    }
    assert_eq!(stats.rx_frames, 2 * LENGTHS.len() as u64);
    for (seed, len) in (0u32..).zip(LENGTHS) {
        let frames = [frame(seed, len)];
        assert_eq!(send(&port, &frames, TagEdit::KEEP, &mut stats), Ok(0));
        assert_eq!(host.receive(PATIENCE).as_ref(), Some(&frames[0]));
        assert_eq!(send(&port, &frames, PUSH, &mut stats), Ok(0));
        let expected = (len >= 16).then(|| tagged(&frames[0]));
        assert_eq!(host.receive(if len >= 16 { PATIENCE } else { SOON }), expected);
    }
    assert_eq!((stats.tx_frames, stats.drops.iter().sum()), (2 * LENGTHS.len() as u64, 0u64));
}

#[test]
fn a_full_burst_stays_as_it_was_until_it_is_released() {
    let Some(lab) = Lab::new() else { return };
    let mut port = host_port(&lab, 1);
    let host = lab.in_switch(|| RawSocket::open("t0"));
    let frames: Vec<_> = (0..100).map(|seed| frame(seed, 1514)).collect();
    frames.iter().for_each(|frame| host.send(frame));
    let (mut first, mut second, mut stats) = (Burst::new(), Burst::new(), PortDelta::ZERO);
    let rx = &mut port.rx[0];
    assert_eq!(receive(rx, &mut first, &mut stats), Ok(64));
    for (index, frame) in frames[..64].iter().enumerate() {
        assert_eq!(&bytes(&first, index, TagEdit::KEEP), frame);
    }
    rx.release(&mut first).unwrap();
    assert_eq!(receive(rx, &mut second, &mut stats), Ok(36));
    assert_eq!(bytes(&second, 35, TagEdit::KEEP), frames[99]);
    assert!(!rx.arm(&Turn::ONLY), "nothing is left");
    host.send(&frames[0]);
    assert!(rx.arm(&Turn::ONLY));
}

#[test]
fn a_frame_in_many_pieces_is_sent_whole() {
    let Some(lab) = Lab::new() else { return };
    let port = host_port(&lab, 1);
    let host = lab.in_switch(|| RawSocket::open("t0"));
    let whole = frame(7, 1514);
    let mut stats = PortDelta::ZERO;
    for piece_bytes in [1, 13, 97, 800] {
        let segments: Vec<_> =
            whole.chunks(piece_bytes).map(|piece| Segment { ptr: piece.as_ptr(), len: piece.len() as u32 }).collect();
        let mut burst = Burst::new();
        // SAFETY: `whole` outlives the burst.
        assert!(unsafe { burst.push(0, &segments) });
        for snap_bytes in [0, 200] {
            let item = TxItem { snap_bytes, ..TxItem::whole(0, TagEdit::KEEP) };
            assert_eq!(port.tx.send_set(&Turn::ONLY, &mut burst, &[item], &mut stats), Ok(0));
            let expected = if snap_bytes == 0 { &whole[..] } else { &whole[..200] };
            assert_eq!(host.receive(PATIENCE).as_deref(), Some(expected), "pieces of {piece_bytes}");
        }
    }
}

#[test]
fn frames_of_a_guest_leave_from_its_memory_and_are_what_was_checked() {
    let Some(lab) = Lab::new() else { return };
    let port = host_port(&lab, 1);
    let host = lab.in_switch(|| RawSocket::open("t0"));
    let mut guest = Guest::new(VERSION_1, 64);
    let mut from = guest.port();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let items = [TxItem::whole(0, TagEdit::KEEP)];
    let sent = frame(1, 1000);
    guest.transmit(1, &sent, &[]);
    from.receive(0, &mut burst, &mut stats).unwrap();
    assert_eq!(port.tx.send_set(&Turn::ONLY, &mut burst, &items, &mut stats), Ok(0));
    assert_eq!(host.receive(PATIENCE), Some(sent));
    from.release(0, &mut burst).unwrap();

    // Its memory goes away while a frame is lent: the guest's port is at fault, the host's takes what is left.
    let sent = frame(2, 1000);
    guest.transmit(1, &sent, &[]);
    from.receive(0, &mut burst, &mut stats).unwrap();
    rustix::fs::ftruncate(&guest.memfd, 0).unwrap();
    assert_eq!(port.tx.send_set(&Turn::ONLY, &mut burst, &items, &mut stats), Ok(0));
    let seen = host.receive(PATIENCE).unwrap();
    assert_eq!((seen.len(), &seen[..128]), (1000, &sent[..128]), "the snapshot is what was checked");
    let fault = from.release(0, &mut burst).unwrap_err();
    assert!(fault.reason.contains("truncated"), "{fault}");
}

#[test]
fn several_queues_spread_flows_and_all_are_read() {
    let Some(lab) = Lab::new() else { return };
    let mut port = host_port(&lab, 3);
    let host = lab.in_switch(|| RawSocket::open("t0"));
    assert_eq!(port.rx.len(), 3);
    let mut stats = PortDelta::ZERO;
    let frames: Vec<_> = (0..64).map(|seed| frame(seed, 100)).collect();
    assert_eq!(send(&port, &frames, TagEdit::KEEP, &mut stats), Ok(0));
    let mut seen: Vec<_> = (0..64).map(|_| host.receive(PATIENCE).unwrap()).collect();
    seen.sort();
    let mut expected = frames.clone();
    expected.sort();
    assert_eq!(seen, expected);
    // The host picks a queue by flow; whichever it is, the frame comes.
    frames.iter().for_each(|frame| host.send(frame));
    let deadline = Instant::now() + PATIENCE;
    let mut got = 0;
    while got < 64 && Instant::now() < deadline {
        for rx in &mut port.rx {
            let mut burst = Burst::new();
            rx.receive(&Turn::ONLY, &mut burst, &mut stats).unwrap();
            got += burst.len();
            rx.release(&mut burst).unwrap();
        }
    }
    assert_eq!(got, 64);
}

#[test]
fn frames_pass_between_switch_and_a_guests_program_and_the_host_sees_none() {
    let Some(lab) = Lab::new() else { return };
    let (mut port, mut guest) = guest_port(&lab);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    // The host has an address there; who asks for it gets no answer.
    lab.ip(&["addr", "add", "10.9.0.1/24", "dev", "g0"]);
    let mut request = frame(1, 42);
    request[..6].fill(0xff);
    request[12..14].copy_from_slice(&[8, 6]);
    request[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    request[22..28].copy_from_slice(&xdp_lab::SOURCE);
    request[28..42].copy_from_slice(&[10, 9, 0, 2, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1]);
    let frames = LENGTHS.map(|len| frame(len as u32, len));
    let all = frames.iter().cloned().chain(frames[2..].iter().map(|frame| tagged(frame))).chain([request]);
    let rx = &mut port.rx[0];
    for sent in all {
        guest.write_all(&[&[0; 10], sent.as_slice()].concat()).unwrap();
        assert_eq!(receive(rx, &mut burst, &mut stats), Ok(1), "{} bytes", sent.len());
        assert_eq!(bytes(&burst, 0, TagEdit::KEEP), sent);
        rx.release(&mut burst).unwrap();
    }
    // The guest's program reads our frames and nothing else: no answer of the host.
    let mut buffer = vec![0; 4096];
    for frame in &frames {
        for (edit, expected) in [(TagEdit::KEEP, frame.clone()), (PUSH, tagged(frame))] {
            assert_eq!(send(&port, std::slice::from_ref(frame), edit, &mut stats), Ok(0));
            let read = guest.read(&mut buffer).unwrap();
            assert_eq!(&buffer[10..read], expected);
        }
    }
    assert_eq!(stats.drops.iter().sum::<u64>(), 0);
}

#[test]
fn what_a_guest_left_undone_is_noted_and_the_impossible_dropped_and_counted() {
    let Some(lab) = Lab::new() else { return };
    let (mut port, mut guest) = guest_port(&lab);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let mut tcp = frame(3, 66);
    tcp[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 52, 0, 0, 0, 0, 64, 6]);
    // NEEDS_CSUM at byte 34, to be stored 16 behind; then fragments of UDP (VIRTIO_NET_HDR_GSO_UDP), which nobody
    // offered, and datagrams (VIRTIO_NET_HDR_GSO_UDP_L4).
    let header = [1u8, 0, 0, 0, 0, 0, 34, 0, 16, 0];
    guest.write_all(&[&header, tcp.as_slice()].concat()).unwrap();
    tcp[23] = 17;
    guest.write_all(&[&[1, 3, 0, 0, 8, 0, 34, 0, 6, 0], tcp.as_slice()].concat()).unwrap();
    guest.write_all(&[&[0; 10], frame(4, 60).as_slice()].concat()).unwrap();
    guest.write_all(&[&[1, 5, 0, 0, 8, 0, 34, 0, 6, 0], tcp.as_slice()].concat()).unwrap();
    let rx = &mut port.rx[0];
    assert_eq!(receive(rx, &mut burst, &mut stats), Ok(3));
    assert_eq!(burst.asked(2).request.gso, Some(Gso { kind: GsoKind::Udp, size: 8, ecn: false }));
    assert_eq!(burst.asked(0).request.csum, Some(Partial { start: 34, offset: 16 }));
    assert_eq!(bytes(&burst, 1, TagEdit::KEEP), frame(4, 60));
    assert_eq!((burst.asking(), stats.rx_frames, stats.drops[DropReason::BadOffload as usize]), (0b101, 4, 1));
}

/// Sends a frame with a request.
fn send_asking(port: &TapPort, frame: &[u8], header: [u8; HEADER_BYTES], stats: &mut PortDelta) -> Result<(), Fault> {
    let (mut burst, mut losses) = (Burst::new(), Losses::NONE);
    // SAFETY: the frame outlives the burst.
    assert!(unsafe { burst.push_whole(0, Segment { ptr: frame.as_ptr(), len: frame.len() as u32 }) });
    burst.ask(&header, Offers::ALL).unwrap();
    let items = [TxItem::whole(0, TagEdit::KEEP)];
    port.tx.send(&Turn::ONLY, &mut burst, &items, &mut TxReport { stats, losses: &mut losses })
}

#[test]
fn what_the_kernel_refuses_of_a_guest_hurts_only_that_frame() {
    let Some(lab) = Lab::new() else { return };
    let port = host_port(&lab, 1);
    // The checksum of a packet in a tunnel, so far behind that the kernel can't count to it from its buffer's start.
    let tunnel = Packet::udp(false, noise(65_490, 1)).partial();
    let far = Request { csum: Some(Partial { start: 65_520, offset: 6 }), gso: None };
    let mut stats = PortDelta::ZERO;
    assert_eq!(send_asking(&port, &tunnel, far.encode(0), &mut stats), Ok(()));
    assert_eq!((stats.tx_frames, stats.drops[DropReason::BadOffload as usize]), (0, 1));
    assert_eq!(send(&port, &[frame(1, 60)], TagEdit::KEEP, &mut stats), Ok(0));
}

/// The longest that is passed on is not refused by the kernel: a refusal would be a fault of the port.
#[test]
fn the_kernel_cuts_as_many_datagrams_as_are_passed_on() {
    let Some(lab) = Lab::new() else { return };
    let port = host_port(&lab, 1);
    lab.ip(&["link", "set", "t0", "address", "02:1a:b5:77:00:02"]);
    lab.ip(&["addr", "add", "10.200.201.202/8", "dev", "t0"]);
    let receiver = lab.in_switch(|| std::net::UdpSocket::bind("10.200.201.202:443").unwrap());
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stats = PortDelta::ZERO;
    assert!(port.tx.offers().udp, "Linux 6.2 or newer");
    let datagrams = MAX_UDP_SEGMENTS_PASSED as usize;
    let packet = Packet::udp(false, noise(500 * datagrams, 1));
    assert_eq!(send_asking(&port, &packet.partial(), packet.request(Some(500)).encode(0), &mut stats), Ok(()));
    assert_eq!((stats.tx_frames, stats.drops.iter().sum::<u64>()), (1, 0));
    let mut buffer = [0; 2000];
    for expected in packet.payload.chunks(500) {
        let read = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], expected);
    }
}

#[test]
fn down_drops_and_deleted_is_a_fault() {
    let Some(lab) = Lab::new() else { return };
    let (guest, _program) = guest_port(&lab);
    for (name, mut port) in [("t0", host_port(&lab, 1)), ("g0", guest)] {
        let frames = [frame(1, 60)];
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        lab.ip(&["link", "set", name, "down"]);
        assert_eq!(send(&port, &frames, TagEdit::KEEP, &mut stats), Ok(1), "{name}");
        assert_eq!(stats.drops[DropReason::NotConnected as usize], 1);
        port.rx[0].receive(&Turn::ONLY, &mut burst, &mut stats).unwrap();
        lab.ip(&["link", "set", name, "up"]);
        assert_eq!(send(&port, &frames, TagEdit::KEEP, &mut stats), Ok(0), "{name} is up again");
        lab.ip(&["link", "del", name]);
        let fault = send(&port, &frames, TagEdit::KEEP, &mut stats).unwrap_err();
        assert_eq!((fault.reason, fault.connection), (format!("{name} was removed"), port.connection()));
        assert_eq!(send(&port, &frames, TagEdit::KEEP, &mut stats), Ok(1), "out of service");
        if name == "t0" {
            assert!(port.rx[0].arm(&Turn::ONLY), "the end wakes a sleeping worker");
            assert_eq!(port.rx[0].receive(&Turn::ONLY, &mut burst, &mut stats).unwrap_err().reason, "t0 was removed");
        }
    }
}

#[test]
fn a_guest_that_is_not_there_and_one_that_is_slow_are_told_apart() {
    let Some(lab) = Lab::new() else { return };
    let (port, program) = guest_port(&lab);
    let mut stats = PortDelta::ZERO;
    let frames: Vec<_> = (0..64).map(|seed| frame(seed, 60)).collect();
    while stats.drops[DropReason::TxRingFull as usize] == 0 {
        send(&port, &frames, TagEdit::KEEP, &mut stats).unwrap();
        assert!(stats.tx_frames < 100_000, "nobody reads, and it is never full");
    }
    assert_eq!(stats.drops[DropReason::NotConnected as usize], 0);
    drop(program);
    // A child process that another test starts may have a copy of the descriptor for a moment.
    let deadline = Instant::now() + PATIENCE;
    while stats.drops[DropReason::NotConnected as usize] == 0 && Instant::now() < deadline {
        send(&port, &frames, TagEdit::KEEP, &mut stats).unwrap();
    }
    assert!(stats.drops[DropReason::NotConnected as usize] > 0);
}

#[test]
fn an_oversize_frame_is_dropped_where_it_can_not_leave() {
    let Some(lab) = Lab::new() else { return };
    let (port, _program) = guest_port(&lab);
    let mut stats = PortDelta::ZERO;
    assert_eq!(send(&port, &[frame(1, 1600), frame(2, 1514)], TagEdit::KEEP, &mut stats), Ok(1), "{stats:?}");
    assert_eq!((stats.tx_frames, stats.drops[DropReason::Oversize as usize]), (1, 1));
}

/// Opens an interface that was let go a moment ago: a child process that another test starts may still have a copy of
/// the descriptor until it becomes another program.
fn patiently(open: impl Fn() -> Result<TapPort, TapError>) -> TapPort {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(TapError::InUse { .. }) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            outcome => return outcome.unwrap(),
        }
    }
}

#[test]
fn what_can_not_be_opened_says_why() {
    let Some(lab) = Lab::new() else { return };
    lab.in_switch(|| {
        let refused = |outcome: Result<TapPort, TapError>| outcome.unwrap_err().to_string();
        let none = TapPort::for_host("t0", 1, true).unwrap();
        assert!(refused(TapPort::for_host("lo", 1, false)).starts_with("lo exists and is no TAP interface with"));
        assert!(refused(TapPort::for_host("t0", 1, true)).starts_with("t0 is in use by another program"));
        drop(none);
        let single = open_tap("t1", 0).unwrap();
        assert!(refused(TapPort::for_host("t1", 2, false)).contains("multi_queue"));
        assert!(refused(TapPort::for_host("t1", 1, false)).starts_with("t1 is in use by another program"));
        drop(single);
        make_persistent("t2", Some(65534), None).unwrap();
        // One queue will do.
        drop(patiently(|| TapPort::for_host("t2", 1, false)));
        let first = TapPort::for_guest("t2", ifindex("t2")).unwrap();
        assert!(refused(TapPort::for_guest("t2", ifindex("t2"))).starts_with("t2 is in use by another program"));
        drop(first);
        drop(patiently(|| TapPort::for_guest("t2", ifindex("t2"))));
    });
    // The interface that a port for the host made went with the port.
    assert!(!std::process::Command::new("ip").args(["link", "show", "t0"]).status().unwrap().success());
}

#[test]
fn an_idle_guest_interface_costs_no_wake_up() {
    let Some(lab) = Lab::new() else { return };
    let (mut port, mut guest) = guest_port(&lab);
    assert!(!port.rx[0].arm(&Turn::ONLY));
    assert_eq!(port.rx[0].next_due(&Turn::ONLY), labsw_dataplane::clock::NEVER);
    std::thread::sleep(SOON);
    assert!(!port.rx[0].arm(&Turn::ONLY));
    guest.write_all(&[&[0; 10], frame(4, 60).as_slice()].concat()).unwrap();
    assert!(port.rx[0].arm(&Turn::ONLY));
}
