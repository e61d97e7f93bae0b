//! JSON schemas of the model's types: what an editor needs to check and to complete a configuration file.
//!
//! **How it works.** `schemars` derives the schema of a noun from its struct: the keys, their comments, their defaults.
//! A kind of value with a reader of its own is a type that `#[serde(with = "Kind")]` names: it has the schema beside
//! the reader, so that a key is still one field with one attribute. What a table is made of ([`table`]) is put
//! together here, as the readers of the nouns do it.
//!
//! **Limits.** A schema says what one value may be. What values say of each other (a mirror that would feed itself, two
//! ports on one device, ranges that overlap) only the switch finds. What the reader takes, the schema takes.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::de::keys;

/// Gives a type the schema that `$schema` makes of a generator; always written out where the type is used.
macro_rules! described {
    ($name:ty, $schema:expr) => {
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema = $schema;
                schema(generator)
            }
        }
    };
}
pub(super) use described;

/// The words of an enum whose type is not this crate's.
pub(crate) struct Words<T>(PhantomData<T>);

impl<T: DeserializeOwned> JsonSchema for Words<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Words".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": keys::<T>() })
    }
}

/// A number within a range.
pub(super) fn integer(range: &RangeInclusive<u32>) -> Schema {
    json_schema!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
}

/// A text that a regular expression describes as a whole.
pub(super) fn text(pattern: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": format!("^(?:{pattern})$") })
}

/// One of these words.
pub(super) fn word(words: &[&str]) -> Schema {
    json_schema!({ "type": "string", "enum": words })
}

/// An array of `items`, at most so many.
pub(super) fn array(items: &Schema, most: Option<usize>) -> Schema {
    let mut array = json_schema!({ "type": "array", "items": items });
    if let Some(most) = most {
        array.insert("maxItems".to_owned(), json!(most));
    }
    array
}

/// A value of one of these kinds.
pub(super) fn any_of(kinds: &[Schema]) -> Schema {
    json_schema!({ "anyOf": kinds })
}

/// A table with the keys of all `parts`, and no others.
pub(super) fn table(parts: &[Schema]) -> Schema {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        let part = part.as_object();
        let keys = part.and_then(|part| part.get("properties")?.as_object());
        properties.extend(keys.into_iter().flatten().map(|(key, schema)| (key.clone(), schema.clone())));
        required.extend(part.and_then(|part| part.get("required")?.as_array()).into_iter().flatten().cloned());
    }
    json_schema!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false
    })
}

/// `table`, of which exactly one of these sets of keys must be there.
pub(super) fn with_one_of(mut table: Schema, sets: &[&str]) -> Schema {
    let sets: Vec<Value> = sets.iter().map(|key| json!({ "required": [key] })).collect();
    table.insert("oneOf".to_owned(), sets.into());
    table
}

/// A table of tables, at most `most`, whose names are `names`.
pub(crate) fn tables(names: &Schema, of: &Schema, most: usize) -> Schema {
    json_schema!({ "type": "object", "propertyNames": names, "additionalProperties": of, "maxProperties": most })
}

/// The schema of a whole document that `make` puts together; draft 7, which editors know.
pub(crate) fn document(title: &str, make: impl FnOnce(&mut SchemaGenerator) -> Schema) -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let meta_schema = settings.meta_schema.clone();
    let mut schema = make(&mut settings.into_generator());
    NoNull.transform(&mut schema);
    schema.insert("title".to_owned(), title.into());
    schema.insert("$schema".to_owned(), json!(meta_schema));
    schema.to_value()
}

/// Takes out the null of keys that may be left out: TOML has none.
struct NoNull;

impl Transform for NoNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        if object.get("default").is_some_and(Value::is_null) {
            object.remove("default");
        }
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(words)) = object.get_mut("enum") {
            words.retain(|word| !word.is_null());
        }
        if let Some(Value::Array(kinds)) = object.get_mut("anyOf") {
            kinds.retain(|kind| kind.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = kinds.as_mut_slice() {
                let only = std::mem::take(only);
                object.remove("anyOf");
                object.extend(only);
            }
        }
    }
}
