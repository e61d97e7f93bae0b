//! A guest that changes a frame while it is on its way: all who take the frame see the same bytes.

#![allow(unsafe_code, reason = "tests lend memory of their own")]

use std::sync::atomic::{AtomicU8, Ordering};

use super::*;
use crate::capture::{Budget, Capture, CapturePoint, Captures};
use crate::frame::Burst;
use crate::frame::Segment;
use crate::losses::TxReport;
use crate::port::RxQueue;
use crate::stats::PortDelta;

/// Bytes of the frame: more than a snapshot, in two pieces behind it.
const BYTES: usize = 1000;
const FIRST_PIECE: usize = 400;

/// Memory of a guest, which writes to it whenever it likes.
type Memory = Arc<[AtomicU8]>;

fn write(memory: &Memory, value: u8) {
    memory.iter().for_each(|byte| byte.store(value, Ordering::Relaxed));
}

/// A receive queue with one frame in the guest's memory.
#[derive(Debug)]
struct GuestRx {
    memory: Memory,
    waiting: bool,
}

impl RxQueue for GuestRx {
    fn is_waiting(&self, _: &Turn) -> bool {
        self.waiting
    }

    fn receive(&mut self, _: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        self.waiting = false;
        let piece = |from: usize, to: usize| Segment {
            ptr: self.memory[from..to].as_ptr().cast(),
            len: u32::try_from(to - from).unwrap(),
        };
        // SAFETY: the memory lives as long as the queue, which outlives the burst.
        assert!(unsafe { burst.push(0, &[piece(0, FIRST_PIECE), piece(FIRST_PIECE, BYTES)]) });
        stats.received(1000);
        Ok(())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.clear();
        Ok(())
    }

    fn arm(&mut self, _: &Turn) -> bool {
        self.waiting
    }

    fn disarm(&mut self) {}

    fn wait_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }

    fn fail(&mut self) {}
}

/// A port that reads its frames, after which the guest that sent them writes to its memory.
#[derive(Debug)]
struct RewritingTx {
    port: Arc<MemoryTx>,
    memory: Memory,
    value: u8,
}

impl TxPort for RewritingTx {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        self.port.send(turn, burst, items, report)?;
        write(&self.memory, self.value);
        Ok(())
    }
}

/// A broadcast from port 0 that its sender changes each time a port has read it.
fn lab(ports: u16) -> Lab {
    let mut lab = Lab::new(ports);
    let memory: Memory = (0..BYTES).map(|_| AtomicU8::new(0x11)).collect();
    memory.iter().zip(frame(0xff, 1, 0x11)).for_each(|(to, byte)| to.store(byte, Ordering::Relaxed));
    let rx = Box::new(GuestRx { memory: Arc::clone(&memory), waiting: true });
    lab.command(Command::AddQueue { port: PortId(0), queue: 1, rx });
    for (id, value) in (1..ports).zip(0x21..) {
        let tx = RewritingTx { port: Arc::clone(&lab.wires_tx[usize::from(id)]), memory: Arc::clone(&memory), value };
        lab.outputs[usize::from(id)] = Some(Output::new(Some(Arc::new(tx)), Arc::clone(&lab.stats[usize::from(id)])));
    }
    lab
}

fn sent() -> Vec<u8> {
    let mut sent = frame(0xff, 1, 0x11);
    sent.resize(BYTES, 0x11);
    sent
}

#[test]
fn the_sensor_sees_what_the_victim_gets() {
    for (rx, tx) in [(true, false), (false, true)] {
        let mut lab = lab(4);
        let source = if rx { 0 } else { 1 };
        lab.set_tables(vec![mirror(&[(source, rx, tx)], 3, 0)]);
        let got = lab.turn();
        assert!(got[1..] == [vec![sent()], vec![sent()], vec![sent()]], "mirror of rx: {rx}");
    }
}

#[test]
fn a_capture_sees_what_the_victim_gets() {
    for direction in [Direction::RX, Direction::TX] {
        let mut lab = lab(3);
        lab.set_tables(Vec::new());
        let waker = Arc::clone(&lab.worker.control.waker);
        let capture = Arc::new(Capture::new(0, None, Arc::<Budget>::default(), waker));
        let point = CapturePoint::new(Arc::clone(&capture), 0, Arc::default());
        let mut captures = Captures::default();
        for port in 0..3 {
            captures.add(PortId(port), direction, &point);
        }
        let (done, _answered) = bounded(1);
        lab.command(Command::SetCaptures { captures: Arc::new(captures), done });
        let got = lab.turn();
        assert!(got[1..] == [vec![sent()], vec![sent()]], "{direction:?}");
        let captured: Vec<_> = std::iter::from_fn(|| capture.fetch()).map(|frame| frame.bytes.into_vec()).collect();
        assert!(!captured.is_empty() && captured.iter().all(|bytes| *bytes == sent()), "{direction:?}");
    }
}

/// Without mirrors and captures each port reads for itself: nobody pays for others, and the lab really changes the
/// frame.
#[test]
fn without_a_mirror_or_capture_each_port_reads_for_itself() {
    let mut lab = lab(3);
    lab.set_tables(Vec::new());
    let got = lab.turn();
    assert!(got[1] == [sent()] && got[2] != [sent()]);
    assert_eq!(got[2][0].len(), BYTES);
}
