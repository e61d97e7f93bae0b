//! `labsw-ctl mcast`.

use clap::Subcommand;

use super::parse;
use super::table::{Screen, list, number, text};
use crate::api::{Multicast, MulticastPort, Request};

/// The commands for multicast snooping.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the groups with their members, and the ports with routers.
    #[command(visible_alias = "ls")]
    List {
        /// Only this VLAN.
        #[arg(long, value_parser = parse::vlan)]
        vlan: Option<u16>,
    },
}

impl Default for Command {
    fn default() -> Command {
        Command::List { vlan: None }
    }
}

impl Command {
    /// The request of this command.
    pub(super) fn request(self) -> Request {
        match self {
            Command::List { vlan } => Request::ListMulticast { vlan },
        }
    }
}

/// The groups, then the routers.
pub(super) fn table(screen: Screen, multicast: &Multicast) -> String {
    let names = |ports: &[MulticastPort]| text(list(ports.iter().map(|port| &port.port), "-"));
    let youngest = |ports: &[MulticastPort]| {
        let age = ports.iter().map(|port| port.age_seconds).min();
        number(age.map_or_else(|| "-".to_owned(), |age| format!("{age} s")))
    };
    let groups = multicast
        .groups
        .iter()
        .map(|group| vec![number(group.vlan), text(&group.group), names(&group.ports), youngest(&group.ports)]);
    let routers = multicast.routers.iter().map(|entry| {
        let querier = entry.querier.as_deref().unwrap_or("-");
        let ports = names(&entry.ports);
        vec![
            number(entry.vlan),
            text(entry.family.to_string()),
            text(entry.state.to_string()),
            text(querier),
            ports,
            youngest(&entry.ports),
        ]
    });
    format!(
        "{}\n{}",
        screen.rows(&["vlan", "group", "ports", "age"], groups.collect(), "no groups"),
        screen.rows(&["vlan", "family", "state", "querier", "router ports", "age"], routers.collect(), "no routers"),
    )
}
