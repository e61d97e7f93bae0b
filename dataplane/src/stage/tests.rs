//! The stage against what the offload engine makes of each frame alone, whose own tests have the kernel as oracle.

#![allow(unsafe_code, reason = "tests lend memory of their own")]

use labsw_testkit::offload_frames::{Packet, noise, received};
use proptest::prelude::*;

use super::*;
use crate::frame::Segment;
use crate::offload::whole::{request_of, resolved};
use crate::offload::{Gso, HEADER_BYTES, Request};
use crate::stats::PortDelta;

/// Takes all frames but those that its list says.
#[derive(Debug, Default)]
struct Sink {
    got: Vec<(Vec<u8>, [u8; HEADER_BYTES])>,
    /// Frames of this length are not taken.
    refuses: Option<usize>,
    offers: Offers,
    breaks: bool,
}

impl FrameSink for Sink {
    fn take(&mut self, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        if self.breaks {
            report.lose_all(items, DropReason::NotConnected);
            return Err(Fault::new(1, "broken on purpose"));
        }
        for item in items {
            let mut reader = burst.reader(item).unwrap();
            let mut frame = vec![0; reader.remaining() as usize];
            reader.read_to(&mut frame);
            if self.refuses == Some(frame.len()) {
                report.lose(item.frame, DropReason::TxRingFull);
                continue;
            }
            report.sent(u32::try_from(frame.len()).unwrap());
            let header = burst.asked(item.frame.into()).encode(self.offers, item.edit.growth_bytes());
            self.got.push((frame, header.unwrap()));
        }
        Ok(())
    }
}

impl Sink {
    fn accepting(offers: Offers) -> Sink {
        Sink { offers, ..Sink::default() }
    }

    fn taken(&mut self) -> Vec<(Vec<u8>, [u8; HEADER_BYTES])> {
        std::mem::take(&mut self.got)
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        self.taken().into_iter().map(|(frame, _)| frame).collect()
    }
}

/// A burst of frames, each scattered over pieces of `piece` bytes.
fn burst<'a>(frames: impl IntoIterator<Item = (&'a [u8], Request)>, piece: usize) -> Burst {
    let mut burst = Burst::new();
    for (frame, request) in frames {
        let segments: Vec<_> = frame
            .chunks(piece)
            .map(|chunk| Segment { ptr: chunk.as_ptr(), len: u32::try_from(chunk.len()).unwrap() })
            .collect();
        // SAFETY: the frames outlive the burst.
        assert!(unsafe { burst.push(0, &segments) });
        burst.ask(&request.encode(0), Offers::ALL).unwrap();
    }
    burst
}

fn items(burst: &Burst) -> Vec<TxItem> {
    (0..u8::try_from(burst.len()).unwrap()).map(|frame| TxItem::whole(frame, TagEdit::KEEP)).collect()
}

fn resolve(burst: &Burst, sink: &mut Sink) -> (Result<u64, Fault>, PortDelta) {
    let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
    let report = &mut TxReport { stats: &mut stats, losses: &mut losses };
    let offers = sink.offers;
    let outcome = Stage::new().resolve(sink, burst, &items(burst), offers, report);
    (outcome.map(|()| losses.frames()), stats)
}

fn merge(burst: &Burst, sink: &mut Sink) -> u64 {
    let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
    let report = &mut TxReport { stats: &mut stats, losses: &mut losses };
    let offers = sink.offers;
    Stage::new().merge(sink, burst, &items(burst), offers, report).unwrap();
    losses.frames()
}

/// A flow of its own for each number.
fn flow(number: u8, v6: bool, payload: Vec<u8>) -> Packet {
    Packet { ip_options: vec![], sequence: u32::from(number) << 24, identification: 100, ..Packet::tcp(v6, payload) }
}

