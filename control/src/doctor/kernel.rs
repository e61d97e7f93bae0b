//! Checks the kernel: features that can be probed, and features known by version.
//!
//! | from | feature |
//! |---|---|
//! | 5.9 | XDP programs attached by a link, which ends with its process |
//! | 6.3 | the kernel reports the XDP features of a device |
//! | 6.6 | frames in several buffers (jumbo) through AF_XDP; tcx |
//!
//! Releases with a known fault that hits ports of the switch are reported as well.

use super::host::{Probe, Version};
use super::{Finding, Host, Level};
use crate::config::{PortKind, TapConfig, TapEnd};

/// Above this MTU a frame is in several buffers.
pub(super) const MTU_ONE_BUFFER: u32 = 3498;

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let xdp_ports = host.has_packet_memory();
    let jumbo = host.facts.config.ports.iter().any(|port| port.mtu > MTU_ONE_BUFFER);
    let guest_taps =
        !host.ports(|kind| matches!(kind, PortKind::Tap(TapConfig { other_end: TapEnd::Guest, .. }))).is_empty();
    let vhost_ports = !host.ports(|kind| matches!(kind, PortKind::VhostUser(_))).is_empty();
    vec![
        probed(
            "kernel_af_xdp",
            &host.facts.af_xdp,
            xdp_ports,
            ["socket(AF_XDP)", "af_xdp and veth ports", "CONFIG_XDP_SOCKETS"],
        ),
        since(host, "kernel_xdp_link", (5, 9), xdp_ports, "XDP programs that end with the switch (af_xdp, veth ports)"),
        since(host, "kernel_xdp_features", (6, 3), false, "the kernel says which XDP modes a device has"),
        since(host, "kernel_xdp_multi_buffer", (6, 6), jumbo, "an mtu above 3498 at af_xdp and veth ports"),
        since(host, "kernel_tcx", (6, 6), guest_taps, "tap ports for guests (tcx keeps the host's stack off them)"),
        probed(
            "kernel_memfd",
            &host.facts.memfd,
            vhost_ports,
            ["memfd_create()", "guests that share their memory (vhost_user ports)", "CONFIG_MEMFD_CREATE"],
        ),
        fault(host, &VETH_STALL, !host.ports(|kind| matches!(kind, PortKind::Veth(_))).is_empty()),
        fault(host, &COPY_PANIC, xdp_ports),
        fault(host, &UDP_SEGMENTS, !host.ports(|kind| matches!(kind, PortKind::Tap(_))).is_empty()),
        jit(host, xdp_ports),
        tun(host),
        veth(host),
    ]
}

/// The level of a missing feature: a problem if the configuration needs it.
fn missing(asked_for: bool) -> Level {
    if asked_for { Level::Problem } else { Level::Advice }
}

fn probed(check: &'static str, probe: &Probe, asked_for: bool, [call, what, option]: [&str; 3]) -> Finding {
    match probe {
        Probe::Yes => Finding::ok(check, format!("there: {what}"), format!("{call}: done")),
        Probe::Denied(reason) => {
            let summary = "can't be known without CAP_NET_RAW";
            Finding::advice(check, summary, format!("{call}: {reason}")).command("sudo labsw-ctl doctor")
        }
        Probe::No(reason) => {
            let summary = format!("this kernel was built without {option}, needed for {what}");
            Finding::new(missing(asked_for), check, summary, format!("{call}: {reason}"))
                .command(format!("use a kernel with {option}=y"))
                .nixos("boot.kernelPackages = pkgs.linuxPackages_latest")
        }
    }
}

fn since(host: &Host, check: &'static str, (major, minor): Version, asked_for: bool, what: &str) -> Finding {
    let evidence = host.shown("/proc/sys/kernel/osrelease");
    match host.kernel() {
        Some(kernel) if kernel >= (major, minor) => Finding::ok(check, format!("there: {what}"), evidence),
        Some(_) => {
            let summary = format!("needs Linux {major}.{minor}: {what}");
            Finding::new(missing(asked_for), check, summary, evidence)
                .command(format!("use Linux {major}.{minor} or newer"))
                .nixos("boot.kernelPackages = pkgs.linuxPackages_latest")
        }
        None => Finding::advice(
            check,
            format!("the kernel's version can't be read; {major}.{minor} is needed: {what}"),
            evidence,
        ),
    }
}

/// A fault of some kernel releases, which distributions may have fixed in theirs.
struct KernelFault {
    check: &'static str,
    /// Releases with the fault, both included.
    releases: ((u32, u32, u32), (u32, u32, u32)),
    /// The consequence for the ports that the fault hits.
    consequence: &'static str,
    cure: &'static str,
    source: &'static str,
}

