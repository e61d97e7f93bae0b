//! The last events, and who reads them.
//!
//! **How it works.** All readers share one ring of [`CAPACITY`] events; each has a place in it. A reader that is so
//! slow that events it has not read leave the ring gets the number of these, and goes on with the oldest that is left.
//!
//! **Bounds.** No text of an event is longer than [`MAX_TEXT`] characters, or [`MAX_REASON`] for a reason, which may
//! name every mistake of a file. No event has more than [`MAX_SETTINGS`]
//! settings.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::api::{Event, Events, Feed, Reply};

/// Events that are kept.
pub(super) const CAPACITY: usize = 4096;
/// Events of one reply.
const BATCH: usize = 128;
/// Characters of a text of an event.
pub(super) const MAX_TEXT: usize = 240;
/// Characters of a reason.
pub(super) const MAX_REASON: usize = 4000;
/// Settings of an event.
pub(super) const MAX_SETTINGS: usize = 64;

/// The last events.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Events so far; the number of the last one.
    told: u64,
}

/// A ring and its readers' way to it.
pub(super) type Shared = Arc<Mutex<Ring>>;

/// The ring, for a moment.
pub(super) fn lock(ring: &Shared) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    /// Gives an event its number, and keeps it.
    pub(super) fn push(&mut self, mut event: Event) -> Arc<Event> {
        bound(&mut event);
        self.told += 1;
        event.number = self.told;
        if self.events.len() >= CAPACITY {
            self.events.pop_front();
        }
        let event = Arc::new(event);
        self.events.push_back(Arc::clone(&event));
        event
    }

    /// The number of the oldest event that is kept, or of the next one.
    fn oldest(&self) -> u64 {
        self.told + 1 - self.events.len() as u64
    }
}

/// Cuts texts that are too long.
fn bound(event: &mut Event) {
    let Event { name, state, reason, mac, from, method, object, settings, .. } = event;
    settings.truncate(MAX_SETTINGS);
    let values = settings.iter_mut().flat_map(|setting| [&mut setting.before, &mut setting.now]);
    let texts = [name, state, mac, from, method, object].into_iter().chain(values).map(|text| (text, MAX_TEXT));
    for (text, most) in texts.chain([(reason, MAX_REASON)]) {
        if let Some(text) = text
            && let Some((end, _)) = text.char_indices().nth(most)
        {
            text.truncate(end);
            text.push('…');
        }
    }
}

/// One reader.
#[derive(Debug)]
pub(super) struct Reader {
    ring: Shared,
    /// The number of the next event it is to get.
    next: u64,
    /// It got its first reply, which comes at once and may have no event.
    begun: bool,
    finishing: bool,
    since: Instant,
}

impl Reader {
    /// A reader that begins with the `last` events.
    pub(super) fn new(ring: &Shared, last: u64) -> Reader {
        let next = {
            let ring = lock(ring);
            (ring.told + 1).saturating_sub(last).max(ring.oldest())
        };
        Reader { ring: Arc::clone(ring), next, begun: false, finishing: false, since: Instant::now() }
    }

    /// The next events, up to a reply's fill, and how many were lost before them.
    fn take(&mut self) -> Events {
        let ring = lock(&self.ring);
        let (oldest, told) = (ring.oldest(), ring.told);
        let lost = oldest.saturating_sub(self.next);
        let first = usize::try_from(self.next.max(oldest) - oldest).unwrap_or(usize::MAX);
        let events: Vec<Event> = ring.events.iter().skip(first).take(BATCH).map(|event| Event::clone(event)).collect();
        self.next = events.last().map_or(told, |event| event.number) + 1;
        Events { events, lost }
    }

    fn has_news(&self) -> bool {
        lock(&self.ring).told >= self.next
    }
}

impl Feed for Reader {
    fn due(&self) -> Option<Instant> {
        (!self.begun || self.finishing || self.has_news()).then_some(self.since)
    }

    fn next(&mut self, _now: Instant) -> Option<(Reply, bool)> {
        if self.begun && !self.finishing && !self.has_news() {
            return None;
        }
        self.begun = true;
        let events = self.take();
        let last = self.finishing && !self.has_news();
        Some((Reply::Events(events), last))
    }

    fn finish(&mut self, _now: Instant) {
        self.finishing = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{EventKind, EventSetting};

    fn numbers(reader: &mut Reader) -> Option<(Vec<u64>, u64, bool)> {
        let (Reply::Events(told), last) = reader.next(Instant::now())? else { panic!("no events") };
        Some((told.events.iter().map(|event| event.number).collect(), told.lost, last))
    }

    #[test]
    fn a_reader_gets_what_comes_after_it_and_if_it_wants_what_was_before() {
        let ring = Shared::default();
        let tell = || drop(lock(&ring).push(Event::new(EventKind::Ready)));
        tell();
        tell();
        let [mut new, mut late] = [0, 1].map(|last| Reader::new(&ring, last));
        let mut all = Reader::new(&ring, u64::MAX);
        assert_eq!(numbers(&mut new), Some((vec![], 0, false)), "the first reply comes at once");
        assert_eq!((numbers(&mut new), new.due()), (None, None));
        assert_eq!(numbers(&mut late), Some((vec![2], 0, false)));
        tell();
        assert!(new.due().is_some());
        assert_eq!(numbers(&mut new), Some((vec![3], 0, false)));
        assert_eq!(numbers(&mut all), Some((vec![1, 2, 3], 0, false)));
        tell();
        late.finish(Instant::now());
        assert_eq!(numbers(&mut late), Some((vec![3, 4], 0, true)));
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let ring = Shared::default();
        let mut reader = Reader::new(&ring, 0);
        assert_eq!(numbers(&mut reader), Some((vec![], 0, false)));
        let all = CAPACITY as u64 + 10;
        (0..all).for_each(|_| drop(lock(&ring).push(Event::new(EventKind::Ready))));
        assert_eq!(lock(&ring).events.len(), CAPACITY);
        let (mut got, mut lost) = (Vec::new(), 0);
        while let Some((numbers, missed, _)) = numbers(&mut reader) {
            assert!(numbers.len() <= BATCH && (got.is_empty() || missed == 0));
            got.extend(numbers);
            lost += missed;
        }
        assert_eq!((lost, got), (10, (11..=all).collect()));
    }

    #[test]
    fn texts_and_settings_have_a_bound() {
        let long = || Some("ä".repeat(5000));
        let setting = EventSetting { key: "filter".into(), before: long(), now: long() };
        let event = Event { reason: long(), object: long(), settings: vec![setting; 500], ..Event::default() };
        let kept = lock(&Shared::default()).push(event);
        assert_eq!(kept.settings.len(), MAX_SETTINGS);
        assert_eq!(kept.reason.as_ref().unwrap().chars().count(), MAX_REASON + 1);
        let texts = [&kept.object, &kept.settings[0].before, &kept.settings[0].now];
        assert!(texts.iter().all(|text| text.as_ref().unwrap().chars().count() == MAX_TEXT + 1));
    }
}
