//! The state: all entities at a version, with the indexes that validity needs.
//!
//! Persistent (structural sharing): a clone is cheap, an old clone stays valid, and a change costs the logarithm of
//! the size. So a reader keeps one version as long as it likes, and a decision can be tried on a copy.
//!
//! Invariants: the indexes hold exactly what the entities say; the sum is that of the entities; [`State::apply`]
//! either gives the state after the event or leaves everything as it was.

use crate::digest::{Accumulator, Digest};
use crate::entity::{Body, Change, Entry, Id, Key, Workspace};
use crate::event::{Event, Mutation, Mutations};
use crate::kind::{Kind, Names, Nulls, Unique, workspace};
use crate::seal::{Seals, SecretCounts, Step};
use crate::version::{Chain, Cursor, Epoch, Version};
use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ops::Bound;
use uuid::Uuid;

/// All entities at a version.
#[derive(Clone, Debug, Default)]
pub struct State {
    cursor: Cursor,
    sum: Accumulator,
    entities: OrdMap<Key, Entry>,
    unique: OrdMap<UniqueKey, Id>,
    references: OrdSet<Link>,
    secrets: SecretCounts,
    /// What its secrets are sealed with. Not part of what the state is.
    seals: Seals,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct UniqueKey {
    kind: Kind,
    workspace: Workspace,
    index: &'static str,
    value: String,
}

/// A reference seen from the entity referred to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Link {
    /// The kind referred to.
    pub parent: Kind,
    /// The workspace of both.
    pub workspace: Workspace,
    /// The entity referred to.
    pub parent_id: Id,
    /// The kind that refers.
    pub child: Kind,
    /// Its field that refers.
    pub field: &'static str,
    /// The entity that refers.
    pub child_id: Id,
}

/// Why an event cannot follow a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The event was decided on another state.
    #[error(
        "the event follows version {previous}, the state is at {at}, or their chains or epochs differ"
    )]
    OutOfOrder {
        /// The version the event follows.
        previous: Version,
        /// The state's version.
        at: Version,
    },
    /// The state after the event is not the one its author saw.
    #[error("the state after version {version} has digest {found}, the event says {expected}")]
    Diverged {
        /// The event's version.
        version: Version,
        /// What the event says.
        expected: Digest,
        /// What came out here.
        found: Digest,
    },
    /// The mutations of a large transaction were not fetched first.
    #[error("the mutations of version {0} are not here yet")]
    Unresolved(Version),
}

impl State {
    /// What has been applied.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The last event applied.
    pub fn version(&self) -> Version {
        self.cursor.version
    }

    /// The digest of the entities.
    pub fn digest(&self) -> Digest {
        self.sum.digest()
    }

    /// The running sum behind the digest.
    pub fn sum(&self) -> &Accumulator {
        &self.sum
    }

