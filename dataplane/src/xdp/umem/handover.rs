//! Packet memory that goes on in another process: the file that the chunks lie in, and who has which of them.
//!
//! **How it works.** The other process maps the same pages ([`PacketMemory::take_over`]); the kernel, which knows them
//! by themselves and not by an address, goes on with them. Which chunks are free, and which port has the others, is
//! written down when the workers stand still ([`PacketMemory::state`]): then each chunk is in the pool or in one of a
//! port's rings, and what the kernel moves from ring to ring afterwards stays the port's.
//!
//! **Invariants.** No chunk is free in both processes: the pool of the other one is empty until it has the state. A
//! number that is taken belongs to a port that goes over, or to a closed one whose queues the kernel has not released.

use std::sync::{Arc, Mutex};

use super::{Account, Backing, CHUNK_BYTES, FREE, FramePool, MAX_CHUNKS, Mapping, PacketMemory, Umem};
use crate::handover::{Given, HandoverError, Slot, Taken};
use crate::xdp::closing::{self, ClosedPort};

/// The state of packet memory that ports use, for the process that takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MemoryHandover {
    chunks: u32,
    backing: Backing,
    file: Slot,
}

/// Who has which chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// By chunk: the number of the port that has it, 0 if it is free.
    pub owners: Vec<u16>,
    /// The ports.
    pub ports: PoolPorts,
}

/// The ports that have chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolPorts {
    /// By port number, from 1 on: the chunks in its transmit and completion rings; `None`: the number is free.
    sending: Vec<Option<u32>>,
    /// Closed ports whose queues the kernel has not released yet.
    closed: Vec<ClosedPort>,
}

impl PacketMemory {
    /// The area, with its file in `given`.
    pub fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> MemoryHandover {
        let Umem { area, chunks, backing } = &self.umem;
        MemoryHandover { chunks: *chunks, backing: *backing, file: given.put(area.file()) }
    }

    /// Maps the area that another process made. No chunk is free until [`PacketMemory::resume`].
    ///
    /// # Errors
    /// The file is not as large as it should be, or can't be mapped.
    pub fn take_over(handover: &MemoryHandover, taken: &mut Taken) -> Result<PacketMemory, HandoverError> {
        let &MemoryHandover { chunks, backing, file } = handover;
        let failed = |reason: &dyn std::fmt::Display| HandoverError::new(format!("packet memory: {reason}"));
        let file = taken.take(file)?;
        if chunks == 0 || chunks > MAX_CHUNKS {
            return Err(failed(&format_args!("it was handed over with {chunks} chunks")));
        }
        let bytes = chunks as usize * CHUNK_BYTES as usize;
        let area = Mapping::adopt(file, bytes, backing).map_err(|error| failed(&error))?;
        let pool = FramePool { free: Vec::new(), owners: vec![FREE; chunks as usize].into(), ports: Vec::new() };
        Ok(PacketMemory { umem: Umem { area, chunks, backing }, pool: Mutex::new(pool) })
    }

    /// Who has which chunk, while nobody moves one.
    pub fn state(self: &Arc<PacketMemory>) -> PoolState {
        // First those that wait: one that is over by now only gives chunks back.
        let closed = closing::waiting(self);
        let pool = self.pool();
        PoolState {
            owners: pool.owners.iter().map(|&owner| if owner == FREE { 0 } else { owner }).collect(),
            ports: PoolPorts {
                sending: pool.ports.iter().map(|port| port.taken.then_some(port.sending)).collect(),
                closed,
            },
        }
    }

