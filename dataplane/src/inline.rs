//! Sensors in the wires of ports, as far as the workers look after them: whether they let frames pass.
//!
//! **How it works.** Every [`ROUND_NS`] the first worker sends a probe into each [`Sensor`] at both sides
//! ([`labsw_switch::inline::probe`]). Whichever worker receives one that came through counts it. Before each round the
//! first worker looks at the counts: a direction in which [`LOST_ROUNDS`] rounds in a row brought nothing is dead, and
//! alive again after [`FOUND_ROUNDS`] rounds that did. A sensor works while both directions are alive. The control
//! thread is told of each change, and puts other tables in force.
//!
//! Rounds are counted, not time: a machine that stood still has missed none.
//!
//! A sensor of a process that is taken over goes on with its key, and as alive as it was ([`Sensor::go_on`]): probes
//! that the old process sent come through it.
//!
//! **Invariant.** A probe is sent for its sensor's own key, which nobody else knows, and is counted at no port.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use labsw_switch::PortId;
use labsw_switch::inline::{Direction, PROBE_BYTES, direction_of, probe};

/// From one round of probes to the next, ns.
pub const ROUND_NS: u64 = 50_000_000;
/// After so many rounds without a probe a direction is dead.
pub const LOST_ROUNDS: u32 = 12;
/// After so many rounds with one it is alive again.
pub const FOUND_ROUNDS: u32 = 3;

const _: () = assert!(ROUND_NS * (LOST_ROUNDS as u64 + 2) < 1_000_000_000, "a dead sensor shows within a second");

/// A sensor and what is known of it.
#[derive(Debug)]
pub struct Sensor {
    near: PortId,
    far: PortId,
    key: u64,
    /// The probes that came through, by direction.
    heard: [AtomicU64; 2],
    /// Bit per direction: it is alive.
    alive: AtomicUsize,
}

impl Sensor {
    /// A sensor between two ports of which nothing is known yet: it counts as dead. `key` is random.
    pub fn new(near: PortId, far: PortId, key: u64) -> Sensor {
        Sensor { near, far, key, heard: Default::default(), alive: AtomicUsize::new(0) }
    }

    /// The key.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The directions that are alive, a bit for each.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Goes on as alive as the sensor of another process was. For a sensor that no worker looks after yet.
    pub fn go_on(&self, alive: usize) {
        self.alive.store(alive & ((1 << Direction::ALL.len()) - 1), Ordering::Relaxed);
    }

    /// The first direction in which nothing passes; `None`: the sensor works.
    pub fn dead(&self) -> Option<Direction> {
        let alive = self.alive();
        Direction::ALL.into_iter().find(|direction| alive >> *direction as usize & 1 == 0)
    }

    /// The probes of a round, and the port where each is sent.
    pub(crate) fn probes(&self) -> [(PortId, [u8; PROBE_BYTES]); 2] {
        [(self.near, Direction::Inward), (self.far, Direction::Outward)]
            .map(|(port, direction)| (port, probe(self.key, direction)))
    }

