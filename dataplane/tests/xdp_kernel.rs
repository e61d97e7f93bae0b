//! Proves what the kernel does for an AF_XDP port, and that the port knows: drops counted by the kernel, a fill ring
//! that ran dry, the host's own stack kept silent, and busy polling.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::handover::{Given, Taken};
use labsw_dataplane::port::{RxQueue, Turn};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::xdp::{
    BusyPoll, Hugepages, PacketMemory, Queues, XdpConfig, XdpCounters, XdpMode, XdpPort, XdpStatus,
};
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::xdp_lab::{self, Lab, frame, ifindex, receive};

fn memory(chunks: u32) -> Arc<PacketMemory> {
    Arc::new(PacketMemory::new(chunks, Hugepages::Auto).unwrap())
}

/// Receives and gives back whatever is there; how many frames that was.
fn drain(port: &mut XdpPort) -> u64 {
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    loop {
        let before = stats.rx_frames;
        port.receive(0, &mut burst, &mut stats).unwrap();
        port.release(0, &mut burst).unwrap();
        if stats.rx_frames == before {
            return before;
        }
    }
}

#[test]
fn a_dry_fill_ring_is_counted_and_filled_again() {
    const SENT: u64 = 200;
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let peer = lab.peer(1);
    let memory = memory(128);
    let mut port = lab.open(1, Queues::All, XdpMode::Copy, &memory).unwrap();
    port.tick().unwrap();
    // Nothing is left to fill it with.
    let taken: Vec<u64> = std::iter::from_fn(|| memory.pool().take(77)).collect();
    let filled = memory.pool().owned_chunks(1) as u64;
    assert!(filled > 0 && filled < SENT, "{filled}");
    for seed in 0..200 {
        peer.send(&frame(seed, 100));
    }
    let dropped = SENT - filled;
    let expected = XdpCounters { rx_dropped: dropped, rx_fill_ring_empty: dropped, ..XdpCounters::default() };
    let reader = port.statistics().remove(0);
    assert_eq!(reader.read(), expected);

    // The worker is asked to come by soon, and its next look puts things right.
    assert!(port.rx[0].next_due(&Turn::ONLY) <= 500_000_000);
    for addr in taken {
        memory.pool().give(addr, 77).unwrap();
    }
    port.tick().unwrap();
    assert_eq!(drain(&mut port), filled);
    for round in 0..10 {
        for seed in 0..50 {
            peer.send(&frame(seed, 100));
        }
        assert_eq!(drain(&mut port), 50, "round {round}");
    }
    assert_eq!(reader.read(), expected, "nothing more is dropped");
    drop(port);
    assert_eq!(reader.read(), expected, "what was counted outlives the socket");
}

#[test]
fn a_full_receive_ring_is_counted() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let peer = lab.peer(1);
    let memory = memory(1 << 16);
    let mut port = lab.open(1, Queues::All, XdpMode::Copy, &memory).unwrap();
    // A worker that looks after its queue and receives nothing: twice as many chunks as the receive ring has entries.
    for _ in 0..2 {
        port.tick().unwrap();
        for seed in 0..2048 {
            peer.send(&frame(seed, 60));
        }
    }
    assert_eq!(drain(&mut port), 2048);
    let reader = port.statistics().remove(0);
    drop(port);
    // Read for the first time when the socket is closed already.
    let counters = reader.read();
    assert_eq!(counters.rx_ring_full, 2048, "{counters:?}");
    assert_eq!(counters.named().into_iter().find(|(name, _)| *name == "rx_ring_full"), Some(("rx_ring_full", 2048)));
    let mut sum = counters;
    sum += counters;
    assert_eq!(sum.rx_ring_full, 4096);
}

/// The port as another process has it, which was given the state and the descriptors.
fn given_to_another(port: &XdpPort, memory: &PacketMemory) -> (XdpPort, Arc<PacketMemory>) {
    let mut given = Given::default();
    let (area, state) = (memory.hand_over(&mut given), port.tx.hand_over(&mut given).unwrap());
    let copies = given.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
    let mut taken = Taken::new(copies);
    let memory = Arc::new(PacketMemory::take_over(&area, &mut taken).unwrap());
    let status = port.status().clone();
    (XdpPort::take_over("s1", 9000, status, state, &memory, &mut taken).unwrap(), memory)
}

