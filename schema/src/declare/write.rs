//! A state as a declarative file.

use super::select::speaks_of;
use crate::check::{Errors, fill_nulls};
use crate::entity::{Key, Workspace};
use crate::field::{Field, Literal, Type};
use crate::kind::{Kind, Schema};
use crate::state::State;
use serde_json::{Map, Value, json};

/// The `_format_version` of what is written.
pub const FORMAT_VERSION: &str = "3.0";

/// All entities of `workspace`: see [`write_selected`].
pub fn write(state: &State, workspace: &Workspace) -> Value {
    write_selected(state, workspace, &[])
}

/// The entities of `workspace` in the flat form of Kong's dumps, ordered by id: every entity with its id, references by
/// id; a field without value is left out, or null where leaving it out would mean its default. Applying it to the same
/// state changes nothing. With `select_tags` only the entities that have them all.
pub fn write_selected(state: &State, workspace: &Workspace, select_tags: &[String]) -> Value {
    let mut file = Map::new();
    file.insert("_format_version".into(), json!(FORMAT_VERSION));
    file.insert("_transform".into(), json!(false));
    if *workspace != Workspace::DEFAULT {
        file.insert("_workspace".into(), json!(workspace.as_str()));
    }
    if !select_tags.is_empty() {
        file.insert("_info".into(), json!({ "select_tags": select_tags }));
    }
    for kind in Kind::ALL.iter().filter(|kind| kind.in_files()) {
        let schema = kind.schema();
        let entities: Vec<Value> = state
            .list(*kind, workspace, None)
            .filter_map(|(id, entry)| {
                let key = Key {
                    kind: kind.key_name(),
                    workspace: workspace.clone(),
                    id,
                };
                let body = state.shown(&key, &entry.body)?;
                if !speaks_of(select_tags, state, workspace, *kind, &body) {
                    return None;
                }
                let mut fields = fill_nulls(schema, id, &body);
                drop_nulls(&fields_of(schema, &body), &mut fields);
                leave_out_rewriting(schema, &mut fields);
                for (field, value) in &mut fields {
                    flatten_reference(schema, field, value);
                }
                Some(Value::Object(fields))
            })
            .collect();
        if !entities.is_empty() {
            file.insert(schema.entity.into(), Value::Array(entities));
        }
    }
    Value::Object(file)
}

/// The fields of an entity, with the record that depends on its name in place.
fn fields_of(schema: &Schema, body: &Map<String, Value>) -> Vec<Field> {
    let name = schema
        .variant
        .and_then(|variant| body.get(variant.key)?.as_str());
    let config = name.and_then(|name| schema.config(name));
    let resolve = |field: &Field| match (field.kind, config) {
        (Type::Config, Some(config)) => *config,
        (_, Some(_) | None) => *field,
    };
    schema.fields.iter().map(resolve).collect()
}

/// Takes out the nulls that a reader would put back.
fn drop_nulls(fields: &[Field], values: &mut Map<String, Value>) {
    values.retain(|name, value| {
        let field = fields.iter().find(|field| field.name == name);
        !value.is_null() || field.is_some_and(|field| field.default.is_some())
    });
    for field in fields {
        if let Some(value) = values.get_mut(field.name) {
            drop_nulls_within(field, value);
        }
    }
}

fn drop_nulls_within(field: &Field, value: &mut Value) {
    match (field.kind, value) {
        (Type::Record(fields), Value::Object(record)) => drop_nulls(fields, record),
        (Type::Array(elements) | Type::Set(elements), Value::Array(items)) => {
            for item in items {
                drop_nulls_within(elements, item);
            }
        }
        (Type::Map { values, .. }, Value::Object(map)) => {
            for (_, value) in map.iter_mut() {
                drop_nulls_within(values, value);
            }
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

/// Some fields rewrite others when they are written (an upstream's `hash_on` its `algorithm`). One that does, and has its
/// default, is left out, so that the others stay as they are.
fn leave_out_rewriting(schema: &Schema, fields: &mut Map<String, Value>) {
    let Some(prepare) = schema.prepare else {
        return;
    };
    let stays = |fields: &Map<String, Value>| {
        let mut prepared = fields.clone();
        prepare(&mut prepared, &mut Errors::default());
        prepared == *fields
    };
    if stays(fields) {
        return;
    }
    for field in schema.fields {
        let default = field.default.map(Literal::value);
        if default.is_some() && fields.get(field.name) == default.as_ref() {
            let mut without = fields.clone();
            without.remove(field.name);
            if stays(&without) {
                *fields = without;
                return;
            }
        }
    }
}

/// Dumps write a reference as the id alone.
fn flatten_reference(schema: &Schema, field: &str, value: &mut Value) {
    if schema.foreign().any(|(foreign, _)| foreign == field)
        && let Some(id) = value.get("id").cloned()
    {
        *value = id;
    }
}
