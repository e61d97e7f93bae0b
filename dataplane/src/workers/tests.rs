//! Running workers and their control: who is got out of what, and that nothing is lost, doubled or late on the way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests of small numbers")]

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use labsw_switch::fdb::Fdb;
use labsw_switch::forward::TxItem;
use labsw_switch::tables::{PortRules, Tables};
use labsw_switch::{MAX_MIRRORS, PortId};
use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::frame::Burst;
use crate::losses::TxReport;
use crate::port::{Fault, RxQueue, TxPort};
use crate::stats::{MirrorStats, PortDelta, PortStats};
use crate::worker::memory_port::{Wire, frame, memory_port};
use crate::worker::{Output, Snapshot};

fn shared(workers: usize) -> Shared {
    Shared {
        fdb: Arc::new(Fdb::new(1024, 300, 1)),
        mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(workers)).collect(),
    }
}

/// Running workers, and what they tell.
fn start(count: usize) -> (Workers, Receiver<Event>) {
    let poll = mio::Poll::new().unwrap();
    let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).unwrap());
    let (events, told) = unbounded();
    (Workers::spawn(&vec![None; count], Power::Adaptive, &shared(count), &events, &waker).unwrap(), told)
}

fn snapshot(outputs: Vec<Option<Output>>) -> Snapshot {
    let ports = (0..).map(PortId).zip(&outputs).filter(|(_, output)| output.is_some());
    let rules = ports.map(|(id, _)| (id, PortRules::default())).collect();
    Snapshot { tables: Arc::new(Tables::build(rules, Vec::new()).unwrap()), outputs: outputs.into() }
}

fn output(tx: Arc<dyn TxPort>, workers: usize) -> Option<Output> {
    Some(Output::new(Some(tx), Arc::new(PortStats::new(workers))))
}

/// An eventfd whose write blocks for ever.
fn full() -> OwnedFd {
    let full = eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    full
}

fn ring(doorbell: &OwnedFd) -> Result<(), Fault> {
    rustix::io::write(doorbell, &1u64.to_ne_bytes()).map(drop).map_err(|errno| Fault::new(1, errno.to_string()))
}

/// A queue whose peer made its doorbell block for ever.
#[derive(Debug)]
struct StuckRx(Option<OwnedFd>);

impl RxQueue for StuckRx {
    fn receive(&mut self, _: &Turn, _: &mut Burst, _: &mut PortDelta) -> Result<(), Fault> {
        self.0.as_ref().map_or(Ok(()), ring)
    }

    fn release(&mut self, _: &mut Burst) -> Result<(), Fault> {
        Ok(())
    }

    fn arm(&mut self, _: &Turn) -> bool {
        false
    }

    fn disarm(&mut self) {}

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn fail(&mut self) {
        self.0 = None;
    }
}

/// The same at a transmit ring, under its lock.
#[derive(Debug)]
struct StuckTx(Mutex<Option<OwnedFd>>);

impl TxPort for StuckTx {
    fn send(&self, _: &Turn, _: &mut Burst, _: &[TxItem], _: &mut TxReport<'_>) -> Result<(), Fault> {
        let mut doorbell = self.0.lock().unwrap();
        let outcome = doorbell.as_ref().map_or(Ok(()), ring);
        if outcome.is_err() {
            *doorbell = None;
        }
        outcome
    }
}

#[test]
fn waiting_for_a_stuck_worker_gets_it_out() {
    let (workers, told) = start(2);
    let links = workers.links();
    let (_, tx, _) = memory_port();
    let outputs = snapshot(vec![output(tx, 2)]);
    links.set_snapshot(&outputs).unwrap();
    links.add_queue(1, PortId(0), 0, Box::new(StuckRx(Some(full())))).unwrap();
    // Until the worker hangs in it.
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    links.set_snapshot(&outputs).unwrap();
    assert!(begin.elapsed() < PATIENCE);
    let event = told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(event, Event::PortFault { id: PortId(0), .. }), "{event:?}");
    workers.stop();
}

#[test]
fn a_worker_that_waits_for_a_lock_of_a_stuck_one_is_got_out_too() {
    let (workers, told) = start(2);
    let links = workers.links();
    let stuck = Arc::new(StuckTx(Mutex::new(Some(full()))));
    let mut outputs = vec![output(stuck.clone(), 2)];
    let mut wires = Vec::new();
    for worker in 0..2 {
        let (rx, tx, wire) = memory_port();
        wire.lock().unwrap().endless = Some(frame(0xff, 1, 1));
        outputs.push(output(tx, 2));
        links.add_queue(worker, PortId(worker as u16 + 1), 0, rx).unwrap();
        wires.push(wire);
    }
    // Each ingress floods to the stuck port: one hangs there, the other waits for the lock.
    let outputs = snapshot(outputs);
    let begin = Instant::now();
    links.set_snapshot(&outputs).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    links.set_snapshot(&outputs).unwrap();
    assert!(begin.elapsed() < PATIENCE);
    assert!(told.recv_timeout(PATIENCE).is_ok());
    assert!(stuck.0.lock().unwrap().is_none(), "the port's doorbell is rung no more");
    workers.stop();
}

