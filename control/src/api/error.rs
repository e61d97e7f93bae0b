//! Errors on the control socket: those of the switch, and those of every Varlink service.
//!
//! A Varlink error is a name (`INTERFACE.Error`) and an object of parameters. Reference: <https://varlink.org/Service>.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{INTERFACE, SERVICE_INTERFACE};

/// Why a request failed. The text is one line for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object does not exist.
    #[error("{kind} {name:?} does not exist")]
    NotFound {
        /// The kind of the object: `port`, `mirror`, `fdb entry`.
        kind: String,
        /// The name asked for.
        name: String,
    },
    /// The switch will not or cannot do this; nothing was changed.
    #[error("{object}: {reason}")]
    Refused {
        /// The object in words, as in `port "dc01"`.
        object: String,
        /// One clause: what is wrong and how to mend it.
        reason: String,
        /// The kind of the refusal.
        code: RefusedCode,
        /// The object in fields, for programs.
        subject: Box<Subject>,
    },
    /// The peer may not change the switch.
    #[error("permission denied: {reason}")]
    PermissionDenied {
        /// One clause: who may change the switch.
        reason: String,
    },
    /// A parameter is missing, unknown or not a possible value.
    #[error("parameter {parameter:?} is missing, unknown or has an impossible value")]
    InvalidParameter {
        /// The name of the parameter; empty if the message as a whole is not a call.
        parameter: String,
    },
    /// The interface has no such method.
    #[error("method {method:?} does not exist")]
    MethodNotFound {
        /// Full name of the method.
        method: String,
    },
    /// The interface has the method, but this switch does not implement it.
    #[error("method {method:?} is not implemented")]
    MethodNotImplemented {
        /// Full name of the method.
        method: String,
    },
    /// There is no such interface.
    #[error("interface {interface:?} does not exist")]
    InterfaceNotFound {
        /// Name of the interface.
        interface: String,
    },
    /// The method answers only calls with the flag `more`.
    #[error("this method answers with a stream: call it with \"more\"")]
    ExpectedMore,
}

/// The kind of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedCode {
    /// A setting or a configuration is wrong.
    Invalid,
    /// The setting is valid, but the switch cannot do it at present.
    Impossible,
}

/// The object of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// `port`, `mirror`, `impairment`, `switch`, …
    pub kind: Option<String>,
    /// The object's name.
    pub name: Option<String>,
    /// The wrong setting.
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

    /// The full name and the parameters, as sent on the socket.
    pub fn to_wire(&self) -> (String, Value) {
        let (interface, name, parameters) = match self {
            Error::NotFound { kind, name } => (INTERFACE, "NotFound", json!({"kind": kind, "name": name})),
            Error::Refused { object, reason, code, subject } => {
                let Subject { kind, name, key } = subject.as_ref();
                let mut parameters = json!({"object": object, "reason": reason, "code": code});
                if let Value::Object(fields) = &mut parameters {
                    let optional = [("kind", kind), ("name", name), ("key", key)].into_iter();
                    fields
                        .extend(optional.filter_map(|(field, value)| Some((field.to_owned(), json!(value.as_ref()?)))));
                }
                (INTERFACE, "Refused", parameters)
            }
            Error::PermissionDenied { reason } => (INTERFACE, "PermissionDenied", json!({"reason": reason})),
            Error::InvalidParameter { parameter } => {
                (SERVICE_INTERFACE, "InvalidParameter", json!({"parameter": parameter}))
            }
            Error::MethodNotFound { method } => (SERVICE_INTERFACE, "MethodNotFound", json!({"method": method})),
            Error::MethodNotImplemented { method } => {
                (SERVICE_INTERFACE, "MethodNotImplemented", json!({"method": method}))
            }
            Error::InterfaceNotFound { interface } => {
                (SERVICE_INTERFACE, "InterfaceNotFound", json!({"interface": interface}))
            }
            Error::ExpectedMore => (SERVICE_INTERFACE, "ExpectedMore", json!({})),
        };
        (format!("{interface}.{name}"), parameters)
    }

    /// The error with this full name; `None` if the name is unknown.
    pub fn from_wire(full_name: &str, parameters: &Map<String, Value>) -> Option<Error> {
        let text = |key: &str| parameters.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (interface, name) = full_name.rsplit_once('.')?;
        let error = match (interface, name) {
            (INTERFACE, "NotFound") => Error::NotFound { kind: text("kind"), name: text("name") },
            (INTERFACE, "Refused") => {
                let optional = |key: &str| Some(text(key)).filter(|text| !text.is_empty());
                let subject = Subject { kind: optional("kind"), name: optional("name"), key: optional("key") };
                let code = parameters.get("code").and_then(|code| RefusedCode::deserialize(code).ok());
                Error::Refused {
                    object: text("object"),
                    reason: text("reason"),
                    code: code.unwrap_or(RefusedCode::Impossible),
                    subject: Box::new(subject),
                }
            }
            (INTERFACE, "PermissionDenied") => Error::PermissionDenied { reason: text("reason") },
            (SERVICE_INTERFACE, "InvalidParameter") => Error::InvalidParameter { parameter: text("parameter") },
            (SERVICE_INTERFACE, "MethodNotFound") => Error::MethodNotFound { method: text("method") },
            (SERVICE_INTERFACE, "MethodNotImplemented") => Error::MethodNotImplemented { method: text("method") },
            (SERVICE_INTERFACE, "InterfaceNotFound") => Error::InterfaceNotFound { interface: text("interface") },
            (SERVICE_INTERFACE, "ExpectedMore") => Error::ExpectedMore,
            _ => return None,
        };
        Some(error)
    }
}
