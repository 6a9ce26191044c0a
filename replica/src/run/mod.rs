//! The loop that does what [`Follow`] decides: reads, applies, syncs, reports.
//!
//! Order of an apply: store (checked and staged), then the sink (a DP's table, a CP's state), then the cursor, then the
//! status. What is staged is saved and synced a little later, many changes at a time, and shows as `durable` when it is
//! done: docs/decisions/0003. A snapshot goes the same way, in parts that nobody sees before the last: `loading`.

mod applying;
mod fold;
mod loading;
mod resolve;
mod ring;
mod saving;

pub use fold::{FoldError, fold_log};

use crate::environment::Environment;
use crate::follow::{Action, Alarm, Follow, Input, Phase};
use crate::keys::{Keychain, TrustedKeys};
use crate::log::{Interest, LogError, Page, Source, StoredRoot, TailItem};
use crate::node::{Head, HeadError, SyncMode};
use crate::snapshot::Root;
use crate::store::good::Refreshed;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use futures::stream::BoxStream;
use loading::Loading;
pub use resolve::{ResolveError, resolve};
use saving::SAVE_DELAY;
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key, KindName};
use sluice_schema::event::EventId;
use sluice_schema::trace::TraceContext;
use sluice_schema::version::{Cursor, Time, Version};
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TICK: Duration = Duration::from_millis(200);
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(500);

/// Where applied changes go.
pub trait Sink: Send {
    /// Takes up a change set. Called in order; `cursor` and `digest` are those after it. `events` are the
    /// events it is made of; empty if the change set repairs a divergence.
    fn change(&mut self, cursor: Cursor, digest: Digest, changes: &[Change], events: &[Arrival]);

    /// Takes a part of a larger change set, which nobody is to see before [`Sink::commit`].
    fn stage(&mut self, changes: &[Change]);

    /// Shows what was staged, with everything that was not changed.
    fn commit(&mut self, cursor: Cursor, digest: Digest);

    /// Forgets what was staged.
    fn abandon(&mut self);

    /// Starts over with a whole state, ordered by key.
    fn reload(
        &mut self,
        cursor: Cursor,
        digest: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    );
}

/// An event of a change set, and when it came by where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Its name.
    pub id: EventId,
    /// The cursor after it.
    pub cursor: Cursor,
    /// When a control plane decided it, by that one's clock.
    pub decided: Time,
    /// When its message came here.
    pub received: Time,
    /// When the local store had taken it in.
    pub stored: Time,
    /// The span that appended it, if its trace is recorded.
    pub trace: Option<TraceContext>,
    /// How many entities it is about.
    pub entities: u64,
    /// Their kind, if it is one.
    pub kind: Option<KindName>,
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
    /// Since when it has been without a break.
    pub connected_since: Option<Instant>,
    /// The highest version that somebody waits for, as far as heads of this life of the log have said.
    pub asked: Version,
    /// The newest head, and when it came.
    pub head: Option<(Head, Instant)>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// Settings of a replica.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose events are believed, now and later.
    pub keychain: Keychain,
    /// How changes are taken up.
    pub sync: SyncMode,
    /// What to subscribe to.
    pub interest: Interest,
    /// Where node reports go, if they are subscribed to.
    pub reports: Option<mpsc::Sender<Bytes>>,
    /// Where verified heads go as well, if somebody wants to know who announces them.
    pub heads: Option<mpsc::Sender<Head>>,
    /// The clock and the threads.
    pub environment: Environment,
}

