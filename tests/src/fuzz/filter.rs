//! Filters: any text, compiled and run on any frames; and any program, checked and run.
//!
//! What a filter says of a frame is what a naive machine ([`naive`]) says that reads the instructions as bpf(4) words
//! them. The bytes that are said to have decided did: with all others turned round, the answer is the same. A program
//! takes no more steps than it has instructions, which the naive machine counts; a refusal is one line.

use std::time::{Duration, Instant};

use labsw_control::filter;
use labsw_switch::filter::{Behind, Filter, Form, Frame, Insn, MEMORY_WORDS};
use labsw_switch::forward::TagEdit;
use labsw_switch::header::SNAPSHOT_BYTES;

use super::feed::Feed;

/// Much longer than any expression takes to be compiled.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most instructions of a program that is given as such.
const MOST: usize = 64;
/// A frame has a header and a tag at least.
const LEAST_BYTES: usize = 18;

/// Makes a filter and runs it.
///
/// # Panics
/// When it selects otherwise than the naive machine, or costs too much.
pub fn filter(data: &[u8]) {
    let mut feed = Feed::new(data);
    let made = if feed.flag() { expression(&mut feed) } else { program(&mut feed) };
    let Some((program, filter)) = made else { return };
    while !feed.is_empty() {
        let count = usize::from(feed.u8()) * 2;
        let mut frame = feed.take(count).to_vec();
        frame.resize(count.max(LEAST_BYTES), 0x55);
        run(&program, &filter, &frame);
    }
}

/// An expression up to a zero byte.
fn expression(feed: &mut Feed<'_>) -> Option<(Vec<Insn>, Filter)> {
    let text: Vec<u8> =
        std::iter::from_fn(|| (!feed.is_empty()).then(|| feed.u8()).filter(|byte| *byte != 0)).collect();
    let text = String::from_utf8_lossy(&text);
    let begin = Instant::now();
    let compiled = filter::compile(&text);
    assert!(begin.elapsed() < PATIENCE, "{text:?} took {:?}", begin.elapsed());
    match compiled {
        Ok(filter) => Some((filter::instructions(&text).expect("it was compiled just now"), filter)),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
            None
        }
    }
}

/// Instructions as they are, of which many have codes of the machine.
fn program(feed: &mut Feed<'_>) -> Option<(Vec<Insn>, Filter)> {
    const CODES: [u16; 30] = [
        0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x61, 0x80, 0x81, 0xb1, 0x02, 0x03, 0x04, 0x0c, 0x14,
        0x24, 0x34, 0x3c, 0x54, 0x74, 0x84, 0x94, 0xa4, 0x05, 0x15, 0x07, 0x87,
    ];
    let form = if feed.flag() { Form::Tagged } else { Form::Untagged };
    let count = usize::from(feed.u8()) % MOST;
    let mut program: Vec<Insn> = (0..count)
        .map(|_| {
            let code = feed.u8();
            let code = CODES.get(usize::from(code)).copied().unwrap_or_else(|| code.into());
            let (jt, jf, large) = (feed.u8(), feed.u8(), feed.u8());
            let k = if large == 0xff { feed.u32() } else { large.into() };
            Insn { code, jt: jt % 8, jf: jf % 8, k }
        })
        .collect();
    program.push(Insn { code: 0x06, jt: 0, jf: 0, k: 1 });
    let filter = Filter::new(&program, form).ok()?;
    Some((program, filter))
}

/// The bytes of a frame behind its snapshot.
struct Rest<'a>(&'a [u8]);

impl Behind for Rest<'_> {
    fn read(&self, offset: u32, to: &mut [u8]) -> bool {
        let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..to.len()));
        from.is_some_and(|from| {
            to.copy_from_slice(from);
            true
        })
    }
}

fn run(program: &[Insn], filter: &Filter, frame: &[u8]) {
    let seen = match (filter.form(), &frame[12..14]) {
        (Form::Untagged, [0x81, 0x00] | [0x88, 0xa8]) => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    };
    let expected = naive(program, &seen);
    assert_eq!(filter.run(&Frame::whole(frame)), expected, "{program:?} on {frame:02x?}");
    let judged = |frame: &[u8]| {
        let snapshot = &frame[..frame.len().min(SNAPSHOT_BYTES)];
        let wire_bytes = u32::try_from(frame.len()).expect("short");
        filter.judge(&Frame { snapshot, wire_bytes, edit: TagEdit::KEEP, behind: Rest(frame) })
    };
    let (wanted, deciding) = judged(frame);
    assert_eq!(wanted, expected != 0, "{program:?} on {frame:02x?} in two parts");
    if let Some(deciding) = deciding {
        let turned = |(at, byte): (usize, &u8)| if at < 128 && deciding >> at & 1 == 1 { *byte } else { !byte };
        let other: Vec<u8> = frame.iter().enumerate().map(turned).collect();
        assert_eq!(judged(&other), (wanted, Some(deciding)), "{program:?} on {frame:02x?}: other bytes decide");
    }
}

/// The machine as bpf(4) words it.
fn naive(program: &[Insn], frame: &[u8]) -> u32 {
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY_WORDS]);
    let read = |at: Option<u32>, bytes: usize| {
        let at = at? as usize;
        let bytes = frame.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)))
    };
    let (mut at, mut steps) = (0, 0);
    loop {
        let Insn { code, jt, jf, k } = program[at];
        (at, steps) = (at + 1, steps + 1);
        assert!(steps <= program.len(), "jumps lead forward only");
        let size = [4, 2, 1, 0][usize::from(code >> 3 & 3)];
        let mode = code & 0xe0;
        let loaded = |a: u32| match mode {
            0x00 => Some(k),
            0x20 => read(Some(k), size),
            0x40 => read(x.checked_add(k), size),
            0x60 => Some(memory[k as usize]),
            0x80 => Some(u32::try_from(frame.len()).expect("short")),
            0xa0 => read(Some(k), 1).map(|byte| 4 * (byte & 0xf)),
            _ => Some(a),
        };
        match code & 7 {
            0 => match loaded(a) {
                Some(value) => a = value,
                None => return 0,
            },
            1 => match loaded(x) {
                Some(value) => x = value,
                None => return 0,
            },
            2 => memory[k as usize] = a,
            3 => memory[k as usize] = x,
            4 => match arithmetic(code & 0xf0, a, if code & 8 == 0 { k } else { x }) {
                Some(value) => a = value,
                None => return 0,
            },
            5 => {
                let with = if code & 8 == 0 { k } else { x };
                at += match code & 0xf0 {
                    0x00 => k as usize,
                    0x10 => usize::from(if a == with { jt } else { jf }),
                    0x20 => usize::from(if a > with { jt } else { jf }),
                    0x30 => usize::from(if a >= with { jt } else { jf }),
                    _ => usize::from(if a & with != 0 { jt } else { jf }),
                };
            }
            6 => return if code & 0x18 == 0 { k } else { a },
            _ if code & 0xf8 == 0 => x = a,
            _ => a = x,
        }
    }
}

fn arithmetic(operation: u16, a: u32, by: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(by),
        0x10 => a.wrapping_sub(by),
        0x20 => a.wrapping_mul(by),
        0x30 if by == 0 => return None,
        0x30 => a / by,
        0x40 => a | by,
        0x50 => a & by,
        0x60 => {
            if by < 32 {
                a << by
            } else {
                0
            }
        }
        0x70 => {
            if by < 32 {
                a >> by
            } else {
                0
            }
        }
        0x80 => 0u32.wrapping_sub(a),
        0x90 if by == 0 => return None,
        0x90 => a % by,
        _ => a ^ by,
    })
}
