//! Programs against an interpreter that is written another way: over the frame in one piece, instruction by instruction
//! as the manual has it. (libpcap's own interpreter is asked in the crate that links it.)
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::tag_edit::TagEdit;

/// `tcp port 445` as libpcap 1.10 compiles it.
const TCP_PORT_445: &str = "28 0 0 12; 15 0 6 34525; 30 0 0 20; 15 0 15 6; 28 0 0 54; 15 12 0 445; 28 0 0 56; 15 10 11 445; \
    15 0 10 2048; 30 0 0 23; 15 0 8 6; 28 0 0 20; 45 6 0 8191; b1 0 0 14; 48 0 0 14; 15 2 0 445; 48 0 0 16; 15 0 1 445; \
    6 0 0 262144; 6 0 0 0";

/// Reads `code jt jf k; …`, the code in hexadecimal digits.
fn parse(text: &str) -> Vec<Insn> {
    let insn = |text: &str| {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let number = |at: usize| fields[at].parse::<u32>().unwrap();
        let code = u16::from_str_radix(fields[0], 16).unwrap();
        Insn { code, jt: number(1) as u8, jf: number(2) as u8, k: number(3) }
    };
    text.split(';').map(insn).collect()
}

/// A frame with these types at offset 12 on, then an IPv4 header with this protocol and UDP or TCP ports.
fn ipv4(tags: &[[u8; 4]], protocol: u8, ports: [u16; 2]) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    tags.iter().for_each(|tag| bytes.extend_from_slice(tag));
    bytes.extend_from_slice(&[0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    ports.iter().for_each(|port| bytes.extend_from_slice(&port.to_be_bytes()));
    bytes.resize(60 + 4 * tags.len(), 0);
    bytes
}

#[test]
fn tcp_port_445_finds_tagged_and_untagged_frames() {
    let untagged = Filter::new(&parse(TCP_PORT_445), Form::Untagged).unwrap();
    let tagged = Filter::new(&parse(TCP_PORT_445), Form::Tagged).unwrap();
    for (tags, as_on_wire) in [(&[][..], true), (&[[0x81, 0, 0xe0, 10]], false), (&[[0x88, 0xa8, 0, 10]], false)] {
        let verdicts = |protocol, ports| {
            let bytes = ipv4(tags, protocol, ports);
            [&untagged, &tagged].map(|filter| filter.selects(&Frame::whole(&bytes)))
        };
        assert_eq!(verdicts(6, [1000, 445]), [true, as_on_wire]);
        assert_eq!(verdicts(6, [445, 1000]), [true, as_on_wire]);
        assert_eq!(verdicts(6, [446, 1000]), [false, false]);
        assert_eq!(verdicts(17, [445, 445]), [false, false]);
    }
    let twice = ipv4(&[[0x88, 0xa8, 0, 10], [0x81, 0, 0, 20]], 6, [1, 445]);
    assert!(!untagged.selects(&Frame::whole(&twice)), "one tag is taken off, the outer one");
    let frame = Frame { edit: TagEdit { strip_bytes: 4, insert: None }, ..Frame::whole(&twice) };
    assert!(untagged.selects(&frame), "a frame is judged as it is sent");
    assert!(!tagged.selects(&frame));
}

#[test]
fn what_cannot_run_is_refused() {
    let refused = |text: &str| Filter::new(&parse(text), Form::Tagged).unwrap_err();
    assert_eq!(Filter::new(&[], Form::Tagged), Err(FilterError::Empty));
    assert_eq!(refused("0 0 0 1"), FilterError::NoReturn);
    assert_eq!(refused("6 0 0 0; 5 0 0 0"), FilterError::JumpOutside(1));
    assert_eq!(refused("5 0 0 1; 6 0 0 0"), FilterError::JumpOutside(0));
    assert_eq!(refused("5 0 0 4294967295; 6 0 0 0"), FilterError::JumpOutside(0));
    assert_eq!(refused("15 1 0 0; 6 0 0 0"), FilterError::JumpOutside(0));
    assert_eq!(refused("1d 0 1 0; 6 0 0 0"), FilterError::JumpOutside(0));
    assert_eq!(refused("34 0 0 0; 6 0 0 0"), FilterError::DivisionByZero(0));
    assert_eq!(refused("94 0 0 0; 6 0 0 0"), FilterError::DivisionByZero(0));
    assert_eq!(refused("64 0 0 32; 6 0 0 0"), FilterError::ShiftTooFar(0));
    assert_eq!(refused("6 0 0 0; 74 0 0 99; 6 0 0 0"), FilterError::ShiftTooFar(1));
    for store in ["2", "3", "60", "61"] {
        assert_eq!(refused(&format!("{store} 0 0 16; 6 0 0 0")), FilterError::NoSuchWord { at: 0, word: 16 });
    }
    for code in [0x0e, 0x10, 0xb0, 0x21, 0xb4, 0x55, 0x17, 0x115, 0x1015, 0xffff] {
        let program = [Insn { code, jt: 0, jf: 0, k: 1 }, Insn { code: 6, jt: 0, jf: 0, k: 0 }];
        assert_eq!(Filter::new(&program, Form::Tagged), Err(FilterError::UnknownCode { at: 0, code }));
    }
    for load in ["20", "28", "30", "b1"] {
        assert_eq!(refused(&format!("{load} 0 0 4294963200; 6 0 0 0")), FilterError::Extension(0));
    }
    let long = vec![Insn { code: 6, jt: 0, jf: 0, k: 0 }; MAX_INSNS + 1];
    assert_eq!(Filter::new(&long, Form::Tagged), Err(FilterError::TooLong(MAX_INSNS + 1)));
    assert!(Filter::new(&long[1..], Form::Tagged).is_ok());
}

#[test]
fn a_load_beyond_the_end_and_a_division_by_zero_reject() {
    let run = |text: &str, bytes: &[u8]| Filter::new(&parse(text), Form::Tagged).unwrap().run(&Frame::whole(bytes));
    let bytes = [7u8; 14];
    assert_eq!(run("30 0 0 13; 6 0 0 9", &bytes), 9);
    for text in ["30 0 0 14", "28 0 0 13", "20 0 0 11", "20 0 0 2147483647", "b1 0 0 14"] {
        assert_eq!(run(&format!("{text}; 6 0 0 9"), &bytes), 0, "{text}");
    }
    assert_eq!(run("1 0 0 4294967295; 50 0 0 1; 6 0 0 9", &bytes), 0, "the sum of index and offset does not wrap");
    assert_eq!(run("3c 0 0 0; 6 0 0 9", &bytes), 0);
    assert_eq!(run("9c 0 0 0; 6 0 0 9", &bytes), 0);
    assert_eq!(run("80 0 0 0; 16 0 0 0", &bytes), 14);
    assert_eq!(run("b1 0 0 3; 87 0 0 0; 16 0 0 0", &bytes), 28);
}

/// The frame that a filter sees, in one piece.
fn seen(received: &[u8], edit: TagEdit, form: Form) -> Vec<u8> {
    let mut bytes = received.to_vec();
    bytes.drain(12..12 + usize::from(edit.strip_bytes));
    bytes.splice(12..12, edit.insert.iter().flatten().copied());
    let tagged = bytes.get(12..14).is_some_and(|tpid| [[0x81, 0x00], [0x88, 0xa8]].iter().any(|tag| tag == tpid));
    if form == Form::Untagged && tagged {
        bytes.drain(12..bytes.len().min(16));
    }
    bytes
}

/// The reference: what the manual says, over a frame in one piece.
fn reference(program: &[Insn], bytes: &[u8], wire_bytes: u32) -> u32 {
    let (mut a, mut x, mut mem, mut pc) = (0u64, 0u64, [0u64; 16], 0usize);
    loop {
        let Insn { code, jt, jf, k } = program[pc];
        let k64 = u64::from(k);
        pc += 1;
        let operand = if code & 0x08 == 0 { k64 } else { x };
        match code & 0x07 {
            0 | 1 => {
                let value = match code & 0xe0 {
                    0x00 => Some(k64),
                    0x20 => fetch(bytes, k64, code),
                    0x40 => fetch(bytes, x + k64, code),
                    0x60 => Some(mem[k as usize]),
                    0x80 => Some(wire_bytes.into()),
                    _ => fetch(bytes, k64, 0x10).map(|byte| (byte & 15) << 2),
                };
                let Some(value) = value else { return 0 };
                if code & 1 == 0 { a = value } else { x = value }
            }
            2 => mem[k as usize] = a,
            3 => mem[k as usize] = x,
            4 => {
                let Some(value) = arithmetic(code, a, operand) else { return 0 };
                a = value;
            }
            5 if code & 0xf0 == 0 => pc += k as usize,
            5 => pc += usize::from(if holds(code, a, operand) { jt } else { jf }),
            6 => return if code & 0x18 == 0 { k } else { a as u32 },
            _ => {
                if code & 0x80 == 0 {
                    x = a
                } else {
                    a = x
                }
            }
        }
    }
}

/// A word, half a word or a byte of the frame, by the size in `code`; `None` behind its end.
fn fetch(bytes: &[u8], at: u64, code: u16) -> Option<u64> {
    let count = match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        _ => 1,
    };
    let mut value = 0;
    for at in at..at + count {
        value = value << 8 | u64::from(*bytes.get(usize::try_from(at).ok()?)?);
    }
    Some(value)
}

