//! A state as a declarative file.

use crate::check::fill_nulls;
use crate::entity::Workspace;
use crate::kind::Kind;
use crate::state::State;
use serde_json::{Map, Value, json};

/// The `_format_version` of what is written.
pub const FORMAT_VERSION: &str = "3.0";

/// The entities of `workspace` in the flat form of Kong's dumps: every entity with its id, references by id, fields
/// without value left out. Applying it to the same state changes nothing.
pub fn write(state: &State, workspace: &Workspace) -> Value {
    let mut file = Map::new();
    file.insert("_format_version".into(), json!(FORMAT_VERSION));
    file.insert("_transform".into(), json!(false));
    for kind in Kind::ALL.iter().filter(|kind| kind.in_files()) {
        let schema = kind.schema();
        let entities: Vec<Value> = state
            .list(*kind, workspace, None)
            .filter_map(|(id, entry)| {
                let mut fields = fill_nulls(schema, id, &entry.body.fields().ok()?);
                drop_nulls(&mut fields);
                fields
                    .iter_mut()
                    .for_each(|(field, value)| flatten_reference(*kind, field, value));
                Some(Value::Object(fields))
            })
            .collect();
        if !entities.is_empty() {
            file.insert(schema.entity.into(), Value::Array(entities));
        }
    }
    Value::Object(file)
}

fn drop_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    for value in fields.values_mut() {
        if let Value::Object(record) = value {
            drop_nulls(record);
        }
    }
}

/// Dumps write a reference as the id alone.
fn flatten_reference(kind: Kind, field: &str, value: &mut Value) {
    if kind.schema().foreign().any(|(foreign, _)| foreign == field)
        && let Some(id) = value.get("id").cloned()
    {
        *value = id;
    }
}
