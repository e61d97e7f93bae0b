//! The programs between a container's veth pair and the TAP interface that stands in for it: their instructions.
//!
//! **How it works.** A frame that the container sends arrives at the switch's end of the pair. A program there
//! ([`from_station`]) looks its source and its destination up in the switch's forwarding database, which lies in a map
//! ([`Place`] says where), and hands it to the other container's end, or to the TAP interface, where the switch reads
//! it. [`onward`] hands frames that the switch writes into the TAP interface to the pair. Frames under way carry
//! [`MARK`], which the kernel takes away when they enter another network namespace; [`marked_only`] drops all others,
//! which the host sends by itself.
//!
//! **Into the container.** A frame leaves by the switch's end of the other pair, and the kernel queues it for the other
//! end. The short way, `bpf_redirect_peer`, puts it into the receive path of that end at once. There it is taken for
//! one to the container itself, so only frames to the address of that end go this way (`STATION` in the record). The
//! kernel has it for ends in another network namespace.
//!
//! **Invariants.** A frame is passed in the kernel only if every step of the decision about it is known to end in
//! "deliver": at most one tag, no protocol between neighbours, source known at this port, destination known at another
//! one, neither aged, both ports open and in its VLAN, no longer than the MTU of either. Everything else goes to the
//! switch, which decides. The look-up is that of [`labsw_switch::fdb`], instruction for instruction; the one thing that
//! it writes there is the time stamp of the source. Tags are edited as by [`labsw_switch::vlan::edit`]; before such a
//! program sees a frame, the kernel has taken the outer tag out of it, and keeps it beside.
//!
//! References: kernel `include/uapi/linux/bpf.h` (`struct __sk_buff`, helpers), `Documentation/bpf/`.

use std::os::fd::RawFd;

use labsw_switch::MAX_PORTS;

use self::text::{Label, Text, low};
use super::bpf::Instruction;

mod text;

/// On frames under way between a pair and its TAP interface, or between two pairs.
const MARK: i32 = 0x1ab5_0001;
/// Bytes of the head of the map.
pub(crate) const HEAD_BYTES: usize = 64;
/// Bytes of the record of a port.
pub(crate) const PORT_BYTES: usize = 64 + 512;
/// Offset of the buckets of the forwarding database in the map.
pub(crate) const BUCKETS_AT: usize = HEAD_BYTES + PORT_BYTES * MAX_PORTS;

// Offsets in the head and in a port's record (`crate::fast_path`).
const AGEING: i16 = 0;
const GATE: i16 = 0;
const RX_FRAMES: i16 = 8;
const RX_BYTES: i16 = 16;
const TX_FRAMES: i16 = 24;
const TX_BYTES: i16 = 32;
const STATION: i16 = 40;
const TAGGED: i16 = 64;

// Offsets in `struct __sk_buff`.
const SKB_LEN: i16 = 0;
const SKB_MARK: i16 = 8;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_VLAN_TCI: i16 = 24;
const SKB_VLAN_PROTO: i16 = 28;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

// Helpers.
const VLAN_PUSH: i32 = 18;
const VLAN_POP: i32 = 19;
const REDIRECT: i32 = 23;
const CHANGE_TYPE: i32 = 32;
const REDIRECT_PEER: i32 = 155;
const KTIME_GET_COARSE_NS: i32 = 160;
const CHECK_MTU: i32 = 163;
const MTU_CHECK_SEGMENTS: i32 = 1;

/// The type of a frame to the address of the interface that it is received at.
const PACKET_HOST: i32 = 0;
const TCX_PASS: i32 = 0;
const TCX_DROP: i32 = 2;
const CMPXCHG: i32 = 0xf1;
const NS_PER_SECOND: i32 = 1_000_000_000;
const HALF_OF_TIME: i32 = i32::MAX;

/// Ethertypes as a load of two bytes gives them on a little-endian machine: C-tag, S-tag, MAC control.
const NOT_HERE: [i32; 3] = [C_TAG, 0xa888, 0x0888];
const C_TAG: i32 = 0x0081;
const TAG_BYTES: i32 = 4;

/// Where on the stack something is kept.
const VLAN: i16 = -8;
const NOW: i16 = -16;
const KEY: i16 = -24;
const MTU: i16 = -32;
const TAG_IN: i16 = -40;
const TAG_OUT: i16 = -48;

