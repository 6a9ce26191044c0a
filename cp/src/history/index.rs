//! The index: for each event who, when and why, for each entity the events that touched it.
//!
//! It holds no bodies: those are in the log. An event costs 40 bytes, each entity that it touches 12, an entity about 100
//! once, however often it changes; names, actors and reasons are kept once each.
//!
//! Invariants: rows are those of consecutive versions of one life of the log; the touches of an entity form a list from
//! the newest to the oldest.

use super::filter::Filter;
use super::texts::{Text, Texts};
use sluice_schema::entity::{Id, Key, KindName, Workspace};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Chain, Epoch, Time, Version};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes of actors' names that are kept.
const ACTOR_BYTES_MAX: usize = 4 << 20;
/// Bytes of reasons that are kept. The others are read from the log when somebody asks for them.
const REASON_BYTES_MAX: usize = 32 << 20;
/// Bytes of kinds and workspaces: far more than there can be of them.
const NAME_BYTES_MAX: usize = 16 << 20;
/// Marks a touch that took the entity away.
const GONE: u32 = 1 << 31;
const NO_TOUCH: u32 = u32::MAX;

/// What the index takes of an event.
#[derive(Clone, Debug)]
pub(super) struct Digested {
    pub(super) version: Version,
    pub(super) epoch: Epoch,
    pub(super) begins: bool,
    pub(super) is_founding: bool,
    pub(super) previous_chain: Chain,
    pub(super) chain: Chain,
    pub(super) check: Check,
    pub(super) time: Time,
    pub(super) actor: String,
    pub(super) reason: Option<String>,
    pub(super) touches: Vec<Touched>,
    /// Of a large transaction: where each of the touches is written.
    pub(super) places: Option<Vec<u32>>,
}

/// An entity that an event touched.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pub(super) key: Key,
    /// Hashes of the names it has from then on.
    pub(super) names: Vec<u64>,
    pub(super) gone: bool,
}

/// A part of the hash of an event's bytes: enough to know that what is read later is what was indexed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Check([u8; 16]);

impl Check {
    pub(super) fn of(event: &[u8]) -> Self {
        let mut check = [0; 16];
        check.copy_from_slice(&Hash32::of(event).0[..16]);
        Self(check)
    }
}

/// The hash of a name, among those of its kind and workspace.
pub(super) fn name_hash(kind: &str, workspace: &str, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [kind, workspace, name] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// What was there before the first event of the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Before {
    /// Nothing: the log begins there.
    #[default]
    Nothing,
    /// What a snapshot at the version before the first, or later, tells: the log was trimmed.
    Trimmed,
    /// What a snapshot at the first version tells: the log began a new life with it.
    Founded,
}

#[derive(Debug)]
struct Row {
    time: Time,
    check: Check,
    actor: Text,
    reason: Text,
    /// Its first touch; the last is before that of the next row.
    touches: u32,
}

#[derive(Debug)]
struct Touch {
    /// The row, and [`GONE`].
    row: u32,
    entity: u32,
    /// The touch of the same entity before.
    earlier: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct ShortKey {
    kind: Text,
    workspace: Text,
    id: Id,
}

#[derive(Debug)]
struct Entity {
    key: ShortKey,
    newest: u32,
}

/// More than the index can count, or a text that it cannot do without and has no place for.
#[derive(Debug, thiserror::Error)]
#[error("the history has more events, changes or names than can be indexed")]
pub(super) struct Full;

/// When an entity was last touched, and whether it was there then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LastTouch {
    /// Put at this version.
    Put(Version),
    /// Taken away at this version.
    Gone(Version),
    /// Not since the index begins.
    Before,
}

/// What is known of an event.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) version: Version,
    pub(crate) time: Time,
    /// `None` if it is only in the log.
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    epoch: Epoch,
    chain: Chain,
    first: Version,
    before: Before,
    rows: Vec<Row>,
    touches: Vec<Touch>,
    /// By row, where each of its touches is written.
    places: BTreeMap<u32, Box<[u32]>>,
    entities: Vec<Entity>,
    by_key: HashMap<ShortKey, u32>,
    names: BTreeSet<(u64, u32)>,
    kinds: Texts,
    workspaces: Texts,
    actors: Texts,
    reasons: Texts,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            epoch: Epoch::default(),
            chain: Chain::ZERO,
            first: Version::GENESIS,
            before: Before::Nothing,
            rows: Vec::new(),
            touches: Vec::new(),
            places: BTreeMap::new(),
            entities: Vec::new(),
            by_key: HashMap::new(),
            names: BTreeSet::new(),
            kinds: Texts::new(NAME_BYTES_MAX),
            workspaces: Texts::new(NAME_BYTES_MAX),
            actors: Texts::new(ACTOR_BYTES_MAX),
            reasons: Texts::new(REASON_BYTES_MAX),
        }
    }
}

