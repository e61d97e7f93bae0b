//! Varlink messages: reading and writing the JSON objects, without the zero byte that ends them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::{Error, Reply};

/// A method call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    /// Full name of the method.
    pub(super) method: String,
    /// Its parameters.
    #[serde(default, deserialize_with = "object_or_null")]
    pub(super) parameters: Map<String, Value>,
    /// The caller wants no reply, not even an error.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) oneway: bool,
    /// The caller takes more than one reply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) more: bool,
    /// The caller wants to speak another protocol after this call.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) upgrade: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn object_or_null<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Map<String, Value>, D::Error> {
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

/// A reply, as the client reads it.
#[derive(Debug, Deserialize)]
pub(super) struct ReplyMessage {
    /// Full name of the error, if it is one.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// Parameters of the reply or the error.
    #[serde(default, deserialize_with = "object_or_null")]
    pub(super) parameters: Map<String, Value>,
    /// More replies to the same call follow.
    #[serde(default)]
    pub(super) continues: bool,
}

/// A reply, as the server writes it. The answer serialises as fields of the message.
#[derive(Serialize)]
struct Outgoing<T: Serialize> {
    #[serde(flatten)]
    answer: T,
    #[serde(skip_serializing_if = "is_false")]
    continues: bool,
}

/// The parameters of a reply.
#[derive(Serialize)]
struct Parameters<'a> {
    parameters: &'a Value,
}

/// The server's answer to one call.
#[derive(Debug)]
pub(super) enum Answer {
    /// A reply of the switch.
    Switch(Box<Reply>),
    /// A reply of `org.varlink.service`.
    Service(Value),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer::Switch(Box::new(reply))
    }
}

/// Writes a message and its zero byte.
///
/// # Errors
/// Those of [`serde_json::to_writer`]: a map key that is no string, which no type here has.
pub(super) fn write(message: &impl Serialize, out: &mut Vec<u8>) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *out, message)?;
    out.push(0);
    Ok(())
}

/// Writes the reply to a call. See [`write`](fn@write).
///
/// # Errors
/// The same as for [`write`](fn@write).
pub(super) fn write_result(
    result: &Result<Answer, Error>,
    continues: bool,
    out: &mut Vec<u8>,
) -> serde_json::Result<()> {
    match result {
        Ok(Answer::Switch(reply)) => write(&Outgoing { answer: reply, continues }, out),
        Ok(Answer::Service(parameters)) => write(&Outgoing { answer: Parameters { parameters }, continues }, out),
        Err(error) => write(error, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Done, Removed};

    #[test]
    fn answers_have_the_form_of_varlink() {
        let refused = Error::refused("port \"a\"", "in use");
        let service = serde_json::json!({"description": "d"});
        for (answer, continues, expected) in [
            (Ok(Reply::Done(Done {}).into()), false, r#"{"parameters":{}}"#),
            (
                Ok(Reply::Removed(Removed { removed: 3 }).into()),
                true,
                r#"{"parameters":{"removed":3},"continues":true}"#,
            ),
            (Ok(Answer::Service(service)), false, r#"{"parameters":{"description":"d"}}"#),
            (
                Err(refused),
                false,
                r#"{"error":"org.labsw.Switch1.Refused","parameters":{"object":"port \"a\"","reason":"in use","code":"impossible","kind":"port","name":"a"}}"#,
            ),
            (Err(Error::ExpectedMore {}), false, r#"{"error":"org.varlink.service.ExpectedMore","parameters":{}}"#),
        ] {
            let mut bytes = Vec::new();
            write_result(&answer, continues, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0));
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }
}