/// The frame with other TCP ports.
fn of_flow(mut frame: Vec<u8>, packet: &Packet, number: u8) -> Vec<u8> {
    // Two words that sum up to the same: no checksum changes.
    let sum = frame[packet.l4()] + frame[packet.l4() + 2];
    frame[packet.l4()] = number;
    frame[packet.l4() + 2] = sum - number;
    frame
}

#[test]
fn a_whole_burst_of_the_largest_frames_is_cut() {
    let packets: Vec<_> = (0..64).map(|n| flow(n, n % 2 == 0, noise(65_000 - usize::from(n), n.into()))).collect();
    let frames: Vec<_> = packets.iter().map(Packet::partial).collect();
    let request = |packet: &Packet| request_of(packet, Some(1400));
    let burst = burst(frames.iter().zip(&packets).map(|(frame, packet)| (&frame[..], request(packet))), 4096);
    let mut sink = Sink::default();
    let (outcome, stats) = resolve(&burst, &mut sink);
    assert_eq!(outcome, Ok(0));
    let wanted: Vec<_> = frames
        .iter()
        .zip(&packets)
        .flat_map(|(frame, packet)| resolved(frame, 128, request(packet)).unwrap())
        .collect();
    let got = sink.frames();
    assert_eq!(got.len(), 64 * 47);
    assert!(got == wanted);
    assert_eq!(stats.tx_frames, 64 * 47);
}

#[test]
fn a_frame_is_sent_if_a_segment_of_it_was() {
    let packet = flow(0, false, noise(2500, 3));
    let frame = packet.partial();
    let request = request_of(&packet, Some(1000));
    let burst = burst([(&frame[..], request), (&frame[..300], Request::NONE)], 4096);
    let mut last = Sink { refuses: Some(554), ..Sink::default() };
    assert_eq!(resolve(&burst, &mut last).0, Ok(0));
    let mut first_two = Sink { refuses: Some(1054), ..Sink::default() };
    assert_eq!(resolve(&burst, &mut first_two).0, Ok(0));
    let mut other = Sink { refuses: Some(300), ..Sink::default() };
    assert_eq!(resolve(&burst, &mut other).0, Ok(0b10));
    assert!(resolve(&burst, &mut Sink { breaks: true, ..Sink::default() }).0.is_err());
}

#[test]
fn segments_of_interleaved_flows_become_one_frame_each() {
    for v6 in [false, true] {
        let packet = flow(1, v6, noise(20_000, 9));
        let request = request_of(&packet, Some(1448));
        let segments = resolved(&packet.partial(), 128, request).unwrap();
        let flows: Vec<Vec<_>> =
            (1..=4).map(|n| segments.iter().map(|segment| of_flow(segment.clone(), &packet, n)).collect()).collect();
        let mixed: Vec<_> = (0..segments.len()).flat_map(|at| flows.iter().map(move |flow| &flow[at])).collect();
        let burst = burst(mixed.iter().map(|frame| (&frame[..], Request::NONE)), 1000);
        let mut sink = Sink::accepting(Offers::ALL);
        assert_eq!(merge(&burst, &mut sink), 0);
        let got = sink.taken();
        assert_eq!(got.len(), 4);
        for (n, (frame, header)) in (1..=4).zip(&got) {
            assert_eq!(*frame, of_flow(packet.partial(), &packet, n), "flow {n}");
            assert_eq!(*header, request.encode(u16::try_from(packet.header_bytes()).unwrap()));
        }
    }
}

