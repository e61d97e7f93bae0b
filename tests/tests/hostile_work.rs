//! Proves that the work a guest can cause is bounded, whatever its rings hold: receive chains without room, packed
//! rings full of tables, transmit chains of nothing or of crumbs, segments of a few bytes. All the while a frame
//! between two other guests, and an answer of the control socket, take no longer than
//! [`Bounds`](labsw_tests::arena::Bounds) say.

use std::time::Duration;

use labsw_tests::arena::{Arena, Seat};
use labsw_tests::attacks::{self, LARGEST_RING, QEMU_RING};
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::Lab;

const TIME: Duration = Duration::from_secs(2);

const VLAN: &str = r#"vlan = { mode = "access", tag = 10 }"#;

/// A lab of its own for each kind, with more containers that get what the attacker sends.
fn withstands(what: &str, sizes: &[u16], attack: impl Fn(&Seat<'_>, u16)) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hw");
    let mut arena = Arena::start(&lab, "", &[("web2", VLAN), ("web3", VLAN)], "");
    for &size in sizes {
        arena.withstands(&format!("{what}, {size}"), |seat| attack(seat, size));
    }
    arena.finish();
}

#[test]
fn receive_chains_without_room() {
    let attack = |seat: &Seat<'_>, size| attacks::receive_chains_without_room(seat, size, 64);
    withstands("receive chains without room", &[QEMU_RING, LARGEST_RING], attack);
}

#[test]
fn packed_rings_full_of_tables() {
    withstands("packed rings full of tables", &[QEMU_RING, LARGEST_RING], attacks::packed_ring_full_of_tables);
}

#[test]
fn transmit_chains_of_nothing() {
    withstands("transmit chains of nothing", &[QEMU_RING], |seat, _| attacks::transmit_chains_of_nothing(seat, TIME));
}

#[test]
fn transmit_chains_of_crumbs() {
    withstands("transmit chains of crumbs", &[QEMU_RING], |seat, _| attacks::transmit_chains_of_crumbs(seat, TIME));
}

#[test]
fn segments_of_a_few_bytes() {
    let attack = |seat: &Seat<'_>, segment| attacks::segments_of_a_few_bytes(seat, segment, TIME);
    withstands("frames cut into segments", &[8, 256, 1448], attack);
}
