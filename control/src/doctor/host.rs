//! The machine as the checks see it: files under a root directory, and facts that were gathered beforehand.
//!
//! Paths are the machine's own (`/proc/…`, `/sys/…`) wherever the root is, so evidence reads the same from a test's
//! tree. A file that can't be read counts as absent; each check decides the consequence.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::api::{Port, Status};
use crate::config::{Config, PortConfig, PortKind};
use crate::device::Link;
use crate::device::ethtool::Channels;

/// A machine to examine.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    /// The facts that are not in files.
    pub facts: Facts,
}

/// Facts that take more than reading a file.
#[derive(Debug, Default)]
pub struct Facts {
    /// The configuration that the machine is examined for.
    pub config: Config,
    /// The origin of the configuration.
    pub config_source: ConfigSource,
    /// Why the installed service's file can't be used, if it can't.
    pub config_error: Option<String>,
    /// The answer of the switch.
    pub switch: SwitchAnswer,
    /// Programs that were found, by name.
    pub programs: BTreeMap<&'static str, Program>,
    /// Devices of the `af_xdp` ports; without such ports, the devices that could be one.
    pub nics: Vec<Nic>,
    /// Does the kernel grant an AF_XDP socket?
    pub af_xdp: Probe,
    /// Does the kernel grant memory that other processes can map?
    pub memfd: Probe,
}

/// The answer of the switch to a request for its status.
#[derive(Debug)]
pub enum SwitchAnswer {
    /// No process listens on the control socket.
    Absent {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// The user may not open the socket.
    Denied {
        /// The socket.
        socket: PathBuf,
        /// The error of the system or of the switch.
        reason: String,
    },
    /// The switch answered with its status.
    Status {
        /// The socket.
        socket: PathBuf,
        /// The status.
        status: Box<Status>,
    },
}

impl Default for SwitchAnswer {
    fn default() -> SwitchAnswer {
        SwitchAnswer::Absent { socket: PathBuf::new(), reason: "not asked".to_owned() }
    }
}

/// The origin of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConfigSource {
    /// There is no configuration: the defaults, no ports.
    #[default]
    Nowhere,
    /// The running switch.
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
    /// The path of the program.
    pub path: PathBuf,
    /// The version that the program printed, one line; empty if it printed none.
    pub says: String,
}

impl Program {
    /// The version: the first word that begins with two numbers separated by a dot.
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

/// The presence of a kernel feature, found without changing anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// The kernel has the feature.
    #[default]
    Yes,
    /// The kernel lacks the feature, with the reason.
    No(String),
    /// The user may not find out.
    Denied(String),
}

/// The XDP features of a device, as the kernel reports them (netlink family `netdev`, Linux 6.3 and newer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Programs run in the driver.
    pub native: bool,
    /// AF_XDP works without copies.
    pub zero_copy: bool,
    /// Frames may span several buffers.
    pub multi_buffer: bool,
    /// Most buffers of a frame with zero copy.
    pub zero_copy_segments: u32,
}

/// A network device of the host that is, or could be, a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The port; `None`: the device is no port yet.
    pub port: Option<String>,
    /// The device as the kernel describes it; `None`: it is absent, for the reason in `refused`.
    pub link: Option<Link>,
    /// The device as the configuration names it.
    pub spec: String,
    /// Why the device is absent, or never opened.
    pub refused: Option<String>,
    /// The device's XDP features; `None`: the kernel does not report them.
    pub xdp: Option<XdpFeatures>,
    /// The active channels, and the most that the device can have.
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
    /// A machine whose files are under `root`.
    pub fn new(root: impl Into<PathBuf>, facts: Facts) -> Host {
        Host { root: root.into(), facts }
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, without the end of the line.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        std::fs::read(self.place(Path::new(path))).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number in a file.
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

    /// A file and its content, as evidence.
    pub(super) fn shown(&self, path: &str) -> String {
        match self.text(path) {
            Some(text) if text.is_empty() => format!("{path}: empty"),
            Some(text) => format!("{path}: {}", text.lines().next().unwrap_or_default()),
            None => format!("{path}: not there"),
        }
    }

    /// The same as [`Host::shown`], for several files.
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

    /// True if some port's frames go through packet memory.
    pub(super) fn has_packet_memory(&self) -> bool {
        !self.ports(|kind| matches!(kind, PortKind::AfXdp(_) | PortKind::Veth(_))).is_empty()
    }

    /// The state of a port in the running switch.
    pub(super) fn running(&self, port: &str) -> Option<&Port> {
        let SwitchAnswer::Status { status, .. } = &self.facts.switch else { return None };
        status.ports.iter().find(|running| running.name == port)
    }

    /// The CPUs of the workers.
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
    // A list longer than this belongs to no machine.
    list.split(',').filter_map(range).flatten().take(1 << 16).collect()
}

/// Numbers as a list for people: `1,2`.
pub(super) fn listed(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// The same as a list in Nix.
pub(super) fn nix_list(numbers: &[usize]) -> String {
    format!("[ {} ]", numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" "))
}
