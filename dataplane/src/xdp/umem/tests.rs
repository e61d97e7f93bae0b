#![allow(unsafe_code, reason = "tests lend memory of their own")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::collections::HashMap;

use labsw_switch::forward::{TagEdit, TxItem};
use proptest::prelude::*;

use super::*;

fn pool(chunks: u32) -> FramePool {
    FramePool::new(chunks)
}

#[test]
fn every_chunk_once() {
    let mut pool = pool(100);
    let taken: Vec<u64> = std::iter::from_fn(|| pool.take(3)).collect();
    assert_eq!(taken, (0..100).map(|chunk| chunk * 4096).collect::<Vec<u64>>());
    assert_eq!((pool.free_chunks(), pool.owned_chunks(3), pool.total_chunks()), (0, 100, 100));
    assert_eq!(pool.reclaim(3), 100);
    assert_eq!((pool.free_chunks(), pool.owned_chunks(3)), (100, 0));
}

#[test]
fn wrong_returns_are_refused() {
    let mut pool = pool(4);
    let addr = pool.take(1).unwrap();
    for (what, wrong, owner) in [
        ("another port's", addr, 2),
        ("free already", addr + 4096, 1),
        ("free, by the mark of free chunks", addr + 4096, FREE),
        ("outside", 4 * 4096, 1),
        ("far outside", u64::MAX, 1),
    ] {
        assert_eq!(pool.give(wrong, owner), Err(NotOwned { addr: wrong }), "{what}");
    }
    assert_eq!(pool.transfer(addr + 4096, 1), Err(NotOwned { addr: addr + 4096 }), "a free chunk is not passed on");
    assert_eq!(pool.transfer(u64::MAX, 1), Err(NotOwned { addr: u64::MAX }));
    assert_eq!(pool.free_chunks(), 3);
    // Any address within the chunk names it.
    assert_eq!(pool.give(addr + 4095, 1), Ok(()));
    assert_eq!(pool.give(addr, 1), Err(NotOwned { addr }), "twice");
    assert_eq!((pool.free_chunks(), pool.reclaim(FREE)), (4, 0));
}

