//! What a replica does with a log that was begun anew.

use super::support::{Author, key, put, stranger, terms, trusted};
use sluice_replica::environment::Environment;
use sluice_replica::follow::{Action, Alarm, Follow, Fork, Input, Phase};
use sluice_replica::keys::Keychain;
use sluice_replica::log::{Interest, Log, Page, Record};
use sluice_replica::node::SyncMode;
use sluice_replica::run::{Arrival, Options, Replica, Sink, Status, fold_log};
use sluice_replica::snapshot::{Root, found};
use sluice_replica::store::Store;
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::version::{Cursor, Version};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WAIT_MAX: Duration = Duration::from_secs(60);

async fn records(log: &dyn Log) -> Vec<Record> {
    log.read(Version(1)).await.unwrap().records
}

fn page(from: u64, records: &[Record]) -> Input {
    let from = Version(from);
    let records = records.iter().filter(|record| record.version >= from);
    Input::Page {
        from,
        page: Page {
            records: records.cloned().collect(),
            more: false,
            first: None,
        },
    }
}

async fn roots(author: &Author) -> Vec<Root> {
    let stored = author.source.chunks.roots().await.unwrap();
    Root::open_all(&stored, &trusted())
}

fn follow(cursor: Cursor) -> Follow {
    Follow::new(cursor, trusted(), SyncMode::Incremental)
}

#[tokio::test]
async fn a_log_that_begins_with_a_founding_is_a_gap_and_not_a_divergence() {
    let old = Author::with_history().await;
    let new = Author::empty();
    let founded = found(&new.source, &old.state, &terms()).await.unwrap();
    let records = records(&*new.source.log).await;
    let mut fresh = follow(Cursor::default());
    assert_eq!(fresh.step(Input::Connected), [Action::FindSnapshot]);
    // Its root is not there yet.
    assert_eq!(
        fresh.step(Input::Snapshots(vec![])),
        [Action::Read(Version(1))]
    );
    assert_eq!(fresh.step(page(1, &records)), [Action::FindSnapshot]);
    let version = Version(1);
    let fork = Fork::Founded { version };
    let alarm = Action::Alarm(Alarm::Fork(fork.clone()));
    let actions = fresh.step(Input::Snapshots(vec![]));
    assert_eq!(actions, [alarm, Action::FindSnapshot]);
    fresh.step(Input::Snapshots(vec![]));
    assert_eq!(fresh.phase(), Phase::Forked(fork));
    fresh.step(page(1, &records));
    let found = (0..100).any(|_| fresh.step(Input::Tick).contains(&Action::FindSnapshot));
    assert!(found);
    let actions = fresh.step(Input::Snapshots(roots(&new).await));
    assert_eq!(actions, [Action::Load(Box::new(founded.root.clone()))]);
    fresh.step(Input::Loaded(founded.root.cursor));
    fresh.step(page(1, &records));
    assert_eq!(
        (fresh.cursor(), fresh.phase()),
        (founded.root.cursor, Phase::Following)
    );
}

#[tokio::test]
async fn an_empty_replica_begins_with_a_chartered_snapshot_however_small() {
    let author = Author::with_history().await;
    let founded = found(&author.source, &author.state, &terms())
        .await
        .unwrap();
    let mut fresh = follow(Cursor::default());
    fresh.step(Input::Connected);
    let actions = fresh.step(Input::Snapshots(roots(&author).await));
    assert_eq!(actions, [Action::Load(Box::new(founded.root))]);
}

