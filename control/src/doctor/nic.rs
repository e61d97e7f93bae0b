//! Checks the devices of `af_xdp` ports: present, allowed, and their features; without such ports, the devices that
//! could be one.
//!
//! With a running switch the mode that the kernel granted counts, not the mode that the driver could have.

use super::host::{Nic, Version};
use super::kernel::MTU_ONE_BUFFER;
use super::quirks;
use super::{Finding, Host};
use crate::api::PortState;
use crate::config::{AfXdpConfig, PortConfig, PortKind, XdpMode};

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    host.facts.nics.iter().flat_map(|nic| device(host, nic)).collect()
}

fn device(host: &Host, nic: &Nic) -> Vec<Finding> {
    let port = nic.port.as_ref().and_then(|name| host.facts.config.port(name));
    let Some(link) = &nic.link else {
        let reason = nic.refused.as_deref().unwrap_or("it is not there");
        let summary = format!("port {} waits for its device", nic.port.as_deref().unwrap_or_default());
        let finding = Finding::advice("nic", summary, format!("{}: {reason}", nic.spec));
        let mended = finding
            .command("ip -br link; lspci -D | grep -i ethernet")
            .nixos("services.labsw.portA, services.labsw.portB");
        return vec![mended.about(&nic.spec)];
    };
    if let Some(reason) = &nic.refused {
        let finding = match port {
            Some(port) => {
                Finding::problem("nic", format!("port {} can't have this device", port.name), reason.as_str())
                    .command("give the port another `device`; ip -br link lists them")
                    .nixos("services.labsw.portA, services.labsw.portB, services.labsw.managementInterface")
            }
            None => Finding::ok("nic", "the host's own: never a port", reason.as_str()),
        };
        return vec![finding.about(&link.name)];
    }
    let mut findings = vec![mode(host, nic, port)];
    findings.extend(mtu(nic, port));
    findings.push(vlan(nic));
    findings.extend(channels(host, nic));
    findings.extend(host_stack(host, nic, port));
    findings.extend(driver(host, nic));
    findings.into_iter().map(|finding| finding.about(&link.name)).collect()
}

/// Checks the XDP mode: how frames get in and out of the driver.
fn mode(host: &Host, nic: &Nic, port: Option<&PortConfig>) -> Finding {
    const CHECK: &str = "nic_xdp_mode";
    if let Some(running) = port.and_then(|port| host.running(&port.name))
        && let (PortState::Up, Some(mode)) = (running.state, running.xdp_mode)
    {
        let reason = running.xdp_mode_reason.as_deref().unwrap_or("no reason given");
        let evidence = format!("labsw-ctl port show {}: xdp_mode {} ({reason})", running.name, mode.name());
        return match mode {
            XdpMode::ZeroCopy => Finding::ok(CHECK, "the NIC reads and writes packet memory itself", evidence),
            _ => Finding::advice(CHECK, format!("frames are copied ({})", mode.name()), evidence)
                .command("use a NIC whose driver has AF_XDP zero copy (ice, i40e, ixgbe, igc, mlx5)"),
        };
    }
    let Some(xdp) = nic.xdp else {
        let summary = "the driver's XDP modes are known once the port is opened";
        return Finding::advice(CHECK, summary, "netlink family netdev: nothing about this device")
            .command("use Linux 6.3 or newer")
            .nixos("boot.kernelPackages = pkgs.linuxPackages_latest");
    };
    let wanted = match port.map(|port| &port.kind) {
        Some(PortKind::AfXdp(AfXdpConfig { mode, .. })) => *mode,
        _ => XdpMode::Auto,
    };
    let yes_no = |yes| if yes { "yes" } else { "no" };
    let evidence = format!(
        "netlink netdev dev-get: native {}, zero copy {}, several buffers {}",
        yes_no(xdp.native),
        yes_no(xdp.zero_copy),
        yes_no(xdp.multi_buffer)
    );
    let refused = match wanted {
        XdpMode::ZeroCopy => !xdp.zero_copy,
        XdpMode::Copy => !xdp.native,
        XdpMode::Auto | XdpMode::Skb => false,
    };
    let (name, found) = (nic.port.as_deref().unwrap_or("PORT"), available(xdp.zero_copy, xdp.native));
    if refused {
        return Finding::problem(CHECK, format!("the mode asked for is not to be had, only {found}"), evidence)
            .command(format!("labsw-ctl port set {name} mode=auto"))
            .nixos(format!("services.labsw.ports.{name}.mode = \"auto\""));
    }
    if xdp.zero_copy {
        return Finding::ok(CHECK, "the driver has zero copy", evidence);
    }
    let summary = format!("the driver has no zero copy; frames are copied ({found})");
    Finding::advice(CHECK, summary, evidence)
        .command("use a NIC whose driver has AF_XDP zero copy (ice, i40e, ixgbe, igc, mlx5)")
}

