//! The reference back end: a network device on the `vhost-user-backend` crate that echoes what its guest sends.
//!
//! It says that it offers what our ports offer, so that a front end cannot tell the two apart by that. Packed and
//! in-order rings, which `virtio-queue` does not have, are then not asked for.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::panic, reason = "a test back end")]

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use labsw_dataplane::virtio::features::{F_IN_ORDER, F_RING_PACKED};
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use labsw_testkit::frontend::{Front, PROTOCOL, socket_path};
use labsw_testkit::guest::{EVENT_IDX, INDIRECT, MOVES, MRG_RXBUF, MTU, VERSION_1};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
/// Frames, byte for byte.
pub type Frames = Vec<Vec<u8>>;

/// The device on the reference's side.
struct Echo {
    memory: Memory,
    header_bytes: usize,
    taken: Arc<Mutex<Frames>>,
}

/// CSUM and TSO for IPv4, IPv6 and ECN, each way: nobody here acknowledges them.
const OFFLOADS: u64 = 0x3b83 | 7 << 54;

impl VhostUserBackendMut for Echo {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        VERSION_1 | MRG_RXBUF | INDIRECT | EVENT_IDX | PROTOCOL | F_RING_PACKED | F_IN_ORDER | MTU | MOVES | OFFLOADS
    }

    fn acked_features(&mut self, features: u64) {
        self.header_bytes = if features & VERSION_1 != 0 { 12 } else { 10 };
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        use VhostUserProtocolFeatures as Protocol;
        Protocol::MQ
            | Protocol::REPLY_ACK
            | Protocol::MTU
            | Protocol::CONFIGURE_MEM_SLOTS
            | Protocol::LOG_SHMFD
            | Protocol::RARP
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn update_memory(&mut self, memory: Memory) -> std::io::Result<()> {
        self.memory = memory;
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(&mut self, ring: u16, _: EventSet, rings: &[VringRwLock], _: usize) -> std::io::Result<()> {
        let [receive, transmit] = rings else { panic!("two rings") };
        // Buffers in the receive ring alone are nothing to do.
        if ring != 1 {
            return Ok(());
        }
        loop {
            transmit.disable_notification().unwrap();
            self.echo(receive, transmit);
            for ring in rings {
                if ring.needs_notification().unwrap() {
                    ring.signal_used_queue().unwrap();
                }
            }
            if !transmit.enable_notification().unwrap() {
                return Ok(());
            }
        }
    }
}

impl Echo {
    /// Takes all there is in the transmit ring and puts each frame into one chain of the receive ring.
    fn echo(&mut self, receive: &VringRwLock, transmit: &VringRwLock) {
        let memory = self.memory.memory();
        let pop = |ring: &VringRwLock| ring.get_mut().get_queue_mut().pop_descriptor_chain(memory.clone());
        while let Some(chain) = pop(transmit) {
            let head = chain.head_index();
            let mut packet = Vec::new();
            for descriptor in chain.readable() {
                let mut part = vec![0; descriptor.len() as usize];
                memory.read_slice(&mut part, descriptor.addr()).unwrap();
                packet.extend(part);
            }
            self.taken.lock().unwrap().push(packet[self.header_bytes..].to_vec());
            // A buffer each: num_buffers, the last field of the longer header, is 1.
            packet[..self.header_bytes].fill(0);
            if self.header_bytes == 12 {
                packet[10] = 1;
            }
            let space = pop(receive).unwrap();
            let space_head = space.head_index();
            let mut rest = packet.as_slice();
            for descriptor in space.writable() {
                let (part, behind) = rest.split_at(rest.len().min(descriptor.len() as usize));
                memory.write_slice(part, descriptor.addr()).unwrap();
                rest = behind;
            }
            receive.add_used(space_head, packet.len() as u32).unwrap();
            transmit.add_used(head, 0).unwrap();
        }
    }
}

/// A daemon per connection, as its users have it.
pub struct Reference {
    listener: Listener,
    path: PathBuf,
    daemon: Option<VhostUserDaemon<Arc<Mutex<Echo>>>>,
    taken: Arc<Mutex<Frames>>,
}

impl Reference {
    /// Listens on a socket of that name.
    pub fn new(name: &str) -> Reference {
        let path = socket_path(name);
        let listener = Listener::new(&path, true).unwrap();
        Reference { listener, path, daemon: None, taken: Arc::default() }
    }

    /// Connects; served at once.
    pub fn connect(&mut self) -> Front {
        let front = Front(UnixStream::connect(&self.path).unwrap());
        front.0.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let echo = Echo { memory: memory.clone(), header_bytes: 10, taken: Arc::clone(&self.taken) };
        let mut daemon = VhostUserDaemon::new("reference".to_owned(), Arc::new(Mutex::new(echo)), memory).unwrap();
        daemon.start(&mut self.listener).unwrap();
        self.daemon = Some(daemon);
        front
    }

    /// Waits until the daemon has ended after a hang-up, with an error of no interest.
    pub fn rest(&mut self) {
        drop(self.daemon.take().unwrap().wait());
    }

    /// The frames taken since the last time.
    pub fn take(&mut self) -> Frames {
        std::mem::take(&mut self.taken.lock().unwrap())
    }
}
