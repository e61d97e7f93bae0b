//! Rings that are somewhere else, of another size, or say what cannot be.

use std::time::{Duration, Instant};

use crate::End::{Either, Fault, Lives, Never, Passes};
use crate::chains::QEMU_HANGS;
use crate::driver::{
    AVAIL, BUFFER, Driver, F_EVENT, F_INDIRECT, INDIRECT, NEXT, Piece, Place, RX, SIZE, TX, USED, WRITE, piece,
};
use crate::{Case, End, Ends, FAULT_PATIENCE};

/// Starts with one ring elsewhere, and asks for an echo.
fn elsewhere(driver: &mut Driver, ring: usize, change: impl Fn(&mut Place, &Place)) {
    let mut places = driver.usual_places();
    let other = places[RX + TX - ring];
    change(&mut places[ring], &other);
    start(driver, ring, places);
}

fn start(driver: &mut Driver, ring: usize, places: [Place; 2]) {
    driver.start(driver.good_features(), places);
    let ours = |place: Place| {
        let inside = |at: u64| (driver.memory.from..driver.memory.to - 0x1000).contains(&at);
        inside(place.table) && inside(place.available) && inside(place.used) && place.size > 0
    };
    if places.into_iter().all(ours) {
        driver.fill();
        driver.ask();
    }
    driver.notify(ring);
}

/// Makes a good chain available and then sets the available index.
fn index(driver: &mut Driver, ring: usize, change: fn(u16) -> u16) {
    driver.begin_for(ring);
    let flags = if ring == RX { WRITE } else { 0 };
    for number in 0..4 {
        let request = driver.request();
        driver.memory.write(driver.buffer(TX, number), &request);
        let len = if ring == RX { BUFFER } else { 72 };
        driver.post(ring, &[piece(driver.buffer(ring, number), len, flags)]);
    }
    driver.provoke(ring);
    // An index goes back only where the switch has read it: it has used all four transmit chains then.
    let begin = Instant::now();
    let used = |driver: &Driver| driver.memory.get16(driver.rings[ring].place.used + 2);
    while ring == TX && used(driver) < 4 && begin.elapsed() < FAULT_PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    let at = driver.rings[ring].place.available + 2;
    driver.memory.set16(at, change(driver.memory.get16(at)));
    // The switch looks at the index again when it has used what it knew of.
    (0..6).for_each(|_| driver.provoke(ring));
}

/// Makes the head `head` available.
fn head(driver: &mut Driver, ring: usize, head: u16) {
    driver.begin_for(ring);
    let place = driver.rings[ring].place;
    driver.memory.set16(place.available + 4, head);
    driver.memory.set16(place.available + 2, 1);
    driver.provoke(ring);
}

/// Writes a good chain into slot 0 of a packed ring, with these flags and this id.
fn slot(driver: &mut Driver, ring: usize, flags: u16, id: u16) {
    driver.begin_for(ring);
    let request = driver.request();
    driver.memory.write(driver.buffer(TX, 0), &request);
    let (len, way) = if ring == RX { (BUFFER, WRITE) } else { (72, 0) };
    driver.describe(driver.rings[ring].place.table, piece(driver.buffer(ring, 0), len, way | flags), id);
    driver.provoke(ring);
}

/// Fills a part of a ring with a byte, again and again, while frames pass.
fn scribble(driver: &mut Driver, ring: usize, part: fn(&Place) -> u64, bytes: usize) {
    driver.begin_for(ring);
    if ring == RX {
        driver.fill();
    }
    let at = part(&driver.rings[ring].place);
    let begin = Instant::now();
    let mut value = 0u8;
    while begin.elapsed() < Duration::from_millis(30) {
        value = value.wrapping_mul(5).wrapping_add(0x35);
        driver.memory.fill(at, bytes, value);
        if value.is_multiple_of(16) {
            driver.ask();
        }
    }
}

/// Changes the address of a descriptor that is available, again and again.
fn flicker(driver: &mut Driver, ring: usize) {
    driver.begin_for(ring);
    let (len, way) = if ring == RX { (BUFFER, WRITE) } else { (72, 0) };
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(30) && driver.has_link() {
        let at = driver.rings[ring].place.table + 16 * u64::from(driver.rings[ring].next);
        driver.post(ring, &[piece(driver.buffer(ring, 0), len, way)]);
        driver.provoke(ring);
        for address in [1 << 40, driver.buffer(ring, 0)].repeat(20) {
            driver.memory.write(at, &u64::to_le_bytes(address));
        }
    }
}

const fn split(end: End) -> Ends {
    Ends::by_layout(end, Never)
}

const fn packed(end: End) -> Ends {
    Ends::by_layout(Never, end)
}

