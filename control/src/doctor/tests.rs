//! The checks, given made-up machines: files under a directory of their own, and facts.
//!
//! Each table says what a machine is like and what the check has to say of it. [`Machine::new`] is a machine in order:
//! the first test proves that nothing is said against it, so that each row's finding is owed to what the row changes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use labsw_switch::vlan::{PortVlan, VlanMode};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

mod hardware;
mod software;

use super::host::{listed, nix_list, numbers, version};
use super::*;
use crate::api::{self, PortState, PortType, Vlan};
use crate::config::Config;
use crate::device::Link;
use crate::device::ethtool::Channels;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const LAB: &str = "
[switch]
workers = [2]
hugepages = \"required\"
socket_group = \"kvm\"
[ports.up]
type = \"af_xdp\"
device = \"name:nic0\"
[ports.dc01]
type = \"vhost_user\"
[ports.web]
type = \"veth\"
peer = \"ls-web\"
[ports.host]
type = \"tap\"
interface = \"lab0\"
[ports.win]
type = \"tap\"
interface = \"win0\"
for = \"guest\"
";

/// A machine of a test.
struct Machine {
    root: PathBuf,
    facts: Facts,
    sockets: Vec<UnixListener>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.root));
    }
}

/// A NIC that can do everything, of the port `up`.
fn nic() -> Nic {
    let link = Link {
        index: 2,
        name: "nic0".into(),
        driver: Some("igc".into()),
        pci_address: Some("0000:03:00.0".into()),
        max_mtu: Some(9216),
        ..Link::default()
    };
    let xdp = XdpFeatures { native: true, zero_copy: true, multi_buffer: true, zero_copy_segments: 8 };
    Nic {
        port: Some("up".into()),
        link: Some(link),
        spec: "name:nic0".into(),
        xdp: Some(xdp),
        channels: Some((channels(4), channels(4))),
        ..Nic::default()
    }
}

