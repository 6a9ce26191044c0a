//! How long a start takes: `cargo test --release -p sluice-replica --lib -- --ignored --nocapture a_start`

#![allow(clippy::print_stdout, reason = "measures")]

use super::*;
use crate::store::open::verify;
use std::time::Instant;

const ENTITIES: u64 = 100_000;
const BODY_BYTES: usize = 500;
const PER_EVENT: u64 = 1000;

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = run();
    println!("{what}: {:?}", began.elapsed());
    done
}

/// Fills a store as a replica does that follows the log.
fn fill(store: &mut Store) {
    // It is in the body twice.
    let body = "x".repeat(BODY_BYTES / 2 - 40);
    let mut cursor = Cursor::default();
    let mut sum = Accumulator::default();
    for at in 0..=ENTITIES / PER_EVENT {
        let numbers = at.saturating_sub(1) * PER_EVENT..at * PER_EVENT;
        let mutations: Vec<_> = numbers
            .map(|number| {
                let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                put(spread, &format!("{number}{body}"))
            })
            .collect();
        for mutation in &mutations {
            sum.add(&mutation.key(), mutation.body().unwrap());
        }
        let (epoch, id) = (Epoch(Uuid::from_u128(5)), EventId(Uuid::from_u128(1)));
        let event = Event {
            previous: cursor.version,
            previous_chain: cursor.chain,
            mutations: Mutations::Inline(mutations),
            digest: sum.digest(),
            ..Event::genesis(epoch, id, Time(1), Actor::default())
        };
        cursor = event.cursor(b"");
        store.stage([(&event, cursor)]).unwrap();
        if at % 10 == 0 {
            store.begin_sync().unwrap().sync().unwrap();
        }
    }
}

fn scan(store: &Store) -> usize {
    let mut bytes = 0;
    let mut next = vec![];
    loop {
        let page = store.database.scan(&next, view::PAGE_RECORDS_MAX).unwrap();
        let Some((last, _)) = page.last() else {
            return bytes;
        };
        next = view::after(last.clone());
        bytes += page
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
    }
}

/// What a start is made of, one by one.
fn measure_parts(store: &Store) {
    timed("verify, once more", || {
        verify(&*store.database, &mut |_| ()).unwrap()
    });
    println!("{} MiB", timed("scan alone", || scan(store)) / (1 << 20));
    timed("scan, checksums and decoding", || {
        store.read_all(|all| all.count()).unwrap()
    });
    let all: Vec<_> = store.read_all(|all| all.collect()).unwrap();
    timed("sum alone", || {
        let mut sum = Accumulator::default();
        for (key, entry) in &all {
            sum.add(key, &entry.body);
        }
        assert_eq!(sum.digest(), store.digest());
    });
    timed("a control plane's state", || {
        store
            .read_all(|all| State::restore(store.cursor(), all))
            .unwrap()
    });
}

#[test]
#[ignore = "measures; takes long without optimisation"]
fn a_start_with_many_entities() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = open(&path).store;
    timed("filled", || fill(&mut store));
    timed("tree", || store.tree().unwrap().leaves().len());
    let refresh = store.refresh_good(Instant::now()).unwrap();
    println!("{:?}", timed("copy", || refresh.run().unwrap()));
    timed("sync", || store.begin_sync().unwrap().sync().unwrap());
    drop(store);

    let store = timed("open and verify", || open(&path).store);
    let on_disk = store.database.bytes_on_disk() >> 20;
    println!("{} entities, {on_disk} MiB on disk", store.len());
    measure_parts(&store);
    drop(store);

    std::fs::remove_file(path.join("current")).unwrap();
    let opened = timed("open from the last known good copy", || {
        Store::open(&path).unwrap()
    });
    assert_eq!(opened.source, Origin::LastKnownGood { behind: None });
    let mut store = opened.store;
    timed("written anew into another database", || {
        store.begin(store.cursor(), u64::MAX).unwrap();
        let sum = store.sum().clone();
        store.finish(sum.digest(), None).unwrap();
    });
}
