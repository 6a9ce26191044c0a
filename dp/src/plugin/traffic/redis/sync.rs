//! Counts that are told Redis, and learned from it, every so often.

use super::super::counters::{Counters, Key};
use super::super::limiter::Window;
use super::super::noted::Noted;
use super::super::period::PERIODS;
use super::Faults;
use super::link::Link;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// Identities that are told with one message.
const BATCH: usize = 500;

/// The identities of one plugin that Redis is to be told of.
#[derive(Debug)]
pub(super) struct Group {
    counters: Arc<Counters>,
    link: Arc<Link>,
    faults: Arc<Faults>,
    noted: Noted,
    /// When the last was noted: seconds since the Unix epoch.
    now: AtomicU64,
}

/// What is told of one count.
struct Told {
    key: Key,
    period: usize,
    start: u32,
    amount: u32,
}

impl Group {
    /// Tells every `interval`, until the plugin has another form; then once more.
    pub(super) fn start(
        link: Arc<Link>,
        counters: Arc<Counters>,
        faults: Arc<Faults>,
        interval: Duration,
        runtime: &Handle,
    ) -> Arc<Self> {
        let group = Arc::new(Self {
            counters,
            link,
            faults,
            noted: Noted::default(),
            now: AtomicU64::new(0),
        });
        runtime.spawn(run(Arc::clone(&group), interval));
        group
    }

    pub(super) fn note(&self, key: Key, now: u64) {
        self.now.store(now, Ordering::Relaxed);
        self.noted.put(&self.counters, key);
    }

    /// Tells what there is to tell. What Redis does not take is kept for the next time.
    pub(super) async fn flush(&self) {
        let keys = self.noted.take(usize::MAX);
        for batch in keys.chunks(BATCH) {
            if self.tell(batch).await.is_none() {
                self.faults.failed.fetch_add(1, Ordering::Relaxed);
                for key in batch {
                    self.counters.unmark(*key);
                    // One that is forgotten need not be told.
                    if self.counters.mark(*key) {
                        self.noted.put(&self.counters, *key);
                    }
                }
            }
        }
    }

    async fn tell(&self, keys: &[Key]) -> Option<()> {
        let mut connection = self.link.connection().await?;
        let now = self.now.load(Ordering::Relaxed);
        let mut call = redis::pipe();
        let mut told = Vec::new();
        for key in keys {
            let Some(windows) = self.counters.unmark(*key) else {
                continue;
            };
            for (period, start) in windows.start.into_iter().enumerate() {
                let amount = windows.count[period].saturating_sub(windows.told[period]);
                let over = PERIODS[period].end_at_most(u64::from(start)) <= now;
                if start == 0 || (over && amount == 0) {
                    continue;
                }
                let window = Window::new(*key, PERIODS[period], u64::from(start), now);
                call.incr(&window.name, amount);
                let lasts = i64::try_from(window.lasts).unwrap_or(i64::MAX);
                call.expire(&window.name, lasts).ignore();
                told.push(Told {
                    key: *key,
                    period,
                    start,
                    amount,
                });
            }
        }
        if told.is_empty() {
            return Some(());
        }
        let answer = call.query_async::<Vec<u64>>(&mut connection).await;
        let all = self.link.judge(answer)?;
        for (told, all) in told.iter().zip(all) {
            let window = (told.period, told.start);
            self.counters.told(told.key, window, told.amount, all);
        }
        Some(())
    }
}

async fn run(group: Arc<Group>, interval: Duration) {
    // When nobody else has it, the plugin has another form, which tells what comes from then on.
    let mut last = false;
    while !last {
        tokio::time::sleep(interval).await;
        last = Arc::strong_count(&group) == 1;
        group.flush().await;
    }
}
