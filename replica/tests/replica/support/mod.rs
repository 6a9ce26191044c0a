//! An author that appends signed events, a log that is tampered with, and a replica that is watched.

mod shelf;

pub(crate) use shelf::{Fault, Shelf};

use crate::common::next_event;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::json;
use sluice_replica::environment::Environment;
use sluice_replica::keys::{Keychain, SigningKey};
use sluice_replica::log::embedded::Embedded;
use sluice_replica::log::{
    Append, AppendError, Bounds, ChunkUse, Durability, Interest, Log, LogError, Page, Record,
    Source, TailItem,
};
use sluice_replica::node::{Head, SnapshotReference, SyncMode};
use sluice_replica::run::{Arrival, Options, Replica, Sink, Status};
use sluice_replica::snapshot::{Cutter, Root};
use sluice_replica::store::{Store, StoreError};
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Body, Change, Entry, Id, Key, KindName, Workspace};
use sluice_schema::event::{Actor, Event, EventId, Mutation};
use sluice_schema::state::State;
use sluice_schema::version::{Chain, Cursor, Epoch, Time, Version};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than anything here takes.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The log's first life.
pub(crate) fn first_life() -> Epoch {
    Epoch(Uuid::from_u128(7))
}

/// A later one.
pub(crate) fn later_life() -> Epoch {
    Epoch(Uuid::from_u128(8))
}

pub(crate) fn key(number: u128) -> Key {
    let (kind, workspace) = (KindName::known("service"), Workspace::DEFAULT);
    Key {
        kind,
        workspace,
        id: Id(Uuid::from_u128(number)),
    }
}

pub(crate) fn put(number: u128, content: &str) -> Mutation {
    Mutation::put(
        key(number),
        Body::encode(json!({ "name": content }).as_object().unwrap()),
    )
}

/// 1,200 of them are more than fits into an event.
pub(crate) fn put_large(number: u128) -> Mutation {
    put(number, &format!("{number:01000}"))
}

pub(crate) fn remove(number: u128) -> Mutation {
    Mutation::Delete(key(number))
}

/// What a control plane is to a log.
pub(crate) struct Author {
    pub(crate) source: Source,
    pub(crate) state: State,
    pub(crate) key: SigningKey,
    epoch: Epoch,
    _directory: TempDir,
}

