//! The transmit side of a mirror destination whose copies go to another machine: each copy leaves behind the headers of
//! its [`Remote`].
//!
//! **How it works.** A [`RemoteTx`] stands between the backlog ([`MirrorTx`](super::MirrorTx)) and the port. It reads
//! the copies of a burst into memory of its own, has their headers made, and lends both to the port as frames. Timed
//! work sends the messages by which the next hop is found, and the answers for the switch's own address.
//!
//! **Invariants.** A copy that the port does not take is reported under the port's reason, and one for which the next
//! hop is not known as `no_next_hop`. The lock is held for one burst; the memory grows to the longest burst, whose
//! frames the backlog's limit bounds.

use std::ops::Range;
use std::sync::{Arc, Mutex, TryLockError};

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::remote::{Head, Remote};
use labsw_switch::wire::{TAG_BYTES, TAG_OFFSET, TPID_C_TAG, TPID_S_TAG, u16_at};
use labsw_switch::{BURST_FRAMES, DropReason, Mac};

use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::port::{Fault, Turn, TxPort, lock};
use crate::stats::PortDelta;

/// Messages sent by one piece of timed work.
const MESSAGES: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct RemoteTx {
    port: Arc<dyn TxPort>,
    remote: Arc<Remote>,
    room: Mutex<Room>,
}

/// The copies of one burst, wrapped.
#[derive(Debug, Default)]
struct Room {
    bytes: Vec<u8>,
    packets: Vec<Packet>,
    /// The burst in which they are lent to the port.
    lent: Option<Box<Burst>>,
}

/// A copy with its headers.
#[derive(Debug)]
struct Packet {
    /// Its number in the burst that it was copied from.
    frame: u8,
    head: Head,
    /// Where it lies.
    copy: Range<usize>,
}

impl RemoteTx {
    /// Before `port`, for copies to this remote end.
    pub fn new(port: Arc<dyn TxPort>, remote: Arc<Remote>) -> RemoteTx {
        RemoteTx { port, remote, room: Mutex::default() }
    }

    /// True if this stands before `port` and sends to `remote`.
    pub fn is_of(&self, port: &Arc<dyn TxPort>, remote: &Arc<Remote>) -> bool {
        Arc::ptr_eq(&self.port, port) && Arc::ptr_eq(&self.remote, remote)
    }

    /// Sends the messages that are due.
    fn send_messages(&self, turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        for _ in 0..MESSAGES {
            let Some(message) = self.remote.message(turn.now_ns) else { break };
            let mut losses = Losses::NONE;
            let report = &mut TxReport { stats, losses: &mut losses };
            burst.lend(
                |lender| {
                    lender.push(message.bytes());
                },
                |burst| self.port.send(turn, burst, &[TxItem::whole(0, TagEdit::KEEP)], report),
            )?;
        }
        Ok(())
    }
}

impl Room {
    /// Takes a copy in; `None`: it is too short for its tag edit.
    fn take(&mut self, burst: &Burst, item: &TxItem, remote: &Remote, station: Mac) -> Option<()> {
        let mut reader = burst.reader(item)?;
        let (at, len) = (self.bytes.len(), reader.remaining() as usize);
        self.bytes.resize(at + len, 0);
        reader.read_to(self.bytes.get_mut(at..)?);
        let whole = burst.frames().get(usize::from(item.frame)).map_or(0, |frame| frame.len);
        let is_cut = (whole.saturating_add_signed(item.edit.growth_bytes()) as usize) > len;
        let mut copy = at..at + len;
        let tag = match u16_at(self.bytes.get(copy.clone())?, TAG_OFFSET) {
            Some(TPID_C_TAG | TPID_S_TAG) => u16_at(self.bytes.get(copy.clone())?, TAG_OFFSET + 2),
            _ => None,
        };
        if tag.is_some() && remote.spec().strip_tag && len >= TAG_OFFSET + TAG_BYTES {
            // The addresses move over the tag.
            self.bytes.copy_within(at..at + TAG_OFFSET, at + TAG_BYTES);
            copy.start += TAG_BYTES;
        }
        let head = remote.head(station, self.bytes.get(copy.clone())?, is_cut, tag);
        self.packets.push(Packet { frame: item.frame, head, copy });
        Some(())
    }
}

impl TxPort for RemoteTx {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let Some(station) = self.remote.station() else {
            report.lose_all(items, DropReason::NoNextHop);
            return Ok(());
        };
        let mut room = lock(&self.room);
        let room = &mut *room;
        room.bytes.clear();
        room.packets.clear();
        for item in items {
            if room.take(burst, item, &self.remote, station).is_none() {
                report.lose(item.frame, DropReason::Runt);
            }
        }
        let Room { bytes, packets, lent } = room;
        let mut wrapped = [TxItem::whole(0, TagEdit::KEEP); BURST_FRAMES];
        (0u8..).zip(&mut wrapped).for_each(|(index, item)| item.frame = index);
        let wrapped = wrapped.get(..packets.len()).unwrap_or_default();
        let mut losses = Losses::NONE;
        let outcome = lent.get_or_insert_with(|| Box::new(Burst::new())).lend(
            |lender| {
                for packet in &*packets {
                    let copy = bytes.get(packet.copy.clone()).unwrap_or_default();
                    lender.push_pieces([packet.head.bytes(), copy].into_iter());
                }
            },
            |burst| self.port.send(turn, burst, wrapped, &mut TxReport { stats: report.stats, losses: &mut losses }),
        );
        for (index, packet) in (0u8..).zip(&*packets) {
            if let Some(reason) = losses.reason(index) {
                // The port has counted it.
                report.losses.insert(packet.frame, reason);
            }
        }
        outcome
    }

    fn run_due(&self, turn: &Turn, stats: &mut PortDelta) -> Result<(), Fault> {
        if self.remote.next_due() <= turn.now_ns {
            let room = match self.room.try_lock() {
                Ok(room) => Some(room),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                // Another worker is at it.
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(mut room) = room {
                let burst = room.lent.get_or_insert_with(|| Box::new(Burst::new()));
                self.send_messages(turn, burst, stats)?;
            }
        }
        self.port.run_due(turn, stats)
    }

    fn next_due(&self, turn: &Turn) -> u64 {
        self.remote.next_due().min(self.port.next_due(turn))
    }
}

