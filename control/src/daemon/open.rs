//! Opening a port: the guest's socket or the network device, checked first, and nothing left of it on an error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use labsw_dataplane::handle::{Homes, WorkerError};
use labsw_dataplane::port::{RxQueue, TxPort};
use labsw_dataplane::socket::{SocketAccess, SocketError};
use labsw_dataplane::vhost::{Endpoint, EndpointConfig, Role, Timing, VhostPort};
use labsw_dataplane::xdp::{
    self, FillDepth, PacketMemory, Statistics, UmemError, XdpConfig, XdpCounters, XdpError, XdpPort, XdpStatus,
};
use labsw_switch::PortId;
use mio::Token;

use super::accounts::{group_id, user_id};
use super::devices::Absence;
use super::placement::Queues;
use super::tap::{self, Tap};
use super::{FIRST_PORT, Switch, UnknownAccount};
use crate::config::{
    self, AfXdpConfig, DeviceSpec, Hugepages, PortConfig, PortKind, SwitchConfig, VethConfig, VhostRole,
    VhostUserConfig, XdpMode, default_interface,
};
use crate::device::{DeviceError, Ledger, Link, Links, Netns, Promiscuous, VethPair, VethPlan, prepare};

/// Chunks (4 KiB each) of packet memory for all AF_XDP ports together: 64 MiB.
const UMEM_CHUNKS: u32 = 16_384;

/// Why a port can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device that the port names is not there.
    #[error("{device} is awaited: {why}")]
    NoDevice {
        /// What is looked for.
        device: DeviceSpec,
        /// What is known of it.
        why: String,
    },
    /// The device is one that is never opened.
    #[error("{0}; use another device")]
    Protected(String),
    /// The interface of a TAP port is something else.
    #[error("interface {0} exists and is no TAP interface; name another for this port")]
    NotATap(String),
    /// The interface of a TAP port, which somebody else made, has gone.
    #[error("{0} was removed")]
    Removed(String),
    /// The interface of a guest's TAP port belongs to a bridge.
    #[error("interface {0} belongs to a bridge; take it out (ip link set {0} nomaster), or name another")]
    Bridged(String),
    /// The directory of a socket can't be made.
    #[error("directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The event loop takes no more sockets.
    #[error("event loop: {0}")]
    EventLoop(#[source] io::Error),
    /// A device can't be found, made or changed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// AF_XDP is not possible on the device.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// There is no packet memory.
    #[error(transparent)]
    Umem(#[from] UmemError),
    /// The guest's socket can't be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// There is no such user or group.
    #[error(transparent)]
    Account(#[from] UnknownAccount),
    /// A worker does not answer.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl OpenError {
    /// Whether what the port needs is not there, and may come.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            OpenError::NoDevice { .. }
                | OpenError::Device(DeviceError::NoNetns(_))
                | OpenError::Xdp(XdpError::NoInterface { .. })
        )
    }
}

/// What a port is attached to.
pub(super) enum Attachment {
    /// A guest's socket.
    Guest(Box<Endpoint>),
    /// A network device.
    Device(Box<Device>),
    /// Nothing: its device is not there (yet, or any more).
    Absent(Absence),
    /// A TAP interface.
    Tap(Box<Tap>),
}

/// A port that was opened, not known to the workers yet.
pub(super) struct Opened {
    pub(super) attachment: Attachment,
    /// `None` if there is nothing to send to.
    pub(super) tx: Option<Arc<dyn TxPort>>,
    pub(super) queues: Queues,
}

/// The halves of a port that no worker has any more. Dropped, they are closed.
#[derive(Default)]
pub(super) struct Halves {
    pub(super) tx: Option<Arc<dyn TxPort>>,
    pub(super) rx: Vec<Box<dyn RxQueue>>,
}

impl Halves {
    /// Closes them.
    pub(super) fn close(self) {
        let Halves { tx, rx } = self;
        drop(rx);
        drop(tx);
    }
}

/// The halves of an AF_XDP port, and what was done for it.
struct OpenedDevice {
    device: Device,
    tx: Arc<dyn TxPort>,
    rx: Vec<Box<dyn RxQueue>>,
}

/// A network device in use.
pub(super) struct Device {
    /// The number by which faults of the port are known.
    pub(super) connection: u64,
    pub(super) link: Link,
    pub(super) status: XdpStatus,
    /// What the kernel knows of each socket.
    pub(super) statistics: Vec<Statistics>,
    /// Whether its queues were left to a port that polls, or why that failed.
    pub(super) interrupts_deferred: Result<bool, String>,
    pub(super) veth: Option<Veth>,
    /// How much its fill rings may hold.
    pub(super) depth: FillDepth,
    /// The device is promiscuous while this lives.
    promiscuous: Promiscuous,
}

