//! Helpers for reading values by serde: text with a check, numbers within a range, lists whose elements are checked.
//!
//! Each helper says what the value should be, so that a deserializer can complain in whole sentences. For a wrong type
//! the deserializer says "should be `what`, is …"; for a wrong value the message is the complaint of the check.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

/// A string that `read` accepts; `what` says what it should be.
pub(crate) fn text<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Text<F, T>(&'static str, F, PhantomData<T>);

    impl<F: FnOnce(&str) -> Result<T, String>, T> Visitor<'_> for Text<F, T> {
        type Value = T;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(what, read, PhantomData))
}

/// A string that `check` accepts; for another string, `check` says what is wrong.
fn checked<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    check: fn(&str) -> Result<(), String>,
) -> Result<String, D::Error> {
    text(deserializer, what, |text| match check(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(wrong) => Err(format!("{text:?} is not {what}: {wrong}")),
    })
}

/// Types of fields that hold a text with a check: a string, a path, or one of these that may be left out.
pub(super) trait Checked: Sized {
    /// Reads it; `what` and `check` as for [`checked`].
    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        what: &'static str,
        check: fn(&str) -> Result<(), String>,
    ) -> Result<Self, D::Error>;
}

/// Types of fields that hold a number within a range, or one that may be left out.
pub(super) trait Number: Sized {
    /// Reads it; `what` and `range` as for [`integer`].
    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        what: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Self, D::Error>;
}

macro_rules! fields {
    ($($text:ty),*; $($number:ty),*) => {
        $(impl Checked for $text {
            fn read<'de, D: Deserializer<'de>>(
                deserializer: D,
                what: &'static str,
                check: fn(&str) -> Result<(), String>,
            ) -> Result<$text, D::Error> {
                checked(deserializer, what, check).map(<$text>::from)
            }
        }

        impl Checked for Option<$text> {
            fn read<'de, D: Deserializer<'de>>(
                deserializer: D,
                what: &'static str,
                check: fn(&str) -> Result<(), String>,
            ) -> Result<Option<$text>, D::Error> {
                Ok(optional(deserializer, what, check)?.map(<$text>::from))
            }
        })*

        $(impl Number for $number {
            fn read<'de, D: Deserializer<'de>>(
                deserializer: D,
                what: &'static str,
                range: RangeInclusive<u32>,
            ) -> Result<$number, D::Error> {
                small_integer(deserializer, what, range)
            }
        }

        impl Number for Option<$number> {
            fn read<'de, D: Deserializer<'de>>(
                deserializer: D,
                what: &'static str,
                range: RangeInclusive<u32>,
            ) -> Result<Option<$number>, D::Error> {
                small_integer(deserializer, what, range).map(Some)
            }
        })*
    };
}

fields!(String, PathBuf; u16, u32, usize);

/// Kinds of numbers. A field is one by `#[serde(with = "NAME")]`: it is read within the range, and has its schema.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $range:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl $name {
            pub(super) fn deserialize<'de, T: value::Number, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<T, D::Error> {
                T::read(deserializer, $what, $range)
            }

            pub(super) fn serialize<T: Serialize, S: Serializer>(number: &T, serializer: S) -> Result<S::Ok, S::Error> {
                number.serialize(serializer)
            }
        }

        schema::described!($name, |_| schema::integer(&$range));
    )*};
}
pub(super) use numbers;

/// The same as [`checked`], or null.
fn optional<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    check: fn(&str) -> Result<(), String>,
) -> Result<Option<String>, D::Error> {
    struct Optional(&'static str, fn(&str) -> Result<(), String>);

    impl<'de> Visitor<'de> for Optional {
        type Value = Option<String>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(self.0)
        }

        fn visit_none<E: Error>(self) -> Result<Option<String>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
            checked(deserializer, self.0, self.1).map(Some)
        }
    }

    deserializer.deserialize_option(Optional(what, check))
}

/// An integer within `range`; `what` names such a number ("a VLAN id").
pub(crate) fn integer<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    range: RangeInclusive<u32>,
) -> Result<u32, D::Error> {
    deserializer.deserialize_u32(Integer { what, range })
}

/// The same as [`integer`], for a type with fewer bits that holds the whole range.
pub(crate) fn small_integer<'de, T: TryFrom<u32>, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    range: RangeInclusive<u32>,
) -> Result<T, D::Error> {
    let number = integer(deserializer, what, range)?;
    T::try_from(number).map_err(|_| Error::custom(format_args!("{number} is not {what}")))
}

struct Integer {
    what: &'static str,
    range: RangeInclusive<u32>,
}

impl Visitor<'_> for Integer {
    type Value = u32;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({} to {})", self.what, self.range.start(), self.range.end())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        match u32::try_from(number) {
            Ok(fits) if self.range.contains(&fits) => Ok(fits),
            _ => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
        match u32::try_from(number) {
            Ok(fits) if self.range.contains(&fits) => Ok(fits),
            _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(number), &self)),
        }
    }
}

/// An array. `accept` gets the elements before one, and that one, and says what is wrong with it.
pub(crate) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    accept: fn(&[T], &T) -> Result<(), String>,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(List { what, accept })
}

/// The visitor of [`list`], also for visitors that take other values than an array.
pub(crate) struct List<T> {
    pub what: &'static str,
    pub accept: fn(&[T], &T) -> Result<(), String>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while elements.next_element_seed(Element { accept: self.accept, list: &mut list })?.is_some() {}
        Ok(list)
    }
}

/// Reads one element after `list`, and checks it where its place is known.
struct Element<'l, T> {
    accept: fn(&[T], &T) -> Result<(), String>,
    list: &'l mut Vec<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Element<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let element = T::deserialize(deserializer)?;
        (self.accept)(self.list, &element).map_err(D::Error::custom)?;
        self.list.push(element);
        Ok(())
    }
}
