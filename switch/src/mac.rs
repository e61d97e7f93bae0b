//! Ethernet (MAC) addresses, IEEE 802-2014 clause 8.

use std::fmt;
use std::str::FromStr;

/// A 48-bit MAC address: the low 48 bits of an integer, first byte in transmission order highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(u64);

/// Text that is not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address (six hexadecimal bytes, as in 52:54:00:12:34:56)")]
pub struct InvalidMac;

impl Mac {
    /// The broadcast address.
    pub const BROADCAST: Mac = Mac::new([0xff; 6]);
    /// Where MAC control frames (PAUSE, PFC) go (802.3 annex 31A).
    pub const MAC_CONTROL: Mac = Mac::new([0x01, 0x80, 0xc2, 0, 0, 1]);

    /// The address with these bytes, in transmission order.
    #[inline]
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Mac {
        Mac(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Its bytes, in transmission order.
    pub fn octets(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// True for a group (multicast or broadcast) address.
    #[inline]
    pub fn is_group(self) -> bool {
        self.0 >> 40 & 1 != 0
    }

    /// True for the link-local addresses 01-80-C2-00-00-00 to -0F (802.1Q table 8-1).
    #[inline]
    pub fn is_link_local(self) -> bool {
        self.0 >> 4 == 0x0180_c200_0000 >> 4
    }

    /// The address as the low 48 bits of an integer, first byte highest.
    #[inline]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// From the low 48 bits of an integer, first byte highest.
    #[inline]
    pub fn from_u64(bits: u64) -> Mac {
        Mac(bits & 0xffff_ffff_ffff)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.octets();
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Mac, InvalidMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or(InvalidMac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(InvalidMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| InvalidMac)?;
        }
        if parts.next().is_some() {
            return Err(InvalidMac);
        }
        Ok(Mac::new(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_rubbish_is_refused() {
        let mac: Mac = "52:54:00:aB:cd:ef".parse().unwrap();
        assert_eq!(mac, Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 0xef]));
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        assert_eq!(Mac::from_u64(mac.to_u64()), mac);
        for bad in
            ["", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "5:54:00:ab:cd:ef", "+2:54:00:ab:cd:ef", "zz:54:00:ab:cd:ef"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(InvalidMac), "{bad}");
        }
    }

    #[test]
    fn group_and_link_local() {
        assert!(Mac::BROADCAST.is_group());
        assert!(Mac::new([1, 0x80, 0xc2, 0, 0, 0x0e]).is_link_local());
        assert!(!Mac::new([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
        assert!(!Mac::new([0x52, 0, 0, 0, 0, 1]).is_group());
    }
}