/// All of them.
pub(crate) const RINGS: &[Case] = &[
    Case { name: "a ring of no entries", ends: Ends::all(Lives), play: |d, r| elsewhere(d, r, |p, _| p.size = 0) },
    Case { name: "a ring of one entry", ends: Ends::all(Lives), play: |d, r| elsewhere(d, r, |p, _| p.size = 1) },
    Case {
        name: "a ring of three entries",
        ends: Ends::by_layout(Fault, Lives),
        play: |d, r| elsewhere(d, r, |p, _| p.size = 3),
    },
    Case {
        name: "a ring of 1000 entries",
        ends: Ends::by_layout(Fault, Passes),
        play: |d, r| elsewhere(d, r, |p, _| p.size = 1000),
    },
    Case {
        name: "a ring of more entries than offered",
        ends: Ends::all(Lives),
        play: |d, r| elsewhere(d, r, |p, _| p.size = 32768),
    },
    Case { name: "the largest ring", ends: Ends::all(Passes), play: |d, r| elsewhere(d, r, |p, _| p.size = 1024) },
    Case {
        name: "a ring that ends with memory",
        ends: Ends::all(Passes),
        play: |d, r| {
            let to = d.memory.to;
            let used = to - if d.packed { 4 } else { 4 + 8 * u64::from(SIZE) + 4 };
            d.memory.fill(to - 0x2000, 0x2000, 0);
            let mut places = d.usual_places();
            places[r] = Place { size: SIZE, table: to - 0x2000, available: to - 0x1000, used };
            d.start(d.good_features(), places);
            d.fill();
            d.ask();
        },
    },
    Case {
        name: "a ring across the end of memory",
        ends: Ends::all(Lives),
        play: |d, r| {
            let to = d.memory.to;
            elsewhere(d, r, |p, _| p.table = to - 512);
        },
    },
    Case {
        name: "a ring outside memory",
        ends: Ends::all(Fault),
        play: |d, r| elsewhere(d, r, |p, _| p.table = 1 << 40),
    },
    Case {
        name: "a used ring outside memory",
        ends: Ends::all(Fault),
        play: |d, r| elsewhere(d, r, |p, _| p.used = 1 << 40),
    },
    Case {
        name: "a ring whose address wraps",
        ends: Ends::all(Fault),
        play: |d, r| elsewhere(d, r, |p, _| p.available = u64::MAX - 0xf),
    },
    Case {
        name: "a table at an odd address",
        ends: Ends::all(Fault),
        play: |d, r| elsewhere(d, r, |p, _| p.table += 8),
    },
    Case {
        name: "a used ring at an odd address",
        ends: Ends::all(Fault),
        play: |d, r| elsewhere(d, r, |p, _| p.used += 2),
    },
    Case {
        name: "the used ring over the available ring",
        ends: Ends::all(Either),
        play: |d, r| elsewhere(d, r, |p, _| p.used = p.available),
    },
    Case {
        name: "the used ring over the table",
        ends: Ends::all(Either),
        play: |d, r| elsewhere(d, r, |p, _| p.used = p.table),
    },
    Case {
        name: "all parts at one place",
        ends: Ends::all(Either),
        play: |d, r| elsewhere(d, r, |p, _| (p.available, p.used) = (p.table, p.table)),
    },
    Case {
        name: "both rings at one place",
        ends: Ends::all(Either),
        play: |d, r| elsewhere(d, r, |p, other| *p = *other),
    },
    Case {
        name: "the other ring's used ring",
        ends: Ends::all(Either),
        play: |d, r| elsewhere(d, r, |p, other| p.used = other.used),
    },
    Case {
        name: "an available index a ring and one ahead",
        ends: split(Fault),
        play: |d, r| index(d, r, |index| index.wrapping_add(SIZE + 1)),
    },
    Case {
        name: "an available index 32768 ahead",
        ends: split(Fault),
        play: |d, r| index(d, r, |index| index.wrapping_add(32768)),
    },
    Case {
        name: "an available index that goes back by one",
        ends: Ends { split: [Either, Fault], packed: [Never; 2] },
        play: |d, r| index(d, r, |index| index.wrapping_sub(1)),
    },
    Case {
        name: "an available index that goes back to 0",
        ends: Ends { split: [Either, Fault], packed: [Never; 2] },
        play: |d, r| index(d, r, |_| 0),
    },
    Case { name: "the whole ring again", ends: split(Lives), play: |d, r| index(d, r, |index| index.wrapping_add(8)) },
    Case { name: "a head just outside the table", ends: split(Fault), play: |d, r| head(d, r, SIZE) },
    Case { name: "a head far outside the table", ends: split(Fault), play: |d, r| head(d, r, u16::MAX) },
    Case {
        name: "a head that was never written",
        ends: Ends { split: [Fault, Lives], packed: [Never; 2] },
        play: |d, r| head(d, r, 40),
    },
    Case {
        name: "the same head in every entry",
        ends: split(Lives),
        play: |d, r| {
            d.begin_for(r);
            let (len, way) = if r == RX { (BUFFER, WRITE) } else { (72, 0) };
            d.post(r, &[piece(d.buffer(r, 0), len, way)]);
            d.memory.set16(d.rings[r].place.available + 2, SIZE);
            d.provoke(r);
        },
    },
    Case {
        // A fault if the ring is started behind the write: that is where a new switch resumes.
        name: "a used index that the driver writes",
        ends: split(Either),
        play: |d, r| {
            d.begin_for(r);
            d.memory.set16(d.rings[r].place.used + 2, 0x7fff);
            d.provoke(r);
        },
    },
    Case {
        name: "available flags and event index of all bits",
        ends: split(Lives),
        play: |d, r| {
            d.start(d.good_features() | F_EVENT, d.usual_places());
            d.fill();
            let at = d.rings[r].place.available;
            d.memory.set16(at, u16::MAX);
            d.memory.set16(at + 4 + 2 * u64::from(SIZE), u16::MAX);
            d.ask();
        },
    },
    Case {
        name: "an indirect table that was not negotiated",
        ends: Ends::all(Fault),
        play: |d, r| {
            let features = d.good_features() & !F_INDIRECT;
            d.start(features, d.usual_places());
            let table = d.table(d.table_room(), &[piece(d.buffer(r, 0), 72, if r == RX { WRITE } else { 0 })]);
            d.post(r, &[Piece { flags: INDIRECT, ..table }]);
            d.provoke(r);
        },
    },
    Case { name: "a scribble over the table", ends: Ends::all(Either), play: |d, r| scribble(d, r, |p| p.table, 1024) },
    Case {
        name: "a scribble over the available ring",
        ends: Ends::all(Either),
        play: |d, r| scribble(d, r, |p| p.available, 134),
    },
    Case {
        name: "a scribble over the used ring",
        ends: Ends::all(Either),
        play: |d, r| scribble(d, r, |p| p.used, 518),
    },
    Case { name: "a descriptor that flickers", ends: Ends::all(Either), play: flicker },
    Case { name: "flags both set", ends: packed(Lives), play: |d, r| slot(d, r, AVAIL | USED, 0) },
    Case { name: "the wrong wrap counter", ends: packed(Lives), play: |d, r| slot(d, r, USED, 0) },
    Case { name: "a buffer id of 65535", ends: packed(Lives), play: |d, r| slot(d, r, AVAIL, u16::MAX) },
    Case { name: "all flags of a slot", ends: packed(Fault), play: |d, r| slot(d, r, 0x7fff & !USED, 0) },
    Case {
        name: "all slots with one id",
        ends: packed(Lives),
        play: |d, r| {
            d.begin_for(r);
            let (len, way) = if r == RX { (BUFFER, WRITE) } else { (72, 0) };
            for slot in (0..SIZE).rev() {
                let at = d.rings[r].place.table + 16 * u64::from(slot);
                d.describe(at, piece(d.buffer(r, 0), len, way | AVAIL), 5);
            }
            d.provoke(r);
        },
    },
    Case {
        name: "all slots of the next lap as well",
        ends: packed(Either),
        play: |d, r| {
            d.begin_for(r);
            let (len, way) = if r == RX { (BUFFER, WRITE) } else { (72, 0) };
            let begin = Instant::now();
            let mut lap = AVAIL;
            while begin.elapsed() < Duration::from_millis(30) {
                for slot in 0..SIZE {
                    let at = d.rings[r].place.table + 16 * u64::from(slot);
                    d.describe(at, piece(d.buffer(r, 0), len, way | lap), slot);
                }
                lap ^= AVAIL | USED;
                d.notify(r);
            }
            d.provoke(r);
        },
    },
    Case {
        name: "a chain over the end of the ring into its own head",
        ends: Ends { split: [Never; 2], ..QEMU_HANGS },
        play: |d, r| {
            d.begin_for(r);
            let way = if r == RX { WRITE } else { 0 };
            for slot in (0..SIZE).rev() {
                let at = d.rings[r].place.table + 16 * u64::from(slot);
                d.describe(at, piece(d.buffer(r, 0), 1, way | AVAIL | NEXT), slot);
            }
            d.provoke(r);
        },
    },
    Case {
        name: "driver event suppression of all bits",
        ends: packed(Lives),
        play: |d, r| {
            d.start(d.good_features() | F_EVENT, d.usual_places());
            d.memory.fill(d.rings[r].place.available, 4, 0xff);
            d.fill();
            d.ask();
        },
    },
    Case {
        name: "driver event suppression at a slot that is not there",
        ends: packed(Lives),
        play: |d, r| {
            d.begin();
            d.memory.write(d.rings[r].place.available, &[0xff, 0x7f, 2, 0]);
            d.fill();
            d.ask();
        },
    },
    Case {
        name: "a device event area that says where to resume",
        ends: packed(Lives),
        play: |d, r| {
            let places = d.usual_places();
            d.negotiate(d.good_features());
            d.memory.fill(d.memory.from, 0x2_0000, 0);
            d.memory.fill(places[r].used, 4, 0xff);
            (RX..=TX).for_each(|ring| d.enable(ring, places[ring]));
            d.go();
            d.provoke(r);
        },
    },
];
