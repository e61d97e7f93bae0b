//! The fate of one frame that is written into a guest's buffers.

/// The fate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the guest's buffers.
    Done,
    /// The guest has no free buffers for it.
    RingFull,
    /// It would not fit the guest's buffers even if all were free.
    BufferTooSmall,
}
