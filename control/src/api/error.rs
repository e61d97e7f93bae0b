//! Errors on the control socket: those of the switch, and those of every Varlink service.
//!
//! A Varlink error is a name (`INTERFACE.Error`) and an object of parameters; serde reads and writes [`Error`] in this
//! form, as the fields `error` and `parameters` of a message. Reference: <https://varlink.org/Service>.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why a request failed. The text is one line for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", content = "parameters")]
pub enum Error {
    /// The object does not exist.
    #[error("{kind} {name:?} does not exist")]
    #[serde(rename = "org.labsw.Switch1.NotFound")]
    NotFound {
        /// The kind of the object: `port`, `mirror`, `fdb entry`.
        kind: String,
        /// The name asked for.
        name: String,
    },
    /// The switch will not or cannot do this; nothing was changed.
    #[error("{object}: {reason}")]
    #[serde(rename = "org.labsw.Switch1.Refused")]
    Refused {
        /// The object in words, as in `port "dc01"`.
        object: String,
        /// One clause: what is wrong and how to mend it.
        reason: String,
        /// The kind of the refusal.
        #[serde(default)]
        code: RefusedCode,
        /// The object in fields, for programs.
        #[serde(flatten)]
        subject: Box<Subject>,
    },
    /// The peer may not change the switch.
    #[error("permission denied: {reason}")]
    #[serde(rename = "org.labsw.Switch1.PermissionDenied")]
    PermissionDenied {
        /// One clause: who may change the switch.
        reason: String,
    },
    /// A parameter is missing, unknown or not a possible value.
    #[error("parameter {parameter:?} is missing, unknown or has an impossible value")]
    #[serde(rename = "org.varlink.service.InvalidParameter")]
    InvalidParameter {
        /// The name of the parameter; empty if the message as a whole is not a call.
        parameter: String,
    },
    /// The interface has no such method.
    #[error("method {method:?} does not exist")]
    #[serde(rename = "org.varlink.service.MethodNotFound")]
    MethodNotFound {
        /// Full name of the method.
        method: String,
    },
    /// The interface has the method, but this switch does not implement it.
    #[error("method {method:?} is not implemented")]
    #[serde(rename = "org.varlink.service.MethodNotImplemented")]
    MethodNotImplemented {
        /// Full name of the method.
        method: String,
    },
    /// There is no such interface.
    #[error("interface {interface:?} does not exist")]
    #[serde(rename = "org.varlink.service.InterfaceNotFound")]
    InterfaceNotFound {
        /// Name of the interface.
        interface: String,
    },
    /// The method answers only calls with the flag `more`.
    #[error("this method answers with a stream: call it with \"more\"")]
    #[serde(rename = "org.varlink.service.ExpectedMore")]
    ExpectedMore {},
}

/// The kind of a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedCode {
    /// A setting or a configuration is wrong.
    Invalid,
    /// The setting is valid, but the switch cannot do it at present.
    #[default]
    Impossible,
}

/// The object of a refusal. Fields without a value are left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `port`, `mirror`, `impairment`, `switch`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The object's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The wrong setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Subject {
    /// Takes kind, name and key from the words for people: `port "dc01"`, `impairment of "dc01"`, `switch.power`.
    fn of(object: &str) -> Subject {
        let quoted = object.split_once(" \"").and_then(|(kind, rest)| Some((kind, rest.strip_suffix('"')?)));
        match (quoted, object.strip_prefix("switch.")) {
            (Some((kind, name)), _) => {
                let kind = kind.trim_end_matches(" of").to_owned();
                Subject { kind: Some(kind), name: Some(name.to_owned()), key: None }
            }
            (None, Some(key)) => Subject { kind: Some("switch".to_owned()), name: None, key: Some(key.to_owned()) },
            (None, None) => Subject::default(),
        }
    }
}

impl Error {
    /// A [`Error::NotFound`].
    pub fn not_found(kind: impl Into<String>, name: impl Into<String>) -> Error {
        Error::NotFound { kind: kind.into(), name: name.into() }
    }

    /// A [`Error::Refused`] for a valid request that the switch cannot carry out at present. Kind and name are taken
    /// from `object`, as in `port "dc01"`.
    pub fn refused(object: impl Into<String>, reason: impl Into<String>) -> Error {
        let object = object.into();
        let subject = Box::new(Subject::of(&object));
        Error::Refused { object, reason: reason.into(), code: RefusedCode::Impossible, subject }
    }

    /// A [`Error::Refused`]: the setting `key` of `object` is wrong.
    pub fn invalid_setting(object: impl Into<String>, key: &str, reason: impl Into<String>) -> Error {
        let object = object.into();
        let key = Some(key.to_owned()).filter(|key| !key.is_empty());
        let subject = Box::new(Subject { key, ..Subject::of(&object) });
        Error::Refused { object, reason: reason.into(), code: RefusedCode::Invalid, subject }
    }

    /// A [`Error::InvalidParameter`].
    pub fn invalid(parameter: impl Into<String>) -> Error {
        Error::InvalidParameter { parameter: parameter.into() }
    }

    /// Reads the error of this full name; `None` if the error is unknown.
    pub fn parse(full_name: &str, parameters: &Map<String, Value>) -> Option<Error> {
        let error = [("error", Value::from(full_name)), ("parameters", Value::Object(parameters.clone()))];
        let error = error.map(|(field, value)| (field.to_owned(), value));
        Error::deserialize(Value::Object(Map::from_iter(error))).ok()
    }
}
