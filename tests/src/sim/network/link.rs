//! The broker as one process sees it: the real traits, with the network in between.

use super::{Fate, Network, Wire};
use crate::sim::broker::Broker;
use crate::sim::trace::note;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::unbounded;
use futures::stream::BoxStream;
use sluice_replica::log::{
    Append, AppendError, Bounds, ChunkUse, Chunks, Durability, Interest, Log, LogError, Page,
    Record, StoredRoot, TailItem,
};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// As in the JetStream client.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What one process sees of the broker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) network: Network,
    pub(super) client: usize,
    pub(super) life: u64,
}

fn timed_out() -> LogError {
    LogError::Unavailable("no answer in time".into())
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        sleep(duration).await;
    }
}

impl Link {
    /// The fate of a request; `None` if the client knows that it has no connection. Pending for ever in a dead process.
    async fn set_out(&self) -> Option<(Fate, bool)> {
        let found = {
            let mut inner = self.network.lock();
            let dead = inner.life(self.client) != self.life;
            let told = inner
                .clients
                .get(self.client)
                .is_some_and(|client| client.told);
            let fate = inner.fate();
            (!dead).then_some((fate, told, inner.reachable(self.client)))
        };
        match found {
            None => std::future::pending().await,
            Some((_, false, _)) => {
                sleep(Duration::from_millis(1)).await;
                None
            }
            Some((fate, true, reachable)) => Some((fate, reachable)),
        }
    }

    /// Asks the broker something that changes nothing that matters if it is done late or not at all.
    async fn ask<T>(
        &self,
        work: impl FnOnce(&mut Broker) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let Some((fate, reachable)) = self.set_out().await else {
            return Err(LogError::Unavailable("not connected".into()));
        };
        if !reachable || fate.lost {
            sleep(REQUEST_TIMEOUT).await;
            return Err(timed_out());
        }
        pause(fate.there).await;
        let answer = {
            let mut inner = self.network.lock();
            inner
                .reachable(self.client)
                .then(|| work(&mut inner.broker))
        };
        pause(fate.back).await;
        match answer {
            Some(answer) if !fate.answer_lost && self.network.lock().reachable(self.client) => {
                answer
            }
            Some(_) | None => {
                sleep(REQUEST_TIMEOUT).await;
                Err(timed_out())
            }
        }
    }

    /// Sends an append on its way: it arrives whether or not somebody still waits for it.
    fn send(
        &self,
        fate: &Fate,
        expected: Version,
        events: Vec<Append>,
    ) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, answer) = oneshot::channel();
        let mut arrivals = Vec::new();
        match fate.late {
            Some(late) => arrivals.push(REQUEST_TIMEOUT + late),
            None => arrivals.push(fate.there),
        }
        arrivals.extend(fate.again.map(|again| fate.there + again));
        let mut done = Some(done);
        for arrival in arrivals {
            let (network, client, events, done) = (
                self.network.clone(),
                self.client,
                events.clone(),
                done.take(),
            );
            tokio::spawn(async move {
                pause(arrival).await;
                let result = network.store(client, expected, &events);
                if let (Some(done), Some(result)) = (done, result) {
                    let _ = done.send(result);
                }
            });
        }
        answer
    }
}

impl Network {
    /// An append arrives at the broker; `None` if that is down.
    fn store(
        &self,
        client: usize,
        expected: Version,
        events: &[Append],
    ) -> Option<Result<(), AppendError>> {
        let (stored, trace) = {
            let mut inner = self.lock();
            if !inner.up {
                return None;
            }
            (inner.broker.append(expected, events), inner.trace.clone())
        };
        Some(match stored {
            Ok(records) => {
                note!(
                    trace,
                    "broker: {} events after {expected} from client {client}",
                    records.len()
                );
                records
                    .into_iter()
                    .for_each(|record| self.spread(&TailItem::Record(record)));
                Ok(())
            }
            Err(error) => {
                note!(
                    trace,
                    "broker: refused events after {expected} from client {client}: {error}"
                );
                Err(error)
            }
        })
    }
}

