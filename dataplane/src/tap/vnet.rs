//! The virtio-net header in front of each frame: the only place that writes or reads it.
//!
//! **How it works.** 12 bytes, those of a virtio-net device without negotiated hashes, in the machine's byte order. No
//! offload is agreed with the kernel (`TUNSETOFFLOAD` 0), so a frame for the host leaves with an empty header. The
//! host's frames come finished; a guest's may not be, because its hypervisor hands them over as the guest left them:
//! such a frame can't be passed on whole and is dropped.
//!
//! Reference: Virtio 1.2, 5.1.6 (`struct virtio_net_hdr`); kernel `include/uapi/linux/virtio_net.h`.

use labsw_switch::DropReason;

/// Length of the header, bytes.
pub(super) const HEADER_BYTES: usize = 12;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

/// A header as it lies in front of a frame.
pub(super) type Header = [u8; HEADER_BYTES];

/// In front of a frame that is finished.
pub(super) const FINISHED: Header = [0; HEADER_BYTES];

/// Whether a received frame can be passed on as it is.
#[inline]
pub(super) fn check(header: &Header) -> Result<(), DropReason> {
    let [flags, segmentation, ..] = *header;
    if flags & NEEDS_CHECKSUM != 0 || segmentation != 0 { Err(DropReason::BadOffload) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_frames_pass_and_unfinished_ones_do_not() {
        assert_eq!(check(&FINISHED), Ok(()));
        // VIRTIO_NET_HDR_F_DATA_VALID: somebody looked at the checksum already.
        assert_eq!(check(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Ok(()));
        assert_eq!(check(&[1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]), Err(DropReason::BadOffload));
        assert_eq!(check(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DropReason::BadOffload));
    }
}
