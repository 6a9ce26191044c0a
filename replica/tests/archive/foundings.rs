//! A founding, cut off anywhere, leaves nothing that a second one does not put right.

use super::support::{Author, audit_of, environment, exported, key, opened, stranger, terms};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use sluice_replica::archive::Extent;
use sluice_replica::keys::{Role, SigningKey, TrustedKeys};
use sluice_replica::log::{
    Append, AppendError, Bounds, ChunkUse, Chunks, Durability, Interest, Log, LogError, Page,
    Record, Source, StoredRoot, TailItem,
};
use sluice_replica::snapshot::{Cutter, FoundError, Root, Terms, found};
use sluice_schema::event::Event;
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Epoch, Time, Version};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// What happens to the operation at which it breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Break {
    /// It does not happen.
    Before,
    /// It happens, and nobody is told.
    After,
}

/// A log whose writes break off at one of them: whoever writes crashes there.
#[derive(Debug)]
struct Breaking {
    inner: Source,
    left: AtomicU64,
    how: Break,
}

impl Breaking {
    fn source(inner: &Source, after: u64, how: Break) -> (Source, Arc<Self>) {
        let breaking = Arc::new(Self {
            inner: inner.clone(),
            left: AtomicU64::new(after),
            how,
        });
        let source = Source {
            log: breaking.clone(),
            chunks: breaking.clone(),
        };
        (source, breaking)
    }

    /// Whether the next write happens, and whether it is told.
    fn next(&self) -> (bool, bool) {
        let left = self.left.load(Ordering::SeqCst);
        match left {
            0 => (false, false),
            1 => {
                self.left.store(0, Ordering::SeqCst);
                (self.how == Break::After, false)
            }
            _ => {
                self.left.store(left - 1, Ordering::SeqCst);
                (true, true)
            }
        }
    }

    fn alive(&self) -> bool {
        self.left.load(Ordering::SeqCst) > 0
    }
}

fn gone() -> LogError {
    LogError::Unusable("cut off".into())
}

#[async_trait]
impl Log for Breaking {
    async fn append(&self, expected: Version, events: Vec<Append>) -> Result<(), AppendError> {
        let (happens, told) = self.next();
        if happens {
            self.inner.log.append(expected, events).await?;
        }
        told.then_some(()).ok_or(AppendError::Refused(gone()))
    }

    async fn read(&self, from: Version) -> Result<Page, LogError> {
        self.inner.log.read(from).await
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        if !self.alive() {
            return Err(gone());
        }
        self.inner.log.get(version).await
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.inner.log.bounds().await
    }

    async fn trim(&self, first: Version) -> Result<(), LogError> {
        self.inner.log.trim(first).await
    }

    async fn tail(&self, interest: Interest) -> Result<BoxStream<'static, TailItem>, LogError> {
        self.inner.log.tail(interest).await
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

#[async_trait]
impl Chunks for Breaking {
    async fn put(&self, part: ChunkUse, hash: Hash32, content: &[u8]) -> Result<(), LogError> {
        let (happens, told) = self.next();
        if happens {
            self.inner.chunks.put(part, hash, content).await?;
        }
        told.then_some(()).ok_or_else(gone)
    }

    async fn get(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        self.inner.chunks.get(part, hash).await
    }

    async fn put_root(&self, name: &str, root: &[u8]) -> Result<(), LogError> {
        let (happens, told) = self.next();
        if happens {
            self.inner.chunks.put_root(name, root).await?;
        }
        told.then_some(()).ok_or_else(gone)
    }

    async fn roots(&self) -> Result<Vec<StoredRoot>, LogError> {
        self.inner.chunks.roots().await
    }

    async fn remove_root(&self, name: &str) -> Result<(), LogError> {
        self.inner.chunks.remove_root(name).await
    }

    async fn list(&self, part: ChunkUse) -> Result<BTreeSet<Hash32>, LogError> {
        self.inner.chunks.list(part).await
    }

