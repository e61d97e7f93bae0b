//! The keys of an `af_xdp` port: a network device of the host, through AF_XDP sockets.

pub use labsw_dataplane::xdp::{Queues, XdpMode};
use schemars::JsonSchema;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::QUEUES_MAX;
use super::claim::Claim;
use super::types::TypeSettings;
use crate::model::device::DeviceSpec;
use crate::model::schema::{self, Words};
use crate::model::switch::SwitchConfig;

/// The settings of an `af_xdp` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AfXdpConfig {
    /// The device, as in `"pci:0000:03:00.1"`, `"mac:52:54:00:12:34:56"` or `"name:enp3s0f1"`.
    pub device: DeviceSpec,
    /// The XDP mode: how frames get in and out of the driver.
    #[serde(default)]
    #[schemars(with = "Words<XdpMode>")]
    pub mode: XdpMode,
    /// The receive queues that are bound.
    #[serde(default, with = "AllOrCount")]
    pub queues: Queues,
    /// The worker runs the kernel's receive loop (busy polling).
    #[serde(default)]
    pub busy_poll: bool,
}

impl TypeSettings for AfXdpConfig {
    fn leads_to_switches() -> bool {
        true
    }

    fn claims(&self, _: &str, _: &SwitchConfig) -> Vec<(&'static str, Claim)> {
        vec![("device", Claim::Device(self.device.clone()))]
    }
}

/// A key that holds `"all"` or a number of queues.
struct AllOrCount;

impl AllOrCount {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    fn serialize<S: Serializer>(queues: &Queues, serializer: S) -> Result<S::Ok, S::Error> {
        match queues {
            Queues::All => serializer.serialize_str("all"),
            Queues::Count(count) => serializer.serialize_u32(*count),
        }
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Queues, D::Error> {
        deserializer.deserialize_any(AllOrCount)
    }
}

impl Visitor<'_> for AllOrCount {
    type Value = Queues;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "\"all\" or a number of queues (1 to {QUEUES_MAX})")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Queues, E> {
        match u32::try_from(number) {
            Ok(count) if (1..=QUEUES_MAX).contains(&count) => Ok(Queues::Count(count)),
            _ => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Queues, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Queues, E> {
        if text == "all" { Ok(Queues::All) } else { Err(E::custom(format_args!("{text:?} is not one of all"))) }
    }
}

schema::described!(AllOrCount, |_| { schema::any_of(&[schema::integer(&(1..=QUEUES_MAX)), schema::word(&["all"])]) });