#[test]
fn a_frame_never_overtakes_one_of_its_flow() {
    let packet = flow(1, false, noise(8 * 1000, 9));
    let segments = resolved(&packet.partial(), 128, request_of(&packet, Some(1000))).unwrap();
    let mut ack = resolved(&flow(1, false, vec![]).partial(), 128, request_of(&flow(1, false, vec![]), None)).unwrap();
    let ack = ack.remove(0);
    let mut broken = segments[5].clone();
    broken[1000] ^= 1;
    let order = [&segments[0], &segments[1], &ack, &segments[2], &segments[3], &segments[4], &broken, &segments[6]];
    let burst = burst(order.map(|frame| (&frame[..], Request::NONE)), 4096);
    let mut sink = Sink::accepting(Offers::ALL);
    assert_eq!(merge(&burst, &mut sink), 0);
    let got = sink.taken();
    let lengths: Vec<_> = got.iter().map(|(frame, _)| frame.len()).collect();
    assert_eq!(lengths, [54 + 2000, 54, 54 + 3000, 1054, 1054]);
    assert_eq!((&got[1].0, &got[3].0, &got[4].0), (&ack, &broken, &segments[6]));
    // Only what was verified is said to be.
    assert_eq!([got[1].1[0], got[3].1[0], got[4].1[0]], [0, 0, 2]);
}

#[test]
fn what_is_not_tcp_stays_as_it_is() {
    let packet = Packet { udp: true, ..flow(1, false, noise(1000, 9)) };
    let frame = resolved(&packet.partial(), 128, request_of(&packet, None)).unwrap().remove(0);
    let burst = burst([(&frame[..], Request::NONE), (&frame[..], Request::NONE)], 4096);
    assert!(may_merge(&burst, &items(&burst)));
    let mut sink = Sink::accepting(Offers::ALL);
    assert_eq!(merge(&burst, &mut sink), 0);
    assert_eq!(sink.taken(), [(frame.clone(), [0; HEADER_BYTES]), (frame, [0; HEADER_BYTES])]);
}

#[test]
fn merging_is_tried_where_there_is_something_to_merge() {
    let (short, long) = (noise(255, 1), noise(256, 1));
    let of = |frames: &[&Vec<u8>]| {
        let burst = burst(frames.iter().map(|frame| (&frame[..], Request::NONE)), 4096);
        may_merge(&burst, &items(&burst))
    };
    assert!(!of(&[&short, &long, &short]));
    assert!(of(&[&short, &long, &long]));
}

#[test]
fn only_the_kinds_that_a_port_takes_are_merged() {
    let segments =
        |v6| resolved(&flow(1, v6, noise(4000, 2)).partial(), 128, request_of(&flow(1, v6, vec![]), Some(1000)));
    let frames = [segments(false).unwrap(), segments(true).unwrap()].concat();
    assert_eq!(frames.len(), 8);
    for (tcp4, tcp6) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut sink = Sink::accepting(Offers { csum: true, tcp4, tcp6, ..Offers::NONE });
        let burst = burst(frames.iter().map(|frame| (&frame[..], Request::NONE)), 4096);
        assert_eq!(merge(&burst, &mut sink), 0);
        let got = sink.taken();
        assert_eq!(got.len(), [4, 1][usize::from(tcp4)] + [4, 1][usize::from(tcp6)], "IPv4 {tcp4}, IPv6 {tcp6}");
        assert_eq!(on_wire(got), frames);
    }
}

#[test]
fn datagrams_are_cut_for_who_does_not_take_them_or_not_so_many() {
    for v6 in [false, true] {
        for (datagrams, frames) in [(2, 1), (64, 1), (65, 65), (512, 512)] {
            let packet = flow_of_udp(v6, noise(100 * datagrams, 5));
            let (frame, request) = (packet.partial(), request_of(&packet, Some(100)));
            let burst = burst([(&frame[..], request)], 4096);
            let mut takes = Sink::accepting(Offers::ALL);
            assert_eq!(resolve(&burst, &mut takes).0, Ok(0));
            let got = takes.taken();
            assert_eq!(got.len(), frames, "{datagrams} datagrams");
            assert_eq!(on_wire(got), resolved(&frame, 128, request).unwrap());
            let mut takes_not = Sink::accepting(Offers { udp: false, ..Offers::ALL });
            assert_eq!(resolve(&burst, &mut takes_not).0, Ok(0));
            assert_eq!(takes_not.frames(), resolved(&frame, 128, request).unwrap());
        }
        // As TCP: so many that the burst is kept small.
        let packet = flow_of_udp(v6, noise(513, 5));
        let frame = packet.partial();
        let mut burst = burst([], 4096);
        // SAFETY: the frame outlives the burst.
        assert!(unsafe {
            burst.push_whole(0, Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).unwrap() })
        });
        let refused = burst.ask(&request_of(&packet, Some(1)).encode(0), Offers::ALL).unwrap_err();
        assert_eq!(refused.drop_reason(), DropReason::SegmentLimit);
    }
}

