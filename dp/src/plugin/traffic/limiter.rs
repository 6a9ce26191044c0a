//! Where what is limited is counted: on this node, on all data planes, or in Redis. Shared by the limiting plugins.
//!
//! With `policy: cluster` data planes tell each other what they have counted, many times a second: see
//! [`cluster`](super::cluster), also for how exact that is. No request waits, and none is refused because others cannot be
//! reached, whatever `fault_tolerant` says.
//!
//! `policy: redis` with `sync_rate` -1 asks Redis about each request; asking and counting are one script there, so no more
//! than the limit pass over all nodes. With a `sync_rate` above 0 each node counts by itself and tells Redis every that many
//! seconds, when it learns what the others have counted: until then a limit can be passed by what the other nodes let in
//! during one interval.

#[cfg(not(feature = "redis"))]
use super::absent as redis;
use super::cluster::Cluster;
use super::counters::{Counters, Key};
use super::period::{Limits, PERIODS, Period};
#[cfg(feature = "redis")]
use super::redis;
use super::windows::Usage;
use crate::metrics::Writer;
use crate::plugin::{Answer, Change, Lasting, Surroundings};
use http::StatusCode;
use serde::Deserialize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Kong's defaults for the fields below.
const REDIS_PORT: u16 = 6379;
const REDIS_TIMEOUT_MS: u64 = 2000;

/// Where requests are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    #[default]
    Local,
    Cluster,
    Redis,
}

/// The record `redis`.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    pub(super) host: Option<String>,
    pub(super) port: u16,
    /// Milliseconds, for the connection and for each answer.
    pub(super) timeout: u64,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
    pub(super) ssl: bool,
    pub(super) ssl_verify: bool,
    pub(super) server_name: Option<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: None,
            port: REDIS_PORT,
            timeout: REDIS_TIMEOUT_MS,
            username: None,
            password: None,
            database: 0,
            ssl: false,
            ssl_verify: false,
            server_name: None,
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It holds a password.
        write!(f, "{:?}:{}/{}", self.host, self.port, self.database)
    }
}

/// The prepared form of where to count, of one plugin.
#[derive(Debug)]
pub(super) enum Policy {
    Local,
    Cluster,
    Redis(redis::Remote),
}

/// The shared counts cannot be reached, and without them nothing is decided.
#[derive(Debug)]
pub(super) struct Unavailable;

impl From<Unavailable> for Answer {
    fn from(Unavailable: Unavailable) -> Self {
        Self::message(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error occurred",
        )
    }
}

impl Policy {
    /// `sync_rate` in seconds; one that is not above 0 means at once.
    ///
    /// # Errors
    /// If it cannot be counted there.
    pub(super) fn compile(place: Place, server: Server, sync_rate: f64) -> Result<Self, String> {
        match place {
            Place::Local => Ok(Self::Local),
            Place::Cluster => Ok(Self::Cluster),
            Place::Redis => Ok(Self::Redis(redis::Remote::new(server, sync_rate)?)),
        }
    }

    /// Whether Redis has to be waited for.
    pub(super) fn waits(&self) -> bool {
        match self {
            Self::Local | Self::Cluster => false,
            Self::Redis(remote) => remote.waits(),
        }
    }

    /// Counts one request if it is within all limits. Only where nothing has to be waited for.
    pub(super) fn take(&self, limiter: &Limiter, key: Key, limits: &Limits, now: u64) -> Usage {
        let usage = limiter.counters.take(key, limits, now);
        self.note(limiter, key, (usage.allowed, now));
        usage
    }

    /// What is used. Only where nothing has to be waited for.
    pub(super) fn look(&self, limiter: &Limiter, key: Key, limits: &Limits, now: u64) -> Usage {
        let usage = limiter.counters.look(key, limits, now);
        self.note(limiter, key, (false, now));
        usage
    }

    /// Asks Redis; counts one request if `take` and it is within all limits.
    pub(super) async fn ask(
        &self,
        limiter: &Limiter,
        (key, take): (Key, bool),
        limits: &Limits,
        now: u64,
    ) -> Result<Usage, Unavailable> {
        match self {
            Self::Local | Self::Cluster if take => Ok(self.take(limiter, key, limits, now)),
            Self::Local | Self::Cluster => Ok(self.look(limiter, key, limits, now)),
            Self::Redis(remote) => {
                let windows = Window::of(key, limits, now);
                let counts = remote.ask(&limiter.redis, &windows, take).await?;
                Ok(usage(limits, &counts))
            }
        }
    }

