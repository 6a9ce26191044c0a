//! The network between the broker and its clients: what each client sees of the broker, with everything that can happen on
//! the way.

mod link;

use super::broker::Broker;
use super::dice::Dice;
use super::trace::Trace;
use bytes::Bytes;
use futures::channel::mpsc::UnboundedSender;
use link::Link;
use sluice_replica::log::{Interest, Source, TailItem};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

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
