//! Snapshots: cut when enough has changed, or when somebody asks; what is no longer needed is removed.
//!
//! Any control plane may cut; two that do so at the same time write the same chunks. Each looks first whether another
//! has been there.

use crate::View;
use sluice_replica::environment::Environment;
use sluice_replica::follow::Phase;
use sluice_replica::keys::{Keychain, RING_NAME, RingError, SigningKey, stored_ring};
use sluice_replica::log::{LogError, Source, StoredRoot};
use sluice_replica::node::SnapshotReference;
use sluice_replica::planted::{Bug, planted};
use sluice_replica::run::chain;
use sluice_replica::snapshot::{Cleaned, Cut, Cutter, Root, clean, clean_transactions, verify};
use sluice_schema::version::{Epoch, Time, Version};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TICK: Duration = Duration::from_secs(5);
/// How long a cut may take; far less than chunks that it relies on are kept for.
const CUT_TIMEOUT: Duration = Duration::from_mins(20);
/// How long it is waited, up to, before a cut that is due: so that not all control planes cut at once.
const TURN_MAX: Duration = Duration::from_secs(4);
const REQUESTS_WAITING_MAX: usize = 16;

/// When snapshots are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Events after which one is due.
    pub events: u64,
    /// Bytes of changed entities after which one is due.
    pub bytes: u64,
    /// How old the newest may be while there is something newer.
    pub age: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            events: 10_000,
            bytes: 64 << 20,
            age: Duration::from_hours(1),
        }
    }
}

/// Why there is no snapshot.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SnapshotError {
    /// There is nothing to cut, or it would not be of the log's state.
    #[error("there is no snapshot to cut: {0}")]
    NotNow(String),
    /// Chunks or root could not be stored.
    #[error("could not cut a snapshot: {0}")]
    Failed(String),
    /// The log cannot be trimmed there.
    #[error("the log cannot be trimmed: {0}")]
    Refused(String),
}

/// A log that was trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trimmed {
    /// The first version it keeps.
    pub first: Version,
    /// Its last.
    pub last: Version,
    /// The snapshot that stands for what is gone.
    pub snapshot: Version,
}

enum Request {
    Cut(oneshot::Sender<Result<Cut, SnapshotError>>),
    Trim(Version, oneshot::Sender<Result<Trimmed, SnapshotError>>),
    List(oneshot::Sender<Result<Vec<Root>, SnapshotError>>),
}

/// Asks for snapshots and knows the newest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    requests: mpsc::Sender<Request>,
    newest: watch::Receiver<Option<Root>>,
}

impl Snapshots {
    /// Cuts a snapshot of the state as it is now.
    ///
    /// # Errors
    /// If this control plane does not follow the log, or the chunk store takes nothing.
    pub async fn cut(&self) -> Result<Cut, SnapshotError> {
        self.ask(Request::Cut).await
    }

    /// Removes the events before version `before`, if a snapshot stands for them.
    ///
    /// # Errors
    /// If none does, or the log cannot do it now.
    pub async fn trim(&self, before: Version) -> Result<Trimmed, SnapshotError> {
        self.ask(|reply| Request::Trim(before, reply)).await
    }

    /// The snapshots that can be believed, newest last.
    ///
    /// # Errors
    /// If they cannot be read now.
    pub async fn list(&self) -> Result<Vec<Root>, SnapshotError> {
        self.ask(Request::List).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, SnapshotError>>) -> Request,
    ) -> Result<T, SnapshotError> {
        let stopping = || SnapshotError::NotNow("the control plane is stopping".into());
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// The newest snapshot that is known here.
    pub fn newest(&self) -> Option<Root> {
        self.newest.borrow().clone()
    }

    /// What a head says of it, if it is of this life of the log.
    pub(crate) fn reference(&self, epoch: Epoch) -> Option<SnapshotReference> {
        let newest = self.newest.borrow();
        let root = newest.as_ref().filter(|root| root.cursor.epoch == epoch)?;
        Some(SnapshotReference {
            version: root.cursor.version,
            entities: root.entities,
            bytes: root.bytes,
        })
    }
}

/// What the task needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) id: Uuid,
    pub(crate) source: Source,
    pub(crate) view: View,
    pub(crate) key: SigningKey,
    pub(crate) keychain: Keychain,
    pub(crate) policy: Policy,
    pub(crate) environment: Environment,
}

