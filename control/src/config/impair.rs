//! The `[profiles.NAME]` and `[impair.PORT]` tables: what a bad link does to the frames of a port.
//!
//! A profile is a set of [`Settings`] with a name; an impairment may name one, and what it sets itself stands above that.
//! `[impair.PORT]` is for both directions, or one (`direction`); `[impair.PORT.rx]` and `[impair.PORT.tx]` are for each its own.
//! What both say together is checked by the switch's own rules ([`ImpairSpec::check`]), so that nothing comes out that
//! can't be carried out. The profiles `default`, `constrained` and `lossy` are there without being written; a table of the
//! same name replaces one.

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::time::Duration;

use labsw_switch::impair::{Chance, ImpairSpec, Loss, MAX_QUEUE_BYTES, MAX_QUEUE_FRAMES, Profile, RateSpec};

use super::error::ConfigError;
use super::names;
use super::section::{Field, Section, nearest};
use super::settings;

/// The keys of a profile.
const KEYS: [&str; 11] = [
    "delay",
    "jitter",
    "loss",
    "gemodel",
    "duplicate",
    "reorder",
    "corrupt",
    "rate",
    "queue_frames",
    "queue_bytes",
    "seed",
];
const A_TIME: &str = "a time, as in \"20ms\"";
const A_SHARE: &str = "a share, as in \"5%\"";
const A_RATE: &str = "a rate, as in \"10mbit\"";
const A_MODEL: &str = "two to four shares, as in \"1% 25%\" (see docs/impairments.md)";

/// What is set of an impairment; `None` is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How long a frame is under way.
    pub delay: Option<Duration>,
    /// By how much that varies.
    pub jitter: Option<Duration>,
    /// Which frames are lost: `loss` or `gemodel`.
    pub loss: Option<Loss>,
    /// Which frames arrive twice.
    pub duplicate: Option<Chance>,
    /// Which frames overtake.
    pub reorder: Option<Chance>,
    /// Which frames arrive with a wrong bit.
    pub corrupt: Option<Chance>,
    /// Bits per second.
    pub rate: Option<u64>,
    /// Frames that may wait for the rate.
    pub queue_frames: Option<u32>,
    /// Bytes that may wait for the rate.
    pub queue_bytes: Option<u32>,
    /// What chance comes from; left out: something else each time.
    pub seed: Option<u32>,
}

/// A set of settings with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileConfig {
    /// Its name.
    pub name: String,
    /// What it sets.
    pub settings: Settings,
}

/// The impairment of a port; at least one direction has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpairConfig {
    /// Name of the port.
    pub port: String,
    /// What happens to frames from the port.
    pub rx: Option<ImpairDirection>,
    /// What happens to frames to the port.
    pub tx: Option<ImpairDirection>,
}

/// The impairment of one direction of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpairDirection {
    /// The profile it begins with.
    pub profile: Option<String>,
    /// The frames it is for, in tcpdump's syntax; `None`: all.
    pub filter: Option<String>,
    /// What it sets itself.
    pub own: Settings,
    /// What both set together.
    pub settings: Settings,
}

impl ProfileConfig {
    pub(super) fn read(name: &str, section: &Section<'_>) -> Result<ProfileConfig, ConfigError> {
        section.check_keys(&KEYS, |key| {
            (key == "filter").then(|| "stands in [impair.PORT], not in a profile".to_owned())
        })?;
        let settings = Settings::read(section)?;
        settings.check(section)?;
        Ok(ProfileConfig { name: name.to_owned(), settings })
    }

    /// As a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        self.settings.to_toml()
    }
}

impl ImpairConfig {
    /// An impairment from a command: `labsw-ctl impair set PORT --delay 20ms …`, with the profiles of the configuration.
    pub fn from_settings(
        port: &str,
        set: &[(String, String)],
        profiles: &[ProfileConfig],
    ) -> Result<ImpairConfig, ConfigError> {
        settings::read(&format!("impair.{port}"), set, |section| ImpairConfig::read(port, section, profiles))
    }

