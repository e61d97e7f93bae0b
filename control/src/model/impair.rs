//! The `[profiles.NAME]` and `[impair.PORT]` tables: what a bad link does to the frames of a port.
//!
//! A profile is a named set of [`Settings`]. An impairment may name a profile; settings of its own override those of
//! the profile. `[impair.PORT]` is for both directions, or for one (`direction`); `[impair.PORT.rx]` and
//! `[impair.PORT.tx]` are each for one. The switch's own rules ([`ImpairSpec::check`]) check the resulting settings
//! together, so that every result can be carried out. The profiles `default`, `constrained` and `lossy` are built in; a
//! table of the same name replaces one.

use std::time::Duration;

use labsw_switch::impair::{
    Chance, ImpairSpec, Loss, MAX_LOST_RETRANSMISSIONS, MAX_LOST_SEGMENT, MAX_QUEUE_BYTES, MAX_QUEUE_FRAMES, Outage,
    Profile, RateSpec, SegmentLoss,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::de::keys;
use super::mistake::AtKey;
use super::names;
use super::reader::{Reader, nearest};
use super::tree::{Path, Tree};
use super::units::{Share, Span};
use super::{schema, to_table, value};
use crate::filter;

mod values;

pub use values::{Bursts, ChangingRate, OutageTime};

/// Settings of an impairment; a setting that is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The time by which a frame is delayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// The variation of the delay to either side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// The share of frames lost at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Share>,
    /// Loss in bursts, by the model of Gilbert and Elliott; this or `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gemodel: Option<Bursts>,
    /// The share of frames that arrive twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Share>,
    /// The share of frames that are not delayed and overtake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Share>,
    /// The share of frames that arrive with a wrong bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Share>,
    /// The rate of the link, in bits per second, or rates that follow one another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<ChangingRate>,
    /// Frames that may wait for the rate.
    #[serde(with = "QueueFrames", skip_serializing_if = "Option::is_none")]
    pub queue_frames: Option<u32>,
    /// Bytes that may wait for the rate.
    #[serde(with = "QueueBytes", skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u32>,
    /// The time in which all frames are lost, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<OutageTime>,
    /// The data segment of each TCP connection that is lost, counted from 1.
    #[serde(with = "SegmentNumber", skip_serializing_if = "Option::is_none")]
    pub lose_segment: Option<u32>,
    /// How many retransmissions of that segment are lost, too.
    #[serde(with = "Retransmissions", skip_serializing_if = "Option::is_none")]
    pub lose_retransmissions: Option<u32>,
    /// The seed of all random numbers; left out: a new one each time.
    #[serde(with = "Seed", skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
}

/// A direction of a port, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Directions {
    /// Frames from the port.
    Rx,
    /// Frames to the port.
    Tx,
    /// Both.
    #[default]
    Both,
}

/// The keys of an impairment besides its [`Settings`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// The profile that the settings begin with.
    #[serde(with = "names::Profile", skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Only frames that this expression in tcpdump's syntax selects; left out: all.
    #[serde(with = "Filter", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// The key for the direction of an impairment.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct DirectionKey {
    /// The directions of the impaired frames: from the port (`rx`), to the port (`tx`); left out: both.
    direction: Directions,
}

/// A named set of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileConfig {
    /// The name of the profile.
    pub name: String,
    /// The settings of the profile.
    pub settings: Settings,
}

/// The impairment of a port, in at least one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpairConfig {
    /// Name of the port.
    pub port: String,
    /// The impairment of frames from the port.
    pub rx: Option<ImpairDirection>,
    /// The impairment of frames to the port.
    pub tx: Option<ImpairDirection>,
}

/// The impairment of one direction of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpairDirection {
    /// The profile that the settings begin with.
    pub profile: Option<String>,
    /// The frames that are impaired, in tcpdump's syntax; `None`: all.
    pub filter: Option<String>,
    /// The settings of the impairment itself.
    pub own: Settings,
    /// The resulting settings, of the profile and the impairment together.
    pub settings: Settings,
}

