//! The kernel fast path: frames between two containers that the switch knows pass in the kernel.
//!
//! **How it works.** The forwarding database lies in a map of the kernel that this process has mapped, together with a
//! record for each port. Programs at the ports' interfaces (`sys/steering.rs`) read the database as a worker
//! does. So there is nothing to keep in step: an address that moves, ages or is flushed is gone for the programs at the
//! same store as for the workers, and the time stamps that the programs renew are those that the sweep looks at. What
//! the switch says to the programs is a gate for each port: shut, or open with the port's interface and its VLANs
//! ([`Record::open`]).
//!
//! ```text
//! map: head (ageing) · a record for each port (gate, counters) · buckets of the database
//! ```
//!
//! **Invariants.** A gate is open only while nothing but the forwarding database decides about the port's frames (the
//! owner of the switch sees to that). A port whose wires are cut has its gate shut. Programs are attached by links that
//! nobody but this process holds, so they go with it, unless another process takes over.
//!
//! **Another process** takes the links over and nothing else: it has a map, a database and programs of its own, which
//! it puts in the places of the old ones ([`Wires::renew`]) when it serves the port. The old process has shut all gates
//! by then, so that frames wait in the TAP interface.
//!
//! **Limits.** Machines with x86-64 processors: loads of the programs are believed to happen in their order. Linux 6.6.
//!
//! References: `bpf(2)` `BPF_F_MMAPABLE`, membarrier(2).

#![allow(unsafe_code, reason = "the mapping of the map")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use labsw_switch::fdb::{Bucket, Layout, places};
use labsw_switch::tables::LoneVlans;
use labsw_switch::{MAX_PORTS, Mac, PortId, Vid};

use crate::handover::{Given, HandoverError, Slot, Taken};
use crate::stats::PortSnapshot;
use crate::sys::programs::{self, Call, Hook};
use crate::sys::steering::{BUCKETS_AT, HEAD_BYTES, PORT_BYTES, Place};

/// The head of the map.
#[derive(Debug)]
#[repr(C, align(64))]
struct Head {
    ageing_seconds: AtomicU32,
}

/// The programs' knowledge of a port, and their counts.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record {
    /// 0: shut; else the interface's index, from bit 32 on the VLAN of untagged frames (0: none), and
    /// [`LEAVES_TAGGED`].
    gate: AtomicU64,
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    /// 0, or the address to which frames go the short way: in bits 16 to 63, and bit 0 set.
    station: AtomicU64,
    _pad: [u64; 2],
    /// A bit for each VLAN of tagged frames.
    tagged: [AtomicU64; 64],
}

/// In a gate: frames of the VLAN of untagged frames leave tagged.
const LEAVES_TAGGED: u64 = 1 << 44;

/// The way of frames from and to a port whose gate is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Index of the switch's end of the pair.
    pub ifindex: u32,
    /// The address of the container's end, if it is in another network namespace and frames to it may be put into its
    /// receive path at once.
    pub station: Option<Mac>,
    /// The VLANs.
    pub vlans: LoneVlans,
}

const _: () = assert!(size_of::<Head>() == HEAD_BYTES && size_of::<Record>() == PORT_BYTES);
const _: () = assert!(BUCKETS_AT.is_multiple_of(align_of::<Bucket>()));

impl Record {
    /// Lets frames from and to the port pass in the kernel. For a gate that is shut, and has settled.
    pub fn open(&self, passage: &Passage) {
        for (word, bits) in self.tagged.iter().zip(passage.vlans.tagged.words()) {
            word.store(*bits, Ordering::Relaxed);
        }
        self.station.store(station_word(passage.station), Ordering::Relaxed);
        self.gate.store(gate_word(passage), Ordering::Release);
    }

    /// Has all frames of the port take the way through the switch. True if they did not. Those that a program decides
    /// about at this moment may still pass, until [`settle`].
    pub fn shut(&self) -> bool {
        self.gate.swap(0, Ordering::AcqRel) != 0
    }

    /// True if known unicast of a VLAN passes in the kernel, from and to the port.
    pub fn passes(&self, vid: Vid) -> bool {
        let gate = self.gate.load(Ordering::Relaxed);
        let is_tagged = || {
            let word = self.tagged.get(vid.index() / 64).map_or(0, |word| word.load(Ordering::Relaxed));
            word >> (vid.index() % 64) & 1 != 0
        };
        gate != 0 && (gate >> 32 & 0xfff == u64::from(vid.get()) || is_tagged())
    }

