//! The other data planes, reached through the log's broker.

use crate::plugin::{Heard, Peers};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sluice_replica::log::{CountsItem, Log};
use std::pin::Pin;
use std::sync::Arc;

/// The way to them.
#[derive(Debug)]
pub(crate) struct LogPeers {
    log: Arc<dyn Log>,
    /// This node's id.
    node: String,
}

impl LogPeers {
    /// As the node of that id.
    pub(crate) fn new(log: Arc<dyn Log>, node: String) -> Self {
        Self { log, node }
    }
}

impl Peers for LogPeers {
    fn tell(&self, message: Bytes) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            let told = self.log.tell_counts(&self.node, message).await;
            told.inspect_err(|error| tracing::debug!(%error, "could not tell counts"))
                .is_ok()
        })
    }

    fn listen(
        &self,
    ) -> Pin<Box<dyn Future<Output = Option<BoxStream<'static, Heard>>> + Send + '_>> {
        Box::pin(async move {
            let counts = self.log.counts().await;
            let counts =
                counts.inspect_err(|error| tracing::warn!(%error, "could not listen to counts"));
            let heard = |item| match item {
                CountsItem::Counts { node, counts } => Heard::Message {
                    from: node,
                    message: counts,
                },
                CountsItem::Connected => Heard::Connected,
            };
            Some(counts.ok()?.map(heard).boxed())
        })
    }
}
