//! The files that the daemon may still read and change (Landlock).
//!
//! **Read**: configuration, names of users, groups, ports and protocols, libraries, files of the kernel about devices,
//! namespaces. **Changed**: directories of sockets, where the daemon makes and removes sockets and its list of changed
//! devices; settings of devices. No file can be executed. The directory of a port that is added later has to be one of
//! those, or beneath one.
//!
//! The daemon makes a directory that does not exist yet, so the nearest existing directory above is allowed.
//!
//! Reference: landlock(7).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};

use super::ConfineError;
use crate::config::{Claim, Config};

/// The newest Landlock version that this code knows; an older kernel has fewer rules.
const KNOWN: ABI = ABI::V6;
/// Read at any time, by the daemon itself or by the C library (names, libraries that look up names).
const READ: [&str; 8] = ["/etc", "/usr", "/lib", "/lib64", "/nix/store", "/proc", "/sys", "/run"];
/// Settings of devices.
const SETTINGS: [&str; 2] = ["/proc/sys/net", "/sys/devices"];
/// The file at which TAP interfaces are opened.
const TUN: &str = "/dev/net/tun";

/// Restricts the calling thread, and threads that it starts later.
pub(super) fn restrict(config: &Config, file: &Path) -> Result<(), ConfineError> {
    let failed = |error: landlock::RulesetError| ConfineError::new("Landlock", error);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let sockets = read
        | write
        | AccessFs::MakeSock
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|rules| rules.handle_access(AccessNet::ConnectTcp))
        .and_then(|rules| rules.scope(Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(READ, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([directory_of(file)], read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(SETTINGS, read | write)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([TUN], read | write | AccessFs::IoctlDev)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(socket_directories(config), sockets)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(failed)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => tracing::debug!("this kernel's Landlock does not know all rules"),
        RulesetStatus::NotEnforced => {
            return Err(ConfineError::new("Landlock", "this kernel does not offer it"));
        }
    }
    Ok(())
}

/// Directories in which the daemon makes sockets, or the nearest existing ones above.
fn socket_directories(config: &Config) -> Vec<PathBuf> {
    let claims = config.ports.iter().flat_map(|port| port.claims(&config.switch));
    let ports = claims.filter_map(|(_, claim)| match claim {
        Claim::Socket(path) => Some(directory_of(&path)),
        Claim::Device(_) | Claim::Interface { .. } => None,
    });
    let control = directory_of(&config.switch.control_socket);
    let mut directories: Vec<PathBuf> =
        ports.chain([control, config.switch.vhost_user_dir.clone()]).map(|path| nearest(&path)).collect();
    directories.sort();
    directories.dedup();
    directories
}

/// The directory that a file is in.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    }
}

/// The directory itself, or the nearest existing one above.
fn nearest(directory: &Path) -> PathBuf {
    directory.ancestors().find(|one| one.is_dir()).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_are_missing_stand_for_those_above() {
        assert_eq!(directory_of(Path::new("lab.toml")), Path::new("."));
        assert_eq!(directory_of(Path::new("/etc/labsw/lab.toml")), Path::new("/etc/labsw"));
        assert_eq!(nearest(Path::new("/proc/self/no/such")), Path::new("/proc/self"));
        assert_eq!(nearest(Path::new("/no-such-directory/at-all")), Path::new("/"));
    }

    /// Runs on a thread of its own, which stays restricted.
    #[test]
    fn files_elsewhere_can_be_neither_read_nor_made() {
        let directory = std::env::temp_dir().join(format!("labsw-files-{}", std::process::id()));
        let (own, other) = (directory.join("own"), directory.join("other"));
        std::fs::create_dir_all(&own).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("secret"), "x").unwrap();
        let mut config = Config::default();
        config.switch.control_socket = own.join("control.sock");
        config.switch.vhost_user_dir = own.join("vhost");
        let file = own.join("lab.toml");
        std::thread::scope(|scope| {
            let restricted = scope.spawn(|| {
                restrict(&config, &file).unwrap();
                let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
                assert!(std::fs::read(other.join("secret")).is_err_and(refused));
                assert!(std::fs::write(other.join("new"), "x").is_err_and(refused));
                assert!(std::os::unix::net::UnixListener::bind(other.join("socket")).is_err_and(refused));
                assert!(std::process::Command::new("/bin/true").status().is_err_and(refused));
                std::fs::create_dir(own.join("vhost")).unwrap();
                drop(std::os::unix::net::UnixListener::bind(own.join("vhost/a.sock")).unwrap());
                std::fs::remove_file(own.join("vhost/a.sock")).unwrap();
                std::fs::write(own.join("list.new"), "x").unwrap();
                std::fs::rename(own.join("list.new"), own.join("list")).unwrap();
                assert!(std::fs::read_to_string("/etc/passwd").is_ok());
            });
            restricted.join().unwrap();
        });
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