    pub(super) fn read(
        port: &str,
        section: &Section<'_>,
        profiles: &[ProfileConfig],
    ) -> Result<ImpairConfig, ConfigError> {
        let [rx, tx] = ["rx", "tx"].map(|key| section.get(key));
        if rx.is_some() || tx.is_some() {
            let beside = |key: &str| {
                ["profile", "filter", "direction"].into_iter().chain(KEYS).any(|known| known == key).then(|| {
                    "stands beside a table of one direction (rx, tx); put it into that, or leave the tables out"
                        .to_owned()
                })
            };
            section.check_keys(&["rx", "tx"], beside)?;
            let read = |field: Option<Field<'_>>| {
                field.map(|field| ImpairDirection::read(&field.section()?, &[], profiles)).transpose()
            };
            return Ok(ImpairConfig { port: port.to_owned(), rx: read(rx)?, tx: read(tx)? });
        }
        let both = ImpairDirection::read(section, &["direction", "rx", "tx"], profiles)?;
        let directions = [("rx", (true, false)), ("tx", (false, true)), ("both", (true, true))];
        let direction = section.get("direction").map(|field| field.choice(&directions)).transpose()?;
        let (rx, tx) = direction.unwrap_or((true, true));
        Ok(ImpairConfig { port: port.to_owned(), rx: rx.then(|| both.clone()), tx: tx.then_some(both) })
    }

    /// This, and where it says nothing about a direction, what `before` says.
    #[must_use]
    pub fn above(self, before: Option<&ImpairConfig>) -> ImpairConfig {
        let (rx, tx) = before.map_or((None, None), |before| (before.rx.clone(), before.tx.clone()));
        ImpairConfig { port: self.port, rx: self.rx.or(rx), tx: self.tx.or(tx) }
    }

    /// As a table of the configuration.
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
    /// `others` are keys of the same table that say something else.
    fn read(
        section: &Section<'_>,
        others: &[&str],
        profiles: &[ProfileConfig],
    ) -> Result<ImpairDirection, ConfigError> {
        let known: Vec<&str> = ["profile", "filter"].into_iter().chain(KEYS).chain(others.iter().copied()).collect();
        section.check_keys(&known, |_| None)?;
        let named = section.get("profile");
        let profile = named.as_ref().map(|field| find(field, profiles)).transpose()?;
        let own = Settings::read(section)?;
        if profile.is_none() && (Settings { seed: None, ..own }) == Settings::default() {
            return Err(section.error("sets nothing; name a profile, or set delay, loss, rate or another of its keys"));
        }
        let settings = own.above(&profile.as_ref().map(|profile| profile.settings).unwrap_or_default());
        settings.check(section)?;
        let filter = section.get("filter").map(|field| filter(&field)).transpose()?;
        Ok(ImpairDirection { profile: profile.map(|profile| profile.name), filter, own, settings })
    }

    /// Whether it does the same as `other`, wherever that is written.
    pub fn does_as(&self, other: &ImpairDirection) -> bool {
        (&self.settings, &self.filter) == (&other.settings, &other.filter)
    }

    fn to_toml(&self) -> toml::Table {
        let mut table = self.own.to_toml();
        let named = [("profile", &self.profile), ("filter", &self.filter)].into_iter();
        table.extend(named.filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into()))));
        table
    }
}

/// An expression that compiles.
fn filter(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.string("a filter, as in \"tcp port 445\"")?.to_owned();
    match crate::filter::compile(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(field.error(format_args!("{text:?}: {error}"))),
    }
}

/// The profile of this name.
fn find(field: &Field<'_>, profiles: &[ProfileConfig]) -> Result<ProfileConfig, ConfigError> {
    let name = field.checked("a profile name", names::port)?;
    let written = profiles.iter().find(|profile| profile.name == name).cloned();
    let found = written.or_else(|| {
        let Profile { name, spec } = Profile::built_in(&name)?;
        Some(ProfileConfig { name: name.to_owned(), settings: Settings::of(&spec) })
    });
    found.ok_or_else(|| {
        let written = profiles.iter().map(|profile| profile.name.as_str());
        let known: Vec<&str> = Profile::BUILT_IN.iter().map(|profile| profile.name).chain(written).collect();
        let hint = match nearest(&name, &known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("there are {}", known.join(", ")),
        };
        field.error(format_args!("there is no profile {name:?}; {hint}"))
    })
}

