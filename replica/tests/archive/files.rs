//! What is written comes back, and what is not whole is refused.

use super::support::{
    Author, about, audit_of, exported, key, opened, put, put_many, stranger, trusted,
};
use proptest::prelude::*;
use sluice_replica::archive::{About, Archive, ArchiveError, Extent, export, export_store};
use sluice_replica::log::ChunkUse;
use sluice_replica::snapshot::load_state;
use sluice_replica::store::Store;
use sluice_schema::version::Version;
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::test]
async fn an_archive_holds_every_record_with_its_signature_and_its_pieces() {
    let author = Author::with_history().await;
    let directory = tempfile::tempdir().unwrap();
    let archive = opened(
        directory.path(),
        &exported(&author.source, Extent::All).await,
    );
    let (header, end) = (archive.header(), archive.end());
    assert_eq!((header.first, header.last), (Version(1), Version(4)));
    assert_eq!((end.records, end.roots, end.pieces > 0), (4, 0, true));
    assert_eq!(end.cursor, author.state.cursor());
    let source = archive.source();
    let all = author.source.log.read(Version(1)).await.unwrap();
    assert_eq!(source.log.read(Version(1)).await.unwrap(), all);
    let third = &all.records[2];
    assert_eq!(
        source.log.get(Version(3)).await.unwrap().as_ref(),
        Some(third)
    );
    assert_eq!(source.log.get(Version(5)).await.unwrap(), None);
    let report = audit_of(&source, &trusted()).await;
    assert_eq!(report.fault(), None);
    assert_eq!(report.state.unwrap().digest(), author.state.digest());
}

#[tokio::test]
async fn an_archive_of_a_trimmed_log_begins_with_a_snapshot() {
    let mut author = Author::with_history().await;
    let root = author.cut().await;
    author.append(vec![put(5, "x")]).await;
    author.append(vec![put(6, "x")]).await;
    author.source.log.trim(Version(4)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let archive = opened(
        directory.path(),
        &exported(&author.source, Extent::All).await,
    );
    assert_eq!(
        (archive.header().first, archive.end().roots),
        (Version(4), 1)
    );
    let report = audit_of(&archive.source(), &trusted()).await;
    assert_eq!(report.fault(), None, "{report:?}");
    assert!(
        report.snapshots[0].compared || report.lives[0].folded_from == Some(root.cursor.version)
    );
    assert_eq!(report.state.unwrap().digest(), author.state.digest());

    // From a version on: the snapshot that stands before it, or a little more.
    for (from, first) in [(5, 5), (6, 5)] {
        let bytes = exported(&author.source, Extent::From(Version(from))).await;
        let archive = opened(directory.path(), &bytes);
        assert_eq!(archive.header().first, Version(first), "from {from}");
        let report = audit_of(&archive.source(), &trusted()).await;
        assert_eq!(report.fault(), None);
        assert_eq!(report.state.unwrap().digest(), author.state.digest());
    }
}

#[tokio::test]
async fn a_snapshot_alone_is_an_archive() {
    let author = Author::with_history().await;
    author.cut().await;
    let directory = tempfile::tempdir().unwrap();
    let bytes = exported(&author.source, Extent::Snapshot(None)).await;
    let archive = opened(directory.path(), &bytes);
    assert_eq!((archive.end().records, archive.end().roots), (0, 1));
    let report = audit_of(&archive.source(), &trusted()).await;
    assert_eq!(report.fault(), None);
    assert_eq!(report.state.unwrap().digest(), author.state.digest());
    let report = audit_of(&archive.source(), &stranger().trusted()).await;
    assert!(report.state.is_none() && report.ignored.len() == 1);
}

#[tokio::test]
async fn a_local_store_becomes_an_archive_that_nobody_has_signed() {
    let author = Author::with_history().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut opened_store = Store::open(&path).unwrap();
    let entities = author.state.iter();
    let entities = entities.map(|(key, entry)| (key.clone(), entry.clone()));
    let replaced = opened_store.store.replace(author.state.cursor(), entities);
    replaced.unwrap();
    opened_store.store.syncer().sync().unwrap();
    drop(opened_store);

    let (_, end, bytes) = export_store(&path, &about(), Vec::new()).unwrap();
    assert_eq!(end.cursor, author.state.cursor());
    let archive = opened(directory.path(), &bytes);
    assert!(archive.end().signature().is_none());
    let root = archive.unsigned()[0].clone();
    let state = load_state(archive.source().chunks, &root).await.unwrap();
    assert_eq!(state.digest(), author.state.digest());
    assert!(
        audit_of(&archive.source(), &trusted())
            .await
            .state
            .is_none()
    );

    let signed = About {
        key: Some(&key()),
        ..about()
    };
    let (_, end, _) = export_store(&path, &signed, Vec::new()).unwrap();
    let signature = end.signature().unwrap();
    assert!(trusted().verifies_archive(end.hash, &signature));
    assert!(!stranger().trusted().verifies_archive(end.hash, &signature));
    let nowhere = directory.path().join("nowhere");
    assert!(export_store(&nowhere, &about(), Vec::new()).is_err());
    assert!(!nowhere.exists());
}

/// Small enough to damage every byte of it.
async fn small() -> Vec<u8> {
    let mut author = Author::new().await;
    author.append(vec![put(1, "a")]).await;
    author.cut().await;
    author.append(vec![put(1, "b"), put(2, "c")]).await;
    author.source.log.trim(Version(2)).await.unwrap();
    exported(&author.source, Extent::All).await
}

#[tokio::test]
async fn a_byte_changed_anywhere_and_a_cut_anywhere_are_refused() {
    let bytes = small().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Archive::open(&path)
    };
    assert!(open(&bytes).is_ok());
    for at in 0..bytes.len() {
        for bit in [0_u8, 7] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(open(&damaged).is_err(), "byte {at}, bit {bit}");
        }
        let cut = open(&bytes[..at]);
        match cut {
            Err(ArchiveError::Truncated { .. }) => {}
            Err(ArchiveError::Foreign(_)) => assert!(at < 4),
            other => panic!("cut to {at} bytes: {other:?}"),
        }
    }
    let longer = open(&[bytes.as_slice(), &[0]].concat());
    assert!(matches!(longer, Err(ArchiveError::Damaged { .. })));
}

