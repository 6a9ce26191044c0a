//! One write of the Admin API: create, replace, update or delete an entity.

use super::draft::{Draft, unreadable};
use super::names::Wanted;
use super::precondition::{Precondition, entity_tag};
use super::protocols;
use super::{Inputs, Outcome, names, workspaces};
use crate::check::{Base, complete};
use crate::entity::{Entry, Id, Key, Workspace};
use crate::field::Foreign;
use crate::kind::Kind;
use crate::rejection::Rejection;
use crate::state::{State, reference_id};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A write of one entity.
#[derive(Clone, Debug)]
pub struct Write {
    /// The entity's kind.
    pub kind: Kind,
    /// Its workspace.
    pub workspace: Workspace,
    /// The parent the path names, as in `/services/{s}/routes`.
    pub scope: Option<Scope>,
    /// What to do.
    pub action: Action,
    /// The caller's fields; unused by a delete.
    pub body: Map<String, Value>,
    /// What must hold of the entity.
    pub precondition: Precondition,
}

/// The parent of a nested path.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The child's field that refers to the parent.
    pub field: &'static str,
    /// The parent's kind.
    pub parent: Kind,
    /// Which parent.
    pub selector: Selector,
}

/// How a path names an entity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selector {
    /// By UUID.
    Id(Id),
    /// By its endpoint key: a name, username, key, ...
    Name(String),
}

impl Selector {
    /// Reads a path segment (already percent-decoded).
    pub fn parse(text: &str) -> Self {
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => Self::Id(Id(id)),
            _ => Self::Name(text.to_owned()),
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Id(_) => None,
            Self::Name(name) => Some(name),
        }
    }

    /// The entity it names in `state`. `within` is the parent of a nested path: its field and id.
    pub fn find(
        &self,
        state: &State,
        kind: Kind,
        workspace: &Workspace,
        within: Option<(&str, Id)>,
    ) -> Option<Id> {
        let id = match self {
            Self::Id(id) => *id,
            Self::Name(name) => find_by_name(state, kind, workspace, name, within)?,
        };
        let entry = state.entity(kind, workspace, id)?;
        let belongs = within.is_none_or(|(field, parent)| refers_to(entry, field, parent));
        belongs.then_some(id)
    }
}

fn find_by_name(
    state: &State,
    kind: Kind,
    workspace: &Workspace,
    name: &str,
    within: Option<(&str, Id)>,
) -> Option<Id> {
    let schema = kind.schema();
    if let (None, Some(names)) = (schema.endpoint_key, schema.names) {
        return state.named(names, workspace, name);
    }
    let endpoint_key = schema.endpoint_key?;
    let mut fields = Map::from_iter([(endpoint_key.to_owned(), Value::from(name))]);
    if let Some((field, parent)) = within {
        fields.insert(field.to_owned(), reference(parent));
    }
    // The endpoint key is unique alone (names) or within the parent (targets).
    let names = |unique: &&crate::kind::Unique| {
        unique.fields.contains(&endpoint_key)
            && unique
                .fields
                .iter()
                .all(|field| fields.contains_key(*field))
    };
    let unique = schema.unique.iter().find(names)?;
    state.holder(kind, workspace, unique, &fields)
}

/// What a write does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// POST.
    Create,
    /// PUT: insert or replace.
    Replace(Selector),
    /// PATCH.
    Update(Selector),
    /// DELETE.
    Delete(Selector),
}

pub(super) fn decide(
    draft: &mut Draft<'_>,
    write: Write,
    inputs: Inputs,
) -> Result<(Outcome, String), Rejection> {
    let Write {
        kind,
        workspace,
        scope,
        action,
        mut body,
        precondition,
    } = write;
    if kind == Kind::Workspace {
        workspaces::check(draft, &workspace, &action, &body)?;
    }
    let parent = match &scope {
        Some(scope) => Some((
            scope.field,
            scope
                .selector
                .find(draft.state(), scope.parent, &workspace, None)
                .ok_or_else(|| not_found(scope.parent, &scope.selector))?,
        )),
        None => None,
    };
    let target = Target {
        kind,
        workspace,
        parent,
        precondition,
    };
    match action {
        Action::Create => target.create(draft, body, inputs),
        Action::Delete(selector) => target.delete(draft, &selector),
        Action::Update(selector) => {
            let id = target
                .find(draft, &selector)
                .ok_or_else(|| not_found(kind, &selector))?;
            target.overwrite(draft, id, body, Overwrite::Merge, inputs)
        }
        Action::Replace(selector) => match target.find(draft, &selector) {
            // Kong's targets know no PUT of their own: it is a PATCH there.
            Some(id) if kind == Kind::Target => {
                target.overwrite(draft, id, body, Overwrite::Merge, inputs)
            }
            Some(id) => {
                names::replace(kind, selector.name(), &mut body);
                // A name in the path is part of what is asked for.
                if let (Some(name), Some(key)) = (selector.name(), kind.schema().endpoint_key) {
                    body.entry(key).or_insert_with(|| Value::from(name));
                }
                target.overwrite(draft, id, body, Overwrite::Replace, inputs)
            }
            None if kind == Kind::Target => Err(not_found(kind, &selector)),
            None => {
                target.name_new(draft, &selector, &mut body)?;
                target.create(draft, body, inputs)
            }
        },
    }
}

