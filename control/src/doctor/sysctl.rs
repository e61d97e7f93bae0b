//! Checks settings of the host's network stack that break labs.
//!
//! The settings matter if the host itself is in the lab (`tap` ports with `for = "host"`), or bridges frames beside the
//! switch; otherwise they are reported without advice.
//!
//! Reference: kernel `Documentation/networking/ip-sysctl.rst`.

use super::{Finding, Host};
use crate::config::{PortKind, TapConfig, TapEnd};

const CONF4: &str = "/proc/sys/net/ipv4/conf";
const CONF6: &str = "/proc/sys/net/ipv6/conf";

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let taps: Vec<&str> = host.facts.config.ports.iter().filter_map(|port| host_tap(&port.kind)).collect();
    let mut findings: Vec<Finding> = ["iptables", "ip6tables", "arptables"].map(|table| bridged(host, table)).into();
    findings.push(forwarding(host, "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward", &taps));
    findings.push(forwarding(host, &format!("{CONF6}/all/forwarding"), "net.ipv6.conf.all.forwarding", &taps));
    findings.extend(taps.iter().filter_map(|tap| advertisements(host, tap)));
    findings.extend(taps.iter().filter_map(|tap| source_check(host, tap, taps.len())));
    findings
}

/// The interface of a port that the host itself uses.
fn host_tap(kind: &PortKind) -> Option<&str> {
    match kind {
        PortKind::Tap(TapConfig { interface, other_end: TapEnd::Host, .. }) => Some(interface),
        _ => None,
    }
}

fn bridged(host: &Host, table: &'static str) -> Finding {
    let name = format!("bridge-nf-call-{table}");
    let file = format!("/proc/sys/net/bridge/{name}");
    let evidence = host.shown(&file);
    let finding = match host.number(&file) {
        Some(0) | None => {
            Finding::ok("bridge_nf_call", "frames on the host's bridges are not handed to the firewall", evidence)
        }
        Some(_) => {
            let summary = format!(
                "frames on the host's bridges go through {table}; lab traffic beside the switch may vanish there"
            );
            Finding::advice("bridge_nf_call", summary, evidence)
                .command(format!("sysctl -w net.bridge.{name}=0"))
                .nixos(format!("services.labsw.host.sysctl.\"net.bridge.{name}\" = 0 (the module's default)"))
        }
    };
    finding.about(name)
}

fn forwarding(host: &Host, file: &str, name: &str, taps: &[&str]) -> Finding {
    let evidence = host.shown(file);
    let finding = match host.number(file) {
        Some(0) | None => Finding::ok("forwarding", "the host does not route between its interfaces", evidence),
        Some(_) if taps.is_empty() => {
            Finding::ok("forwarding", "the host routes between its interfaces, of which none is in the lab", evidence)
        }
        Some(_) => {
            let summary = format!("the host routes between the lab ({}) and its other networks", taps.join(", "));
            Finding::advice("forwarding", summary, evidence)
                .command(format!("sysctl -w {name}=0"))
                .nixos(format!("services.labsw.host.sysctl.\"{name}\" = 0"))
        }
    };
    finding.about(name)
}

/// Checks that a guest can't make itself the host's router.
fn advertisements(host: &Host, tap: &str) -> Option<Finding> {
    let file = |scope: &str, key: &str| format!("{CONF6}/{scope}/{key}");
    // An interface that does not exist yet gets the defaults.
    let scope = if host.is_there(&file(tap, "accept_ra")) { tap } else { "default" };
    let (accept, disable) = (file(scope, "accept_ra"), file(scope, "disable_ipv6"));
    let evidence = host.all_shown(&[&accept, &disable]);
    let taken = host.number(&accept)? != 0 && host.number(&disable) != Some(1);
    let finding = if taken {
        let summary = "a guest that sends router advertisements becomes a router of the host";
        Finding::advice("accept_ra", summary, evidence)
            .command(format!("sysctl -w net.ipv6.conf.{scope}.accept_ra=0"))
            .nixos(format!("services.labsw.host.sysctl.\"net.ipv6.conf.{scope}.accept_ra\" = 0"))
    } else {
        Finding::ok("accept_ra", "guests can't become routers of the host", evidence)
    };
    Some(finding.about(tap))
}

/// Checks source validation: with several interfaces in the lab, answers may leave by another interface than the one of
/// the request.
fn source_check(host: &Host, tap: &str, taps: usize) -> Option<Finding> {
    let scope = if host.is_there(&format!("{CONF4}/{tap}/rp_filter")) { tap } else { "default" };
    let (all, own) = (format!("{CONF4}/all/rp_filter"), format!("{CONF4}/{scope}/rp_filter"));
    let evidence = host.all_shown(&[&all, &own]);
    // The larger of the two settings counts.
    let strict = host.number(&all)?.max(host.number(&own)?) == 1;
    let finding = if strict && taps > 1 {
        let summary =
            "frames whose sender is routed by another interface are dropped, and the host has several in the lab";
        Finding::advice("rp_filter", summary, evidence)
            .command(format!("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{scope}.rp_filter=2"))
            .nixos("networking.firewall.checkReversePath = \"loose\"")
    } else {
        Finding::ok("rp_filter", "the check of senders does not get in the way", evidence)
    };
    Some(finding.about(tap))
}
