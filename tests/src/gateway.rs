//! The outside world behind port B: a namespace that plays the external gateway, with a VLAN interface `gwN` for each
//! VLAN N, the address 10.N.0.1/24 and a DHCP server handing out 10.N.0.100 to 10.N.0.150 (N up to 255).
//!
//! The 802.1Q work is done by `labsw-vlan-gateway`, because not every kernel has VLAN devices.

use std::path::Path;
use std::time::Duration;

use crate::netns::{Netns, wire};
use crate::process::{Process, wait_for};
use crate::switch::{Site, find_binary};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The namespace of the gateway; `g0` is its end of the trunk.
    pub ns: Netns,
    _processes: Vec<Process>,
}

impl Gateway {
    /// Makes a gateway for `vlans`, joined by a wire to the interface `port` that it makes in the switch's namespace.
    ///
    /// # Panics
    /// When a part of it does not start.
    pub fn start(site: &Site, port: &str, vlans: &[u8]) -> Self {
        let ns = Netns::new("gw");
        wire((&site.ns, port), (&ns, "g0"));
        let program = find_binary("labsw-vlan-gateway").unwrap_or_else(|e| panic!("{e}"));
        let mut splitter = ns.command(&program.to_string_lossy());
        splitter.args(["--parent", "g0"]);
        for vlan in vlans {
            splitter.arg("--vlan").arg(format!("{vlan}=gw{vlan}"));
        }
        let mut splitter = Process::spawn("labsw-vlan-gateway", &mut splitter);
        splitter.wait_for_text(0, "ready", START_TIMEOUT);
        for vlan in vlans {
            ns.address(&format!("gw{vlan}"), &format!("10.{vlan}.0.1/24"));
        }
        let dnsmasq = Self::dhcp_server(&ns, site.dir(), vlans);
        Self { ns, _processes: vec![dnsmasq, splitter] }
    }

    fn dhcp_server(ns: &Netns, dir: &Path, vlans: &[u8]) -> Process {
        let mut command = ns.command("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-"]);
        // Without the probe for a used address the answer comes at once.
        command.args(["--log-dhcp", "--no-ping", "--bind-interfaces", "--dhcp-authoritative"]);
        command.arg(format!("--dhcp-leasefile={}", dir.join("leases").display()));
        command.arg(format!("--pid-file={}", dir.join("dnsmasq.pid").display()));
        for vlan in vlans {
            command.arg(format!("--interface=gw{vlan}"));
            command.arg(format!("--dhcp-range=10.{vlan}.0.100,10.{vlan}.0.150,255.255.255.0,10m"));
        }
        let mut process = Process::spawn("dnsmasq", &mut command);
        wait_for("start of dnsmasq", START_TIMEOUT, || {
            assert!(process.is_running(), "dnsmasq ended:\n{}", process.log());
            process.log().contains("started").then_some(())
        });
        process
    }
}
