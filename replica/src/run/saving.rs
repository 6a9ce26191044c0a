//! Saving and syncing what is staged, and the last known good copy: a little later, and in threads of their own.

use super::Replica;
use crate::environment::Environment;
use crate::planted::{Bug, planted};
use crate::store::StoreError;
use crate::store::good::Refreshed;
use futures::future::FutureExt;
use sluice_schema::version::Version;
use std::time::Duration;
use tokio::time::Instant;

/// How long a change may wait to be saved and synced together with others: both cost many times what a change does.
pub(super) const SAVE_DELAY: Duration = Duration::from_millis(100);

impl Replica {
    pub(super) fn save_later(&mut self) {
        self.save_at
            .get_or_insert_with(|| Instant::now() + SAVE_DELAY);
    }

    /// Saves what is staged, and starts a sync if none is under way.
    pub(super) fn save_now(&mut self) {
        self.save_at = None;
        if self.syncing.is_some() {
            if let Err(error) = self.store.save() {
                self.note(&error);
            }
            return self.save_later();
        }
        match self.store.begin_sync() {
            Ok(syncer) => {
                let version = self.store.cursor().version;
                let environment = self.options.environment.clone();
                let sync = async move {
                    let synced = in_thread(&environment, "a sync", move || syncer.sync()).await;
                    (version, synced)
                };
                self.syncing = Some(sync.boxed());
                if planted(Bug::DurableTooEarly) {
                    self.status.send_modify(|status| status.durable = version);
                }
            }
            Err(error) => {
                self.note(&error);
                self.save_later();
            }
        }
    }

    pub(super) fn take_synced(&mut self, version: Version, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.status.send_modify(|status| status.durable = version),
            Err(error) => {
                self.note(&error);
                self.save_later();
            }
        }
    }

    /// Begins to write the last known good copy beside the store, if it is time to.
    pub(super) fn copy_if_due(&mut self) {
        let now = Instant::now().into_std();
        if self.copying.is_some() || self.loading.is_some() || !self.store.good_due(now) {
            return;
        }
        match self.store.refresh_good(now) {
            Ok(refresh) => {
                let environment = self.options.environment.clone();
                let copy = async move {
                    in_thread(&environment, "the copying", move || refresh.run()).await
                };
                self.copying = Some(copy.boxed());
            }
            Err(error) => self.note(&error),
        }
    }

    pub(super) fn take_copied(&self, copied: Result<Refreshed, StoreError>) {
        match copied {
            Ok(Refreshed { written, removed }) => {
                tracing::debug!(written, removed, "refreshed the last known good copy");
            }
            Err(error) => self.note(&error),
        }
    }
}

/// Does work on the store in a thread of its own.
async fn in_thread<T: Send + 'static>(
    environment: &Environment,
    what: &str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let panicked = |_| Err(StoreError::Damaged(format!("{what} panicked")));
    environment.blocking(work).await.unwrap_or_else(panicked)
}
