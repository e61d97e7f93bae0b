//! Everything that changes which keys the forwarding database holds; runs under its mutex.
//!
//! **Eviction.** A new dynamic entry needs a free slot in one of its two buckets. In a table at its capacity, another
//! entry has to be evicted, too. In both cases the victim is the oldest candidate of the port that holds the most
//! dynamic entries. If no such port holds more than the learning port, an entry of the learning port is evicted, or the
//! new entry is refused. At capacity a hand moves over the buckets, [`SCAN_BUCKETS`] at most for one entry.

use super::learned::{FdbFull, Learned, Moved, Moves};
use super::slot::{Bucket, Kind, Slot, Value, vid_of};
use crate::{MAX_PORTS, Mac, PortId};

/// The most buckets looked at for an entry to evict.
const SCAN_BUCKETS: usize = 2048;
/// After this many candidates the oldest of them goes.
const CANDIDATES: usize = 8;

/// The bookkeeping of the database, guarded by its mutex.
#[derive(Debug)]
pub(super) struct Writer {
    capacity: usize,
    statics: usize,
    dynamics: usize,
    /// Dynamic entries per port.
    per_port: Box<[u32; MAX_PORTS]>,
    /// One past the highest port id that ever had an entry.
    ports: usize,
    /// The most dynamic entries per port.
    limits: Box<[u32; MAX_PORTS]>,
    /// The sticky ports.
    sticky: Box<[bool; MAX_PORTS]>,
    eviction_hand: usize,
    sweep_hand: usize,
    /// Moves that nobody has taken, and the number of all there were.
    moves: Moves,
    moved: u64,
}

