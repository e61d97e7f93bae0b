//! `labsw-ctl mirror`.

use clap::{Args, Subcommand};
use labsw_switch::{Mac, Vid};

use super::parse;
use super::table::{Screen, list, notes, number, state, text};
use crate::api::{Change, Inject, Mirror, MirrorSettings, Request, Source};
use crate::model::{FrameRate, InjectSource, VlanId};

/// The commands for mirrors.
#[derive(Debug, Default, Subcommand)]
pub(super) enum Command {
    /// Makes a mirror, or changes the given settings of one.
    Set(Set),
    /// Makes a mirror, or replaces the settings of one; settings that are not given are unset.
    Replace(Set),
    /// Lists the mirrors.
    #[command(visible_alias = "ls")]
    #[default]
    List,
    /// Shows one mirror.
    Show {
        /// Name of the mirror.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Removes mirrors.
    #[command(visible_alias = "rm")]
    Del {
        /// Names of the mirrors.
        #[arg(required = true, value_name = "NAME", value_parser = parse::name)]
        names: Vec<String>,
        /// A mirror that does not exist is no error.
        #[arg(long)]
        if_exists: bool,
    },
}

/// A mirror to make.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name of the mirror.
    #[arg(value_parser = parse::name)]
    name: String,
    /// A port to mirror: frames from the port (rx), to the port (tx), or both; may be given several times. "*" is every
    /// port.
    #[arg(long = "source", value_name = "PORT[:rx|:tx|:both]")]
    sources: Vec<Source>,
    /// Only frames of this VLAN; may be given several times.
    #[arg(long = "vlan", value_name = "N", value_parser = parse::vlan, conflicts_with = "all_vlans")]
    vlans: Vec<u16>,
    /// Mirror frames of every VLAN again.
    #[arg(long)]
    all_vlans: bool,
    /// Only frames that match this expression in tcpdump's syntax, as in "tcp port 445 or arp".
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Copy only this many bytes of each frame; 0: all.
    #[arg(long, value_name = "N")]
    snaplen: Option<u32>,
    /// The port that the copies are sent to; it takes no other traffic.
    #[arg(long, value_name = "PORT", value_parser = parse::name, conflicts_with = "to_vlan")]
    to: Option<String>,
    /// Send the copies tagged with this VLAN, at every port that names the VLAN in its trunks (RSPAN), in place of
    /// --to.
    #[arg(long, value_name = "N", value_parser = parse::vlan)]
    to_vlan: Option<u16>,
    /// Take the VLAN even if it is the VLAN of untagged frames at a port; that port is then cut off.
    #[arg(long, conflicts_with = "to")]
    force: bool,
    #[command(flatten)]
    inject: InjectArguments,
}

/// The frames that the destination may inject.
#[derive(Debug, Args)]
struct InjectArguments {
    /// Let frames from the destination port enter in this VLAN; without this and --inject-as they are dropped.
    #[arg(long = "inject-vlan", value_name = "N", value_parser = parse::vlan, conflicts_with = "as_port")]
    vlan: Option<u16>,
    /// Let frames from the destination port enter as if received on this port.
    #[arg(long = "inject-as", id = "as_port", value_name = "PORT", value_parser = parse::name)]
    as_port: Option<String>,
    /// The highest rate of injected frames: 500pps, 10kpps, 1Mpps. [default: 10kpps]
    #[arg(long = "inject-rate", id = "inject_rate", value_name = "RATE", value_parser = parse::unit::<FrameRate>)]
    rate: Option<FrameRate>,
    /// Let only frames with this source address enter; may be given several times.
    #[arg(long = "inject-source", id = "inject_source", value_name = "MAC", value_parser = parse::unicast_mac)]
    sources: Vec<Mac>,
}

impl InjectArguments {
    fn given(self) -> Option<Inject> {
        let InjectArguments { vlan, as_port, rate, sources } = self;
        let vlan = vlan.and_then(|vlan| Vid::try_from(vlan).ok()).map(VlanId);
        let sources = sources.into_iter().map(InjectSource).collect();
        let inject = Inject { vlan, as_port, rate, sources };
        Some(inject).filter(|inject| *inject != Inject::default())
    }
}

