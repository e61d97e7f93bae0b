//! An `af_xdp` port against somebody else's AF_XDP: a socket of xsk-rs (libxdp) on the far end of the veth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::xdp::{Hugepages, PacketMemory, Queues, XdpMode};
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::xdp_lab::{Lab, bytes, frame, receive};
use xsk_rs::config::{SocketConfig, UmemConfig};

const FRAMES: u32 = 500;

fn length(seed: u32) -> usize {
    60 + (seed as usize * 37) % 1440
}

/// xsk-rs sends numbered frames, the port receives them and sends them back; both directions byte for byte.
#[test]
fn frames_are_exchanged_with_xsk_rs() {
    let Some(lab) = Lab::new() else { return };
    lab.veth(1, 1);
    let memory = std::sync::Arc::new(PacketMemory::new(8192, Hugepages::Auto).unwrap());
    let mut port = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
    port.tick().unwrap();
    let (ready, is_ready) = channel();
    std::thread::scope(|scope| {
        let peer = scope.spawn(|| lab.in_peer(move || play_peer(&ready)));
        is_ready.recv().unwrap();
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let mut next = 0;
        while next < FRAMES && receive(&mut port, 0, &mut burst, &mut stats).unwrap() > 0 {
            for index in 0..burst.len() {
                assert_eq!(bytes(&burst, index, TagEdit::KEEP), frame(next, length(next)));
                next += 1;
            }
            let items: Vec<TxItem> = (0..burst.len()).map(|frame| TxItem::whole(frame as u8, TagEdit::KEEP)).collect();
            let exclusive = if next.is_multiple_of(2) { u64::MAX } else { 0 };
            burst.set_exclusive(exclusive);
            assert_eq!(port.send(&mut burst, &items, &mut stats), Ok(0));
            port.release(0, &mut burst).unwrap();
        }
        assert_eq!((next, stats.rx_frames, stats.tx_frames), (FRAMES, u64::from(FRAMES), u64::from(FRAMES)));
        assert_eq!(peer.join().unwrap(), FRAMES, "what came back to xsk-rs");
    });
}

/// Sends all frames, a few at a time, and counts what comes back as it was sent.
fn play_peer(ready: &std::sync::mpsc::Sender<()>) -> u32 {
    const WINDOW: u32 = 32;
    let (umem, mut descs) = xsk_rs::Umem::new(UmemConfig::default(), 64.try_into().unwrap(), false).unwrap();
    let (receive_into, send_from) = descs.split_at_mut(32);
    // SAFETY: the UMEM outlives the socket's queues, and nothing else is bound to it.
    let socket = unsafe { xsk_rs::Socket::new(SocketConfig::default(), &umem, &"p1".parse().unwrap(), 0) };
    let (mut tx, mut rx, rings) = socket.unwrap();
    let (mut fill, mut completion) = rings.unwrap();
    // SAFETY: here and below, each frame descriptor is used by one side at a time: the first half goes round between
    // the fill and the receive ring, the second between transmit and completion ring, a whole window at a time.
    assert_eq!(unsafe { fill.produce(receive_into) }, 32);
    ready.send(()).unwrap();
    let (mut sent, mut heard) = (0, 0);
    while sent < FRAMES {
        let count = WINDOW.min(FRAMES - sent) as usize;
        for desc in &mut send_from[..count] {
            // SAFETY: as at the first use of the fill ring.
            let mut data = unsafe { umem.data_mut(desc) };
            let mut cursor = data.cursor();
            cursor.set_pos(0);
            cursor.write_all(&frame(sent, length(sent))).unwrap();
            sent += 1;
        }
        // SAFETY: as at the first use of the fill ring.
        assert_eq!(unsafe { tx.produce_and_wakeup(&send_from[..count]) }.unwrap(), count);
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut completed = 0;
        while (heard < sent || completed < count) && Instant::now() < deadline {
            tx.wakeup().unwrap();
            // SAFETY: as at the first use of the fill ring.
            completed += unsafe { completion.consume(&mut send_from[completed..count]) };
            // SAFETY: as at the first use of the fill ring.
            let got = unsafe { rx.poll_and_consume(receive_into, 1) }.unwrap();
            for desc in &receive_into[..got] {
                // SAFETY: as at the first use of the fill ring.
                assert_eq!(unsafe { umem.data(desc) }.contents(), frame(heard, length(heard)));
                heard += 1;
            }
            // SAFETY: as at the first use of the fill ring.
            assert_eq!(unsafe { fill.produce(&receive_into[..got]) }, got);
        }
    }
    heard
}