/// The accumulator after an instruction of the class ALU; `None` for a division by zero.
fn arithmetic(code: u16, a: u64, operand: u64) -> Option<u64> {
    let value = match code & 0xf0 {
        0x00 => a + operand,
        0x10 => a + (1 << 32) - operand,
        0x20 => a * operand,
        0x30 | 0x90 if operand == 0 => return None,
        0x30 => a / operand,
        0x90 => a % operand,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 | 0x70 if operand > 31 => 0,
        0x60 => a << operand,
        0x70 => a >> operand,
        0xa0 => a ^ operand,
        _ => (1 << 32) - a,
    };
    Some(value & 0xffff_ffff)
}

/// The condition of a jump.
fn holds(code: u16, a: u64, operand: u64) -> bool {
    match code & 0xf0 {
        0x10 => a == operand,
        0x20 => a > operand,
        0x30 => a >= operand,
        _ => a & operand != 0,
    }
}

/// Any instruction with distances and constants that are mostly near a frame's offsets.
fn insn() -> impl Strategy<Value = Insn> {
    let codes: &[u16] = &[
        0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xb1, 0x02, 0x03, 0x84, 0x05, 0x06,
        0x16, 0x07, 0x87, 0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x94, 0xa4, 0x0c, 0x1c, 0x2c, 0x3c, 0x4c,
        0x5c, 0x6c, 0x7c, 0x9c, 0xac, 0x15, 0x25, 0x35, 0x45, 0x1d, 0x2d, 0x3d, 0x4d,
    ];
    let k = prop_oneof![4 => 0u32..20, 4 => 0u32..200, 1 => any::<u32>()];
    // Returns are rare, so that programs run on.
    let code = prop_oneof![30 => prop::sample::select(codes), 1 => prop::sample::select(&[0x06u16, 0x16][..])];
    (code, 0u8..6, 0u8..6, k).prop_map(|(code, jt, jf, k)| Insn { code, jt, jf, k })
}

