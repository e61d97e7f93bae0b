//! The frame parser and the forwarding decision, against the naive model of the switch crate's own tests; and the bytes
//! that leave, as the burst's reader gives them, against those the model puts together.

use std::cell::RefCell;

use labsw_dataplane::frame::{Burst, Segment};
use labsw_switch::forward::{Forwarder, TxItem};
use labsw_switch::inline::Way;
use labsw_switch::vlan::VlanMode;
use labsw_switch::{Mac, PortId, Vid};

use super::feed::Feed;
use labsw_testkit::model::naive::{Naive, Outcome};
use labsw_testkit::model::{Decided, Guarded, Inline, Mirror, Pattern, Port, To};
use labsw_testkit::model::{decide, fdb, placed, sane, tables};

const VLANS: [u16; 6] = [1, 10, 20, 21, 4094, 2];
const STEPS: usize = 32;
/// So few that the table never has to make room, of which the model knows nothing.
const ADDRESSES: u8 = 6;

/// Builds ports and mirrors, then lets frames come in, time pass and static entries be made.
///
/// # Panics
/// When the switch decides otherwise than the model, or other bytes leave than the model says.
pub fn forward(data: &[u8]) {
    // As in a worker, its lists outlive what they are used for.
    thread_local!(static DECIDED: RefCell<Decided> = RefCell::default());
    DECIDED.with_borrow_mut(|decided| play(&mut Feed::new(data), decided));
}

fn play(feed: &mut Feed<'_>, decided: &mut Decided) {
    let count = 2 + u16::from(feed.u8() % 7);
    let ports: Vec<Port> = (0..count).map(|_| port(feed)).collect();
    let mirrors = (0..feed.u8() % 4).map(|_| mirror(feed, count)).collect();
    let mirrors = sane(mirrors, &ports);
    let inlines = (0..feed.u8() % 3).map(|_| inline(feed, count)).collect();
    let inlines = placed(inlines, &ports, &mirrors);
    let tables = tables(&ports, &mirrors, &inlines);
    let fdb = fdb(&ports, 1);
    let mut naive = Naive::new(ports, mirrors, inlines);
    let mut now_seconds = u32::MAX - 20;
    for _ in 0..STEPS {
        if feed.is_empty() {
            break;
        }
        match feed.u8() {
            0..32 => now_seconds = now_seconds.wrapping_add(u32::from(feed.u8() % 16)),
            32..48 => {
                let (vlan, last, port) = (feed.choose(&VLANS), feed.u8() % ADDRESSES, u16::from(feed.u8()) % count);
                let mac = [0x52, 0x54, 0, 0, 0, last];
                let vid = Vid::try_from(vlan).expect("a VLAN id");
                fdb.add_static(vid, Mac::new(mac), PortId(port)).expect("room");
                naive.add_static(vlan, mac, port);
            }
            ingress => {
                let ingress = u16::from(ingress) % count;
                let frames: Vec<_> = (0..=feed.u8() % 16).map(|_| frame(feed)).collect();
                let forwarder = Forwarder { tables: &tables, fdb: &fdb, now_seconds };
                let cut = feed.u8();
                let failed: Vec<_> = (0..count).map(|port| failed(cut, port)).collect();
                let outcome = decide(forwarder, decided, ingress, &frames, &failed);
                let expected = naive.burst(ingress, &frames, now_seconds, &failed);
                assert_eq!(outcome, expected, "ingress {ingress}, frames {frames:02x?}, not taken {failed:x?}");
                check_bytes(&frames, decided, &expected, cut.into());
            }
        }
    }
}

fn inline(feed: &mut Feed<'_>, ports: u16) -> Inline {
    let way = feed.choose(&[Way::Through, Way::Through, Way::Past, Way::Closed]);
    let mut port = || u16::from(feed.u8()) % ports;
    Inline { port: port(), near: port(), far: port(), way }
}

fn port(feed: &mut Feed<'_>) -> Port {
    let mode = feed.choose(&VlanMode::ALL);
    let tag = feed.choose(&VLANS);
    let chosen = feed.u8();
    let trunks = [1..=1, 10..=20, 21..=21, 20..=4094].into_iter().enumerate();
    let trunks = trunks.filter(|(bit, _)| mode != VlanMode::Access && chosen >> bit & 1 == 1).map(|(_, range)| range);
    let flags = feed.u8();
    Port {
        mode,
        tag,
        trunks: trunks.collect(),
        customer_untagged: chosen & 0x20 != 0,
        tpid: if chosen & 0x40 != 0 { 0x8100 } else { 0x88a8 },
        mtu: feed.choose(&[1500, 1500, 100, 46]),
        enabled: flags & 7 != 7,
        learning: flags & 0x38 != 0x38,
        mirror_only: flags & 0xc0 == 0xc0,
        drops_link_local: chosen & 0x10 != 0,
        guards: Guarded {
            sticky: chosen & 0x20 != 0,
            isolated: chosen & 0x40 != 0,
            pinned: None,
            limit: (chosen & 0x80 != 0).then_some((2, flags & 1 != 0)),
        },
        inject: None,
    }
}

