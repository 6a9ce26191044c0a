//! Reading events back that the index names, and making sure that they are those.

use super::{History, HistoryError};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use sluice_replica::log::{ChunkUse, PAGE_RECORDS_MAX, Record};
use sluice_replica::run::{chain, resolve};
use sluice_schema::entity::{Body, Key};
use sluice_schema::event::{Event, Mutation, Mutations, StoredMutations};
use sluice_schema::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Single records that are asked for at a time.
const ASKED_MAX: usize = 32;
/// Pieces of a large transaction that are asked for at a time.
const PIECES_ASKED_MAX: usize = 8;
/// From this many wanted records among as many as a page has, the page is read as a whole.
const PAGE_WORTH: usize = 40;

/// An event of the index with its message.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) event: Event,
}

impl History {
    /// The events of these versions, in order. Large transactions come with their mutations if `whole`.
    ///
    /// # Errors
    /// If one cannot be read, or is not the one that was indexed.
    pub(crate) async fn events(
        &self,
        versions: impl IntoIterator<Item = Version>,
        whole: bool,
    ) -> Result<Vec<Found>, HistoryError> {
        let versions: BTreeSet<Version> = versions.into_iter().collect();
        let records = self.records(&versions).await?;
        let decode = move || {
            let decoded = records.into_values().map(|record| {
                let event = Event::decode(&record.event)
                    .map_err(|error| HistoryError::Damaged(record.version, error.to_string()))?;
                Ok(Found { record, event })
            });
            decoded.collect::<Result<Vec<_>, HistoryError>>()
        };
        let decoded = tokio::task::spawn_blocking(decode).await;
        let mut found = decoded.map_err(|error| HistoryError::Failed(error.to_string()))??;
        if whole {
            for one in &mut found {
                let resolved = resolve(&*self.parts.source.chunks, one.event.clone()).await;
                one.event = resolved.map_err(|error| HistoryError::Log(chain(&error)))?;
            }
        }
        Ok(found)
    }

    /// The bodies that an event gave these entities; absent for those that it took away or did not touch. Of a large
    /// transaction only the pieces that have them are read.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) async fn bodies(
        &self,
        event: &Event,
        keys: &BTreeSet<Key>,
    ) -> Result<BTreeMap<Key, Body>, HistoryError> {
        let stored = match &event.mutations {
            Mutations::Inline(mutations) => return Ok(puts(mutations, keys)),
            Mutations::Stored(stored) => stored,
        };
        let version = event.version();
        let places: Option<Vec<(u64, u64)>> = {
            let index = self.read();
            let place = |key| {
                let (begin, end) = index.place(version, key)?;
                Some((u64::from(begin), end.map_or(stored.bytes, u64::from)))
            };
            keys.iter().map(place).collect()
        };
        let Some(places) = places else {
            let whole = resolve(&*self.parts.source.chunks, event.clone()).await;
            let whole = whole.map_err(|error| HistoryError::Log(chain(&error)))?;
            return match &whole.mutations {
                Mutations::Inline(mutations) => Ok(puts(mutations, keys)),
                Mutations::Stored(_) => Ok(BTreeMap::new()),
            };
        };
        self.bodies_at(version, stored, &places, keys).await
    }

    async fn bodies_at(
        &self,
        version: Version,
        stored: &StoredMutations,
        places: &[(u64, u64)],
        keys: &BTreeSet<Key>,
    ) -> Result<BTreeMap<Key, Body>, HistoryError> {
        let damaged = |reason: &str| HistoryError::Damaged(version, reason.to_owned());
        let numbers = places
            .iter()
            .flat_map(|(begin, end)| stored.pieces(*begin, *end).0);
        let numbers: BTreeSet<usize> = numbers.collect();
        let chunks = &self.parts.source.chunks;
        let pieces = stream::iter(numbers)
            .map(|number| async move {
                let hash = *stored
                    .chunks
                    .get(number)
                    .ok_or_else(|| damaged("it has no such piece"))?;
                let piece = chunks.get(ChunkUse::Transaction, hash).await;
                let piece = piece.map_err(|error| HistoryError::Log(chain(&error)))?;
                let piece = piece.ok_or_else(|| damaged("a piece of it is missing"))?;
                Ok((number, piece))
            })
            .buffered(PIECES_ASKED_MAX);
        let pieces: BTreeMap<usize, Bytes> = pieces.try_collect().await?;
        let mut mutations = Vec::with_capacity(places.len());
        for (begin, end) in places {
            let (numbers, first) = stored.pieces(*begin, *end);
            let own = numbers.filter_map(|number| pieces.get(&number));
            let joined: Vec<u8> = own.flat_map(|piece| piece.iter().copied()).collect();
            let within = |place: u64| usize::try_from(place - first).unwrap_or(usize::MAX);
            let bytes = joined.get(within(*begin)..within(*end));
            let bytes = bytes.ok_or_else(|| damaged("a piece of it is short"))?;
            let mutation = Mutation::decode(bytes);
            mutations.push(mutation.map_err(|error| damaged(&chain(&error)))?);
        }
        Ok(puts(&mutations, keys))
    }

    async fn records(
        &self,
        versions: &BTreeSet<Version>,
    ) -> Result<BTreeMap<Version, Record>, HistoryError> {
        let mut found = BTreeMap::new();
        let mut single = Vec::new();
        let mut rest = versions.clone();
        while let Some(from) = rest.pop_first() {
            let page_end = Version(from.0.saturating_add(PAGE_RECORDS_MAX as u64));
            let near = rest.range(..page_end).count() + 1;
            if near < PAGE_WORTH {
                single.push(from);
                continue;
            }
            let page = self.parts.source.log.read(from).await;
            let page = page.map_err(|error| HistoryError::Log(chain(&error)))?;
            let wanted = page.records.into_iter();
            let wanted = wanted.filter(|record| versions.contains(&record.version));
            let before = found.len();
            for record in wanted {
                rest.remove(&record.version);
                found.insert(record.version, record);
            }
            if found.len() == before {
                // The copy that answered does not have it: the leader may.
                single.push(from);
            }
        }
        let log = &self.parts.source.log;
        let asked = stream::iter(single)
            .map(|version| async move {
                let record = log.get(version).await;
                let record = record.map_err(|error| HistoryError::Log(chain(&error)))?;
                record.ok_or(HistoryError::Trimmed(version))
            })
            .buffered(ASKED_MAX);
        let asked: Vec<Record> = asked.try_collect().await?;
        found.extend(asked.into_iter().map(|record| (record.version, record)));
        self.check_records(&found)?;
        Ok(found)
    }

    fn check_records(&self, records: &BTreeMap<Version, Record>) -> Result<(), HistoryError> {
        let index = self.read();
        for (version, record) in records {
            let is = super::index::Check::of(&record.event);
            if index.check(*version) != Some(is) {
                let reason = "it is not the event that was applied".to_owned();
                return Err(HistoryError::Damaged(*version, reason));
            }
        }
        Ok(())
    }
}

/// What these mutations give those entities.
fn puts(mutations: &[Mutation], keys: &BTreeSet<Key>) -> BTreeMap<Key, Body> {
    let own = |mutation: &Mutation| {
        let key = mutation.key();
        let body = mutation.body().filter(|_| keys.contains(&key)).cloned()?;
        Some((key, body))
    };
    mutations.iter().filter_map(own).collect()
}
