//! The ids of entities that a file gives none: derived from what names them, so that the same file always means
//! the same entities.

use crate::entity::Id;
use crate::kind::{Kind, Nulls};
use crate::state::reference_id;
use serde_json::{Map, Value};
use uuid::{Uuid, uuid};

/// Kong's namespace for derived ids.
const ROOT: Uuid = uuid!("fd02801f-0957-4a15-a55a-c8d9606f30b5");

/// The id of an entity whose references are already ids.
pub(crate) fn derive_id(kind: Kind, fields: &Map<String, Value>) -> Id {
    let schema = kind.schema();
    let namespace = Uuid::new_v5(&ROOT, schema.entity.as_bytes());
    Id(Uuid::new_v5(&namespace, name(kind, fields).as_bytes()))
}

fn name(kind: Kind, fields: &Map<String, Value>) -> String {
    let schema = kind.schema();
    let text = |field: &str| match fields.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => reference_id(value)
            .map(|id| id.to_string())
            .unwrap_or_default(),
        None => String::new(),
    };
    // Kinds whose identity is a combination of fields, absent ones included: plugins.
    if let Some(unique) = schema
        .unique
        .iter()
        .find(|unique| unique.nulls == Nulls::Equal)
    {
        let parts: Vec<String> = unique.fields.iter().map(|field| text(field)).collect();
        return format!("{}:{}", schema.entity, parts.join(":"));
    }
    if let Some(field) = schema.endpoint_key
        && fields.get(field).is_some_and(Value::is_string)
    {
        let alone = schema.unique.iter().any(|unique| unique.fields == [field]);
        let parents = schema
            .foreign()
            .map(|(field, _)| format!(":{}", text(field)));
        return match alone {
            true => text(field),
            false => text(field) + &parents.collect::<String>(),
        };
    }
    // Nothing names it: its content does. A change of content then makes another entity.
    Value::Object(fields.clone()).to_string()
}