/// Where the forwarding database is, and how keys are found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Place {
    /// [`labsw_switch::fdb::Layout::seed`].
    pub seed: u64,
    /// [`labsw_switch::fdb::Layout::multiplier`].
    pub multiplier: u64,
    /// [`labsw_switch::fdb::Layout::buckets`].
    pub buckets: u32,
}

/// Frames that the switch sends: they leave by interface `to`.
pub(super) fn onward(to: u32) -> Vec<Instruction> {
    let mut text = Text::new(0);
    text.put(0xbf, 6, 1, 0, 0); //                   r6 = context
    text.put(0xb4, 1, 0, 0, to.cast_signed()); //    r1 = to
    redirect(&mut text);
    text.finish()
}

/// Frames that carry no mark are dropped.
pub(super) fn marked_only() -> Vec<Instruction> {
    let mut text = Text::new(0);
    let ours = text.label();
    text.put(0x61, 2, 1, SKB_MARK, 0); //            r2 = mark
    text.put(0xb7, 0, 0, 0, TCX_PASS);
    text.jump(0x15, 2, 0, MARK, ours);
    text.put(0xb7, 0, 0, 0, TCX_DROP);
    text.place(ours);
    text.put(0x95, 0, 0, 0, 0);
    text.finish()
}

/// Frames from the container of `port`: passed to another container, or `around` by the switch. `map` holds head, ports
/// and forwarding database.
pub(super) fn from_station(map: RawFd, place: Place, port: u16, around: u32) -> Vec<Instruction> {
    let mut text = Text::new(map);
    let other = text.label();
    let port_number = i32::from(port);
    text.put(0xbf, 6, 1, 0, 0); //                   r6 = context
    header(&mut text, other);
    vlan(&mut text, usize::from(port), other);
    now(&mut text);

    // The source: known here.
    text.put(0xbf, 1, 9, 0, 0); //                   r1 = key of the source
    find(&mut text, place, other);
    port_of_value(&mut text);
    text.jump(0x55, 4, 0, port_number, other);
    let fresh = text.label();
    not_aged(&mut text, fresh, other);
    refresh(&mut text);
    text.place(fresh);

    // The destination: known elsewhere.
    text.put(0xbf, 1, 8, 0, 0); //                   r1 = key of the destination
    find(&mut text, place, other);
    let live = text.label();
    not_aged(&mut text, live, other);
    text.place(live);
    port_of_value(&mut text);
    text.jump(0x15, 4, 0, port_number, other);
    text.jump(0x25, 4, 0, low(MAX_PORTS as u64 - 1), other);
    egress(&mut text, other);
    mtu(&mut text, other);
    edit(&mut text, other);
    count(&mut text);
    to_station(&mut text);

    text.place(other);
    text.put(0xb4, 1, 0, 0, around.cast_signed()); // r1 = around
    redirect(&mut text);
    text.finish()
}

/// r8 = destination, r9 = source; a frame with two tags, or of a protocol between neighbours, is none for here.
fn header(text: &mut Text, other: Label) {
    text.put(0x61, 3, 6, SKB_DATA, 0);
    text.put(0x61, 4, 6, SKB_DATA_END, 0);
    text.put(0xbf, 2, 3, 0, 0);
    text.put(0x07, 2, 0, 0, 14); //                  r2 = end of the header
    text.jump(0x2d, 2, 4, 0, other);
    text.put(0x69, 2, 3, 12, 0); //                  r2 = ethertype
    for ethertype in NOT_HERE {
        text.jump(0x15, 2, 0, ethertype, other);
    }
    for (register, offset) in [(8, 0), (9, 6)] {
        text.put(0x79, register, 3, offset, 0); //   eight bytes from the address on
        text.put(0xdc, register, 0, 0, 64); //       in the order of the wire
        text.put(0x77, register, 0, 0, 16); //       of which the address is the first six
    }
}

