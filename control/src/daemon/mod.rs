//! `labswd`'s control thread and device thread, which do everything that is not done per frame.
//!
//! **How it works.** [`Daemon::start`] takes a validated configuration, checks everything that can be refused, and has
//! the control socket listen. [`Daemon::run`] starts the two threads. The control thread ([`control`]) is one mio loop:
//! control socket, vhost-user sessions, signals, faults reported by the workers, news of network links, a timer. It
//! never waits for a device. The device thread ([`device_thread`]) opens the ports of the file ([`start`]), looks after
//! devices ([`devices`]), and makes every change, from the configuration or the control socket. Changes go through the
//! same methods in [`service`] and [`change`]: check, build new tables, open, hand over. [`attach`] opens the
//! attachments of ports; [`queues`] places receive queues at workers.
//!
//! Both threads work on one [`switch`], under a lock. It consists of three owners, each independent of the others: the
//! [fabric] (workers and the state that they share), its [ports] and its [mirrors]. The device thread alone has the
//! [`Host`] (links, ledger, packet memory), and gives up the lock while it uses the host ([`errand`]).
//!
//! **Invariants.**
//! - The control thread makes no request that can block.
//! - A change that fails leaves the switch as it was. Changes are made one at a time.
//! - A fault of one port changes that port's state and reason, and nothing else.
//! - Answering a query makes no request: the state of devices is kept, and updated by news.
//! - On SIGTERM the daemon removes everything that it made (links, programs, sockets). After SIGKILL the kernel removes
//!   the programs, and the next run recognises and reuses the rest.

mod accounts;
mod answers;
mod apply;
mod attach;
mod busy_poll;
mod captures;
mod change;
mod confirm;
mod control;
mod destinations;
mod device_thread;
mod devices;
mod errand;
mod error;
mod events;
mod fabric;
mod fast_path;
mod flap;
mod guards;
mod handover;
mod host;
mod impairments;
mod inject;
mod inlines;
mod mirrors;
mod multicast;
mod notice;
mod once_a_second;
mod opening;
mod port;
mod ports;
mod preflight;
mod queues;
mod recovery;
mod rewind;
mod seed;
mod selected;
mod sensors;
mod service;
mod settling;
mod show;
mod signals;
mod start;
mod status;
mod store;
mod switch;
#[cfg(test)]
mod tests;
mod tokens;
mod trace;
mod trial;
mod view;
mod watchdog;

pub use accounts::UnknownAccount;
pub use attach::OpenError;
pub use error::DaemonError;
pub use handover::{Successor, TakeOverError};
pub use preflight::awaited;
pub use store::Found;

use control::Control;
use host::Host;

/// A switch whose control socket listens.
pub struct Daemon {
    host: Host,
    control: Control,
}

impl Daemon {
    /// Opens the ports and serves until SIGTERM or SIGINT, then removes what it made.
    ///
    /// # Errors
    /// If a port of the configuration can't be opened, or the event loop itself fails.
    pub fn run(self) -> Result<(), DaemonError> {
        let Daemon { host, control } = self;
        control.run(host)
    }
}
