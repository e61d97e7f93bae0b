//! The multicast table: members of groups, and ports with routers.
//!
//! **How it works.** The table itself is [`Book`], under one mutex: for each group its ports, for each VLAN and family
//! its routers, each with the second at which it ends. The part that forwarding needs is written through to [`Slots`]
//! (sets of ports) and to a bit per VLAN (*in force*), which are read without a lock. A control message takes the mutex
//! once; [`Snooping::sweep`], once a second, removes entries that have ended and puts in force VLANs that are due.
//!
//! **In force.** A VLAN's selection is in force while a querier is known, from the time at which hosts had to have
//! answered its first general query. A group that finds no room puts it out of force for as long as the membership
//! would have lasted: it is better that every port gets frames that some did not ask for.
//!
//! Times are seconds of one clock modulo 2^32.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::message::{self, Change, Message, Query};
use super::slots::{PortSet, Slot, Slots};
use super::{Family, LEAVE_SECONDS, Look, MAX_GROUPS, MAX_MEMBERS, MEMBERSHIP_SECONDS, ROUTER_SECONDS};
use crate::header::Header;
use crate::vlan::VlanSet;
use crate::{PortId, Vid};

mod record;

pub use record::{Garbled, Record};

/// VLANs with routers that find a slot besides the groups.
const ROUTER_SLOTS: usize = 1024;

/// The shared state of snooping; see the module.
#[derive(Debug)]
pub struct Snooping {
    slots: Slots,
    /// For each family, a bit for each VLAN.
    in_force: [Box<[AtomicU64; 64]>; 2],
    invalid: AtomicU64,
    refused: AtomicU64,
    book: Mutex<Book>,
}

/// Counts of messages and memberships that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Counters {
    /// Messages that were cut short or malformed.
    pub invalid: u64,
    /// Memberships for which there was no room.
    pub refused: u64,
}

/// A port with members of a group, or with a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The port.
    pub port: PortId,
    /// Seconds since the last such message from the port.
    pub age_seconds: u32,
}

/// A group of a VLAN, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// The VLAN of the group.
    pub vid: Vid,
    /// The address of the group.
    pub group: IpAddr,
    /// The ports with members, ascending.
    pub members: Vec<Member>,
}

/// The routers of a VLAN, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterEntry {
    /// The VLAN.
    pub vid: Vid,
    /// The protocol of the groups.
    pub family: Family,
    /// The ports with routers, ascending.
    pub ports: Vec<Member>,
    /// The address of the querier.
    pub querier: Option<IpAddr>,
    /// The delivery of group frames in the VLAN.
    pub state: State,
}

/// The delivery of group frames in a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Frames go to members and routers only.
    InForce,
    /// No querier asks the hosts for their groups.
    NoQuerier,
    /// The hosts have time to answer.
    Learning,
    /// A membership found no room.
    Full,
}

#[derive(Debug, Default)]
struct Book {
    groups: BTreeMap<(Vid, IpAddr), Group>,
    domains: BTreeMap<(Vid, Family), Domain>,
    members: usize,
}

/// When a port was last heard, and when that expires.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: u32,
    ends: u32,
}

#[derive(Debug)]
struct Group {
    slot: Slot,
    ports: BTreeMap<PortId, Heard>,
}

/// A VLAN, for one family.
#[derive(Debug, Default)]
struct Domain {
    slot: Option<Slot>,
    routers: BTreeMap<PortId, Heard>,
    querier: Option<Querier>,
    /// The second until which some host may miss a group that it asked for.
    full_until: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Querier {
    address: IpAddr,
    port: PortId,
    heard: Heard,
    /// The second by which hosts have answered the first query.
    due: u32,
}

impl Heard {
    fn now(now: u32, seconds: u32) -> Heard {
        Heard { at: now, ends: now.wrapping_add(seconds) }
    }

    fn member(self, port: PortId, now: u32) -> Member {
        let age = now.wrapping_sub(self.at);
        Member { port, age_seconds: if age > u32::MAX / 2 { 0 } else { age } }
    }
}

/// True if the second `end` has come.
fn is_over(end: u32, now: u32) -> bool {
    now.wrapping_sub(end) <= u32::MAX / 2
}

impl Domain {
    fn state(&self, now: u32) -> State {
        match (&self.querier, self.full_until, self.slot) {
            (None, ..) => State::NoQuerier,
            (Some(querier), ..) if !is_over(querier.due, now) => State::Learning,
            (Some(_), None, Some(_)) => State::InForce,
            _ => State::Full,
        }
    }

    fn is_idle(&self) -> bool {
        self.routers.is_empty() && self.querier.is_none() && self.full_until.is_none()
    }
}

impl Snooping {
    /// An empty table. Senders of frames should not be able to guess `seed`.
    pub fn new(seed: u64) -> Snooping {
        Snooping {
            slots: Slots::new(MAX_GROUPS + ROUTER_SLOTS, seed),
            in_force: std::array::from_fn(|_| Box::new(std::array::from_fn(|_| AtomicU64::new(0)))),
            invalid: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            book: Mutex::default(),
        }
    }

