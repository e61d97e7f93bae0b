//! Offload requests: any virtio-net header before any frame, judged, passed on, finished, cut into segments, and merged
//! again.
//!
//! Well-formed packets, of which a few bytes are damaged or not, get their requests; so do plain bytes. An undamaged
//! packet with its own request must come out as a receiver demands ([`received`]: all lengths and checksums), any other
//! within the bounds: no more segments than the limit, none longer than its headers and its share, the payload whole
//! and in order, no byte written where the switch decides.

use labsw_dataplane::frame::MAX_FRAME_BYTES;
use labsw_dataplane::offload::{
    Asked, Coalescer, Cutter, Gso, GsoKind, HEADER_BYTES, Layout, MAX_SEGMENTS, MAX_UDP_SEGMENTS_PASSED, Offers,
    Partial, Request, Sum, finish_checksum, whole,
};
use labsw_switch::header::SNAPSHOT_BYTES;
use labsw_testkit::offload_frames::{Packet, noise, received};

use super::feed::Feed;

/// Everything that decides about a frame lies before this byte: addresses and types, and ports behind the shortest IP
/// header.
const PORTS_END: usize = 14 + 20 + 4;
/// So much of a frame is shown to who looks for headers.
const SHOWN: usize = SNAPSHOT_BYTES;
/// Frames that are merged are of this many segments at most.
const MERGED: usize = 12;