struct Target {
    kind: Kind,
    workspace: Workspace,
    parent: Option<(&'static str, Id)>,
    precondition: Precondition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Overwrite {
    Replace,
    Merge,
}

impl Target {
    fn find(&self, draft: &Draft<'_>, selector: &Selector) -> Option<Id> {
        selector.find(draft.state(), self.kind, &self.workspace, self.parent)
    }

    fn key(&self, id: Id) -> Key {
        Key {
            kind: self.kind.key_name(),
            workspace: self.workspace.clone(),
            id,
        }
    }

    fn create(
        &self,
        draft: &mut Draft<'_>,
        mut body: Map<String, Value>,
        mut inputs: Inputs,
    ) -> Result<(Outcome, String), Rejection> {
        let given = take_id(&mut body)?;
        let id = given.unwrap_or_else(|| Id(inputs.entropy.uuid()));
        self.check_precondition(draft, Some(id))?;
        if draft
            .state()
            .entity(self.kind, &self.workspace, id)
            .is_some()
        {
            return Err(Rejection::primary_key(id.0));
        }
        self.prepare(draft, &mut body)?;
        let names = self.take_names(draft, None, &mut body)?;
        let fields = complete(
            inputs.flavor.schema(self.kind),
            body,
            Base::New,
            inputs.now,
            &mut inputs.entropy,
        )?;
        self.store(draft, id, &fields)?;
        if let Some(names) = names {
            names.put(draft, &self.workspace, id, &mut inputs)?;
        }
        Ok((Outcome::Created(self.key(id)), self.subject(id)))
    }

    fn overwrite(
        &self,
        draft: &mut Draft<'_>,
        id: Id,
        mut body: Map<String, Value>,
        overwrite: Overwrite,
        mut inputs: Inputs,
    ) -> Result<(Outcome, String), Rejection> {
        let existing = draft
            .state()
            .entity(self.kind, &self.workspace, id)
            .ok_or_else(|| Rejection::not_found(id.0))?
            .clone();
        self.check_precondition(draft, Some(id))?;
        if take_id(&mut body)?.is_some_and(|given| given != id) {
            return Err(Rejection::field("id", "immutable field cannot be updated"));
        }
        self.prepare(draft, &mut body)?;
        let names = self.take_names(draft, Some(id), &mut body)?;
        let key = self.key(id);
        let before = match overwrite {
            // What is replaced need not be known.
            Overwrite::Replace => draft
                .opened_as_far(self.kind, &key, &existing.body)
                .map_err(|error| unreadable(id, &error))?,
            Overwrite::Merge => draft.opened(self.kind, &key, &existing.body)?,
        };
        let base = match overwrite {
            Overwrite::Replace => Base::Replace(&before),
            Overwrite::Merge => Base::Merge(&before),
        };
        let fields = complete(
            inputs.flavor.schema(self.kind),
            body,
            base,
            inputs.now,
            &mut inputs.entropy,
        )?;
        self.store(draft, id, &fields)?;
        if let Some(names) = names {
            names.put(draft, &self.workspace, id, &mut inputs)?;
        }
        Ok((Outcome::Updated(self.key(id)), self.subject(id)))
    }

    fn delete(
        &self,
        draft: &mut Draft<'_>,
        selector: &Selector,
    ) -> Result<(Outcome, String), Rejection> {
        let id = self.find(draft, selector);
        self.check_precondition(draft, id)?;
        let Some(id) = id else {
            // As in Kong: what is gone was deleted, but a path that leads through a parent must lead somewhere.
            return match self.parent {
                Some(_) => Err(not_found(self.kind, selector)),
                None => Ok((Outcome::Deleted, String::new())),
            };
        };
        draft.delete(self.kind, &self.key(id))?;
        Ok((Outcome::Deleted, self.subject(id)))
    }

    /// Puts what the path says into the body: the new entity's id or name.
    fn name_new(
        &self,
        draft: &Draft<'_>,
        selector: &Selector,
        body: &mut Map<String, Value>,
    ) -> Result<(), Rejection> {
        match selector {
            Selector::Id(id) => {
                // An entity of another parent already has this id.
                if draft
                    .state()
                    .entity(self.kind, &self.workspace, *id)
                    .is_some()
                {
                    return Err(Rejection::not_found(id.0));
                }
                body.insert("id".into(), Value::from(id.to_string()));
            }
            Selector::Name(name) if self.kind.schema().names.is_some() => {
                names::replace(self.kind, Some(name), body);
            }
            Selector::Name(name) => {
                let endpoint_key = self
                    .kind
                    .schema()
                    .endpoint_key
                    .ok_or_else(|| Rejection::invalid_primary_key(name))?;
                body.insert(endpoint_key.into(), Value::from(name.as_str()));
            }
        }
        Ok(())
    }

    /// Takes the names out of the body, all of which must be free.
    fn take_names(
        &self,
        draft: &Draft<'_>,
        own: Option<Id>,
        body: &mut Map<String, Value>,
    ) -> Result<Option<Wanted>, Rejection> {
        let names = Wanted::take(self.kind, body)?;
        if let Some(names) = &names {
            names.check_free(draft, &self.workspace, own)?;
        }
        Ok(names)
    }

    /// Puts the parent into the body and turns references by name into references by id.
    fn prepare(&self, draft: &Draft<'_>, body: &mut Map<String, Value>) -> Result<(), Rejection> {
        if let Some((field, parent)) = self.parent {
            body.insert(field.into(), reference(parent));
        }
        for (field, foreign) in self.kind.schema().foreign() {
            if let Some(value) = body.get_mut(field) {
                resolve_name(draft.state(), &self.workspace, field, foreign, value)?;
            }
        }
        Ok(())
    }

    fn store(
        &self,
        draft: &mut Draft<'_>,
        id: Id,
        fields: &Map<String, Value>,
    ) -> Result<(), Rejection> {
        draft.check_references(self.kind, &self.workspace, fields)?;
        draft.check_unique(self.kind, &self.workspace, id, fields)?;
        protocols::check_plugin(draft.state(), self.kind, &self.workspace, fields)?;
        draft.put(self.kind, &self.key(id), fields)
    }

    fn check_precondition(&self, draft: &Draft<'_>, id: Option<Id>) -> Result<(), Rejection> {
        let tag = id.and_then(|id| entity_tag(draft.state(), self.kind, &self.workspace, id));
        self.precondition.check(tag.as_deref())
    }

    fn subject(&self, id: Id) -> String {
        format!("{}.{}.{id}", self.workspace, self.kind.name())
    }
}

/// The reference to an entity as bodies hold it.
pub(super) fn reference(id: Id) -> Value {
    json!({ "id": id.to_string() })
}

fn take_id(body: &mut Map<String, Value>) -> Result<Option<Id>, Rejection> {
    match body.remove("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match Uuid::try_parse(&text) {
            Ok(id) => Ok(Some(Id(id))),
            Err(_) => Err(Rejection::field("id", "expected a valid UUID")),
        },
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Rejection::field("id", "expected a string"))
        }
    }
}

