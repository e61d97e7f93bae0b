//! A guest's driver at the far end of a vhost-user port, with split or packed rings, which kicks only when the switch
//! asks for it. Frames go out by [`Station::try_send`] and come in by [`Station::receive`], which puts their buffers
//! back.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::frontend::{self, Front};
use crate::guest::packed::Driver;
use crate::guest::{Guest, RING_PACKED};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Length of a receive buffer, bytes.
const BUFFER: u32 = 2048;
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Station {
    guest: Guest,
    /// Its packed rings, if it has such: receive, transmit.
    packed: Option<[Driver; 2]>,
    /// The connection; the port is up as long as it is open.
    pub front: Front,
}

impl Station {
    /// A guest with these features on the port's socket, whose rings have `ring` entries; all receive buffers are
    /// there.
    pub fn attach(socket: &Path, features: u64, ring: u16) -> Station {
        let mut guest = Guest::new(features, ring);
        let mut packed =
            (features & RING_PACKED != 0).then(|| [RECEIVE, TRANSMIT].map(|ring| Driver::new(&guest, ring)));
        for _ in 0..ring {
            match &mut packed {
                Some([receive, _]) => assert!(receive.post(&guest, &[BUFFER])),
                None => guest.post(RECEIVE, 1, BUFFER, None),
            }
        }
        let front = Front(UnixStream::connect(socket).unwrap());
        front.0.set_read_timeout(Some(PATIENCE)).unwrap();
        front.send(frontend::SET_OWNER, &[], &[]);
        front.send(frontend::SET_FEATURES, &[features | frontend::PROTOCOL], &[]);
        front.memory_table(&guest);
        for ring in [RECEIVE, TRANSMIT] {
            front.ring(&guest, ring);
            front.call(&guest, ring);
            front.enable(ring as u64, 1);
        }
        Station { guest, packed, front }
    }

    /// Sends a frame if the ring has room.
    pub fn try_send(&mut self, frame: &[u8]) -> bool {
        match &mut self.packed {
            Some([_, transmit]) => {
                transmit.reap(&self.guest);
                let sent = transmit.transmit(&self.guest, frame, &[]);
                transmit.kick(&self.guest);
                sent
            }
            None => {
                self.guest.reap(TRANSMIT);
                if self.guest.free_entries(TRANSMIT) == 0 {
                    return false;
                }
                let before = self.guest.rings[TRANSMIT].next_avail;
                self.guest.transmit(TRANSMIT, frame, &[]);
                self.guest.kick(TRANSMIT, before);
                true
            }
        }
    }

    /// The frames that are there already.
    pub fn receive(&mut self) -> Vec<Vec<u8>> {
        match &mut self.packed {
            Some([receive, _]) => {
                let frames = receive.received(&self.guest);
                frames.iter().for_each(|_| assert!(receive.post(&self.guest, &[BUFFER])));
                frames
            }
            None => {
                let frames = self.guest.received(RECEIVE);
                self.guest.post(RECEIVE, frames.len(), BUFFER, None);
                frames
            }
        }
    }
}