impl ProfileConfig {
    /// The JSON schema of a profile's table.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema::table(&[Settings::json_schema(generator)])
    }

    /// Reads the table of profile `name`. Returns nothing if there is a mistake.
    pub fn read(name: &str, tree: &Tree, reader: &mut Reader) -> Option<ProfileConfig> {
        let before = reader.mistakes();
        reader.check_keys(tree, keys::<Settings>(), |key| {
            (key == "filter").then(|| "stands in [impair.PORT], not in a profile".to_owned())
        });
        let settings = reader.part::<Settings>(tree)?;
        settings.note_contradictions(&settings, reader);
        (reader.mistakes() == before).then(|| ProfileConfig { name: name.to_owned(), settings })
    }

    /// The profile as a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        to_table(&self.settings)
    }
}

impl ImpairConfig {
    /// The keys of an impairment table, for one direction or both.
    pub fn keys() -> Vec<&'static str> {
        [keys::<Selection>(), keys::<Settings>(), keys::<DirectionKey>()].concat()
    }

    /// The JSON schema of an impairment's table.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        let direction = [Selection::json_schema(generator), Settings::json_schema(generator)];
        let [selection, settings] = direction.clone();
        let flat = schema::table(&[selection, settings, DirectionKey::json_schema(generator)]);
        let one = schema::table(&direction);
        let apart = json_schema!({
            "type": "object", "properties": { "rx": one, "tx": one }, "minProperties": 1, "additionalProperties": false
        });
        schema::any_of(&[flat, apart])
    }

    /// Reads the impairment of port `port`, with the profiles of the configuration. Returns nothing if there is a
    /// mistake.
    pub fn read(port: &str, tree: &Tree, profiles: &[ProfileConfig], reader: &mut Reader) -> Option<ImpairConfig> {
        let port = port.to_owned();
        if tree.get("rx").is_some() || tree.get("tx").is_some() {
            let before = reader.mistakes();
            reader.check_keys(tree, &["rx", "tx"], |key| {
                let known = [keys::<Selection>(), keys::<Settings>(), keys::<DirectionKey>()].concat();
                known.contains(&key).then(|| {
                    "stands beside a table of one direction (rx, tx); put it into that, or leave the tables out"
                        .to_owned()
                })
            });
            let [rx, tx] = ["rx", "tx"].map(|key| {
                let prefix = reader.prefix().clone();
                reader.set_prefix(prefix.key(key));
                let table = tree.get(key).filter(|table| reader.is_table(table));
                let read = table.and_then(|table| ImpairDirection::read(table, &[], profiles, reader));
                reader.set_prefix(prefix);
                read
            });
            return (reader.mistakes() == before).then_some(ImpairConfig { port, rx, tx });
        }
        let both = ImpairDirection::read(tree, &["direction", "rx", "tx"], profiles, reader);
        let DirectionKey { direction } = reader.part(tree)?;
        let both = both?;
        let rx = (direction != Directions::Tx).then(|| both.clone());
        Some(ImpairConfig { port, rx, tx: (direction != Directions::Rx).then_some(both) })
    }

    /// This impairment, with the directions that it lacks taken from `before`.
    #[must_use]
    pub fn above(self, before: Option<&ImpairConfig>) -> ImpairConfig {
        let (rx, tx) = before.map_or((None, None), |before| (before.rx.clone(), before.tx.clone()));
        ImpairConfig { port: self.port, rx: self.rx.or(rx), tx: self.tx.or(tx) }
    }

    /// The impairment as a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let flat = |direction: &ImpairDirection, name: &str| {
            let mut table = direction.to_toml();
            table.insert("direction".into(), name.into());
            table
        };
        match (&self.rx, &self.tx) {
            (Some(rx), Some(tx)) if rx == tx => flat(rx, "both"),
            (Some(rx), None) => flat(rx, "rx"),
            (None, Some(tx)) => flat(tx, "tx"),
            (rx, tx) => {
                let tables = [("rx", rx), ("tx", tx)].into_iter();
                let tables =
                    tables.filter_map(|(key, direction)| Some((key.to_owned(), direction.as_ref()?.to_toml())));
                tables.map(|(key, table)| (key, toml::Value::Table(table))).collect()
            }
        }
    }
}

