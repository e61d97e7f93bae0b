use super::super::core::COPY_FILL;
use super::super::socket::RING_ENTRIES;
use super::*;

#[test]
fn many_ports_share_the_pool_and_a_busy_one_gives_back() {
    const CHUNKS: usize = 16_384;
    let mut free = CHUNKS;
    let mut held = Vec::new();
    for _ in 0..48 {
        let goal = fill_goal(free, 0, COPY_FILL);
        free -= goal as usize;
        held.push(goal);
    }
    assert_eq!(held[0], COPY_FILL, "few ports: as much as a ring is given");
    assert!(
        held[47] >= FILL_STEP && free > 1000,
        "48 ports: each has a ring to receive with, and there is room to send"
    );
    assert!(
        fill_goal(free, held[0], COPY_FILL) < held[0],
        "the first port's chunks go back to the pool as it uses them"
    );
    assert_eq!(fill_goal(0, 0, COPY_FILL), FILL_STEP);
    assert_eq!(fill_goal(CHUNKS * 8, 0, RING_ENTRIES), RING_ENTRIES);
}
