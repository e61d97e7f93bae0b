//! Values of impairments that have parts: loss in bursts, rates that follow one another, and the time of an outage.
//!
//! Each is a type with `FromStr` and `Display`, like a [unit](super::super::units): a value that is written reads back
//! as the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use labsw_switch::impair::rates::{RateStep, Rates};
use labsw_switch::impair::{Chance, Loss, Outage};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::units::{self, BitRate, Share, Span};
use super::super::{schema, value};

/// Loss in bursts. `1% 25% 100% 0%` are the chances to go from the good state to the bad one, to go from bad to good,
/// to lose a frame in the bad state, and to lose one in the good state. The last two may be left out: 100% and 0%.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts([Share; 4]);

/// A rate, or rates that follow one another from the start of the impairment: `10mbit for 5s, 1mbit for 2s`. They
/// repeat, unless the last has no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangingRate(Rates);

/// The time of an outage: `5s after 10s` lasts 5 seconds and begins 10 seconds after the impairment; `5s` begins with
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutageTime {
    lasts: Span,
    after: Option<Span>,
}

/// Reads and writes a value, and its schema.
macro_rules! value {
    ($value:ident, $what:literal, $pattern:expr) => {
        impl $value {
            const WHAT: &'static str = $what;
        }

        impl FromStr for $value {
            type Err = String;

            fn from_str(text: &str) -> Result<$value, String> {
                $value::parse(text).ok_or_else(|| format!("{text:?} is not {}", $value::WHAT))
            }
        }

        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$value, D::Error> {
                value::text(deserializer, $value::WHAT, str::parse)
            }
        }

        schema::described!($value, |_| schema::text(&$pattern));
    };
}

value!(Bursts, "two to four shares, as in \"1% 25%\" (see docs/impairments.md)", bursts_pattern());
value!(
    ChangingRate,
    "a rate, as in \"10mbit\", or up to 16 in turn, as in \"10mbit for 5s, 1mbit for 2s\"",
    rates_pattern()
);
value!(OutageTime, "an outage, as in \"5s after 10s\" or \"5s\"", outage_pattern());

fn bursts_pattern() -> String {
    format!("({}){{2,4}}", units::share_pattern())
}

fn rates_pattern() -> String {
    let step = format!("{}(for{})?", units::bit_rate_pattern(), units::span_pattern());
    format!("{step}(,{step})*")
}

fn outage_pattern() -> String {
    format!("{0}(after{0})?", units::span_pattern())
}

impl From<Bursts> for Loss {
    fn from(Bursts(shares): Bursts) -> Loss {
        let [enter, leave, loss_bad, loss_good] = shares.map(Chance::from);
        Loss::GilbertElliott { enter, leave, loss_bad, loss_good }
    }
}

impl Bursts {
    /// The chances to go from good to bad, from bad to good, to lose a frame in the bad state, and in the good one.
    pub(super) fn new(chances: [Chance; 4]) -> Bursts {
        Bursts(chances.map(Share::from))
    }

    fn parse(text: &str) -> Option<Bursts> {
        let shares: Vec<Share> = text.split_whitespace().map(|share| share.parse().ok()).collect::<Option<_>>()?;
        let [always, never] = [Chance::ALWAYS, Chance::NEVER].map(Share::from);
        match *shares {
            [enter, leave] => Some(Bursts([enter, leave, always, never])),
            [enter, leave, bad] => Some(Bursts([enter, leave, bad, never])),
            [enter, leave, bad, good] => Some(Bursts([enter, leave, bad, good])),
            _ => None,
        }
    }
}

impl fmt::Display for Bursts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [enter, leave, bad, good] = &self.0;
        write!(out, "{enter} {leave} {bad} {good}")
    }
}

impl ChangingRate {
    fn parse(text: &str) -> Option<ChangingRate> {
        let step = |step: &str| {
            let (rate, lasts_ns) = match step.split_once(" for ") {
                Some((rate, time)) => (rate, time.parse::<Span>().ok()?.as_ns()),
                None => (step, RateStep::FOR_EVER),
            };
            Some(RateStep { bits_per_second: rate.parse::<BitRate>().ok()?.get(), lasts_ns })
        };
        let steps: Vec<RateStep> = text.split(',').map(step).collect::<Option<_>>()?;
        let (_, before) = steps.split_last()?;
        let follow = before.iter().all(|step| step.lasts_ns != RateStep::FOR_EVER);
        follow.then(|| Rates::new(&steps)).flatten().map(ChangingRate)
    }
}

impl From<ChangingRate> for Rates {
    fn from(ChangingRate(rates): ChangingRate) -> Rates {
        rates
    }
}

impl From<Rates> for ChangingRate {
    fn from(rates: Rates) -> ChangingRate {
        ChangingRate(rates)
    }
}

impl fmt::Display for ChangingRate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.steps().iter().enumerate() {
            out.write_str(if at > 0 { ", " } else { "" })?;
            // The switch's rates are never 0.
            BitRate::new(step.bits_per_second).map_or(Ok(()), |rate| rate.fmt(out))?;
            if step.lasts_ns != RateStep::FOR_EVER {
                write!(out, " for {}", Span::from(Duration::from_nanos(step.lasts_ns)))?;
            }
        }
        Ok(())
    }
}

impl OutageTime {
    fn parse(text: &str) -> Option<OutageTime> {
        let (lasts, after) = match text.split_once("after") {
            Some((lasts, after)) => (lasts, Some(after.parse().ok()?)),
            None => (text, None),
        };
        Some(OutageTime { lasts: lasts.parse().ok()?, after })
    }
}

impl From<OutageTime> for Outage {
    fn from(OutageTime { lasts, after }: OutageTime) -> Outage {
        Outage { after_ns: after.map_or(0, Span::as_ns), lasts_ns: lasts.as_ns() }
    }
}

impl From<Outage> for OutageTime {
    fn from(Outage { after_ns, lasts_ns }: Outage) -> OutageTime {
        let span = |ns| Span::from(Duration::from_nanos(ns));
        OutageTime { lasts: span(lasts_ns), after: (after_ns > 0).then(|| span(after_ns)) }
    }
}

impl fmt::Display for OutageTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.lasts)?;
        self.after.map_or(Ok(()), |after| write!(out, " after {after}"))
    }
}
