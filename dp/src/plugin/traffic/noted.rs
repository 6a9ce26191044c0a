//! The identities of which others are to be told.

use super::counters::{Counters, ENTRIES_MAX, Key};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those whose counts have changed since they were told. Bounded: what finds no room is told when it changes again.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<HashSet<Key>>);

impl Noted {
    /// Notes an identity that has just been marked.
    pub(super) fn put(&self, counters: &Counters, key: Key) {
        let mut noted = self.lock();
        if noted.len() < ENTRIES_MAX {
            noted.insert(key);
            return;
        }
        drop(noted);
        counters.unmark(key);
    }

    /// Takes at most so many.
    pub(super) fn take(&self, max: usize) -> Vec<Key> {
        let mut noted = self.lock();
        if noted.len() <= max {
            return std::mem::take(&mut *noted).into_iter().collect();
        }
        let some: Vec<_> = noted.iter().take(max).copied().collect();
        some.iter().for_each(|key| {
            noted.remove(key);
        });
        some
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
