//! Scores: which labelled injections and impairments a sensor noticed, and how soon.
//!
//! **How it works.** A timeline has spans, each with a label, a start and, unless it goes on, an end ([`timeline`]). A
//! sensor's log has alerts, each with a time and a text ([`alerts`]). An alert counts for the span that began last of
//! those that it falls into and whose `expect` its text contains; a span lasts a grace period longer, because sensors
//! need time. A span with an alert is a hit, and the time to detection is that of its first alert. Alerts that fall
//! into no span are counted as beside the labels.
//!
//! All of this is pure: texts in, a [`Score`] out.

use std::time::Duration;

use serde::Serialize;

pub mod alerts;
mod error;
pub mod time;
pub mod timeline;

#[cfg(test)]
mod tests;

use alerts::Alert;
pub use error::Unreadable;
use time::Time;
use timeline::Span;

/// How well a sensor noticed what is in a timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// One for each span, in the order of the starts.
    pub labels: Vec<Outcome>,
    /// Spans with an alert.
    pub hits: usize,
    /// Spans without one.
    pub misses: usize,
    /// Alerts that count for no span.
    pub beside: usize,
    /// The median of the times to detection, in seconds.
    pub median_seconds: Option<f64>,
}

/// The result for a span.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The label.
    pub label: String,
    /// `injection` or `impairment`.
    pub kind: String,
    /// The port.
    pub port: String,
    /// When it began.
    pub start: Time,
    /// An alert counts for it.
    pub hit: bool,
    /// Seconds from the start to the first alert.
    pub seconds: Option<f64>,
    /// Alerts that count for it.
    pub alerts: usize,
    /// The text of the first one.
    pub first: Option<String>,
}

/// Compares a timeline with the alerts of a sensor.
pub fn score(spans: &[Span], alerts: &[Alert], grace: Duration) -> Score {
    let mut spans: Vec<&Span> = spans.iter().collect();
    spans.sort_by_key(|span| span.start);
    let mut of_span: Vec<Vec<&Alert>> = vec![Vec::new(); spans.len()];
    let mut beside = 0;
    for alert in alerts {
        let meant = spans.iter().rposition(|span| span.contains(alert, grace));
        match meant.and_then(|at| of_span.get_mut(at)) {
            Some(alerts) => alerts.push(alert),
            None => beside += 1,
        }
    }
    let labels: Vec<Outcome> = spans.iter().zip(of_span).map(|(span, alerts)| outcome(span, &alerts)).collect();
    let hits = labels.iter().filter(|outcome| outcome.hit).count();
    let times = labels.iter().filter_map(|outcome| outcome.seconds).collect();
    Score { hits, misses: labels.len() - hits, beside, median_seconds: median(times), labels }
}

fn outcome(span: &Span, alerts: &[&Alert]) -> Outcome {
    let first = alerts.iter().min_by_key(|alert| alert.time);
    Outcome {
        label: span.label.clone(),
        kind: span.kind.clone(),
        port: span.port.clone(),
        start: span.start,
        hit: first.is_some(),
        seconds: first.map(|alert| alert.time.seconds_since(span.start)),
        alerts: alerts.len(),
        first: first.map(|alert| alert.text.clone()),
    }
}

/// The middle of the times; of an even number, the mean of the two in the middle.
fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    let upper = *times.get(times.len() / 2)?;
    let lower = *times.get((times.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}
