//! A declarative file as one transaction.
//!
//! Entities are matched by id, else by what names them (unique fields), else they are new. All changed entities are
//! taken out of the draft first and put back one by one, so that two entities may swap a unique value.

use super::Inputs;
use super::draft::Draft;
use super::protocols;
use super::write::reference;
use crate::check::{Base, Errors, Values, complete, remove_nulls};
pub use crate::declare::Mistake;
use crate::declare::{Desired, Document, Position, derive_id, speaks_of};
use crate::entity::{Id, Key, Workspace};
use crate::kind::Kind;
use crate::rejection::Rejection;
use crate::state::State;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A file to apply.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub workspace: Workspace,
    /// What.
    pub document: Document,
    /// Whether entities that are not in the file are deleted.
    pub prune: bool,
}

/// What applying a file came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Entities that did not exist before.
    pub created: usize,
    /// Entities with a new body.
    pub updated: usize,
    /// Entities that are gone.
    pub deleted: usize,
    /// Entities that were already as the file wants them.
    pub unchanged: usize,
}

/// The most mistakes that are told.
const MISTAKES_MAX: usize = 1000;

pub(super) fn decide(
    draft: &mut Draft<'_>,
    mut plan: Plan,
    inputs: Inputs,
) -> Result<Applied, Vec<Mistake>> {
    plan.find_workspace(draft.base());
    let mut applying = Applying {
        draft,
        workspace: plan.workspace,
        inputs,
        select_tags: plan.document.select_tags,
        values: plan.document.values,
        ids: vec![None; plan.document.desired.len()],
        names: BTreeMap::new(),
        claimed: plan
            .document
            .desired
            .iter()
            .filter_map(|desired| Some((desired.kind, desired.id?)))
            .collect(),
        kept: BTreeSet::new(),
        changed: Vec::new(),
        pruned: Vec::new(),
        mistakes: plan.document.mistakes,
        applied: Applied::default(),
    };
    let desired = plan.document.desired;
    // Parents before children, so that references by name can be resolved in one pass.
    for kind in Kind::ALL {
        for (index, entity) in desired
            .iter()
            .enumerate()
            .filter(|(_, entity)| entity.kind == *kind)
        {
            applying.complete(index, entity);
        }
    }
    if plan.prune {
        applying.prune();
    }
    applying.put_changed(&desired);
    match applying.mistakes.is_empty() {
        true => Ok(applying.applied),
        false => Err(in_order(applying.mistakes)),
    }
}

/// By their places, each once, and not too many.
fn in_order(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort_by(|a, b| (a.at, &a.path, &a.message).cmp(&(b.at, &b.path, &b.message)));
    mistakes.dedup();
    let more = mistakes.len().saturating_sub(MISTAKES_MAX);
    if more > 0 {
        mistakes.truncate(MISTAKES_MAX);
        let last = mistakes.last().map(|last| last.at).unwrap_or_default();
        mistakes.push(Mistake::new(last, "", format!("and {more} more mistakes")));
    }
    mistakes
}

impl Plan {
    /// Goes by the workspace that the file names, unless the caller names another.
    fn find_workspace(&mut self, state: &State) {
        let Some((named, at)) = self.document.workspace.take() else {
            return;
        };
        let message = if self.workspace != Workspace::DEFAULT && self.workspace != named {
            format!(
                "the file is for this workspace, the request for '{}'",
                self.workspace
            )
        } else if !state.has_workspace(&named) {
            format!("there is no workspace '{named}': create it first (POST /workspaces)")
        } else {
            self.workspace = named;
            return;
        };
        let mistake = Mistake::new(at, "_workspace", message);
        self.document.mistakes.push(mistake);
    }
}