    async fn remove(&self, part: ChunkUse, hash: Hash32, before: Time) -> Result<bool, LogError> {
        self.inner.chunks.remove(part, hash, before).await
    }
}

#[tokio::test]
async fn a_founding_cut_off_at_any_write_is_put_right_by_the_next() {
    let mut cut_off = 0;
    for how in [Break::Before, Break::After] {
        for writes in 1.. {
            let author = Author::with_history().await;
            let (source, breaking) = Breaking::source(&author.source, writes, how);
            let first = found(&source, &author.state, &terms()).await;
            if breaking.alive() {
                assert!(first.is_ok());
                break;
            }
            cut_off += 1;
            assert!(first.is_err(), "{how:?} write {writes}");
            let second = found(&author.source, &author.state, &terms())
                .await
                .unwrap();
            let report = audit_of(&author.source, &key().trusted()).await;
            assert_eq!(report.fault(), None, "{how:?} write {writes}: {report:?}");
            let current = report.current().unwrap();
            assert_eq!(current.epoch, second.root.cursor.epoch);
            let state = report.state.unwrap();
            assert_eq!(state.digest(), author.state.digest());
            assert_eq!(state.cursor(), second.root.cursor);
            let version = second.root.cursor.version;
            assert!(state.iter().all(|(_, entry)| entry.version == version));
        }
    }
    // Chunks, event and root, each in both ways.
    assert!(cut_off >= 6, "{cut_off}");
}

#[tokio::test]
async fn each_epoch_is_later_than_all_before_it_whatever_the_clock_says() {
    let author = Author::with_history().await;
    let mut before = author.state.epoch();
    for _ in 0..3 {
        // The clock of these terms stands still.
        let founded = found(&author.source, &author.state, &terms())
            .await
            .unwrap();
        assert!(founded.root.cursor.epoch > before);
        before = founded.root.cursor.epoch;
    }
    let far = Epoch(Uuid::from_u128(0xff << 112));
    let terms = Terms {
        after: far,
        ..terms()
    };
    let founded = found(&author.source, &author.state, &terms).await.unwrap();
    assert!(founded.root.cursor.epoch > far);
}

#[tokio::test]
async fn nothing_is_done_with_keys_that_nobody_would_believe() {
    let author = Author::with_history().await;
    for terms in [
        Terms {
            key: stranger(),
            ..terms()
        },
        Terms {
            charter_key: stranger(),
            ..terms()
        },
    ] {
        let founded = found(&author.source, &author.state, &terms).await;
        assert!(matches!(founded, Err(FoundError::Keys(_))), "{founded:?}");
    }
    assert_eq!(author.source.log.bounds().await.unwrap().last, Version(4));
    assert!(author.source.chunks.roots().await.unwrap().is_empty());
}

#[tokio::test]
async fn where_a_root_key_is_pinned_it_alone_gives_charters() {
    let author = Author::with_history().await;
    let root = SigningKey::from_seed([3; 32]);
    let trusted = TrustedKeys::of([
        key().public(Role::ControlPlane, "cp"),
        root.public(Role::Root, "root"),
    ]);
    let by = |charter_key: SigningKey| Terms {
        charter_key,
        trusted: trusted.clone(),
        ..terms()
    };
    let refused = found(&author.source, &author.state, &by(key())).await;
    assert!(matches!(refused, Err(FoundError::Keys(_))), "{refused:?}");
    found(&author.source, &author.state, &by(root))
        .await
        .unwrap();
    let report = audit_of(&author.source, &trusted).await;
    assert_eq!(report.fault(), None);
    assert!(report.current().unwrap().chartered);
    // Who has pinned no root does not believe the root's word.
    let report = audit_of(&author.source, &key().trusted()).await;
    assert!(report.fault().is_some());
}

#[tokio::test]
async fn a_log_made_anew_is_founded_from_an_archive_of_the_old_one() {
    let old = Author::with_history().await;
    let directory = tempfile::tempdir().unwrap();
    let archive = opened(directory.path(), &exported(&old.source, Extent::All).await);
    let state = audit_of(&archive.source(), &key().trusted())
        .await
        .state
        .unwrap();
    let new = Author::empty();
    let founded = found(&new.source, &state, &terms()).await.unwrap();
    assert_eq!(
        (founded.previous, founded.root.cursor.version),
        (Version::ZERO, Version(1))
    );
    let record = new.source.log.get(Version(1)).await.unwrap().unwrap();
    assert!(Event::decode(&record.event).unwrap().is_founding());
    let report = audit_of(&new.source, &key().trusted()).await;
    assert_eq!(report.fault(), None, "{report:?}");
    assert_eq!(report.state.unwrap().digest(), old.state.digest());
}

#[tokio::test]
async fn a_later_snapshot_keeps_the_charter_of_its_epoch() {
    let author = Author::with_history().await;
    let founded = found(&author.source, &author.state, &terms())
        .await
        .unwrap();
    let stored = author.source.chunks.roots().await.unwrap();
    let root = Root::open_all(&stored, &key().trusted()).pop().unwrap();
    assert!(root.chartered);
    assert_eq!(root.cursor, founded.root.cursor);
    // Somebody who has just started does not know it.
    let state = author.state.rewritten_at(root.cursor.version);
    let entities = state
        .iter()
        .map(|(key, entry)| (key.clone(), entry.clone()));
    let state = sluice_schema::state::State::restore(root.cursor, entities);
    let mut cutter = Cutter::new(Uuid::from_u128(5), environment());
    let chunks = &*author.source.chunks;
    let cut = cutter
        .cut(chunks, &state, &key(), &key().trusted())
        .await
        .unwrap();
    assert_eq!(cut.root.charter, root.charter);
    assert_eq!(cut.written, 0);
}
