//! The messages that explain most of a lab's first minutes: DHCP, and the question of a DNS message.
//!
//! References: RFC 1035 4.1 (DNS), RFC 6762 (multicast DNS), RFC 2131, 2132 (DHCP).

use std::net::Ipv4Addr;

use labsw_switch::Mac;

const DNS_PORTS: [u16; 2] = [53, 5353];
const DHCP_PORTS: [u16; 2] = [67, 68];
/// The longest name, as RFC 1035 has it.
const MAX_NAME_BYTES: usize = 255;
/// The types of records that a lab asks for; others are shown by number.
const RECORD_TYPES: [(u16, &str); 9] =
    [(1, "A"), (2, "NS"), (5, "CNAME"), (6, "SOA"), (12, "PTR"), (15, "MX"), (16, "TXT"), (28, "AAAA"), (33, "SRV")];

/// The message in a UDP datagram between these ports, in words; `None` if it is of another protocol, or incomplete.
pub(super) fn message(ports: [u16; 2], payload: &[u8]) -> Option<String> {
    let is_between = |known: [u16; 2]| ports.iter().any(|port| known.contains(port));
    if is_between(DNS_PORTS) {
        dns(payload)
    } else if is_between(DHCP_PORTS) {
        dhcp(payload)
    } else {
        None
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// `DNS 4660 A? example.com`, or `DNS 4660 A example.com: 2 answers`.
fn dns(message: &[u8]) -> Option<String> {
    const HEADER_BYTES: usize = 12;
    const RESPONSE: u16 = 0x8000;
    let (id, flags) = (u16_at(message, 0)?, u16_at(message, 2)?);
    let (questions, answers) = (u16_at(message, 4)?, u16_at(message, 6)?);
    let is_response = flags & RESPONSE != 0;
    let question = match questions {
        0 => String::new(),
        _ => {
            let (name, end) = name(message, HEADER_BYTES)?;
            let kind = u16_at(message, end)?;
            let known = RECORD_TYPES.iter().find(|(known, _)| *known == kind);
            let kind = known.map_or_else(|| format!("type {kind}"), |(_, name)| (*name).to_owned());
            format!(" {kind}{} {name}", if is_response { "" } else { "?" })
        }
    };
    let outcome = match (is_response, flags & 0xf) {
        (false, _) => String::new(),
        (true, 0) => format!(": {answers} answer{}", if answers == 1 { "" } else { "s" }),
        (true, 2) => ": server failure".to_owned(),
        (true, 3) => ": no such name".to_owned(),
        (true, 5) => ": refused".to_owned(),
        (true, other) => format!(": error {other}"),
    };
    Some(format!("DNS {id}{question}{outcome}"))
}

/// The name at this place, and the place behind it. A question comes first and so is never compressed.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    while name.len() <= MAX_NAME_BYTES {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 if name.is_empty() => return Some((".".to_owned(), at)),
            0 => return Some((name, at)),
            1..=63 => {
                let label = message.get(at..at + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                name += &String::from_utf8_lossy(label);
                at += length;
            }
            _ => return None,
        }
    }
    None
}

/// `DHCP discover from 52:54:00:00:00:01, host web`, or `DHCP ack 10.0.0.5 to 52:54:00:00:00:01`.
fn dhcp(message: &[u8]) -> Option<String> {
    const YOUR_ADDRESS: usize = 16;
    const CLIENT_MAC: usize = 28;
    const COOKIE: usize = 236;
    const REQUESTED_ADDRESS: u8 = 50;
    const MESSAGE_TYPE: u8 = 53;
    const HOST_NAME: u8 = 12;
    if message.get(COOKIE..COOKIE + 4)? != [0x63, 0x82, 0x53, 0x63] {
        return None;
    }
    let options = message.get(COOKIE + 4..)?;
    let octets = |at: usize| message.get(at..at + 6).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    let client = Mac::new(octets(CLIENT_MAC)?);
    let kind = match option(options, MESSAGE_TYPE)? {
        [1] => "discover",
        [2] => "offer",
        [3] => "request",
        [4] => "decline",
        [5] => "ack",
        [6] => "nak",
        [7] => "release",
        [8] => "inform",
        _ => return None,
    };
    let yours = address(message.get(YOUR_ADDRESS..YOUR_ADDRESS + 4)?).filter(|address| !address.is_unspecified());
    if matches!(kind, "offer" | "ack" | "nak") {
        let yours = yours.map(|address| format!(" {address}")).unwrap_or_default();
        return Some(format!("DHCP {kind}{yours} to {client}"));
    }
    let wanted = option(options, REQUESTED_ADDRESS).and_then(address);
    let wanted = wanted.map(|address| format!(" {address}")).unwrap_or_default();
    let host = option(options, HOST_NAME).map(|name| format!(", host {}", String::from_utf8_lossy(name)));
    Some(format!("DHCP {kind}{wanted} from {client}{}", host.unwrap_or_default()))
}

/// The value of an option of DHCP.
fn option(options: &[u8], wanted: u8) -> Option<&[u8]> {
    const PAD: u8 = 0;
    const END: u8 = 255;
    let mut at = 0;
    loop {
        match *options.get(at)? {
            PAD => at += 1,
            END => return None,
            code => {
                let length = usize::from(*options.get(at + 1)?);
                let value = options.get(at + 2..at + 2 + length)?;
                if code == wanted {
                    return Some(value);
                }
                at += 2 + length;
            }
        }
    }
}
