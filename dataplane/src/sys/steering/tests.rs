//! The program of the fast path, run by an interpreter of its instructions beside the switch's own decision: no kernel
//! and no right is needed. `LABSW_LONG=1` has it decide about ten million frames.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use labsw_switch::fdb::{Bucket, Fdb, Learned, places};
use labsw_switch::forward::{Copies, Egress, Forwarder, Observer, Step, TagEdit};
use labsw_switch::guard::{GuardSpec, Guards};
use labsw_switch::tables::{Direction, MirrorSpec, MirrorTo, PortRules, Tables};
use labsw_switch::vlan::{PortVlan, VlanMode};
use labsw_switch::{DropReason, Mac, MirrorId, PortId, Vid};

use self::interpreter::{Decoded, End, Skb, atomic, run};
use super::*;
use crate::fast_path::{Passage, Record};

mod interpreter;

/// Ports of the test that take frames; behind them one for copies. The interface of a port is its number and one.
const PORTS: u16 = 5;
const SPAN: PortId = PortId(PORTS);
/// The number that stands for `around`.
const AROUND: u32 = 99;
const START: u64 = 5_000_000_000;
const CAPACITY: usize = 24;
const ROUNDS: u32 = 20;
const VIDS: [u16; 6] = [1, 1, 1, 1, 2, 4094];

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn vid(&mut self) -> Vid {
        self.of(&VIDS).try_into().unwrap()
    }

    fn mac(&mut self) -> Mac {
        match self.below(60) {
            0 => Mac::BROADCAST,
            1 => Mac::new([1, 0x80, 0xc2, 0, 0, 0]),
            2 => Mac::MAC_CONTROL,
            3 => Mac::new([0; 6]),
            n => station(n % 8),
        }
    }

    /// The address of a station: groups have no entries.
    fn station(&mut self) -> Mac {
        std::iter::repeat_with(|| self.mac()).find(|mac| !mac.is_group()).unwrap()
    }

    fn rules(&mut self) -> PortRules {
        let vid = Some(self.vid().get());
        let trunks = [vec![], vec![1..=2], vec![2..=2, 4094..=4094], vec![1..=1]][self.below(4) as usize].clone();
        let vlan = match self.of(&[0, 0, 0, 1, 1, 2, 2, 3, 4]) {
            0 => PortVlan::new(VlanMode::Access, vid, &[]),
            1 => PortVlan::new(VlanMode::Trunk, None, &trunks),
            2 => PortVlan::new(VlanMode::NativeUntagged, vid, &trunks),
            3 => PortVlan::new(VlanMode::NativeTagged, vid, &trunks),
            _ => PortVlan::new(VlanMode::Dot1qTunnel, vid, &[]),
        };
        let spec = GuardSpec { isolated: self.one_in(20), ..GuardSpec::default() };
        PortRules {
            vlan: vlan.unwrap(),
            mtu_bytes: self.of(&[60, 60, 50]),
            enabled: !self.one_in(20),
            learning: !self.one_in(20),
            guards: Guards::new(spec, &Arc::default()),
            ..PortRules::default()
        }
    }

    fn mirrors(&mut self) -> Vec<MirrorSpec> {
        let mut spec = MirrorSpec {
            id: MirrorId(0),
            sources: Vec::new(),
            all_ports: None,
            vlans: None,
            to: Some(MirrorTo::Port(SPAN)),
            snaplen_bytes: 0,
            filter: None,
        };
        match self.below(6) {
            0 => spec.sources = vec![(PortId(self.below(5) as u16), self.of(&[Direction::RX, Direction::TX]))],
            1 => spec.to = Some(MirrorTo::Vlan(self.vid())),
            2 => {
                spec.sources = vec![(PortId(self.below(5) as u16), Direction::BOTH)];
                spec.vlans = Some([self.vid()].into_iter().collect());
            }
            _ => return Vec::new(),
        }
        vec![spec]
    }
}

fn station(number: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 + number * 0x0001_0003)
}

/// A frame that arrives: without its outer tag, and the tag.
struct Arrival {
    from: PortId,
    frame: Vec<u8>,
    tag: Option<(u16, u16)>,
}

/// The frame as it is on the wire.
fn wire(frame: &[u8], tag: Option<(u16, u16)>) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if let Some((tpid, tci)) = tag {
        let [a, b] = [tpid.to_be_bytes(), tci.to_be_bytes()];
        bytes.splice(12..12, [a, b].concat());
    }
    bytes
}

