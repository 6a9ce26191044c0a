//! Entities brought back to what they were, as one transaction: a rollback, or one event taken back.
//!
//! What an entity was has been valid once, so it is put back as it was, sealed with the key of today; but it must fit what is there now. All changed
//! entities are taken out of the draft first and put back one by one, so that two may swap a unique value.

use super::draft::Draft;
use super::protocols;
use super::{Applied, Inputs};
use crate::check::{Base, Values, complete};
use crate::entity::{Body, Entry, Key, Workspace};
use crate::kind::Kind;
use crate::rejection::Rejection;
use crate::version::Version;
use serde_json::{Map, Value};

/// Entities to bring back.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Where the caller is; the entities may be anywhere.
    pub workspace: Workspace,
    /// Each entity once.
    pub entities: Vec<Restoration>,
}

/// An entity to bring back.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// Which.
    pub key: Key,
    /// The version that last wrote it as far as the caller knows; `None` if it is not there.
    pub expected: Option<Version>,
    /// What it shall be.
    pub to: Former,
}

/// What an entity shall be again.
#[derive(Clone, PartialEq, Debug)]
pub enum Former {
    /// Not there.
    Absent,
    /// Exactly this.
    Body(Body),
    /// These fields, which no version had together: they are checked, and the time of change is now.
    Fields(Map<String, Value>),
}

/// Why an entity cannot be brought back.
#[derive(Clone, PartialEq, Debug)]
pub struct Conflict {
    /// Which.
    pub key: Key,
    /// Why.
    pub reason: ConflictReason,
}

/// See [`Conflict`].
#[derive(Clone, PartialEq, Debug)]
pub enum ConflictReason {
    /// It is not what the caller knows: look again and decide anew.
    Moved {
        /// The version that last wrote it, if it is there.
        at: Option<Version>,
    },
    /// Its workspace is gone.
    NoWorkspace,
    /// It does not fit what is there, or the rules of today.
    Rejected(Rejection),
    /// It shall go, but this entity stays and refers to it.
    Referred(Key),
    /// It is a workspace that shall go, but has entities.
    InUse,
}

pub(super) fn decide(
    draft: &mut Draft<'_>,
    restore: Restore,
    mut inputs: Inputs,
) -> Result<Applied, Vec<Conflict>> {
    let mut restoring = Restoring {
        draft,
        conflicts: Vec::new(),
        applied: Applied::default(),
    };
    restoring.expect(&restore.entities);
    if !restoring.conflicts.is_empty() {
        // Nothing else that is said of an old view would help.
        return Err(restoring.conflicts);
    }
    for entity in &restore.entities {
        restoring.draft.remove(&entity.key);
    }
    for entity in &restore.entities {
        restoring.put(entity, &mut inputs);
    }
    for entity in &restore.entities {
        restoring.check(entity);
    }
    match restoring.conflicts.is_empty() {
        true => Ok(restoring.applied),
        false => Err(restoring.conflicts),
    }
}

struct Restoring<'a, 'b> {
    draft: &'a mut Draft<'b>,
    conflicts: Vec<Conflict>,
    applied: Applied,
}

impl Restoring<'_, '_> {
    fn conflict(&mut self, key: &Key, reason: ConflictReason) {
        let key = key.clone();
        self.conflicts.push(Conflict { key, reason });
    }

    /// Checks that the entities are what the caller has seen.
    fn expect(&mut self, entities: &[Restoration]) {
        for entity in entities {
            let found = self.draft.base().get(&entity.key);
            let at = found.map(|entry| entry.version);
            if at != entity.expected {
                self.conflict(&entity.key, ConflictReason::Moved { at });
            }
        }
    }

    fn put(&mut self, entity: &Restoration, inputs: &mut Inputs) {
        let key = &entity.key;
        let before = self.draft.base().get(key).map(|entry| entry.body.clone());
        let put = match (&entity.to, kind_of(key)) {
            (Former::Absent, _) => {
                self.applied.deleted += usize::from(before.is_some());
                return;
            }
            // Of a kind that this build does not know: no rules, and no secrets that it could see.
            (Former::Body(body), None) => Ok(body.clone()),
            (Former::Fields(fields), None) => Ok(Body::encode(fields)),
            (Former::Body(body), Some(kind)) => self.valid_again(kind, key, body, inputs),
            (Former::Fields(fields), Some(kind)) => {
                self.completed(kind, key, fields, before.as_ref(), inputs)
            }
        };
        let body = match put {
            Ok(body) => body,
            Err(rejection) => {
                self.conflict(key, ConflictReason::Rejected(rejection));
                // Nothing will be written; but what refers to it is not to be blamed.
                let Former::Body(body) = &entity.to else {
                    return;
                };
                return self.draft.put_body(key, body.clone());
            }
        };
        match &before {
            Some(before) if *before == body => self.applied.unchanged += 1,
            Some(_) => self.applied.updated += 1,
            None => self.applied.created += 1,
        }
        self.draft.put_body(key, body);
    }

