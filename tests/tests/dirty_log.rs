//! Proves that every page that the switch writes in a guest's memory is in the log, and no other: random operations on
//! rings of both kinds, by well-behaved and by hostile guests, against the model of the fuzz targets `ring` and
//! `packed`.
//!
//! `LABSW_LOG_OPERATIONS` says how many operations; `LABSW_SEED` repeats a run.

use labsw_tests::fuzz::{packed_operations, ring_operations};

/// Operations without `LABSW_LOG_OPERATIONS`.
const OPERATIONS: u64 = 20_000;
/// Bytes from which a ring and up to 64 operations on it are made.
const INPUT_BYTES: usize = 1200;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[test]
fn every_page_written_is_logged_and_no_other() {
    let (wanted, mut seed) = (number("LABSW_LOG_OPERATIONS", OPERATIONS), number("LABSW_SEED", 14));
    let mut done = [0; 2];
    while done.iter().sum::<u64>() < wanted {
        let first = seed;
        let words = INPUT_BYTES / 8;
        let mut input: Vec<u8> = (0..words).flat_map(|_| next(&mut seed).to_le_bytes()).collect();
        // Rings that lie where a driver lays them, three times of four, and log their pages.
        input[0] &= if input[2] & 3 == 0 { 0xff } else { 0x7f };
        input[1] |= 0x80;
        for (done, operations) in done.iter_mut().zip([ring_operations, packed_operations]) {
            let played = std::panic::catch_unwind(|| operations(&input));
            *done += played.unwrap_or_else(|_| panic!("with LABSW_SEED={first}"));
        }
    }
    println!("{} operations on split rings, {} on packed ones", done[0], done[1]);
    assert!(done.iter().all(|done| done * 4 > wanted), "{done:?}");
}
