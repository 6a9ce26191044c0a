//! Counters of fixed windows: exact over all workers, bounded, and independent of configuration, so that neither a
//! change of another entity nor of the limiting plugin itself resets them.

use crate::calendar::{DAY_SECONDS, Date, date, days_before};
use crate::metrics::Writer;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The periods limits are set for, shortest first.
pub(crate) const PERIODS: [Period; 6] = [
    Period::Second,
    Period::Minute,
    Period::Hour,
    Period::Day,
    Period::Month,
    Period::Year,
];

const SHARDS: usize = 64;
/// About 160 bytes each.
const ENTRIES_MAX: usize = 512 * 1024;
/// How many entries of a full shard are looked at for the one that ends first.
const EVICTION_SAMPLE: usize = 8;

/// How much is allowed in each of [`PERIODS`].
pub(crate) type Limits = [Option<u64>; PERIODS.len()];

/// A fixed window's length. Months and years follow the UTC calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

impl Period {
    /// Seconds; for months and years the length Kong counts with, which only decides how long a count is kept
    /// and what `RateLimit-Reset` says.
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => DAY_SECONDS,
            Self::Month => 2_592_000,
            Self::Year => 31_536_000,
        }
    }

    /// Kong's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// When a window is over for sure that began then: after the longest month or year.
    pub(crate) fn end_at_most(self, start: u64) -> u64 {
        let longest = match self {
            Self::Second | Self::Minute | Self::Hour | Self::Day => 0,
            Self::Month | Self::Year => 86_400,
        };
        start + self.seconds() + longest
    }

    /// The start of the window that holds `now`; both in seconds since the Unix epoch.
    pub(crate) fn start(self, now: u64) -> u64 {
        match self {
            Self::Second | Self::Minute | Self::Hour | Self::Day => now - now % self.seconds(),
            Self::Month => {
                let Date { year, month, .. } = date(now / DAY_SECONDS);
                days_before(year, month) * DAY_SECONDS
            }
            Self::Year => days_before(date(now / DAY_SECONDS).year, 1) * DAY_SECONDS,
        }
    }
}

/// What is counted: one identity at one plugin instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The plugin instance.
    pub(crate) plugin: Uuid,
    /// Whom it limits.
    pub(crate) subject: Subject,
}

/// Whom a limit is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Subject {
    /// A consumer, credential or service.
    Entity(Uuid),
    /// A client address.
    Address(std::net::IpAddr),
    /// A hash of a header's value or of a path.
    Text([u8; 16]),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entity(id) => write!(f, "{id}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Text(hash) => write!(f, "{:032x}", u128::from_be_bytes(*hash)),
        }
    }
}

/// The count of each period before the request asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Whether the request was within all limits, and so was counted.
    pub(crate) allowed: bool,
    /// In the order of [`PERIODS`]; zero where there is no limit.
    pub(crate) before: [u64; PERIODS.len()],
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            allowed: true,
            before: [0; PERIODS.len()],
        }
    }
}

/// The counters. Cheap to share; every method takes `now` in seconds since the Unix epoch.
#[derive(Debug)]
pub(crate) struct Counters {
    shards: Vec<Mutex<HashMap<Key, Windows>>>,
    hasher: std::hash::RandomState,
    shard_entries_max: usize,
    sweep_next: AtomicUsize,
}

/// Starts (seconds since the epoch) and counts, in the order of [`PERIODS`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Windows {
    pub(crate) start: [u32; PERIODS.len()],
    /// What this node has counted.
    pub(crate) count: [u32; PERIODS.len()],
    /// What others have, as far as this node knows.
    foreign: [u32; PERIODS.len()],
    /// How much of what this node has counted it has told.
    pub(crate) told: [u32; PERIODS.len()],
    /// Whether somebody has been told to tell others.
    marked: bool,
}

impl Windows {
    fn expires(&self) -> u64 {
        let ends = PERIODS.iter().enumerate().map(|(index, period)| {
            let empty = self.count[index] == 0 && self.foreign[index] == 0;
            let start = u64::from(self.start[index]);
            if empty { 0 } else { period.end_at_most(start) }
        });
        ends.max().unwrap_or_default()
    }

