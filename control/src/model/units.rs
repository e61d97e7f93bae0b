//! Units: frame rates, bit rates, shares, spans of time and sizes, each with one parser and one way to be written.
//!
//! **How it works.** Each unit is a type with `FromStr` and `Display`. The file, `--set key=value`, the options of
//! `labsw-ctl` and the parameters and replies of the control socket all use these types, so that `10Mbit` or `1.5mbit`
//! means the same everywhere. Letters of a unit may be upper or lower case, and a blank may stand before the unit. A
//! number may have decimals as long as the value is whole.
//!
//! **Invariants.** A value that is written reads back as the same value. An error repeats the text and gives an
//! example.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use labsw_switch::impair::Chance;
use labsw_switch::inject::{MAX_RATE_FPS, MIN_RATE_FPS};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{schema, value};

/// Frames per second, 1 to 1 000 000 000: `500pps`, `10kpps`, `1.5Mpps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameRate(u32);

/// Bits per second, at least 1: `9600bit`, `64kbit`, `2.5gbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(u64);

/// A share of frames, 0 to 100 % in steps of 0.0001 %: `5%`, `0.25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(Chance);

/// A span of time, exact to a nanosecond: `20ms`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// A number of bytes, at least 1: `512M`, `8G`; the units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// The error for text that is not a value of the unit; the message names the unit and gives an example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidUnit {
    text: String,
    what: &'static str,
}

/// A unit, as messages call it.
pub trait Unit: FromStr<Err = InvalidUnit> + fmt::Display {
    /// A description of a value, with an example, for messages.
    const WHAT: &'static str;
}

/// Reads, writes and names a unit.
macro_rules! unit {
    ($unit:ident, $what:literal, $read:ident, $pattern:expr) => {
        impl Unit for $unit {
            const WHAT: &'static str = $what;
        }

        impl FromStr for $unit {
            type Err = InvalidUnit;

            fn from_str(text: &str) -> Result<$unit, InvalidUnit> {
                $read(text.trim()).ok_or_else(|| InvalidUnit { text: text.to_owned(), what: $what })
            }
        }

        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$unit, D::Error> {
                value::text(deserializer, $what, |text| text.parse::<$unit>().map_err(|wrong| wrong.to_string()))
            }
        }

        schema::described!($unit, |_| schema::text(&$pattern));
    };
}

unit!(
    FrameRate,
    "a rate of frames, as in \"500pps\", \"10kpps\" or \"1.5Mpps\" (1pps to 1000Mpps)",
    frame_rate,
    pattern(&FRAME_UNITS, "")
);
unit!(BitRate, "a rate, as in \"10mbit\"", bit_rate, bit_rate_pattern());
unit!(Share, "a share, as in \"5%\" (0% to 100%, at most 4 decimals)", share, share_pattern());
unit!(Span, "a time, as in \"20ms\"", span, span_pattern());
unit!(Size, "a size, as in \"512M\" or \"8G\"", size, pattern(&SIZE_UNITS, "([iI][bB])?"));