#[test]
fn after_the_acknowledgement_nothing_goes_the_old_way() {
    const WORKERS: usize = 3;
    let (workers, _told) = start(WORKERS);
    let links = workers.links();
    let mut outputs = Vec::new();
    for worker in 0..WORKERS {
        let (rx, tx, wire) = memory_port();
        wire.lock().unwrap().endless = Some(frame(0xff, worker as u8, 1));
        // Its own floods are not kept.
        wire.lock().unwrap().room = Some(0);
        outputs.push(output(tx, WORKERS));
        links.add_queue(worker, PortId(worker as u16), 0, rx).unwrap();
    }
    let count = |wire: &Mutex<Wire>| wire.lock().unwrap().from_switch.len();
    for round in 0..100 {
        // A port comes under traffic from all workers, gets some of it, and goes.
        let (_, tx, wire) = memory_port();
        let (stats, tx): (_, Arc<dyn TxPort>) = (Arc::new(PortStats::new(WORKERS)), tx);
        outputs.push(Some(Output::new(Some(Arc::clone(&tx)), Arc::clone(&stats))));
        links.set_snapshot(&snapshot(outputs.clone())).unwrap();
        let end = Instant::now() + PATIENCE;
        while count(&wire) < 50 {
            assert!(Instant::now() < end, "floods reach a new port");
            std::thread::yield_now();
        }
        outputs.pop();
        links.set_snapshot(&snapshot(outputs.clone())).unwrap();
        let seen = count(&wire);
        assert_eq!(Arc::strong_count(&tx), 1, "the control thread closes it");
        assert_eq!(stats.snapshot().tx_frames, seen as u64, "what the workers counted together is what came");
        if round % 10 == 0 {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(count(&wire), seen);
        }
    }
    workers.stop();
}

/// A numbered frame of one flow.
fn numbered(port: u8, number: u32) -> Vec<u8> {
    let mut bytes = frame(0xff, port, 0);
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The next action of the control thread.
#[derive(Clone, Debug)]
enum Step {
    /// Moves a queue to a worker.
    Move(usize, usize),
    /// Puts new tables in force.
    Snapshot,
    /// Frames arrive at a port.
    Arrive(usize, u8),
}

const SOURCES: usize = 4;
const CREW: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SOURCES, 0..CREW).prop_map(|(port, to)| Step::Move(port, to)),
        1 => Just(Step::Snapshot),
        4 => (0..SOURCES, 1..150u8).prop_map(|(port, count)| Step::Arrive(port, count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is moved and replaced under traffic: every frame arrives exactly once, in the order of its flow, and is
    /// counted.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken(steps in prop::collection::vec(step(), 1..60)) {
        let (workers, _told) = start(CREW);
        let links = workers.links();
        let (_, sink, arrived) = memory_port();
        let mut outputs = vec![output(sink, CREW)];
        let mut wires = Vec::new();
        for port in 1..=SOURCES {
            let (rx, tx, wire) = memory_port();
            wire.lock().unwrap().room = Some(0);
            outputs.push(output(tx, CREW));
            links.add_queue(0, PortId(port as u16), 0, rx).unwrap();
            wires.push(wire);
        }
        links.set_snapshot(&snapshot(outputs.clone())).unwrap();
        let mut sent = [0u32; SOURCES];
        let mut homes = [0; SOURCES];
        for step in steps {
            match step {
                Step::Move(port, to) => {
                    links.move_queue(PortId(port as u16 + 1), 0, homes[port], to).unwrap();
                    homes[port] = to;
                }
                Step::Snapshot => links.set_snapshot(&snapshot(outputs.clone())).unwrap(),
                Step::Arrive(port, count) => {
                    let mut wire = wires[port].lock().unwrap();
                    for _ in 0..count {
                        wire.to_switch.push_back(numbered(port as u8, sent[port]));
                        sent[port] += 1;
                    }
                }
            }
        }
        let total: u32 = sent.iter().sum();
        let end = Instant::now() + PATIENCE;
        while arrived.lock().unwrap().from_switch.len() < total as usize && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(100));
        }
        workers.stop();
        let mut next = [0u32; SOURCES];
        for frame in &arrived.lock().unwrap().from_switch {
            let (port, number) = (usize::from(frame[11]), u32::from_be_bytes(frame[14..18].try_into().unwrap()));
            prop_assert_eq!(number, next[port]);
            next[port] += 1;
        }
        prop_assert_eq!(next, sent);
        let counted = outputs[0].as_ref().unwrap().stats.snapshot();
        prop_assert_eq!(counted.tx_frames, u64::from(total));
    }
}

