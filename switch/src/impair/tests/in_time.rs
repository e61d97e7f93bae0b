//! An outage and a rate that changes follow the time since the impairment began.

use super::*;

#[test]
fn an_outage_loses_every_frame_of_its_time_once() {
    let outage = Some(Outage { after_ns: 10 * MS, lasts_ns: 5 * MS });
    // What is lost by chance is the same, with an outage or without.
    let spec = ImpairSpec { loss: Loss::Random(Chance::percent(20)), outage, ..ImpairSpec::NONE };
    let mut link = impairment(spec).begun_at(SECOND);
    let mut without = impairment(ImpairSpec { outage: None, ..spec });
    for at in 0..1000 {
        let now = SECOND + at * MS / 10;
        let (verdict, usual) = (link.verdict(now, 100), without.verdict(now, 100));
        let is_out = (100..150).contains(&at);
        assert_eq!(verdict, if is_out { Verdict::Drop(DropReason::ImpairOutage) } else { usual }, "frame {at}");
    }
    assert!(link.counts().lost > without.counts().lost + 30);
}

#[test]
fn a_rate_changes_in_steps_from_the_start_on() {
    let step = |bits_per_second, lasts_ns| RateStep { bits_per_second, lasts_ns };
    let rates = Rates::new(&[step(10_000_000, 200 * MS), step(1_000_000, 100 * MS)]).unwrap();
    let spec = ImpairSpec { rate: Some(RateSpec { rates, ..RateSpec::new(1) }), ..ImpairSpec::NONE };
    let mut link = impairment(spec).begun_at(SECOND);
    // 1250 bytes of payload are 1 ms of the fast step, 10 ms of the slow one; offered are twice as many as pass.
    let mut per_step = [0u64; 6];
    for at in 0..1800 {
        let now = SECOND + at * MS / 2;
        if let Verdict::Pass { due_ns, .. } = link.verdict(now, 1264)
            && let Some(count) = per_step.get_mut(usize::try_from((due_ns - SECOND - 1) / (100 * MS)).unwrap())
        {
            *count += 1;
        }
    }
    assert_eq!(per_step, [100, 100, 10, 100, 100, 10]);
}
