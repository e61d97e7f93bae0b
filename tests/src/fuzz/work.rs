//! The work that a ring of any size can cause: rings of up to 32768 entries that are available as a whole, and hold a
//! few descriptors over and over.
//!
//! The other targets compare every byte with a model, which rings of that size would make too slow. Here only the cost
//! is looked at: descriptors read and bytes of frames in each call stay under bounds that do not depend on the size of
//! the ring, whatever the descriptors say; nor does the time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use labsw_dataplane::frame::{Burst, MAX_FRAME_BYTES, Segment};
use labsw_dataplane::losses::{Losses, TxReport};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::virtio::{
    BURST_BYTES, BURST_DESCRIPTORS, Direction, FRAME_DESCRIPTORS, MAX_CHAIN_DESCRIPTORS, Ring, SEND_DESCRIPTORS,
};
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::{BUFFER_BYTES, EVENT_IDX, GUEST_BASE, Guest, INDIRECT, MRG_RXBUF, RING_PACKED, VERSION_1};

use super::feed::Feed;

const SIZES: [u16; 4] = [256, 1024, 4096, 32_768];
/// Calls of one input.
const CALLS: usize = 6;
/// Frames of a call to the guest.
const FRAMES: u8 = 64;
/// The first descriptor of each chain is not in the budgets; the last chain looked at may go over them.
const OVER: u64 = 64 + MAX_CHAIN_DESCRIPTORS as u64;
/// Much longer than any call takes, also under a sanitizer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// Frames to the guest are cut out of this.
static BYTES: [u8; MAX_FRAME_BYTES as usize] = [7; MAX_FRAME_BYTES as usize];

/// Fills a ring, then lets the switch work on it.
///
/// # Panics
/// When a call costs more than its bound.
pub fn work(data: &[u8]) {
    // A guest is some megabytes of tables.
    thread_local!(static GUESTS: RefCell<HashMap<u16, Guest>> = RefCell::default());
    let mut feed = Feed::new(data);
    let shape = feed.u8();
    let size = SIZES[usize::from(shape & 3)];
    GUESTS.with_borrow_mut(|guests| {
        let guest = guests.entry(size).or_insert_with(|| Guest::new(0, size));
        let chosen = [MRG_RXBUF, INDIRECT, EVENT_IDX, VERSION_1, RING_PACKED];
        guest.features = chosen.iter().enumerate().filter(|(bit, _)| shape >> (bit + 3) & 1 == 1).map(|(_, f)| f).sum();
        play(guest, &mut feed, shape & 4 != 0);
    });
}

fn play(guest: &Guest, feed: &mut Feed<'_>, to_guest: bool) {
    let ring = usize::from(!to_guest);
    fill(guest, feed, ring);
    let to = if to_guest { Direction::ToGuest } else { Direction::FromGuest };
    let begin = Instant::now();
    let mut ring = Ring::start(guest.setup(ring), to);
    assert!(ring.descriptors_read() < FRAME_DESCRIPTORS + OVER, "{} for a start", ring.descriptors_read());
    assert!(begin.elapsed() < PATIENCE);
    for _ in 0..CALLS {
        let (before, begin) = (ring.descriptors_read(), Instant::now());
        let goes_on = if to_guest { send(&mut ring, feed) } else { receive(&mut ring) };
        let (read, bound) =
            (ring.descriptors_read() - before, if to_guest { SEND_DESCRIPTORS } else { BURST_DESCRIPTORS });
        assert!(read < bound + OVER, "{read} descriptors read, {bound} are the bound");
        assert!(begin.elapsed() < PATIENCE, "{:?} for {read} descriptors", begin.elapsed());
        if !goes_on {
            break;
        }
    }
}

