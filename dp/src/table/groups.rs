//! Which consumers belong to which groups: those that plugins are bound to, and those of access lists.

use imbl::{HashMap, OrdMap};
use std::sync::Arc;
use uuid::Uuid;

/// What consumers belong to, by the entities that say so. One may come before what it names.
#[derive(Clone, Debug)]
pub(super) struct Memberships<G> {
    /// Group and consumer.
    all: OrdMap<Uuid, (G, Uuid)>,
    /// The groups of each consumer, a group as often as there are memberships.
    of: HashMap<Uuid, Arc<[G]>>,
}

impl<G> Default for Memberships<G> {
    fn default() -> Self {
        Self {
            all: OrdMap::default(),
            of: HashMap::default(),
        }
    }
}

impl<G: Clone + PartialEq> Memberships<G> {
    pub(super) fn join(&mut self, membership: Uuid, group: G, consumer: Uuid) {
        self.leave(membership);
        let groups = self.of(consumer).iter().cloned();
        let groups: Arc<[G]> = groups.chain([group.clone()]).collect();
        self.of.insert(consumer, groups);
        self.all.insert(membership, (group, consumer));
    }

    pub(super) fn leave(&mut self, membership: Uuid) {
        let Some((group, consumer)) = self.all.remove(&membership) else {
            return;
        };
        let mut groups = self.of(consumer).to_vec();
        if let Some(place) = groups.iter().position(|other| *other == group) {
            groups.remove(place);
        }
        if groups.is_empty() {
            self.of.remove(&consumer);
        } else {
            self.of.insert(consumer, groups.into());
        }
    }

    /// The groups of a consumer, in no particular order.
    pub(super) fn of(&self, consumer: Uuid) -> &[G] {
        self.of.get(&consumer).map_or(&[], |groups| groups)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.of.is_empty()
    }
}

/// Groups of consumers that plugins can be bound to.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    names: HashMap<Uuid, Arc<str>>,
    pub(super) members: Memberships<Uuid>,
}

impl Groups {
    pub(super) fn insert(&mut self, id: Uuid, name: &str) {
        self.names.insert(id, name.into());
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        self.names.remove(&id);
    }

    /// The groups of a consumer that are here, by name.
    pub(super) fn of(&self, consumer: Uuid) -> Vec<(&str, Uuid)> {
        let ids = self.members.of(consumer).iter();
        let named = ids.filter_map(|id| Some((&**self.names.get(id)?, *id)));
        let mut groups: Vec<_> = named.collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_come_and_go_in_any_order() {
        let id = Uuid::from_u128;
        let mut groups = Groups::default();
        groups.members.join(id(1), id(10), id(20));
        groups.members.join(id(2), id(11), id(20));
        assert_eq!(groups.of(id(20)), []);
        groups.insert(id(10), "b");
        groups.insert(id(11), "a");
        assert_eq!(groups.of(id(20)), [("a", id(11)), ("b", id(10))]);
        groups.members.join(id(1), id(10), id(21));
        assert_eq!(groups.of(id(20)), [("a", id(11))]);
        assert_eq!(groups.of(id(21)), [("b", id(10))]);
        groups.members.leave(id(1));
        groups.members.leave(id(2));
        groups.remove(id(10));
        groups.remove(id(11));
        assert!(groups.is_empty());
    }
}