/// The pair of a veth port.
pub(super) struct Veth {
    pub(super) pair: VethPair,
    pub(super) plan: VethPlan,
    /// The container's end was in another namespace when last looked for.
    pub(super) peer_away: bool,
}

impl Device {
    /// What the kernel counted since the device was opened.
    pub(super) fn kernel_counters(&self) -> XdpCounters {
        let mut sum = XdpCounters::default();
        self.statistics.iter().for_each(|socket| sum += socket.read());
        sum
    }

    /// Closes the halves of the port and puts the device back as it was, or removes it if it was made for the port: then
    /// before the sockets are closed, see [`VethPair::remove`].
    pub(super) fn close(self, halves: Halves, links: &mut Links, ledger: &mut Ledger) -> Result<(), DeviceError> {
        match &self.veth {
            Some(veth) => {
                let outcome = remove_pair(veth, links, ledger);
                halves.close();
                outcome
            }
            None => {
                halves.close();
                drop(self.promiscuous);
                ledger.put_back(links, self.link.index)
            }
        }
    }
}

/// Removes the pair of a port. One that can't be removed stays in the ledger.
fn remove_pair(veth: &Veth, links: &mut Links, ledger: &mut Ledger) -> Result<(), DeviceError> {
    veth.pair.remove(links)?;
    ledger.pair_gone(&veth.plan.interface);
    Ok(())
}

/// Undoes what was done to a device that could not be opened. The pair of a killed run stays: its sockets may hold it, and
/// while they do nobody can open it. The ledger has it, and whoever opens the port next takes it over again.
fn give_up(veth: Option<&Veth>, link: &Link, links: &mut Links, ledger: &mut Ledger) -> Result<(), DeviceError> {
    match veth {
        Some(veth) if veth.pair.taken_over => Ok(()),
        Some(veth) => remove_pair(veth, links, ledger),
        None => ledger.put_back(links, link.index),
    }
}

/// Looks, without touching anything, whether a port can be opened on this machine. The error is the key of the port's
/// table that it is about, and the reason; one that [is an absence](OpenError::is_absence) is none to refuse the port for.
pub(super) fn preflight(
    port: &PortConfig,
    switch: &SwitchConfig,
    links: &mut Links,
) -> Result<(), (&'static str, OpenError)> {
    match &port.kind {
        PortKind::AfXdp(AfXdpConfig { device, .. }) => {
            let link = find_device(device, switch, links).map_err(|error| ("device", error))?;
            prepare::check_mtu(&link, port.mtu).map_err(|error| ("mtu", error.into()))
        }
        PortKind::Veth(VethConfig { netns: Some(netns), .. }) => {
            Netns::open(netns).map(drop).map_err(|error| ("netns", error.into()))
        }
        PortKind::Tap(_) => tap::preflight(port, switch, links),
        PortKind::VhostUser(VhostUserConfig { owner, group, .. }) => {
            owner.as_deref().map(user_id).transpose().map_err(|error| ("owner", error.into()))?;
            group.as_deref().map(group_id).transpose().map_err(|error| ("group", error.into()))?;
            Ok(())
        }
        PortKind::Veth(VethConfig { netns: None, .. }) => Ok(()),
    }
}

/// The link that a port names, if it is there and may be opened.
fn find_device(device: &DeviceSpec, switch: &SwitchConfig, links: &mut Links) -> Result<Link, OpenError> {
    let absent = || OpenError::NoDevice { device: device.clone(), why: Links::absence(device) };
    let link = links.resolve(device)?.ok_or_else(absent)?;
    match links.protection(&link, &switch.protected_interfaces)? {
        Some(reason) => Err(OpenError::Protected(reason)),
        None => Ok(link),
    }
}

