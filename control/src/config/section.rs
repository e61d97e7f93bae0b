//! Reading TOML with places: a [`Section`] is a table, a [`Field`] is one value of it, and both know their dotted
//! path and where they stand, so that every complaint can say `FILE:LINE:COLUMN: path: …`.
//!
//! The readers of `[switch]`, `[ports.NAME]` and `[mirrors.NAME]` first call [`Section::check_keys`] (a misspelt key
//! is more useful to hear about than the required key that is missing because of it) and then take what they need.
//! The parser is `toml`'s [`DeTable`], which keeps the byte span of every key and value.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};

/// The text being read. Without a file name (settings of a command) errors carry no place.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub file: Option<&'a str>,
    pub text: &'a str,
}

impl Source<'_> {
    /// An error about `path` at byte `offset` of the text.
    pub fn error(&self, offset: usize, path: &str, message: impl Display) -> ConfigError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let place = self.file.map(|file| Place {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
        });
        ConfigError::new(place, path, &message.to_string())
    }

    /// A syntax error or a key given twice, from the parser; `prefix` is what the text as a whole is called.
    pub fn parse_error(&self, prefix: &str, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        if error.message() != "duplicate key" {
            return self.error(span.start, prefix, error.message());
        }
        let key = self.text.get(span.clone()).unwrap_or("");
        let end = self.text.get(span.end..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |n| span.end + n);
        let mut lines = self.text.get(..end).unwrap_or("").lines().rev().map(str::trim);
        let header = |line: &'_ str| line.strip_prefix('[')?.split(']').next().map(|name| name.trim().to_owned());
        // A table given twice is named by its own header, a key by the header above and itself.
        let path = match lines.next().and_then(header) {
            Some(table) => table,
            None => join(&lines.find_map(header).unwrap_or_default(), key),
        };
        self.error(span.start, &join(prefix, &path), "given twice; keep one of the two")
    }
}

/// `path.key`; the other alone where one of them is empty.
pub(super) fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", alone) | (alone, "") => alone.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// Where the dotted `key` stands in the text of `table`, or as much of it as is there.
pub(super) fn offset_of(table: &Spanned<DeTable<'_>>, key: &str) -> usize {
    let mut offset = table.span().start;
    let mut inner = Some(table.get_ref());
    for part in key.split('.') {
        let Some((name, value)) = inner.and_then(|table| table.get_key_value(part)) else { break };
        offset = name.span().start;
        inner = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    offset
}

/// One table.
pub(super) struct Section<'a> {
    source: Source<'a>,
    path: String,
    offset: usize,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// A table read from `source` that is called `path`.
    pub fn root(source: Source<'a>, path: &str, table: &'a Spanned<DeTable<'a>>) -> Section<'a> {
        Section { source, path: path.to_owned(), offset: table.span().start, table: table.get_ref() }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        let (name, value) = self.table.get_key_value(key)?;
        Some(self.field(name, value))
    }

    /// The value of `key`, which must be there; `what` says what it should be.
    pub fn require(&self, key: &str, what: &str) -> Result<Field<'a>, ConfigError> {
        self.get(key).ok_or_else(|| self.error(format_args!("`{key}` is missing; it should be {what}")))
    }

    /// All values, as they stand in the text.
    pub fn fields(&self) -> Vec<Field<'a>> {
        let mut fields: Vec<_> = self.table.iter().map(|(name, value)| self.field(name, value)).collect();
        fields.sort_by_key(|field| field.key_offset);
        fields
    }

    /// An error about this table as a whole.
    pub fn error(&self, message: impl Display) -> ConfigError {
        self.source.error(self.offset, &self.path, message)
    }

    /// An error about `key` if it is there, else about the table as a whole (the value is a default).
    pub fn error_at(&self, key: &str, message: impl Display) -> ConfigError {
        match self.get(key) {
            Some(field) => field.error(message),
            None => self.source.error(self.offset, &join(&self.path, key), message),
        }
    }

    /// Refuses keys that are not in `known`. `explain` may have something better to say about one than the nearest
    /// known key.
    pub fn check_keys(&self, known: &[&str], explain: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        for field in self.fields() {
            if known.contains(&field.key) {
                continue;
            }
            let message = explain(field.key).unwrap_or_else(|| unknown(field.key, known));
            return Err(self.source.error(field.key_offset, &field.path, message));
        }
        Ok(())
    }

    fn field(&self, name: &'a Spanned<std::borrow::Cow<'a, str>>, value: &'a Spanned<DeValue<'a>>) -> Field<'a> {
        let key = name.get_ref().as_ref();
        Field { source: self.source, path: join(&self.path, key), key, key_offset: name.span().start, value }
    }
}

