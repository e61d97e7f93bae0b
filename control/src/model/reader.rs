//! Reads a [`Tree`] into the model, and notes every mistake in it.
//!
//! **How it works.** serde stops at the first mistake. The [`Reader`] therefore notes the mistake, removes the value
//! from the tree and reads the rest again, until no mistake is left or the table as a whole is wrong. A key that was
//! removed does not count as missing.
//!
//! **Invariants.** A value is returned only if it had no mistake. At most [`MAX_DIAGNOSTICS`] mistakes are noted, so
//! that the work has a bound however long a file is.

use serde::de::DeserializeOwned;

use super::de::keys;
use super::mistake::{AtKey, What};
use super::tree::{Path, Tree};

/// The most mistakes that are reported for one configuration.
pub const MAX_DIAGNOSTICS: usize = 100;

/// One mistake in a configuration: its place, and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The place of the wrong value.
    pub path: Path,
    /// The key at `path` is wrong, not its value.
    pub of_key: bool,
    /// The reason, and how to mend it.
    pub message: String,
}

/// Reads tables; see the module.
#[derive(Debug, Default)]
pub struct Reader {
    found: Vec<Diagnostic>,
    prefix: Path,
}

impl Reader {
    /// A reader of tables below `prefix`.
    pub fn at(prefix: Path) -> Reader {
        Reader { found: Vec::new(), prefix }
    }

    /// Sets the place of the next table.
    pub fn set_prefix(&mut self, prefix: Path) {
        self.prefix = prefix;
    }

    /// The place of the table that is read.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// All mistakes.
    pub fn finish(self) -> Vec<Diagnostic> {
        self.found
    }

    /// The first mistake, if there is one, and otherwise `value`.
    pub fn or_first<T>(self, value: Option<T>) -> Result<Option<T>, Diagnostic> {
        match self.found.into_iter().next() {
            Some(first) => Err(first),
            None => Ok(value),
        }
    }

    /// The number of mistakes so far.
    pub fn mistakes(&self) -> usize {
        self.found.len()
    }

    /// Notes a mistake at one key of the table that is read.
    pub(super) fn note_key<M: std::fmt::Display>(&mut self, wrong: &AtKey<M>) {
        let path = if wrong.key.is_empty() { Path::default() } else { Path::of([wrong.key]) };
        self.note(&path, wrong.of_key, wrong.message.to_string());
    }

    /// Notes a mistake at `path` of the table that is read.
    pub fn note(&mut self, path: &Path, of_key: bool, message: String) {
        if self.found.len() < MAX_DIAGNOSTICS {
            self.found.push(Diagnostic { path: path.behind(&self.prefix), of_key, message });
        }
    }

    /// Reads a whole table.
    pub fn read<T: DeserializeOwned>(&mut self, tree: &Tree) -> Option<T> {
        let mut rest = tree.clone();
        let mut removed: Vec<Path> = Vec::new();
        loop {
            let mistake = match T::deserialize(&rest) {
                Ok(value) => return removed.is_empty().then_some(value),
                Err(mistake) => mistake,
            };
            let path = mistake.path();
            if let What::Missing(key) = &mistake.what {
                let table = path;
                if !removed.contains(&table.key(key)) {
                    let message = format!("`{key}` is missing{}", should_be::<T>(&rest, &table, key));
                    self.note(&table, false, message);
                }
                if !rest.remove(&table) {
                    return None;
                }
                removed.push(table);
                continue;
            }
            let message = match &mistake.what {
                What::Unknown(known) => unknown(path.last_key(), known),
                _ => mistake.to_string(),
            };
            // If a value was removed, a check of the whole table says nothing.
            let table = if mistake.of_table { path.parent() } else { path.clone() };
            if !removed.iter().any(|removed| removed.is_in(&table)) {
                self.note(&path, mistake.of_key, message);
            }
            if self.found.len() >= MAX_DIAGNOSTICS || !rest.remove(&path) {
                return None;
            }
            removed.push(path.up_to_list());
        }
    }

    /// Reads the part of a table that is `T`: the keys that `T` has, and no others.
    pub fn part<T: DeserializeOwned>(&mut self, tree: &Tree) -> Option<T> {
        let own = keys::<T>();
        self.read(&tree.only(|key| own.contains(&key)))
    }

    /// Notes the keys of a table that are not `known`. `explain` may have a better message for a key than the nearest
    /// known key.
    pub fn check_keys(&mut self, tree: &Tree, known: &[&'static str], explain: impl Fn(&str) -> Option<String>) {
        for key in tree.keys().filter(|key| !known.contains(key)) {
            let message = explain(key).unwrap_or_else(|| unknown(key, known));
            self.note(&Path::of([key]), true, message);
        }
    }

    /// True for a table; any other value is noted as a mistake.
    pub fn is_table(&mut self, tree: &Tree) -> bool {
        if !tree.is_table() {
            self.read::<AnyTable>(tree);
        }
        tree.is_table()
    }
}

/// A table of any keys.
#[derive(serde::Deserialize)]
struct AnyTable {}

/// The expected type of a missing key, from the key's own type.
fn should_be<T: DeserializeOwned>(tree: &Tree, table: &Path, key: &str) -> String {
    let mut asked = tree.clone();
    asked.set_nothing(&table.key(key));
    match T::deserialize(&asked).map_err(|mistake| mistake.what) {
        Err(What::Type { expected, .. }) => format!("; it should be {expected}"),
        _ => String::new(),
    }
}

/// `unknown key; did you mean …`.
fn unknown(key: &str, known: &[&'static str]) -> String {
    match nearest(key, known) {
        Some(name) => format!("unknown key; did you mean `{name}`?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Least similarity of two names for one to be suggested in place of the other (1: equal).
const ALIKE: f64 = 0.8;

/// Bytes of the longest name for which a similar one is looked for: the time of a comparison grows with both lengths.
const LONGEST_MISSPELT: usize = 256;

/// The known name that a misspelt one most likely means: a name that differs in one letter, otherwise the most similar
/// one.
pub(crate) fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    if name.len() > LONGEST_MISSPELT {
        return None;
    }
    let alike = |candidate: &str| match strsim::osa_distance(name, candidate) {
        0 | 1 => 1.0,
        _ => strsim::jaro_winkler(name, candidate),
    };
    let scored = known.iter().map(|candidate| (alike(candidate), *candidate));
    scored.filter(|(score, _)| *score > ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}
