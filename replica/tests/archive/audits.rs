//! An audit names the first version that is wrong, and why.

use super::support::{Author, audit_of, key, put, put_many, stranger, terms, trusted};
use bytes::Bytes;
use sluice_replica::audit::{Doubt, Report, Wrong};
use sluice_replica::log::{Append, ChunkUse};
use sluice_replica::snapshot::{Root, found};
use sluice_schema::digest::Digest;
use sluice_schema::event::{Event, Mutations};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Epoch, Time, Version};
use uuid::Uuid;

fn fault(report: &Report) -> (u64, Wrong) {
    let fault = report.fault().unwrap_or_else(|| panic!("{report:?}"));
    (fault.version.0, fault.wrong)
}

/// Appends whatever message, as somebody with the broker's permission can.
async fn force(author: &Author, append: Append) {
    let last = author.source.log.bounds().await.unwrap().last;
    author.source.log.append(last, vec![append]).await.unwrap();
}

#[tokio::test]
async fn a_whole_log_is_good_and_its_snapshots_are_compared_with_it() {
    let mut author = Author::with_history().await;
    author.cut().await;
    author.append(vec![put(9, "z")]).await;
    author.cut().await;
    let report = author.audit().await;
    assert_eq!(report.fault(), None);
    assert_eq!(report.records, 5);
    assert_eq!(report.lives.len(), 1);
    assert_eq!(report.lives[0].folded_from, Some(Version(1)));
    assert!(report.snapshots.iter().all(|snapshot| snapshot.compared));
    assert_eq!(report.snapshots.len(), 2);
    assert_eq!(report.state.unwrap().digest(), author.state.digest());
}

#[tokio::test]
async fn a_signature_that_is_not_believed_is_covered_by_a_later_one_or_is_an_error() {
    let mut author = Author::with_history().await;
    author.key = stranger();
    author.append(vec![put(3, "x")]).await;
    author.append(vec![put(3, "y")]).await;
    let (version, wrong) = fault(&author.audit().await);
    let doubt = Doubt::Unknown(stranger().id().to_owned());
    assert_eq!((version, wrong), (5, Wrong::Uncovered(doubt.clone())));
    author.key = key();
    author.append(vec![put(3, "z")]).await;
    let report = author.audit().await;
    assert_eq!(report.fault(), None);
    assert_eq!(report.lives[0].covered.get(&doubt), Some(&2));
}

#[tokio::test]
async fn a_signature_that_a_trusted_key_has_not_made_is_an_error() {
    let author = Author::with_history().await;
    let (_, mut append) = author.next(vec![put(3, "x")]);
    append.signature.bytes[7] ^= 1;
    force(&author, append).await;
    let (version, wrong) = fault(&author.audit().await);
    let doubt = Doubt::Forged(key().id().to_owned());
    assert_eq!((version, wrong), (5, Wrong::Uncovered(doubt)));
}

#[tokio::test]
async fn events_that_do_not_follow_are_named() {
    let check = async |change: fn(&mut Event), expected: Wrong| {
        let author = Author::with_history().await;
        let (mut event, append) = author.next(vec![put(3, "x")]);
        change(&mut event);
        let bytes = event.encode().bytes;
        let signature = author.key.sign_event(event.cursor(&bytes).chain);
        let forged = Append {
            event: bytes.into(),
            signature,
            ..append
        };
        force(&author, forged).await;
        // What follows does not make up for it.
        let (_, append) = author.next(vec![put(3, "y")]);
        force(&author, append).await;
        let report = author.audit().await;
        assert_eq!(fault(&report), (5, expected));
        assert_eq!(report.records, 6);
    };
    let other = Epoch(Uuid::from_u128(8));
    check(
        |event| event.previous = Version(9),
        Wrong::Misplaced(Version(10)),
    )
    .await;
    check(
        |event| event.epoch = Epoch(Uuid::from_u128(8)),
        Wrong::Epoch(other),
    )
    .await;
    check(|event| event.previous_chain.0.0[3] ^= 1, Wrong::Chain).await;
}

