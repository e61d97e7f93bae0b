//! The AF_XDP driver on real veth pairs, driven by hand: bytes, moves, accounting, closing, faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod faults;

use std::time::{Duration, Instant};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::port::{Turn, TxPort};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::xdp::{Hugepages, PacketMemory, Queues, XdpConfig, XdpError, XdpMode, XdpPort};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::xdp_lab::{self, Lab, RawSocket, burst_of, bytes, frame, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const PUSH: TagEdit = TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0x20, 10]) };
const POP: TagEdit = TagEdit { strip_bytes: 4, insert: None };
const SWAP: TagEdit = TagEdit { strip_bytes: 4, insert: Some([0x81, 0, 0, 20]) };

fn memory(chunks: u32) -> std::sync::Arc<PacketMemory> {
    std::sync::Arc::new(PacketMemory::new(chunks, Hugepages::Auto).unwrap())
}

/// The frame after `edit`.
fn edited(frame: &[u8], edit: TagEdit) -> Vec<u8> {
    let tag = edit.insert.map(Vec::from).unwrap_or_default();
    [&frame[..12], &tag, &frame[12 + usize::from(edit.strip_bytes)..]].concat()
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    edited(frame, PUSH)
}

#[test]
fn frames_pass_byte_for_byte_in_every_mode() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let peer = lab.peer(1);
    let memory = memory(8192);
    for mode in [XdpMode::Auto, XdpMode::Copy, XdpMode::Skb] {
        let mut port = lab.open(1, Queues::All, mode, &memory).unwrap();
        if mode == XdpMode::Auto {
            assert_eq!(port.status().mode, XdpMode::Copy, "veth has no zero copy");
            assert!(port.status().why.starts_with("zero_copy: "), "{:?}", port.status());
        } else {
            assert_eq!((port.status().mode, port.status().why.as_str()), (mode, ""));
        }
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        port.tick().unwrap();
        for (seed, len) in (0u32..).zip([14, 15, 59, 60, 64, 128, 129, 590, 1500, 1514]) {
            for sent in [frame(seed, len), tagged(&frame(seed, len))] {
                // In: what the peer sends.
                peer.send(&sent);
                assert_eq!(receive(&mut port, 0, &mut burst, &mut stats), Ok(1), "{mode:?}, {len}");
                assert_eq!(bytes(&burst, 0, TagEdit::KEEP), sent);
                port.release(0, &mut burst).unwrap();
                // Out: a frame from foreign memory, as it is and with a tag.
                let frames = [sent];
                for edit in [TagEdit::KEEP, PUSH] {
                    let mut foreign = burst_of(&frames);
                    let items = [TxItem::whole(0, edit)];
                    foreign.set_exclusive(1);
                    let unsent = port.send(&mut foreign, &items, &mut stats);
                    assert_eq!(unsent, Ok(0));
                    let expected = if edit == PUSH { edited(&frames[0], edit) } else { frames[0].clone() };
                    // A veth drops what is longer than its MTU with one tag, and the peer's kernel what ends inside a
                    // tag.
                    if expected.len() <= 1518 && (expected.len() >= 20 || expected[12] == 0x88) {
                        assert_eq!(peer.receive(PATIENCE).as_ref(), Some(&expected), "{mode:?}, {len}");
                    }
                }
            }
        }
        assert_eq!((stats.rx_frames, stats.tx_frames), (20, 40));
        assert_eq!(stats.drops, PortDelta::ZERO.drops);
        drop(port);
        assert_eq!(memory.pool().free_chunks(), 8192);
    }
}

#[test]
fn chunks_move_between_ports_with_tags_edited_in_place() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    lab.veth(2, 1);
    let (from, to) = (lab.peer(1), lab.peer(2));
    // Both ports register the same memory for themselves.
    let memory = memory(8192);
    let mut ingress = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
    let mut egress = lab.open(2, Queues::All, XdpMode::Auto, &memory).unwrap();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    ingress.tick().unwrap();
    for (seed, edit) in (0u32..).zip([TagEdit::KEEP, PUSH, POP, SWAP].into_iter().cycle().take(200)) {
        let sent = tagged(&frame(seed, 40 + seed as usize * 7));
        from.send(&sent);
        assert_eq!(receive(&mut ingress, 0, &mut burst, &mut stats), Ok(1));
        let owned = memory.pool().owned_chunks(2);
        let items = [TxItem::whole(0, edit)];
        burst.set_exclusive(1);
        assert_eq!(egress.send(&mut burst, &items, &mut stats), Ok(0));
        assert!(burst.frame(0).unwrap().moved, "moved, not copied");
        assert!(memory.pool().owned_chunks(2) <= owned + 1);
        let expected = if edit == TagEdit::KEEP { sent } else { edited(&sent, edit) };
        ingress.release(0, &mut burst).unwrap();
        assert_eq!(to.receive(PATIENCE), Some(expected), "{edit:?}");
    }
    // Not the only taker: a copy, and the frame stays with its ingress.
    from.send(&frame(7, 100));
    assert_eq!(receive(&mut ingress, 0, &mut burst, &mut stats), Ok(1));
    egress.send(&mut burst, &[TxItem::whole(0, TagEdit::KEEP)], &mut stats).unwrap();
    assert!(!burst.frame(0).unwrap().moved);
    ingress.release(0, &mut burst).unwrap();
    assert_eq!(to.receive(PATIENCE), Some(frame(7, 100)));
    // The ingress goes; what the egress holds of its chunks stays the egress's.
    drop(ingress);
    egress.tick().unwrap();
    let filled = memory.pool().owned_chunks(2);
    assert_eq!(memory.pool().free_chunks() + filled, 8192);
    drop(egress);
    assert_eq!(memory.pool().free_chunks(), 8192);
}