impl Settings {
    fn read(section: &Section<'_>) -> Result<Settings, ConfigError> {
        let share = |key| section.get(key).map(|field| parsed(&field, A_SHARE, chance)).transpose();
        let time = |key| section.get(key).map(|field| parsed(&field, A_TIME, time)).transpose();
        let integer = |key, what, range| section.get(key).map(|field| field.integer(what, range)).transpose();
        let loss = share("loss")?.map(Loss::Random);
        let bursts = section.get("gemodel").map(|field| parsed(&field, A_MODEL, model)).transpose()?;
        if loss.is_some() && bursts.is_some() {
            return Err(section.error_at("gemodel", "says which frames are lost, and so does `loss`; keep one of them"));
        }
        Ok(Settings {
            delay: time("delay")?,
            jitter: time("jitter")?,
            loss: loss.or(bursts),
            duplicate: share("duplicate")?,
            reorder: share("reorder")?,
            corrupt: share("corrupt")?,
            rate: section.get("rate").map(|field| parsed(&field, A_RATE, rate)).transpose()?,
            queue_frames: integer("queue_frames", "a number of frames", 1..=MAX_QUEUE_FRAMES)?,
            queue_bytes: integer("queue_bytes", "a number of bytes", 1..=MAX_QUEUE_BYTES)?,
            seed: integer("seed", "a seed", 0..=u32::MAX)?,
        })
    }

    /// A complaint if they contradict each other.
    fn check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        if self.rate.is_none() && (self.queue_frames.is_some() || self.queue_bytes.is_some()) {
            let key = if self.queue_frames.is_some() { "queue_frames" } else { "queue_bytes" };
            return Err(section.error_at(key, "is the queue of a rate, and no `rate` is set"));
        }
        self.spec(0).check().map_err(|contradiction| section.error_at(contradiction.key(), &contradiction))
    }

    /// These, and where they set nothing, `below`.
    fn above(&self, below: &Settings) -> Settings {
        Settings {
            delay: self.delay.or(below.delay),
            jitter: self.jitter.or(below.jitter),
            loss: self.loss.or(below.loss),
            duplicate: self.duplicate.or(below.duplicate),
            reorder: self.reorder.or(below.reorder),
            corrupt: self.corrupt.or(below.corrupt),
            rate: self.rate.or(below.rate),
            queue_frames: self.queue_frames.or(below.queue_frames),
            queue_bytes: self.queue_bytes.or(below.queue_bytes),
            seed: self.seed.or(below.seed),
        }
    }

    /// What the switch is to do, with a seed of its own kind.
    pub fn spec(&self, seed: u64) -> ImpairSpec {
        let ns = |time: Option<Duration>| time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let rate = self.rate.map(|bits_per_second| RateSpec {
            bits_per_second,
            queue_bytes: self.queue_bytes.unwrap_or(RateSpec::QUEUE_BYTES),
            queue_frames: self.queue_frames.unwrap_or(RateSpec::QUEUE_FRAMES),
        });
        ImpairSpec {
            delay_ns: ns(self.delay),
            jitter_ns: ns(self.jitter),
            loss: self.loss.unwrap_or(Loss::NONE),
            duplicate: self.duplicate.unwrap_or_default(),
            reorder: self.reorder.unwrap_or_default(),
            corrupt: self.corrupt.unwrap_or_default(),
            rate,
            seed,
        }
    }

    /// The settings of a specification, without its seed.
    fn of(spec: &ImpairSpec) -> Settings {
        let time = |ns: u64| (ns > 0).then(|| Duration::from_nanos(ns));
        let share = |chance: Chance| (chance != Chance::NEVER).then_some(chance);
        Settings {
            delay: time(spec.delay_ns),
            jitter: time(spec.jitter_ns),
            loss: (spec.loss != Loss::NONE).then_some(spec.loss),
            duplicate: share(spec.duplicate),
            reorder: share(spec.reorder),
            corrupt: share(spec.corrupt),
            rate: spec.rate.map(|rate| rate.bits_per_second),
            queue_frames: spec.rate.map(|rate| rate.queue_frames).filter(|frames| *frames != RateSpec::QUEUE_FRAMES),
            queue_bytes: spec.rate.map(|rate| rate.queue_bytes).filter(|bytes| *bytes != RateSpec::QUEUE_BYTES),
            seed: None,
        }
    }

    /// As they are written in the configuration: the key, and the value without quotes.
    pub fn written(&self) -> Vec<(&'static str, String)> {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let (loss, gemodel) = match self.loss {
            Some(Loss::Random(chance)) => (Some(percent(chance)), None),
            Some(Loss::GilbertElliott { enter, leave, loss_bad, loss_good }) => {
                (None, Some([enter, leave, loss_bad, loss_good].map(percent).join(" ")))
            }
            None => (None, None),
        };
        let values = [
            self.delay.map(time),
            self.jitter.map(time),
            loss,
            gemodel,
            self.duplicate.map(percent),
            self.reorder.map(percent),
            self.corrupt.map(percent),
            self.rate.map(bits),
            self.queue_frames.map(|frames| frames.to_string()),
            self.queue_bytes.map(|bytes| bytes.to_string()),
            self.seed.map(|seed| seed.to_string()),
        ];
        KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn to_toml(self) -> toml::Table {
        let value = |key: &str, text: String| match key {
            "queue_frames" | "queue_bytes" | "seed" => toml::Value::Integer(text.parse().unwrap_or_default()),
            _ => text.into(),
        };
        self.written().into_iter().map(|(key, text)| (key.to_owned(), value(key, text))).collect()
    }
}

