//! The promises of an impairment: rates, shares and times over many frames, order, repeatability, bounds.

use proptest::prelude::*;

use super::rates::{MIN_RATE_STEP_NS, RateStep, Rates};
use super::*;

mod in_time;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const FRAMES: usize = 100_000;

fn impairment(spec: ImpairSpec) -> Impairment {
    Impairment::new(spec).unwrap()
}

/// Verdicts of frames of 1000 bytes, `gap_ns` apart.
fn verdicts(spec: ImpairSpec, frames: usize, gap_ns: u64) -> Vec<(u64, Verdict)> {
    let mut link = impairment(spec);
    (0..frames as u64).map(|frame| SECOND + frame * gap_ns).map(|now| (now, link.verdict(now, 1000))).collect()
}

fn is_lost(verdict: Verdict) -> bool {
    verdict == Verdict::Drop(DropReason::ImpairLoss)
}

fn delays(verdicts: &[(u64, Verdict)]) -> Vec<u64> {
    let delay = |(now, verdict): &(u64, Verdict)| match verdict {
        Verdict::Pass { due_ns, .. } => Some(due_ns - now),
        Verdict::Drop(_) => None,
    };
    verdicts.iter().filter_map(delay).collect()
}

fn quantile(mut delays: Vec<u64>, share: f64) -> u64 {
    delays.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    delays[((delays.len() - 1) as f64 * share) as usize]
}

#[test]
fn without_anything_set_every_frame_passes_at_once() {
    for (now, verdict) in verdicts(ImpairSpec::NONE, 1000, 0) {
        assert_eq!(verdict, Verdict::Pass { due_ns: now, copy_due_ns: None, flip_bit: None });
    }
}

#[test]
fn shares_are_those_asked_for_with_any_seed() {
    let five = Chance::percent(5);
    for seed in 0..20 {
        let spec = ImpairSpec { seed, ..ImpairSpec::NONE };
        let share = |spec, happened: fn(u64, Verdict) -> bool| {
            verdicts(spec, FRAMES, 100_000).iter().filter(|(now, verdict)| happened(*now, *verdict)).count()
        };
        let counts = [
            share(ImpairSpec { loss: Loss::Random(five), ..spec }, |_, verdict| is_lost(verdict)),
            share(ImpairSpec { duplicate: five, ..spec }, |_, verdict| {
                matches!(verdict, Verdict::Pass { copy_due_ns: Some(_), .. })
            }),
            share(
                ImpairSpec { corrupt: five, ..spec },
                |_, verdict| matches!(verdict, Verdict::Pass { flip_bit: Some(bit), .. } if bit < 8000),
            ),
            share(
                ImpairSpec { reorder: five, delay_ns: 20 * MS, ..spec },
                |now, verdict| matches!(verdict, Verdict::Pass { due_ns, .. } if due_ns == now),
            ),
        ];
        // 4.7 to 5.3 %: more than four standard deviations to either side.
        assert!(counts.iter().all(|count| (4_700..=5_300).contains(count)), "seed {seed}: {counts:?}");
    }
}

#[test]
fn never_and_always_are_exact() {
    let lost = |chance| {
        let spec = ImpairSpec { loss: Loss::Random(chance), ..ImpairSpec::NONE };
        verdicts(spec, FRAMES, 0).iter().filter(|(_, verdict)| is_lost(*verdict)).count()
    };
    assert_eq!((lost(Chance::NEVER), lost(Chance::ALWAYS)), (0, FRAMES));
    assert!((1..FRAMES / 1000).contains(&lost(Chance::new(100).unwrap())), "0.01 %");
}

#[test]
fn gilbert_elliott_loses_in_bursts_of_the_length_asked_for() {
    for seed in 0..5 {
        // One burst in 190 frames begins, ends after 10 in the mean, and loses all: 5 % of the frames.
        let loss = Loss::GilbertElliott {
            enter: Chance::new(5_263).unwrap(),
            leave: Chance::percent(10),
            loss_bad: Chance::ALWAYS,
            loss_good: Chance::NEVER,
        };
        assert!((loss.mean() - 0.05).abs() < 0.0001);
        let verdicts = verdicts(ImpairSpec { loss, seed, ..ImpairSpec::NONE }, 20 * FRAMES, 0);
        let lost: Vec<bool> = verdicts.iter().map(|(_, verdict)| is_lost(*verdict)).collect();
        let losses = lost.iter().filter(|lost| **lost).count();
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((90_000..=110_000).contains(&losses), "seed {seed}: {losses}");
        assert!((9.5..10.5).contains(&(losses as f64 / bursts as f64)), "seed {seed}: {losses} in {bursts} bursts");
    }
}

