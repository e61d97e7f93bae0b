//! Places of mistakes in the text of a configuration: `FILE:LINE:COLUMN`.

use toml::de::DeTable;

use super::error::{ConfigError, Place};
use crate::model::{Diagnostic, Path, Tree};

/// The text being read. Without a file name (settings of a command) errors have no place.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub file: Option<&'a str>,
    pub text: &'a str,
}

impl Source<'_> {
    /// An error about `path` at byte `offset` of the text.
    pub fn error(&self, offset: usize, path: &str, message: &str) -> ConfigError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let place = self.file.map(|file| Place {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
        });
        ConfigError::new(place, path, message)
    }

    /// The error for a syntax error or a duplicate key that the parser found; `prefix` is the path of the text as a
    /// whole.
    pub fn parse_error(&self, prefix: &str, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        if error.message() != "duplicate key" {
            return self.error(span.start, prefix, error.message());
        }
        let key = self.text.get(span.clone()).unwrap_or("");
        let end = self.text.get(span.end..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |n| span.end + n);
        let mut lines = self.text.get(..end).unwrap_or("").lines().rev().map(str::trim);
        let header = |line: &'_ str| line.strip_prefix('[')?.split(']').next().map(|name| name.trim().to_owned());
        // A duplicate table is named by its own header, a duplicate key by itself and the header above it.
        let path = match lines.next().and_then(header) {
            Some(table) => table,
            None => join(&lines.find_map(header).unwrap_or_default(), key),
        };
        self.error(span.start, &join(prefix, &path), "given twice; keep one of the two")
    }
}

/// `path.key`; if one of them is empty, the other alone.
pub(super) fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", alone) | (alone, "") => alone.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

impl Source<'_> {
    /// The text as a tree.
    pub fn tree(&self) -> Result<Tree, ConfigError> {
        let table = DeTable::parse(self.text).map_err(|error| self.parse_error("", &error))?;
        Ok(Tree::from(&table))
    }

    /// The error for a diagnostic; `tree` is the tree of this text.
    pub fn diagnosed(&self, tree: &Tree, diagnostic: &Diagnostic) -> ConfigError {
        let Diagnostic { path, of_key, message } = diagnostic;
        self.error(tree.place(path, *of_key), &path.to_string(), message)
    }
}

/// The path in `tree` of the dotted `key`: the name of a table may itself have dots.
pub(super) fn path_of(tree: &Tree, key: &str) -> Path {
    let (mut path, mut rest, mut inner) = (Path::default(), key, Some(tree));
    while !rest.is_empty() {
        let begins =
            |known: &&str| rest.strip_prefix(known).is_some_and(|more| more.is_empty() || more.starts_with('.'));
        let known = inner.and_then(|table| table.keys().filter(begins).max_by_key(|known| known.len()));
        let part = known.unwrap_or_else(|| rest.split('.').next().unwrap_or(rest));
        inner = inner.and_then(|table| table.get(part));
        path = path.key(part);
        rest = rest.strip_prefix(part).unwrap_or_default().trim_start_matches('.');
    }
    path
}
