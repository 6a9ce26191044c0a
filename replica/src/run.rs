//! The loop that does what [`Follow`] decides: reads, applies, syncs, reports.
//!
//! Order of an apply: store (checked and staged), then the sink (a DP's table, a CP's state), then the cursor, then the
//! status. What is staged is saved and synced a little later, many changes at a time, and shows as `durable` when it is
//! done: docs/decisions/0003.

use crate::follow::{Action, Alarm, Follow, Fork, Input, Phase, Verified};
use crate::keys::TrustedKeys;
use crate::log::{Interest, LogError, Page, Source, TailItem};
use crate::node::{Head, SyncMode};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use futures::stream::BoxStream;
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::event::{Event, EventId, Mutations, StoredError};
use sluice_schema::state::{ApplyError, State};
use sluice_schema::version::{Cursor, Version};
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const TICK: Duration = Duration::from_millis(200);
/// How long a change may wait to be saved and synced together with others: both cost many times what a change does.
const SAVE_DELAY: Duration = Duration::from_millis(100);
/// Staged entities after which they are saved at once.
const STAGED_SAVE: usize = 4096;
/// Staged entities after which nothing more is applied before they are saved: the disk refuses.
const STAGED_MAX: usize = 200_000;
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(500);

/// Where applied changes go.
pub trait Sink: Send {
    /// Takes up a change set. Called in order; `cursor` and `digest` are those after it. `events` are the ids of the
    /// events it is made of, with their versions; empty if the change set repairs a divergence.
    fn change(
        &mut self,
        cursor: Cursor,
        digest: Digest,
        changes: &[Change],
        events: &[(EventId, Version)],
    );

    /// Starts over with a whole state, ordered by key.
    fn reload(
        &mut self,
        cursor: Cursor,
        digest: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    );
}

/// What a replica is and does, for status pages, reports and waiters.
#[derive(Clone, Debug)]
pub struct Status {
    /// What is active.
    pub cursor: Cursor,
    /// Its digest.
    pub digest: Digest,
    /// How many entities that is.
    pub entities: u64,
    /// The version that is synced to disk.
    pub durable: Version,
    /// What the replica is doing.
    pub phase: Phase,
    /// The highest version known to exist.
    pub seen: Version,
    /// Whether the log is connected.
    pub connected: bool,
    /// The newest head, and when it came.
    pub head: Option<(Head, Instant)>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// Settings of a replica.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose events are believed.
    pub trusted: TrustedKeys,
    /// How changes are taken up.
    pub sync: SyncMode,
    /// What to subscribe to.
    pub interest: Interest,
    /// Where node reports go, if they are subscribed to.
    pub reports: Option<mpsc::Sender<Bytes>>,
    /// Where verified heads go as well, if somebody wants to know who announces them.
    pub heads: Option<mpsc::Sender<Head>>,
}

/// A replica that follows the log.
pub struct Replica {
    source: Source,
    store: Store,
    follow: Follow,
    options: Options,
    sink: Box<dyn Sink>,
    status: watch::Sender<Status>,
    /// When to save and sync, if there is something to.
    save_at: Option<tokio::time::Instant>,
    /// The sync that is under way, if any.
    syncing: Option<tokio::task::JoinHandle<(Version, Result<(), StoreError>)>>,
    reading: Option<BoxFuture<'static, (Version, Result<Page, LogError>)>>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("cursor", &self.follow.cursor())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// A replica of `source` that begins with what `store` holds. The sink must already hold the same.
    pub fn new(source: Source, store: Store, sink: Box<dyn Sink>, options: Options) -> Self {
        let cursor = store.cursor();
        let follow = Follow::new(cursor, options.trusted.clone(), options.sync);
        let status = watch::Sender::new(Status {
            cursor,
            digest: store.digest(),
            entities: store.len(),
            durable: cursor.version,
            phase: follow.phase(),
            seen: cursor.version,
            connected: false,
            head: None,
            last_error: None,
        });
        Self {
            source,
            store,
            follow,
            options,
            sink,
            status,
            save_at: None,
            syncing: None,
            reading: None,
        }
    }

