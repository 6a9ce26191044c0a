//! What every log must do, checked on both: JetStream on a real broker, and the embedded one.

#![cfg(test)]

mod broker;
mod chunks;
mod trim;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use sluice_replica::log::embedded::Embedded;
use sluice_replica::log::jetstream::{JetStream, Options, Role};
use sluice_replica::log::{
    Append, AppendError, BATCH_EVENTS_MAX, ChunkUse, Durability, Interest, Log, PAGE_RECORDS_MAX,
    Record, Signature, Source, TailItem,
};
use sluice_schema::event::EventId;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Version;
use sluice_tests::nats::Nats;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A log under test, with what it stands on.
struct Subject {
    name: &'static str,
    source: Source,
    nats: Option<Nats>,
    directory: TempDir,
}

impl Subject {
    /// Closes the log and opens it again, over a crash if it has a broker.
    async fn reopen(mut self) -> Self {
        drop(self.source);
        self.source = match &mut self.nats {
            Some(nats) => {
                nats.restart().unwrap();
                connect(nats, Role::ControlPlane).await
            }
            None => reopen_embedded(&self.directory).await,
        };
        self
    }
}

/// The log's writer ends a moment after its last user; until then the directory is taken.
async fn reopen_embedded(directory: &TempDir) -> Source {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Embedded::open(directory.path()) {
            Ok(source) => return source,
            Err(error) if tokio::time::Instant::now() > deadline => panic!("{error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn subjects() -> Vec<Subject> {
    let directory = tempfile::tempdir().unwrap();
    let source = Embedded::open(directory.path()).unwrap();
    let embedded = Subject {
        name: "embedded",
        source,
        nats: None,
        directory,
    };
    let nats = Nats::start().unwrap();
    let source = connect(&nats, Role::ControlPlane).await;
    let directory = tempfile::tempdir().unwrap();
    vec![
        embedded,
        Subject {
            name: "jetstream",
            source,
            nats: Some(nats),
            directory,
        },
    ]
}

fn options(url: String, role: Role) -> Options {
    Options {
        servers: vec![url],
        cluster: "test".into(),
        append_timeout: Duration::from_secs(2),
        ping_interval: Duration::from_millis(500),
        ..Options::new(role, "conformance")
    }
}

async fn connect(nats: &Nats, role: Role) -> Source {
    connected(options(nats.url(), role)).await
}

async fn connected(options: Options) -> Source {
    let source = JetStream::connect(options).await.unwrap();
    let mut tail = source.log.tail(Interest::Follow).await.unwrap();
    wait_for(&mut tail, |item| {
        matches!(item, TailItem::Connected).then_some(())
    })
    .await;
    source
}

/// Reads on until `wanted` says yes.
async fn wait_for<T>(
    tail: &mut BoxStream<'static, TailItem>,
    mut wanted: impl FnMut(&TailItem) -> Option<T>,
) -> T {
    let found = async {
        loop {
            let item = tail.next().await.expect("the tail does not end");
            if let Some(found) = wanted(&item) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("what was waited for comes")
}

fn record_in(item: &TailItem) -> Option<Record> {
    if let TailItem::Record(record) = item {
        Some(record.clone())
    } else {
        None
    }
}

fn event(text: &str) -> Append {
    Append {
        subject: format!("default.route.{}", Uuid::from_u128(1)),
        id: EventId(Uuid::now_v7()),
        event: text.as_bytes().to_vec().into(),
        signature: Signature {
            key: "00112233aabbccdd".into(),
            bytes: [7; 64],
        },
    }
}

fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.event.to_vec()).unwrap())
        .collect()
}

/// The whole log, after checking that it has no holes.
async fn contents(log: &dyn Log) -> Vec<String> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let from = Version(records.len() as u64 + 1);
        let page = log.read(from).await.unwrap();
        assert!(page.records.len() <= PAGE_RECORDS_MAX);
        records.extend(page.records);
        if !page.more {
            break;
        }
    }
    for (version, record) in (1..).zip(&records) {
        assert_eq!(record.version, Version(version));
        assert!(record.signature.is_some());
    }
    texts(&records)
}