impl Writer {
    pub(super) fn new(capacity: usize) -> Writer {
        Writer {
            capacity,
            statics: 0,
            dynamics: 0,
            per_port: Box::new([0; MAX_PORTS]),
            ports: 0,
            limits: Box::new([u32::MAX; MAX_PORTS]),
            sticky: Box::new([false; MAX_PORTS]),
            eviction_hand: 0,
            sweep_hand: 0,
            moves: Moves::default(),
            moved: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.statics + self.dynamics
    }

    pub(super) fn take_moves(&mut self) -> Moves {
        std::mem::take(&mut self.moves)
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    pub(super) fn dynamic_of(&self, port: PortId) -> usize {
        self.count(port) as usize
    }

    fn count(&self, port: PortId) -> u32 {
        self.per_port.get(port.index()).copied().unwrap_or(0)
    }

    fn is_at_limit(&self, port: PortId) -> bool {
        // A port beyond the most possible ports has no counter and gets no entry.
        self.limits.get(port.index()).is_none_or(|limit| self.count(port) >= *limit)
    }

    pub(super) fn set_limit(&mut self, port: PortId, limit: Option<u32>) {
        if let Some(place) = self.limits.get_mut(port.index()) {
            *place = limit.unwrap_or(u32::MAX);
        }
    }

    /// The kind of an entry learned at `port`.
    fn kind_at(&self, port: PortId) -> Kind {
        if self.sticky.get(port.index()).copied().unwrap_or(false) { Kind::Sticky } else { Kind::Dynamic }
    }

    /// Makes `port` sticky or not, together with its learned entries that have not aged.
    pub(super) fn set_sticky(
        &mut self,
        buckets: &[Bucket],
        port: PortId,
        sticky: bool,
        ageing_seconds: u32,
        now_seconds: u32,
    ) {
        match self.sticky.get_mut(port.index()) {
            Some(place) if *place != sticky => *place = sticky,
            _ => return,
        }
        let kind = self.kind_at(port);
        for slot in buckets.iter().flat_map(|bucket| &bucket.slots).filter(|slot| slot.key() != 0) {
            let value = slot.value();
            if value.port() != port || value.is_static() {
                continue;
            }
            if value.is_aged(ageing_seconds, now_seconds) {
                self.take_out(slot);
            } else {
                self.change(slot, port, kind, value.stamp());
            }
        }
    }

    /// Adds (`true`) an entry to the counts, or takes it away.
    fn account(&mut self, value: Value, added: bool) {
        let step = |count: usize| if added { count + 1 } else { count.saturating_sub(1) };
        if value.is_static() {
            self.statics = step(self.statics);
            return;
        }
        self.dynamics = step(self.dynamics);
        let port = value.port().index();
        if let Some(count) = self.per_port.get_mut(port) {
            self.ports = self.ports.max(port + 1);
            *count = if added { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    fn take_out(&mut self, slot: &Slot) {
        self.account(slot.value(), false);
        slot.clear();
    }

    fn put_in(&mut self, slot: &Slot, key: u64, port: PortId, kind: Kind, now_seconds: u32) {
        slot.occupy(key, port, kind, now_seconds);
        self.account(slot.value(), true);
    }

    fn change(&mut self, slot: &Slot, port: PortId, kind: Kind, now_seconds: u32) {
        self.account(slot.value(), false);
        slot.change(port, kind, now_seconds);
        self.account(slot.value(), true);
    }

    pub(super) fn learn(
        &mut self,
        buckets: &[Bucket],
        pair: [&Bucket; 2],
        key: u64,
        port: PortId,
        ageing_seconds: u32,
        now_seconds: u32,
    ) -> Learned {
        if let Some(slot) = slot_of(pair, key) {
            let learned = self.judge(slot.value(), port, ageing_seconds, now_seconds);
            if matches!(learned, Learned::New | Learned::Refreshed | Learned::Moved { .. }) {
                self.change(slot, port, self.kind_at(port), now_seconds);
            }
            if let (Learned::Moved { from }, Some(vid)) = (learned, vid_of(key)) {
                self.moved += 1;
                self.moves.note(Moved { vid, mac: Mac::from_u64(key), from, to: port });
            }
            return learned;
        }
        if self.is_at_limit(port) {
            return Learned::PortLimit;
        }
        if free_slot(pair).is_none() {
            match self.room_in_pair(pair, port, ageing_seconds, now_seconds) {
                Some(slot) => self.take_out(slot),
                None => return Learned::Full,
            }
        }
        if self.len() >= self.capacity {
            match self.victim_of_table(buckets, self.heaviest(port), ageing_seconds, now_seconds) {
                Some(slot) => self.take_out(slot),
                None => return Learned::Full,
            }
        }
        let Some(slot) = free_slot(pair) else { return Learned::Full };
        self.put_in(slot, key, port, self.kind_at(port), now_seconds);
        Learned::New
    }

    /// The outcome that [`Writer::learn`] would return; changes nothing.
    pub(super) fn would_learn(
        &mut self,
        buckets: &[Bucket],
        pair: [&Bucket; 2],
        key: u64,
        port: PortId,
        ageing_seconds: u32,
        now_seconds: u32,
    ) -> Learned {
        if let Some(slot) = slot_of(pair, key) {
            return self.judge(slot.value(), port, ageing_seconds, now_seconds);
        }
        if self.is_at_limit(port) {
            return Learned::PortLimit;
        }
        if free_slot(pair).is_none() {
            // An entry evicted from the pair leaves a place in the table, too.
            let room = self.room_in_pair(pair, port, ageing_seconds, now_seconds).is_some();
            return if room { Learned::New } else { Learned::Full };
        }
        let hand = self.eviction_hand;
        let room = self.len() < self.capacity
            || self.victim_of_table(buckets, self.heaviest(port), ageing_seconds, now_seconds).is_some();
        self.eviction_hand = hand;
        if room { Learned::New } else { Learned::Full }
    }

    /// The outcome of learning on `port` if the database has this value for the address.
    fn judge(&self, value: Value, port: PortId, ageing_seconds: u32, now_seconds: u32) -> Learned {
        let from = value.port();
        if value.is_static() {
            if from == port { Learned::Known } else { Learned::Static }
        } else if from != port && value.is_sticky() {
            Learned::Sticky
        } else if from != port && self.is_at_limit(port) {
            Learned::PortLimit
        } else {
            match value.is_aged(ageing_seconds, now_seconds) {
                true => Learned::New,
                false if from == port => Learned::Refreshed,
                false => Learned::Moved { from },
            }
        }
    }

    /// An entry of the pair that may go for one of `learner`: an aged one, or else the pair's victim.
    fn room_in_pair<'a>(
        &self,
        pair: [&'a Bucket; 2],
        learner: PortId,
        ageing_seconds: u32,
        now_seconds: u32,
    ) -> Option<&'a Slot> {
        let aged = |slot: &&Slot| slot.value().is_aged(ageing_seconds, now_seconds);
        slots(pair).find(aged).or_else(|| self.victim_of_pair(pair, learner, now_seconds))
    }

    pub(super) fn add_static(
        &mut self,
        buckets: &[Bucket],
        pair: [&Bucket; 2],
        key: u64,
        port: PortId,
    ) -> Result<(), FdbFull> {
        if let Some(slot) = slot_of(pair, key) {
            self.change(slot, port, Kind::Static, 0);
            return Ok(());
        }
        if self.statics >= self.capacity {
            return Err(FdbFull);
        }
        if free_slot(pair).is_none() {
            let by_count = |slot: &&Slot| self.count(slot.value().port());
            let victim = slots(pair).filter(|slot| !slot.value().is_static()).max_by_key(by_count);
            self.take_out(victim.ok_or(FdbFull)?);
        }
        if self.len() >= self.capacity {
            // Rare and by hand: goes over the whole table rather than fail.
            let heaviest = self.heaviest(PortId(0));
            let mut all = buckets.iter().flat_map(|bucket| &bucket.slots);
            let of_heaviest =
                |slot: &&Slot| slot.key() != 0 && !slot.value().is_static() && slot.value().port() == heaviest;
            self.take_out(all.find(of_heaviest).ok_or(FdbFull)?);
        }
        self.put_in(free_slot(pair).ok_or(FdbFull)?, key, port, Kind::Static, 0);
        Ok(())
    }

    pub(super) fn remove(&mut self, pair: [&Bucket; 2], key: u64) -> bool {
        slot_of(pair, key).inspect(|slot| self.take_out(slot)).is_some()
    }

    pub(super) fn remove_where(&mut self, buckets: &[Bucket], selected: &mut impl FnMut(u64, Value) -> bool) -> usize {
        let mut removed = 0;
        for slot in buckets.iter().flat_map(|bucket| &bucket.slots) {
            if slot.key() != 0 && selected(slot.key(), slot.value()) {
                self.take_out(slot);
                removed += 1;
            }
        }
        removed
    }

    pub(super) fn sweep(&mut self, buckets: &[Bucket], count: usize, ageing_seconds: u32, now_seconds: u32) -> usize {
        let count = count.min(buckets.len());
        let start = self.sweep_hand;
        self.sweep_hand = (start + count) % buckets.len();
        let mut removed = 0;
        for slot in buckets.iter().cycle().skip(start).take(count).flat_map(|bucket| &bucket.slots) {
            if slot.key() != 0 && slot.value().is_aged(ageing_seconds, now_seconds) {
                self.take_out(slot);
                removed += 1;
            }
        }
        removed
    }

    /// The port with the most dynamic entries; `learner` if none has more than it.
    fn heaviest(&self, learner: PortId) -> PortId {
        let counts = self.per_port.get(..self.ports).unwrap_or_default();
        let most = counts.iter().copied().max().unwrap_or(0);
        if self.count(learner) == most {
            return learner;
        }
        let index = counts.iter().position(|count| *count == most);
        index.and_then(|index| u16::try_from(index).ok()).map_or(learner, PortId)
    }

    /// An entry of the pair's eight that may be evicted for one of `learner`.
    fn victim_of_pair<'a>(&self, pair: [&'a Bucket; 2], learner: PortId, now_seconds: u32) -> Option<&'a Slot> {
        let rank = |slot: &&Slot| {
            let value = slot.value();
            (self.count(value.port()), value.port() == learner, value.age_seconds(now_seconds))
        };
        let victim = slots(pair).filter(|slot| !slot.value().is_static()).max_by_key(rank)?;
        (self.count(victim.value().port()) >= self.count(learner)).then_some(victim)
    }

    /// The next aged entry, or else the oldest of the next few of `port`, from the hand on.
    fn victim_of_table<'a>(
        &mut self,
        buckets: &'a [Bucket],
        port: PortId,
        ageing_seconds: u32,
        now_seconds: u32,
    ) -> Option<&'a Slot> {
        let mut oldest: Option<(u32, &Slot)> = None;
        let mut candidates = 0;
        for _ in 0..SCAN_BUCKETS.min(buckets.len()) {
            let bucket = buckets.get(self.eviction_hand)?;
            self.eviction_hand = (self.eviction_hand + 1) % buckets.len();
            for slot in bucket.slots.iter().filter(|slot| slot.key() != 0 && !slot.value().is_static()) {
                let value = slot.value();
                if value.is_aged(ageing_seconds, now_seconds) {
                    return Some(slot);
                }
                if value.port() == port {
                    let age = value.age_seconds(now_seconds);
                    candidates += 1;
                    if oldest.is_none_or(|(oldest_age, _)| age > oldest_age) {
                        oldest = Some((age, slot));
                    }
                }
            }
            if candidates >= CANDIDATES {
                break;
            }
        }
        oldest.map(|(_, slot)| slot)
    }
}

fn slots(pair: [&Bucket; 2]) -> impl Iterator<Item = &Slot> {
    pair.into_iter().flat_map(|bucket| &bucket.slots)
}

fn slot_of(pair: [&Bucket; 2], key: u64) -> Option<&Slot> {
    slots(pair).find(|slot| slot.key() == key)
}

/// A free slot of the emptier bucket.
fn free_slot([first, second]: [&Bucket; 2]) -> Option<&Slot> {
    let emptier = if second.free_slots() > first.free_slots() { second } else { first };
    emptier.slots.iter().find(|slot| slot.key() == 0)
}