#[async_trait]
impl Log for Link {
    async fn append(&self, expected: Version, events: Vec<Append>) -> Result<(), AppendError> {
        let Some((fate, reachable)) = self.set_out().await else {
            return Err(AppendError::Refused(LogError::Unavailable(
                "not connected".into(),
            )));
        };
        let unknown = || AppendError::Unknown {
            expected,
            source: timed_out(),
        };
        if !reachable || fate.lost {
            sleep(REQUEST_TIMEOUT).await;
            return Err(unknown());
        }
        let answer = self.send(&fate, expected, events);
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, answer).await;
        pause(fate.back).await;
        match answer {
            Ok(Ok(answer)) if !fate.answer_lost && self.network.lock().reachable(self.client) => {
                answer
            }
            Ok(_) => {
                sleep(REQUEST_TIMEOUT).await;
                Err(unknown())
            }
            Err(_) => Err(unknown()),
        }
    }

    async fn read(&self, from: Version) -> Result<Page, LogError> {
        self.ask(|broker| Ok(broker.read(from))).await
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        self.ask(|broker| Ok(broker.get(version))).await
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.ask(|broker| Ok(broker.bounds())).await
    }

    async fn trim(&self, first: Version) -> Result<(), LogError> {
        self.ask(|broker| broker.trim(first)).await
    }

    async fn tail(&self, interest: Interest) -> Result<BoxStream<'static, TailItem>, LogError> {
        let (sender, items) = unbounded();
        {
            let mut inner = self.network.lock();
            let up = inner.up;
            if inner.life(self.client) == self.life
                && let Some(client) = inner.clients.get_mut(self.client)
            {
                client.told = up && client.wire != Wire::Cut;
                if client.told {
                    let _ = sender.unbounded_send(TailItem::Connected);
                }
                client.tails.push((interest, sender));
                return Ok(items.boxed());
            }
        }
        std::future::pending().await
    }

    async fn announce(&self, head: Bytes) -> Result<(), LogError> {
        self.publish(&TailItem::Head(head)).await
    }

    async fn report(&self, _: &str, report: Bytes) -> Result<(), LogError> {
        self.publish(&TailItem::Report(report)).await
    }

    async fn durability(&self) -> Durability {
        Durability::Synced
    }
}

impl Link {
    /// Sends a message that nobody answers.
    async fn publish(&self, item: &TailItem) -> Result<(), LogError> {
        match self.set_out().await {
            None => Err(LogError::Unavailable("not connected".into())),
            Some((fate, reachable)) => {
                if reachable && !fate.lost {
                    self.network.spread(item);
                }
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Chunks for Link {
    async fn put(&self, part: ChunkUse, hash: Hash32, content: &[u8]) -> Result<(), LogError> {
        self.ask(|broker| {
            broker.put(part, hash, content);
            Ok(())
        })
        .await
    }

    async fn get(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        self.ask(|broker| broker.chunk(part, hash)).await
    }

    async fn put_root(&self, name: &str, root: &[u8]) -> Result<(), LogError> {
        self.ask(|broker| {
            broker.put_root(name, root);
            Ok(())
        })
        .await
    }

    async fn roots(&self) -> Result<Vec<StoredRoot>, LogError> {
        self.ask(|broker| Ok(broker.roots())).await
    }

    async fn remove_root(&self, name: &str) -> Result<(), LogError> {
        self.ask(|broker| {
            broker.remove_root(name);
            Ok(())
        })
        .await
    }

    async fn list(&self, part: ChunkUse) -> Result<BTreeSet<Hash32>, LogError> {
        self.ask(|broker| Ok(broker.list(part))).await
    }

    async fn remove(
        &self,
        part: ChunkUse,
        hash: Hash32,
        stored_before: Time,
    ) -> Result<bool, LogError> {
        self.ask(|broker| Ok(broker.remove(part, hash, stored_before)))
            .await
    }
}
