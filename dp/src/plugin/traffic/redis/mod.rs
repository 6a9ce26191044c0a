//! Counts in Redis: at once, or synchronised every so often.
//!
//! Connections live on a thread of their own, one for each server that some plugin names, shared by all workers and by all
//! plugins that name the same. A server that is away is told from one that is slow: while there is no connection nobody waits.

mod link;
mod sync;

use super::background::Background;
use super::counters::{Counters, Key};
use super::limiter::{Server, Unavailable, Window};
use crate::metrics::Writer;
use crate::plugin::Surroundings;
use crate::proxy::checker;
use crate::table::Authority;
use link::Link;
use redis::Script;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use sync::Group;
use tokio::sync::Semaphore;

/// How many counts may be on their way at a time that no request waits for.
const ADDS_MAX: usize = 10_000;
/// The shortest interval of synchronising.
const SYNC_MIN: Duration = Duration::from_millis(20);
/// The longest: a day.
const SYNC_MAX_SECONDS: f64 = 86_400.0;

/// Gives the counts of all keys as they were. Adds ARGV[1] to each, if ARGV[2] is 0 or all are below their limits, which follow
/// for each key with the seconds that it lasts.
const COUNT: &str = "
local counts, within = {}, true
for i, key in ipairs(KEYS) do
  counts[i] = tonumber(redis.call('GET', key) or 0) or 0
  if ARGV[2] == '1' and counts[i] >= tonumber(ARGV[2 * i + 1]) then within = false end
end
if within and ARGV[1] ~= '0' then
  for i, key in ipairs(KEYS) do
    redis.call('INCRBY', key, ARGV[1])
    if counts[i] == 0 then redis.call('EXPIRE', key, ARGV[2 * i + 2]) end
  end
end
return counts";

/// What all plugins share.
pub(super) struct Servers {
    trusted: OnceLock<Arc<[Authority]>>,
    background: Background,
    links: Mutex<HashMap<Server, Weak<Link>>>,
    groups: Mutex<Vec<Weak<Group>>>,
    script: Arc<Script>,
    adds: Arc<Semaphore>,
    faults: Arc<Faults>,
}

/// What went wrong so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Questions without an answer.
    failed: AtomicU64,
    /// Counts that Redis was not told.
    dropped: AtomicU64,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            trusted: OnceLock::new(),
            background: Background::named("redis"),
            links: Mutex::default(),
            groups: Mutex::default(),
            script: Arc::new(Script::new(COUNT)),
            adds: Arc::new(Semaphore::new(ADDS_MAX)),
            faults: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl Servers {
    pub(super) fn start(&self, node: &Surroundings) {
        // A second start finds the same node.
        let _ = self.trusted.set(Arc::clone(&node.trusted));
    }

    pub(super) fn metrics(&self, writer: &mut Writer) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        writer.single(
            "sluice_dp_rate_redis_failed_total",
            "counter",
            "Questions to Redis without an answer",
            count(&self.faults.failed),
        );
        writer.single(
            "sluice_dp_rate_redis_dropped_total",
            "counter",
            "Counts that Redis was not told",
            count(&self.faults.dropped),
        );
    }

    /// Tells Redis what it has not been told, in that time at most.
    pub(super) async fn stop(&self, patience: Duration) {
        let groups: Vec<_> = {
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups
                .drain(..)
                .filter_map(|group| group.upgrade())
                .collect()
        };
        let flushes = groups.iter().map(|group| group.flush());
        let all = futures::future::join_all(flushes);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("Redis was not told all counts");
        }
        let patience = tokio::time::timeout(patience, async {
            let all = u32::try_from(ADDS_MAX).unwrap_or(u32::MAX);
            self.adds.acquire_many(all).await.is_ok()
        });
        if patience.await.is_err() {
            tracing::warn!("Redis was not told all counts");
        }
    }

    /// The connection to a server.
    fn link(&self, server: &Server) -> Option<Arc<Link>> {
        let runtime = self.background.handle()?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(server).and_then(Weak::upgrade) {
            return Some(link);
        }
        links.retain(|_, link| link.strong_count() > 0);
        let tls = server.ssl.then(|| {
            let trusted = self.trusted.get().map_or(&[][..], |trusted| trusted);
            checker(server.ssl_verify.then_some(trusted), None, false)
        });
        let tls = match tls.transpose() {
            Ok(tls) => tls,
            Err(error) => {
                tracing::warn!(%error, ?server, "no TLS to Redis");
                return None;
            }
        };
        let link = Link::start(server.clone(), tls, runtime);
        links.insert(server.clone(), Arc::downgrade(&link));
        Some(link)
    }
}

