//! Offloads at the guest's rings: what a guest leaves to do is read once, judged, and told to the guest that gets the
//! frame; the impossible is counted and hurts nobody else.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use labsw_dataplane::frame::Burst;
use labsw_dataplane::offload::{HEADER_BYTES, Offers, Request};
use labsw_dataplane::port::TxPort;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::VhostPort;
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::{BUFFER_BYTES, Guest, INDIRECT, MRG_RXBUF, VERSION_1};
use labsw_testkit::offload_frames::{self, Packet, noise};
use proptest::prelude::*;

const TX: usize = 1;
const RX: usize = 0;
/// CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_USO.
const SENDS: u64 = 1 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 56;
/// GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_USO4, GUEST_USO6.
const TAKES: u64 = 1 << 1 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 54 | 1 << 55;
const TAG: [u8; 4] = [0x81, 0, 0, 20];

/// Sends from the guest: a virtio-net header of 10 bytes and a frame.
fn transmit(guest: &mut Guest, header: [u8; HEADER_BYTES], frame: &[u8], pieces: &[usize]) {
    let mut bytes = header.to_vec();
    bytes.resize(guest.header_bytes(), 0);
    bytes.extend(frame);
    guest.transmit_raw(TX, &bytes, pieces);
}

/// Receives a burst of `from` and sends all of it to `to` with this edit; returns what was not sent.
fn pass(from: &mut VhostPort, to: &mut VhostPort, edit: TagEdit, stats: &mut PortDelta) -> u64 {
    let mut burst = Burst::new();
    from.receive(0, &mut burst, stats).unwrap();
    let items: Vec<_> = (0..burst.len()).map(|frame| TxItem::whole(frame as u8, edit)).collect();
    let unsent = to.send(&mut burst, &items, stats).unwrap();
    from.release(0, &mut burst).unwrap();
    unsent
}

#[test]
fn a_request_reaches_a_guest_that_accepts_it_as_it_was() {
    let push = TagEdit { strip_bytes: 0, insert: Some(TAG) };
    for (form, edit) in [0, MRG_RXBUF, VERSION_1, VERSION_1 | MRG_RXBUF | INDIRECT]
        .into_iter()
        .flat_map(|form| [(form, TagEdit::KEEP), (form, push)])
    {
        let (mut sender, mut receiver) = (Guest::new(form | SENDS, 64), Guest::new(form | TAKES, 64));
        let (mut from, mut to) = (sender.port(), receiver.port());
        assert_eq!(to.tx.offers(), Offers::ALL);
        receiver.post(RX, 16, BUFFER_BYTES as u32, None);
        let payload = noise(1800, 7);
        let packet = if edit == push { Packet::udp(false, payload) } else { Packet::tcp(false, payload) };
        let (whole, cut) = (packet.request(None), packet.request(Some(536)));
        let frame = packet.partial();
        // In one buffer, in several, and with the header in two of them; last a frame with nothing to do.
        transmit(&mut sender, whole.encode(0), &frame, &[]);
        let header_bytes = sender.header_bytes();
        transmit(&mut sender, cut.encode(0), &frame, &[header_bytes, 700]);
        transmit(&mut sender, cut.encode(99), &frame, &[3, 50, 400]);
        transmit(&mut sender, [0; 10], &frame, &[]);
        let mut stats = PortDelta::ZERO;
        assert_eq!(pass(&mut from, &mut to, edit, &mut stats), 0);
        let growth = edit.growth_bytes();
        let mut sent = frame.clone();
        if growth != 0 {
            sent.splice(12..12, TAG);
        }
        let headers_bytes = u16::try_from(packet.header_bytes() as i32 + growth).unwrap();
        let wanted = [(whole, 0), (cut, headers_bytes), (cut, headers_bytes), (Request::NONE, 0)]
            .map(|(request, bytes)| (request.shifted(growth).unwrap().encode(bytes), sent.clone()));
        assert_eq!(receiver.received_with_headers(RX), wanted, "features {form:#x}");
        assert_eq!((stats.rx_frames, stats.tx_frames, stats.drops.iter().sum::<u64>()), (4, 4, 0));
        assert_eq!(sender.reap(TX), 4);
    }
}

#[test]
fn a_large_frame_is_spread_over_mergeable_buffers() {
    let features = VERSION_1 | MRG_RXBUF;
    let (mut sender, mut receiver) = (Guest::new(features | SENDS, 256), Guest::new(features | TAKES, 256));
    let (mut from, mut to) = (sender.port(), receiver.port());
    receiver.post(RX, 64, 1500, None);
    let packet = Packet::tcp(true, noise(60_000, 7));
    let request = packet.request(Some(1440));
    transmit(&mut sender, request.encode(0), &packet.partial(), &[2000; 30]);
    let mut stats = PortDelta::ZERO;
    assert_eq!(pass(&mut from, &mut to, TagEdit::KEEP, &mut stats), 0);
    let header = request.encode(packet.header_bytes() as u16);
    assert!(receiver.received_with_headers(RX) == [(header, packet.partial())]);
}

