//! What [`Fdb::would_learn`] says is what [`Fdb::learn`] then does: small tables, few ports, with limits, stickiness,
//! static entries and ageing, so that every answer comes up.

use std::collections::HashMap;

use super::*;

/// Numbers that look like nothing in particular.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn port(&mut self) -> PortId {
        PortId(u16::try_from(self.below(3)).unwrap())
    }
}

#[test]
fn what_would_be_learned_is_learned() {
    let mut answers: HashMap<String, usize> = HashMap::new();
    for seed in 0..60 {
        let (mut dice, mut now) = (Dice(seed), u32::MAX - 40);
        let fdb = Fdb::new([1, 2, 5, 40][usize::try_from(seed).unwrap() % 4], 20, seed);
        for _ in 0..400 {
            let (address, port) = (mac(dice.below(9)), dice.port());
            match dice.below(16) {
                0 => fdb.set_port_limit(port, Some(u32::try_from(dice.below(3)).unwrap())),
                1 => fdb.set_port_limit(port, None),
                2 => fdb.set_port_sticky(port, dice.below(2) == 0, now),
                3 => drop(fdb.add_static(VLAN, address, port)),
                4 => drop(fdb.remove(VLAN, address)),
                5 => drop(fdb.flush_with_sticky(None, Some(port))),
                6 => now = now.wrapping_add(u32::try_from(dice.below(25)).unwrap()),
                7 => drop(fdb.sweep(now, 8)),
                _ => {
                    let before = (fdb.entry(VLAN, address, now), fdb.len(), fdb.len_of_port(port));
                    let foretold = fdb.would_learn(VLAN, address, port, now);
                    assert_eq!((fdb.entry(VLAN, address, now), fdb.len(), fdb.len_of_port(port)), before);
                    assert_eq!(fdb.learn(VLAN, address, port, now), foretold, "seed {seed}: {address:?} at {port:?}");
                    *answers
                        .entry(format!("{foretold:?}").chars().take_while(|c| c.is_alphabetic()).collect())
                        .or_default() += 1;
                }
            }
        }
    }
    let mut seen: Vec<_> = answers.keys().map(String::as_str).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["Full", "Known", "Moved", "New", "PortLimit", "Refreshed", "Static", "Sticky"]);
}

/// Each answer where one thing decides.
#[test]
fn limits_stickiness_and_static_entries_are_foretold() {
    let (one, two) = (PortId(1), PortId(2));
    let fdb = Fdb::new(100, 10, 1);
    fdb.set_port_limit(one, Some(1));
    let foretold = |number: u64, port: PortId, now: u32| fdb.would_learn(VLAN, mac(number), port, now);
    assert_eq!(foretold(1, one, 5), Learned::New);
    fdb.learn(VLAN, mac(1), one, 5);
    fdb.learn(VLAN, mac(2), two, 5);
    assert_eq!(foretold(3, one, 5), Learned::PortLimit, "a second address of a port that may have one");
    assert_eq!(foretold(2, one, 5), Learned::PortLimit, "an address that comes from another port");
    assert_eq!(foretold(1, two, 5), Learned::Moved { from: one });
    assert_eq!(foretold(1, one, 5), Learned::Known);
    assert_eq!(foretold(1, one, 6), Learned::Refreshed);
    assert_eq!(foretold(1, one, 15), Learned::New, "an aged entry of its own does not count against the limit");
    fdb.set_port_sticky(two, true, 5);
    fdb.add_static(VLAN, mac(4), two).unwrap();
    assert_eq!(foretold(2, PortId(3), 5), Learned::Sticky);
    assert_eq!(foretold(2, PortId(3), 500), Learned::Sticky, "what is sticky does not age");
    assert_eq!(foretold(4, one, 500), Learned::Static);
    assert_eq!(foretold(4, two, 500), Learned::Known);
    assert_eq!(fdb.would_learn(VLAN, Mac::BROADCAST, one, 5), Learned::Group);
}
