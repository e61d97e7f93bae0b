//! Arguments with rules beyond plain text, checked before the call: a mistake here is wrong usage (exit status 2).

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use labsw_switch::Mac;
use serde_json::Value;

use crate::api::parse_vlan_id;
use crate::config::split_setting;
use crate::model::{Size, Span};

/// True for `-`, which is standard input or output.
pub(super) fn is_dash(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// A VLAN id, 1 to 4094.
pub(super) fn vlan(text: &str) -> Result<u16, String> {
    parse_vlan_id(text).map_err(|error| error.to_string())
}

/// A MAC address.
pub(super) fn mac(text: &str) -> Result<Mac, String> {
    text.parse::<Mac>().map_err(|error| error.to_string())
}

/// A MAC address of a single station.
pub(super) fn unicast_mac(text: &str) -> Result<Mac, String> {
    let mac = mac(text)?;
    if mac.is_group() { Err("a group address, which is at no single port".to_owned()) } else { Ok(mac) }
}

/// `key=value`.
pub(super) fn setting(text: &str) -> Result<(String, Value), String> {
    split_setting(text).map_err(|_| "not of the form key=value (as in vlan.tag=20)".to_owned())
}

/// A value of a unit, as in the configuration.
pub(super) fn unit<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A time, in milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    text.parse::<Span>().map(Span::as_milliseconds).map_err(|error| error.to_string())
}

/// A name, which is never empty.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("an empty name".to_owned()) } else { Ok(text.to_owned()) }
}

/// A size of memory: a number and a unit.
pub(super) fn memory(text: &str) -> Result<String, String> {
    text.parse::<Size>().map(|size| size.to_string()).map_err(|error| error.to_string())
}

/// The first two numbers of a version.
pub(super) fn version(text: &str) -> Result<(u32, u32), String> {
    let mut numbers = text.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        (Some(Ok(major)), None) => Ok((major, 0)),
        _ => Err("not a version (as in 7.2)".to_owned()),
    }
}

/// The interval of `stats --watch` and `top`; the lower limit keeps the switch from answering all the time.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(3600));
    match Duration::from(text.parse::<Span>().map_err(|error| error.to_string())?) {
        interval if (least..=most).contains(&interval) => Ok(interval),
        _ => Err("out of range; 100ms to 1h".to_owned()),
    }
}

/// A time of at least a millisecond, in milliseconds.
pub(super) fn some_milliseconds(text: &str) -> Result<u64, String> {
    match milliseconds(text)? {
        0 => Err("0 is too short; at least 1ms".to_owned()),
        some => Ok(some),
    }
}