    /// How many entities there are.
    pub fn len(&self) -> usize {
        self.entities.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// The state after `event`, whose message is `bytes`, and what changed.
    ///
    /// # Errors
    /// If the event does not follow this state or leads to another state than its author's.
    pub fn apply(&self, event: &Event, bytes: &[u8]) -> Result<(Self, Vec<Change>), ApplyError> {
        if !event.follows(&self.cursor) {
            return Err(ApplyError::OutOfOrder {
                previous: event.previous,
                at: self.version(),
            });
        }
        let Mutations::Inline(mutations) = &event.mutations else {
            return Err(ApplyError::Unresolved(event.version()));
        };
        let mut next = self.clone();
        let changes = mutations
            .iter()
            .map(|mutation| next.mutate(event.version(), mutation))
            .collect();
        let found = next.digest();
        if found != event.digest {
            let version = event.version();
            return Err(ApplyError::Diverged {
                version,
                expected: event.digest,
                found,
            });
        }
        next.cursor = event.cursor(bytes);
        Ok((next, changes))
    }

    /// Moves the cursor to just after `event`, for a state that already holds its mutations.
    pub(crate) fn settle(&mut self, event: &Event, bytes: &[u8]) {
        self.cursor = event.cursor(bytes);
    }

    /// The state at `cursor`, given what changed on the way there.
    #[must_use]
    pub fn advance(&self, cursor: Cursor, changes: &[Change]) -> Self {
        let mut next = Self {
            cursor,
            ..self.clone()
        };
        for change in changes {
            match &change.after {
                Some(entry) => next.insert(change.key.clone(), entry.clone()),
                None => next.remove(&change.key),
            };
        }
        next
    }

    /// A state from its parts, as a store or a snapshot keeps them.
    pub fn restore(cursor: Cursor, entities: impl IntoIterator<Item = (Key, Entry)>) -> Self {
        let mut state = Self {
            cursor,
            ..Self::default()
        };
        state.extend(entities);
        state
    }

    /// Adds entities, as a store or a snapshot keeps them.
    pub fn extend(&mut self, entities: impl IntoIterator<Item = (Key, Entry)>) {
        for (key, entry) in entities {
            self.insert(key, entry);
        }
    }

    /// The same entities as if all of them had been written at `version`, the first of a new life of the log. The versions
    /// of another life mean nothing there.
    #[must_use]
    pub fn rewritten_at(&self, version: Version) -> Self {
        let entities = self.iter().map(|(key, entry)| {
            let body = entry.body.clone();
            (key.clone(), Entry { version, body })
        });
        Self {
            entities: entities.collect(),
            ..self.clone()
        }
    }

    /// The same state, whose secrets are sealed and opened with `seals` from here on.
    #[must_use]
    pub fn with_seals(self, seals: Seals) -> Self {
        Self { seals, ..self }
    }

    /// What secrets are sealed and opened with.
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// How many secrets there are, by what they are sealed with.
    pub fn secrets(&self) -> &SecretCounts {
        &self.secrets
    }

    /// See [`Seals::shown`].
    pub fn shown(&self, key: &Key, body: &Body) -> Option<Map<String, Value>> {
        self.seals.shown(key, body)
    }

    fn mutate(&mut self, version: Version, mutation: &Mutation) -> Change {
        let key = mutation.key();
        let after = mutation.body().map(|body| Entry {
            version,
            body: body.clone(),
        });
        let before = match &after {
            Some(entry) => self.insert(key.clone(), entry.clone()),
            None => self.remove(&key),
        };
        Change { key, before, after }
    }

    /// Puts an entity and returns the one it replaces.
    pub(crate) fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        let before = self.remove(&key);
        self.sum.add(&key, &entry.body);
        self.index(&key, &entry.body, Step::Add);
        self.entities.insert(key, entry);
        before
    }

