//! `labsw-ctl inline`.

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};

use super::parse;
use super::table::{Screen, notes, state, text};
use crate::api::{Change, Inline, InlineSettings, Request};
use crate::model::OnFailure;

/// The commands for sensors in the wires of ports.
#[derive(Debug, Default, Subcommand)]
pub(super) enum Command {
    /// Puts a sensor into the wire of a port, or changes the given settings of one.
    Set(Set),
    /// Puts a sensor into the wire of a port, or replaces the settings of one.
    Replace(Set),
    /// Lists the sensors.
    #[command(visible_alias = "ls")]
    #[default]
    List,
    /// Shows one sensor.
    Show {
        /// Name of the sensor.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Takes sensors out of the wires of ports.
    #[command(visible_alias = "rm")]
    Del {
        /// Names of the sensors.
        #[arg(required = true, value_name = "NAME", value_parser = parse::name)]
        names: Vec<String>,
        /// A sensor that does not exist is no error.
        #[arg(long)]
        if_exists: bool,
    },
}

/// A sensor to set.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name of the sensor.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The port in whose wire the sensor is: all its frames go through the sensor, both ways.
    #[arg(long, value_name = "PORT", value_parser = parse::name)]
    of: Option<String>,
    /// The sensor's two ports: the one on the side of that port, then the one on the side of the switch.
    #[arg(long, value_name = "PORT,PORT", value_delimiter = ',', num_args = 1, value_parser = parse::name)]
    through: Vec<String>,
    /// While the sensor lets no frames pass: send them past it (open), or drop them (closed).
    #[arg(long, value_name = "WAY")]
    on_failure: Option<OnFailure>,
}

impl ValueEnum for OnFailure {
    fn value_variants<'a>() -> &'a [OnFailure] {
        &OnFailure::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl Set {
    fn request(self, replace: bool) -> Request {
        let Set { name, of, through, on_failure } = self;
        let through = Some(through).filter(|ports| !ports.is_empty());
        Request::Change(Change::SetInline(InlineSettings { name, of, through, on_failure, replace }))
    }
}

impl Command {
    /// The requests of this command, one for each sensor to take out.
    pub(super) fn requests(self) -> Vec<Request> {
        let request = match self {
            Command::Set(set) => set.request(false),
            Command::Replace(set) => set.request(true),
            Command::List => Request::ListInlines,
            Command::Show { name } => Request::ShowInline { name },
            Command::Del { names, .. } => {
                return names.into_iter().map(|name| Request::Change(Change::DeleteInline { name })).collect();
            }
        };
        vec![request]
    }

    /// True if a sensor that does not exist is no error.
    pub(super) fn if_exists(&self) -> bool {
        matches!(self, Command::Del { if_exists: true, .. })
    }
}

/// The sensors.
pub(super) fn table(screen: Screen, inlines: &[Inline]) -> String {
    let row = |inline: &Inline| {
        vec![
            text(&inline.name),
            state(inline.state),
            text(&inline.of),
            text(inline.through.join(", ")),
            text(inline.on_failure),
            notes(inline.reason.as_deref().unwrap_or_default()),
        ]
    };
    let headings = ["name", "state", "of", "through", "on failure", "reason"];
    screen.rows(&headings, inlines.iter().map(row).collect(), "no sensors inline")
}

/// One sensor in full.
pub(super) fn details(screen: Screen, inline: &Inline) -> String {
    let mut lines = vec![("name", inline.name.clone()), ("state", inline.state.to_string())];
    lines.extend(inline.reason.clone().map(|reason| ("reason", reason)));
    lines.extend([
        ("of", inline.of.clone()),
        ("through", inline.through.join(", ")),
        ("on failure", inline.on_failure.to_string()),
    ]);
    screen.pairs(lines)
}