#[test]
fn gilbert_elliott_loses_in_the_good_state_too() {
    let loss = Loss::GilbertElliott {
        enter: Chance::percent(1),
        leave: Chance::percent(9),
        loss_bad: Chance::percent(50),
        loss_good: Chance::percent(10),
    };
    assert!((loss.mean() - 0.14).abs() < 1e-9);
    let verdicts = verdicts(ImpairSpec { loss, ..ImpairSpec::NONE }, 5 * FRAMES, 0);
    let losses = verdicts.iter().filter(|(_, verdict)| is_lost(*verdict)).count();
    assert!((68_000..72_000).contains(&losses), "{losses}");
}

#[test]
fn a_rate_is_met_exactly_and_its_queue_is_bounded() {
    // Bits per second; bytes of a frame.
    let cases = [(10_000_000, 1514), (10_000_000, 64), (100_000_000_000, 64), (8_000, 1000), (333_333, 777)];
    for (bits_per_second, bytes) in cases {
        let rate = RateSpec { queue_frames: 50, ..RateSpec::new(bits_per_second) };
        let mut link = impairment(ImpairSpec { rate: Some(rate), ..ImpairSpec::NONE });
        let (mut passed, mut last_ns, mut dropped) = (0u64, 0, 0u64);
        // Offered at three times the rate for the time of 3000 frames.
        let frame_ns = f64::from(bytes - 14) * 8e9 / bits_per_second as f64;
        for frame in 0..9000u32 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
            let now = SECOND + (f64::from(frame) * frame_ns / 3.0) as u64;
            match link.verdict(now, bytes) {
                Verdict::Pass { due_ns, .. } => {
                    assert!(due_ns > last_ns, "one after the other");
                    assert!((due_ns - now) as f64 <= 50.0 * frame_ns + 50.0, "at most the queue's 50 frames late");
                    (passed, last_ns) = (passed + 1, due_ns);
                }
                verdict => {
                    assert_eq!(verdict, Verdict::Drop(DropReason::ImpairQueueFull));
                    dropped += 1;
                }
            }
        }
        assert!(dropped > 5000, "{dropped}");
        let achieved = passed as f64 * f64::from(bytes - 14) * 8e9 / (last_ns - SECOND) as f64 / bits_per_second as f64;
        assert!((0.9999..1.0001).contains(&achieved), "{bits_per_second} bit/s of {bytes}: {achieved}");
    }
}

#[test]
fn the_queue_counts_bytes_and_takes_any_frame_when_it_is_empty() {
    let rate = RateSpec { queue_bytes: 3028, ..RateSpec::new(8_000_000) };
    let mut link = impairment(ImpairSpec { rate: Some(rate), ..ImpairSpec::NONE });
    let full = Verdict::Drop(DropReason::ImpairQueueFull);
    let pass = |due_ns| Verdict::Pass { due_ns, copy_due_ns: None, flip_bit: None };
    // A byte behind the header takes a microsecond.
    let steps = [
        (0, 1500, pass(1_500_000)),
        (0, 1500, pass(3_000_000)),
        (0, 1, full),
        (1_499_999, 1, full),
        (1_500_000, 1500, pass(4_500_000)),
        (10_000_000, 9000, pass(19_000_000)),
        (10_000_001, 1, full),
        (19_000_000, 1, pass(19_001_000)),
    ];
    for (now, bytes, expected) in steps {
        assert_eq!(link.verdict(now, 14 + bytes), expected, "{bytes} bytes at {now}");
    }
}

#[test]
fn a_copy_takes_its_turn_in_the_queue_and_is_not_made_if_that_is_full() {
    let rate = RateSpec { queue_frames: 3, ..RateSpec::new(8_000_000) };
    let spec = ImpairSpec { rate: Some(rate), duplicate: Chance::ALWAYS, ..ImpairSpec::NONE };
    let mut link = impairment(spec);
    let pass = |due_ns, copy_due_ns| Verdict::Pass { due_ns, copy_due_ns, flip_bit: None };
    assert_eq!(link.verdict(0, 1014), pass(MS, Some(2 * MS)));
    assert_eq!(link.verdict(0, 1014), pass(3 * MS, None));
    assert_eq!(link.verdict(0, 1014), Verdict::Drop(DropReason::ImpairQueueFull));
}