fn flow_of_udp(v6: bool, payload: Vec<u8>) -> Packet {
    Packet { udp: true, ..flow(1, v6, payload) }
}

/// The work that one burst can ask for, in segments, however it is divided.
#[test]
fn a_burst_becomes_a_bounded_number_of_segments() {
    const SEGMENT: usize = 130;
    let frame = Packet::tcp(false, noise(SEGMENT * 500, 6)).partial();
    let request = |size: u16| request_of(&Packet::tcp(false, vec![]), Some(size)).encode(0);
    let ask = |burst: &mut Burst, size: u16| {
        // SAFETY: the frame outlives the burst.
        assert!(unsafe {
            burst.push_whole(0, Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).unwrap() })
        });
        burst.ask(&request(size), Offers::ALL).map_err(|refused| refused.drop_reason())
    };
    let mut burst = Burst::new();
    // The bound of one frame.
    for size in [8, 64, 126] {
        assert_eq!(ask(&mut burst, size), Err(DropReason::SegmentLimit), "segments of {size} bytes");
    }
    assert!(burst.is_empty());
    // The bound of a burst: 500 a frame, 16 times.
    for number in 0..BURST_FRAMES {
        let expected = if number < 16 { Ok(()) } else { Err(DropReason::SegmentLimit) };
        assert_eq!(ask(&mut burst, 130), expected, "frame {number}");
    }
    assert_eq!(burst.len(), 16);
    // At all ports together.
    let mut stage = Stage::new();
    for round in 0..2 {
        stage.begin();
        let (mut segments, mut lost) = (0, 0);
        for _ in 0..100 {
            let (mut sink, mut stats, mut losses) = (Sink::default(), PortDelta::ZERO, Losses::NONE);
            let report = &mut TxReport { stats: &mut stats, losses: &mut losses };
            stage.resolve(&mut sink, &burst, &items(&burst), Offers::NONE, report).unwrap();
            segments += sink.taken().len();
            lost += stats.drops[DropReason::SegmentLimit as usize];
        }
        assert_eq!((segments, lost), (500 * 65, 100 * 16 - 65), "round {round}");
        assert!(segments <= 4 * 8192);
    }
    // The next burst of the same queue starts over.
    burst.clear();
    assert_eq!(ask(&mut burst, 130), Ok(()));
}

