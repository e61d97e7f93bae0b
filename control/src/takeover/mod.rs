//! Taking over from a running switch: what the two processes say to each other.
//!
//! **How it works.** The running `labswd` listens on a socket beside its control socket ([`socket_path`]). The one that
//! takes over connects, and both speak by turns, each [`Message`] a [`wire`] frame, with descriptors behind the states:
//!
//! | new | old | meanwhile |
//! |---|---|---|
//! | `Hello` | | |
//! | | `Welcome`: the configuration that runs | |
//! | `Prepare` | | the new one gives up privileges |
//! | | `State` and descriptors | the old control thread waits from here, its workers go on |
//! | `Ready` | | memory is mapped, workers are started, ports have their places |
//! | | `Last`: counters, what was learned since | the old workers stand still from here |
//! | `Prepared` | | |
//! | | `Go` | from here on the switch is the new one's |
//! | `Running` | | the old process ends and undoes nothing |
//!
//! Rings resume where their own memory says they stand, so no index travels while the workers stand still.
//!
//! **Invariants.** A state is read and checked whole before anything is done with it. Either side may say `Refused` in
//! place of its next word, or hang up: then the old one goes on, until it has said `Go`. After that it goes on only if
//! the new one has hung up without `Running`, that is, has ended.

pub mod state;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use state::{Last, Message, State};
pub use wire::{Channel, WireError};

/// The time for a whole handshake before the old control thread waits for it.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait of the old control thread for the new process to map and start everything.
pub const READY_PATIENCE: Duration = Duration::from_secs(3);
/// The longest time that the old workers stand still before they go on.
pub const STILL_PATIENCE: Duration = Duration::from_secs(2);
/// The longest wait for a process that has the switch already.
pub const RUNNING_PATIENCE: Duration = Duration::from_secs(10);

/// The socket for take-overs of the switch with this control socket.
pub fn socket_path(control_socket: &Path) -> PathBuf {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".take-over");
    path.into()
}