impl Author {
    /// With a log that has its genesis.
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Embedded::open(directory.path()).unwrap();
        Self::begin(source, directory).await
    }

    /// Likewise, with chunks on a shelf.
    pub(crate) async fn with_shelf() -> (Self, Arc<Shelf>) {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::new());
        let source = Source {
            chunks: shelf.clone(),
            ..Embedded::open(directory.path()).unwrap()
        };
        (Self::begin(source, directory).await, shelf)
    }

    async fn begin(source: Source, directory: TempDir) -> Self {
        let mut author = Self {
            source,
            state: State::default(),
            key: SigningKey::from_seed([1; 32]),
            epoch: first_life(),
            _directory: directory,
        };
        author.append(vec![]).await;
        author
    }

    /// The log is lost, and made again: it goes on from the state, in a later life. The chunks stay.
    pub(crate) async fn found(self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Source {
            chunks: self.source.chunks.clone(),
            ..Embedded::open(directory.path()).unwrap()
        };
        let before = self.version();
        let signature = self.key.sign_event(Chain::ZERO);
        let id = EventId(Uuid::from_u128(u128::from(before.0)));
        let filler = Append {
            subject: "default.service.x".into(),
            id,
            event: Bytes::from_static(b"filler"),
            signature,
        };
        let count = usize::try_from(before.0).unwrap();
        let fillers = vec![filler.clone(); count];
        source.log.append(Version::ZERO, fillers).await.unwrap();
        let founding = Event {
            previous: before,
            previous_chain: Chain::ZERO,
            digest: self.state.digest(),
            ..Event::genesis(later_life(), id, Time(1), Actor::default())
        };
        let event = Bytes::from(founding.encode().bytes);
        let cursor = founding.cursor(&event);
        let signature = self.key.sign_event(cursor.chain);
        let append = Append {
            event,
            signature,
            ..filler
        };
        source.log.append(before, vec![append]).await.unwrap();
        source.log.trim(before.next()).await.unwrap();
        Self {
            source,
            state: State::restore(cursor, entities(&self.state)),
            epoch: later_life(),
            _directory: directory,
            ..self
        }
    }

    /// Cuts a snapshot, as a control plane that has just started.
    pub(crate) async fn cut(&self, charter: Option<Bytes>) -> Root {
        let mut cutter = Cutter::new(Uuid::nil(), Environment::system());
        let (chunks, trusted) = (&*self.source.chunks, self.key.trusted());
        let cut = cutter.cut(chunks, &self.state, &self.key, &trusted);
        let mut root = cut.await.unwrap().root;
        if charter.is_some() {
            root.charter = charter;
            let sealed = root.seal(&self.key);
            chunks.put_root(&root.name(), &sealed).await.unwrap();
        }
        root
    }

    pub(crate) async fn trim(&self, first: Version) {
        self.source.log.trim(first).await.unwrap();
    }

    pub(crate) async fn announce(&self, snapshot: Option<&Root>) {
        let cursor = self.state.cursor();
        let head = Head {
            epoch: cursor.epoch,
            version: cursor.version,
            chain: cursor.chain,
            first: self.source.log.bounds().await.unwrap().first,
            time: Time(1),
            announcer: Uuid::nil(),
            sync: SyncMode::Incremental,
            ring: 0,
            asks: Version::ZERO,
            snapshot: snapshot.map(|root| SnapshotReference {
                version: root.cursor.version,
                entities: root.entities,
                bytes: root.bytes,
            }),
        };
        let message = head.seal(&self.key);
        self.source.log.announce(message).await.unwrap();
    }

    pub(crate) fn version(&self) -> Version {
        self.state.version()
    }

    /// Appends an event, and gives it back as it is in the log.
    pub(crate) async fn append(&mut self, mutations: Vec<Mutation>) -> Event {
        let version = self.version();
        let event = next_event(&self.state, self.epoch, mutations);
        let encoded = event.encode();
        for (hash, piece) in &encoded.chunks {
            self.source
                .chunks
                .put(ChunkUse::Transaction, *hash, piece)
                .await
                .unwrap();
        }
        self.state = self.state.apply(&event, &encoded.bytes).unwrap().0;
        let append = Append {
            subject: "default.service.x".into(),
            id: event.id,
            event: encoded.bytes.clone().into(),
            signature: self.key.sign_event(self.state.chain()),
        };
        self.source.log.append(version, vec![append]).await.unwrap();
        Event::decode(&encoded.bytes).unwrap()
    }

    pub(crate) fn assert_is(&self, status: &Status) {
        assert_eq!(
            (status.cursor, status.digest),
            (self.state.cursor(), self.state.digest())
        );
        assert_eq!(status.entities, self.state.len() as u64);
    }

    /// Stops the node and checks that its store holds the author's state.
    pub(crate) async fn assert_kept(&self, node: Node) {
        let directory = node.stop().await;
        let opened = Store::open(&directory.path().join("store")).unwrap();
        assert_eq!(opened.moved_aside, None);
        assert_eq!(opened.store.cursor(), self.state.cursor());
        assert_eq!(opened.store.digest(), self.state.digest());
    }
}

/// All entities of a state, in order.
pub(crate) fn entities(state: &State) -> Vec<(Key, Entry)> {
    let all = state.iter();
    all.map(|(key, entry)| (key.clone(), entry.clone()))
        .collect()
}

/// What a sink was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// Ids of entities, versions of events.
    Change {
        version: u64,
        ids: Vec<u128>,
        events: Vec<u64>,
    },
    Reload {
        version: u64,
        ids: Vec<u128>,
    },
    Stage {
        ids: Vec<u128>,
    },
    Commit {
        version: u64,
    },
    Abandon,
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Sink for Recorder {
    fn change(&mut self, cursor: Cursor, _: Digest, changes: &[Change], events: &[Arrival]) {
        let ids = changes
            .iter()
            .map(|change| change.key.id.0.as_u128())
            .collect();
        let events = events.iter().map(|event| event.cursor.version.0).collect();
        let version = cursor.version.0;
        self.0.lock().unwrap().push(Seen::Change {
            version,
            ids,
            events,
        });
    }

    fn stage(&mut self, changes: &[Change]) {
        let ids = changes.iter().map(|change| change.key.id.0.as_u128());
        let ids = ids.collect();
        self.0.lock().unwrap().push(Seen::Stage { ids });
    }

    fn commit(&mut self, cursor: Cursor, _: Digest) {
        let version = cursor.version.0;
        self.0.lock().unwrap().push(Seen::Commit { version });
    }

    fn abandon(&mut self) {
        self.0.lock().unwrap().push(Seen::Abandon);
    }

    fn reload(
        &mut self,
        cursor: Cursor,
        _: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    ) {
        let ids = entities.map(|(key, _)| key.id.0.as_u128()).collect();
        self.0.lock().unwrap().push(Seen::Reload {
            version: cursor.version.0,
            ids,
        });
    }
}

/// A running replica.
pub(crate) struct Node {
    directory: TempDir,
    status: watch::Receiver<Status>,
    recorder: Recorder,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), StoreError>>,
}

