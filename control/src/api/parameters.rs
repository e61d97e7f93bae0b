//! Parameters of calls with rules beyond their type: names, VLAN ids, MAC addresses, frames.

use labsw_switch::{Mac, Vid};
use serde::{Deserialize, Deserializer};

use super::Source;
use crate::model::{VlanId, value};

/// A name, which is never empty.
pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    value::text(deserializer, "a name", |name| match name {
        "" => Err("a name is never empty".to_owned()),
        name => Ok(name.to_owned()),
    })
}

/// A VLAN id, 1 to 4094.
pub(super) fn vlan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    VlanId::deserialize(deserializer).map(|VlanId(vid)| vid.get())
}

/// A VLAN id, or null.
pub(super) fn optional_vlan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    Ok(Option::<VlanId>::deserialize(deserializer)?.map(|VlanId(vid)| vid.get()))
}

/// VLAN ids, or null.
pub(super) fn vlans<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u16>>, D::Error> {
    let vlans = Option::<Vec<VlanId>>::deserialize(deserializer)?;
    Ok(vlans.map(|vlans| vlans.into_iter().map(|VlanId(vid): VlanId| Vid::get(vid)).collect()))
}

/// Sources of a mirror, at least one; or null.
pub(super) fn sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Source>>, D::Error> {
    let sources = Option::<Vec<Source>>::deserialize(deserializer)?;
    if sources.as_ref().is_some_and(Vec::is_empty) { Err(serde::de::Error::custom("is empty")) } else { Ok(sources) }
}

/// A MAC address.
pub(super) mod mac {
    use super::{Deserializer, Mac, value};
    use serde::Serializer;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        value::text(deserializer, "a MAC address", |text| text.parse::<Mac>().map_err(|error| error.to_string()))
    }
}

/// A frame, in hexadecimal.
pub(super) mod frame {
    use super::{Deserializer, value};
    use crate::api::{frame_text, parse_frame};
    use serde::Serializer;

    pub fn serialize<S: Serializer>(frame: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&frame_text(frame))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        value::text(deserializer, "a frame in hexadecimal", |text| parse_frame(text).map_err(|error| error.to_string()))
    }
}