    /// A former body, if it is valid by the rules of today. It is not changed but for what its secrets are sealed with.
    fn valid_again(
        &self,
        kind: Kind,
        key: &Key,
        body: &Body,
        inputs: &mut Inputs,
    ) -> Result<Body, Rejection> {
        let fields = self.draft.opened(kind, key, body)?;
        finished(kind, &fields, Some(&fields), inputs)?;
        self.free_and_sealed(kind, key, &fields)
    }

    fn completed(
        &self,
        kind: Kind,
        key: &Key,
        fields: &Map<String, Value>,
        before: Option<&Body>,
        inputs: &mut Inputs,
    ) -> Result<Body, Rejection> {
        let before = before.and_then(|before| self.draft.opened_as_far(kind, key, before).ok());
        let fields = finished(kind, fields, before.as_ref(), inputs)?;
        self.free_and_sealed(kind, key, &fields)
    }

    /// The body of these fields, whose unique values nobody else must have.
    fn free_and_sealed(
        &self,
        kind: Kind,
        key: &Key,
        fields: &Map<String, Value>,
    ) -> Result<Body, Rejection> {
        self.draft
            .check_unique(kind, &key.workspace, key.id, fields)?;
        self.draft.sealed(kind, key, fields)
    }

    /// Checks what can only be seen when everything is in place.
    fn check(&mut self, entity: &Restoration) {
        let key = &entity.key;
        let Some(kind) = kind_of(key) else { return };
        let Some(Entry { body, .. }) = self.draft.state().get(key) else {
            return self.check_gone(kind, key);
        };
        let Ok(fields) = body.fields() else { return };
        if !self.draft.state().has_workspace(&key.workspace) {
            return self.conflict(key, ConflictReason::NoWorkspace);
        }
        let checked = self
            .draft
            .check_references(kind, &key.workspace, &fields)
            .and_then(|()| {
                protocols::check_plugin(self.draft.state(), kind, &key.workspace, &fields)
            });
        if let Err(rejection) = checked {
            self.conflict(key, ConflictReason::Rejected(rejection));
        }
    }

    fn check_gone(&mut self, kind: Kind, key: &Key) {
        let links: Vec<Key> = self
            .draft
            .state()
            .referrers(kind, &key.workspace, key.id)
            .map(|link| Key {
                kind: link.child.key_name(),
                workspace: link.workspace.clone(),
                id: link.child_id,
            })
            .collect();
        for child in links {
            self.conflict(key, ConflictReason::Referred(child));
        }
        if kind == Kind::Workspace && self.is_in_use(key) {
            self.conflict(key, ConflictReason::InUse);
        }
    }

    fn is_in_use(&self, key: &Key) -> bool {
        let entry = self.draft.base().get(key);
        let fields = entry.and_then(|entry| entry.body.fields().ok());
        let name = fields
            .as_ref()
            .and_then(|fields| fields.get("name")?.as_str());
        let workspace = name.and_then(Workspace::parse);
        // The default workspace is there whether or not it has been written.
        workspace.is_some_and(|workspace| {
            workspace != Workspace::DEFAULT && self.draft.state().is_in_use(&workspace)
        })
    }
}

fn kind_of(key: &Key) -> Option<Kind> {
    Kind::from_name(key.kind.as_str())
}

/// Checks `fields` by the rules of today and completes them, as of an entity that was `before`.
fn finished(
    kind: Kind,
    fields: &Map<String, Value>,
    before: Option<&Map<String, Value>>,
    inputs: &mut Inputs,
) -> Result<Map<String, Value>, Rejection> {
    let base = Base::Declare(before, Values::Stored);
    let schema = inputs.flavor.schema(kind);
    complete(
        schema,
        fields.clone(),
        base,
        inputs.now,
        &mut inputs.entropy,
    )
}
