//! Gives up capabilities for good: from the thread's sets, and from the bounding set where the thread may.
//!
//! Reference: capabilities(7).

use caps::{CapSet, Capability, CapsHashSet};

use super::ConfineError;

/// The capabilities of the control thread: for devices and their offloads (NET_ADMIN), packet memory (IPC_LOCK).
pub(super) const OF_THE_DAEMON: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_IPC_LOCK];

/// The capabilities of the helper process: to open AF_XDP and packet sockets (NET_RAW), to load programs and attach
/// them to devices (BPF, NET_ADMIN), to enter namespaces (SYS_ADMIN) and open sockets there that may change links
/// (NET_ADMIN), to give socket files away (CHOWN), and to start a program as another user (SETUID, SETGID).
pub(super) const OF_THE_HELPER: [Capability; 7] = [
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_CHOWN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
];

/// Reduces the capabilities of the calling thread, and of threads that it starts later, to those in `kept`.
pub(super) fn keep(kept: &[Capability]) -> Result<(), ConfineError> {
    let failed = |what| move |error: caps::errors::CapsError| ConfineError::new(what, error.to_string());
    let have = caps::read(None, CapSet::Permitted).map_err(failed("reading capabilities"))?;
    let left: CapsHashSet = kept.iter().copied().filter(|one| have.contains(one)).collect();
    if have.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed("reading capabilities"))?;
        for one in bounding.difference(&left) {
            caps::drop(None, CapSet::Bounding, *one).map_err(failed("bounding capabilities"))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed("clearing ambient capabilities"))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed("clearing inheritable capabilities"))?;
    caps::set(None, CapSet::Effective, &left).map_err(failed("giving up capabilities"))?;
    caps::set(None, CapSet::Permitted, &left).map_err(failed("giving up capabilities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on a thread of its own: a capability that is given up does not come back.
    #[test]
    fn a_thread_that_keeps_nothing_has_nothing() {
        let sets = std::thread::spawn(|| {
            keep(&[]).unwrap();
            [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient]
                .map(|set| caps::read(None, set).unwrap().len())
        });
        assert_eq!(sets.join().unwrap(), [0; 4]);
    }

    #[test]
    fn what_a_thread_does_not_have_it_does_not_get() {
        let sets = std::thread::spawn(|| {
            keep(&[]).unwrap();
            keep(&OF_THE_DAEMON).unwrap();
            caps::read(None, CapSet::Permitted).unwrap().len()
        });
        assert_eq!(sets.join().unwrap(), 0);
    }
}
