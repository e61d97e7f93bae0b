//! `labsw-ctl mirror`.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use labsw_switch::{Mac, Vid};

use super::parse;
use super::session::{Failure, Session};
use super::table::{Screen, list, notes, number, one_line, state, text};
use crate::api::{Change, Inject, Mirror, MirrorSettings, OneMirror, Reply, Request, Source};
use crate::model::{Address, FrameRate, InjectSource, Remote, RemoteKind, Station, VlanId};

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
    remote: RemoteArguments,
    #[command(flatten)]
    inject: InjectArguments,
}

/// The other machine that copies go to.
#[derive(Debug, Args)]
struct RemoteArguments {
    /// Send the copies to this IP address, as ERSPAN type II, in place of --to.
    #[arg(long, value_name = "ADDRESS", requires_all = ["by", "from", "id"], conflicts_with_all = ["vxlan", "to", "to_vlan"])]
    erspan: Option<Address>,
    /// Send the copies to this IP address, in VXLAN, in place of --to.
    #[arg(long, value_name = "ADDRESS", requires_all = ["by", "from", "id"], conflicts_with_all = ["to", "to_vlan"])]
    vxlan: Option<Address>,
    /// The port that they leave by; it takes no other traffic.
    #[arg(long, value_name = "PORT", value_parser = parse::name)]
    by: Option<String>,
    /// The IP address that they come from.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<Address>,
    /// The session id of ERSPAN (0 to 1023), or the network identifier of VXLAN.
    #[arg(long, value_name = "N")]
    id: Option<u32>,
    /// The IP address of the next hop, which is asked for its MAC address; left out: that of the receiver.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "next_hop_mac")]
    next_hop: Option<Address>,
    /// The MAC address of the next hop, which is then not asked for.
    #[arg(long, value_name = "MAC", value_parser = parse::unicast_mac)]
    next_hop_mac: Option<Mac>,
    /// The VLAN tag that they leave with.
    #[arg(long, value_name = "N", value_parser = parse::vlan)]
    outer_vlan: Option<u16>,
    /// Take the outer VLAN tag out of the copies.
    #[arg(long)]
    strip_tag: bool,
}

impl RemoteArguments {
    fn given(self) -> Option<Remote> {
        let (kind, destination) = match (self.erspan, self.vxlan) {
            (Some(destination), _) => (RemoteKind::Erspan, destination),
            (None, Some(destination)) => (RemoteKind::Vxlan, destination),
            (None, None) => return None,
        };
        Some(Remote {
            kind,
            port: self.by?,
            vlan: self.outer_vlan.and_then(|vlan| Vid::try_from(vlan).ok()).map(VlanId),
            source: self.from?,
            destination,
            next_hop: self.next_hop,
            next_hop_mac: self.next_hop_mac.map(Station),
            id: self.id?,
            strip_tag: self.strip_tag,
        })
    }
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
            to_remote: self.remote.given().map(Box::new),
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

    /// The mirror that this command makes or changes.
    pub(super) fn changed(&self) -> Option<String> {
        match self {
            Command::Set(set) | Command::Replace(set) => Some(set.name.clone()),
            Command::List | Command::Show { .. } | Command::Del { .. } => None,
        }
    }

    /// True if a mirror that does not exist is no error.
    pub(super) fn if_exists(&self) -> bool {
        matches!(self, Command::Del { if_exists: true, .. })
    }
}

/// Says on standard error which copies of a mirror are dropped, if the switch knows that some may be.
///
/// # Errors
/// Those of the call.
pub(super) fn warn(name: String, socket: &Path) -> Result<(), Failure> {
    let reply = Session::open(socket)?.call(&Request::ShowMirror { name })?;
    if let Reply::Mirror(OneMirror { mirror }) = reply
        && let Some(warning) = &mirror.warning
    {
        // Without a standard error nobody is told.
        let _ = writeln!(io::stderr(), "labsw-ctl: mirror {:?}: {}", mirror.name, one_line(warning));
    }
    Ok(())
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
            notes(mirror.reason.as_deref().or(mirror.warning.as_deref()).unwrap_or_default()),
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
    lines.extend(mirror.warning.clone().map(|warning| ("warning", warning)));
    lines.extend([
        ("sources", list(&mirror.sources, "-")),
        ("vlans", list(&mirror.vlans, "all")),
        ("filter", mirror.filter.clone().unwrap_or_else(|| "all frames".to_owned())),
        ("to", mirror.destination() + if mirror.force { " (forced)" } else { "" }),
    ]);
    lines.extend(mirror.to_remote.as_deref().map(|remote| ("on the way", on_the_way(remote))));
    lines.push(("snaplen", snaplen));
    lines.extend(mirror.inject.as_ref().map(|inject| ("inject", injected(inject))));
    lines.extend([
        ("matched", mirror.matched.to_string()),
        ("sent", mirror.sent.to_string()),
        ("dropped", mirror.dropped.to_string()),
        ("truncated", mirror.truncated.to_string()),
    ]);
    screen.pairs(lines)
}

/// How copies get to another machine, on one line.
fn on_the_way(remote: &Remote) -> String {
    let Remote { source, next_hop_mac, vlan, strip_tag, .. } = remote;
    let hop = next_hop_mac.map_or_else(|| remote.asked().to_string(), |Station(mac)| mac.to_string());
    let vlan = vlan.map(|VlanId(vid)| format!(", tagged {vid}")).unwrap_or_default();
    let stripped = if *strip_tag { ", copies without their tag" } else { "" };
    format!("from {} by next hop {hop}{vlan}{stripped}", source.0)
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