fn edited(frame: &[u8], edit: TagEdit) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes.splice(12..12 + usize::from(edit.strip_bytes), edit.insert.into_iter().flatten());
    bytes
}

/// Notes about a decision.
#[derive(Default)]
struct Notes {
    drops: Vec<(PortId, DropReason)>,
    learned: Option<Learned>,
}

impl Observer for Notes {
    fn dropped(&mut self, _: u8, port: PortId, reason: DropReason) {
        self.drops.push((port, reason));
    }

    fn step(&mut self, _: u8, step: impl FnOnce() -> Step) {
        if let Step::Source(learned) = step() {
            self.learned = learned;
        }
    }
}

/// A switch: a map with ports' records and a forwarding database in it, and its tables.
struct Bed {
    map: u64,
    records: &'static [Record],
    fdb: Fdb,
    texts: Vec<Vec<Decoded>>,
    rules: Vec<PortRules>,
    tables: Tables,
    stations: Vec<Option<Mac>>,
    /// The longest frame that each interface takes, by index.
    most: Vec<usize>,
    egress: Egress,
    copies: Copies,
    now: u32,
}

impl Bed {
    fn new(random: &mut Random) -> Bed {
        let front = BUCKETS_AT / size_of::<Bucket>();
        let map: &'static [Bucket] =
            (0..front + places(CAPACITY)).map(|_| Bucket::default()).collect::<Vec<_>>().leak();
        let start = map.as_ptr().expose_provenance();
        // SAFETY: records lie behind the head, in words of the map in front of the buckets; both consist of atomics.
        let records = unsafe {
            let first = std::ptr::with_exposed_provenance::<Record>(start + HEAD_BYTES);
            std::slice::from_raw_parts(first, PORTS.into())
        };
        let ageing = random.of(&[0, 3, 20]);
        let fdb = Fdb::in_memory(&map[front..], CAPACITY, ageing, random.below(u64::MAX)).unwrap();
        let layout = fdb.layout();
        let buckets = u32::try_from(layout.buckets).unwrap();
        let place = Place { seed: layout.seed, multiplier: layout.multiplier, buckets };
        let text = |port| from_station(3, place, port, AROUND).iter().map(Decoded::of).collect();
        let texts = (0..PORTS).map(text).collect();
        atomic(start as u64).store(ageing.into(), Ordering::Relaxed);
        atomic(start as u64 + 8).store(START, Ordering::Relaxed);
        // Some begin shortly before the clock's seconds wrap.
        let now = if random.one_in(4) { u32::MAX - 20 } else { 100 };
        let rules = (0..PORTS).map(|_| random.rules()).collect();
        let (tables, stations, most) = (Tables::empty(), vec![None; PORTS.into()], Vec::new());
        let (egress, copies) = (Egress::new(), Copies::new());
        let map = start as u64;
        let mut bed = Bed { map, records, fdb, texts, rules, tables, stations, most, egress, copies, now };
        bed.configure(random);
        bed
    }

    /// Changes a port, its station, and the mirrors; gates follow, as the control thread has them.
    fn configure(&mut self, random: &mut Random) {
        let port = usize::try_from(random.below(PORTS.into())).unwrap();
        self.rules[port] = random.rules();
        self.stations[port] = random.one_in(2).then(|| random.mac());
        let span = PortRules { mirror_only: true, ..PortRules::default() };
        let ports = (0..PORTS).map(PortId).zip(self.rules.iter().cloned()).chain([(SPAN, span)]);
        self.tables = Tables::build(ports.collect(), random.mirrors()).unwrap();
        self.most = [0].into_iter().chain(self.rules.iter().map(|rules| rules.mtu_bytes as usize + 14)).collect();
        for (port, record) in (0..PORTS).zip(self.records) {
            let passage = self.passage(PortId(port));
            if passage.as_ref().is_some_and(|passage| record.is_open_for(passage)) {
                continue;
            }
            record.shut();
            passage.iter().for_each(|passage| record.open(passage));
        }
    }

    fn passage(&self, port: PortId) -> Option<Passage> {
        let vlans = self.tables.lone_vlans(port).ok()?;
        Some(Passage { ifindex: u32::from(port.0) + 1, station: self.stations[port.index()], vlans })
    }