#[cfg(test)]
#[allow(unsafe_code, clippy::unwrap_used, reason = "tests lend memory of their own")]
mod tests {
    use labsw_switch::remote::{NextHop, RemoteSpec, Tunnel};

    use super::*;
    use crate::frame::Segment;
    use crate::worker::memory_port::{Wire, memory_port};

    const STATION: Mac = Mac::new([2, 0, 0, 0, 0, 9]);
    const HEAD: usize = 14 + 20 + 16;

    fn bed(next_hop: NextHop, strip_tag: bool) -> (RemoteTx, Arc<Mutex<Wire>>) {
        let (_, port, wire) = memory_port();
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let tunnel = Tunnel::Erspan(7);
        let spec = RemoteSpec { tunnel, mac, vlan: None, source, destination, next_hop, strip_tag };
        (RemoteTx::new(port, Arc::new(Remote::new(spec))), wire)
    }

    /// Sends these frames of the burst; gives the reasons of the lost ones, and the counters.
    fn send(tx: &RemoteTx, frames: &[Vec<u8>], items: &[TxItem]) -> (Vec<Option<DropReason>>, PortDelta) {
        let mut burst = Burst::new();
        for frame in frames {
            let segment = Segment { ptr: frame.as_ptr(), len: u32::try_from(frame.len()).unwrap() };
            // SAFETY: `frames` outlives the burst.
            assert!(unsafe { burst.push_whole(0, segment) });
        }
        let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
        tx.send(&Turn::ONLY, &mut burst, items, &mut TxReport { stats: &mut stats, losses: &mut losses }).unwrap();
        ((0u8..).take(frames.len()).map(|frame| losses.reason(frame)).collect(), stats)
    }

    fn frames() -> Vec<Vec<u8>> {
        (0..4u8).map(|number| vec![number; 60]).collect()
    }

    #[test]
    fn each_copy_leaves_behind_its_headers_or_under_the_reason_of_the_port() {
        let (tx, wire) = bed(NextHop::Station(STATION), false);
        wire.lock().unwrap().room = Some(2);
        // Not all frames of the burst, and not in the numbers of the port's own.
        let items = [1, 2, 3].map(|frame| TxItem::whole(frame, TagEdit::KEEP));
        let (lost, stats) = send(&tx, &frames(), &items);
        let sent = std::mem::take(&mut wire.lock().unwrap().from_switch);
        assert_eq!(lost.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, false, true]);
        assert!(lost[3].unwrap().is_full(), "{lost:?}");
        assert_eq!((stats.tx_frames, stats.tx_bytes, stats.drops.iter().sum::<u64>()), (2, 2 * (60 + HEAD as u64), 1));
        let copies: Vec<&[u8]> = sent.iter().map(|packet| &packet[HEAD..]).collect();
        assert_eq!(copies, [&[1; 60], &[2; 60]]);
        assert!(sent.iter().all(|packet| packet[..6] == STATION.octets()));
    }

    #[test]
    fn without_a_next_hop_copies_are_counted_and_it_is_asked_for() {
        let (tx, wire) = bed(NextHop::Address("192.0.2.2".parse().unwrap()), false);
        let items = [0, 1].map(|frame| TxItem::whole(frame, TagEdit::KEEP));
        let (lost, stats) = send(&tx, &frames()[..2], &items);
        assert_eq!(lost, [Some(DropReason::NoNextHop); 2]);
        assert_eq!(stats.drops[DropReason::NoNextHop as usize], 2);
        assert_eq!(tx.next_due(&Turn::ONLY), 0);
        tx.run_due(&Turn::ONLY, &mut PortDelta::ZERO.clone()).unwrap();
        let asked = std::mem::take(&mut wire.lock().unwrap().from_switch);
        assert_eq!((asked.len(), &asked[0][12..14]), (1, &[8, 6][..]));
        assert!(tx.next_due(&Turn::ONLY) > 0);
    }

    #[test]
    fn a_tag_is_taken_out_and_a_cut_copy_stays_cut() {
        let (tx, wire) = bed(NextHop::Station(STATION), true);
        let mut tagged = frames().remove(1);
        tagged[12..16].copy_from_slice(&[0x81, 0, 0, 20]);
        let item = TxItem { snap_bytes: 40, ..TxItem::whole(0, TagEdit::KEEP) };
        send(&tx, &[tagged.clone()], &[item]);
        let sent = wire.lock().unwrap().from_switch.remove(0);
        assert_eq!(sent[HEAD..], [&tagged[..12], &tagged[16..40]].concat());
        assert_eq!(sent[HEAD - 8..HEAD - 4], [0x10, 20, 0x14, 7], "VLAN 20, stripped, cut, session 7");
    }
}
