//! Rates: the increase per second between two readings of counters. Used by `stats --watch` and `top`.

use serde::Serialize;

use crate::api::Counters;

/// Frames and bits that a port received and sent, and frames that it dropped, per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub rx_frames_per_second: f64,
    pub rx_bits_per_second: f64,
    pub tx_frames_per_second: f64,
    pub tx_bits_per_second: f64,
    pub dropped_per_second: f64,
    /// The most frequent drop reason, if frames were dropped.
    pub main_drop_reason: Option<String>,
}

impl Rates {
    /// The rates between `before` and `now`, `milliseconds` apart. Counters that went back (the port was removed and
    /// added) give 0 once.
    pub(super) fn between(before: &Counters, now: &Counters, milliseconds: u64) -> Rates {
        let rate = |count: fn(&Counters) -> u64| per_second(count(before), count(now), milliseconds);
        let added = now.drops.iter().map(|(reason, count)| {
            (count.saturating_sub(before.drops.get(reason).copied().unwrap_or_default()), reason)
        });
        // Of two equal counts, the reason that is first by name.
        let main =
            added.filter(|(added, _)| *added > 0).max_by_key(|(added, reason)| (*added, std::cmp::Reverse(*reason)));
        Rates {
            rx_frames_per_second: rate(|counters| counters.rx_frames),
            rx_bits_per_second: 8.0 * rate(|counters| counters.rx_bytes),
            tx_frames_per_second: rate(|counters| counters.tx_frames),
            tx_bits_per_second: 8.0 * rate(|counters| counters.tx_bytes),
            dropped_per_second: rate(Counters::dropped),
            main_drop_reason: main.map(|(_, reason)| reason.clone()),
        }
    }
}

/// The increase per second.
pub(super) fn per_second(before: u64, now: u64, milliseconds: u64) -> f64 {
    // Counters above 2^53 are rounded, by less than a rate shows.
    #[allow(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
    let (added, milliseconds) = (now.saturating_sub(before) as f64, milliseconds.max(1) as f64);
    added * 1000.0 / milliseconds
}

/// A rate as text, with one decimal if it is small.
pub(super) fn plain(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// A rate as text of at most five characters: `0`, `0.5`, `999`, `1.00k`, `12.3M`, `999G`.
pub(super) fn short(rate: f64) -> String {
    let mut rest = rate;
    for unit in ["", "k", "M", "G", "T"] {
        let digits = match rest {
            zero if zero <= 0.0 => return "0".to_owned(),
            few if unit.is_empty() && few < 9.95 => 1,
            _ if unit.is_empty() => 0,
            units if units < 9.995 => 2,
            tens if tens < 99.95 => 1,
            _ => 0,
        };
        if rest < 999.5 {
            return format!("{rest:.digits$}{unit}");
        }
        rest /= 1000.0;
    }
    ">999T".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(frames: u64, drops: &[(&str, u64)]) -> Counters {
        let drops = drops.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Counters { rx_frames: frames, rx_bytes: 100 * frames, tx_frames: 2 * frames, drops, ..Counters::default() }
    }

    #[test]
    fn rates_are_what_was_added_in_the_time_between() {
        let before = counters(1000, &[("runt", 5), ("oversize", 0), ("port_down", 10)]);
        let now = counters(1500, &[("runt", 6), ("oversize", 4), ("port_down", 10)]);
        let rates = Rates::between(&before, &now, 500);
        assert_eq!((rates.rx_frames_per_second, rates.rx_bits_per_second), (1000.0, 800_000.0));
        assert_eq!((rates.tx_frames_per_second, rates.tx_bits_per_second), (2000.0, 0.0));
        assert_eq!((rates.dropped_per_second, rates.main_drop_reason.as_deref()), (10.0, Some("oversize")));
        assert_eq!(Rates::between(&now, &before, 500), Rates::default(), "a port that was created again");
        assert_eq!(Rates::between(&now, &now, 0), Rates::default(), "no time between");
    }

    #[test]
    fn rates_are_short() {
        let shown = [0.0, 0.5, 9.94, 9.96, 999.4, 999.6, 9994.0, 12_340.0, 999_600.0, 1e9, 123.4e9, 1e15].map(short);
        assert_eq!(
            shown,
            ["0", "0.5", "9.9", "10", "999", "1.00k", "9.99k", "12.3k", "1.00M", "1.00G", "123G", ">999T"]
        );
        assert!(shown.iter().all(|text| text.len() <= 5));
        assert_eq!([0.0, 0.25, 9.96, 2000.4].map(plain), ["0", "0.2", "10", "2000"]);
    }
}
