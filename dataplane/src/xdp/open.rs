//! Opening an AF_XDP port: the best mode that works, and why not a better one.
//!
//! **How it works.** On the device thread: the program is attached first (from then on frames without a socket are
//! dropped, not leaked), then every receive queue gets a socket, then every fill ring its first chunks, then the
//! program's map is filled, so that no frame meets a socket without chunks; last, what the host's own stack sends is
//! stopped. Modes from best to worst: *zero copy* (native program), *copy* (native program), *skb* (generic program,
//! copy). With `auto` each failure's reason is kept and the next mode tried; all queues of a port have the same mode.
//! A failure that no other mode would mend (privileges, a foreign program, no such device) ends the attempt at once.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::closing::is_closing;
use super::program::{Attachment, Program, ProgramError};
use super::socket::{self, Binding, RxRings, SocketError, XskSocket};
use super::umem::Umem;
use super::{device, foreign};
use crate::sys::isolate::Silence;

/// How long a queue is waited for that a closed port of this process had.
const CLOSING_PATIENCE: Duration = Duration::from_millis(100);

/// How many receive queues are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Queues {
    /// All active ones. With fewer, the flows that the device spreads to the others are lost.
    #[default]
    All,
    /// The first queues, this many.
    Count(u32),
}

/// How frames pass between device and packet memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum XdpMode {
    /// The best that works.
    #[default]
    Auto,
    /// The device reads and writes packet memory itself.
    ZeroCopy,
    /// XDP in the driver, the kernel copies.
    Copy,
    /// XDP in the generic path, the kernel copies; any device.
    Skb,
}

impl XdpMode {
    /// The name in configuration and `xdp_mode`.
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Auto => "auto",
            XdpMode::ZeroCopy => "zero_copy",
            XdpMode::Copy => "copy",
            XdpMode::Skb => "skb",
        }
    }
}

/// The MTU with which every driver that has XDP takes a program.
const USUAL_MTU: u32 = 1500;

/// The largest MTU whose frames, with header and two tags, are in one chunk in any driver, bytes (3520 less 22).
pub const ONE_CHUNK_MTU: u32 = 3498;

/// The interface to open, and how.
#[derive(Clone, Debug)]
pub struct XdpConfig {
    /// Name of the interface, in the calling thread's network namespace.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// How many receive queues are bound.
    pub queues: Queues,
    /// Mode wanted.
    pub mode: XdpMode,
    /// Largest frame, bytes behind header and tags; beyond [`ONE_CHUNK_MTU`] frames are in several chunks.
    pub mtu: u32,
    /// The kernel is asked to receive when the worker looks, and not by interrupt.
    pub busy_poll: bool,
}

/// The state of busy polling at a port's sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum BusyPoll {
    /// Not asked for.
    Off,
    /// The kernel took the options of every socket.
    Asked,
    /// The kernel refused, for this reason.
    Refused(String),
    /// The switch ended it, for this reason.
    Ended(String),
}

