//! I13: damage to any stored byte is found before use.
//!
//! What is wrong at the end of sled's log looks to sled like a write that a power cut tore apart: it opens with an
//! older state, whole and verified, which the log then carries on from.

use super::*;
use crate::store::disk::open_sled;
use crate::store::record::*;
use std::fs;
use std::path::PathBuf;

/// The bytes flipped in each file: spread over it, first and last included.
const FLIPS_PER_FILE: u64 = 24;

pub(super) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found.sort();
    found
}

/// A closed store that was opened and written to more than once, and what it holds.
fn intact(directory: &Path) -> State {
    let history = sample();
    for version in 0..history.events.len() {
        let mut store = open(directory).store;
        history.applied_to(&mut store, version, version + 1);
        store.syncer().sync().unwrap();
    }
    history.end().clone()
}

/// Opens a damaged copy: it holds all of the state or an older one of ours, or was moved aside.
#[track_caller]
fn check(what: &str, intact: &Path, state: &State, damage: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    copy_tree(intact, &path);
    damage(&path);
    let mut opened = Store::open(&path).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_verified(what, &opened);
    // It can be used.
    opened
        .store
        .replace(state.cursor(), entities(state))
        .unwrap();
    assert_eq!(opened.store.digest(), state.digest());
    opened.store.syncer().sync().unwrap();
    drop(opened);
    let again = Store::open(&path).unwrap();
    assert_verified(what, &again);
}

#[track_caller]
fn assert_verified(what: &str, opened: &Opened) {
    let states = sample().states;
    let same = states
        .iter()
        .find(|state| state.cursor() == opened.store.cursor());
    assert_holds(
        opened,
        same.unwrap_or_else(|| panic!("{what}: a state that never was")),
    );
    if let Some((_, aside)) = &opened.moved_aside {
        assert!(opened.store.is_empty() && aside.is_dir(), "{what}");
    }
}

fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let intact_path = directory.path().join("store");
    let state = intact(&intact_path);
    for file in files(&intact_path) {
        let name = file.strip_prefix(&intact_path).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        // Most of the log file is space that was never written.
        let used = fs::read(&file)
            .unwrap()
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at as u64 + 1);
        for flip in 0..FLIPS_PER_FILE.min(length) {
            let at = used.saturating_sub(1) * flip / (FLIPS_PER_FILE - 1);
            let what = format!("byte {at} of {}", name.display());
            check(&what, &intact_path, &state, |copy| {
                change(&copy.join(name), |bytes| {
                    bytes[usize::try_from(at).unwrap()] ^= 0x41
                });
            });
        }
    }
}

#[test]
fn a_truncated_or_missing_file_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let intact_path = directory.path().join("store");
    let state = intact(&intact_path);
    for file in files(&intact_path) {
        let name = file.strip_prefix(&intact_path).unwrap();
        check(
            &format!("no {}", name.display()),
            &intact_path,
            &state,
            |copy| {
                fs::remove_file(copy.join(name)).unwrap();
            },
        );
        for parts in 0..4 {
            let what = format!("{parts} quarters of {}", name.display());
            check(&what, &intact_path, &state, |copy| {
                change(&copy.join(name), |bytes| {
                    bytes.truncate(bytes.len() * parts / 4)
                });
            });
        }
    }
}

#[test]
fn records_that_do_not_belong_together_are_found() {
    type Edit = fn(&sled::Db);
    let rows: [(&str, Edit); 6] = [
        ("the cursor is missing", |db| {
            db.remove(META_KEY).unwrap();
        }),
        ("not those of the cursor", |db| {
            let (key, _) = db.scan_prefix([ENTITY_PREFIX]).next().unwrap().unwrap();
            db.remove(key).unwrap();
        }),
        ("a checksum does not match", |db| {
            let mut all = db.scan_prefix([ENTITY_PREFIX]).map(Result::unwrap);
            let ((first, _), (_, second)) = (all.next().unwrap(), all.next().unwrap());
            db.insert(first, second).unwrap();
        }),
        ("unknown format", |db| {
            let (key, value) = db.scan_prefix([ENTITY_PREFIX]).next().unwrap().unwrap();
            let mut value = value.to_vec();
            value[0] = FORMAT + 1;
            db.insert(key, value).unwrap();
        }),
        ("too short", |db| {
            db.insert(META_KEY, vec![FORMAT]).unwrap();
        }),
        ("a checksum does not match", |db| {
            db.insert(b"something else", vec![FORMAT; 40]).unwrap();
        }),
    ];
    for (expected, edit) in rows {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        intact(&path);
        let db = open_sled(&path.join("db.0")).unwrap();
        edit(&db);
        db.flush().unwrap();
        drop(db);
        let (reason, _) = Store::open(&path).unwrap().moved_aside.unwrap();
        assert!(reason.contains(expected), "{reason} instead of {expected}");
    }
}

