//! Bursts into a split receive ring, against a model that takes the guest's buffers one by one: any mix of buffers (too
//! short, in two descriptors, several to a frame), of frames (in one segment or several, with tag edits, cut), and
//! fewer buffers than frames.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test: its numbers are small")]

use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::stats::PortDelta;
use labsw_switch::DropReason;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::{Guest, MRG_RXBUF, VERSION_1, frame};
use proptest::prelude::*;

const RX: usize = 0;
const RING: u16 = 64;

/// A frame to send: its bytes, where its segments end, how it changes, and the most bytes of it that leave.
#[derive(Clone, Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    edit: TagEdit,
    snap_bytes: u16,
}

impl Outgoing {
    fn segments(&self) -> Vec<Segment> {
        let mut ends: Vec<usize> = self.cuts.iter().map(|cut| cut % self.bytes.len()).collect();
        ends.push(self.bytes.len());
        ends.sort_unstable();
        let starts = std::iter::once(0).chain(ends.clone());
        let parts = starts.zip(&ends).map(|(start, &end)| &self.bytes[start..end]);
        parts.map(|part| Segment { ptr: part.as_ptr(), len: part.len() as u32 }).collect()
    }

    fn expected(&self) -> Vec<u8> {
        let (macs, rest) = self.bytes.split_at(12);
        let tag: &[u8] = self.edit.insert.as_ref().map_or(&[], |tag| tag);
        let mut bytes = [macs, tag, &rest[usize::from(self.edit.strip_bytes)..]].concat();
        if self.snap_bytes != 0 {
            bytes.truncate(self.snap_bytes.into());
        }
        bytes
    }
}

fn outgoing() -> impl Strategy<Value = Outgoing> {
    let len = prop_oneof![4 => 16usize..200, 2 => 200usize..1600, 1 => 1600usize..5000];
    let cuts = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<usize>(), 1..5)];
    let edit = prop_oneof![
        4 => Just(TagEdit::KEEP),
        1 => Just(TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0, 20]) }),
        1 => Just(TagEdit { strip_bytes: 4, insert: None }),
        1 => Just(TagEdit { strip_bytes: 4, insert: Some([0x81, 0, 0, 30]) }),
    ];
    let snap_bytes = prop_oneof![5 => Just(0u16), 1 => 1u16..300];
    (len, any::<u8>(), cuts, edit, snap_bytes).prop_map(|(len, seed, cuts, edit, snap_bytes)| Outgoing {
        bytes: frame(len, seed),
        cuts,
        edit,
        snap_bytes,
    })
}

/// Buffers posted: how many, of how many bytes, in one descriptor or two.
fn posts() -> impl Strategy<Value = Vec<(usize, u32, Option<u32>)>> {
    let bytes = prop_oneof![4 => Just(2048u32), 1 => 12u32..200, 2 => 200u32..2048];
    let post = (1usize..20, bytes, any::<u8>()).prop_map(|(count, bytes, split)| {
        let first = (split % 3 == 0).then_some(1 + u32::from(split) % (bytes - 1));
        (count, bytes, first)
    });
    prop::collection::vec(post, 0..4)
}

/// The model: the part of `frames` that the guest gets, and the reason of each other; takes the buffers used.
fn model(
    buffers: &mut Vec<u32>,
    frames: &[Outgoing],
    header: usize,
    mergeable: bool,
) -> (Vec<Vec<u8>>, u64, PortDelta) {
    let (mut received, mut unsent, mut stats) = (Vec::new(), 0, PortDelta::ZERO);
    for (index, frame) in frames.iter().enumerate() {
        let bytes = frame.expected();
        let needed = header + bytes.len();
        let enough = (1..=buffers.len()).find(|&count| buffers[..count].iter().sum::<u32>() as usize >= needed);
        let lost = match enough {
            Some(1) => None,
            Some(_) if mergeable => None,
            _ if !mergeable && !buffers.is_empty() => Some(DropReason::GuestBufferTooSmall),
            _ if buffers.len() == usize::from(RING) => Some(DropReason::GuestBufferTooSmall),
            _ => Some(DropReason::GuestRingFull),
        };
        if let Some(reason) = lost {
            unsent |= 1 << index;
            stats.drop(reason);
        } else {
            buffers.drain(..enough.unwrap());
            stats.sent(bytes.len() as u32);
            received.push(bytes);
        }
    }
    (received, unsent, stats)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_arrives_whole_or_is_counted(
        rounds in prop::collection::vec((posts(), prop::collection::vec(outgoing(), 1..=64)), 1..4),
        mergeable: bool,
        modern: bool,
    ) {
        let features = if mergeable { MRG_RXBUF } else { 0 } | if modern { VERSION_1 } else { 0 };
        let mut guest = Guest::new(features, RING);
        let header = guest.header_bytes();
        let mut port = guest.port();
        let mut buffers: Vec<u32> = Vec::new();
        let mut descriptors = 0;
        for (posts, frames) in rounds {
            for (count, bytes, split) in posts {
                let each = if split.is_some() { 2 } else { 1 };
                for _ in 0..count {
                    if descriptors + each > usize::from(RING) {
                        break;
                    }
                    descriptors += each;
                    guest.post(RX, 1, bytes, split);
                    buffers.push(bytes);
                }
            }
            let mut burst = Burst::new();
            for (index, frame) in frames.iter().enumerate() {
                // SAFETY: the frames outlive the burst and do not change.
                assert!(unsafe { burst.push(index as u64, &frame.segments()) });
            }
            let items: Vec<_> = (0..).zip(&frames).map(|(index, frame)| TxItem {
                frame: index,
                edit: frame.edit,
                snap_bytes: frame.snap_bytes,
            }).collect();
            let expected = model(&mut buffers, &frames, header, mergeable);
            let mut stats = PortDelta::ZERO;
            let unsent = port.send(&mut burst, &items, &mut stats).unwrap();
            let received = guest.received(RX);
            descriptors = usize::from(RING) - guest.free_entries(RX);
            prop_assert_eq!((received, unsent, stats), expected);
        }
    }
}
