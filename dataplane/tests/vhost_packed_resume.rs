//! Packed rings over a kill of the switch: the memory is put into the state after each single store of a burst, and the
//! next switch has to go on from there, every frame exactly once and none in pieces.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

use labsw_dataplane::frame::Burst;
use labsw_dataplane::port::{RxQueue, Turn};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{VhostOp, VhostReply};
use labsw_dataplane::virtio::Ring;
use labsw_testkit::guest::packed::{AVAIL, Driver, Side, USED, turn};
use labsw_testkit::guest::{Guest, MRG_RXBUF, USER_BASE, frame, frames_of};

/// The second words of all slots of a ring.
fn words(guest: &Guest, driver: &Driver) -> Vec<Vec<u8>> {
    (0..driver.size).map(|index| guest.read(driver.slot(guest, index) + 8, 8)).collect()
}

/// Slots in the order in which the switch writes them: of each chain the first one last; `reverse`: the last chain
/// first.
fn store_order(driver: &Driver, reverse: bool) -> Vec<u16> {
    let mut at = driver.next_used;
    let mut orders: Vec<Vec<u16>> = Vec::new();
    for (_, slots, _) in &driver.chains {
        let mut order: Vec<u16> = (1..*slots).map(|slot| (at + slot) % driver.size).collect();
        order.push(at);
        at = (at + slots) % driver.size;
        orders.push(order);
    }
    if reverse {
        orders.reverse();
    }
    orders.concat()
}

#[test]
fn a_transmit_ring_resumes_after_a_kill_at_every_store() {
    let cuts: [&[usize]; 4] = [&[], &[12, 3], &[5], &[1, 1, 40]];
    for start in 0..23u8 {
        for stores in 0.. {
            let mut side = Side::new(0, 11);
            let mut stats = PortDelta::ZERO;
            let mut burst = Burst::new();
            // To every place in both laps, by chains of one slot.
            for number in 0..start {
                assert!(side.tx.transmit(&side.guest, &frame(60, number), &[]));
                side.port.receive(0, &mut burst, &mut stats).unwrap();
                side.port.release(0, &mut burst).unwrap();
                assert_eq!(side.tx.reap(&side.guest), 1);
            }
            let sent: Vec<_> = (0..4).map(|number| frame(100, 100 + number)).collect();
            for (frame, cut) in sent.iter().zip(cuts) {
                assert!(side.tx.transmit(&side.guest, frame, cut));
            }
            let place = side.guest.addresses(1).used as usize - USER_BASE as usize;
            let (before, saved) = (words(&side.guest, &side.tx), side.guest.read(place, 2));
            side.port.receive(0, &mut burst, &mut stats).unwrap();
            assert_eq!(frames_of(&burst), sent);
            side.port.release(0, &mut burst).unwrap();
            let (after, order) = (words(&side.guest, &side.tx), store_order(&side.tx, false));
            if stores > order.len() {
                break;
            }
            // Back to what the memory was after so many stores.
            for &slot in &order[stores..] {
                side.guest.write(side.tx.slot(&side.guest, slot) + 8, &before[usize::from(slot)]);
            }
            assert!(order.iter().all(|&slot| before[usize::from(slot)] != after[usize::from(slot)]));
            side.guest.write(place, &saved);
            let done = [1, 4, 6, 10].iter().filter(|&&end| end <= stores).count();
            side.restart();
            side.port.receive(0, &mut burst, &mut stats).unwrap();
            assert_eq!(frames_of(&burst), sent[done..], "start {start}, {stores} stores");
            side.port.release(0, &mut burst).unwrap();
            assert_eq!(side.tx.reap(&side.guest), 4);
            // And on, more than once around.
            for number in 0..30 {
                assert!(side.tx.transmit(&side.guest, &frame(80, number), cuts[usize::from(number) % 4]));
                side.port.receive(0, &mut burst, &mut stats).unwrap();
                assert_eq!(frames_of(&burst), [frame(80, number)]);
                side.port.release(0, &mut burst).unwrap();
                assert_eq!(side.tx.reap(&side.guest), 1);
            }
        }
    }
}

