//! The frame with which the switch announces a guest that cannot do so itself.
//!
//! A guest that was moved answers at another place. Frames for it go to the old place until the switches between hear
//! from the guest. Guests with VIRTIO_NET_F_GUEST_ANNOUNCE say so themselves; for all others the front end has the
//! back end send a RARP request with the guest's address as its source (VHOST_USER_SEND_RARP), which asks for nothing
//! that anybody answers.
//!
//! Reference: RFC 903; vhost-user.rst, "VHOST_USER_SEND_RARP".

/// Bytes of the frame: the shortest that Ethernet has, without its checksum.
const FRAME_BYTES: usize = 60;
/// Ethernet type of RARP, then of the request: Ethernet, IPv4, their lengths, "request reverse".
const RARP_REQUEST: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];

/// A RARP request of the station `mac` about itself.
pub(super) fn rarp_request(mac: [u8; 6]) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..22].copy_from_slice(&RARP_REQUEST);
    // Sender and target are the same station, whose IPv4 address is unknown.
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_a_broadcast_of_the_station_about_itself() {
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        let frame = rarp_request(mac);
        assert_eq!(frame[..14], [&[0xff; 6][..], &mac, &[0x80, 0x35]].concat());
        let request = [&[0, 1, 8, 0, 6, 4, 0, 3][..], &mac, &[0; 4], &mac, &[0; 4]].concat();
        assert_eq!(frame[14..42], request);
        assert!(frame[42..].iter().all(|&byte| byte == 0));
    }
}
