//! Stopped at every operation of the disk: what is opened then once was, and nothing that was claimed is lost.

use super::fault::{CRASHES, Crash};
use super::*;
use std::time::Instant;

/// Ten versions: some entities more than a page has, then some changes.
fn history() -> History {
    let mut history = History::new();
    history.push((0..80).map(|number| put(number, "first")).collect());
    for number in 0..8 {
        history.push(vec![
            put(number, "next"),
            delete(30 + number),
            put(90 + number, "new"),
        ]);
    }
    history
}

/// What must not be lost any more: at least these versions are there after the end.
#[derive(Clone, Copy, Debug, Default)]
struct Claims {
    /// The process is killed.
    applied: u64,
    /// Power is lost.
    durable: u64,
}

/// A node's life, until the disk stops.
fn live(disk: &FaultDisk, history: &History) -> Result<Claims, (StoreError, Claims)> {
    let mut claims = Claims::default();
    live_with(disk, history, &mut claims).map_err(|error| (error, claims))?;
    Ok(claims)
}

fn live_with(disk: &FaultDisk, history: &History, claims: &mut Claims) -> Result<(), StoreError> {
    let mut store = Store::open_on(disk.shared())?.store;
    let claim = |claims: &mut Claims, store: &Store, durable: bool| {
        // What fails quietly is noticed here: nobody lives to claim anything then.
        if !disk.is_stopped() {
            claims.applied = store.cursor().version.0;
            if durable {
                claims.durable = claims.applied;
            }
        }
    };
    for version in 0..4 {
        store.stage(history.events(version, version + 1))?;
        claim(claims, &store, false);
        if version % 2 == 1 {
            store.begin_sync()?.sync()?;
            claim(claims, &store, true);
        }
    }
    store.refresh_good(Instant::now())?.run()?;
    store.stage(history.events(4, 5))?;
    claim(claims, &store, false);
    // Two syncs, the first of which ends last.
    let first = store.begin_sync()?;
    store.stage(history.events(5, 6))?;
    claim(claims, &store, false);
    load(&mut store, &history.states[7], u64::MAX)?;
    claim(claims, &store, true);
    first.sync()?;
    store.stage(history.events(7, 8))?;
    claim(claims, &store, false);
    load(&mut store, &history.states[9], 0)?;
    claim(claims, &store, true);
    store.stage(history.events(9, 10))?;
    claim(claims, &store, false);
    store.refresh_good(Instant::now())?.run()?;
    store.begin_sync()?.sync()?;
    claim(claims, &store, true);
    Ok(())
}

#[track_caller]
fn check(what: &str, disk: &FaultDisk, history: &History, least: u64) -> Origin {
    let opened = Store::open_on(disk.shared()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let version = opened.store.cursor().version.0;
    assert!(
        version >= least,
        "{what}: at {version}, but {least} was claimed"
    );
    assert_eq!(opened.moved_aside, None, "{what}");
    assert_holds(&opened, &history.states[usize::try_from(version).unwrap()]);
    opened.source
}

#[test]
fn stopped_at_any_operation_a_store_has_all_that_was_claimed() {
    let history = history();
    let mut operation = 0;
    loop {
        let disk = FaultDisk::default();
        disk.stop_at(operation);
        let (claims, ended) = match live(&disk, &history) {
            Ok(claims) => (claims, true),
            Err((_, claims)) => (claims, false),
        };
        for crash in CRASHES {
            let least = match crash {
                Crash::Kill(_) => claims.applied,
                Crash::Power => claims.durable,
            };
            let after = disk.after(crash);
            let what = format!("operation {operation}, {crash:?}");
            check(&what, &after, &history, least);
            // What the next process has made of it is whole as well.
            assert_eq!(
                check(&what, &after, &history, least),
                Origin::Database,
                "{what}"
            );
        }
        if ended {
            break;
        }
        operation += 1;
    }
    assert!(operation > 40, "{operation}");
}

#[test]
fn stopped_at_any_operation_of_opening_a_store_loses_nothing() {
    let history = history();
    for crash in CRASHES {
        let lived = FaultDisk::default();
        let claims = live(&lived, &history).unwrap();
        let damaged = lived.after(crash);
        damaged.edit(fault::Inner::flip_value);
        let worn = lived.after(crash);
        worn.set_bytes_on_disk(1 << 40);
        for (what, found) in [("left", &lived), ("worn out", &worn), ("damaged", &damaged)] {
            for operation in 0.. {
                let disk = found.after(crash);
                disk.stop_at(operation);
                let ended = Store::open_on(disk.shared()).is_ok() && !disk.is_stopped();
                let what = format!("{what}, operation {operation}, {crash:?}");
                for again in CRASHES {
                    let disk = disk.after(again);
                    let opened = Store::open_on(disk.shared()).unwrap();
                    let version = usize::try_from(opened.store.cursor().version.0).unwrap();
                    assert_holds(&opened, &history.states[version]);
                    // The copy is of the last version, too.
                    assert_eq!(
                        version as u64, claims.durable,
                        "{what}, {again:?}: {opened:?}"
                    );
                }
                if ended {
                    break;
                }
            }
        }
    }
}
