//! Properties of the offload module, on arbitrary packets and on arbitrary bytes. The judge is a naive implementation
//! (`offload_frames`); the kernel's opinion is asked in `offload_kernel`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "lengths of frames")]

use labsw_dataplane::offload::{
    Coalescer, Cutter, Gso, GsoKind, HEADER_BYTES, MIN_SEGMENT_BYTES, Offers, Partial, Refused, Request, Sum,
    finish_checksum,
};
use labsw_testkit::offload_frames::arbitrary::{any_packet, packet, size};
use labsw_testkit::offload_frames::{ACK, CWR, FIN, PSH, Packet, Seen, naive_sum, noise, received, resolved};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

const ALL: Offers = Offers::ALL;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sum_of_pieces_is_that_of_the_whole(bytes in vec(any::<u8>(), 0..3000), cuts in vec(any::<Index>(), 0..9)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let expected = naive_sum(&bytes);
        prop_assert_eq!(Sum::of(&bytes).folded(), expected);
        let (mut added, mut appended) = (Sum::default(), Sum::default());
        for cut in cuts.windows(2) {
            let piece = &bytes[cut[0]..cut[1]];
            added.add(piece);
            appended.append(Sum::of(piece));
        }
        prop_assert_eq!((added.folded(), appended.folded(), added.checksum()), (expected, expected, !expected));
    }

    #[test]
    fn a_finished_checksum_is_right_wherever_it_is(
        frame in vec(any::<u8>(), 2..2000), start: Index, field: Index, split: Index,
    ) {
        let field = field.index(frame.len() - 1);
        let start = start.index(field + 1);
        let partial = Partial { start: start as u16, offset: (field - start) as u16 };
        // All in one piece.
        let mut whole = frame.clone();
        prop_assert_eq!(finish_checksum(&mut whole, Sum::default(), partial), Ok(()));
        let value = u16::from_be_bytes([whole[field], whole[field + 1]]);
        let expected = !naive_sum(&frame[start..]);
        prop_assert_eq!(value, if expected == 0 { 0xffff } else { expected });
        let mut restored = whole.clone();
        restored[field..field + 2].copy_from_slice(&frame[field..field + 2]);
        prop_assert_eq!(&restored, &frame, "nothing else was touched");
        // The end summed elsewhere.
        let split = field + 2 + split.index(frame.len() - field - 1);
        let mut front = frame[..split].to_vec();
        prop_assert_eq!(finish_checksum(&mut front, Sum::of(&frame[split..]), partial), Ok(()));
        prop_assert_eq!(&front[..], &whole[..split]);
    }

    #[test]
    fn segments_carry_the_frame(packet in any_packet(), size in size()) {
        let frame = packet.partial();
        let request = packet.request(Some(size));
        let mut header = request.encode(packet.header_bytes() as u16).to_vec();
        header.extend([1, 0]);
        prop_assert_eq!(Request::parse(&header, frame.len() as u32, ALL), Ok(request));

        let cutter = Cutter::new(&frame[..frame.len().min(256)], frame.len() as u32, request).unwrap();
        prop_assert_eq!((cutter.header_bytes(), cutter.layout().l4), (packet.header_bytes(), packet.l4()));
        let segments = resolved(&frame, packet.header_bytes(), request).unwrap();
        prop_assert_eq!(segments.len(), packet.payload.len().div_ceil(size.into()).max(1));
        prop_assert_eq!(cutter.segments() as usize, segments.len());
        let largest = frame.len().min(packet.header_bytes() + usize::from(size));
        prop_assert_eq!(largest, segments.iter().map(Vec::len).max().unwrap());
        prop_assert_eq!(cutter.total_bytes() as usize, segments.iter().map(Vec::len).sum::<usize>());

        let last = segments.len() - 1;
        let seen: Vec<Seen> = segments.iter().map(|segment| received(segment, &packet)).collect();
        for (number, segment) in seen.iter().enumerate() {
            let mut flags = packet.flags;
            if number > 0 { flags &= !CWR }
            if number < last { flags &= !(FIN | PSH) }
            let sequence = packet.sequence.wrapping_add(number as u32 * u32::from(size));
            let expected = if packet.udp { (0, 0) } else { (flags, sequence) };
            prop_assert_eq!((segment.flags, segment.sequence), expected);
            let identification = if packet.v6 { 0 } else { packet.identification.wrapping_add(number as u16) };
            prop_assert_eq!(segment.identification, identification);
            prop_assert_eq!(&segment.constant, &seen[0].constant);
            prop_assert!(segment.payload.len() == usize::from(size) || number == last);
        }
        let payload: Vec<u8> = seen.iter().flat_map(|segment| segment.payload.clone()).collect();
        prop_assert_eq!(payload, packet.payload);
        prop_assert_eq!(&segments[0][..14], &frame[..14]);
    }

    #[test]
    fn a_cut_frame_is_refused(packet in any_packet(), size in size(), shown: Index) {
        let frame = packet.partial();
        let shown = shown.index(packet.header_bytes());
        let new = |headers: &[u8], bytes: usize| Cutter::new(headers, bytes as u32, packet.request(Some(size))).err();
        prop_assert_eq!(new(&frame[..shown], shown), Some(Refused::FrameCut));
        prop_assert_eq!(new(&frame, shown), Some(Refused::FrameCut));
        prop_assert_eq!(new(&frame[..shown], frame.len()), Some(Refused::HeadersTooLong));
    }

    #[test]
    fn hostile_bytes_are_refused_or_cut_sanely(
        header: [u8; HEADER_BYTES], bytes in vec(any::<u8>(), 0..400), frame_bytes in 0u32..70_000,
    ) {
        if let Ok(request) = Request::parse(&header, frame_bytes, ALL) {
            let _ = Cutter::new(&bytes, frame_bytes, request);
            let _ = Coalescer::begin(&bytes, frame_bytes, Sum::default());
        }
    }

    #[test]
    fn a_damaged_frame_is_refused_or_cut_sanely(
        packet in any_packet(), size in size(), damage in vec((any::<Index>(), any::<u8>()), 1..4), kind in 0..3usize,
        start: Index,
    ) {
        let mut frame = packet.partial();
        for (at, value) in damage {
            let at = at.index(packet.header_bytes());
            frame[at] = value;
        }
        let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][kind];
        let start = if start.index(2) == 0 { packet.l4() } else { start.index(frame.len()) } as u16;
        let request = Request {
            csum: Some(Partial { start, offset: packet.checksum().1 }),
            gso: Some(Gso { kind, size, ecn: false }),
        };
        if let Ok(segments) = resolved(&frame, 256, request) {
            let header_bytes = Cutter::new(&frame, frame.len() as u32, request).unwrap().header_bytes();
            prop_assert!(segments.iter().all(|segment| segment.len() <= header_bytes + usize::from(size)));
            let payload: Vec<u8> = segments.iter().flat_map(|segment| segment[header_bytes..].to_vec()).collect();
            prop_assert_eq!(&payload[..], &frame[header_bytes..]);
        }
    }

    #[test]
    fn merged_segments_are_cut_again(packet in packet(), size in size(), push: bool) {
        let flags = if push { ACK | PSH } else { ACK };
        let packet = Packet { flags, extensions: vec![], ..packet };
        let originals = resolved(&packet.partial(), 256, packet.request(Some(size))).unwrap();
        let (merged, request, taken) = merge(&originals).unwrap_or_default();
        // All of them, unless the payload is less than any segment's.
        if packet.payload.len() >= MIN_SEGMENT_BYTES.into() {
            prop_assert_eq!(taken, originals.len());
            if taken > 1 {
                prop_assert_eq!(&merged, &packet.partial(), "what they were cut from");
                prop_assert_eq!(request, packet.request(Some(size)));
            }
            prop_assert_eq!(resolved(&merged, 256, request), Ok(originals));
        }
    }

    #[test]
    fn what_was_merged_is_cut_again_whatever_it_was(
        packet in packet(), size in 100u16..1000, keep in subsequence((0..12usize).collect::<Vec<_>>(), 2..=12),
        damage in proptest::option::of((any::<Index>(), any::<Index>(), any::<u8>())),
    ) {
        // Frames missing, the last ones shorter, and one of them damaged.
        let packet = Packet { flags: ACK, extensions: vec![], ..packet };
        let mut originals = resolved(&packet.partial(), 256, packet.request(Some(size))).unwrap();
        originals.truncate(12);
        let mut frames: Vec<Vec<u8>> = keep.iter().filter_map(|&at| originals.get(at).cloned()).collect();
        if let (Some((frame, at, value)), false) = (damage, frames.is_empty()) {
            let frame = frame.index(frames.len());
            let at = at.index(frames[frame].len());
            frames[frame][at] = value;
        }
        if let Some((merged, request, taken)) = merge(&frames) {
            prop_assert_eq!(resolved(&merged, 256, request).unwrap(), frames[..taken].to_vec());
        }
    }
}

