//! Proves that the memory a guest shares costs nobody else anything: pages that vanish by the thousand leave few
//! mappings, regions as large as an address space are refused, and the switch runs on.

use labsw_tests::arena::{Arena, Seat};
use labsw_tests::attacks;
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::Lab;

fn withstands(what: &str, attack: impl FnOnce(&Seat<'_>)) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("hy");
    let mut arena = Arena::start(&lab, "", &[], "");
    arena.withstands(what, attack);
    arena.finish();
}

#[test]
fn pages_that_vanish() {
    withstands("200 pieces a frame in memory that vanishes", |seat| attacks::every_second_page_vanishes(seat, 200));
    withstands("999 pieces a frame in memory that vanishes", |seat| attacks::every_second_page_vanishes(seat, 999));
}

#[test]
fn all_address_space() {
    withstands("all address space", |seat| _ = attacks::all_address_space(seat));
}
