//! Unique names within workspaces.

use imbl::HashMap;
use sluice_schema::entity::Workspace;
use uuid::Uuid;

/// From names to ids. The order of a change set is arbitrary, so a name may move to another entity before its former
/// owner gives it up: a name is taken away only from the entity that has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(HashMap<Workspace, HashMap<Box<str>, Uuid>>);

impl Names {
    pub(super) fn find(&self, workspace: &Workspace, name: &str) -> Option<Uuid> {
        self.0.get(workspace)?.get(name).copied()
    }

    pub(super) fn insert(&mut self, workspace: &Workspace, name: &str, id: Uuid) {
        self.0
            .entry(workspace.clone())
            .or_default()
            .insert(name.into(), id);
    }

    pub(super) fn remove(&mut self, workspace: &Workspace, name: &str, id: Uuid) {
        let Some(names) = self.0.get_mut(workspace) else {
            return;
        };
        if names.get(name) == Some(&id) {
            names.remove(name);
        }
        if names.is_empty() {
            self.0.remove(workspace);
        }
    }
}
