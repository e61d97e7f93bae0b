//! Chains of descriptors that no good driver makes, each the first one in a ring of its own.
//!
//! In the transmit ring a chain begins with a whole request for an echo; in the receive ring an echo is asked for once
//! the chain is there.

use crate::End::{Fault, Lives, Never, Passes};
use crate::Ends;
use crate::driver::{BUFFER, Driver, INDIRECT, NET_HEADER, NEXT, Piece, RX, SIZE, TX, WRITE, chained, piece};

/// A chain.
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) ends: Ends,
    /// Its descriptors; the device has been set up.
    pieces: fn(&Driver, usize) -> Vec<Piece>,
}

/// A fault, but not in a packed transmit ring: when the switch hangs up, QEMU drops what is in there by itself, and
/// follows such a chain for ever.
pub(crate) const QEMU_HANGS: Ends = Ends { split: [Fault; 2], packed: [Fault, Never] };
/// Bytes of a whole request.
const REQUEST: u32 = HEADER + 60;
/// Bytes of the virtio-net header.
const HEADER: u32 = 12;
const _: () = assert!(HEADER as usize == NET_HEADER);
/// An address where a machine has no memory.
const NOWHERE: u64 = 1 << 40;
/// Flags that mean nothing.
const UNKNOWN: u16 = 0x7f78;

/// The flags of a buffer that goes the right way.
fn right(ring: usize) -> u16 {
    if ring == RX { WRITE } else { 0 }
}

/// The flags of one that goes the wrong way.
fn wrong(ring: usize) -> u16 {
    WRITE - right(ring)
}

/// A good buffer: of a whole request, or for any frame.
fn good(driver: &Driver, ring: usize) -> Piece {
    piece(driver.buffer(ring, 0), if ring == RX { BUFFER } else { REQUEST }, right(ring))
}

/// The good buffer cut into pieces of `bytes`.
fn cut(driver: &Driver, ring: usize, bytes: u32) -> Vec<Piece> {
    let whole = good(driver, ring);
    (0..REQUEST)
        .step_by(bytes as usize)
        .map(|at| piece(whole.address + u64::from(at), bytes.min(REQUEST - at), whole.flags))
        .collect()
}

/// The good buffer with another place.
fn elsewhere(driver: &Driver, ring: usize, address: u64, len: u32) -> Vec<Piece> {
    vec![Piece { address, len, ..good(driver, ring) }]
}

/// A table of one good descriptor, and the descriptor that names it with another length.
fn table_of_length(driver: &Driver, ring: usize, len: u32) -> Vec<Piece> {
    let table = driver.table(driver.table_room(), &[good(driver, ring)]);
    vec![Piece { len, ..table }]
}

/// A table of so many one-byte descriptors.
fn table_of(driver: &Driver, ring: usize, count: u16) -> Vec<Piece> {
    let bytes = (0..count).map(|n| piece(driver.buffer(ring, 0) + u64::from(n), 1, right(ring))).collect();
    vec![driver.table(driver.table_room(), &chained(bytes))]
}

