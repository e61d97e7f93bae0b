//! Counters that go on with the new process, as data.

use std::collections::BTreeMap;

use labsw_dataplane::stats::{MirrorSnapshot, PortSnapshot};
use labsw_switch::DropReason;
use serde::{Deserialize, Serialize};

/// The counters of a port.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    rx_frames: u64,
    rx_bytes: u64,
    tx_frames: u64,
    tx_bytes: u64,
    /// Drops by the name of the reason, without those that are 0.
    drops: BTreeMap<String, u64>,
}

impl From<&PortSnapshot> for PortCounters {
    fn from(counted: &PortSnapshot) -> PortCounters {
        let reasons = DropReason::ALL.iter().zip(counted.drops).filter(|(_, count)| *count > 0);
        PortCounters {
            rx_frames: counted.rx_frames,
            rx_bytes: counted.rx_bytes,
            tx_frames: counted.tx_frames,
            tx_bytes: counted.tx_bytes,
            drops: reasons.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        }
    }
}

impl PortCounters {
    /// The counters in this version's form; reasons that this version does not have are left out.
    pub fn snapshot(&self) -> PortSnapshot {
        let mut snapshot = PortSnapshot::ZERO;
        (snapshot.rx_frames, snapshot.rx_bytes) = (self.rx_frames, self.rx_bytes);
        (snapshot.tx_frames, snapshot.tx_bytes) = (self.tx_frames, self.tx_bytes);
        for (name, count) in &self.drops {
            if let Some(reason) = DropReason::ALL.iter().find(|reason| reason.name() == name) {
                snapshot.drop_many(*reason, *count);
            }
        }
        snapshot
    }
}

/// The counters of a mirror session, since it began.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorCounters {
    matched: u64,
    sent: u64,
    dropped: u64,
    truncated: u64,
}

impl From<MirrorSnapshot> for MirrorCounters {
    fn from(MirrorSnapshot { matched, sent, dropped, truncated }: MirrorSnapshot) -> MirrorCounters {
        MirrorCounters { matched, sent, dropped, truncated }
    }
}

impl MirrorCounters {
    /// The counters in this version's form.
    pub fn snapshot(&self) -> MirrorSnapshot {
        let &MirrorCounters { matched, sent, dropped, truncated } = self;
        MirrorSnapshot { matched, sent, dropped, truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_by_name_and_unknown_reasons_are_left_out() {
        let mut counted = PortSnapshot::ZERO;
        counted.received(60);
        counted.sent(1514);
        counted.drop_many(DropReason::Runt, 3);
        let mut counters = PortCounters::from(&counted);
        assert_eq!(counters.drops, [("runt".to_owned(), 3)].into());
        counters.drops.insert("of_a_later_version".to_owned(), 9);
        let text = serde_json::to_string(&counters).unwrap();
        let read: PortCounters = serde_json::from_str(&text).unwrap();
        assert_eq!(read, counters);
        assert_eq!(read.snapshot().drops, counted.drops);
        assert_eq!((read.snapshot().rx_bytes, read.snapshot().tx_bytes), (60, 1514));
    }
}
