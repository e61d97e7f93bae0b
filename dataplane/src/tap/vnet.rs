//! The virtio-net header in front of each frame: the only place that writes or reads it.
//!
//! **How it works.** 12 bytes, those of a virtio-net device without negotiated hashes, in the machine's byte order. A
//! frame goes to the kernel with its offload request in the header, if the kernel takes that ([`to_kernel`]). The same
//! is agreed for the other direction (`TUNSETOFFLOAD`). The program behind a guest's interface may hand over the
//! requests of its guest, in which case the packet socket says so.
//!
//! Reference: Virtio 1.3, 5.1.6 (`struct virtio_net_hdr`); kernel `include/uapi/linux/virtio_net.h`.

#![allow(unsafe_code, reason = "system calls that gather and scatter")]

use labsw_switch::DropReason;
use labsw_switch::forward::TxItem;

use crate::frame::Burst;
use crate::offload::{self, Offers};
use crate::virtio::header::{CSUM_START, HEADER_BYTES, NEEDS_CSUM};

/// The offloads that the kernel, or a guest behind it, may leave to the switch.
const FROM_KERNEL: Offers = Offers::ALL;

/// The end of the interface that a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `/dev/net/tun`; with `udp` the kernel knows UDP segmentation.
    Tun { udp: bool },
    /// A packet socket.
    Interface,
}

/// The offloads that the switch may leave to the kernel.
pub(super) fn to_kernel(end: End) -> Offers {
    match end {
        End::Tun { udp } => Offers { udp, ..Offers::ALL },
        // Past the host's queues the kernel cuts no segments: it drops a frame that the device can't take whole, and
        // the guest's program decides what the device takes.
        End::Interface => Offers { csum: true, verified: true, ..Offers::NONE },
    }
}

/// A header as it lies in front of a frame.
pub(super) type Header = [u8; HEADER_BYTES];

/// Records the offloads that `header` leaves to finish for the last frame of `burst`; the kernel reported the frame's
/// outer VLAN tag, of `tag_bytes`, beside it. Takes the frame out again if they can't be finished.
#[inline]
pub(super) fn ask(header: Header, tag_bytes: u16, burst: &mut Burst) -> Result<(), DropReason> {
    let [asks @ .., _, _] = header;
    if asks == [0; offload::HEADER_BYTES] { Ok(()) } else { ask_for(asks, tag_bytes, burst) }
}

fn ask_for(mut asks: [u8; offload::HEADER_BYTES], tag_bytes: u16, burst: &mut Burst) -> Result<(), DropReason> {
    if asks[0] & NEEDS_CSUM != 0 {
        let start = u16::from_le_bytes([asks[CSUM_START], asks[CSUM_START + 1]]);
        // Too large a sum is behind any frame's end, and so refused.
        [asks[CSUM_START], asks[CSUM_START + 1]] = start.saturating_add(tag_bytes).to_le_bytes();
    }
    burst.ask(&asks, FROM_KERNEL).map_err(|refused| refused.drop_reason())
}

/// The header in front of a frame that is sent; `None` if it can't be said.
#[inline]
pub(super) fn header(burst: &Burst, item: &TxItem) -> Option<Header> {
    let asks = burst.asked(item.frame.into()).encode(Offers::ALL, item.edit.growth_bytes())?;
    let mut header = [0; HEADER_BYTES];
    header[..asks.len()].copy_from_slice(&asks);
    Some(header)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use labsw_switch::forward::TagEdit;

    use super::*;
    use crate::frame::Segment;

    fn burst_of(frame: &[u8]) -> Burst {
        let mut burst = Burst::new();
        // SAFETY: the frames of these tests outlive their bursts.
        assert!(unsafe {
            burst.push_whole(0, Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).unwrap() })
        });
        burst
    }

    /// A TCP segment over IPv4 of 100 bytes, with a VLAN tag if `tag_bytes` is 4.
    fn segment(tag_bytes: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if tag_bytes == 4 {
            frame.extend([0x81, 0, 0, 10]);
        }
        frame.extend([8, 0, 0x45, 0, 0, 86, 0, 0, 0, 0, 64, 6]);
        frame.resize(100 + usize::from(tag_bytes), 0);
        frame
    }

    #[test]
    fn what_comes_in_goes_out_again_and_the_tag_beside_counts() {
        for (header, tag_bytes, out) in [
            ([0; 12], 4, [0; 12]),
            // VIRTIO_NET_HDR_F_DATA_VALID: the checksum was verified already.
            ([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], 0, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]),
            ([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], 4, [1, 0, 0, 0, 0, 0, 38, 0, 16, 0, 0, 0]),
        ] {
            let frame = segment(tag_bytes);
            let mut burst = burst_of(&frame);
            assert_eq!(ask(header, tag_bytes.into(), &mut burst), Ok(()));
            assert_eq!(self::header(&burst, &TxItem::whole(0, TagEdit::KEEP)), Some(out));
        }
    }

    #[test]
    fn what_cannot_be_done_is_taken_out() {
        let frame = [0; 100];
        for header in [
            // Behind the frame, at once and with the tag; segments of what is neither TCP nor UDP.
            [1, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 5, 34, 0, 16, 0, 0, 0],
            [1, 5, 0, 0, 0, 5, 34, 0, 6, 0, 0, 0],
        ] {
            let mut burst = burst_of(&frame);
            assert_eq!(ask(header, 4, &mut burst), Err(DropReason::BadOffload));
            assert!(burst.is_empty());
        }
    }
}
