//! AF_XDP ports: frames of a network device received into and sent from the switch's own packet memory.
//!
//! Reading order: [`umem`] (packet memory and the owner of each chunk), `ring` (the four rings shared with the kernel),
//! `socket` (one queue of one device; `statistics`: the kernel's counters there), `program` (the XDP program in front),
//! `open` (a port's sockets, set up on the device thread; `device` and `foreign` ask the kernel for it), `rx` and `tx`
//! (the halves that workers drive), [`port`] (the opened port), `core` (the state that the halves share), `closing`
//! (the end of a port) and `handover` (a port that goes on in another process).
//!
//! Limits: a frame in one chunk has up to 3840 bytes, a larger one is in up to 18 of them where kernel and driver can.

mod closing;
mod core;
mod device;
mod foreign;
mod gate;
mod handover;
mod open;
pub mod port;
mod program;
mod ring;
mod rx;
mod socket;
mod statistics;
mod tx;
pub mod umem;

pub use self::core::FillDepth;
pub use foreign::attached as attached_program;
pub use gate::Gate;
pub use handover::XdpHandover;
pub use open::{BusyPoll, ONE_CHUNK_MTU, Queues, XdpConfig, XdpError, XdpMode, XdpStatus};
pub use port::XdpPort;
pub use rx::XdpRx;
pub use statistics::{Statistics, XdpCounters};
pub use tx::XdpTx;
pub use umem::{Backing, FramePool, Hugepages, MemoryHandover, PacketMemory, PoolPorts, PoolState, Umem, UmemError};
