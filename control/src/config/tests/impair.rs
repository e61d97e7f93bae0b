//! Proves how values and tables of impairments are read and written, and what is refused where.

use labsw_switch::impair::rates::{RateStep, Rates};
use labsw_switch::impair::{Chance, Loss, Outage, SegmentLoss};

use serde_json::json;

use super::*;
use crate::model::{Bursts, ChangingRate, OutageTime};

#[test]
fn the_model_of_bursts_has_two_to_four_shares() {
    for text in ["", "1%", "1% 2% 3% 4% 5%", "1 2", "1%,2%"] {
        let error = text.parse::<Bursts>().expect_err(text);
        assert!(error.contains("is not two to four shares"), "{error}");
    }
    let bursts: Bursts = "1% 25%".parse().unwrap();
    let [enter, leave] = [1, 25].map(Chance::percent);
    let expected = Loss::GilbertElliott { enter, leave, loss_bad: Chance::ALWAYS, loss_good: Chance::NEVER };
    assert_eq!(Loss::from(bursts), expected);
    assert_eq!(bursts.to_string(), "1% 25% 100% 0%");
}

#[test]
fn rates_follow_one_another() {
    let step = |bits_per_second, lasts_ns| RateStep { bits_per_second, lasts_ns };
    let (second, for_ever) = (1_000_000_000, RateStep::FOR_EVER);
    for (text, steps, written) in [
        ("1.5Mbit", vec![step(1_500_000, for_ever)], "1.5mbit"),
        (
            "10mbit for 5s,1 mbit for 1s 500ms",
            vec![step(10_000_000, 5 * second), step(1_000_000, 1_500_000_000)],
            "10mbit for 5s, 1mbit for 1s 500ms",
        ),
        ("1mbit for 1s, 2mbit", vec![step(1_000_000, second), step(2_000_000, for_ever)], "1mbit for 1s, 2mbit"),
    ] {
        let rate: ChangingRate = text.parse().unwrap();
        assert_eq!((Rates::from(rate).steps(), rate.to_string().as_str()), (&steps[..], written));
        assert_eq!(written.parse(), Ok(rate));
    }
    let many = vec!["1mbit for 1s"; 17].join(",");
    for text in ["", "10", "1mbit, 2mbit for 1s", "1mbit for", "1mbit for 5", "1mbit for 1s,", "0bit for 1s", &many] {
        let error = text.parse::<ChangingRate>().expect_err(text);
        assert!(error.contains("is not a rate, as in \"10mbit\", or up to 16 in turn"), "{error}");
    }
}

#[test]
fn an_outage_lasts_and_begins() {
    for (text, after_ns, lasts_ns, written) in [
        ("5s after 10s", 10_000_000_000, 5_000_000_000, "5s after 10s"),
        ("200ms", 0, 200_000_000, "200ms"),
        ("1m 30s  after  1h", 3_600_000_000_000, 90_000_000_000, "1m 30s after 1h"),
    ] {
        let outage: OutageTime = text.parse().unwrap();
        assert_eq!((Outage::from(outage), outage.to_string().as_str()), (Outage { after_ns, lasts_ns }, written));
        assert_eq!(written.parse(), Ok(outage));
    }
    for text in ["", "5", "after 5s", "5s after", "5s at 10s", "5s after 10s after 1s"] {
        let error = text.parse::<OutageTime>().expect_err(text);
        assert!(error.contains("is not an outage, as in \"5s after 10s\""), "{error}");
    }
}

#[test]
fn what_happens_in_time_and_to_connections_is_part_of_a_profile_too() {
    let config = parse(&impaired(
        "[profiles.cut]\noutage = '5s after 10s'\nlose_segment = 3\nlose_retransmissions = 2\n\
         [impair.a]\nprofile = 'cut'\nrate = '10mbit for 5s, 1mbit'",
    ))
    .unwrap();
    let spec = both(&config).settings.spec(1);
    assert_eq!(spec.outage, Some(Outage { after_ns: 10_000_000_000, lasts_ns: 5_000_000_000 }));
    assert_eq!(spec.segment, Some(SegmentLoss { number: 3, retransmissions: 2 }));
    assert_eq!(spec.rate.unwrap().rates.steps().len(), 2);
    assert_eq!(parse(&config.to_toml().to_string()).unwrap(), config);
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "lab.toml")
}

/// A text with port `a` and these lines behind it, from line 3.
fn impaired(lines: &str) -> String {
    format!("[ports.a]\ntype = 'vhost_user'\n{lines}\n")
}

/// The first impairment, which is the same in both directions.
fn both(config: &Config) -> &ImpairDirection {
    let impairment = &config.impairments[0];
    assert_eq!(impairment.rx, impairment.tx);
    impairment.rx.as_ref().unwrap()
}