#[test]
fn delays_are_exact_without_jitter_and_uniform_with_it_at_any_frame_rate() {
    let exact = ImpairSpec { delay_ns: 20 * MS, ..ImpairSpec::NONE };
    assert!(delays(&verdicts(exact, 1000, 7)).iter().all(|delay| *delay == 20 * MS));
    for seed in 0..3 {
        let spec = ImpairSpec { jitter_ns: 5 * MS, seed, ..exact };
        // From 20 frames in a millisecond to one in a second. The dense ones cover 10 s, so some 300 sweeps.
        for (frames, gap_ns) in [(200_000, 50_000), (100_000, MS), (100_000, SECOND)] {
            let delays = delays(&verdicts(spec, frames, gap_ns));
            assert_eq!(delays.len(), frames);
            assert!(delays.iter().all(|delay| (15 * MS..=25 * MS).contains(delay)));
            for (share, expected_us) in [(0.1, 16_000), (0.5, 20_000), (0.9, 24_000)] {
                let off_us = (quantile(delays.clone(), share) / 1000).abs_diff(expected_us);
                assert!(off_us <= 200, "seed {seed}, gap {gap_ns} ns: quantile {share} is {off_us} us off");
            }
        }
    }
}

#[test]
fn jitter_of_frames_far_apart_is_independent() {
    let spec = ImpairSpec { delay_ns: 20 * MS, jitter_ns: 5 * MS, ..ImpairSpec::NONE };
    let delays = delays(&verdicts(spec, 10_000, SECOND));
    let above = |delay: &u64| *delay > 20 * MS;
    let same = delays.windows(2).filter(|pair| above(&pair[0]) == above(&pair[1])).count();
    assert!((4_800..5_200).contains(&same), "{same} of 9999 neighbours on the same side");
}

