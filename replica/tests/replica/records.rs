//! The signed records of snapshots: what is in the files under `golden/` stays readable, and nothing else is believed.

use crate::support::{first_life, key};
use bytes::Bytes;
use sluice_replica::keys::SigningKey;
use sluice_replica::node::{Head, SnapshotReference, SyncMode};
use sluice_replica::snapshot::{Charter, Root, RootError};
use sluice_schema::chunk::Child;
use sluice_schema::digest::Accumulator;
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Chain, Cursor, Epoch, Time, Version};
use std::fs;
use std::path::PathBuf;
use uuid::Uuid;

fn signer() -> SigningKey {
    SigningKey::from_seed([3; 32])
}

fn cursor() -> Cursor {
    Cursor {
        epoch: first_life(),
        version: Version(812),
        chain: Chain::ZERO.extend(b"event"),
    }
}

fn charter() -> Charter {
    Charter {
        epoch: first_life(),
        time: Time(1_700_000_000_000_000),
        reason: "restored from an archive".into(),
    }
}

fn root() -> Root {
    let child = Child {
        first: key(1),
        pieces: vec![Hash32::of(b"one"), Hash32::of(b"two")],
        entities: 12_345,
        bytes: 6_789_012,
    };
    Root {
        cursor: cursor(),
        digest: Accumulator::default().digest(),
        entities: 12_345,
        bytes: 6_789_012,
        tree: Some(child),
        height: 3,
        time: Time(1_700_000_000_000_001),
        announcer: Uuid::from_u128(5),
        charter: Some(charter().seal(&signer())),
        chartered: true,
    }
}

fn empty_root() -> Root {
    Root {
        entities: 0,
        bytes: 0,
        tree: None,
        height: 0,
        charter: None,
        chartered: false,
        ..root()
    }
}

fn head() -> Head {
    let Cursor {
        epoch,
        version,
        chain,
    } = cursor();
    Head {
        epoch,
        version,
        chain,
        first: Version(401),
        time: Time(1_700_000_000_000_002),
        announcer: Uuid::from_u128(5),
        sync: SyncMode::Incremental,
        ring: 4,
        asks: Version::ZERO,
        snapshot: Some(SnapshotReference {
            version: Version(800),
            entities: 12_345,
            bytes: 6_789_012,
        }),
    }
}

/// The file's bytes. If it is missing and that is asked for, it is made.
fn golden(name: &str, made: &[u8]) -> Vec<u8> {
    let update = std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1")
        .join(name);
    if update && !path.exists() {
        fs::write(&path, made).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn records_of_version_1_are_read_and_written_as_ever() {
    let trusted = signer().trusted();
    for (name, root) in [("root.bin", root()), ("root-empty.bin", empty_root())] {
        let sealed = root.seal(&signer());
        let stored = golden(name, &sealed);
        assert_eq!(stored, sealed, "{name}");
        assert_eq!(Root::open(&stored, &trusted).unwrap(), root);
    }
    let sealed = charter().seal(&signer());
    let stored = golden("charter.bin", &sealed);
    assert_eq!(stored, sealed);
    assert_eq!(Charter::open(&stored, &trusted).unwrap(), charter());
    let sealed = head().seal(&signer());
    let stored = golden("head.bin", &sealed);
    assert_eq!(stored, sealed);
    assert_eq!(Head::open(&stored, &trusted).unwrap(), head());
}

/// Every bit flipped, alone; every length but the whole.
fn damages(sealed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flipped = (0..sealed.len() * 8).map(|bit| {
        let mut flipped = sealed.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    let cut = (0..sealed.len()).map(|length| sealed[..length].to_vec());
    let longer = [[sealed, b"x"].concat()];
    flipped.chain(cut).chain(longer)
}

#[test]
fn a_record_with_a_flipped_bit_anywhere_is_refused() {
    let trusted = signer().trusted();
    for damaged in damages(&root().seal(&signer())) {
        Root::open(&damaged, &trusted).unwrap_err();
    }
    for damaged in damages(&charter().seal(&signer())) {
        Charter::open(&damaged, &trusted).unwrap_err();
    }
    for damaged in damages(&head().seal(&signer())) {
        Head::open(&damaged, &trusted).unwrap_err();
    }
}

#[test]
fn a_record_is_believed_for_what_it_is_alone() {
    let trusted = signer().trusted();
    let stranger = SigningKey::from_seed([4; 32]);
    let error = Root::open(&root().seal(&stranger), &trusted).unwrap_err();
    assert!(matches!(error, RootError::Untrusted(key) if key == stranger.id()));
    Charter::open(&charter().seal(&stranger), &trusted).unwrap_err();
    // A charter is no snapshot, and a snapshot is no charter.
    Root::open(&charter().seal(&signer()), &trusted).unwrap_err();
    Charter::open(&root().seal(&signer()), &trusted).unwrap_err();
}

#[test]
fn a_snapshot_is_chartered_by_a_valid_charter_for_its_own_epoch() {
    let trusted = signer().trusted();
    let other_epoch = Charter {
        epoch: Epoch(Uuid::from_u128(99)),
        ..charter()
    };
    let stranger = SigningKey::from_seed([4; 32]);
    let rows: [(Option<Bytes>, bool); 5] = [
        (Some(charter().seal(&signer())), true),
        (Some(other_epoch.seal(&signer())), false),
        (Some(charter().seal(&stranger)), false),
        (Some(Bytes::from_static(b"rubbish")), false),
        (None, false),
    ];
    for (charter, expected) in rows {
        let root = Root { charter, ..root() };
        let opened = Root::open(&root.seal(&signer()), &trusted).unwrap();
        assert_eq!(opened.chartered, expected);
    }
}
