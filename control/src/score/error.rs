//! The error of a timeline or log that can't be read.

/// A file that can't be scored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Unreadable {
    /// The line, from 1.
    pub line: usize,
    /// The mistake in it.
    pub reason: String,
}
