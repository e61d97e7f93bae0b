//! The two sides of a captured conversation: at which of two ports a frame enters, so that every station stays at one.
//!
//! **How it works.** The sender of the first frame is on the first side. A station is on the other side of the station
//! that it sends to, or that sends to it, whichever is known first; one that only sends to groups is on the first side.
//! Once a station has a side, it keeps it.
//!
//! **Limits.** [`MAX_STATIONS`]; frames of further stations are on the first side.

use std::collections::BTreeMap;

/// Stations whose sides are known.
const MAX_STATIONS: usize = 65_536;

/// The sides of the stations seen so far.
#[derive(Debug, Default)]
pub(super) struct Sides {
    stations: BTreeMap<[u8; 6], usize>,
}

impl Sides {
    /// The side, 0 or 1, that a frame comes from.
    pub(super) fn of(&mut self, frame: &[u8]) -> usize {
        let Some((&destination, rest)) = frame.split_first_chunk::<6>() else { return 0 };
        let Some(&source) = rest.first_chunk::<6>() else { return 0 };
        let is_group = destination.first().is_some_and(|byte| byte & 1 == 1);
        let receiver = self.stations.get(&destination).copied().filter(|_| !is_group);
        let side = match (self.stations.get(&source), receiver) {
            (Some(side), _) => *side,
            (None, Some(receiver)) => 1 - receiver,
            (None, None) => 0,
        };
        self.note(source, side);
        if !is_group {
            self.note(destination, 1 - side);
        }
        side
    }

    fn note(&mut self, station: [u8; 6], side: usize) {
        if self.stations.len() < MAX_STATIONS {
            self.stations.entry(station).or_insert(side);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: u8 = 0xff;

    /// The side of a frame between stations with these numbers.
    fn side(sides: &mut Sides, from: u8, to: u8) -> usize {
        let mac = |number: u8| if number == GROUP { [GROUP; 6] } else { [2, 0, 0, 0, 0, number] };
        sides.of(&[mac(to), mac(from), [0; 6]].concat())
    }

    #[test]
    fn stations_that_talk_to_each_other_are_on_different_sides_for_good() {
        let mut sides = Sides::default();
        let frames =
            [(1, GROUP, 0), (2, 1, 1), (1, 2, 0), (1, 3, 0), (3, GROUP, 1), (4, GROUP, 0), (4, 1, 0), (5, 4, 1)];
        for (from, to, expected) in frames {
            assert_eq!(side(&mut sides, from, to), expected, "{from} to {to}");
        }
        for (station, expected) in [(1, 0), (2, 1), (3, 1), (4, 0), (5, 1)] {
            assert_eq!(side(&mut sides, station, GROUP), expected, "{station} stays");
        }
    }

    #[test]
    fn no_number_of_stations_takes_more_memory_and_no_frame_is_too_short() {
        let mut sides = Sides::default();
        for number in 0..70_000u32 {
            let [a, b, c, d] = number.to_be_bytes();
            sides.of(&[[2, 0, 0, 0, 0, 1], [2, 1, a, b, c, d]].concat());
        }
        assert_eq!(sides.stations.len(), MAX_STATIONS);
        assert_eq!((side(&mut sides, 1, 2), sides.of(&[0; 11]), sides.of(&[])), (1, 0, 0));
    }
}
