//! Which alert counts for which label, and the forms in which sensors write.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::score::timeline::Line;

fn at(seconds: u64) -> Time {
    Time::parse("2026-11-30T12:00:00Z").unwrap().plus(Duration::from_secs(seconds))
}

fn span(label: &str, start: u64, end: Option<u64>) -> Span {
    let (kind, port) = ("injection".to_owned(), "web".to_owned());
    Span { label: label.to_owned(), kind, port, start: at(start), end: end.map(at), expect: None }
}

fn alert(seconds: u64, text: &str) -> Alert {
    Alert { time: at(seconds), text: text.to_owned() }
}

fn hits(score: &Score) -> Vec<(&str, bool, Option<f64>, usize)> {
    score.labels.iter().map(|label| (label.label.as_str(), label.hit, label.seconds, label.alerts)).collect()
}

const GRACE: Duration = Duration::from_secs(10);

#[test]
fn a_label_with_an_alert_in_its_time_is_a_hit_and_the_first_alert_tells_how_soon() {
    let spans = [span("scan", 100, Some(105)), span("smb", 200, Some(201)), span("dns", 300, Some(301))];
    let alerts = [alert(50, "before"), alert(203, "second"), alert(202, "first"), alert(115, "late"), alert(312, "no")];
    let score = score(&spans, &alerts, GRACE);
    let expected = [("scan", true, Some(15.0), 1), ("smb", true, Some(2.0), 2), ("dns", false, None, 0)];
    assert_eq!(hits(&score), expected);
    assert_eq!(score.labels[1].first.as_deref(), Some("first"));
    assert_eq!((score.hits, score.misses, score.beside, score.median_seconds), (2, 1, 2, Some(8.5)));
}

#[test]
fn an_alert_counts_for_the_label_that_began_last_and_expects_it() {
    let mut attack = span("attack", 110, Some(120));
    attack.expect = Some("SMB".to_owned());
    let spans = [attack, span("lossy", 100, None)];
    let alerts = [alert(105, "retransmissions"), alert(112, "SMB attempt"), alert(113, "TTL"), alert(999, "SMB late")];
    let score = score(&spans, &alerts, GRACE);
    assert_eq!(hits(&score), [("lossy", true, Some(5.0), 3), ("attack", true, Some(2.0), 1)]);
    assert_eq!(score.beside, 0, "an open span has no end");
}

#[test]
fn without_spans_or_alerts_there_is_nothing_to_count() {
    assert_eq!(score(&[], &[alert(1, "x")], GRACE).beside, 1);
    let missed = score(&[span("a", 1, Some(2))], &[], GRACE);
    assert_eq!((missed.hits, missed.misses, missed.median_seconds), (0, 1, None));
}

#[test]
fn a_timeline_is_read_line_by_line_and_an_end_closes_what_is_open() {
    let text = concat!(
        r#"{"label":"lossy","kind":"impairment","port":"web","start":"2026-11-30T12:00:10Z"}"#,
        "\n\n",
        r#"{"label":"smb","kind":"injection","port":"web","start":"2026-11-30T12:00:20Z","end":"2026-11-30T12:00:21Z","expect":"SMB"}"#,
        "\n",
        r#"{"kind":"impairment","port":"web","end":"2026-11-30T12:00:30Z"}"#,
        "\n",
    );
    let spans = timeline::read(text).unwrap();
    let ends: Vec<_> = spans.iter().map(|span| (span.label.as_str(), span.start, span.end)).collect();
    assert_eq!(ends, [("lossy", at(10), Some(at(30))), ("smb", at(20), Some(at(21)))]);
    assert_eq!(spans[1].expect.as_deref(), Some("SMB"));

    for (text, reason) in [
        ("{}", "line 1: missing field `kind`"),
        ("\n[", "line 2: "),
        (r#"{"kind":"impairment","port":"web","end":"2026-11-30T12:00:30Z"}"#, "line 1: no impairment of port \"web\""),
        (r#"{"kind":"impairment","port":"web","start":"2026-11-30T12:00:30Z"}"#, "line 1: a start without a label"),
        (r#"{"label":"x","kind":"injection","port":"web"}"#, "line 1: neither a start nor an end"),
        (r#"{"label":"x","kind":"injection","port":"web","start":"noon"}"#, "line 1: \"noon\" is no time"),
    ] {
        let error = timeline::read(text).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{text}: {error}");
    }
}

#[test]
fn a_line_reads_back_as_it_was_written() {
    let line = Line {
        label: Some("smb \"1\"".to_owned()),
        kind: "injection".to_owned(),
        port: "web".to_owned(),
        start: Some(at(1)),
        end: Some(at(2)),
        expect: None,
    };
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    assert_eq!(timeline::read(&text).unwrap()[0].label, "smb \"1\"");
}

#[test]
fn times_are_read_as_sensors_write_them() {
    let noon = Some(at(0));
    for text in ["2026-11-30T12:00:00Z", "2026-11-30T13:00:00.000000+0100", "2026-11-30T06:30:00-05:30", "1796040000.0"]
    {
        assert_eq!(Time::parse(text), noon, "{text}");
    }
    assert_eq!(Time::parse("2026-11-30T12:00:00.250000+0000").unwrap().seconds_since(at(0)), 0.25);
    for text in [
        "",
        "noon",
        "2026-11-30",
        "2026-11-30T12:00:00",
        "2026-11-30T12:00:00+1",
        "-1",
        "nan",
        "2026-11-30T12:00:00+01:99",
    ] {
        assert_eq!(Time::parse(text), None, "{text}");
    }
}

#[test]
fn suricatas_alerts_are_read_among_its_other_events() {
    let text = concat!(
        r#"{"timestamp":"2026-11-30T12:00:01.000000+0000","event_type":"flow","flow":{}}"#,
        "\n",
        r#"{"timestamp":"2026-11-30T12:00:02.000000+0000","event_type":"alert","alert":{"signature":"SMB","signature_id":7}}"#,
        "\n",
        r#"{"timestamp":"2026-11-30T12:00:03.0000"#,
    );
    assert_eq!(alerts::suricata(text).unwrap(), [alert(2, "SMB [7]")]);
    let broken = alerts::suricata("{}\nnonsense\n{}\n").unwrap_err();
    assert_eq!(broken.line, 2);
    assert_eq!(alerts::suricata("{\"event_type\":\"alert\"}\n").unwrap_err().reason, "an alert without a time");
}

#[test]
fn zeeks_notices_are_read_as_json_and_with_columns() {
    let json = "{\"ts\":1796040002.0,\"note\":\"Scan::Port_Scan\",\"msg\":\"15 ports\"}\n{\"ts\":\"2026-11-30T12:00:03Z\",\"note\":\"X\"}\n";
    assert_eq!(alerts::zeek(json).unwrap(), [alert(2, "Scan::Port_Scan: 15 ports"), alert(3, "X")]);
    let columns = "#separator \\x09\n#fields\tts\tuid\tnote\tmsg\n#types\ttime\tstring\tenum\tstring\n\
                   1796040002.000000\t-\tScan::Port_Scan\t15 ports\n1796040003.000000\t-\tX\t-\n#close\n";
    assert_eq!(alerts::zeek(columns).unwrap(), [alert(2, "Scan::Port_Scan: 15 ports"), alert(3, "X")]);
    assert_eq!(alerts::zeek("#fields\tts\tnote\n-\tX\n").unwrap_err().line, 2);
    assert_eq!((alerts::zeek("").unwrap(), alerts::suricata("").unwrap()), (vec![], vec![]));
}