#[test]
fn ports_have_numbers_while_they_are_open() {
    let mut pool = pool(80);
    let numbers: Vec<u16> = (0..3).filter_map(|_| pool.enter()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    pool.take(2).unwrap();
    pool.note_sending(2, 5, 0);
    pool.leave(2);
    assert_eq!((pool.free_chunks(), pool.enter(), pool.may_send(2)), (80, Some(2), 10));
    assert_eq!((3..70_000).filter_map(|_| pool.enter()).last(), Some(u16::MAX - 1));
}

#[test]
fn what_a_port_has_under_way_is_bounded_by_all_and_by_what_is_free() {
    let mut pool = pool(800);
    let (one, other) = (pool.enter().unwrap(), pool.enter().unwrap());
    assert_eq!((pool.send_limit(), pool.may_send(one)), (100, 100));
    pool.note_sending(one, 100, 0);
    assert_eq!((pool.may_send(one), pool.may_send(other)), (0, 100));
    pool.note_sending(one, 0, 30);
    assert_eq!(pool.may_send(one), 30);
    // 60 beyond the last quarter are free: 30 for each, whoever has the others.
    while pool.free_chunks() > 260 {
        pool.take(one).unwrap();
    }
    assert_eq!((pool.send_limit(), pool.may_send(one), pool.may_send(other)), (30, 0, 30));
    while pool.free_chunks() > 200 {
        pool.take(other).unwrap();
    }
    // Beyond that each still has its least: a port beside many others goes on sending.
    assert_eq!((pool.send_limit(), pool.may_send(one), pool.may_send(other)), (6, 0, 6));
}

#[test]
fn sizes_and_pages() {
    for chunks in [0, MAX_CHUNKS + 1] {
        assert!(matches!(Umem::new(chunks, Hugepages::Auto), Err(UmemError::Size { .. })));
    }
    assert_eq!(Umem::new(1, Hugepages::Off).unwrap().backing(), Backing::Normal);
    let umem = Umem::new(3, Hugepages::Auto).unwrap();
    assert_ne!(umem.backing(), Backing::Normal);
    assert_eq!((umem.chunks(), umem.len_bytes()), (3, 3 * 4096));
    // Reserved pages there are or not; if not, the message names what is missing.
    match Umem::new(513, Hugepages::Required) {
        Ok(umem) => assert_eq!(umem.backing(), Backing::Huge2M),
        Err(error) => assert!(error.to_string().starts_with("packet memory needs 2 free 2-MiB huge pages"), "{error}"),
    }
}

#[test]
fn accesses_stay_within_a_chunk() {
    let umem = Umem::new(2, Hugepages::Off).unwrap();
    let mut burst = Burst::new();
    for (addr, len) in [(4095, 2), (8192, 0), (8191, 2), (u64::MAX, 1), (0, 4097), (1, u32::MAX)] {
        // SAFETY: the Umem outlives the burst, and nothing is given back.
        assert!(!unsafe { umem.lend(&mut burst, addr, len) }, "{len} bytes at {addr:#x}");
        if len < 5000 {
            assert!(!umem.write(addr, &vec![0; len as usize]));
        }
    }
    assert!(burst.is_empty());
    assert!(umem.write(4096 + 256, b"a frame of some bytes"));
    // SAFETY: as above.
    assert!(unsafe { umem.lend(&mut burst, 4096 + 256, 21) });
    assert_eq!(burst.snapshot(0), b"a frame of some bytes");
    // Copied as far back in the first chunk as it fits, and not one byte further.
    let reader = || burst.reader(&TxItem::whole(0, TagEdit::KEEP)).unwrap();
    assert!(!umem.copy_frame(4096 - 20, reader()));
    assert!(umem.copy_frame(4096 - 21, reader()));
    let mut copy = Burst::new();
    // SAFETY: as above.
    assert!(unsafe { umem.lend(&mut copy, 4096 - 21, 21) });
    assert_eq!(copy.snapshot(0), b"a frame of some bytes");
}

#[derive(Clone, Debug)]
enum Op {
    Take(u16),
    Give(u64, u16),
    Transfer(u64, u16),
    Reclaim(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let addr = 0u64..10 * 4096;
    prop_oneof![
        4 => (0u16..3).prop_map(Op::Take),
        3 => (addr.clone(), 0u16..3).prop_map(|(addr, owner)| Op::Give(addr, owner)),
        2 => (addr, 0u16..3).prop_map(|(addr, to)| Op::Transfer(addr, to)),
        1 => (0u16..3).prop_map(Op::Reclaim),
    ]
}

proptest! {
    /// Whatever is done, the pool agrees with a map from chunk to owner.
    #[test]
    fn agrees_with_a_map(ops in proptest::collection::vec(op(), 1..200)) {
        let mut pool = pool(8);
        let mut owners: HashMap<u64, u16> = HashMap::new();
        for op in ops {
            match op {
                Op::Take(owner) => match pool.take(owner) {
                    Some(addr) => prop_assert!(addr < 8 * 4096 && owners.insert(addr / 4096, owner).is_none()),
                    None => prop_assert_eq!(owners.len(), 8),
                },
                Op::Give(addr, owner) => {
                    let allowed = owners.get(&(addr / 4096)) == Some(&owner);
                    prop_assert_eq!(pool.check(addr, owner).is_ok(), allowed);
                    prop_assert_eq!(pool.give(addr, owner).is_ok(), allowed);
                    if allowed {
                        owners.remove(&(addr / 4096));
                    }
                }
                Op::Transfer(addr, to) => {
                    let known = owners.get_mut(&(addr / 4096));
                    prop_assert_eq!(pool.transfer(addr, to).is_ok(), known.is_some());
                    if let Some(owner) = known {
                        *owner = to;
                    }
                }
                Op::Reclaim(owner) => {
                    let before = owners.len();
                    owners.retain(|_, of| *of != owner);
                    prop_assert_eq!(pool.reclaim(owner), before - owners.len());
                }
            }
            prop_assert_eq!(pool.free_chunks(), 8 - owners.len());
            for owner in 0..3 {
                prop_assert_eq!(pool.owned_chunks(owner), owners.values().filter(|&&of| of == owner).count());
            }
        }
    }
}
