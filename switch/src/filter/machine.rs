//! The classic BPF machine: two registers and 16 words of memory, all 0 at the start.

use super::MEMORY_WORDS;
use super::decode::{Alu, Op, Size, Test};
use super::frame::{Behind, View};

/// Runs a checked program; see [`super::Filter::run`].
pub(super) fn run<B: Behind>(ops: &[Op], frame: &View<'_, '_, B>) -> u32 {
    // 0 where a load or a division fails.
    steps(ops, frame).unwrap_or(0)
}

fn steps<B: Behind>(ops: &[Op], frame: &View<'_, '_, B>) -> Option<u32> {
    let (mut a, mut x) = (0u32, 0u32);
    let mut memory = [0u32; MEMORY_WORDS];
    let mut at = 0;
    loop {
        // The program ends with a return and all jumps end inside it.
        let op = *ops.get(at)?;
        at += 1;
        match op {
            Op::Return(k) => return Some(k),
            Op::ReturnA => return Some(a),
            Op::Load(size, offset) => a = load(frame, size, offset)?,
            Op::LoadIndexed(size, offset) => a = load(frame, size, x.checked_add(offset)?)?,
            Op::LoadHeaderLength(offset) => x = 4 * (load(frame, Size::Byte, offset)? & 0x0f),
            Op::SetA(k) => a = k,
            Op::SetX(k) => x = k,
            Op::LengthA => a = frame.wire_bytes(),
            Op::LengthX => x = frame.wire_bytes(),
            Op::RecallA(word) => a = *memory.get(usize::from(word))?,
            Op::RecallX(word) => x = *memory.get(usize::from(word))?,
            Op::StoreA(word) => *memory.get_mut(usize::from(word))? = a,
            Op::StoreX(word) => *memory.get_mut(usize::from(word))? = x,
            Op::Compute(alu, k) => a = compute(alu, a, k)?,
            Op::ComputeX(alu) => a = compute(alu, a, x)?,
            Op::Negate => a = a.wrapping_neg(),
            Op::Jump(skip) => at += usize::from(skip),
            Op::Branch(test, holds, fails, k) => at += usize::from(if compare(test, a, k) { holds } else { fails }),
            Op::BranchX(test, holds, fails) => at += usize::from(if compare(test, a, x) { holds } else { fails }),
            Op::CopyToX => x = a,
            Op::CopyToA => a = x,
        }
    }
}

fn load<B: Behind>(frame: &View<'_, '_, B>, size: Size, offset: u32) -> Option<u32> {
    Some(match size {
        Size::Word => u32::from_be_bytes(frame.read(offset)?),
        Size::Half => u16::from_be_bytes(frame.read(offset)?).into(),
        Size::Byte => u8::from_be_bytes(frame.read(offset)?).into(),
    })
}

/// A shift by 32 bits or more leaves nothing, as in libpcap.
fn compute(alu: Alu, a: u32, by: u32) -> Option<u32> {
    Some(match alu {
        Alu::Add => a.wrapping_add(by),
        Alu::Sub => a.wrapping_sub(by),
        Alu::Mul => a.wrapping_mul(by),
        Alu::Div => a.checked_div(by)?,
        Alu::Mod => a.checked_rem(by)?,
        Alu::Or => a | by,
        Alu::And => a & by,
        Alu::Xor => a ^ by,
        Alu::ShiftLeft => a.checked_shl(by).unwrap_or(0),
        Alu::ShiftRight => a.checked_shr(by).unwrap_or(0),
    })
}

fn compare(test: Test, a: u32, with: u32) -> bool {
    match test {
        Test::Equal => a == with,
        Test::Greater => a > with,
        Test::GreaterOrEqual => a >= with,
        Test::AnyBit => a & with != 0,
    }
}
