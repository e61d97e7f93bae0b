//! Packets that the guards judge, and buckets over time and between threads.

use proptest::prelude::*;

use super::*;

const MAC_HEADER: [u8; 12] = [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1];
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const GLOBAL: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// An IPv4 packet with `options` words of options, at this place of a fragmented one.
fn ipv4(protocol: u8, options: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45 + options, 0, 0, 0, 0, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(vec![1; 4 * usize::from(options)]);
    packet.extend(payload);
    packet
}

/// An IPv6 packet whose headers are `chain`: number and bytes (the first byte becomes the number of the next one).
fn ipv6(source: [u8; 16], hop_limit: u8, chain: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, chain[0].0, hop_limit];
    packet.extend(source);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    for (index, (_, bytes)) in chain.iter().enumerate() {
        let mut bytes = bytes.to_vec();
        if let Some((next, _)) = chain.get(index + 1) {
            bytes[0] = *next;
        }
        packet.extend(bytes);
    }
    packet
}

/// The guards' reading of a frame with `types` between addresses and packet.
fn seen(types: &[u8], packet: &[u8]) -> Packet {
    let frame = [&MAC_HEADER, types, packet].concat();
    Packet::of(&frame[..frame.len().min(crate::header::SNAPSHOT_BYTES)])
}

fn verdicts(types: &[u8], packet: &[u8]) -> (bool, bool) {
    let packet = seen(types, packet);
    (packet.may_be_of_dhcp_server(), packet.may_be_of_router())
}

const UDP_67: &[u8] = &[0, 67, 0, 68, 0, 8, 0, 0];
const UDP_68: &[u8] = &[0, 68, 0, 67, 0, 8, 0, 0];
const UDP_TO_68: &[u8] = &[4, 43, 0, 68, 0, 8, 0, 0];
const UDP_TO_546: &[u8] = &[4, 43, 2, 34, 0, 8, 0, 0];
const UDP_TO_547: &[u8] = &[2, 34, 2, 35, 0, 8, 0, 0];
const UDP_547: &[u8] = &[2, 35, 2, 34, 0, 8, 0, 0];
const RA: &[u8] = &[134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const OPTIONS: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
const IPV4: &[u8] = &[8, 0];
const IPV6: &[u8] = &[0x86, 0xdd];

#[test]
fn servers_are_told_from_clients() {
    let clean = (false, false);
    let dhcp = (true, false);
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0, UDP_67)), dhcp);
    assert_eq!(verdicts(IPV4, &ipv4(17, 10, 0, UDP_67)), dhcp, "behind 40 bytes of options");
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0x2000, UDP_67)), dhcp, "the first fragment");
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0x2001, UDP_67)), clean, "another fragment has no header of UDP");
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0x4000, UDP_68)), clean, "a client");
    assert_eq!(verdicts(IPV4, &ipv4(6, 0, 0, UDP_67)), clean, "TCP");
    assert_eq!(verdicts(IPV6, &ipv6(LINK_LOCAL, 1, &[(17, UDP_547)])), dhcp);
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0, UDP_TO_68)), dhcp, "to a client, from any port");
    assert_eq!(verdicts(IPV6, &ipv6(LINK_LOCAL, 1, &[(17, UDP_TO_546)])), dhcp, "to a client, from any port");
    assert_eq!(verdicts(IPV6, &ipv6(LINK_LOCAL, 1, &[(17, UDP_TO_547)])), clean, "a client");
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0, UDP_TO_546)), clean, "no DHCP over IPv4");
    assert_eq!(verdicts(IPV6, &ipv6(GLOBAL, 64, &[(17, UDP_TO_68)])), clean, "no DHCP over IPv6");
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0, &UDP_TO_68[..2])), dhcp, "cut before the port it goes to");
    assert_eq!(verdicts(IPV6, &ipv6(GLOBAL, 64, &[(17, &UDP_TO_546[..2])])), dhcp, "cut before the port it goes to");
    assert_eq!(verdicts(IPV6, &ipv6(GLOBAL, 64, &[(0, OPTIONS), (60, OPTIONS), (17, UDP_547)])), dhcp);
    assert_eq!(verdicts(IPV6, &ipv6(GLOBAL, 64, &[(17, UDP_67)])), clean, "no DHCP over IPv6");
    assert_eq!(verdicts(IPV4, &ipv4(17, 0, 0, UDP_547)), clean, "no DHCP over IPv4");
    assert_eq!(verdicts(&[8, 6], &[0; 46]), clean, "ARP");
}