fn available(zero_copy: bool, native: bool) -> &'static str {
    match (zero_copy, native) {
        (true, _) => "zero_copy, copy and skb",
        (false, true) => "copy and skb",
        (false, false) => "skb",
    }
}

fn mtu(nic: &Nic, port: Option<&PortConfig>) -> Option<Finding> {
    const CHECK: &str = "nic_mtu";
    let (port, link) = (port?, nic.link.as_ref()?);
    let most = link.max_mtu.map_or_else(|| "unknown".to_owned(), |most| most.to_string());
    let evidence = format!("mtu of the port {}, most of the device {most}", port.mtu);
    let lower = |finding: Finding, to: u32| {
        finding
            .command(format!("labsw-ctl port set {} mtu={to}", port.name))
            .nixos(format!("services.labsw.ports.{}.mtu = {to}", port.name))
    };
    Some(match (link.max_mtu, nic.xdp) {
        (Some(most), _) if most < port.mtu => {
            lower(Finding::problem(CHECK, "the device takes no frames that large", evidence), most)
        }
        (_, Some(xdp)) if xdp.native && !xdp.multi_buffer && driver_limit(nic).is_some_and(|most| most < port.mtu) => {
            let most = driver_limit(nic).unwrap_or(MTU_ONE_BUFFER);
            let summary = format!("the driver takes XDP programs up to an mtu of {most}; above, only skb mode works");
            lower(Finding::advice(CHECK, summary, evidence), most)
        }
        (_, Some(xdp)) if port.mtu > MTU_ONE_BUFFER && xdp.native && !xdp.multi_buffer => {
            let summary = "the driver takes no frames in several buffers; above 3498 only skb mode works";
            lower(Finding::advice(CHECK, summary, evidence), MTU_ONE_BUFFER)
        }
        _ => Finding::ok(CHECK, "the device takes frames of the port's mtu", evidence),
    })
}

/// The largest MTU, in bytes, with which a driver takes an XDP program for frames in one buffer, if it is less than a
/// page gives. From the drivers' sources, as ebpf-docs lists them for x86 with pages of 4 KiB.
const DRIVER_LIMITS: [(&str, u32); 10] = [
    ("i40e", 3046),
    ("ice", 3046),
    ("igb", 3046),
    ("ixgbe", 3050),
    ("ixgbevf", 3050),
    ("igc", 1500),
    ("stmmac", 1500),
    ("gve", 2032),
    ("atlantic", 2048),
    ("vmxnet3", 3494),
];

fn driver_limit(nic: &Nic) -> Option<u32> {
    let driver = nic.link.as_ref()?.driver.as_deref()?;
    DRIVER_LIMITS.iter().find(|(name, _)| *name == driver).map(|(_, most)| *most)
}

fn vlan(nic: &Nic) -> Finding {
    const CHECK: &str = "nic_vlan_tags";
    if nic.stuck_vlan.is_empty() {
        return Finding::ok(CHECK, "tags stay in received frames", "ethtool -k: no rx-vlan offload that is fixed on");
    }
    let evidence = format!("ethtool -k: {} on [fixed]", nic.stuck_vlan.join(", "));
    let summary = "the device takes VLAN tags out of received frames and can't be told not to; ports on it are refused";
    let finding = if nic.port.is_some() {
        Finding::problem(CHECK, summary, evidence)
    } else {
        Finding::advice(CHECK, summary, evidence)
    };
    finding.command("use another NIC; ethtool -k DEVICE | grep rx-vlan")
}

