//! The network between the broker and its clients: what each client sees of the broker, with everything that can happen on
//! the way.

use super::broker::Broker;
use super::dice::Dice;
use super::trace::{Trace, note};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::BoxStream;
use sluice_replica::log::{
    Append, AppendError, Bounds, ChunkUse, Chunks, Durability, Interest, Log, LogError, Page,
    Record, Source, StoredRoot, TailItem,
};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// As in the JetStream client.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that is cut off without notice finds out by its pings after about this.
const PING_TIMEOUT: Duration = Duration::from_secs(6);

/// How the network behaves: each chance is out of 10,000.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// The most a message takes, in milliseconds.
    pub(crate) latency_max_ms: u64,
    /// A request never arrives.
    pub(crate) request_lost: u32,
    /// A request arrives, its answer does not.
    pub(crate) answer_lost: u32,
    /// A request arrives twice.
    pub(crate) request_twice: u32,
    /// A request arrives after the client has stopped waiting.
    pub(crate) request_late: u32,
    /// A live message is lost.
    pub(crate) tail_lost: u32,
    /// A live message comes twice.
    pub(crate) tail_twice: u32,
    /// A live message comes late, behind others.
    pub(crate) tail_late: u32,
    /// How late, at most, in milliseconds.
    pub(crate) tail_late_max_ms: u64,
}

/// The connection of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Wire {
    #[default]
    Up,
    /// Cut; the client knows.
    Cut,
    /// Cut; the client does not know yet.
    HalfOpen,
}

#[derive(Debug, Default)]
struct Client {
    wire: Wire,
    /// Counts the processes of this client: the connection of one that was killed carries nothing any more.
    life: u64,
    tails: Vec<(Interest, UnboundedSender<TailItem>)>,
    /// Whether the client was last told that it is connected.
    told: bool,
    /// Changes with every change of the wire.
    wire_age: u64,
}

struct Inner {
    broker: Broker,
    up: bool,
    clients: Vec<Client>,
    weather: Weather,
    dice: Dice,
    trace: Trace,
    /// An old live message, for an attacker to play again.
    old: Option<TailItem>,
    last_head: Option<Bytes>,
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Inner>>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

/// What happens to one request.
struct Fate {
    there: Duration,
    back: Duration,
    lost: bool,
    answer_lost: bool,
    again: Option<Duration>,
    late: Option<Duration>,
}

impl Network {
    pub(crate) fn new(seed: u64, clients: usize, broker: Broker, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            broker,
            up: true,
            clients: (0..clients).map(|_| Client::default()).collect(),
            weather: Weather::default(),
            dice: Dice::new(seed, 3),
            trace,
            old: None,
            last_head: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the broker itself.
    pub(crate) fn broker<T>(&self, work: impl FnOnce(&mut Broker) -> T) -> T {
        work(&mut self.lock().broker)
    }

    /// Changes the weather.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Whether the broker runs.
    pub(crate) fn is_up(&self) -> bool {
        self.lock().up
    }

    /// A connection for a new process of `client`; that of its last one is dead from now on.
    pub(crate) fn connect(&self, client: usize) -> Source {
        let mut inner = self.lock();
        let life = inner.clients.get_mut(client).map_or(0, |client| {
            client.life += 1;
            client.tails.clear();
            client.life
        });
        let link = Arc::new(Link {
            network: self.clone(),
            client,
            life,
        });
        Source {
            log: link.clone(),
            chunks: link,
        }
    }

    /// The process of `client` is gone.
    pub(crate) fn hang_up(&self, client: usize) {
        if let Some(client) = self.lock().clients.get_mut(client) {
            client.life += 1;
            client.tails.clear();
        }
    }

    /// Cuts a client off; with `silently` it finds out later.
    pub(crate) fn cut(&self, client: usize, silently: bool) {
        let age = {
            let mut inner = self.lock();
            let Some(known) = inner.clients.get_mut(client) else {
                return;
            };
            known.wire = if silently { Wire::HalfOpen } else { Wire::Cut };
            known.wire_age += 1;
            known.wire_age
        };
        if silently {
            let network = self.clone();
            tokio::spawn(async move {
                sleep(PING_TIMEOUT).await;
                network.notice(client, age);
            });
        } else {
            self.lock().tell(client);
        }
    }

    /// The pings of a client that is cut off without notice go unanswered.
    fn notice(&self, client: usize, age: u64) {
        let mut inner = self.lock();
        if let Some(known) = inner.clients.get_mut(client)
            && known.wire_age == age
        {
            known.wire = Wire::Cut;
            inner.tell(client);
        }
    }

    /// Connects a client again.
    pub(crate) fn heal(&self, client: usize) {
        let mut inner = self.lock();
        if let Some(known) = inner.clients.get_mut(client) {
            // Whatever was half-open is a new connection now.
            let silent = known.wire == Wire::HalfOpen;
            known.wire = Wire::Up;
            known.wire_age += 1;
            if silent {
                known.told = false;
                known.send(&TailItem::Disconnected);
            }
            inner.tell(client);
        }
    }

    /// Starts or stops the broker.
    pub(crate) fn set_up(&self, up: bool) {
        let mut inner = self.lock();
        inner.up = up;
        for client in 0..inner.clients.len() {
            inner.tell(client);
        }
    }

    /// Sends a message to everybody who listens to such, as the broker or an attacker does.
    pub(crate) fn spread(&self, item: &TailItem) {
        let mut inner = self.lock();
        for client in 0..inner.clients.len() {
            for (after, life) in inner.tail_fate(client, item) {
                if after.is_zero() {
                    inner.deliver(client, life, item);
                    continue;
                }
                let (network, item) = (self.clone(), item.clone());
                tokio::spawn(async move {
                    sleep(after).await;
                    network.lock().deliver(client, life, &item);
                });
            }
        }
        if let TailItem::Head(head) = item {
            inner.last_head = Some(head.clone());
        }
        match item {
            TailItem::Record(_) | TailItem::Head(_) => {
                if inner.old.is_none() || inner.dice.chance(1000) {
                    inner.old = Some(item.clone());
                }
            }
            TailItem::Report(_)
            | TailItem::Connected
            | TailItem::Disconnected
            | TailItem::Warning(_) => {}
        }
    }

    /// The head that was announced last.
    pub(crate) fn last_head(&self) -> Option<Bytes> {
        self.lock().last_head.clone()
    }

    /// A message of the past.
    pub(crate) fn old_message(&self) -> Option<TailItem> {
        self.lock().old.clone()
    }
}

impl Client {
    fn send(&mut self, item: &TailItem) {
        self.tails
            .retain(|(_, tail)| tail.unbounded_send(item.clone()).is_ok());
    }
}

impl Inner {
    fn reachable(&self, client: usize) -> bool {
        self.up
            && self
                .clients
                .get(client)
                .is_some_and(|client| client.wire == Wire::Up)
    }

