//! The promises of the loss of segments: each connection loses the segment asked for, so often as asked for, and
//! nothing else; memory has a bound, whatever comes.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const LOSS: SegmentLoss = SegmentLoss { number: 3, retransmissions: 2 };

fn data(number: u64, sequence: u32, bytes: u32) -> Segment {
    Segment::of(number, sequence, bytes)
}

fn syn(number: u64, sequence: u32) -> Segment {
    Segment { syn: true, ..data(number, sequence, 0) }
}

/// A frame with a TCP header: what is before the IP header, IP version, bytes of data.
fn frame(before: &[u8], version: u8, bytes: u16) -> Vec<u8> {
    let tcp = [0x30, 0x39, 0x01, 0xbd, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0, 0x60, 0x18, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
    let ip = if version == 4 {
        let [high, low] = (20 + 24 + bytes).to_be_bytes();
        vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    } else {
        let [high, low] = (24 + bytes).to_be_bytes();
        [&[0x60, 0, 0, 0, high, low, 6, 64][..], &[0xfd; 16], &[0xfe; 16]].concat()
    };
    [&[2; 12], before, &ip, &tcp, &vec![0xab; usize::from(bytes).min(40)]].concat()
}

#[test]
fn segments_are_read_behind_tags_and_of_both_versions() {
    for (before, vlan) in [(&[][..], 0), (&[0x81, 0, 0x20, 0x1e][..], 30), (&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6][..], 5)]
    {
        for (version, ethertype) in [(4, 0x0800u16), (6, 0x86dd)] {
            let before = [before, &ethertype.to_be_bytes()].concat();
            // Padding behind the packet is no data.
            let segment = Segment::read(&frame(&before, version, 33)).unwrap();
            assert_eq!((segment.sequence, segment.bytes, segment.syn), (0x0102_0304, 33, false));
            assert_eq!(segment.connection.rest, 0x3039_01bd << 32 | vlan << 16 | u64::from(ethertype));
            let [source, .., last] = segment.connection.addresses;
            let expected =
                if version == 4 { (0x0a00_0001_0a00_0002, 0) } else { (0xfdfd_fdfd_fdfd_fdfd, 0xfefe_fefe_fefe_fefe) };
            assert_eq!((source, last), expected);
        }
    }
}

#[test]
fn frames_without_a_whole_segment_are_none_and_do_no_harm() {
    let whole = frame(&[8, 0], 4, 33);
    let with = |at: usize, byte: u8| {
        let mut frame = whole.clone();
        frame[at] = byte;
        Segment::read(&frame)
    };
    assert_eq!(with(14 + 9, 17), None, "UDP");
    assert_eq!(with(14 + 6, 0x20), None, "a fragment");
    assert_eq!(with(14 + 7, 1), None, "a later fragment");
    assert_eq!(with(14, 0x65), None, "another version");
    assert_eq!(with(13, 6), None, "ARP");
    assert_eq!(with(14 + 3, 43), None, "shorter than its headers");
    assert!(with(14 + 20 + 13, 2).unwrap().syn);
    assert!((0..14 + 20 + 14).all(|len| Segment::read(&whole[..len]).is_none()));
}

#[test]
fn the_segment_is_lost_with_its_first_retransmissions_and_nothing_else() {
    let mut segments = Segments::new(LOSS, 1);
    // The sequence number passes its end.
    let begin = u32::MAX - 150;
    let at = |offset: u32| begin.wrapping_add(offset);
    assert!(!segments.loses(&syn(1, begin.wrapping_sub(1))));
    let verdicts = [0, 100, 200, 300, 100, 200, 200, 200, 400].map(|offset| segments.loses(&data(1, at(offset), 100)));
    assert_eq!(verdicts, [false, false, true, false, false, true, true, false, false]);
    // Also when it comes again in one piece with others, or cut.
    let mut segments = Segments::new(LOSS, 1);
    assert_eq!([0, 100, 200].map(|offset| segments.loses(&data(1, at(offset), 100))), [false, false, true]);
    assert!(segments.loses(&data(1, at(100), 500)));
    assert!(!segments.loses(&data(1, at(250), 50)), "its first byte is not in there");
    assert!(segments.loses(&data(1, at(200), 50)));
    assert!(!segments.loses(&data(1, at(200), 100)));
    // Other connections have their own numbers, and a SYN begins anew.
    assert_eq!([0, 1, 2].map(|offset| segments.loses(&data(2, offset, 1))), [false, false, true]);
    assert!(!segments.loses(&syn(1, 70)));
    assert_eq!([71, 72, 73].map(|sequence| segments.loses(&data(1, sequence, 1))), [false, false, true]);
}