fn mirror(feed: &mut Feed<'_>, ports: u16) -> Mirror {
    let direction = |bits: u8| (bits & 1 != 0, bits & 2 != 0);
    let sources = (0..feed.u8() % 4).map(|_| {
        let (rx, tx) = direction(feed.u8());
        (u16::from(feed.u8()) % ports, rx, tx)
    });
    let sources = sources.collect();
    let flags = feed.u8();
    Mirror {
        sources,
        all: (flags & 3 == 3).then(|| direction(flags >> 2)),
        vlans: (flags & 0x30 == 0x30).then(|| (0..feed.u8() % 3).map(|_| feed.choose(&VLANS)).collect()),
        // Few destinations, so that mirrors share them.
        to: match flags >> 6 {
            3 => None,
            // Where all ports are watched, what comes next in the stream is as likely a VLAN.
            _ if flags & 0x0c == 0x0c => Some(To::Vlan(feed.choose(&VLANS))),
            port => Some(To::Port(u16::from(port) % ports.min(2))),
        },
        snap: if flags & 3 == 1 { [14, 60, 65_535, 65_536][usize::from(flags >> 2 & 3)] } else { 0 },
        pattern: (flags & 0x24 == 0x24).then_some(Pattern {
            tagged: flags & 0x80 != 0,
            least: if flags & 0x40 == 0 { 0 } else { 64 },
            at: if flags & 0x08 == 0 { 15 } else { 5 },
            mask: 1,
            value: flags & 1,
        }),
    }
}

/// The frames of a burst that `port` does not take: for half of the seeds none, else those that the port's bits choose.
fn failed(seed: u8, port: u16) -> u64 {
    if seed & 1 == 0 { 0 } else { u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(u32::from(port) * 7) }
}

/// A frame between few addresses, cut anywhere; its tags are often real.
fn frame(feed: &mut Feed<'_>) -> Vec<u8> {
    let last = feed.u8();
    let dst = match last {
        0..200 => [0x52, 0x54, 0, 0, 0, last % ADDRESSES],
        200..224 => [0xff; 6],
        224..240 => [0x33, 0x33, 0, 0, 0, last],
        240.. => [0x01, 0x80, 0xc2, 0, 0, feed.u8() % 32],
    };
    let last = feed.u8();
    let src = [if last > 250 { 0x53 } else { 0x52 }, 0x54, 0, 0, 0, last % ADDRESSES];
    let mut bytes = [dst, src].concat();
    let shape = feed.u8();
    for _ in 0..[0, 0, 1, 1, 1, 1, 2, 3][usize::from(shape % 8)] {
        let tag = feed.u8();
        bytes.extend(if tag & 1 == 0 { [0x81, 0x00] } else { [0x88, 0xa8] });
        let vid = match tag >> 1 & 7 {
            0 => 0,
            1 => 4095,
            2 => feed.u16() & 0xfff,
            vlan => VLANS[usize::from(vlan) % VLANS.len()],
        };
        bytes.extend((u16::from(tag) << 8 & 0xf000 | vid).to_be_bytes());
    }
    let payload = usize::from(feed.u8());
    bytes.extend_from_slice(feed.take(usize::from(shape >> 3 & 7)));
    bytes.extend([8, 0]);
    bytes.resize(bytes.len() + payload, shape);
    if shape >= 240 {
        bytes.truncate(payload % 24);
    }
    bytes
}

/// Receives the frames as a driver does, cut in pieces, and reads back what is sent and copied.
fn check_bytes(frames: &[Vec<u8>], decided: &Decided, expected: &Outcome, cut: usize) {
    let mut burst = Burst::new();
    for frame in frames {
        let (head, tail) = frame.split_at(cut.min(frame.len()));
        let segment = |part: &[u8]| Segment { ptr: part.as_ptr(), len: u32::try_from(part.len()).expect("short") };
        // SAFETY: the segments are slices of `frame`, which outlives the burst and does not change.
        assert!(unsafe { burst.push(0, &[segment(head), segment(tail)]) });
    }
    for (port, sent) in &expected.sent {
        for (item, (_, bytes)) in decided.egress.items(PortId(*port)).iter().zip(sent) {
            assert_eq!(read(&burst, item, cut), *bytes, "{item:?}");
        }
    }
    for destination in decided.copies.destinations() {
        let to = (destination.to.0, destination.rspan.map(u16::from));
        for (item, (_, _, bytes)) in destination.items.iter().zip(&expected.copies[&to]) {
            assert_eq!(read(&burst, item, cut), *bytes, "{item:?}");
            let snapped = &bytes[..cut.min(bytes.len())];
            // A snap length of 0 would be the whole frame.
            if let Some(snap_bytes) = u16::try_from(snapped.len()).ok().filter(|len| *len != 0) {
                let item = TxItem { snap_bytes, ..*item };
                assert_eq!(read(&burst, &item, cut), snapped, "{item:?}");
            }
        }
    }
}

/// The outgoing frame, read in pieces of at most `piece` bytes.
fn read(burst: &Burst, item: &TxItem, piece: usize) -> Vec<u8> {
    let mut reader = burst.reader(item).expect("an edit that was decided fits the frame");
    let mut bytes = vec![0; reader.remaining() as usize];
    for part in bytes.chunks_mut(piece.max(1)) {
        let room = u32::try_from(part.len()).expect("short");
        // SAFETY: `part` is writable for its length, and no part of the frame.
        assert_eq!(unsafe { reader.read(part.as_mut_ptr(), room) }, room);
    }
    assert_eq!(reader.remaining(), 0);
    bytes
}
