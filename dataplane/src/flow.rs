//! Chooses a port's transmit ring for a frame, by a hash that is the same for all frames of one flow.
//!
//! The hash covers the MAC addresses, the outer VLAN id, and for IPv4 and IPv6 the addresses and (unfragmented TCP,
//! UDP, SCTP) ports. Only fields in the header snapshot are hashed.

#![allow(unsafe_code, reason = "lends memory of its own to a burst")]

use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::wire::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, TAG_BYTES, TAG_OFFSET, TCI_VID_MASK, TPID_C_TAG, TPID_OLD_STACKED,
    TPID_S_TAG, u16_at,
};

use crate::frame::Burst;

const TAG_TYPES: [u16; 3] = [TPID_C_TAG, TPID_S_TAG, TPID_OLD_STACKED];
/// TCP, UDP, SCTP.
const PORT_PROTOCOLS: [u8; 3] = [6, 17, 132];

/// The flow hash of the frame that begins with `snapshot`.
pub fn flow_hash(snapshot: &[u8]) -> u32 {
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    hash.add(snapshot.get(..TAG_OFFSET));
    let mut offset = TAG_OFFSET;
    for tag in 0..2 {
        if !u16_at(snapshot, offset).is_some_and(|kind| TAG_TYPES.contains(&kind)) {
            break;
        }
        if tag == 0 {
            let vlan = u16_at(snapshot, offset + 2).unwrap_or(0) & TCI_VID_MASK;
            hash.add(Some(&vlan.to_be_bytes()));
        }
        offset += TAG_BYTES;
    }
    let ip = snapshot.get(offset + 2..).unwrap_or_default();
    match u16_at(snapshot, offset) {
        Some(ETHERTYPE_IPV4) => {
            hash.add(ip.get(12..20));
            let header_bytes = usize::from(ip.first().copied().unwrap_or(0) & 0xf) * 4;
            let whole = u16_at(ip, 6).is_some_and(|fragment| fragment & IPV4_FRAGMENT == 0);
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

/// Deals `items` out to `ways` rings by flow, and calls `send` once for each ring that gets any, with its items in
/// order. Nothing is hashed if there is no choice. An error of one ring keeps no other from its frames; the first error
/// is returned.
#[inline]
pub fn spread<E>(
    burst: &mut Burst,
    items: &[TxItem],
    ways: usize,
    mut send: impl FnMut(usize, &mut Burst, &[TxItem]) -> Result<(), E>,
) -> Result<(), E> {
    if ways <= 1 {
        return send(0, burst, items);
    }
    let mut outcome = Ok(());
    for items in items.chunks(BURST_FRAMES) {
        let mut way_of = [0; BURST_FRAMES];
        for (way, item) in way_of.iter_mut().zip(items) {
            *way = flow_hash(burst.snapshot(item.frame.into())) as usize % ways;
        }
        // Bit = place in `items`: not dealt out yet.
        let mut left = (0..items.len()).fold(0u64, |left, place| left | 1 << place);
        while let Some(&way) = way_of.get(left.trailing_zeros() as usize) {
            let mut group = [TxItem::whole(0, TagEdit::KEEP); BURST_FRAMES];
            let mut len = 0;
            for (place, item) in items.iter().enumerate() {
                if left & 1 << place != 0
                    && way_of.get(place) == Some(&way)
                    && let Some(to) = group.get_mut(len)
                {
                    *to = *item;
                    len += 1;
                    left &= !(1 << place);
                }
            }
            let sent = send(way, burst, group.get(..len).unwrap_or_default());
            outcome = outcome.and(sent);
        }
    }
    outcome
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
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::frame::Segment;

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
    fn each_flow_goes_one_way_in_order_and_each_way_is_called_once() {
        let frames: Vec<Vec<u8>> = (0..64).map(|n| udp(n % 7, 0)).collect();
        let mut burst = Burst::new();
        for frame in &frames {
            let segment = Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).unwrap() };
            // SAFETY: the frames outlive the burst.
            assert!(unsafe { burst.push(0, &[segment]) });
        }
        let items: Vec<_> = (0..64).map(|n| TxItem::whole(n, TagEdit::KEEP)).collect();
        for ways in [1, 2, 3, 200] {
            let mut calls = std::collections::BTreeMap::new();
            let mut seen = 0u64;
            let outcome: Result<(), ()> = spread(&mut burst, &items, ways, |way, _, items| {
                let taken: Vec<u8> = items.iter().map(|item| item.frame).collect();
                seen = taken.iter().fold(seen, |seen, frame| seen | 1 << frame);
                assert!(way < ways && calls.insert(way, taken).is_none());
                Ok(())
            });
            assert_eq!((outcome, seen), (Ok(()), u64::MAX));
            assert_eq!(calls.values().map(Vec::len).sum::<usize>(), 64, "every item once");
            for (way, taken) in calls {
                assert!(taken.is_sorted());
                let expected = |&n: &u8| ways == 1 || flow_hash(&frames[usize::from(n)]) as usize % ways == way;
                assert!(taken.iter().all(expected));
            }
        }
    }

    #[test]
    fn stations_spread() {
        let mut used = [0; 4];
        for station in 0..=255u8 {
            let frame = [2, 0, 0, 0, 0, station, 2, 0, 0, 0, 1, 1, 8, 0, 1];
            used[flow_hash(&frame) as usize % 4] += 1;
        }
        assert!(used.iter().all(|&count| count > 30), "{used:?}");
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