/// r7 = this port's record, which must be open; makes keys of the addresses. Keeps the VLAN, and the bytes of its tag.
fn vlan(text: &mut Text, port: usize, other: Label) {
    let (tagged, known) = (text.label(), text.label());
    text.in_map(7, HEAD_BYTES + PORT_BYTES * port);
    text.put(0x79, 2, 7, GATE, 0);
    text.jump(0x15, 2, 0, 0, other);
    text.put(0x61, 3, 6, SKB_VLAN_PRESENT, 0);
    text.jump(0x55, 3, 0, 0, tagged);
    text.put(0x77, 2, 0, 0, 32);
    text.put(0x57, 2, 0, 0, 0xfff); //               r2 = VLAN of untagged frames, if there is one
    text.jump(0x15, 2, 0, 0, other);
    text.put(0xb7, 3, 0, 0, 0);
    text.jump(0x05, 0, 0, 0, known);

    text.place(tagged);
    text.put(0x61, 3, 6, SKB_VLAN_PROTO, 0);
    text.jump(0x55, 3, 0, C_TAG, other);
    text.put(0x61, 2, 6, SKB_VLAN_TCI, 0);
    text.put(0x57, 2, 0, 0, 0xfff); //               r2 = VLAN of the tag
    is_tagged(text, 7, other);
    text.put(0xb7, 3, 0, 0, TAG_BYTES);

    text.place(known);
    text.put(0x7b, 10, 3, TAG_IN, 0);
    text.put(0x67, 2, 0, 0, 48);
    text.put(0x7b, 10, 2, VLAN, 0);
    text.put(0x4f, 8, 2, 0, 0); //                   keys: the VLAN above the address
    text.put(0x4f, 9, 2, 0, 0);
}

/// Goes on if the port of `record` has the VLAN in r2 among its tagged ones.
fn is_tagged(text: &mut Text, record: u8, other: Label) {
    text.put(0xbf, 3, 2, 0, 0);
    text.put(0x77, 3, 0, 0, 6);
    text.put(0x67, 3, 0, 0, 3);
    text.put(0xbf, 1, record, 0, 0);
    text.put(0x0f, 1, 3, 0, 0);
    text.put(0x79, 1, 1, TAGGED, 0); //              r1 = word of the set
    text.put(0xbf, 3, 2, 0, 0);
    text.put(0x57, 3, 0, 0, 63);
    text.put(0x7f, 1, 3, 0, 0);
    text.put(0x57, 1, 0, 0, 1); //                   r1 = bit of the VLAN
    text.jump(0x15, 1, 0, 0, other);
}

/// Keeps the time in seconds of the forwarding database's clock, which is the machine's.
fn now(text: &mut Text) {
    text.call(KTIME_GET_COARSE_NS);
    text.put(0x37, 0, 0, 0, NS_PER_SECOND);
    text.put(0xbc, 0, 0, 0, 0); //                   modulo 2^32
    text.put(0x7b, 10, 0, NOW, 0);
}

/// r2 = slot of the key in r1, r3 = its value.
fn find(text: &mut Text, place: Place, other: Label) {
    let hit = text.label();
    text.put(0x7b, 10, 1, KEY, 0);
    hash(text, place);
    text.put(0x79, 1, 10, KEY, 0);
    for last in [false, true] {
        text.put(0xbf, 3, 0, 0, 0);
        if last {
            text.put(0x77, 3, 0, 0, 32);
        }
        text.put(0x57, 3, 0, 0, low(u64::from(place.buckets) - 1));
        text.put(0x67, 3, 0, 0, 6);
        text.in_map(2, BUCKETS_AT);
        text.put(0x0f, 2, 3, 0, 0); //               r2 = bucket
        for slot in 0..4 {
            if slot > 0 {
                text.put(0x07, 2, 0, 0, 16);
            }
            text.put(0x79, 3, 2, 0, 0);
            text.jump(0x1d, 3, 1, 0, hit);
        }
    }
    text.jump(0x05, 0, 0, 0, other);
    text.place(hit);
    text.put(0x79, 3, 2, 8, 0); //                   r3 = value, believed if
    text.put(0x79, 4, 2, 0, 0);
    text.jump(0x5d, 4, 1, 0, other); //              the key is still there, and
    text.put(0x79, 4, 2, 8, 0);
    text.put(0xaf, 4, 3, 0, 0);
    text.put(0x77, 4, 0, 0, 48);
    text.put(0x57, 4, 0, 0, 0x3fff);
    text.jump(0x55, 4, 0, 0, other); //              the generation is the same
}

