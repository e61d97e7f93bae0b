//! The memory that a port has for frames that passed: `"64MiB"`, or `"off"`.

use labsw_dataplane::capture::MIN_REWIND_BYTES;
use serde::{Deserializer, Serialize, Serializer};

use super::units::Size;
use super::{schema, value};

/// Most memory of a port, and of all ports together.
const MOST_BYTES: u64 = 1 << 40;
/// Most memory of all ports together, unless the file says otherwise.
pub(super) const DEFAULT_SUM: u64 = 1 << 30;

/// A key that holds the memory of a port: `"off"`, or 4 MiB to 1 TiB.
pub(super) struct Kept;

impl Kept {
    /// The value as text.
    pub(super) fn text(bytes: Option<u64>) -> String {
        bytes.and_then(Size::new).map_or_else(|| "off".to_owned(), |size| size.to_string())
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Kept::text(*bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        value::text(deserializer, "an amount of memory, as in \"64MiB\", or \"off\"", |text| match text {
            "off" => Ok(None),
            text => amount(text, MIN_REWIND_BYTES).map(Some).ok_or_else(|| {
                format!("{text:?} is not \"off\" or an amount of memory (as in \"64MiB\", 4MiB to 1TiB)")
            }),
        })
    }
}

schema::described!(Kept, |generator| schema::any_of(&[schema::word(&["off"]), Size::json_schema(generator)]));

/// A key that holds the memory of all ports together.
pub(super) struct KeptInAll;

impl KeptInAll {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        Size::new(*bytes).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        value::text(deserializer, "an amount of memory, as in \"1GiB\"", |text| {
            amount(text, MIN_REWIND_BYTES)
                .ok_or_else(|| format!("{text:?} is not an amount of memory (as in \"1GiB\", 4MiB to 1TiB)"))
        })
    }
}

schema::described!(KeptInAll, Size::json_schema);

fn amount(text: &str, least: u64) -> Option<u64> {
    let bytes = text.parse().ok().map(|size: Size| size.bytes());
    bytes.filter(|bytes| (least..=MOST_BYTES).contains(bytes))
}