#[test]
fn a_hundred_thousand_frames_lose_no_chunk() {
    const FRAMES: u32 = 100_000;
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    lab.veth(2, 2);
    let (from, to) = (lab.peer(1), lab.peer(2));
    let memory = memory(4096);
    let mut ingress = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
    let mut egress = lab.open(2, Queues::All, XdpMode::Auto, &memory).unwrap();
    assert_eq!(egress.rx.len(), 2);
    ingress.tick().unwrap();
    egress.tick().unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| (0..FRAMES).for_each(|seed| from.send(&numbered(seed))));
        let listener = scope.spawn(|| hear_numbered(&to));
        let (rx, tx) = pass_on(&mut ingress, &mut egress, &memory, || sender.is_finished());
        let heard = listener.join().unwrap();
        let kernel = ingress.statistics()[0].read();
        eprintln!(
            "received {} sent {} heard {heard}; kernel {kernel:?}; drops {:?}",
            rx.rx_frames, tx.tx_frames, tx.drops
        );
        assert!(rx.rx_frames > u64::from(FRAMES) / 2, "most frames arrive");
        assert_eq!(rx.rx_frames, tx.tx_frames + tx.drops.iter().sum::<u64>());
        // The peer's own kernel may lose some behind the veth (its backlog).
        assert!(u64::from(heard) <= tx.tx_frames && u64::from(heard) > tx.tx_frames / 10 * 9);
        assert_eq!((kernel.rx_invalid_descs, kernel.tx_invalid_descs), (0, 0));
        let egress_kernel: Vec<_> = egress.statistics().iter().map(|s| s.read().tx_invalid_descs).collect();
        assert_eq!(egress_kernel, [0, 0]);
    });
    let (readers, kernel) = (ingress.statistics(), ingress.statistics()[0].read());
    drop((ingress, egress));
    assert_eq!(readers[0].read(), kernel, "what was counted outlives the socket");
    assert_eq!(memory.pool().free_chunks(), 4096);
}

/// The frame with this number; lengths and flows differ.
fn numbered(seed: u32) -> Vec<u8> {
    frame(seed, 60 + (seed % 1400) as usize)
}

/// Hears numbered frames until none has come for a second, and gives their count. Each has to be as it was sent, and
/// behind those of its flow that were sent before.
fn hear_numbered(to: &RawSocket) -> u32 {
    let mut heard = 0u32;
    let mut last = [None; 1 << 16];
    while let Some(got) = to.receive(Duration::from_secs(1)) {
        let seed = u32::from_be_bytes(got[14..18].try_into().unwrap());
        assert_eq!(got, numbered(seed));
        let flow = &mut last[usize::from(seed as u16)];
        assert!(flow.is_none_or(|before| before < seed), "a flow stays in order");
        *flow = Some(seed);
        heard += 1;
    }
    heard
}