impl ImpairDirection {
    /// Reads the impairment of one direction. `others` are further keys that the same table may have.
    fn read(
        tree: &Tree,
        others: &[&'static str],
        profiles: &[ProfileConfig],
        reader: &mut Reader,
    ) -> Option<ImpairDirection> {
        let before = reader.mistakes();
        reader.check_keys(tree, &[keys::<Selection>(), keys::<Settings>(), others].concat(), |_| None);
        let selection = reader.part::<Selection>(tree);
        let own = reader.part::<Settings>(tree);
        let Selection { profile, filter } = selection?;
        let below = match profile.as_deref().map(|name| find(name, profiles)).transpose() {
            Ok(below) => below,
            Err(wrong) => {
                reader.note(&Path::of(["profile"]), false, wrong);
                None
            }
        };
        let own = own?;
        let sets_nothing = profile.is_none() && (Settings { seed: None, ..own }) == Settings::default();
        if sets_nothing && reader.mistakes() == before {
            let wrong = "sets nothing; name a profile, or set delay, loss, rate or another of its keys";
            reader.note(&Path::default(), false, wrong.to_owned());
        }
        let settings = own.above(&below.unwrap_or_default());
        settings.note_contradictions(&own, reader);
        (reader.mistakes() == before).then_some(ImpairDirection { profile, filter, own, settings })
    }

    /// True if it has the same effect as `other`, however each is written.
    pub fn does_as(&self, other: &ImpairDirection) -> bool {
        (&self.settings, &self.filter) == (&other.settings, &other.filter)
    }

    /// The impairment as a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let mut table = to_table(&self.own);
        table.extend(to_table(&Selection { profile: self.profile.clone(), filter: self.filter.clone() }));
        table
    }
}

/// A key that holds a filter expression that compiles.
struct Filter;

impl Filter {
    fn serialize<S: Serializer>(filter: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        filter.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        value::text(deserializer, "a filter, as in \"tcp port 445\"", |text| match filter::compile(text) {
            Ok(_) => Ok(Some(text.to_owned())),
            Err(error) => Err(format!("{text:?}: {error}")),
        })
    }
}

schema::described!(Filter, |_| json_schema!({ "type": "string" }));

value::numbers! {
    /// A key that holds a length of the queue.
    QueueFrames, "a number of frames", 1..=MAX_QUEUE_FRAMES;
    /// A key that holds a length of the queue.
    QueueBytes, "a number of bytes", 1..=MAX_QUEUE_BYTES;
    /// A key that holds the number of a segment.
    SegmentNumber, "the number of a segment", 1..=MAX_LOST_SEGMENT;
    /// A key that holds a number of retransmissions.
    Retransmissions, "a number of retransmissions", 0..=MAX_LOST_RETRANSMISSIONS;
    /// A key that holds the number that all chance comes from.
    Seed, "a seed", 0..=u32::MAX;
}

/// The settings of the profile with this name; the error lists the profiles.
fn find(name: &str, profiles: &[ProfileConfig]) -> Result<Settings, String> {
    let written = profiles.iter().find(|profile| profile.name == name).map(|profile| profile.settings);
    let built_in = || Profile::built_in(name).map(|profile| Settings::of(&profile.spec));
    written.or_else(built_in).ok_or_else(|| {
        let written = profiles.iter().map(|profile| profile.name.as_str());
        let known: Vec<&str> = Profile::BUILT_IN.iter().map(|profile| profile.name).chain(written).collect();
        match nearest(name, &known) {
            Some(near) => format!("there is no profile {name:?}; did you mean {near:?}?"),
            None => format!("there is no profile {name:?}; there are {}", known.join(", ")),
        }
    })
}

impl Settings {
    /// Notes keys that contradict each other; `own` are the keys that the table itself has.
    fn note_contradictions(&self, own: &Settings, reader: &mut Reader) {
        let queue = [("queue_frames", self.queue_frames.is_some()), ("queue_bytes", self.queue_bytes.is_some())];
        if own.loss.is_some() && own.gemodel.is_some() {
            let wrong = "says which frames are lost, and so does `loss`; keep one of them";
            reader.note_key(&AtKey::value("gemodel", wrong));
        } else if let (None, Some((key, _))) = (self.rate, queue.into_iter().find(|(_, set)| *set)) {
            reader.note_key(&AtKey::value(key, "is the queue of a rate, and no `rate` is set"));
        } else if self.lose_retransmissions.is_some() && self.lose_segment.is_none() {
            let wrong = "is about the segment of `lose_segment`, and that is not set";
            reader.note_key(&AtKey::value("lose_retransmissions", wrong));
        } else if let Err(contradiction) = self.spec(0).check() {
            reader.note_key(&AtKey::value(contradiction.key(), contradiction));
        }
    }

