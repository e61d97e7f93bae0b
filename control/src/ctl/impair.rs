//! `labsw-ctl impair`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::json;

use super::label::{Label, TimelineFile};
use super::parse;
use super::session::Failure;
use super::table::{Screen, number, text};
use crate::api::{Change, Impairment, PortDirection, Request};
use crate::model::{Bursts, ChangingRate, OutageTime, Share, Span};
use crate::score::time::Time;

/// The commands for impairments.
#[derive(Clone, Debug, Default, Subcommand)]
pub(super) enum Command {
    /// Impairs a port, or changes the given settings of its impairment; a profile replaces all settings.
    Set(Box<Set>),
    /// Impairs a port; settings of the direction that are not given are unset.
    Replace(Box<Set>),
    /// Lists the impairments.
    #[command(visible_alias = "ls")]
    #[default]
    List,
    /// Ends the impairment of a port.
    Clear {
        /// Name of the port.
        #[arg(value_parser = parse::name)]
        port: String,
        /// Only frames from the port (rx), or to the port (tx).
        #[arg(long, value_name = "rx|tx", value_parser = direction())]
        direction: Option<PortDirection>,
        /// A port without an impairment is no error.
        #[arg(long)]
        if_exists: bool,
        #[command(flatten)]
        timeline: TimelineFile,
    },
}

/// An impairment to set.
#[derive(Clone, Debug, Args)]
pub(super) struct Set {
    /// Name of the port.
    #[arg(value_parser = parse::name)]
    port: String,
    /// Begin with this profile: default, constrained, lossy, or one of the configuration.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Frames from the port (rx), to the port (tx), or both (the default).
    #[arg(long, value_name = "rx|tx|both", value_parser = ["rx", "tx", "both"])]
    direction: Option<String>,
    /// Impair only frames that match, as in "tcp port 445"; others pass.
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Delay each frame by this time, as in 20ms.
    #[arg(long, value_name = "T", value_parser = parse::unit::<Span>)]
    delay: Option<Span>,
    /// Vary the delay to either side by up to this time, as in 5ms.
    #[arg(long, value_name = "T", value_parser = parse::unit::<Span>)]
    jitter: Option<Span>,
    /// The share of frames lost at random, as in 5%.
    #[arg(long, value_name = "P%", value_parser = parse::unit::<Share>)]
    loss: Option<Share>,
    /// Loss in bursts (Gilbert-Elliott), as in "1% 25%": the chances to go from good to bad, from bad to good, to lose
    /// a frame when bad, and when good.
    #[arg(long, value_name = "P%…", value_parser = parse::unit::<Bursts>)]
    gemodel: Option<Bursts>,
    /// The share of frames that arrive twice.
    #[arg(long, value_name = "P%", value_parser = parse::unit::<Share>)]
    duplicate: Option<Share>,
    /// The share of frames that are not delayed and overtake.
    #[arg(long, value_name = "P%", value_parser = parse::unit::<Share>)]
    reorder: Option<Share>,
    /// The share of frames with one wrong bit.
    #[arg(long, value_name = "P%", value_parser = parse::unit::<Share>)]
    corrupt: Option<Share>,
    /// The rate of the link in bits per second, as in 10mbit, or rates in turn: "10mbit for 5s, 1mbit for 2s".
    #[arg(long, value_name = "R", value_parser = parse::unit::<ChangingRate>)]
    rate: Option<ChangingRate>,
    /// Frames that may wait for the rate.
    #[arg(long, value_name = "N")]
    queue_frames: Option<u32>,
    /// Bytes that may wait for the rate.
    #[arg(long, value_name = "N")]
    queue_bytes: Option<u32>,
    /// Lose all frames once: "5s after 10s" is for 5 seconds, from 10 seconds after this command.
    #[arg(long, value_name = "T [after T]", value_parser = parse::unit::<OutageTime>)]
    outage: Option<OutageTime>,
    /// The data segment of each TCP connection that is lost, counted from 1.
    #[arg(long, value_name = "N")]
    lose_segment: Option<u32>,
    /// How many retransmissions of that segment are lost, too.
    #[arg(long, value_name = "N")]
    lose_retransmissions: Option<u32>,
    /// Seed of the random numbers: the same seed hits the same frames.
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    #[command(flatten)]
    label: Label,
}

fn direction() -> impl TypedValueParser<Value = PortDirection> {
    PossibleValuesParser::new(PortDirection::ALL.map(PortDirection::name)).try_map(|name| {
        PortDirection::ALL.into_iter().find(|direction| direction.name() == name).ok_or("not a direction")
    })
}

impl Command {
    /// The request of this command.
    pub(super) fn request(&self) -> Request {
        match self.clone() {
            Command::Set(set) => set.request(false),
            Command::Replace(set) => set.request(true),
            Command::List => Request::ListImpairments,
            Command::Clear { port, direction, .. } => Request::Change(Change::ClearImpairment { port, direction }),
        }
    }
}

impl Command {
    /// Writes into a timeline that an impairment began or ended, if the command says so; to be called once it has.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn note(&self, at: Time) -> Result<(), Failure> {
        match self {
            Command::Set(set) | Command::Replace(set) => set.label.note("impairment", &set.port, at, None),
            Command::Clear { port, timeline, .. } => timeline.end("impairment", port),
            Command::List => Ok(()),
        }
    }

    /// True if a thing that does not exist is no error.
    pub(super) fn if_exists(&self) -> bool {
        matches!(self, Command::Clear { if_exists: true, .. })
    }
}

impl Set {
    fn request(self, replace: bool) -> Request {
        let settings = [
            ("profile", self.profile.map(|value| json!(value))),
            ("direction", self.direction.map(|value| json!(value))),
            ("filter", self.filter.map(|value| json!(value))),
            ("delay", self.delay.map(|value| json!(value))),
            ("jitter", self.jitter.map(|value| json!(value))),
            ("loss", self.loss.map(|value| json!(value))),
            ("gemodel", self.gemodel.map(|value| json!(value))),
            ("duplicate", self.duplicate.map(|value| json!(value))),
            ("reorder", self.reorder.map(|value| json!(value))),
            ("corrupt", self.corrupt.map(|value| json!(value))),
            ("rate", self.rate.map(|value| json!(value))),
            ("queue_frames", self.queue_frames.map(|value| json!(value))),
            ("queue_bytes", self.queue_bytes.map(|value| json!(value))),
            ("outage", self.outage.map(|value| json!(value))),
            ("lose_segment", self.lose_segment.map(|value| json!(value))),
            ("lose_retransmissions", self.lose_retransmissions.map(|value| json!(value))),
            ("seed", self.seed.map(|value| json!(value))),
        ];
        let given = settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let settings = given.collect();
        Request::Change(Change::SetImpairment { port: self.port, settings, replace })
    }
}

/// The impairments.
pub(super) fn table(screen: Screen, impairments: &[Impairment]) -> String {
    let row = |impairment: &Impairment| {
        let settings = impairment.settings().into_iter().map(|(name, value)| format!("{name} {value}"));
        let settings: Vec<String> = settings.collect();
        vec![
            text(&impairment.port),
            text(impairment.direction),
            text(impairment.profile.as_deref().unwrap_or("-")),
            number(impairment.settings.seed.unwrap_or_default()),
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
    screen.rows(&headings, impairments.iter().map(row).collect(), "no impairments")
}