    fn arrival(random: &mut Random) -> Arrival {
        let odd = random.of(&[[0x81, 0], [0x88, 0xa8], [0x88, 8]]);
        let ethertype = if random.one_in(16) { odd } else { [8, 0] };
        let payload = random.of(&[46, 46, 46, 50, 51, 60, 61]);
        let from = PortId(random.below(PORTS.into()) as u16);
        // Mostly a station's own address; addresses that several ports have move.
        let src = if random.one_in(16) { random.mac() } else { station(from.0.into()) };
        let addresses = [random.mac(), src].map(Mac::octets).concat();
        let frame = [&addresses[..], &ethertype, &[0; 61][..payload]].concat();
        let tci = random.of(&[0, 0x2000, 0x7000]) | random.of(&[0, 1, 1, 1, 2, 2, 3, 4094, 4095]);
        let tpid = if random.one_in(12) { 0x88a8 } else { 0x8100 };
        let tag = random.one_in(2).then_some((tpid, tci));
        Arrival { from, frame, tag }
    }

    /// Frames and bytes that the programs counted at a port.
    fn counted(&self, port: PortId) -> [u64; 4] {
        let counts = self.records[port.index()].take();
        [counts.rx_frames, counts.rx_bytes, counts.tx_frames, counts.tx_bytes]
    }

    /// Has the program and then the switch decide about a frame. True if it passed in the kernel.
    fn frame(&mut self, arrival: &Arrival, nanoseconds: u64) -> bool {
        let Arrival { from, ref frame, tag } = *arrival;
        let now_ns = START + u64::from(self.now) * 1_000_000_000 + nanoseconds;
        self.most[0] = self.most[from.index() + 1];
        let mut skb = Skb { frame, tag, now_ns, most: &self.most, mark: 7, kind: None };
        let end = run(&self.texts[from.index()], self.map, &mut skb);
        let Skb { tag: tag_out, mark, kind, .. } = skb;

        let bytes = wire(frame, tag);
        let mut notes = Notes::default();
        self.egress.clear();
        let by = Forwarder { tables: &self.tables, fdb: &self.fdb, now_seconds: self.now };
        by.ingress(from).frame(0, &bytes, bytes.len() as u32, &mut self.egress, &mut notes);
        self.copies.select(&self.tables, from, &mut self.egress, &[&bytes[..]][..]);

        let marked = u64::from(MARK.cast_unsigned());
        let to = match end {
            End::Redirect(AROUND) => {
                assert_eq!((tag_out, mark, kind), (tag, marked, None), "as it came");
                assert_eq!(self.counted(from), [0; 4]);
                return false;
            }
            End::Redirect(to) => {
                assert_eq!((mark, kind), (marked, None));
                to
            }
            End::RedirectPeer(to) => {
                assert_eq!((mark, kind), (0, Some(0)), "to the container's own address, and as from outside");
                assert_eq!(self.stations[to as usize - 1].map(Mac::octets).unwrap(), frame[..6]);
                to
            }
        };
        let to = PortId(u16::try_from(to - 1).unwrap());
        let left = wire(frame, tag_out);
        assert_eq!(notes.drops, []);
        assert!(matches!(notes.learned, Some(Learned::Known | Learned::Refreshed)), "{:?}", notes.learned);
        assert_eq!((self.egress.active(), self.egress.items(to).len()), (&[to][..], 1));
        assert_eq!(edited(&bytes, self.egress.items(to)[0].edit), left, "{:?} to {to:?}", self.rules);
        assert_eq!(self.egress.mirrored(), 0);
        assert_eq!(self.counted(from), [1, bytes.len() as u64, 0, 0]);
        assert_eq!(self.counted(to), [0, 0, 1, left.len() as u64]);
        true
    }
}

#[test]
fn what_passes_in_the_kernel_is_what_the_switch_decides() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let frames = if std::env::var_os("LABSW_LONG").is_some() { 10_000_000 } else { 20_000 };
    let mut passed = 0;
    for _ in 0..ROUNDS {
        let mut bed = Bed::new(&mut random);
        for _ in 0..frames / ROUNDS {
            match random.below(128) {
                0 | 1 => bed.now = bed.now.wrapping_add(random.below(3) as u32),
                2 => bed.configure(&mut random),
                3 => drop(bed.fdb.add_static(random.vid(), random.station(), PortId(random.below(5) as u16))),
                4..=6 => drop(bed.fdb.remove(random.vid(), random.mac())),
                _ => {}
            }
            let arrival = Bed::arrival(&mut random);
            passed += u32::from(bed.frame(&arrival, random.below(1_000_000_000)));
        }
    }
    println!("{passed} of {frames} frames passed in the kernel");
    assert!(passed > frames / 30, "{passed} of {frames} frames passed");
}
