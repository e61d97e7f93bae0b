//! The deserializer of a [`Tree`]: serde reads every type of the model from one.
//!
//! A wrong value is returned as a [`Mistake`] with the path to it. [`keys`] asks a type for its keys, so that no list
//! of them is kept elsewhere.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::mistake::{Mistake, What, cut};
use super::tree::{Entry, Step, Tree, Value};

impl<'de> Deserializer<'de> for &'de Tree {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.value() {
            Value::Nothing => Err(Mistake::invalid_type(Unexpected::Other("nothing"), &visitor)),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => match number.parse() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => Err(Mistake::invalid_value(Unexpected::Other(&cut(number)), &visitor)),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Date(date) => Err(Mistake::invalid_type(Unexpected::Other(&format!("the date {date}")), &visitor)),
            Value::List(elements) => visitor.visit_seq(Elements { elements: elements.iter(), next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.value() {
            Value::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.value() {
            // serde also accepts an array of the fields for a struct; a configuration does not.
            Value::List(_) => Err(Mistake::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.value() {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer() as StrDeserializer<'_, Mistake>),
            _ => Err(self.deserialize_any(OneOf(words)).err().unwrap_or_else(|| Mistake::custom("is not a word"))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// Refuses every value: one of these words was expected.
struct OneOf(&'static [&'static str]);

impl Visitor<'_> for OneOf {
    type Value = ();

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "one of {}", self.0.join(", "))
    }
}

struct Elements<'de> {
    elements: std::slice::Iter<'de, Tree>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mistake> {
        let Some(element) = self.elements.next() else { return Ok(None) };
        let number = self.next;
        self.next += 1;
        seed.deserialize(element).map(Some).map_err(|mistake| mistake.within(Step::Element(number)))
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mistake> {
        self.current = self.entries.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Mistake> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mistake| mistake.at_key(&entry.key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        let Some(entry) = self.current else { return Err(Mistake::custom("a value without a key")) };
        seed.deserialize(&entry.tree).map_err(|mistake| mistake.within(Step::Key(entry.key.clone())))
    }
}

/// The keys of a table that is read as a `T`, in the order of its fields.
pub(crate) fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
    T::deserialize(AskKeys).err().and_then(|asked| asked.0).unwrap_or_default()
}

/// Reads a call as an enum with a variant for each method, whose fields are the parameters. The error is the name of
/// the parameter that is missing, unknown or has an impossible value.
pub(crate) fn call<'de, T: Deserialize<'de>>(method: &'de str, parameters: &'de Tree) -> Result<T, String> {
    T::deserialize(Call { method, parameters }).map_err(|mistake| match (mistake.path().0.first(), &mistake.what) {
        (Some(Step::Key(parameter)), _) => parameter.clone(),
        (_, What::Missing(parameter)) => (*parameter).to_owned(),
        _ => String::new(),
    })
}

/// The name of a method, and its parameters.
struct Call<'t> {
    method: &'t str,
    parameters: &'t Tree,
}

impl<'de> Deserializer<'de> for Call<'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any option newtype_struct struct enum
    }
}

impl<'de> EnumAccess<'de> for Call<'de> {
    type Error = Mistake;
    type Variant = Parameters<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Parameters<'de>), Mistake> {
        let method: StrDeserializer<'_, Mistake> = self.method.into_deserializer();
        Ok((seed.deserialize(method)?, Parameters(self.parameters)))
    }
}

/// The parameters of a call.
struct Parameters<'t>(&'t Tree);

impl<'de> VariantAccess<'de> for Parameters<'de> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        match self.0.keys().next() {
            Some(surplus) => Err(Mistake::unknown_field(surplus, &[]).at_key(surplus)),
            None => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mistake> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mistake> {
        self.0.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        self.0.deserialize_any(visitor)
    }
}

/// Reads nothing and records the keys or words that a type asks for.
struct AskKeys;

/// The keys or words that a type asked for.
#[derive(Debug)]
struct Asked(Option<&'static [&'static str]>);

impl std::fmt::Display for Asked {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("only asked for its keys")
    }
}

impl std::error::Error for Asked {}

impl Error for Asked {
    fn custom<T: std::fmt::Display>(_: T) -> Asked {
        Asked(None)
    }
}

impl<'de> Deserializer<'de> for AskKeys {
    type Error = Asked;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked(None))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Asked> {
        Err(Asked(Some(keys)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Asked> {
        Err(Asked(Some(words)))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any option newtype_struct
    }
}