#[test]
fn another_process_goes_on_with_what_waits_in_the_rings() {
    const CHUNKS: u32 = 16_384;
    let Some(lab) = Lab::new() else { return };
    for length in [100, 8000] {
        lab.veth(1, 1);
        lab.ip(&["link", "set", "s1", "mtu", "9000"]);
        let peer = lab.peer(1);
        let mut memory = memory(CHUNKS);
        let mut port = lab.open(1, Queues::All, XdpMode::Copy, &memory).unwrap();
        lab.peer_ip(&["link", "set", "p1", "mtu", "9000"]);
        port.tick().unwrap();
        let (mut sent, mut expected) = (0, 0);
        let mut send = |count| {
            for _ in 0..count {
                peer.send(&frame(sent, length));
                sent += 1;
            }
        };
        let mut receive_some = |port: &mut XdpPort| {
            let mut burst = Burst::new();
            receive(port, 0, &mut burst, &mut PortDelta::ZERO.clone()).unwrap();
            for index in 0..burst.len() {
                assert!(xdp_lab::bytes(&burst, index, TagEdit::KEEP) == frame(expected, length), "frame {expected}");
                expected += 1;
            }
            port.release(0, &mut burst).unwrap();
            expected
        };
        // A burst holds 64 frames, or 21 of three chunks each and the beginning of another.
        for _ in 0..3 {
            send(80);
            let received = receive_some(&mut port);
            assert!(received % 80 != 0, "some wait in the ring: {received}");
            let (mut next, next_memory) = given_to_another(&port, &memory);
            let items = [TxItem::whole(0, TagEdit::KEEP)];
            let mut stats = PortDelta::ZERO;
            next.send(&mut xdp_lab::burst_of(&[frame(1, 60)]), &items, &mut stats).unwrap();
            assert_eq!(stats.tx_frames, 0, "it is the first one's until it is resumed");
            next_memory.resume(&memory.state(), &[next.tx.owner()]).unwrap();
            // The first process ends, and undoes nothing.
            std::mem::forget(std::mem::replace(&mut port, next));
            port.tx.resume();
            port.tick().unwrap();
            while receive_some(&mut port) % 80 != 0 {}
            for round in 0..20 {
                let frames = [frame(round, length)];
                port.send(&mut xdp_lab::burst_of(&frames), &items, &mut PortDelta::ZERO.clone()).unwrap();
                assert_eq!(peer.receive(Duration::from_secs(2)).as_ref(), Some(&frames[0]));
            }
            port.tick().unwrap();
            let pool = next_memory.pool();
            let owned = pool.owned_chunks(port.tx.owner());
            assert_eq!(pool.free_chunks() + owned, CHUNKS as usize, "each chunk is free or the port's");
            drop(pool);
            memory = next_memory;
        }
        lab.ip(&["link", "del", "s1"]);
    }
}

