//! Finishing a checksum that was left partial.
//!
//! The guest has put the sum of the pseudo-header into the checksum field and asks for the sum of everything from
//! `csum_start` to the end of the frame, that field included, to be stored in its place, complemented. Which
//! protocol it is does not matter. A checksum of 0 is stored as 0xffff, its equal: to UDP 0 means "none" (RFC 768).

use super::gso::Partial;
use super::refused::Refused;
use super::sum::{Sum, put};

/// Completes the checksum of a frame of which `front` is at hand, and `rest` is the sum of all that follows
/// (`Sum::default()` if nothing does).
///
/// # Errors
/// [`Refused::ChecksumField`] if the field is not inside `front`.
#[inline]
pub fn finish_checksum(front: &mut [u8], rest: Sum, partial: Partial) -> Result<(), Refused> {
    let Partial { start, offset } = partial;
    let field = partial.field();
    if field + 2 > front.len() {
        let frame_bytes = u32::try_from(front.len()).unwrap_or(u32::MAX);
        return Err(Refused::ChecksumField { start, offset, frame_bytes });
    }
    let mut sum = Sum::of(front.get(usize::from(start)..).unwrap_or_default());
    sum.append(rest);
    let checksum = match sum.checksum() {
        0 => 0xffff,
        other => other,
    };
    put(front, field, checksum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_has_to_be_at_hand() {
        let mut front = [0; 40];
        for (start, offset) in [(0, 39), (39, 0), (34, 16), (0xffff, 0xffff)] {
            let refused = Err(Refused::ChecksumField { start, offset, frame_bytes: 40 });
            assert_eq!(finish_checksum(&mut front, Sum::default(), Partial { start, offset }), refused);
        }
        assert_eq!(front, [0; 40]);
        assert_eq!(finish_checksum(&mut front, Sum::default(), Partial { start: 38, offset: 0 }), Ok(()));
        assert_eq!(front[36..], [0, 0, 0xff, 0xff]);
    }

    #[test]
    fn zero_is_stored_as_its_equal() {
        // A sum of 0xffff: the checksum would be 0.
        let mut front = [0x12, 0x34, 0xed, 0xcb, 0, 0];
        finish_checksum(&mut front, Sum::default(), Partial { start: 0, offset: 4 }).unwrap();
        assert_eq!(front[4..], [0xff, 0xff]);
    }
}