/// r0 = hash of the key in r1: both halves of the product, from products of 32 bits.
fn hash(text: &mut Text, place: Place) {
    text.constant(2, place.seed);
    text.put(0xaf, 2, 1, 0, 0);
    text.constant(3, place.multiplier);
    text.put(0xbf, 0, 2, 0, 0);
    text.put(0x2f, 0, 3, 0, 0); //                   r0 = low half of the product
    text.put(0xbc, 3, 2, 0, 0); //                   r3 = a, the low part of the key
    text.put(0x77, 2, 0, 0, 32); //                  r2 = b, the high part
    text.put(0xb4, 5, 0, 0, low(place.multiplier)); // r5 = c, the low part of the factor
    text.put(0xbf, 4, 3, 0, 0);
    text.put(0x2f, 4, 5, 0, 0);
    text.put(0x77, 4, 0, 0, 32); //                  r4 = carry of ac
    text.put(0x2f, 5, 2, 0, 0); //                   r5 = bc
    text.put(0xbc, 1, 5, 0, 0);
    text.put(0x0f, 4, 1, 0, 0);
    text.put(0x77, 5, 0, 0, 32);
    text.put(0xb4, 1, 0, 0, low(place.multiplier >> 32)); // r1 = d, the high part of the factor
    text.put(0x2f, 3, 1, 0, 0); //                   r3 = ad
    text.put(0x2f, 2, 1, 0, 0); //                   r2 = bd
    text.put(0x0f, 2, 5, 0, 0);
    text.put(0xbc, 1, 3, 0, 0);
    text.put(0x0f, 4, 1, 0, 0);
    text.put(0x77, 3, 0, 0, 32);
    text.put(0x0f, 2, 3, 0, 0);
    text.put(0x77, 4, 0, 0, 32);
    text.put(0x0f, 2, 4, 0, 0); //                   r2 = high half of the product
    text.put(0xaf, 0, 2, 0, 0);
}

/// r4 = port of the value in r3.
fn port_of_value(text: &mut Text) {
    text.put(0xbf, 4, 3, 0, 0);
    text.put(0x77, 4, 0, 0, 32);
    text.put(0x57, 4, 0, 0, 0xffff);
}

/// Goes to `fresh` if the value in r3 was stamped this second, or is never stamped again; goes on if it has not aged.
fn not_aged(text: &mut Text, fresh: Label, other: Label) {
    let live = text.label();
    text.put(0x79, 5, 10, NOW, 0);
    text.put(0xbc, 4, 3, 0, 0); //                   r4 = stamp
    text.put(0x1c, 4, 5, 0, 0); //                   ahead of now, modulo 2^32, by
    text.jump(0xb5, 4, 0, 1, fresh);
    text.put(0xbf, 4, 3, 0, 0);
    text.put(0x77, 4, 0, 0, 62);
    text.jump(0x55, 4, 0, 0, fresh); //              static, or of a sticky port
    text.in_map(4, 0);
    text.put(0x61, 4, 4, AGEING, 0);
    text.jump(0x15, 4, 0, 0, live); //               nothing ages
    text.put(0xbc, 0, 5, 0, 0);
    text.put(0xbc, 1, 3, 0, 0);
    text.put(0x1c, 0, 1, 0, 0); //                   r0 = age
    text.jump(0x25, 0, 0, HALF_OF_TIME, live); //    stamped ahead of time
    text.jump(0x3d, 0, 4, 0, other);
    text.place(live);
}

/// Stamps the slot in r2, whose value was r3, with the time.
fn refresh(text: &mut Text) {
    text.put(0xbf, 0, 3, 0, 0); //                   r0 = expected value
    text.put(0xbf, 4, 3, 0, 0);
    text.put(0x77, 4, 0, 0, 32);
    text.put(0x67, 4, 0, 0, 32);
    text.put(0x4f, 4, 5, 0, 0); //                   r4 = the same with the time in r5
    text.put(0xdb, 2, 4, 8, CMPXCHG);
}

/// r9 = record of the port in r4, which must be open and in the VLAN; r8 = its interface. Keeps the bytes of the tag
/// with which the frame leaves.
fn egress(text: &mut Text, other: Label) {
    let (untagged, known) = (text.label(), text.label());
    text.in_map(9, HEAD_BYTES);
    text.put(0x27, 4, 0, 0, low(PORT_BYTES as u64));
    text.put(0x0f, 9, 4, 0, 0);
    text.put(0x79, 8, 9, GATE, 0);
    text.jump(0x15, 8, 0, 0, other);
    vid(text);
    text.put(0xbf, 4, 8, 0, 0);
    text.put(0x77, 4, 0, 0, 32); //                  r4 = VLAN of untagged frames; another number if those of the VLAN
    text.put(0x57, 4, 0, 0, 0x1fff); //              leave tagged
    text.jump(0x1d, 4, 2, 0, untagged);
    is_tagged(text, 9, other);
    text.put(0xb7, 3, 0, 0, TAG_BYTES);
    text.jump(0x05, 0, 0, 0, known);
    text.place(untagged);
    text.put(0xb7, 3, 0, 0, 0);
    text.place(known);
    text.put(0x7b, 10, 3, TAG_OUT, 0);
    text.put(0xbc, 8, 8, 0, 0);
}