/// Merges as many of the first `frames` as can be: the merged frame, its request, and how many.
fn merge(frames: &[Vec<u8>]) -> Option<(Vec<u8>, Request, usize)> {
    // Where the payload begins is the same in all; a damaged header is refused whatever the sum.
    let payload_at = |frame: &[u8]| {
        let probe = |kind| labsw_dataplane::offload::Layout::of(frame, frame.len() as u32, kind);
        probe(GsoKind::Tcp4).or_else(|_| probe(GsoKind::Tcp6)).map_or(frame.len(), |layout| layout.header_bytes)
    };
    let describe = |frame: &[u8]| (frame.len() as u32, Sum::of(&frame[payload_at(frame)..]));
    let (first, others) = frames.split_first()?;
    let (bytes, sum) = describe(first);
    let mut coalescer = Coalescer::begin(&first[..first.len().min(256)], bytes, sum)?;
    let mut payload = first[payload_at(first)..].to_vec();
    for frame in others {
        let (bytes, sum) = describe(frame);
        let ended = coalescer.has_ended();
        if !coalescer.add(&frame[..frame.len().min(256)], bytes, sum) {
            break;
        }
        assert!(!ended);
        payload.extend(&frame[payload_at(frame)..]);
    }
    let (taken, frame_bytes) = (coalescer.segments() as usize, coalescer.frame_bytes() as usize);
    let merged = coalescer.finish();
    let frame = [merged.headers, &payload].concat();
    assert_eq!(frame.len(), frame_bytes);
    Some((frame, merged.request, taken))
}

