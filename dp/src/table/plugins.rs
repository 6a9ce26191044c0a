//! Plugin instances by scope, and the chain of a request merged from them.

use crate::plugin::Instance;
use imbl::{HashMap, OrdMap};
use sluice_schema::entity::Workspace;
use std::cmp::Reverse;
use std::ops::Deref;
use std::sync::Arc;
use uuid::Uuid;

/// The plugins that run for a request, in the order in which they run. At most one instance of each name.
#[derive(Clone, Debug, Default)]
pub struct Chain(Instances);

#[derive(Clone, Debug, Default)]
enum Instances {
    #[default]
    None,
    /// Only one scope has plugins: its own list.
    Shared(List),
    Merged(Vec<Arc<Instance>>),
}

impl Deref for Chain {
    type Target = [Arc<Instance>];

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Instances::None => &[],
            Instances::Shared(list) => list,
            Instances::Merged(instances) => instances,
        }
    }
}

/// The instances of one scope in the order in which they run.
type List = Arc<[Arc<Instance>]>;

/// What a plugin is bound to; nothing for a global one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Scope {
    pub(super) route: Option<Uuid>,
    pub(super) service: Option<Uuid>,
    pub(super) consumer: Option<Uuid>,
}

const ROUTE: usize = 1;
const SERVICE: usize = 2;
const CONSUMER: usize = 4;

/// Which entities a scope is made of, the most specific first: Kong's order.
const SPECIFIC: [usize; 7] = [
    ROUTE | SERVICE | CONSUMER,
    ROUTE | CONSUMER,
    SERVICE | CONSUMER,
    ROUTE | SERVICE,
    CONSUMER,
    ROUTE,
    SERVICE,
];

impl Scope {
    fn of(instance: &Instance) -> Self {
        let Instance {
            route,
            service,
            consumer,
            ..
        } = *instance;
        Self {
            route,
            service,
            consumer,
        }
    }

    fn parts(&self) -> usize {
        usize::from(self.route.is_some()) * ROUTE
            + usize::from(self.service.is_some()) * SERVICE
            + usize::from(self.consumer.is_some()) * CONSUMER
    }

    fn only(&self, parts: usize) -> Self {
        Self {
            route: self.route.filter(|_| parts & ROUTE != 0),
            service: self.service.filter(|_| parts & SERVICE != 0),
            consumer: self.consumer.filter(|_| parts & CONSUMER != 0),
        }
    }
}

/// All enabled plugin instances.
#[derive(Clone, Debug, Default)]
pub(super) struct Plugins {
    instances: OrdMap<Uuid, (Workspace, Arc<Instance>)>,
    global: HashMap<Workspace, List>,
    /// By the parts a scope is made of, so that combinations nobody uses cost nothing.
    scoped: [HashMap<Scope, List>; 8],
}

impl Plugins {
    pub(super) fn insert(&mut self, workspace: &Workspace, instance: Arc<Instance>) {
        self.remove(instance.id);
        self.edit(workspace, Scope::of(&instance), |list| {
            let place = list.partition_point(|other| order(other) < order(&instance));
            list.insert(place, Arc::clone(&instance));
        });
        self.instances
            .insert(instance.id, (workspace.clone(), instance));
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        let Some((workspace, instance)) = self.instances.remove(&id) else {
            return;
        };
        let scope = Scope::of(&instance);
        self.edit(&workspace, scope, |list| {
            list.retain(|other| other.id != id)
        });
    }

    fn edit(
        &mut self,
        workspace: &Workspace,
        scope: Scope,
        edit: impl FnOnce(&mut Vec<Arc<Instance>>),
    ) {
        fn put<K: Clone + Eq + std::hash::Hash>(
            lists: &mut HashMap<K, List>,
            key: &K,
            edit: impl FnOnce(&mut Vec<Arc<Instance>>),
        ) {
            let mut list = lists.get(key).map(|list| list.to_vec()).unwrap_or_default();
            edit(&mut list);
            if list.is_empty() {
                lists.remove(key);
            } else {
                lists.insert(key.clone(), list.into());
            }
        }
        match scope.parts() {
            0 => put(&mut self.global, workspace, edit),
            parts => put(&mut self.scoped[parts], &scope, edit),
        }
    }

    pub(super) fn has_global(&self) -> bool {
        !self.global.is_empty()
    }

    /// The chain for a request of this scope. Without a workspace there are no global plugins.
    pub(super) fn chain(&self, workspace: Option<&Workspace>, scope: &Scope) -> Chain {
        const EMPTY: &[Arc<Instance>] = &[];
        let mut found: [Option<&List>; 8] = [None; 8];
        let mut count = 0;
        let parts = scope.parts();
        for wanted in SPECIFIC {
            let lists = &self.scoped[wanted];
            if parts & wanted == wanted && !lists.is_empty() {
                found[count] = lists.get(&scope.only(wanted));
                count += usize::from(found[count].is_some());
            }
        }
        if let Some(global) = workspace.filter(|_| self.has_global()) {
            found[count] = self.global.get(global);
            count += usize::from(found[count].is_some());
        }
        match (count, found[0]) {
            (0, _) | (_, None) => Chain::default(),
            (1, Some(list)) if is_unique(list) => Chain(Instances::Shared(Arc::clone(list))),
            (_, Some(_)) => {
                let mut rest = found.map(|list| list.map_or(EMPTY, |list| list));
                Chain(Instances::Merged(merge(&mut rest[..count])))
            }
        }
    }
}

/// Higher priority first, then the name descending. The id decides only between duplicates, which the control plane
/// does not admit.
fn order(instance: &Instance) -> (Reverse<i32>, Reverse<&'static str>, Uuid) {
    (
        Reverse(instance.priority),
        Reverse(instance.name),
        instance.id,
    )
}

fn is_unique(list: &[Arc<Instance>]) -> bool {
    list.windows(2).all(|pair| pair[0].name != pair[1].name)
}

/// Merges lists, the most specific first, taking each name from the first list that has it.
fn merge(lists: &mut [&[Arc<Instance>]]) -> Vec<Arc<Instance>> {
    let mut merged: Vec<Arc<Instance>> = Vec::new();
    loop {
        let heads = lists.iter().filter_map(|list| list.first());
        let key = |instance: &&Arc<Instance>| (Reverse(instance.priority), Reverse(instance.name));
        // The first of equal heads is kept: the most specific.
        let Some(next) = heads.min_by_key(key) else {
            return merged;
        };
        let next = Arc::clone(next);
        for list in lists.iter_mut() {
            while let [first, rest @ ..] = *list
                && first.name == next.name
            {
                *list = rest;
            }
        }
        merged.push(next);
    }
}
