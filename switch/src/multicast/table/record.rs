//! The knowledge of a table, as numbers with which another table goes on.
//!
//! **How it works.** A [`Record`] has the groups with their ports, and the routers, with the times of the clock that
//! the table was used with. Another process has the same clock, but other numbers of ports ([`Record::with_ports`]) and
//! another seed. So a record has no slots: the other table finds its own.
//!
//! **Invariant.** A record is read as a whole or not at all: nothing in it lasts longer than if it had been heard just
//! now.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::super::is_selective;
use super::{Book, Counters, Domain, Family, Group, Heard, Querier, Snooping};
use super::{MAX_GROUPS, MAX_MEMBERS, MEMBERSHIP_SECONDS, ROUTER_SECONDS};
use crate::{PortId, Vid};

/// The knowledge of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    groups: Vec<GroupRecord>,
    domains: Vec<DomainRecord>,
    counters: Counters,
}

/// A port, when it was last heard, and when that expires.
type HeardRecord = (u16, u32, u32);

/// Ports, and when each was heard.
type Ports = BTreeMap<PortId, Heard>;

/// A group of a VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct GroupRecord {
    vid: u16,
    group: IpAddr,
    ports: Vec<HeardRecord>,
}

/// A VLAN, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct DomainRecord {
    vid: u16,
    ipv6: bool,
    routers: Vec<HeardRecord>,
    querier: Option<QuerierRecord>,
    full_until: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct QuerierRecord {
    address: IpAddr,
    heard: HeardRecord,
    due: u32,
}

/// A record that no table has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what multicast snooping knows is garbled")]
pub struct Garbled;

impl Record {
    /// The groups and VLANs that are others than in `before`; all counts. For a record of the same table of which
    /// nothing was forgotten since.
    #[must_use]
    pub fn since(&self, before: &Record) -> Record {
        let groups: BTreeMap<_, _> = before.groups.iter().map(|group| ((group.vid, group.group), group)).collect();
        let domains: BTreeMap<_, _> = before.domains.iter().map(|domain| ((domain.vid, domain.ipv6), domain)).collect();
        let new_group = |group: &&GroupRecord| groups.get(&(group.vid, group.group)) != Some(group);
        let new_domain = |domain: &&DomainRecord| domains.get(&(domain.vid, domain.ipv6)) != Some(domain);
        Record {
            groups: self.groups.iter().filter(new_group).cloned().collect(),
            domains: self.domains.iter().filter(new_domain).cloned().collect(),
            counters: self.counters,
        }
    }

    /// The record with other numbers of ports, without the ports that have none.
    #[must_use]
    pub fn with_ports(mut self, number: impl Fn(PortId) -> Option<PortId>) -> Record {
        let translate = |heard: &mut HeardRecord| number(PortId(heard.0)).map(|port| heard.0 = port.0).is_some();
        self.groups.iter_mut().for_each(|group| group.ports.retain_mut(translate));
        for domain in &mut self.domains {
            domain.routers.retain_mut(translate);
            domain.querier.take_if(|querier| !translate(&mut querier.heard));
        }
        self
    }
}

impl GroupRecord {
    fn read(&self, now: u32) -> Result<((Vid, IpAddr), Ports), Garbled> {
        let vid = Vid::try_from(self.vid).map_err(|_| Garbled)?;
        if !is_selective(&self.group) {
            return Err(Garbled);
        }
        Ok(((vid, self.group), heard(&self.ports, MEMBERSHIP_SECONDS, now)?))
    }
}

impl DomainRecord {
    fn read(&self, now: u32) -> Result<((Vid, Family), Domain), Garbled> {
        let vid = Vid::try_from(self.vid).map_err(|_| Garbled)?;
        let family = if self.ipv6 { Family::Ipv6 } else { Family::Ipv4 };
        let querier = self.querier.as_ref().map(|querier| {
            let &QuerierRecord { address, heard: (port, at, ends), due } = querier;
            if Family::of(&address) != family {
                return Err(Garbled);
            }
            let due = within(due, ROUTER_SECONDS + 1, now)?;
            Ok(Querier { address, port: PortId(port), heard: one((port, at, ends), ROUTER_SECONDS, now)?.1, due })
        });
        let full_until = self.full_until.map(|end| within(end, MEMBERSHIP_SECONDS, now)).transpose()?;
        let routers = heard(&self.routers, ROUTER_SECONDS, now)?;
        Ok(((vid, family), Domain { slot: None, routers, querier: querier.transpose()?, full_until }))
    }
}

/// The second `end`, if it is over or comes within so many.
fn within(end: u32, seconds: u32, now: u32) -> Result<u32, Garbled> {
    let ahead = end.wrapping_sub(now);
    if ahead <= seconds || ahead > u32::MAX / 2 { Ok(end) } else { Err(Garbled) }
}

fn one((port, at, ends): HeardRecord, seconds: u32, now: u32) -> Result<(PortId, Heard), Garbled> {
    Ok((PortId(port), Heard { at, ends: within(ends, seconds, now)? }))
}

fn heard(records: &[HeardRecord], seconds: u32, now: u32) -> Result<Ports, Garbled> {
    records.iter().map(|record| one(*record, seconds, now)).collect()
}