    /// Begins the windows anew that are over.
    fn turn(&mut self, limits: &Limits, now: u64) {
        for (index, period) in PERIODS.iter().enumerate() {
            let start = u32::try_from(period.start(now)).unwrap_or(u32::MAX);
            if limits[index].is_some() && self.start[index] != start {
                self.start[index] = start;
                self.count[index] = 0;
                self.foreign[index] = 0;
                self.told[index] = 0;
            }
        }
    }

    fn usage(&self, limits: &Limits) -> Usage {
        let mut usage = Usage::default();
        for (index, limit) in limits.iter().enumerate() {
            let Some(limit) = limit else { continue };
            usage.before[index] = u64::from(self.count[index]) + u64::from(self.foreign[index]);
            usage.allowed &= usage.before[index] < *limit;
        }
        usage
    }

    fn add(&mut self, limits: &Limits, amount: u64) {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        for (count, limit) in self.count.iter_mut().zip(limits) {
            if limit.is_some() {
                *count = count.saturating_add(amount);
            }
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::with_capacity(ENTRIES_MAX)
    }
}

impl Counters {
    /// Counters of at most about `entries_max` identities. Above that the ones that end soonest are forgotten.
    pub(crate) fn with_capacity(entries_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: std::hash::RandomState::new(),
            shard_entries_max: (entries_max / SHARDS).max(1),
            sweep_next: AtomicUsize::new(0),
        }
    }

    /// Counts one request if it is within all `limits`. Asking and counting are one step, so concurrent requests never
    /// pass more than the limit.
    pub(crate) fn take(&self, key: Key, limits: &Limits, now: u64) -> Usage {
        self.with(key, limits, now, |windows| {
            let usage = windows.usage(limits);
            if usage.allowed {
                windows.add(limits, 1);
            }
            usage
        })
    }

    /// What is used, without counting.
    pub(crate) fn look(&self, key: Key, limits: &Limits, now: u64) -> Usage {
        self.with(key, limits, now, |windows| windows.usage(limits))
    }

    /// Counts that much, whatever the limits.
    pub(crate) fn add(&self, key: Key, limits: &Limits, amount: u64, now: u64) {
        self.with(key, limits, now, |windows| windows.add(limits, amount));
    }

    /// Marks an identity as one of which others are to be told; whether it was not yet.
    pub(crate) fn mark(&self, key: Key) -> bool {
        let mut shard = self.lock(&key);
        let windows = shard.get_mut(&key);
        windows.is_some_and(|windows| !std::mem::replace(&mut windows.marked, true))
    }

    /// Takes the mark away: what this node has counted.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what is told Redis")
    )]
    pub(crate) fn unmark(&self, key: Key) -> Option<Windows> {
        let mut shard = self.lock(&key);
        let windows = shard.get_mut(&key)?;
        windows.marked = false;
        Some(*windows)
    }

    /// Notes that others know of so much more from this node, of the window of a period that began then, and what they and
    /// this node have counted together.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what is told Redis")
    )]
    pub(crate) fn told(&self, key: Key, (index, start): (usize, u32), more: u32, all: u64) {
        let mut shard = self.lock(&key);
        let windows = shard.get_mut(&key);
        if let Some(windows) = windows.filter(|windows| windows.start[index] == start) {
            let told = windows.told[index].saturating_add(more);
            windows.told[index] = told;
            let foreign = all.saturating_sub(u64::from(told));
            windows.foreign[index] = u32::try_from(foreign).unwrap_or(u32::MAX);
        }
    }

    fn with<T>(
        &self,
        key: Key,
        limits: &Limits,
        now: u64,
        act: impl FnOnce(&mut Windows) -> T,
    ) -> T {
        let mut shard = self.lock(&key);
        if !shard.contains_key(&key) {
            make_room(&mut shard, self.shard_entries_max, now);
        }
        let windows = shard.entry(key).or_default();
        windows.turn(limits, now);
        act(windows)
    }

    fn lock(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Windows>> {
        self.shard(key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the expired entries of one shard, another each time.
    fn sweep(&self, now: u64) {
        let index = self.sweep_next.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let mut shard = self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard.retain(|_, windows| windows.expires() > now);
        if shard.capacity() > 4 * shard.len() + 64 {
            shard.shrink_to_fit();
        }
    }

    /// How many identities are counted.
    pub(crate) fn len(&self) -> usize {
        let lengths = self
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len());
        lengths.sum()
    }

    fn shard(&self, key: &Key) -> &Mutex<HashMap<Key, Windows>> {
        use std::hash::BuildHasher;
        // The high bits: the maps inside are seeded differently, but need not be.
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash >> 32).unwrap_or_default() % self.shards.len()]
    }
}

