//! The machine as the checks see it: files under a root directory, and facts that were gathered beforehand.
//!
//! Paths are the machine's own (`/proc/…`, `/sys/…`) wherever the root is, so evidence reads the same from a test's
//! tree. What can't be read counts as absent; what that means is the check's business.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::api::{Port, Status};
use crate::config::{Config, PortConfig, PortKind};
use crate::device::Link;
use crate::device::ethtool::Channels;

/// A machine to be judged.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    /// What is not in files.
    pub facts: Facts,
}

/// What takes more than reading a file.
#[derive(Debug, Default)]
pub struct Facts {
    /// The configuration that the machine is judged for.
    pub config: Config,
    /// Where it is from.
    pub config_source: ConfigSource,
    /// Why the file of the installed service can't be used, if it can't.
    pub config_error: Option<String>,
    /// What the switch said.
    pub switch: SwitchAnswer,
    /// Programs that were found, by name.
    pub programs: BTreeMap<&'static str, Program>,
    /// Devices of the `af_xdp` ports; without such ports those that could be one.
    pub nics: Vec<Nic>,
    /// Whether a socket of family AF_XDP can be had.
    pub af_xdp: Probe,
    /// Whether memory can be had that other processes map.
    pub memfd: Probe,
}

/// What the switch said when it was asked for its status.
#[derive(Debug)]
pub enum SwitchAnswer {
    /// Nobody listens on the control socket.
    Absent {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The socket is there, and may not be opened by who asks.
    Denied {
        /// The socket.
        socket: PathBuf,
        /// What the system or the switch said.
        reason: String,
    },
    /// Its status.
    Status {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        status: Box<Status>,
    },
}

impl Default for SwitchAnswer {
    fn default() -> SwitchAnswer {
        SwitchAnswer::Absent { socket: PathBuf::new(), reason: "not asked".to_owned() }
    }
}

/// Where the configuration is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConfigSource {
    /// There is none: the defaults, no ports.
    #[default]
    Nowhere,
    /// The switch runs it.
    Running,
    /// A file.
    File(PathBuf),
}

impl std::fmt::Display for ConfigSource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigSource::Nowhere => out.write_str("no configuration"),
            ConfigSource::Running => out.write_str("the running configuration"),
            ConfigSource::File(path) => path.display().fmt(out),
        }
    }
}

/// A program that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Where.
    pub path: PathBuf,
    /// What it says of its version, one line; empty if nothing.
    pub says: String,
}

impl Program {
    /// Its version: the first word that begins with two numbers and a dot between.
    pub fn version(&self) -> Option<Version> {
        self.says.split([' ', '(', ')', ',']).find_map(version)
    }
}

/// Major and minor number of a version.
pub type Version = (u32, u32);

/// Reads the first two numbers of `6.12.95+deb12`, `10.0.2`.
pub(super) fn version(text: &str) -> Option<Version> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor.get(..digits)?.parse().ok()?))
}

/// Reads the first three numbers of `6.17.9-arch1`; a third one that is missing is 0.
pub(super) fn release(text: &str) -> Option<(u32, u32, u32)> {
    let (major, minor) = version(text)?;
    let third = text.split('.').nth(2).unwrap_or_default();
    let digits = third.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(third.len());
    Some((major, minor, third.get(..digits).and_then(|digits| digits.parse().ok()).unwrap_or(0)))
}

/// Whether the kernel has something: asked, not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// It has.
    #[default]
    Yes,
    /// It has not.
    No(String),
    /// Who asks may not know.
    Denied(String),
}

/// What the kernel says of XDP at a device (netlink family `netdev`, Linux 6.3 and newer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Programs run in the driver.
    pub native: bool,
    /// AF_XDP without copies.
    pub zero_copy: bool,
    /// Frames in several buffers.
    pub multi_buffer: bool,
    /// Pieces a frame can have with zero copy.
    pub zero_copy_segments: u32,
}

