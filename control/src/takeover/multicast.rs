//! The table of multicast snooping that goes on with the new process, as data.

use std::collections::BTreeMap;

use labsw_switch::PortId;
use labsw_switch::multicast::Record;
use serde::{Deserialize, Serialize};

/// The knowledge of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastRecord {
    /// The names of the ports, by their numbers in the old process.
    ports: Vec<(u16, String)>,
    table: Record,
}

impl MulticastRecord {
    /// The record of a switch with these ports.
    pub fn new(table: Record, ports: &BTreeMap<PortId, &str>) -> MulticastRecord {
        MulticastRecord { ports: ports.iter().map(|(id, name)| (id.0, (*name).to_owned())).collect(), table }
    }

    /// Only what has changed since `before`.
    #[must_use]
    pub fn since(&self, before: &MulticastRecord) -> MulticastRecord {
        MulticastRecord { ports: self.ports.clone(), table: self.table.since(&before.table) }
    }

    /// The knowledge of the table, with the numbers that the ports have here.
    pub fn here(&self, id_of: impl Fn(&str) -> Option<PortId>) -> Record {
        let ids: BTreeMap<u16, PortId> = self.ports.iter().filter_map(|(id, name)| Some((*id, id_of(name)?))).collect();
        self.table.clone().with_ports(|old| ids.get(&old.0).copied())
    }
}