/// A replica that follows the log.
pub struct Replica {
    source: Source,
    store: Store,
    follow: Follow,
    trusted: watch::Receiver<TrustedKeys>,
    options: Options,
    sink: Box<dyn Sink>,
    status: watch::Sender<Status>,
    /// Woken to read the log although no live event says so.
    look: Arc<Notify>,
    /// When the last message with events came.
    received: Time,
    /// When to save and sync, if there is something to.
    save_at: Option<Instant>,
    /// The sync that is under way, if any.
    syncing: Option<BoxFuture<'static, (Version, Result<(), StoreError>)>>,
    reading: Option<BoxFuture<'static, (Version, Result<Page, LogError>)>>,
    finding: Option<BoxFuture<'static, Result<Vec<StoredRoot>, LogError>>>,
    loading: Option<Loading>,
    /// A look for a newer keyring, and when the last one began.
    ring: Option<BoxFuture<'static, Result<Vec<StoredRoot>, LogError>>>,
    ring_looked: Option<Instant>,
    /// The last known good copy that is being written, if any.
    copying: Option<BoxFuture<'static, Result<Refreshed, StoreError>>>,
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
        let (cursor, durable) = (store.cursor(), store.durable());
        let mut trusted = options.keychain.watch();
        let follow = Follow::new(cursor, trusted.borrow_and_update().clone(), options.sync);
        let status = watch::Sender::new(Status {
            cursor,
            digest: store.digest(),
            entities: store.len(),
            durable,
            phase: follow.phase(),
            seen: cursor.version,
            connected: false,
            connected_since: None,
            asked: Version::ZERO,
            head: None,
            last_error: None,
        });
        Self {
            source,
            store,
            follow,
            trusted,
            options,
            sink,
            status,
            look: Arc::default(),
            received: Time::default(),
            save_at: (durable < cursor.version).then(|| Instant::now() + SAVE_DELAY),
            syncing: None,
            reading: None,
            finding: None,
            loading: None,
            ring: None,
            ring_looked: None,
            copying: None,
        }
    }

    /// Makes it read the log when woken: for who knows of an event that has not come.
    pub fn looker(&self) -> Arc<Notify> {
        self.look.clone()
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
        let look = self.look.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let reading = OptionFuture::from(self.reading.as_mut());
            let save_at = self.save_at.filter(|_| self.syncing.is_none());
            let syncing = OptionFuture::from(self.syncing.as_mut());
            let finding = OptionFuture::from(self.finding.as_mut());
            let ring = OptionFuture::from(self.ring.as_mut());
            let copying = OptionFuture::from(self.copying.as_mut());
            let loading = OptionFuture::from(self.loading.as_mut().map(Loading::next));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some((version, result)) = syncing => {
                    self.syncing = None;
                    self.take_synced(version, result);
                }
                () = sleep_until(save_at) => self.save_now(),
                Some(copied) = copying => {
                    self.copying = None;
                    self.take_copied(copied);
                }
                _ = tick.tick() => {
                    self.step(Input::Tick).await;
                    self.copy_if_due();
                }
                () = look.notified() => self.step(Input::Look).await,
                Some((from, page)) = reading => {
                    self.reading = None;
                    self.take_page(from, page).await;
                }
                // Whoever changes the keys may be gone; then they stay as they are.
                Ok(()) = self.trusted.changed() => {
                    let trusted = self.trusted.borrow_and_update().clone();
                    self.step(Input::Trust(trusted)).await;
                }
                Some(roots) = ring => {
                    self.ring = None;
                    self.take_ring(roots);
                }
                Some(roots) = finding => {
                    self.finding = None;
                    self.take_roots(roots).await;
                }
                Some(part) = loading => self.take_part(part).await,
                item = tail.next() => match item {
                    Some(item) => self.take_item(item).await,
                    None => match self.subscribe(&shutdown).await {
                        Some(again) => tail = again,
                        None => break,
                    },
                },
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
                biased;
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(SUBSCRIBE_RETRY) => {}
            }
        }
    }

    async fn take_item(&mut self, item: TailItem) {
        match item {
            TailItem::Record(record) => {
                self.received = self.options.environment.now();
                self.step(Input::Tail(record)).await;
            }
            TailItem::Head(message) => self.take_head(&message).await,
            TailItem::Report(message) => {
                if let Some(reports) = &self.options.reports {
                    // A report that finds no room is followed by a newer one within a second.
                    let _ = reports.try_send(message);
                }
            }
            TailItem::Connected => {
                tracing::info!("connected to the log");
                self.status.send_modify(|status| {
                    status.connected = true;
                    status.connected_since = Some(Instant::now());
                });
                self.step(Input::Connected).await;
            }
            TailItem::Disconnected => {
                tracing::warn!("lost the connection to the log; serving what is here");
                self.status.send_modify(|status| {
                    status.connected = false;
                    status.connected_since = None;
                });
                self.step(Input::Disconnected).await;
            }
            TailItem::Warning(text) => {
                tracing::warn!(text, "the broker warns");
                self.status
                    .send_modify(|status| status.last_error = Some(text));
            }
        }
    }

    /// Whose events are believed as of now.
    fn trusted(&self) -> TrustedKeys {
        self.trusted.borrow().clone()
    }

    async fn take_head(&mut self, message: &[u8]) {
        let trusted = self.trusted();
        let head = match Head::open(message, &trusted) {
            Ok(head) => head,
            Err(error) => {
                // Its key may be in a ring that has not come here yet.
                if matches!(error, HeadError::Untrusted(_)) {
                    self.look_for_ring();
                }
                return self.note(&error);
            }
        };
        if head.ring > trusted.ring_serial() {
            self.look_for_ring();
        }
        let arrived = Some((head.clone(), Instant::now()));
        self.status.send_modify(|status| {
            status.head = arrived;
            if head.epoch == status.cursor.epoch {
                status.asked = status.asked.max(head.asks);
            }
        });
        if let Some(heads) = &self.options.heads {
            // A head that finds no room is followed by a newer one within a second.
            let _ = heads.try_send(head.clone());
        }
        self.step(Input::Head(self.addressed(head))).await;
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

    async fn take_roots(&mut self, stored: Result<Vec<StoredRoot>, LogError>) {
        let input = match stored {
            Ok(stored) => Input::Snapshots(Root::open_all(&stored, &self.trusted())),
            Err(error) => {
                self.note(&error);
                Input::FindFailed
            }
        };
        self.step(input).await;
    }

    async fn take_page(&mut self, from: Version, page: Result<Page, LogError>) {
        self.received = self.options.environment.now();
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
                    Action::FindSnapshot => {
                        let chunks = self.source.chunks.clone();
                        self.finding = Some(async move { chunks.roots().await }.boxed());
                    }
                    Action::Load(root) => inputs.extend(self.begin_load(*root)),
                    Action::Refold => inputs.push_back(self.refold().await),
                    Action::Alarm(alarm) => self.raise(&alarm),
                }
            }
        }
        self.publish();
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
                tracing::error!(%version, "the state differs from its author's; repairing it");
                format!("diverged at version {version}")
            }
            Alarm::NewEpoch(cursor) => {
                tracing::warn!(epoch = %cursor.epoch, version = %cursor.version, "the log has begun a new life, with a valid charter; taking up its state");
                format!(
                    "took up epoch {} at version {}",
                    cursor.epoch, cursor.version
                )
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
            if status.cursor.epoch != cursor.epoch {
                status.asked = Version::ZERO;
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
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
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
