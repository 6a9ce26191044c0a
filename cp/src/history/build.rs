//! Building the index: reads the log from its first version up to what this control plane has applied, and then whatever
//! it applies.
//!
//! What is read is not checked by signatures again but by the chain: the index counts as whole only where its chain is the
//! one that the replica, which checks everything, has reached at the same version.

use super::History;
use super::index::{Check, Digested, Touched, name_hash};
use crate::view::View;
use sluice_replica::log::{LogError, Record, Source};
use sluice_replica::run::{ResolveError, chain, resolve};
use sluice_schema::codec::CodecError;
use sluice_schema::entity::{Key, KindName};
use sluice_schema::event::{Event, Mutation, Mutations, StoredMutations};
use sluice_schema::kind::Kind;
use sluice_schema::version::{Cursor, Version};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two attempts after something went wrong.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Why the index does not grow now.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("could not read the log")]
    Log(#[source] LogError),
    #[error("could not decode event {0}")]
    Codec(Version, #[source] CodecError),
    #[error("could not read a large transaction")]
    Resolve(#[source] ResolveError),
    #[error("version {0} is not in the log, or not readable yet")]
    Missing(Version),
    #[error("the log has another event at version {0} than the one that was applied")]
    Other(Version),
    #[error(transparent)]
    Full(#[from] super::index::Full),
    #[error("a part of it failed")]
    Aborted(#[source] tokio::task::JoinError),
}

impl BuildError {
    /// Whether it is usual for a moment: copies of the broker lag, and connections are lost.
    fn passes(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Log(_) => true,
            Self::Codec(..)
            | Self::Resolve(_)
            | Self::Other(_)
            | Self::Full(_)
            | Self::Aborted(_) => false,
        }
    }
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// All that had been applied is in the index.
    Whole(Cursor),
    /// There is more.
    More,
}

/// Keeps the index up with what is applied, until `shutdown`.
pub(super) async fn run(history: History, source: Source, view: View, shutdown: CancellationToken) {
    let mut status = view.watch();
    let mut warned = false;
    loop {
        let step = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            step = step(&history, &source, &view) => step,
        };
        match step {
            Ok(Step::More) => {}
            Ok(Step::Whole(indexed)) => {
                warned = false;
                let changed = async {
                    // Before looking, so that no move is missed.
                    status.mark_unchanged();
                    while view.state().cursor() == indexed && !is_trimmed(&history, &view) {
                        if status.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                };
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = changed => {}
                }
            }
            Err(error) => {
                let reason = chain(&error);
                match error.passes() || warned {
                    true => tracing::debug!(reason, "the history waits"),
                    false => {
                        warned = true;
                        tracing::warn!(reason, "could not index the history; trying again");
                    }
                }
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(RETRY_DELAY) => {}
                }
            }
        }
    }
}

/// Whether the log begins later than the index.
fn is_trimmed(history: &History, view: &View) -> bool {
    let head = view.status().head;
    let index = history.read();
    let same = |epoch| epoch == index.epoch() && !index.is_empty();
    head.is_some_and(|(head, _)| same(head.epoch) && head.first > index.first())
}

/// Takes a page of the log.
async fn step(history: &History, source: &Source, view: &View) -> Result<Step, BuildError> {
    if is_trimmed(history, view) {
        history.reset();
    }
    let applied = view.state().cursor();
    if applied.version == Version::ZERO {
        return Ok(Step::Whole(applied));
    }
    let (empty, last, reached) = {
        let index = history.read();
        let cursor = Cursor {
            epoch: index.epoch(),
            version: index.last(),
            chain: index.chain(),
        };
        (index.is_empty(), index.last(), cursor)
    };
    if !empty && last >= applied.version {
        if reached == applied {
            history.anchored(reached);
            return Ok(Step::Whole(applied));
        }
        history.reset();
        return match last == applied.version {
            true => Err(BuildError::Other(last)),
            // A new life of the log may begin lower.
            false => Ok(Step::More),
        };
    }
    let from = if empty { Version::GENESIS } else { last.next() };
    take_page(history, source, from, applied).await?;
    Ok(Step::More)
}

async fn take_page(
    history: &History,
    source: &Source,
    from: Version,
    applied: Cursor,
) -> Result<(), BuildError> {
    let page = source.log.read(from).await.map_err(BuildError::Log)?;
    let records = page.records.into_iter();
    let records: Vec<Record> = records
        .filter(|record| record.version <= applied.version)
        .collect();
    if records.is_empty() {
        return Err(BuildError::Missing(from));
    }
    let digested = digest_all(source, records).await?;
    match take(history, &digested)? {
        None => Ok(()),
        Some(missing) => {
            // Either it has been trimmed meanwhile, or the copy that answered lags.
            let bounds = source.log.bounds().await.map_err(BuildError::Log)?;
            if bounds.first > missing {
                history.reset();
            }
            Err(BuildError::Missing(missing))
        }
    }
}

/// Takes events up to one that is missing before the next, which it gives back.
fn take(history: &History, events: &[Digested]) -> Result<Option<Version>, BuildError> {
    let mut index = history.write();
    for event in events {
        let next = index.last().next();
        let done = match index.fits(event) {
            true => index.push(event).map_err(BuildError::Full),
            false if event.version > next => return Ok(Some(next)),
            false => Err(BuildError::Other(event.version)),
        };
        if let Err(error) = done {
            drop(index);
            history.reset();
            return Err(error);
        }
    }
    drop(index);
    history.grown();
    Ok(None)
}

/// Decodes a page beside the tasks that answer.
async fn digest_all(source: &Source, records: Vec<Record>) -> Result<Vec<Digested>, BuildError> {
    let decode = move || {
        let one = |record: Record| match Event::decode(&record.event) {
            Ok(event) => Ok((record, event)),
            Err(error) => Err(BuildError::Codec(record.version, error)),
        };
        records.into_iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let decoded = aside(decode).await??;
    let mut whole = Vec::with_capacity(decoded.len());
    for (record, event) in decoded {
        let stored = match &event.mutations {
            Mutations::Inline(_) => None,
            Mutations::Stored(stored) => Some(stored.clone()),
        };
        let resolved = resolve(&*source.chunks, event).await;
        whole.push((record, resolved.map_err(BuildError::Resolve)?, stored));
    }
    aside(move || {
        let all = whole.iter();
        all.map(|(record, event, stored)| digest(record, event, stored.as_ref()))
            .collect()
    })
    .await
}

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BuildError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(BuildError::Aborted)
}

fn digest(record: &Record, event: &Event, stored: Option<&StoredMutations>) -> Digested {
    let mutations = match &event.mutations {
        Mutations::Inline(mutations) => mutations.as_slice(),
        Mutations::Stored(_) => &[],
    };
    Digested {
        version: record.version,
        epoch: event.epoch,
        begins: event.begins(),
        is_founding: stored.is_none() && event.is_founding(),
        previous_chain: event.previous_chain,
        chain: event.previous_chain.extend(&record.event),
        check: Check::of(&record.event),
        time: event.time,
        actor: event.actor.name.clone(),
        reason: event.reason.clone(),
        touches: mutations.iter().map(touched).collect(),
        places: stored.and_then(|stored| stored.places(mutations)),
    }
}

fn touched(mutation: &Mutation) -> Touched {
    let key = mutation.key();
    let fields = mutation.body().and_then(|body| body.fields().ok());
    let names = fields
        .map(|fields| names(&key, &fields))
        .unwrap_or_default();
    let gone = mutation.body().is_none();
    Touched { key, names, gone }
}

/// Hashes of what the entity can be found by: its endpoint key and what is shown as its name.
fn names(key: &Key, fields: &serde_json::Map<String, serde_json::Value>) -> Vec<u64> {
    let Key {
        kind, workspace, ..
    } = key;
    let endpoint_key = |kind: &KindName| Kind::from_name(kind.as_str())?.schema().endpoint_key;
    let by_path = endpoint_key(kind).and_then(|field| fields.get(field)?.as_str());
    let shown = crate::admin::name_of(fields);
    let hash = |name: &str| name_hash(kind.as_str(), workspace.as_str(), name);
    let mut names: Vec<u64> = by_path.into_iter().chain(shown).map(hash).collect();
    names.dedup();
    names
}