    /// These settings, with the ones that are not set taken from `below`.
    fn above(&self, below: &Settings) -> Settings {
        let loses = self.loss.is_some() || self.gemodel.is_some();
        let (loss, gemodel) = if loses { (self.loss, self.gemodel) } else { (below.loss, below.gemodel) };
        Settings {
            delay: self.delay.or(below.delay),
            jitter: self.jitter.or(below.jitter),
            loss,
            gemodel,
            duplicate: self.duplicate.or(below.duplicate),
            reorder: self.reorder.or(below.reorder),
            corrupt: self.corrupt.or(below.corrupt),
            rate: self.rate.or(below.rate),
            queue_frames: self.queue_frames.or(below.queue_frames),
            queue_bytes: self.queue_bytes.or(below.queue_bytes),
            outage: self.outage.or(below.outage),
            lose_segment: self.lose_segment.or(below.lose_segment),
            lose_retransmissions: self.lose_retransmissions.or(below.lose_retransmissions),
            seed: self.seed.or(below.seed),
        }
    }

    /// The specification for the switch, with this seed.
    pub fn spec(&self, seed: u64) -> ImpairSpec {
        let ns = |span: Option<Span>| span.map_or(0, Span::as_ns);
        let chance = |share: Option<Share>| share.map(Into::into).unwrap_or_default();
        let rate = self.rate.map(|rate| RateSpec {
            rates: rate.into(),
            queue_bytes: self.queue_bytes.unwrap_or(RateSpec::QUEUE_BYTES),
            queue_frames: self.queue_frames.unwrap_or(RateSpec::QUEUE_FRAMES),
        });
        let loss = self.loss.map(|share| Loss::Random(share.into()));
        let retransmissions = self.lose_retransmissions.unwrap_or(0);
        ImpairSpec {
            delay_ns: ns(self.delay),
            jitter_ns: ns(self.jitter),
            loss: loss.or_else(|| self.gemodel.map(Loss::from)).unwrap_or(Loss::NONE),
            duplicate: chance(self.duplicate),
            reorder: chance(self.reorder),
            corrupt: chance(self.corrupt),
            rate,
            outage: self.outage.map(Outage::from),
            segment: self.lose_segment.map(|number| SegmentLoss { number, retransmissions }),
            seed,
        }
    }

    /// The settings that describe a specification, without its seed.
    fn of(spec: &ImpairSpec) -> Settings {
        let time = |ns: u64| (ns > 0).then(|| Duration::from_nanos(ns).into());
        let share = |chance: Chance| (chance != Chance::NEVER).then(|| chance.into());
        let (loss, gemodel) = match spec.loss {
            Loss::Random(chance) => (share(chance), None),
            Loss::GilbertElliott { enter, leave, loss_bad, loss_good } => {
                (None, Some(Bursts::new([enter, leave, loss_bad, loss_good])))
            }
        };
        Settings {
            delay: time(spec.delay_ns),
            jitter: time(spec.jitter_ns),
            loss,
            gemodel,
            duplicate: share(spec.duplicate),
            reorder: share(spec.reorder),
            corrupt: share(spec.corrupt),
            rate: spec.rate.map(|rate| rate.rates.into()),
            queue_frames: spec.rate.map(|rate| rate.queue_frames).filter(|frames| *frames != RateSpec::QUEUE_FRAMES),
            queue_bytes: spec.rate.map(|rate| rate.queue_bytes).filter(|bytes| *bytes != RateSpec::QUEUE_BYTES),
            outage: spec.outage.map(OutageTime::from),
            lose_segment: spec.segment.map(|loss| loss.number),
            lose_retransmissions: spec.segment.map(|loss| loss.retransmissions).filter(|count| *count > 0),
            seed: None,
        }
    }
}
