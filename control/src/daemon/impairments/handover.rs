//! Impairments that go on in another process: random numbers, times and counts, and the frames that wait.
//!
//! **Invariant.** A frame that waits is handed to a worker of the new process only after the old process has let go:
//! the new worker would send it at once if it were due.

use labsw_dataplane::handover::HandoverError;
use labsw_switch::impair::Progress;

use super::{Carried, Impaired};
use crate::takeover::impairment::{DelayedFrames, DirectionRecord, ImpairRecord};

impl Impaired {
    /// The impairment as it is handed over. The workers stand still.
    pub(in crate::daemon) fn record(&self, delayed: &mut DelayedFrames) -> ImpairRecord {
        ImpairRecord {
            rx: self
                .rx
                .as_ref()
                .map(|rx| record(rx, |schedule| (schedule.progress(), schedule.pack_waiting()), delayed)),
            tx: self.tx.as_ref().map(|tx| record(tx, |delay| (delay.progress(), vec![delay.pack_waiting()]), delayed)),
        }
    }

    /// Goes on where the impairment of another process stood, and checks the frames that waited there.
    pub(in crate::daemon) fn go_on(
        &mut self,
        record: &ImpairRecord,
        delayed: &DelayedFrames,
    ) -> Result<(), HandoverError> {
        if let (Some(rx), Some(record)) = (&mut self.rx, &record.rx) {
            rx.seed = record.seed;
            rx.by.iter().for_each(|schedule| schedule.go_on(&record.progress));
        }
        if let (Some(tx), Some(record)) = (&mut self.tx, &record.tx) {
            tx.seed = record.seed;
            tx.by.iter().for_each(|delay| delay.go_on(&record.progress));
        }
        let mut lines = record.directions().flat_map(|direction| &direction.lines);
        lines.try_for_each(|line| delayed.frames(*line).map(drop))
    }

    /// Takes over the frames from the port that waited; returns the number that found no room. To be called before
    /// workers serve the port's queues.
    pub(in crate::daemon) fn keep_on_rx(&self, record: &ImpairRecord, delayed: &DelayedFrames) -> usize {
        let Some((schedule, record)) = self.rx().zip(record.rx.as_ref()) else { return 0 };
        lines(record, delayed).map(|frames| schedule.keep_on(&frames)).sum()
    }

    /// Takes over the frames to the port that waited; returns the number that found no room. To be called when workers
    /// may send to the port.
    pub(in crate::daemon) fn keep_on_tx(&self, record: &ImpairRecord, delayed: &DelayedFrames) -> usize {
        let Some((delay, record)) = self.tx().zip(record.tx.as_ref()) else { return 0 };
        lines(record, delayed).map(|frames| delay.keep_on(&frames)).sum()
    }
}

fn lines<'a>(record: &'a DirectionRecord, delayed: &'a DelayedFrames) -> impl Iterator<Item = Vec<(u64, &'a [u8])>> {
    record.lines.iter().filter_map(|line| delayed.frames(*line).ok())
}

fn record<T>(
    carried: &Carried<T>,
    state: impl FnOnce(&T) -> (Progress, Vec<Vec<u8>>),
    delayed: &mut DelayedFrames,
) -> DirectionRecord {
    let (progress, lines) = carried.by.as_deref().map(state).unwrap_or_default();
    let lines = lines.iter().map(|packed| delayed.put(packed)).collect();
    DirectionRecord { seed: carried.seed, progress, lines }
}