#[test]
fn a_receive_ring_resumes_after_a_kill_at_every_store() {
    for start in 0..23u8 {
        for stores in 0.. {
            let (mut sender, mut side) = (Side::new(0, 64), Side::new(MRG_RXBUF, 11));
            let mut stats = PortDelta::ZERO;
            for number in 0..start {
                assert!(side.rx.post(&side.guest, &[300]));
                assert!(sender.tx.transmit(&sender.guest, &frame(60, number), &[]));
                assert_eq!(turn(&mut sender.port, &mut side.port, &mut stats), 0);
                assert_eq!((side.rx.received(&side.guest).len(), sender.tx.reap(&sender.guest)), (1, 1));
            }
            // One frame over three buffers of one to three slots.
            for pieces in [&[200, 100, 100][..], &[400], &[300, 200]] {
                assert!(side.rx.post(&side.guest, pieces));
            }
            let order = store_order(&side.rx, true);
            let place = side.guest.addresses(0).used as usize - USER_BASE as usize;
            let (before, saved) = (words(&side.guest, &side.rx), side.guest.read(place, 2));
            let large = frame(1000, 77);
            assert!(sender.tx.transmit(&sender.guest, &large, &[]));
            assert_eq!(turn(&mut sender.port, &mut side.port, &mut stats), 0);
            assert_eq!(sender.tx.reap(&sender.guest), 1);
            if stores > order.len() {
                break;
            }
            for &slot in &order[stores..] {
                side.guest.write(side.rx.slot(&side.guest, slot) + 8, &before[usize::from(slot)]);
            }
            side.guest.write(place, &saved);
            side.restart();
            let mut got = side.rx.received(&side.guest);
            // The frame is there in full as soon as one of its buffers is; if none is, they are used again.
            while side.rx.post(&side.guest, &[1500]) {}
            assert!(sender.tx.transmit(&sender.guest, &large, &[]));
            assert_eq!(turn(&mut sender.port, &mut side.port, &mut stats), 0);
            got.extend(side.rx.received(&side.guest));
            let begun = stores >= 2;
            assert_eq!(got.len(), 1 + usize::from(begun), "start {start}, {stores} stores");
            assert!(got.iter().all(|frame| *frame == large));
        }
    }
}

#[test]
fn a_stopped_ring_reports_place_and_lap_and_goes_on() {
    let mut side = Side::new(0, 5);
    for number in 0..23u32 {
        let lap = if number / 5 % 2 == 0 { 0x8000 } else { 0 };
        let base = Some(((number % 5) | lap) * 0x1_0001);
        assert_eq!(side.port.operate(VhostOp::StopRing { index: 1 }), VhostReply::Stopped { base });
        assert_eq!(Some(Ring::resume_position(&side.guest.setup(1).layout)), base);
        side.guest.start(&mut side.port);
        assert!(side.tx.transmit(&side.guest, &frame(60, 1), &[]));
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        side.port.receive(0, &mut burst, &mut stats).unwrap();
        assert_eq!(burst.len(), 1);
        side.port.release(0, &mut burst).unwrap();
        assert_eq!(side.tx.reap(&side.guest), 1);
    }
}

/// While no switch is connected, QEMU completes what the guest transmits, and begins at slot 0 whatever the switch's
/// place was.
#[test]
fn a_slot_that_another_device_completed_is_passed_over() {
    for (place, completed) in [(3, 1), (7, 2), (10, 1), (11, 1), (16, 3)] {
        let mut side = Side::new(0, 11);
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        let mut pass = |side: &mut Side, number: u8| {
            assert!(side.tx.transmit(&side.guest, &frame(60, number), &[]));
            side.port.receive(0, &mut burst, &mut stats).unwrap();
            assert_eq!(frames_of(&burst), [frame(60, number)]);
            side.port.release(0, &mut burst).unwrap();
            assert_eq!(side.tx.reap(&side.guest), 1);
        };
        for number in 0..place {
            pass(&mut side, number);
        }
        // The switch is away; the guest fills its ring beyond slot 0, of which another device completes the first ones.
        let sent: Vec<_> = (0..11).map(|number| frame(100, 100 + number)).collect();
        for frame in &sent {
            assert!(side.tx.transmit(&side.guest, frame, &[]));
        }
        let before_end = usize::from(11 - place % 11);
        for slot in 0..completed {
            let (_, id, flags) = side.tx.read(&side.guest, slot);
            let used = if flags & AVAIL != 0 { USED } else { 0 };
            side.tx.write(&side.guest, slot, 0, 0, id, flags & AVAIL | used);
        }
        side.restart();
        let mut burst = Burst::new();
        let mut got = vec![];
        for _ in 0..3 {
            side.port.receive(0, &mut burst, &mut PortDelta::ZERO.clone()).unwrap();
            got.extend(frames_of(&burst));
            side.port.release(0, &mut burst).unwrap();
            side.port.rx[0].run_due(&Turn::ONLY).unwrap();
        }
        let mut expected = sent.clone();
        expected.drain(before_end % 11..before_end % 11 + usize::from(completed));
        assert_eq!(got, expected, "place {place}, {completed} completed");
        assert_eq!(side.tx.reap(&side.guest), 11);
        for number in 0..30 {
            let mut burst = Burst::new();
            assert!(side.tx.transmit(&side.guest, &frame(60, number), &[]));
            side.port.receive(0, &mut burst, &mut PortDelta::ZERO.clone()).unwrap();
            assert_eq!(frames_of(&burst), [frame(60, number)]);
            side.port.release(0, &mut burst).unwrap();
            assert_eq!(side.tx.reap(&side.guest), 1);
        }
    }
}