struct Applying<'a, 'b> {
    draft: &'a mut Draft<'b>,
    workspace: Workspace,
    inputs: Inputs,
    select_tags: Vec<String>,
    values: Values,
    /// The id of each desired entity, once known.
    ids: Vec<Option<Id>>,
    /// The desired entities that can be referred to by name.
    names: BTreeMap<(Kind, String), Id>,
    /// The entities that the file names by their ids.
    claimed: BTreeSet<(Kind, Id)>,
    /// Every entity the file asks for.
    kept: BTreeSet<Key>,
    /// What must be written: index in the file, key, fields, whether it is new.
    changed: Vec<(usize, Key, Map<String, Value>, bool)>,
    /// What the file does not ask for and is taken out.
    pruned: Vec<(Kind, Id)>,
    mistakes: Vec<Mistake>,
    applied: Applied,
}

impl Applying<'_, '_> {
    /// Resolves the references of one entity, finds out which one it is and completes its fields.
    fn complete(&mut self, index: usize, desired: &Desired) {
        let mut fields = desired.fields.clone();
        if let Some((field, parent)) = desired.parent {
            // A parent that has mistakes of its own has no id; they are told there.
            let Some(parent) = self.ids[parent] else {
                return;
            };
            fields.insert(field.into(), reference(parent));
        }
        if !self.resolve(desired, &mut fields) {
            return;
        }
        self.add_select_tags(desired.kind, &mut fields);
        let id = self.identify(desired, &fields);
        let key = Key {
            kind: desired.kind.key_name(),
            workspace: self.workspace.clone(),
            id,
        };
        let existing = self
            .draft
            .base()
            .get(&key)
            .map(|entry| self.draft.opened_as_far(desired.kind, &key, &entry.body));
        let before = existing.as_ref().and_then(|before| before.as_ref().ok());
        if desired.id.is_none()
            && let Some(before) = before
            && !self.speaks_of(desired.kind, before)
        {
            let tags = self.select_tags.join(", ");
            let message = format!(
                "is {id} already, which does not have all select_tags of the file ({tags}): add them to it, give its id \
                 here, or choose another name"
            );
            self.ids[index] = Some(id);
            return self.mistakes.push(desired.place.mistake("", message));
        }
        let Inputs {
            now,
            entropy,
            flavor,
        } = &mut self.inputs;
        let completed = match before {
            // Nothing to check, whatever rules have come since it was written.
            Some(before) if same(&fields, before) => Ok(before.clone()),
            before => complete(
                flavor.schema(desired.kind),
                fields,
                Base::Declare(before, self.values),
                *now,
                entropy,
            ),
        };
        // Known by name from here on, also if it has mistakes: they should not cause others.
        self.ids[index] = Some(id);
        let endpoint_key = desired.kind.schema().endpoint_key;
        if let Some(Value::String(name)) = endpoint_key.and_then(|field| desired.fields.get(field))
        {
            self.names.insert((desired.kind, name.clone()), id);
        }
        if !self.kept.insert(key.clone()) {
            let message = format!("the entity {id} is in the file twice");
            return self.mistakes.push(desired.place.mistake("", message));
        }
        match (completed, existing) {
            (Err(rejection), _) => self.reject(desired, &rejection),
            (Ok(fields), Some(Ok(before))) if same(&fields, &before) => self.applied.unchanged += 1,
            (Ok(fields), existing) => self.changed.push((index, key, fields, existing.is_none())),
        }
    }