/// A program that is valid: what is not in a random one is made so.
fn program() -> impl Strategy<Value = Vec<Insn>> {
    (prop::collection::vec(insn(), 0..40), any::<bool>()).prop_map(|(mut program, by_a)| {
        let end = if by_a { Insn { code: 0x16, jt: 0, jf: 0, k: 0 } } else { Insn { code: 6, jt: 0, jf: 0, k: 3 } };
        program.push(end);
        let count = program.len();
        for (at, insn) in program.iter_mut().enumerate() {
            let left = count - at - 1;
            let distance = |skip: u8| skip.min(left.saturating_sub(1) as u8);
            match insn.code {
                0x05 => insn.k %= left.max(1) as u32,
                0x20 | 0x28 | 0x30 | 0xb1 => insn.k &= 0x7fff_ffff,
                0x02 | 0x03 | 0x60 | 0x61 => insn.k %= 16,
                0x34 | 0x94 => insn.k = insn.k.max(1),
                0x64 | 0x74 => insn.k %= 32,
                code if code & 7 == 5 => (insn.jt, insn.jf) = (distance(insn.jt), distance(insn.jf)),
                _ => {}
            }
        }
        program
    })
}

/// A frame of 22 to 199 bytes that may begin with tags, and an edit.
fn frame() -> impl Strategy<Value = (Vec<u8>, TagEdit)> {
    let bytes = prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4], 22..200);
    let tpid = || prop::sample::select(&[[0x81u8, 0x00], [0x88, 0xa8], [0x08, 0x00], [0x86, 0xdd]][..]);
    let insert = prop::sample::select(&[None, Some([0x81, 0, 0, 5]), Some([0x88, 0xa8, 0xe0, 5])][..]);
    (bytes, tpid(), tpid(), any::<bool>(), insert).prop_map(|(mut bytes, outer, inner, strip, insert)| {
        bytes[12..14].copy_from_slice(&outer);
        bytes[16..18].copy_from_slice(&inner);
        (bytes, TagEdit { strip_bytes: if strip { 4 } else { 0 }, insert })
    })
}

