//! What a request sees: the entities of one workspace, at one version.

use super::endpoint::Place;
use serde_json::Value;
use sluice_schema::check::fill_nulls;
use sluice_schema::decide::{Selector, entity_tag};
use sluice_schema::entity::{Entry, Id, Key, Workspace};
use sluice_schema::kind::{Kind, Unique};
use sluice_schema::mask::mask;
use sluice_schema::state::State;
use std::sync::Arc;

/// The entities of one workspace, at one version. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub(super) state: Arc<State>,
    pub(super) workspace: Workspace,
    /// Whether secrets are shown as such only.
    pub(super) masked: bool,
}

impl Inside {
    /// The same workspace in another state.
    pub(super) fn of(&self, state: &Arc<State>) -> Self {
        Self {
            state: state.clone(),
            workspace: self.workspace.clone(),
            masked: self.masked,
        }
    }

    /// One entity.
    pub(super) fn entity(&self, kind: Kind, id: Id) -> Option<&Entry> {
        self.state.entity(kind, &self.workspace, id)
    }

    /// The entity of a kind that `selector` names.
    pub(super) fn find(&self, kind: Kind, selector: &Selector) -> Option<Id> {
        selector.find(&self.state, kind, &self.workspace, None)
    }

    /// The entity that `selector` names at `place`.
    pub(super) fn find_at(&self, place: &Place, selector: &Selector) -> Option<Id> {
        let within = match &place.scope {
            Some(scope) => Some((scope.field, self.find(scope.parent, &scope.selector)?)),
            None => None,
        };
        selector.find(&self.state, place.kind, &self.workspace, within)
    }

    /// The entities of a kind with ids above `after`.
    pub(super) fn list(&self, kind: Kind, after: Option<Id>) -> impl Iterator<Item = (Id, &Entry)> {
        self.state.list(kind, &self.workspace, after)
    }

    /// The ids of the `child` entities whose `field` refers to `parent`, above `after`.
    pub(super) fn children(
        &self,
        parent: (Kind, Id),
        child: Kind,
        field: &'static str,
        after: Option<Id>,
    ) -> impl Iterator<Item = Id> {
        self.state
            .children(parent, &self.workspace, child, field, after)
    }

    /// The entity that holds the value that `fields` have in a unique index.
    pub(super) fn holder(
        &self,
        kind: Kind,
        unique: &Unique,
        fields: &serde_json::Map<String, Value>,
    ) -> Option<Id> {
        self.state.holder(kind, &self.workspace, unique, fields)
    }

    /// The `ETag` of an entity, without the quotes.
    pub(super) fn tag(&self, kind: Kind, id: Id) -> Option<String> {
        entity_tag(&self.state, kind, &self.workspace, id)
    }

    /// An entity as the Admin API shows it. Of one whose body cannot be read there is at least the id, to delete it by.
    pub(super) fn shown(&self, kind: Kind, id: Id, entry: &Entry) -> Value {
        let key = Key {
            kind: kind.key_name(),
            workspace: self.workspace.clone(),
            id,
        };
        let fields = self.state.shown(&key, &entry.body);
        let mut fields = fields.unwrap_or_default();
        if self.masked {
            fields = mask(Some(kind), &fields, None);
        }
        let mut shown = fill_nulls(kind.schema(), id, &fields);
        if let Some(names) = kind.schema().names {
            let known = self.state.names(names, kind, &self.workspace, id);
            let mut list: Vec<String> = known.map(|(name, _)| name).collect();
            list.sort_unstable();
            shown.insert(names.field.name.to_owned(), list.into());
        }
        Value::Object(shown)
    }

    /// The same, if it is there.
    pub(super) fn show(&self, kind: Kind, id: Id) -> Option<Value> {
        Some(self.shown(kind, id, self.entity(kind, id)?))
    }
}
