//! Limits of frames and bursts, which bound the work and the memory that one burst takes.

/// The largest frame that can pass, bytes (a 64-KiB TSO frame with its headers).
pub const MAX_FRAME_BYTES: u32 = 65_535 + 64;
/// The maximum number of GSO segments of one burst: a burst of the largest frames with an MSS of 536 is within it.
pub const MAX_BURST_SEGMENTS: u32 = 8192;
