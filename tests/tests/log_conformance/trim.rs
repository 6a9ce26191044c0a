//! Trimming: what goes, what stays, and what it must never do.

use super::{Subject, append_one, event, is_conflict, subjects, texts};
use sluice_replica::log::{BATCH_EVENTS_MAX, Log, LogError, Record};
use sluice_schema::version::Version;

/// Appends events named by their versions until the log has `count`.
async fn fill(log: &dyn Log, count: u64) {
    let mut at = log.bounds().await.unwrap().last.0;
    while at < count {
        let end = count.min(at + BATCH_EVENTS_MAX as u64);
        let batch = (at + 1..=end).map(|version| event(&version.to_string()));
        log.append(Version(at), batch.collect()).await.unwrap();
        at = end;
    }
}

async fn all_from(log: &dyn Log, from: u64) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let next = records
            .last()
            .map_or(Version(from), |last| last.version.next());
        let page = log.read(next).await.unwrap();
        records.extend(page.records);
        if !page.more {
            return records;
        }
    }
}

async fn bounds(log: &dyn Log) -> (u64, u64) {
    let bounds = log.bounds().await.unwrap();
    (bounds.first.0, bounds.last.0)
}

#[tokio::test]
async fn trimming_removes_what_is_before_a_version_and_nothing_else() {
    for Subject { name, source, .. } in &subjects().await {
        let log = &*source.log;
        fill(log, 3000).await;
        log.trim(Version(2401)).await.unwrap();
        assert_eq!(bounds(log).await, (2401, 3000), "{name}");
        // Whoever asks for what is gone gets what is there, and sees the hole.
        for from in [0, 1, 1200, 2400, 2401] {
            let records = all_from(log, from).await;
            let expected: Vec<_> = (2401..=3000)
                .map(|version: u64| version.to_string())
                .collect();
            assert_eq!(texts(&records), expected, "{name}: from {from}");
            let versions = records.iter().map(|record| record.version.0);
            assert!(versions.eq(2401..=3000), "{name}: from {from}");
        }
        assert_eq!(log.get(Version(1)).await.unwrap(), None, "{name}");
        assert_eq!(log.get(Version(2400)).await.unwrap(), None, "{name}");
        let first = log.get(Version(2401)).await.unwrap().unwrap();
        assert_eq!(first.event, "2401", "{name}");
    }
}

#[tokio::test]
async fn appending_goes_on_after_trimming_as_if_nothing_had_happened() {
    for subject in subjects().await {
        let (name, log) = (subject.name, subject.source.log.clone());
        fill(&*log, 20).await;
        log.trim(Version(10)).await.unwrap();
        assert!(is_conflict(&append_one(&*log, 0, "0").await, 0), "{name}");
        assert!(is_conflict(&append_one(&*log, 11, "x").await, 11), "{name}");
        append_one(&*log, 20, "21").await.unwrap();
        // All but the last may go; the numbers go on, also after a restart.
        log.trim(Version(21)).await.unwrap();
        assert_eq!(bounds(&*log).await, (21, 21), "{name}");
        drop(log);
        let subject = subject.reopen().await;
        let log = &*subject.source.log;
        assert_eq!(bounds(log).await, (21, 21), "{name}");
        assert!(is_conflict(&append_one(log, 0, "0").await, 0), "{name}");
        append_one(log, 21, "22").await.unwrap();
        let batch = ["23", "24"].map(event).to_vec();
        log.append(Version(22), batch).await.unwrap();
        assert_eq!(bounds(log).await, (21, 24), "{name}");
        let records = all_from(log, 1).await;
        assert_eq!(texts(&records), ["21", "22", "23", "24"], "{name}");
    }
}

#[tokio::test]
async fn trimming_beyond_the_end_is_refused_and_before_the_beginning_does_nothing() {
    for Subject { name, source, .. } in &subjects().await {
        let log = &*source.log;
        log.trim(Version::ZERO).await.unwrap();
        for beyond in [1, 2, u64::MAX] {
            let refused = log.trim(Version(beyond)).await;
            let Err(LogError::Unusable(reason)) = refused else {
                panic!("{name}: {refused:?}");
            };
            assert!(reason.contains("ends at version 0"), "{reason}");
        }
        fill(log, 10).await;
        log.trim(Version(1)).await.unwrap();
        assert_eq!(bounds(log).await, (1, 10), "{name}");
        log.trim(Version(4)).await.unwrap();
        for harmless in [0, 1, 3, 4] {
            log.trim(Version(harmless)).await.unwrap();
            assert_eq!(bounds(log).await, (4, 10), "{name}");
        }
        for beyond in [11, 12, u64::MAX] {
            let refused = log.trim(Version(beyond)).await;
            assert!(
                matches!(refused, Err(LogError::Unusable(_))),
                "{name}: {refused:?}"
            );
            assert_eq!(bounds(log).await, (4, 10), "{name}");
        }
        append_one(log, 10, "11").await.unwrap();
        assert_eq!(all_from(log, 1).await.len(), 8, "{name}");
    }
}