const VETH_STALL: KernelFault = KernelFault {
    check: "kernel_veth_stall",
    releases: ((6, 16, 0), (6, 17, 9)),
    consequence: "a transmit queue of a container behind a veth port can stop for good",
    cure: "use Linux 6.17.10 or newer, or 6.12; or a tap port with for = \"container\"",
    source: "CVE-2025-68232",
};

const COPY_PANIC: KernelFault = KernelFault {
    check: "kernel_xsk_copy",
    releases: ((6, 16, 10), (6, 18, 0)),
    consequence: "sending through AF_XDP without zero copy (veth ports, many NICs) can crash the host",
    cure: "use a kernel with \"xsk: avoid data corruption on cq descriptor number\": 6.18.1 or newer, or 6.12",
    source: "Linux commits 30f241fcf52a, 0ebc27a4c67d",
};

const UDP_SEGMENTS: KernelFault = KernelFault {
    check: "kernel_udp_segments",
    releases: ((7, 0, 0), (7, 0, 13)),
    consequence: "UDP that a guest leaves uncut (QUIC, WireGuard) can reach the host or a container broken at tap ports",
    cure: "use Linux 7.0.14 or newer, or 6.18; or offloads = false at the guests' ports",
    source: "Linux commits b10b446, 78effd8, 5f17ae0",
};

fn fault(host: &Host, fault: &KernelFault, is_concerned: bool) -> Finding {
    let KernelFault { check, releases: (first, last), consequence, cure, source } = fault;
    let evidence = format!("{}; {source}", host.shown("/proc/sys/kernel/osrelease"));
    match host.kernel_release() {
        Some(release) if (*first..=*last).contains(&release) => {
            let level = if is_concerned { Level::Problem } else { Level::Advice };
            let summary = format!("{consequence}, unless the distribution has mended its kernel");
            Finding::new(level, check, summary, evidence)
                .command(*cure)
                .nixos("boot.kernelPackages = pkgs.linuxPackages_latest")
        }
        _ => Finding::ok(check, "this kernel's release is not known for the fault", evidence),
    }
}

fn jit(host: &Host, asked_for: bool) -> Finding {
    let file = "/proc/sys/net/core/bpf_jit_enable";
    let evidence = host.shown(file);
    match host.number(file) {
        Some(0) if asked_for => {
            Finding::advice("kernel_bpf_jit", "XDP programs are interpreted, not compiled", evidence)
                .command("sysctl -w net.core.bpf_jit_enable=1")
                .nixos("boot.kernel.sysctl.\"net.core.bpf_jit_enable\" = 1")
        }
        _ => Finding::ok("kernel_bpf_jit", "XDP programs are compiled, or there are none", evidence),
    }
}

fn tun(host: &Host) -> Finding {
    let asked_for = !host.ports(|kind| matches!(kind, PortKind::Tap(_))).is_empty();
    if host.is_there("/dev/net/tun") {
        return Finding::ok("kernel_tun", "there: tap ports", "/dev/net/tun: there");
    }
    Finding::new(
        missing(asked_for),
        "kernel_tun",
        "no TAP interfaces: tap ports can't be opened",
        "/dev/net/tun: not there",
    )
    .command("modprobe tun")
    .nixos("services.labsw.host.kernelModules = [ \"tun\" \"veth\" ]")
}

/// Only making a pair would prove that the kernel has veth, so its code is looked for in the kernel, and among its
/// modules.
fn veth(host: &Host) -> Finding {
    const CHECK: &str = "kernel_veth";
    let has_word = |text: &str| text.lines().any(|line| line.split_whitespace().any(|word| word == "veth_setup"));
    if host.text("/proc/kallsyms").is_some_and(|symbols| has_word(&symbols)) {
        return Finding::ok(CHECK, "there: veth ports", "/proc/kallsyms: veth_setup");
    }
    let release = host.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    // NixOS keeps the modules of the running system elsewhere.
    let directories =
        [format!("/lib/modules/{release}"), format!("/run/booted-system/kernel-modules/lib/modules/{release}")];
    for directory in directories {
        for list in ["modules.dep", "modules.builtin"] {
            let file = format!("{directory}/{list}");
            let line =
                host.text(&file).and_then(|text| Some(text.lines().find(|line| line.contains("/veth.ko"))?.to_owned()));
            if let Some(line) = line {
                let name = line.split(':').next().unwrap_or_default();
                return Finding::ok(CHECK, "there: veth ports", format!("{file}: {name}"));
            }
        }
    }
    let asked_for = !host.ports(|kind| matches!(kind, PortKind::Veth(_))).is_empty();
    let evidence = format!("/proc/kallsyms: no veth_setup; /lib/modules/{release}: no veth");
    Finding::new(missing(asked_for), CHECK, "no veth: containers can't be attached", evidence)
        .command("modprobe veth")
        .nixos("services.labsw.host.kernelModules = [ \"tun\" \"veth\" ]")
}
