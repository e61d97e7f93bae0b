//! The memory that a front end shares: files that are refused, memory that vanishes, limits.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{VhostOp, VhostPort};
use labsw_dataplane::virtio::memory::{GuestMemory, MemoryError, Region, RegionInfo};
use labsw_dataplane::virtio::memory_limit::MemoryLimit;
use labsw_dataplane::virtio::{RingLayout, RingSetup};
use labsw_testkit::guest::{GUEST_BASE, Guest, INDIRECT, INDIRECT_FLAG, NEXT, VERSION_1, frame};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// Where the region of a guest's that vanishes begins.
const FAR: u64 = 1 << 40;
const FAR_BYTES: u64 = 1 << 30;

fn memfd(bytes: u64) -> OwnedFd {
    let fd = memfd_create("shared", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    fd
}

/// A region that begins at the same guest and user address.
fn region(start: u64, bytes: u64) -> RegionInfo {
    RegionInfo { guest_start: start, bytes, user_start: start, file_offset: 0 }
}

/// How many mappings of this process begin in the `bytes` bytes at `start`.
fn mappings(start: usize, bytes: u64) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let starts = maps.lines().map(|line| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap());
    starts.filter(|at| (start..start + bytes as usize).contains(at)).count()
}

#[test]
fn a_region_that_vanishes_costs_one_mapping_whatever_pages_are_touched() {
    let mut guest = Guest::new(VERSION_1 | INDIRECT, 64);
    let file = memfd(FAR_BYTES);
    let far = Region::map(region(FAR, FAR_BYTES), file.try_clone().unwrap()).unwrap();
    let memory = Arc::new(guest.memory.with(far).unwrap());
    let start = memory.host_of_guest(FAR, 1).unwrap().addr();
    let layout = RingLayout::resolve(memory, 64, guest.addresses(1)).unwrap();
    let setup = Box::new(RingSetup { layout, ..guest.setup(1) });
    let mut port = VhostPort::new(1);
    port.operate(VhostOp::StartRing { index: 1, setup, enabled: true, connection: 1 });
    // Frames of which the front is sound, and single bytes of every second page of the other region follow.
    for head in 0..2 {
        let place = guest.buffer(1, head);
        guest.write(place, &[vec![0; 12], frame(128, 1)].concat());
        let mut table = Guest::descriptor_bytes(GUEST_BASE + place as u64, 140, NEXT, 1).to_vec();
        for entry in 1..250u16 {
            let page = u64::from(head) * 250 + u64::from(entry);
            let next = if entry == 249 { 0 } else { NEXT };
            table.extend(Guest::descriptor_bytes(FAR + page * 8192, 1, next, entry + 1));
        }
        let table_at = guest.buffer(1, 10 + 4 * head);
        guest.write(table_at, &table);
        guest.set_descriptor(1, head, GUEST_BASE + table_at as u64, table.len() as u32, INDIRECT_FLAG, 0);
        guest.offer(1, head);
    }
    assert_eq!(mappings(start, FAR_BYTES), 1);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).unwrap();
    assert_eq!(burst.len(), 2);
    ftruncate(&file, 0).unwrap();
    let frames = labsw_testkit::guest::frames_of(&burst);
    assert!(frames.iter().all(|frame| frame.len() == 128 + 249 && frame[128..].iter().all(|&byte| byte == 0)));
    // None begins there if the kernel has joined it with a neighbour.
    assert!(mappings(start, FAR_BYTES) <= 1, "{} mappings", mappings(start, FAR_BYTES));
    let fault = port.release(0, &mut burst).unwrap_err();
    assert!(fault.reason.contains("truncated its memory file"), "{}", fault.reason);
}

#[test]
fn a_ring_of_zeros_left_by_truncated_memory_is_no_broken_ring() {
    let mut guest = Guest::new(VERSION_1, 64);
    let mut port = guest.port();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    guest.transmit(1, &frame(100, 1), &[]);
    port.receive(0, &mut burst, &mut stats).unwrap();
    ftruncate(&guest.memfd, 0).unwrap();
    // The used index is written into the replaced memory, and the available one there is 0.
    let released = port.release(0, &mut burst);
    let fault = released.and_then(|()| port.receive(0, &mut burst, &mut stats)).unwrap_err();
    assert!(fault.reason.contains("truncated its memory file"), "{}", fault.reason);
}

#[test]
fn only_shared_memory_is_mapped() {
    let refused = |file: OwnedFd| {
        let error = Region::map(region(0, 4096), file).unwrap_err();
        assert!(matches!(error, MemoryError::NotShared { guest_start: 0 }), "{error}");
    };
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-guest-memory");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    refused(std::fs::File::options().read(true).write(true).open(&path).unwrap().into());
    refused(std::fs::File::open("/dev/zero").unwrap().into());
    refused(std::fs::File::open("/proc/self/maps").unwrap().into());
    refused(std::io::pipe().unwrap().0.into());
    std::fs::remove_file(path).unwrap();
    // A file of tmpfs that no memfd_create made is shared memory all the same.
    let shared = std::path::Path::new("/dev/shm");
    if shared.is_dir() && rustix::fs::statfs(shared).unwrap().f_type == 0x0102_1994 {
        let path = shared.join(format!("labsw-test-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.set_len(4096).unwrap();
        assert!(Region::map(region(0, 4096), OwnedFd::from(file)).is_ok());
    }
}

#[test]
fn a_guest_and_all_guests_have_a_limit_and_a_sparse_file_counts_in_full() {
    let limit = Arc::new(MemoryLimit::new(3 << 40, 4 << 40));
    let file = memfd(1 << 46);
    let map = |others, start: u64, bytes| {
        Region::map_within(&limit, others, region(start, bytes), file.try_clone().unwrap()).map(Arc::new)
    };
    let first = map(0, 1 << 50, 1 << 40).unwrap();
    let second = map(1 << 40, 2 << 50, 2 << 40).unwrap();
    let message = map(3 << 40, 3 << 50, 4096).unwrap_err().to_string();
    assert!(message.contains("a port may map 3298534883328 (switch.max_guest_memory)"), "{message}");
    let message = map(0, 3 << 50, 2 << 40).unwrap_err().to_string();
    assert!(
        message.contains("4398046511104 bytes of guest memory") && message.contains("3298534883328 are"),
        "{message}"
    );
    let guest = GuestMemory::new(vec![first, second]).unwrap();
    assert_eq!((guest.bytes(), limit.mapped()), (3 << 40, 3 << 40));
    drop(guest);
    assert_eq!(limit.mapped(), 0);
    // A mapping that fails for another reason takes nothing.
    assert!(map(0, 0, 1 << 47).is_err());
    assert_eq!(limit.mapped(), 0);
}

#[test]
fn core_dumps_leave_guest_memory_out() {
    let guest = Guest::new(VERSION_1, 64);
    let address = guest.memory.host_of_guest(GUEST_BASE, 1).unwrap().addr();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&format!("{address:x}-")));
    let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
}