    /// Follows what the replica does.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Runs until `shutdown`. Ends with everything applied also synced.
    ///
    /// # Errors
    /// If the store cannot be synced at the end.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let Some(mut tail) = self.subscribe(&shutdown).await else {
            return Ok(());
        };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let reading = OptionFuture::from(self.reading.as_mut());
            let save_at = self.save_at.filter(|_| self.syncing.is_none());
            let syncing = OptionFuture::from(self.syncing.as_mut());
            tokio::select! {
                item = tail.next() => match item {
                    Some(item) => self.take_item(item).await,
                    None => match self.subscribe(&shutdown).await {
                        Some(again) => tail = again,
                        None => break,
                    },
                },
                Some((from, page)) = reading => {
                    self.reading = None;
                    self.take_page(from, page).await;
                }
                () = sleep_until(save_at) => self.save_now(),
                Some(synced) = syncing => {
                    self.syncing = None;
                    if let Ok((version, result)) = synced {
                        self.take_synced(version, result);
                    }
                }
                _ = tick.tick() => self.step(Input::Tick).await,
                () = shutdown.cancelled() => break,
            }
        }
        if let Some(syncing) = self.syncing.take() {
            let _ = syncing.await;
        }
        self.store.save()?;
        self.store.syncer().sync()
    }

    async fn subscribe(
        &mut self,
        shutdown: &CancellationToken,
    ) -> Option<BoxStream<'static, TailItem>> {
        loop {
            match self.source.log.tail(self.options.interest).await {
                Ok(tail) => return Some(tail),
                Err(error) => self.note(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(SUBSCRIBE_RETRY) => {}
                () = shutdown.cancelled() => return None,
            }
        }
    }

    async fn take_item(&mut self, item: TailItem) {
        match item {
            TailItem::Record(record) => self.step(Input::Tail(record)).await,
            TailItem::Head(message) => match Head::open(&message, &self.options.trusted) {
                Ok(head) => {
                    let arrived = Some((head.clone(), Instant::now()));
                    self.status.send_modify(|status| status.head = arrived);
                    if let Some(heads) = &self.options.heads {
                        // A head that finds no room is followed by a newer one within a second.
                        let _ = heads.try_send(head.clone());
                    }
                    self.step(Input::Head(self.addressed(head))).await;
                }
                Err(error) => self.note(&error),
            },
            TailItem::Report(message) => {
                if let Some(reports) = &self.options.reports {
                    // A report that finds no room is followed by a newer one within a second.
                    let _ = reports.try_send(message);
                }
            }
            TailItem::Connected => {
                tracing::info!("connected to the log");
                self.status.send_modify(|status| status.connected = true);
                self.step(Input::Connected).await;
            }
            TailItem::Disconnected => {
                tracing::warn!("lost the connection to the log; serving what is here");
                self.status.send_modify(|status| status.connected = false);
                self.step(Input::Disconnected).await;
            }
            TailItem::Warning(text) => {
                tracing::warn!(text, "the broker warns");
                self.status
                    .send_modify(|status| status.last_error = Some(text));
            }
        }
    }

    /// A head as it concerns this replica: how changes are taken up is asked of data planes only.
    fn addressed(&self, head: Head) -> Head {
        match self.options.interest {
            Interest::Follow => head,
            Interest::FollowAndReports => Head {
                sync: SyncMode::Incremental,
                ..head
            },
        }
    }

    async fn take_page(&mut self, from: Version, page: Result<Page, LogError>) {
        let input = match page {
            Ok(page) => Input::Page { from, page },
            Err(error) => {
                self.note(&error);
                Input::ReadFailed
            }
        };
        self.step(input).await;
    }

    /// Feeds one input to the state machine and does what it asks for, until it asks for nothing that ends at once.
    async fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.follow.step(input) {
                match action {
                    Action::Read(from) => {
                        let log = self.source.log.clone();
                        let read = async move { (from, log.read(from).await) };
                        self.reading = Some(read.boxed());
                    }
                    Action::Apply(events) => inputs.push_back(self.apply(events).await),
                    Action::Rebuild => inputs.push_back(self.rebuild().await),
                    Action::Alarm(alarm) => self.raise(&alarm),
                }
            }
        }
        self.publish();
    }

    async fn apply(&mut self, events: Vec<Verified>) -> Input {
        let mut resolved = Vec::with_capacity(events.len());
        for verified in events {
            match resolve(&self.source, verified.event).await {
                Ok(event) => resolved.push((event, verified.cursor)),
                Err(error) => {
                    self.note(&error);
                    return Input::ApplyFailed;
                }
            }
        }
        if self.store.staged() > STAGED_MAX
            && let Err(error) = self.store.save()
        {
            self.note(&error);
            return Input::ApplyFailed;
        }
        match self
            .store
            .stage(resolved.iter().map(|(event, cursor)| (event, *cursor)))
        {
            Ok(changes) => {
                let events: Vec<_> = resolved
                    .iter()
                    .map(|(event, cursor)| (event.id, cursor.version))
                    .collect();
                self.sink
                    .change(self.store.cursor(), self.store.digest(), &changes, &events);
                if self.store.staged() >= STAGED_SAVE {
                    self.save_now();
                } else {
                    self.save_later();
                }
                Input::Applied
            }
            Err(error) => {
                self.note(&error);
                match error {
                    StoreError::Apply(ApplyError::Diverged { version, .. }) => {
                        Input::Diverged(version)
                    }
                    StoreError::Apply(
                        ApplyError::OutOfOrder { .. } | ApplyError::Unresolved(_),
                    )
                    | StoreError::Io { .. }
                    | StoreError::Damaged(_) => Input::ApplyFailed,
                }
            }
        }
    }

    async fn rebuild(&mut self) -> Input {
        let state = match fold_log(&self.source, &self.options.trusted).await {
            Ok(state) => state,
            Err(error) => {
                self.note(&error);
                return match error {
                    RebuildError::Fork(fork) => Input::RebuildForked(fork),
                    RebuildError::Apply(ApplyError::Diverged { version, .. }) => {
                        Input::Diverged(version)
                    }
                    RebuildError::Apply(
                        ApplyError::OutOfOrder { .. } | ApplyError::Unresolved(_),
                    )
                    | RebuildError::Log(_)
                    | RebuildError::Chunks(_)
                    | RebuildError::Behind(..) => Input::RebuildFailed,
                };
            }
        };
        let cursor = state.cursor();
        if cursor.version < self.store.cursor().version {
            self.note(&RebuildError::Behind(
                cursor.version,
                self.store.cursor().version,
            ));
            return Input::RebuildFailed;
        }
        let entities = state
            .iter()
            .map(|(key, entry)| (key.clone(), entry.clone()));
        match self.store.replace(cursor, entities) {
            Ok(changes) if self.follow.sync() == SyncMode::Incremental => {
                self.sink.change(cursor, state.digest(), &changes, &[]);
            }
            Ok(_) => {
                let mut entities = state
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.clone()));
                self.sink.reload(cursor, state.digest(), &mut entities);
            }
            Err(error) => {
                self.note(&error);
                return Input::RebuildFailed;
            }
        }
        self.save_later();
        Input::Rebuilt(cursor)
    }

    fn save_later(&mut self) {
        self.save_at
            .get_or_insert_with(|| tokio::time::Instant::now() + SAVE_DELAY);
    }

    /// Saves what is staged, and starts a sync if none is under way.
    fn save_now(&mut self) {
        self.save_at = None;
        if self.syncing.is_some() {
            if let Err(error) = self.store.save() {
                self.note(&error);
            }
            return self.save_later();
        }
        match self.store.begin_sync() {
            Ok(syncer) => {
                let version = self.store.cursor().version;
                let sync = move || (version, syncer.sync());
                self.syncing = Some(tokio::task::spawn_blocking(sync));
            }
            Err(error) => {
                self.note(&error);
                self.save_later();
            }
        }
    }

    fn take_synced(&mut self, version: Version, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.status.send_modify(|status| status.durable = version),
            Err(error) => {
                self.note(&error);
                self.save_later();
            }
        }
    }

    fn raise(&self, alarm: &Alarm) {
        let text = match alarm {
            Alarm::Fork(fork) => {
                tracing::error!(
                    %fork,
                    "stopped following the log; the last good configuration stays active"
                );
                format!("stopped following: {fork}")
            }
            Alarm::BadTail { version, reason } => {
                tracing::warn!(%version, %reason, "dropped a live message; reading the log instead");
                format!("dropped a live message that claimed version {version}: {reason}")
            }
            Alarm::Diverged(version) => {
                tracing::error!(%version, "the state differs from its author's; rebuilding it from the log");
                format!("diverged at version {version}")
            }
        };
        self.status
            .send_modify(|status| status.last_error = Some(text));
    }

    fn note(&self, error: &dyn StdError) {
        let text = chain(error);
        tracing::warn!(error = %text, "could not follow the log; trying again");
        self.status
            .send_modify(|status| status.last_error = Some(text));
    }

    fn publish(&self) {
        let phase = self.follow.phase();
        let (cursor, seen) = (self.follow.cursor(), self.follow.seen());
        self.status.send_if_modified(|status| {
            let same = status.cursor == cursor && status.phase == phase && status.seen == seen;
            if same {
                return false;
            }
            if phase == Phase::Following && status.phase != Phase::Following {
                tracing::info!(version = %cursor.version, "caught up");
            }
            status.cursor = cursor;
            status.digest = self.store.digest();
            status.entities = self.store.len();
            status.seen = seen;
            status.phase = phase;
            true
        });
    }
}

