//! Founding: a state becomes the beginning of a new life of the log.
//!
//! The order of the steps is what makes a crash between any two of them harmless: chunks, which mean nothing by
//! themselves; the founding event, which nobody can follow without a snapshot of exactly that version; the signed root
//! with its charter, which lets everybody come over. A log that was left with a founding event and no root is founded
//! anew behind it. See docs/decisions/0010-epochs.md.

use super::cut::{CutError, write_new};
use super::root::{Charter, Root, RootError};
use crate::environment::Environment;
use crate::keys::{SigningKey, TrustedKeys};
use crate::log::{Append, AppendError, LogError, Source};
use crate::node::{Head, SyncMode};
use bytes::Bytes;
use sluice_schema::chunk::Tree;
use sluice_schema::event::{Actor, Event, EventId};
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Version};
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::{Builder, Uuid};

/// How often the log may move on while it is founded.
const RACES_MAX: u32 = 5;
/// How often an append whose outcome is unknown is looked into.
const LOOKS_MAX: u32 = 20;
const LOOK_PACE: Duration = Duration::from_millis(500);
/// The first 48 bits of a UUID v7 are milliseconds.
const MILLIS_MAX: u64 = (1 << 48) - 1;
/// The subject of founding events, before the epoch.
const SUBJECT: &str = "default.founding";

/// Who founds, why, and on whose word.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Signs the founding event and the snapshot: a control plane's key.
    pub key: SigningKey,
    /// Signs the charter: a root key, or a control plane's where no root is pinned.
    pub charter_key: SigningKey,
    /// Who must believe both.
    pub trusted: TrustedKeys,
    /// Who asks for it.
    pub actor: Actor,
    /// Why.
    pub reason: String,
    /// An epoch that is known besides those the log shows; the new one is later.
    pub after: Epoch,
    /// The clock and chance.
    pub environment: Environment,
}

/// A new life of the log.
#[derive(Clone, Debug)]
pub struct Founded {
    /// The snapshot it begins with.
    pub root: Root,
    /// The last version before it.
    pub previous: Version,
    /// Chunks written.
    pub written: usize,
}

