//! Which bytes are remembered as deciding, and how often a program is run for it. (That verdicts are right with and
//! without is in the tests of [`Filter`].)
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::cell::Cell;

use super::*;
use crate::filter::{Form, Insn};

fn snapshot() -> Vec<u8> {
    (0..128).map(|at| at ^ 0x5a).collect()
}

/// A frame is alike if the deciding bytes are the same, wherever they are, and whatever the others are.
#[test]
fn deciding_bytes_decide_and_no_others() {
    let bytes = snapshot();
    let sets: [&[usize]; 9] =
        [&[12, 13], &[0], &[0, 15], &[20, 23], &[12, 13, 23, 54], &[100, 127], &[127], &[3, 18, 19, 30], &[112, 127]];
    for set in sets {
        let deciding = set.iter().fold(0u128, |mask, at| mask | 1 << at);
        let alike = Alike::new(&bytes, Some(deciding));
        assert!(alike.used >= 1 && alike.matches(&bytes), "{set:?}");
        assert!(alike.match_all(0b11, &[bytes.clone(), bytes.clone()][..]), "{set:?}");
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let same = !set.contains(&at);
            assert_eq!(alike.matches(&other), same, "{set:?}: byte {at}");
            assert_eq!(alike.match_all(0b11, &[bytes.clone(), other][..]), same, "{set:?}: byte {at}");
        }
        // A frame that ends before the last of them.
        let last = *set.iter().max().unwrap();
        assert!(!alike.matches(&bytes[..last]), "{set:?}");
        assert!(!alike.match_all(0b11, &[bytes.clone(), bytes[..last].to_vec()][..]), "{set:?}");
        if last >= WINDOW_BYTES {
            assert!(alike.matches(&bytes[..=last]), "{set:?}: a window ends with its last deciding byte");
        }
    }
}

#[test]
fn windows_are_as_few_as_hold_the_bytes() {
    let bytes = snapshot();
    let used = |set: &[usize]| Alike::new(&bytes, Some(set.iter().fold(0u128, |mask, at| mask | 1 << at))).used;
    assert_eq!(used(&[]), 0, "nothing decided");
    assert_eq!((used(&[20]), used(&[20, 35]), used(&[20, 36])), (1, 1, 2));
    assert_eq!((used(&[0, 15, 16, 31]), used(&[0, 15, 16, 31, 32])), (2, 0));
    assert_eq!(used(&[0, 40, 80]), 0, "more windows than there are");
    assert_eq!(Alike::new(&bytes, None).used, 0, "something else decided, too");
    assert_eq!(Alike::new(&bytes[..12], Some(1 << 11)).used, 0, "shorter than a window");
}

#[test]
fn only_a_whole_burst_is_matched_at_once() {
    let bytes = snapshot();
    let alike = Alike::new(&bytes, Some(1 << 12));
    let burst = |count: usize| vec![bytes.clone(); count];
    assert!(alike.match_all(1, &burst(1)[..]) && alike.match_all(0b111, &burst(3)[..]));
    assert!(alike.match_all(u64::MAX, &burst(64)[..]));
    for (set, count) in [(0b11, 3), (0b101, 3), (0b1111, 3), (u64::MAX >> 1, 64), (0, 3)] {
        assert!(!alike.match_all(set, &burst(count)[..]), "{set:b} of {count}");
    }
    assert!(!Alike::default().match_all(1, &burst(1)[..]) && !Alike::default().matches(&bytes));
}

/// Frames that count how often somebody looks behind their snapshots: each run of the program does once.
struct Counted<'a> {
    frames: &'a [Vec<u8>],
    runs: Cell<usize>,
}

impl Frames for Counted<'_> {
    fn snapshot(&self, index: u8) -> &[u8] {
        self.frames.snapshot(index)
    }

    fn wire_bytes(&self, index: u8) -> u32 {
        self.frames.wire_bytes(index)
    }

    fn behind(&self, _index: u8) -> impl Behind {
        self.runs.set(self.runs.get() + 1);
        crate::filter::Nothing
    }

    fn count(&self) -> usize {
        self.frames.len()
    }

    fn difference(&self, at: usize, value: &[u8; 16]) -> Option<[u8; 16]> {
        self.frames.difference(at, value)
    }
}

/// A program runs once for frames alike, and once more for each change of what it looks at.
#[test]
fn a_program_runs_for_what_is_new_only() {
    // ldb [20]; jeq 7, then wanted, else not.
    let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
    let program = [insn(0x30, 0, 0, 20), insn(0x15, 0, 1, 7), insn(6, 0, 0, 1), insn(6, 0, 0, 0)];
    let filter = Arc::new(Filter::new(&program, Form::Tagged).unwrap());
    let frame = |value: u8, other: u8| {
        let mut bytes = vec![other; 64];
        bytes[20] = value;
        bytes
    };
    let mut picker = Picker::default();
    let mut pick = |filter: &Arc<Filter>, set: u64, edit: TagEdit, frames: &[Vec<u8>]| {
        let counted = Counted { frames, runs: Cell::new(0) };
        let picked = picker.pick(filter, set, edit, &counted);
        (picked, counted.runs.get())
    };
    let keep = TagEdit::KEEP;
    assert_eq!(pick(&filter, 0b111, keep, &[frame(7, 1), frame(7, 2), frame(7, 3)]), (0b111, 1));
    assert_eq!(pick(&filter, 0b11, keep, &[frame(7, 4), frame(7, 5)]), (0b11, 0), "the verdict is remembered");
    assert_eq!(pick(&filter, 0b11, keep, &[frame(8, 1), frame(8, 2)]), (0, 1));
    assert_eq!(pick(&filter, 0b11, keep, &[frame(8, 3), frame(8, 4)]), (0, 0), "also that nothing is wanted");
    assert_eq!(pick(&filter, 0b111, keep, &[frame(8, 0), frame(7, 0), frame(7, 9)]), (0b110, 1));
    assert_eq!(pick(&filter, 0b101, keep, &[frame(7, 0), frame(8, 0), frame(7, 9)]), (0b101, 0), "some of a burst");
    assert_eq!(pick(&filter, 0, keep, &[frame(7, 0)]), (0, 0));
    // Another program, the same under another Arc, and another edit: each starts over.
    let twin = Arc::new((*filter).clone());
    assert_eq!(pick(&twin, 1, keep, &[frame(7, 0)]), (1, 1));
    let edit = TagEdit { strip_bytes: 4, insert: None };
    assert_eq!(pick(&twin, 1, edit, &[frame(7, 7)]).1, 1);
    assert_eq!(pick(&twin, 1, edit, &[frame(7, 7)]).1, 0);
}