#[test]
fn routers_are_told_from_hosts() {
    let (clean, router) = ((false, false), (false, true));
    let of = |source, hop_limit, message: u8| {
        let mut body = RA.to_vec();
        body[0] = message;
        verdicts(IPV6, &ipv6(source, hop_limit, &[(58, &body)]))
    };
    assert_eq!(of(LINK_LOCAL, 255, 134), router);
    assert_eq!(of(LINK_LOCAL, 255, 137), router, "a redirect");
    for message in [128, 129, 133, 135, 136, 143] {
        assert_eq!(of(LINK_LOCAL, 255, message), clean, "type {message}");
    }
    assert_eq!(of(LINK_LOCAL, 254, 134), clean, "came through a router: hosts ignore it");
    assert_eq!(of(GLOBAL, 255, 134), clean, "no link-local source: hosts ignore it");
}

#[test]
fn extension_headers_and_fragments_hide_nothing() {
    let (clean, router, both) = ((false, false), (false, true), (true, true));
    let chain = |chain: &[(u8, &[u8])]| verdicts(IPV6, &ipv6(LINK_LOCAL, 255, chain));
    let long = &[0, 3, 1, 28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..];
    let ah = &[0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..];
    for number in [0, 43, 60, 135, 139, 140] {
        assert_eq!(chain(&[(number, OPTIONS), (58, RA)]), router, "header {number}");
        assert_eq!(chain(&[(number, long), (58, RA)]), router, "a long header {number}");
    }
    assert_eq!(chain(&[(51, ah), (58, RA)]), router, "authentication header");
    assert_eq!(chain(&[(60, OPTIONS), (59, &[])]), clean, "no next header");
    // Fragments: the first one that has it all, the first one that has not, another one.
    let (first, later) = (&[0, 0, 0, 1, 0, 0, 0, 1][..], &[0, 0, 0, 9, 0, 0, 0, 1][..]);
    assert_eq!(chain(&[(44, first), (58, RA)]), router);
    assert_eq!(chain(&[(44, first), (60, OPTIONS)]), both, "the header is in the next fragment (RFC 7113 section 3)");
    assert_eq!(chain(&[(60, OPTIONS), (44, later), (58, RA)]), clean);
    // Nobody knows header 200; a chain longer than the snapshot.
    assert_eq!(chain(&[(200, OPTIONS), (58, RA)]), both);
    assert_eq!(chain(&[(60, long), (60, long), (60, long), (58, RA)]), both);
    assert_eq!(
        verdicts(IPV6, &ipv6(GLOBAL, 64, &[(60, long), (60, long), (60, long), (58, RA)])),
        (true, false),
        "but from elsewhere it is no router"
    );
    assert_eq!(chain(&[(6, &[0; 20])]), clean, "TCP");
}

#[test]
fn tags_and_snap_headers_hide_nothing() {
    let ra = ipv6(LINK_LOCAL, 255, &[(58, RA)]);
    let snap = [0, 60, 0xaa, 0xaa, 3, 0, 0, 0];
    let bridged = [0, 60, 0xaa, 0xaa, 3, 0, 0, 0xf8];
    let tag = [0x81, 0, 0, 0];
    for before in [
        &tag[..],
        &[tag, [0x88, 0xa8, 0, 9], [0x91, 0, 0, 8], tag].concat(),
        &snap,
        &bridged,
        &[&tag[..], &snap].concat(),
        &[&snap[..], &tag].concat(),
    ] {
        assert_eq!(verdicts(&[before, IPV6].concat(), &ra), (false, true), "{before:02x?}");
    }
    let tags = tag.repeat(30);
    assert_eq!(verdicts(&[&tags, IPV6].concat(), &ra), (true, true), "the snapshot ends in the tags");
    assert_eq!(verdicts(&[&tag.repeat(28), &snap[..]].concat(), &ra), (true, true), "and in the SNAP header");
    assert_eq!(verdicts(&[0, 38, 0x42, 0x42, 3], &[0; 40]), (false, false), "a spanning tree frame");
    assert_eq!(verdicts(&[0, 60, 0xaa, 0xaa, 3, 0, 0, 0x0c], &[0x86, 0xdd, 0, 0]), (false, false), "another OUI");
}

