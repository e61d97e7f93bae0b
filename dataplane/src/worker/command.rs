//! Commands from the control thread to the workers, and events on the way back.
//!
//! Commands go through a crossbeam channel per worker and are obeyed between two turns, so a command never meets a
//! half-handled burst and its reply is the acknowledgement that the old state is gone. Events go the other way, and
//! wake the control thread.

use std::sync::Arc;

use labsw_switch::PortId;
use labsw_switch::tables::Tables;

use crate::capture::Captures;
use crate::impair::{ImpairedTx, Schedule, TxDelay};
use crate::inline::Sensor;
use crate::port::{Fault, RxQueue, TxPort};
use crate::stats::PortStats;
use crate::sync::channel::{Receiver, Sender};

/// The behaviour of an idle worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Power {
    /// Spin while there is traffic, sleep when there is none.
    Adaptive,
    /// Spin always.
    Performance,
}

/// All that the workers decide and send by. Immutable: a change is a new one, taken over between two bursts.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where frames go.
    pub tables: Arc<Tables>,
    /// The ports, by [`PortId::index`].
    pub outputs: Arc<[Option<Output>]>,
}

impl Snapshot {
    /// Without ports.
    pub fn empty() -> Snapshot {
        Snapshot { tables: Arc::new(Tables::empty()), outputs: Arc::default() }
    }
}

/// A port as all workers see it.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its transmit side; `None` while it is out of service.
    pub tx: Option<Arc<dyn TxPort>>,
    /// Where its counters go.
    pub stats: Arc<PortStats>,
    /// Frames to it are finished, whatever it accepts.
    pub finished: bool,
    /// The impairment of frames that come from it.
    pub impaired_rx: Option<Arc<Schedule>>,
    /// The frames that wait before `tx`, if there is an impairment.
    impaired_tx: Option<Arc<TxDelay>>,
}

impl Output {
    /// A port without impairments.
    pub fn new(tx: Option<Arc<dyn TxPort>>, stats: Arc<PortStats>) -> Output {
        Output { tx, stats, finished: false, impaired_rx: None, impaired_tx: None }
    }

    /// With this impairment before its transmit side.
    #[must_use]
    pub fn impaired_by(self, delay: Arc<TxDelay>) -> Output {
        let Some(port) = self.tx else { return self };
        let tx = Arc::new(ImpairedTx::new(port, Arc::clone(&delay)));
        Output { tx: Some(tx), impaired_tx: Some(delay), ..self }
    }

    /// The frames that wait before its transmit side, if there is an impairment.
    pub(super) fn impaired_tx(&self) -> Option<&Arc<TxDelay>> {
        self.impaired_tx.as_ref()
    }
}

/// A command of the control thread to a worker. Each is carried out between two turns.
#[derive(Debug)]
pub enum Command {
    /// Gives the worker a receive queue.
    AddQueue {
        /// The port.
        port: PortId,
        /// Number of the queue at the port.
        queue: usize,
        /// The queue.
        rx: Box<dyn RxQueue>,
    },
    /// Takes a receive queue away. Frames that have arrived and were not received wait in the queue.
    TakeQueue {
        /// The port.
        port: PortId,
        /// Number of the queue at the port.
        queue: usize,
        /// Gets the queue; dropped unanswered if the worker does not have it.
        reply: Sender<Box<dyn RxQueue>>,
    },
    /// Replaces tables and outputs.
    SetSnapshot {
        /// The new ones.
        snapshot: Snapshot,
        /// Told when no frame is decided by the old ones, or sent to an output that went, any more.
        done: Sender<()>,
    },
    /// Has a driver do something to a receive queue of its own.
    OnQueue {
        /// The port.
        port: PortId,
        /// Number of the queue at the port.
        queue: usize,
        /// Dropped undone if the worker does not have the queue.
        task: QueueTask,
    },
    /// Replaces the captures.
    SetCaptures {
        /// The captures from now on.
        captures: Arc<Captures>,
        /// Told when no frame is given to a capture that went any more.
        done: Sender<()>,
    },
    /// Replaces the sensors to look after.
    SetSensors {
        /// The sensors from now on.
        sensors: Arc<[Arc<Sensor>]>,
        /// Told when no probe is sent for a sensor that went any more.
        done: Sender<()>,
    },
    /// Stands still between two bursts: touches no queue, no ring and no counter until it may go on.
    Hold {
        /// Told when it stands.
        held: Sender<()>,
        /// It goes on when the other end is dropped.
        go_on: Receiver<()>,
    },
    /// Says whether the worker sleeps when nothing arrives.
    SetPower(Power),
    /// Ends the worker; its queues are dropped.
    Stop,
}

/// A driver's own work on one of its receive queues, done between two turns. The queue may have another descriptor to
/// wait for ([`RxQueue::wait_fd`]) afterwards.
pub struct QueueTask(Task);

type Task = Box<dyn FnOnce(&mut dyn RxQueue) + Send>;

impl QueueTask {
    /// A task that does this. An answer is sent by the task itself.
    pub fn new(task: impl FnOnce(&mut dyn RxQueue) + Send + 'static) -> QueueTask {
        QueueTask(Box::new(task))
    }

    /// Does it.
    pub(super) fn run(self, rx: &mut dyn RxQueue) {
        (self.0)(rx);
    }
}

impl std::fmt::Debug for QueueTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueueTask")
    }
}

/// A worker's news for the control thread.
#[derive(Debug)]
pub enum Event {
    /// A port can't go on; the half that the worker was at is out of service.
    PortFault {
        /// The port.
        id: PortId,
        /// Why.
        fault: Fault,
    },
    /// A sensor lets frames pass that did not, or does not any more.
    Sensors,
}

/// How a worker and the control thread talk.
#[derive(Debug)]
pub struct ControlEnds {
    /// The commands of the control thread.
    pub commands: Receiver<Command>,
    /// The events for the control thread.
    pub events: Sender<Event>,
    /// Wakes the control thread after an event.
    pub waker: Arc<mio::Waker>,
}

impl ControlEnds {
    /// Tells the control thread of an event.
    #[cold]
    pub(super) fn notify(&self, event: Event) {
        // Neither can fail while the switch runs; when it ends, the event has no reader.
        let _ = self.events.send(event);
        let _ = self.waker.wake();
    }
}
