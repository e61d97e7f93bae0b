//! Frames larger than a chunk of packet memory: received and sent in several, byte for byte, on veth pairs in
//! namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::time::Duration;

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::xdp::{Hugepages, PacketMemory, Queues, XdpMode, XdpPort};
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::xdp_lab::{Lab, bytes, frame, receive};

const PUSH: TagEdit = TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0x20, 10]) };
const POP: TagEdit = TagEdit { strip_bytes: 4, insert: None };

/// The frame after `edit`.
fn edited(frame: &[u8], edit: TagEdit) -> Vec<u8> {
    let tag = edit.insert.map(Vec::from).unwrap_or_default();
    [&frame[..12], &tag, &frame[12 + usize::from(edit.strip_bytes)..]].concat()
}

#[test]
fn frames_in_several_buffers_pass_whole() {
    let Some(lab) = Lab::new() else { return };
    for number in [1, 2] {
        lab.veth(number, 1);
        lab.ip(&["link", "set", &format!("s{number}"), "mtu", "9216"]);
    }
    let (near, far) = (lab.peer(1), lab.peer(2));
    let memory = std::sync::Arc::new(PacketMemory::new(4096, Hugepages::Auto).unwrap());
    let open = |number| lab.open(number, Queues::All, XdpMode::Auto, &memory).unwrap();
    let (mut from, mut to) = (open(1), open(2));
    for number in [1, 2] {
        lab.peer_ip(&["link", "set", &format!("p{number}"), "mtu", "9216"]);
    }
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    from.tick().unwrap();
    let mut seed = 0;
    // One chunk, two and three, and just around the limits.
    for len in [300, 3839, 3840, 3841, 7679, 7680, 7681, 8000, 9226] {
        for edit in [TagEdit::KEEP, PUSH, POP] {
            seed += 1;
            let sent = if edit == POP { edited(&frame(seed, len), PUSH) } else { frame(seed, len) };
            near.send(&sent);
            assert_eq!(receive(&mut from, 0, &mut burst, &mut stats), Ok(1), "{len}: {stats:?}");
            assert_eq!(bytes(&burst, 0, TagEdit::KEEP), sent);
            burst.set_exclusive(1);
            let unsent = to.send(&mut burst, &[TxItem::whole(0, edit)], &mut stats).unwrap();
            assert_eq!(unsent, 0, "{len}: {stats:?}");
            from.release(0, &mut burst).unwrap();
            assert!(far.receive(Duration::from_secs(2)).is_some_and(|f| f == edited(&sent, edit)), "{len} {edit:?}");
        }
    }
    assert_eq!((stats.rx_frames, stats.tx_frames), (27, 27));
    // More frames at once than chunks for all of them, again and again: some are lost and counted, none is half.
    for round in 0..50 {
        for number in 0..64 {
            near.send(&frame(round * 64 + number, 9000));
        }
        while receive_now(&mut from, &mut burst, &mut stats) > 0 {
            let items: Vec<TxItem> = (0..burst.len()).map(|at| TxItem::whole(at as u8, TagEdit::KEEP)).collect();
            burst.set_exclusive(u64::MAX);
            to.send(&mut burst, &items, &mut stats).unwrap();
            from.release(0, &mut burst).unwrap();
            from.tick().unwrap();
            to.tick().unwrap();
        }
        while let Some(got) = far.receive(Duration::from_millis(1)) {
            let seed = u32::from_be_bytes(got[14..18].try_into().unwrap());
            assert!(got == frame(seed, 9000), "frame {seed} of round {round}");
        }
    }
    assert!(stats.tx_frames > 27 + 1000, "{stats:?}");
    let pool = memory.pool();
    assert_eq!(pool.free_chunks() + pool.owned_chunks(1) + pool.owned_chunks(2), 4096);
}

/// Receives the frames in the receive ring, without waiting for more than a moment.
fn receive_now(port: &mut XdpPort, burst: &mut Burst, stats: &mut PortDelta) -> usize {
    std::thread::sleep(Duration::from_millis(1));
    port.receive(0, burst, stats).unwrap();
    burst.len()
}
