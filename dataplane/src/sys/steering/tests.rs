//! The program of the fast path, run by an interpreter of its instructions: no kernel and no right is needed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};

use labsw_switch::fdb::{Bucket, Fdb, Learned, places};
use labsw_switch::{Mac, PortId, Vid};

use super::*;

/// Ports of the test, and the number that stands for `around`.
const PORTS: u16 = 5;
const AROUND: u32 = 99;
const START: u64 = 5_000_000_000;
const CAPACITY: usize = 24;

/// The context of a program: a frame, and its tag beside it.
struct Skb<'a> {
    frame: &'a [u8],
    vlan_present: u64,
    now_ns: u64,
    /// The longest frame that either interface takes.
    most: usize,
}

impl Skb<'_> {
    /// A field of the context.
    fn field(&self, offset: i16) -> u64 {
        match offset {
            SKB_LEN => self.frame.len() as u64,
            SKB_VLAN_PRESENT => self.vlan_present,
            SKB_DATA => self.frame.as_ptr().addr() as u64,
            SKB_DATA_END => self.frame.as_ptr_range().end.addr() as u64,
            other => panic!("read of {other}"),
        }
    }
}

/// Stands for the address of the context.
const CONTEXT: u64 = 8;

/// Runs a program; the interface by which the frame leaves.
fn run(text: &[Instruction], map: *const Bucket, skb: &Skb<'_>) -> u32 {
    let mut stack = [0u64; 64];
    let mut r = [0u64; 11];
    (r[1], r[10]) = (CONTEXT, stack.as_mut_ptr_range().end.addr() as u64);
    let mut at = 0;
    loop {
        // SAFETY: an instruction is eight bytes (`struct bpf_insn`).
        let [code, registers, low, high, immediate @ ..]: [u8; 8] = unsafe { std::mem::transmute(text[at]) };
        let (dst, src) = (usize::from(registers & 15), usize::from(registers >> 4));
        let (offset, immediate) = (i16::from_le_bytes([low, high]), i32::from_le_bytes(immediate));
        at += 1;
        let operand = if code & 8 == 0 { i64::from(immediate).cast_unsigned() } else { r[src] };
        let address = |base: u64| base.wrapping_add_signed(offset.into());
        match code {
            0x18 => {
                // SAFETY: as above.
                let [_, _, _, _, high @ ..]: [u8; 8] = unsafe { std::mem::transmute(text[at]) };
                let high = u64::from(u32::from_le_bytes(high));
                let whole = high << 32 | u64::from(immediate.cast_unsigned());
                r[dst] = if src == 0 { whole } else { map.addr() as u64 + high };
                at += 1;
            }
            0x61 if r[src] == CONTEXT => r[dst] = skb.field(offset),
            0x63 if r[dst] == CONTEXT => assert_eq!((offset, r[src]), (SKB_MARK, low_u64(MARK))),
            0x61 => r[dst] = read::<u32>(address(r[src])).into(),
            0x69 => r[dst] = read::<u16>(address(r[src])).into(),
            0x79 => r[dst] = read::<u64>(address(r[src])),
            0x7b => write(address(r[dst]), r[src]),
            0x62 => write(address(r[dst]), immediate),
            0xdb => {
                let word = atomic(address(r[dst]));
                match immediate {
                    0 => drop(word.fetch_add(r[src], Ordering::Relaxed)),
                    CMPXCHG => {
                        let swapped = word.compare_exchange(r[0], r[src], Ordering::Relaxed, Ordering::Relaxed);
                        r[0] = swapped.unwrap_or_else(|found| found);
                    }
                    other => panic!("atomic {other}"),
                }
            }
            0xdc => r[dst] = r[dst].swap_bytes(),
            0x85 if immediate == REDIRECT => return u32::try_from(r[1]).unwrap(),
            0x85 if immediate == KTIME_GET_COARSE_NS => r[0] = skb.now_ns,
            0x85 if immediate == CHECK_MTU => r[0] = u64::from(skb.frame.len() > skb.most),
            0x05 | 0x15 | 0x1d | 0x25 | 0x2d | 0x3d | 0x55 | 0x5d | 0xb5 => {
                if jumps(code, r[dst], operand) {
                    at = at.checked_add_signed(offset.into()).unwrap();
                }
            }
            _ => r[dst] = arithmetic(code, r[dst], operand),
        }
    }
}