#[test]
fn impairments_take_a_profile_and_what_they_set_themselves_above_it() {
    let config = parse(&impaired(
        "[profiles.far]\ndelay = '40ms'\njitter = '1.5ms'\nloss = '2%'\n[impair.a]\nprofile = 'far'\nloss = '0.5%'\nrate = '10mbit'\nqueue_frames = 7\ndirection = 'rx'\nseed = 9",
    ))
    .unwrap();
    assert_eq!(config.impairments[0].tx, None);
    let impair = config.impairments[0].rx.as_ref().unwrap();
    let set = json!({
        "delay": "40ms", "jitter": "1ms 500us", "loss": "0.5%", "rate": "10mbit", "queue_frames": 7, "seed": 9
    });
    assert_eq!(json!(impair.settings), set);
    assert_eq!(impair.profile.as_deref(), Some("far"));
    let spec = impair.settings.spec(1);
    assert_eq!((spec.delay_ns, spec.jitter_ns, spec.seed), (40_000_000, 1_500_000, 1));
    assert_eq!(spec.rate.map(|rate| (rate.rates.steps()[0].bits_per_second, rate.queue_frames)), Some((10_000_000, 7)));
    assert_eq!(parse(&config.to_toml().to_string()).unwrap(), config);
    // A built-in profile can be replaced.
    let replaced = parse(&impaired("[profiles.lossy]\nloss = '9%'\n[impair.a]\nprofile = 'lossy'")).unwrap();
    assert_eq!(json!(both(&replaced).settings), json!({"loss": "9%"}));
    let bursts = parse(&impaired("[impair.a]\ngemodel = '1% 25% 90%'")).unwrap();
    assert_eq!(json!(both(&bursts).settings), json!({"gemodel": "1% 25% 90% 0%"}));
    assert_eq!(parse(&bursts.to_toml().to_string()).unwrap(), bursts);
}

#[test]
fn impairments_that_make_no_sense_are_refused_with_their_place() {
    for (lines, expected) in [
        ("[impair.a]", "3:9: impair.a: sets nothing; name a profile"),
        ("[impair.a]\nseed = 1", "3:9: impair.a: sets nothing"),
        ("[impair.a]\ndelay = 20", "4:9: impair.a.delay: should be a time, as in \"20ms\", is the number 20"),
        ("[impair.a]\ndelay = '20'", "4:9: impair.a.delay: \"20\" is not a time"),
        ("[impair.a]\ndelay = '11s'", "4:9: impair.a.delay: delay and jitter together are longer than the 10 s"),
        ("[impair.a]\ndelay = '1ms'\njitter = '2ms'", "5:10: impair.a.jitter: jitter is larger than delay"),
        ("[impair.a]\njitter = '2ms'", "4:10: impair.a.jitter: jitter is larger than delay"),
        ("[impair.a]\nreorder = '5%'", "4:11: impair.a.reorder: reorder needs a delay"),
        ("[impair.a]\nprofile = 'default'\nreorder = '5%'", "5:11: impair.a.reorder: reorder needs a delay"),
        ("[impair.a]\nloss = '100.1%'", "4:8: impair.a.loss: \"100.1%\" is not a share"),
        ("[impair.a]\nloss = '1%'\ngemodel = '1% 1%'", "5:11: impair.a.gemodel: says which frames are lost, and so"),
        ("[impair.a]\ngemodel = '1%'", "4:11: impair.a.gemodel: \"1%\" is not two to four shares"),
        ("[impair.a]\nrate = '10'", "4:8: impair.a.rate: \"10\" is not a rate"),
        ("[impair.a]\nrate = '1kbit'", "4:8: impair.a.rate: rate is not between 8 kbit and 100 gbit"),
        ("[impair.a]\nrate = '1gbit'\nqueue_frames = 0", "5:16: impair.a.queue_frames: 0 is not a number of frames"),
        ("[impair.a]\ndelay = '1ms'\nqueue_bytes = 9", "5:15: impair.a.queue_bytes: is the queue of a rate, and no"),
        ("[impair.a]\ndelay = '1ms'\ndirection = 'up'", "5:13: impair.a.direction: \"up\" is not one of rx, tx, both"),
        (
            "[impair.a]\nprofile = 'loss'",
            "4:11: impair.a.profile: there is no profile \"loss\"; did you mean \"lossy\"?",
        ),
        ("[impair.a]\noutage = '0s'", "4:10: impair.a.outage: outage lasts no time"),
        ("[impair.a]\noutage = 5", "4:10: impair.a.outage: should be an outage, as in"),
        ("[impair.a]\nrate = '1mbit for 1us, 2mbit'", "4:8: impair.a.rate: rate has a step that does not last 1 ms to"),
        ("[impair.a]\nlose_segment = 0", "4:16: impair.a.lose_segment: 0 is not the number of a segment"),
        ("[impair.a]\nlose_segment = 1\nlose_retransmissions = 256", "5:24: impair.a.lose_retransmissions: 256 is"),
        (
            "[impair.a]\nlose_retransmissions = 1",
            "4:24: impair.a.lose_retransmissions: is about the segment of `lose_segment`",
        ),
        ("[impair.a]\nfilter = 'arp'", "3:9: impair.a: sets nothing"),
        ("[impair.a]\ndelay = '1ms'\nfilter = 'tcp prot 445'", "5:10: impair.a.filter: \"tcp prot 445\": "),
        ("[impair.a]\ndelay = '1ms'\nfilter = 445", "5:10: impair.a.filter: should be a filter"),
        ("[profiles.p]\nloss = '2%'\nfilter = 'arp'", "5:1: profiles.p.filter: stands in [impair.PORT]"),
        ("[impair.a]\ndelays = '1ms'", "4:1: impair.a.delays: unknown key; did you mean `delay`?"),
        (
            "[impair.a]\ndelay = '1ms'\nrx = { loss = '1%' }",
            "4:1: impair.a.delay: stands beside a table of one direction",
        ),
        ("[impair.a.rx]\ndelay = '1ms'\ndirection = 'tx'", "5:1: impair.a.rx.direction: unknown key"),
        ("[impair.a.rx]\ndelay = '1ms'\n[impair.a.tx]", "5:11: impair.a.tx: sets nothing"),
        ("[impair.a.rx]\nloss = '2%'\n[impair.a.tx]\nloss = 2", "6:8: impair.a.tx.loss: should be a share"),
        ("[impair.a]\nrx = 'lossy'", "4:6: impair.a.rx: should be a table"),
        ("[impair.b]\ndelay = '1ms'", "3:9: impair.b: there is no port \"b\""),
        ("[profiles.p]\njitter = '2ms'", "4:10: profiles.p.jitter: jitter is larger than delay"),
        ("[profiles.p]\nprofile = 'x'", "4:1: profiles.p.profile: unknown key"),
        ("[profiles.'a b']", "3:11: profiles.a b: \"a b\" is not a profile name"),
    ] {
        let error = parse(&impaired(lines)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("lab.toml:{expected}")), "{lines}: {error}");
    }
}

