//! Impairments of ports: set, shown, cleared. They belong to the port, whatever becomes of its device, and go with it.
//!
//! Each direction has a schedule of its own; where both have the same seed, they take different numbers from it. An
//! impairment set by hand begins from the first frame, one that a configuration leaves as it is goes on: what a
//! schedule that is replaced still held is dropped and counted (`impair_cleared`).

use std::sync::Arc;

use labsw_dataplane::impair::{Schedule, TxDelay};
use labsw_switch::impair::{Contradiction, Counts, ImpairSpec};

use super::{Switch, random_seed};
use crate::api::{self, Error, PortDirection};
use crate::config::{ImpairConfig, ImpairDirection};
use crate::filter;

/// What sets the directions' numbers apart: added to the seed, which has 32 bits, from the port.
const RX_SEED: u64 = 1 << 32;

/// The impairment of a port.
#[derive(Clone)]
pub(super) struct Impaired {
    pub(super) config: ImpairConfig,
    rx: Option<Carried<Schedule>>,
    tx: Option<Carried<TxDelay>>,
}

/// One direction of it, carried out.
struct Carried<T> {
    seed: u32,
    /// `None`: it does nothing.
    by: Option<Arc<T>>,
}

impl<T> Clone for Carried<T> {
    fn clone(&self) -> Carried<T> {
        Carried { seed: self.seed, by: self.by.clone() }
    }
}

impl Impaired {
    /// With the schedules of `before` where `keeps` says so.
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

    /// What happens to frames from the port.
    pub(super) fn rx(&self) -> Option<&Arc<Schedule>> {
        self.rx.as_ref()?.by.as_ref()
    }

    /// What happens to frames to the port.
    pub(super) fn tx(&self) -> Option<&Arc<TxDelay>> {
        self.tx.as_ref()?.by.as_ref()
    }

    fn show(&self) -> impl Iterator<Item = api::Impairment> {
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

/// A schedule from the beginning, in what `wrap` makes of it.
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
    let mut shown = api::Impairment {
        port: port.to_owned(),
        direction,
        profile: config.profile.clone(),
        filter: config.filter.clone(),
        seed,
        frames: counts.frames,
        delayed: counts.delayed,
        lost: counts.lost,
        duplicated: counts.duplicated,
        corrupted: counts.corrupted,
        reordered: counts.reordered,
        queue_full: counts.queue_full,
        ..api::Impairment::default()
    };
    shown.set(&config.settings);
    shown
}

impl Switch {
    /// Impairs a port in the directions that `config` names, from the first frame; the other one stays as it is.
    pub(super) fn impair(&mut self, config: ImpairConfig) -> Result<(), Error> {
        let name = config.port.clone();
        let before = self.port(&name)?.impaired.as_ref();
        let (rx, tx) = (config.rx.is_some(), config.tx.is_some());
        let config = config.above(before.map(|before| &before.config));
        let keeps = |direction| match direction {
            PortDirection::Rx => !rx,
            PortDirection::Tx => !tx,
        };
        let impaired = Impaired::new(config, before, keeps)?;
        self.replace_impairment(&name, Some(impaired))
    }

    /// Gives a port this impairment. A direction with the same settings as before goes on.
    pub(super) fn set_impairment(&mut self, config: ImpairConfig) -> Result<(), Error> {
        let name = config.port.clone();
        let impaired = self.impairment_of(config)?;
        self.replace_impairment(&name, Some(impaired))
    }

    /// As [`Switch::set_impairment`]; the next tables have it.
    pub(super) fn enter_impairment(&mut self, config: ImpairConfig) -> Result<(), Error> {
        let name = config.port.clone();
        let impaired = self.impairment_of(config)?;
        let port = self.ports.get_mut(&name).ok_or_else(|| Error::not_found("port", name))?;
        port.impaired = Some(impaired);
        Ok(())
    }

    fn impairment_of(&self, config: ImpairConfig) -> Result<Impaired, Error> {
        let name = config.port.clone();
        let before = self.port(&name)?.impaired.as_ref();
        let does_as = |a: &Option<ImpairDirection>, b: &Option<ImpairDirection>| match (a, b) {
            (Some(a), Some(b)) => a.does_as(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let same = before.map_or((false, false), |before| {
            (does_as(&before.config.rx, &config.rx), does_as(&before.config.tx, &config.tx))
        });
        let keeps = |direction| match direction {
            PortDirection::Rx => same.0,
            PortDirection::Tx => same.1,
        };
        Impaired::new(config, before, keeps)
    }

    /// Ends the impairment of a port, or of one direction of it.
    pub(super) fn clear_impairment(&mut self, name: &str, direction: Option<PortDirection>) -> Result<(), Error> {
        let missing = || Error::not_found("impairment of port", name);
        let mut left = self.port(name)?.impaired.clone().ok_or_else(missing)?;
        let gone = match direction {
            None => true,
            Some(PortDirection::Rx) => {
                left.rx = None;
                left.config.rx.take().is_some()
            }
            Some(PortDirection::Tx) => {
                left.tx = None;
                left.config.tx.take().is_some()
            }
        };
        if !gone {
            return Err(missing());
        }
        let left = Some(left).filter(|left| direction.is_some() && left.show().next().is_some());
        self.replace_impairment(name, left)
    }

    /// Gives a port this impairment, or none.
    pub(super) fn replace_impairment(&mut self, name: &str, impaired: Option<Impaired>) -> Result<(), Error> {
        let Some(port) = self.ports.get_mut(name) else { return Err(Error::not_found("port", name)) };
        let before = std::mem::replace(&mut port.impaired, impaired);
        let is_impaired = port.impaired.is_some();
        if let Err(error) = self.set_tables() {
            if let Some(port) = self.ports.get_mut(name) {
                port.impaired = before;
            }
            return Err(error);
        }
        tracing::info!(port = name, impaired = is_impaired, "impairment changed");
        Ok(())
    }

    /// The impairments, by port and direction.
    pub(super) fn show_impairments(&self) -> Vec<api::Impairment> {
        self.ports.values().filter_map(|port| port.impaired.as_ref()).flat_map(Impaired::show).collect()
    }
}
