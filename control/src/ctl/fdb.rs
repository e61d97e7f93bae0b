//! `labsw-ctl fdb`.

use clap::Subcommand;
use labsw_switch::Mac;

use super::parse;
use super::table::{Screen, number, text};
use crate::api::{Change, FdbEntry, Request};

/// The commands for the forwarding database.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the entries.
    #[command(visible_alias = "ls")]
    List {
        /// Only this VLAN.
        #[arg(long, value_parser = parse::vlan)]
        vlan: Option<u16>,
        /// Only entries at this port.
        #[arg(long, value_parser = parse::name)]
        port: Option<String>,
    },
    /// Adds a static entry, or replaces the present one.
    Add {
        /// The MAC address.
        #[arg(value_parser = parse::unicast_mac)]
        mac: Mac,
        /// Its VLAN.
        #[arg(long, value_parser = parse::vlan)]
        vlan: u16,
        /// The port that the address is at.
        #[arg(long, value_parser = parse::name)]
        port: String,
    },
    /// Removes an entry, static or learned.
    #[command(visible_alias = "rm")]
    Del {
        /// The MAC address.
        #[arg(value_parser = parse::mac)]
        mac: Mac,
        /// Its VLAN.
        #[arg(long, value_parser = parse::vlan)]
        vlan: u16,
        /// An entry that does not exist is no error.
        #[arg(long)]
        if_exists: bool,
    },
    /// Removes learned entries; sticky ones only with --port.
    Flush {
        /// Only entries of this VLAN.
        #[arg(long, value_parser = parse::vlan)]
        vlan: Option<u16>,
        /// Only entries at this port.
        #[arg(long, value_parser = parse::name)]
        port: Option<String>,
    },
}

impl Default for Command {
    fn default() -> Command {
        Command::List { vlan: None, port: None }
    }
}

impl Command {
    /// The request of this command.
    pub(super) fn request(self) -> Request {
        match self {
            Command::List { vlan, port } => Request::ListFdb { vlan, port },
            Command::Add { mac, vlan, port } => Request::Change(Change::AddFdb { vlan, mac, port }),
            Command::Del { mac, vlan, .. } => Request::Change(Change::DeleteFdb { vlan, mac }),
            Command::Flush { vlan, port } => Request::Change(Change::FlushFdb { vlan, port }),
        }
    }
}

impl Command {
    /// True if a thing that does not exist is no error.
    pub(super) fn if_exists(&self) -> bool {
        matches!(self, Command::Del { if_exists: true, .. })
    }
}

/// The entries.
pub(super) fn table(screen: Screen, entries: &[FdbEntry]) -> String {
    let row = |entry: &FdbEntry| {
        let age = match entry {
            FdbEntry { is_static: true, .. } => "static".to_owned(),
            FdbEntry { sticky: true, age_seconds, .. } => format!("sticky, {age_seconds} s"),
            FdbEntry { age_seconds, .. } => format!("{age_seconds} s"),
        };
        let age = if entry.fast_path { format!("{age}, in the kernel") } else { age };
        vec![number(entry.vlan), text(&entry.mac), text(&entry.port), number(age)]
    };
    screen.rows(&["vlan", "mac", "port", "age"], entries.iter().map(row).collect(), "no entries")
}