/// Why the packet, to be cut, is refused after a change of frame or request.
fn refused(packet: &Packet, change: &dyn Fn(&mut Vec<u8>, &mut Request)) -> Option<Refused> {
    let (mut frame, mut request) = (packet.partial(), packet.request(Some(100)));
    change(&mut frame, &mut request);
    resolved(&frame, 256, request).err()
}

/// Sets a byte of the frame.
fn set(at: usize, value: u8) -> impl Fn(&mut Vec<u8>, &mut Request) {
    move |frame, _| frame[at] = value
}

/// Asks for another checksum.
fn asks(start: usize, offset: u16) -> impl Fn(&mut Vec<u8>, &mut Request) {
    move |_, request| request.csum = Some(Partial { start: start as u16, offset })
}

/// Refusals that only a look at the frame can bring, each with its reason.
#[test]
fn what_is_not_tcp_is_refused() {
    let (v4, v6) = (Packet::tcp(false, noise(1000, 1)), Packet::tcp(true, noise(1000, 2)));
    assert_eq!(refused(&v4, &|_, _| ()), None);
    assert_eq!(refused(&v4, &set(12, 0x86)), Some(Refused::Ethertype(0x8600)));
    assert_eq!(refused(&v4, &|_, request| request.gso = v6.request(Some(8)).gso), Some(Refused::Ethertype(0x0800)));
    assert_eq!(refused(&v6, &|_, request| request.gso = v4.request(Some(8)).gso), Some(Refused::Ethertype(0x86dd)));
    assert_eq!(refused(&v4, &set(14, 0x65)), Some(Refused::Ip));
    assert_eq!(refused(&v4, &set(14, 0x44)), Some(Refused::Ip));
    assert_eq!(refused(&v6, &set(14, 0x45)), Some(Refused::Ip));
    for (at, value) in [(20, 0x20), (20, 0x1f), (21, 1)] {
        assert_eq!(refused(&v4, &set(at, value)), Some(Refused::Fragment));
    }
    assert_eq!(refused(&v4, &set(23, 17)), Some(Refused::Protocol(17)));
    for protocol in [17, 44, 50, 51, 59, 135] {
        assert_eq!(refused(&v6, &set(20, protocol)), Some(Refused::Protocol(protocol)));
    }
    for packet in [&v4, &v6] {
        assert_eq!(refused(packet, &set(packet.l4() + 12, 0x40)), Some(Refused::Tcp));
        assert_eq!(refused(packet, &asks(packet.l4() + 2, 14)), Some(Refused::ChecksumOfAnother));
        assert_eq!(refused(packet, &asks(packet.l4() - 4, 16)), Some(Refused::ChecksumOfAnother));
        assert_eq!(refused(packet, &asks(packet.l4(), 6)), Some(Refused::ChecksumOfAnother));
        let frame = packet.partial();
        let only_checksum = packet.request(None);
        assert_eq!(Cutter::new(&frame, frame.len() as u32, only_checksum).err(), Some(Refused::NotAsked));
    }
    // A hop-by-hop header that says it is longer than what is looked at.
    let long = Packet { extensions: vec![(0, [0, 31, 1, 252].into_iter().chain([0; 252]).collect())], ..v6.clone() };
    assert_eq!(refused(&long, &|_, _| ()), Some(Refused::HeadersTooLong));
    // A segment that IP could not describe, of a frame that is longer still.
    let mut frame = Packet::tcp(false, vec![]).partial();
    frame.resize(65_599, 0);
    let request = v4.request(Some(65_500));
    assert_eq!(resolved(&frame, 256, request).err(), Some(Refused::SegmentTooLong));
    assert!(resolved(&frame, 256, v4.request(Some(65_495))).is_ok());
}