/// Checks drivers that need spare channels.
fn channels(host: &Host, nic: &Nic) -> Option<Finding> {
    const CHECK: &str = "nic_channels";
    let (now, most) = nic.channels?;
    let link = nic.link.as_ref()?;
    let (queues, limit) = (now.combined + now.rx, most.combined.max(most.rx));
    let evidence = format!("ethtool -l {}: {queues} of {limit}", link.name);
    let set = |finding: Finding, to: u32| {
        let name = nic.port.as_deref().unwrap_or("PORT");
        finding
            .command(format!("labsw-ctl port set {name} queues={to}"))
            .nixos(format!("services.labsw.ports.{name}.queues = {to}"))
    };
    let cpus = host.text("/sys/devices/system/cpu/online").map(|list| super::host::numbers(&list).len());
    Some(match (link.driver.as_deref(), cpus) {
        (Some("ena"), _) if queues > limit / 2 => {
            let summary = "ena takes an XDP program only with at most half of its channels in use";
            let finding = if nic.port.is_some() {
                Finding::problem(CHECK, summary, evidence)
            } else {
                Finding::advice(CHECK, summary, evidence)
            };
            set(finding, (limit / 2).max(1))
        }
        (Some("i40e"), Some(cpus)) if usize::try_from(queues).is_ok_and(|queues| queues < cpus) => {
            let summary = format!("i40e refuses sending from a CPU without a channel of its own ({cpus} CPUs)");
            set(Finding::advice(CHECK, summary, evidence), limit.min(u32::try_from(cpus).unwrap_or(limit)))
        }
        _ => Finding::ok(CHECK, format!("{queues} receive queues; all are bound"), evidence),
    })
}

/// The first kernel with the hook (tcx) at which the switch drops frames that the host sends through a port's device.
const HOST_KEPT_OFF_SINCE: Version = (6, 6);

/// Checks that the host's own stack can't send through a device that is a port.
fn host_stack(host: &Host, nic: &Nic, port: Option<&PortConfig>) -> Option<Finding> {
    const CHECK: &str = "nic_host_stack";
    let (_, link) = (port?, nic.link.as_ref()?);
    if host.kernel().is_some_and(|kernel| kernel >= HOST_KEPT_OFF_SINCE) {
        let summary = "while the switch has this device, frames that the host sends through it are dropped";
        return Some(Finding::ok(CHECK, summary, host.shown("/proc/sys/kernel/osrelease")));
    }
    let file = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.name);
    let evidence = host.shown(&file);
    Some(match host.number(&file) {
        Some(0) => Finding::advice(CHECK, "the host speaks IPv6 on this device: its frames get into the lab", evidence)
            .command(format!("sysctl -w net.ipv6.conf.{}.disable_ipv6=1", link.name))
            .nixos("services.labsw.portA, services.labsw.portB (keep networkd, dhcpcd and IPv6 off)"),
        _ => Finding::ok(CHECK, "the host does not speak IPv6 on this device", evidence),
    })
}

/// Reports the known faults of the driver.
fn driver(host: &Host, nic: &Nic) -> Vec<Finding> {
    let Some(link) = &nic.link else { return Vec::new() };
    let Some(driver) = &link.driver else { return Vec::new() };
    let mode = nic.port.as_deref().and_then(|port| host.running(port)).and_then(|port| port.xdp_mode);
    let fits = |quirk: &&quirks::Quirk| {
        // A fault of zero copy does not matter where zero copy is unused or unavailable.
        let about_zero_copy = quirk.what.contains("zero copy");
        let copies = mode.is_some_and(|mode| mode != XdpMode::ZeroCopy) || nic.xdp.is_some_and(|xdp| !xdp.zero_copy);
        !(about_zero_copy && copies)
    };
    let judge = |quirk: &quirks::Quirk| {
        let evidence = format!("driver {driver}, {}; {}", host.shown("/proc/sys/kernel/osrelease"), quirk.source);
        let named =
            |text: &str| text.replace("PORT", nic.port.as_deref().unwrap_or("PORT")).replace("DEVICE", &link.name);
        let finding = Finding::advice("nic_driver", format!("{driver}: {}", quirk.what), evidence);
        let finding = finding.command(named(quirk.command));
        match quirk.nixos {
            Some(option) => finding.nixos(named(option)),
            None => finding,
        }
    };
    quirks::known(driver, host.kernel()).filter(fits).map(judge).collect()
}