/// The prepared form of a plugin that counts in Redis.
#[derive(Debug)]
pub(super) struct Remote {
    server: Server,
    /// How often; `None` at once.
    interval: Option<Duration>,
    link: OnceLock<Option<Arc<Link>>>,
    group: OnceLock<Option<Arc<Group>>>,
}

impl Remote {
    pub(super) fn new(server: Server, sync_rate: f64) -> Result<Self, String> {
        if server.host.is_none() {
            return Err("redis.host is missing".to_owned());
        }
        let interval = (sync_rate > 0.0)
            .then(|| Duration::from_secs_f64(sync_rate.min(SYNC_MAX_SECONDS)).max(SYNC_MIN));
        Ok(Self {
            server,
            interval,
            link: OnceLock::new(),
            group: OnceLock::new(),
        })
    }

    pub(super) fn waits(&self) -> bool {
        self.interval.is_none()
    }

    /// The counts as they were; adds one to each if `take` and all are below their limits.
    pub(super) async fn ask(
        &self,
        servers: &Servers,
        windows: &[Window],
        take: bool,
    ) -> Result<Vec<u64>, Unavailable> {
        let link = self.link(servers).ok_or(Unavailable)?;
        let counted = count(&servers.script, link, windows, u64::from(take), take).await;
        counted.ok_or_else(|| {
            servers.faults.failed.fetch_add(1, Ordering::Relaxed);
            Unavailable
        })
    }

    /// Adds to counts, without waiting.
    pub(super) fn add(&self, servers: &Servers, windows: Vec<Window>, amount: u64) {
        let permit = Arc::clone(&servers.adds).try_acquire_owned().ok();
        let (Some(permit), Some(runtime)) = (permit, servers.background.handle()) else {
            servers.faults.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(link) = self.link(servers).cloned() else {
            servers.faults.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (script, faults) = (Arc::clone(&servers.script), Arc::clone(&servers.faults));
        runtime.spawn(async move {
            let counted = count(&script, &link, &windows, amount, false).await;
            if counted.is_none() {
                faults.dropped.fetch_add(1, Ordering::Relaxed);
            }
            drop(permit);
        });
    }

    /// Has Redis told what an identity has used, and asked what others have, at the end of the interval.
    pub(super) fn note(&self, servers: &Servers, counters: &Arc<Counters>, (key, now): (Key, u64)) {
        let group = self.group.get_or_init(|| {
            let interval = self.interval?;
            let (link, runtime) = (self.link(servers)?, servers.background.handle()?);
            let (link, faults) = (Arc::clone(link), Arc::clone(&servers.faults));
            let group = Group::start(link, Arc::clone(counters), faults, interval, runtime);
            let mut groups = servers
                .groups
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            groups.retain(|group| group.strong_count() > 0);
            groups.push(Arc::downgrade(&group));
            Some(group)
        });
        if let Some(group) = group {
            group.note(key, now);
        }
    }

    fn link(&self, servers: &Servers) -> Option<&Arc<Link>> {
        let link = self.link.get_or_init(|| servers.link(&self.server));
        link.as_ref()
    }
}

/// Runs the script. `None` if there is no answer.
async fn count(
    script: &Script,
    link: &Link,
    windows: &[Window],
    amount: u64,
    check: bool,
) -> Option<Vec<u64>> {
    let mut connection = link.connection().await?;
    let mut call = script.prepare_invoke();
    call.arg(amount).arg(u8::from(check));
    for window in windows {
        call.key(&window.name).arg(window.limit).arg(window.lasts);
    }
    let answer = call.invoke_async(&mut connection).await;
    link.judge(answer)
}
