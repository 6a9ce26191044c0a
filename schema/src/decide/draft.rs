//! A state being changed by one command, and the mutations that lead there.

use crate::entity::{Body, BodyError, Entry, Id, Key, Workspace};
use crate::event::Mutation;
use crate::field::OnDelete;
use crate::kind::{IdList, Kind};
use crate::rejection::{Code, Rejection};
use crate::seal::{Ring, Seals, has_secrets};
use crate::state::{Link, State, reference_id};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

const LOOKS_SEALED: &str = "begins with {sealed://, as only what control planes have sealed does";

pub(super) struct Draft<'a> {
    base: &'a State,
    state: State,
    touched: BTreeMap<Key, ()>,
    /// What is there without having been written.
    assumed: Vec<Key>,
    /// What seals, the same for the whole command.
    ring: Arc<Ring>,
    /// Whether a secret has been put.
    took_secrets: Cell<bool>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a State) -> Self {
        Self {
            base,
            state: base.clone().with_seals(Seals::of(base.seals().ring())),
            touched: BTreeMap::new(),
            assumed: Vec::new(),
            ring: base.seals().ring(),
            took_secrets: Cell::new(false),
        }
    }

    /// The state so far.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The state the command was given.
    pub(super) fn base(&self) -> &State {
        self.base
    }

    /// Adds what is there without having been written. It becomes a mutation only if it is changed.
    pub(super) fn assume(&mut self, (key, entry): (Key, Entry)) {
        if self.state.get(&key).is_none() {
            self.state.insert(key.clone(), entry);
            self.assumed.push(key);
        }
    }

    /// Puts an entity, with its secrets sealed.
    ///
    /// # Errors
    /// If its secrets cannot be sealed here.
    pub(super) fn put(
        &mut self,
        kind: Kind,
        key: &Key,
        fields: &Map<String, Value>,
    ) -> Result<(), Rejection> {
        let body = self.sealed(kind, key, fields)?;
        self.put_body(key, body);
        Ok(())
    }

    /// The body of an entity, with its secrets sealed.
    ///
    /// # Errors
    /// If a secret looks sealed.
    pub(super) fn sealed(
        &self,
        kind: Kind,
        key: &Key,
        fields: &Map<String, Value>,
    ) -> Result<Body, Rejection> {
        if !has_secrets(kind) {
            return Ok(Body::encode(fields));
        }
        let mut fields = fields.clone();
        let secrets = self.ring.seal(kind, key, &mut fields);
        let secrets = secrets.map_err(|path| Rejection::field(&path, LOOKS_SEALED))?;
        self.took_secrets
            .set(self.took_secrets.get() || secrets > 0);
        Ok(Body::encode(&fields))
    }

    /// Checks that no secret stays that cannot be compared with those that were put.
    ///
    /// # Errors
    /// If the ring lacks a key with which something else is sealed: uniqueness would not show.
    pub(super) fn check_secrets(&self) -> Result<(), Rejection> {
        let missing = self.state.secrets().missing(&self.ring);
        match missing.filter(|_| self.took_secrets.get()) {
            Some(name) => Err(Rejection::new(
                Code::OperationUnsupported,
                format!(
                    "this control plane cannot take secrets: its secrets file does not have the key '{name}', with which secrets of \
                     the log are sealed"
                ),
            )),
            None => Ok(()),
        }
    }

    /// What `body` was before it was sealed.
    ///
    /// # Errors
    /// If it cannot be read or opened here.
    pub(super) fn opened(
        &self,
        kind: Kind,
        key: &Key,
        body: &Body,
    ) -> Result<Map<String, Value>, Rejection> {
        let wrong = |message: String| Rejection::new(Code::SchemaViolation, message);
        let mut fields = body.fields().map_err(|error| unreadable(key.id, &error))?;
        let opened = self.ring.open(kind, key, &mut fields);
        opened.map_err(|error| wrong(error.to_string()))?;
        Ok(fields)
    }

    /// The same, as far as it can be opened.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn opened_as_far(
        &self,
        kind: Kind,
        key: &Key,
        body: &Body,
    ) -> Result<Map<String, Value>, BodyError> {
        let mut fields = body.fields()?;
        self.ring.open_known(kind, key, &mut fields);
        Ok(fields)
    }

    /// What seals here.
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Puts a body as it is.
    pub(super) fn put_body(&mut self, key: &Key, body: Body) {
        let entry = Entry {
            version: self.base.version().next(),
            body,
        };
        self.state.insert(key.clone(), entry);
        self.touched.insert(key.clone(), ());
    }

    /// Takes an entity out without asking who refers to it.
    pub(super) fn remove(&mut self, key: &Key) {
        if self.state.remove(key).is_some() {
            self.touched.insert(key.clone(), ());
        }
    }

    /// Deletes an entity: what cascades goes with it.
    ///
    /// # Errors
    /// If an entity that does not cascade refers to it, or to one that would go with it.
    pub(super) fn delete(&mut self, kind: Kind, key: &Key) -> Result<(), Rejection> {
        let links: Vec<_> = self
            .state
            .referrers(kind, &key.workspace, key.id)
            .cloned()
            .collect();
        for link in &links {
            may_go(kind, link)?;
        }
        self.remove(key);
        for link in links {
            let child = Key {
                kind: link.child.key_name(),
                workspace: link.workspace,
                id: link.child_id,
            };
            self.delete(link.child, &child)?;
        }
        Ok(())
    }

    /// Checks that what `fields` refer to exists.
    ///
    /// # Errors
    /// With the first reference that leads nowhere.
    pub(super) fn check_references(
        &self,
        kind: Kind,
        workspace: &Workspace,
        fields: &Map<String, Value>,
    ) -> Result<(), Rejection> {
        for (field, foreign) in kind.schema().foreign() {
            let Some(id) = fields.get(field).and_then(reference_id) else {
                continue;
            };
            if self.state.entity(foreign.kind, workspace, id).is_none() {
                let entity = foreign.kind.schema().entity;
                return Err(Rejection::foreign_missing(field, entity, &id.to_string()));
            }
        }
        for list in kind.schema().id_lists {
            self.check_id_list(list, workspace, fields)?;
        }
        Ok(())
    }

    /// Checks that all that a list names exists.
    fn check_id_list(
        &self,
        list: &IdList,
        workspace: &Workspace,
        fields: &Map<String, Value>,
    ) -> Result<(), Rejection> {
        let ids = fields.get(list.field).and_then(Value::as_array);
        let mut errors = Vec::new();
        for (position, id) in ids.into_iter().flatten().enumerate() {
            let text = id.as_str().unwrap_or_default();
            let id = Uuid::try_parse(text).ok().map(Id);
            if id.is_none_or(|id| self.state.entity(list.kind, workspace, id).is_none()) {
                errors.resize(position, Value::Null);
                errors.push(format!("the {} '{text}' does not exist", list.noun).into());
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let fields = Map::from_iter([(list.field.to_owned(), Value::Array(errors))]);
        Err(Rejection::schema(fields))
    }

    /// Checks that no other entity holds a unique value of `fields`.
    ///
    /// # Errors
    /// With the first value that is taken.
    pub(super) fn check_unique(
        &self,
        kind: Kind,
        workspace: &Workspace,
        id: Id,
        fields: &Map<String, Value>,
    ) -> Result<(), Rejection> {
        for unique in kind.schema().unique {
            let holder = self.state.holder(kind, workspace, unique, fields);
            if holder.is_some_and(|holder| holder != id) {
                let value =
                    |name: &&'static str| (*name, fields.get(*name).cloned().unwrap_or_default());
                return Err(Rejection::unique(unique.fields.iter().map(value)));
            }
        }
        Ok(())
    }

    /// The state, and what leads to it from the base: one mutation an entity, none for those that end as they began.
    pub(super) fn finish(mut self) -> (State, Vec<Mutation>) {
        for key in &self.assumed {
            if !self.touched.contains_key(key) {
                self.state.remove(key);
            }
        }
        let mut mutations = Vec::with_capacity(self.touched.len());
        for (key, ()) in self.touched {
            let (before, after) = (self.base.get(&key), self.state.get(&key));
            match (before, after) {
                (None, None) => {}
                (Some(_), None) => mutations.push(Mutation::Delete(key)),
                (Some(before), Some(after)) if before.body == after.body => {
                    let unchanged = before.clone();
                    self.state.insert(key, unchanged);
                }
                (_, Some(after)) => mutations.push(Mutation::put(key, after.body.clone())),
            }
        }
        let state = self.state.with_seals(self.base.seals().clone());
        (state, mutations)
    }
}

/// What is said of an entity whose bytes cannot be read.
pub(super) fn unreadable(id: Id, error: &BodyError) -> Rejection {
    let message = format!("{id}: {error}; delete it and make it anew");
    Rejection::new(Code::SchemaViolation, message)
}

/// Whether the entity of `kind` that `link` leads to may be deleted.
fn may_go(kind: Kind, link: &Link) -> Result<(), Rejection> {
    let schema = link.child.schema();
    if let Some(list) = schema.id_lists.iter().find(|list| list.field == link.field) {
        let noun = list.noun.to_lowercase();
        let (id, child_id) = (link.parent_id.0, link.child_id.0);
        return Err(Rejection::listed_by(&noun, id, schema.entity, child_id));
    }
    let foreign = schema.foreign().find(|(name, _)| *name == link.field);
    match foreign.map(|(_, foreign)| foreign.on_delete) {
        Some(OnDelete::Cascade) => Ok(()),
        Some(OnDelete::Restrict) | None => Err(Rejection::referenced_by(
            kind.schema().entity,
            schema.entity,
        )),
    }
}