    /// The ports that a frame of `vid` goes to, if they are among those of the VLAN; `None`: all of those.
    pub fn audience(&self, vid: Vid, look: Look) -> Option<PortSet> {
        let (family, group) = match look {
            Look::Everyone | Look::RouterMessage => return None,
            Look::HostMessage(family) => (family, None),
            Look::Group(group) => (Family::of(&group), Some(group)),
        };
        if !self.is_in_force(vid, family) {
            return None;
        }
        let mut ports = self.slots.get(vid, &family.unspecified())?;
        if let Some(members) = group.and_then(|group| self.slots.get(vid, &group)) {
            ports.extend(&members);
        }
        Some(ports)
    }

    /// Learns from the message in `frame`, received on `port` in VLAN `vid`.
    pub fn observe(&self, vid: Vid, port: PortId, header: &Header, frame: &[u8], now_seconds: u32) {
        match message::parse(header, frame) {
            Err(_) => {
                self.invalid.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Message::Query(query)) if query.source.is_unspecified() => {}
            Ok(Message::Query(query)) => {
                let family = Family::of(&query.source);
                self.with_book(|book| self.router(book, (vid, family), port, Some(query), now_seconds));
            }
            Ok(Message::Hello(family)) => {
                self.with_book(|book| self.router(book, (vid, family), port, None, now_seconds));
            }
            Ok(Message::Report(report)) => self.with_book(|book| {
                for (group, change) in report.changes() {
                    match change {
                        Change::Join => self.join(book, (vid, group), port, now_seconds),
                        Change::Leave => leave(book, (vid, group), port, now_seconds),
                    }
                }
            }),
            Ok(Message::Other) => {}
        }
    }

    /// Removes entries that have ended, and puts in force VLANs that are due. To be called once a second.
    pub fn sweep(&self, now_seconds: u32) {
        let over = |end: u32| is_over(end, now_seconds);
        self.with_book(|book| {
            self.retain_members(book, |_, _, heard| !over(heard.ends));
            for domain in book.domains.values_mut() {
                domain.querier.take_if(|querier| over(querier.heard.ends));
                domain.full_until.take_if(|end| over(*end));
            }
            self.retain_routers(book, |_, _, heard| !over(heard.ends), now_seconds);
        });
    }

    /// Forgets the memberships and routers of a port.
    pub fn forget_port(&self, port: PortId, now_seconds: u32) {
        self.with_book(|book| {
            self.retain_members(book, |_, member, _| member != port);
            for domain in book.domains.values_mut() {
                domain.querier.take_if(|querier| querier.port == port);
            }
            self.retain_routers(book, |_, router, _| router != port, now_seconds);
        });
    }

    /// Forgets all VLANs except `vlans`.
    pub fn retain_vlans(&self, vlans: &VlanSet, now_seconds: u32) {
        self.with_book(|book| {
            self.retain_members(book, |vid, _, _| vlans.contains(vid));
            for ((vid, _), domain) in &mut book.domains {
                if !vlans.contains(*vid) {
                    (domain.querier, domain.full_until) = (None, None);
                }
            }
            self.retain_routers(book, |vid, _, _| vlans.contains(vid), now_seconds);
        });
    }

    /// All groups, by VLAN and address.
    pub fn groups(&self, now_seconds: u32) -> Vec<GroupEntry> {
        let entry = |(&(vid, group), entry): (&(Vid, IpAddr), &Group)| {
            let members = entry.ports.iter().map(|(port, heard)| heard.member(*port, now_seconds));
            GroupEntry { vid, group, members: members.collect() }
        };
        self.with_book(|book| book.groups.iter().map(entry).collect())
    }

    /// The VLANs in which a router was heard, or a membership found no room, by VLAN and family.
    pub fn routers(&self, now_seconds: u32) -> Vec<RouterEntry> {
        let entry = |(&(vid, family), domain): (&(Vid, Family), &Domain)| RouterEntry {
            vid,
            family,
            ports: domain.routers.iter().map(|(port, heard)| heard.member(*port, now_seconds)).collect(),
            querier: domain.querier.map(|querier| querier.address),
            state: domain.state(now_seconds),
        };
        self.with_book(|book| book.domains.iter().map(entry).collect())
    }

    /// The number of groups.
    pub fn group_count(&self) -> usize {
        self.with_book(|book| book.groups.len())
    }

    /// The counts of refusals so far.
    pub fn counters(&self) -> Counters {
        let [invalid, refused] = [&self.invalid, &self.refused].map(|count| count.load(Ordering::Relaxed));
        Counters { invalid, refused }
    }

    fn with_book<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        // A thread that panicked with the mutex left counts and slots as they were between two steps.
        work(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_in_force(&self, vid: Vid, family: Family) -> bool {
        let word = self.in_force.get(family.index()).and_then(|words| words.get(vid.index() / 64));
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (vid.index() % 64) & 1 == 1)
    }