/// Passes frames on from one port to the other, until nobody sends any more and none has come for a while. After each
/// burst all chunks of the memory have an owner.
fn pass_on(
    ingress: &mut XdpPort,
    egress: &mut XdpPort,
    memory: &PacketMemory,
    all_are_sent: impl Fn() -> bool,
) -> (PortDelta, PortDelta) {
    let (mut burst, mut rx, mut tx) = (Burst::new(), PortDelta::ZERO, PortDelta::ZERO);
    let mut quiet_since = Instant::now();
    let mut turn = 0u64;
    while quiet_since.elapsed() < Duration::from_millis(300) || !all_are_sent() {
        turn += 1;
        ingress.receive(0, &mut burst, &mut rx).unwrap();
        if burst.is_empty() {
            ingress.tick().unwrap();
            egress.tick().unwrap();
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        quiet_since = Instant::now();
        let items: Vec<TxItem> = (0..burst.len()).map(|i| TxItem::whole(i as u8, TagEdit::KEEP)).collect();
        // Every other turn the frames are copied.
        let exclusive = if turn.is_multiple_of(2) { u64::MAX } else { 0 };
        burst.set_exclusive(exclusive);
        egress.send(&mut burst, &items, &mut tx).unwrap();
        ingress.release(0, &mut burst).unwrap();
        let pool = memory.pool();
        assert_eq!(pool.free_chunks() + pool.owned_chunks(1) + pool.owned_chunks(2), 4096);
    }
    (rx, tx)
}

/// Workers send through the same port at once, over fewer queues than they are and over enough, while the timed work is
/// done by all of them: every frame counts once, and no chunk is lost.
#[test]
fn workers_share_the_transmit_side() {
    const FRAMES: u64 = 5000;
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 2);
    for workers in [2, 3] {
        let memory = memory(4096);
        let mut port = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
        port.tick().unwrap();
        let filled = memory.pool().owned_chunks(1);
        let sent: u64 = std::thread::scope(|scope| {
            let work = |worker| {
                let tx = &port.tx;
                scope.spawn(move || {
                    let frames: Vec<_> = (0..32).map(|seed| frame(worker as u32 * 32 + seed, 200)).collect();
                    let items: Vec<_> = (0..32).map(|at| TxItem::whole(at, TagEdit::KEEP)).collect();
                    let (turn, mut stats) = (Turn { worker, workers, ..Turn::ONLY }, PortDelta::ZERO);
                    while stats.tx_frames < FRAMES {
                        tx.send_set(&turn, &mut burst_of(&frames), &items, &mut stats).unwrap();
                        tx.run_due(&turn, &mut stats).unwrap();
                    }
                    let lost: u64 = stats.drops.iter().sum();
                    assert_eq!((stats.tx_frames + lost) % 32, 0, "{stats:?}");
                    stats.tx_frames
                })
            };
            let threads: Vec<_> = (0..workers).map(work).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(sent >= FRAMES * workers as u64);
        let end = std::time::Instant::now() + PATIENCE;
        while memory.pool().owned_chunks(1) != filled && std::time::Instant::now() < end {
            port.tx.run_due(&Turn::ONLY, &mut PortDelta::ZERO.clone()).unwrap();
        }
        assert_eq!(memory.pool().owned_chunks(1), filled, "all chunks sent came back");
        let invalid: Vec<_> = port.statistics().iter().map(|queue| queue.read().tx_invalid_descs).collect();
        assert_eq!(invalid, [0, 0]);
        drop(port);
        assert_eq!(memory.pool().free_chunks(), 4096);
    }
}

#[test]
fn a_port_reopens_at_once_with_all_chunks_back() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 2);
    let peer = lab.peer(1);
    let memory = memory(8192);
    for round in 0..10 {
        let mut port = open_again(&lab, XdpMode::Auto, &memory);
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        port.tick().unwrap();
        for seed in 0..50 {
            peer.send(&frame(seed, 100));
        }
        let mut got = 0;
        let deadline = Instant::now() + PATIENCE;
        while got < 30 && Instant::now() < deadline {
            for queue in 0..2 {
                port.receive(queue, &mut burst, &mut stats).unwrap();
                got += burst.len();
                port.release(queue, &mut burst).unwrap();
            }
        }
        assert!(got >= 30, "round {round}: {got}");
        // A second port on the device is refused, and does not disturb the first.
        match lab.open(1, Queues::All, XdpMode::Auto, &memory) {
            Err(XdpError::ForeignProgram { program, .. }) => {
                assert!(program.is_some_and(|name| name.contains("labsw_to_socket")));
            }
            other => panic!("{other:?}"),
        }
        drop(port);
        wait_for_chunks(&memory, 8192);
    }
}

/// Opens a port on a device whose last port was closed just before. The kernel may be slower than we are: said as it
/// is, and soon over.
fn open_again(lab: &Lab, mode: XdpMode, memory: &std::sync::Arc<PacketMemory>) -> XdpPort {
    let end = Instant::now() + PATIENCE;
    loop {
        match lab.open(1, Queues::All, mode, memory) {
            Ok(port) => return port,
            Err(XdpError::Closing { .. }) if Instant::now() < end => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Chunks come back when the kernel has closed the sockets, which takes it longer on a busy machine.
fn wait_for_chunks(memory: &PacketMemory, chunks: usize) {
    let end = Instant::now() + PATIENCE;
    while memory.pool().free_chunks() < chunks {
        assert!(Instant::now() < end, "{} of {chunks} chunks were given back", memory.pool().free_chunks());
        std::thread::sleep(Duration::from_millis(5));
    }
}
