//! A port whose frames live on the heap, for tests: its frames come from a [`Wire`] and go to it.

#![allow(unsafe_code, reason = "tests lend memory of their own")]

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use labsw_switch::DropReason;
use labsw_switch::forward::TxItem;

use crate::clock::NEVER;
use crate::frame::{Burst, Segment};
use crate::losses::TxReport;
use crate::offload::{HEADER_BYTES, Offers};
use crate::port::{Fault, RxQueue, Turn, TxPort};
use crate::stats::PortDelta;

/// The far end of a memory port, as a test sees it.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub to_switch: VecDeque<Vec<u8>>,
    pub from_switch: Vec<Vec<u8>>,
    /// This frame arrives without end.
    pub endless: Option<Vec<u8>>,
    /// Fail the next send or receive.
    pub broken: bool,
    /// Its bursts can be moved.
    pub movable: bool,
    /// True if the last burst that was sent could be moved.
    pub sent_movable: bool,
    /// The frames of the last burst whose buffers it could have had.
    pub exclusive: u64,
    /// Frames the port takes before it is full.
    pub room: Option<usize>,
    /// The virtio-net header of each frame to the switch, from a sender that may ask for every offload.
    pub asks: Option<[u8; HEADER_BYTES]>,
    /// The worker can sleep for ever: nothing more arrives.
    pub quiet: bool,
    /// The offloads that the port accepts.
    pub offers: Offers,
    /// The headers of the frames in `from_switch`.
    pub asked: Vec<[u8; HEADER_BYTES]>,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct MemoryRx {
    wire: Arc<Mutex<Wire>>,
    held: Vec<Vec<u8>>,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct MemoryTx(Arc<Mutex<Wire>>);

/// Both halves of a port, and its wire.
pub(crate) fn memory_port() -> (Box<MemoryRx>, Arc<MemoryTx>, Arc<Mutex<Wire>>) {
    let wire = Arc::new(Mutex::new(Wire::default()));
    let rx = Box::new(MemoryRx { wire: Arc::clone(&wire), held: Vec::new() });
    (rx, Arc::new(MemoryTx(Arc::clone(&wire))), wire)
}

impl RxQueue for MemoryRx {
    fn receive(&mut self, _turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        let mut wire = self.wire.lock().unwrap();
        if wire.broken {
            return Err(Fault::new(7, "broken on purpose"));
        }
        assert!(self.held.is_empty(), "release before receive");
        if wire.movable {
            burst.set_movable();
        }
        if let Some(frame) = wire.endless.clone() {
            wire.to_switch.push_back(frame);
        }
        while !burst.is_full()
            && let Some(frame) = wire.to_switch.pop_front()
        {
            stats.received(u32::try_from(frame.len()).unwrap());
            self.held.push(frame);
            let frame = self.held.last().unwrap();
            let segment = Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).unwrap() };
            // SAFETY: the heap buffer of `frame` stays in `held` until release.
            assert!(unsafe { burst.push(0, &[segment]) });
            if let Some(asks) = wire.asks {
                burst.ask(&asks, Offers::ALL).unwrap();
            }
        }
        Ok(())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        assert_eq!(burst.len(), self.held.len());
        self.held.clear();
        burst.clear();
        Ok(())
    }

    /// Nothing tells a sleeping worker that a frame has arrived.
    fn next_due(&self, turn: &Turn) -> u64 {
        if self.wire.lock().unwrap().quiet { NEVER } else { turn.now_ns + 1_000_000 }
    }

    fn arm(&mut self, _turn: &Turn) -> bool {
        let wire = self.wire.lock().unwrap();
        !wire.to_switch.is_empty() || wire.endless.is_some()
    }

    fn disarm(&mut self) {}

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn fail(&mut self) {
        self.wire = Arc::default();
    }
}

impl TxPort for MemoryTx {
    fn send(&self, _turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let mut wire = self.0.lock().unwrap();
        if wire.broken {
            report.lose_all(items, DropReason::NotConnected);
            return Err(Fault::new(7, "broken on purpose"));
        }
        wire.sent_movable = burst.is_movable();
        wire.exclusive = burst.exclusive();
        for item in items {
            let Some(mut reader) = burst.reader(item) else {
                report.lose(item.frame, DropReason::Runt);
                continue;
            };
            if wire.room == Some(0) {
                report.lose(item.frame, DropReason::GuestRingFull);
                continue;
            }
            wire.room = wire.room.map(|room| room - 1);
            let mut frame = vec![0; reader.remaining() as usize];
            // SAFETY: `frame` is writable for its whole length and is new.
            unsafe { reader.read(frame.as_mut_ptr(), u32::try_from(frame.len()).unwrap()) };
            report.sent(u32::try_from(frame.len()).unwrap());
            wire.from_switch.push(frame);
            let asked = burst.asked(item.frame.into()).encode(wire.offers, item.edit.growth_bytes());
            wire.asked.push(asked.expect("what it does not accept never reaches it"));
        }
        Ok(())
    }

    fn offers(&self) -> Offers {
        self.0.lock().unwrap().offers
    }
}

/// A frame from host `src` to host `dst` (0xff: broadcast) with a payload that tells it apart.
pub(crate) fn frame(dst: u8, src: u8, payload: u8) -> Vec<u8> {
    let mac = |host: u8| if host == 0xff { [0xff; 6] } else { [2, 0, 0, 0, 0, host] };
    let mut bytes = [mac(dst), mac(src)].concat();
    bytes.extend([0x08, 0x00]);
    bytes.resize(200, payload);
    bytes
}