const FRAME_UNITS: [(&str, u64); 3] = [("mpps", 1_000_000), ("kpps", 1000), ("pps", 1)];
const BIT_UNITS: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("t", 1 << 40), ("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)];
/// Decimals that a number with a decimal unit may have.
const RATE_DECIMALS: u32 = 3;
/// Decimals that a share may have: those of a part per million in percent.
const SHARE_DECIMALS: u32 = 4;

impl FrameRate {
    /// `None` if it is out of range.
    pub fn new(frames_per_second: u32) -> Option<FrameRate> {
        (MIN_RATE_FPS..=MAX_RATE_FPS).contains(&frames_per_second).then_some(FrameRate(frames_per_second))
    }

    /// Frames per second.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl BitRate {
    /// `None` for 0.
    pub fn new(bits_per_second: u64) -> Option<BitRate> {
        (bits_per_second > 0).then_some(BitRate(bits_per_second))
    }

    /// Bits per second.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<Chance> for Share {
    fn from(chance: Chance) -> Share {
        Share(chance)
    }
}

impl From<Share> for Chance {
    fn from(share: Share) -> Chance {
        share.0
    }
}

impl From<Duration> for Span {
    fn from(time: Duration) -> Span {
        Span(time)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        span.0
    }
}

impl Span {
    /// Nanoseconds, at most `u64::MAX`.
    pub fn as_ns(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whole milliseconds, at most `u64::MAX`.
    pub fn as_milliseconds(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Size {
    /// `None` for 0.
    pub fn new(bytes: u64) -> Option<Size> {
        (bytes > 0).then_some(Size(bytes))
    }

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// The regular expression of numbers with one of `units` and `behind` it.
fn pattern(units: &[(&str, u64)], behind: &str) -> String {
    let letter = |letter: char| format!("[{letter}{}]", letter.to_ascii_uppercase());
    let units: Vec<String> = units.iter().map(|(unit, _)| unit.chars().map(letter).collect()).collect();
    format!(r"\s*[0-9]+(\.[0-9]{{1,{RATE_DECIMALS}}})?\s*({}){behind}\s*", units.join("|"))
}

/// The regular expression of shares; also of those within a list.
pub(super) fn share_pattern() -> String {
    format!(r"\s*[0-9]+(\.[0-9]{{1,{SHARE_DECIMALS}}})?\s*%\s*")
}

/// The regular expression of rates; also of those within a list.
pub(super) fn bit_rate_pattern() -> String {
    pattern(&BIT_UNITS, "")
}

/// The regular expression of times; also of those behind a word.
pub(super) fn span_pattern() -> String {
    r"\s*([0-9]+\s*[A-Za-zµ]+\s*)+".to_owned()
}

fn frame_rate(text: &str) -> Option<FrameRate> {
    FrameRate::new(u32::try_from(with_unit(text, &FRAME_UNITS)?).ok()?)
}

fn bit_rate(text: &str) -> Option<BitRate> {
    BitRate::new(with_unit(text, &BIT_UNITS)?)
}

fn share(text: &str) -> Option<Share> {
    let percent = decimal(text.strip_suffix('%')?.trim_end(), SHARE_DECIMALS)?;
    Chance::new(u32::try_from(percent).ok()?).map(Share)
}

fn span(text: &str) -> Option<Span> {
    humantime::parse_duration(text).ok().map(Span)
}

fn size(text: &str) -> Option<Size> {
    let text = text.to_ascii_lowercase();
    let bytes = with_unit(text.strip_suffix("ib").unwrap_or(&text), &SIZE_UNITS)?;
    (bytes > 0).then_some(Size(bytes))
}

/// A number with one of `units` behind it, if the value is whole.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let scale = 10_u64.pow(RATE_DECIMALS);
    let scaled = decimal(number.trim_end(), RATE_DECIMALS)?.checked_mul(factor)?;
    scaled.is_multiple_of(scale).then_some(scaled / scale)
}

/// Reads a number with at most `decimals` decimals, multiplied by ten to that power.
fn decimal(text: &str, decimals: u32) -> Option<u64> {
    let decimals = usize::try_from(decimals).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > decimals {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

impl fmt::Display for FrameRate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate % 1_000_000 == 0 => write!(out, "{}Mpps", rate / 1_000_000),
            rate if rate % 1000 == 0 => write!(out, "{}kpps", rate / 1000),
            rate => write!(out, "{rate}pps"),
        }
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BIT_UNITS.iter().find(|(_, unit)| self.0 >= *unit);
        let thousandths = self.0.checked_mul(10_u64.pow(RATE_DECIMALS));
        match (unit, thousandths) {
            (Some((name, unit)), Some(thousandths)) if thousandths.is_multiple_of(*unit) => {
                write!(out, "{}{name}", Decimal(thousandths / unit, RATE_DECIMALS))
            }
            _ => write!(out, "{}bit", self.0),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}%", Decimal(self.0.per_million().into(), SHARE_DECIMALS))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(out)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZE_UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(out, "{}{}", self.0 / unit, name.to_ascii_uppercase()),
            // A value below the smallest unit can only come from a fraction of that unit.
            None => {
                let thousandths = u128::from(self.0) * 1000 / 1024;
                write!(out, "{}K", Decimal(u64::try_from(thousandths).unwrap_or(u64::MAX), RATE_DECIMALS))
            }
        }
    }
}

/// A number divided by ten to a power, without zeros at the end.
struct Decimal(u64, u32);

impl fmt::Display for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = 10_u64.pow(self.1);
        let width = usize::try_from(self.1).unwrap_or(0);
        let fraction = format!("{:0>width$}", self.0 % power);
        match fraction.trim_end_matches('0') {
            "" => write!(out, "{}", self.0 / power),
            fraction => write!(out, "{}.{fraction}", self.0 / power),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text, the number it means, and how that is written.
    fn read_back<T: Unit + PartialEq + fmt::Debug + Copy>(number: fn(T) -> u64, cases: &[(&str, u64, &str)]) {
        for (text, expected, written) in cases {
            let value: T = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((number(value), value.to_string().as_str()), (*expected, *written), "{text}");
            assert_eq!(written.parse::<T>().as_ref(), Ok(&value), "{written}");
        }
    }

    fn refused<T: Unit + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let error = text.parse::<T>().expect_err(text).to_string();
            assert_eq!(error, format!("{text:?} is not {}", T::WHAT));
        }
    }

    #[test]
    fn frame_rates() {
        read_back::<FrameRate>(
            |rate| rate.get().into(),
            &[
                ("1pps", 1, "1pps"),
                ("1500pps", 1500, "1500pps"),
                ("1.5kpps", 1500, "1500pps"),
                ("10 kpps", 10_000, "10kpps"),
                ("1Kpps", 1000, "1kpps"),
                ("2mpps", 2_000_000, "2Mpps"),
                ("1000Mpps", 1_000_000_000, "1000Mpps"),
            ],
        );
        refused::<FrameRate>(&[
            "",
            "5",
            "pps",
            "-1pps",
            "+1pps",
            "0pps",
            "1.0005kpps",
            "1001Mpps",
            "5000000000pps",
            "1 000pps",
            "10mbit",
        ]);
    }

    #[test]
    fn bit_rates() {
        read_back::<BitRate>(
            BitRate::get,
            &[
                ("10mbit", 10_000_000, "10mbit"),
                ("10Mbit", 10_000_000, "10mbit"),
                ("1.5mbit", 1_500_000, "1.5mbit"),
                ("2.5Gbit", 2_500_000_000, "2.5gbit"),
                ("64 kbit", 64_000, "64kbit"),
                ("9600bit", 9_600, "9.6kbit"),
                ("1234567bit", 1_234_567, "1234567bit"),
            ],
        );
        refused::<BitRate>(&[
            "10",
            "10mb",
            "bit",
            "mbit",
            "0mbit",
            "-1mbit",
            "1.0001kbit",
            "10mbit/s",
            "99999999999gbit",
            "1kpps",
        ]);
    }

    #[test]
    fn shares() {
        read_back::<Share>(
            |share| share.0.per_million().into(),
            &[
                ("5%", 50_000, "5%"),
                ("0.25 %", 2_500, "0.25%"),
                ("100%", 1_000_000, "100%"),
                ("0.0001%", 1, "0.0001%"),
                ("0%", 0, "0%"),
            ],
        );
        refused::<Share>(&[
            "5",
            "%",
            "-1%",
            "101%",
            "5.00001%",
            "1e1%",
            "+5%",
            "5%%",
            ".5%",
            "5.%",
            "100.0001%",
            "99999999999999999999%",
        ]);
    }

    #[test]
    fn spans_and_sizes() {
        read_back::<Span>(Span::as_ns, &[("20ms", 20_000_000, "20ms"), ("1m30s", 90_000_000_000, "1m 30s")]);
        refused::<Span>(&["20", "", "ms", "-1ms"]);
        read_back::<Size>(
            Size::bytes,
            &[
                ("512M", 512 << 20, "512M"),
                ("8G", 8 << 30, "8G"),
                ("2048m", 2 << 30, "2G"),
                ("4GiB", 4 << 30, "4G"),
                ("0.5G", 512 << 20, "512M"),
            ],
        );
        refused::<Size>(&["512", "M", "0M", "-1G", "1X"]);
    }
}
