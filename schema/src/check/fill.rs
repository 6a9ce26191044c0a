//! What is put into an entity beyond the client's words: shorthands expanded, the entity it changes, fields the
//! control plane fills, defaults.

use super::{Errors, value};
use crate::entropy::Entropy;
use crate::field::{Alias, Auto, Field, Type};
use crate::kind::Schema;
use crate::version::Time;
use serde_json::{Map, Value, json};

/// The length of a random key: Kong's.
const RANDOM_LENGTH: usize = 32;

/// Expands a schema's shorthands and the deprecated names inside its records.
pub(super) fn shorthands(
    schema: &Schema,
    fields: &[Field],
    input: &mut Map<String, Value>,
    errors: &mut Errors,
) {
    for shorthand in schema.shorthands {
        if let Some(given) = input.get_mut(shorthand.name)
            && let Err(error) = value::check(shorthand, given)
        {
            errors.set(shorthand.name, error);
            input.remove(shorthand.name);
        }
    }
    if let Some(prepare) = schema.prepare {
        prepare(input, errors);
    }
    for field in fields {
        expand_aliases(field, field.name, input, errors);
    }
}

/// Expands the deprecated names in the record `field` of `parent`, and in the records inside it.
pub(super) fn expand_aliases(
    field: &Field,
    path: &str,
    parent: &mut Map<String, Value>,
    errors: &mut Errors,
) {
    let Type::Record(fields) = field.kind else {
        return;
    };
    let Some(Value::Object(record)) = parent.get_mut(field.name) else {
        return;
    };
    for alias in field.aliases {
        if let Some(given) = record.remove(alias.field.name)
            && let Err(error) = expand_alias(alias, given, record)
        {
            errors.set(&format!("{path}.{}", alias.field.name), error);
        }
    }
    for inner in fields {
        expand_aliases(inner, &format!("{path}.{}", inner.name), record, errors);
    }
}

fn expand_alias(
    alias: &Alias,
    mut given: Value,
    record: &mut Map<String, Value>,
) -> Result<(), Value> {
    value::check(&alias.field, &mut given)?;
    if let Some(convert) = alias.convert {
        given = convert(given);
    }
    let Some((last, records)) = alias.path.split_last() else {
        return Ok(());
    };
    let mut place = record;
    for name in records {
        let child = place.entry(*name).or_insert(Value::Null);
        if child.is_null() {
            *child = Map::new().into();
        }
        // Anything else is the error of that field.
        let Value::Object(fields) = child else {
            return Ok(());
        };
        place = fields;
    }
    match place.get(*last) {
        None | Some(Value::Null) => {
            place.insert((*last).to_owned(), given);
            Ok(())
        }
        Some(newer) if given.is_null() || *newer == given => Ok(()),
        Some(newer) => {
            let shown = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
            Err(Value::String(format!(
                "both deprecated and new field are used but their values mismatch: \
                 {} = {} vs {} = {}",
                alias.field.name,
                shown(&given),
                alias.path.join("."),
                shown(newer)
            )))
        }
    }
}

/// Puts `input` on `before`.
pub(super) fn merge(
    fields: &[Field],
    before: &Map<String, Value>,
    mut input: Map<String, Value>,
) -> Map<String, Value> {
    for field in fields {
        let old = before.get(field.name).filter(|value| !value.is_null());
        match (field.kind, input.get_mut(field.name), old) {
            (Type::Record(fields), Some(Value::Object(new)), Some(Value::Object(old))) => {
                *new = merge(fields, old, std::mem::take(new));
            }
            (Type::Record(fields), None, Some(Value::Object(old))) => {
                let merged = merge(fields, old, Map::new());
                input.insert(field.name.to_owned(), merged.into());
            }
            (_, Some(_), _) => {}
            (_, None, Some(old)) => {
                input.insert(field.name.to_owned(), old.clone());
            }
            // It was null, and stays so. A required field cannot have been null: it is newer than the entity.
            (_, None, None) if !field.required && !field.never_null && field.auto.is_none() => {
                input.insert(field.name.to_owned(), Value::Null);
            }
            (_, None, None) => {}
        }
    }
    input
}

/// Keeps the fields newer software wrote into `before`, also inside records.
pub(super) fn keep_unknown(
    fields: &[Field],
    before: &Map<String, Value>,
    body: &mut Map<String, Value>,
) {
    for (name, old) in before {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            body.entry(name.clone()).or_insert_with(|| old.clone());
            continue;
        };
        if let (Type::Record(fields), Value::Object(old), Some(Value::Object(new))) =
            (field.kind, old, body.get_mut(name))
        {
            keep_unknown(fields, old, new);
        }
    }
}