#[test]
fn what_is_not_udp_is_refused() {
    for v6 in [false, true] {
        let packet = Packet::udp(v6, noise(1000, 3));
        assert_eq!(refused(&packet, &|_, _| ()), None);
        let protocol = if v6 { 20 } else { 23 };
        for other in [6, 58, 132] {
            assert_eq!(refused(&packet, &set(protocol, other)), Some(Refused::Protocol(other)));
        }
        let tcp = Packet::tcp(v6, vec![]).request(Some(8)).gso;
        assert_eq!(refused(&packet, &|_, request| request.gso = tcp), Some(Refused::Protocol(17)));
        for (start, offset) in [(packet.l4() + 2, 4), (packet.l4(), 16), (packet.l4() - 4, 6)] {
            assert_eq!(refused(&packet, &asks(start, offset)), Some(Refused::ChecksumOfAnother));
        }
    }
}

#[test]
fn a_frame_for_one_segment_only_gets_its_checksum() {
    for v6 in [false, true] {
        let packet = Packet { flags: 0xff, ..Packet::tcp(v6, noise(100, 5)) };
        let mut frame = packet.partial();
        frame[14 + 10] ^= 0x55;
        let cut = resolved(&frame, 256, packet.request(Some(100))).unwrap();
        assert_eq!(cut, resolved(&frame, 256, packet.request(None)).unwrap());
    }
}

#[test]
fn other_flows_and_bad_checksums_are_not_merged() {
    for v6 in [false, true] {
        let packet = Packet { flags: ACK, ..Packet::tcp(v6, noise(3000, 5)) };
        let originals = resolved(&packet.partial(), 256, packet.request(Some(1000))).unwrap();
        assert_eq!(merge(&originals).unwrap().2, 3);
        // Any bit of the second one's headers, and of its payload.
        for at in (0..originals[1].len()).filter(|at| *at < packet.header_bytes() + 4 || at % 97 == 0) {
            for bit in 0..8 {
                let mut frames = originals.clone();
                frames[1][at] ^= 1 << bit;
                assert_eq!(merge(&frames).unwrap().2, 1, "byte {at}, bit {bit}");
            }
        }
        for flags in [FIN, 2, 4, 0x20, 0x40, CWR] {
            let packet = Packet { flags: ACK | flags, ..packet.clone() };
            assert!(merge(&resolved(&packet.partial(), 256, packet.request(None)).unwrap()).is_none());
        }
        // In reverse, twice the same, one with padding behind.
        for frames in [[1, 0], [0, 0], [0, 2]] {
            assert_eq!(merge(&frames.map(|at| originals[at].clone())).unwrap().2, 1);
        }
        let mut padded = originals.clone();
        padded[1].push(0);
        assert_eq!(merge(&padded).unwrap().2, 1);
    }
}

