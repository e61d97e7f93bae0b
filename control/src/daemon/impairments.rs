//! Impairments of ports: set, shown, cleared. An impairment belongs to the port, whatever becomes of its device, and
//! goes with the port.
//!
//! Each direction has its own schedule; with the same seed, the two directions draw different random numbers. An
//! impairment set by hand begins with the first frame; one that a configuration leaves unchanged goes on. Frames held
//! by a schedule that is replaced are dropped and counted (`impair_cleared`).

mod handover;

use std::sync::Arc;

use labsw_dataplane::impair::{Schedule, TxDelay};
use labsw_switch::impair::{Contradiction, Counts, ImpairSpec};

use super::seed::random_seed;
use crate::api::{self, Error, PortDirection};
use crate::config::{ImpairConfig, ImpairDirection, ImpairSettings};
use crate::filter;

/// Added to the 32-bit seed for the receive direction, so that the directions draw different random numbers.
const RX_SEED: u64 = 1 << 32;

/// The impairment of a port.
#[derive(Clone)]
pub(super) struct Impaired {
    pub(super) config: ImpairConfig,
    rx: Option<Carried<Schedule>>,
    tx: Option<Carried<TxDelay>>,
}

/// One direction of an impairment, carried out.
struct Carried<T> {
    seed: u32,
    /// `None`: the settings have no effect.
    by: Option<Arc<T>>,
}

impl<T> Clone for Carried<T> {
    fn clone(&self) -> Carried<T> {
        Carried { seed: self.seed, by: self.by.clone() }
    }
}

impl Impaired {
    /// The impairment of `config`, with the schedules of `before` where `keeps` says so.
    fn new(
        config: ImpairConfig,
        before: Option<&Impaired>,
        keeps: impl Fn(PortDirection) -> bool,
    ) -> Result<Impaired, Error> {
        let kept = before.map(|before| (&before.rx, &before.tx));
        let rx = match kept {
            Some((rx, _)) if keeps(PortDirection::Rx) => rx.clone(),
            _ => carried(&config.port, config.rx.as_ref(), RX_SEED, |schedule| schedule)?,
        };
        let tx = match kept {
            Some((_, tx)) if keeps(PortDirection::Tx) => tx.clone(),
            _ => carried(&config.port, config.tx.as_ref(), 0, TxDelay::new)?,
        };
        Ok(Impaired { config, rx, tx })
    }

    /// The impairment after setting the directions that `config` names, from the first frame; the other direction stays
    /// as it was.
    pub(super) fn over(before: Option<&Impaired>, config: ImpairConfig) -> Result<Impaired, Error> {
        let (rx, tx) = (config.rx.is_some(), config.tx.is_some());
        let config = config.above(before.map(|before| &before.config));
        Impaired::new(config, before, |direction| match direction {
            PortDirection::Rx => !rx,
            PortDirection::Tx => !tx,
        })
    }

    /// The impairment of `config`. A direction with the same settings as before goes on.
    pub(super) fn following(before: Option<&Impaired>, config: ImpairConfig) -> Result<Impaired, Error> {
        let does_as = |a: &Option<ImpairDirection>, b: &Option<ImpairDirection>| match (a, b) {
            (Some(a), Some(b)) => a.does_as(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let (rx, tx) = before.map_or((false, false), |before| {
            (does_as(&before.config.rx, &config.rx), does_as(&before.config.tx, &config.tx))
        });
        Impaired::new(config, before, |direction| match direction {
            PortDirection::Rx => rx,
            PortDirection::Tx => tx,
        })
    }

    /// The impairment without this direction, or without both; the other direction goes on. `None`: nothing is left.
    /// The error: there was nothing to clear.
    pub(super) fn without(&self, direction: Option<PortDirection>) -> Result<Option<Impaired>, NothingThere> {
        let mut left = self.clone();
        match direction {
            None => return Ok(None),
            Some(PortDirection::Rx) => {
                left.rx = None;
                left.config.rx.take().ok_or(NothingThere)?;
            }
            Some(PortDirection::Tx) => {
                left.tx = None;
                left.config.tx.take().ok_or(NothingThere)?;
            }
        }
        Ok(Some(left).filter(|left| left.show().next().is_some()))
    }

    /// The schedule for frames from the port.
    pub(super) fn rx(&self) -> Option<&Arc<Schedule>> {
        self.rx.as_ref()?.by.as_ref()
    }

    /// The delay queue for frames to the port.
    pub(super) fn tx(&self) -> Option<&Arc<TxDelay>> {
        self.tx.as_ref()?.by.as_ref()
    }

    /// The impairment for `impair list`, one for each impaired direction.
    pub(super) fn show(&self) -> impl Iterator<Item = api::Impairment> {
        let rx = self.config.rx.as_ref().zip(self.rx.as_ref()).map(|(config, rx)| {
            let counts = rx.by.as_ref().map(|schedule| schedule.counts());
            shown(&self.config.port, PortDirection::Rx, config, rx.seed, counts)
        });
        let tx = self.config.tx.as_ref().zip(self.tx.as_ref()).map(|(config, tx)| {
            let counts = tx.by.as_ref().map(|delay| delay.counts());
            shown(&self.config.port, PortDirection::Tx, config, tx.seed, counts)
        });
        rx.into_iter().chain(tx)
    }
}

/// The direction has no impairment.
pub(super) struct NothingThere;

/// A new schedule, wrapped by `wrap`.
fn carried<T>(
    port: &str,
    config: Option<&ImpairDirection>,
    seed_offset: u64,
    wrap: impl FnOnce(Schedule) -> T,
) -> Result<Option<Carried<T>>, Error> {
    let Some(config) = config else { return Ok(None) };
    #[allow(clippy::cast_possible_truncation, reason = "32 random bits are wanted")]
    let seed = config.settings.seed.unwrap_or_else(|| random_seed() as u32);
    let spec: ImpairSpec = config.settings.spec(u64::from(seed) + seed_offset);
    if spec.is_none() {
        return Ok(Some(Carried { seed, by: None }));
    }
    let refused =
        |error: Contradiction| Error::refused(format!("impairment of {port:?}"), format!("{}: {error}", error.key()));
    let filter = config.filter.as_deref().map(filter::compile).transpose();
    let filter =
        filter.map_err(|error| Error::refused(format!("impairment of {port:?}"), format!("filter: {error}")))?;
    let schedule = Schedule::new(spec).map_err(refused)?.only(filter);
    Ok(Some(Carried { seed, by: Some(Arc::new(wrap(schedule))) }))
}

fn shown(
    port: &str,
    direction: PortDirection,
    config: &ImpairDirection,
    seed: u32,
    counts: Option<Counts>,
) -> api::Impairment {
    let counts = counts.unwrap_or_default();
    api::Impairment {
        port: port.to_owned(),
        direction,
        profile: config.profile.clone(),
        filter: config.filter.clone(),
        settings: ImpairSettings { seed: Some(seed), ..config.settings },
        frames: counts.frames,
        delayed: counts.delayed,
        lost: counts.lost,
        duplicated: counts.duplicated,
        corrupted: counts.corrupted,
        reordered: counts.reordered,
        queue_full: counts.queue_full,
    }
}