/// The outcome of opening, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct XdpStatus {
    /// The mode, never [`XdpMode::Auto`].
    pub mode: XdpMode,
    /// Why each better mode was not possible; empty if there is none better or none was tried.
    pub why: String,
    /// Receive queues bound.
    pub queues: u32,
    /// Frames may be in several chunks: an MTU beyond [`ONE_CHUNK_MTU`] is possible.
    pub multi_buffer: bool,
    /// The state of busy polling.
    pub busy_poll: BusyPoll,
    /// Why the host's own stack can still send through the device; `None`: it can't.
    pub host_heard: Option<String>,
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The interface is not there (any more).
    #[error("{interface}: no such network interface")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// A queue count the device does not have.
    #[error("{interface}: {wanted} queues wanted, but {active} are active (ethtool -L {interface} changes that)")]
    Queues {
        /// The interface.
        interface: String,
        /// Queues asked for.
        wanted: u32,
        /// Active receive queues.
        active: u32,
    },
    /// The packet memory has no number left for another port.
    #[error("{interface}: too many ports share the packet memory")]
    TooMany {
        /// The interface.
        interface: String,
    },
    /// A privilege is missing.
    #[error("{interface}: {step} is not permitted; it needs {capability}")]
    Privilege {
        /// The interface.
        interface: String,
        /// The step that failed.
        step: &'static str,
        /// Which capability or limit is missing.
        capability: &'static str,
    },
    /// Another XDP program is attached.
    #[error("{interface}: another XDP program is attached{}; it is not replaced: stop what attached it, or ip link set dev {interface} xdp off", program.as_deref().map(|name| format!(" ({name})")).unwrap_or_default())]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// Its id and name, if the kernel told.
        program: Option<String>,
    },
    /// The kernel has not let go of a queue yet that a closed port of this process had.
    #[error("{interface}: queue {queue} is still being released by the kernel")]
    Closing {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Another socket has the queue.
    #[error("{interface}: queue {queue} is taken by another AF_XDP socket")]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// No mode worked.
    #[error("{interface}: AF_XDP is not possible: {why}")]
    NoMode {
        /// The interface.
        interface: String,
        /// The failure in each mode that was tried.
        why: String,
    },
    /// Anything else the kernel refused.
    #[error("{interface}: {step} failed: {source}")]
    Kernel {
        /// The interface.
        interface: String,
        /// The step that failed.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Everything a port runs on.
#[derive(Debug)]
pub(super) struct Opened {
    // The program goes first on drop: nothing is received any more when the sockets close.
    pub(super) program: Program,
    pub(super) sockets: Vec<XskSocket>,
    /// One unbound socket per queue, in the port's network namespace, for finding out when a queue is free again.
    pub(super) spares: Vec<OwnedFd>,
    /// How many of the sockets have a transmit queue.
    pub(super) tx_queues: usize,
    pub(super) status: XdpStatus,
    /// Drops the frames that the host sends by itself.
    pub(super) silence: Option<Silence>,
    /// True if short frames have to be padded.
    pub(super) pad: bool,
}

/// Opens the port's sockets in the best mode allowed.
///
/// `prime` gives a fill ring its first chunks.
pub(super) fn open(
    config: &XdpConfig,
    umem: &Umem,
    prime: &mut dyn FnMut(XdpMode, &mut RxRings),
) -> Result<Opened, XdpError> {
    let interface = &config.interface;
    let channels =
        device::channels(interface).map_err(|error| kernel(interface, "reading the channel counts", error))?;
    let queues = queue_count(config, channels.rx)?;
    let mut why = String::new();
    // The native program stays attached from zero copy to copy: on many NICs attaching takes the link down for a while.
    let mut attached: Option<(Attachment, Program)> = None;
    for &mode in modes_to_try(config.mode) {
        let attachment = if mode == XdpMode::Skb { Attachment::Generic } else { Attachment::Native };
        let binding = if mode == XdpMode::ZeroCopy { Binding::ZeroCopy } else { Binding::Copy };
        let program = match attached.take() {
            Some((have, program)) if have == attachment => Ok(program),
            other => {
                drop(other);
                Program::attach(config.ifindex, channels.rx, attachment).map_err(|error| program_failure(config, error))
            }
        };
        let reason = match program {
            Ok(program) => match open_sockets(config, umem, queues, binding) {
                Ok((mut sockets, spares, multi_buffer)) => {
                    sockets.iter_mut().for_each(|socket| prime(mode, &mut socket.rx));
                    direct(config, &program, &sockets)?;
                    let tx_queues = sockets.len().min(channels.tx as usize);
                    let busy_poll = if config.busy_poll { ask_for_busy_poll(&sockets) } else { BusyPoll::Off };
                    let (silence, host_heard) = match Silence::hold(config.ifindex) {
                        Ok(silence) => (Some(silence), None),
                        Err(error) => (None, Some(error.to_string())),
                    };
                    let status = XdpStatus { mode, why, queues, multi_buffer, busy_poll, host_heard };
                    let pad = device::has_wire(interface);
                    return Ok(Opened { program, sockets, spares, tx_queues, status, silence, pad });
                }
                Err(failure) => {
                    attached = Some((attachment, program));
                    failure
                }
            },
            Err(failure) => failure,
        };
        match reason {
            Failure::Final(error) => return Err(error),
            Failure::ThisMode(reason) => {
                let separator = if why.is_empty() { "" } else { "; " };
                why.push_str(&format!("{separator}{}: {reason}", mode.name()));
            }
        }
    }
    Err(XdpError::NoMode { interface: interface.clone(), why })
}

/// The number of queues that the port uses, of a device with `active` receive queues.
fn queue_count(config: &XdpConfig, active: u32) -> Result<u32, XdpError> {
    match config.queues {
        Queues::All => Ok(active),
        Queues::Count(wanted) if wanted == 0 || wanted > active => {
            Err(XdpError::Queues { interface: config.interface.clone(), wanted, active })
        }
        Queues::Count(wanted) => Ok(wanted),
    }
}

/// The modes that satisfy the configured one, best first.
fn modes_to_try(configured: XdpMode) -> &'static [XdpMode] {
    match configured {
        XdpMode::Auto => &[XdpMode::ZeroCopy, XdpMode::Copy, XdpMode::Skb],
        XdpMode::ZeroCopy => &[XdpMode::ZeroCopy],
        XdpMode::Copy => &[XdpMode::Copy],
        XdpMode::Skb => &[XdpMode::Skb],
    }
}

fn ask_for_busy_poll(sockets: &[XskSocket]) -> BusyPoll {
    match sockets.iter().try_for_each(|socket| socket::busy_poll(&socket.descriptor)) {
        Ok(()) => BusyPoll::Asked,
        Err(error) => BusyPoll::Refused(error.to_string()),
    }
}

/// Says whether a worse mode is worth trying.
enum Failure {
    ThisMode(String),
    Final(XdpError),
}

/// Has the program pass the frames of each queue to its socket.
fn direct(config: &XdpConfig, program: &Program, sockets: &[XskSocket]) -> Result<(), XdpError> {
    (0u32..).zip(sockets).try_for_each(|(queue, socket)| {
        let directed = program.direct(queue, socket.descriptor.fd());
        directed.map_err(|error| kernel(&config.interface, "directing a queue to its socket", error))
    })
}

/// One socket per queue, and one unbound; and whether frames may be in several chunks. Without
/// need for that, a zero-copy device is not asked for it, and a kernel before 6.6 is forgiven.
fn open_sockets(
    config: &XdpConfig,
    umem: &Umem,
    queues: u32,
    binding: Binding,
) -> Result<(Vec<XskSocket>, Vec<OwnedFd>, bool), Failure> {
    let interface = &config.interface;
    let needed = config.mtu > ONE_CHUNK_MTU;
    let mut multi_buffer = needed || binding == Binding::Copy;
    let (mut sockets, mut spares) = (Vec::new(), Vec::new());
    // The opener of the port checks queues of this process's own again.
    let patience = if is_closing(config.ifindex) { CLOSING_PATIENCE } else { socket::BUSY_PATIENCE };
    let open = |queue, multi_buffer| XskSocket::open(config.ifindex, queue, binding, multi_buffer, patience, umem);
    for queue in 0..queues {
        let socket = match open(queue, multi_buffer) {
            Err(SocketError::Bind(error)) if error.raw_os_error() == Some(libc::EINVAL) && multi_buffer && !needed => {
                multi_buffer = false;
                open(queue, multi_buffer)
            }
            other => other,
        };
        let socket = socket.map_err(|error| match error {
            SocketError::Bind(error) if error.raw_os_error() == Some(libc::EBUSY) && is_closing(config.ifindex) => {
                Failure::Final(XdpError::Closing { interface: interface.clone(), queue })
            }
            SocketError::Bind(error)
                if needed && matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) =>
            {
                let limit = format!("frames in several buffers, for an mtu above {ONE_CHUNK_MTU}, are not supported");
                Failure::ThisMode(limit)
            }
            error => socket_failure(interface, queue, error),
        })?;
        sockets.push(socket);
        spares.push(socket::unbound().map_err(|error| socket_failure(interface, queue, error))?);
    }
    Ok((sockets, spares, multi_buffer))
}

