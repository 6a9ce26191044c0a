//! Notices of changes, for what plugins keep beside the configuration.

use super::registry::Instance;
use super::state::State;
use crate::table::Table;

/// What happened to an entity of a plugin. One that is disabled is deleted, one that is enabled is created.
#[derive(Debug)]
pub enum Change<'a, P> {
    /// It is new.
    Created {
        /// The entity, with its scope.
        instance: &'a Instance,
        /// Its prepared form.
        now: &'a P,
    },
    /// It is another than before.
    Updated {
        /// The entity, with its scope.
        instance: &'a Instance,
        /// The form it had.
        before: &'a P,
        /// The form it has.
        now: &'a P,
    },
    /// It is no more.
    Deleted {
        /// The entity, with the scope it had.
        instance: &'a Instance,
        /// The form it had.
        before: &'a P,
    },
}

impl State {
    /// Makes a table the active one by `swap`, with the notices of what differs from the one before. Every swap of tables
    /// goes through here, one at a time: that is what makes notices exact, whichever way a table came to be.
    pub fn activate(&self, before: &Table, now: &Table, swap: impl FnOnce()) {
        let mut deleted = Vec::new();
        for (old, new) in before.plugin_changes(now) {
            let instance = new.or(old);
            let Some(registered) =
                instance.and_then(|instance| self.registry().find(instance.name))
            else {
                continue;
            };
            match (old, new) {
                // The same entity with another plugin's name is another instance.
                (Some(old), Some(new)) if old.name != new.name => {
                    registered.changed(self, None, Some(new));
                    deleted.push(old);
                }
                (Some(old), None) => deleted.push(old),
                (_, Some(new)) => registered.changed(self, old, Some(new)),
                (None, None) => {}
            }
        }
        swap();
        for old in deleted {
            if let Some(registered) = self.registry().find(old.name) {
                registered.changed(self, Some(old), None);
            }
        }
    }
}