/// A string that `read` understands; `what` says what it should be.
fn parsed<T>(field: &Field<'_>, what: &str, read: fn(&str) -> Option<T>) -> Result<T, ConfigError> {
    let text = field.string(what)?;
    read(text).ok_or_else(|| field.error(format_args!("{text:?} is not {what}")))
}

/// `20ms`.
fn time(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// `5%`, `0.25%`: at most 100, with at most four decimals.
fn chance(text: &str) -> Option<Chance> {
    let number = text.strip_suffix('%')?.trim_end();
    Chance::new(u32::try_from(decimal(number, 4)?).ok()?)
}

/// `1% 25% 100% 0%`: from good to bad, from bad to good, loss in the bad state, loss in the good state.
fn model(text: &str) -> Option<Loss> {
    let shares: Vec<Chance> = text.split_whitespace().map(chance).collect::<Option<_>>()?;
    let (&[enter, leave], rest) = shares.split_first_chunk()?;
    let (loss_bad, loss_good) = match *rest {
        [] => (Chance::ALWAYS, Chance::NEVER),
        [bad] => (bad, Chance::NEVER),
        [bad, good] => (bad, good),
        _ => return None,
    };
    Some(Loss::GilbertElliott { enter, leave, loss_bad, loss_good })
}

/// `10mbit`, `2.5Gbit`, `64kbit`, `9600bit`: bits per second, with at most three decimals.
fn rate(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let number = text.strip_suffix("bit")?;
    let (number, unit) = match number.as_bytes().last()? {
        b'k' => (number.strip_suffix('k')?, 1_000),
        b'm' => (number.strip_suffix('m')?, 1_000_000),
        b'g' => (number.strip_suffix('g')?, 1_000_000_000),
        _ => (number, 1),
    };
    let thousandths = decimal(number.trim_end(), 3)?.checked_mul(unit)?;
    (thousandths % 1000 == 0).then_some(thousandths / 1000)
}

/// A number with at most so many decimals, times ten to that power.
fn decimal(text: &str, decimals: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > decimals {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

/// `0.25%`.
fn percent(chance: Chance) -> String {
    format!("{}%", with_decimals(chance.per_million().into(), 4))
}

/// `10mbit`.
fn bits(rate: u64) -> String {
    let (unit, name) = match rate {
        1_000_000_000.. => (1_000_000_000, "gbit"),
        1_000_000.. => (1_000_000, "mbit"),
        1_000.. => (1_000, "kbit"),
        _ => (1, "bit"),
    };
    match (rate.checked_mul(1000), rate % (unit / 1000).max(1)) {
        (Some(thousandths), 0) => format!("{}{name}", with_decimals(thousandths / unit, 3)),
        _ => format!("{rate}bit"),
    }
}

/// `number` divided by ten to the power of `decimals`, without zeros at the end.
fn with_decimals(number: u64, decimals: usize) -> impl Display {
    let digits = format!("{number:0>width$}", width = decimals + 1);
    let (whole, fraction) = digits.split_at_checked(digits.len() - decimals).unwrap_or((&digits, ""));
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}