#[test]
fn with_the_same_seed_the_same_frames_are_hit_whatever_their_times() {
    let spec = ImpairSpec {
        delay_ns: 20 * MS,
        loss: Loss::Random(Chance::percent(5)),
        duplicate: Chance::percent(4),
        corrupt: Chance::percent(3),
        reorder: Chance::percent(2),
        seed: 42,
        ..ImpairSpec::NONE
    };
    let hits = |spec, gap_ns| -> Vec<_> {
        let hit = |(now, verdict): &(u64, Verdict)| match *verdict {
            Verdict::Drop(_) => None,
            Verdict::Pass { due_ns, copy_due_ns, flip_bit } => Some((copy_due_ns.is_some(), flip_bit, due_ns == *now)),
        };
        verdicts(spec, 10_000, gap_ns).iter().map(hit).collect()
    };
    assert_eq!(verdicts(spec, 10_000, 5), verdicts(spec, 10_000, 5));
    assert_eq!(hits(spec, 5), hits(spec, MS));
    assert_ne!(hits(spec, 5), hits(ImpairSpec { seed: 43, ..spec }, 5));
    // Each stage is independent of the others.
    let lossless = hits(ImpairSpec { loss: Loss::NONE, ..spec }, 5);
    let rate = Some(RateSpec { queue_frames: 1, ..RateSpec::new(1_000_000) });
    let slow = hits(ImpairSpec { rate, ..spec }, 9 * MS);
    for (frame, all) in hits(spec, 5).into_iter().enumerate() {
        assert!(all.is_none() || all == lossless[frame], "frame {frame}");
        let slow = slow[frame].map(|(copy, bit, _)| (copy, bit));
        // The queue of one frame has no room for copies.
        assert_eq!(slow, all.map(|(_, bit, _)| (false, bit)), "frame {frame}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_with_the_key_to_change() {
    let rate = |rate| ImpairSpec { rate: Some(rate), ..ImpairSpec::NONE };
    let good = RateSpec::new(10_000_000);
    let outage = Some(Outage { after_ns: 1, lasts_ns: 0 });
    let segment = |number, retransmissions| ImpairSpec {
        segment: Some(SegmentLoss { number, retransmissions }),
        ..ImpairSpec::NONE
    };
    let cases = [
        (ImpairSpec { delay_ns: MAX_DELAY_NS + 1, ..ImpairSpec::NONE }, Contradiction::DelayTooLong),
        (ImpairSpec { delay_ns: MAX_DELAY_NS, jitter_ns: 1, ..ImpairSpec::NONE }, Contradiction::DelayTooLong),
        (ImpairSpec { delay_ns: 5, jitter_ns: 6, ..ImpairSpec::NONE }, Contradiction::JitterAboveDelay),
        (ImpairSpec { reorder: Chance::percent(1), ..ImpairSpec::NONE }, Contradiction::ReorderWithoutDelay),
        (rate(RateSpec::new(7_999)), Contradiction::RateOutOfRange),
        (rate(RateSpec::new(0)), Contradiction::RateOutOfRange),
        (rate(RateSpec::new(100_000_000_001)), Contradiction::RateOutOfRange),
        (ImpairSpec { outage, ..ImpairSpec::NONE }, Contradiction::NoOutage),
        (segment(0, 0), Contradiction::SegmentNumber),
        (segment(65_536, 0), Contradiction::SegmentNumber),
        (segment(1, 256), Contradiction::Retransmissions),
        (rate(RateSpec { queue_frames: 0, ..good }), Contradiction::QueueFrames),
        (rate(RateSpec { queue_frames: 65_537, ..good }), Contradiction::QueueFrames),
        (rate(RateSpec { queue_bytes: 0, ..good }), Contradiction::QueueBytes),
        (rate(RateSpec { queue_bytes: 16 * 1024 * 1024 + 1, ..good }), Contradiction::QueueBytes),
    ];
    for (spec, expected) in cases {
        assert_eq!(Impairment::new(spec).unwrap_err(), expected, "{spec:?}");
        assert!(!expected.to_string().contains('\n') && !expected.key().is_empty());
    }
    assert_eq!(Chance::new(1_000_001), None);
    let extreme = RateSpec { queue_bytes: MAX_QUEUE_BYTES, queue_frames: 1, ..RateSpec::new(MAX_RATE_BITS_PER_SECOND) };
    let spec = ImpairSpec { delay_ns: 5_000_000_000, jitter_ns: 5_000_000_000, ..rate(extreme) };
    assert_eq!(spec.check(), Ok(()));
}

#[test]
fn built_in_profiles_make_sense() {
    for profile in Profile::BUILT_IN {
        assert_eq!(profile.spec.check(), Ok(()), "{}", profile.name);
        assert_eq!(Profile::built_in(profile.name), Some(profile));
        assert_eq!(profile.spec.is_none(), profile.name == "default");
    }
    let constrained = Profile::built_in("constrained").unwrap().spec;
    assert!(
        constrained
            .rate
            .is_some_and(|rate| (10_000_000..=100_000_000).contains(&rate.rates.steps()[0].bits_per_second))
    );
    assert!(constrained.delay_ns > 0);
    let lossy = Profile::built_in("lossy").unwrap().spec;
    assert!(lossy.loss.mean() > 0.0 && lossy.jitter_ns > 0);
    assert_eq!(Profile::built_in("none"), None);
}

fn any_chance() -> impl Strategy<Value = Chance> {
    prop_oneof![Just(0), Just(1_000_000), 0..=1_000_000u32].prop_map(|parts| Chance::new(parts).unwrap())
}

fn any_loss() -> impl Strategy<Value = Loss> {
    let chances = (any_chance(), any_chance(), any_chance(), any_chance());
    let bursts = chances.prop_map(|(enter, leave, loss_bad, loss_good)| Loss::GilbertElliott {
        enter,
        leave,
        loss_bad,
        loss_good,
    });
    prop_oneof![any_chance().prop_map(Loss::Random), bursts]
}

fn any_spec() -> impl Strategy<Value = ImpairSpec> {
    let ns = || prop_oneof![Just(0u64), 1..100u64, 0..=MAX_DELAY_NS];
    let step = (MIN_RATE_BITS_PER_SECOND..=MAX_RATE_BITS_PER_SECOND, MIN_RATE_STEP_NS..=10 * MIN_RATE_STEP_NS)
        .prop_map(|(bits_per_second, lasts_ns)| RateStep { bits_per_second, lasts_ns });
    let rates = proptest::collection::vec(step, 1..4).prop_map(|steps| Rates::new(&steps).unwrap());
    let rate = (rates, 1..=MAX_QUEUE_BYTES, 1..100u32).prop_map(|(rates, queue_bytes, queue_frames)| RateSpec {
        rates,
        queue_bytes,
        queue_frames,
    });
    let chances = (any_chance(), any_chance(), any_chance());
    let outage = (ns(), 1..MAX_DELAY_NS).prop_map(|(after_ns, lasts_ns)| Outage { after_ns, lasts_ns });
    let sometimes = (proptest::option::of(rate), proptest::option::of(outage));
    (ns(), ns(), any_loss(), chances, sometimes, any::<u64>()).prop_map(
        |(delay_ns, jitter_ns, loss, (duplicate, reorder, corrupt), (rate, outage), seed)| ImpairSpec {
            delay_ns,
            jitter_ns,
            loss,
            duplicate,
            reorder,
            corrupt,
            rate,
            outage,
            segment: None,
            seed,
        },
    )
}

proptest! {
    #[test]
    fn any_link_keeps_order_time_and_bounds(
        spec in any_spec(),
        frames in proptest::collection::vec((prop_oneof![0..1000u64, 0..u64::MAX], any::<u32>()), 1..300),
        steps in proptest::collection::vec(0..10_000_000u64, 300),
        sane in any::<bool>(),
    ) {
        // A specification is refused, or any sequence of frames and clock readings is served.
        let Ok(mut link) = Impairment::new(spec) else { return Ok(()) };
        let (mut clock, mut latest, mut last_due) = (SECOND, 0, 0);
        for ((wild, bytes), step) in frames.into_iter().zip(steps) {
            clock += step;
            let (now, bytes) = if sane { (clock, bytes % 9238) } else { (wild, bytes % 65_600) };
            latest = latest.max(now);
            match link.verdict(now, bytes) {
                Verdict::Drop(reason) => {
                    let possible = match reason {
                        DropReason::ImpairLoss => spec.loss.mean() > 0.0 || matches!(spec.loss, Loss::GilbertElliott { .. }),
                        DropReason::ImpairOutage => spec.outage.is_some_and(|outage| outage.is_at(latest)),
                        _ => reason == DropReason::ImpairQueueFull && spec.rate.is_some(),
                    };
                    prop_assert!(possible, "{:?}", reason);
                }
                Verdict::Pass { due_ns, copy_due_ns, flip_bit } => {
                    prop_assert!(due_ns >= latest);
                    if let Some(copy) = copy_due_ns {
                        prop_assert!(spec.duplicate != Chance::NEVER && copy >= due_ns);
                    }
                    if spec.reorder == Chance::NEVER {
                        prop_assert!(due_ns >= last_due, "out of order");
                        last_due = copy_due_ns.unwrap_or(due_ns);
                    }
                    if spec.rate.is_none() && spec.reorder == Chance::NEVER && sane {
                        let most = latest + spec.delay_ns + spec.jitter_ns;
                        prop_assert!(due_ns <= most && due_ns + 1 >= latest + spec.delay_ns - spec.jitter_ns);
                    }
                    if let Some(bit) = flip_bit {
                        prop_assert!(spec.corrupt != Chance::NEVER && bit < bytes * 8);
                    }
                }
            }
            if let (Some(queue), Some(rate)) = (&link.queue, spec.rate) {
                prop_assert!(queue.waiting() <= rate.queue_frames as usize);
            }
        }
    }
}

#[test]
fn the_verdict_for_all_is_that_of_each_and_only_given_where_all_have_the_same() {
    let spec = ImpairSpec { delay_ns: 1000, seed: 7, ..ImpairSpec::NONE };
    let (mut each, mut all) = (Impairment::new(spec).unwrap(), Impairment::new(spec).unwrap());
    // A clock that goes backwards is held.
    for now_ns in [0, 10, 5, 10_000] {
        let one_by_one: Vec<Verdict> = (0..3).map(|_| each.verdict(now_ns, 60)).collect();
        assert_eq!(vec![all.common_verdict(now_ns, 3).unwrap(); 3], one_by_one);
    }
    assert_eq!(all.counts(), each.counts());
    assert_eq!((all.counts().frames, all.counts().delayed), (12, 12));
    let chance = Chance::percent(1);
    for spec in [
        ImpairSpec { jitter_ns: 1, ..spec },
        ImpairSpec { loss: Loss::Random(chance), ..spec },
        ImpairSpec { duplicate: chance, ..spec },
        ImpairSpec { reorder: chance, ..spec },
        ImpairSpec { corrupt: chance, ..spec },
        ImpairSpec { rate: Some(RateSpec::new(1_000_000)), ..spec },
        ImpairSpec { outage: Some(Outage { after_ns: 5, lasts_ns: 5 }), ..spec },
        ImpairSpec { segment: Some(SegmentLoss { number: 1, retransmissions: 0 }), ..spec },
    ] {
        assert_eq!(Impairment::new(spec).unwrap().common_verdict(1, 3), None, "{spec:?}");
    }
}

#[test]
fn what_became_of_frames_is_counted() {
    let spec = ImpairSpec {
        delay_ns: 1000,
        loss: Loss::Random(Chance::percent(20)),
        duplicate: Chance::percent(10),
        corrupt: Chance::percent(30),
        reorder: Chance::percent(40),
        rate: Some(RateSpec { queue_frames: 3, ..RateSpec::new(1_000_000) }),
        ..ImpairSpec::NONE
    };
    let mut impairment = Impairment::new(spec).unwrap();
    let mut expected = Counts::default();
    for frame in 0..10_000 {
        let now_ns = frame * 400_000;
        expected.frames += 1;
        match impairment.verdict(now_ns, 100) {
            Verdict::Drop(DropReason::ImpairLoss) => expected.lost += 1,
            Verdict::Drop(_) => expected.queue_full += 1,
            Verdict::Pass { due_ns, copy_due_ns, flip_bit } => {
                expected.delayed += u64::from(due_ns > now_ns);
                expected.duplicated += u64::from(copy_due_ns.is_some());
                expected.corrupted += u64::from(flip_bit.is_some());
            }
        }
    }
    let counts = impairment.counts();
    assert_eq!(Counts { reordered: 0, ..counts }, expected);
    let passed = counts.frames - counts.lost - counts.queue_full;
    assert!(counts.queue_full > 0 && (passed * 35 / 100..passed * 45 / 100).contains(&counts.reordered), "{counts:?}");
}

#[test]
fn the_mean_of_a_loss_is_its_share_in_the_long_run() {
    let percent = Chance::percent;
    let mean = |enter, leave, loss_bad, loss_good| {
        let [enter, leave, loss_bad, loss_good] = [enter, leave, loss_bad, loss_good].map(percent);
        Loss::GilbertElliott { enter, leave, loss_bad, loss_good }.mean()
    };
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(near(Loss::Random(percent(30)).mean(), 0.3));
    assert!(near(mean(10, 30, 100, 0), 0.25));
    assert!(near(mean(10, 30, 80, 4), 0.25 * 0.8 + 0.75 * 0.04));
    assert!(near(mean(10, 0, 60, 4), 0.6), "who never leaves the bad state is in it");
    assert!(near(mean(0, 10, 60, 4), 0.04) && near(mean(0, 0, 60, 4), 0.04), "who never enters it is not");
}

/// Many frames at once are judged and counted as each by itself.
#[test]
fn a_common_verdict_is_that_of_each_frame() {
    for delay_ns in [0, 5 * MS] {
        let spec = ImpairSpec { delay_ns, ..ImpairSpec::NONE };
        let (mut one, mut all) = (impairment(spec), impairment(spec));
        // The second burst is of a clock that was read earlier.
        for now in [SECOND, SECOND - 7, SECOND + 9] {
            let common = all.common_verdict(now, 3).unwrap();
            assert_eq!([(); 3].map(|()| one.verdict(now, 100)), [common; 3]);
        }
        assert_eq!(one.counts(), all.counts());
        assert_eq!((all.counts().frames, all.counts().delayed), (9, if delay_ns == 0 { 0 } else { 9 }));
    }
    let other = ImpairSpec { loss: Loss::Random(Chance::percent(1)), ..ImpairSpec::NONE };
    assert_eq!(impairment(other).common_verdict(SECOND, 3), None);
}
