//! The gate by itself: rates over time, copies that come back, sources.

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

fn gate(rate_fps: u32, sources: &[Mac]) -> Injection {
    let spec = InjectSpec { ingress: IngressAs::Vlan(Vid::DEFAULT), rate_fps, sources: sources.to_vec() };
    Injection::new(spec, 0x5eed)
}

fn frame(source: u8, fill: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![fill; len];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xff, 2, 0, 0, 0, 0, source]);
    frame
}

/// Offers a frame every `step_ns` for `seconds`; gives how many may pass.
fn passed(allowance: &Allowance, start_ns: u64, step_ns: u64, seconds: u64) -> u64 {
    let offered = (0..seconds * SECOND_NS / step_ns).filter(|n| allowance.take(start_ns + n * step_ns, false));
    offered.count() as u64
}

#[test]
fn a_rate_is_met_and_a_burst_bounded() {
    // Far more is offered than allowed: the rate, and the burst once.
    for (rate, burst, step_ns, start_ns) in
        [(500, 64, 100_000, 0), (10_000, 100, 10_000, 77), (1, 64, 1_000_000, u64::MAX / 2), (100_000, 1000, 1_000, 5)]
    {
        let allowance = Allowance::new(rate);
        let passed = passed(&allowance, start_ns, step_ns, 10);
        let rate = u64::from(rate);
        let most = 10 * rate + burst;
        assert!((most - rate / 100 - 1..=most).contains(&passed), "{passed} of {rate} a second");
    }
    // Who keeps to it loses nothing; who was silent has a burst again and not more.
    let allowance = Allowance::new(1000);
    assert_eq!(passed(&allowance, 0, 1_000_000, 5), 5000);
    assert_eq!((0..200).filter(|_| allowance.take(60 * SECOND_NS, false)).count(), 64);
    // Silent beyond the wrap of the clock's unit.
    let day_ns = 86_400 * SECOND_NS;
    for days in [100, 150, 205, 209, 400] {
        let allowance = Allowance::new(1);
        assert!((0..64).all(|_| allowance.take(5, false)) && !allowance.take(5, false));
        assert!(allowance.take(5 + days * day_ns, false), "after {days} days");
    }
}

#[test]
fn asking_uses_nothing_up() {
    let allowance = Allowance::new(10);
    assert!((0..1000).all(|_| allowance.take(0, true)));
    assert_eq!((0..1000).filter(|_| allowance.take(0, false)).count(), 64);
    assert!(!allowance.take(0, true));
}

#[test]
fn a_copy_that_comes_back_is_known_for_two_seconds() {
    let gate = gate(1_000_000, &[]);
    let echoes = gate.echoes();
    for start_ns in [0, 77 * SECOND_NS, u64::MAX / 3] {
        let copy = frame(1, 7, 600);
        let whole = u32::try_from(copy.len()).unwrap();
        echoes.note(&copy, whole, start_ns);
        let back = |at_ns: u64| gate.admit(&copy[..128], whole, start_ns + at_ns, false);
        for at_ns in [0, 1, SECOND_NS, ECHO_NS] {
            assert_eq!(back(at_ns), Err(DropReason::MirrorLoop), "after {at_ns} ns");
        }
        assert_eq!(back(ECHO_NS + SECOND_NS / 10), Ok(()));
        // Another byte, or another length, is another frame.
        let mut other = copy.clone();
        other[127] ^= 1;
        assert_eq!(gate.admit(&other[..128], whole, start_ns, false), Ok(()));
        assert_eq!(gate.admit(&copy[..128], whole + 1, start_ns, false), Ok(()));
        assert_eq!(gate.admit(&copy[..128], whole, start_ns, true), Err(DropReason::MirrorLoop), "also if only asked");
    }
}

#[test]
fn padding_on_a_wire_does_not_hide_a_copy() {
    let gate = gate(1000, &[]);
    let short = frame(1, 9, 42);
    gate.echoes().note(&short, 42, 5);
    let mut padded = short.clone();
    padded.resize(60, 0);
    assert_eq!(gate.admit(&padded, 60, 5, false), Err(DropReason::MirrorLoop));
    assert_eq!(gate.admit(&short, 42, 5, false), Err(DropReason::MirrorLoop));
    padded.resize(61, 0);
    assert_eq!(gate.admit(&padded, 61, 5, false), Ok(()));
}

