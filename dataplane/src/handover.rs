//! Descriptors that one process hands over to another, beside the state that describes them.
//!
//! **How it works.** The process that hands over puts descriptors into a [`Given`] and gets a [`Slot`] for each, which
//! it writes into the state. The process that takes over has the descriptors in the same order, in a [`Taken`], and
//! takes each one out by its slot.
//!
//! **Invariants.** [`Given`] borrows: handing over closes nothing and moves nothing. A slot is taken once; a slot that
//! does not exist, or was taken, gives an error and never another descriptor.
//!
//! Reference: unix(7), SCM_RIGHTS.

use std::os::fd::{BorrowedFd, OwnedFd};

/// The number of a descriptor among those that are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Slot(u32);

/// The steps in which a port that was taken over begins to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Frames leave by the port. All ports begin with this direction: a frame received earlier would find no port to
    /// leave by.
    Out,
    /// Frames are received on the port.
    In,
    /// Everything for which no frame has to wait.
    Rest,
}

/// Why a state or descriptor that was handed over can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct HandoverError {
    /// One clause for people.
    pub reason: String,
}

impl HandoverError {
    /// An error with this reason.
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

    /// All descriptors, by slot.
    pub fn descriptors(&self) -> &[BorrowedFd<'a>] {
        &self.0
    }
}

/// Descriptors that were handed over.
#[derive(Debug, Default)]
pub struct Taken(Vec<Option<OwnedFd>>);

impl Taken {
    /// These descriptors, by slot.
    pub fn new(descriptors: Vec<OwnedFd>) -> Taken {
        Taken(descriptors.into_iter().map(Some).collect())
    }

    /// Takes a descriptor out.
    ///
    /// # Errors
    /// The slot has no descriptor.
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