    /// True if the gate is open for this passage.
    pub fn is_open_for(&self, passage: &Passage) -> bool {
        let tagged = &mut self.tagged.iter().zip(passage.vlans.tagged.words());
        self.gate.load(Ordering::Relaxed) == gate_word(passage)
            && self.station.load(Ordering::Relaxed) == station_word(passage.station)
            && tagged.all(|(word, bits)| word.load(Ordering::Relaxed) == *bits)
    }

    /// The frames that passed since this was last asked.
    pub fn take(&self) -> PortSnapshot {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let mut taken = PortSnapshot::ZERO;
        (taken.rx_frames, taken.rx_bytes) = (take(&self.rx_frames), take(&self.rx_bytes));
        (taken.tx_frames, taken.tx_bytes) = (take(&self.tx_frames), take(&self.tx_bytes));
        taken
    }
}

fn gate_word(passage: &Passage) -> u64 {
    let native = passage.vlans.native.map_or(0, |vid| u64::from(vid.get()) << 32);
    let leaves = if passage.vlans.native_leaves_tagged { LEAVES_TAGGED } else { 0 };
    leaves | native | u64::from(passage.ifindex)
}

fn station_word(station: Option<Mac>) -> u64 {
    station.map_or(0, |mac| mac.to_u64() << 16 | 1)
}

/// The map, and its mapping. Made once: the mapping stays as long as the process.
#[derive(Debug)]
pub struct FastPath {
    map: OwnedFd,
    head: &'static Head,
    records: &'static [Record],
    buckets: &'static [Bucket],
}

impl FastPath {
    /// Memory for a forwarding database with room for `capacity` entries, and for the ports beside it.
    ///
    /// # Errors
    /// The kernel's, and [`io::ErrorKind::Unsupported`] on other processors.
    pub fn new(capacity: usize) -> io::Result<FastPath> {
        if !cfg!(target_arch = "x86_64") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let count = places(capacity);
        let bytes = BUCKETS_AT + count * size_of::<Bucket>();
        let map_bytes = u32::try_from(bytes).map_err(io::Error::other)?;
        let [map] = programs::ask(Call::MakeTable { bytes: map_bytes }, &[])?;
        let (protection, flags) =
            (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE, rustix::mm::MapFlags::SHARED);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, protection, flags, map.as_fd(), 0) }?;
        // SAFETY: the mapping is `bytes` long, aligned to a page, zero at first, and never unmapped. Head, records and
        // buckets lie in it one behind the other, aligned as asserted above, and consist of atomics, for which every
        // value is valid. Others (the programs) write to it as to atomics only.
        let (head, records, buckets) = unsafe {
            let start = start.cast::<u8>();
            let records = std::slice::from_raw_parts(start.add(HEAD_BYTES).cast::<Record>(), MAX_PORTS);
            let buckets = std::slice::from_raw_parts(start.add(BUCKETS_AT).cast::<Bucket>(), count);
            (&*start.cast::<Head>(), records, buckets)
        };
        Ok(FastPath { map, head, records, buckets })
    }

    /// The memory for the forwarding database.
    pub fn buckets(&self) -> &'static [Bucket] {
        self.buckets
    }

    /// Tells the programs after how many seconds an address counts as unknown (0: never).
    pub fn set_ageing(&self, seconds: u32) {
        self.head.ageing_seconds.store(seconds, Ordering::Relaxed);
    }

    fn record(&self, port: PortId) -> io::Result<&'static Record> {
        self.records.get(port.index()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// The programs between the switch's end of a container's pair and the TAP interface that the switch serves. They go
/// when this is dropped.
#[derive(Debug)]
pub struct Wires {
    links: [OwnedFd; 4],
    /// `None`: all frames take the way through the switch.
    record: Option<&'static Record>,
}

/// The links of wires, for the process that takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WiresHandover {
    links: [Slot; 4],
}

/// Two interfaces that are wired together, and the port whose they are.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// With this, frames of the port pass in the kernel once the port's gate is open.
    pub by: Option<(Arc<FastPath>, Layout)>,
    /// The port.
    pub port: PortId,
    /// The switch's end of the pair, by index.
    pub station: u32,
    /// The TAP interface, by index.
    pub tap: u32,
}

