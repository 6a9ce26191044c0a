//! Newer keyrings: control planes keep the one in force in the chunk store.

use super::Replica;
use crate::keys::stored_ring;
use crate::log::{LogError, StoredRoot};
use futures::future::FutureExt;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks for a newer keyring.
const RING_LOOK_INTERVAL: Duration = Duration::from_secs(2);

impl Replica {
    /// Asks the chunk store for a newer keyring, if there can be one and not too often.
    pub(super) fn look_for_ring(&mut self) {
        let recent = |looked: Instant| looked.elapsed() < RING_LOOK_INTERVAL;
        if !self.trusted().has_root() || self.ring.is_some() || self.ring_looked.is_some_and(recent)
        {
            return;
        }
        self.ring_looked = Some(Instant::now());
        let chunks = self.source.chunks.clone();
        self.ring = Some(async move { chunks.roots().await }.boxed());
    }

    pub(super) fn take_ring(&mut self, stored: Result<Vec<StoredRoot>, LogError>) {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => return self.note(&error),
        };
        let Some(ring) = stored_ring(&stored) else {
            return;
        };
        match self.options.keychain.offer(ring) {
            Ok(true) => tracing::info!(
                serial = self.trusted().ring_serial(),
                "took up a newer keyring"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "the keyring in the chunk store is of no use here")
            }
        }
    }
}