#[test]
fn a_guest_that_does_not_accept_it_is_never_told() {
    let (mut sender, mut receiver) = (Guest::new(VERSION_1 | SENDS, 64), Guest::new(VERSION_1, 64));
    let (mut from, mut to) = (sender.port(), receiver.port());
    assert_eq!(to.tx.offers(), Offers::NONE);
    receiver.post(RX, 16, BUFFER_BYTES as u32, None);
    let packet = Packet::tcp(false, noise(600, 7));
    transmit(&mut sender, packet.request(None).encode(0), &packet.partial(), &[]);
    transmit(&mut sender, [0; 10], &packet.partial(), &[]);
    let mut stats = PortDelta::ZERO;
    // The worker does not let it come so far; the driver may have changed in between.
    assert_eq!(pass(&mut from, &mut to, TagEdit::KEEP, &mut stats), 1);
    assert_eq!(stats.drops[DropReason::NotConnected as usize], 1);
    assert_eq!(receiver.received(RX), [packet.partial()]);
}

#[test]
fn impossible_requests_are_counted_and_the_frames_behind_them_pass() {
    let mut sender = Guest::new(VERSION_1 | SENDS, 64);
    let mut port = sender.port();
    let packet = Packet::tcp(false, noise(500, 7));
    let frame = packet.partial();
    let [l4, len] = [packet.l4() as u16, frame.len() as u16];
    let header = |flags: u8, kind: u8, size: u16, start: u16, offset: u16| {
        let mut header = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, value) in [(4, size), (6, start), (8, offset)] {
            header[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        header
    };
    let hostile = [
        // The sum begins, or is stored, behind the end.
        header(1, 0, 0, len, 0),
        header(1, 0, 0, 0xffff, 0xffff),
        header(1, 0, 0, l4, len - l4 - 1),
        header(1, 0, 0, 0, 0xffff),
        // Segments of nothing, of less than anybody needs; without a checksum; of a kind nobody knows or offered.
        header(1, 1, 0, l4, 16),
        header(1, 1, 7, l4, 16),
        header(0, 1, 1448, l4, 16),
        header(1, 3, 1448, l4, 16),
        header(1, 5, 1448, l4, 16),
        header(1, 0x7f, 1448, l4, 16),
        // UDP with an ECN bit; fragments of UDP.
        header(1, 0x85, 1448, l4, 6),
        header(1, 3, 1448, l4, 6),
        // TCP over IPv6 that is IPv4; UDP that is TCP; a checksum that is not TCP's.
        header(1, 5, 100, l4, 6),
        header(1, 4, 100, l4, 16),
        header(1, 1, 100, l4, 6),
        header(1, 1, 100, l4 - 1, 16),
    ];
    for header in hostile {
        transmit(&mut sender, header, &frame, &[]);
    }
    // Segments whose headers are cut, and are not there at all.
    transmit(&mut sender, header(1, 1, 100, l4, 16), &frame[..53], &[]);
    transmit(&mut sender, header(1, 1, 100, 0, 0), &frame[..14], &[]);
    // A size beyond the frame's is one segment: only its checksum is left.
    transmit(&mut sender, header(1, 1, 0xffff, l4, 16), &frame, &[20, 30]);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).unwrap();
    let hostile = hostile.len() as u64 + 2;
    assert_eq!((burst.len(), stats.rx_frames), (1, hostile + 1));
    assert_eq!(stats.drops[DropReason::BadOffload as usize], hostile);
    assert_eq!((burst.asked(0).request, burst.frames()[0].wire_bytes), (packet.request(None), u32::from(len)));
    port.release(0, &mut burst).unwrap();
    assert_eq!(sender.reap(TX), hostile as usize + 1);
}

proptest! {
    /// Any header over any bytes, in any pieces: refused, or something that can be done.
    #[test]
    fn any_header_is_judged(
        header in any::<[u8; 10]>(),
        plausible in any::<bool>(),
        frame in prop::collection::vec(any::<u8>(), 14..1500),
        piece in 1usize..600,
    ) {
        let packet = Packet { udp: header[2] & 2 == 0, ..Packet::tcp(header[2] & 1 == 0, frame.clone()) };
        let (mut header, mut bytes) = (header, frame);
        if plausible {
            header[0] |= 1;
            header[1] = [0, 1, 4, 0x81, 5][usize::from(header[1] % 5)];
            header[6..10].copy_from_slice(&[packet.l4() as u8, 0, packet.checksum().1 as u8, 0]);
            bytes = packet.partial();
            bytes.truncate(1500);
        }
        let mut sender = Guest::new(VERSION_1 | SENDS, 64);
        let mut port = sender.port();
        transmit(&mut sender, header, &bytes, &[piece]);
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        port.receive(0, &mut burst, &mut stats).unwrap();
        prop_assert_eq!(burst.len() as u64 + stats.drops[DropReason::BadOffload as usize], 1);
        if let Some(frame) = burst.frame(0) {
            let asked = burst.asked(0);
            let done = offload_frames::resolved(&bytes, 128, asked.request);
            let longest = done.unwrap().iter().map(Vec::len).max().unwrap();
            prop_assert_eq!(longest, frame.wire_bytes as usize);
        }
        port.release(0, &mut burst).unwrap();
    }
}
