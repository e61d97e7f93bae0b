//! A take-over within a service of systemd.
//!
//! **How it works.** systemd follows one process of a service, the main process. A process that is to take over has to
//! run in the same control group, so `ExecReload=` starts it ([`crate::detach`]). When it runs, the old main process
//! names it as the new one (`MAINPID=`) and ends; the new one sends nothing to systemd before that, because systemd
//! listens to the main process only.
//!
//! References: sd_notify(3) `MAINPID=`, systemd.service(5) `NotifyAccess=`.

use std::os::unix::fs::MetadataExt;

use crate::takeover::Channel;

/// The program file that this process was started from, so that another process can compare it with its own.
pub(super) fn program_file() -> Option<String> {
    let file = std::fs::metadata("/proc/self/exe").ok()?;
    Some(format!("{}:{}:{}.{:09}", file.dev(), file.ino(), file.mtime(), file.mtime_nsec()))
}

/// This process's control group. systemd keeps services apart in the hierarchy of version 2, in its own one of version
/// 1, or in both, so it consists of both.
pub(super) fn control_group() -> Option<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = |line: &str| {
        line.split_once("::").or_else(|| line.split_once(":name=systemd:")).map(|(_, path)| path.to_owned())
    };
    let paths: Vec<String> = groups.lines().filter_map(path).filter(|path| path != "/").collect();
    Some(paths.join(" "))
}

/// The control group of the service whose main process this is; `None` if no service manager supervises it.
pub(super) fn supervised() -> Option<String> {
    std::env::var_os("NOTIFY_SOCKET").and_then(|_| control_group())
}

/// Makes the process that took over the service's main process.
pub(super) fn make_main(successor: &Channel) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    match successor.peer() {
        Ok(who) if who.pid > 0 => crate::daemon::signals::notify(&[sd_notify::NotifyState::MainPid(who.pid)]),
        _ => tracing::error!("the service manager can't be told which process has the switch now"),
    }
}