fn jumps(code: u8, a: u64, b: u64) -> bool {
    match code & 0xf0 {
        0x00 => true,
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x50 => a != b,
        _ => a <= b,
    }
}

fn arithmetic(code: u8, a: u64, b: u64) -> u64 {
    let result = match code & 0xf0 {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a / b,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a << b,
        0x70 => a >> b,
        0xa0 => a ^ b,
        0xb0 => b,
        _ => panic!("instruction {code:#x}"),
    };
    // The class of 32-bit arithmetic; the others are of 64 bits.
    if code & 7 == 4 { result & u64::from(u32::MAX) } else { result }
}

fn low_u64(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the programs read what the test gave them: map, frame, stack.
    unsafe { std::ptr::with_exposed_provenance::<T>(usize::try_from(address).unwrap()).read_unaligned() }
}

fn write<T>(address: u64, value: T) {
    // SAFETY: the programs write plainly to the stack only.
    unsafe { std::ptr::with_exposed_provenance_mut::<T>(usize::try_from(address).unwrap()).write_unaligned(value) }
}

fn atomic<'a>(address: u64) -> &'a AtomicU64 {
    // SAFETY: the programs use atomics on words of the map, which consists of them, and stays.
    unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(usize::try_from(address).unwrap()) }
}

/// A map with a forwarding database in it, and the ports' gates in front of it.
struct Bed {
    map: &'static [Bucket],
    fdb: Fdb,
    texts: Vec<Vec<Instruction>>,
    gates: [Option<u16>; PORTS as usize],
}

impl Bed {
    fn new(seed: u64, ageing: u32) -> Bed {
        let front = BUCKETS_AT / size_of::<Bucket>();
        let map: Vec<Bucket> = (0..front + places(CAPACITY)).map(|_| Bucket::default()).collect();
        let map: &'static [Bucket] = map.leak();
        map.as_ptr().expose_provenance();
        let fdb = Fdb::in_memory(&map[front..], CAPACITY, ageing, seed).unwrap();
        let layout = fdb.layout();
        let buckets = u32::try_from(layout.buckets).unwrap();
        let place = Place { seed: layout.seed, multiplier: layout.multiplier, buckets };
        let texts = (0..PORTS).map(|port| from_station(3, place, port, AROUND)).collect();
        let bed = Bed { map, fdb, texts, gates: [None; PORTS as usize] };
        bed.word(0).store(ageing.into(), Ordering::Relaxed);
        bed.word(8).store(START, Ordering::Relaxed);
        bed
    }

    /// A word of the map.
    fn word(&self, at: usize) -> &AtomicU64 {
        atomic((self.map.as_ptr().addr() + at) as u64)
    }

    fn set_gate(&mut self, port: u16, vid: Option<u16>) {
        self.gates[usize::from(port)] = vid;
        let word = vid.map_or(0, |vid| u64::from(vid) << 32 | u64::from(port + 1));
        self.word(HEAD_BYTES + PORT_BYTES * usize::from(port)).store(word, Ordering::Relaxed);
    }

