//! `labsw-ctl mirror`.

use clap::{Args, Subcommand};

use super::parse;
use super::table::{list, number, pairs, rows, shortened, text};
use crate::api::{Change, Mirror, Request, Source};

/// What can be done with mirrors.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes a mirror, or replaces the one of this name.
    Set(Set),
    /// Lists the mirrors.
    List,
    /// Shows one mirror.
    Show {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Removes a mirror.
    Del {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

/// A mirror to make.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name of the mirror.
    #[arg(value_parser = parse::name)]
    name: String,
    /// A port whose frames are copied: what it sends (rx), what it gets (tx), or both. "*" is every port.
    #[arg(long = "source", required = true, value_name = "PORT[:rx|:tx|:both]")]
    sources: Vec<Source>,
    /// Only frames of this VLAN.
    #[arg(long = "vlan", value_name = "N", value_parser = parse::vlan)]
    vlans: Vec<u16>,
    /// Copy only so many bytes of each frame; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    snaplen: u32,
    /// The port the copies are sent to.
    #[arg(long, value_name = "PORT", value_parser = parse::name)]
    to: String,
}

impl Command {
    /// The request this command makes.
    pub(super) fn request(self) -> Request {
        match self {
            Command::Set(Set { name, sources, vlans, snaplen, to }) => {
                Request::Change(Change::SetMirror { name, sources, vlans, snaplen, to })
            }
            Command::List => Request::ListMirrors,
            Command::Show { name } => Request::ShowMirror { name },
            Command::Del { name } => Request::Change(Change::DeleteMirror { name }),
        }
    }
}

/// The mirrors.
pub(super) fn table(mirrors: &[Mirror]) -> String {
    let row = |mirror: &Mirror| {
        vec![
            text(&mirror.name),
            text(mirror.state),
            text(shortened(&list(&mirror.sources, "-"), 24)),
            text(shortened(&list(&mirror.vlans, "all"), 12)),
            text(&mirror.to),
            number(mirror.matched),
            number(mirror.sent),
            number(mirror.dropped),
            text(mirror.reason.as_deref().unwrap_or_default()),
        ]
    };
    let headings = ["name", "state", "sources", "vlans", "to", "matched", "sent", "dropped", "reason"];
    rows(&headings, mirrors.iter().map(row).collect(), "no mirrors")
}

/// One mirror in full.
pub(super) fn details(mirror: &Mirror) -> String {
    let snaplen = if mirror.snaplen == 0 { "whole frames".to_owned() } else { format!("{} bytes", mirror.snaplen) };
    let mut lines = vec![("name", mirror.name.clone()), ("state", mirror.state.to_string())];
    lines.extend(mirror.reason.clone().map(|reason| ("reason", reason)));
    lines.extend([
        ("sources", list(&mirror.sources, "-")),
        ("vlans", list(&mirror.vlans, "all")),
        ("to", mirror.to.clone()),
        ("snaplen", snaplen),
        ("matched", mirror.matched.to_string()),
        ("sent", mirror.sent.to_string()),
        ("dropped", mirror.dropped.to_string()),
        ("truncated", mirror.truncated.to_string()),
    ]);
    pairs(lines)
}
