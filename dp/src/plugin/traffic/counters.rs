//! Counters of fixed windows: exact over all workers, bounded, and independent of configuration, so that neither a
//! change of another entity nor of the limiting plugin itself resets them.

use super::period::Limits;
use super::windows::{Counted, Own, Room, Usage, Windows};
use crate::metrics::Writer;
use crate::plugin::bounded::{Bounded, Ends};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use uuid::Uuid;

const SHARDS: usize = 64;
/// About 200 bytes each.
pub(super) const ENTRIES_MAX: usize = 512 * 1024;
/// How many counts of others are kept, of 32 bytes each.
const FOREIGN_MAX: usize = 1024 * 1024;

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

/// The counters. Cheap to share; every method takes `now` in seconds since the Unix epoch.
#[derive(Debug)]
pub(crate) struct Counters {
    all: Bounded<Key, Windows>,
    foreign: Room,
    /// Counts of others for which there was no room.
    unkept: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self::with_capacity(ENTRIES_MAX, FOREIGN_MAX)
    }
}

impl Counters {
    /// Counters of at most about `entries_max` identities, of which those that end soonest are forgotten above that; and of
    /// at most so many counts of other nodes.
    pub(crate) fn with_capacity(entries_max: usize, foreign_max: usize) -> Self {
        Self {
            all: Bounded::new(SHARDS, entries_max),
            foreign: Room {
                taken: AtomicUsize::new(0),
                max: foreign_max,
            },
            unkept: AtomicU64::new(0),
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

    /// Marks an identity as one of which Redis is to be told; whether it was not yet.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what is told Redis")
    )]
    pub(crate) fn mark(&self, key: Key) -> bool {
        self.all.with(&key, Windows::mark).unwrap_or_default()
    }

    /// Marks an identity as one of which other data planes are to be told; whether it was not yet.
    pub(crate) fn mark_shared(&self, key: Key) -> bool {
        let marked = self.all.with(&key, Windows::mark_shared);
        marked.unwrap_or_default()
    }

    /// Takes the mark away: what this node has counted.
    pub(crate) fn unmark(&self, key: Key) -> Option<Own> {
        self.all.with(&key, Windows::unmark)
    }

    /// The identities of which other data planes are to know.
    pub(crate) fn shared(&self) -> Vec<Key> {
        let mut shared = Vec::new();
        self.all.retain(|key, windows| {
            if windows.is_shared() {
                shared.push(*key);
            }
            true
        });
        shared
    }

