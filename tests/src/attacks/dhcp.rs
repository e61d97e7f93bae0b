//! A DHCP server that answers from another port than servers do.
//!
//! Reference: RFC 2131, 2132.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::hostile::FrontEnd;
use crate::packet::{BROADCAST, Frame, mac};

/// The address that the server leases.
pub const LEASED: [u8; 4] = [10, 66, 66, 99];
const SERVER: [u8; 4] = [10, 66, 66, 1];
/// Where servers answer from, and clients listen.
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// Ethernet, IPv4 without options, UDP.
const HEADERS: usize = 14 + 20 + 8;
const COOKIE_OFFSET: usize = 236;

/// Answers what clients ask, from UDP port `port`, until told to stop.
pub fn serve(front: &mut FrontEnd, port: u16, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some(frame) = front.receive_frame(Duration::from_millis(20)) else { continue };
        if let Some(answer) = answer(&frame, port) {
            front.send_frame(&answer);
        }
    }
}

/// The answer to a client's message: an offer, or an acknowledgement.
fn answer(frame: &[u8], port: u16) -> Option<Vec<u8>> {
    let asks = frame.get(12..14)? == [8, 0] && frame.get(23)? == &17 && frame.get(36..38)? == SERVER_PORT.to_be_bytes();
    let message = frame.get(HEADERS..)?;
    if !asks || message.get(COOKIE_OFFSET..COOKIE_OFFSET + 4)? != COOKIE {
        return None;
    }
    // The first option is the kind of message: a discovery is offered, a request acknowledged.
    let kind = if message.get(COOKIE_OFFSET + 6)? == &1 { 2 } else { 5 };
    let mut reply = [&[2, 1, 6, 0][..], &message[4..8], &[0, 0], &message[10..12], &[0; 4], &LEASED, &SERVER].concat();
    reply.extend([&[0; 4], &message[28..44]].concat());
    reply.resize(COOKIE_OFFSET, 0);
    reply.extend(COOKIE);
    let lease = [&[53, 1, kind, 54, 4][..], &SERVER, &[51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 255, 0, 255]].concat();
    reply.extend(lease);
    let length = |bytes: usize| u16::try_from(bytes).map(u16::to_be_bytes).unwrap_or_default();
    let udp = [&port.to_be_bytes()[..], &CLIENT_PORT.to_be_bytes(), &length(8 + reply.len()), &[0; 2], &reply].concat();
    let mut ip = [&[0x45, 0][..], &length(20 + udp.len()), &[0, 1, 0, 0, 64, 17, 0, 0], &SERVER, &[255; 4]].concat();
    let sum = ip.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    ip[10..12].copy_from_slice(&(!folded).to_be_bytes());
    Some(Frame::new(BROADCAST, mac(66)).ethertype(0x0800).payload(&[ip, udp].concat()).build())
}
