//! `labsw-ctl impair`.

use std::collections::BTreeMap;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::parse;
use super::table::{number, rows, text};
use crate::api::{Change, Impairment, PortDirection, Request};

/// What can be done with impairments.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes the link of a port a bad one; what was set before in that direction is replaced.
    Set(Box<Set>),
    /// Lists the impairments.
    List,
    /// Makes the link of a port a good one again.
    Clear {
        /// Name of the port.
        #[arg(value_parser = parse::name)]
        port: String,
        /// Only frames from the port (rx), or to it (tx).
        #[arg(long, value_name = "rx|tx", value_parser = direction())]
        direction: Option<PortDirection>,
    },
}

/// An impairment to set.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name of the port.
    #[arg(value_parser = parse::name)]
    port: String,
    /// Begin with this profile: default, constrained, lossy, or one of the configuration.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Frames from the port (rx), to the port (tx), or both, which is the default.
    #[arg(long, value_name = "rx|tx|both")]
    direction: Option<String>,
    /// Only frames that match, as in "tcp port 445"; others pass.
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// How long a frame is under way, as in 20ms.
    #[arg(long, value_name = "T")]
    delay: Option<String>,
    /// By how much that varies to either side, as in 5ms.
    #[arg(long, value_name = "T")]
    jitter: Option<String>,
    /// The share of frames lost at random, as in 5%.
    #[arg(long, value_name = "P%")]
    loss: Option<String>,
    /// Loss in bursts (Gilbert-Elliott), as in "1% 25%": from good to bad, from bad to good, loss when bad, loss when good.
    #[arg(long, value_name = "P%…")]
    gemodel: Option<String>,
    /// The share of frames that arrive twice.
    #[arg(long, value_name = "P%")]
    duplicate: Option<String>,
    /// The share of frames that are not delayed and overtake.
    #[arg(long, value_name = "P%")]
    reorder: Option<String>,
    /// The share of frames with one wrong bit.
    #[arg(long, value_name = "P%")]
    corrupt: Option<String>,
    /// Bits per second, as in 10mbit.
    #[arg(long, value_name = "R")]
    rate: Option<String>,
    /// Frames that may wait for the rate.
    #[arg(long, value_name = "N")]
    queue_frames: Option<String>,
    /// Bytes that may wait for the rate.
    #[arg(long, value_name = "N")]
    queue_bytes: Option<String>,
    /// What chance comes from: with the same seed the same frames are hit.
    #[arg(long, value_name = "N")]
    seed: Option<String>,
}

fn direction() -> impl TypedValueParser<Value = PortDirection> {
    PossibleValuesParser::new(PortDirection::ALL.map(PortDirection::name)).try_map(|name| {
        PortDirection::ALL.into_iter().find(|direction| direction.name() == name).ok_or("not a direction")
    })
}

impl Command {
    /// The request this command makes.
    pub(super) fn request(self) -> Request {
        match self {
            Command::Set(set) => set.request(),
            Command::List => Request::ListImpairments,
            Command::Clear { port, direction } => Request::Change(Change::ClearImpairment { port, direction }),
        }
    }
}

impl Set {
    fn request(self) -> Request {
        let settings = [
            ("profile", self.profile),
            ("direction", self.direction),
            ("filter", self.filter),
            ("delay", self.delay),
            ("jitter", self.jitter),
            ("loss", self.loss),
            ("gemodel", self.gemodel),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("corrupt", self.corrupt),
            ("rate", self.rate),
            ("queue_frames", self.queue_frames),
            ("queue_bytes", self.queue_bytes),
            ("seed", self.seed),
        ];
        let given = settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let settings: BTreeMap<String, String> = given.collect();
        Request::Change(Change::SetImpairment { port: self.port, settings })
    }
}

/// The impairments.
pub(super) fn table(impairments: &[Impairment]) -> String {
    let row = |impairment: &Impairment| {
        let settings = impairment.settings().into_iter().map(|(name, value)| format!("{name} {value}"));
        let settings: Vec<String> = settings.collect();
        vec![
            text(&impairment.port),
            text(impairment.direction),
            text(impairment.profile.as_deref().unwrap_or("-")),
            number(impairment.seed),
            number(impairment.frames),
            number(impairment.delayed),
            number(impairment.lost),
            number(impairment.duplicated),
            number(impairment.corrupted),
            text(if settings.is_empty() { "nothing".to_owned() } else { settings.join(", ") }),
        ]
    };
    let headings = [
        "port",
        "direction",
        "profile",
        "seed",
        "frames",
        "delayed",
        "lost",
        "duplicated",
        "corrupted",
        "what happens",
    ];
    rows(&headings, impairments.iter().map(row).collect(), "no impairments")
}
