//! What a worker and the control thread say to each other.
//!
//! Commands go through a crossbeam channel and are obeyed between two turns, so a command never meets a half-handled
//! burst and its reply is the acknowledgement that the old state is gone. Events go the other way, and wake the control
//! thread.

use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};
use labsw_switch::PortId;
use labsw_switch::tables::Tables;

use crate::port::{Fault, PortDriver};
use crate::stats::PortStats;
use crate::vhost::{VhostOp, VhostReply};
use crate::xdp::FramePool;

/// What the control thread asks of a worker. Each is done between two turns.
#[derive(Debug)]
pub enum Command {
    /// Puts the packet memory of the AF_XDP ports in place.
    InstallPool(FramePool),
    /// Takes a port into service.
    AddPort {
        /// Its slot; must be free.
        id: PortId,
        /// How it moves bytes.
        driver: Box<dyn PortDriver>,
        /// Where its counters go.
        stats: Arc<PortStats>,
    },
    /// Takes a port out of service and gives its driver back, to be closed off the polling path.
    RemovePort {
        /// Its slot.
        id: PortId,
        /// Gets the driver, if there still was one.
        reply: Sender<Option<Box<dyn PortDriver>>>,
    },
    /// Takes back the chunks of packet memory that a closed AF_XDP port still held.
    Reclaim(PortId),
    /// Replaces the tables.
    SetTables {
        /// The new ones.
        tables: Arc<Tables>,
        /// Told when no frame is decided by the old ones any more.
        done: Sender<()>,
    },
    /// Changes the rings of a vhost-user port.
    Vhost {
        /// Its slot.
        id: PortId,
        /// What to do.
        op: VhostOp,
        /// Gets the answer; dropped unanswered if there is no such port.
        reply: Sender<VhostReply>,
    },
    /// Ends the worker; its drivers are dropped.
    Stop,
}

/// What a worker tells the control thread.
#[derive(Debug)]
pub enum Event {
    /// A port can't go on.
    PortFault {
        /// Its slot.
        id: PortId,
        /// Why.
        fault: Fault,
        /// Its driver, to be closed; a vhost-user port keeps its driver (reset) for the next front end.
        driver: Option<Box<dyn PortDriver>>,
    },
}

/// How a worker and the control thread talk.
#[derive(Debug)]
pub struct ControlEnds {
    /// What the control thread asks.
    pub commands: Receiver<Command>,
    /// What the worker tells.
    pub events: Sender<Event>,
    /// Wakes the control thread after an event.
    pub waker: Arc<mio::Waker>,
}