    /// Gives the pool the state of another process' pool; `ports` are the numbers of the ports that were taken over.
    ///
    /// # Errors
    /// The state does not fit the memory or the ports. Nothing has changed then.
    pub fn resume(self: &Arc<PacketMemory>, state: &PoolState, ports: &[u16]) -> Result<(), HandoverError> {
        let PoolState { owners, ports: PoolPorts { sending, closed } } = state;
        let refuse = |reason: String| Err(HandoverError::new(format!("packet memory: {reason}")));
        let is_taken =
            |number: u16| usize::from(number).checked_sub(1).is_some_and(|at| matches!(sending.get(at), Some(Some(_))));
        if owners.len() != self.umem.chunks as usize || sending.len() >= usize::from(FREE) {
            return refuse("its state is of another size".to_owned());
        }
        if let Some(owner) = owners.iter().find(|&&owner| owner != 0 && !is_taken(owner)) {
            return refuse(format!("a chunk is port number {owner}'s, which there is not"));
        }
        let is_given_twice = |port: &u16| ports.iter().filter(|other| *other == port).count() > 1;
        if let Some(port) = ports.iter().find(|&port| !is_taken(*port) || is_given_twice(port)) {
            return refuse(format!("it has not one port with number {port}"));
        }
        // A port that was closed a moment ago may be released by now.
        let closed: Vec<_> = closed.iter().filter(|closed| is_taken(closed.owner)).cloned().collect();
        let known = |number: &u16| ports.contains(number) || closed.iter().any(|closed| closed.owner == *number);
        if let Some(number) = (1..FREE).take(sending.len()).filter(|&number| is_taken(number)).find(|n| !known(n)) {
            return refuse(format!("the port with number {number} is being closed at this moment; try again"));
        }
        {
            let mut pool = self.pool();
            let numbers = (0..self.umem.chunks).zip(owners);
            pool.free = numbers.filter(|(_, owner)| **owner == 0).map(|(chunk, _)| chunk).rev().collect();
            pool.owners = owners.iter().map(|&owner| if owner == 0 { FREE } else { owner }).collect();
            let account = |sending: &Option<u32>| {
                sending.map_or_else(Account::default, |sending| Account { taken: true, sending })
            };
            pool.ports = sending.iter().map(account).collect();
        }
        closing::go_on(closed, self);
        Ok(())
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "tests lend memory of their own")]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::os::fd::AsFd;

    use super::super::Hugepages;
    use super::*;
    use crate::handover::Taken;

    const CHUNKS: u32 = 64;

    /// The same packet memory as another process has it.
    fn other_of(memory: &PacketMemory) -> Result<Arc<PacketMemory>, HandoverError> {
        let mut given = Given::default();
        let handover = memory.hand_over(&mut given);
        let copies = given.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        PacketMemory::take_over(&handover, &mut Taken::new(copies)).map(Arc::new)
    }

    #[test]
    fn the_bytes_and_the_owners_are_the_same_in_both() {
        for hugepages in [Hugepages::Auto, Hugepages::Off] {
            let memory = Arc::new(PacketMemory::new(CHUNKS, hugepages).unwrap());
            let mut pool = memory.pool();
            let (one, two) = (pool.enter().unwrap(), pool.enter().unwrap());
            let taken: Vec<u64> = (0..9).map(|_| pool.take(two).unwrap()).collect();
            pool.give(taken[3], two).unwrap();
            pool.take(one).unwrap();
            pool.note_sending(two, 5, 0);
            drop(pool);
            assert!(memory.umem.write(taken[0] + 256, b"the same bytes"));

            let other = other_of(&memory).unwrap();
            assert_eq!(other.pool().take(one), None, "nothing is free in both");
            other.resume(&memory.state(), &[two, one]).unwrap();
            assert_eq!(other.state(), memory.state());
            let owned = [one, two].map(|owner| other.pool().owned_chunks(owner));
            assert_eq!((owned, other.pool().free_chunks()), ([1, 8], 55));
            assert_eq!(other.pool().may_send(two), memory.pool().may_send(two));
            assert_eq!(other.pool().enter(), Some(3), "numbers in use are not given away");
            let mut burst = crate::frame::Burst::new();
            // SAFETY: the memory outlives the burst, and nothing is given back.
            assert!(unsafe { other.umem.lend(&mut burst, taken[0] + 256, 14) });
            assert_eq!(burst.snapshot(0), b"the same bytes");
        }
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
        let memory = Arc::new(PacketMemory::new(CHUNKS, Hugepages::Off).unwrap());
        let owner = memory.pool().enter().unwrap();
        memory.pool().take(owner).unwrap();
        let good = memory.state();
        let with = |change: &dyn Fn(&mut PoolState)| {
            let mut state = good.clone();
            change(&mut state);
            state
        };
        let other = other_of(&memory).unwrap();
        for (state, ports, expected) in [
            (with(&|state| state.owners.truncate(63)), &[owner][..], "of another size"),
            (with(&|state| state.owners[7] = 2), &[owner], "port number 2's"),
            (with(&|state| state.owners[7] = FREE), &[owner], "port number 65535's"),
            (with(&|state| state.ports.sending = vec![Some(0); 1 << 16]), &[owner], "of another size"),
            (good.clone(), &[owner, 2], "not one port with number 2"),
            (good.clone(), &[owner, owner], "not one port with number 1"),
            (good.clone(), &[0], "not one port with number 0"),
            (good.clone(), &[], "number 1 is being closed"),
        ] {
            let refusal = other.resume(&state, ports).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal:?} lacks {expected:?}");
            assert_eq!(other.pool().free_chunks(), 0, "{refusal}");
        }
        other.resume(&good, &[owner]).unwrap();
    }

    #[test]
    fn a_file_that_is_smaller_or_may_shrink_is_refused() {
        let memory = PacketMemory::new(CHUNKS, Hugepages::Off).unwrap();
        let mut given = Given::default();
        let good = memory.hand_over(&mut given);
        let take = |handover: &MemoryHandover, file: &dyn AsFd| {
            let copy = file.as_fd().try_clone_to_owned().unwrap();
            PacketMemory::take_over(handover, &mut Taken::new(vec![copy])).map(drop).map_err(|error| error.to_string())
        };
        let file = given.descriptors()[0];
        assert_eq!(take(&good, &file), Ok(()));
        for chunks in [0, CHUNKS + 1, u32::MAX] {
            assert!(take(&MemoryHandover { chunks, ..good.clone() }, &file).is_err(), "{chunks}");
        }
        let unsealed = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&unsealed, u64::from(CHUNKS * CHUNK_BYTES)).unwrap();
        assert!(take(&good, &unsealed).unwrap_err().contains("that stay"));
    }
}