/// Frames of a few flows, finished or not.
fn traffic() -> impl Strategy<Value = Vec<(Packet, Option<u16>, bool)>> {
    let flags = prop::sample::select(vec![0x10u8, 0x10, 0x10, 0x18, 0x11, 0x90]);
    let form = (any::<bool>(), prop::bool::weighted(0.3));
    let one = (0..3u8, any::<bool>(), 0usize..9000, flags, prop::option::of(500u16..2000), form);
    prop::collection::vec(one, 1..64).prop_map(|list| {
        let mut next = [0u32; 3];
        let packet = |(number, finished, len, flags, size, (v6, udp)): (u8, bool, usize, u8, Option<u16>, _)| {
            let sequence = &mut next[usize::from(number)];
            let packet = Packet { udp, flags, sequence: *sequence, ..flow(number, v6, noise(len, *sequence)) };
            *sequence = sequence.wrapping_add(u32::try_from(len).unwrap());
            (packet, size, finished)
        };
        list.into_iter().map(packet).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever an egress accepts, it gets the same bytes of a wire in the end.
    #[test]
    fn the_same_frames_arrive_whatever_is_accepted(
        list in traffic(),
        (csum, tcp4, tcp6, udp) in any::<(bool, bool, bool, bool)>(),
        piece in 60usize..5000,
    ) {
        let offers = Offers { csum, tcp4: csum && tcp4, tcp6: csum && tcp6, ecn: csum, udp: csum && udp, verified: csum };
        let asked: Vec<_> = list
            .iter()
            .map(|(packet, size, finished)| {
                let request = request_of(packet, *size);
                match finished {
                    true => (resolved(&packet.partial(), 128, request_of(packet, None)).unwrap().remove(0), Request::NONE),
                    false => (packet.partial(), request),
                }
            })
            .collect();
        let burst = burst(asked.iter().map(|(frame, request)| (&frame[..], *request)), piece);
        let mut sink = Sink::accepting(offers);
        prop_assert_eq!(resolve(&burst, &mut sink).0, Ok(0));
        prop_assert_eq!(on_wire(sink.taken()), on_wire(asked.into_iter().map(|(f, r)| (f, r.encode(0))).collect()));
    }

    /// Cut again, merged frames are what came in, flow by flow in order.
    #[test]
    fn merging_loses_nothing(list in traffic(), piece in 60usize..5000) {
        let frames: Vec<_> = list
            .iter()
            .flat_map(|(packet, size, _)| resolved(&packet.partial(), 128, request_of(packet, *size)).unwrap())
            .take(BURST_FRAMES)
            .collect();
        let burst = burst(frames.iter().map(|frame| (&frame[..], Request::NONE)), piece);
        let mut sink = Sink::accepting(Offers::ALL);
        prop_assert_eq!(merge(&burst, &mut sink), 0);
        let mut got = on_wire(sink.taken());
        let mut wanted = frames;
        // Flows may pass each other; the ports are the same in all, the sequence tells them apart.
        got.sort_by_key(|frame| flow_hash(frame));
        wanted.sort_by_key(|frame| flow_hash(frame));
        prop_assert_eq!(got, wanted);
    }
}

/// An IPv4 or IPv6 packet (by `v6`) of this protocol with these bytes behind the header.
fn carrying(v6: bool, protocol: u8, bytes: &[u8]) -> Vec<u8> {
    let outer = Packet { udp: true, ..Packet::tcp(v6, bytes.to_vec()) };
    let (l4, mut frame) = (outer.l4(), outer.partial());
    frame[if v6 { 20 } else { 23 }] = protocol;
    // The header of UDP goes: the payload is what the packet carries.
    frame.drain(l4..l4 + 8);
    frame
}

/// Frames whose checksums are tried out, with the length of all headers through the outermost IP header.
fn checksummed() -> Vec<(Vec<u8>, usize)> {
    let mut frames = vec![];
    for v6 in [false, true] {
        for udp in [false, true] {
            for tags in [vec![], vec![(0x8100, 20)], vec![(0x88a8, 30), (0x8100, 20)]] {
                let extensions = if v6 && udp { vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])] } else { vec![] };
                let packet = Packet { udp, tags, extensions, ..Packet::tcp(v6, noise(80, 3)) };
                frames.push((packet.partial(), packet.l4()));
            }
        }
        let inner = Packet::tcp(v6, noise(60, 4)).partial();
        for protocol in [1, 2, 4, 17, 41, 44, 47, 51, 58, 132, 137] {
            frames.push((
                carrying(v6, protocol, &[&[8, 0, 0, 0, 0, 0, 7, 0], &inner[..]].concat()),
                [34, 54][usize::from(v6)],
            ));
        }
        let mut fragment = Packet { udp: true, ..Packet::tcp(false, noise(60, 4)) }.partial();
        fragment[20] = 0x20;
        frames.push((fragment, 34));
    }
    for ethertype in [[0x88, 0xb5], [0x08, 0x06], [0, 60]] {
        let mut frame = noise(120, 5);
        frame[12..14].copy_from_slice(&ethertype);
        frames.push((frame, 120));
    }
    frames
}

