//! The ids of entities that a file gives none: derived from what names them, so that the same file always means
//! the same entities.

use crate::entity::Id;
use crate::kind::Kind;
use crate::state::reference_id;
use serde_json::{Map, Value};
use uuid::{Uuid, uuid};

/// Kong's namespace for derived ids.
const ROOT: Uuid = uuid!("fd02801f-0957-4a15-a55a-c8d9606f30b5");

/// The id of an entity: `given` is what the file says of it, `fields` the same with references as ids.
pub(crate) fn derive_id(kind: Kind, given: &Map<String, Value>, fields: &Map<String, Value>) -> Id {
    let schema = kind.schema();
    let namespace = Uuid::new_v5(&ROOT, schema.entity.as_bytes());
    let name = name(kind, given, fields);
    Id(Uuid::new_v5(&namespace, name.as_bytes()))
}

fn name(kind: Kind, given: &Map<String, Value>, fields: &Map<String, Value>) -> String {
    let schema = kind.schema();
    // As Kong does it, a reference by name counts as that name, and one by nesting as the parent's id.
    let text = |field: &str| match (given.get(field), fields.get(field)) {
        (Some(Value::String(text)), _) | (_, Some(Value::String(text))) => text.clone(),
        (_, Some(value)) => reference_id(value)
            .map(|id| id.to_string())
            .unwrap_or_default(),
        (_, None) => String::new(),
    };
    // Kinds whose identity is a combination of fields, absent ones included: plugins.
    let required = |field: &&&str| schema.field(field).is_some_and(|field| field.required);
    let mut parts = schema.cache_key.iter();
    if !schema.cache_key.is_empty() && parts.all(|part| !required(&part) || !text(part).is_empty())
    {
        let mut parts: Vec<String> = schema.cache_key.iter().map(|part| text(part)).collect();
        // Not part of Kong's key in the edition that has no groups.
        parts.extend(
            Some(text("consumer_group")).filter(|group| kind == Kind::Plugin && !group.is_empty()),
        );
        return format!("{}:{}", schema.entity, parts.join(":"));
    }
    if let Some(field) = schema.endpoint_key
        && fields.get(field).is_some_and(Value::is_string)
    {
        return text(field);
    }
    // Nothing names it: its content does. A change of content then makes another entity.
    Value::Object(fields.clone()).to_string()
}
