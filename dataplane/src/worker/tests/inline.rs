//! Sensors: frames go through them or past them, and probes show which. The sensor is the test itself: it carries
//! frames from one of its wires to the other.

use labsw_switch::inline::{Direction as Through, InlineSpec, Way, is_probe};

use super::*;
use crate::inline::{FOUND_ROUNDS, LOST_ROUNDS, ROUND_NS, Sensor};

/// The ports: the station behind the sensor, the sensor's two, and another station.
const WEB: usize = 0;
const NEAR: usize = 1;
const FAR: usize = 2;
const OTHER: usize = 3;

fn id(port: usize) -> PortId {
    PortId(u16::try_from(port).unwrap())
}

impl Lab {
    fn set_way(&mut self, way: Way) {
        self.set_tables_with(Vec::new(), &[InlineSpec { port: id(WEB), near: id(NEAR), far: id(FAR), way }]);
    }

    fn look_after(&mut self, sensor: &Arc<Sensor>) {
        let (done, answered) = bounded(1);
        self.command(Command::SetSensors { sensors: Arc::from([Arc::clone(sensor)]), done });
        answered.try_recv().unwrap();
    }

    /// Sends probes if they are due. Returns the number of events told.
    fn probe(&mut self) -> usize {
        let Worker { sensors, now, tables, ports, control, .. } = &mut self.worker;
        sensors.run_due(now, tables, ports, control);
        self.events.try_iter().filter(|event| matches!(event, Event::Sensors)).count()
    }

    /// The sensor carries what it was sent to its other side, in these directions, if it `takes` it.
    fn carry(&mut self, directions: &[Through], takes: impl Fn(&[u8]) -> bool) {
        for (from, to, way) in [(NEAR, FAR, Through::Inward), (FAR, NEAR, Through::Outward)] {
            let frames = std::mem::take(&mut self.wires[from].lock().unwrap().from_switch);
            let carried = frames.into_iter().filter(|frame| directions.contains(&way) && takes(frame));
            self.wires[to].lock().unwrap().to_switch.extend(carried);
        }
    }
}

#[test]
fn frames_of_a_port_go_through_its_sensor_both_ways_and_count_where_they_pass() {
    let mut lab = Lab::new(4);
    lab.set_way(Way::Through);
    lab.send(WEB, &frame(9, 1, 7));
    let got = lab.turn();
    assert_eq!((got[NEAR].clone(), got[OTHER].len()), (vec![frame(9, 1, 7)], 0), "undecided");
    lab.send(FAR, &frame(9, 1, 7));
    let got = lab.turn();
    assert_eq!([WEB, NEAR, FAR, OTHER].map(|port| got[port].len()), [0, 0, 0, 1], "flooded as the port's");
    // The address was learned at the port, so the answer is for the sensor.
    lab.send(OTHER, &frame(1, 9, 8));
    assert_eq!(lab.turn()[FAR], [frame(1, 9, 8)]);
    lab.send(NEAR, &frame(1, 9, 8));
    assert_eq!(lab.turn()[WEB], [frame(1, 9, 8)]);
    let counts = [WEB, NEAR, FAR, OTHER].map(|port| {
        let stats = lab.stats[port].snapshot();
        (stats.rx_frames, stats.tx_frames, stats.drops.iter().sum::<u64>())
    });
    assert_eq!(counts, [(1, 1, 0); 4]);
}

#[test]
fn a_dead_sensor_is_passed_by_or_closed() {
    for (way, drops) in [(Way::Past, 0), (Way::Closed, 1)] {
        let mut lab = Lab::new(4);
        lab.set_way(way);
        lab.send(WEB, &frame(9, 1, 7));
        assert_eq!(lab.turn()[OTHER].len(), 1 - drops);
        assert_eq!(lab.drops(WEB, DropReason::InlineClosed), drops as u64);
        // What the sensor still had.
        for port in [NEAR, FAR] {
            lab.send(port, &frame(9, 1, 7));
            assert!(lab.turn().iter().all(Vec::is_empty));
            assert_eq!(lab.drops(port, DropReason::InlineSensor), 1);
        }
    }
}

#[test]
fn probes_show_whether_a_sensor_works_and_nobody_else_sees_or_counts_them() {
    let mut lab = Lab::new(4);
    lab.set_way(Way::Past);
    let sensor = Arc::new(Sensor::new(id(NEAR), id(FAR), 77));
    lab.look_after(&sensor);
    let mut now_ns = 0;
    let mut round = |lab: &mut Lab, directions: &[Through]| {
        now_ns += ROUND_NS;
        lab.worker.set_time(now_ns);
        let told = lab.probe();
        lab.carry(directions, |frame| {
            assert!(is_probe(frame));
            true
        });
        assert!(lab.turn().iter().all(Vec::is_empty), "a probe has left");
        told
    };
    let told: usize = (0..=FOUND_ROUNDS).map(|_| round(&mut lab, &Through::ALL)).sum();
    assert_eq!(sensor.dead(), None);
    assert!(told > 0);
    for left in [&[][..], &[Through::Inward], &[Through::Outward]] {
        let told: usize = (0..=LOST_ROUNDS).map(|_| round(&mut lab, left)).sum();
        assert!(sensor.dead().is_some() && told > 0, "{left:?}");
        let told: usize = (0..=FOUND_ROUNDS).map(|_| round(&mut lab, &Through::ALL)).sum();
        assert!(sensor.dead().is_none() && told > 0);
    }
    for stats in &lab.stats {
        assert_eq!(stats.snapshot(), PortStats::new(1).snapshot());
    }
    // Without sensors there is nothing to do.
    let (done, _) = bounded(1);
    lab.command(Command::SetSensors { sensors: Arc::default(), done });
    assert_eq!(lab.worker.sensors.next_due(), crate::clock::NEVER);
    lab.worker.set_time(u64::MAX - 1);
    assert_eq!(lab.probe(), 0);
    assert!(lab.turn().iter().all(Vec::is_empty));
}

#[test]
fn a_port_that_is_down_gets_no_probe_and_a_broken_one_is_reported() {
    let mut lab = Lab::new(4);
    lab.specs[NEAR].1.enabled = false;
    lab.set_way(Way::Past);
    lab.look_after(&Arc::new(Sensor::new(id(NEAR), id(FAR), 77)));
    lab.worker.set_time(ROUND_NS);
    lab.probe();
    let sent = lab.turn();
    assert_eq!((sent[NEAR].len(), sent[FAR].len()), (0, 1));
    lab.wires[FAR].lock().unwrap().broken = true;
    lab.worker.set_time(3 * ROUND_NS);
    let Worker { sensors, now, tables, ports, control, .. } = &mut lab.worker;
    sensors.run_due(now, tables, ports, control);
    let told: Vec<Event> = lab.events.try_iter().collect();
    assert!(matches!(told[..], [Event::PortFault { id: PortId(2), .. }]), "{told:?}");
}