#[tokio::test]
async fn what_is_damaged_is_named_by_frame_and_version() {
    let author = Author::with_history().await;
    let mut bytes = exported(&author.source, Extent::All).await;
    // The end is shorter than this; the last record is before it.
    let near_end = bytes.len() - 400;
    bytes[near_end] ^= 1;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    std::fs::write(&path, &bytes).unwrap();
    let said = Archive::open(&path).unwrap_err().to_string();
    assert!(
        said.contains("damaged or edited at frame") && said.contains("after version 3"),
        "{said}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_that_are_no_archive_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        let head: &[u8] = if magic { b"SlA\x01" } else { b"" };
        std::fs::write(&path, [head, &bytes].concat()).unwrap();
        prop_assert!(Archive::open(&path).is_err());
    }
}

#[tokio::test]
async fn frames_in_another_order_are_refused() {
    let bytes = small().await;
    let mut frames = Vec::new();
    let mut rest = &bytes[4..];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[1..5].try_into().unwrap());
        let (frame, after) = rest.split_at(21 + usize::try_from(length).unwrap());
        frames.push(frame);
        rest = after;
    }
    assert!(frames.len() >= 6, "{}", frames.len());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    for at in 0..frames.len() - 1 {
        let mut swapped = frames.clone();
        swapped.swap(at, at + 1);
        std::fs::write(&path, [&bytes[..4], &swapped.concat()].concat()).unwrap();
        assert!(Archive::open(&path).is_err(), "frames {at} and the next");
        let mut without = frames.clone();
        without.remove(at);
        std::fs::write(&path, [&bytes[..4], &without.concat()].concat()).unwrap();
        assert!(Archive::open(&path).is_err(), "without frame {at}");
    }
}

#[tokio::test]
async fn a_log_that_lacks_a_piece_is_not_exported_in_part() {
    let author = Author::with_history().await;
    let pieces = author.source.chunks.list(ChunkUse::Transaction).await;
    let piece = *pieces.unwrap().iter().next().unwrap();
    let later = sluice_schema::version::Time(u64::MAX);
    let chunks = &author.source.chunks;
    chunks
        .remove(ChunkUse::Transaction, piece, later)
        .await
        .unwrap();
    let written = export(
        &author.source,
        Extent::All,
        &about(),
        Vec::new(),
        &mut |_, _| {},
    )
    .await;
    assert!(matches!(written, Err(ArchiveError::Missing(_))));
}

#[tokio::test]
async fn an_archive_of_this_format_stays_readable() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/archive.bin");
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") && !golden.exists() {
        let mut author = Author::new().await;
        author.append(vec![put(1, "a")]).await;
        author.append(put_many(100)).await;
        author.cut().await;
        author.append(vec![put(2, "b")]).await;
        author.source.log.trim(Version(3)).await.unwrap();
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, exported(&author.source, Extent::All).await).unwrap();
    }
    let archive = Arc::new(Archive::open(&golden).unwrap());
    let (header, end) = (archive.header(), archive.end());
    assert_eq!(
        (header.cluster.as_str(), header.software.as_str()),
        ("main", "a test")
    );
    assert_eq!((header.first, header.last), (Version(3), Version(4)));
    assert_eq!((end.records, end.roots, end.pieces), (2, 1, 3));
    let report = audit_of(&archive.source(), &trusted()).await;
    assert_eq!(report.fault(), None);
    assert_eq!(report.state.unwrap().len(), 1_202);
}
