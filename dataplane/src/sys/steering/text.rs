//! A program that is being written: its instructions, jumps to labels, and loads of addresses in a map.

use std::os::fd::RawFd;

use crate::sys::bpf::{Instruction, instruction};

/// The next instruction's value is an address in the map with this descriptor.
const PSEUDO_MAP_VALUE: u8 = 2;

/// A jump target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program that is being written.
#[derive(Debug)]
pub(super) struct Text {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    /// By label: the instruction it stands before.
    labels: Vec<Option<usize>>,
    map: RawFd,
}

impl Text {
    pub(super) fn new(map: RawFd) -> Text {
        Text { instructions: Vec::new(), jumps: Vec::new(), labels: Vec::new(), map }
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(super) fn place(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.instructions.len());
        }
    }

    pub(super) fn put(&mut self, code: u8, dst: u8, src: u8, offset: i16, immediate: i32) {
        self.instructions.push(instruction(code, dst, src, offset, immediate));
    }

    /// A jump, if the comparison `code` of `dst` with `src` or `immediate` is true.
    pub(super) fn jump(&mut self, code: u8, dst: u8, src: u8, immediate: i32, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.put(code, dst, src, 0, immediate);
    }

    /// `dst = value`.
    pub(super) fn constant(&mut self, dst: u8, value: u64) {
        self.put(0x18, dst, 0, 0, low(value));
        self.put(0, 0, 0, 0, low(value >> 32));
    }

    /// `dst = &map[at]`.
    pub(super) fn in_map(&mut self, dst: u8, at: usize) {
        self.put(0x18, dst, PSEUDO_MAP_VALUE, 0, self.map);
        self.put(0, 0, 0, 0, low(at as u64));
    }

    pub(super) fn call(&mut self, helper: i32) {
        self.put(0x85, 0, 0, 0, helper);
    }

    /// The instructions, with the distances of their jumps.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.labels.get(label.0).copied().flatten().unwrap_or(at + 1);
            if let (Some(jump), Ok(distance)) = (self.instructions.get_mut(at), i16::try_from(to - at - 1)) {
                jump.set_offset(distance);
            }
        }
        self.instructions
    }
}

/// The low 32 bits, as an immediate.
#[allow(clippy::cast_possible_truncation, reason = "cuts out 32 bits")]
pub(super) fn low(value: u64) -> i32 {
    (value as u32).cast_signed()
}