/// Fills the fields the control plane fills, also inside records.
pub(super) fn autos(
    fields: &[Field],
    body: &mut Map<String, Value>,
    before: Option<&Map<String, Value>>,
    now: Time,
    entropy: &mut Entropy,
) {
    for field in fields {
        if let Type::Record(fields) = field.kind {
            if field.required && field.default.is_none() && has_autos(fields) {
                body.entry(field.name).or_insert_with(|| Map::new().into());
            }
            let before = before.and_then(|before| before.get(field.name)?.as_object());
            if let Some(Value::Object(record)) = body.get_mut(field.name) {
                autos(fields, record, before, now, entropy);
            }
        }
        let Some(auto) = field.auto else { continue };
        let kept = body
            .get(field.name)
            .or_else(|| before?.get(field.name))
            .filter(|value| !value.is_null())
            .or_else(|| before?.get(field.name))
            .cloned();
        let value = match auto {
            Auto::Updated => now.seconds().into(),
            Auto::UpdatedMillis => millis(now),
            Auto::Created => kept.unwrap_or_else(|| now.seconds().into()),
            Auto::CreatedMillis => kept.unwrap_or_else(|| millis(now)),
            Auto::Random => kept.unwrap_or_else(|| entropy.alphanumeric(RANDOM_LENGTH).into()),
        };
        body.insert(field.name.to_owned(), value);
    }
}

/// Whether the control plane fills one of these.
fn has_autos(fields: &[Field]) -> bool {
    fields.iter().any(|field| field.auto.is_some())
}

/// Seconds with milliseconds.
fn millis(time: Time) -> Value {
    // Exact: the millisecond count of a date is far below 2^53.
    json!((time.0 / 1000) as f64 / 1000.0)
}

/// The value a field has if none is given, as `/schemas` shows it: of a record that is never null, what its fields have.
pub fn default_of(field: &Field) -> Option<Value> {
    match (field.default, field.kind) {
        (Some(default), _) => Some(default.value()),
        (None, Type::Record(fields)) if field.never_null => {
            let mut record = Map::new();
            defaults(fields, &mut record);
            record = without_nulls(record);
            Some(record.into())
        }
        (
            None,
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
        ) => None,
    }
}

fn without_nulls(record: Map<String, Value>) -> Map<String, Value> {
    let given = record.into_iter().filter(|(_, value)| !value.is_null());
    given
        .map(|(name, mut value)| {
            if let Value::Object(record) = &mut value {
                *record = without_nulls(std::mem::take(record));
            }
            (name, value)
        })
        .collect()
}

/// Gives absent fields their defaults, also inside records.
pub(super) fn defaults(fields: &[Field], body: &mut Map<String, Value>) {
    for field in fields {
        if field.never_null && body.get(field.name).is_some_and(Value::is_null) {
            body.remove(field.name);
        }
        if !body.contains_key(field.name) {
            let materialised = field.required || field.never_null;
            let value = match field.default {
                Some(default) => default.value(),
                None if materialised && matches!(field.kind, Type::Record(_)) => Map::new().into(),
                None => Value::Null,
            };
            body.insert(field.name.to_owned(), value);
        }
        if let Some(value) = body.get_mut(field.name) {
            defaults_within(field, value);
        }
    }
}

/// Gives the absent fields of records in `value` their defaults.
fn defaults_within(field: &Field, value: &mut Value) {
    if matches!(field.kind, Type::Record(_)) && value.as_array().is_some_and(Vec::is_empty) {
        // The empty record of clients that cannot tell it from an empty list.
        *value = Map::new().into();
    }
    match (field.kind, value) {
        (Type::Record(fields), Value::Object(record)) => defaults(fields, record),
        (Type::Array(elements) | Type::Set(elements), Value::Array(items)) => {
            items
                .iter_mut()
                .for_each(|item| defaults_within(elements, item));
        }
        (Type::Map { values, .. }, Value::Object(map)) => {
            map.iter_mut()
                .for_each(|(_, value)| defaults_within(values, value));
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
            _,
        ) => {}
    }
}

/// Takes nulls out of an object and of the objects in it.
pub(crate) fn remove_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    for (_, value) in fields.iter_mut() {
        remove_nulls_within(value);
    }
}

fn remove_nulls_within(value: &mut Value) {
    match value {
        Value::Object(fields) => remove_nulls(fields),
        Value::Array(items) => items.iter_mut().for_each(remove_nulls_within),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
