//! Taking over from a running switch: the protocol between the two processes.
//!
//! **How it works.** The running `labswd` listens on a socket beside its control socket ([`socket_path`]). The new
//! process connects, and both send messages by turns, each [`Message`] a [`wire`] frame, with descriptors after the
//! states:
//! | new | old | meanwhile |
//! |---|---|---|
//! | `Hello` | | |
//! | | `Welcome`: the running configuration | |
//! | `Prepare` | | the new one gives up privileges |
//! | | `State` and descriptors | the old control thread waits from here, its workers go on |
//! | `Ready` | | memory is mapped, workers are started, ports are entered |
//! | | `Last`: counters, addresses learned since | the old workers stand still from here |
//! | `Prepared` | | |
//! | | `Go` | from here on the switch belongs to the new process |
//! | `Running` | | |
//! | | `Rest`: captured frames that wait, if there are captures | the old process ends and undoes nothing |
//!
//! Rings resume from the index in their own memory, so no index is sent while the workers stand still.
//!
//! **Invariants.** A state is read and checked as a whole before it is used. Either side may send `Refused` in place of
//! its next message, or hang up: the old process then goes on, until it has sent `Go`. After `Go` it goes on only if
//! the new process has hung up without `Running`, which means that it has ended.

pub mod capture;
pub mod client;
pub mod counters;
pub mod impairment;
pub mod multicast;
pub mod replay;
pub mod sensor;
pub mod state;
pub mod timed;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use state::{Last, Message, Rest, State};
pub use wire::{Channel, WireError};

/// Timeout for the whole handshake before the old control thread waits.
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
