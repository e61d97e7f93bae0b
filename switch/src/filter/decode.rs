//! Programs checked and decoded: each instruction becomes one [`Op`] of eight bytes that cannot fail but at run time.

use super::{FilterError, Insn, MAX_INSNS, MEMORY_WORDS};

/// An instruction. `A` is the accumulator, `X` the index register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Ends the run with a constant.
    Return(u32),
    /// Ends the run with `A`.
    ReturnA,
    /// `A` = the bytes at an offset, in network order.
    Load(Size, u32),
    /// `A` = the bytes at `X` + an offset, in network order.
    LoadIndexed(Size, u32),
    /// `X` = 4 × the low half of the byte at an offset: the length of an IPv4 header.
    LoadHeaderLength(u32),
    SetA(u32),
    SetX(u32),
    /// `A` = the length of the frame.
    LengthA,
    /// `X` = the length of the frame.
    LengthX,
    /// `A` = a word of memory.
    RecallA(u8),
    /// `X` = a word of memory.
    RecallX(u8),
    /// A word of memory = `A`.
    StoreA(u8),
    /// A word of memory = `X`.
    StoreX(u8),
    /// `A` = `A` with a constant.
    Compute(Alu, u32),
    /// `A` = `A` with `X`.
    ComputeX(Alu),
    Negate,
    /// Skips this many instructions.
    Jump(u16),
    /// Compares `A` with a constant, and skips the first number of instructions if that is true, the second one if not.
    Branch(Test, u8, u8, u32),
    /// Compares `A` with `X`, and skips the first number of instructions if that is true, the second one if not.
    BranchX(Test, u8, u8),
    /// `X` = `A`.
    CopyToX,
    /// `A` = `X`.
    CopyToA,
}

const _: () = assert!(size_of::<Op>() == 8);

/// How much is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Word,
    Half,
    Byte,
}

/// An arithmetic operation. A constant divisor is not 0 and a constant shift is less than 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// A comparison, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    /// Some bit is set in both.
    AnyBit,
}

/// Checks and decodes a program.
pub(super) fn program(insns: &[Insn]) -> Result<Box<[Op]>, FilterError> {
    if insns.len() > MAX_INSNS {
        return Err(FilterError::TooLong(insns.len()));
    }
    let ops = insns.iter().enumerate().map(|(at, insn)| decode(at, insn, insns.len()));
    let ops: Box<[Op]> = ops.collect::<Result<_, _>>()?;
    match ops.last() {
        Some(Op::Return(_) | Op::ReturnA) => Ok(ops),
        Some(_) => Err(FilterError::NoReturn),
        None => Err(FilterError::Empty),
    }
}

/// Decodes the instruction at `at` of `count`.
fn decode(at: usize, insn: &Insn, count: usize) -> Result<Op, FilterError> {
    let Insn { code, jt, jf, k } = *insn;
    let word = || {
        let word = u8::try_from(k).ok().filter(|word| usize::from(*word) < MEMORY_WORDS);
        word.ok_or(FilterError::NoSuchWord { at, word: k })
    };
    let offset = || if k >> 31 == 0 { Ok(k) } else { Err(FilterError::Extension(at)) };
    let jump = |skip: u32| {
        let to = usize::try_from(skip).ok().and_then(|skip| skip.checked_add(at + 1));
        // A program is shorter than 65536 instructions.
        let skip = u16::try_from(skip).ok().filter(|_| to.is_some_and(|to| to < count));
        skip.ok_or(FilterError::JumpOutside(at))
    };
    // Class, then size and mode (loads), operation and operand (arithmetic, jumps): net/bpf.h.
    Ok(match code {
        0x20 => Op::Load(Size::Word, offset()?),
        0x28 => Op::Load(Size::Half, offset()?),
        0x30 => Op::Load(Size::Byte, offset()?),
        0x40 => Op::LoadIndexed(Size::Word, k),
        0x48 => Op::LoadIndexed(Size::Half, k),
        0x50 => Op::LoadIndexed(Size::Byte, k),
        0x00 => Op::SetA(k),
        0x60 => Op::RecallA(word()?),
        0x80 => Op::LengthA,
        0x01 => Op::SetX(k),
        0x61 => Op::RecallX(word()?),
        0x81 => Op::LengthX,
        0xb1 => Op::LoadHeaderLength(offset()?),
        0x02 => Op::StoreA(word()?),
        0x03 => Op::StoreX(word()?),
        0x84 => Op::Negate,
        0x05 => Op::Jump(jump(k)?),
        0x06 => Op::Return(k),
        0x16 => Op::ReturnA,
        0x07 => Op::CopyToX,
        0x87 => Op::CopyToA,
        _ => {
            let unknown = FilterError::UnknownCode { at, code };
            match (code & 0x07, code & 0x08 != 0) {
                (0x04, by_x) => {
                    let alu = alu(code & !0x0f).ok_or(unknown)?;
                    match alu {
                        _ if by_x => Op::ComputeX(alu),
                        Alu::Div | Alu::Mod if k == 0 => return Err(FilterError::DivisionByZero(at)),
                        Alu::ShiftLeft | Alu::ShiftRight if k > 31 => return Err(FilterError::ShiftTooFar(at)),
                        _ => Op::Compute(alu, k),
                    }
                }
                (0x05, by_x) => {
                    let test = test(code & !0x0f).ok_or(unknown)?;
                    jump(jt.into())?;
                    jump(jf.into())?;
                    if by_x { Op::BranchX(test, jt, jf) } else { Op::Branch(test, jt, jf, k) }
                }
                _ => return Err(unknown),
            }
        }
    })
}

fn alu(operation: u16) -> Option<Alu> {
    Some(match operation {
        0x00 => Alu::Add,
        0x10 => Alu::Sub,
        0x20 => Alu::Mul,
        0x30 => Alu::Div,
        0x40 => Alu::Or,
        0x50 => Alu::And,
        0x60 => Alu::ShiftLeft,
        0x70 => Alu::ShiftRight,
        0x90 => Alu::Mod,
        0xa0 => Alu::Xor,
        _ => return None,
    })
}

fn test(operation: u16) -> Option<Test> {
    Some(match operation {
        0x10 => Test::Equal,
        0x20 => Test::Greater,
        0x30 => Test::GreaterOrEqual,
        0x40 => Test::AnyBit,
        _ => return None,
    })
}
