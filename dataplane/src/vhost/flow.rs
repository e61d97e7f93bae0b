//! Which of a guest's receive queues a frame goes to: a hash that is the same for all frames of one flow.
//!
//! Hashed are the MAC addresses, the outer VLAN id, and for IPv4 and IPv6 the addresses and (unfragmented TCP, UDP,
//! SCTP) ports. Only the header snapshot is looked at; what is not there is not hashed.

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TAG_TYPES: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// TCP, UDP, SCTP.
const PORT_PROTOCOLS: [u8; 3] = [6, 17, 132];

/// The flow hash of the frame that begins with `snapshot`.
pub fn flow_hash(snapshot: &[u8]) -> u32 {
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    hash.add(snapshot.get(..12));
    let mut offset = 12;
    for tag in 0..2 {
        if !big_endian(snapshot, offset).is_some_and(|kind| TAG_TYPES.contains(&kind)) {
            break;
        }
        if tag == 0 {
            let vlan = big_endian(snapshot, offset + 2).unwrap_or(0) & 0xfff;
            hash.add(Some(&vlan.to_be_bytes()));
        }
        offset += 4;
    }
    let ip = snapshot.get(offset + 2..).unwrap_or_default();
    match big_endian(snapshot, offset) {
        Some(ETHERTYPE_IPV4) => {
            hash.add(ip.get(12..20));
            let header_bytes = usize::from(ip.first().copied().unwrap_or(0) & 0xf) * 4;
            let whole = big_endian(ip, 6).is_some_and(|fragment| fragment & 0x3fff == 0);
            if whole && ip.get(9).is_some_and(|protocol| PORT_PROTOCOLS.contains(protocol)) {
                hash.add(ip.get(header_bytes..header_bytes + 4));
            }
        }
        Some(ETHERTYPE_IPV6) => {
            hash.add(ip.get(8..40));
            if ip.get(6).is_some_and(|next| PORT_PROTOCOLS.contains(next)) {
                hash.add(ip.get(40..44));
            }
        }
        _ => {}
    }
    hash.finish()
}

fn big_endian(bytes: &[u8], offset: usize) -> Option<u16> {
    match bytes.get(offset..offset + 2) {
        Some(&[high, low]) => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// FNV-1a over 32-bit words, with a final mix because only few bits of it are used.
struct Hash(u64);

impl Hash {
    fn add(&mut self, bytes: Option<&[u8]>) {
        for chunk in bytes.unwrap_or_default().chunks(4) {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.0 = (self.0 ^ u64::from(u32::from_ne_bytes(word))).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "the mixed upper half")]
        let upper = ((self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32;
        upper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(source_port: u8, fragment: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, fragment, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0, source_port, 0, 9, 0, 20, 0, 0]);
        frame
    }

    #[test]
    fn ports_spread_and_fragments_stay_together() {
        let spread: std::collections::HashSet<u32> = (0..64).map(|port| flow_hash(&udp(port, 0)) % 4).collect();
        assert_eq!(spread.len(), 4);
        assert_eq!(flow_hash(&udp(1, 0x20)), flow_hash(&udp(2, 0x20)));
        assert_eq!(flow_hash(&udp(7, 0)), flow_hash(&udp(7, 0)));
    }

    #[test]
    fn any_length_is_fine() {
        let frame = udp(1, 0);
        for len in 0..frame.len() {
            flow_hash(&frame[..len]);
        }
        flow_hash(&[0x81; 128]);
    }
}
