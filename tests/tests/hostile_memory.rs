//! Proves that the memory a guest shares costs nobody else anything: pages that vanish by the thousand leave few
//! mappings, regions as large as an address space are refused, pages that only the switch touches are bounded and given
//! back, files of a server that does not answer are refused without asking it, a crash leaves no memory of guests; and
//! the switch runs on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers report by panicking")]

use std::path::Path;
use std::time::Duration;

use labsw_tests::arena::{Arena, Seat};
use labsw_tests::attacks::{self, fuse::Fuse};
use labsw_tests::hostile::{FrontEnd, Script};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::Lab;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

const SECOND: Duration = Duration::from_secs(1);

fn withstands(what: &str, attack: impl FnOnce(&Seat<'_>)) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hy");
    let mut arena = Arena::start(&lab, "", &[], "");
    arena.withstands(what, attack);
    arena.finish();
}

#[test]
fn pages_that_vanish() {
    withstands("200 pieces a frame in memory that vanishes", |seat| attacks::every_second_page_vanishes(seat, 200));
    withstands("999 pieces a frame in memory that vanishes", |seat| attacks::every_second_page_vanishes(seat, 999));
}

#[test]
fn all_address_space() {
    withstands("all address space", |seat| _ = attacks::all_address_space(seat));
}

/// Memory of the process that is in RAM, bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    line.parse::<u64>().unwrap() << 10
}

#[test]
fn pages_that_nobody_touched() {
    const MIB: u64 = 1 << 20;
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hy");
    let mut arena = Arena::start(&lab, "", &[], "");
    let pid = arena.switch.pid();
    let before = resident(pid);
    arena.withstands("pages that nobody touched", |seat| {
        let front = attacks::sparse_memory(seat);
        let more = resident(pid) - before;
        assert!((40 * MIB..64 * MIB).contains(&more), "{more} bytes more in RAM");
        drop(front);
        seat.forgive();
    });
    wait_for("the memory to be given back", 5 * SECOND, || (resident(pid) < before + 8 * MIB).then_some(()));
    arena.finish();
}

#[test]
fn memory_that_waits_for_a_server() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hy");
    let fuse = match Fuse::mount(&lab.site.dir().join("slow")) {
        Ok(fuse) => fuse,
        Err(error) => return println!("skipped: this kernel mounts no FUSE: {error}"),
    };
    let mut arena = Arena::start(&lab, "", &[], "");
    let file = fuse.file().unwrap();
    arena.withstands("memory that waits for a server", |seat| {
        assert!(!attacks::memory_of_a_server(seat, &file), "the switch took the file");
    });
    drop(file);
    arena.finish();
    drop(fuse);
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Whatever limit of core files an administrator sets, a crash leaves none; and if it did, guests' memory would not be
/// in it.
#[test]
fn a_crash_leaves_no_memory_of_guests() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hy");
    let mut switch = lab.start("", &[], "[ports.evil]\ntype = \"vhost_user\"\n");
    let front = FrontEnd::start(&switch.vhost_socket("evil"), Script::default());
    switch.wait_port_up("evil");
    let pid = switch.pid();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut guests = 0;
    for mapping in maps.split_inclusive("VmFlags:").zip(maps.split("VmFlags:").skip(1)) {
        let flags = mapping.1.lines().next().unwrap();
        if mapping.0.lines().any(|line| line.contains("/memfd:guest")) {
            guests += 1;
            assert!(flags.split_whitespace().any(|flag| flag == "dd"), "memory of a guest is dumped: {flags}");
        }
    }
    assert!(guests > 0, "{maps}");
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    let before = names(&directory);
    let process = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // Not every root may: then the limit stays what the switch has made it, none at all.
    let _ = prlimit(Some(process), Resource::Core, Rlimit { current: None, maximum: None });
    kill_process(process, Signal::ABORT).unwrap();
    wait_for("end of labswd", 5 * SECOND, || (!switch.is_running()).then_some(()));
    assert_eq!(names(&directory), before);
    drop(front);
}