impl Switch {
    /// Opens what the port is attached to. On an error nothing is left of it.
    pub(super) fn open(&mut self, id: PortId, config: &PortConfig) -> Result<Opened, OpenError> {
        match &config.kind {
            PortKind::VhostUser(guest) => {
                let path = guest.socket.clone().unwrap_or_else(|| self.config.default_socket(&config.name));
                // Our own directory is there for whoever listens in it.
                if guest.role == VhostRole::Server || guest.socket.is_none() {
                    make_parent(&path)?;
                }
                self.open_guest(id, config, path, guest)
            }
            PortKind::AfXdp(AfXdpConfig { device, mode, queues, busy_poll }) => {
                let link = find_device(device, &self.config, &mut self.links)?;
                let xdp = XdpConfig { busy_poll: *busy_poll, ..xdp_config(id, &link, *mode, *queues, config.mtu) };
                Ok(self.open_device(link, xdp, None)?.into())
            }
            PortKind::Tap(_) => self.open_tap(config),
            PortKind::Veth(VethConfig { peer, interface, netns, peer_name, queues, mac }) => {
                let plan = VethPlan {
                    port: config.name.clone(),
                    interface: interface.clone().unwrap_or_else(|| default_interface(&config.name)),
                    peer: peer.clone(),
                    netns: netns.clone(),
                    peer_name: peer_name.clone(),
                    mtu: config.mtu,
                    queues: (*queues).into(),
                    mac: *mac,
                };
                if let Some(netns) = netns {
                    Netns::open(netns)?;
                }
                let pair = self.prepare_pair(&plan)?;
                let link = pair.switch_end.clone();
                let xdp = xdp_config(id, &link, XdpMode::Auto, config::Queues::All, config.mtu);
                let peer_away = link.lower_is_elsewhere;
                Ok(self.open_device(link, xdp, Some(Veth { pair, plan, peer_away }))?.into())
            }
        }
    }

    /// The pair, made, or taken over from a killed run; what such a run left and does not fit is made anew.
    fn prepare_pair(&mut self, plan: &VethPlan) -> Result<VethPair, DeviceError> {
        let Switch { links, ledger, .. } = self;
        if links.link_by_name(&plan.interface)?.is_none() {
            ledger.note_pair(&plan.interface);
        }
        let prepared = match VethPair::prepare(links, plan) {
            Err(error) => match ledger.delete_inherited_pair(links, &plan.interface) {
                Ok(true) => VethPair::prepare(links, plan),
                _ => Err(error),
            },
            prepared => prepared,
        };
        match &prepared {
            Ok(pair) => ledger.pair_is(&pair.switch_end),
            Err(_) => ledger.pair_gone(&plan.interface),
        }
        prepared
    }

    fn open_guest(
        &mut self,
        id: PortId,
        config: &PortConfig,
        path: PathBuf,
        guest: &VhostUserConfig,
    ) -> Result<Opened, OpenError> {
        let VhostPort { tx, rx } = VhostPort::new(guest.queue_pairs);
        // Where the queues are is known once they are placed.
        let homes = Homes::new(rx.iter().map(|_| 0));
        let endpoint = EndpointConfig {
            port_name: config.name.clone(),
            path,
            role: match guest.role {
                VhostRole::Server => Role::Server,
                VhostRole::Client => Role::Client,
            },
            access: SocketAccess {
                mode: guest.mode.unwrap_or(self.config.socket_mode),
                owner: guest.owner.as_deref().map(user_id).transpose()?,
                group: guest.group.as_deref().map(group_id).transpose()?.or(self.socket_group),
            },
            peer_uid: guest.peer_uid,
            queue_pairs: guest.queue_pairs,
            offloads: guest.offloads,
            mtu: config.mtu,
            timing: Timing::default(),
            memory_limit: Arc::clone(&self.guest_memory),
        };
        let [listener, connection] = port_tokens(id);
        let rings = self.workers.links().rings(id, Arc::clone(&tx), homes.clone());
        let mut endpoint = Endpoint::open(endpoint, Box::new(rings)).map_err(|error| error.source)?;
        endpoint.register(&self.registry, listener, connection).map_err(OpenError::EventLoop)?;
        let rx = rx.into_iter().map(|rx| -> Box<dyn RxQueue> { Box::new(rx) }).collect();
        Ok(Opened { attachment: Attachment::Guest(Box::new(endpoint)), tx: Some(tx), queues: Queues::new(rx, homes) })
    }

    fn open_device(&mut self, link: Link, xdp: XdpConfig, veth: Option<Veth>) -> Result<OpenedDevice, OpenError> {
        match self.open_xdp(&link, xdp, veth.is_some()) {
            Ok((port, promiscuous)) => {
                let (connection, status, statistics) = (port.connection(), port.status().clone(), port.statistics());
                if let Some(error) = &status.host_heard {
                    tracing::warn!(interface = link.name, error, "the host's own frames can leave by it");
                }
                let XdpPort { tx, rx, depth, .. } = port;
                let rx = rx.into_iter().map(|rx| -> Box<dyn RxQueue> { Box::new(rx) }).collect();
                let interrupts_deferred = Ok(false);
                let device =
                    Device { connection, link, status, statistics, interrupts_deferred, veth, depth, promiscuous };
                Ok(OpenedDevice { device, tx, rx })
            }
            Err(reason) => {
                if let Err(error) = give_up(veth.as_ref(), &link, &mut self.links, &mut self.ledger) {
                    tracing::warn!(interface = link.name, %error, "not as it was before");
                }
                Err(reason)
            }
        }
    }

