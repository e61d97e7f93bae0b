//! The system calls that each kind of thread may still make (seccomp).
//!
//! **How it works.** A filter is a list of allowed calls, some with conditions on their arguments. Filters add up: a
//! worker has the daemon's and its own. The kernel caches calls that are allowed whatever their arguments, so they cost
//! next to nothing. No filter allows memory that is writable and executable.
//!
//! A call that is not allowed fails with EPERM. In builds with debug assertions, which tests run, it ends the process,
//! so that a missing call shows; but for calls that the C library makes by itself and does without ([`refuse`]).
//!
//! Reference: seccomp(2), kernel `Documentation/userspace-api/seccomp_filter.rst`.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::ConfineError;

/// The kinds of threads and processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The control thread, and threads that it starts.
    Daemon,
    /// A worker.
    Worker,
    /// The helper process, and programs that it starts.
    Helper,
    /// The program that serves metrics, once it has its sockets.
    Metrics,
}

/// Threads, memory, time and signals: calls that the C library and Rust's library make in any thread.
const ANY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
];

/// Calls for frames, doorbells and waiting.
const FRAMES: &[c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_timerfd_settime,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls for clients of a listening socket.
const CLIENTS: &[c_long] = &[libc::SYS_accept4, libc::SYS_fcntl, libc::SYS_setsockopt, libc::SYS_shutdown];

/// Further calls of the control thread, for sockets, files and devices.
const CONTROL: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clone3,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpeername,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_getuid,
    libc::SYS_ioctl,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_pwrite64,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_rt_sigaction,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_seccomp,
    libc::SYS_sendmmsg,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
];

/// The older names of the calls above.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_getdents,
    libc::SYS_lchown,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Further calls of the helper, and of a program that starts.
const PROGRAMS: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    libc::SYS_bpf,
    libc::SYS_chdir,
    libc::SYS_execve,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_set_tid_address,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setns,
    libc::SYS_setsid,
    libc::SYS_setuid,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Families of the sockets that the daemon opens: control and guests, links, ethtool and metrics.
const SOCKETS: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_INET, libc::AF_INET6];

/// The ioctl(2) request for ethtool; libc has no constant.
const SIOCETHTOOL: libc::c_int = 0x8946;

/// Restricts the calling thread, and threads that it starts later, to the calls of this kind.
pub(super) fn restrict(kind: Kind) -> Result<(), ConfineError> {
    let mut rules = rules(kind)?;
    if kind != Kind::Helper {
        // The C library then falls back to clone(2), whose flags a filter can check.
        refuse(libc::SYS_clone3, libc::ENOSYS)?;
    }
    if matches!(kind, Kind::Worker | Kind::Metrics) {
        // A thread may need malloc's ninth arena: the C library then looks for the number of CPUs, and does without.
        refuse(libc::SYS_openat, libc::EPERM)?;
        rules.insert(libc::SYS_openat, Vec::new());
    }
    let otherwise = if cfg!(debug_assertions) { SeccompAction::KillProcess } else { errno(libc::EPERM) };
    apply(rules, otherwise, SeccompAction::Allow)
}

/// Has a call fail with this error, whatever other filters allow.
fn refuse(call: c_long, error: libc::c_int) -> Result<(), ConfineError> {
    apply([(call, Vec::new())].into_iter().collect(), SeccompAction::Allow, errno(error))
}

fn errno(error: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(error.unsigned_abs())
}

