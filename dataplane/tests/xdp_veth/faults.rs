//! Faults of a device, of its far end, and of a missing privilege; sending and opening again afterwards.

use super::*;

#[test]
fn a_removed_device_is_a_fault() {
    let Some(lab) = Lab::new() else { return };
    for send in [false, true] {
        lab.veth(1, 1);
        let memory = memory(4096);
        let mut port = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
        let mut stats = PortDelta::ZERO;
        port.tick().unwrap();
        lab.ip(&["link", "del", "s1"]);
        let fault = if send {
            let frames = [frame(1, 60)];
            let items = [TxItem::whole(0, TagEdit::KEEP)];
            port.send(&mut burst_of(&frames), &items, &mut stats).unwrap_err()
        } else {
            port.tick().unwrap_err()
        };
        assert!(fault.reason.starts_with("s1: the device"), "{fault}");
        drop(port);
        assert_eq!(memory.pool().free_chunks(), 4096);
    }
}

#[test]
fn frames_for_a_far_end_that_is_down_are_not_kept() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let memory = memory(4096);
    let mut port = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
    let mut stats = PortDelta::ZERO;
    port.tick().unwrap();
    let filled = memory.pool().owned_chunks(1);
    lab.peer_ip(&["link", "set", "p1", "down"]);
    let frames: Vec<Vec<u8>> = (0..60).map(|seed| frame(seed, 200)).collect();
    let items: Vec<TxItem> = (0..60).map(|frame| TxItem::whole(frame, TagEdit::KEEP)).collect();
    for _ in 0..100 {
        let unsent = port.send(&mut burst_of(&frames), &items, &mut stats);
        assert_eq!(unsent, Ok(0), "{stats:?}");
    }
    port.tick().unwrap();
    port.tick().unwrap();
    assert_eq!(memory.pool().owned_chunks(1), filled);
    lab.peer_ip(&["link", "set", "p1", "up"]);
    let peer = lab.peer(1);
    port.tick().unwrap();
    let after = [frame(1000, 99)];
    port.send(&mut burst_of(&after), &items[..1], &mut stats).unwrap();
    assert_eq!(peer.receive(PATIENCE).as_ref(), Some(&after[0]));
}

#[test]
fn a_missing_privilege_is_named() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let bpf = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
    for (without, named) in [
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
        (bpf, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN | bpf, "CAP_NET_ADMIN"),
        (CapabilitySet::IPC_LOCK, "CAP_IPC_LOCK"),
    ] {
        let memory = memory(1 << 15);
        // A thread's capabilities are its own, and it ends right after.
        let result = lab.in_switch(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(without);
            set_capabilities(None, sets).unwrap();
            let ifindex = xdp_lab::ifindex("s1");
            let (interface, queues, mode) = ("s1".to_owned(), Queues::All, XdpMode::Auto);
            XdpPort::open(XdpConfig { interface, ifindex, queues, mode, mtu: 1500, busy_poll: false }, &memory)
        });
        match result {
            Err(error @ XdpError::Privilege { .. }) => {
                let text = error.to_string();
                assert!(text.starts_with("s1: ") && text.contains(named), "{text}");
            }
            other => panic!("without {without:?}: {other:?}"),
        }
    }
    let memory = memory(64);
    let config = XdpConfig {
        interface: "nosuch".to_owned(),
        ifindex: 4711,
        queues: Queues::All,
        mode: XdpMode::Auto,
        mtu: 1500,
        busy_poll: false,
    };
    let error = lab.in_switch(|| XdpPort::open(config, &memory)).unwrap_err();
    assert_eq!(error.to_string(), "nosuch: no such network interface");
}