    /// By the rules of the switch: the port that the frame goes to in the kernel.
    fn passes_to(&self, from: u16, frame: &[u8], now: u32) -> Option<PortId> {
        let vid = self.gates[usize::from(from)]?;
        let in_vlan = Vid::try_from(vid).unwrap();
        let [dst, src] = [0, 6].map(|at| Mac::new(frame[at..at + 6].try_into().unwrap()));
        let tagged = [[0x81, 0], [0x88, 0xa8], [0x88, 0x08]].contains(&[frame[12], frame[13]]);
        let source = self.fdb.would_learn(in_vlan, src, PortId(from), now);
        let to = self.fdb.lookup(in_vlan, dst, now).filter(|to| to.0 != from)?;
        let known = matches!(source, Learned::Known | Learned::Refreshed);
        (known && !tagged && self.gates[to.index()] == Some(vid)).then_some(to)
    }
}

#[test]
fn the_programs_look_up_as_the_forwarding_database_does() {
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut pick = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut passed = 0;
    for round in 0..60 {
        let ageing = [0, 3, 20][usize::try_from(pick(3)).unwrap()];
        let mut bed = Bed::new(pick(u64::MAX), ageing);
        // Some begin shortly before the clock's seconds wrap.
        let mut now = if round % 4 == 0 { u32::MAX - 20 } else { 100 };
        (0..PORTS).for_each(|port| bed.set_gate(port, Some(1)));
        for _ in 0..400 {
            let mac = |n: u64| Mac::from_u64(0x0200_0000_0000 + n * 0x0001_0003);
            let vid = 1 + u16::from(pick(6) == 0);
            let port = PortId(u16::try_from(pick(PORTS.into())).unwrap());
            let in_vlan = Vid::try_from(vid).unwrap();
            match pick(16) {
                0 => now = now.wrapping_add(u32::try_from(pick(3)).unwrap()),
                1 => bed.set_gate(port.0, (pick(8) > 0).then_some(vid)),
                2 => drop(bed.fdb.add_static(in_vlan, mac(pick(8)), port)),
                3 => drop(bed.fdb.remove(in_vlan, mac(pick(8)))),
                4..=9 => drop(bed.fdb.learn(in_vlan, mac(pick(8)), port, now)),
                _ => {
                    let [dst, src] = [mac(pick(8)), mac(pick(8))];
                    let types = [[8, 0], [8, 0], [8, 0], [0x81, 0], [0x88, 0xa8], [0x88, 0x08]];
                    let ethertype = types[usize::try_from(pick(6)).unwrap()];
                    let frame = [&dst.octets()[..], &src.octets(), &ethertype, &[0; 46]].concat();
                    let (vlan_present, most) = (u64::from(pick(10) == 0), if pick(10) == 0 { 59 } else { 60 });
                    let expected = bed.passes_to(port.0, &frame, now).filter(|_| vlan_present == 0 && most == 60);
                    let now_ns = START + u64::from(now) * 1_000_000_000 + pick(1_000_000_000);
                    let skb = Skb { frame: &frame, vlan_present, now_ns, most };
                    let record = |port: u16, at| bed.word(HEAD_BYTES + PORT_BYTES * usize::from(port) + at);
                    let counts = |port| [8, 16, 24, 32].map(|at| record(port, at).load(Ordering::Relaxed));
                    let before = counts(port.0);
                    let to = run(&bed.texts[usize::from(port.0)], bed.map.as_ptr(), &skb);
                    assert_eq!(to, expected.map_or(AROUND, |to| u32::from(to.0) + 1), "round {round}");
                    let more = if expected.is_some() { [1, 60, 0, 0] } else { [0; 4] };
                    assert_eq!(std::array::from_fn(|at| counts(port.0)[at] - before[at]), more);
                    if expected.is_some() {
                        passed += 1;
                        let source = bed.fdb.entry(in_vlan_of(&bed, port), src, now).unwrap();
                        assert_eq!(source.age_seconds, 0, "the source is fresh");
                    }
                }
            }
        }
    }
    assert!(passed > 150, "{passed} frames passed");
}

fn in_vlan_of(bed: &Bed, port: PortId) -> Vid {
    Vid::try_from(bed.gates[port.index()].unwrap()).unwrap()
}
