//! Which consumers belong to which groups.

use imbl::{HashMap, OrdMap};
use std::sync::Arc;
use uuid::Uuid;

/// Groups of consumers. A membership may come before its group or its consumer.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    names: HashMap<Uuid, Arc<str>>,
    /// By the id of the membership: group and consumer.
    memberships: OrdMap<Uuid, (Uuid, Uuid)>,
    /// The groups of each consumer, a group as often as there are memberships.
    of: HashMap<Uuid, Arc<[Uuid]>>,
}

impl Groups {
    pub(super) fn insert(&mut self, id: Uuid, name: &str) {
        self.names.insert(id, name.into());
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        self.names.remove(&id);
    }

    pub(super) fn join(&mut self, membership: Uuid, group: Uuid, consumer: Uuid) {
        self.leave(membership);
        self.memberships.insert(membership, (group, consumer));
        let groups = self.of.get(&consumer).into_iter();
        let groups = groups.flat_map(|groups| groups.iter().copied());
        let groups: Arc<[Uuid]> = groups.chain([group]).collect();
        self.of.insert(consumer, groups);
    }

    pub(super) fn leave(&mut self, membership: Uuid) {
        let Some((group, consumer)) = self.memberships.remove(&membership) else {
            return;
        };
        let mut groups = self.of.get(&consumer).map(|groups| groups.to_vec());
        let groups = groups.get_or_insert_default();
        if let Some(place) = groups.iter().position(|other| *other == group) {
            groups.remove(place);
        }
        if groups.is_empty() {
            self.of.remove(&consumer);
        } else {
            self.of.insert(consumer, groups.as_slice().into());
        }
    }

    /// The groups of a consumer that are here, by name.
    pub(super) fn of(&self, consumer: Uuid) -> Vec<(&str, Uuid)> {
        let Some(ids) = self.of.get(&consumer) else {
            return Vec::new();
        };
        let named = ids
            .iter()
            .filter_map(|id| Some((&**self.names.get(id)?, *id)));
        let mut groups: Vec<_> = named.collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.memberships.is_empty() && self.of.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_come_and_go_in_any_order() {
        let id = Uuid::from_u128;
        let mut groups = Groups::default();
        groups.join(id(1), id(10), id(20));
        groups.join(id(2), id(11), id(20));
        assert_eq!(groups.of(id(20)), []);
        groups.insert(id(10), "b");
        groups.insert(id(11), "a");
        assert_eq!(groups.of(id(20)), [("a", id(11)), ("b", id(10))]);
        groups.join(id(1), id(10), id(21));
        assert_eq!(groups.of(id(20)), [("a", id(11))]);
        assert_eq!(groups.of(id(21)), [("b", id(10))]);
        [1, 2]
            .into_iter()
            .for_each(|membership| groups.leave(id(membership)));
        [10, 11]
            .into_iter()
            .for_each(|group| groups.remove(id(group)));
        assert!(groups.is_empty());
    }
}
