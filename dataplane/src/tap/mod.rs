//! TAP ports: the host's own interface on the lab, a container's interface, and interfaces of guests with other
//! hypervisors or emulated NICs.
//!
//! A TAP interface has two ends: a network interface of the host, and a descriptor of `/dev/net/tun` that a program
//! reads and writes. The user of the other end decides which one the switch has:
//!
//! | the other end is for | the switch has | the other end |
//! |---|---|---|
//! | the host or a container | the descriptors, one a queue | the interface: addresses, routes, sockets |
//! | a guest | the interface, through a packet socket | the descriptor: opened by QEMU and the like |
//!
//! Both are descriptors from which one system call takes a frame with a virtio-net header in front, so from
//! there on they are one driver. `crate::sys::isolate` keeps the host's stack off an interface that is a guest's.
//!
//! | file | content |
//! |---|---|
//! | `port` | the port: receive queues and the transmit side |
//! | `device` | system calls: make, open, receive, send |
//! | `handover` | the port in another process |
//! | `buffers` | the memory of received frames while they are lent |
//! | `vnet` | the virtio-net header |

mod buffers;
mod device;
mod handover;
mod port;
mod vnet;

pub use device::{TapError, make_persistent};
pub use handover::TapHandover;
pub use port::{TapPort, TapRx, TapTx, TapWatch};

/// Most queues of a port: what the kernel takes for one interface is 256 (`MAX_TAP_QUEUES`); the switch takes fewer.
pub const MAX_QUEUES: u16 = 64;