/// Waits until all chunks are free.
fn wait_for_all(memory: &PacketMemory, chunks: u32) {
    let end = Instant::now() + Duration::from_secs(20);
    while memory.pool().free_chunks() < chunks as usize {
        assert!(Instant::now() < end, "{} of {chunks} are free", memory.pool().free_chunks());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn another_process_waits_for_the_queues_of_a_port_that_was_closed() {
    const CHUNKS: u32 = 8192;
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    if !lab.keep_frames(1) {
        return;
    }
    let memory = memory(CHUNKS);
    let mut port = lab.open(1, Queues::All, XdpMode::Copy, &memory).unwrap();
    let (owner, items) = (port.tx.owner(), [TxItem::whole(0, TagEdit::KEEP)]);
    for seed in 0..64 {
        port.send(&mut xdp_lab::burst_of(&[frame(seed, 60)]), &items, &mut PortDelta::ZERO.clone()).unwrap();
    }
    drop(port);
    assert!(memory.pool().owned_chunks(owner) > 0, "nothing was kept: the test can't fail");
    // The other process gets the memory while the kernel still has frames in it.
    let mut given = Given::default();
    let area = memory.hand_over(&mut given);
    let copies = given.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
    let other = Arc::new(PacketMemory::take_over(&area, &mut Taken::new(copies)).unwrap());
    lab.in_switch(|| other.resume(&memory.state(), &[]).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    let pool = other.pool();
    assert!(pool.owned_chunks(owner) > 0, "given back while the kernel has them");
    assert_eq!(pool.free_chunks() + pool.owned_chunks(owner), CHUNKS as usize);
    drop(pool);
    lab.free_frames(1);
    wait_for_all(&other, CHUNKS);
    assert_eq!(other.pool().enter(), Some(owner), "its number is free again");
    wait_for_all(&memory, CHUNKS);
}

#[test]
fn the_hosts_own_frames_stay_on_the_host() {
    let Some(lab) = Lab::new() else { return };
    for mode in [XdpMode::Copy, XdpMode::Skb] {
        lab.veth(1, 1);
        let peer = lab.peer(1);
        let host = lab.in_switch(|| xdp_lab::RawSocket::open("s1"));
        let heard_from_host = || {
            host.try_send(&frame(1, 100));
            peer.receive(Duration::from_millis(300)).is_some()
        };
        assert!(heard_from_host(), "{mode:?}: without a port it is heard: the test can fail");
        let memory = memory(4096);
        let mut port = lab.open(1, Queues::All, mode, &memory).unwrap();
        assert_eq!(port.status().host_heard, None);
        port.tick().unwrap();
        assert!(!heard_from_host(), "{mode:?}");
        // The port itself is heard.
        let frames = [frame(2, 100)];
        let items = [labsw_switch::forward::TxItem::whole(0, labsw_switch::forward::TagEdit::KEEP)];
        let mut stats = PortDelta::ZERO;
        port.send(&mut xdp_lab::burst_of(&frames), &items, &mut stats).unwrap();
        assert_eq!(peer.receive(Duration::from_secs(2)).as_ref(), Some(&frames[0]), "{mode:?}");
        drop(port);
        assert!(heard_from_host(), "{mode:?}: given back");
        lab.ip(&["link", "del", "s1"]);
    }
}

/// `BusyPollRxPackets` of the calling thread's network namespace.
fn polled_packets() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt: ")).map(str::split_whitespace);
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "BusyPollRxPackets").unwrap().1.parse().unwrap()
}

#[test]
fn busy_polling_is_what_the_kernel_says_it_is() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let peer = lab.peer(1);
    let open = |mode, busy_poll| {
        let memory = memory(4096);
        lab.in_switch(|| {
            let (interface, ifindex) = ("s1".to_owned(), ifindex("s1"));
            XdpPort::open(XdpConfig { interface, ifindex, queues: Queues::All, mode, mtu: 1500, busy_poll }, &memory)
        })
        .unwrap()
    };
    for setting in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
        let value = if setting == "gro_flush_timeout" { "200000" } else { "2" };
        let script = format!("echo {value} >/sys/class/net/s1/{setting}");
        assert!(
            Command::new("ip")
                .args(["netns", "exec", lab.switch_name(), "sh", "-c", &script])
                .status()
                .unwrap()
                .success()
        );
    }
    for (mode, busy_poll) in [(XdpMode::Copy, true), (XdpMode::Copy, false), (XdpMode::Skb, true)] {
        let mut port = open(mode, busy_poll);
        let XdpStatus { busy_poll: status, .. } = port.status();
        assert_eq!(*status, if busy_poll { BusyPoll::Asked } else { BusyPoll::Off });
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        port.tick().unwrap();
        assert_eq!(port.statistics()[0].napi_id(), None, "nothing was received yet");
        let before = lab.in_switch(polled_packets);
        for seed in 0..500 {
            // A worker looks all the time, and the first look takes the queue from the interrupt.
            port.tick().unwrap();
            port.receive(0, &mut burst, &mut stats).unwrap();
            peer.send(&frame(seed, 100));
            assert_eq!(receive(&mut port, 0, &mut burst, &mut stats), Ok(1), "{mode:?}");
            port.release(0, &mut burst).unwrap();
        }
        let polled = lab.in_switch(polled_packets) - before;
        // Linux 6.14 and some after it know the receive loop behind a socket only if the driver says which it is, and
        // only with zero copy; before that also behind a veth, once a frame was received.
        let polls = busy_poll && port.statistics()[0].napi_id().is_some();
        eprintln!("{mode:?}, busy poll {busy_poll}: {polled} of 500 frames were received by polling");
        assert!(if polls { polled > 250 } else { polled == 0 }, "{mode:?}: {polled} of 500 frames");
        assert!(!polls || mode == XdpMode::Copy, "the generic path has no receive loop of its own");
    }
}

#[test]
fn nothing_that_lies_in_the_ring_passes_a_gate_that_was_shut() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let peer = lab.peer(1);
    let memory = memory(4096);
    let mut port = lab.open(1, Queues::All, XdpMode::Copy, &memory).unwrap();
    port.tick().unwrap();
    let gate = port.gate();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let mut passes = |count: u64, port: &mut XdpPort| {
        let (received, dropped) = (stats.rx_frames, stats.drops[DropReason::TagUnsure as usize]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while stats.rx_frames < received + count && Instant::now() < deadline {
            port.receive(0, &mut burst, &mut stats).unwrap();
            port.release(0, &mut burst).unwrap();
        }
        assert_eq!(stats.rx_frames - received, count, "every frame is counted");
        let dropped = stats.drops[DropReason::TagUnsure as usize] - dropped;
        count - dropped
    };
    let send = |count: u32| (0..count).for_each(|seed| peer.send(&frame(seed, 100)));
    send(10);
    assert_eq!(passes(10, &mut port), 10);
    gate.shut();
    send(100);
    assert_eq!(passes(100, &mut port), 0, "shut");
    // A worker that did not look between: more than a burst lies there, received while the gate was shut.
    send(200);
    assert!(gate.open(gate.epoch()));
    assert_eq!(passes(200, &mut port), 0, "received before the gate was opened");
    send(10);
    assert_eq!(passes(10, &mut port), 10, "open");
    // Shut and opened with nothing received between.
    gate.shut();
    assert!(gate.open(gate.epoch()));
    send(1);
    assert_eq!(passes(1, &mut port), 0, "it may have come before");
    for _ in 0..100 {
        send(50);
        assert_eq!(passes(50, &mut port), 50, "every chunk came back");
    }
}