/// The handle, and the task that cuts until `shutdown`.
pub(crate) fn start(
    parts: Parts,
    shutdown: CancellationToken,
) -> (
    Snapshots,
    impl Future<Output = anyhow::Result<&'static str>> + Send,
) {
    let (requests, inbox) = mpsc::channel(REQUESTS_WAITING_MAX);
    let (known, newest) = watch::channel(None);
    let task = Task {
        cutter: Cutter::new(parts.id, parts.environment.clone()),
        written_bytes: parts.view.written_bytes(),
        parts,
        known,
    };
    (Snapshots { requests, newest }, task.run(inbox, shutdown))
}

struct Task {
    parts: Parts,
    cutter: Cutter,
    known: watch::Sender<Option<Root>>,
    /// What the view had taken up by the last snapshot.
    written_bytes: u64,
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Request>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<&'static str> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let request = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok("snapshots"),
                Some(request) = inbox.recv() => Some(request),
                _ = tick.tick() => None,
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok("snapshots"),
                () = self.work(request) => {}
            }
        }
    }

    /// Whoever asked may have gone when the answer is there.
    async fn work(&mut self, request: Option<Request>) {
        match request {
            Some(Request::Cut(reply)) => {
                let _ = reply.send(self.cut().await);
            }
            Some(Request::Trim(before, reply)) => {
                let trimmed = self.trim(before).await;
                let worked = trimmed.is_ok();
                let _ = reply.send(trimmed);
                if worked {
                    self.clean_transactions(before).await;
                }
            }
            Some(Request::List(reply)) => {
                let _ = reply.send(self.list().await);
            }
            None => self.cut_if_due().await,
        }
    }

    async fn list(&self) -> Result<Vec<Root>, SnapshotError> {
        let stored = self.parts.source.chunks.roots().await;
        let stored = stored.map_err(|error| SnapshotError::Failed(chain(&error)))?;
        Ok(Root::open_all(&stored, &self.parts.keychain.current()))
    }

    /// Trims the log behind the newest snapshot, after reading all of that.
    async fn trim(&self, before: Version) -> Result<Trimmed, SnapshotError> {
        if let Some(reason) = self.in_the_way() {
            return Err(SnapshotError::NotNow(reason));
        }
        if planted(Bug::TrimmedAhead) {
            let trimmed = self.parts.source.log.trim(before).await;
            return Err(SnapshotError::Refused(format!("{trimmed:?}")));
        }
        let epoch = self.parts.view.state().epoch();
        let newest = self.list().await?.pop();
        let Some(root) = newest.filter(|root| root.cursor.epoch == epoch) else {
            let reason = "there is no snapshot to stand for what would go; cut one first";
            return Err(SnapshotError::Refused(reason.into()));
        };
        let snapshot = root.cursor.version;
        if before.0 > snapshot.0 {
            return Err(SnapshotError::Refused(format!(
                "the newest snapshot is of version {snapshot}, so nothing from there on can go; cut one first"
            )));
        }
        let (source, failed) = (&self.parts.source, |error: &LogError| {
            SnapshotError::Failed(chain(error))
        });
        verify(&*source.chunks, &root, |_, _| {})
            .await
            .map_err(|error| {
                SnapshotError::Refused(format!(
                    "the snapshot of version {snapshot} cannot stand for what would go: {}; cut another",
                    chain(&error)
                ))
            })?;
        source
            .log
            .trim(before)
            .await
            .map_err(|error| failed(&error))?;
        let bounds = source.log.bounds().await.map_err(|error| failed(&error))?;
        tracing::info!(first = %bounds.first, last = %bounds.last, %snapshot, "trimmed the log");
        Ok(Trimmed {
            first: bounds.first,
            last: bounds.last,
            snapshot,
        })
    }

    /// Removes the pieces of large transactions that were trimmed off.
    async fn clean_transactions(&self, first: Version) {
        let parts = &self.parts;
        match clean_transactions(&parts.source, first, parts.environment.now()).await {
            Ok(0) => {}
            Ok(chunks) => tracing::info!(
                chunks,
                "removed pieces of transactions that were trimmed off"
            ),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "could not remove pieces of transactions that were trimmed off");
            }
        }
    }

    /// Looks what others have cut, and cuts if that is too long ago.
    async fn cut_if_due(&mut self) {
        if let Err(error) = self.look().await {
            tracing::debug!(%error, "could not look for snapshots");
            return;
        }
        if !self.is_due() {
            return;
        }
        tokio::time::sleep(TURN_MAX.mul_f64(self.parts.environment.fraction())).await;
        if self.look().await.is_err() || !self.is_due() {
            return;
        }
        if let Err(error) = self.cut().await {
            tracing::warn!(%error, "a snapshot is due");
        }
    }

    async fn look(&mut self) -> Result<(), LogError> {
        let stored = self.parts.source.chunks.roots().await?;
        self.exchange_rings(&stored).await?;
        let newest = Root::open_all(&stored, &self.parts.keychain.current()).pop();
        let before = self.known.borrow().as_ref().map(|root| root.cursor);
        if newest.as_ref().map(|root| root.cursor) != before {
            self.written_bytes = self.parts.view.written_bytes();
            self.known.send_replace(newest);
        }
        Ok(())
    }

    /// Takes up the keyring in the chunk store, or puts the own one there if that is newer: replicas look there.
    async fn exchange_rings(&self, stored: &[StoredRoot]) -> Result<(), LogError> {
        let keychain = &self.parts.keychain;
        let offered = stored_ring(stored).map(|ring| keychain.offer(ring));
        let own_is_newer = match offered {
            Some(Ok(true)) => {
                tracing::info!(
                    serial = keychain.current().ring_serial(),
                    "took up a newer keyring"
                );
                false
            }
            Some(Ok(false)) => false,
            Some(Err(RingError::NotNewer { .. })) | None => true,
            Some(Err(error)) => {
                tracing::warn!(error = %chain(&error), "the keyring in the chunk store is of no use");
                false
            }
        };
        match keychain.ring() {
            Some(ring) if own_is_newer => self.parts.source.chunks.put_root(RING_NAME, &ring).await,
            Some(_) | None => Ok(()),
        }
    }

    fn is_due(&self) -> bool {
        if self.in_the_way().is_some() {
            return false;
        }
        let cursor = self.parts.view.state().cursor();
        let newest = self.known.borrow();
        let (version, time) = match newest.as_ref() {
            Some(root) if root.cursor.epoch == cursor.epoch => (root.cursor.version, root.time),
            Some(_) | None => (Version::ZERO, Time::default()),
        };
        let policy = &self.parts.policy;
        let events = cursor.version.0.saturating_sub(version.0);
        let age = self.parts.environment.now().0.saturating_sub(time.0);
        // The first one waits for events alone: a new log is read in no time.
        let is_old = version > Version::ZERO && u128::from(age) >= policy.age.as_micros();
        let bytes = self.parts.view.written_bytes() - self.written_bytes;
        events >= policy.events || (events > 0 && (bytes >= policy.bytes || is_old))
    }

    /// Why no snapshot can be cut now, if so.
    fn in_the_way(&self) -> Option<String> {
        let status = self.parts.view.status();
        match status.phase {
            Phase::Forked(fork) => Some(format!(
                "this control plane does not follow the log: {fork}"
            )),
            _ if status.cursor.version == Version::ZERO => {
                Some("the log has not been reached".into())
            }
            _ if !self.parts.keychain.current().may_sign(self.parts.key.id()) => {
                Some("this control plane's key may not sign".into())
            }
            Phase::Disconnected | Phase::Loading | Phase::CatchingUp | Phase::Following => None,
        }
    }

    async fn cut(&mut self) -> Result<Cut, SnapshotError> {
        if let Some(reason) = self.in_the_way() {
            return Err(SnapshotError::NotNow(reason));
        }
        let state = self.parts.view.state();
        let written_bytes = self.parts.view.written_bytes();
        let trusted = self.parts.keychain.current();
        let (chunks, parts) = (&*self.parts.source.chunks, &self.parts);
        let cutting = self.cutter.cut(chunks, &state, &parts.key, &trusted);
        let cut = match tokio::time::timeout(CUT_TIMEOUT, cutting).await {
            Ok(Ok(cut)) => cut,
            Ok(Err(error)) => return Err(SnapshotError::Failed(chain(&error))),
            Err(_) => return Err(SnapshotError::Failed("it took too long".into())),
        };
        self.written_bytes = written_bytes;
        self.known.send_replace(Some(cut.root.clone()));
        tracing::info!(version = %cut.root.cursor.version, chunks = cut.chunks, written = cut.written, bytes = cut.written_bytes, "cut a snapshot");
        self.clean().await;
        Ok(cut)
    }

    async fn clean(&self) {
        let parts = &self.parts;
        let cleaned = clean(
            &*parts.source.chunks,
            &parts.keychain.current(),
            parts.environment.now(),
        )
        .await;
        match cleaned {
            Ok(Cleaned {
                roots: 0,
                chunks: 0,
            }) => {}
            Ok(Cleaned { roots, chunks }) => {
                tracing::info!(
                    roots,
                    chunks,
                    "removed snapshots and chunks that nobody needs"
                );
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "could not clean up the chunk store")
            }
        }
    }
}
