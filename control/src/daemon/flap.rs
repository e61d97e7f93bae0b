//! Ports that flap: down and up again, so many times, at a steady pace.
//!
//! The job is the port's: who asked for it may go away, and it ends with the port, with `port up` or `port down`, or by
//! itself, with the port up. A port is down for the first half of each period and up for the second. The control loop
//! wakes for the next change ([`Switch::tick_flaps`]); one that was kept busy goes on from there, and leaves none out.

use std::time::{Duration, Instant};

use super::Switch;
use crate::api::{self, Error};

/// Shortest period: every change is put in force at all workers.
const SHORTEST: Duration = Duration::from_millis(20);
/// Longest period.
const LONGEST: Duration = Duration::from_secs(3600);
/// Most times.
const MOST: u32 = 1_000_000;

/// A port's job.
pub(super) struct Flap {
    every: Duration,
    /// How many times it still comes up.
    left: u32,
    /// When it changes next.
    due: Instant,
}

impl Flap {
    /// As it is shown.
    pub(super) fn show(&self) -> api::Flap {
        let every_milliseconds = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        api::Flap { every_milliseconds, left: self.left }
    }
}

impl Switch {
    /// Has a port go down, beginning at once, `count` times, once in `every`; a former job of the port ends.
    pub(super) fn flap_port(&mut self, name: &str, every: Duration, count: u32) -> Result<(), Error> {
        self.port(name)?;
        let refused = |reason: String| Err(Error::refused(format!("port {name:?}"), reason));
        if !(SHORTEST..=LONGEST).contains(&every) {
            let every = humantime::format_duration(every);
            let [shortest, longest] = [SHORTEST, LONGEST].map(humantime::format_duration);
            return refused(format!("every: {every} is not between {shortest} and {longest}"));
        }
        if !(1..=MOST).contains(&count) {
            return refused(format!("count: {count} is not between 1 and {MOST}"));
        }
        self.set_port_state(name, false)?;
        if let Some(port) = self.ports.get_mut(name) {
            port.flap = Some(Flap { every, left: count, due: Instant::now() + every / 2 });
        }
        tracing::info!(port = name, count, ?every, "flapping");
        Ok(())
    }

    /// Switches a port on or off by hand: it does not flap any more. Switched on, it serves the next front end, or
    /// opens its device, at once, whatever faults there were.
    pub(super) fn switch_port(&mut self, name: &str, up: bool) -> Result<(), Error> {
        if let Some(port) = self.ports.get_mut(name) {
            port.flap = None;
            if up {
                port.forgive();
            }
        }
        self.set_port_state(name, up)
    }

    /// Lets ports change whose time has come; returns how long until the next one's has.
    pub(super) fn tick_flaps(&mut self, now: Instant) -> Option<Duration> {
        let is_due = |flap: &Option<Flap>| flap.as_ref().is_some_and(|flap| flap.due <= now);
        let due = self.ports.iter().filter(|(_, port)| is_due(&port.flap));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            let Some(port) = self.ports.get_mut(&name) else { continue };
            let up = !port.enabled;
            if let Some(flap) = &mut port.flap {
                flap.left -= u32::from(up).min(flap.left);
                flap.due = (flap.due + flap.every / 2).max(now);
                if flap.left == 0 {
                    port.flap = None;
                }
            }
            if let Err(error) = self.set_port_state(&name, up) {
                tracing::error!(port = name, %error, "flapping");
            }
        }
        let left = self.ports.values().filter_map(|port| port.flap.as_ref());
        left.map(|flap| flap.due.saturating_duration_since(Instant::now())).min()
    }
}
