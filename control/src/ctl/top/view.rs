//! The state of the view: the last two answers of the switch, the order of the ports, and the selected port.
//!
//! **Invariants.** A port stays selected by its name, wherever the order puts it. Rates are shown only between two
//! answers of the same run of the switch.

use std::cmp::Ordering;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;

use crate::api::{Mirror, Port, Status};
use crate::ctl::rates::{Rates, per_second};

/// Rows that a page key moves by.
const PAGE: usize = 10;

/// The order of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Name,
    Received,
    Sent,
    Dropped,
}

/// The effect of a key on the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Go,
    Quit,
}

/// A port with its rates.
#[derive(Debug)]
pub(super) struct PortRow {
    pub port: Port,
    /// `None` until there are two answers.
    pub rates: Option<Rates>,
    /// Drops per second by reason, those that are not 0.
    pub drops: Vec<(String, f64)>,
}

/// A mirror, with the frames that it selected, sent and dropped per second.
#[derive(Debug)]
pub(super) struct MirrorRow {
    pub mirror: Mirror,
    pub rates: Option<[f64; 3]>,
}

/// The state of the view; see the module.
#[derive(Debug)]
pub(super) struct View {
    pub interval: Duration,
    /// The last answer.
    pub now: Option<Box<Status>>,
    /// Why the last question has no answer.
    pub trouble: Option<String>,
    /// The ports in the order shown.
    pub ports: Vec<PortRow>,
    pub mirrors: Vec<MirrorRow>,
    pub order: Order,
    pub reversed: bool,
    selected: Option<String>,
    /// True if the selected port is shown in full.
    pub details: bool,
    /// The marked row, and the first row on the screen.
    pub table: TableState,
}

impl View {
    pub(super) fn new(interval: Duration) -> View {
        View {
            interval,
            now: None,
            trouble: None,
            ports: Vec::new(),
            mirrors: Vec::new(),
            order: Order::Name,
            reversed: false,
            selected: None,
            details: false,
            table: TableState::new(),
        }
    }

    /// Takes an answer of the switch, or the reason why there is none.
    pub(super) fn hear(&mut self, answer: Result<Box<Status>, String>) {
        match answer {
            Ok(status) => {
                let before = self.now.replace(status).filter(|_| self.trouble.is_none());
                self.trouble = None;
                self.compare(before.as_deref());
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    fn compare(&mut self, before: Option<&Status>) {
        let Some(now) = &self.now else { return };
        let time = |before: &Status| now.uptime_milliseconds.checked_sub(before.uptime_milliseconds);
        let between = before.and_then(|before| Some((before, time(before).filter(|time| *time > 0)?)));
        let ports = now.ports.iter().map(|port| {
            let earlier = between.map(|(before, time)| {
                let counters = before.ports.iter().find(|earlier| earlier.name == port.name);
                (counters.map(|earlier| earlier.counters.clone()).unwrap_or_default(), time)
            });
            let rates = earlier.as_ref().map(|(earlier, time)| Rates::between(earlier, &port.counters, *time));
            let drops = earlier.iter().flat_map(|(earlier, time)| {
                let count = |reason: &String| earlier.drops.get(reason).copied().unwrap_or_default();
                let drops = port.counters.drops.iter();
                drops.map(move |(reason, now)| (reason.clone(), per_second(count(reason), *now, *time)))
            });
            PortRow { port: port.clone(), rates, drops: drops.filter(|(_, rate)| *rate > 0.0).collect() }
        });
        let mirrors = now.mirrors.iter().map(|mirror| {
            let rates = between.and_then(|(before, time)| {
                let earlier = before.mirrors.iter().find(|earlier| earlier.name == mirror.name)?;
                let rate = |count: fn(&Mirror) -> u64| per_second(count(earlier), count(mirror), time);
                Some([rate(|mirror| mirror.matched), rate(|mirror| mirror.sent), rate(|mirror| mirror.dropped)])
            });
            MirrorRow { mirror: mirror.clone(), rates }
        });
        let (ports, mirrors) = (ports.collect(), mirrors.collect());
        (self.ports, self.mirrors) = (ports, mirrors);
        self.sort();
    }

    fn sort(&mut self) {
        let rate = |row: &PortRow| {
            row.rates.as_ref().map_or(0.0, |rates| match self.order {
                Order::Name => 0.0,
                Order::Received => rates.rx_bits_per_second,
                Order::Sent => rates.tx_bits_per_second,
                Order::Dropped => rates.dropped_per_second,
            })
        };
        self.ports.sort_by(|a, b| {
            let by_rate = rate(b).partial_cmp(&rate(a)).unwrap_or(Ordering::Equal);
            let order = by_rate.then_with(|| a.port.name.cmp(&b.port.name));
            if self.reversed { order.reverse() } else { order }
        });
        let at = |name: &String| self.ports.iter().position(|row| row.port.name == *name);
        let at = self.selected.as_ref().and_then(at).unwrap_or(0);
        self.select(at);
    }

    /// Marks a row, or the last one.
    fn select(&mut self, row: usize) {
        let row = row.min(self.ports.len().saturating_sub(1));
        self.selected = self.ports.get(row).map(|row| row.port.name.clone());
        self.table.select(self.selected.is_some().then_some(row));
    }

    /// The port that is marked.
    pub(super) fn marked(&self) -> Option<&PortRow> {
        self.ports.get(self.table.selected()?)
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Flow {
        let row = self.table.selected().unwrap_or(0);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Flow::Quit,
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc if self.details => self.details = false,
            KeyCode::Esc => return Flow::Quit,
            KeyCode::Enter => self.details = !self.details,
            KeyCode::Up | KeyCode::Char('k') => self.select(row.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(row + 1),
            KeyCode::PageUp => self.select(row.saturating_sub(PAGE)),
            KeyCode::PageDown => self.select(row + PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Char('n') => self.order_by(Order::Name),
            KeyCode::Char('r') => self.order_by(Order::Received),
            KeyCode::Char('t') => self.order_by(Order::Sent),
            KeyCode::Char('d') => self.order_by(Order::Dropped),
            _ => {}
        }
        Flow::Go
    }

    /// Changes the order of the ports; the same order once more is reversed.
    fn order_by(&mut self, order: Order) {
        self.reversed = self.order == order && !self.reversed;
        self.order = order;
        self.sort();
    }
}
