//! Huge pages, processors, and the devices of ports.

use super::*;
use crate::config::XdpMode;

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
    let shared = |setting| {
        let machine = pages("0", "0").absent().config(&auto);
        machine.file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", setting)
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
        (
            "none of any kind",
            shared("always advise [never] deny"),
            "hugepages_transparent",
            Advice,
            "echo advise >/sys",
        ),
        ("made on request", shared("always [advise] never deny"), "hugepages_transparent", Ok, ""),
        ("reserved ones", pages("32", "32").absent(), "hugepages_transparent", Ok, ""),
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
fn modes_of_devices() {
    use Level::*;
    let new = Machine::new;
    let forced =
        |mode: &str| LAB.replace("device = \"name:nic0\"", &format!("device = \"name:nic0\"\nmode = \"{mode}\""));
    let without_zero_copy = || new().nic(|nic| nic.xdp.as_mut().unwrap().zero_copy = false);
    let granted = |mode, state| {
        let port = running("up", PortType::AfXdp, state);
        new().answers(&[api::Port { xdp_mode: Some(mode), ..port }])
    };
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
        ("granted less than there is", granted(XdpMode::Copy, PortState::Up), "nic_xdp_mode", Advice, "use a NIC"),
        ("granted", granted(XdpMode::ZeroCopy, PortState::Up), "nic_xdp_mode", Ok, ""),
        ("not open", granted(XdpMode::Copy, PortState::Waiting), "nic_xdp_mode", Ok, ""),
    ]);
}

#[test]
fn devices() {
    use Level::*;
    let new = Machine::new;
    let free = |nic: &mut Nic| nic.port = None;
    let stuck = |nic: &mut Nic| nic.stuck_vlan = vec!["rx-vlan-hw-parse".into()];
    let jumbo = LAB.replace("device = \"name:nic0\"", "device = \"name:nic0\"\nmtu = 9000");
    judge(vec![
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
            new().driver("virtio_net").config(&jumbo).nic(|nic| nic.xdp.as_mut().unwrap().multi_buffer = false),
            "nic_mtu",
            Advice,
            "mtu=3498",
        ),
        (
            "one buffer, of a driver with less room",
            new().driver("i40e").config(&jumbo).nic(|nic| nic.xdp.as_mut().unwrap().multi_buffer = false),
            "nic_mtu",
            Advice,
            "mtu=3046",
        ),
        ("just fits", new().nic(|nic| nic.link.as_mut().unwrap().max_mtu = Some(1500)), "nic_mtu", Ok, ""),
        ("large", new().config(&jumbo), "nic_mtu", Ok, ""),
        ("tags taken out", new().nic(stuck), "nic_vlan_tags", Problem, "another NIC"),
        ("tags taken out of nobody's", new().nic(free).nic(stuck), "nic_vlan_tags", Advice, "another NIC"),
        (
            "IPv6 of the host, on a kernel without tcx",
            new().file("/proc/sys/kernel/osrelease", "6.5.0").file("/proc/sys/net/ipv6/conf/nic0/disable_ipv6", "0"),
            "nic_host_stack",
            Advice,
            "nic0.disable_ipv6=1",
        ),
        (
            "IPv6 of the host, which the switch drops",
            new().file("/proc/sys/kernel/osrelease", "6.6.0").file("/proc/sys/net/ipv6/conf/nic0/disable_ipv6", "0"),
            "nic_host_stack",
            Ok,
            "",
        ),
    ]);
}

#[test]
fn channels_of_devices() {
    use Level::*;
    let new = Machine::new;
    judge(vec![
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
