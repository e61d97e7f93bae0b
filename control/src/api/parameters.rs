//! Reading the parameters of a call one by one, so that an error can name the parameter it is about.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Error;

/// The parameters of a call that were not read yet.
#[derive(Debug)]
pub(super) struct Parameters(Map<String, Value>);

impl Parameters {
    /// All parameters of a call.
    pub(super) fn new(parameters: Map<String, Value>) -> Parameters {
        Parameters(parameters)
    }

    /// Reads a parameter that must be there.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] naming it, if it is missing or of the wrong type.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Error> {
        self.optional(name)?.ok_or_else(|| Error::invalid(name))
    }

    /// Reads a parameter that may be missing or null.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] naming it, if it is of the wrong type.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Error> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|_| Error::invalid(name)),
        }
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] naming the first parameter left.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(Error::InvalidParameter { parameter: name }),
            None => Ok(()),
        }
    }
}