    /// Publishes to forwarding whether the VLAN's selection is in force. The caller holds the mutex.
    fn publish(&self, (vid, family): (Vid, Family), state: State) {
        let bit = 1 << (vid.index() % 64);
        if let Some(word) = self.in_force.get(family.index()).and_then(|words| words.get(vid.index() / 64)) {
            if state == State::InForce {
                word.fetch_or(bit, Ordering::Release);
            } else {
                word.fetch_and(!bit, Ordering::Release);
            }
        }
    }

    fn router(&self, book: &mut Book, key: (Vid, Family), port: PortId, query: Option<Query>, now: u32) {
        let domain = book.domains.entry(key).or_default();
        let heard = Heard::now(now, ROUTER_SECONDS);
        domain.routers.insert(port, heard);
        if let Some(Query { source, general, response_seconds }) = query {
            let address = source;
            match &mut domain.querier {
                Some(querier) => *querier = Querier { address, port, heard, ..*querier },
                // After a query about one group, hosts still repeat the other groups.
                None if general => {
                    // One more, since times are kept in whole seconds.
                    let due = now.wrapping_add(response_seconds.min(ROUTER_SECONDS)).wrapping_add(1);
                    domain.querier = Some(Querier { address, port, heard, due });
                }
                None => {}
            }
        }
        self.set_routers(key, domain, now);
    }

    /// Publishes the routers and the state of a VLAN to forwarding. The caller holds the mutex.
    fn set_routers(&self, key: (Vid, Family), domain: &mut Domain, now: u32) {
        let ports: PortSet = domain.routers.keys().copied().collect();
        match domain.slot {
            Some(slot) => self.slots.set(slot, ports),
            None => domain.slot = self.slots.insert(key.0, &key.1.unspecified(), ports),
        }
        self.publish(key, domain.state(now));
    }

    fn join(&self, book: &mut Book, key: (Vid, IpAddr), port: PortId, now: u32) {
        let heard = Heard::now(now, MEMBERSHIP_SECONDS);
        let room = book.members < MAX_MEMBERS;
        let groups = book.groups.len();
        let joined = match book.groups.get_mut(&key) {
            Some(group) if group.ports.contains_key(&port) => {
                group.ports.insert(port, heard);
                return;
            }
            Some(group) if room => {
                group.ports.insert(port, heard);
                self.slots.set(group.slot, group.ports.keys().copied().collect());
                true
            }
            None if room && groups < MAX_GROUPS => {
                let ports = BTreeMap::from([(port, heard)]);
                let slot = self.slots.insert(key.0, &key.1, ports.keys().copied().collect());
                slot.map(|slot| book.groups.insert(key, Group { slot, ports })).is_some()
            }
            Some(_) | None => false,
        };
        if joined {
            book.members += 1;
        } else {
            self.refuse(book, key, now);
        }
    }

    /// There is no room for a membership of this group.
    fn refuse(&self, book: &mut Book, key: (Vid, IpAddr), now: u32) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let key = (key.0, Family::of(&key.1));
        let domain = book.domains.entry(key).or_default();
        domain.full_until = Some(now.wrapping_add(MEMBERSHIP_SECONDS));
        self.publish(key, domain.state(now));
    }

    fn retain_members(&self, book: &mut Book, keep: impl Fn(Vid, PortId, &Heard) -> bool) {
        let Book { groups, members, .. } = book;
        groups.retain(|(vid, _), group| {
            let before = group.ports.len();
            group.ports.retain(|port, heard| keep(*vid, *port, heard));
            *members = members.saturating_sub(before - group.ports.len());
            if group.ports.is_empty() {
                self.slots.remove(group.slot);
                return false;
            }
            if group.ports.len() < before {
                self.slots.set(group.slot, group.ports.keys().copied().collect());
            }
            true
        });
    }

    /// Drops routers, then empty domains, and publishes the state of all.
    fn retain_routers(&self, book: &mut Book, keep: impl Fn(Vid, PortId, &Heard) -> bool, now: u32) {
        book.domains.retain(|key, domain| {
            domain.routers.retain(|port, heard| keep(key.0, *port, heard));
            self.publish(*key, domain.state(now));
            if let Some(slot) = domain.slot {
                self.slots.set(slot, domain.routers.keys().copied().collect());
            }
            if domain.is_idle()
                && let Some(slot) = domain.slot.take()
            {
                self.slots.remove(slot);
            }
            !domain.is_idle()
        });
    }
}

/// Makes the port leave unless a host there asks for the group again in time.
fn leave(book: &mut Book, key: (Vid, IpAddr), port: PortId, now: u32) {
    let heard = book.groups.get_mut(&key).and_then(|group| group.ports.get_mut(&port));
    if let Some(heard) = heard {
        let soon = now.wrapping_add(LEAVE_SECONDS);
        if !is_over(heard.ends, soon) {
            heard.ends = soon;
        }
    }
}