#[test]
fn as_many_copies_as_said_are_remembered_and_strangers_pass() {
    let gate = gate(1_000_000_000, &[]);
    let numbered = |n: u32| {
        let mut frame = frame(1, 0, 100);
        frame[20..24].copy_from_slice(&n.to_be_bytes());
        frame
    };
    let half = u32::try_from(ECHO_SLOTS / 2).unwrap();
    (0..half).for_each(|n| gate.echoes().note(&numbered(n), 100, u64::from(n)));
    let known = (0..half).filter(|n| gate.echoes().is_echo(&numbered(*n), 100, half.into())).count();
    // A set of four gets more than four of what half fills the table: once in a while.
    assert!(known > (half - half / 20) as usize, "{known} of {half}");
    assert_eq!((half..4 * half).filter(|n| gate.echoes().is_echo(&numbered(*n), 100, half.into())).count(), 0);
    // The newest are those that stay.
    (0..8 * half).for_each(|n| gate.echoes().note(&numbered(n), 100, u64::from(n) * 100_000));
    let now_ns = u64::from(8 * half) * 100_000;
    let newest = 8 * half - 5000..8 * half;
    assert!(newest.clone().filter(|n| gate.echoes().is_echo(&numbered(*n), 100, now_ns)).count() > 4990);
}

#[test]
fn only_allowed_sources_pass_and_refused_frames_use_no_allowance() {
    let gate = gate(1, &[Mac::new([2, 0, 0, 0, 0, 1])]);
    let ask = |source: u8| gate.admit(&frame(source, 0, 60), 60, 0, false);
    assert!((0..100).all(|_| ask(2) == Err(DropReason::InjectSource)));
    assert!((0..64).all(|_| ask(1) == Ok(())));
    assert_eq!(ask(1), Err(DropReason::InjectRate));
    assert_eq!(gate.admit(&[0; 5], 5, 2 * SECOND_NS, false), Ok(()), "a runt is for the port to refuse");
}

#[test]
fn a_gate_goes_on_where_another_stood() {
    let (old, second) = (gate(100, &[]), SECOND_NS);
    let copies: Vec<Vec<u8>> = (0..100).map(|n| frame(1, n, 200)).collect();
    old.echoes().note(&frame(2, 200, 60), 60, 10 * second);
    copies.iter().for_each(|copy| old.echoes().note(copy, 200, 14 * second));
    // The rate is used up.
    while old.admit(&frame(3, 1, 60), 60, 15 * second, false).is_ok() {}
    let (record, packed) = old.record(15 * second);
    assert_eq!(packed.len(), 100 * 12, "without the one that is over");
    let new = Injection::new(old.spec().clone(), 7);
    new.go_on(&record, &packed).unwrap();
    for gate in [&old, &new] {
        let admit = |frame: &[u8], bytes, now_ns| gate.admit(frame, bytes, now_ns, true);
        assert!(copies.iter().all(|copy| admit(copy, 200, 15 * second) == Err(DropReason::MirrorLoop)));
        assert_eq!(admit(&frame(3, 1, 60), 60, 15 * second), Err(DropReason::InjectRate));
        assert_eq!(admit(&frame(3, 1, 60), 60, 16 * second), Ok(()));
        assert_eq!(admit(&copies[0], 200, 18 * second), Ok(()), "long ago");
    }
    assert_eq!(new.record(15 * second), (record.clone(), packed.clone()));
    // With another hash function the places say nothing; garbled ones are refused.
    let other = Injection::new(old.spec().clone(), 7);
    let (of_other, _) = other.record(15 * second);
    let unlike = GateRecord::default();
    assert_ne!(of_other, unlike);
    other.go_on(&unlike, &packed).unwrap();
    assert!(other.record(15 * second).1.is_empty());
    let far = [&u32::MAX.to_le_bytes()[..], &[1; 8]].concat();
    for garbled in [&packed[1..], &far] {
        assert_eq!(Injection::new(old.spec().clone(), 7).go_on(&record, garbled), Err(GarbledGate));
    }
}
