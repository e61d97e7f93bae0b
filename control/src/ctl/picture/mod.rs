//! The lab as a picture: the ports by VLAN, who is plugged in, and what is done to their frames. `graph` draws it as
//! SVG ([`svg`]) or Mermaid ([`mermaid`]); the page of `web` gets it as JSON.
//!
//! **How it works.** [`Picture::of`] is a pure function of the switch's [`Status`] and forwarding database. A port with
//! one VLAN stands in the lane of that VLAN. A port with several is a trunk, which passes the lanes that it carries. A
//! port that only takes mirrored frames stands apart, and so do the ports of [inline](crate::api::Inline) sensors,
//! whose VLAN has no effect.
//!
//! **Invariants.** Each port is in the picture exactly once. VLANs without a port of their own have no lane, so there
//! are no more lanes than ports.

mod commands;
pub(super) mod mermaid;
mod node;
pub(super) mod svg;
#[cfg(test)]
pub(super) mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use labsw_switch::Vid;
use labsw_switch::vlan::{Leaves, PortVlan};
use serde::Serialize;

pub(super) use commands::Commands;
pub(super) use node::{MarkKind, Node};

use super::session::{Failure, Session};
use crate::api::{FdbEntries, FdbEntry, Inline, Mirror, Port, PortState, Reply, Request, Status, Vlan, VlanMember};

/// The most entries of the forwarding database that are asked for; with more, ports show how many addresses they have.
const MOST_ADDRESSES: u64 = 2048;

/// A lab; see the module.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Picture {
    /// Version of the daemon.
    pub version: String,
    /// The time of the counters since the daemon started.
    pub uptime_milliseconds: u64,
    pub workers: Vec<Load>,
    /// Ports in several VLANs.
    pub trunks: Vec<Node>,
    /// The VLANs that have ports of their own, in ascending order.
    pub lanes: Vec<Lane>,
    /// Ports that take mirrored frames and nothing else.
    pub mirror_only: Vec<Node>,
    /// The ports of sensors in the wires of other ports.
    pub sensors: Vec<Node>,
    pub mirrors: Vec<Mirror>,
    /// The sensors in the wires of ports.
    pub inlines: Vec<Inline>,
}

/// A worker's load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Load {
    pub id: u32,
    pub cpu: Option<u32>,
    pub busy_percent: f64,
}

/// A VLAN.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Lane {
    pub vlan: u16,
    /// The trunks that carry the VLAN.
    pub trunks: Vec<VlanMember>,
    /// The ports of this VLAN alone.
    pub ports: Vec<Node>,
}

impl Picture {
    /// Asks the switch.
    ///
    /// # Errors
    /// Those of the calls.
    pub(super) fn ask(session: &mut Session, commands: &Commands) -> Result<Picture, Failure> {
        let Reply::Status(status) = session.call(&Request::GetStatus)? else { return Err(Failure::OtherAnswer) };
        let addresses: u64 = status.ports.iter().map(|port| port.stations).sum();
        if addresses > MOST_ADDRESSES {
            return Ok(Picture::of(&status, &[], commands));
        }
        match session.call(&Request::ListFdb { vlan: None, port: None })? {
            Reply::Fdb(FdbEntries { entries }) => Ok(Picture::of(&status, &entries, commands)),
            _ => Err(Failure::OtherAnswer),
        }
    }