    fn open_xdp(&mut self, link: &Link, xdp: XdpConfig, made: bool) -> Result<(XdpPort, Promiscuous), OpenError> {
        self.beat_early();
        let memory = self.packet_memory()?;
        let promiscuous = Promiscuous::hold(link.index, &link.name)?;
        if made {
            prepare::offloads_off(&link.name)?;
        } else {
            let queues = match xdp.queues {
                xdp::Queues::All => None,
                xdp::Queues::Count(count) => Some(count),
            };
            prepare::device(&mut self.links, &mut self.ledger, link, xdp.mtu, queues)?;
        }
        Ok((XdpPort::open(xdp, &memory)?, promiscuous))
    }

    /// The packet memory, made when the first port needs it.
    fn packet_memory(&mut self) -> Result<Arc<PacketMemory>, OpenError> {
        if let Some(memory) = &self.packet_memory {
            return Ok(Arc::clone(memory));
        }
        let memory = packet_memory(self.config.hugepages)?;
        self.packet_memory = Some(Arc::clone(&memory));
        Ok(memory)
    }

    /// Has the packet memory that is required for `ports` before anything is done for them.
    pub(super) fn require_memory(&mut self, ports: &[PortConfig]) -> Result<(), OpenError> {
        if self.packet_memory.is_none() {
            self.packet_memory = required_memory(ports, &self.config)?;
        }
        Ok(())
    }
}

/// The packet memory, if one of `ports` needs it and it has to be of huge pages: there may be none.
pub(super) fn required_memory(
    ports: &[PortConfig],
    switch: &SwitchConfig,
) -> Result<Option<Arc<PacketMemory>>, OpenError> {
    let needs = |port: &PortConfig| matches!(port.kind, PortKind::AfXdp(_) | PortKind::Veth(_));
    let required = switch.hugepages == Hugepages::Required && ports.iter().any(needs);
    required.then(|| packet_memory(switch.hugepages)).transpose()
}

fn packet_memory(hugepages: Hugepages) -> Result<Arc<PacketMemory>, OpenError> {
    let hugepages = match hugepages {
        Hugepages::Auto => xdp::Hugepages::Auto,
        Hugepages::Required => xdp::Hugepages::Required,
        Hugepages::Off => xdp::Hugepages::Off,
    };
    let memory = PacketMemory::new(UMEM_CHUNKS, hugepages)?;
    tracing::info!(chunks = memory.umem.chunks(), backing = ?memory.umem.backing(), "packet memory");
    Ok(Arc::new(memory))
}

impl From<OpenedDevice> for Opened {
    fn from(OpenedDevice { device, tx, rx }: OpenedDevice) -> Opened {
        let homes = Homes::new(rx.iter().map(|_| 0));
        let tx = Some(tx);
        Opened { attachment: Attachment::Device(Box::new(device)), tx, queues: Queues::new(rx, homes) }
    }
}

/// What the data plane is asked for.
fn xdp_config(id: PortId, link: &Link, mode: XdpMode, queues: config::Queues, mtu: u32) -> XdpConfig {
    XdpConfig {
        interface: link.name.clone(),
        ifindex: link.index,
        queues: match queues {
            config::Queues::All => xdp::Queues::All,
            config::Queues::Count(count) => xdp::Queues::Count(count.into()),
        },
        mode: match mode {
            XdpMode::Auto => xdp::XdpMode::Auto,
            XdpMode::ZeroCopy => xdp::XdpMode::ZeroCopy,
            XdpMode::Copy => xdp::XdpMode::Copy,
            XdpMode::Skb => xdp::XdpMode::Skb,
        },
        mtu,
        owner: id.0,
        busy_poll: false,
    }
}

/// The tokens of a port's listener and connection.
fn port_tokens(id: PortId) -> [Token; 2] {
    let first = FIRST_PORT + 2 * id.index();
    [Token(first), Token(first + 1)]
}

/// Makes the directory of a socket, if it is not there.
pub(super) fn make_parent(path: &Path) -> Result<(), OpenError> {
    match path.parent() {
        Some(directory) => {
            let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
            fs::create_dir_all(directory).map_err(failed)
        }
        None => Ok(()),
    }
}
