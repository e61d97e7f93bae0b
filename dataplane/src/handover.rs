//! Descriptors that one process hands over to another, beside the state that says what they are.
//!
//! **How it works.** Who hands over puts descriptors into a [`Given`] and gets a [`Slot`] for each, which is written
//! into the state. Who takes over has the descriptors in the same order, in a [`Taken`], and takes each one out by its
//! slot.
//!
//! **Invariants.** [`Given`] borrows: handing over closes nothing and moves nothing. A slot is taken once; one that is
//! not there, or was taken, is an error and no other descriptor.
//!
//! Reference: unix(7), SCM_RIGHTS.

use std::os::fd::{BorrowedFd, OwnedFd};

/// The number of a descriptor in what is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Slot(u32);

/// What of a port that was taken over is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Frames leave by it. First of all, for all ports: a frame that came in before had nowhere to go.
    Out,
    /// Frames come in by it.
    In,
}

/// Why something that was handed over can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct HandoverError {
    /// One clause for people.
    pub reason: String,
}

impl HandoverError {
    /// With this reason.
    pub fn new(reason: impl ToString) -> HandoverError {
        HandoverError { reason: reason.to_string() }
    }
}

/// Descriptors that are handed over.
#[derive(Debug, Default)]
pub struct Given<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Given<'a> {
    /// Adds a descriptor.
    pub fn put(&mut self, fd: BorrowedFd<'a>) -> Slot {
        self.0.push(fd);
        Slot(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    /// All of them, by slot.
    pub fn descriptors(&self) -> &[BorrowedFd<'a>] {
        &self.0
    }
}

/// Descriptors that were handed over.
#[derive(Debug, Default)]
pub struct Taken(Vec<Option<OwnedFd>>);

impl Taken {
    /// These, by slot.
    pub fn new(descriptors: Vec<OwnedFd>) -> Taken {
        Taken(descriptors.into_iter().map(Some).collect())
    }

    /// Takes a descriptor out.
    ///
    /// # Errors
    /// There is none in this slot.
    pub fn take(&mut self, slot: Slot) -> Result<OwnedFd, HandoverError> {
        let place = usize::try_from(slot.0).ok().and_then(|at| self.0.get_mut(at));
        place.and_then(Option::take).ok_or_else(|| HandoverError::new(format!("descriptor {} is missing", slot.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_slot_is_taken_once_and_never_another() {
        let null = File::open("/dev/null").unwrap();
        let mut given = Given::default();
        let slots = [given.put(null.as_fd()), given.put(null.as_fd())];
        assert_eq!(given.descriptors().len(), 2);
        let copies = given.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap());
        let mut taken = Taken::new(copies.collect());
        assert!(taken.take(slots[1]).is_ok() && taken.take(slots[0]).is_ok());
        assert!(taken.take(slots[1]).is_err());
        assert!(taken.take(Slot(2)).is_err() && taken.take(Slot(u32::MAX)).is_err());
    }
}