/// Why the log has no new life. Whatever was done by then is harmless: the same can be asked for again.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// Nobody would take it up. Nothing was done.
    #[error("{0}; nothing was done")]
    Keys(String),
    /// Log or chunk store cannot be used now.
    #[error("could not found a new epoch; asking again is harmless")]
    Log(#[from] LogError),
    /// The chunks could not be made or stored.
    #[error("could not store the state; asking again is harmless")]
    Cut(#[from] CutError),
    /// The event was not stored.
    #[error("could not append the founding event; asking again is harmless")]
    Append(#[source] AppendError),
    /// Somebody else founds a new life at the same time.
    #[error("somebody else has founded a new epoch at version {0}; look at what came of it first")]
    Contested(Version),
    /// Somebody keeps appending.
    #[error("the log keeps moving on; stop whoever writes to it")]
    Busy,
    /// The clock or an epoch is beyond all bounds.
    #[error("there is no epoch after {0}")]
    NoEpoch(Epoch),
}

/// Begins a new life of the log with `state`. When this returns, everybody who follows the log can take it up.
///
/// # Errors
/// See [`FoundError`].
pub async fn found(source: &Source, state: &State, terms: &Terms) -> Result<Founded, FoundError> {
    check_keys(terms)?;
    for _ in 0..RACES_MAX {
        let bounds = source.log.bounds().await?;
        let previous = bounds.last;
        let epoch = next_epoch(source, state.epoch(), previous, terms).await?;
        let state = state.rewritten_at(previous.next());
        let (tree, written) = store(source, &state, &terms.environment).await?;
        let event = founding_event(epoch, previous, &state, terms);
        let cursor = event.cursor(&event.encode().bytes);
        // Control planes that have not noticed yet stop writing: one whose version happens to be the next would spoil it.
        announce(source, terms, cursor, bounds.first).await;
        match append(source, &event, terms).await? {
            Outcome::Stored => {}
            Outcome::Lost => continue,
        }
        let root = put_root(source, cursor, &state, &tree, terms).await?;
        announce(source, terms, cursor, bounds.first).await;
        return Ok(Founded {
            root,
            previous,
            written,
        });
    }
    Err(FoundError::Busy)
}

/// Refuses early what everybody would refuse later.
fn check_keys(terms: &Terms) -> Result<(), FoundError> {
    let (key, charter_key) = (terms.key.id(), terms.charter_key.id());
    if !terms.trusted.may_sign(key) {
        return Err(FoundError::Keys(format!(
            "the trusted keys do not have the signing key {key} as one that may append"
        )));
    }
    let charter = charter(Epoch::default(), terms);
    match Charter::open(&charter, &terms.trusted) {
        Ok(_) => Ok(()),
        Err(RootError::Untrusted(_) | RootError::Codec(_)) => Err(FoundError::Keys(format!(
            "the trusted keys do not let key {charter_key} give a charter: a root key must (--root-key)"
        ))),
    }
}

fn charter(epoch: Epoch, terms: &Terms) -> Bytes {
    let charter = Charter {
        epoch,
        time: terms.environment.now(),
        reason: terms.reason.clone(),
    };
    charter.seal(&terms.charter_key)
}

/// An epoch later than any that is known.
async fn next_epoch(
    source: &Source,
    own: Epoch,
    last: Version,
    terms: &Terms,
) -> Result<Epoch, FoundError> {
    let mut seen = own.max(terms.after);
    if let Some(record) = source.log.get(last).await?
        && let Ok(event) = Event::decode(&record.event)
    {
        seen = seen.max(event.epoch);
    }
    let stored = source.chunks.roots().await?;
    let roots = Root::open_all(&stored, &terms.trusted);
    seen = roots
        .iter()
        .fold(seen, |seen, root| seen.max(root.cursor.epoch));
    epoch_after(seen, &terms.environment).ok_or(FoundError::NoEpoch(seen))
}

fn epoch_after(seen: Epoch, environment: &Environment) -> Option<Epoch> {
    let now = Epoch(environment.ordered_uuid());
    if now > seen {
        return Some(now);
    }
    let millis = u64::try_from(seen.0.as_u128() >> 80).ok()? + 1;
    let chance = environment.seed();
    let chance = chance.first_chunk::<10>()?;
    let later = Builder::from_unix_timestamp_millis(millis, chance).into_uuid();
    (millis <= MILLIS_MAX).then_some(Epoch(later))
}

/// Stores the state's chunks.
async fn store(
    source: &Source,
    state: &State,
    environment: &Environment,
) -> Result<(Tree, usize), CutError> {
    let chunked = state.clone();
    let built = environment
        .blocking(move || match Tree::build(&chunked, &mut |_, _| {}) {
            Ok(tree) => tree,
            Err(never) => match never {},
        })
        .await;
    let tree = built.map_err(|_| CutError::Chunking)?;
    let (written, _) = write_new(&*source.chunks, state, &tree, &BTreeSet::new()).await?;
    Ok((tree, written))
}

fn founding_event(epoch: Epoch, previous: Version, state: &State, terms: &Terms) -> Event {
    let Terms {
        environment,
        actor,
        reason,
        ..
    } = terms;
    let id = EventId(environment.ordered_uuid());
    let (now, actor) = (environment.now(), actor.clone());
    Event {
        reason: Some(reason.clone()),
        ..Event::founding(epoch, previous, state.digest(), id, now, actor)
    }
}

enum Outcome {
    Stored,
    /// The log has moved on.
    Lost,
}

async fn append(source: &Source, event: &Event, terms: &Terms) -> Result<Outcome, FoundError> {
    let bytes: Bytes = event.encode().bytes.into();
    let message = Append {
        subject: format!("{SUBJECT}.{}", event.epoch),
        id: event.id,
        signature: terms.key.sign_event(event.cursor(&bytes).chain),
        event: bytes,
    };
    for _ in 0..LOOKS_MAX {
        match source
            .log
            .append(event.previous, vec![message.clone()])
            .await
        {
            Ok(()) => return Ok(Outcome::Stored),
            // After an unknown outcome, what the log holds may be this very event.
            Err(AppendError::Conflict { .. }) => return judge(source, event).await,
            Err(error @ AppendError::Refused(_)) => return Err(FoundError::Append(error)),
            Err(AppendError::Unknown { source: reason, .. }) => {
                tracing::warn!(%reason, "the outcome of the append is unknown; looking");
            }
        }
        tokio::time::sleep(LOOK_PACE).await;
        // Without an answer the same bytes are sent again.
        if let Ok(Some(_)) = source.log.get(event.version()).await {
            return judge(source, event).await;
        }
    }
    let expected = event.previous;
    let reason = LogError::Unavailable("no answer".into());
    Err(FoundError::Append(AppendError::Unknown {
        expected,
        source: reason,
    }))
}

/// Whose event the log has where ours was to be.
async fn judge(source: &Source, event: &Event) -> Result<Outcome, FoundError> {
    let record = source.log.get(event.version()).await?;
    match record.map(|record| Event::decode(&record.event)) {
        Some(Ok(found)) if found.id == event.id => Ok(Outcome::Stored),
        Some(Ok(found)) if found.begins() => Err(FoundError::Contested(event.version())),
        Some(Ok(_) | Err(_)) | None => Ok(Outcome::Lost),
    }
}

async fn put_root(
    source: &Source,
    cursor: Cursor,
    state: &State,
    tree: &Tree,
    terms: &Terms,
) -> Result<Root, FoundError> {
    let made = (terms.environment.now(), Uuid::nil());
    let root = Root {
        charter: Some(charter(cursor.epoch, terms)),
        chartered: true,
        ..Root::of(state, cursor, tree, made)
    };
    let sealed = root.seal(&terms.key);
    source.chunks.put_root(&root.name(), &sealed).await?;
    Ok(root)
}

/// Tells everybody who listens; whoever does not hear it finds out from the log.
async fn announce(source: &Source, terms: &Terms, cursor: Cursor, first: Version) {
    let head = Head {
        epoch: cursor.epoch,
        version: cursor.version,
        chain: cursor.chain,
        first,
        time: terms.environment.now(),
        announcer: Uuid::nil(),
        sync: SyncMode::Incremental,
        ring: terms.trusted.ring_serial(),
        asks: Version::ZERO,
        snapshot: None,
    };
    if let Err(error) = source.log.announce(head.seal(&terms.key)).await {
        tracing::debug!(%error, "could not announce the new epoch");
    }
}