fn program_failure(config: &XdpConfig, error: ProgramError) -> Failure {
    let interface = &config.interface;
    match error {
        ProgramError::Load(error) => Failure::Final(match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                privilege(interface, "loading the XDP program", "CAP_BPF and CAP_NET_ADMIN")
            }
            _ => kernel(interface, "loading the XDP program", error),
        }),
        ProgramError::Attach(error) => match error.raw_os_error() {
            Some(libc::EPERM) => Failure::Final(privilege(interface, "attaching the XDP program", "CAP_NET_ADMIN")),
            Some(libc::EBUSY | libc::EEXIST) => Failure::Final(XdpError::ForeignProgram {
                interface: interface.clone(),
                program: foreign::attached(config.ifindex),
            }),
            Some(libc::ENODEV) => Failure::Final(kernel(interface, "attaching the XDP program", error)),
            Some(libc::ERANGE) => Failure::ThisMode("the device's MTU is too large for XDP in this driver".to_owned()),
            // vmxnet3 says the same of an MTU that is too large.
            Some(libc::EOPNOTSUPP) if config.mtu > USUAL_MTU => {
                Failure::ThisMode(format!("the driver has no XDP support, or none with an mtu of {}", config.mtu))
            }
            Some(libc::EOPNOTSUPP) => Failure::ThisMode("the driver has no XDP support".to_owned()),
            _ => Failure::ThisMode(format!("attaching the XDP program failed: {error}")),
        },
    }
}

