//! libvirt's domain XML. `mode` of a vhost-user source is QEMU's role, not the switch's.

use super::{Plug, RING_SIZE, Socket, quote};

/// The model of the emulated NIC. For this model libvirt does not enable the header for offloads on the TAP interface,
/// whose frames have to be finished.
pub(super) const TAP_MODEL: &str = "e1000e";

/// Elements for `<domain>` and `<devices>`.
pub(super) fn text(socket: &Socket<'_>) -> String {
    let mac = socket.mac;
    let port = quote::xml_comment(socket.port);
    match &socket.plug {
        Plug::Socket { path, switch_listens, queue_pairs } => {
            let path = quote::xml(path);
            let source = if *switch_listens {
                format!(
                    "<source type='unix' path={path} mode='client'>\n    <reconnect enabled='yes' timeout='1'/>\n  </source>"
                )
            } else {
                format!("<source type='unix' path={path} mode='server'/>")
            };
            let mtu = socket.unusual_mtu().map(|mtu| format!("\n  <mtu size='{mtu}'/>")).unwrap_or_default();
            format!(
                "<!-- Port {port}: into <domain>; the guest's memory has to be shared. -->\n\
                 <memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n\
                 <!-- Port {port}: into <devices>. The user of QEMU must be able to open the socket: socket_group. -->\n\
                 <interface type='vhostuser'>\n  <mac address='{mac}'/>\n  {source}\n  <model type='virtio'/>\n  \
                 <driver name='vhost' queues='{queue_pairs}' rx_queue_size='{RING_SIZE}' tx_queue_size='{RING_SIZE}'/>{mtu}\n\
                 </interface>\n"
            )
        }
        Plug::Tap { interface } | Plug::Veth { peer: interface } => {
            let interface = quote::xml(interface);
            format!(
                "<!-- Port {port}: into <devices>. -->\n\
                 <interface type='ethernet'>\n  <mac address='{mac}'/>\n  <target dev={interface} managed='no'/>\n  \
                 <model type='{TAP_MODEL}'/>\n</interface>\n"
            )
        }
    }
}
