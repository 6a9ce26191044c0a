//! Which entities a file with `_info.select_tags` speaks of.

use crate::entity::Workspace;
use crate::kind::Kind;
use crate::state::State;
use serde_json::{Map, Value};

/// Whether a file with `tags` as its `select_tags` speaks of an entity: one that has all of them, or one that cannot have
/// tags and refers only to such (a membership of a group).
pub(crate) fn speaks_of(
    tags: &[String],
    state: &State,
    workspace: &Workspace,
    kind: Kind,
    fields: &Map<String, Value>,
) -> bool {
    if tags.is_empty() {
        return true;
    }
    let schema = kind.schema();
    if schema.field("tags").is_some() {
        let own = fields.get("tags").and_then(Value::as_array);
        let has = |tag: &String| own.is_some_and(|own| own.iter().any(|known| known == tag));
        return tags.iter().all(has);
    }
    let mut links = schema.links(fields).peekable();
    links.peek().is_some()
        && links.all(|(_, parent, id)| {
            let parent_fields = state
                .entity(parent, workspace, id)
                .and_then(|entry| entry.body.fields().ok());
            parent_fields.is_some_and(|fields| speaks_of(tags, state, workspace, parent, &fields))
        })
}
