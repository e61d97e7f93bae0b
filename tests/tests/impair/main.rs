//! Proves that impairments do on a real path, between two containers, what they say: delay and jitter, loss, a rate,
//! the same losses with the same seed, in each direction; that other ports lose nothing meanwhile; that clearing ends
//! them; and that what makes no sense is refused in one line and changes nothing.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::time::Duration;

use labsw_tests::packet::{Mac, RawSocket};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::Lab;

mod measured;
mod settings;

const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(200);
const PORTS: [(&str, &str); 4] = [("a", ""), ("b", ""), ("c", ""), ("d", "")];
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];

/// A switch whose ports `a` and `b` know where the other's station is.
fn start<'a>(lab: &'a Lab, workers: &str, config: &str) -> (Labswd<'a>, RawSocket, RawSocket) {
    let switch = lab.start(workers, &PORTS, config);
    for (address, port) in [("02:00:00:00:00:0a", "a"), ("02:00:00:00:00:0b", "b")] {
        switch.ctl(&["fdb", "add", address, "--vlan", "1", "--port", port]);
    }
    (switch, lab.socket("a"), lab.socket("b"))
}
