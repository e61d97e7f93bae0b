//! A sensor in the wire of a port: what the port and the switch send to each other goes through it, both ways.
//!
//! **How it works.** The sensor (an intrusion prevention system) has two ports of its own. A frame from the port leaves
//! at the *near* one, undecided and unchanged. What the sensor lets pass arrives at the *far* one and is decided about
//! as if the port itself had received it: its VLANs, guards and forwarding-database entries are those of the port. A
//! frame to the port leaves at the far one, with the tags that it has on the port's wire; what the sensor lets pass
//! arrives at the near one and leaves at the port.
//!
//! ```text
//! station ── port ══ near ── sensor ── far ══ switch
//! ```
//!
//! Mirrors, captures, counters and impairments are those of the port at which a frame really arrives or leaves.
//!
//! **Failure.** Whether the sensor lets anything pass shows by probes: frames of the switch's own that it sends into
//! the sensor on each side and waits for on the other. [`Way`] says what becomes of the port's frames; who builds the
//! tables decides that.
//!
//! **Invariants.** The ports of a sensor are in no flood list, nothing is learned at them, and frames to them are only
//! those of the port, so that a sensor can't close a loop. A probe ends where it arrives: nobody else gets it.
//!
//! Reference: IEEE 802, 9.2.3 (EtherTypes for local experiments).

use crate::PortId;

/// The EtherType of probes: local experimental.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// The bytes behind the EtherType of a probe.
const MAGIC: [u8; 12] = *b"labsw inline";
/// Length of a probe, bytes: the shortest frame of a wire, without its check sequence.
pub const PROBE_BYTES: usize = 60;
/// Where the key of a probe begins.
const KEY_AT: usize = 14 + MAGIC.len();

/// The addresses of the two ends of a sensor, as probes have them: a sensor that learns must find each on one side.
const ENDS: [[u8; 6]; 2] = [[0x02, 0x6c, 0x61, 0x62, 0x73, 0x01], [0x02, 0x6c, 0x61, 0x62, 0x73, 0x02]];

/// A sensor in the wire of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlineSpec {
    /// The port whose frames go through the sensor.
    pub port: PortId,
    /// The sensor's port on the side of that port.
    pub near: PortId,
    /// The sensor's port on the side of the switch.
    pub far: PortId,
    /// The way of the port's frames.
    pub way: Way,
}

impl InlineSpec {
    /// The three ports.
    pub fn ports(&self) -> [PortId; 3] {
        [self.port, self.near, self.far]
    }
}

/// The way of the frames of a port with a sensor in its wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the sensor.
    Through,
    /// Past the sensor, as if there were none.
    Past,
    /// Nowhere.
    Closed,
}

/// The part that a port takes, if frames of it, or to it, are not simply decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A sensor is in its wire.
    Port {
        /// The sensor's port on this side.
        near: PortId,
        /// The sensor's port on the side of the switch.
        far: PortId,
    },
    /// A sensor that does not work is in its wire, and nothing may go past it.
    Closed,
    /// The sensor's port on the side of the port `of`.
    Near {
        /// The port.
        of: PortId,
        /// The port's frames go through the sensor.
        passes: bool,
    },
    /// The sensor's port on the side of the switch.
    Far {
        /// The port.
        of: PortId,
        /// The port's frames go through the sensor.
        passes: bool,
    },
}

impl Part {
    /// True for a port of a sensor.
    pub fn is_of_sensor(self) -> bool {
        matches!(self, Part::Near { .. } | Part::Far { .. })
    }
}

/// A direction through a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the near port to the far one.
    Inward,
    /// From the far port to the near one.
    Outward,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Inward, Direction::Outward];
}

/// The probe of the sensor with this key, in a direction.
pub fn probe(key: u64, direction: Direction) -> [u8; PROBE_BYTES] {
    let [near, far] = ENDS;
    let (dst, src) = match direction {
        Direction::Inward => (far, near),
        Direction::Outward => (near, far),
    };
    let parts = [&dst[..], &src, &ETHERTYPE, &MAGIC, &key.to_be_bytes(), &[direction as u8]];
    let mut bytes = [0; PROBE_BYTES];
    for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    bytes
}

/// True if a frame that begins with `snapshot` is a probe, of whichever sensor.
pub fn is_probe(snapshot: &[u8]) -> bool {
    snapshot.get(12..14) == Some(&ETHERTYPE[..]) && snapshot.get(14..KEY_AT) == Some(&MAGIC[..])
}

/// The direction of a probe of the sensor with this key; `None` if the frame is anything else.
pub fn direction_of(snapshot: &[u8], key: u64) -> Option<Direction> {
    let end = KEY_AT + 8;
    let is_of_sensor = is_probe(snapshot) && snapshot.get(KEY_AT..end) == Some(&key.to_be_bytes()[..]);
    let direction = *snapshot.get(end)?;
    Direction::ALL.into_iter().find(|known| is_of_sensor && *known as u8 == direction)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_by_its_sensor_and_direction() {
        for direction in Direction::ALL {
            let bytes = probe(7, direction);
            assert!(is_probe(&bytes));
            assert_eq!(direction_of(&bytes, 7), Some(direction));
            assert_eq!(direction_of(&bytes, 8), None);
            for len in 0..bytes.len() {
                let shows = direction_of(&bytes[..len], 7);
                assert_eq!(shows.is_some(), len > KEY_AT + 8, "{len} bytes");
            }
        }
        let (inward, outward) = (probe(7, Direction::Inward), probe(7, Direction::Outward));
        assert_eq!((&inward[..6], &inward[6..12]), (&outward[6..12], &outward[..6]));
        assert!(!is_probe(&[0; 60]));
    }
}
