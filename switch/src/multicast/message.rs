//! Messages of IGMP, MLD and PIM as far as snooping reads them: whole frames in, validated.
//!
//! A message is taken only if everything about it is right: lengths, the checksums of the IPv4 header and of the
//! message, TTL or hop limit 1, not a fragment, a source address that may send it. The router alert option is not asked
//! for. Messages that are right and say nothing of interest are [`Message::Other`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, is_selective};
use crate::header::Header;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, PROTOCOL_ICMPV6, internet_sum, u16_at};

pub(super) const PROTOCOL_IGMP: u8 = 2;
pub(super) const PROTOCOL_PIM: u8 = 103;
pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ALL_PIM_ROUTERS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 13);
pub(super) const ALL_PIM_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xd);
pub(super) const IGMP_QUERY: u8 = 0x11;
pub(super) const IGMPV1_REPORT: u8 = 0x12;
pub(super) const IGMPV2_REPORT: u8 = 0x16;
pub(super) const IGMPV2_LEAVE: u8 = 0x17;
pub(super) const IGMPV3_REPORT: u8 = 0x22;
pub(super) const MLD_QUERY: u8 = 130;
pub(super) const MLDV1_REPORT: u8 = 131;
pub(super) const MLDV1_DONE: u8 = 132;
pub(super) const MLDV2_REPORT: u8 = 143;
/// PIM version 2, type 0.
const PIM_HELLO: u8 = 0x20;
/// Query response interval of IGMPv1, which has no field for it, tenths of a second (RFC 2236 4).
const IGMPV1_RESPONSE: u32 = 100;

/// A message that is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A router asks hosts for their groups.
    Query(Query),
    /// A router says that it is there.
    Hello(Family),
    /// A host reports its groups.
    Report(Report<'a>),
    /// A message of no interest.
    Other,
}

/// A query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The querier's address; unspecified: not a querier.
    pub source: IpAddr,
    /// It is about all groups.
    pub general: bool,
    /// Hosts answer within this time, seconds, rounded up.
    pub response_seconds: u32,
}

/// A host's wish for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The group, or some sources of it.
    Join,
    /// Nothing any more.
    Leave,
}

/// A report, done or leave message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a>(Form<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form<'a> {
    One(IpAddr, Change),
    /// Group records (RFC 3376 4.2.4, RFC 3810 5.2.5), seen to be whole.
    Records(Family, u16, &'a [u8]),
}

/// The message is not whole, or not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid message of IGMP, MLD or PIM")]
pub struct Invalid;

impl Report<'_> {
    /// The changes for groups that are not of link-local scope, in the message's order.
    pub fn changes(&self) -> impl Iterator<Item = (IpAddr, Change)> {
        let (one, records) = match self.0 {
            Form::One(group, change) => (Some((group, change)), None),
            Form::Records(family, count, bytes) => (None, Some(records(family, count, bytes))),
        };
        let listed = records.into_iter().flatten().filter_map(|record| record.ok()?);
        one.into_iter().chain(listed).filter(|(group, _)| is_selective(group))
    }
}

/// Reads the message in `frame`, which begins with `header`.
///
/// # Errors
/// [`Invalid`] if anything about it is wrong.
pub fn parse<'a>(header: &Header, frame: &'a [u8]) -> Result<Message<'a>, Invalid> {
    let packet = frame.get(usize::from(header.l3_offset)..).ok_or(Invalid)?;
    match header.ethertype {
        ETHERTYPE_IPV4 => ipv4(packet),
        ETHERTYPE_IPV6 => ipv6(packet),
        _ => Err(Invalid),
    }
}