fn rate(frames_per_second: u32) -> FrameRate {
    FrameRate::new(frames_per_second).unwrap()
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    assert_eq!((FrameRate::new(0), FrameRate::new(MAX_RATE_PPS + 1)), (None, None));
    assert_eq!((rate(1).burst(), rate(160).burst(), rate(100_000).burst()), (8, 8, 5000));
    for frames_per_second in [1, 3, 100, 999, 30_000, MAX_RATE_PPS] {
        let (rate, bucket) = (rate(frames_per_second), Bucket::default());
        let start_ns = 77;
        assert!(bucket.take(rate.limit(), start_ns, true), "asking takes nothing");
        let at_once = (0..2 * rate.burst()).filter(|_| bucket.take(rate.limit(), start_ns, false)).count();
        assert_eq!(at_once as u64, rate.burst());
        assert!(
            !bucket.take(rate.limit(), start_ns, true) && !bucket.take(rate.limit(), start_ns - 70, false),
            "nor a clock behind"
        );
        // Two seconds, asked ten times as often as it gives.
        let asked = u64::from(frames_per_second.min(30_000)) * 20;
        let given =
            (1..=asked).filter(|n| bucket.take(rate.limit(), start_ns + n * 2_000_000_000 / asked, false)).count();
        if frames_per_second <= 30_000 {
            let due = 2 * frames_per_second as usize;
            assert!(given <= due && given + 1 + due / 1000 >= due, "{given} in 2 s at {frames_per_second}/s");
        }
        // A long silence saves no more than the burst.
        let later = (0..2 * rate.burst()).filter(|_| bucket.take(rate.limit(), 3_600_000_000_000, false)).count();
        assert_eq!(later as u64, rate.burst());
    }
}

#[test]
fn workers_share_a_bucket() {
    let (rate, bucket) = (rate(10_000), Bucket::default());
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..20_000u64).filter(|n| bucket.take(rate.limit(), n * 50_000, false)).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // A second, and the burst of 500.
    assert!((10_000..=10_500).contains(&taken), "{taken} taken");
}

proptest! {
    /// Whatever stands in a frame: no panic; and what a host finds at once, the guards find.
    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..160), tags in 0usize..3) {
        let _ = Packet::of(&bytes);
        let types = [[0x81, 0, 0, 7].repeat(tags), IPV6.to_vec()].concat();
        let mut packet = ipv6(LINK_LOCAL, 255, &[(58, &bytes)]);
        let expected = bytes.len() >= 2 && !matches!(bytes[0], 134 | 137);
        prop_assert_eq!(verdicts(&types, &packet).1, !expected);
        // Any chain: never taken for something harmless because it is cut.
        packet[6] = bytes.first().copied().unwrap_or(0);
        if packet[6] == 60 {
            packet.truncate(41);
            prop_assert!(verdicts(&types, &packet).1);
        }
    }

    /// In no span of time does more pass than the rate and the burst.
    #[test]
    fn a_bucket_never_exceeds_its_rate(
        frames_per_second in 1u32..50_000,
        steps in prop::collection::vec((0u64..5_000_000, 1usize..30), 1..60),
    ) {
        let (rate, bucket) = (rate(frames_per_second), Bucket::default());
        let (mut now_ns, mut given) = (0u64, Vec::new());
        for (wait_ns, asked) in steps {
            now_ns += wait_ns;
            given.extend((0..asked).filter(|_| bucket.take(rate.limit(), now_ns, false)).map(|_| now_ns));
        }
        for (first, from_ns) in given.iter().enumerate().step_by(7) {
            for (last, to_ns) in given.iter().enumerate().skip(first) {
                let allowed = (to_ns - from_ns) * u64::from(frames_per_second) / 1_000_000_000 + rate.burst();
                prop_assert!((last - first) as u64 <= allowed);
            }
        }
    }
}