/// The programs of wires, loaded and not attached.
struct Programs {
    marked_only: OwnedFd,
    to_station: OwnedFd,
    from_station: OwnedFd,
    record: Option<&'static Record>,
}

impl Programs {
    fn load(wiring: &Wiring) -> io::Result<Programs> {
        let &Wiring { ref by, port, station, tap } = wiring;
        let [marked_only] = programs::ask(Call::LoadMarkedOnly, &[])?;
        let [to_station] = programs::ask(Call::LoadOnward { to: station }, &[])?;
        let ([from_station], record) = match by {
            None => (programs::ask(Call::LoadOnward { to: tap }, &[])?, None),
            Some((path, Layout { seed, multiplier, buckets })) => {
                let record = path.record(port)?;
                record.shut();
                record.take();
                let buckets = u32::try_from(*buckets).map_err(io::Error::other)?;
                let place = Place { seed: *seed, multiplier: *multiplier, buckets };
                let call = Call::LoadFromStation { place, port: port.0, around: tap };
                (programs::ask(call, &[path.map.as_fd()])?, Some(record))
            }
        };
        Ok(Programs { marked_only, to_station, from_station, record })
    }

    /// In the order of the links of [`Wires`].
    fn in_order(&self) -> [&OwnedFd; 4] {
        [&self.marked_only, &self.marked_only, &self.to_station, &self.from_station]
    }
}

impl Wires {
    /// Wires two interfaces together.
    ///
    /// # Errors
    /// The kernel's: one before Linux 6.6 has no such hooks.
    pub fn lay(wiring: &Wiring) -> io::Result<Wires> {
        let &Wiring { station, tap, .. } = wiring;
        let programs = Programs::load(wiring)?;
        let attach = |program: &OwnedFd, ifindex, hook| {
            let [link] = programs::ask(Call::Attach { ifindex, hook }, &[program.as_fd()])?;
            Ok::<_, io::Error>(link)
        };
        let links = [
            attach(&programs.marked_only, station, Hook::Egress)?,
            attach(&programs.marked_only, tap, Hook::Egress)?,
            attach(&programs.to_station, tap, Hook::Ingress)?,
            attach(&programs.from_station, station, Hook::Ingress)?,
        ];
        Ok(Wires { links, record: programs.record })
    }

    /// The state, with its descriptors in `given`. The programs of this process are in place until [`Wires::renew`].
    pub fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> WiresHandover {
        WiresHandover { links: self.links.each_ref().map(|link| given.put(link.as_fd())) }
    }

    /// Wires that another process has laid, and whose programs stay in place. All frames take the way through the
    /// switch, as the other process has seen to.
    ///
    /// # Errors
    /// A descriptor is missing.
    pub fn take_over(handover: &WiresHandover, taken: &mut Taken) -> Result<Wires, HandoverError> {
        let [a, b, c, d] = handover.links;
        Ok(Wires { links: [taken.take(a)?, taken.take(b)?, taken.take(c)?, taken.take(d)?], record: None })
    }

    /// Puts this process's programs in the places of those that another process has attached, each at once for the next
    /// frame. The ways of frames are the same before, in between, and afterwards.
    ///
    /// # Errors
    /// The kernel's. Frames go on to take the way through the switch.
    pub fn renew(&mut self, wiring: &Wiring) -> io::Result<()> {
        let programs = Programs::load(wiring)?;
        for (link, program) in self.links.iter().zip(programs.in_order()) {
            let [] = programs::ask(Call::Replace, &[link.as_fd(), program.as_fd()])?;
        }
        self.record = programs.record;
        Ok(())
    }

    /// The port's record, if its frames may pass in the kernel.
    pub fn record(&self) -> Option<&'static Record> {
        self.record
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        if let Some(record) = self.record {
            record.shut();
        }
    }
}

/// Waits until no program is deciding any more on gates as they were before.
pub fn settle() {
    /// `MEMBARRIER_CMD_GLOBAL`: waits for every reader of the kernel's (`synchronize_rcu`), as programs are.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three numbers and no memory.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done < 0 {
        // The kernel refuses the call with `nohz_full`. No program takes this long.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