impl Index {
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The chain after the last event.
    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The first version it holds.
    pub(super) fn first(&self) -> Version {
        self.first
    }

    /// The last version it holds; the one before the first if it holds none.
    pub(super) fn last(&self) -> Version {
        Version((self.first.0 + self.rows.len() as u64).saturating_sub(1))
    }

    pub(super) fn before(&self) -> Before {
        self.before
    }

    /// The earliest version whose state can be told.
    pub(super) fn earliest(&self) -> Version {
        match self.before {
            Before::Nothing | Before::Founded => self.first,
            Before::Trimmed => Version(self.first.0.saturating_sub(1)),
        }
    }

    /// Whether the event follows what is here.
    pub(super) fn fits(&self, event: &Digested) -> bool {
        match self.is_empty() || event.begins {
            true => true,
            false => {
                event.version == self.last().next()
                    && event.epoch == self.epoch
                    && event.previous_chain == self.chain
            }
        }
    }

    /// Takes the next event. One that begins a life of the log ends what was before.
    ///
    /// # Errors
    /// If there is no place for it; the index is of no use then.
    pub(super) fn push(&mut self, event: &Digested) -> Result<(), Full> {
        if self.is_empty() || event.begins {
            *self = Self {
                epoch: event.epoch,
                first: event.version,
                before: match (event.is_founding, event.begins) {
                    (true, _) => Before::Founded,
                    (false, true) => Before::Nothing,
                    (false, false) => Before::Trimmed,
                },
                ..Self::default()
            };
        }
        let row = u32::try_from(self.rows.len()).ok();
        let row = row.filter(|row| *row < GONE).ok_or(Full)?;
        let reason = event.reason.as_deref();
        self.rows.push(Row {
            time: event.time,
            check: event.check,
            actor: self.actors.add(&event.actor),
            reason: reason.map_or(Text::NONE, |reason| self.reasons.add(reason)),
            touches: u32::try_from(self.touches.len()).map_err(|_| Full)?,
        });
        for touched in &event.touches {
            self.touch(row, touched)?;
        }
        if let Some(places) = &event.places {
            self.places.insert(row, places.as_slice().into());
        }
        self.chain = event.chain;
        Ok(())
    }

    fn touch(&mut self, row: u32, touched: &Touched) -> Result<(), Full> {
        let key = ShortKey {
            kind: self.kinds.add(touched.key.kind.as_str()),
            workspace: self.workspaces.add(touched.key.workspace.as_str()),
            id: touched.key.id,
        };
        if key.kind == Text::ELSEWHERE || key.workspace == Text::ELSEWHERE {
            return Err(Full);
        }
        let number = u32::try_from(self.touches.len()).map_err(|_| Full)?;
        let next = u32::try_from(self.entities.len()).map_err(|_| Full)?;
        let entity = *self.by_key.entry(key).or_insert(next);
        if entity == next {
            let newest = NO_TOUCH;
            self.entities.push(Entity { key, newest });
        }
        let place = &mut self.entities[entity as usize];
        let earlier = std::mem::replace(&mut place.newest, number);
        let row = if touched.gone { row | GONE } else { row };
        self.touches.push(Touch {
            row,
            entity,
            earlier,
        });
        for name in &touched.names {
            self.names.insert((*name, entity));
        }
        Ok(())
    }

    fn version(&self, row: u32) -> Version {
        Version(self.first.0 + u64::from(row & !GONE))
    }

    fn row(&self, version: Version) -> Option<&Row> {
        let row = version.0.checked_sub(self.first.0)?;
        self.rows.get(usize::try_from(row).ok()?)
    }

    /// What the bytes of an event must be.
    pub(super) fn check(&self, version: Version) -> Option<Check> {
        self.row(version).map(|row| row.check)
    }

