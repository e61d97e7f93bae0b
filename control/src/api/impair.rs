//! Impairments, as replies show them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::ImpairSettings;

/// A direction of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortDirection {
    /// Frames from the port.
    #[default]
    Rx,
    /// Frames to the port.
    Tx,
}

impl PortDirection {
    /// Both directions.
    pub const ALL: [PortDirection; 2] = [PortDirection::Rx, PortDirection::Tx];

    /// The name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            PortDirection::Rx => "rx",
            PortDirection::Tx => "tx",
        }
    }
}

impl fmt::Display for PortDirection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// The impairment of one direction of a port. A setting that is not set is null; the others are written as in the
/// configuration. The counters start at 0 when the impairment is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// Name of the port.
    pub port: String,
    /// The direction of the impaired frames, from the port or to it.
    pub direction: PortDirection,
    /// The profile that the settings began with.
    pub profile: Option<String>,
    /// The frames that are impaired, in tcpdump's syntax; null: all.
    pub filter: Option<String>,
    /// The seed in use, given or random.
    pub seed: u32,
    /// The time by which a frame is delayed.
    pub delay: Option<String>,
    /// The variation of the delay to either side.
    pub jitter: Option<String>,
    /// The share of frames lost at random.
    pub loss: Option<String>,
    /// The model by which frames are lost in bursts.
    pub gemodel: Option<String>,
    /// The share of frames that arrive twice.
    pub duplicate: Option<String>,
    /// The share of frames that overtake.
    pub reorder: Option<String>,
    /// The share of frames with a wrong bit.
    pub corrupt: Option<String>,
    /// Bits per second, or rates that follow one another.
    pub rate: Option<String>,
    /// Frames that may wait for the rate; null: 1000.
    pub queue_frames: Option<u32>,
    /// Bytes that may wait for the rate; null: 1514000.
    pub queue_bytes: Option<u32>,
    /// The time in which all frames are lost.
    pub outage: Option<String>,
    /// The data segment of each TCP connection that is lost.
    pub lose_segment: Option<u32>,
    /// How many of its retransmissions are lost, too; null: none.
    pub lose_retransmissions: Option<u32>,
    /// Frames that the impairment was applied to.
    pub frames: u64,
    /// Frames that were delayed.
    pub delayed: u64,
    /// Frames lost by `loss`, `gemodel`, `outage` or `lose_segment`.
    pub lost: u64,
    /// Frames that were duplicated.
    pub duplicated: u64,
    /// Frames that passed with a wrong bit.
    pub corrupted: u64,
    /// Frames that overtook others.
    pub reordered: u64,
    /// Frames that found the queue of `rate` full.
    pub queue_full: u64,
}

impl Impairment {
    /// The settings that are set, by name.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let numbers = [self.queue_frames, self.queue_bytes, self.lose_segment, self.lose_retransmissions];
        let [queue_frames, queue_bytes, lose_segment, lose_retransmissions] =
            &numbers.map(|number| number.map(|number| number.to_string()));
        let all = [
            ("delay", &self.delay),
            ("jitter", &self.jitter),
            ("loss", &self.loss),
            ("gemodel", &self.gemodel),
            ("duplicate", &self.duplicate),
            ("reorder", &self.reorder),
            ("corrupt", &self.corrupt),
            ("rate", &self.rate),
            ("queue_frames", queue_frames),
            ("queue_bytes", queue_bytes),
            ("outage", &self.outage),
            ("lose_segment", lose_segment),
            ("lose_retransmissions", lose_retransmissions),
            ("filter", &self.filter),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    /// Fills in these settings.
    pub fn set(&mut self, settings: &ImpairSettings) {
        fn text<T: ToString>(value: Option<T>) -> Option<String> {
            value.map(|value| value.to_string())
        }
        self.delay = text(settings.delay);
        self.jitter = text(settings.jitter);
        self.loss = text(settings.loss);
        self.gemodel = text(settings.gemodel);
        self.duplicate = text(settings.duplicate);
        self.reorder = text(settings.reorder);
        self.corrupt = text(settings.corrupt);
        self.rate = text(settings.rate);
        self.queue_frames = settings.queue_frames;
        self.queue_bytes = settings.queue_bytes;
        self.outage = text(settings.outage);
        self.lose_segment = settings.lose_segment;
        self.lose_retransmissions = settings.lose_retransmissions;
    }
}
