//! Tables that go on where another one stood.

use super::*;

/// A table in which much is known.
fn busy() -> Snooping {
    let snooping = Snooping::new(3);
    for (port, frame) in [
        (ROUTER, query(ON, HOST_V4.into(), None, 10, false)),
        (ROUTER, hello(ON, false)),
        (A, one(ON, 0x16, ip("239.1.2.3"))),
        (B, one(ON, 0x16, ip("239.1.2.3"))),
        (B, one(ON, 131, ip("ff05::1234"))),
    ] {
        observe(&snooping, port, &frame, 100);
    }
    snooping
}

#[test]
fn changes_after_a_record_make_it_whole_and_are_only_those() {
    let old = busy();
    let before = old.record();
    let new = Snooping::new(4);
    new.go_on(&before, 100).unwrap();
    assert_eq!(new.record(), before);
    for (port, frame) in [
        (A, one(ON, 0x17, ip("239.1.2.3"))),
        (A, one(ON, 0x16, ip("239.1.2.4"))),
        (A, query(ON, HOST_V6.into(), None, 10, false)),
        (A, query(ON, ip("0.0.0.0"), None, 10, false)),
        (B, vec![0; 60]),
    ] {
        observe(&old, port, &frame, 101);
    }
    let after = old.record();
    let changes = after.since(&before);
    assert_ne!(changes, after);
    assert_eq!(after.since(&after).since(&after), after.since(&after), "nothing but counts");
    new.go_on(&changes, 102).unwrap();
    assert_eq!(new.record(), after);
    assert_eq!(
        (new.groups(102), new.routers(102), new.counters()),
        (old.groups(102), old.routers(102), old.counters())
    );
    // It goes on: what was left ends, what was heard stays.
    for snooping in [&old, &new] {
        snooping.sweep(105);
        let group = |address| snooping.audience(vid(), Look::Group(ip(address)));
        assert_eq!(group("239.1.2.3"), ports(&[B, ROUTER]));
        assert_eq!(group("239.1.2.4"), ports(&[A, ROUTER]));
    }
}

#[test]
fn ports_that_are_gone_take_nobody_with_them() {
    let record = busy().record().with_ports(|port| Some(port).filter(|port| *port != B));
    let new = Snooping::new(4);
    new.go_on(&record, 100).unwrap();
    new.sweep(111);
    assert_eq!(new.audience(vid(), Look::Group(ip("239.1.2.3"))), ports(&[A, ROUTER]));
    assert_eq!(new.group_count(), 1, "no group without ports");
    let record = record.with_ports(|port| Some(port).filter(|port| *port != ROUTER));
    let new = Snooping::new(4);
    new.go_on(&record, 100).unwrap();
    new.sweep(111);
    assert_eq!(new.audience(vid(), Look::Group(ip("239.1.2.3"))), None, "nobody asks");
    assert!(new.routers(111).is_empty());
}

#[test]
fn a_table_that_is_full_goes_on_full() {
    let old = Snooping::new(3);
    observe(&old, ROUTER, &query(ON, HOST_V4.into(), None, 10, false), 100);
    for group in 0..=MAX_GROUPS {
        let [a, b] = u16::try_from(group).unwrap().to_be_bytes();
        observe(&old, A, &one(ON, 0x16, [239, 1, a, b].into()), 100);
    }
    assert_eq!((old.group_count(), old.counters().refused), (MAX_GROUPS, 1));
    let new = Snooping::new(4);
    new.go_on(&old.record(), 100).unwrap();
    assert_eq!(new.record(), old.record());
    for snooping in [&old, &new] {
        snooping.sweep(111);
        assert_eq!(snooping.routers(111)[0].state, State::Full);
        observe(snooping, B, &one(ON, 0x16, ip("239.2.0.0")), 111);
        assert_eq!(snooping.counters().refused, 2);
    }
}
