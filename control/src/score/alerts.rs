//! The alerts of sensors: Suricata's `eve.json` and Zeek's `notice.log`.
//!
//! Both are read line by line. Lines of other kinds (flows, statistics) are passed over, and so is a last line that is
//! not whole, because the sensor may be writing it.

use serde_json::Value;

use super::error::Unreadable;
use super::time::Time;

/// An alert of a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// When the sensor saw the frame.
    pub time: Time,
    /// The signature or the notice.
    pub text: String,
}

/// Reads the alerts of an `eve.json`.
///
/// # Errors
/// A line other than the last is no JSON, or an alert has no time.
pub fn suricata(text: &str) -> Result<Vec<Alert>, Unreadable> {
    json_lines(text, |event| {
        if event.get("event_type")?.as_str()? != "alert" {
            return None;
        }
        let alert = event.get("alert");
        let signature = alert.and_then(|alert| alert.get("signature")?.as_str()).unwrap_or_default();
        let id = alert.and_then(|alert| alert.get("signature_id")?.as_u64());
        let text = id.map_or_else(|| signature.to_owned(), |id| format!("{signature} [{id}]"));
        Some((event.get("timestamp").and_then(Value::as_str).and_then(Time::parse), text))
    })
}

/// Reads a `notice.log`, as JSON or with columns.
///
/// # Errors
/// A line other than the last can't be read, or a notice has no time.
pub fn zeek(text: &str) -> Result<Vec<Alert>, Unreadable> {
    if !text.starts_with('#') {
        return json_lines(text, |notice| {
            let time = match notice.get("ts")? {
                Value::Number(seconds) => seconds.as_f64().and_then(Time::from_seconds),
                Value::String(text) => Time::parse(text),
                _ => None,
            };
            let part = |key: &str| notice.get(key).and_then(Value::as_str).unwrap_or_default();
            Some((time, notice_text(part("note"), part("msg"))))
        });
    }
    let mut fields: Vec<&str> = Vec::new();
    let mut alerts = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(names) = text.strip_prefix("#fields\t") {
            fields = names.split('\t').collect();
        }
        if text.starts_with('#') || text.is_empty() {
            continue;
        }
        let values: Vec<&str> = text.split('\t').collect();
        let value = |name: &str| {
            let at = fields.iter().position(|field| *field == name)?;
            values.get(at).copied().filter(|value| *value != "-")
        };
        let time = value("ts").and_then(Time::parse);
        let time = time.ok_or_else(|| Unreadable { line, reason: "a notice without a time (ts)".to_owned() })?;
        let text = notice_text(value("note").unwrap_or_default(), value("msg").unwrap_or_default());
        alerts.push(Alert { time, text });
    }
    Ok(alerts)
}

fn notice_text(note: &str, message: &str) -> String {
    if message.is_empty() { note.to_owned() } else { format!("{note}: {message}") }
}

/// Reads one JSON object a line; `alert` says which are alerts, with their times and texts.
fn json_lines(text: &str, alert: impl Fn(&Value) -> Option<(Option<Time>, String)>) -> Result<Vec<Alert>, Unreadable> {
    let mut alerts = Vec::new();
    for (line, object) in (1..).zip(text.split_inclusive('\n')).filter(|(_, object)| !object.trim().is_empty()) {
        let value: Value = match serde_json::from_str(object) {
            Ok(value) => value,
            Err(_) if !object.ends_with('\n') => break,
            Err(error) => return Err(Unreadable { line, reason: error.to_string() }),
        };
        if let Some((time, text)) = alert(&value) {
            let time = time.ok_or_else(|| Unreadable { line, reason: "an alert without a time".to_owned() })?;
            alerts.push(Alert { time, text });
        }
    }
    Ok(alerts)
}