fn apply(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<(), ConfineError> {
    let program = compile(rules, otherwise, matched)?;
    seccompiler::apply_filter(&program).map_err(|error| ConfineError::new("seccomp", error.to_string()))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, ConfineError> {
    let failed = |error: seccompiler::BackendError| ConfineError::new("seccomp", error.to_string());
    let machine = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    SeccompFilter::new(rules, otherwise, matched, machine).and_then(TryInto::try_into).map_err(failed)
}

/// The calls of a kind, with conditions on their arguments.
fn rules(kind: Kind) -> Result<Rules, ConfineError> {
    let lists: &[&[c_long]] = match kind {
        Kind::Worker => &[ANY, FRAMES],
        Kind::Metrics => &[ANY, FRAMES, CLIENTS],
        Kind::Daemon => &[ANY, FRAMES, CONTROL, OLDER],
        Kind::Helper => &[ANY, FRAMES, CONTROL, OLDER, PROGRAMS],
    };
    let mut rules: Rules = lists.concat().into_iter().map(|call| (call, Vec::new())).collect();
    let (write, execute) = (libc::PROT_WRITE, libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let never_both = match kind {
            // These threads load no library any more.
            Kind::Worker | Kind::Metrics => vec![masked(2, execute, 0)?],
            _ => vec![masked(2, execute, 0)?, masked(2, write, 0)?],
        };
        rules.insert(call, never_both);
    }
    let thread = libc::CLONE_THREAD;
    match kind {
        Kind::Worker => {
            // In builds with debug assertions, Rust's library makes this call before it closes a descriptor.
            rules.insert(libc::SYS_fcntl, vec![masked(1, -1, libc::F_GETFD)?]);
            // A TAP port checks whether its guest's end is open (ETHTOOL_GLINK); everything else in ethtool needs a
            // capability.
            rules.insert(libc::SYS_ioctl, vec![masked(1, -1, SIOCETHTOOL)?]);
        }
        Kind::Metrics => {}
        Kind::Daemon => {
            let domains = SOCKETS.iter().map(|domain| masked(0, -1, *domain));
            rules.insert(libc::SYS_socket, domains.collect::<Result<_, _>>()?);
            rules.insert(libc::SYS_clone, vec![masked(0, thread, thread)?]);
        }
        Kind::Helper => {
            rules.insert(libc::SYS_socket, Vec::new());
            rules.insert(libc::SYS_clone, Vec::new());
        }
    }
    Ok(rules)
}

/// Allows a call if the bits of `mask` in an argument are equal to those of `value`.
fn masked(argument: u8, mask: libc::c_int, value: libc::c_int) -> Result<SeccompRule, ConfineError> {
    let failed = |error: seccompiler::BackendError| ConfineError::new("seccomp", error.to_string());
    let bits = |number: libc::c_int| u64::from(number.cast_unsigned());
    let equal = SeccompCmpOp::MaskedEq(bits(mask));
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, equal, bits(value));
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_a_workers_is_the_smallest() {
        let sizes = [Kind::Worker, Kind::Daemon, Kind::Helper].map(|kind| rules(kind).unwrap().len());
        assert!(sizes.is_sorted_by(|fewer, more| fewer < more), "{sizes:?}");
        assert!(sizes[0] <= 45, "a worker has {} calls", sizes[0]);
        for kind in [Kind::Worker, Kind::Daemon, Kind::Helper] {
            compile(rules(kind).unwrap(), SeccompAction::KillProcess, SeccompAction::Allow).unwrap();
        }
    }

    #[test]
    fn a_worker_lives_on_if_the_c_library_opens_a_file() {
        let worker = std::thread::spawn(|| {
            restrict(Kind::Worker).unwrap();
            std::fs::File::open("/sys/devices/system/cpu/online").map(drop)
        });
        assert_eq!(worker.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_worker_opens_nothing_and_starts_nothing() {
        let worker = rules(Kind::Worker).unwrap();
        for call in [libc::SYS_openat, libc::SYS_socket, libc::SYS_execve, libc::SYS_clone, libc::SYS_bpf] {
            assert!(!worker.contains_key(&call), "call {call}");
        }
        let daemon = rules(Kind::Daemon).unwrap();
        let dangerous = [libc::SYS_bpf, libc::SYS_execve, libc::SYS_setns, libc::SYS_setuid, libc::SYS_ptrace];
        for call in dangerous.into_iter().chain([libc::SYS_mount]) {
            assert!(!daemon.contains_key(&call), "call {call}");
        }
    }
}