    /// Turns references by id text, name or record into references by id.
    fn resolve(&mut self, desired: &Desired, fields: &mut Map<String, Value>) -> bool {
        let mut resolved = true;
        for (field, foreign) in desired.kind.schema().foreign() {
            let Some(value) = fields.get_mut(field) else {
                continue;
            };
            let endpoint_key = foreign.kind.schema().endpoint_key;
            let name = match &*value {
                Value::String(text) => text.clone(),
                Value::Object(record) => {
                    let named = endpoint_key.and_then(|name| record.get(name));
                    match record.get("id").or(named) {
                        Some(Value::String(text)) => text.clone(),
                        _ => continue,
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => continue,
            };
            match self.find(foreign.kind, &name) {
                Some(id) => *value = reference(id),
                None => {
                    resolved = false;
                    let message = format!("there is no {} '{name}'", foreign.kind.name());
                    self.mistakes.push(desired.place.mistake(field, message));
                }
            }
        }
        resolved
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Id> {
        if let Some(id) = self.names.get(&(kind, name.to_owned())) {
            return Some(*id);
        }
        let state = self.draft.base();
        if let Ok(id) = Uuid::try_parse(name) {
            let key = Key {
                kind: kind.key_name(),
                workspace: self.workspace.clone(),
                id: Id(id),
            };
            if self.kept.contains(&key) || state.get(&key).is_some() {
                return Some(Id(id));
            }
        }
        super::Selector::Name(name.to_owned()).find(state, kind, &self.workspace, None)
    }

    fn identify(&self, desired: &Desired, fields: &Map<String, Value>) -> Id {
        if let Some(id) = desired.id {
            return id;
        }
        let schema = desired.kind.schema();
        let mut normal = fields.clone();
        if let Some(prepare) = schema.prepare {
            // What is wrong with it is told when it is completed.
            prepare(&mut normal, &mut Errors::default());
        }
        let holder = |unique| {
            self.draft
                .base()
                .holder(desired.kind, &self.workspace, unique, &normal)
        };
        let mut holders = schema.unique.iter().filter_map(holder);
        // An entity that the file names by its id is that one, and may leave its old name to another.
        let existing = holders.find(|holder| !self.claimed.contains(&(desired.kind, *holder)));
        existing.unwrap_or_else(|| self.derive_id(desired, fields))
    }

    fn derive_id(&self, desired: &Desired, fields: &Map<String, Value>) -> Id {
        let kind = desired.kind;
        let hidden = |fields| self.draft.ring().hidden(kind, &self.workspace, fields);
        let hidden = hidden(&desired.fields).into_iter().zip(hidden(fields));
        let mut ids: Vec<Id> = hidden
            .map(|(given, fields)| derive_id(kind, &given, &fields))
            .collect();
        ids.push(derive_id(kind, &desired.fields, fields));
        let state = self.draft.base();
        let is_there = |id: &&Id| state.entity(kind, &self.workspace, **id).is_some();
        // One that was made when another key sealed, or none, is the same.
        *ids.iter().find(is_there).unwrap_or(&ids[0])
    }

    fn add_select_tags(&self, kind: Kind, fields: &mut Map<String, Value>) {
        if self.select_tags.is_empty() || kind.schema().field("tags").is_none() {
            return;
        }
        let tags = fields.entry("tags").or_insert(Value::Null);
        if tags.is_null() {
            *tags = Value::Array(Vec::new());
        }
        if let Value::Array(tags) = tags {
            for tag in &self.select_tags {
                if !tags.iter().any(|known| known == tag) {
                    tags.push(Value::from(tag.as_str()));
                }
            }
        }
    }

    fn speaks_of(&self, kind: Kind, fields: &Map<String, Value>) -> bool {
        let state = self.draft.base();
        speaks_of(&self.select_tags, state, &self.workspace, kind, fields)
    }

    fn prune(&mut self) {
        let doomed: Vec<(Kind, Key)> = Kind::ALL
            .iter()
            .filter(|kind| kind.in_files())
            .flat_map(|kind| {
                self.draft
                    .base()
                    .list(*kind, &self.workspace, None)
                    .filter_map(|(id, entry)| {
                        let key = Key {
                            kind: kind.key_name(),
                            workspace: self.workspace.clone(),
                            id,
                        };
                        let doomed = !self.kept.contains(&key)
                            && self.speaks_of(*kind, &entry.body.fields().unwrap_or_default());
                        doomed.then_some((*kind, key))
                    })
            })
            .collect();
        self.applied.deleted = doomed.len();
        for (kind, key) in doomed {
            self.draft.remove(&key);
            self.pruned.push((kind, key.id));
        }
    }

    fn put_changed(&mut self, desired: &[Desired]) {
        let changed = std::mem::take(&mut self.changed);
        for (_, key, _, _) in &changed {
            self.draft.remove(key);
        }
        for (index, key, fields, new) in &changed {
            let entity = &desired[*index];
            let unique = self
                .draft
                .check_unique(entity.kind, &self.workspace, key.id, fields);
            if let Err(rejection) = unique {
                self.reject(entity, &rejection);
            }
            if let Err(rejection) = self.draft.put(entity.kind, key, fields) {
                self.reject(entity, &rejection);
            }
            match new {
                true => self.applied.created += 1,
                false => self.applied.updated += 1,
            }
        }
        for (index, key, fields, _) in &changed {
            let entity = &desired[*index];
            let checked = self
                .draft
                .check_references(entity.kind, &self.workspace, fields)
                .and_then(|()| {
                    protocols::check_plugin(self.draft.state(), entity.kind, &key.workspace, fields)
                });
            if let Err(rejection) = checked {
                self.reject(entity, &rejection);
            }
        }
        self.check_left_behind(desired);
    }

    /// Entities that stay must not refer to pruned ones.
    fn check_left_behind(&mut self, desired: &[Desired]) {
        let at = desired
            .first()
            .map_or(Position::START, |desired| desired.place.mistake("", "").at);
        for (kind, id) in std::mem::take(&mut self.pruned) {
            for link in self.draft.state().referrers(kind, &self.workspace, id) {
                let (child, parent) = (link.child.name(), kind.name());
                let message = format!(
                    "{child} {} stays and refers to {parent} {id}, which is not in the file",
                    link.child_id
                );
                self.mistakes.push(Mistake::new(at, "", message));
            }
        }
    }

    fn reject(&mut self, desired: &Desired, rejection: &Rejection) {
        let leaves = leaves(&rejection.fields);
        if leaves.is_empty() {
            return self
                .mistakes
                .push(desired.place.mistake("", rejection.message.clone()));
        }
        let schema = matches!(rejection.code, crate::rejection::Code::SchemaViolation);
        for (path, message) in leaves {
            let message = if schema {
                message
            } else {
                rejection.message.clone()
            };
            let path = if path.starts_with('@') {
                ""
            } else {
                path.as_str()
            };
            self.mistakes.push(desired.place.mistake(path, message));
        }
    }
}

/// Whether applying `fields` over `before` would change anything but the time of change. No value is as good as null.
fn same(fields: &Map<String, Value>, before: &Map<String, Value>) -> bool {
    let visible = |map: &Map<String, Value>| {
        let mut map = map.clone();
        map.remove("updated_at");
        remove_nulls(&mut map);
        map
    };
    visible(fields) == visible(before)
}

/// The messages of an error tree with their paths (`config.minute`).
fn leaves(fields: &Map<String, Value>) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, into: &mut Vec<(String, String)>) {
        let join = |step: &str| {
            if path.is_empty() {
                step.to_owned()
            } else {
                format!("{path}.{step}")
            }
        };
        match value {
            Value::Object(fields) => fields
                .iter()
                .for_each(|(name, value)| walk(&join(name), value, into)),
            Value::Array(items) => {
                for (position, item) in items.iter().enumerate() {
                    let step = if path.starts_with('@') {
                        path.to_owned()
                    } else {
                        format!("{path}[{position}]")
                    };
                    walk(&step, item, into);
                }
            }
            Value::Null => {}
            Value::String(text) => into.push((path.to_owned(), text.clone())),
            Value::Bool(_) | Value::Number(_) => into.push((path.to_owned(), value.to_string())),
        }
    }
    let mut found = Vec::new();
    walk("", &Value::Object(fields.clone()), &mut found);
    found
}
