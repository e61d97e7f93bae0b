//! The Internet checksum: a ones' complement sum of 16-bit words (RFC 1071).
//!
//! **How it works.** Words are summed as they lie in memory; a byte swap at the end, if the machine needs one, makes it
//! the sum in network order (RFC 1071, section 2B). Eight 64-bit lanes each take the two 32-bit halves of a word, so
//! that no carry has to be looked after and the compiler can vectorise the loop: a lane holds 2^31 blocks of 64 bytes.
//! Pieces may have any length: behind an odd number of bytes, a piece counts with its bytes swapped.

/// Bytes of a round of the loop.
const BLOCK_BYTES: usize = 64;

/// The sum of some bytes, to which those that follow can be added.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of 16-bit words in the machine's byte order, not folded. Grows by at most 2^16 a piece.
    words: u64,
    /// An odd number of bytes was summed.
    odd: bool,
}

impl Sum {
    /// The sum of `bytes`.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let (blocks, tail) = bytes.as_chunks::<BLOCK_BYTES>();
        let mut lanes = Lanes::default();
        for block in blocks {
            lanes.add(block);
        }
        let (quads, end) = tail.as_chunks::<8>();
        let mut words = lanes.total();
        for quad in quads {
            words += halves(*quad);
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(end) {
            *to = *from;
        }
        words += halves(last);
        Sum { words: u64::from(fold(words)), odd: bytes.len() % 2 == 1 }
    }

    /// Adds the sum of the bytes that follow.
    #[inline]
    pub fn append(&mut self, next: Sum) {
        let words = fold(next.words);
        self.words += u64::from(if self.odd { words.swap_bytes() } else { words });
        self.odd ^= next.odd;
    }

    /// Adds the bytes that follow.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.append(Sum::of(bytes));
    }

    /// Adds a number as if it stood at an even place, whatever was summed before.
    #[inline]
    pub fn add_u16(&mut self, number: u16) {
        self.words += u64::from(number.to_be());
    }

    /// Adds both halves of a number as if it stood at an even place, whatever was summed before.
    #[inline]
    pub fn add_u32(&mut self, number: u32) {
        let [a, b, c, d] = number.to_be_bytes();
        self.add_u16(u16::from_be_bytes([a, b]));
        self.add_u16(u16::from_be_bytes([c, d]));
    }

    /// The sum, folded to 16 bits.
    #[inline]
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.words))
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// Eight sums side by side.
#[derive(Default)]
struct Lanes([u64; 8]);

impl Lanes {
    /// Adds a block.
    #[inline(always)]
    fn add(&mut self, block: &[u8; BLOCK_BYTES]) {
        let (quads, _) = block.as_chunks::<8>();
        for (lane, quad) in self.0.iter_mut().zip(quads) {
            *lane += halves(*quad);
        }
    }

    /// The sum of all lanes, at most 2^36.
    #[inline(always)]
    fn total(&self) -> u64 {
        self.0.iter().map(|lane| (lane & 0xffff_ffff) + (lane >> 32)).sum()
    }
}

/// The sum of the two halves of a word.
#[inline(always)]
fn halves(quad: [u8; 8]) -> u64 {
    let word = u64::from_ne_bytes(quad);
    (word & 0xffff_ffff) + (word >> 32)
}

/// Folds a sum to 16 bits. It becomes 0 only if it was.
#[inline(always)]
fn fold(words: u64) -> u16 {
    let words = (words & 0xffff_ffff) + (words >> 32);
    let words = (words & 0xffff) + (words >> 16 & 0xffff) + (words >> 32);
    let words = (words & 0xffff) + (words >> 16);
    #[allow(clippy::cast_possible_truncation, reason = "below 2^16 + 2 before the line, folded by it")]
    let folded = ((words & 0xffff) + (words >> 16)) as u16;
    folded
}

/// The 32-bit number in network order at `at`.
#[inline]
pub(super) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Writes `with` at `at`, if it is inside.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, with: [u8; N]) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = with;
    }
}

/// Writes a little-endian number at `at`, if it is inside.
#[inline]
pub(super) fn put_u16_le(bytes: &mut [u8], at: usize, number: u16) {
    put(bytes, at, number.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // Section 3: the sum of 0001 f203 f4f5 f6f7 is ddf2.
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.folded(), sum.checksum()), (0xddf2, 0x220d));
    }

    #[test]
    fn extremes() {
        assert_eq!(Sum::of(&[]).folded(), 0);
        assert_eq!(Sum::of(&[0xab]).folded(), 0xab00);
        for len in [0, 1, 2, 63, 64, 65, 1460, 65_535, 65_599, 1 << 20] {
            assert_eq!(Sum::of(&vec![0; len]).folded(), 0);
            let ones = if len == 0 { 0 } else { 0xffff << (len % 2 * 8) };
            assert_eq!(Sum::of(&vec![0xff; len]).folded(), ones, "{len}");
        }
    }

    #[test]
    fn folding_never_loses_a_carry() {
        for words in [0, 1, 0xffff, 0x1_0000, 0x1_fffe, u64::MAX, u64::MAX - 1, 0xffff_ffff_0000, 1 << 63] {
            let folded = u64::from(fold(words));
            assert_eq!(folded % 0xffff, words % 0xffff);
            assert_eq!(folded == 0, words == 0);
        }
    }
}
