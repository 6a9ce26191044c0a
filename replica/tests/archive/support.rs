//! An author that appends signed events, and snapshots of what it wrote.

use crate::common::next_event;
use serde_json::json;
use sluice_replica::archive::{About, Archive, Extent, export};
use sluice_replica::audit::{Copies, Report, audit};
use sluice_replica::environment::{Environment, Surroundings};
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::embedded::Embedded;
use sluice_replica::log::{Append, ChunkUse, Source};
use sluice_replica::snapshot::{Cutter, Root, Terms};
use sluice_schema::entity::{Body, Id, Key, KindName, Workspace};
use sluice_schema::event::{Actor, Event, Mutation};
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Time, Version};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const NOW: u64 = 1_790_000_000_000_000;

/// A clock that stands still, and chance that counts: what is made with it is the same in every run.
#[derive(Debug, Default)]
struct Fixed(AtomicU64);

impl Surroundings for Fixed {
    fn now(&self) -> Time {
        Time(NOW)
    }

    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        for (byte, value) in bytes.iter_mut().rev().zip(count.iter().rev()) {
            *byte = *value;
        }
    }

    fn threads(&self) -> bool {
        false
    }
}

pub(crate) fn environment() -> Environment {
    Environment::new(Arc::new(Fixed::default()))
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

pub(crate) fn stranger() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

pub(crate) fn trusted() -> TrustedKeys {
    key().trusted()
}

pub(crate) fn put(number: u128, content: &str) -> Mutation {
    let (kind, workspace) = (KindName::known("service"), Workspace::DEFAULT);
    let key = Key {
        kind,
        workspace,
        id: Id(Uuid::from_u128(number)),
    };
    Mutation::put(
        key,
        Body::encode(json!({ "name": content }).as_object().unwrap()),
    )
}

/// More than fits into an event.
pub(crate) fn put_many(from: u128) -> Vec<Mutation> {
    (from..from + 1_200)
        .map(|number| put(number, &format!("{number:01000}")))
        .collect()
}

/// What a control plane is to a log.
pub(crate) struct Author {
    pub(crate) source: Source,
    pub(crate) state: State,
    pub(crate) key: SigningKey,
    pub(crate) epoch: Epoch,
    _directory: TempDir,
}

impl Author {
    /// With an empty log.
    pub(crate) fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            source: Embedded::open(directory.path()).unwrap(),
            state: State::default(),
            key: key(),
            epoch: Epoch(Uuid::from_u128(7)),
            _directory: directory,
        }
    }

    /// With a log that has its genesis.
    pub(crate) async fn new() -> Self {
        let mut author = Self::empty();
        author.append(vec![]).await;
        author
    }

    /// With a log of some events, among them a large transaction.
    pub(crate) async fn with_history() -> Self {
        let mut author = Self::new().await;
        author.append(vec![put(1, "a"), put(2, "a")]).await;
        author.append(put_many(100)).await;
        author.append(vec![put(1, "b")]).await;
        author
    }

    pub(crate) fn version(&self) -> Version {
        self.state.version()
    }

    /// The next event, and its message.
    pub(crate) fn next(&self, mutations: Vec<Mutation>) -> (Event, Append) {
        let event = next_event(&self.state, self.epoch, mutations);
        let bytes = event.encode().bytes;
        let append = Append {
            subject: "default.service.x".into(),
            id: event.id,
            signature: self.key.sign_event(event.cursor(&bytes).chain),
            event: bytes.into(),
        };
        (event, append)
    }

    pub(crate) async fn append(&mut self, mutations: Vec<Mutation>) {
        let (event, append) = self.next(mutations);
        for (hash, piece) in &event.encode().chunks {
            let put = self
                .source
                .chunks
                .put(ChunkUse::Transaction, *hash, piece)
                .await;
            put.unwrap();
        }
        let version = self.version();
        self.state = self.state.apply(&event, &append.event).unwrap().0;
        self.source.log.append(version, vec![append]).await.unwrap();
    }

    pub(crate) async fn cut(&self) -> Root {
        let mut cutter = Cutter::new(Uuid::from_u128(3), environment());
        let (chunks, trusted) = (&*self.source.chunks, self.key.trusted());
        let cut = cutter.cut(chunks, &self.state, &self.key, &trusted).await;
        cut.unwrap().root
    }

    pub(crate) async fn audit(&self) -> Report {
        audit_of(&self.source, &trusted()).await
    }
}

pub(crate) async fn audit_of(source: &Source, trusted: &TrustedKeys) -> Report {
    let report = audit(source, trusted, Copies::Any, &mut |_| {}).await;
    report.unwrap()
}

/// The terms of a founding by the author's key.
pub(crate) fn terms() -> Terms {
    Terms {
        key: key(),
        charter_key: key(),
        trusted: trusted(),
        actor: Actor::default(),
        reason: "a test".into(),
        after: Epoch::default(),
        environment: environment(),
    }
}

pub(crate) fn about() -> About<'static> {
    About {
        cluster: "main".into(),
        made: Time(NOW),
        software: "a test".into(),
        key: None,
        trusted: None,
    }
}

/// The bytes of an export.
pub(crate) async fn exported(source: &Source, extent: Extent) -> Vec<u8> {
    let written = export(source, extent, &about(), Vec::new(), &mut |_, _| {}).await;
    written.unwrap().2
}

pub(crate) fn opened(directory: &Path, bytes: &[u8]) -> Arc<Archive> {
    let path = directory.join("archive");
    std::fs::write(&path, bytes).unwrap();
    Arc::new(Archive::open(&path).unwrap())
}
