//! Follows the log of a cluster in a program of your own, with a verified local copy, and prints each change:
//!
//!     cargo run --example watch -- nats://127.0.0.1:4222 .sluice/cp/keys /tmp/watch
//!
//! The arguments are the broker, the public keys to believe, and the directory of the local copy. Started again, it goes on from there.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use anyhow::{Context, Result};
use sluice_replica::environment::Environment;
use sluice_replica::keys::{Keychain, Pinned};
use sluice_replica::log::Interest;
use sluice_replica::log::jetstream::{JetStream, Options, Role};
use sluice_replica::node::SyncMode;
use sluice_replica::run::{self, Arrival, Replica, Sink};
use sluice_replica::store::Store;
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::version::Cursor;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Where the replica puts what it applies.
struct Printer;

impl Sink for Printer {
    fn change(&mut self, cursor: Cursor, _: Digest, changes: &[Change], _: &[Arrival]) {
        for change in changes {
            let verb = match (&change.before, &change.after) {
                (None, _) => "created",
                (Some(_), Some(_)) => "updated",
                (Some(_), None) => "deleted",
            };
            println!("{}: {verb} {}", cursor.version, change.key);
        }
    }

    // A large difference, from a snapshot, comes in parts that count together.
    fn stage(&mut self, _: &[Change]) {}

    fn commit(&mut self, cursor: Cursor, _: Digest) {
        println!("{}: took up a snapshot", cursor.version);
    }

    fn abandon(&mut self) {}

    fn reload(
        &mut self,
        cursor: Cursor,
        _: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    ) {
        println!(
            "{}: all anew, {} entities",
            cursor.version,
            entities.count()
        );
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().context(what);
    let (url, keys) = (next("which broker?")?, PathBuf::from(next("which keys?")?));
    let directory = PathBuf::from(next("which directory?")?);
    let options = Options {
        servers: vec![url],
        cluster: "main".to_owned(),
        ..Options::new(Role::DataPlane, "watch")
    };
    let source = JetStream::connect(options).await?;
    let options = run::Options {
        keychain: Keychain::open(Pinned::files(&keys), &directory)?,
        sync: SyncMode::Incremental,
        interest: Interest::Follow,
        reports: None,
        heads: None,
        environment: Environment::system(),
    };
    let opened = Store::open(&directory.join("store"))?;
    opened.warn();
    let replica = Replica::new(source, opened.store, Box::new(Printer), options);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    Ok(replica.run(shutdown).await?)
}
