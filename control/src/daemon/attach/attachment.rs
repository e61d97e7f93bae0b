//! The two traits of attachments, and what is handed over when a port is opened and closed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use labsw_dataplane::handover::{Given, Resume, Taken};
use labsw_dataplane::port::{Fault, RxQueue, TxPort};
use labsw_dataplane::sys::socket::SocketAccess;
use labsw_dataplane::vhost_user::Endpoint;
use labsw_dataplane::workers::QueueAffinity;
use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::PortId;

use super::error::{OpenError, not_of_this_type};
use super::news::{LinkMap, OnFault, Seen};
use super::sockets::Sockets;
use crate::api::{self, PortState};
use crate::config::{DeviceSpec, PortConfig, SwitchConfig};
use crate::daemon::fabric::Fabric;
use crate::daemon::host::Host;
use crate::daemon::queues::Queues;
use crate::device::Links;
use crate::takeover::state::PortHandover;

/// What a port of some type needs of the switch to be opened.
pub(in crate::daemon) struct Site<'a> {
    pub(in crate::daemon) host: &'a mut Host,
    pub(in crate::daemon) fabric: &'a Fabric,
    pub(in crate::daemon) switch: &'a SwitchConfig,
}

/// A type of port: its settings.
pub(in crate::daemon) trait PortType {
    /// Looks, without touching anything, whether a port can be opened on this machine. The error is the key of the
    /// port's table that it is about, and the reason; one that [is an absence](OpenError::is_absence) is no reason to
    /// refuse the port.
    fn preflight(
        &self,
        port: &PortConfig,
        switch: &SwitchConfig,
        links: &mut Links,
    ) -> Result<(), (&'static str, OpenError)>;

    /// Opens a port; the workers do not know it yet. On an error nothing is left of it.
    fn open(&self, id: PortId, port: &PortConfig, site: &mut Site<'_>) -> Result<Opened, OpenError>;

    /// Opens a port with what another process hands over, which still serves it: nothing of it is touched until
    /// [`Attachment::resume`].
    fn take_over(
        &self,
        _id: PortId,
        _port: &PortConfig,
        _site: &mut Site<'_>,
        _handover: PortHandover,
        _taken: &mut Taken,
    ) -> Result<Opened, OpenError> {
        Err(not_of_this_type())
    }

    /// Writes down what is to be shown of its settings.
    fn show(&self, port: &PortConfig, switch: &SwitchConfig, shown: &mut api::Port);

    /// Whether it can be asked to poll busily.
    fn polls_busily(&self) -> bool {
        false
    }

    /// Whether its frames lie in packet memory, and the kernel counts at its sockets.
    fn has_sockets(&self) -> bool {
        false
    }

    /// The device of the host that it takes as it is.
    fn device(&self) -> Option<&DeviceSpec> {
        None
    }
}

/// What a port is attached to.
pub(in crate::daemon) trait Attachment {
    /// Closes the halves of the port, which no worker has any more, and puts everything back as it was before, or
    /// removes it if it was made for the port.
    fn close(self: Box<Self>, halves: Halves, host: &mut Host) -> Result<(), OpenError>;

    /// Closes the halves of a port whose device has gone or does not go on. Gives what has to stay while the port
    /// waits.
    fn lose(self: Box<Self>, halves: Halves, host: &mut Host) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>);

    /// What another process needs to go on with it, with its descriptors in `given`; `None`: no other process could.
    fn hand_over<'a>(&'a self, _given: &mut Given<'a>) -> Option<PortHandover> {
        None
    }

    /// Serves what was taken over from now on, one way.
    fn resume(&mut self, _way: Resume, _now: Instant) {}

    /// What it is doing, and why it is not up.
    fn state(&self) -> (PortState, Option<String>);

    /// Writes down what is to be shown of it.
    fn show(&self, shown: &mut api::Port);

    /// Gives the interfaces of the port another MTU.
    fn set_mtu(&mut self, host: &mut Host, mtu: u32) -> Result<(), OpenError>;