/// `unknown key; did you mean …`.
fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(name) => format!("unknown key; did you mean `{name}`?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// The known name that a misspelt one most likely means.
pub(super) fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let scored = known.iter().map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// One value.
#[derive(Clone)]
pub(super) struct Field<'a> {
    source: Source<'a>,
    /// Dotted from the root, `ports.dc01.vlan.tag`.
    pub path: String,
    /// Its own name.
    pub key: &'a str,
    key_offset: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Field<'a> {
    /// An error about this value.
    pub fn error(&self, message: impl Display) -> ConfigError {
        self.source.error(self.value.span().start, &self.path, message)
    }

    /// An error about the name of this value.
    pub fn key_error(&self, message: impl Display) -> ConfigError {
        self.source.error(self.key_offset, &self.path, message)
    }

    /// An error about the kind of this value.
    pub fn wrong_type(&self, expected: &str) -> ConfigError {
        let found = match self.value.get_ref() {
            DeValue::String(text) => format!("the string {text:?}"),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(date) => format!("the date {date}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.error(format_args!("should be {expected}, is {found}"))
    }

    /// A table; `what` names it in the complaint.
    pub fn section(&self) -> Result<Section<'a>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Table(table) => {
                Ok(Section { source: self.source, path: self.path.clone(), offset: self.key_offset, table })
            }
            _ => Err(self.wrong_type("a table")),
        }
    }

    /// The elements of an array, called `path[0]`, `path[1]`, …
    pub fn array(&self, what: &str) -> Result<Vec<Field<'a>>, ConfigError> {
        let DeValue::Array(elements) = self.value.get_ref() else {
            return Err(self.wrong_type(what));
        };
        let element = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Field {
            source: self.source,
            path: format!("{}[{index}]", self.path),
            key: self.key,
            key_offset: value.span().start,
            value,
        };
        Ok(elements.iter().enumerate().map(element).collect())
    }

    /// The text of a string.
    pub fn string(&self, what: &str) -> Result<&'a str, ConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong_type(what))
    }

    /// The value, if it is true or false.
    pub fn as_boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool()
    }

    /// Whether the value is an array.
    pub fn is_array(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(_))
    }

    /// Whether the value is a string.
    pub fn is_string(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// True or false.
    pub fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// An integer within `range`; `what` is what such a number is called ("a VLAN id").
    pub fn integer(&self, what: &str, range: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let (low, high) = (range.start(), range.end());
        let expected = format!("{what} ({low} to {high})");
        let number = self.value.get_ref().as_integer().ok_or_else(|| self.wrong_type(&expected))?;
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u32::try_from(n).ok());
        match parsed {
            Some(n) if range.contains(&n) => Ok(n),
            _ => Err(self.error(format_args!("{number} is not {expected}"))),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = format!("one of {}", words.join(", "));
        let text = self.string(&expected)?;
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => Err(self.error(format_args!("{text:?} is not {expected}"))),
        }
    }

    /// A string that `check` accepts; `check` says what is wrong with one it does not.
    pub fn checked(&self, what: &str, check: fn(&str) -> Result<(), String>) -> Result<String, ConfigError> {
        let text = self.string(what)?;
        check(text).map_err(|wrong| self.error(format_args!("{text:?} is not {what}: {wrong}")))?;
        Ok(text.to_owned())
    }
}
