//! What is handed over, as data; and the words around it.
//!
//! Ports, mirrors and drop reasons go by name: ids may differ between the two processes, and versions may have other
//! reasons. A field that is added later has a default, so that a state without it can be read.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use labsw_dataplane::handover::Slot;
use labsw_dataplane::stats::{MirrorSnapshot, PortSnapshot};
use labsw_dataplane::tap::TapHandover;
use labsw_dataplane::vhost_user::EndpointHandover;
use labsw_switch::fdb::FdbEntry;
use labsw_switch::{DropReason, Mac, Vid};
use serde::{Deserialize, Serialize};

/// One word of the conversation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub enum Message {
    /// The new process asks for the switch.
    Hello {
        /// Its version.
        program: String,
    },
    /// Either side does not go on.
    Refused {
        /// One line for people.
        reason: String,
    },
    /// The configuration that runs, and what the switch was last given, as texts.
    Welcome {
        /// What runs.
        config: String,
        /// What was given: the difference was changed at run time.
        given: String,
    },
    /// The new process is ready for the state.
    Prepare,
    /// Everything that does not change any more, or is renewed by [`Last`].
    State(Box<State>),
    /// The new process could go on.
    Ready,
    /// The rest; the old workers stand still.
    Last(Box<Last>),
    /// The new process has the rest, too.
    Prepared,
    /// The switch is the new process's.
    Go,
    /// The new workers run.
    Running,
}

impl Message {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello { .. } => "hello",
            Message::Refused { .. } => "refused",
            Message::Welcome { .. } => "welcome",
            Message::Prepare => "prepare",
            Message::State(_) => "state",
            Message::Ready => "ready",
            Message::Last(_) => "last",
            Message::Prepared => "prepared",
            Message::Go => "go",
            Message::Running => "running",
        }
    }
}

/// The switch, while its workers go on.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// The configuration that runs, as a text.
    pub config: String,
    /// The listening control socket.
    pub control: Slot,
    /// The listening socket for take-overs.
    pub take_over: Slot,
    /// The listening socket for metrics.
    pub metrics: Option<Slot>,
    /// The ports.
    pub ports: BTreeMap<String, PortState>,
    /// The forwarding database.
    pub fdb: Vec<FdbRecord>,
}

/// One port.
#[derive(Debug, Serialize, Deserialize)]
pub struct PortState {
    /// It is switched on.
    pub enabled: bool,
    /// The workers that its queues are pinned to.
    pub pins: Vec<Option<usize>>,
    /// What it is attached to; `None` while it waits for that.
    pub attached: Option<PortHandover>,
}

/// What a port is attached to, by type.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortHandover {
    /// A guest's socket.
    VhostUser(EndpointHandover),
    /// A TAP interface.
    Tap {
        /// Its descriptors.
        port: TapHandover,
        /// Index of the interface.
        ifindex: u32,
        /// Its name.
        name: String,
        /// It was made to stay, and goes with the port.
        ours: bool,
        /// It was there before the port.
        found: bool,
        /// It is in another network namespace.
        away: bool,
    },
}

/// What changed since [`State`], and all counters.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Last {
    /// Of ports.
    pub counters: BTreeMap<String, PortCounters>,
    /// Of mirror sessions.
    pub mirrors: BTreeMap<String, MirrorCounters>,
    /// Copies of mirrors that wait for room, by port.
    #[serde(default)]
    pub backlogs: BTreeMap<String, Vec<KeptFrame>>,
    /// Addresses that the forwarding database has no more.
    pub forgotten: Vec<(u16, u64)>,
    /// Entries that are new, or on another port.
    pub learned: Vec<FdbRecord>,
}

/// The counters of a port.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    rx_frames: u64,
    rx_bytes: u64,
    tx_frames: u64,
    tx_bytes: u64,
    /// By name, those that are not 0.
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
    /// As they are counted here; reasons that this version does not have are left out.
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
    /// As they are counted here.
    pub fn snapshot(&self) -> MirrorSnapshot {
        let &MirrorCounters { matched, sent, dropped, truncated } = self;
        MirrorSnapshot { matched, sent, dropped, truncated }
    }
}

/// A frame that waits.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFrame {
    /// The worker that kept it.
    worker: usize,
    /// In base64.
    frame: String,
}

impl KeptFrame {
    /// These frames.
    pub fn list(frames: Vec<(usize, Vec<u8>)>) -> Vec<KeptFrame> {
        frames.into_iter().map(|(worker, frame)| KeptFrame { worker, frame: STANDARD.encode(frame) }).collect()
    }

    /// The worker and the frame; `None`: it is garbled.
    pub fn bytes(&self) -> Option<(usize, Vec<u8>)> {
        Some((self.worker, STANDARD.decode(&self.frame).ok()?))
    }
}

/// One entry of the forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRecord {
    /// VLAN.
    pub vid: u16,
    /// Address, as [`Mac::to_u64`] has it.
    pub mac: u64,
    /// Name of the port.
    pub port: String,
    /// Added by hand.
    pub is_static: bool,
    /// Seconds since it was seen.
    pub age: u32,
}

impl FdbRecord {
    /// Of an entry on the port of this name.
    pub fn new(entry: &FdbEntry, port: &str) -> FdbRecord {
        let &FdbEntry { vid, mac, is_static, age_seconds, .. } = entry;
        FdbRecord { vid: vid.get(), mac: mac.to_u64(), port: port.to_owned(), is_static, age: age_seconds }
    }

    /// Its key in the database; `None`: no VLAN has this number.
    pub fn key(&self) -> Option<(Vid, Mac)> {
        Some((Vid::try_from(self.vid).ok()?, Mac::from_u64(self.mac)))
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
