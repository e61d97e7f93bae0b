//! The host that the switch runs on: its links, the changes made to them, packet memory, and the event loop.
//!
//! Ports open and close their attachments with these. Requests to the kernel about links may take long, so only the
//! [device thread](super::device_thread) has a host while the switch runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use labsw_dataplane::fast_path::FastPath;
use labsw_dataplane::virtio::memory_limit::MemoryLimit;
use labsw_dataplane::xdp::{self, PacketMemory, UmemError};

use crate::config::{Hugepages, SwitchConfig};
use crate::device::{DeviceError, Ledger, Links, OffloadNews};

/// Chunks (4 KiB each) of packet memory for all AF_XDP ports together: 64 MiB.
const UMEM_CHUNKS: u32 = 16_384;
/// Time after which a removed link that is still held is reported.
const HELD: Duration = Duration::from_secs(2);

/// The packet memory, once it is made.
pub(super) type Memory = Arc<OnceLock<Arc<PacketMemory>>>;

/// Work on the host that a part of the switch wants done, while others have that part.
pub(super) type HostWork<T> = Box<dyn FnOnce(&mut Host) -> T>;

/// The parts of the host that the switch uses.
pub(super) struct Host {
    pub(super) registry: mio::Registry,
    pub(super) links: Links,
    /// The changes made to devices.
    pub(super) ledger: Ledger,
    /// Shuts the gates of devices that remove tags.
    pub(super) offload_news: OffloadNews,
    /// The group that owns the guests' sockets.
    pub(super) socket_group: Option<u32>,
    /// The limit of guest memory that may be mapped.
    pub(super) guest_memory: Arc<MemoryLimit>,
    /// Memory that programs in the kernel read, too; `None`: every frame takes the way through the switch.
    pub(super) fast_path: Option<Arc<FastPath>>,
    hugepages: Hugepages,
    pub(super) memory: Memory,
    /// Removed links that are still held, as last reported.
    held_links: Vec<u32>,
}

impl Host {
    /// A host with nothing changed yet.
    pub(super) fn new(
        registry: mio::Registry,
        links: Links,
        ledger: Ledger,
        socket_group: Option<u32>,
        config: &SwitchConfig,
    ) -> Host {
        let guest_memory = Arc::new(MemoryLimit::of_machine(config.max_guest_memory));
        let hugepages = config.hugepages;
        Host {
            registry,
            links,
            ledger,
            offload_news: OffloadNews::default(),
            socket_group,
            guest_memory,
            fast_path: None,
            hugepages,
            memory: Memory::default(),
            held_links: Vec::new(),
        }
    }

    /// The packet memory, made at the first call.
    pub(super) fn packet_memory(&mut self) -> Result<Arc<PacketMemory>, UmemError> {
        if let Some(memory) = self.memory.get() {
            return Ok(Arc::clone(memory));
        }
        let hugepages = match self.hugepages {
            Hugepages::Auto => xdp::Hugepages::Auto,
            Hugepages::Required => xdp::Hugepages::Required,
            Hugepages::Off => xdp::Hugepages::Off,
        };
        let memory = Arc::new(PacketMemory::new(UMEM_CHUNKS, hugepages)?);
        tracing::info!(chunks = memory.umem.chunks(), backing = ?memory.umem.backing(), "packet memory");
        Ok(Arc::clone(self.memory.get_or_init(|| memory)))
    }

    /// Uses the packet memory of another process. For a host that has none yet.
    pub(super) fn adopt_memory(&mut self, memory: PacketMemory) {
        self.memory.get_or_init(|| Arc::new(memory));
    }

    /// Makes the packet memory now if it must consist of huge pages: there may be too few.
    pub(super) fn require_memory(&mut self) -> Result<(), UmemError> {
        if self.hugepages == Hugepages::Required { self.packet_memory().map(drop) } else { Ok(()) }
    }

    /// Puts a device back as it was before the switch changed it.
    pub(super) fn put_back(&mut self, index: u32) -> Result<(), DeviceError> {
        self.ledger.put_back(&mut self.links, index)
    }

    /// Logs, once for each, links that are removed and still held by another process.
    pub(super) fn report_held_links(&mut self) {
        let held = self.links.held(HELD);
        for index in held.iter().filter(|index| !self.held_links.contains(index)) {
            tracing::warn!(index, "a removed interface is still held, as by a container that keeps frames of it");
        }
        self.held_links = held;
    }
}
