//! `labsw-ctl vlan`.

use clap::Subcommand;

use super::table::{Screen, list, number, text};
use crate::api::{Request, VlanRow};

/// The commands for VLANs.
#[derive(Debug, Default, Subcommand)]
pub(super) enum Command {
    /// Lists the VLANs that ports name, and their members.
    #[command(visible_alias = "ls")]
    #[default]
    List,
}

impl Command {
    /// The request of this command.
    pub(super) fn request(self) -> Request {
        match self {
            Command::List => Request::ListVlans,
        }
    }
}

/// The VLANs and their members.
pub(super) fn table(screen: Screen, vlans: &[VlanRow]) -> String {
    let members = |row: &VlanRow, tagged: bool| {
        let members = row.ports.iter().filter(|member| member.tagged == tagged);
        list(members.map(|member| &member.port), "-")
    };
    let row = |row: &VlanRow| vec![number(row.vlan), text(members(row, false)), text(members(row, true))];
    screen.rows(&["vlan", "untagged", "tagged"], vlans.iter().map(row).collect(), "no VLANs")
}