    fn life(&self, client: usize) -> u64 {
        self.clients.get(client).map_or(0, |client| client.life)
    }

    /// Tells a client of its connection if it has changed.
    fn tell(&mut self, client: usize) {
        let up = self.up;
        let Some(known) = self.clients.get_mut(client) else {
            return;
        };
        let connected = up && known.wire != Wire::Cut;
        if known.told != connected {
            known.told = connected;
            known.send(match connected {
                true => &TailItem::Connected,
                false => &TailItem::Disconnected,
            });
        }
    }

    fn deliver(&mut self, client: usize, life: u64, item: &TailItem) {
        if !self.reachable(client) || self.life(client) != life {
            return;
        }
        if let Some(known) = self.clients.get_mut(client) {
            let reports = matches!(item, TailItem::Report(_));
            known.tails.retain(|(interest, tail)| {
                let wanted = *interest == Interest::FollowAndReports || !reports;
                !wanted || tail.unbounded_send(item.clone()).is_ok()
            });
        }
    }

    /// When a live message reaches a client: never, once, twice.
    fn tail_fate(&mut self, client: usize, item: &TailItem) -> Vec<(Duration, u64)> {
        let weather = self.weather;
        let interested = |(interest, _): &(Interest, _)| {
            *interest == Interest::FollowAndReports || !matches!(item, TailItem::Report(_))
        };
        let listens = self
            .clients
            .get(client)
            .is_some_and(|client| client.tails.iter().any(interested));
        if !listens || !self.reachable(client) || self.dice.chance(weather.tail_lost) {
            return Vec::new();
        }
        let life = self.life(client);
        let once = |dice: &mut Dice| match dice.chance(weather.tail_late) {
            true => (dice.milliseconds(0, weather.tail_late_max_ms), life),
            false => (dice.milliseconds(0, weather.latency_max_ms), life),
        };
        let mut times = vec![once(&mut self.dice)];
        if self.dice.chance(weather.tail_twice) {
            times.push(once(&mut self.dice));
        }
        times
    }

    fn fate(&mut self) -> Fate {
        let Weather {
            latency_max_ms,
            request_lost,
            answer_lost,
            request_twice,
            request_late,
            ..
        } = self.weather;
        let dice = &mut self.dice;
        Fate {
            there: dice.milliseconds(0, latency_max_ms),
            back: dice.milliseconds(0, latency_max_ms),
            lost: dice.chance(request_lost),
            answer_lost: dice.chance(answer_lost),
            again: dice.chance(request_twice).then(|| dice.milliseconds(0, 50)),
            late: dice
                .chance(request_late)
                .then(|| dice.milliseconds(0, 3000)),
        }
    }
}

/// What one process sees of the broker.
#[derive(Debug)]
struct Link {
    network: Network,
    client: usize,
    life: u64,
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
