//! What the tests of take-overs share: switches with stations, how often, and the times that are printed.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test helpers report by panicking")]

use std::os::unix::net::UnixStream;
use std::time::Duration;

use labsw_control::takeover::{Channel, Message, WireError, socket_path};
use labsw_testkit::guest::{EVENT_IDX, MRG_RXBUF, RING_PACKED, VERSION_1};
use labsw_testkit::station::Station;

use crate::numbered::{self, RING};
use crate::switch::{Labswd, Site};

/// Features of a guest with split rings.
pub const SPLIT: u64 = VERSION_1 | MRG_RXBUF | EVENT_IDX;
/// Features of a guest with packed rings.
pub const PACKED: u64 = SPLIT | RING_PACKED;

/// The sections of a configuration for `vhost_user` ports of these names.
pub fn ports(names: &[&str]) -> String {
    names.iter().map(|name| format!("[ports.{name}]\ntype = \"vhost_user\"\n")).collect()
}

/// A switch with two stations that know each other's place.
///
/// # Panics
/// When they do not come up.
pub fn meet(switch: &Labswd<'_>, features: [u64; 2]) -> (Station, Station) {
    let mut a = Station::attach(&switch.vhost_socket("a"), features[0], RING);
    let mut b = Station::attach(&switch.vhost_socket("b"), features[1], RING);
    switch.wait_port_up("a");
    switch.wait_port_up("b");
    numbered::meet(&mut a, &mut b);
    (a, b)
}

/// Take-overs of one test (`LABSW_TAKE_OVERS`).
pub fn take_overs() -> usize {
    std::env::var("LABSW_TAKE_OVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(5)
}

/// Prints how long frames paused, and how long no worker ran.
///
/// # Panics
/// When there are none.
pub fn report(what: &str, times: [Vec<Duration>; 2], frames: u64) {
    let count = times[0].len();
    let [gaps, still] = times.map(|mut times| {
        times.sort();
        [50, 99, 100].map(|percent| times[(times.len() * percent).div_ceil(100).clamp(1, times.len()) - 1])
    });
    eprintln!("{what}: {count} take-overs under {frames} frames; p50, p99, longest: gap {gaps:?}, no worker {still:?}");
}

/// A conversation with the switch as far as the state.
///
/// # Errors
/// The switch refuses.
///
/// # Panics
/// When it says something else.
pub fn as_far_as_the_state(site: &Site) -> Result<Channel, WireError> {
    let channel =
        Channel::new(UnixStream::connect(socket_path(&site.control_socket())).unwrap(), Duration::from_secs(30))
            .unwrap();
    channel.send(&Message::Hello { program: "test".to_owned() }, &[])?;
    assert!(matches!(channel.receive()?.0, Message::Welcome { .. }));
    channel.send(&Message::Prepare, &[])?;
    let (state, descriptors) = channel.receive()?;
    assert!(matches!(state, Message::State(_)) && descriptors.len() > 2);
    Ok(channel)
}
