//! Proves that the work a guest can cause is bounded, whatever its rings hold: transmit chains of nothing or of crumbs. All the while a frame between two
//! other guests, and an answer of the control socket, take no longer than [`Bounds`](labsw_tests::arena::Bounds) say.

use std::time::Duration;

use labsw_tests::arena::Arena;
use labsw_tests::attacks::{self, QEMU_RING};
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::Lab;

const TIME: Duration = Duration::from_secs(2);

const VLAN: &str = r#"vlan = { mode = "access", tag = 10 }"#;

/// A lab of its own for each kind, with more containers that get what the attacker sends.
fn withstands(what: &str, sizes: &[u16], attack: impl Fn(&Arena<'_>, u16)) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hw");
    let mut arena = Arena::start(&lab, "", &[("web2", VLAN), ("web3", VLAN)], "");
    for &size in sizes {
        arena.withstands(&format!("{what}, {size}"), |arena| attack(arena, size));
    }
    arena.finish();
}

#[test]
fn transmit_chains_of_nothing() {
    withstands("transmit chains of nothing", &[QEMU_RING], |arena, _| attacks::transmit_chains_of_nothing(arena, TIME));
}

#[test]
fn transmit_chains_of_crumbs() {
    withstands("transmit chains of crumbs", &[QEMU_RING], |arena, _| attacks::transmit_chains_of_crumbs(arena, TIME));
}
