//! Defers the interrupts of a device under busy polling: the former [`Deferral`] is noted in the [`Ledger`], the new
//! one set.

use std::io;

use super::deferral::Deferral;
use super::ledger::{Before, Ledger};
use super::links::Link;

/// Defers the interrupts of a device until the ledger restores its settings.
pub fn defer_interrupts(ledger: &mut Ledger, link: &Link) -> io::Result<()> {
    let before = Deferral::of(&link.name)?;
    ledger.note(link, Before { deferral: Some(before), ..Before::default() });
    Deferral::BUSY.apply(&link.name)
}