    /// Takes an entity out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entities.remove(key)?;
        self.sum.remove(key, &entry.body);
        self.index(key, &entry.body, Step::Remove);
        Some(entry)
    }

    fn index(&mut self, key: &Key, body: &Body, step: Step) {
        // Kinds and bodies this build does not understand are kept, but nothing can refer to them.
        let Some(kind) = Kind::from_name(key.kind.as_str()) else {
            return;
        };
        let Ok(mut fields) = body.fields() else {
            return;
        };
        self.secrets.count(kind, &mut fields, step);
        for unique in kind.schema().unique {
            let Some(value) = unique_value(unique, &fields) else {
                continue;
            };
            let workspace = key.workspace.clone();
            let entry = UniqueKey {
                kind,
                workspace,
                index: unique.name,
                value,
            };
            match step {
                Step::Add => {
                    self.unique.insert(entry, key.id);
                }
                Step::Remove if self.unique.get(&entry) == Some(&key.id) => {
                    self.unique.remove(&entry);
                }
                Step::Remove => {}
            }
        }
        for link in links(kind, key, &fields) {
            match step {
                Step::Add => self.references.insert(link),
                Step::Remove => self.references.remove(&link),
            };
        }
    }

    /// One entity.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entities.get(key)
    }

    /// One entity of a known kind.
    pub fn entity(&self, kind: Kind, workspace: &Workspace, id: Id) -> Option<&Entry> {
        self.get(&Key {
            kind: kind.key_name(),
            workspace: workspace.clone(),
            id,
        })
    }

    /// All entities, ordered by kind, workspace, id.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entities.iter()
    }

    /// The entities with keys at or above `from` (all, if `None`), ordered by key.
    pub fn iter_from(&self, from: Option<&Key>) -> impl Iterator<Item = (&Key, &Entry)> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        self.entities.range::<_, Key>((from, Bound::Unbounded))
    }

    /// The keys of the entities that are not as they were in `earlier`, an earlier version of this state. Costs what has
    /// changed, not what there is.
    pub fn changed_since(&self, earlier: &Self) -> BTreeSet<Key> {
        let key = |item: DiffItem<'_, '_, Key, Entry>| match item {
            DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key.clone(),
            DiffItem::Update { new: (key, _), .. } => key.clone(),
        };
        earlier.entities.diff(&self.entities).map(key).collect()
    }

    /// The entities of a kind in a workspace with an id above `after`, ordered by id.
    pub fn list(
        &self,
        kind: Kind,
        workspace: &Workspace,
        after: Option<Id>,
    ) -> impl Iterator<Item = (Id, &Entry)> {
        let first = after.map_or(Some(Uuid::nil()), successor);
        let key = |id: Uuid| Key {
            kind: kind.key_name(),
            workspace: workspace.clone(),
            id: Id(id),
        };
        first
            .map(|first| self.entities.range(key(first)..=key(Uuid::max())))
            .into_iter()
            .flatten()
            .map(|(key, entry)| (key.id, entry))
    }

    /// The ids of the `child` entities whose `field` refers to `parent`, above `after`, ordered by id.
    pub fn children(
        &self,
        parent: (Kind, Id),
        workspace: &Workspace,
        child: Kind,
        field: &'static str,
        after: Option<Id>,
    ) -> impl Iterator<Item = Id> {
        let link = |id: Uuid| Link {
            parent: parent.0,
            workspace: workspace.clone(),
            parent_id: parent.1,
            child,
            field,
            child_id: Id(id),
        };
        let first = after.map_or(Some(Uuid::nil()), successor);
        first
            .map(|first| self.references.range(link(first)..=link(Uuid::max())))
            .into_iter()
            .flatten()
            .map(|link| link.child_id)
    }

    /// Everything that refers to an entity.
    pub fn referrers(
        &self,
        parent: Kind,
        workspace: &Workspace,
        parent_id: Id,
    ) -> impl Iterator<Item = &Link> {
        let first = Link {
            parent,
            workspace: workspace.clone(),
            parent_id,
            child: Kind::ALL[0],
            field: "",
            child_id: Id(Uuid::nil()),
        };
        let own = first.clone();
        self.references.range(first..).take_while(move |link| {
            (link.parent, &link.workspace, link.parent_id)
                == (own.parent, &own.workspace, own.parent_id)
        })
    }

    /// The entity that holds the value that `fields` have in a unique index.
    pub fn holder(
        &self,
        kind: Kind,
        workspace: &Workspace,
        unique: &Unique,
        fields: &Map<String, Value>,
    ) -> Option<Id> {
        let holder = |fields: &Map<String, Value>| {
            let key = UniqueKey {
                kind,
                workspace: workspace.clone(),
                index: unique.name,
                value: unique_value(unique, fields)?,
            };
            self.unique.get(&key).copied()
        };
        holder(fields).or_else(|| {
            let forms = self.seals.ring().forms(kind, workspace, unique, fields);
            forms.iter().find_map(holder)
        })
    }

    /// The names of an entity of kind `owner`, and the entities that hold them.
    pub fn names(
        &self,
        names: &Names,
        owner: Kind,
        workspace: &Workspace,
        owner_id: Id,
    ) -> impl Iterator<Item = (String, Id)> {
        let Names {
            child, by, label, ..
        } = *names;
        let ids = self.children((owner, owner_id), workspace, child, by, None);
        ids.filter_map(move |id| {
            let fields = self.entity(child, workspace, id)?.body.fields().ok()?;
            Some((fields.get(label)?.as_str()?.to_owned(), id))
        })
    }

    /// The entity that has `name` among its names.
    pub fn named(&self, names: &Names, workspace: &Workspace, name: &str) -> Option<Id> {
        let fields = Map::from_iter([(names.label.to_owned(), Value::from(name))]);
        let unique = names.child.schema().unique;
        let unique = unique
            .iter()
            .find(|unique| unique.fields == [names.label])?;
        let holder = self.holder(names.child, workspace, unique, &fields)?;
        let fields = self.entity(names.child, workspace, holder)?.body.fields();
        reference_id(fields.ok()?.get(names.by)?)
    }

    /// This state with the workspace `default`, which is there also if nobody has written it. Only for reading: it has one
    /// entity more than the log.
    #[must_use]
    pub fn with_default_workspace(&self) -> Self {
        let (key, entry) = workspace::default_entity();
        let mut state = self.clone();
        if state.get(&key).is_none() {
            state.insert(key, entry);
        }
        state
    }

    /// Whether there is such a workspace.
    pub fn has_workspace(&self, workspace: &Workspace) -> bool {
        let fields = Map::from_iter([("name".to_owned(), Value::from(workspace.as_str()))]);
        let mut unique = Kind::Workspace.schema().unique.iter();
        *workspace == Workspace::DEFAULT
            || unique.any(|unique| {
                self.holder(Kind::Workspace, &Workspace::DEFAULT, unique, &fields)
                    .is_some()
            })
    }

    /// Whether any entity, also of a kind this build does not know, is in `workspace`.
    pub fn is_in_use(&self, workspace: &Workspace) -> bool {
        let mut from = Bound::Unbounded;
        loop {
            let next = self
                .entities
                .range::<_, Key>((from, Bound::Unbounded))
                .next();
            let Some((Key { kind, .. }, _)) = next else {
                return false;
            };
            let key = |workspace: &Workspace, id| Key {
                kind: kind.clone(),
                workspace: workspace.clone(),
                id: Id(id),
            };
            let own = key(workspace, Uuid::nil())..=key(workspace, Uuid::max());
            if self.entities.range(own).next().is_some() {
                return true;
            }
            from = Bound::Excluded(key(&Workspace::last(), Uuid::max()));
        }
    }

    /// Checks that the indexes and the sum hold exactly what the entities say.
    ///
    /// # Panics
    /// If they do not.
    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        let entities = self.iter().map(|(key, entry)| (key.clone(), entry.clone()));
        let fresh = Self::restore(self.cursor, entities);
        assert_eq!(self.sum, fresh.sum, "the sum is not that of the entities");
        assert_eq!(
            self.unique, fresh.unique,
            "unique values are not those of the entities"
        );
        assert_eq!(
            self.secrets, fresh.secrets,
            "secrets are not counted as the entities have them"
        );
        assert_eq!(
            self.references, fresh.references,
            "references are not those of the entities"
        );
    }

    /// The log's life.
    pub fn epoch(&self) -> Epoch {
        self.cursor.epoch
    }

    /// The chain at this version.
    pub fn chain(&self) -> Chain {
        self.cursor.chain
    }
}

