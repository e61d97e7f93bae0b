//! The credentials of the other end of a connection, and the right to change the switch.
//!
//! **Rule.** Root, the user that the daemon runs as, and members of the admin group (primary or supplementary) may
//! change the switch. All others who can open the socket may only read.
//!
//! The kernel recorded the credentials when the peer connected (`SO_PEERCRED`, `SO_PEERGROUPS`, unix(7)). A process
//! that gets the id of one that has exited therefore gains nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::api::Peer;

/// The rule for the right to change the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The user that the daemon runs as.
    pub own_uid: u32,
    /// The admin group, if there is one.
    pub admin_group: Option<u32>,
}

impl Policy {
    /// True if a peer with this user id and these groups (primary and supplementary) may change the switch.
    pub fn may_change(&self, uid: u32, groups: &[u32]) -> bool {
        uid == 0 || uid == self.own_uid || self.admin_group.is_some_and(|admin| groups.contains(&admin))
    }

    /// The explanation for a peer that may not change the switch.
    pub fn explanation(&self) -> String {
        match self.admin_group {
            Some(group) => format!("changes need root or membership in the group with id {group}"),
            None => "changes need root".to_owned(),
        }
    }
}

/// Asks the kernel for the credentials of the peer. The process id is 0 if the peer is in another pid namespace.
///
/// # Errors
/// The error of the kernel; the connection is then of no use.
pub(super) fn peer_of(socket: &impl AsFd, policy: &Policy) -> io::Result<Peer> {
    // Three integers: struct ucred of unix(7). rustix is not used here, since its process ids can't be 0.
    let mut credentials = [0_u32; 3];
    socket_option(socket, libc::SO_PEERCRED, &mut credentials)?;
    let [pid, uid, gid] = credentials;
    let mut groups = supplementary_groups(socket)?;
    groups.push(gid);
    Ok(Peer::new(uid, gid, pid.cast_signed(), policy.may_change(uid, &groups)))
}

/// The most groups a process can have (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

fn supplementary_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 64];
    loop {
        match socket_option(socket, libc::SO_PEERGROUPS, &mut groups) {
            Ok(count) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ERANGE) if groups.len() < MAX_GROUPS => groups.resize(groups.len() * 2, 0),
                // The peer has no supplementary groups; some kernels report that as an error.
                Some(libc::ENODATA) => return Ok(Vec::new()),
                _ => return Err(error),
            },
        }
    }
}

/// Reads a socket option made of 32-bit integers; returns how many the kernel wrote.
fn socket_option(socket: &impl AsFd, option: libc::c_int, values: &mut [u32]) -> io::Result<usize> {
    let mut bytes = libc::socklen_t::try_from(size_of_val(values)).map_err(io::Error::other)?;
    // SAFETY: `values` is writable for `bytes` bytes, which the kernel is told and does not exceed, and any bits make a
    // valid `u32`; the descriptor is open for the whole call because `socket` borrows it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            values.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).map_err(io::Error::other)? / size_of::<u32>())
}

/// `SO_PASSRIGHTS` of Linux 6.16, which the `libc` crate does not name yet.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Has the kernel refuse descriptors that a peer sends to this socket, or to one that is accepted from it: `sendmsg`
/// then fails with EPERM at the sender. Kernels before 6.16 deliver them; the reader must be ready for that.
pub(super) fn refuse_descriptors(socket: &impl AsFd) {
    let off: libc::c_int = 0;
    let bytes = size_of_val(&off);
    // SAFETY: the option's value is one integer, readable for the length given; the descriptor is open for the whole
    // call because `socket` borrows it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            libc::socklen_t::try_from(bytes).unwrap_or_default(),
        )
    };
    if result != 0 {
        tracing::debug!("control socket: descriptors are taken and closed: {}", io::Error::last_os_error());
    }
}