proptest! {
    /// Senders that send segments in order, and each lost one again until it arrives: of every connection exactly one
    /// segment is lost, and so often as asked for.
    #[test]
    fn every_connection_loses_one_segment(
        number in 1..20u32,
        retransmissions in 0..4u32,
        turns in proptest::collection::vec((0..8u64, 1..2000u32), 1..400),
        begin in any::<u32>(),
    ) {
        let mut segments = Segments::new(SegmentLoss { number, retransmissions }, u64::from(begin));
        let mut sent: HashMap<u64, (u32, u32)> = HashMap::new();
        for (sender, bytes) in turns {
            let (count, next) = sent.entry(sender).or_insert((0, begin));
            let segment = data(sender, *next, bytes);
            let losses = std::iter::from_fn(|| segments.loses(&segment).then_some(())).count();
            (*count, *next) = (*count + 1, next.wrapping_add(bytes));
            let expected = if *count == number { 1 + retransmissions } else { 0 };
            prop_assert_eq!(losses, expected as usize, "segment {} of {}", count, sender);
        }
    }

    #[test]
    fn hostile_segments_take_no_more_memory(
        frames in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), any::<bool>()), 1..200),
    ) {
        let mut segments = Segments::new(LOSS, 1);
        for (number, sequence, bytes, syn) in frames {
            segments.loses(&Segment { syn, ..data(number, sequence, bytes) });
        }
        prop_assert!(segments.tracked().count() <= MAX_CONNECTIONS);
    }
}

#[test]
fn who_was_silent_longest_is_forgotten_and_a_flood_without_data_forgets_nobody() {
    let mut segments = Segments::new(LOSS, 99);
    let room = segments.sets.len();
    // Two segments of each of as many connections as there is room for in the mean.
    for round in 0..2 {
        (0..MAX_CONNECTIONS as u64).for_each(|number| assert!(!segments.loses(&data(number, round, 1))));
    }
    let known: Vec<_> = segments.tracked().collect();
    assert!(known.len() > MAX_CONNECTIONS * 3 / 4 && known.len() <= MAX_CONNECTIONS, "{}", known.len());
    // A flood of SYNs of others, and their answers.
    for number in 0..100_000 {
        segments.loses(&syn(1 << 40 | number, 0));
        segments.loses(&data(1 << 40 | number, 0, 0));
    }
    assert_eq!(segments.tracked().collect::<Vec<_>>(), known);
    // A flood of data takes every place, and no more. One connection that speaks meanwhile stays.
    assert_eq!([0, 1].map(|sequence| segments.loses(&data(u64::MAX, sequence, 1))), [false; 2]);
    for number in 0..100_000 {
        segments.loses(&data(1 << 40 | number, 0, 1));
        assert!(!segments.loses(&data(u64::MAX, 1, 1)));
    }
    assert_eq!((segments.tracked().count(), segments.sets.len()), (MAX_CONNECTIONS, room));
    assert!(segments.loses(&data(u64::MAX, 2, 1)), "its third");
}

#[test]
fn connections_go_on_in_another_process() {
    let mut stays = Segments::new(LOSS, 5);
    for number in 0..100 {
        for segment in 0..number % 4 {
            stays.loses(&data(number, u32::try_from(segment).unwrap(), 1));
        }
    }
    let mut moved = Segments::new(LOSS, 6);
    moved.go_on(&stays.tracked().collect::<Vec<_>>());
    assert_eq!(moved.spoken, stays.spoken);
    for sequence in [2, 2, 3, 2, 2, 4] {
        for number in 0..100 {
            assert_eq!(moved.loses(&data(number, sequence, 1)), stays.loses(&data(number, sequence, 1)), "{number}");
        }
    }
}
