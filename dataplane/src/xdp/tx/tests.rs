#![allow(unsafe_code, reason = "tests lend memory of their own")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::xdp::{Hugepages, PacketMemory};

const PUSH: TagEdit = TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0, 10]) };
const SWAP: TagEdit = TagEdit { strip_bytes: 4, insert: Some([0x81, 0, 0, 20]) };
const POP: TagEdit = TagEdit { strip_bytes: 4, insert: None };

fn memory() -> PacketMemory {
    PacketMemory::new(4, Hugepages::Off).unwrap()
}

/// The `len` bytes at `addr`.
fn read(umem: &Umem, addr: u64, len: u32) -> Vec<u8> {
    let mut burst = Burst::new();
    // SAFETY: the burst does not outlive this function, the Umem does.
    assert!(unsafe { umem.lend(&mut burst, addr, len) });
    burst.snapshot(0).to_vec()
}

#[test]
fn short_frames_are_padded_with_zeros_where_there_is_room() {
    let memory = memory();
    let umem = &memory.umem;
    umem.write(0, &[0xee; 4096]);
    assert_eq!(pad(umem, 256, 14), 60);
    assert_eq!(read(umem, 256, 61), [[0xee; 14].as_slice(), &[0; 46], &[0xee]].concat());
    for len in [60, 61, 1514] {
        assert_eq!(pad(umem, 512, len), len);
    }
    assert_eq!(pad(umem, 4096 - 59, 59), 59, "never into the next chunk");
    assert_eq!(read(umem, 4096, 1), [0]);
}

#[test]
fn a_chunk_moves_only_with_room_for_the_tag_and_only_once() {
    let frame: Vec<u8> = (1..13).chain([0x81, 0, 0, 5, 8, 0]).chain(100..160).collect();
    for (offset, edit, moves_to) in [
        (0, PUSH, None),
        (3, PUSH, None),
        (4, PUSH, Some(0)),
        (256, PUSH, Some(252)),
        (0, SWAP, Some(0)),
        (0, POP, Some(4)),
        (0, TagEdit::KEEP, Some(0)),
    ] {
        let memory = memory();
        let (umem, mut pool) = (&memory.umem, memory.pool());
        let addr = pool.take(1).unwrap() + offset;
        umem.write(addr, &frame);
        let mut burst = Burst::new();
        // SAFETY: the Umem outlives the burst, and the chunk is not given back.
        assert!(unsafe { umem.lend(&mut burst, addr, 78) });
        let moved = move_frame(umem, &mut burst, 0, edit, &mut pool, 2);
        assert_eq!(moved, moves_to, "{edit:?} at {offset}");
        assert_eq!(burst.frame(0).unwrap().moved, moved.is_some());
        assert_eq!(pool.check(addr, if moved.is_some() { 2 } else { 1 }), Ok(()));
        let Some(start) = moved else { continue };
        let tag = edit.insert.map(Vec::from).unwrap_or_default();
        let expected = [&frame[..12], &tag, &frame[12 + usize::from(edit.strip_bytes)..]].concat();
        assert_eq!(read(umem, start, u32::try_from(expected.len()).unwrap()), expected);
        assert_eq!(move_frame(umem, &mut burst, 0, edit, &mut pool, 3), None, "not twice");
        assert_eq!(pool.owned_chunks(2), 1);
    }
}

#[test]
fn a_chunk_that_is_free_does_not_move() {
    let memory = memory();
    let (umem, mut pool) = (&memory.umem, memory.pool());
    let mut burst = Burst::new();
    // SAFETY: the Umem outlives the burst.
    assert!(unsafe { umem.lend(&mut burst, 256, 60) });
    assert_eq!(move_frame(umem, &mut burst, 0, TagEdit::KEEP, &mut pool, 2), None);
    assert!(!burst.frame(0).unwrap().moved);
}