/// Pending for ever without a time.
async fn sleep_until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// An event whose mutations are inline, fetched from the chunk store if need be.
async fn resolve(source: &Source, event: Event) -> Result<Event, ResolveError> {
    let Mutations::Stored(stored) = &event.mutations else {
        return Ok(event);
    };
    let mut joined = Vec::new();
    for hash in &stored.chunks {
        let piece = source.chunks.get(*hash).await.map_err(ResolveError::Log)?;
        let piece = piece.ok_or(ResolveError::Missing(event.version()))?;
        joined.extend_from_slice(&piece);
        if joined.len() as u64 > stored.bytes {
            return Err(ResolveError::Stored(StoredError::Hash));
        }
    }
    let mutations = Mutations::Inline(stored.open(&joined).map_err(ResolveError::Stored)?);
    Ok(Event { mutations, ..event })
}

/// Why the mutations of a large transaction are not here.
#[derive(Debug, thiserror::Error)]
enum ResolveError {
    #[error("could not read the mutations of a large transaction")]
    Log(#[source] LogError),
    #[error("the mutations of version {0} are missing from the chunk store")]
    Missing(Version),
    #[error("the mutations of a large transaction are not the ones that were signed")]
    Stored(#[source] StoredError),
}

/// Why a state cannot be folded from the log.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log cannot be read now.
    #[error("could not read the log")]
    Log(#[source] LogError),
    /// The log is not to be followed.
    #[error("the log cannot be followed: {0}")]
    Fork(Fork),
    /// A large transaction is not complete.
    #[error("could not fetch a large transaction: {0}")]
    Chunks(String),
    /// An event does not lead where its author said.
    #[error("could not apply an event")]
    Apply(#[source] ApplyError),
    /// The log ends before what has been applied.
    #[error("the log ends at version {0}, before version {1} that was applied here")]
    Behind(Version, Version),
}

/// Folds the whole log into a state, verifying all of it.
///
/// # Errors
/// If the log cannot be read, or is not a history signed by trusted keys.
pub async fn fold_log(source: &Source, trusted: &TrustedKeys) -> Result<State, RebuildError> {
    let mut follow = Follow::new(Cursor::default(), trusted.clone(), SyncMode::Incremental);
    let mut state = State::default();
    let mut inputs = VecDeque::from([Input::Connected]);
    while let Some(input) = inputs.pop_front() {
        for action in follow.step(input) {
            match action {
                Action::Read(from) => {
                    let page = source.log.read(from).await.map_err(RebuildError::Log)?;
                    inputs.push_back(Input::Page { from, page });
                }
                Action::Apply(events) => {
                    for Verified { event, record, .. } in events {
                        let event = resolve(source, event)
                            .await
                            .map_err(|error| RebuildError::Chunks(chain(&error)))?;
                        state = state
                            .apply(&event, &record.event)
                            .map_err(RebuildError::Apply)?
                            .0;
                    }
                    inputs.push_back(Input::Applied);
                }
                Action::Alarm(Alarm::Fork(fork)) => return Err(RebuildError::Fork(fork)),
                Action::Alarm(Alarm::BadTail { .. } | Alarm::Diverged(_)) | Action::Rebuild => {}
            }
        }
    }
    Ok(state)
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries already print their cause.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