async fn append_one(log: &dyn Log, expected: u64, text: &str) -> Result<(), AppendError> {
    log.append(Version(expected), vec![event(text)]).await
}

fn is_conflict(result: &Result<(), AppendError>, at: u64) -> bool {
    matches!(result, Err(AppendError::Conflict { expected }) if *expected == Version(at))
}

#[tokio::test]
async fn an_empty_log_says_so() {
    for Subject { name, source, .. } in &subjects().await {
        let bounds = source.log.bounds().await.unwrap();
        assert_eq!(bounds.last, Version::ZERO, "{name}");
        let page = source.log.read(Version::GENESIS).await.unwrap();
        assert!(page.records.is_empty() && !page.more, "{name}");
        assert_eq!(
            source.log.get(Version::GENESIS).await.unwrap(),
            None,
            "{name}"
        );
        assert_eq!(source.log.get(Version::ZERO).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn of_two_who_begin_a_log_one_wins() {
    for Subject { name, source, .. } in &subjects().await {
        let (a, b) = tokio::join!(
            append_one(&*source.log, 0, "a"),
            append_one(&*source.log, 0, "b")
        );
        assert_ne!(a.is_ok(), b.is_ok(), "{name}: {a:?} {b:?}");
        assert!(is_conflict(&a, 0) || is_conflict(&b, 0), "{name}");
        assert_eq!(
            contents(&*source.log).await,
            [if a.is_ok() { "a" } else { "b" }],
            "{name}"
        );
    }
}

#[tokio::test]
async fn of_sixteen_appends_at_one_version_one_is_stored() {
    for Subject { name, source, .. } in &subjects().await {
        append_one(&*source.log, 0, "genesis").await.unwrap();
        for round in 1..=10_u64 {
            // Single events and batches, at the same time.
            let racers = (0..16_u64).map(|racer| {
                let log = source.log.clone();
                let count = if racer % 2 == 0 { 1 } else { 3 };
                let events = (0..count).map(|part| event(&format!("{round}/{racer}/{part}")));
                let events: Vec<_> = events.collect();
                let at = Version(1 + (round - 1) * 3);
                async move { (racer, count, log.append(at, events).await) }
            });
            let results = join_all(racers).await;
            let won: Vec<_> = results
                .iter()
                .filter(|(_, _, result)| result.is_ok())
                .collect();
            assert_eq!(won.len(), 1, "{name}: {results:?}");
            for (_, _, result) in &results {
                assert!(
                    result.is_ok() || is_conflict(result, 1 + (round - 1) * 3),
                    "{result:?}"
                );
            }
            let (racer, count, _) = won[0];
            let all = contents(&*source.log).await;
            let last = usize::try_from(1 + (round - 1) * 3 + count).unwrap();
            assert_eq!(all.len(), last, "{name}");
            assert!(
                all[last - 1].starts_with(&format!("{round}/{racer}/")),
                "{name}"
            );
            for fill in all.len() as u64..=round * 3 {
                append_one(&*source.log, fill, "fill").await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn batches_are_stored_whole_and_in_order_and_read_in_pages() {
    for Subject { name, source, .. } in &subjects().await {
        let log = &*source.log;
        let mut expected = Vec::new();
        while expected.len() < PAGE_RECORDS_MAX + 300 {
            let at = Version(expected.len() as u64);
            let names: Vec<_> = (0..BATCH_EVENTS_MAX)
                .map(|part| format!("{at}+{part}"))
                .collect();
            log.append(at, names.iter().map(|text| event(text)).collect())
                .await
                .unwrap();
            expected.extend(names);
        }
        let first = log.read(Version(1)).await.unwrap();
        assert_eq!(
            (first.records.len(), first.more),
            (PAGE_RECORDS_MAX, true),
            "{name}"
        );
        assert_eq!(contents(log).await, expected, "{name}");
        let (last, end) = (Version(expected.len() as u64), log.bounds().await.unwrap());
        assert_eq!((end.first, end.last), (Version(1), last), "{name}");
        let tip = log.read(last).await.unwrap();
        assert_eq!((tip.records.len(), tip.more), (1, false), "{name}");
        assert!(
            log.read(last.next()).await.unwrap().records.is_empty(),
            "{name}"
        );
        assert_eq!(
            log.get(last).await.unwrap().as_ref(),
            tip.records.last(),
            "{name}"
        );
        assert_eq!(log.get(last.next()).await.unwrap(), None, "{name}");
        let signature = tip.records[0].signature.as_ref().unwrap();
        assert_eq!(*signature, event("").signature, "{name}");
    }
}

#[tokio::test]
async fn a_chain_of_200_appends_is_stored_in_order() {
    for Subject { name, source, .. } in &subjects().await {
        for at in 0..200 {
            append_one(&*source.log, at, &at.to_string()).await.unwrap();
        }
        let expected: Vec<_> = (0..200).map(|at| at.to_string()).collect();
        assert_eq!(contents(&*source.log).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_foreign_write_leaves_nothing_of_a_batch_or_of_what_follows_it() {
    for Subject { name, source, .. } in &subjects().await {
        let log = &*source.log;
        append_one(log, 0, "genesis").await.unwrap();
        // "x" is faster than "a", "b" and "c", which were decided on the same version.
        append_one(log, 1, "x").await.unwrap();
        let late = ["a", "b", "c"].map(event).to_vec();
        assert!(
            is_conflict(&log.append(Version(1), late).await, 1),
            "{name}"
        );
        assert_eq!(contents(log).await, ["genesis", "x"], "{name}");
        // An append ahead of the log is refused as well.
        assert!(is_conflict(&append_one(log, 9, "early").await, 9), "{name}");
        let early = ["d", "e"].map(event).to_vec();
        assert!(
            is_conflict(&log.append(Version(9), early).await, 9),
            "{name}"
        );
        assert_eq!(log.bounds().await.unwrap().last, Version(2), "{name}");
    }
}

#[tokio::test]
async fn sending_stored_events_again_stores_nothing() {
    for Subject { name, source, .. } in &subjects().await {
        let log = &*source.log;
        for events in [vec![event("one")], vec![event("two"), event("three")]] {
            let at = log.bounds().await.unwrap().last;
            log.append(at, events.clone()).await.unwrap();
            assert!(
                is_conflict(&log.append(at, events.clone()).await, at.0),
                "{name}"
            );
            // Who does not know what became of them finds them here.
            let found = log.get(at.next()).await.unwrap().unwrap();
            assert_eq!(found.event, events[0].event, "{name}");
        }
        assert_eq!(contents(log).await, ["one", "two", "three"], "{name}");
    }
}

#[tokio::test]
async fn the_tail_brings_what_is_appended_announced_and_reported() {
    for Subject { name, source, .. } in &subjects().await {
        let log = &*source.log;
        let mut all = log.tail(Interest::FollowAndReports).await.unwrap();
        let mut some = log.tail(Interest::Follow).await.unwrap();
        for tail in [&mut all, &mut some] {
            let first = tail.next().await.unwrap();
            assert!(matches!(first, TailItem::Connected), "{name}: {first:?}");
        }
        append_one(log, 0, "one").await.unwrap();
        log.append(Version(1), vec![event("two"), event("three")])
            .await
            .unwrap();
        for tail in [&mut all, &mut some] {
            for (version, text) in [(1, "one"), (2, "two"), (3, "three")] {
                let record = wait_for(tail, record_in).await;
                assert_eq!(record.version, Version(version), "{name}");
                assert_eq!(record.event, text, "{name}");
                assert_eq!(record.signature, Some(event("").signature), "{name}");
            }
        }
        log.report("node-1", b"report".to_vec().into())
            .await
            .unwrap();
        log.announce(b"head".to_vec().into()).await.unwrap();
        let report = |item: &TailItem| {
            if let TailItem::Report(report) = item {
                Some(report.clone())
            } else {
                None
            }
        };
        let head = |item: &TailItem| {
            if let TailItem::Head(head) = item {
                Some(head.clone())
            } else {
                None
            }
        };
        assert_eq!(wait_for(&mut all, report).await, "report", "{name}");
        assert_eq!(wait_for(&mut all, head).await, "head", "{name}");
        let mut reports = 0;
        wait_for(&mut some, |item| {
            reports += usize::from(report(item).is_some());
            head(item)
        })
        .await;
        assert_eq!(reports, 0, "{name}: a data plane hears no reports");
    }
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    for subject in subjects().await {
        let content = b"piece".to_vec();
        let hash = Hash32::of(&content);
        let part = ChunkUse::Snapshot;
        let chunks = &*subject.source.chunks;
        chunks.put(part, hash, &content).await.unwrap();
        append_one(&*subject.source.log, 0, "one").await.unwrap();
        let batch = ["two", "three"].map(event).to_vec();
        subject.source.log.append(Version(1), batch).await.unwrap();
        let subject = subject.reopen().await;
        let (name, log) = (subject.name, &*subject.source.log);
        assert_eq!(contents(log).await, ["one", "two", "three"], "{name}");
        assert_eq!(
            subject
                .source
                .chunks
                .get(part, hash)
                .await
                .unwrap()
                .unwrap(),
            content,
            "{name}"
        );
        assert!(is_conflict(&append_one(log, 2, "old").await, 2), "{name}");
        append_one(log, 3, "four").await.unwrap();
        assert_eq!(log.bounds().await.unwrap().last, Version(4), "{name}");
    }
}

#[tokio::test]
async fn too_many_events_or_a_bad_subject_are_refused() {
    for Subject { name, source, .. } in &subjects().await {
        if *name == "embedded" {
            continue;
        }
        let log = &*source.log;
        let refused = |result| matches!(result, Err(AppendError::Refused(_)));
        let many = vec![event("x"); BATCH_EVENTS_MAX + 1];
        assert!(refused(log.append(Version(0), many).await), "{name}");
        assert!(refused(log.append(Version(0), Vec::new()).await), "{name}");
        let bad = Append {
            subject: "a b".into(),
            ..event("x")
        };
        assert!(refused(log.append(Version(0), vec![bad]).await), "{name}");
        let large = Append {
            event: vec![0; 2 << 20].into(),
            ..event("x")
        };
        assert!(refused(log.append(Version(0), vec![large]).await), "{name}");
        assert_eq!(log.bounds().await.unwrap().last, Version::ZERO, "{name}");
    }
}

#[tokio::test]
async fn durability_is_what_the_log_can_prove() {
    for Subject {
        name, source, nats, ..
    } in subjects().await
    {
        let Some(mut nats) = nats else {
            assert_eq!(source.log.durability().await, Durability::Synced, "{name}");
            continue;
        };
        let unknown = source.log.durability().await;
        assert!(matches!(unknown, Durability::Unknown(_)), "{unknown:?}");
        let asking = Options {
            monitors: vec![nats.monitor_url()],
            ..options(nats.url(), Role::ControlPlane)
        };
        let synced = connected(asking.clone()).await;
        assert_eq!(synced.log.durability().await, Durability::Synced);
        nats.set_sync_interval("2m");
        nats.restart().unwrap();
        let delayed = connected(asking).await;
        assert_eq!(delayed.log.durability().await, Durability::Delayed);
    }
}