#[tokio::test]
async fn bytes_that_are_no_event_and_another_digest_are_named() {
    let author = Author::with_history().await;
    let (_, append) = author.next(vec![put(3, "x")]);
    let garbage = Append {
        event: Bytes::from_static(b"garbage"),
        ..append
    };
    force(&author, garbage).await;
    let (version, wrong) = fault(&author.audit().await);
    assert!(
        version == 5 && matches!(wrong, Wrong::Unreadable(_)),
        "{wrong}"
    );

    let mut author = Author::with_history().await;
    let (mut event, append) = author.next(vec![put(3, "x")]);
    let found = event.digest;
    event.digest = Digest(Hash32::of(b"another"));
    let expected = event.digest;
    let bytes = event.encode().bytes;
    let signature = author.key.sign_event(event.cursor(&bytes).chain);
    let forged = Append {
        event: bytes.into(),
        signature,
        ..append
    };
    force(&author, forged).await;
    let report = author.audit().await;
    assert_eq!(fault(&report), (5, Wrong::Digest { expected, found }));
    assert_eq!(report.state.unwrap().digest(), author.state.digest());
    author.epoch = Epoch(Uuid::from_u128(9));
}

/// Removes one chunk, as if it had been lost.
async fn lose_one(author: &Author, part: ChunkUse) {
    let chunks = &author.source.chunks;
    let all = chunks.list(part).await.unwrap();
    let chunk = *all.iter().next().unwrap();
    chunks.remove(part, chunk, Time(u64::MAX)).await.unwrap();
}

#[tokio::test]
async fn a_large_transaction_without_a_piece_is_named() {
    let author = Author::with_history().await;
    lose_one(&author, ChunkUse::Transaction).await;
    let (version, wrong) = fault(&author.audit().await);
    assert!(
        version == 3 && matches!(wrong, Wrong::Mutations(_)),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_trimmed_log_needs_a_snapshot_that_stands_for_what_is_gone() {
    let mut author = Author::with_history().await;
    author.append(put_many(5_000)).await;
    let bare = author.audit().await;
    assert_eq!(bare.fault(), None);
    author.source.log.trim(Version(3)).await.unwrap();
    assert_eq!(fault(&author.audit().await), (3, Wrong::Baseless));
    author.cut().await;
    let report = author.audit().await;
    assert_eq!(report.fault(), None);
    assert_eq!(report.lives[0].folded_from, Some(Version(5)));
    assert_eq!(report.state.unwrap().digest(), author.state.digest());
}

#[tokio::test]
async fn snapshots_that_are_not_whole_or_not_of_the_log_are_named() {
    let mut author = Author::with_history().await;
    let root = author.cut().await;
    author.append(vec![put(9, "z")]).await;
    let lie = Root {
        digest: Digest(Hash32::of(b"another")),
        announcer: Uuid::from_u128(9),
        ..root.clone()
    };
    let chunks = &author.source.chunks;
    chunks
        .put_root(&lie.name(), &lie.seal(&author.key))
        .await
        .unwrap();
    let (version, wrong) = fault(&author.audit().await);
    assert!(
        version == 4 && matches!(wrong, Wrong::Other { .. }),
        "{wrong}"
    );
    chunks.remove_root(&lie.name()).await.unwrap();

    let unsigned = Root {
        announcer: Uuid::from_u128(10),
        ..lie
    };
    chunks
        .put_root(&unsigned.name(), &unsigned.seal(&stranger()))
        .await
        .unwrap();
    let report = author.audit().await;
    assert_eq!((report.fault(), report.ignored.len()), (None, 1));

    lose_one(&author, ChunkUse::Snapshot).await;
    let (version, wrong) = fault(&author.audit().await);
    assert!(
        version == 4 && matches!(wrong, Wrong::Snapshot(_)),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_life_that_went_bad_is_told_and_the_one_that_replaced_it_counts() {
    let author = Author::with_history().await;
    let good = author.state.clone();
    let (event, append) = author.next(vec![put(3, "x")]);
    assert_eq!(event.mutations, Mutations::Inline(vec![put(3, "x")]));
    let forged = Append {
        signature: stranger().sign_event(event.cursor(&append.event).chain),
        ..append
    };
    force(&author, forged).await;
    assert!(author.audit().await.fault().is_some());
    let founded = found(&author.source, &good, &terms()).await.unwrap();
    assert_eq!(founded.root.cursor.version, Version(6));
    let report = author.audit().await;
    assert_eq!(report.fault(), None);
    assert_eq!((report.lives.len(), report.replaced().count()), (2, 1));
    assert!(report.lives[1].chartered && !report.lives[0].chartered);
    assert_eq!(report.lives[1].folded_from, Some(Version(6)));
    assert_eq!(
        report
            .state
            .as_ref()
            .map(sluice_schema::state::State::digest),
        Some(good.digest())
    );
    // Who trusts nobody of them sees no life to go on with.
    let report = audit_of(&author.source, &stranger().trusted()).await;
    assert!(report.fault().is_some());
    assert_eq!(audit_of(&author.source, &trusted()).await.lives.len(), 2);
}
