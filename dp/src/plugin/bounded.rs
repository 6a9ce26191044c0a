//! A map whose entries have an end: bounded, sharded, for all workers.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many entries of a full shard are looked at for the one that ends first.
const EVICTION_SAMPLE: usize = 8;
/// A shard gives memory back when it uses less than one part in so many, and some.
const SPARSE: usize = 4;
const SPARE: usize = 64;

/// An entry of a [`Bounded`] map.
pub(crate) trait Ends {
    /// When it is of no use any more, in seconds since the Unix epoch.
    fn ends(&self) -> u64;
}

/// The map. When a shard is full, what ends soonest makes room, as far as a sample shows.
pub(crate) struct Bounded<K, V> {
    shards: Vec<Mutex<HashMap<K, V>>>,
    hasher: RandomState,
    shard_entries_max: usize,
    sweep_next: AtomicUsize,
}

impl<K: Copy + Eq + Hash, V: Ends> Bounded<K, V> {
    /// A map of at most about so many entries, in so many shards (at least one).
    pub(crate) fn new(shards: usize, entries_max: usize) -> Self {
        let shards = shards.max(1);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            shard_entries_max: (entries_max / shards).max(1),
            sweep_next: AtomicUsize::new(0),
        }
    }

    /// Looks at the entry of a key, if there is one.
    pub(crate) fn with<T>(&self, key: &K, act: impl FnOnce(&mut V) -> T) -> Option<T> {
        self.lock(key).get_mut(key).map(act)
    }

    /// Looks at the entry of a key, which is made if there is none. Gives also the entry that made room for it.
    pub(crate) fn with_or<T>(
        &self,
        key: K,
        make: impl FnOnce() -> V,
        act: impl FnOnce(&mut V) -> T,
    ) -> (T, Option<V>) {
        let mut shard = self.lock(&key);
        let evicted = if shard.contains_key(&key) {
            None
        } else {
            make_room(&mut shard, self.shard_entries_max)
        };
        (act(shard.entry(key).or_insert_with(make)), evicted)
    }

    /// Sets the entry of a key.
    pub(crate) fn put(&self, key: K, value: V) {
        let mut shard = self.lock(&key);
        if !shard.contains_key(&key) {
            make_room(&mut shard, self.shard_entries_max);
        }
        shard.insert(key, value);
    }

    /// Drops what is not to be kept.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        for shard in &self.shards {
            unpoisoned(shard).retain(&mut keep);
        }
    }

    /// The same in one shard, another each time.
    pub(crate) fn sweep(&self, keep: impl FnMut(&K, &mut V) -> bool) {
        let index = self.sweep_next.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let mut shard = unpoisoned(&self.shards[index]);
        shard.retain(keep);
        if shard.capacity() > SPARSE * shard.len() + SPARE {
            shard.shrink_to_fit();
        }
    }

    /// How many entries there are, those that are over among them.
    pub(crate) fn len(&self) -> usize {
        let lengths = self.shards.iter().map(|shard| unpoisoned(shard).len());
        lengths.sum()
    }

    fn lock(&self, key: &K) -> MutexGuard<'_, HashMap<K, V>> {
        // The high bits: the maps inside are seeded differently, but need not be.
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default();
        unpoisoned(&self.shards[hash % self.shards.len()])
    }
}

impl<K, V> fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").finish_non_exhaustive()
    }
}

/// Nothing is left half done by whoever panics in one.
fn unpoisoned<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_room<K: Copy + Eq + Hash, V: Ends>(
    shard: &mut HashMap<K, V>,
    entries_max: usize,
) -> Option<V> {
    if shard.len() < entries_max {
        return None;
    }
    let sample = shard.iter().take(EVICTION_SAMPLE);
    let victim = sample.min_by_key(|(_, value)| value.ends());
    let victim = victim.map(|(key, _)| *key)?;
    shard.remove(&victim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: usize = 16;

    impl Ends for u64 {
        fn ends(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_over_goes() {
        let map = Bounded::new(SHARDS, 160);
        for number in 0..10_000_u64 {
            map.put(number, 10);
        }
        assert!(map.len() <= 160);
        assert!(map.len() > 0);
        (0..SHARDS).for_each(|_| map.sweep(|_, ends| *ends > 10));
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn what_ends_sooner_makes_room() {
        let map = Bounded::new(1, 4);
        for number in [5, 3, 9, 7] {
            map.put(number, number);
        }
        let ((), evicted) = map.with_or(1, || 8, |_| {});
        assert_eq!(evicted, Some(3));
        assert_eq!(map.with(&3, |ends| *ends), None);
        // One that is there needs no room.
        assert_eq!(map.with_or(9, || 0, |ends| *ends), (9, None));
        map.put(9, 2);
        assert_eq!((map.len(), map.with(&9, |ends| *ends)), (4, Some(2)));
    }
}