/// Wherever a checksum may be asked for, and whatever the egress takes: what decisions read leaves as it was read.
#[test]
fn a_checksum_never_changes_what_was_decided_on() {
    use crate::offload::{OUTER_BYTES, Partial};
    let egresses = [Offers::NONE, Offers { csum: true, ..Offers::NONE }, Offers::ALL];
    for (frame, l4) in checksummed() {
        let bytes = u16::try_from(frame.len()).unwrap();
        let places =
            (0..bytes).flat_map(|start| (0..30.min(bytes - start)).map(move |offset| Partial { start, offset }));
        let mut accepted = vec![];
        for partial in places {
            let mut burst = Burst::new();
            // SAFETY: the frame outlives the burst.
            assert!(unsafe { burst.push_whole(0, Segment { ptr: frame.as_ptr(), len: u32::from(bytes) }) });
            let request = Request { csum: Some(partial), gso: None };
            if burst.ask(&request.encode(0), Offers::ALL).is_ok() {
                accepted.push(partial);
                for offers in egresses {
                    let mut sink = Sink::accepting(offers);
                    assert_eq!(resolve(&burst, &mut sink).0, Ok(0));
                    // A neighbour that takes it unfinished finishes it by the header that it was given.
                    for left in on_wire(sink.taken()) {
                        let read = (l4 + OUTER_BYTES).min(frame.len());
                        assert_eq!(left[..read], frame[..read], "{partial:?} of {frame:02x?}");
                    }
                }
            }
        }
        // Each kind of frame has the places that real drivers ask for, and no others directly behind the IP header.
        let protocol = if l4 == 120 { 0 } else { protocol_of(&frame) };
        let own = accepted.iter().filter(|partial| usize::from(partial.start) == l4).map(|partial| partial.offset);
        let expected: &[u16] = match protocol {
            6 => &[16],
            17 => &[6],
            _ => &[],
        };
        assert_eq!(own.collect::<Vec<_>>(), expected, "protocol {protocol} of {frame:02x?}");
        let tunnels = matches!(protocol, 4 | 17 | 41 | 47 | 137);
        let inside = accepted.iter().filter(|partial| usize::from(partial.start) > l4).count();
        assert_eq!(inside > 0, tunnels, "protocol {protocol} of {frame:02x?}");
    }
}

/// The protocol in the frame's IP packet. Fragments, which may not have a request, are left out.
fn protocol_of(frame: &[u8]) -> u8 {
    let mut l3 = 14;
    while matches!(frame[l3 - 2..l3], [0x81, 0] | [0x88, 0xa8]) {
        l3 += 4;
    }
    match frame[l3] >> 4 {
        4 if frame[l3 + 6] & 0x20 != 0 => 0,
        4 => frame[l3 + 9],
        _ if frame[l3 + 6] == 60 => frame[l3 + 40],
        _ => frame[l3 + 6],
    }
}

/// The frames that a receiver gets in the end for frames with these headers.
fn on_wire(frames: Vec<(Vec<u8>, [u8; HEADER_BYTES])>) -> Vec<Vec<u8>> {
    frames
        .into_iter()
        .flat_map(|(frame, header)| {
            let bytes = u32::try_from(frame.len()).unwrap();
            resolved(&frame, 256, Request::parse(&header, bytes, Offers::ALL).unwrap()).unwrap()
        })
        .collect()
}

#[test]
fn the_oracle_is_right_about_a_frame() {
    let packet = flow(3, true, noise(5000, 1));
    let whole: Vec<u8> = resolved(&packet.partial(), 128, request_of(&packet, Some(1448)))
        .unwrap()
        .iter()
        .flat_map(|segment| received(segment, &packet).payload)
        .collect();
    assert_eq!(whole, packet.payload);
    assert_eq!(request_of(&packet, Some(9)).gso.map(|Gso { size, .. }| size), Some(9));
}