    /// Notes that Redis knows of so much more from this node, of the window of a period that began then, and what others and
    /// this node have counted together.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what is told Redis")
    )]
    pub(crate) fn told(&self, key: Key, window: (usize, u32), more: u32, all: u64) {
        self.all
            .with(&key, |windows| windows.told(window, more, all));
    }

    /// Takes up what another node, from one start of it to the next, has counted in all.
    pub(crate) fn learn(&self, key: Key, life: u64, counted: &[Counted], now: u64) {
        let learn = |windows: &mut Windows| {
            let kept = |counted: &&Counted| !windows.learn(life, **counted, now, &self.foreign);
            counted.iter().filter(kept).count()
        };
        let (unkept, evicted) = self.all.with_or(key, Windows::default, learn);
        let unkept = u64::try_from(unkept).unwrap_or(u64::MAX);
        self.unkept.fetch_add(unkept, Ordering::Relaxed);
        if let Some(evicted) = evicted {
            evicted.leave(&self.foreign);
        }
    }

    /// All that is known of what another node has counted.
    pub(crate) fn of(&self, life: u64) -> Vec<(Key, Vec<Counted>)> {
        let mut found = Vec::new();
        self.all.retain(|key, windows| {
            let counted: Vec<_> = windows.of(life).collect();
            if !counted.is_empty() {
                found.push((*key, counted));
            }
            true
        });
        found
    }

    fn with<T>(
        &self,
        key: Key,
        limits: &Limits,
        now: u64,
        act: impl FnOnce(&mut Windows) -> T,
    ) -> T {
        let (result, evicted) = self.all.with_or(key, Windows::default, |windows| {
            windows.turn(limits, now, &self.foreign);
            act(windows)
        });
        if let Some(evicted) = evicted {
            evicted.leave(&self.foreign);
        }
        result
    }

    /// Drops what is over, of a part of the entries, another each time. Called about once a second by each worker.
    pub(crate) fn tick(&self, now: u64) {
        self.all.sweep(|_, windows| {
            let stays = windows.ends() > now;
            if stays {
                windows.prune(now, &self.foreign);
            } else {
                windows.leave(&self.foreign);
            }
            stays
        });
    }

    /// How many identities are counted.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Writes its numbers.
    pub(crate) fn metrics(&self, writer: &mut Writer) {
        let help = "Identities with rate counters";
        writer.single("sluice_dp_rate_counters", "gauge", help, self.len());
        let help = "Counts of other data planes that are known";
        let taken = self.foreign.taken.load(Ordering::Relaxed);
        writer.single("sluice_dp_rate_foreign_counts", "gauge", help, taken);
        let help = "Counts of other data planes for which there was no room";
        let unkept = self.unkept.load(Ordering::Relaxed);
        let name = "sluice_dp_rate_foreign_dropped_total";
        writer.single(name, "counter", help, unkept);
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
    fn a_worker_that_is_a_moment_behind_does_not_begin_a_window_again() {
        let counters = Counters::default();
        let limits = [None, Some(2), None, None, None, None];
        let take = |now| counters.take(key(1), &limits, now).allowed;
        assert_eq!(
            [take(59), take(60), take(59), take(60)],
            [true, true, true, false]
        );
        // The clock was put back.
        assert_eq!([take(50), take(50), take(50)], [true, true, false]);
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
        let counters = Counters::with_capacity(640, 100);
        let limits = [Some(10), None, None, None, None, None];
        for number in 0..10_000 {
            counters.take(key(number), &limits, 100);
        }
        assert!(counters.len() <= 640);
        assert!(counters.len() > 0);
        (0..SHARDS).for_each(|_| counters.tick(102));
        assert_eq!(counters.len(), 0);
    }

    fn minute(start: u32, count: u32) -> [Counted; 1] {
        [Counted {
            period: 1,
            start,
            count,
        }]
    }

    #[test]
    fn what_others_count_adds_up_however_often_and_in_whichever_order_it_is_heard() {
        let counters = Counters::default();
        let limits = [None, Some(10), None, None, None, None];
        let used = |now| counters.look(key(1), &limits, now).before[1];
        counters.take(key(1), &limits, 60);
        for (life, count) in [(7, 2), (8, 3), (7, 1), (8, 3), (7, 4), (7, 2)] {
            counters.learn(key(1), life, &minute(60, count), 61);
        }
        assert_eq!(used(62), 1 + 4 + 3);
        // Of an identity that nobody has asked about here.
        counters.learn(key(2), 7, &minute(60, 9), 61);
        assert_eq!(counters.look(key(2), &limits, 62).before[1], 9);
        // A window that is over, one that does not begin then, and one too far ahead.
        for window in [minute(0, 5), minute(61, 5), minute(180, 5)] {
            counters.learn(key(1), 9, &window, 61);
        }
        assert_eq!(used(62), 8);
        // One whose clock is a little ahead.
        counters.learn(key(1), 9, &minute(120, 5), 119);
        assert_eq!((used(119), used(120), used(180)), (8, 5, 0));
        assert_eq!(counters.foreign.taken.load(Ordering::Relaxed), 1);
        assert_eq!(counters.of(7).len(), 1);
        (0..SHARDS).for_each(|_| counters.tick(180));
        assert_eq!(counters.foreign.taken.load(Ordering::Relaxed), 0);
        assert_eq!(counters.len(), 0);
    }

    #[test]
    fn counts_of_others_are_bounded() {
        let counters = Counters::with_capacity(640, 100);
        for number in 0..10_000 {
            counters.learn(key(number % 1000), 5, &minute(60, 1), 61);
            counters.learn(key(number), 6, &minute(60, 1), 61);
        }
        assert!(counters.len() <= 640);
        let taken = counters.foreign.taken.load(Ordering::Relaxed);
        assert_eq!(taken, counters.of(5).len() + counters.of(6).len());
        assert!((1..=100).contains(&taken), "{taken}");
        assert!(counters.unkept.load(Ordering::Relaxed) > 0);
    }
}
