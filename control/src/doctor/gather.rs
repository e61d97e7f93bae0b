//! Gathers facts of this machine that are not in files: from the switch, from programs, from the kernel.
//!
//! Nothing is changed. Programs are run with `--version`; a socket and a memory file are made and closed at once. A
//! fact that can't be gathered is left out, and the checks say so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::host::{ConfigSource, Facts, Nic, Probe, Program, SwitchAnswer, XdpFeatures};
use super::netdev;
use crate::api::{Reply, Request};
use crate::config::{AfXdpConfig, Config, ConfigError, PortKind};
use crate::device::ethtool::{self, Offload};
use crate::device::{Link, Links};
use crate::varlink::{CallError, Client};

/// The configuration of the installed service.
const INSTALLED: &str = "/etc/labsw/labsw.toml";
/// Directories of programs beside the user's `PATH`: other users start the service's guests.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/sbin", "/run/current-system/sw/bin"];
/// Programs that run guests and containers; each prints its version when asked.
const PROGRAMS: [&str; 7] = [QEMU, "libvirtd", "virtqemud", "virsh", "cloud-hypervisor", "lxc-start", "swtpm"];
/// QEMU for this machine's own architecture.
pub(super) const QEMU: &str = if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };

impl Facts {
    /// Gathers the facts. `socket` is the switch's. The machine is examined for the configuration in `file`, otherwise
    /// for the running one, otherwise for the installed one.
    ///
    /// # Errors
    /// `file` has a mistake.
    pub fn gather(socket: &Path, file: Option<&Path>) -> Result<Facts, ConfigError> {
        let mut facts =
            Facts { af_xdp: probe_af_xdp(), memfd: probe_memfd(), programs: programs(), ..Facts::default() };
        let running;
        (facts.switch, running) = ask(socket);
        if let Some(file) = file {
            (facts.config, facts.config_source) = (Config::load(file)?, ConfigSource::File(file.to_owned()));
        } else if let Some(running) = running {
            (facts.config, facts.config_source) = (running, ConfigSource::Running);
        } else if Path::new(INSTALLED).exists() {
            facts.config_source = ConfigSource::File(INSTALLED.into());
            match Config::load(Path::new(INSTALLED)) {
                Ok(config) => facts.config = config,
                Err(error) => facts.config_error = Some(error.to_string()),
            }
        }
        facts.nics = nics(&facts.config);
        Ok(facts)
    }
}

/// The status of the switch, and its running configuration.
fn ask(socket: &Path) -> (SwitchAnswer, Option<Config>) {
    let socket = socket.to_owned();
    let mut client = match Client::connect(&socket) {
        Ok(client) => client,
        Err(error) => {
            let reason = error.to_string();
            let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
            let answer =
                if denied { SwitchAnswer::Denied { socket, reason } } else { SwitchAnswer::Absent { socket, reason } };
            return (answer, None);
        }
    };
    let status = match client.call(&Request::GetStatus) {
        Ok(Reply::Status(status)) => Box::new(status),
        Ok(_) => return (SwitchAnswer::Absent { socket, reason: "it answers something else".to_owned() }, None),
        Err(error @ (CallError::Broken(_) | CallError::Closed)) => {
            return (SwitchAnswer::Absent { socket, reason: error.to_string() }, None);
        }
        Err(error) => return (SwitchAnswer::Denied { socket, reason: error.to_string() }, None),
    };
    let config = match client.call(&Request::ShowConfig) {
        Ok(Reply::Config(shown)) => Config::parse(&shown.text, "the running configuration").ok(),
        _ => None,
    };
    (SwitchAnswer::Status { socket, status }, config)
}

fn programs() -> BTreeMap<&'static str, Program> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from)).collect();
    let find = |name: &str| directories.iter().map(|directory| directory.join(name)).find(|file| file.is_file());
    PROGRAMS.into_iter().filter_map(|name| Some((name, asked(find(name)?)))).collect()
}

/// A program with its version.
fn asked(path: PathBuf) -> Program {
    let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    Program { path, says: text.lines().next().unwrap_or_default().trim().to_owned() }
}

fn probe_af_xdp() -> Probe {
    match socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => Probe::Yes,
        Err(error @ (rustix::io::Errno::PERM | rustix::io::Errno::ACCESS)) => Probe::Denied(error.to_string()),
        Err(error) => Probe::No(error.to_string()),
    }
}

fn probe_memfd() -> Probe {
    match rustix::fs::memfd_create("labsw-doctor", MemfdFlags::CLOEXEC) {
        Ok(_) => Probe::Yes,
        Err(error) => Probe::No(error.to_string()),
    }
}

/// The devices of the `af_xdp` ports; without such ports, the devices that could be one.
fn nics(config: &Config) -> Vec<Nic> {
    let Ok(mut links) = Links::open() else { return Vec::new() };
    let features = netdev::xdp_features().ok().flatten();
    let protected = &config.switch.protected_interfaces;
    let mut nics = Vec::new();
    for port in &config.ports {
        let PortKind::AfXdp(AfXdpConfig { device, .. }) = &port.kind else { continue };
        let mut nic = Nic { port: Some(port.name.clone()), spec: device.to_string(), ..Nic::default() };
        match links.resolve(device) {
            Ok(Some(link)) => describe(&mut nic, link, protected, &mut links, features.as_ref()),
            Ok(None) => nic.refused = Some(Links::absence(device)),
            Err(error) => nic.refused = Some(error.to_string()),
        }
        nics.push(nic);
    }
    if nics.is_empty() {
        // Only devices on a bus; a link made in software is no NIC.
        let physical = links.list().unwrap_or_default().into_iter().filter(|link| link.driver.is_some());
        for link in physical {
            let mut nic = Nic { spec: format!("name:{}", link.name), ..Nic::default() };
            describe(&mut nic, link, protected, &mut links, features.as_ref());
            nics.push(nic);
        }
    }
    nics
}

fn describe(
    nic: &mut Nic,
    link: Link,
    protected: &[String],
    links: &mut Links,
    features: Option<&BTreeMap<u32, XdpFeatures>>,
) {
    nic.refused = links.protection(&link, protected).unwrap_or_else(|error| Some(error.to_string()));
    nic.xdp = features.and_then(|features| features.get(&link.index).copied());
    nic.channels = ethtool::channels(&link.name).ok().flatten();
    nic.stuck_vlan = ethtool::stuck(&link.name, &[Offload::RxVlan]).unwrap_or_default();
    nic.link = Some(link);
}
