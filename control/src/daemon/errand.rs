//! An errand: one piece of work of the [device thread](super::device_thread).
//!
//! **Why.** To open, close or change a device can take long: a driver restarts, another program holds the kernel's lock
//! of links, the helper process waits. Nobody else may wait for that, and who asks meanwhile has to see the switch as
//! it is.
//!
//! **How it works.** An errand has the lock of the switch, and the host. [`Errand::away`] gives up the lock while the
//! host is asked or changed. The control thread then goes on with the switch: it answers, serves guests, and reports.
//!
//! **Invariants.**
//! - Only [`Errand::away`] lends the host. So no request to the kernel about a device is made with the lock held.
//! - Errands run one after the other, and only an errand adds, removes or re-attaches a port, or changes what is
//!   configured. So an errand finds the ports after [`Errand::away`] as it left them.
//! - An errand that fails leaves the switch as it was.

use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};

use super::host::Host;
use super::switch::Switch;

/// The switch, locked, and the host.
pub(super) struct Errand<'a> {
    switch: MutexGuard<'a, Switch>,
    host: &'a mut Host,
}

impl<'a> Errand<'a> {
    /// Begins an errand, once the switch is free.
    pub(super) fn begin(switch: &'a Mutex<Switch>, host: &'a mut Host) -> Errand<'a> {
        Errand { switch: switch.lock(), host }
    }
}

impl Errand<'_> {
    /// Does work on the host, which may take long, while others have the switch.
    pub(super) fn away<T>(&mut self, work: impl FnOnce(&mut Host) -> T) -> T {
        let Errand { switch, host } = self;
        MutexGuard::unlocked(switch, || work(host))
    }

    /// Lets the control thread have its turn, if it waits for one.
    pub(super) fn pause(&mut self) {
        MutexGuard::bump(&mut self.switch);
    }
}

impl Deref for Errand<'_> {
    type Target = Switch;

    fn deref(&self) -> &Switch {
        &self.switch
    }
}

impl DerefMut for Errand<'_> {
    fn deref_mut(&mut self) -> &mut Switch {
        &mut self.switch
    }
}
