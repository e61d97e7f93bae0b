//! NixVirt's domains and microvm.nix's machines. Neither has an option for everything: microvm.nix has none for
//! vhost-user devices, so the snippet passes options to QEMU.

use super::libvirt::TAP_MODEL;
use super::{Options, Plug, RING_SIZE, Socket, qemu, quote};

/// Attributes of a NixVirt domain.
pub(super) fn nixvirt(socket: &Socket<'_>) -> String {
    let Socket { port, mac, .. } = socket;
    match &socket.plug {
        Plug::Socket { path, switch_listens, queue_pairs } => {
            let path = quote::nix(path);
            let source = if *switch_listens {
                format!(
                    "{{ type = \"unix\"; path = {path}; mode = \"client\"; reconnect = {{ enabled = true; timeout = 1; }}; }}"
                )
            } else {
                format!("{{ type = \"unix\"; path = {path}; mode = \"server\"; }}")
            };
            let mtu = socket.unusual_mtu().map(|mtu| {
                format!("# NixVirt has no element for the MTU: set {mtu} in the guest (ip link set eth0 mtu {mtu}).\n")
            });
            format!(
                "# Port {port}: into the domain; the guest's memory has to be shared.\n{}{{\n  \
                 memoryBacking = {{ source.type = \"memfd\"; access.mode = \"shared\"; }};\n  \
                 devices.interface = [\n    {{\n      type = \"vhostuser\";\n      mac.address = \"{mac}\";\n      \
                 source = {source};\n      model.type = \"virtio\";\n      driver = {{\n        name = \"vhost\";\n        \
                 queues = {queue_pairs};\n        rx_queue_size = {RING_SIZE};\n        tx_queue_size = {RING_SIZE};\n      }};\n    \
                 }}\n  ];\n}}\n",
                mtu.unwrap_or_default()
            )
        }
        Plug::Tap { interface } | Plug::Veth { peer: interface } => {
            let interface = quote::nix(interface);
            format!(
                "# Port {port}: into the domain.\n{{\n  devices.interface = [\n    {{\n      type = \"ethernet\";\n      \
                 mac.address = \"{mac}\";\n      target = {{ dev = {interface}; managed = false; }};\n      \
                 model.type = \"{TAP_MODEL}\";\n    }}\n  ];\n}}\n"
            )
        }
    }
}

/// A module for a machine of microvm.nix that runs in QEMU.
pub(super) fn microvm(socket: &Socket<'_>, options: &Options) -> String {
    let Socket { port, .. } = socket;
    let words = |words: Vec<[String; 2]>| -> String {
        words.iter().map(|[option, value]| format!("    {} {}\n", quote::nix(option), quote::nix(value))).collect()
    };
    let device = words(qemu::device(socket, options));
    let memory = match socket.plug {
        // With shares, microvm.nix shares the memory itself.
        Plug::Socket { .. } => {
            "  ] ++ lib.optionals (config.microvm.shares == []) [\n    \"-numa\" \"node,memdev=mem\"\n    \
             \"-object\" \"memory-backend-memfd,id=mem,size=${toString config.microvm.mem}M,share=on\"\n"
        }
        _ => "",
    };
    format!(
        "# Port {port}: a module of the machine.\n{{ config, lib, ... }}:\n{{\n  microvm.hypervisor = \"qemu\";\n  \
         # The device is a PCI device.\n  microvm.qemu.machine = \"q35\";\n  \
         microvm.qemu.extraArgs = [\n{device}{memory}  ];\n}}\n"
    )
}