#[test]
fn a_merged_frame_is_no_longer_than_ip_can_say() {
    for (v6, most) in [(false, 65_535 - 40), (true, 65_535 - 20)] {
        let segment = |number: u32| {
            let packet = Packet {
                sequence: number.wrapping_mul(1448).wrapping_sub(5000),
                identification: number as u16,
                ..Packet::tcp(v6, noise(1448, number))
            };
            resolved(&packet.partial(), 256, packet.request(None)).unwrap().remove(0)
        };
        let frames: Vec<Vec<u8>> = (0..60).map(segment).collect();
        let (merged, request, taken) = merge(&frames).unwrap();
        assert_eq!(taken, most / 1448);
        assert_eq!(resolved(&merged, 256, request).unwrap(), frames[..taken]);
    }
}

/// Every segment is sound by itself; whether they belong together is the question.
#[test]
fn only_what_continues_is_merged() {
    // The values of each segment: payload, identification, flags, and bytes missing in front of it.
    let taken = |v6: bool, segments: &[(usize, u16, u8, u32)]| {
        let mut sequence = u32::MAX - 1500;
        let mut frames = vec![];
        for &(bytes, identification, flags, gap) in segments {
            sequence = sequence.wrapping_add(gap);
            let packet = Packet { sequence, identification, flags, ..Packet::tcp(v6, noise(bytes, gap)) };
            sequence = sequence.wrapping_add(bytes as u32);
            frames.push(resolved(&packet.partial(), 256, packet.request(None)).unwrap().remove(0));
        }
        let (merged, request, taken) = merge(&frames).unwrap();
        assert_eq!(resolved(&merged, 256, request).unwrap(), frames[..taken]);
        taken
    };
    for v6 in [false, true] {
        assert_eq!(taken(v6, &[(1000, 0xffff, ACK, 0), (1000, 0, ACK, 0), (1000, 1, ACK, 0)]), 3);
        assert_eq!(taken(v6, &[(1000, 1, ACK, 0), (1000, 2, ACK, 1), (1000, 3, ACK, 0)]), 1, "a gap");
        assert_eq!(taken(v6, &[(1000, 1, ACK, 0), (999, 2, ACK, 0), (1000, 3, ACK, 0)]), 2, "a shorter one ends it");
        assert_eq!(taken(v6, &[(1000, 1, ACK, 0), (999, 2, ACK, 0), (1, 3, ACK, 0)]), 2, "a shorter one ends it");
        assert_eq!(taken(v6, &[(999, 1, ACK, 0), (1000, 2, ACK, 0)]), 1, "a longer one");
        assert_eq!(taken(v6, &[(1000, 1, ACK, 0), (1000, 2, ACK | PSH, 0), (1000, 3, ACK, 0)]), 2, "PSH ends it");
        assert_eq!(taken(v6, &[(1000, 1, ACK | PSH, 0), (1000, 2, ACK, 0)]), 1, "PSH ends it");
        assert_eq!(taken(v6, &[(1000, 1, ACK, 0), (1000, 2, ACK | CWR, 0)]), 1, "other flags");
        assert_eq!(taken(v6, &[(1000, 1, ACK, 0), (0, 2, ACK, 0), (1000, 3, ACK, 0)]), 1, "a bare ACK");
    }
    for second in [0, 1, 3, 0x8002] {
        assert_eq!(taken(false, &[(1000, 1, ACK, 0), (1000, second, ACK, 0)]), 1, "identification does not count up");
    }
}
