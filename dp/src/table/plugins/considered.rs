//! All plugins that could run for a request: those that do, in their order, and those that do not, and why.

use super::{GROUP, Plugins, SPECIFIC, Scope};
use crate::plugin::{Instance, identifies};
use crate::table::{Route, Table};
use sluice_schema::entity::Workspace;
use sluice_schema::version::Version;
use std::sync::Arc;
use uuid::Uuid;

/// What is known of a plugin that is switched off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Disabled {
    /// The entity.
    pub(crate) id: Uuid,
    /// The event that last wrote it.
    pub(crate) version: Version,
    /// Which plugin.
    pub(crate) name: Box<str>,
    /// What it is bound to.
    pub(crate) bound: Bound,
    workspace: Workspace,
}

/// What a plugin is bound to; nothing for a global one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bound {
    pub(crate) route: Option<Uuid>,
    pub(crate) service: Option<Uuid>,
    pub(crate) consumer: Option<Uuid>,
    pub(crate) consumer_group: Option<Uuid>,
}

impl Bound {
    /// That of an instance.
    pub(crate) fn of(instance: &Instance) -> Self {
        Self {
            route: instance.route,
            service: instance.service,
            consumer: instance.consumer,
            consumer_group: instance.consumer_group,
        }
    }

    fn scope(self) -> Scope {
        Scope {
            route: self.route,
            service: self.service,
            consumer: self.consumer,
            group: self.consumer_group,
        }
    }
}

/// The plugins of a request.
#[derive(Debug, Default)]
pub(crate) struct Considered {
    /// Those that run, in order.
    pub(crate) chain: Vec<Arc<Instance>>,
    /// Those whose scope fits, and which do not run; the more specific first.
    pub(crate) others: Vec<Arc<Instance>>,
    /// Those that would be considered if they were enabled.
    pub(crate) disabled: Vec<Arc<Disabled>>,
    /// Whether a plugin runs that can say who the consumer is.
    pub(crate) identifies: bool,
}

impl Plugins {
    /// Notes a plugin that is switched off.
    pub(in crate::table) fn disable(
        &mut self,
        id: Uuid,
        version: Version,
        workspace: &Workspace,
        (name, bound): (&str, Bound),
    ) {
        self.remove(id);
        let workspace = workspace.clone();
        let disabled = Disabled {
            id,
            version,
            name: name.into(),
            bound,
            workspace,
        };
        self.disabled.insert(id, Arc::new(disabled));
    }

    /// The instances whose scope fits, the most specific first.
    fn fitting(
        &self,
        workspace: &Workspace,
        scope: &Scope,
        groups: &[(&str, Uuid)],
    ) -> Vec<Arc<Instance>> {
        let parts = scope.parts() | if groups.is_empty() { 0 } else { GROUP };
        let mut fitting = Vec::new();
        for wanted in SPECIFIC
            .into_iter()
            .filter(|wanted| parts & wanted == *wanted)
        {
            let grouped = groups.iter().map(|(_, group)| Some(*group));
            let groups: Vec<Option<Uuid>> = match wanted & GROUP {
                0 => vec![None],
                _ => grouped.collect(),
            };
            for group in groups {
                let scope = Scope { group, ..*scope }.only(wanted);
                let list = self.scoped[wanted].get(&scope);
                fitting.extend(list.into_iter().flat_map(|list| list.instances.to_vec()));
            }
        }
        let global = self.global.get(workspace);
        fitting.extend(global.into_iter().flat_map(|list| list.instances.to_vec()));
        fitting
    }

    fn disabled(
        &self,
        workspace: &Workspace,
        scope: &Scope,
        groups: &[(&str, Uuid)],
    ) -> Vec<Arc<Disabled>> {
        let fits = |disabled: &&Arc<Disabled>| {
            let own = disabled.bound.scope();
            let same = |own: Option<Uuid>, asked| own.is_none() || own == asked;
            let group = own
                .group
                .is_none_or(|own| groups.iter().any(|(_, group)| *group == own));
            disabled.workspace == *workspace
                && same(own.route, scope.route)
                && same(own.service, scope.service)
                && same(own.consumer, scope.consumer)
                && group
        };
        self.disabled.values().filter(fits).cloned().collect()
    }
}

impl Table {
    /// The plugins for a request on a route, of a consumer if one is given. As in the proxy, the consumer counts from the
    /// first plugin on that can say who it is.
    pub(crate) fn considered(&self, route: &Route, consumer: Option<Uuid>) -> Considered {
        let before = self.chain(route, None);
        let at = before.iter().position(|instance| identifies(instance.name));
        let known = consumer.filter(|_| at.is_some());
        let chain: Vec<Arc<Instance>> = match (at, known) {
            (Some(at), Some(_)) => {
                let next = self.chain(route, known);
                let from = before.resumes(at + 1, &next);
                let ran = before.iter().take(at + 1);
                ran.chain(next.iter().skip(from)).cloned().collect()
            }
            (_, _) => before.to_vec(),
        };
        let scope = Scope {
            route: Some(route.id),
            service: route.service,
            consumer: known,
            group: None,
        };
        let groups = self.groups_of(known);
        let mut others = self.plugins.fitting(&route.workspace, &scope, &groups);
        others.retain(|other| chain.iter().all(|runs| runs.id != other.id));
        // Groups count for what is switched off even if nothing else asks for them.
        let groups = known.map_or_else(Vec::new, |id| self.groups.of(id));
        Considered {
            disabled: self.plugins.disabled(&route.workspace, &scope, &groups),
            chain,
            others,
            identifies: at.is_some(),
        }
    }
}
