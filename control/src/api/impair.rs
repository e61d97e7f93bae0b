//! Impairments as they are shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::ImpairSettings;

/// A direction of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortDirection {
    /// From the port.
    #[default]
    Rx,
    /// To the port.
    Tx,
}

impl PortDirection {
    /// Both of them.
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

/// The impairment of one direction of a port. What is not set is null; the others are written as in the configuration.
/// Counters begin at 0 when it is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// Name of the port.
    pub port: String,
    /// Whether it is about frames from the port or to it.
    pub direction: PortDirection,
    /// The profile it began with.
    pub profile: Option<String>,
    /// The frames it is for, in tcpdump's syntax; null: all.
    pub filter: Option<String>,
    /// The seed in use, given or not.
    pub seed: u32,
    /// How long a frame is under way.
    pub delay: Option<String>,
    /// By how much that varies.
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
    /// Bits per second.
    pub rate: Option<String>,
    /// Frames that may wait for the rate; null: 1000.
    pub queue_frames: Option<String>,
    /// Bytes that may wait for the rate; null: 1514000.
    pub queue_bytes: Option<String>,
    /// Frames it decided about.
    pub frames: u64,
    /// Those that were kept for some time.
    pub delayed: u64,
    /// Those lost by `loss` or `gemodel`.
    pub lost: u64,
    /// Those that got a copy.
    pub duplicated: u64,
    /// Those that passed with a wrong bit.
    pub corrupted: u64,
    /// Those that were let overtake.
    pub reordered: u64,
    /// Those that found the queue of `rate` full.
    pub queue_full: u64,
}

impl Impairment {
    /// The settings that are set, by name.
    pub fn settings(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("delay", &self.delay),
            ("jitter", &self.jitter),
            ("loss", &self.loss),
            ("gemodel", &self.gemodel),
            ("duplicate", &self.duplicate),
            ("reorder", &self.reorder),
            ("corrupt", &self.corrupt),
            ("rate", &self.rate),
            ("queue_frames", &self.queue_frames),
            ("queue_bytes", &self.queue_bytes),
            ("filter", &self.filter),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    /// Shows these settings.
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
        self.queue_frames = text(settings.queue_frames);
        self.queue_bytes = text(settings.queue_bytes);
    }
}
