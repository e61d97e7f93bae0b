//! Receive queues left to a program that polls them: the [`Deferral`] of a device, noted in the [`Ledger`] and set.

use std::io;

use super::deferral::Deferral;
use super::ledger::{Before, Ledger};
use super::links::Link;

/// Leaves the receive queues of a device to a program that polls them, until the ledger puts that back.
pub fn defer_interrupts(ledger: &mut Ledger, link: &Link) -> io::Result<()> {
    let before = Deferral::of(&link.name)?;
    ledger.note(link, Before { deferral: Some(before), ..Before::default() });
    Deferral::BUSY.apply(&link.name)
}