#[tokio::test]
async fn a_live_event_of_a_later_life_makes_a_replica_look_however_low_its_version() {
    let old = Author::with_history().await;
    let all = records(&*old.source.log).await;
    let new = Author::empty();
    found(&new.source, &old.state, &terms()).await.unwrap();
    let founding = records(&*new.source.log).await[0].clone();
    let following = || {
        let mut replica = follow(old.state.cursor());
        replica.step(Input::Connected);
        replica.step(page(4, &all));
        assert_eq!(replica.phase(), Phase::Following);
        replica
    };
    let mut replica = following();
    assert_eq!(
        replica.step(Input::Tail(founding.clone())),
        [Action::Read(Version(4))]
    );
    // What is late, forged or of an earlier life is dropped.
    let mut replica = following();
    let mut forged = founding.clone();
    forged.signature = Some(stranger().sign_event(old.state.chain()));
    assert_eq!(replica.step(Input::Tail(forged)), []);
    assert_eq!(replica.step(Input::Tail(all[1].clone())), []);
    let mut later = follow(Cursor {
        epoch: sluice_schema::version::Epoch(uuid::Uuid::max()),
        ..old.state.cursor()
    });
    later.step(Input::Connected);
    later.step(Input::ReadFailed);
    assert_eq!(later.step(Input::Tail(founding)), []);
}

/// A sink that nobody looks at.
struct Nowhere;

impl Sink for Nowhere {
    fn change(&mut self, _: Cursor, _: Digest, _: &[Change], _: &[Arrival]) {}
    fn stage(&mut self, _: &[Change]) {}
    fn commit(&mut self, _: Cursor, _: Digest) {}
    fn abandon(&mut self) {}
    fn reload(&mut self, _: Cursor, _: Digest, _: &mut dyn Iterator<Item = (Key, Entry)>) {}
}

/// Runs a replica until its status is what is wanted.
async fn until(
    status: &mut tokio::sync::watch::Receiver<Status>,
    what: &str,
    wanted: impl FnMut(&Status) -> bool,
) -> Status {
    let found = tokio::time::timeout(WAIT_MAX, status.wait_for(wanted)).await;
    let found = found.ok().map(|found| found.unwrap().clone());
    found.unwrap_or_else(|| panic!("{what}: still {:?}", status.borrow()))
}

#[tokio::test]
async fn replicas_come_over_to_a_new_epoch_without_a_restart() {
    let mut author = Author::with_history().await;
    let directory = tempfile::tempdir().unwrap();
    let opened = Store::open(&directory.path().join("store")).unwrap();
    let options = Options {
        keychain: Keychain::fixed(trusted()),
        sync: SyncMode::Incremental,
        interest: Interest::Follow,
        reports: None,
        heads: None,
        environment: Environment::system(),
    };
    let replica = Replica::new(
        author.source.clone(),
        opened.store,
        Box::new(Nowhere),
        options,
    );
    let (mut status, shutdown) = (replica.status(), CancellationToken::new());
    let running = tokio::spawn(replica.run(shutdown.clone()));
    until(&mut status, "catching up", |status| {
        status.cursor.version == Version(4)
    })
    .await;

    // Somebody whom nobody trusts wedges the log.
    author.key = stranger();
    let good = author.state.clone();
    author.append(vec![put(1, "forged")]).await;
    author.key = key();
    until(&mut status, "a fork", |status| {
        matches!(status.phase, Phase::Forked(_))
    })
    .await;
    let founded = found(&author.source, &good, &terms()).await.unwrap();
    let over = until(&mut status, "coming over", |status| {
        status.cursor == founded.root.cursor && status.phase == Phase::Following
    })
    .await;
    assert_eq!(over.digest, good.digest());

    // And it goes on from there.
    let entities = good.rewritten_at(founded.root.cursor.version);
    let entities = entities
        .iter()
        .map(|(key, entry)| (key.clone(), entry.clone()));
    author.state = sluice_schema::state::State::restore(founded.root.cursor, entities);
    author.epoch = founded.root.cursor.epoch;
    author.append(vec![put(1, "after")]).await;
    let last = author.state.cursor();
    until(&mut status, "going on", |status| status.cursor == last).await;
    let folded = fold_log(&author.source, &trusted()).await.unwrap();
    assert_eq!(
        (folded.cursor(), folded.digest()),
        (last, author.state.digest())
    );
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