/// All chains.
pub(crate) const CHAINS: &[Chain] = &[
    Chain { name: "a good chain", ends: Ends::of(Lives, Passes), pieces: |d, r| vec![good(d, r)] },
    Chain {
        name: "a descriptor that leads to itself",
        ends: Ends::by_layout(Fault, Never),
        pieces: |d, r| vec![Piece { next: Some(0), flags: right(r) | NEXT, len: 1, ..good(d, r) }],
    },
    Chain {
        name: "a loop of two",
        ends: Ends::by_layout(Fault, Never),
        pieces: |d, r| {
            let one = Piece { flags: right(r) | NEXT, len: 1, ..good(d, r) };
            vec![one, Piece { next: Some(0), ..one }]
        },
    },
    Chain {
        name: "a chain as long as the ring that does not end",
        ends: QEMU_HANGS,
        pieces: |d, r| {
            let endless = Piece { flags: right(r) | NEXT, len: 1, ..good(d, r) };
            vec![endless; usize::from(SIZE)]
        },
    },
    Chain {
        name: "a chain as long as the ring",
        ends: Ends::of(Lives, Passes),
        pieces: |d, r| {
            let mut pieces = vec![Piece { len: 1, ..good(d, r) }; usize::from(SIZE)];
            for (at, piece) in (0..).zip(&mut pieces) {
                piece.address += at;
            }
            let last = pieces.len() - 1;
            pieces[last].len = REQUEST - u32::from(SIZE) + 1;
            chained(pieces)
        },
    },
    Chain {
        name: "a next descriptor just outside the table",
        ends: Ends::by_layout(Fault, Never),
        pieces: |d, r| vec![Piece { next: Some(SIZE), flags: right(r) | NEXT, len: 1, ..good(d, r) }],
    },
    Chain {
        name: "a next descriptor far outside the table",
        ends: Ends::by_layout(Fault, Never),
        pieces: |d, r| vec![Piece { next: Some(u16::MAX), flags: right(r) | NEXT, len: 1, ..good(d, r) }],
    },
    Chain { name: "no bytes", ends: Ends::of(Fault, Lives), pieces: |d, r| vec![Piece { len: 0, ..good(d, r) }] },
    Chain { name: "no bytes at address 0", ends: Ends::of(Fault, Lives), pieces: |d, r| elsewhere(d, r, 0, 0) },
    Chain {
        name: "descriptors of no bytes before and between good ones",
        ends: Ends::of(Lives, Passes),
        pieces: |d, r| {
            let none = piece(NOWHERE, 0, right(r));
            let mut pieces = vec![none; 3];
            for one in cut(d, r, 36) {
                pieces.extend([one, none]);
            }
            chained(pieces)
        },
    },
    Chain {
        name: "4 GiB less a byte",
        ends: Ends::all(Fault),
        pieces: |d, r| vec![Piece { len: u32::MAX, ..good(d, r) }],
    },
    Chain {
        name: "all memory behind the buffer and one byte more",
        ends: Ends::all(Fault),
        pieces: |d, r| {
            let place = good(d, r).address;
            elsewhere(d, r, place, u32::try_from(d.memory.to - place).unwrap() + 1)
        },
    },
    Chain { name: "outside memory", ends: Ends::all(Fault), pieces: |d, r| elsewhere(d, r, NOWHERE, 100) },
    Chain { name: "an address that wraps", ends: Ends::all(Fault), pieces: |d, r| elsewhere(d, r, u64::MAX - 10, 100) },
    Chain {
        name: "across the end of memory",
        ends: Ends::all(Fault),
        pieces: |d, r| elsewhere(d, r, d.memory.to - 50, 100),
    },
    Chain { name: "just behind memory", ends: Ends::all(Fault), pieces: |d, r| elsewhere(d, r, d.memory.to, 100) },
    Chain { name: "registers of a device", ends: Ends::all(Fault), pieces: |d, r| elsewhere(d, r, 0xfee0_0000, 100) },
    Chain { name: "the firmware", ends: Ends::all(Fault), pieces: |d, r| elsewhere(d, r, 0xffff_0000, 100) },
    Chain {
        name: "the last bytes of memory",
        ends: Ends::of(Lives, Lives),
        pieces: |d, r| elsewhere(d, r, d.memory.to - u64::from(REQUEST), REQUEST),
    },
    Chain {
        name: "a good piece and one outside memory",
        ends: Ends::of(Lives, Fault),
        pieces: |d, r| chained(vec![good(d, r), piece(NOWHERE, 100, right(r))]),
    },
    Chain {
        name: "a table in one descriptor",
        ends: Ends::of(Lives, Passes),
        pieces: |d, r| vec![d.table(d.table_room(), &chained(cut(d, r, 20)))],
    },
    Chain {
        name: "a table at an odd address",
        ends: Ends::of(Lives, Passes),
        pieces: |d, r| vec![d.table(d.table_room() + 1, &chained(cut(d, r, 20)))],
    },
    Chain {
        name: "a table that is marked writable",
        ends: Ends::of(Lives, Passes),
        pieces: |d, r| {
            let table = d.table(d.table_room(), &chained(cut(d, r, 20)));
            vec![Piece { flags: INDIRECT | WRITE, ..table }]
        },
    },
    Chain { name: "a table of 0 bytes", ends: Ends::all(Fault), pieces: |d, r| table_of_length(d, r, 0) },
    Chain { name: "a table of 15 bytes", ends: Ends::all(Fault), pieces: |d, r| table_of_length(d, r, 15) },
    Chain { name: "a table of 17 bytes", ends: Ends::all(Fault), pieces: |d, r| table_of_length(d, r, 17) },
    Chain { name: "a table of 16 MiB", ends: Ends::all(Fault), pieces: |d, r| table_of_length(d, r, 16 << 20) },
    Chain {
        name: "a table of 4 GiB less 16 bytes",
        ends: Ends::all(Fault),
        pieces: |d, r| table_of_length(d, r, u32::MAX - 15),
    },
    Chain {
        name: "a table outside memory",
        ends: Ends::all(Fault),
        pieces: |_, _| vec![piece(NOWHERE, 160, INDIRECT)],
    },
    Chain {
        name: "a table across the end of memory",
        ends: Ends::all(Fault),
        pieces: |d, _| vec![piece(d.memory.to - 16, 32, INDIRECT)],
    },
    Chain {
        name: "a table with a next descriptor",
        ends: Ends::all(Fault),
        pieces: |d, r| {
            let table = d.table(d.table_room(), &[good(d, r)]);
            chained(vec![table, good(d, r)])
        },
    },
    Chain {
        name: "a table in a table",
        ends: Ends::all(Fault),
        pieces: |d, r| {
            let inner = d.table(d.table_room(), &[good(d, r)]);
            vec![d.table(d.table_room() + 4096, &[inner])]
        },
    },
    Chain {
        name: "a table that names itself",
        ends: Ends::all(Fault),
        pieces: |d, _| {
            let itself = piece(d.table_room(), 16, INDIRECT);
            vec![d.table(d.table_room(), &[itself])]
        },
    },
    Chain {
        name: "a loop in a table",
        ends: Ends::by_layout(Fault, Never),
        pieces: |d, r| {
            let one = Piece { flags: right(r) | NEXT, len: 1, ..good(d, r) };
            vec![d.table(d.table_room(), &[one, Piece { next: Some(0), ..one }])]
        },
    },
    Chain {
        name: "a next descriptor outside its table",
        ends: Ends::by_layout(Fault, Never),
        pieces: |d, r| {
            let one = Piece { flags: right(r) | NEXT, len: 1, next: Some(2), ..good(d, r) };
            vec![d.table(d.table_room(), &[one, one])]
        },
    },
    Chain { name: "a table of 200 bytes one by one", ends: Ends::all(Lives), pieces: |d, r| table_of(d, r, 200) },
    Chain {
        name: "a table of 1024 bytes one by one",
        ends: Ends { split: [Lives, Fault], packed: [Fault; 2] },
        pieces: |d, r| table_of(d, r, 1024),
    },
    Chain { name: "a table of 1025 bytes one by one", ends: Ends::all(Fault), pieces: |d, r| table_of(d, r, 1025) },
    Chain {
        name: "descriptors the wrong way",
        ends: Ends::of(Fault, Lives),
        pieces: |d, r| vec![Piece { flags: wrong(r), ..good(d, r) }],
    },
    Chain {
        name: "the second descriptor the wrong way",
        ends: Ends::of(Fault, Lives),
        pieces: |d, r| {
            let mut pieces = cut(d, r, 40);
            pieces[1].flags = wrong(r);
            chained(pieces)
        },
    },
    Chain {
        name: "flags that mean nothing",
        ends: Ends::of(Lives, Passes),
        pieces: |d, r| vec![Piece { flags: right(r) | UNKNOWN, ..good(d, r) }],
    },
    Chain {
        name: "11 bytes, less than a header",
        ends: Ends::of(Fault, Lives),
        pieces: |d, r| vec![Piece { len: 11, ..good(d, r) }],
    },
    Chain {
        name: "12 bytes, a header and no frame",
        ends: Ends::all(Lives),
        pieces: |d, r| vec![Piece { len: 12, ..good(d, r) }],
    },
    Chain { name: "13 bytes of a frame", ends: Ends::all(Lives), pieces: |d, r| vec![Piece { len: 25, ..good(d, r) }] },
    Chain {
        name: "the header in 12 descriptors",
        ends: Ends::of(Lives, Passes),
        pieces: |d, r| {
            let mut pieces = cut(d, r, 1);
            pieces.truncate(NET_HEADER);
            pieces.push(piece(good(d, r).address + u64::from(HEADER), REQUEST - HEADER, right(r)));
            chained(pieces)
        },
    },
    Chain {
        name: "11 descriptors of one byte",
        ends: Ends::of(Fault, Lives),
        pieces: |d, r| {
            let mut pieces = cut(d, r, 1);
            pieces.truncate(NET_HEADER - 1);
            chained(pieces)
        },
    },
    Chain {
        name: "a buffer of 16 MiB",
        ends: Ends::all(Lives),
        pieces: |d, r| elsewhere(d, r, d.large_room(), 16 << 20),
    },
    Chain {
        name: "a byte more than the largest frame",
        ends: Ends::all(Lives),
        pieces: |d, r| elsewhere(d, r, d.large_room(), 65536 + 64 + HEADER),
    },
    Chain {
        name: "60 descriptors of 16 MiB each",
        ends: Ends::all(Lives),
        pieces: |d, r| chained(vec![piece(d.large_room(), 16 << 20, right(r)); 60]),
    },
    Chain {
        name: "the same bytes in every descriptor",
        ends: Ends::all(Lives),
        pieces: |d, r| chained(vec![piece(d.buffer(r, 0), 40, right(r)); 30]),
    },
    Chain {
        name: "the descriptor table itself",
        ends: Ends::all(Lives),
        pieces: |d, r| elsewhere(d, r, d.rings[r].place.table, 16 * u32::from(SIZE)),
    },
    Chain {
        name: "the available ring itself",
        ends: Ends::of(Lives, Lives),
        pieces: |d, r| elsewhere(d, r, d.rings[r].place.available, 512),
    },
    Chain {
        name: "the used ring itself",
        ends: Ends::all(Lives),
        pieces: |d, r| elsewhere(d, r, d.rings[r].place.used, 512),
    },
    Chain {
        name: "the other ring's table",
        ends: Ends::of(Lives, Lives),
        pieces: |d, r| elsewhere(d, r, d.rings[RX + TX - r].place.table, 16 * u32::from(SIZE)),
    },
];

/// Puts a chain into a ring and has the switch look at it.
pub(crate) fn play(driver: &mut Driver, ring: usize, chain: &Chain) {
    driver.begin_for(ring);
    if ring == TX {
        let request = driver.request();
        driver.memory.write(driver.buffer(TX, 0), &request);
    }
    let pieces = (chain.pieces)(driver, ring);
    driver.post(ring, &pieces);
    driver.provoke(ring);
}
