//! A cache that cannot be stale: what it holds belongs to one version of one entity, and is not found by another.

use super::bounded::{Bounded, Ends};
use super::state::Lasting;
use sluice_schema::version::Version;
use std::fmt;
use uuid::Uuid;

const SHARDS: usize = 16;
const ENTRIES_MAX: usize = 64 * 1024;

/// One form of one entity: what is kept under it is of that form of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote it.
    pub version: Version,
    /// Of what the event wrote: a log that is restored may use versions again.
    pub content: u64,
}

impl Stamp {
    /// The stamp of an entity with this body.
    pub fn of(id: Uuid, version: Version, body: &[u8]) -> Self {
        let mut content = [0; 8];
        blake3::Hasher::new()
            .update(body)
            .finalize_xof()
            .fill(&mut content);
        Self {
            id,
            version,
            content: u64::from_le_bytes(content),
        }
    }
}

type Key = (Stamp, [u8; 16]);

struct Entry<V> {
    value: V,
    ends: u64,
}

impl<V> Ends for Entry<V> {
    fn ends(&self) -> u64 {
        self.ends
    }
}

/// Values by a [`Stamp`] and a key of bytes, each until its end. Bounded; times are in seconds since the Unix epoch. What
/// depends on several entities (a plugin and a credential) has the later one's version in its stamp, or their ids in its key.
pub struct Cache<V> {
    all: Bounded<Key, Entry<V>>,
    hash_key: [u8; 32],
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self::with_capacity(ENTRIES_MAX)
    }
}

impl<V> Cache<V> {
    /// A cache of at most about so many entries. Above that those that end soonest go.
    pub fn with_capacity(entries_max: usize) -> Self {
        Self {
            all: Bounded::new(SHARDS, entries_max),
            hash_key: rand::random(),
        }
    }

    /// The value of a key, if its end has not come.
    pub fn get(&self, stamp: Stamp, key: &[u8], now: u64) -> Option<V>
    where
        V: Clone,
    {
        let fresh = |entry: &mut Entry<V>| (entry.ends > now).then(|| entry.value.clone());
        self.all.with(&self.key(stamp, key), fresh).flatten()
    }

    /// Keeps a value until `ends`.
    pub fn put(&self, stamp: Stamp, key: &[u8], value: V, ends: u64) {
        self.all.put(self.key(stamp, key), Entry { value, ends });
    }

    /// Drops everything of an entity, of whichever version.
    pub fn forget(&self, id: Uuid) {
        self.all.retain(|(stamp, _), _| stamp.id != id);
    }

    /// How many values it holds, those that are over among them.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys may be secrets, and long.
    fn key(&self, stamp: Stamp, key: &[u8]) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.hash_key);
        hasher.update(stamp.id.as_bytes()).update(key);
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        (stamp, hash)
    }
}

impl<V: Send + Sync + 'static> Lasting for Cache<V> {
    fn tick(&self, now: u64) {
        self.all.sweep(|_, entry| entry.ends > now);
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: u64) -> Stamp {
        Stamp {
            id: Uuid::from_u128(1),
            version: Version(version),
            content: 0,
        }
    }

    #[test]
    fn another_version_finds_nothing_of_the_one_before() {
        let cache = Cache::default();
        cache.put(stamp(1), b"a", "old", 100);
        assert_eq!(cache.get(stamp(1), b"a", 99), Some("old"));
        assert_eq!(cache.get(stamp(1), b"a", 100), None);
        assert_eq!(cache.get(stamp(2), b"a", 0), None);
        cache.put(stamp(2), b"a", "new", 100);
        // A request that began before the change still has its own.
        assert_eq!(cache.get(stamp(1), b"a", 0), Some("old"));
        cache.forget(Uuid::from_u128(1));
        assert!(cache.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_what_is_over_goes() {
        let cache = Cache::with_capacity(160);
        for number in 0..10_000_u32 {
            cache.put(stamp(1), &number.to_le_bytes(), number, 10);
        }
        assert!(cache.len() <= 160);
        (0..SHARDS).for_each(|_| cache.tick(10));
        assert!(cache.is_empty());
    }
}