    /// Counts that much, whatever the limits, without waiting.
    pub(super) fn add(
        &self,
        limiter: &Limiter,
        key: Key,
        limits: &Limits,
        (amount, now): (u64, u64),
    ) {
        match self {
            Self::Redis(remote) if remote.waits() => {
                remote.add(&limiter.redis, Window::of(key, limits, now), amount);
            }
            Self::Local | Self::Cluster | Self::Redis(_) => {
                limiter.counters.add(key, limits, amount, now);
                self.note(limiter, key, (true, now));
            }
        }
    }

    /// Has others told of an identity. Redis is also asked about one that has not been counted.
    fn note(&self, limiter: &Limiter, key: Key, (counted, now): (bool, u64)) {
        match self {
            Self::Cluster if counted => limiter.cluster.note(key),
            Self::Redis(remote) if !remote.waits() && limiter.counters.mark(key) => {
                remote.note(&limiter.redis, &limiter.counters, (key, now));
            }
            Self::Local | Self::Cluster | Self::Redis(_) => {}
        }
    }
}

fn usage(limits: &Limits, counts: &[u64]) -> Usage {
    let mut usage = Usage::default();
    let mut counts = counts.iter();
    for (before, limit) in usage.before.iter_mut().zip(limits) {
        let Some(limit) = limit else { continue };
        *before = counts.next().copied().unwrap_or_default();
        usage.allowed &= *before < *limit;
    }
    usage
}

/// One count of Redis.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "what is told Redis")
)]
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Its key there. All of one identity are in one slot of a cluster.
    pub(super) name: String,
    pub(super) limit: u64,
    /// Seconds after which it is of no use to anybody.
    pub(super) lasts: u64,
}

impl Window {
    /// Those of the periods that are limited.
    fn of(key: Key, limits: &Limits, now: u64) -> Vec<Self> {
        let limited = PERIODS.into_iter().zip(limits);
        let limited = limited.filter_map(|(period, limit)| Some((period, (*limit)?)));
        let window = |(period, limit): (Period, u64)| Self {
            limit,
            ..Self::new(key, period, period.start(now), now)
        };
        limited.map(window).collect()
    }

    /// The one of a period that began then.
    pub(super) fn new(key: Key, period: Period, start: u64, now: u64) -> Self {
        let (plugin, subject, name) = (key.plugin, key.subject, period.name());
        Self {
            name: format!("sluice:limit:{{{plugin}:{subject}}}:{name}:{start}"),
            limit: 0,
            lasts: period.end_at_most(start).saturating_sub(now).max(1),
        }
    }
}

/// The counts of all limiting plugins. They outlive every change of the configuration.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub(super) counters: Arc<Counters>,
    pub(super) cluster: Cluster,
    pub(super) redis: redis::Servers,
}

impl Default for Limiter {
    fn default() -> Self {
        let counters = Arc::default();
        Self {
            cluster: Cluster::of(&counters),
            counters,
            redis: Default::default(),
        }
    }
}

impl Limiter {
    /// Takes up a change of a plugin with a policy.
    pub(super) fn changed<P>(&self, change: &Change<'_, P>, policy: impl Fn(&P) -> &Policy) {
        let (Change::Created { now, .. } | Change::Updated { now, .. }) = change else {
            return;
        };
        match policy(now) {
            Policy::Cluster => self.cluster.want(),
            Policy::Local | Policy::Redis(_) => {}
        }
    }
}

impl Lasting for Limiter {
    fn start(&self, node: &Surroundings) {
        self.cluster.start(node);
        self.redis.start(node);
    }

    fn tick(&self, now: u64) {
        self.counters.tick(now);
    }

    fn metrics(&self, writer: &mut Writer) {
        self.counters.metrics(writer);
        self.cluster.metrics(writer);
        self.redis.metrics(writer);
    }

    fn stop(&self, patience: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::join!(self.cluster.stop(patience), self.redis.stop(patience));
        })
    }
}
