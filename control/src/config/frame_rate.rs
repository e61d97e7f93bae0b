//! Rates in frames per second, as people write them: `"500pps"`, `"1kpps"`, `"2Mpps"`.

use labsw_switch::guard::{FrameRate, MAX_RATE_PPS};

use super::error::ConfigError;
use super::section::Field;

/// The units, largest first.
const UNITS: [(&str, u32); 3] = [("Mpps", 1_000_000), ("kpps", 1000), ("pps", 1)];

/// A rate, or `None` for the word `off`.
pub(super) fn read(field: &Field<'_>) -> Result<Option<FrameRate>, ConfigError> {
    let what = "a rate of frames, as in \"1kpps\"";
    match field.string(what)?.trim() {
        "off" => Ok(None),
        text => parse(text).map(Some).ok_or_else(|| {
            let right =
                format!("as in \"500pps\", \"1kpps\", \"2Mpps\"; 1 to {MAX_RATE_PPS} a second; \"off\": no limit");
            field.error(format_args!("{text:?} is not a rate of frames ({right})"))
        }),
    }
}

fn parse(text: &str) -> Option<FrameRate> {
    let (number, unit) = UNITS.iter().find_map(|(word, unit)| Some((text.strip_suffix(word)?, *unit)))?;
    let number = number.trim_end();
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    FrameRate::new(number.parse::<u32>().ok()?.checked_mul(unit)?)
}

/// A rate as it is written, in the largest unit that has no fraction.
pub(super) fn text(rate: FrameRate) -> String {
    let whole = |(_, unit): &&(&str, u32)| rate.get().is_multiple_of(*unit);
    let (word, unit) = UNITS.iter().find(whole).copied().unwrap_or(("pps", 1));
    format!("{}{word}", rate.get() / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back_and_rubbish_is_none() {
        for (written, frames_per_second) in [
            ("1pps", 1),
            ("999pps", 999),
            ("1kpps", 1000),
            ("1500pps", 1500),
            ("2Mpps", 2_000_000),
            ("10Mpps", 10_000_000),
        ] {
            assert_eq!(parse(written).map(FrameRate::get), Some(frames_per_second));
            assert_eq!(text(parse(written).unwrap()), written);
        }
        for bad in [
            "",
            "5",
            "pps",
            "-1pps",
            "+1pps",
            "1.5kpps",
            "0pps",
            "11Mpps",
            "4295Mpps",
            "5000000000pps",
            "1Kpps",
            "1 000pps",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