/// Turns `{"name": "x"}` into `{"id": "..."}`.
fn resolve_name(
    state: &State,
    workspace: &Workspace,
    field: &str,
    foreign: &Foreign,
    value: &mut Value,
) -> Result<(), Rejection> {
    let Some(endpoint_key) = foreign.kind.schema().endpoint_key else {
        return Ok(());
    };
    let Some(name) = value.get(endpoint_key).and_then(Value::as_str) else {
        return Ok(());
    };
    if value.get("id").is_some() {
        return Ok(());
    }
    let selector = Selector::Name(name.to_owned());
    match selector.find(state, foreign.kind, workspace, None) {
        Some(id) => {
            *value = reference(id);
            Ok(())
        }
        None => {
            let reference = Map::from_iter([(endpoint_key.to_owned(), Value::from(name))]);
            Err(Rejection::unresolved(Map::from_iter([(
                field.to_owned(),
                Value::Object(reference),
            )])))
        }
    }
}

/// Whether an entity's `field` refers to `parent`.
fn refers_to(entry: &Entry, field: &str, parent: Id) -> bool {
    let fields = entry.body.fields().unwrap_or_default();
    fields.get(field).and_then(reference_id) == Some(parent)
}

fn not_found(kind: Kind, selector: &Selector) -> Rejection {
    match selector {
        Selector::Id(id) => Rejection::not_found(id.0),
        Selector::Name(name) => {
            Rejection::not_found_by(kind.schema().endpoint_key.unwrap_or("id"), name)
        }
    }
}
