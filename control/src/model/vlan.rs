//! VLANs of a port, as set and shown: `vlan = { mode = "native-untagged", tag = 10, trunks = [10, "20-29"] }`.
//!
//! [`PortVlan`] of the switch defines what they mean; this file has the keys and the defaults. Without a `mode`, the
//! other keys decide, as in Open vSwitch (`vlan_mode` of ovs-vswitchd.conf.db(5)): `tag` alone is access, `trunks`
//! alone trunk, both native-untagged. A tunnel port needs its mode, and may have further keys:
//! `vlan = { mode = "dot1q-tunnel", tag = 100, cvlans = [0, "10-19"], ethertype = "0x88a8" }`.

use std::fmt;
use std::ops::RangeInclusive;

use labsw_switch::Vid;
use labsw_switch::vlan::{CustomerVlans, PortVlan, Tunnel, VlanMode, VlanSet};
use labsw_switch::wire::{TPID_C_TAG, TPID_S_TAG};
use schemars::{JsonSchema, Schema, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mistake::AtKey;
use super::schema::Words;
use super::{schema, value};

/// The `vlan` table of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vlan {
    /// The VLAN mode; left out: `tag` and `trunks` decide.
    #[schemars(with = "Words<VlanMode>")]
    pub mode: Option<VlanMode>,
    /// The VLAN of untagged frames, or of the tunnel; a trunk has none.
    pub tag: Option<VlanId>,
    /// The VLANs that pass tagged; left out: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunks: Option<VlanList>,
    /// The customer VLANs that may pass at a tunnel port, 0 for untagged frames; left out: all.
    #[serde(with = "CustomerList", skip_serializing_if = "Option::is_none")]
    pub cvlans: Option<VlanList>,
    /// The TPID of the tag that a tunnel port pushes; left out: 0x88a8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<Ethertype>,
}

/// TPID of the tag that a tunnel port pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Ethertype {
    /// 802.1ad, the service tag.
    #[serde(rename = "0x88a8")]
    Service,
    /// 802.1Q, the customer tag.
    #[serde(rename = "0x8100")]
    Customer,
}

impl Ethertype {
    /// The name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Ethertype::Service => "0x88a8",
            Ethertype::Customer => "0x8100",
        }
    }
}

/// A VLAN id, 1 to 4094, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanId(pub Vid);

/// A list of VLANs as written: ids and ranges, `[10, "20-29"]`, ascending when written by the switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanList(Vec<RangeInclusive<u16>>);

impl Vlan {
    /// The settings as a file has them: without keys that say nothing.
    pub fn written(vlan: &PortVlan) -> Vlan {
        let shown = Vlan::shown(vlan);
        Vlan { trunks: shown.trunks.filter(|_| !vlan.mode().has_one_vlan()), ..shown }
    }

    /// The settings as replies show them: always with `trunks`, which are empty for a port in one VLAN.
    pub fn shown(vlan: &PortVlan) -> Vlan {
        let tunnel = vlan.tunnel();
        let customers = tunnel.and_then(|tunnel| tunnel.cvlans.as_ref()).map(|allowed| {
            let untagged = allowed.untagged.then_some(0..=0);
            VlanList(untagged.into_iter().chain(allowed.tagged.ranges()).collect())
        });
        Vlan {
            mode: Some(vlan.mode()),
            tag: vlan.tag().map(VlanId),
            trunks: Some(vlan.trunks().into()),
            cvlans: customers,
            ethertype: tunnel.map(|tunnel| match tunnel.tpid {
                TPID_C_TAG => Ethertype::Customer,
                _ => Ethertype::Service,
            }),
        }
    }

