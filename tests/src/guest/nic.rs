//! The network devices of guests, as options of QEMU.

use std::path::PathBuf;

use super::version;

/// One network device of a guest, virtio-net unless said otherwise. The defaults are QEMU's own, with QEMU as the
/// socket's client.
#[derive(Clone, Debug)]
pub struct Nic {
    /// The vhost-user socket.
    pub socket: PathBuf,
    /// The TAP interface, in place of the socket.
    pub tap: Option<String>,
    /// QEMU listens and the switch connects (its port has `role = "client"`).
    pub server: bool,
    /// The guest's MAC address.
    pub mac: String,
    /// Pairs of a receive and a transmit queue.
    pub queue_pairs: u16,
    /// Virtio 0.9: legacy header and ring layout, guest endian (virtio 1.2, 1.3.1).
    pub legacy: bool,
    /// `VIRTIO_NET_F_MRG_RXBUF` is offered.
    pub mergeable: bool,
    /// `VIRTIO_RING_F_INDIRECT_DESC` and `VIRTIO_RING_F_EVENT_IDX` are offered.
    pub indirect_and_event: bool,
    /// `VIRTIO_F_RING_PACKED` is offered (QEMU's own default is not to).
    pub packed: bool,
    /// `VIRTIO_NET_F_GUEST_ANNOUNCE` is offered.
    pub announce: bool,
    /// An emulated Intel NIC on a TAP interface; of what is above, only `tap` and `mac` apply.
    pub e1000e: bool,
    /// How long QEMU waits before it connects again, milliseconds (from QEMU 9.2 on; before, always a second).
    pub reconnect_ms: u32,
}

impl Nic {
    /// A device on `socket`, QEMU as client, with the MAC address `52:54:00:00:00:n`.
    pub fn new(socket: impl Into<PathBuf>, n: u8) -> Self {
        Self {
            socket: socket.into(),
            tap: None,
            server: false,
            mac: format!("52:54:00:00:00:{n:02x}"),
            queue_pairs: 1,
            legacy: false,
            mergeable: true,
            indirect_and_event: true,
            packed: false,
            announce: true,
            e1000e: false,
            reconnect_ms: 300,
        }
    }

    /// A device on the TAP interface `interface`, with the MAC address `52:54:00:00:00:n`.
    pub fn on_tap(interface: &str, n: u8) -> Self {
        Self { tap: Some(interface.to_owned()), ..Self::new("", n) }
    }

    /// An e1000e on the TAP interface `interface`, with the MAC address `52:54:00:00:00:n`.
    pub fn e1000e(interface: &str, n: u8) -> Self {
        Self { e1000e: true, ..Self::on_tap(interface, n) }
    }

    pub(super) fn qemu_args(&self, n: usize) -> Vec<String> {
        let role = if self.server { "server=on,wait=off".to_owned() } else { reconnect_option(self.reconnect_ms) };
        // QEMU's own back ends take no larger transmit ring.
        let tx_queue_size = if self.tap.is_some() { 256 } else { 1024 };
        let sizes = format!("rx_queue_size=1024,tx_queue_size={tx_queue_size}");
        let mut device = format!("virtio-net-pci,netdev=n{n},mac={},{sizes}", self.mac);
        if self.queue_pairs > 1 {
            device += &format!(",mq=on,vectors={}", 2 * self.queue_pairs + 2);
        }
        for (set, option) in [
            (self.legacy, ",disable-modern=on,disable-legacy=off"),
            (!self.mergeable, ",mrg_rxbuf=off"),
            (!self.indirect_and_event, ",indirect_desc=off,event_idx=off"),
            (self.packed, ",packed=on"),
            (!self.announce, ",guest_announce=off"),
        ] {
            if set {
                device += option;
            }
        }
        if self.e1000e {
            device = format!("e1000e,netdev=n{n},mac={}", self.mac);
        }
        if let Some(interface) = &self.tap {
            let netdev = format!("tap,id=n{n},ifname={interface},script=no,downscript=no");
            return ["-netdev", &netdev, "-device", &device].map(str::to_owned).to_vec();
        }
        let socket = self.socket.display();
        let args = [
            "-chardev",
            &format!("socket,id=c{n},path={socket},{role}"),
            "-netdev",
            &format!("vhost-user,id=n{n},chardev=c{n},vhostforce=on,queues={}", self.queue_pairs),
            "-device",
            &device,
        ];
        args.map(str::to_owned).to_vec()
    }
}

/// The chardev option that makes QEMU connect again, in the spelling of the installed version: since 9.2 in
/// milliseconds; the old one, in seconds, is gone in 10.
fn reconnect_option(milliseconds: u32) -> String {
    if version() >= (9, 2) { format!("reconnect-ms={milliseconds}") } else { "reconnect=1".to_owned() }
}
