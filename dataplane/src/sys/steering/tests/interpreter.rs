//! An interpreter of the instructions that the programs are made of, and of the helpers that they call.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::*;

/// The context of a program: a frame, and its outer tag beside it.
pub(super) struct Skb<'a> {
    pub(super) frame: &'a [u8],
    /// TPID and TCI.
    pub(super) tag: Option<(u16, u16)>,
    pub(super) now_ns: u64,
    /// The longest frame that each interface takes, by index; first that of the interface it came from.
    pub(super) most: &'a [usize],
    /// What the program wrote.
    pub(super) mark: u64,
    pub(super) kind: Option<u64>,
}

impl Skb<'_> {
    /// A field of the context.
    fn field(&self, offset: i16) -> u64 {
        match offset {
            SKB_LEN => self.frame.len() as u64,
            SKB_VLAN_PRESENT => self.tag.is_some().into(),
            SKB_VLAN_PROTO => self.tag.map_or(0, |(tpid, _)| tpid.to_be()).into(),
            SKB_VLAN_TCI => self.tag.map_or(0, |(_, tci)| tci).into(),
            SKB_DATA => self.frame.as_ptr().addr() as u64,
            SKB_DATA_END => self.frame.as_ptr_range().end.addr() as u64,
            other => panic!("read of {other}"),
        }
    }
}

impl Skb<'_> {
    /// What a helper answers.
    fn help(&mut self, helper: i32, r: [u64; 11]) -> u64 {
        match helper {
            KTIME_GET_COARSE_NS => return self.now_ns,
            CHECK_MTU => return u64::from(self.frame.len() > self.most[usize::try_from(r[2]).unwrap()]),
            _ => assert_eq!(r[1], CONTEXT),
        }
        match helper {
            VLAN_POP => assert!(self.tag.take().is_some()),
            VLAN_PUSH => {
                let [tpid, tci] = [r[2], r[3]].map(|value| u16::try_from(value).unwrap());
                assert_eq!(self.tag.replace((u16::from_be(tpid), tci)), None);
            }
            CHANGE_TYPE => self.kind = Some(r[2]),
            other => panic!("helper {other}"),
        }
        0
    }
}

/// Stands for the address of the context.
const CONTEXT: u64 = 8;

/// The end of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The frame leaves by this interface.
    Redirect(u32),
    /// It is received at the other end of this one's pair.
    RedirectPeer(u32),
}

/// An instruction in its parts.
#[derive(Clone, Copy)]
pub(super) struct Decoded {
    code: u8,
    dst: usize,
    src: usize,
    offset: i16,
    immediate: i32,
}

impl Decoded {
    pub(super) fn of(instruction: &Instruction) -> Decoded {
        // SAFETY: an instruction is eight bytes (`struct bpf_insn`).
        let [code, registers, low, high, immediate @ ..]: [u8; 8] = unsafe { std::mem::transmute(*instruction) };
        let (dst, src) = (usize::from(registers & 15), usize::from(registers >> 4));
        let (offset, immediate) = (i16::from_le_bytes([low, high]), i32::from_le_bytes(immediate));
        Decoded { code, dst, src, offset, immediate }
    }
}

/// Runs a program.
pub(super) fn run(text: &[Decoded], map: u64, skb: &mut Skb<'_>) -> End {
    let mut stack = [0u64; 64];
    let mut r = [0u64; 11];
    (r[1], r[10]) = (CONTEXT, stack.as_mut_ptr_range().end.addr() as u64);
    let mut at = 0;
    loop {
        let Decoded { code, dst, src, offset, immediate } = text[at];
        at += 1;
        let operand = if code & 8 == 0 { i64::from(immediate).cast_unsigned() } else { r[src] };
        let address = |base: u64| base.wrapping_add_signed(offset.into());
        match code {
            0x18 => {
                let high = u64::from(text[at].immediate.cast_unsigned());
                let whole = high << 32 | u64::from(immediate.cast_unsigned());
                r[dst] = if src == 0 { whole } else { map + high };
                at += 1;
            }
            0x61 if r[src] == CONTEXT => r[dst] = skb.field(offset),
            0x63 if r[dst] == CONTEXT && offset == SKB_MARK => skb.mark = r[src],
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
            0x85 => match (immediate, u32::try_from(r[1])) {
                (REDIRECT, Ok(to)) => return End::Redirect(to),
                (REDIRECT_PEER, Ok(to)) => return End::RedirectPeer(to),
                _ => r[0] = skb.help(immediate, r),
            },
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

fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the programs read what the test gave them: map, frame, stack.
    unsafe { std::ptr::with_exposed_provenance::<T>(usize::try_from(address).unwrap()).read_unaligned() }
}

fn write<T>(address: u64, value: T) {
    // SAFETY: the programs write plainly to the stack only.
    unsafe { std::ptr::with_exposed_provenance_mut::<T>(usize::try_from(address).unwrap()).write_unaligned(value) }
}

pub(super) fn atomic<'a>(address: u64) -> &'a AtomicU64 {
    // SAFETY: the programs use atomics on words of the map, which consists of them, and stays.
    unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(usize::try_from(address).unwrap()) }
}