    /// The membership that the keys describe.
    ///
    /// # Errors
    /// Keys that contradict each other.
    pub fn membership(self) -> Result<PortVlan, AtKey<String>> {
        let Vlan { mode, tag, trunks, cvlans, ethertype } = self;
        let tag = tag.map(|tag| tag.0);
        let mode = mode.unwrap_or(match (tag, &trunks) {
            (Some(_), None) => VlanMode::Access,
            (None, Some(_)) => VlanMode::Trunk,
            _ => VlanMode::NativeUntagged,
        });
        let at = |key, message: &str| Err(AtKey::value(key, message.to_owned()));
        let missing = |message: &str| Err(AtKey::table(message.to_owned()));
        let lists = [("trunks", &trunks), ("cvlans", &cvlans)];
        if let Some((key, _)) = lists.into_iter().find(|(_, list)| list.as_ref().is_some_and(VlanList::is_empty)) {
            return at(key, EMPTY);
        }
        if mode == VlanMode::Dot1qTunnel {
            return match tag {
                _ if trunks.is_some() => {
                    at("trunks", "a tunnel port has no trunks; `cvlans` lists its customer's VLANs")
                }
                None => missing("`tag` is missing; a tunnel port needs the VLAN id of the tunnel (1 to 4094)"),
                Some(tag) => Ok(PortVlan::tunnel_in(tag, tunnel(cvlans, ethertype))),
            };
        }
        let of_tunnels = [("cvlans", cvlans.is_some()), ("ethertype", ethertype.is_some())];
        if let Some((key, _)) = of_tunnels.into_iter().find(|(_, given)| *given) {
            let right = "is a key of a tunnel port; set mode = \"dot1q-tunnel\", or leave it out";
            return Err(AtKey::key(key, right.to_owned()));
        }
        let tag = match mode {
            VlanMode::Access if trunks.is_some() => {
                return at("trunks", "an access port has no trunks; use mode native-untagged or trunk");
            }
            VlanMode::Access if tag.is_none() => {
                return missing("`tag` is missing; an access port needs its VLAN id (1 to 4094)");
            }
            VlanMode::Trunk if tag.is_some() => {
                return at("tag", "a trunk has no tag of its own; use mode native-untagged or native-tagged");
            }
            VlanMode::NativeTagged | VlanMode::NativeUntagged => Some(tag.unwrap_or(Vid::DEFAULT)),
            VlanMode::Access | VlanMode::Trunk | VlanMode::Dot1qTunnel => tag,
        };
        let trunks = trunks.unwrap_or_default().0;
        PortVlan::new(mode, tag.map(Vid::get), &trunks).map_err(|error| AtKey::table(error.to_string()))
    }
}

fn tunnel(cvlans: Option<VlanList>, ethertype: Option<Ethertype>) -> Tunnel {
    let cvlans = cvlans.map(|VlanList(ranges)| CustomerVlans {
        untagged: ranges.iter().any(|range| range.contains(&0)),
        tagged: VlanSet::from_ranges(&ranges.into_iter().filter(|range| *range.start() > 0).collect::<Vec<_>>())
            .unwrap_or_default(),
    });
    let tpid = match ethertype {
        Some(Ethertype::Customer) => TPID_C_TAG,
        Some(Ethertype::Service) | None => TPID_S_TAG,
    };
    Tunnel { cvlans, tpid }
}

/// A key that holds the VLANs of a port, as a [`Vlan`].
pub(super) struct Membership;

impl Membership {
    pub(super) fn serialize<S: Serializer>(vlan: &PortVlan, serializer: S) -> Result<S::Ok, S::Error> {
        Vlan::written(vlan).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PortVlan, D::Error> {
        Vlan::deserialize(deserializer)?.membership().map_err(D::Error::custom)
    }
}

schema::described!(Membership, Vlan::json_schema);

const AN_ID: &str = "a VLAN id";
/// The complaint about a list without any VLAN.
pub(super) const EMPTY: &str = "is empty; leave the key out to mean all VLANs";
const A_LIST: &str = "an array of VLAN ids and ranges, as in [10, \"20-29\"]";

impl fmt::Display for VlanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Serialize for VlanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.0.get())
    }
}

impl<'de> Deserialize<'de> for VlanId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VlanId, D::Error> {
        let id: u16 = value::small_integer(deserializer, AN_ID, 1..=Vid::MAX.into())?;
        Vid::try_from(id).map(VlanId).map_err(D::Error::custom)
    }
}

impl From<&VlanSet> for VlanList {
    fn from(set: &VlanSet) -> VlanList {
        VlanList(set.ranges().collect())
    }
}

impl From<VlanList> for VlanSet {
    fn from(list: VlanList) -> VlanSet {
        VlanSet::from_ranges(&list.0).unwrap_or_default()
    }
}

impl VlanList {
    /// True if the list has no VLAN.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for VlanList {
    /// `10,20-29`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (low, high) if low == high => write!(out, "{separator}{low}")?,
                (low, high) => write!(out, "{separator}{low}-{high}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for VlanList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for range in &self.0 {
            match (range.start(), range.end()) {
                (low, high) if low == high => list.serialize_element(low)?,
                (low, high) => list.serialize_element(&format!("{low}-{high}"))?,
            }
        }
        list.end()
    }
}

/// VLANs of frames: ids from 1.
impl<'de> Deserialize<'de> for VlanList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VlanList, D::Error> {
        deserializer.deserialize_any(ListVisitor { accept: once::<1>, what: A_LIST, all: false })
    }
}

schema::described!(VlanId, |_| schema::integer(&(1..=Vid::MAX.into())));
schema::described!(VlanList, |_| schema::any_of(&list_schemas(1)));

/// An array of ids from `lowest` and ranges, and the text that commands have.
fn list_schemas(lowest: u32) -> [Schema; 2] {
    let range = schema::text(r"\s*[0-9]+\s*(-\s*[0-9]+\s*)?");
    let mut array = schema::array(&schema::any_of(&[schema::integer(&(lowest..=Vid::MAX.into())), range]), None);
    array.insert("minItems".to_owned(), 1.into());
    [array, schema::text(r"[0-9][0-9,\s-]*")]
}

