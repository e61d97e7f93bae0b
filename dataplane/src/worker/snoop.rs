//! Control messages of multicast: read as a whole and given to the switch's snooping, before the burst's frames are
//! sent.
//!
//! A frame is read once more, from its snapshot and the bytes after it, into the worker's own memory; there its sender
//! can't change the bytes that are judged.

use labsw_switch::PortId;
use labsw_switch::forward::{Forwarder, TagEdit, TxItem};
use labsw_switch::multicast::MAX_MESSAGE_BYTES;

use super::pipeline::Pipeline;

/// Room for one message.
#[derive(Debug)]
pub(super) struct Message(Box<[u8]>);

impl Message {
    pub(super) fn new() -> Message {
        Message(vec![0; MAX_MESSAGE_BYTES].into_boxed_slice())
    }

    /// Has the switch learn from the messages of the burst.
    #[cold]
    #[inline(never)]
    pub(super) fn snoop(&mut self, pipeline: &mut Pipeline, forwarder: Forwarder<'_>, ingress: PortId) {
        let Pipeline { burst, egress, .. } = pipeline;
        // The bytes that are learned from are the bytes that leave.
        burst.copy_frames(egress.messages());
        for index in (0..64u8).filter(|index| egress.messages() >> index & 1 == 1) {
            let Some(mut reader) = burst.reader(&TxItem::whole(index, TagEdit::KEEP)) else { continue };
            // The MTU of any port leaves room; a longer frame would be no message.
            let Some(bytes) = self.0.get_mut(..reader.remaining() as usize) else { continue };
            reader.read_to(bytes);
            forwarder.observe(ingress, bytes);
        }
    }
}