#[test]
fn a_second_damaged_store_takes_the_place_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.store");
    for round in [1_u8, 2] {
        intact(&path);
        fs::write(path.join("round"), [round]).unwrap();
        let db = open_sled(&path.join("db.0")).unwrap();
        db.remove(META_KEY).unwrap();
        db.flush().unwrap();
        drop(db);
        let (_, aside) = Store::open(&path).unwrap().moved_aside.unwrap();
        assert_eq!(aside, directory.path().join("node.store.damaged"));
        assert_eq!(fs::read(aside.join("round")).unwrap(), [round]);
        fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fs::write(&path, "a file").unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Io { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"a file");
}

#[test]
fn a_database_that_has_lost_what_was_on_disk_is_found_and_moved_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    intact(&path);
    // An older copy of the database, or an empty one: valid by itself, but not what was there.
    fs::remove_dir_all(path.join("db.0")).unwrap();
    let opened = Store::open(&path).unwrap();
    let (reason, _) = opened.moved_aside.unwrap();
    assert!(reason.contains("has been on disk"), "{reason}");
    assert!(opened.store.is_empty());
    drop(opened.store);
    assert_eq!(open(&path).source, Origin::Database);
}

#[test]
fn a_store_of_another_layout_is_moved_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let db = open_sled(&path).unwrap();
    db.insert(b"x", b"y").unwrap();
    db.flush().unwrap();
    drop(db);
    let opened = Store::open(&path).unwrap();
    let (reason, aside) = opened.moved_aside.unwrap();
    assert!(reason.contains("not a store of this format"), "{reason}");
    assert!(aside.join("db").is_file());
}

/// Damages tried; what is damaged comes from the seed.
const TRIALS: u64 = 200;
const SEED: u64 = 0x51_71_CE;

/// What to do to a file.
fn damage(file: &Path, random: &mut impl rand::Rng) -> String {
    let mut what = String::new();
    change(file, |bytes| {
        if bytes.is_empty() || random.random_range(0..4) == 0 {
            let length = random.random_range(0..=bytes.len());
            bytes.truncate(length);
            what = format!("cut to {length} bytes");
        } else {
            // sled's file is mostly zeros that are never read.
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let at = random.random_range(0..used);
            bytes[at] ^= 1 << random.random_range(0..8);
            what = format!("a bit of byte {at}");
        }
    });
    what
}

fn sync_and_copy(store: &mut Store) {
    store.begin_sync().unwrap().sync().unwrap();
    store
        .refresh_good(std::time::Instant::now())
        .unwrap()
        .run()
        .unwrap();
}

/// A store with a copy of version 2 and one of version 3, synced at that, and version 4 in its journal.
fn with_copies(path: &Path, history: &History) -> Version {
    let mut store = open(path).store;
    history.applied_to(&mut store, 0, 2);
    sync_and_copy(&mut store);
    history.applied_to(&mut store, 2, 3);
    sync_and_copy(&mut store);
    let durable = store.cursor().version;
    store
        .stage(history.events(3, history.events.len()))
        .unwrap();
    durable
}

#[test]
fn whatever_is_damaged_a_state_that_once_was_is_opened_and_an_older_one_is_said_to_be() {
    use rand::SeedableRng;
    let directory = tempfile::tempdir().unwrap();
    let intact_path = directory.path().join("intact");
    let history = sample();
    let durable = with_copies(&intact_path, &history);
    let mut random = rand::rngs::StdRng::seed_from_u64(SEED);
    let all = files(&intact_path);
    let mut sources = BTreeMap::new();
    for trial in 0..TRIALS {
        let copy = directory.path().join("store");
        let _ = fs::remove_dir_all(&copy);
        copy_tree(&intact_path, &copy);
        let mut damages = Vec::new();
        for _ in 0..1 + trial % 4 {
            let at = rand::Rng::random_range(&mut random, 0..all.len());
            let name = all[at].strip_prefix(&intact_path).unwrap();
            damages.push(format!(
                "{} of {}",
                damage(&copy.join(name), &mut random),
                name.display()
            ));
        }
        let what = format!("seed {SEED:x}, trial {trial}: {}", damages.join(", "));
        let opened = Store::open(&copy).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let version = opened.store.cursor().version;
        let state = history
            .states
            .iter()
            .find(|state| state.version() == version);
        assert_store_holds(&opened.store, state.unwrap_or_else(|| panic!("{what}")));
        match opened.source {
            Origin::Database => {
                assert!(version >= durable, "{what}: {version}");
                assert_eq!(opened.warning(), None, "{what}");
            }
            Origin::LastKnownGood { behind } => {
                assert!(opened.moved_aside.is_some(), "{what}");
                assert!(
                    behind.is_none_or(|behind| behind == durable.0 - version.0),
                    "{what}"
                );
                assert!(
                    opened.warning().unwrap().contains("last known good"),
                    "{what}"
                );
            }
            Origin::Empty => {
                assert_eq!(opened.unusable.len(), 2, "{what}");
                assert!(
                    opened.warning().unwrap().contains("rebuilt from the log"),
                    "{what}"
                );
            }
        }
        *sources.entry(format!("{:?}", opened.source)).or_insert(0) += 1;
    }
    assert!(sources.len() > 1, "all of one kind: {sources:?}");
}
