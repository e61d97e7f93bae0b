//! Doorbells, resets and negotiation, by the register.

use std::time::{Duration, Instant};

use crate::End::{Either, Lives, Passes};
use crate::device::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};
use crate::driver::{Driver, F_CSUM, F_EVENT, F_MRG_RXBUF, F_VERSION_1, NET_HEADER, RX, TX, WRITE, piece};
use crate::{Case, Ends};

/// Frames on their way when something happens.
fn traffic(driver: &mut Driver) {
    for _ in 0..24 {
        let bytes = driver.request();
        let at = driver.buffer(TX, 100 + driver.rings[TX].next);
        driver.memory.write(at, &bytes);
        driver.post(TX, &[piece(at, u32::try_from(bytes.len()).expect("fits"), 0)]);
    }
    driver.notify(TX);
}

/// All of them.
pub(crate) const CONTROL: &[Case] = &[
    Case {
        name: "a flood of doorbells with nothing to do",
        ends: Ends::all(Passes),
        play: |d, r| {
            d.begin();
            d.fill();
            (0..10_000).for_each(|_| d.notify(r));
            d.ask();
        },
    },
    Case {
        name: "doorbells with any value",
        ends: Ends::all(Passes),
        play: |d, r| {
            d.begin();
            d.fill();
            for value in 0..500 {
                d.device.notify(u16::try_from(r).expect("a ring"), value * 131);
            }
            d.ask();
        },
    },
    Case {
        name: "doorbells of queues that do not exist",
        ends: Ends::once(Lives),
        play: |d, _| {
            d.begin();
            d.fill();
            (0..64).step_by(4).for_each(|place| d.device.notify_at(place, u16::MAX));
        },
    },
    Case {
        name: "a doorbell before the driver is ready",
        ends: Ends::all(Passes),
        play: |d, r| {
            d.negotiate(d.good_features());
            d.notify(r);
            d.begin();
            d.fill();
            d.ask();
        },
    },
    Case {
        name: "100 resets in the middle of traffic",
        ends: Ends::once(Passes),
        play: |d, _| {
            for _ in 0..100 {
                d.begin();
                d.fill();
                traffic(d);
                d.reset();
            }
            d.begin();
            d.fill();
            d.ask();
        },
    },
    Case {
        name: "a reset without a wait, then at once a start",
        ends: Ends::once(Passes),
        play: |d, _| {
            d.begin();
            d.fill();
            traffic(d);
            (0..20).for_each(|_| d.device.set_status(0));
            d.begin();
            d.fill();
            d.ask();
        },
    },
    Case {
        name: "other features at each start",
        ends: Ends::once(Passes),
        play: |d, _| {
            let good = d.good_features();
            for features in [good ^ F_CSUM, good ^ F_MRG_RXBUF, good | F_EVENT, good & (F_VERSION_1 | 1 << 34), good] {
                d.start(features, d.usual_places());
                d.fill();
                traffic(d);
            }
            d.begin();
            d.fill();
            d.ask();
        },
    },
    Case {
        name: "features changed while the device runs",
        ends: Ends::once(Passes),
        play: |d, _| {
            d.begin();
            d.fill();
            d.device.acknowledge(0);
            d.device.acknowledge(u64::MAX);
            d.ask();
        },
    },
    Case {
        name: "every feature on offer",
        ends: Ends::once(Either),
        play: |d, _| {
            d.start(u64::MAX, d.usual_places());
            d.fill();
            traffic(d);
        },
    },
    Case {
        name: "no feature",
        ends: Ends::once(Lives),
        play: |d, _| {
            d.start(0, d.usual_places());
            traffic(d);
        },
    },
    Case {
        name: "each feature alone",
        ends: Ends::once(Either),
        play: |d, _| {
            for bit in 0..36 {
                d.start(F_VERSION_1 | 1 << bit, d.usual_places());
                d.notify(TX);
            }
        },
    },
    Case {
        name: "ready without queues",
        ends: Ends::once(Lives),
        play: |d, _| {
            d.negotiate(d.good_features());
            d.go();
            d.notify(TX);
            d.notify(RX);
        },
    },
    Case {
        name: "ready without features",
        ends: Ends::once(Lives),
        play: |d, _| {
            d.reset();
            // Without features the device takes rings for split ones: packed descriptors left in them would be faults.
            d.clear_rings();
            let places = d.usual_places();
            (RX..=TX).for_each(|ring| d.enable(ring, places[ring]));
            d.device.set_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
            d.notify(TX);
        },
    },
    Case {
        name: "ready with one queue",
        ends: Ends::all(Either),
        play: |d, r| {
            d.negotiate(d.good_features());
            d.enable(r, d.usual_places()[r]);
            d.go();
            d.notify(r);
        },
    },
    Case {
        name: "queues at address 0",
        ends: Ends::once(Either),
        play: |d, _| {
            d.negotiate(d.good_features());
            (0..2).for_each(|queue| d.device.place_queue(queue, 64, [0; 3]));
            (0..2).for_each(|queue| d.device.enable_queue(queue, 1));
            d.go();
            d.notify(TX);
        },
    },
    Case {
        name: "a queue that moves while it runs",
        ends: Ends::all(Either),
        play: |d, r| {
            d.begin();
            d.fill();
            traffic(d);
            let mut place = d.usual_places()[r];
            (place.table, place.used) = (1 << 40, 3);
            d.enable(r, place);
            traffic(d);
        },
    },
    Case {
        name: "a queue that is enabled twice, and then not",
        ends: Ends::all(Either),
        play: |d, r| {
            d.begin();
            d.fill();
            let queue = u16::try_from(r).expect("a ring");
            for value in [1, 0, 1, 0xffff, 0] {
                d.device.enable_queue(queue, value);
                traffic(d);
            }
        },
    },
    Case {
        name: "status bits in any order",
        ends: Ends::once(Either),
        play: |d, _| {
            d.begin();
            for status in [DRIVER_OK, FAILED, FAILED | DRIVER_OK, 0xff, FEATURES_OK, 0x7f, 0x40, DRIVER_OK] {
                d.device.set_status(status);
                d.notify(TX);
            }
        },
    },
    Case {
        name: "no bus mastering in the middle of traffic",
        ends: Ends::once(Either),
        play: |d, _| {
            d.begin();
            d.fill();
            traffic(d);
            d.device.set_bus_master(false);
            traffic(d);
            d.device.set_bus_master(true);
            traffic(d);
        },
    },
    Case {
        name: "receive buffers without mergeable ones that hold a header only",
        ends: Ends::once(Lives),
        play: |d, _| {
            d.start(d.good_features() & !F_MRG_RXBUF, d.usual_places());
            let header = u32::try_from(NET_HEADER).expect("fits");
            (0..20).for_each(|number| d.post(RX, &[piece(d.buffer(RX, number), header, WRITE)]));
            d.provoke(RX);
        },
    },
    Case {
        name: "frames without a look at what was used",
        ends: Ends::once(Either),
        play: |d, _| {
            d.begin();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(100) {
                traffic(d);
            }
        },
    },
];
