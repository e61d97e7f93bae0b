//! Control messages of multicast: read as a whole and given to the switch's snooping, before the burst's frames are
//! sent.
//!
//! A frame is read once more, from its snapshot and the bytes behind, into the worker's own memory; what is judged
//! there can't be changed by its sender any more.

use labsw_switch::PortId;
use labsw_switch::forward::{Forwarder, TagEdit, TxItem};
use labsw_switch::multicast::MAX_MESSAGE_BYTES;

use super::Worker;
use crate::clock::seconds;

/// Room for one message.
#[derive(Debug)]
pub(super) struct Message(Box<[u8]>);

impl Message {
    pub(super) fn new() -> Message {
        Message(vec![0; MAX_MESSAGE_BYTES].into_boxed_slice())
    }
}

impl Worker {
    /// Lets the messages of the burst teach what they say.
    #[cold]
    #[inline(never)]
    pub(super) fn snoop(&mut self, ingress: PortId) {
        // What is learned from is what leaves.
        self.burst.copy_frames(self.egress.messages());
        let forwarder =
            Forwarder { tables: &self.tables, fdb: &self.shared.fdb, now_seconds: seconds(self.now.now_ns) };
        for index in (0..64u8).filter(|index| self.egress.messages() >> index & 1 == 1) {
            let Some(mut reader) = self.burst.reader(&TxItem::whole(index, TagEdit::KEEP)) else { continue };
            // The MTU of any port leaves room; a longer one would be no message.
            let Some(bytes) = self.message.0.get_mut(..reader.remaining() as usize) else { continue };
            reader.read_to(bytes);
            forwarder.observe(ingress, bytes);
        }
    }
}
