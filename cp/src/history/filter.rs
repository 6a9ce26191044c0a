//! Which events are asked for.

use sluice_schema::entity::Key;
use sluice_schema::event::{Event, Mutation, Mutations};
use sluice_schema::version::{Time, Version};

/// Which events are asked for: those of which all that is given holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Filter {
    /// That touched this entity.
    pub(crate) entity: Option<Key>,
    /// That touched an entity of this kind (and of the workspace, if one is given).
    pub(crate) kind: Option<String>,
    /// That touched an entity of this workspace.
    pub(crate) workspace: Option<String>,
    /// By this actor.
    pub(crate) actor: Option<String>,
    /// With this in the reason, in lowercase.
    pub(crate) reason: Option<String>,
    /// Decided then or later.
    pub(crate) since: Option<Time>,
    /// Decided then or earlier.
    pub(crate) until: Option<Time>,
    /// Of this version or later.
    pub(crate) from: Version,
    /// Of this version or earlier.
    pub(crate) to: Option<Version>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            entity: None,
            kind: None,
            workspace: None,
            actor: None,
            reason: None,
            since: None,
            until: None,
            from: Version::GENESIS,
            to: None,
        }
    }
}

impl Filter {
    /// Whether an event can be told by its version alone.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = Self {
            from: self.from,
            to: self.to,
            ..Self::default()
        };
        *self == plain
    }

    /// Whether an event is asked for. Of a large transaction whose entities are elsewhere only the rest is looked at.
    pub(crate) fn accepts(&self, event: &Event) -> bool {
        let reason = event.reason.as_deref().unwrap_or_default();
        event.version() >= self.from
            && self.to.is_none_or(|to| event.version() <= to)
            && self.accepts_time(event.time)
            && self
                .actor
                .as_ref()
                .is_none_or(|name| *name == event.actor.name)
            && self
                .reason
                .as_ref()
                .is_none_or(|wanted| Self::reason_holds(wanted, reason))
            && match &event.mutations {
                Mutations::Inline(mutations) => self.accepts_one_of(mutations),
                Mutations::Stored(_) => true,
            }
    }

    fn accepts_one_of(&self, mutations: &[Mutation]) -> bool {
        if self.entity.is_none() && self.kind.is_none() && self.workspace.is_none() {
            return true;
        }
        let entity = |key: &Key| self.entity.as_ref().is_none_or(|wanted| wanted == key);
        let kind = |key: &Key| {
            self.kind
                .as_ref()
                .is_none_or(|kind| kind == key.kind.as_str())
        };
        let workspace = |key: &Key| {
            self.workspace
                .as_ref()
                .is_none_or(|workspace| workspace == key.workspace.as_str())
        };
        let mut keys = mutations.iter().map(Mutation::key);
        keys.any(|key| entity(&key) && kind(&key) && workspace(&key))
    }

    pub(super) fn accepts_time(&self, time: Time) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    pub(super) fn reason_holds(wanted: &str, reason: &str) -> bool {
        reason.to_lowercase().contains(wanted)
    }
}
