//! Which frames are lost: each by chance, or in bursts by the model of Gilbert and Elliott.
//!
//! The model has two states, good and bad. After each frame it may change state, and in each state a frame is lost with
//! a chance of its own. It begins in the good one. Its mean loss is that of the bad state times `enter / (enter +
//! leave)`, plus that of the good state times the rest; it stays bad for `1 / leave` frames in the mean.

use super::random::Random;
use super::{Chance, Loss};

/// The losses of one link.
#[derive(Clone, Debug)]
pub(super) struct LossProcess {
    model: Loss,
    random: Random,
    bad: bool,
}

impl LossProcess {
    pub(super) fn new(model: Loss, random: Random) -> LossProcess {
        LossProcess { model, random, bad: false }
    }

    /// Where the random numbers stand, and true in the bad state.
    pub(super) fn progress(&self) -> (u64, bool) {
        (self.random.state(), self.bad)
    }

    pub(super) fn go_on(&mut self, (random, bad): (u64, bool)) {
        self.random.go_on(random);
        self.bad = bad;
    }

    /// Returns true if the next frame is lost.
    pub(super) fn next(&mut self) -> bool {
        match self.model {
            Loss::Random(chance) => self.random.hits(chance),
            Loss::GilbertElliott { enter, leave, loss_bad, loss_good } => {
                let lost = self.random.hits(if self.bad { loss_bad } else { loss_good });
                self.bad ^= self.random.hits(if self.bad { leave } else { enter });
                lost
            }
        }
    }
}

impl Loss {
    /// No loss.
    pub const NONE: Loss = Loss::Random(Chance::NEVER);

    /// The share of frames that is lost in the long run, 0 to 1.
    pub fn mean(&self) -> f64 {
        match *self {
            Loss::Random(chance) => chance.as_f64(),
            Loss::GilbertElliott { enter, leave, loss_bad, loss_good } => {
                let (enter, leave) = (enter.as_f64(), leave.as_f64());
                let bad = if enter + leave > 0.0 { enter / (enter + leave) } else { 0.0 };
                bad * loss_bad.as_f64() + (1.0 - bad) * loss_good.as_f64()
            }
        }
    }
}