#[test]
fn what_no_socket_takes_does_not_reach_the_host() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 2);
    lab.ip(&["addr", "add", "198.18.0.1/24", "dev", "s1"]);
    let peer = lab.peer(1);
    let host = lab.in_switch(|| std::net::UdpSocket::bind("198.18.0.1:9").unwrap());
    host.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let hear = || {
        let mut heard = 0;
        while host.recv(&mut [0; 2048]).is_ok() {
            heard += 1;
        }
        heard
    };
    let send_all = || {
        for flow in 0..64u16 {
            peer.send(&udp_broadcast(flow));
        }
    };
    send_all();
    assert_eq!(hear(), 64, "without a port the host hears everything: the test can fail");

    let memory = memory(8192);
    let mut port = lab.open(1, Queues::Count(1), XdpMode::Auto, &memory).unwrap();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.tick().unwrap();
    send_all();
    assert_eq!(hear(), 0);
    port.receive(0, &mut burst, &mut stats).unwrap();
    port.release(0, &mut burst).unwrap();
    assert!((1..64).contains(&stats.rx_frames), "the flows spread over both queues: {}", stats.rx_frames);
    match lab.open(1, Queues::Count(3), XdpMode::Auto, &memory) {
        Err(XdpError::Queues { wanted: 3, active: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    drop(port);
    send_all();
    assert_eq!(hear(), 64, "nothing of the program is left behind");
}

#[test]
fn what_cannot_be_sent_is_counted_and_sending_recovers() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let memory = memory(64 + 64);
    let mut port = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
    port.tick().unwrap();
    // A fill ring gets 64 chunks however small its share is, so 64 are left; of those beyond a quarter of all, half may
    // be used to send.
    assert_eq!(memory.pool().free_chunks(), 64);
    let taken: Vec<u64> = std::iter::from_fn(|| memory.pool().take(77)).collect();
    let frames = [frame(1, 60), frame(2, 70_000), frame(3, 13)];
    let items = [0, 1, 2].map(|frame| TxItem::whole(frame, TagEdit::KEEP));
    let mut stats = PortDelta::ZERO;
    let unsent = port.send(&mut burst_of(&frames), &items, &mut stats);
    assert_eq!(unsent, Ok(0b111));
    for reason in [DropReason::NoBuffer, DropReason::Oversize, DropReason::Runt] {
        assert_eq!(stats.drops[reason as usize], 1, "{}", reason.name());
    }
    for addr in taken {
        memory.pool().give(addr, 77).unwrap();
    }
    assert_eq!(port.send(&mut burst_of(&frames), &items[..1], &mut stats), Ok(0));
    assert_eq!(stats.tx_frames, 1);
}

#[test]
fn the_first_frames_find_chunks_whenever_the_worker_looks() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let peer = lab.peer(1);
    let memory = memory(8192);
    for mode in [XdpMode::Copy, XdpMode::Skb] {
        let mut port = lab.open(1, Queues::All, mode, &memory).unwrap();
        for seed in 0..100 {
            peer.send(&frame(seed, 100));
        }
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let end = Instant::now() + PATIENCE;
        while stats.rx_frames < 100 && Instant::now() < end {
            port.receive(0, &mut burst, &mut stats).unwrap();
            port.release(0, &mut burst).unwrap();
        }
        assert_eq!(stats.rx_frames, 100, "{mode:?}");
    }
}

#[test]
fn a_port_is_opened_again_right_after_it_was_closed() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 2);
    let memory = memory(8192);
    for _ in 0..60 {
        let port = open_again(&lab, XdpMode::Copy, &memory);
        let begin = Instant::now();
        drop(port);
        assert!(begin.elapsed() < PATIENCE, "closing took {:?}", begin.elapsed());
    }
    wait_for_chunks(&memory, 8192);
}

#[test]
fn a_far_end_that_keeps_frames_keeps_a_share_of_the_memory_only() {
    let Some(lab) = Lab::new() else { return };
    let total = 8192;
    let memory = memory(total);
    let mut ports = Vec::new();
    for number in 1..=6 {
        lab.veth(number, 2);
        if !lab.keep_frames(number) {
            return;
        }
        ports.push(lab.open(number, Queues::All, XdpMode::Copy, &memory).unwrap());
    }
    let frames: Vec<Vec<u8>> = (0..32).map(|seed| frame(seed, 60)).collect();
    let items: Vec<TxItem> = (0..32).map(|frame| TxItem::whole(frame, TagEdit::KEEP)).collect();
    let mut stats = PortDelta::ZERO;
    let filled: Vec<usize> = (1..=6).map(|owner| memory.pool().owned_chunks(owner)).collect();
    for _ in 0..100 {
        for port in &mut ports {
            port.send(&mut burst_of(&frames), &items, &mut stats).unwrap();
        }
    }
    let lost = stats.drops[DropReason::HeldByPeer as usize] + stats.drops[DropReason::NoBuffer as usize];
    assert!(lost > 0, "nothing was kept: the test can't fail");
    for (owner, filled) in (1..=6).zip(filled) {
        let sending = memory.pool().owned_chunks(owner) - filled;
        assert!(sending <= total as usize / 8, "port {owner} has {sending} chunks under way");
    }
    assert!(memory.pool().free_chunks() >= total as usize / 4, "{} are free", memory.pool().free_chunks());
    // Who comes now is served.
    lab.veth(7, 1);
    let mut innocent = lab.open(7, Queues::All, XdpMode::Copy, &memory).unwrap();
    let (peer, mut stats) = (lab.peer(7), PortDelta::ZERO);
    for _ in 0..50 {
        assert_eq!(innocent.send(&mut burst_of(&frames), &items, &mut stats), Ok(0));
        for sent in &frames {
            assert_eq!(peer.receive(PATIENCE).as_ref(), Some(sent));
        }
    }
    assert_eq!(stats.drops, PortDelta::ZERO.drops);
    // Closing those whose frames are kept waits for nobody.
    let begin = Instant::now();
    drop(ports);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// A broadcast UDP datagram from 198.18.0.2 to the port discard of 198.18.0.1.
fn udp_broadcast(flow: u16) -> Vec<u8> {
    let mut packet: Vec<u8> = vec![0xff; 6];
    packet.extend(xdp_lab::SOURCE);
    packet.extend([8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1]);
    let sum: u32 = packet[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[24..26].copy_from_slice(&check.to_be_bytes());
    packet.extend((1000 + flow).to_be_bytes());
    packet.extend([0, 9, 0, 12, 0, 0, 1, 2, 3, 4]);
    packet.resize(60, 0);
    packet
}