fn ipv4(packet: &[u8]) -> Result<Message<'_>, Invalid> {
    let fixed: &[u8; 20] = packet.first_chunk().ok_or(Invalid)?;
    let (header_bytes, total_bytes) = (usize::from(fixed[0] & 0xf) * 4, usize::from(half(packet, 2)?));
    let (header, body) = packet.get(..total_bytes).and_then(|it| it.split_at_checked(header_bytes)).ok_or(Invalid)?;
    let source = Ipv4Addr::from(*fixed.get(12..).and_then(|bytes| bytes.first_chunk::<4>()).ok_or(Invalid)?);
    let fragment = half(packet, 6)? & IPV4_FRAGMENT;
    let (ttl, protocol) = (fixed[8], fixed[9]);
    let right = fixed[0] >> 4 == 4 && header_bytes >= 20 && fragment == 0 && ttl == 1;
    if !right
        || source.is_multicast()
        || source.is_broadcast()
        || internet_sum(&[header]) != 0xffff
        || internet_sum(&[body]) != 0xffff
    {
        return Err(Invalid);
    }
    match protocol {
        PROTOCOL_IGMP => igmp(source.into(), body),
        PROTOCOL_PIM if source.is_unspecified() => Err(Invalid),
        PROTOCOL_PIM => pim(Family::Ipv4, body),
        _ => Err(Invalid),
    }
}

fn igmp(source: IpAddr, body: &[u8]) -> Result<Message<'_>, Invalid> {
    let [kind, code, _, _, a, b, c, d] = *body.first_chunk().ok_or(Invalid)?;
    let group = Ipv4Addr::new(a, b, c, d);
    let one = |change| if group.is_multicast() { Ok(one(group.into(), change)) } else { Err(Invalid) };
    match kind {
        IGMP_QUERY => {
            let general = group.is_unspecified();
            // RFC 3376 7.1: other lengths are of no version.
            if !(general || group.is_multicast()) || (9..12).contains(&body.len()) {
                return Err(Invalid);
            }
            let tenths = match (code, body.len()) {
                (0, 8) => IGMPV1_RESPONSE,
                (code, 8) => code.into(),
                (code, _) => floating(code.into(), 7, 4),
            };
            Ok(Message::Query(Query { source, general, response_seconds: tenths.div_ceil(10) }))
        }
        IGMPV1_REPORT | IGMPV2_REPORT => one(Change::Join),
        IGMPV2_LEAVE => one(Change::Leave),
        IGMPV3_REPORT => listed(Family::Ipv4, body),
        _ => Ok(Message::Other),
    }
}

fn ipv6(packet: &[u8]) -> Result<Message<'_>, Invalid> {
    let fixed: &[u8; 40] = packet.first_chunk().ok_or(Invalid)?;
    let payload_bytes = usize::from(half(packet, 4)?);
    let mut body = packet.get(40..40 + payload_bytes).ok_or(Invalid)?;
    let addresses = fixed.get(8..).ok_or(Invalid)?;
    let source = Ipv6Addr::from(*addresses.first_chunk::<16>().ok_or(Invalid)?);
    let mut next = fixed[6];
    if next == HOP_BY_HOP {
        let [after, eights, ..] = *body.first_chunk::<8>().ok_or(Invalid)?;
        next = after;
        body = body.get((usize::from(eights) + 1) * 8..).ok_or(Invalid)?;
    }
    let hop_limit = fixed[7];
    let may_send = source.is_unicast_link_local() || source.is_unspecified();
    if fixed[0] >> 4 != 6 || hop_limit != 1 || !may_send {
        return Err(Invalid);
    }
    // The pseudo-header (RFC 8200 8.1): addresses, length and protocol.
    let length = u32::try_from(body.len()).map_err(|_| Invalid)?.to_be_bytes();
    let parts = [addresses, &length, &[0, 0, 0, next], body];
    if internet_sum(&parts) != 0xffff {
        return Err(Invalid);
    }
    match next {
        PROTOCOL_ICMPV6 => mld(source, body),
        PROTOCOL_PIM if source.is_unspecified() => Err(Invalid),
        PROTOCOL_PIM => pim(Family::Ipv6, body),
        _ => Err(Invalid),
    }
}