    /// The picture of a lab. `entries` may be empty although addresses are known.
    pub(super) fn of(status: &Status, entries: &[FdbEntry], commands: &Commands) -> Picture {
        let mut at_port = BTreeMap::<&str, Vec<&FdbEntry>>::new();
        for entry in entries {
            at_port.entry(&entry.port).or_default().push(entry);
        }
        let mut ports: Vec<(&Port, Option<PortVlan>)> =
            status.ports.iter().map(|port| (port, membership(&port.vlan))).collect();
        ports.sort_by(|(a, _), (b, _)| by_name(&a.name, &b.name));
        let node =
            |port: &Port| Node::of(port, status, at_port.get(port.name.as_str()).map_or(&[], Vec::as_slice), commands);
        let nodes = |wanted: &dyn Fn(&Port, Option<&PortVlan>) -> bool| -> Vec<Node> {
            ports.iter().filter(|(port, vlan)| wanted(port, vlan.as_ref())).map(|(port, _)| node(port)).collect()
        };
        let is_sensor = |port: &Port| status.inlines.iter().any(|inline| inline.through.contains(&port.name));
        let is_in_vlans = |port: &Port| !port.mirror_only && !is_sensor(port);
        let is_trunk = |port: &Port, vlan: Option<&PortVlan>| is_in_vlans(port) && own_vlan(vlan).is_none();
        let lane = |vid: Vid| Lane {
            vlan: vid.into(),
            trunks: ports
                .iter()
                .filter_map(|(port, vlan)| Some((port, vlan.as_ref().filter(|vlan| is_trunk(port, Some(vlan)))?)))
                .filter(|(_, vlan)| vlan.is_member(vid))
                .map(|(port, vlan)| VlanMember { port: port.name.clone(), tagged: vlan.leaves(vid) == Leaves::Tagged })
                .collect(),
            ports: nodes(&|port, vlan| is_in_vlans(port) && own_vlan(vlan) == Some(vid)),
        };
        let mut vids: Vec<Vid> = ports
            .iter()
            .filter(|(port, _)| is_in_vlans(port))
            .filter_map(|(_, vlan)| own_vlan(vlan.as_ref()))
            .collect();
        vids.sort_unstable();
        vids.dedup();
        Picture {
            version: status.version.clone(),
            uptime_milliseconds: status.uptime_milliseconds,
            workers: status
                .workers
                .iter()
                .map(|worker| Load { id: worker.id, cpu: worker.cpu, busy_percent: worker.busy_percent })
                .collect(),
            trunks: nodes(&is_trunk),
            lanes: vids.into_iter().map(lane).collect(),
            mirror_only: nodes(&|port, _| port.mirror_only && !is_sensor(port)),
            sensors: nodes(&|port, _| is_sensor(port)),
            mirrors: status.mirrors.clone(),
            inlines: status.inlines.clone(),
        }
    }

    /// All ports, in the order of the picture.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        let in_lanes = self.lanes.iter().flat_map(|lane| &lane.ports);
        self.trunks.iter().chain(in_lanes).chain(&self.mirror_only).chain(&self.sensors)
    }

    /// `labswd 0.1.0: 9 ports, 7 up; 1 mirror`, and ` and 1 sensor inline` if there is one.
    pub(super) fn summary(&self) -> String {
        let (ports, mirrors) = (self.nodes().count(), self.mirrors.len());
        let up = self.nodes().filter(|node| node.state == PortState::Up).count();
        let plural = |count| if count == 1 { "" } else { "s" };
        let inline = match self.inlines.len() {
            0 => String::new(),
            sensors => format!(" and {sensors} sensor{} inline", plural(sensors)),
        };
        let (version, s, ms) = (&self.version, plural(ports), plural(mirrors));
        format!("labswd {version}: {ports} port{s}, {up} up; {mirrors} mirror{ms}{inline}")
    }
}

/// The VLANs of a port as replies show them; `None` if they contradict each other.
fn membership(shown: &Vlan) -> Option<PortVlan> {
    let trunks = shown.trunks.clone().filter(|trunks| !trunks.is_empty());
    Vlan { trunks, ..shown.clone() }.membership().ok()
}

/// The VLAN of a port that has only one.
fn own_vlan(vlan: Option<&PortVlan>) -> Option<Vid> {
    vlan.and_then(|vlan| vlan.tag().filter(|_| vlan.mode().has_one_vlan()))
}

/// The order of names for people: `web2` before `web10`.
fn by_name(a: &str, b: &str) -> Ordering {
    pieces(a).cmp(&pieces(b)).then_with(|| a.cmp(b))
}

/// A name as runs of digits, ordered by their length and text, and runs of other characters, ordered by their text.
fn pieces(name: &str) -> Vec<(usize, &str)> {
    let is_digit = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
    let (mut rest, mut pieces) = (name, Vec::new());
    while !rest.is_empty() {
        let digits = is_digit(rest);
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(end);
        let value = run.trim_start_matches('0');
        pieces.push(if digits { (value.len(), value) } else { (0, run) });
        rest = behind;
    }
    pieces
}