impl Node {
    pub(crate) fn start(source: &Source, author: &Author, sync: SyncMode) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), source, author, sync)
    }

    pub(crate) fn start_as(interest: Interest, source: &Source, author: &Author) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::launch(directory, source, author, SyncMode::Incremental, interest)
    }

    pub(crate) fn start_in(
        directory: TempDir,
        source: &Source,
        author: &Author,
        sync: SyncMode,
    ) -> Self {
        Self::launch(directory, source, author, sync, Interest::Follow)
    }

    fn launch(
        directory: TempDir,
        source: &Source,
        author: &Author,
        sync: SyncMode,
        interest: Interest,
    ) -> Self {
        let store = Store::open(&directory.path().join("store")).unwrap().store;
        let keychain = Keychain::fixed(author.key.trusted());
        let options = Options {
            keychain,
            sync,
            interest,
            reports: None,
            heads: None,
            environment: Environment::system(),
        };
        let recorder = Recorder::default();
        let replica = Replica::new(source.clone(), store, Box::new(recorder.clone()), options);
        let (status, shutdown) = (replica.status(), CancellationToken::new());
        let running = tokio::spawn(replica.run(shutdown.clone()));
        Self {
            directory,
            status,
            recorder,
            shutdown,
            running,
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.recorder.0.lock().unwrap().clone()
    }

    pub(crate) async fn until(&self, wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.status.clone();
        let found = tokio::time::timeout(WAIT_MAX, status.wait_for(wanted)).await;
        match found {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("still {:?}", self.status()),
        }
    }

    /// Stops it and gives back the directory of its store.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        tokio::time::timeout(WAIT_MAX, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.directory
    }
}

/// A log with something between it and the replica.
#[derive(Clone, Debug)]
pub(crate) struct Tampered {
    inner: Source,
    /// The version whose record has another signature when it is read.
    forged: Option<Version>,
    /// Whether live messages are lost.
    deaf: Arc<AtomicBool>,
    injected: broadcast::Sender<TailItem>,
}

impl Tampered {
    pub(crate) fn new(inner: &Source) -> Self {
        let injected = broadcast::Sender::new(16);
        Self {
            inner: inner.clone(),
            forged: None,
            deaf: Arc::default(),
            injected,
        }
    }

    pub(crate) fn forging(inner: &Source, version: Version) -> Self {
        Self {
            forged: Some(version),
            ..Self::new(inner)
        }
    }

    pub(crate) fn source(&self) -> Source {
        Source {
            log: Arc::new(self.clone()),
            chunks: self.inner.chunks.clone(),
        }
    }

    pub(crate) fn deafen(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    pub(crate) fn inject(&self, item: TailItem) {
        self.injected.send(item).unwrap();
    }

    fn spoil(&self, mut record: Record) -> Record {
        if Some(record.version) == self.forged {
            let event = Event::decode(&record.event).unwrap();
            let chain = event.cursor(&record.event).chain;
            record.signature = Some(SigningKey::from_seed([2; 32]).sign_event(chain));
        }
        record
    }
}

#[async_trait]
impl Log for Tampered {
    async fn append(&self, expected: Version, events: Vec<Append>) -> Result<(), AppendError> {
        self.inner.log.append(expected, events).await
    }

    async fn read(&self, from: Version) -> Result<Page, LogError> {
        let page = self.inner.log.read(from).await?;
        let records = page
            .records
            .into_iter()
            .map(|record| self.spoil(record))
            .collect();
        Ok(Page { records, ..page })
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        Ok(self
            .inner
            .log
            .get(version)
            .await?
            .map(|record| self.spoil(record)))
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.inner.log.bounds().await
    }

    async fn trim(&self, first: Version) -> Result<(), LogError> {
        self.inner.log.trim(first).await
    }

    async fn tail(&self, interest: Interest) -> Result<BoxStream<'static, TailItem>, LogError> {
        let deaf = self.deaf.clone();
        let heard = move |item: &TailItem| {
            let lost = deaf.load(Ordering::SeqCst) && matches!(item, TailItem::Record(_));
            std::future::ready(!lost)
        };
        let live = self.inner.log.tail(interest).await?.filter(heard);
        let injected = futures::stream::unfold(self.injected.subscribe(), |mut items| async {
            items.recv().await.ok().map(|item| (item, items))
        });
        Ok(futures::stream::select(live, injected).boxed())
    }

    async fn announce(&self, head: Bytes) -> Result<(), LogError> {
        self.inner.log.announce(head).await
    }

    async fn report(&self, node: &str, report: Bytes) -> Result<(), LogError> {
        self.inner.log.report(node, report).await
    }

    async fn durability(&self) -> Durability {
        self.inner.log.durability().await
    }
}
