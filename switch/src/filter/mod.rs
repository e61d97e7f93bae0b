//! Filters: programs of the classic BPF machine, as libpcap compiles them from a tcpdump expression, that say whether a
//! frame is wanted.
//!
//! **How it works.** [`Filter::new`] checks a program once and decodes it (`decode`); [`Filter::run`] interprets it
//! (`machine`) over a [`Frame`]: the snapshot, with a tag edit applied, and behind it whatever [`Behind`] can read. A
//! filter for [`Form::Untagged`] sees the frame without its outer VLAN tag, so that `tcp port 445` means tagged and
//! untagged frames alike; one for [`Form::Tagged`] sees it as it is on the wire. [`Filter::judge`] also tells which
//! bytes decided, so that of the frames of a burst those alike are judged once ([`Picker`]).
//!
//! **Invariants.** Jumps lead forward and end inside the program, so a run takes at most [`MAX_INSNS`] steps. No
//! program and no frame makes it panic: a load beyond the end of the frame and a division by zero end the run, and the
//! frame is not wanted. Programs for live captures (Linux extensions at negative offsets) are refused: libpcap has to
//! compile for a dead handle.
//!
//! References: McCanne and Jacobson, "The BSD Packet Filter", 1993; bpf(4) of FreeBSD; kernel
//! `Documentation/networking/filter.rst`, and `bpf_check_classic` for what is refused.

mod burst;
mod decode;
mod frame;
mod machine;

pub use burst::{Frames, Picker, add_difference};
pub use frame::{Behind, Frame, Nothing};

/// The most instructions of a program (`BPF_MAXINSNS` of the kernel).
pub const MAX_INSNS: usize = 4096;
/// Words of scratch memory (`BPF_MEMWORDS`).
pub const MEMORY_WORDS: usize = 16;

/// One instruction as libpcap emits it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Class, size, mode, operation and operand.
    pub code: u16,
    /// Instructions skipped if a test holds.
    pub jt: u8,
    /// Instructions skipped if it does not.
    pub jf: u8,
    /// Constant, offset or distance.
    pub k: u32,
}

/// How a filter sees a frame with VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Form {
    /// The frame without its outer tag, if it has one.
    #[default]
    Untagged,
    /// The frame as it is on the wire, tags included.
    Tagged,
}

/// Why a program was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// It has no instruction.
    #[error("the program is empty")]
    Empty,
    /// It has too many.
    #[error("the program has {0} instructions; {MAX_INSNS} are allowed")]
    TooLong(usize),
    /// An instruction that the classic machine does not have.
    #[error("instruction {at}: code {code:#06x} is unknown")]
    UnknownCode {
        /// Which instruction, from 0.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A jump behind the end; backwards is far behind it.
    #[error("instruction {0}: it jumps backwards, as protochain does, or out of the program")]
    JumpOutside(usize),
    /// A division, or a remainder, by the constant 0.
    #[error("instruction {0}: division by zero")]
    DivisionByZero(usize),
    /// A shift by a constant of more than 31 bits.
    #[error("instruction {0}: shift by more than 31 bits")]
    ShiftTooFar(usize),
    /// A word of memory that there is not.
    #[error("instruction {at}: there is no memory word {word}; there are {MEMORY_WORDS}")]
    NoSuchWord {
        /// Which instruction, from 0.
        at: usize,
        /// The word.
        word: u32,
    },
    /// A load at a negative offset: an extension of Linux to the machine.
    #[error(
        "instruction {0}: it tests a property that only captures on an interface have, such as inbound and outbound"
    )]
    Extension(usize),
    /// The last instruction does not return.
    #[error("the program does not end with a return")]
    NoReturn,
}

/// A checked program; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    ops: Box<[decode::Op]>,
    form: Form,
}

impl Filter {
    /// Checks a program. `form` says in which form it sees tagged frames.
    ///
    /// # Errors
    /// The first instruction that the machine would stumble over.
    pub fn new(program: &[Insn], form: Form) -> Result<Filter, FilterError> {
        Ok(Filter { ops: decode::program(program)?, form })
    }

    /// How the filter sees tagged frames.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The program's result for a frame: 0 if the filter rejects the frame, else the number of bytes wanted (libpcap:
    /// all).
    pub fn run<B: Behind>(&self, frame: &Frame<'_, B>) -> u32 {
        machine::run(&self.ops, &frame.view(self.form))
    }

    /// Runs the program. Returns true if the filter selects the frame, and the bytes of the snapshot that decided that
    /// (bit = offset): a frame with the same [edit](Frame::edit) and the same bytes there is judged alike. `None` if
    /// something else mattered, too: the length of the frame, or its bytes after the snapshot.
    pub fn judge<B: Behind>(&self, frame: &Frame<'_, B>) -> (bool, Option<u128>) {
        let view = frame.view(self.form);
        (machine::run(&self.ops, &view) != 0, view.deciding())
    }

    /// Returns true if the filter selects the frame.
    pub fn selects<B: Behind>(&self, frame: &Frame<'_, B>) -> bool {
        self.run(frame) != 0
    }
}

#[cfg(test)]
mod tests;