impl Machine {
    /// A machine that has what the configuration [`LAB`] needs.
    fn new() -> Machine {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("labsw-doctor-{}-{number}", std::process::id()));
        let said = |path: &str, says: &str| Program { path: path.into(), says: says.into() };
        let facts = Facts {
            config_source: ConfigSource::File("/etc/labsw/labsw.toml".into()),
            programs: [
                (gather::QEMU, said("/usr/bin/qemu", "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)")),
                ("libvirtd", said("/usr/sbin/libvirtd", "libvirtd (libvirt) 11.3.0")),
            ]
            .into(),
            nics: vec![nic()],
            ..Facts::default()
        };
        Machine { root, facts, sockets: Vec::new() }
            .config(LAB)
            .file("/proc/sys/kernel/osrelease", "6.12.95+deb12")
            .file("/proc/sys/net/core/bpf_jit_enable", "1")
            .file("/proc/kallsyms", "0000 t vethx\n0000 t veth_setup\n")
            .file("/proc/cmdline", "quiet intel_iommu=on iommu=pt")
            .file("/proc/cpuinfo", "vendor_id : GenuineIntel\nflags\t: fpu vmx\n")
            .file("/dev/kvm", "")
            .file("/dev/net/tun", "")
            .file("/sys/kernel/iommu_groups/0/type", "DMA")
            .file("/sys/module/kvm_intel/parameters/nested", "Y")
            .file(&format!("{POOL}/nr_hugepages"), "64")
            .file(&format!("{POOL}/free_hugepages"), "64")
            .file("/sys/devices/system/cpu/online", "0-3")
            .file("/sys/devices/system/cpu/isolated", "2-3")
            .file("/sys/devices/system/cpu/nohz_full", "2-3")
            .file("/sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2-3")
            .file("/proc/sys/net/bridge/bridge-nf-call-iptables", "0")
            .file("/proc/sys/net/ipv4/ip_forward", "0")
            .file("/proc/sys/net/ipv6/conf/all/forwarding", "0")
            .file("/proc/sys/net/ipv6/conf/nic0/disable_ipv6", "1")
            .file("/proc/sys/net/ipv6/conf/default/accept_ra", "0")
            .file("/proc/sys/net/ipv4/conf/all/rp_filter", "0")
            .file("/proc/sys/net/ipv4/conf/default/rp_filter", "0")
            .file("/run/labsw/vhost/.made", "")
            .file("/etc/group", "root:x:0:\nkvm:x:107:\n")
            .file("/etc/passwd", "root:x:0:0::/:/bin/sh\n")
            .answers(&[])
    }

    fn file(self, path: &str, text: &str) -> Machine {
        let place = self.root.join(path.strip_prefix('/').unwrap());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, format!("{text}\n")).unwrap();
        self
    }

    fn without(self, path: &str) -> Machine {
        let place = self.root.join(path.strip_prefix('/').unwrap());
        let gone = if place.is_dir() { std::fs::remove_dir_all(place) } else { std::fs::remove_file(place) };
        gone.unwrap();
        self
    }

    /// A socket that is open for whom `mode` says.
    fn socket(mut self, path: &str, mode: u32) -> Machine {
        let place = self.root.join(path.strip_prefix('/').unwrap());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        self.sockets.push(UnixListener::bind(&place).unwrap());
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn mode(self, path: &str, mode: u32) -> Machine {
        let place = self.root.join(Path::new(path).strip_prefix("/").unwrap());
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn config(mut self, text: &str) -> Machine {
        self.facts.config = Config::parse(text, "test").unwrap();
        self
    }

    fn facts(mut self, change: impl FnOnce(&mut Facts)) -> Machine {
        change(&mut self.facts);
        self
    }

    fn nic(self, change: impl FnOnce(&mut Nic)) -> Machine {
        self.facts(|facts| change(&mut facts.nics[0]))
    }

    fn driver(self, driver: &str) -> Machine {
        self.nic(|nic| nic.link.as_mut().unwrap().driver = Some(driver.into()))
    }

    /// A switch runs, with these ports.
    fn answers(self, ports: &[api::Port]) -> Machine {
        let status = api::Status { ports: ports.to_vec(), ..api::Status::default() };
        let socket = PathBuf::from("/run/labsw/control.sock");
        self.facts(|facts| facts.switch = SwitchAnswer::Status { socket, status: Box::new(status) })
    }

    fn absent(self) -> Machine {
        let (socket, reason) = (PathBuf::from("/run/labsw/control.sock"), "gone".to_owned());
        self.facts(|facts| facts.switch = SwitchAnswer::Absent { socket, reason })
    }

    fn examined(mut self) -> Vec<Finding> {
        examine(&Host::new(self.root.clone(), std::mem::take(&mut self.facts)))
    }

    /// The worst finding of a check.
    fn says(self, check: &str) -> Finding {
        let findings = self.examined();
        let of_check = findings.into_iter().filter(|finding| finding.check == check);
        of_check.max_by_key(|finding| finding.level).unwrap_or_else(|| Finding::ok("none", check, ""))
    }
}

fn channels(combined: u32) -> Channels {
    Channels { combined, ..Channels::default() }
}

fn running(name: &str, port_type: PortType, state: PortState) -> api::Port {
    let vlan = Vlan::shown(&PortVlan::new(VlanMode::Access, Some(1), &[]).unwrap());
    api::Port { state, ..api::Port::new(name, port_type, vlan) }
}

#[test]
fn nothing_is_said_against_a_machine_in_order() {
    let against: Vec<Finding> =
        Machine::new().examined().into_iter().filter(|finding| finding.level != Level::Ok).collect();
    assert!(against.is_empty(), "{against:#?}");
}

/// A row: what is tried, the machine, the check, how bad it is, and a word of the command (empty: there is none).
type Row = (&'static str, Machine, &'static str, Level, &'static str);

fn judge(rows: Vec<Row>) {
    for (what, machine, check, level, command) in rows {
        let finding = machine.says(check);
        assert_eq!((finding.check, finding.level), (check, level), "{what}: {finding:#?}");
        let said = finding.command.clone().unwrap_or_default();
        assert!(said.contains(command) && said.is_empty() == command.is_empty(), "{what}: {finding:#?}");
        assert!(!finding.evidence.is_empty() && !finding.summary.is_empty(), "{what}: {finding:#?}");
    }
}

#[test]
fn lists_and_versions() {
    assert_eq!(numbers("0-2,5, 7-7"), [0, 1, 2, 5, 7]);
    assert_eq!(numbers(""), [0_usize; 0]);
    assert_eq!(numbers("x,1-,-1,3"), [3]);
    assert_eq!(numbers("0-18446744073709551615").len(), 1 << 16);
    assert_eq!((listed(&[1, 2]).as_str(), nix_list(&[1, 2]).as_str()), ("1,2", "[ 1 2 ]"));
    for (text, is) in
        [("6.12.95+deb12", Some((6, 12))), ("5.9-rc1", Some((5, 9))), ("6", None), ("v6.1", None), ("6.x", None)]
    {
        assert_eq!(version(text), is, "{text}");
    }
}