fn mld(source: Ipv6Addr, body: &[u8]) -> Result<Message<'_>, Invalid> {
    let kind = *body.first().ok_or(Invalid)?;
    if kind == MLDV2_REPORT {
        return listed(Family::Ipv6, body);
    }
    if !matches!(kind, MLD_QUERY | MLDV1_REPORT | MLDV1_DONE) {
        return Ok(Message::Other);
    }
    let group = Ipv6Addr::from(*body.get(8..).and_then(|rest| rest.first_chunk::<16>()).ok_or(Invalid)?);
    if kind == MLD_QUERY {
        let general = group.is_unspecified();
        // RFC 3810 8.1: other lengths are of no version. Only routers ask, and they have an address.
        let wrong_length = (25..28).contains(&body.len());
        if !(general || group.is_multicast()) || wrong_length || source.is_unspecified() {
            return Err(Invalid);
        }
        let code = half(body, 4)?;
        let milliseconds = if body.len() == 24 { code.into() } else { floating(code, 15, 12) };
        let response_seconds = milliseconds.div_ceil(1000);
        return Ok(Message::Query(Query { source: source.into(), general, response_seconds }));
    }
    if !group.is_multicast() {
        return Err(Invalid);
    }
    Ok(one(group.into(), if kind == MLDV1_DONE { Change::Leave } else { Change::Join }))
}

fn pim(family: Family, body: &[u8]) -> Result<Message<'_>, Invalid> {
    match body.first_chunk::<4>() {
        Some([PIM_HELLO, ..]) => Ok(Message::Hello(family)),
        Some(_) => Ok(Message::Other),
        None => Err(Invalid),
    }
}

fn one<'a>(group: IpAddr, change: Change) -> Message<'a> {
    Message::Report(Report(Form::One(group, change)))
}

/// A report with group records, which have to be whole.
fn listed(family: Family, body: &[u8]) -> Result<Message<'_>, Invalid> {
    let (count, bytes) = (half(body, 6)?, body.get(8..).ok_or(Invalid)?);
    records(family, count, bytes).try_for_each(|record| record.map(drop))?;
    Ok(Message::Report(Report(Form::Records(family, count, bytes))))
}

/// A record that is whole: the change that it reports of its group, if any.
type Record = Result<Option<(IpAddr, Change)>, Invalid>;

fn records(family: Family, count: u16, mut bytes: &[u8]) -> impl Iterator<Item = Record> {
    (0..count).map(move |_| {
        let address_bytes = match family {
            Family::Ipv4 => 4,
            Family::Ipv6 => 16,
        };
        let [kind, auxiliary_words, ..] = *bytes.first_chunk::<4>().ok_or(Invalid)?;
        let sources = usize::from(half(bytes, 2)?);
        let address = bytes.get(4..4 + address_bytes).ok_or(Invalid)?;
        let group: IpAddr = match (address.first_chunk::<16>(), address.first_chunk::<4>()) {
            (Some(octets), _) => Ipv6Addr::from(*octets).into(),
            (None, Some(octets)) => Ipv4Addr::from(*octets).into(),
            (None, None) => return Err(Invalid),
        };
        bytes = bytes.get(4 + address_bytes * (1 + sources) + 4 * usize::from(auxiliary_words)..).ok_or(Invalid)?;
        Ok(match (kind, sources) {
            // Mode is exclude, or changes to it: all sources but some.
            (2 | 4, _) => Some((group, Change::Join)),
            // Changes to include, of nothing.
            (3, 0) => Some((group, Change::Leave)),
            // Mode is include or changes to it, or sources are added.
            (1 | 3 | 5, 1..) => Some((group, Change::Join)),
            // Sources are blocked, of a group of which others may be wanted; or a kind there is not.
            _ => None,
        })
    })
}

/// A time that is written as it is below `1 << high_bit`, and else as a floating-point number (RFC 3376 4.1.1, RFC 3810
/// 5.1.3): a one, 3 bits of exponent, and `mantissa_bits`.
fn floating(code: u16, high_bit: u32, mantissa_bits: u32) -> u32 {
    let code = u32::from(code);
    if code >> high_bit == 0 {
        return code;
    }
    let one = 1 << mantissa_bits;
    (code & (one - 1) | one) << ((code >> mantissa_bits & 7) + 3)
}

fn half(bytes: &[u8], at: usize) -> Result<u16, Invalid> {
    u16_at(bytes, at).ok_or(Invalid)
}
