//! A configuration on trial: applied for some time, and taken back unless somebody confirms it.
//!
//! **How it works.** [`Errand::apply_on_trial`] applies a configuration and remembers the one before. The time runs
//! here, so it makes no difference whether the client that applied the configuration is still there. `config confirm`
//! ends the trial and keeps the configuration; `config revert`, and the end of the time, go back to the configuration
//! before, with the steps of any other apply. The way back also undoes what was changed during the trial.
//!
//! **Invariants.** There is at most one trial, and nothing else is applied meanwhile. Going back is carried through to
//! its end even if a step fails.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::errand::Errand;
use super::switch::Switch;
use super::trial::Trial;
use crate::api::{
    ConfigChange, ConfigText, Error, Event, EventKind, EventLevel, EventSubject, Unconfirmed, WantedConfig,
};
use crate::config::Config;
use crate::plan::changes;

impl Switch {
    /// Refuses to apply another configuration during a trial.
    pub(super) fn check_no_trial(&self, source: &ConfigText, now: Instant) -> Result<(), Error> {
        match self.show_trial(now) {
            None => Ok(()),
            Some(trial) => {
                let remedy = "`labsw-ctl config confirm` keeps that one, `labsw-ctl config revert` takes it back";
                Err(Error::refused(source.file.clone(), format!("{trial}; {remedy}")))
            }
        }
    }

    /// The trial that runs.
    pub(super) fn show_trial(&self, now: Instant) -> Option<Unconfirmed> {
        self.trial.as_ref().map(|trial| trial.show(now))
    }

    /// Keeps the configuration that is on trial.
    pub(super) fn confirm_config(&mut self) -> Result<(), Error> {
        let trial = self.trial.take().ok_or_else(nothing_waits)?;
        self.events.tell(Event::about(EventKind::Confirmed, EventSubject::File, &trial.file));
        Ok(())
    }
}

impl Errand<'_> {
    /// Applies a configuration; with a `time`, it is taken back after that unless [`Switch::confirm_config`] comes
    /// first. The time begins when the configuration is applied: a device may take long.
    pub(super) fn apply_on_trial(
        &mut self,
        WantedConfig { config: source, keep_runtime }: &WantedConfig,
        time: Option<Duration>,
        clock: impl Fn() -> Instant,
    ) -> Result<Vec<ConfigChange>, Error> {
        let Some(time) = time else { return self.apply_config(source, *keep_runtime) };
        Trial::check(&source.file, time)?;
        let (running, given) = (self.running(), self.given.clone());
        let off = self.ports.iter().filter(|port| !port.enabled && port.flap.is_none());
        let off = off.map(|port| port.config.name.clone()).collect();
        let note = format!("on trial for {}", humantime::format_duration(time));
        let changes = self.apply_with_note(source, *keep_runtime, Some(note))?;
        self.trial = Some(Trial { file: source.file.clone(), time, due: clock() + time, running, given, off });
        Ok(changes)
    }

    /// Takes back the configuration that is on trial; returns the changes.
    pub(super) fn revert_config(&mut self) -> Result<Vec<ConfigChange>, Error> {
        let trial = self.trial.take().ok_or_else(nothing_waits)?;
        self.take_back(&trial, None)
    }

    /// Takes back the configuration that is on trial if its time is up.
    pub(super) fn tick_trial(&mut self, now: Instant) {
        let trial = self.trial.take_if(|trial| trial.due <= now);
        if let Some(trial) = trial {
            let reason = format!("nobody confirmed it within {}", humantime::format_duration(trial.time));
            self.changing = true;
            // An error is in the event.
            let _ = self.take_back(&trial, Some(reason));
            self.changing = false;
            self.notice_changes();
            self.settle_gates();
        }
    }

    /// Goes back to the configuration before a trial.
    fn take_back(&mut self, trial: &Trial, reason: Option<String>) -> Result<Vec<ConfigChange>, Error> {
        let running = self.running();
        let changes = changes(&self.given, &running, &trial.running);
        let back = self.return_to(&trial.running);
        let off_again = self.switch_off_again(trial, &running);
        let outcome = back.and(off_again);
        self.given.clone_from(&trial.given);
        let failed = outcome.as_ref().err().map(|error| format!("not in full: {error}"));
        let level = if failed.is_some() { EventLevel::Error } else { EventLevel::Warning };
        let reason = [reason, failed].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let about = Event::about(EventKind::Reverted, EventSubject::File, &trial.file);
        let (count, reason) = (Some(changes.len() as u64), Some(reason).filter(|reason| !reason.is_empty()));
        self.events.tell(Event { level, count, reason, ..about });
        outcome.map(|()| changes)
    }

    /// Switches those ports off that were off before the trial and were removed by it.
    fn switch_off_again(&mut self, trial: &Trial, running: &Config) -> Result<(), Error> {
        let removed = trial.off.iter().filter(|name| running.port(name).is_none());
        let back: Vec<&String> = removed.filter(|name| self.ports.find(name).is_some()).collect();
        back.into_iter().try_for_each(|name| self.set_port_state(name, false))
    }
}

fn nothing_waits() -> Error {
    Error::refused("config", "no configuration waits for its confirmation")
}