    /// Counts a probe that arrived on `port`, if it is one of this sensor's and came through.
    pub(crate) fn hear(&self, port: PortId, snapshot: &[u8]) {
        let Some(direction) = direction_of(snapshot, self.key) else { return };
        let end = match direction {
            Direction::Inward => self.far,
            Direction::Outward => self.near,
        };
        if let Some(heard) = self.heard.get(direction as usize).filter(|_| port == end) {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One direction of a sensor, round by round.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    /// The probes that had come through at the last round.
    heard: u64,
    /// Rounds in a row without a probe.
    lost: u32,
    /// Rounds in a row with one.
    found: u32,
    alive: bool,
}

impl Rounds {
    /// Looks at the probes that have come through by now.
    fn look(&mut self, heard: u64) {
        let answered = std::mem::replace(&mut self.heard, heard) != heard;
        (self.lost, self.found) = if answered { (0, self.found + 1) } else { (self.lost + 1, 0) };
        // A run of answers is not counted for ever.
        self.found = self.found.min(FOUND_ROUNDS);
        self.lost = self.lost.min(LOST_ROUNDS);
        self.alive = if self.alive { self.lost < LOST_ROUNDS } else { self.found >= FOUND_ROUNDS };
    }
}

/// The judgement of the worker that sends the probes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judge([Rounds; 2]);

impl Judge {
    /// A judgement that begins with what is known of the sensor.
    pub(crate) fn of(sensor: &Sensor) -> Judge {
        let alive = sensor.alive();
        let heard = sensor.heard.each_ref().map(|heard| heard.load(Ordering::Relaxed));
        let rounds = |bit: usize, heard| Rounds { heard, alive: alive >> bit & 1 == 1, ..Rounds::default() };
        let [inward, outward] = heard;
        Judge([rounds(0, inward), rounds(1, outward)])
    }

    /// Looks at a sensor before its next round. True if something has changed.
    pub(crate) fn look(&mut self, sensor: &Sensor) -> bool {
        let mut alive = 0;
        for (bit, (rounds, heard)) in self.0.iter_mut().zip(&sensor.heard).enumerate() {
            rounds.look(heard.load(Ordering::Relaxed));
            alive |= usize::from(rounds.alive) << bit;
        }
        sensor.alive.swap(alive, Ordering::Relaxed) != alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: PortId = PortId(1);
    const FAR: PortId = PortId(2);

    /// Has a probe come through in these directions.
    fn through(sensor: &Sensor, directions: &[Direction]) {
        let [inward, outward] = sensor.probes().map(|(_, bytes)| bytes);
        for direction in directions {
            match direction {
                Direction::Inward => sensor.hear(FAR, &inward),
                Direction::Outward => sensor.hear(NEAR, &outward),
            }
        }
    }

    #[test]
    fn a_sensor_is_dead_after_some_rounds_in_one_direction_and_alive_after_some_in_both() {
        let (sensor, mut judge) = (Sensor::new(NEAR, FAR, 5), Judge::default());
        assert_eq!(sensor.dead(), Some(Direction::Inward));
        for round in 1..=FOUND_ROUNDS {
            through(&sensor, &Direction::ALL);
            assert_eq!(judge.look(&sensor), round == FOUND_ROUNDS, "round {round}");
        }
        assert_eq!(sensor.dead(), None);
        for gone in Direction::ALL {
            let left: Vec<_> = Direction::ALL.into_iter().filter(|direction| *direction != gone).collect();
            for round in 1..=LOST_ROUNDS {
                assert_eq!(sensor.dead(), None);
                through(&sensor, &left);
                assert_eq!(judge.look(&sensor), round == LOST_ROUNDS, "round {round}");
            }
            assert_eq!(sensor.dead(), Some(gone));
            // Now and then one is not enough.
            for _ in 0..10 {
                through(&sensor, &Direction::ALL);
                judge.look(&sensor);
                through(&sensor, &left);
                judge.look(&sensor);
            }
            assert_eq!(sensor.dead(), Some(gone));
            (0..FOUND_ROUNDS).for_each(|_| {
                through(&sensor, &Direction::ALL);
                judge.look(&sensor);
            });
            assert_eq!(sensor.dead(), None);
        }
    }

    #[test]
    fn a_sensor_that_is_taken_over_works_until_some_rounds_bring_nothing() {
        let (old, mut judge) = (Sensor::new(NEAR, FAR, 5), Judge::default());
        for _ in 0..FOUND_ROUNDS {
            through(&old, &Direction::ALL);
            judge.look(&old);
        }
        let new = Sensor::new(NEAR, FAR, old.key());
        new.go_on(old.alive());
        let mut judge = Judge::of(&new);
        assert_eq!(new.dead(), None);
        // A probe that the old process sent.
        through(&new, &[Direction::Outward]);
        for round in 1..=LOST_ROUNDS + 1 {
            judge.look(&new);
            let dead = if round < LOST_ROUNDS { None } else { Some(Direction::Inward) };
            assert_eq!(new.dead(), dead, "round {round}");
        }
        // A state of another version is no reason to believe in further directions.
        new.go_on(usize::MAX);
        assert_eq!(new.alive(), 3);
    }

    #[test]
    fn a_probe_counts_where_it_comes_out_and_for_its_own_sensor() {
        let (sensor, other) = (Sensor::new(NEAR, FAR, 5), Sensor::new(NEAR, FAR, 6));
        let [(at, inward), (from, outward)] = sensor.probes();
        assert_eq!((at, from), (NEAR, FAR));
        // Sent back by the sensor, or another sensor's.
        sensor.hear(NEAR, &inward);
        sensor.hear(FAR, &outward);
        other.hear(FAR, &inward);
        let heard = |sensor: &Sensor| sensor.heard.each_ref().map(|heard| heard.load(Ordering::Relaxed));
        assert_eq!((heard(&sensor), heard(&other)), ([0, 0], [0, 0]));
        sensor.hear(FAR, &inward);
        assert_eq!(heard(&sensor), [1, 0]);
        sensor.hear(NEAR, &outward);
        assert_eq!(heard(&sensor), [1, 1]);
    }
}
