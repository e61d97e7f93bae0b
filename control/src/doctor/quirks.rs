//! Known faults of drivers beyond what the kernel reports of their devices.
//!
//! A row is about a driver and, if known, a range of kernels. Faults that the switch handles by itself (offloads, all
//! queues bound, a program on devices that only send) have no row. Sources: the issue trackers of the drivers and of
//! projects that use AF_XDP, named in each row.

use super::host::Version;

/// A known fault of a driver.
#[derive(Debug)]
pub(super) struct Quirk {
    pub(super) driver: &'static str,
    /// The first and last kernel with the fault; `None`: any.
    pub(super) kernels: Option<(Version, Version)>,
    /// The consequence.
    pub(super) what: &'static str,
    /// The remedy.
    pub(super) command: &'static str,
    /// The remedy on NixOS; `PORT` is the port.
    pub(super) nixos: Option<&'static str>,
    /// The source of the description.
    pub(super) source: &'static str,
}

const COPY: &str = "labsw-ctl port set PORT mode=copy";
const NIXOS_COPY: &str = "services.labsw.ports.PORT.mode = \"copy\"";
const LINK_RESETS: &str =
    "the link goes down for seconds when a program is attached or taken off: at the start of the switch";

pub(super) const QUIRKS: [Quirk; 10] = [
    Quirk {
        driver: "ice",
        kernels: Some(((6, 0), (7, 0))),
        what: "zero copy has crashed kernels, most of all when queues are closed under traffic",
        command: COPY,
        nixos: Some(NIXOS_COPY),
        source: "intel/ethernet-linux-ice 59, 61, 62",
    },
    Quirk {
        driver: "ice",
        kernels: None,
        what: LINK_RESETS,
        command: "restart the switch outside of measurements; apply configurations with labsw-ctl config apply",
        nixos: None,
        source: "driver source, XDP set-up",
    },
    Quirk {
        driver: "ixgbe",
        kernels: Some(((6, 14), (6, 18))),
        what: "with zero copy, frames may stay in the transmit ring until the program ends",
        command: COPY,
        nixos: Some(NIXOS_COPY),
        source: "xdp-project/xdp-tutorial 471",
    },
    Quirk {
        driver: "ixgbe",
        kernels: None,
        what: LINK_RESETS,
        command: "restart the switch outside of measurements; apply configurations with labsw-ctl config apply",
        nixos: None,
        source: "highpps/xdpcookie 5",
    },
    Quirk {
        driver: "igb",
        kernels: Some(((6, 14), (6, 14))),
        what: "in native mode the receive ring can fill up and stand still",
        command: "labsw-ctl port set PORT mode=skb",
        nixos: Some("services.labsw.ports.PORT.mode = \"skb\""),
        source: "xdp-project/xdp-tutorial 466",
    },
    Quirk {
        driver: "i40e",
        kernels: None,
        what: "VLAN tags are taken out of received frames unless that is switched off; the switch does, other tools may switch it on again",
        command: "ethtool -K DEVICE rxvlan off rx-vlan-filter off",
        nixos: None,
        source: "p4lang p4c-xdp 38",
    },
    Quirk {
        driver: "mlx5_core",
        kernels: None,
        what: "steers flows to all channels: with fewer channels than workers some workers get none",
        command: "labsw-ctl port set PORT queues=WORKERS",
        nixos: Some("services.labsw.ports.PORT.queues"),
        source: "VPP, AF_XDP documentation",
    },
    Quirk {
        driver: "ena",
        kernels: None,
        what: "takes an XDP program only with at most half of its channels in use",
        command: "labsw-ctl port set PORT queues=HALF",
        nixos: Some("services.labsw.ports.PORT.queues"),
        source: "aya-rs/aya 459",
    },
    Quirk {
        driver: "stmmac",
        kernels: None,
        what: "reception can stand still for good once the fill ring ran empty",
        command: COPY,
        nixos: Some(NIXOS_COPY),
        source: "analogdevicesinc/linux 3517",
    },
    Quirk {
        driver: "virtio_net",
        kernels: None,
        what: "native XDP needs receive offloads off and a free queue pair for each CPU, or it is slower or refused",
        command: "at the hypervisor: guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,mq=on, queues = 2 x CPUs",
        nixos: None,
        source: "driver source, XDP set-up",
    },
];

/// The known faults of `driver` with `kernel`; for an unknown version, all of them.
pub(super) fn known(driver: &str, kernel: Option<Version>) -> impl Iterator<Item = &'static Quirk> {
    let fits = move |quirk: &&Quirk| match (quirk.kernels, kernel) {
        (Some((first, last)), Some(kernel)) => (first..=last).contains(&kernel),
        _ => true,
    };
    let driver = driver.to_owned();
    QUIRKS.iter().filter(move |quirk| quirk.driver == driver).filter(fits)
}
