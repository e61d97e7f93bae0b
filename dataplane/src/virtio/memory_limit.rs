//! The limit of guest memory that may be mapped, by one port and by all ports together.
//!
//! A front end decides how large its shared regions are, and an empty file of many terabytes costs it nothing. The
//! switch would pay twice: with address space, of which a process has 128 TiB and without which the next allocation
//! ends the process; and with memory, because a page that only the switch touches is charged to the switch.
//!
//! **How it works.** A region takes a [`Reservation`] before it is mapped and holds it as long as it is mapped. One
//! counter has the sum for all ports.
//!
//! **Invariant.** The counter is the sum of all live reservations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most that all ports together may ever map, in bytes: half of a process's address space on x86-64.
const ADDRESS_SPACE: u64 = 64 << 40;
/// The limit for all ports as a multiple of the limit for one: memory of guests is often promised more than once.
const OVERCOMMIT: u64 = 4;

/// The requested guest memory exceeds a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryLimitError {
    /// The limit of one port.
    #[error("the guest's memory regions have {bytes} bytes together; a port may map {limit} (switch.max_guest_memory)")]
    Port {
        /// The size of the port's regions with the new one, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The limit of all ports together.
    #[error(
        "with a memory region of {bytes} bytes more than {limit} bytes of guest memory would be mapped by all ports \
         together, {mapped} are (switch.max_guest_memory)"
    )]
    All {
        /// Size of the region.
        bytes: u64,
        /// The size of all mapped regions, in bytes.
        mapped: u64,
        /// The limit, in bytes.
        limit: u64,
    },
}

/// A limit, and the memory mapped under it. The default is no limit.
#[derive(Debug)]
pub struct MemoryLimit {
    port: u64,
    all: u64,
    mapped: AtomicU64,
}

impl Default for MemoryLimit {
    fn default() -> MemoryLimit {
        MemoryLimit::new(u64::MAX, u64::MAX)
    }
}

impl MemoryLimit {
    /// A limit in bytes for one port and for all ports together.
    pub fn new(port: u64, all: u64) -> MemoryLimit {
        MemoryLimit { port, all, mapped: AtomicU64::new(0) }
    }

    /// The limit on this machine if a port may map `port` bytes; `None`: as many as the machine has memory. All ports
    /// together may map four times the larger of the two.
    pub fn of_machine(port: Option<u64>) -> MemoryLimit {
        let machine = machine_bytes().unwrap_or(ADDRESS_SPACE / OVERCOMMIT);
        let port = port.unwrap_or(machine).min(ADDRESS_SPACE);
        MemoryLimit::new(port, port.max(machine).saturating_mul(OVERCOMMIT).min(ADDRESS_SPACE))
    }

    /// Reserves `bytes` for a region of a port whose other regions have `others` bytes together.
    pub fn reserve(self: &Arc<MemoryLimit>, others: u64, bytes: u64) -> Result<Reservation, MemoryLimitError> {
        let together = others.saturating_add(bytes);
        if together > self.port {
            return Err(MemoryLimitError::Port { bytes: together, limit: self.port });
        }
        let add = |mapped: u64| mapped.checked_add(bytes).filter(|&sum| sum <= self.all);
        // Relaxed: a counter that nothing else depends on.
        match self.mapped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(Reservation { limit: Arc::clone(self), bytes }),
            Err(mapped) => Err(MemoryLimitError::All { bytes, mapped, limit: self.all }),
        }
    }

    /// Bytes of guest memory that are mapped.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }
}

/// The size of the machine's memory, in bytes; `None` if /proc does not tell.
fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A region's share of a [`MemoryLimit`]; dropping it gives the share back.
#[derive(Debug)]
pub struct Reservation {
    limit: Arc<MemoryLimit>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.limit.mapped.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_port_and_all_ports_have_a_limit_and_what_is_unmapped_is_free_again() {
        let limit = Arc::new(MemoryLimit::new(100, 150));
        let first = limit.reserve(0, 60).unwrap();
        assert_eq!(limit.reserve(60, 41).unwrap_err(), MemoryLimitError::Port { bytes: 101, limit: 100 });
        let second = limit.reserve(60, 40).unwrap();
        let third = limit.reserve(0, 51).unwrap_err();
        assert_eq!(third, MemoryLimitError::All { bytes: 51, mapped: 100, limit: 150 });
        drop(first);
        assert_eq!(limit.mapped(), 40);
        let third = limit.reserve(0, 100).unwrap();
        assert!(limit.reserve(u64::MAX, 1).is_err() && limit.reserve(1, u64::MAX).is_err());
        drop((second, third));
        assert_eq!(limit.mapped(), 0);
    }

    #[test]
    fn the_machine_gives_a_limit_that_can_be_lowered_for_a_port() {
        let (machine, low) = (MemoryLimit::of_machine(None), MemoryLimit::of_machine(Some(1 << 20)));
        assert_eq!((low.port, low.all), (1 << 20, machine.all));
        assert!(machine.port >= 1 << 20 && machine.all <= ADDRESS_SPACE);
        assert_eq!(MemoryLimit::of_machine(Some(u64::MAX)).port, ADDRESS_SPACE);
    }
}