/// A network device of the host that is, or could be, a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The port; `None`: none so far.
    pub port: Option<String>,
    /// The device as the kernel has it; `None`: it is not there, for this reason.
    pub link: Option<Link>,
    /// How the configuration names it.
    pub spec: String,
    /// Why it is not there, or why it is never opened.
    pub refused: Option<String>,
    /// What it says of XDP; `None`: the kernel can't tell.
    pub xdp: Option<XdpFeatures>,
    /// Active channels, and the most there can be.
    pub channels: Option<(Channels, Channels)>,
    /// Offloads that take VLAN tags out of received frames and can't be switched off, by the kernel's names.
    pub stuck_vlan: Vec<String>,
}

/// Owner and permission bits of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStatus {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits, without the type.
    pub(super) mode: u32,
    pub(super) is_socket: bool,
}

impl Host {
    /// The machine whose files are under `root`.
    pub fn new(root: impl Into<PathBuf>, facts: Facts) -> Host {
        Host { root: root.into(), facts }
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, without the line's end.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        std::fs::read(self.place(Path::new(path))).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file with a number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.place(Path::new(path))).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub(super) fn is_there(&self, path: &str) -> bool {
        self.place(Path::new(path)).exists()
    }

    pub(super) fn status(&self, path: &Path) -> Option<FileStatus> {
        let meta = std::fs::metadata(self.place(path)).ok()?;
        let is_socket = meta.file_type().is_socket();
        Some(FileStatus { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o7777, is_socket })
    }

    /// A file and what it says, as evidence.
    pub(super) fn shown(&self, path: &str) -> String {
        match self.text(path) {
            Some(text) if text.is_empty() => format!("{path}: empty"),
            Some(text) => format!("{path}: {}", text.lines().next().unwrap_or_default()),
            None => format!("{path}: not there"),
        }
    }

    /// As [`Host::shown`], of several.
    pub(super) fn all_shown(&self, paths: &[&str]) -> String {
        paths.iter().map(|path| self.shown(path)).collect::<Vec<_>>().join("; ")
    }

    /// The kernel's version.
    pub(super) fn kernel(&self) -> Option<Version> {
        self.text("/proc/sys/kernel/osrelease").as_deref().and_then(version)
    }

    /// The kernel's version with its patch level.
    pub(super) fn kernel_release(&self) -> Option<(u32, u32, u32)> {
        self.text("/proc/sys/kernel/osrelease").as_deref().and_then(release)
    }

    /// The ports of one kind.
    pub(super) fn ports(&self, of_kind: impl Fn(&PortKind) -> bool) -> Vec<&PortConfig> {
        self.facts.config.ports.iter().filter(|port| of_kind(&port.kind)).collect()
    }

    /// Whether frames go through packet memory.
    pub(super) fn has_packet_memory(&self) -> bool {
        !self.ports(|kind| matches!(kind, PortKind::AfXdp(_) | PortKind::Veth(_))).is_empty()
    }

    /// What the running switch says of a port.
    pub(super) fn running(&self, port: &str) -> Option<&Port> {
        let SwitchAnswer::Status { status, .. } = &self.facts.switch else { return None };
        status.ports.iter().find(|running| running.name == port)
    }

    /// CPUs of the workers.
    pub(super) fn worker_cpus(&self) -> Vec<usize> {
        self.facts.config.switch.workers.clone()
    }
}

/// The numbers of a list as the kernel writes it: `0-3,8`.
pub(super) fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| match part.trim().split_once('-') {
        Some((first, last)) => Some(first.parse().ok()?..=last.parse().ok()?),
        None => part.trim().parse().ok().map(|number| number..=number),
    };
    // A list that is longer than any machine is not one.
    list.split(',').filter_map(range).flatten().take(1 << 16).collect()
}

/// Numbers as people write a list of them: `1,2`.
pub(super) fn listed(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// The same as a list in Nix.
pub(super) fn nix_list(numbers: &[usize]) -> String {
    format!("[ {} ]", numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" "))
}