    /// Whether its sockets take frames of this MTU; if not, it has to be opened anew.
    fn takes_mtu(&self, _mtu: u32) -> bool {
        true
    }

    /// A worker found that the port can't go on.
    fn fault(&mut self, fault: &Fault, now: Instant) -> OnFault;

    /// Forgets the faults of front ends: the next one is served without a wait.
    fn forgive(&mut self, _now: Instant) {}

    /// Links have changed: looks at its own.
    fn look(&mut self, _links: &LinkMap, _host: &mut Host) -> Seen {
        Seen::Here
    }

    /// Whether its device is set up, as far as is known; what has no device is.
    fn link_up(&self) -> bool {
        true
    }

    /// Shows who is at the other end whether the port is on, where that can be shown.
    fn show_enabled(&mut self, _enabled: bool, _host: &mut Host) -> Result<(), OpenError> {
        Ok(())
    }

    /// Whether it takes frames whatever its link does.
    fn takes_frames_when_down(&self) -> bool {
        false
    }

    /// Looks whether what stayed of it stands in the way of opening the port again.
    fn may_reopen(&self, _host: &mut Host) -> Result<(), OpenError> {
        Ok(())
    }

    /// The device of the host that it has, by index and name.
    fn device(&self) -> Option<(u32, &str)> {
        None
    }

    /// What the kernel counted at its sockets since it was opened.
    fn kernel_counters(&self) -> Option<XdpCounters> {
        None
    }

    /// Its AF_XDP sockets.
    fn sockets(&mut self) -> Option<&mut Sockets> {
        None
    }

    /// Its end of a guest's socket.
    fn endpoint(&mut self) -> Option<&mut Endpoint> {
        None
    }

    /// The socket that it listens on, and what the port says of the file.
    fn listens_on(&self) -> Option<(&Path, OwnAccess)> {
        None
    }
}

/// What a port says of its socket's file itself; the rest is the switch's.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::daemon) struct OwnAccess {
    /// Permission bits.
    pub(in crate::daemon) mode: Option<u32>,
    /// Owner, as a number.
    pub(in crate::daemon) owner: Option<u32>,
    /// Group, as a number.
    pub(in crate::daemon) group: Option<u32>,
}

impl OwnAccess {
    /// With the mode and group of the switch where the port says nothing.
    pub(in crate::daemon) fn or(self, mode: u32, group: Option<u32>) -> SocketAccess {
        SocketAccess { mode: self.mode.unwrap_or(mode), owner: self.owner, group: self.group.or(group) }
    }
}

/// A port that was opened, not known to the workers yet.
pub(in crate::daemon) struct Opened {
    pub(in crate::daemon) attachment: Box<dyn Attachment>,
    pub(in crate::daemon) tx: Arc<dyn TxPort>,
    pub(in crate::daemon) queues: Queues,
}

impl Opened {
    /// With these halves, none of them with a worker.
    pub(super) fn new<T: RxQueue + 'static>(
        attachment: impl Attachment + 'static,
        tx: Arc<dyn TxPort>,
        rx: Vec<T>,
    ) -> Opened {
        let affinity = QueueAffinity::new(rx.iter().map(|_| 0));
        let rx = rx.into_iter().map(|rx| -> Box<dyn RxQueue> { Box::new(rx) }).collect();
        Opened { attachment: Box::new(attachment), tx, queues: Queues::new(rx, affinity) }
    }
}

/// The halves of a port that no worker has any more. Dropped, they are closed.
#[derive(Default)]
pub(in crate::daemon) struct Halves {
    pub(in crate::daemon) tx: Option<Arc<dyn TxPort>>,
    pub(in crate::daemon) rx: Vec<Box<dyn RxQueue>>,
}

impl Halves {
    /// Closes them.
    pub(in crate::daemon) fn close(self) {
        let Halves { tx, rx } = self;
        drop(rx);
        drop(tx);
    }
}
