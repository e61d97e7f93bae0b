//! Captures that go on with the new process, as data.

use labsw_dataplane::capture::{Captured, Way};
use labsw_switch::DropReason;
use serde::{Deserialize, Serialize};

use super::client::Bytes;

/// The counts of a capture at one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceCounts {
    /// Frames that found no room.
    pub missed: u64,
    /// Frames that are captured and wait to be sent to the client.
    pub waiting: u64,
}

/// A captured frame that waits to be sent to the client.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCaptured {
    interface: u32,
    tx: bool,
    /// The name of the reason for which it was dropped.
    dropped: Option<String>,
    time_ns: u64,
    wire_bytes: u32,
    bytes: Bytes,
}

impl From<&Captured> for KeptCaptured {
    fn from(frame: &Captured) -> KeptCaptured {
        KeptCaptured {
            interface: frame.interface,
            tx: frame.way == Way::Tx,
            dropped: frame.dropped.map(|reason| reason.name().to_owned()),
            time_ns: frame.time_ns,
            wire_bytes: frame.wire_bytes,
            bytes: Bytes::from(&frame.bytes[..]),
        }
    }
}

impl KeptCaptured {
    /// The frame. `None` if the base64 is invalid, or this version does not have the reason.
    pub fn captured(&self) -> Option<Captured> {
        let known = |name: &String| DropReason::ALL.iter().copied().find(|reason| reason.name() == name.as_str());
        let dropped = match &self.dropped {
            Some(name) => Some(known(name)?),
            None => None,
        };
        let (way, bytes) = (if self.tx { Way::Tx } else { Way::Rx }, self.bytes.decode()?.into_boxed_slice());
        let &KeptCaptured { interface, time_ns, wire_bytes, .. } = self;
        Some(Captured { interface, way, dropped, time_ns, wire_bytes, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_same_after_the_way_and_one_for_an_unknown_reason_is_left_out() {
        for (way, dropped) in [(Way::Rx, None), (Way::Tx, Some(DropReason::Runt))] {
            let bytes = vec![7; 60].into_boxed_slice();
            let frame = Captured { interface: 3, way, dropped, time_ns: 1 << 60, wire_bytes: 1514, bytes };
            let text = serde_json::to_string(&KeptCaptured::from(&frame)).unwrap();
            let read: KeptCaptured = serde_json::from_str(&text).unwrap();
            assert_eq!(read.captured(), Some(frame));
            let later = text.replace("\"runt\"", "\"of_a_later_version\"");
            let read: KeptCaptured = serde_json::from_str(&later).unwrap();
            assert_eq!(read.captured().is_none(), dropped.is_some());
        }
    }
}