/// Workers that are turned by hand.
struct Crew {
    workers: Vec<Worker>,
    commands: Vec<Sender<Command>>,
}

impl Crew {
    fn new(count: usize) -> Crew {
        let (mut workers, mut commands) = (Vec::new(), Vec::new());
        let shared = shared(count);
        for worker in 0..count {
            let poll = mio::Poll::new().unwrap();
            let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).unwrap());
            let (sender, receiver) = unbounded();
            let ends = ControlEnds { commands: receiver, events: unbounded().0, waker };
            let turn = Turn { worker, workers: count, now_ns: now_ns(), clock_runs: true };
            workers.push(Worker::new(turn, shared.clone(), Power::Performance, Arc::default(), ends, poll));
            commands.push(sender);
        }
        Crew { workers, commands }
    }

    fn turn(&mut self, worker: usize) {
        assert!(self.workers[worker].obey());
        self.workers[worker].turn();
    }

    /// All workers by one snapshot, and the queue at worker 0.
    fn begin(&mut self, snapshot: &Snapshot, rx: Box<dyn RxQueue>) {
        let (acknowledge, _acknowledged) = unbounded();
        for commands in &self.commands {
            commands.send(Command::SetSnapshot { snapshot: snapshot.clone(), done: acknowledge.clone() }).unwrap();
        }
        self.commands[0].send(Command::AddQueue { port: PortId(0), queue: 0, rx }).unwrap();
        (0..self.workers.len()).for_each(|worker| self.turn(worker));
    }

    /// Takes the queue away from `worker`, which has it.
    fn take_queue(&mut self, worker: usize) {
        let (reply, taken) = bounded(1);
        self.commands[worker].send(Command::TakeQueue { port: PortId(0), queue: 0, reply }).unwrap();
        self.turn(worker);
        taken.try_recv().unwrap();
    }
}

/// All schedules of two workers and the control thread, up to a length, over one hand-over: the queue moves from worker
/// 0 to 1 while the tables change from one output to another and frames arrive. In each of them every frame arrives
/// once and in order, and none reaches the old output after both workers have acknowledged the new tables.
#[test]
fn every_schedule_of_a_hand_over() {
    const STEPS: u32 = 8;
    let mut crew = Crew::new(2);
    let (_, tx, _) = memory_port();
    let tables = snapshot(vec![output(tx.clone(), 2), output(tx, 2)]).tables;
    let with = |outputs: Vec<Option<Output>>| Snapshot { tables: Arc::clone(&tables), outputs: outputs.into() };
    for schedule in 0..3u32.pow(STEPS) {
        let (rx, source, wire) = memory_port();
        let (_, first, old) = memory_port();
        let (_, second, new) = memory_port();
        wire.lock().unwrap().room = Some(0);
        let before = with(vec![output(source.clone(), 2), output(first, 2)]);
        let after = with(vec![output(source, 2), output(second, 2)]);
        crew.begin(&before, rx);
        // The control thread's actions, each as soon as the one before is answered.
        let (reply, taken) = bounded(1);
        let (done, replaced) = unbounded();
        let mut orders = vec![
            (0, Command::SetSnapshot { snapshot: after.clone(), done: done.clone() }),
            (1, Command::SetSnapshot { snapshot: after, done }),
            (0, Command::TakeQueue { port: PortId(0), queue: 0, reply }),
        ];
        orders.reverse();
        let (mut arrived, mut acknowledged, mut old_count) = (0u32, 0, None);
        let mut control = |crew: &Crew| {
            wire.lock().unwrap().to_switch.push_back(numbered(0, arrived));
            arrived += 1;
            if let Some((worker, order)) = orders.pop() {
                crew.commands[worker].send(order).unwrap();
            } else if let Ok(rx) = taken.try_recv() {
                crew.commands[1].send(Command::AddQueue { port: PortId(0), queue: 0, rx }).unwrap();
            }
        };
        let mut rest = schedule;
        // Afterwards everybody gets what turns it takes.
        for step in 0..STEPS + 18 {
            let actor = if step < STEPS { rest % 3 } else { step % 3 };
            rest /= 3;
            match actor {
                2 => control(&crew),
                worker => crew.turn(worker as usize),
            }
            acknowledged += replaced.try_iter().count();
            if acknowledged == 2 {
                let count = old.lock().unwrap().from_switch.len();
                assert_eq!(*old_count.get_or_insert(count), count, "schedule {schedule}");
            }
        }
        (0..2).for_each(|worker| crew.turn(worker));
        assert!(acknowledged == 2 && crew.workers[0].queues() == 0 && crew.workers[1].queues() == 1, "{schedule}");
        let frames: Vec<_> = [&old, &new].iter().flat_map(|wire| wire.lock().unwrap().from_switch.clone()).collect();
        let expected: Vec<_> = (0..arrived).map(|number| numbered(0, number)).collect();
        assert!(frames == expected, "schedule {schedule}");
        // The same workers again.
        crew.take_queue(1);
    }
}
