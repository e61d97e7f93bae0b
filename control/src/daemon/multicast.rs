//! Multicast snooping: the life of its table, and how it is shown.
//!
//! The table is made when snooping is first configured, and then stays. Its entries for VLANs without snooping are
//! forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_switch::multicast::{Family, Garbled, Member, Record, Snooping, State};
use labsw_switch::tables::Tables;
use labsw_switch::vlan::VlanSet;
use labsw_switch::{PortId, Vid};

use super::ports::Ports;
use super::seed::random_seed;
use crate::api::{self, MulticastFamily, MulticastState};

/// A full table is reported again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The snooping state of the control thread.
#[derive(Default)]
pub(super) struct Multicast {
    table: Option<Arc<Snooping>>,
    /// Number of refused memberships last reported, and when.
    told: u64,
    told_at: Option<Instant>,
}

impl Multicast {
    /// The tables, with snooping in the VLANs that have it.
    pub(super) fn with_snooping(&mut self, tables: Tables, vlans: &VlanSet) -> Tables {
        if vlans.is_empty() {
            return tables;
        }
        let table = Arc::clone(self.make());
        tables.with_snooping(vlans.clone(), table)
    }

    fn make(&mut self) -> &Arc<Snooping> {
        self.table.get_or_insert_with(|| Arc::new(Snooping::new(random_seed())))
    }

    /// The knowledge of the table, for another process.
    pub(super) fn record(&self) -> Option<Record> {
        self.table.as_ref().map(|table| table.record())
    }

    /// Takes in what the table of another process knew.
    pub(super) fn go_on(&mut self, record: &Record) -> Result<(), Garbled> {
        let table = self.make();
        table.go_on(record, labsw_dataplane::clock::now_seconds())?;
        self.told = table.counters().refused;
        Ok(())
    }

    /// Forgets the groups and routers of all VLANs except these.
    pub(super) fn retain_vlans(&self, vlans: &VlanSet) {
        if let Some(table) = &self.table {
            table.retain_vlans(vlans, labsw_dataplane::clock::now_seconds());
        }
    }

    /// Forgets the groups and routers learned at a port.
    pub(super) fn forget_port(&self, port: PortId) {
        if let Some(table) = &self.table {
            table.forget_port(port, labsw_dataplane::clock::now_seconds());
        }
    }

    /// Expires memberships, and logs when there is no room for more.
    pub(super) fn every_second(&mut self) {
        let Some(table) = &self.table else { return };
        table.sweep(labsw_dataplane::clock::now_seconds());
        let refused = table.counters().refused;
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= TELL_AGAIN);
        if refused > self.told && is_due {
            tracing::warn!(refused, "no room for more multicast groups; their VLANs get all multicast frames");
            (self.told, self.told_at) = (refused, Some(Instant::now()));
        }
    }

    pub(super) fn totals(&self) -> api::MulticastTotals {
        let Some(table) = &self.table else { return api::MulticastTotals::default() };
        let counters = table.counters();
        api::MulticastTotals {
            groups: table.group_count() as u64,
            invalid_messages: counters.invalid,
            refused_memberships: counters.refused,
        }
    }

    pub(super) fn show(&self, only: Option<Vid>, ports: &Ports) -> api::Multicast {
        let Some(table) = &self.table else { return api::Multicast::default() };
        let now = labsw_dataplane::clock::now_seconds();
        let wanted = |vid: Vid| only.is_none_or(|only| only == vid);
        let groups = table.groups(now).into_iter().filter(|entry| wanted(entry.vid));
        let routers = table.routers(now).into_iter().filter(|entry| wanted(entry.vid));
        api::Multicast {
            groups: groups
                .map(|entry| api::MulticastGroup {
                    vlan: entry.vid.into(),
                    group: entry.group.to_string(),
                    ports: shown_members(ports, &entry.members),
                })
                .collect(),
            routers: routers
                .map(|entry| api::MulticastRouters {
                    vlan: entry.vid.into(),
                    family: match entry.family {
                        Family::Ipv4 => MulticastFamily::Ipv4,
                        Family::Ipv6 => MulticastFamily::Ipv6,
                    },
                    state: match entry.state {
                        State::InForce => MulticastState::InForce,
                        State::NoQuerier => MulticastState::NoQuerier,
                        State::Learning => MulticastState::Learning,
                        State::Full => MulticastState::Full,
                    },
                    querier: entry.querier.map(|querier| querier.to_string()),
                    ports: shown_members(ports, &entry.ports),
                })
                .collect(),
            totals: self.totals(),
        }
    }
}

fn shown_members(ports: &Ports, members: &[Member]) -> Vec<api::MulticastPort> {
    let shown = members.iter().filter_map(|member| {
        let port = ports.at(member.port)?;
        Some(api::MulticastPort { port: port.config.name.clone(), age_seconds: member.age_seconds.into() })
    });
    shown.collect()
}