    /// Where in the pieces of a large transaction the mutation of an entity begins, and where the next one does.
    pub(super) fn place(&self, version: Version, key: &Key) -> Option<(u32, Option<u32>)> {
        let row = u32::try_from(version.0.checked_sub(self.first.0)?).ok()?;
        let places = self.places.get(&row)?;
        let mut number = self.entities.get(self.entity(key)? as usize)?.newest;
        loop {
            let touch = self.touches.get(number as usize)?;
            if touch.row & !GONE == row {
                break;
            }
            number = touch.earlier;
        }
        let position = number.checked_sub(self.rows.get(row as usize)?.touches)? as usize;
        let begin = places.get(position)?;
        Some((*begin, places.get(position + 1).copied()))
    }

    /// What is known of an event.
    pub(super) fn summary(&self, version: Version) -> Option<Summary> {
        let row = self.row(version)?;
        Some(Summary {
            version,
            time: row.time,
            actor: self.actors.get(row.actor).map(|name| (**name).to_owned()),
            reason: self.reasons.get(row.reason).map(|text| (**text).to_owned()),
        })
    }

    fn short(&self, key: &Key) -> Option<ShortKey> {
        Some(ShortKey {
            kind: self.kinds.find(key.kind.as_str())?,
            workspace: self.workspaces.find(key.workspace.as_str())?,
            id: key.id,
        })
    }

    fn key(&self, entity: u32) -> Option<Key> {
        let ShortKey {
            kind,
            workspace,
            id,
        } = self.entities.get(entity as usize)?.key;
        Some(Key {
            kind: KindName::parse(self.kinds.get(kind)?)?,
            workspace: Workspace::parse(self.workspaces.get(workspace)?)?,
            id,
        })
    }

    fn entity(&self, key: &Key) -> Option<u32> {
        self.by_key.get(&self.short(key)?).copied()
    }

    /// The touches of an entity, newest first.
    fn touches_of(&self, entity: Option<u32>) -> impl Iterator<Item = &Touch> {
        let newest = entity.and_then(|entity| self.entities.get(entity as usize));
        let first = newest.and_then(|entity| self.touches.get(entity.newest as usize));
        std::iter::successors(first, |touch| self.touches.get(touch.earlier as usize))
    }

    /// The versions that touched an entity, newest first.
    pub(super) fn versions(&self, key: &Key) -> impl Iterator<Item = Version> {
        let touches = self.touches_of(self.entity(key));
        touches.map(|touch| self.version(touch.row))
    }

    /// When an entity was last touched as of a version.
    pub(super) fn last_touch(&self, key: &Key, at: Version) -> LastTouch {
        let mut touches = self.touches_of(self.entity(key));
        match touches.find(|touch| self.version(touch.row) <= at) {
            None => LastTouch::Before,
            Some(touch) if touch.row & GONE != 0 => LastTouch::Gone(self.version(touch.row)),
            Some(touch) => LastTouch::Put(self.version(touch.row)),
        }
    }

    /// The entities that ever had this name, most recently touched first.
    pub(super) fn named(&self, kind: &str, workspace: &str, name: &str) -> Vec<Key> {
        let hash = name_hash(kind, workspace, name);
        let found = self.names.range((hash, 0)..=(hash, u32::MAX));
        let mut found: Vec<u32> = found.map(|(_, entity)| *entity).collect();
        found.sort_by_key(|entity| std::cmp::Reverse(self.entities[*entity as usize].newest));
        found
            .into_iter()
            .filter_map(|entity| self.key(entity))
            .collect()
    }

    /// The entities that were touched after one version and up to another.
    pub(super) fn touched(&self, after: Version, until: Version) -> Vec<Key> {
        let begin = self.first_touch(after.next());
        let end = self.first_touch(until.next());
        let touched = self.touches.get(begin..end).unwrap_or_default();
        let entities: BTreeSet<u32> = touched.iter().map(|touch| touch.entity).collect();
        let keys = entities.into_iter();
        keys.filter_map(|entity| self.key(entity)).collect()
    }

    /// How many changes there were after one version and up to another.
    pub(super) fn changes(&self, after: Version, until: Version) -> usize {
        let begin = self.first_touch(after.next());
        self.first_touch(until.next()).saturating_sub(begin)
    }

    /// The first touch at a version or later.
    fn first_touch(&self, version: Version) -> usize {
        let row = version.0.saturating_sub(self.first.0);
        let row = usize::try_from(row).ok().and_then(|row| self.rows.get(row));
        row.map_or(self.touches.len(), |row| row.touches as usize)
    }

