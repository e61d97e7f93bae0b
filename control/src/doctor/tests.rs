//! The checks, given made-up machines: files under a directory of their own, and facts.
//!
//! Each table says what a machine is like and what the check has to say of it. [`Machine::new`] is a machine in order: the
//! first test proves that nothing is said against it, so that each row's finding is owed to what the row changes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

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

impl Machine {
    /// A machine that has what the configuration [`LAB`] needs.
    fn new() -> Machine {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("labsw-doctor-{}-{number}", std::process::id()));
        let link = Link {
            index: 2,
            name: "nic0".into(),
            driver: Some("igc".into()),
            pci_address: Some("0000:03:00.0".into()),
            max_mtu: Some(9216),
            ..Link::default()
        };
        let xdp = XdpFeatures { native: true, zero_copy: true, multi_buffer: true, zero_copy_segments: 8 };
        let nic = Nic {
            port: Some("up".into()),
            link: Some(link),
            spec: "name:nic0".into(),
            xdp: Some(xdp),
            channels: Some((channels(4), channels(4))),
            ..Nic::default()
        };
        let said = |path: &str, says: &str| Program { path: path.into(), says: says.into() };
        let facts = Facts {
            config_source: ConfigSource::File("/etc/labsw/labsw.toml".into()),
            programs: [
                (gather::QEMU, said("/usr/bin/qemu", "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)")),
                ("libvirtd", said("/usr/sbin/libvirtd", "libvirtd (libvirt) 11.3.0")),
            ]
            .into(),
            nics: vec![nic],
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
        let status = api::Status {
            version: "1".into(),
            uptime_seconds: 5,
            power: "adaptive".into(),
            workers: Vec::new(),
            ports: ports.to_vec(),
            mirrors: Vec::new(),
        };
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
    let vlan = Vlan { mode: api::VlanMode::Access, tag: Some(1), trunks: api::VlanList::default() };
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

fn pages(total: &str, free: &str) -> Machine {
    Machine::new().file(&format!("{POOL}/nr_hugepages"), total).file(&format!("{POOL}/free_hugepages"), free)
}

#[test]
fn huge_pages() {
    use Level::*;
    let auto = LAB.replace("required", "auto");
    let off = LAB.replace("required", "off");
    let on_demand = |surplus| {
        let machine = pages("0", "0").absent().file(&format!("{POOL}/nr_overcommit_hugepages"), "40");
        machine.file(&format!("{POOL}/surplus_hugepages"), surplus)
    };
    let nodes = |free| {
        let file = |node: u32| format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/free_hugepages");
        let machine = Machine::new().absent().file("/sys/bus/pci/devices/0000:03:00.0/numa_node", "1");
        machine.file(&file(0), "64").file(&file(1), free)
    };
    judge(vec![
        ("exactly enough", pages("32", "32").absent(), "hugepages", Ok, ""),
        ("one too few", pages("40", "31").absent(), "hugepages", Problem, "sysctl -w vm.nr_hugepages=41"),
        ("one too few, and not required", pages("40", "31").absent().config(&auto), "hugepages", Advice, "=41"),
        ("not wanted", pages("0", "0").absent().config(&off), "hugepages", Ok, ""),
        ("the switch has them", pages("32", "0"), "hugepages", Ok, ""),
        ("the switch can't have them", pages("31", "0").config(&auto), "hugepages", Advice, "=63"),
        ("on demand", on_demand("8"), "hugepages", Ok, ""),
        ("on demand, used up", on_demand("9"), "hugepages", Problem, "=32"),
        ("no such kernel", Machine::new().without(POOL), "hugepages", Problem, "auto"),
        ("no such kernel, not required", Machine::new().without(POOL).config(&auto), "hugepages", Advice, ""),
        ("at the NIC's node", nodes("32"), "hugepages_numa", Ok, ""),
        ("at another node", nodes("2"), "hugepages_numa", Advice, "node1/hugepages"),
    ]);
}

#[test]
fn processors() {
    use Level::*;
    const CPU: &str = "/sys/devices/system/cpu";
    let new = Machine::new;
    let spinning = LAB.replace("workers = [2]", "power = \"performance\"");
    let two = LAB.replace("[2]", "[2, 3]");
    let clock = |driver, governor| {
        let machine = new().file(&format!("{CPU}/cpu2/cpufreq/scaling_driver"), driver);
        machine.file(&format!("{CPU}/cpu2/cpufreq/scaling_governor"), governor)
    };
    let amd = "vendor_id : AuthenticAMD\nflags : fpu svm";
    judge(vec![
        (
            "not isolated",
            new().file(&format!("{CPU}/isolated"), "1,3"),
            "cpu_isolation",
            Advice,
            "isolcpus=managed_irq,domain,2",
        ),
        ("a tick", new().without(&format!("{CPU}/nohz_full")), "cpu_isolation", Advice, "nohz_full=2"),
        ("no worker pinned", new().config(&LAB.replace("workers = [2]", "")), "cpu_isolation", Ok, ""),
        ("spinning anywhere", new().config(&spinning), "cpu_isolation", Advice, "workers"),
        ("threads of a core", new().config(&two), "cpu_siblings", Advice, "different cores"),
        ("slow clock", clock("acpi-cpufreq", "powersave"), "cpu_clock", Advice, "cpupower -c 2"),
        ("clock of the processor's own", clock("intel_pstate", "powersave"), "cpu_clock", Ok, ""),
        ("fast clock", clock("acpi-cpufreq", "performance"), "cpu_clock", Ok, ""),
        ("KVM not loaded", new().without("/dev/kvm"), "kvm", Advice, "modprobe kvm_intel"),
        ("KVM of AMD", new().without("/dev/kvm").file("/proc/cpuinfo", amd), "kvm", Advice, "modprobe kvm_amd"),
        (
            "nesting off",
            new().file("/sys/module/kvm_intel/parameters/nested", "N"),
            "nested_virtualisation",
            Advice,
            "kvm_intel nested=1",
        ),
        ("no KVM module", new().without("/sys/module/kvm_intel"), "nested_virtualisation", Advice, ""),
        ("no IOMMU", new().without("/sys/kernel/iommu_groups/0"), "iommu", Advice, "intel_iommu=on"),
        (
            "no IOMMU of AMD",
            new().without("/sys/kernel/iommu_groups").file("/proc/cpuinfo", amd),
            "iommu",
            Advice,
            "AMD-Vi",
        ),
    ]);
}

#[test]
fn kernels() {
    use Level::*;
    let kernel = |release| Machine::new().file("/proc/sys/kernel/osrelease", release);
    let jumbo = LAB.replace("device = \"name:nic0\"", "device = \"name:nic0\"\nmtu = 9000");
    let no = || Probe::No("no".to_owned());
    let no_veth = || Machine::new().file("/proc/kallsyms", "0000 t veth_setup_none");
    judge(vec![
        (
            "no AF_XDP",
            Machine::new().facts(|facts| facts.af_xdp = no()),
            "kernel_af_xdp",
            Problem,
            "CONFIG_XDP_SOCKETS=y",
        ),
        (
            "no AF_XDP, not asked for",
            Machine::new().facts(|facts| facts.af_xdp = no()).config(""),
            "kernel_af_xdp",
            Advice,
            "CONFIG",
        ),
        (
            "may not ask",
            Machine::new().facts(|facts| facts.af_xdp = Probe::Denied("no".into())),
            "kernel_af_xdp",
            Advice,
            "sudo",
        ),
        (
            "no memfd",
            Machine::new().facts(|facts| facts.memfd = no()),
            "kernel_memfd",
            Problem,
            "CONFIG_MEMFD_CREATE=y",
        ),
        ("no link", kernel("5.8.9"), "kernel_xdp_link", Problem, "5.9"),
        ("a link", kernel("5.9.0-rc1"), "kernel_xdp_link", Ok, ""),
        ("jumbo on an old kernel", kernel("6.5.13").config(&jumbo), "kernel_xdp_multi_buffer", Problem, "6.6"),
        ("nothing jumbo", kernel("6.5.13"), "kernel_xdp_multi_buffer", Advice, "6.6"),
        ("jumbo", kernel("6.10.1").config(&jumbo), "kernel_xdp_multi_buffer", Ok, ""),
        ("a guest's TAP on an old kernel", kernel("6.1.0-21-amd64"), "kernel_tcx", Problem, "6.6"),
        ("no guest's TAP", kernel("6.1.0-21-amd64").config(""), "kernel_tcx", Advice, "6.6"),
        ("a version nobody reads", kernel("next"), "kernel_tcx", Advice, ""),
        (
            "interpreted",
            Machine::new().file("/proc/sys/net/core/bpf_jit_enable", "0"),
            "kernel_bpf_jit",
            Advice,
            "bpf_jit_enable=1",
        ),
        ("no TAP", Machine::new().without("/dev/net/tun"), "kernel_tun", Problem, "modprobe tun"),
        (
            "no TAP, not asked for",
            Machine::new().without("/dev/net/tun").config(""),
            "kernel_tun",
            Advice,
            "modprobe tun",
        ),
        ("no veth", no_veth(), "kernel_veth", Problem, "modprobe veth"),
        (
            "veth as a module",
            no_veth().file("/lib/modules/6.12.95+deb12/modules.dep", "kernel/drivers/net/veth.ko.xz:"),
            "kernel_veth",
            Ok,
            "",
        ),
    ]);
}

#[test]
fn devices() {
    use Level::*;
    let new = Machine::new;
    let forced =
        |mode: &str| LAB.replace("device = \"name:nic0\"", &format!("device = \"name:nic0\"\nmode = \"{mode}\""));
    let without_zero_copy = || new().nic(|nic| nic.xdp.as_mut().unwrap().zero_copy = false);
    let granted = |mode: &str, state| {
        let port = running("up", PortType::AfXdp, state);
        new().answers(&[api::Port { xdp_mode: Some(mode.into()), ..port }])
    };
    let free = |nic: &mut Nic| nic.port = None;
    let stuck = |nic: &mut Nic| nic.stuck_vlan = vec!["rx-vlan-hw-parse".into()];
    let jumbo = LAB.replace("device = \"name:nic0\"", "device = \"name:nic0\"\nmtu = 9000");
    judge(vec![
        ("no zero copy", without_zero_copy(), "nic_xdp_mode", Advice, "use a NIC"),
        (
            "zero copy asked for",
            without_zero_copy().config(&forced("zero_copy")),
            "nic_xdp_mode",
            Problem,
            "port set up mode=auto",
        ),
        ("zero copy asked for and there", new().config(&forced("zero_copy")), "nic_xdp_mode", Ok, ""),
        (
            "copy asked for",
            new().nic(|nic| nic.xdp = Some(XdpFeatures::default())).config(&forced("copy")),
            "nic_xdp_mode",
            Problem,
            "mode=auto",
        ),
        (
            "skb asked for",
            new().nic(|nic| nic.xdp = Some(XdpFeatures::default())).config(&forced("skb")),
            "nic_xdp_mode",
            Advice,
            "use a NIC",
        ),
        ("an old kernel", new().nic(|nic| nic.xdp = None), "nic_xdp_mode", Advice, "6.3"),
        ("granted less than there is", granted("copy", PortState::Up), "nic_xdp_mode", Advice, "use a NIC"),
        ("granted", granted("zero_copy", PortState::Up), "nic_xdp_mode", Ok, ""),
        ("not open", granted("copy", PortState::Waiting), "nic_xdp_mode", Ok, ""),
        ("not there", new().nic(|nic| nic.link = None), "nic", Advice, "lspci"),
        (
            "protected",
            new().nic(|nic| nic.refused = Some("carries a default route".into())),
            "nic",
            Problem,
            "another `device`",
        ),
        ("the host's own", new().nic(free).nic(|nic| nic.refused = Some("default route".into())), "nic", Ok, ""),
        (
            "too large",
            new().config(&jumbo).nic(|nic| nic.link.as_mut().unwrap().max_mtu = Some(1500)),
            "nic_mtu",
            Problem,
            "mtu=1500",
        ),
        (
            "one buffer",
            new().config(&jumbo).nic(|nic| nic.xdp.as_mut().unwrap().multi_buffer = false),
            "nic_mtu",
            Advice,
            "mtu=3498",
        ),
        ("large", new().config(&jumbo), "nic_mtu", Ok, ""),
        ("tags taken out", new().nic(stuck), "nic_vlan_tags", Problem, "another NIC"),
        ("tags taken out of nobody's", new().nic(free).nic(stuck), "nic_vlan_tags", Advice, "another NIC"),
        (
            "IPv6 of the host",
            new().file("/proc/sys/net/ipv6/conf/nic0/disable_ipv6", "0"),
            "nic_host_stack",
            Advice,
            "nic0.disable_ipv6=1",
        ),
        ("ena, all channels", new().driver("ena"), "nic_channels", Problem, "queues=2"),
        (
            "ena, half",
            new().driver("ena").nic(|nic| nic.channels = Some((channels(2), channels(4)))),
            "nic_channels",
            Ok,
            "",
        ),
        (
            "i40e, too few",
            new().driver("i40e").nic(|nic| nic.channels = Some((channels(3), channels(64)))),
            "nic_channels",
            Advice,
            "queues=4",
        ),
        ("i40e, enough", new().driver("i40e"), "nic_channels", Ok, ""),
    ]);
}

#[test]
fn drivers() {
    let known = |driver: &str, release: &str, change: fn(&mut Nic)| -> Vec<String> {
        let machine = Machine::new().driver(driver).file("/proc/sys/kernel/osrelease", release).nic(change);
        let findings = machine.examined().into_iter().filter(|finding| finding.check == "nic_driver");
        findings.map(|finding| finding.command.unwrap_or_default()).collect()
    };
    let any: fn(&mut Nic) = |_| {};
    assert_eq!(known("igc", "6.12", any), [""; 0]);
    assert_eq!(known("igb", "6.14.3", any), ["labsw-ctl port set up mode=skb"]);
    assert_eq!(known("igb", "6.15.0", any), [""; 0]);
    assert_eq!(known("ice", "6.12.0", any)[0], "labsw-ctl port set up mode=copy");
    assert_eq!(known("ice", "6.12.0", any).len(), 2);
    // Without zero copy there is nothing to fear from it.
    assert_eq!(known("ice", "6.12.0", |nic| nic.xdp.as_mut().unwrap().zero_copy = false).len(), 1);
    assert_eq!(known("ice", "5.15.0", any).len(), 1);
    // Of a kernel that is not known, everything is said.
    assert_eq!(known("igb", "next", any).len(), 1);
    assert_eq!(known("i40e", "6.1.0", any), ["ethtool -K nic0 rxvlan off rx-vlan-filter off"]);
}

#[test]
fn settings_of_the_stack() {
    use Level::*;
    let new = Machine::new;
    let no_taps = LAB.replace("interface = \"lab0\"", "interface = \"lab0\"\nfor = \"guest\"");
    let two_taps = format!("{LAB}[ports.host2]\ntype = \"tap\"\ninterface = \"lab1\"\n");
    let nf = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
    let forward = |file| new().file(file, "1");
    let accept = |file: &str, value| new().file(&format!("/proc/sys/net/ipv6/conf/{file}"), value);
    let strict = |scope: &str| new().file(&format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter"), "1").config(&two_taps);
    judge(vec![
        ("bridged frames", new().file(nf, "1"), "bridge_nf_call", Advice, "net.bridge.bridge-nf-call-ip6tables=0"),
        ("no bridge module", new().without("/proc/sys/net/bridge"), "bridge_nf_call", Ok, ""),
        ("a router", forward("/proc/sys/net/ipv4/ip_forward"), "forwarding", Advice, "net.ipv4.ip_forward=0"),
        (
            "a router of IPv6",
            forward("/proc/sys/net/ipv6/conf/all/forwarding"),
            "forwarding",
            Advice,
            "net.ipv6.conf.all.forwarding=0",
        ),
        ("a router beside the lab", forward("/proc/sys/net/ipv4/ip_forward").config(&no_taps), "forwarding", Ok, ""),
        ("advertisements by default", accept("default/accept_ra", "1"), "accept_ra", Advice, "default.accept_ra=0"),
        ("advertisements", accept("lab0/accept_ra", "2"), "accept_ra", Advice, "lab0.accept_ra=0"),
        (
            "no IPv6",
            accept("default/accept_ra", "1").file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
            "accept_ra",
            Ok,
            "",
        ),
        (
            "only the default is bad",
            accept("lab0/accept_ra", "0").file("/proc/sys/net/ipv6/conf/default/accept_ra", "1"),
            "accept_ra",
            Ok,
            "",
        ),
        ("strict, of one", new().file("/proc/sys/net/ipv4/conf/all/rp_filter", "1"), "rp_filter", Ok, ""),
        ("strict, of two", strict("all"), "rp_filter", Advice, "rp_filter=2"),
        ("strict by itself", strict("lab1"), "rp_filter", Advice, "lab1.rp_filter=2"),
        ("loose wins", strict("all").file("/proc/sys/net/ipv4/conf/default/rp_filter", "2"), "rp_filter", Ok, ""),
    ]);
}

#[test]
fn sockets_and_who_may_open_them() {
    use Level::*;
    const SOCKET: &str = "/run/labsw/vhost/dc01.sock";
    let new = Machine::new;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // A user who is not the one that runs the test, in the group of its files or not.
    let guest = |mode, member: bool| {
        let members = if member { "libvirt-qemu" } else { "" };
        let machine = new().socket(SOCKET, mode).file("/etc/group", &format!("kvm:x:{gid}:{members}"));
        let machine = machine.file("/etc/passwd", &format!("libvirt-qemu:x:{}:{}::/:/bin/false", uid + 7, gid + 7));
        machine.mode("/run/labsw/vhost", 0o755).mode("/run/labsw", 0o755).mode("/run", 0o755)
    };
    let failed = running("web", PortType::Veth, PortState::Failed);
    let guest_is_off =
        api::Port { socket: Some(SOCKET.into()), ..running("dc01", PortType::VhostUser, PortState::Waiting) };
    let denied = |facts: &mut Facts| {
        facts.switch = SwitchAnswer::Denied { socket: "/run/labsw/control.sock".into(), reason: "no".into() };
    };
    judge(vec![
        ("may open it", guest(0o660, true), "guest_access", Ok, ""),
        ("not in the group", guest(0o660, false), "guest_access", Problem, "usermod -aG kvm libvirt-qemu"),
        ("the group may not write", guest(0o640, true), "guest_access", Problem, "socket_mode"),
        ("for everybody", guest(0o666, false), "guest_access", Ok, ""),
        (
            "a closed directory",
            guest(0o666, false).mode("/run/labsw", 0o700),
            "guest_access",
            Problem,
            "chmod o+x /run/labsw",
        ),
        ("a directory of the group", guest(0o660, true).mode("/run/labsw", 0o750), "guest_access", Ok, ""),
        ("no such group", new().file("/etc/group", "root:x:0:"), "socket_group", Problem, "groupadd --system kvm"),
        ("a number", new().config(&LAB.replace("\"kvm\"", "\"107\"")).file("/etc/group", ""), "socket_group", Ok, ""),
        (
            "no group wanted",
            new().config(&LAB.replace("socket_group = \"kvm\"", "")),
            "socket_group",
            Advice,
            "socket_group",
        ),
        ("open to all", new().socket("/run/labsw/control.sock", 0o666), "control_socket", Advice, "socket_mode"),
        ("open to some", new().socket("/run/labsw/control.sock", 0o660), "control_socket", Ok, ""),
        (
            "its directory is gone",
            new().without("/run/labsw/vhost"),
            "vhost_user_dir",
            Problem,
            "systemctl restart labsw",
        ),
        ("not started", new().absent().without("/run/labsw/vhost"), "vhost_user_dir", Ok, ""),
        ("nobody answers", new().absent(), "switch", Advice, "systemctl start labsw"),
        ("may not ask", new().facts(denied), "switch", Problem, "usermod"),
        ("a port failed", new().answers(&[failed]), "port", Problem, "labsw-ctl port show web"),
        (
            "a file that is wrong",
            new().facts(|facts| facts.config_error = Some("no".into())),
            "configuration",
            Problem,
            "--check",
        ),
        (
            "no file",
            new().facts(|facts| facts.config_source = ConfigSource::Nowhere),
            "configuration",
            Advice,
            "--config",
        ),
    ]);
    assert_eq!(new().answers(&[guest_is_off]).says("port").check, "none", "a guest that is off is nothing to mend");
}

impl Machine {
    fn mode(self, path: &str, mode: u32) -> Machine {
        let place = self.root.join(Path::new(path).strip_prefix("/").unwrap());
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }
}

#[test]
fn programs() {
    use Level::*;
    let says = |name: &'static str, text: &str| {
        let (path, says) = (PathBuf::from("/bin/x"), text.to_owned());
        Machine::new().facts(|facts| drop(facts.programs.insert(name, Program { path, says })))
    };
    let lacks = |name: &'static str| Machine::new().facts(|facts| drop(facts.programs.remove(name)));
    judge(vec![
        ("before reconnect-ms", says(gather::QEMU, "QEMU emulator version 7.2.0"), "qemu", Ok, ""),
        ("ancient", says(gather::QEMU, "QEMU emulator version 2.12.0"), "qemu", Advice, "apt install"),
        ("no version", says(gather::QEMU, ""), "qemu", Advice, ""),
        ("no QEMU", lacks(gather::QEMU), "qemu", Advice, "apt install"),
        ("no QEMU, no guests", lacks(gather::QEMU).config(""), "qemu", Ok, ""),
        ("no <reconnect>", says("libvirtd", "libvirtd (libvirt) 4.0.0"), "libvirt", Advice, "backports"),
        ("-no-acpi", says("libvirtd", "libvirtd (libvirt) 9.0.0"), "libvirt", Advice, "acpi"),
        ("no libvirt", lacks("libvirtd"), "libvirt", Ok, ""),
        ("no control groups", says("lxc-start", "5.0.2"), "lxc", Advice, "mount"),
        ("control groups", says("lxc-start", "5.0.2").file("/sys/fs/cgroup/x", ""), "lxc", Ok, ""),
    ]);
    let acpi = says("libvirtd", "libvirtd (libvirt) 9.0.0");
    let old_qemu = Program { path: PathBuf::new(), says: "QEMU emulator version 7.2.0".into() };
    let acpi = acpi.facts(|facts| drop(facts.programs.insert(gather::QEMU, old_qemu)));
    assert_eq!(acpi.says("libvirt").level, Ok, "QEMU 7.2 knows -no-acpi");
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