/// Judges a request for a frame and does what it asks for.
///
/// # Panics
/// When the outcome is not one that a receiver can use, or beyond a bound.
pub fn offload(data: &[u8]) {
    let mut feed = Feed::new(data);
    let (packet, mut frame) = frame(&mut feed);
    let damage = feed.u8() % 4;
    let (header, is_own) = header(&mut feed, packet.as_ref(), frame.len());
    for _ in 0..damage {
        let (at, value) = (usize::from(feed.u16()), feed.u8());
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
    let offers = if feed.flag() { Offers::ALL } else { Offers::NONE };
    let Some(asked) = judge(&header, &frame, offers) else {
        assert!(!(is_own && damage == 0 && offers == Offers::ALL && fits(&frame)), "a good request is refused");
        return;
    };
    let finished = resolve(&asked, &frame);
    if let (Some(packet), true) = (&packet, is_own && damage == 0 && asked.request.gso.is_some()) {
        let seen: Vec<_> = finished.iter().map(|frame| received(frame, packet)).collect();
        let payload: Vec<u8> = seen.iter().flat_map(|segment| segment.payload.clone()).collect();
        assert!(payload == packet.payload, "the payload of the segments is that of the frame");
    }
    merge(&finished[..finished.len().min(MERGED)]);
}

/// Whether headers of a made packet are within what is shown.
fn fits(frame: &[u8]) -> bool {
    let layout = |kind| Layout::of(&frame[..frame.len().min(SHOWN)], length(frame), kind);
    [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp].into_iter().any(|kind| layout(kind).is_ok())
}

fn length(frame: &[u8]) -> u32 {
    u32::try_from(frame.len()).expect("short")
}

/// A packet and its bytes, or bytes alone.
fn frame(feed: &mut Feed<'_>) -> (Option<Packet>, Vec<u8>) {
    let shape = feed.u8();
    if shape >= 224 {
        let count = usize::from(feed.u16()) % 600;
        return (None, feed.take(count).to_vec());
    }
    let options = |feed: &mut Feed<'_>| noise(4 * usize::from(feed.u8() % 11), 3);
    let udp = shape & 16 != 0;
    let long = [200, 1448, 9000, 65_000][usize::from(shape >> 5 & 3)];
    let packet = Packet {
        tags: (0..shape % 3).map(|_| (feed.choose(&[0x8100, 0x88a8]), feed.u16())).collect(),
        ip_options: if shape & 4 == 0 { options(feed) } else { vec![] },
        tcp_options: if shape & 8 == 0 { options(feed) } else { vec![] },
        flags: feed.u8(),
        sequence: feed.u32(),
        identification: feed.u16(),
        udp,
        ..Packet::tcp(shape & 4 != 0, noise(usize::from(feed.u16()) % long, shape.into()))
    };
    let frame = packet.partial();
    (Some(packet), frame)
}

/// A virtio-net header, and whether it asks for what the packet's own sender would.
fn header(feed: &mut Feed<'_>, packet: Option<&Packet>, frame_bytes: usize) -> ([u8; HEADER_BYTES], bool) {
    let choice = feed.u8();
    let size = if choice & 1 == 0 { 200 + feed.u16() % 1300 } else { feed.u16() };
    if let (Some(packet), 0..192) = (packet, choice) {
        // Small segments of a large frame are refused for their number.
        let few = packet.payload.len().div_ceil(usize::from(size).max(1)) <= MAX_SEGMENTS as usize;
        let size = (choice & 2 == 0 && size >= 200 && few && size < 60_000).then_some(size);
        let bytes = u16::try_from(packet.header_bytes()).expect("short");
        return (packet.request(size).encode(bytes), frame_bytes <= MAX_FRAME_BYTES as usize);
    }
    let mut header = [0; HEADER_BYTES];
    let taken = feed.take(HEADER_BYTES);
    header[..taken.len()].copy_from_slice(taken);
    (header, false)
}

/// What is asked for, with the bounds of it checked.
fn judge(header: &[u8; HEADER_BYTES], frame: &[u8], offers: Offers) -> Option<Asked> {
    let shown = &frame[..frame.len().min(SHOWN)];
    let asked = Asked::admit(header, shown, length(frame), offers).ok()?;
    assert!(asked.segments() <= MAX_SEGMENTS);
    assert!(asked.wire_bytes(length(frame)) <= length(frame));
    let many =
        asked.request.gso.is_some_and(|gso| gso.kind == GsoKind::Udp) && asked.segments() > MAX_UDP_SEGMENTS_PASSED;
    assert_eq!(asked.passes(offers), !many, "what was offered is accepted");
    if many {
        return Some(asked);
    }
    // Who takes the frame as it is reads the same request.
    let passed = asked.encode(Offers::ALL, 0).expect("everything is accepted");
    let again = Asked::admit(&passed, shown, length(frame), Offers::ALL);
    assert_eq!(again.map(|again| again.request), Ok(asked.request));
    for growth in [-4, 4] {
        let Some(moved) = asked.encode(Offers::ALL, growth) else { continue };
        let start = |header: &[u8]| i32::from(u16::from_le_bytes([header[6], header[7]]));
        assert!(asked.request.csum.is_none() || start(&moved) == start(&passed) + growth);
    }
    Some(asked)
}

/// Finishes or cuts the frame, and compares what came out with what went in.
fn resolve(asked: &Asked, frame: &[u8]) -> Vec<Vec<u8>> {
    let request = asked.request;
    match request {
        Request { csum: Some(partial), gso: None } => {
            let mut finished = frame.to_vec();
            assert_eq!(finish_checksum(&mut finished, Sum::default(), partial), Ok(()));
            let field = usize::from(partial.start) + usize::from(partial.offset);
            assert!(field >= PORTS_END, "a checksum at byte {field} is where the switch decides");
            let outside = |bytes: &[u8]| [&bytes[..field], &bytes[field + 2..]].concat();
            assert!(outside(&finished) == outside(frame), "bytes outside of the checksum are touched");
            vec![finished]
        }
        Request { csum: None, .. } => vec![frame.to_vec()],
        Request { gso: Some(gso), .. } => cut(asked, gso, frame),
    }
}

fn cut(asked: &Asked, gso: Gso, frame: &[u8]) -> Vec<Vec<u8>> {
    let cutter = Cutter::new(&frame[..frame.len().min(SHOWN)], length(frame), asked.request).expect("it was admitted");
    let header_bytes = cutter.header_bytes();
    assert_eq!(cutter.segments(), asked.segments());
    let segments = whole::resolved(frame, SHOWN, asked.request).expect("it was admitted");
    assert_eq!(segments.len(), asked.segments() as usize);
    let total: usize = segments.iter().map(Vec::len).sum();
    assert_eq!(total as u64, cutter.total_bytes());
    let payload: Vec<u8> = segments.iter().flat_map(|segment| segment[header_bytes..].to_vec()).collect();
    assert!(payload == frame[header_bytes..], "the payload is whole and in order");
    let longest = header_bytes + usize::from(gso.size);
    for segment in &segments {
        assert!(segment.len() <= longest.min(asked.wire_bytes(length(frame)) as usize));
        assert!(segment[..14] == frame[..14], "addresses and type are the frame's");
        let l4 = cutter.layout().l4;
        assert!(segment[l4..l4 + 4] == frame[l4..l4 + 4], "ports are the frame's");
    }
    segments
}

/// Merges what can be merged of these frames: cut again, it is what it was.
fn merge(frames: &[Vec<u8>]) {
    let describe = |frame: &[u8]| {
        let probe = |kind| Layout::of(&frame[..frame.len().min(SHOWN)], length(frame), kind);
        let layout = probe(GsoKind::Tcp4).or_else(|_| probe(GsoKind::Tcp6));
        let at = layout.map_or(frame.len(), |layout| layout.header_bytes).min(frame.len());
        (at, Sum::of(&frame[at..]))
    };
    let Some(first) = frames.first() else { return };
    let (at, sum) = describe(first);
    let Some(mut coalescer) = Coalescer::begin(&first[..first.len().min(SHOWN)], length(first), sum) else { return };
    let mut payload = first[at..].to_vec();
    for frame in &frames[1..] {
        let (at, sum) = describe(frame);
        if !coalescer.add(&frame[..frame.len().min(SHOWN)], length(frame), sum) {
            break;
        }
        payload.extend(&frame[at..]);
    }
    let (taken, bytes) = (coalescer.segments() as usize, coalescer.frame_bytes() as usize);
    let merged = coalescer.finish();
    let (headers, request) = (merged.headers.to_vec(), merged.request);
    let frame = [headers, payload].concat();
    assert_eq!(frame.len(), bytes);
    if let Request { csum: Some(Partial { .. }), gso: Some(_) } = request {
        let again = whole::resolved(&frame, SHOWN, request).expect("what was merged can be cut");
        assert!(again == frames[..taken], "cut again it is what it was");
    }
}