#[test]
fn each_direction_can_have_its_own() {
    let config = parse(&impaired("[impair.a.rx]\ndelay = '1ms'\n[impair.a.tx]\nprofile = 'lossy'")).unwrap();
    let impairment = &config.impairments[0];
    let written =
        |direction: &Option<ImpairDirection>| json!(direction.as_ref().unwrap().settings).as_object().unwrap().len();
    assert_eq!((written(&impairment.rx), written(&impairment.tx)), (1, 3));
    assert_eq!(parse(&config.to_toml().to_string()).unwrap(), config);
    let filtered = parse(&impaired("[impair.a]\nfilter = 'tcp port 445'\ndelay = '1ms'")).unwrap();
    assert_eq!(both(&filtered).filter.as_deref(), Some("tcp port 445"));
    assert_eq!(parse(&filtered.to_toml().to_string()).unwrap(), filtered);
    // The same in both is written in the short form, and means the same.
    let long = parse(&impaired("[impair.a.rx]\ndelay = '1ms'\n[impair.a.tx]\ndelay = '1ms'")).unwrap();
    let short = parse(&impaired("[impair.a]\ndelay = '1ms'")).unwrap();
    assert_eq!(long, short);
    assert_eq!(short.impairments[0].to_toml().to_string(), "delay = \"1ms\"\ndirection = \"both\"\n");
    // What a command sets of one direction leaves the other.
    let set = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        ImpairConfig::from_settings("a", &pairs, &[]).unwrap()
    };
    let rx = set(&[("direction", "rx"), ("delay", "1ms")]);
    assert_eq!(rx.clone().above(None), rx);
    let tx = set(&[("direction", "tx"), ("profile", "lossy")]).above(Some(&rx));
    assert_eq!(&tx, impairment);
    assert_eq!(set(&[("delay", "1ms")]).above(Some(&tx)), short.impairments[0]);
}

#[test]
fn a_change_of_an_impairment_keeps_what_it_does_not_name() {
    let impair = |keys: &[&str]| ImpairConfig::from_settings("p", &settings(keys), &[]).unwrap();
    let toml = |config: ImpairConfig| config.to_toml().to_string();
    let before = impair(&["delay=20ms", "loss=5%"]);
    let change = |keys: &[&str]| before.with_settings(&settings(keys), &[]).unwrap();
    assert_eq!(toml(change(&["jitter=5ms"])), toml(impair(&["delay=20ms", "loss=5%", "jitter=5ms"])));
    assert_eq!(toml(change(&["gemodel=1% 25%"])), toml(impair(&["delay=20ms", "gemodel=1% 25%"])));
    let one = change(&["delay=1ms", "direction=tx"]);
    assert_eq!(
        (one.rx.is_some(), one.tx.unwrap().to_toml().to_string()),
        (false, { impair(&["delay=1ms", "loss=5%", "direction=tx"]).tx.unwrap().to_toml().to_string() })
    );
    assert_eq!(toml(change(&["profile=lossy"])), toml(impair(&["profile=lossy"])), "a profile starts over");
    let error = before.with_settings(&settings(&["queue_frames=5"]), &[]).unwrap_err().to_string();
    assert!(error.starts_with("impair.p.rx.queue_frames: "), "{error}");
}