fn socket_failure(interface: &str, queue: u32, error: SocketError) -> Failure {
    let (step, error) = match error {
        SocketError::Socket(error) => ("opening the AF_XDP socket", error),
        SocketError::Register(error) => ("registering packet memory", error),
        SocketError::Rings(error) => ("setting up the rings", error),
        SocketError::Bind(error) => ("binding to a queue", error),
    };
    match (step, error.raw_os_error()) {
        ("opening the AF_XDP socket", Some(libc::EPERM)) => Failure::Final(privilege(interface, step, "CAP_NET_RAW")),
        ("registering packet memory", Some(libc::ENOBUFS | libc::EPERM)) => Failure::Final(privilege(
            interface,
            step,
            "CAP_IPC_LOCK or a larger RLIMIT_MEMLOCK (LimitMEMLOCK=infinity)",
        )),
        ("binding to a queue", Some(libc::EBUSY)) => {
            Failure::Final(XdpError::Busy { interface: interface.to_owned(), queue })
        }
        ("binding to a queue", Some(libc::ENODEV)) => Failure::Final(kernel(interface, step, error)),
        ("binding to a queue", Some(libc::EOPNOTSUPP)) => Failure::ThisMode("not supported by the driver".to_owned()),
        ("binding to a queue", _) => Failure::ThisMode(format!("binding to queue {queue} failed: {error}")),
        _ => Failure::Final(kernel(interface, step, error)),
    }
}

fn privilege(interface: &str, step: &'static str, capability: &'static str) -> XdpError {
    XdpError::Privilege { interface: interface.to_owned(), step, capability }
}

fn kernel(interface: &str, step: &'static str, source: io::Error) -> XdpError {
    if source.raw_os_error() == Some(libc::ENODEV) {
        return XdpError::NoInterface { interface: interface.to_owned() };
    }
    XdpError::Kernel { interface: interface.to_owned(), step, source }
}
