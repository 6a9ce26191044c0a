//! What entities were and are, field by field and without secrets, for people to read: what a command would change, what an
//! event has changed, what differs between two versions.

use crate::writer::Written;
use serde_json::{Map, Value, json};
use sluice_schema::difference::difference;
use sluice_schema::entity::{Body, Key, Workspace};
use sluice_schema::event::{Event, Mutation, Mutations};
use sluice_schema::field::Auto;
use sluice_schema::kind::Kind;
use sluice_schema::mask::mask;
use sluice_schema::state::State;

/// Fields that name an entity and are not secret.
const NAMES: [&str; 7] = [
    "name",
    "instance_name",
    "username",
    "custom_id",
    "target",
    "prefix",
    "group",
];

/// What names an entity, unless nothing does that may be shown.
pub(crate) fn name(fields: &Map<String, Value>) -> Option<&str> {
    NAMES.iter().find_map(|name| fields.get(*name)?.as_str())
}

/// The mutations of an event that was only asked for, with what each entity was and is, and the fields that differ; `None`
/// if they are not known.
pub(super) fn mutations(event: &Event, written: &Written) -> Option<Value> {
    let Mutations::Inline(mutations) = &event.mutations else {
        return None;
    };
    let base = written.base.as_deref()?;
    let one = |mutation: &Mutation| {
        let key = mutation.key();
        let before = base.get(&key).map(|entry| &entry.body);
        describe(&key, before, mutation.body(), [&written.state, base])
    };
    Some(mutations.iter().map(one).collect())
}

/// What an entity was and is. What it belongs to is looked up in `states`.
pub(super) fn describe(
    key: &Key,
    before: Option<&Body>,
    after: Option<&Body>,
    states: [&State; 2],
) -> Value {
    let kind = Kind::from_name(key.kind.as_str());
    let operation = match after {
        Some(_) => "put",
        None => "delete",
    };
    let shown = |body: Option<&Body>| states[0].shown(key, body?);
    let [before, after] = [before, after].map(shown);
    let mut shown = json!({
        "op": operation,
        "kind": key.kind.as_str(),
        "workspace": key.workspace.as_str(),
        "id": key.id.to_string(),
        "before": before.as_ref().map(|before| mask(kind, before, None)),
        "body": after.as_ref().map(|after| mask(kind, after, before.as_ref())),
    });
    if let (Some(before), Some(after)) = (&before, &after) {
        shown["changes"] = changes(kind, before, after);
    }
    let fields = after.or(before).unwrap_or_default();
    if let Some(name) = name(&fields) {
        shown["name"] = name.into();
    }
    if let Some(kind) = kind {
        let parents = parents(kind, key, &fields, states);
        if !parents.is_empty() {
            shown["of"] = parents.into();
        }
    }
    shown
}

/// The fields that differ, but for those that every write changes.
pub(super) fn changes(
    kind: Option<Kind>,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Value {
    let masked = [mask(kind, before, None), mask(kind, after, Some(before))];
    let [before, after] = &masked;
    let list = difference(before, after).into_iter();
    list.filter(|change| !is_automatic(kind, &change.path))
        .map(|change| json!({"path": change.path, "before": change.before, "after": change.after}))
        .collect()
}

/// Whether every write changes the field.
pub(super) fn is_automatic(kind: Option<Kind>, path: &str) -> bool {
    let field = kind.and_then(|kind| kind.schema().field(path));
    let auto = field.and_then(|field| field.auto);
    matches!(auto, Some(Auto::Updated | Auto::UpdatedMillis))
}

/// What the entity belongs to, by name where there is one: `{"service": "catalog"}`.
fn parents(
    kind: Kind,
    key: &Key,
    fields: &Map<String, Value>,
    states: [&State; 2],
) -> Map<String, Value> {
    let label = |parent: Kind, workspace: &Workspace, id| {
        let found = states
            .iter()
            .find_map(|state| state.entity(parent, workspace, id));
        let fields = found.and_then(|entry| entry.body.fields().ok());
        let named = fields.as_ref().and_then(name).map(str::to_owned);
        named.unwrap_or_else(|| id.to_string())
    };
    let links = kind.schema().links(fields);
    links
        .map(|(field, parent, id)| (field.to_owned(), label(parent, &key.workspace, id).into()))
        .collect()
}