fn written(ports: &Ports) -> Vec<HeardRecord> {
    ports.iter().map(|(port, heard)| (port.0, heard.at, heard.ends)).collect()
}

impl Snooping {
    /// The knowledge of the table.
    pub fn record(&self) -> Record {
        let group = |(&(vid, group), entry): (&(Vid, IpAddr), &Group)| GroupRecord {
            vid: vid.get(),
            group,
            ports: written(&entry.ports),
        };
        let domain = |(&(vid, family), domain): (&(Vid, Family), &Domain)| DomainRecord {
            vid: vid.get(),
            ipv6: family == Family::Ipv6,
            routers: written(&domain.routers),
            querier: domain.querier.map(|Querier { address, port, heard, due }| QuerierRecord {
                address,
                heard: (port.0, heard.at, heard.ends),
                due,
            }),
            full_until: domain.full_until,
        };
        let counters = self.counters();
        self.with_book(|book| Record {
            groups: book.groups.iter().map(group).collect(),
            domains: book.domains.iter().map(domain).collect(),
            counters,
        })
    }

    /// Takes in what another table knew, in place of what is known here of the same groups and VLANs.
    ///
    /// # Errors
    /// The record is garbled. Nothing has changed then.
    pub fn go_on(&self, record: &Record, now_seconds: u32) -> Result<(), Garbled> {
        let groups = record.groups.iter().map(|group| group.read(now_seconds)).collect::<Result<Vec<_>, _>>()?;
        let domains = record.domains.iter().map(|domain| domain.read(now_seconds)).collect::<Result<Vec<_>, _>>()?;
        self.invalid.store(record.counters.invalid, Ordering::Relaxed);
        self.refused.store(record.counters.refused, Ordering::Relaxed);
        self.with_book(|book| {
            for (key, domain) in domains {
                let slot = book.domains.remove(&key).and_then(|before| before.slot);
                let mut domain = Domain { slot, ..domain };
                self.set_routers(key, &mut domain, now_seconds);
                book.domains.insert(key, domain);
            }
            groups.into_iter().for_each(|(key, ports)| self.put_group(book, key, ports, now_seconds));
        });
        Ok(())
    }

    /// Gives a group these ports.
    fn put_group(&self, book: &mut Book, key: (Vid, IpAddr), ports: Ports, now: u32) {
        if let Some(before) = book.groups.remove(&key) {
            self.slots.remove(before.slot);
            book.members = book.members.saturating_sub(before.ports.len());
        }
        if ports.is_empty() {
            return;
        }
        let has_room = book.groups.len() < MAX_GROUPS && book.members + ports.len() <= MAX_MEMBERS;
        let insert = || self.slots.insert(key.0, &key.1, ports.keys().copied().collect());
        match has_room.then(insert).flatten() {
            Some(slot) => {
                book.members += ports.len();
                book.groups.insert(key, Group { slot, ports });
            }
            None => self.refuse(book, key, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Record {
        let querier = QuerierRecord { address: [10, 0, 0, 1].into(), heard: (7, 100, 355), due: 102 };
        let (routers, querier) = (vec![(7, 100, 355), (8, 100, 355)], Some(querier));
        Record {
            groups: vec![GroupRecord {
                vid: 10,
                group: [239, 1, 2, 3].into(),
                ports: vec![(0, 100, 360), (1, 90, 350)],
            }],
            domains: vec![DomainRecord { vid: 10, ipv6: false, routers, querier, full_until: Some(360) }],
            counters: Counters { invalid: 3, refused: 1 },
        }
    }

    #[test]
    fn a_garbled_record_is_refused_and_changes_nothing() {
        let garble: [&dyn Fn(&mut Record); 11] = [
            &|record| record.groups[0].vid = 0,
            &|record| record.groups[0].vid = 4095,
            &|record| record.groups[0].group = [10, 1, 2, 3].into(),
            &|record| record.groups[0].group = [224, 0, 0, 1].into(),
            &|record| record.groups[0].ports[1].2 = 361,
            &|record| record.domains[0].vid = 0,
            &|record| record.domains[0].routers[1].2 = 356,
            &|record| record.domains[0].querier.as_mut().unwrap().due = 357,
            &|record| record.domains[0].querier.as_mut().unwrap().heard.2 = 356,
            &|record| record.domains[0].ipv6 = true,
            &|record| record.domains[0].full_until = Some(361),
        ];
        for (case, garble) in garble.into_iter().enumerate() {
            let mut record = good();
            garble(&mut record);
            let table = Snooping::new(4);
            assert_eq!(table.go_on(&record, 100), Err(Garbled), "case {case}");
            assert_eq!(table.record(), Record::default(), "case {case}");
        }
        let table = Snooping::new(4);
        table.go_on(&good(), 100).unwrap();
        assert_eq!(table.record(), good());
        // Later, some of it is over, which the next sweep finds.
        let table = Snooping::new(4);
        table.go_on(&good(), 100_000).unwrap();
        table.sweep(100_000);
        assert_eq!((table.group_count(), table.routers(100_000).len()), (0, 0));
    }
}