/// r2 = VLAN of the frame.
fn vid(text: &mut Text) {
    text.put(0x79, 2, 10, VLAN, 0);
    text.put(0x77, 2, 0, 0, 48);
    text.put(0x57, 2, 0, 0, 0xfff);
}

/// The frame, or each of its segments, is no longer than the MTU of either end.
fn mtu(text: &mut Text, other: Label) {
    for end in [None, Some(8)] {
        text.put(0x62, 10, 0, MTU, 0);
        text.put(0xbf, 1, 6, 0, 0);
        match end {
            None => text.put(0xb7, 2, 0, 0, 0), //   the interface it came from
            Some(register) => text.put(0xbf, 2, register, 0, 0),
        }
        text.put(0xbf, 3, 10, 0, 0);
        text.put(0x07, 3, 0, 0, i32::from(MTU));
        text.put(0xb7, 4, 0, 0, 0);
        text.put(0xb7, 5, 0, 0, MTU_CHECK_SEGMENTS);
        text.call(CHECK_MTU);
        text.jump(0x55, 0, 0, 0, other);
    }
}

/// Sends the frame out by the interface whose index is in r1, and ends.
fn redirect(text: &mut Text) {
    text.put(0xb7, 2, 0, 0, MARK);
    text.put(0x63, 6, 2, SKB_MARK, 0);
    text.put(0xb7, 2, 0, 0, 0); //                   r2 = 0: as if it were sent there
    text.call(REDIRECT);
    text.put(0x95, 0, 0, 0, 0);
}

/// Gives the frame the tag with which it leaves, or takes it away.
fn edit(text: &mut Text, other: Label) {
    let (pop, edited, done) = (text.label(), text.label(), text.label());
    text.put(0x79, 1, 10, TAG_IN, 0);
    text.put(0x79, 2, 10, TAG_OUT, 0);
    text.jump(0x1d, 1, 2, 0, done);
    text.jump(0x55, 1, 0, 0, pop);
    vid(text);
    text.put(0xbf, 3, 2, 0, 0); //                   r3 = VLAN, priority 0
    text.put(0xbf, 1, 6, 0, 0);
    text.put(0xb7, 2, 0, 0, C_TAG);
    text.call(VLAN_PUSH);
    text.jump(0x05, 0, 0, 0, edited);
    text.place(pop);
    text.put(0xbf, 1, 6, 0, 0);
    text.call(VLAN_POP);
    text.place(edited);
    text.jump(0x55, 0, 0, 0, other); //              nothing was changed
    text.place(done);
}

/// Counts the frame at both ports. The kernel's length is without the tag.
fn count(text: &mut Text) {
    text.put(0xb7, 1, 0, 0, 1);
    for (register, frames, bytes, tag) in [(7, RX_FRAMES, RX_BYTES, TAG_IN), (9, TX_FRAMES, TX_BYTES, TAG_OUT)] {
        text.put(0x61, 2, 6, SKB_LEN, 0);
        text.put(0x79, 3, 10, tag, 0);
        text.put(0x0f, 2, 3, 0, 0);
        text.put(0xdb, register, 1, frames, 0); //   an atomic addition
        text.put(0xdb, register, 2, bytes, 0);
    }
}

/// Sends the frame to the container behind the interface r8, and ends: the short way, if the destination is the
/// station of the record r9.
fn to_station(text: &mut Text) {
    let long = text.label();
    text.put(0x79, 2, 9, STATION, 0);
    text.put(0x79, 3, 10, KEY, 0); //                r3 = key of the destination
    text.put(0x67, 3, 0, 0, 16);
    text.put(0x47, 3, 0, 0, 1); //                   r3 = its address, as a record has it
    text.jump(0x5d, 2, 3, 0, long);
    text.put(0xbf, 1, 6, 0, 0);
    text.put(0xb7, 2, 0, 0, PACKET_HOST);
    text.call(CHANGE_TYPE);
    text.put(0xb7, 2, 0, 0, 0);
    text.put(0x63, 6, 2, SKB_MARK, 0);
    text.put(0xbc, 1, 8, 0, 0);
    text.call(REDIRECT_PEER); //                     (r1, 0)
    text.put(0x95, 0, 0, 0, 0);
    text.place(long);
    text.put(0xbc, 1, 8, 0, 0); //                   r1 = interface of the egress
    redirect(text);
}

#[cfg(all(test, target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "the interpreter reads and writes memory by address")]
mod tests;