fn successor(id: Id) -> Option<Uuid> {
    id.0.as_u128().checked_add(1).map(Uuid::from_u128)
}

/// The text an entity has in a unique index, or `None` if it is not in it.
fn unique_value(unique: &Unique, fields: &Map<String, Value>) -> Option<String> {
    let mut value = String::new();
    for (position, name) in unique.fields.iter().enumerate() {
        if position > 0 {
            value.push('\0');
        }
        match (fields.get(*name), unique.nulls) {
            (None | Some(Value::Null), Nulls::Distinct) => return None,
            (None | Some(Value::Null), Nulls::Equal) => value.push('-'),
            (Some(Value::String(text)), _) => value.push_str(text),
            (Some(Value::Object(reference)), _) => {
                value.push_str(
                    reference
                        .get("id")
                        .and_then(Value::as_str)
                        .unwrap_or_default(),
                );
            }
            (Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_))), _) => {
                value.push_str(&other.to_string());
            }
        }
    }
    Some(value)
}

fn links<'a>(
    kind: Kind,
    key: &'a Key,
    fields: &'a Map<String, Value>,
) -> impl Iterator<Item = Link> + 'a {
    kind.schema()
        .links(fields)
        .map(move |(field, parent, parent_id)| Link {
            parent,
            workspace: key.workspace.clone(),
            parent_id,
            child: kind,
            field,
            child_id: key.id,
        })
}

/// The id in a reference (`{"id": "<uuid>"}`).
pub fn reference_id(value: &Value) -> Option<Id> {
    value
        .get("id")?
        .as_str()
        .and_then(|text| Uuid::try_parse(text).ok())
        .map(Id)
}