/// A key that holds customer VLANs: 0 stands for untagged frames.
struct CustomerList;

impl CustomerList {
    fn serialize<S: Serializer>(list: &Option<VlanList>, serializer: S) -> Result<S::Ok, S::Error> {
        list.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<VlanList>, D::Error> {
        deserializer.deserialize_any(ListVisitor { accept: once::<0>, what: A_LIST, all: false }).map(Some)
    }
}

schema::described!(CustomerList, |_| schema::any_of(&list_schemas(0)));

/// A key that holds `true` and `false` for all VLANs and none, or an array of them.
pub(super) struct AllOrList;

impl AllOrList {
    pub(super) fn serialize<S: Serializer>(set: &VlanSet, serializer: S) -> Result<S::Ok, S::Error> {
        match set {
            none if none.is_empty() => serializer.serialize_bool(false),
            all if *all == VlanSet::ALL => serializer.serialize_bool(true),
            some => VlanList::from(some).serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VlanSet, D::Error> {
        let what = "true, false or an array of VLAN ids and ranges, as in [10, \"20-29\"]";
        deserializer.deserialize_any(ListVisitor { accept: once::<1>, what, all: true }).map(VlanSet::from)
    }
}

schema::described!(AllOrList, |_| {
    let [array, text] = list_schemas(1);
    schema::any_of(&[json_schema!({ "type": "boolean" }), array, text])
});

/// One element of a list.
struct Element(RangeInclusive<u16>);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Element, D::Error> {
        deserializer.deserialize_any(ElementVisitor).map(Element)
    }
}

struct ElementVisitor;

impl Visitor<'_> for ElementVisitor {
    type Value = RangeInclusive<u16>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{AN_ID} (1 to {})", Vid::MAX)
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<RangeInclusive<u16>, E> {
        match u16::try_from(id) {
            // The legal ids depend on the list.
            Ok(id) => Ok(id..=id),
            _ => Err(E::custom(format_args!("{id} is not {AN_ID} (1 to {})", Vid::MAX))),
        }
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<RangeInclusive<u16>, E> {
        self.visit_i64(i64::try_from(id).unwrap_or(i64::MAX))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<RangeInclusive<u16>, E> {
        range(text).map_err(E::custom)
    }
}

/// `"20-29"`, or one id.
fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let id = |part: &str| part.trim().parse::<u16>().ok().filter(|id| *id <= Vid::MAX);
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (id(low), id(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        _ => Err(format!("{text:?} is not a range of VLAN ids (as in \"20-29\", within 1 to {})", Vid::MAX)),
    }
}

/// Checks an element: no id below `LOWEST`, no VLAN twice.
fn once<const LOWEST: u16>(earlier: &[Element], Element(range): &Element) -> Result<(), String> {
    if let Some(id) = [range.start(), range.end()].into_iter().find(|id| !(LOWEST..=Vid::MAX).contains(*id)) {
        return Err(format!("{id} is not {AN_ID} ({LOWEST} to {})", Vid::MAX));
    }
    // If two ranges overlap, one contains the start of the other.
    let mut common = earlier.iter().map(|Element(earlier)| (earlier, *earlier.start().max(range.start())));
    match common.find(|(earlier, id)| earlier.contains(id) && range.contains(id)) {
        Some((_, id)) => Err(format!("VLAN {id} is named twice; name each VLAN once")),
        None => Ok(()),
    }
}

/// Reads a list: an array, or text like `10,20-29` from a command.
struct ListVisitor {
    accept: fn(&[Element], &Element) -> Result<(), String>,
    what: &'static str,
    /// True if `true` and `false` stand for all VLANs and none.
    all: bool,
}

impl<'de> Visitor<'de> for ListVisitor {
    type Value = VlanList;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<VlanList, A::Error> {
        let elements = value::List { what: self.what, accept: self.accept }.visit_seq(elements)?;
        match self.all && elements.is_empty() {
            true => Err(A::Error::custom(EMPTY)),
            false => Ok(VlanList(elements.into_iter().map(|Element(range)| range).collect())),
        }
    }

    fn visit_bool<E: Error>(self, all: bool) -> Result<VlanList, E> {
        match (self.all, all) {
            (true, true) => Ok(VlanList(vec![1..=Vid::MAX])),
            (true, false) => Ok(VlanList::default()),
            (false, value) => Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<VlanList, E> {
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self));
        }
        let mut elements = Vec::new();
        for part in text.split(',') {
            let element = Element(range(part.trim()).map_err(E::custom)?);
            (self.accept)(&elements, &element).map_err(E::custom)?;
            elements.push(element);
        }
        Ok(VlanList(elements.into_iter().map(|Element(range)| range).collect()))
    }
}
