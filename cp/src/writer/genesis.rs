//! The first event of a log.

use super::RETRY_DELAY;
use super::append::append_proposals;
use crate::view::View;
use sluice_replica::environment::Environment;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::{AppendError, Source};
use sluice_replica::run::chain;
use sluice_schema::decide::genesis;
use sluice_schema::event::{Actor, EventId};
use sluice_schema::version::{Epoch, Version};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Sees to it that the log has its first event.
pub(super) struct Beginning {
    pub(super) source: Source,
    pub(super) view: View,
    pub(super) key: SigningKey,
    pub(super) trusted: watch::Receiver<TrustedKeys>,
    pub(super) environment: Environment,
}

impl Beginning {
    pub(super) async fn run(self, shutdown: CancellationToken) {
        while self.view.state().version() == Version::ZERO && !shutdown.is_cancelled() {
            match self.source.log.bounds().await {
                Ok(bounds) if bounds.last == Version::ZERO && self.may_sign() => {
                    self.append_genesis().await;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the log is not there yet"),
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                _ = self.view.reached(Epoch::default(), Version::GENESIS) => {}
                () = tokio::time::sleep(RETRY_DELAY * 5) => {}
            }
        }
    }

    fn may_sign(&self) -> bool {
        self.trusted.borrow().may_sign(self.key.id())
    }

    async fn append_genesis(&self) {
        let actor = Actor {
            name: "sluice-cp".into(),
            via: "start".into(),
            address: None,
        };
        // Ordered by time: a later life of the log has a higher epoch.
        let epoch = Epoch(self.environment.ordered_uuid());
        let id = EventId(self.environment.ordered_uuid());
        let proposal = genesis(epoch, id, self.environment.now(), actor);
        match append_proposals(&self.source, &self.key, vec![&proposal]).await {
            Ok(()) => tracing::info!(%epoch, "began a new log"),
            Err(AppendError::Conflict { .. }) => {
                tracing::info!("another control plane began the log");
            }
            Err(error) => tracing::warn!(error = %chain(&error), "could not begin the log"),
        }
    }
}
