//! Our walk over the descriptor rings against that of the `virtio-queue` crate: for any well-formed chains, the same
//! frames come out, and the used ring says the same.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::fs::File;
use std::os::fd::AsFd;

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_testkit::guest::{GUEST_BASE, Guest, INDIRECT, USER_BASE, VERSION_1, frame, frames_of};
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// The frames that virtio-queue finds in the guest's transmit ring, headers cut off; it completes the chains as a
/// device does.
fn oracle(guest: &Guest, queue: &mut Queue, memory: &GuestMemoryMmap) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some(chain) = queue.pop_descriptor_chain(memory) {
        let head = chain.head_index();
        let mut bytes = Vec::new();
        for descriptor in chain.readable() {
            let mut part = vec![0; descriptor.len() as usize];
            memory.read_slice(&mut part, descriptor.addr()).unwrap();
            bytes.extend(part);
        }
        queue.add_used(memory, head, 0).unwrap();
        frames.push(bytes.split_off(guest.header_bytes()));
    }
    frames
}

fn queue_of(guest: &Guest) -> (Queue, GuestMemoryMmap) {
    let file = FileOffset::new(File::from(guest.memfd.as_fd().try_clone_to_owned().unwrap()), 0);
    let region: MmapRegion = MmapRegion::from_file(file, guest.bytes() as usize).unwrap();
    let region = GuestRegionMmap::new(region, GuestAddress(GUEST_BASE)).unwrap();
    let memory = GuestMemoryMmap::from_regions(vec![region]).unwrap();
    let addresses = guest.addresses(1);
    let guest_address = |user: u64| GuestAddress(user - USER_BASE + GUEST_BASE);
    let mut queue = Queue::new(guest.rings[1].size).unwrap();
    queue.try_set_desc_table_address(guest_address(addresses.descriptors)).unwrap();
    queue.try_set_avail_ring_address(guest_address(addresses.available)).unwrap();
    queue.try_set_used_ring_address(guest_address(addresses.used)).unwrap();
    queue.set_ready(true);
    assert!(queue.is_valid(&memory) && memory.num_regions() == 1);
    (queue, memory)
}

/// Frames of one burst: length and how header and frame are cut into descriptors.
fn bursts() -> impl Strategy<Value = Vec<Vec<(usize, Vec<usize>)>>> {
    let one = (1usize..1600, prop::collection::vec(1usize..500, 0..6));
    prop::collection::vec(prop::collection::vec(one, 1..9), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_frames_as_virtio_queue(bursts in bursts(), modern: bool, indirect: bool) {
        let features = if modern { VERSION_1 } else { 0 } | if indirect { INDIRECT } else { 0 };
        // The same driver at work on two rings: one read by us, one by the oracle.
        let (mut ours, mut theirs) = (Guest::new(features, 64), Guest::new(features, 64));
        let mut port = ours.port();
        let (mut queue, memory) = queue_of(&theirs);
        for (round, frames) in bursts.iter().enumerate() {
            for (number, (len, pieces)) in frames.iter().enumerate() {
                let bytes = frame(*len, (round * 16 + number) as u8);
                ours.transmit(1, &bytes, pieces);
                theirs.transmit(1, &bytes, pieces);
            }
            let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
            port.receive(0, &mut burst, &mut stats).unwrap();
            prop_assert_eq!(frames_of(&burst), oracle(&theirs, &mut queue, &memory));
            port.release(0, &mut burst).unwrap();
            for index in 0..64 {
                prop_assert_eq!(ours.used_element(1, index), theirs.used_element(1, index));
            }
            prop_assert_eq!(ours.reap(1), theirs.reap(1));
        }
    }

    /// Whatever bytes are in the ring: a fault or a burst, never more, and the index never runs past what was offered.
    #[test]
    fn noise_in_the_tables_is_survived(
        noise in prop::collection::vec(any::<u8>(), 64 * 16 + 64),
        plausible in prop::collection::vec((0u64..0x2000, 0u32..3000, 0u16..8, 0u16..66), 64),
        use_noise: bool,
        available in 0u16..70,
        features in prop::sample::select(vec![0, VERSION_1, INDIRECT, VERSION_1 | INDIRECT]),
    ) {
        let guest = Guest::new(features, 64);
        let tables = (guest.addresses(1).descriptors - USER_BASE) as usize;
        if use_noise {
            guest.write(tables, &noise);
        } else {
            for (entry, &(address, len, flags, next)) in plausible.iter().enumerate() {
                guest.set_descriptor(1, entry as u16, GUEST_BASE + address, len, flags, next);
            }
        }
        guest.avail(1, 2).store(available, std::sync::atomic::Ordering::Release);
        let mut port = guest.port();
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        match port.receive(0, &mut burst, &mut stats) {
            Ok(()) => {
                frames_of(&burst);
                port.release(0, &mut burst).unwrap();
                prop_assert_eq!(stats.rx_frames, u64::from(available));
                prop_assert_eq!(guest.used(1, 2).load(std::sync::atomic::Ordering::Acquire), available);
            }
            Err(fault) => {
                prop_assert!(burst.is_empty() && !fault.reason.is_empty());
                prop_assert_eq!(guest.used(1, 2).load(std::sync::atomic::Ordering::Acquire), 0);
            }
        }
    }
}