impl Counters {
    /// Called about once a second by each worker.
    pub(crate) fn tick(&self, now: u64) {
        self.sweep(now);
    }

    /// Writes its numbers.
    pub(crate) fn metrics(&self, writer: &mut Writer) {
        let help = "Identities with rate counters";
        writer.single("sluice_dp_rate_counters", "gauge", help, self.len());
    }
}

fn make_room(shard: &mut HashMap<Key, Windows>, entries_max: usize, now: u64) {
    if shard.len() < entries_max {
        return;
    }
    let sample = shard.iter().take(EVICTION_SAMPLE);
    let expired = |windows: &Windows| windows.expires() <= now;
    let victim = sample.min_by_key(|(_, windows)| (!expired(windows), windows.expires()));
    if let Some(key) = victim.map(|(key, _)| *key) {
        shard.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u128) -> Key {
        Key {
            plugin: Uuid::nil(),
            subject: Subject::Entity(Uuid::from_u128(number)),
        }
    }

    #[test]
    fn windows_are_aligned_to_the_utc_clock_and_calendar() {
        // 2024-02-29 13:14:15 UTC
        let now = 1_709_212_455;
        let starts = PERIODS.map(|period| now - period.start(now));
        let day = 13 * 3600 + 14 * 60 + 15;
        assert_eq!(
            starts,
            [
                0,
                15,
                14 * 60 + 15,
                day,
                28 * 86_400 + day,
                59 * 86_400 + day
            ]
        );
        assert_eq!(Period::Month.start(0), 0);
        // 2100-03-01 is the day after 2100-02-28.
        assert_eq!(Period::Month.start(4_107_542_400), 4_107_542_400);
        assert_eq!(
            Period::Month.start(4_107_542_399),
            4_107_542_400 - 28 * 86_400
        );
    }

    #[test]
    fn a_refused_request_is_not_counted_in_any_window() {
        let counters = Counters::default();
        let mut limits = [None; 6];
        limits[0] = Some(1);
        limits[1] = Some(5);
        assert!(counters.take(key(1), &limits, 120).allowed);
        for _ in 0..9 {
            assert!(!counters.take(key(1), &limits, 120).allowed);
        }
        let usage = counters.take(key(1), &limits, 121);
        assert!(usage.allowed);
        assert_eq!(usage.before[..2], [0, 1]);
    }

    #[test]
    fn concurrent_requests_pass_exactly_the_limit() {
        let counters = Counters::default();
        let limits = [None, Some(1000), None, None, None, None];
        let passed: usize = std::thread::scope(|scope| {
            let run = || {
                (0..1000)
                    .filter(|_| counters.take(key(1), &limits, 60).allowed)
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn memory_is_bounded_and_expired_windows_are_dropped() {
        let counters = Counters::with_capacity(640);
        let limits = [Some(10), None, None, None, None, None];
        for number in 0..10_000 {
            counters.take(key(number), &limits, 100);
        }
        assert!(counters.len() <= 640);
        assert!(counters.len() > 0);
        (0..SHARDS).for_each(|_| counters.sweep(102));
        assert_eq!(counters.len(), 0);
    }
}
