//! Where programs and files lie that a test uses and the project does not build: packages, and what
//! `tests/setup-debian.sh` puts in place.

use std::path::PathBuf;

/// The place of `program` in the `PATH`, system directories included.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Where `tests/setup-debian.sh` puts what is neither the project's nor a package's.
pub fn cache() -> PathBuf {
    std::env::var_os("LABSW_CACHE").map_or_else(|| PathBuf::from("/var/cache/labsw"), PathBuf::from)
}

/// The place of `promtool`.
pub fn promtool() -> PathBuf {
    find_program("promtool").unwrap_or_else(|| cache().join("promtool"))
}
