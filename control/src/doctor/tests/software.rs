//! The kernel, settings of its network stack, sockets, and programs.

use super::*;

#[test]
fn kernels() {
    use Level::*;
    let kernel = |release| Machine::new().file("/proc/sys/kernel/osrelease", release);
    let jumbo = LAB.replace("device = \"name:nic0\"", "device = \"name:nic0\"\nmtu = 9000");
    judge(vec![
        ("no link", kernel("5.8.9"), "kernel_xdp_link", Problem, "5.9"),
        ("a link", kernel("5.9.0-rc1"), "kernel_xdp_link", Ok, ""),
        ("jumbo on an old kernel", kernel("6.5.13").config(&jumbo), "kernel_xdp_multi_buffer", Problem, "6.6"),
        ("nothing jumbo", kernel("6.5.13"), "kernel_xdp_multi_buffer", Advice, "6.6"),
        ("jumbo", kernel("6.10.1").config(&jumbo), "kernel_xdp_multi_buffer", Ok, ""),
        ("a guest's TAP on an old kernel", kernel("6.1.0-21-amd64"), "kernel_tcx", Problem, "6.6"),
        ("no guest's TAP", kernel("6.1.0-21-amd64").config(""), "kernel_tcx", Advice, "6.6"),
        ("a guest's TAP on a new kernel", kernel("7.0.1"), "kernel_tcx", Ok, ""),
        ("a version nobody reads", kernel("next"), "kernel_tcx", Advice, ""),
        ("veth ports, before the fault", kernel("6.12.95+deb12"), "kernel_veth_stall", Ok, ""),
        ("veth ports, first with the fault", kernel("6.16"), "kernel_veth_stall", Problem, "6.17.10"),
        ("veth ports, last with the fault", kernel("6.17.9-arch1"), "kernel_veth_stall", Problem, "6.17.10"),
        ("veth ports, mended", kernel("6.17.10-arch1"), "kernel_veth_stall", Ok, ""),
        ("no veth port", kernel("6.17.9").config(""), "kernel_veth_stall", Advice, "6.17.10"),
        ("copy mode with the fault", kernel("6.16.12-1"), "kernel_xsk_copy", Problem, "6.18.1"),
        ("copy mode, mended", kernel("6.18.44"), "kernel_xsk_copy", Ok, ""),
        ("UDP segments, with the fault", kernel("7.0.2-6-pve"), "kernel_udp_segments", Problem, "7.0.14"),
        ("UDP segments, mended", kernel("7.0.14"), "kernel_udp_segments", Ok, ""),
    ]);
}

#[test]
fn what_a_kernel_is_built_with() {
    use Level::*;
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

const SOCKET: &str = "/run/labsw/vhost/dc01.sock";

#[test]
fn sockets_and_who_may_open_them() {
    use Level::*;
    let new = Machine::new;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // A user who is not the one that runs the test, in the group of its files or not.
    let guest = |mode, member: bool| {
        let members = if member { "libvirt-qemu" } else { "" };
        let machine = new().socket(SOCKET, mode).file("/etc/group", &format!("kvm:x:{gid}:{members}"));
        let machine = machine.file("/etc/passwd", &format!("libvirt-qemu:x:{}:{}::/:/bin/false", uid + 7, gid + 7));
        machine.mode("/run/labsw/vhost", 0o755).mode("/run/labsw", 0o755).mode("/run", 0o755)
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
    ]);
    let closed = guest(0o666, false).mode("/run/labsw", 0o700).mode("/run/labsw/vhost", 0o700);
    assert_eq!(closed.says("guest_access").command.as_deref(), Some("chmod o+x /run/labsw"), "the outermost first");
}

#[test]
fn the_switch_and_its_configuration() {
    use Level::*;
    let new = Machine::new;
    let failed = running("web", PortType::Veth, PortState::Failed);
    let guest_is_off =
        api::Port { socket: Some(SOCKET.into()), ..running("dc01", PortType::VhostUser, PortState::Waiting) };
    let denied = |facts: &mut Facts| {
        facts.switch = SwitchAnswer::Denied { socket: "/run/labsw/control.sock".into(), reason: "no".into() };
    };
    judge(vec![
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
