//! What entities were: each is read from the event that last touched it before a version, and a whole state is made from
//! another one by what lies between them. The cost is that of what has changed, not of what there is.

use super::index::{Before, LastTouch};
use super::{History, HistoryError};
use sluice_replica::run::chain;
use sluice_replica::snapshot::load_state;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Past states that are kept for whoever asks next: pages of a list, a rollback after its dry run.
const STATES_KEPT: usize = 4;

/// Past states, the one that was asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct Kept {
    states: Vec<Arc<State>>,
    /// What there was before the first event of the index.
    base: Option<Arc<State>>,
}

impl Kept {
    fn find(&mut self, cursor: Cursor) -> Option<Arc<State>> {
        let found = self
            .states
            .iter()
            .position(|state| state.cursor() == cursor)?;
        let state = self.states.remove(found);
        self.states.push(state.clone());
        Some(state)
    }

    fn keep(&mut self, state: Arc<State>) {
        self.states.push(state);
        if self.states.len() > STATES_KEPT {
            self.states.remove(0);
        }
    }
}

impl History {
    /// What entities were at a version each, in the order of `wanted`.
    ///
    /// # Errors
    /// If that cannot be told.
    pub(crate) async fn values(
        &self,
        wanted: &[(Key, Version)],
    ) -> Result<Vec<Option<Entry>>, HistoryError> {
        let touches: Vec<LastTouch> = {
            let index = self.read();
            let touch = |(key, at): &(Key, Version)| index.last_touch(key, *at);
            wanted.iter().map(touch).collect()
        };
        let mut puts: BTreeMap<Version, BTreeSet<Key>> = BTreeMap::new();
        for ((key, _), touch) in wanted.iter().zip(&touches) {
            if let LastTouch::Put(version) = touch {
                puts.entry(*version).or_default().insert(key.clone());
            }
        }
        let mut bodies = BTreeMap::new();
        for found in self.events(puts.keys().copied(), false).await? {
            let version = found.record.version;
            let own = self.bodies(&found.event, &puts[&version]).await?;
            bodies.extend(own.into_iter().map(|(key, body)| ((version, key), body)));
        }
        let mut values = Vec::with_capacity(wanted.len());
        for ((key, at), touch) in wanted.iter().zip(touches) {
            values.push(match touch {
                LastTouch::Gone(_) => None,
                LastTouch::Put(version) => {
                    let body = bodies.get(&(version, key.clone())).cloned();
                    let missing = || {
                        let reason = format!("it does not touch {key}");
                        HistoryError::Damaged(version, reason)
                    };
                    let body = body.ok_or_else(missing)?;
                    Some(Entry { version, body })
                }
                LastTouch::Before => self.value_before(key, *at).await?,
            });
        }
        Ok(values)
    }

    /// What an entity was that no event of the index had touched by then.
    async fn value_before(&self, key: &Key, at: Version) -> Result<Option<Entry>, HistoryError> {
        let before = self.read().before();
        match before {
            Before::Nothing => Ok(None),
            Before::Trimmed | Before::Founded => {
                let base = self.base().await?;
                match base.version() <= at {
                    true => Ok(base.get(key).cloned()),
                    false => Err(HistoryError::TooEarly(base.version())),
                }
            }
        }
    }

    /// The earliest state of this life of the log that a snapshot tells and the log goes on from.
    async fn base(&self) -> Result<Arc<State>, HistoryError> {
        let (epoch, earliest) = {
            let index = self.read();
            (index.epoch(), index.earliest())
        };
        let fits = |cursor: Cursor| cursor.epoch == epoch && cursor.version >= earliest;
        let kept = self.kept().base.clone();
        if let Some(base) = kept.filter(|base| fits(base.cursor())) {
            return Ok(base);
        }
        let listed = self.parts.snapshots.list().await;
        let listed = listed.map_err(|error| HistoryError::Log(chain(&error)))?;
        let roots = listed.into_iter().filter(|root| fits(root.cursor));
        let oldest = roots.min_by_key(|root| root.cursor.version);
        let oldest = oldest.ok_or(HistoryError::NoSnapshot)?;
        let state = load_state(self.parts.source.chunks.clone(), &oldest).await;
        let state = state.map_err(|error| HistoryError::Log(chain(&error)))?;
        let seals = self.parts.view.state().seals().clone();
        let state = Arc::new(state.with_seals(seals));
        self.kept().base = Some(state.clone());
        Ok(state)
    }

    /// The state at a version.
    ///
    /// # Errors
    /// If it cannot be told.
    pub(crate) async fn state_at(&self, version: Version) -> Result<Arc<State>, HistoryError> {
        let now = self.whole().await?;
        if version == now.version() {
            return Ok(now);
        }
        let cursor = self.cursor_at(version, &now).await?;
        if let Some(state) = self.kept().find(cursor) {
            return Ok(state);
        }
        let from = self.nearest(version, now);
        let (earlier, later) = (from.version().min(version), from.version().max(version));
        let keys = self.read().touched(earlier, later);
        let wanted: Vec<(Key, Version)> = keys.into_iter().map(|key| (key, version)).collect();
        let values = self.values(&wanted).await?;
        let made = tokio::task::spawn_blocking(move || {
            let changes: Vec<Change> = wanted
                .into_iter()
                .zip(values)
                .map(|((key, _), after)| Change {
                    before: None,
                    after,
                    key,
                })
                .collect();
            Arc::new(from.advance(cursor, &changes))
        });
        let state = made
            .await
            .map_err(|error| HistoryError::Failed(error.to_string()))?;
        self.kept().keep(state.clone());
        Ok(state)
    }

    /// Of the states at hand the one with the least between it and `version`.
    fn nearest(&self, version: Version, now: Arc<State>) -> Arc<State> {
        let epoch = now.epoch();
        let mut at_hand = vec![now];
        let kept = self.kept();
        let same_life = kept.states.iter().filter(|state| state.epoch() == epoch);
        at_hand.extend(same_life.cloned());
        drop(kept);
        let index = self.read();
        let cost = |state: &Arc<State>| {
            let at = state.version();
            index.changes(at.min(version), at.max(version))
        };
        let nearest = at_hand.iter().min_by_key(|state| cost(state)).cloned();
        nearest.unwrap_or_default()
    }

    async fn cursor_at(&self, version: Version, now: &State) -> Result<Cursor, HistoryError> {
        let earliest = self.read().earliest();
        if version < earliest {
            return Err(HistoryError::TooEarly(earliest));
        }
        if version > now.version() {
            return Err(HistoryError::NotYet(version, now.version()));
        }
        // What follows names the chain before it.
        let next = self.events([version.next()], false).await?;
        let chain = next.first().map(|found| found.event.previous_chain);
        Ok(Cursor {
            epoch: now.epoch(),
            version,
            chain: chain.unwrap_or_default(),
        })
    }
}