impl Set {
    fn request(self, replace: bool) -> Request {
        let given = |vlans: Vec<u16>| Some(vlans).filter(|vlans| self.all_vlans || !vlans.is_empty());
        Request::Change(Change::SetMirror(MirrorSettings {
            name: self.name,
            sources: Some(self.sources).filter(|sources| !sources.is_empty()),
            vlans: given(self.vlans),
            filter: self.filter,
            snaplen: self.snaplen,
            to: self.to,
            to_vlan: self.to_vlan,
            force: Some(true).filter(|_| self.force),
            inject: self.inject.given(),
            replace,
        }))
    }
}

impl Command {
    /// The requests of this command, one for each mirror to remove.
    pub(super) fn requests(self) -> Vec<Request> {
        let request = match self {
            Command::Set(set) => set.request(false),
            Command::Replace(set) => set.request(true),
            Command::List => Request::ListMirrors,
            Command::Show { name } => Request::ShowMirror { name },
            Command::Del { names, .. } => {
                return names.into_iter().map(|name| Request::Change(Change::DeleteMirror { name })).collect();
            }
        };
        vec![request]
    }

    /// True if a mirror that does not exist is no error.
    pub(super) fn if_exists(&self) -> bool {
        matches!(self, Command::Del { if_exists: true, .. })
    }
}

/// The mirrors.
pub(super) fn table(screen: Screen, mirrors: &[Mirror]) -> String {
    let row = |mirror: &Mirror| {
        vec![
            text(&mirror.name),
            state(mirror.state),
            text(list(&mirror.sources, "-")),
            text(list(&mirror.vlans, "all")),
            text(mirror.filter.as_deref().unwrap_or("all")),
            text(mirror.destination()),
            number(mirror.matched),
            number(mirror.sent),
            number(mirror.dropped),
            notes(mirror.reason.as_deref().unwrap_or_default()),
        ]
    };
    let headings = ["name", "state", "sources", "vlans", "filter", "to", "matched", "sent", "dropped", "reason"];
    screen.rows(&headings, mirrors.iter().map(row).collect(), "no mirrors")
}

/// One mirror in full.
pub(super) fn details(screen: Screen, mirror: &Mirror) -> String {
    let snaplen = if mirror.snaplen == 0 { "whole frames".to_owned() } else { format!("{} bytes", mirror.snaplen) };
    let mut lines = vec![("name", mirror.name.clone()), ("state", mirror.state.to_string())];
    lines.extend(mirror.reason.clone().map(|reason| ("reason", reason)));
    lines.extend([
        ("sources", list(&mirror.sources, "-")),
        ("vlans", list(&mirror.vlans, "all")),
        ("filter", mirror.filter.clone().unwrap_or_else(|| "all frames".to_owned())),
        ("to", mirror.destination() + if mirror.force { " (forced)" } else { "" }),
        ("snaplen", snaplen),
    ]);
    lines.extend(mirror.inject.as_ref().map(|inject| ("inject", injected(inject))));
    lines.extend([
        ("matched", mirror.matched.to_string()),
        ("sent", mirror.sent.to_string()),
        ("dropped", mirror.dropped.to_string()),
        ("truncated", mirror.truncated.to_string()),
    ]);
    screen.pairs(lines)
}

/// The `inject` settings on one line.
fn injected(inject: &Inject) -> String {
    let entry = match (inject.vlan, &inject.as_port) {
        (Some(vlan), _) => format!("into VLAN {vlan}"),
        (None, Some(port)) => format!("as port {port}"),
        (None, None) => "-".to_owned(),
    };
    let rate = inject.rate.map_or_else(|| "-".to_owned(), |rate| rate.to_string());
    let sources = if inject.sources.is_empty() {
        String::new()
    } else {
        format!(", from {}", list(inject.sources.iter().map(|source| source.0), "-"))
    };
    format!("{entry}, at most {rate}{sources}")
}
