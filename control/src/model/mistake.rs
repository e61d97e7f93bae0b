//! The error of reading a [`Tree`](super::Tree): a whole sentence from serde or from a check, and its place.
//!
//! serde reports a mistake through the constructors of [`serde::de::Error`]; this file turns it into text that says
//! what was found and what was expected. The deserializer adds the path while it returns.

use std::borrow::Cow;
use std::fmt::{self, Display};

use serde::de::{Error, Expected, Unexpected};

use super::tree::{Path, Step};

/// One mistake in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The way to the value, last step first.
    path: Vec<Step>,
    /// The mistake is in the key, not in its value.
    pub(super) of_key: bool,
    /// A check of the table as a whole found it.
    pub(super) of_table: bool,
    pub(super) what: What,
}

/// The kind of a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A value of another type than `expected`.
    Type { expected: String, found: String },
    /// A key that is missing.
    Missing(&'static str),
    /// A key that is unknown where only these are known.
    Unknown(Vec<&'static str>),
    /// Anything else.
    Other(String),
}

/// A complaint about one key of a table, from a check of the whole table that `Deserialize` makes once all keys are
/// read. Other deserializers show it as the text `key: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtKey<M> {
    /// The key; empty for the table as a whole.
    pub key: &'static str,
    /// The key is wrong, not its value.
    pub of_key: bool,
    /// The reason, and how to mend it.
    pub message: M,
}

impl<M> AtKey<M> {
    /// The value of `key` is wrong.
    pub fn value(key: &'static str, message: M) -> AtKey<M> {
        AtKey { key, of_key: false, message }
    }

    /// `key` must not be there, or is missing.
    pub fn key(key: &'static str, message: M) -> AtKey<M> {
        AtKey { key, of_key: true, message }
    }

    /// The table as a whole is wrong.
    pub fn table(message: M) -> AtKey<M> {
        AtKey { key: "", of_key: false, message }
    }
}

/// Encloses the key in the alternate form of [`AtKey`].
const MARK: char = '\u{1f}';

impl<M: Display> Display for AtKey<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (out.alternate(), self.key) {
            (_, "") => self.message.fmt(out),
            (true, key) => write!(out, "{MARK}{}{key}{MARK}{}", if self.of_key { "!" } else { "" }, self.message),
            (false, key) => write!(out, "{key}: {}", self.message),
        }
    }
}

/// The most characters of a value or key that a message repeats.
const SHOWN_CHARS: usize = 80;

/// The beginning of a value or key, as messages repeat it.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => (text.get(..end).unwrap_or_default().to_owned() + "…").into(),
        None => text.into(),
    }
}

impl Mistake {
    fn new(what: What) -> Mistake {
        Mistake { path: Vec::new(), of_key: false, of_table: false, what }
    }

    /// The same mistake, one step further from the root.
    pub(super) fn within(mut self, step: Step) -> Mistake {
        self.path.push(step);
        self
    }

    /// The same mistake, in the key `key`.
    pub(super) fn at_key(mut self, key: &str) -> Mistake {
        self.of_key = true;
        self.within(Step::Key(key.to_owned()))
    }

    pub(super) fn path(&self) -> Path {
        Path(self.path.iter().rev().cloned().collect())
    }
}

impl Error for Mistake {
    fn custom<T: Display>(message: T) -> Mistake {
        let text = format!("{message:#}");
        let marked = text.strip_prefix(MARK).and_then(|rest| rest.split_once(MARK));
        match marked {
            Some((key, message)) => {
                let mistake = Mistake { of_table: true, ..Mistake::new(What::Other(message.to_owned())) };
                match key.strip_prefix('!') {
                    Some(key) => mistake.at_key(key),
                    None => mistake.within(Step::Key(key.to_owned())),
                }
            }
            None => Mistake::new(What::Other(text)),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Mistake {
        let expected = match expected.to_string() {
            text if text == "a boolean" => "true or false".to_owned(),
            text if text == "a sequence" => "an array".to_owned(),
            text if text.starts_with("struct ") => "a table".to_owned(),
            text => text,
        };
        let found = match found {
            Unexpected::Str(text) => format!("the string {text:?}"),
            Unexpected::Signed(number) => format!("the number {number}"),
            Unexpected::Unsigned(number) => format!("the number {number}"),
            Unexpected::Float(number) => format!("the number {number}"),
            Unexpected::Bool(value) => value.to_string(),
            Unexpected::Seq => "an array".to_owned(),
            Unexpected::Map => "a table".to_owned(),
            Unexpected::Other(text) => text.to_owned(),
            other => other.to_string(),
        };
        Mistake::new(What::Type { expected, found })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Mistake {
        let found = match found {
            Unexpected::Str(text) => format!("{text:?}"),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Other(text) => text.to_owned(),
            other => other.to_string(),
        };
        Mistake::new(What::Other(format!("{found} is not {expected}")))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Mistake {
        Mistake::new(What::Other(format!("{variant:?} is not one of {}", known.join(", "))))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Mistake {
        Mistake::new(What::Unknown(known.to_vec()))
    }

    fn missing_field(field: &'static str) -> Mistake {
        Mistake::new(What::Missing(field))
    }
}

impl std::error::Error for Mistake {}

impl Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Type { expected, found } => write!(out, "should be {expected}, is {found}"),
            What::Missing(key) => write!(out, "`{key}` is missing"),
            What::Unknown(known) => write!(out, "unknown key; known here: {}", known.join(", ")),
            What::Other(text) => out.write_str(text),
        }
    }
}