    /// The last version that was decided at or before a time, by the clock of whoever decided it.
    pub(super) fn at_time(&self, time: Time) -> Option<Version> {
        let row = self.rows.iter().rposition(|row| row.time <= time)?;
        Some(Version(self.first.0 + row as u64))
    }

    /// The versions that a filter accepts, in order or newest first, at most `max`. Those whose reason is not kept here are
    /// accepted: whoever reads them sees it.
    pub(super) fn select(&self, filter: &Filter, newest_first: bool, max: usize) -> Vec<Version> {
        let Some(wanted) = Wanted::new(self, filter) else {
            return Vec::new();
        };
        let accepts = |row: &u32| wanted.accepts(*row & !GONE);
        let selected: Vec<u32> = match &filter.entity {
            Some(key) => {
                let mut rows = self.touches_of(self.entity(key)).map(|touch| touch.row);
                if newest_first {
                    rows.filter(accepts).take(max).collect()
                } else {
                    let mut all: Vec<u32> = rows.by_ref().filter(accepts).collect();
                    all.reverse();
                    all.truncate(max);
                    all
                }
            }
            None => {
                let rows = wanted.rows.clone();
                match newest_first {
                    true => rows.rev().filter(accepts).take(max).collect(),
                    false => rows.filter(accepts).take(max).collect(),
                }
            }
        };
        selected.into_iter().map(|row| self.version(row)).collect()
    }
}

/// A filter in the index's terms.
struct Wanted<'a> {
    index: &'a Index,
    filter: &'a Filter,
    rows: std::ops::Range<u32>,
    actor: Option<Text>,
    kind: Option<Text>,
    workspace: Option<Text>,
    reasons: Option<Vec<bool>>,
}

impl<'a> Wanted<'a> {
    /// `None` if nothing can be accepted.
    fn new(index: &'a Index, filter: &'a Filter) -> Option<Self> {
        let row = |version: Version| {
            let row = version.0.saturating_sub(index.first.0);
            u32::try_from(row.min(index.rows.len() as u64)).unwrap_or(u32::MAX)
        };
        let actor = match &filter.actor {
            None => None,
            Some(name) => match index.actors.find(name) {
                Some(actor) => Some(actor),
                None if index.actors.is_full() => Some(Text::ELSEWHERE),
                None => return None,
            },
        };
        let kind = filter.kind.as_ref().map(|kind| index.kinds.find(kind));
        let workspace = filter.workspace.as_ref();
        let workspace = workspace.map(|name| index.workspaces.find(name));
        if kind == Some(None) || workspace == Some(None) {
            return None;
        }
        let reasons = filter.reason.as_ref();
        Some(Self {
            index,
            filter,
            rows: row(filter.from)..row(filter.to.map_or(Version(u64::MAX), Version::next)),
            actor,
            kind: kind.flatten(),
            workspace: workspace.flatten(),
            reasons: reasons.map(|reason| {
                let holds = |text: &str| Filter::reason_holds(reason, text);
                index.reasons.matching(holds)
            }),
        })
    }

    fn accepts(&self, number: u32) -> bool {
        let Some(row) = self.index.rows.get(number as usize) else {
            return false;
        };
        self.rows.contains(&number)
            && self.filter.accepts_time(row.time)
            && self
                .actor
                .is_none_or(|actor| row.actor == actor || row.actor == Text::ELSEWHERE)
            && self
                .reasons
                .as_ref()
                .is_none_or(|matching| Texts::is_among(matching, row.reason))
            && self.accepts_touches(number)
    }

    /// Whether one entity is of both the kind and the workspace.
    fn accepts_touches(&self, number: u32) -> bool {
        if self.kind.is_none() && self.workspace.is_none() {
            return true;
        }
        let rows = &self.index.rows;
        let begin = rows[number as usize].touches as usize;
        let next = rows.get(number as usize + 1);
        let end = next.map_or(self.index.touches.len(), |next| next.touches as usize);
        self.index.touches[begin..end].iter().any(|touch| {
            let key = self.index.entities[touch.entity as usize].key;
            self.kind.is_none_or(|kind| key.kind == kind)
                && self
                    .workspace
                    .is_none_or(|workspace| key.workspace == workspace)
        })
    }
}
