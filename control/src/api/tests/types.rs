//! Every field of the interface description has the type that its values have.
//!
//! The test holds a request and a reply of every method, all fields given, against the description, field by field and
//! down into lists and named types. A field of which no example has a value is a mistake, so nothing is passed over.
//! The types of settings are made from the model (`config/tests/generated`).

use std::collections::BTreeSet;

use varlink_parser::{IDL, VStruct, VStructOrEnum, VType, VTypeExt};

use super::*;

/// The description, and the fields (`Port.mtu`) that had a value.
struct Checked<'a> {
    idl: &'a IDL<'a>,
    seen: BTreeSet<String>,
}

impl<'a> Checked<'a> {
    /// Checks the fields of a struct called `name`.
    fn fields(&mut self, name: &str, value: &Value, fields: &VStruct<'a>) {
        let members = value.as_object().unwrap_or_else(|| panic!("{name} is no object: {value}"));
        for field in &fields.elts {
            let place = format!("{name}.{}", field.name);
            let value = members.get(field.name).unwrap_or(&Value::Null);
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !empty {
                self.seen.insert(place.clone());
            }
            self.value(&place, value, &field.vtype);
        }
        let unknown = members.keys().find(|key| fields.elts.iter().all(|field| field.name != key.as_str()));
        assert_eq!(unknown, None, "a field of {name} that is not described");
    }

    /// Checks one value.
    fn value(&mut self, place: &str, value: &Value, described: &VTypeExt<'a>) {
        let fits = match (described, value) {
            (VTypeExt::Option(_), Value::Null) => true,
            (VTypeExt::Option(inner), value) => return self.value(place, value, inner),
            (VTypeExt::Array(inner), Value::Array(elements)) => {
                return elements.iter().for_each(|element| self.value(place, element, inner));
            }
            (VTypeExt::Dict(inner), Value::Object(members)) => {
                return members.values().for_each(|member| self.value(place, member, inner));
            }
            (VTypeExt::Plain(VType::Typename(name)), value) => return self.named(place, value, name),
            (VTypeExt::Plain(VType::Bool), value) => value.is_boolean(),
            (VTypeExt::Plain(VType::Int), value) => value.is_i64() || value.is_u64(),
            (VTypeExt::Plain(VType::Float), value) => value.is_number(),
            (VTypeExt::Plain(VType::String), value) => value.is_string(),
            (VTypeExt::Plain(VType::Object), value) => !value.is_null(),
            _ => false,
        };
        assert!(fits, "{place} is described as {described}, and is {value}");
    }

    /// Checks a value of a type with a name.
    fn named(&mut self, place: &str, value: &Value, name: &str) {
        let idl = self.idl;
        match &idl.typedefs[name].elt {
            // Its fields are made from the model.
            VStructOrEnum::VStruct(_) if name.ends_with("Settings") => assert!(value.is_object(), "{place}: {value}"),
            VStructOrEnum::VStruct(fields) => self.fields(name, value, fields),
            VStructOrEnum::VEnum(words) => {
                assert!(words.elts.iter().any(|word| value == word), "{place}: {value} is no {name}");
            }
        }
    }
}

#[test]
fn every_field_has_the_described_type() {
    let idl = IDL::try_from(DESCRIPTION).unwrap();
    let mut checked = Checked { idl: &idl, seen: BTreeSet::new() };
    let mut described = BTreeSet::new();
    let mut describe = |name: &str, fields: &VStruct<'_>| {
        described.extend(fields.elts.iter().map(|field| format!("{name}.{}", field.name)));
    };
    for request in requests() {
        let method = &idl.methods[request.method()];
        let [input, output] = ["parameters", "reply"].map(|part| format!("{part} of {}", method.name));
        checked.fields(&input, &request.to_parameters(), &method.input);
        checked.fields(&output, &Value::Object(parameters(&reply_to(&request))), &method.output);
        describe(&input, &method.input);
        describe(&output, &method.output);
    }
    for error in [
        Error::not_found("", ""),
        Error::invalid_setting("port \"a\"", "mtu", "why"),
        Error::PermissionDenied { reason: String::new() },
    ] {
        let full_name = json!(error)["error"].take();
        let name = full_name.as_str().unwrap().rsplit('.').next().unwrap();
        checked.fields(name, &Value::Object(parameters(&error)), &idl.errors[name].parm);
        describe(name, &idl.errors[name].parm);
    }
    for (name, typedef) in idl.typedefs.iter().filter(|(name, _)| !name.ends_with("Settings")) {
        if let VStructOrEnum::VStruct(fields) = &typedef.elt {
            describe(name, fields);
        }
    }
    let unseen: Vec<&String> = described.difference(&checked.seen).collect();
    assert!(unseen.is_empty(), "no example has a value of {unseen:?}");
}