/// Puts up to 64 descriptors, over and over, into the table, and makes all of it available; a table for indirect ones
/// in the first buffer.
fn fill(guest: &Guest, feed: &mut Feed<'_>, ring: usize) {
    let size = guest.rings[ring].size;
    let packed = guest.features & RING_PACKED != 0;
    let buffers = GUEST_BASE + guest.buffer(ring, 0) as u64;
    let count = usize::from(feed.u8() % 64) + 1;
    let (far, own) = (feed.u8(), feed.u16());
    let descriptors: Vec<(u64, u32, u16, u16)> = (0..count).map(|_| descriptor(feed, buffers)).collect();
    let bytes = |entry: u16| {
        let (address, len, flags, step) = descriptors[usize::from(entry) % count];
        if packed {
            // Most slots are available in the first lap.
            let lap = if far == 0 && entry == own % size { 0 } else { 1 << 7 };
            return Guest::descriptor_bytes(address, len, entry, flags & 7 | lap);
        }
        Guest::descriptor_bytes(address, len, flags, entry.wrapping_add(step) % size)
    };
    let table: Vec<u8> = (0..size).flat_map(bytes).collect();
    guest.write(guest.buffer(ring, 0), &table[..table.len().min(BUFFER_BYTES)]);
    let addresses = guest.addresses(ring);
    guest.write(Guest::offset_of(addresses.descriptors), &table);
    if packed {
        guest.write(Guest::offset_of(addresses.available), &[0; 4]);
        guest.write(Guest::offset_of(addresses.used), &(1u32 << 15).to_le_bytes());
        return;
    }
    let step = if far & 1 == 0 { 1 } else { own };
    let heads = (0..size).flat_map(|slot| (slot.wrapping_mul(step) % size).to_le_bytes());
    let words = [0, size].into_iter().flat_map(u16::to_le_bytes);
    guest.write(Guest::offset_of(addresses.available), &words.chain(heads).collect::<Vec<u8>>());
    guest.write(Guest::offset_of(addresses.used), &[0; 4]);
}

/// An address, a length, flags, and how far the next one is.
fn descriptor(feed: &mut Feed<'_>, buffers: u64) -> (u64, u32, u16, u16) {
    let kind = feed.u8();
    let address = if kind & 0x80 == 0 { buffers } else { feed.u64() };
    let len = match kind >> 4 & 7 {
        0 => 0,
        1 => 1,
        2 => u32::from(feed.u8()),
        3 => 16 * u32::from(feed.u8()),
        4 => 2048,
        5 => MAX_FRAME_BYTES,
        _ => feed.u16().into(),
    };
    let step = if kind & 8 == 0 { 1 } else { feed.u16() };
    (address, len, u16::from(kind & 7), step)
}

/// Takes frames; whether the ring goes on.
fn receive(ring: &mut Ring) -> bool {
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let outcome = ring.receive(&mut burst, &mut stats);
    assert!(stats.rx_frames <= 64 && burst.len() <= 64);
    assert!(stats.rx_bytes < BURST_BYTES + u64::from(MAX_FRAME_BYTES), "{} bytes", stats.rx_bytes);
    burst.clear();
    if outcome.is_ok() {
        ring.release();
    }
    outcome.is_ok()
}

/// Sends a burst of frames of one length; whether the ring goes on.
fn send(ring: &mut Ring, feed: &mut Feed<'_>) -> bool {
    let len = [60, 1514, 9014, MAX_FRAME_BYTES][usize::from(feed.u8() % 4)];
    let mut burst = Burst::new();
    for _ in 0..FRAMES {
        // SAFETY: `BYTES` is that long, lives for ever and does not change.
        assert!(unsafe { burst.push(0, &[Segment { ptr: BYTES.as_ptr(), len }]) });
    }
    let items: Vec<_> = (0..FRAMES).map(|at| TxItem::whole(at, TagEdit::KEEP)).collect();
    let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
    let outcome = ring.send(&burst, &items, &mut TxReport { stats: &mut stats, losses: &mut losses });
    if outcome.is_ok() {
        assert_eq!(
            stats.tx_frames + u64::from(losses.frames().count_ones()),
            u64::from(FRAMES),
            "each is sent or lost"
        );
        assert_eq!(stats.tx_bytes, stats.tx_frames * u64::from(len));
        ring.flush();
    }
    outcome.is_ok()
}
