//! Guards of a port: `storm`, `mac_limit`, `mac_limit_action`, `sticky`, `macs`, `isolated`, `dhcp_guard`, `ra_guard`.
//!
//! All guards are off if left out. Each key has a value for off, which ends the guard at run time. [`GuardSpec`] of the
//! switch defines what the keys mean.

use labsw_switch::Mac;
use labsw_switch::fdb::MAX_CAPACITY;
use labsw_switch::guard::{self, GuardSpec, LimitAction, MAX_PINNED, MAX_RATE_PPS, MacLimit};
use schemars::JsonSchema;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mistake::AtKey;
use super::names::Station;
use super::schema::Words;
use super::units::FrameRate;
use super::{schema, value};

/// The keys of a port's guards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Guards {
    /// Limits of flooded frames from the port, in frames per second, as in `"1kpps"`.
    #[serde(skip_serializing_if = "Storm::is_off")]
    pub storm: Storm,
    /// The most addresses that are learned at the port; `"off"` or left out: no limit of the port's own.
    #[serde(with = "Limit", skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// How frames from further addresses are handled; left out: drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Words<LimitAction>")]
    pub mac_limit_action: Option<LimitAction>,
    /// Addresses learned at the port stay there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
    /// The only source addresses that may send; empty: any.
    #[serde(with = "Macs", skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<Station>,
    /// The port talks only to ports that are not isolated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Frames of DHCP servers are dropped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dhcp_guard: bool,
    /// IPv6 router advertisements and redirects are dropped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ra_guard: bool,
}

/// Limits of flooded frames from a port, in frames per second, by the cause of flooding; `"off"` or left out: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storm {
    /// Frames to the broadcast address.
    #[serde(with = "StormRate", skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<guard::FrameRate>,
    /// Frames to other group addresses.
    #[serde(with = "StormRate", skip_serializing_if = "Option::is_none")]
    pub multicast: Option<guard::FrameRate>,
    /// Frames to unicast addresses that are not in the forwarding database.
    #[serde(with = "StormRate", skip_serializing_if = "Option::is_none")]
    pub unknown_unicast: Option<guard::FrameRate>,
}

impl Storm {
    /// True if nothing is limited.
    pub fn is_off(&self) -> bool {
        *self == Storm::default()
    }
}

impl Guards {
    /// The keys that describe these guards.
    pub fn written(spec: &GuardSpec) -> Guards {
        let guard::Storm { broadcast, multicast, unknown_unicast } = spec.storm;
        Guards {
            storm: Storm { broadcast, multicast, unknown_unicast },
            mac_limit: spec.mac_limit.map(|limit| limit.addresses),
            mac_limit_action: spec.mac_limit.map(|limit| limit.action),
            sticky: spec.sticky,
            macs: spec.macs.iter().copied().map(Station).collect(),
            isolated: spec.isolated,
            dhcp_guard: spec.dhcp,
            ra_guard: spec.ra,
        }
    }

    /// The guards that the keys describe. `off` is true if `mac_limit` is set to off rather than left out.
    ///
    /// # Errors
    /// Keys that contradict each other.
    pub fn spec(self, off: bool) -> Result<GuardSpec, AtKey<String>> {
        let Guards { storm, mac_limit, mac_limit_action: action, sticky, macs, isolated, dhcp_guard, ra_guard } = self;
        let Storm { broadcast, multicast, unknown_unicast } = storm;
        if action.is_some() && mac_limit.is_none() && !off {
            let wrong = "is there without `mac_limit`; set that too";
            return Err(AtKey::value("mac_limit_action", wrong.to_owned()));
        }
        let mac_limit = mac_limit.map(|addresses| MacLimit { addresses, action: action.unwrap_or_default() });
        if let Some(MacLimit { addresses: limit, .. }) = mac_limit
            && macs.len() > limit as usize
        {
            let wrong = format!("names {} addresses, but mac_limit is {limit}", macs.len());
            return Err(AtKey::value("macs", wrong));
        }
        let mut macs: Vec<Mac> = macs.into_iter().map(|Station(mac)| mac).collect();
        macs.sort_unstable();
        Ok(GuardSpec {
            storm: guard::Storm { broadcast, multicast, unknown_unicast },
            mac_limit,
            sticky,
            macs,
            isolated,
            dhcp: dhcp_guard,
            ra: ra_guard,
        })
    }
}

/// A key that holds addresses of stations, each once.
struct Macs;

impl Macs {
    fn serialize<S: Serializer>(macs: &[Station], serializer: S) -> Result<S::Ok, S::Error> {
        macs.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Station>, D::Error> {
        value::list(
            deserializer,
            "an array of MAC addresses, as in [\"52:54:00:12:34:56\"]",
            |earlier: &[Station], station| match station {
                Station(mac) if earlier.contains(station) => {
                    Err(format!("{mac} is named twice; name each address once"))
                }
                _ if earlier.len() == MAX_PINNED => {
                    Err(format!("a port can be pinned to at most {MAX_PINNED} addresses"))
                }
                _ => Ok(()),
            },
        )
    }
}

schema::described!(Macs, |generator| schema::array(&Station::json_schema(generator), Some(MAX_PINNED)));

/// The largest `mac_limit`.
fn most_addresses() -> u32 {
    u32::try_from(MAX_CAPACITY).unwrap_or(u32::MAX)
}

/// A key that holds a number of addresses, or `"off"`.
struct Limit;

impl Limit {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    fn serialize<S: Serializer>(limit: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        limit.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        deserializer.deserialize_any(Limit)
    }
}

impl Visitor<'_> for Limit {
    type Value = Option<u32>;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "a number of addresses, or \"off\" (1 to {MAX_CAPACITY})")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<u32>, E> {
        match u32::try_from(number) {
            Ok(addresses) if (1..=most_addresses()).contains(&addresses) => Ok(Some(addresses)),
            _ => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<u32>, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<u32>, E> {
        match text {
            "off" => Ok(None),
            _ => Err(E::custom(format_args!("{text:?} is not \"off\" or a number of addresses (1 to {MAX_CAPACITY})"))),
        }
    }
}

schema::described!(Limit, |_| { schema::any_of(&[schema::integer(&(1..=most_addresses())), schema::word(&["off"])]) });

/// A key that holds a [`FrameRate`] within what storm control can keep, or `off`.
struct StormRate;

impl StormRate {
    fn serialize<S: Serializer>(rate: &Option<guard::FrameRate>, serializer: S) -> Result<S::Ok, S::Error> {
        rate.and_then(|rate| FrameRate::new(rate.get())).serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<guard::FrameRate>, D::Error> {
        value::text(deserializer, "a rate of frames, as in \"1kpps\"", |text| {
            if text == "off" {
                return Ok(None);
            }
            let rate = text.parse().ok().and_then(|rate: FrameRate| guard::FrameRate::new(rate.get()));
            rate.map(Some).ok_or_else(|| {
                format!(
                    "{text:?} is not a rate of frames (as in \"500pps\", \"1kpps\", \"2Mpps\"; 1 to {MAX_RATE_PPS} a \
                     second; \"off\": no limit)"
                )
            })
        })
    }
}

schema::described!(StormRate, |generator| {
    schema::any_of(&[FrameRate::json_schema(generator), schema::word(&["off"])])
});
