//! The form in which the Admin API shows an entity: every field there, null where it has no value.

use crate::entity::Id;
use crate::field::{Field, Type};
use crate::kind::Schema;
use serde_json::{Map, Value};

/// What the Admin API shows of a stored body. Fields this build does not know come last, as they are.
pub fn fill_nulls(schema: &Schema, id: Id, body: &Map<String, Value>) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("id".to_owned(), id.to_string().into());
    let name = body.get("name").and_then(Value::as_str);
    let config = name.and_then(|name| schema.config(name));
    for field in schema.fields {
        let field = match (field.kind, config) {
            (Type::Config, Some(config)) => config,
            _ => field,
        };
        shown.insert(field.name.to_owned(), filled(field, body.get(field.name)));
    }
    keep_others(&mut shown, body);
    shown
}

fn filled(field: &Field, value: Option<&Value>) -> Value {
    match (field.kind, value) {
        (_, None | Some(Value::Null)) => Value::Null,
        (Type::Record(fields), Some(Value::Object(record))) => {
            let mut shown: Map<_, _> = fields
                .iter()
                .map(|field| (field.name.to_owned(), filled(field, record.get(field.name))))
                .collect();
            keep_others(&mut shown, record);
            shown.into()
        }
        (Type::Array(elements) | Type::Set(elements), Some(Value::Array(items))) => items
            .iter()
            .map(|item| filled(elements, Some(item)))
            .collect(),
        (Type::Map { values, .. }, Some(Value::Object(map))) => {
            let shown = |(key, value): (&String, _)| (key.clone(), filled(values, Some(value)));
            Value::Object(map.iter().map(shown).collect())
        }
        (
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Array(_)
            | Type::Set(_)
            | Type::Map { .. }
            | Type::Record(_)
            | Type::Foreign(_)
            | Type::Config
            | Type::Json,
            Some(value),
        ) => value.clone(),
    }
}

fn keep_others(shown: &mut Map<String, Value>, stored: &Map<String, Value>) {
    for (name, value) in stored {
        if !shown.contains_key(name) {
            shown.insert(name.clone(), value.clone());
        }
    }
}