/// Memory behind a snapshot.
struct Rest<'a>(&'a [u8]);

impl Behind for Rest<'_> {
    fn read(&self, offset: u32, to: &mut [u8]) -> bool {
        let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..to.len()));
        from.map(|from| to.copy_from_slice(from)).is_some()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Any valid program returns for any frame what the reference returns, wherever the snapshot ends.
    #[test]
    fn any_program_does_what_the_manual_says(program in program(), (bytes, edit) in frame(), cut in 18usize..128) {
        for form in [Form::Untagged, Form::Tagged] {
            let filter = Filter::new(&program, form).unwrap();
            let snapshot = &bytes[..cut.min(bytes.len())];
            let frame = Frame { snapshot, wire_bytes: bytes.len() as u32, edit, behind: Rest(&bytes) };
            let seen = seen(&bytes, edit, form);
            prop_assert_eq!(filter.run(&frame), reference(&program, &seen, seen.len() as u32));
        }
    }

    /// A frame that has the deciding bytes in common with another is judged like it.
    #[test]
    fn the_deciding_bytes_decide(program in program(), (bytes, edit) in frame(), (other, _) in frame()) {
        for form in [Form::Untagged, Form::Tagged] {
            let filter = Filter::new(&program, form).unwrap();
            let frame = |bytes| Frame { edit, ..Frame::whole(bytes) };
            if let (wanted, Some(deciding)) = filter.judge(&frame(&bytes)) {
                let mut other = other.clone();
                other.resize(bytes.len(), 0);
                for at in (0..128).filter(|at| deciding >> at & 1 == 1) {
                    other[at] = bytes[at];
                }
                prop_assert_eq!(filter.selects(&frame(&other)), wanted);
            }
        }
    }

    /// Random instructions are refused or run to an end.
    #[test]
    fn no_program_panics(program in prop::collection::vec(insn(), 0..20), (bytes, edit) in frame()) {
        if let Ok(filter) = Filter::new(&program, Form::Untagged) {
            filter.run(&Frame { edit, ..Frame::whole(&bytes) });
        }
    }
}
