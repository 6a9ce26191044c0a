//! Plugin instances by scope, and the chain of a request merged from them.

mod considered;

pub(crate) use considered::{Bound, Considered, Disabled};

use crate::plugin::{Instance, Phases};
use imbl::ordmap::DiffItem;
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
    Merged(Vec<Arc<Instance>>, Phases),
}

impl Deref for Chain {
    type Target = [Arc<Instance>];

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Instances::None => &[],
            Instances::Shared(list) => &list.instances,
            Instances::Merged(instances, _) => instances,
        }
    }
}

impl Chain {
    /// The phases in which any of them has a part.
    pub fn phases(&self) -> Phases {
        match &self.0 {
            Instances::None => Phases::NONE,
            Instances::Shared(list) => list.phases,
            Instances::Merged(_, phases) => *phases,
        }
    }

    /// What comes after the first `done` of a chain when more is known about the request, and the place in it to go on
    /// from. The plugins that have run stay, for their later phases.
    #[must_use]
    pub(crate) fn go_on(&self, done: usize, next: Self) -> (Self, usize) {
        let from = self.resumes(done, &next);
        let ran = done.checked_sub(1).is_some_and(|last| last < self.len());
        if !ran || self.is_shared_with(&next) {
            return (next, from);
        }
        if !self.phases().and(next.phases()).overlap(Phases::LATER) {
            return (next, from);
        }
        let ran = self.iter().take(done);
        let all = ran.chain(next.iter().skip(from)).cloned().collect();
        (Self::merged(all), done)
    }

    /// The place in `next` from which it goes on after the first `done` of this chain.
    fn resumes(&self, done: usize, next: &Self) -> usize {
        let Some(last) = done.checked_sub(1).and_then(|last| self.get(last)) else {
            return 0;
        };
        if self.is_shared_with(next) {
            return done;
        }
        let order = (last.priority, last.name);
        let later = |instance: &Arc<Instance>| (instance.priority, instance.name) < order;
        next.iter().position(later).unwrap_or(next.len())
    }

    fn is_shared_with(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Instances::Shared(one), Instances::Shared(two)) => Arc::ptr_eq(one, two),
            (
                Instances::None | Instances::Shared(_) | Instances::Merged(..),
                Instances::None | Instances::Shared(_) | Instances::Merged(..),
            ) => false,
        }
    }

    fn merged(instances: Vec<Arc<Instance>>) -> Self {
        let phases = phases(&instances);
        Self(Instances::Merged(instances, phases))
    }
}

fn phases(instances: &[Arc<Instance>]) -> Phases {
    let each = instances.iter().map(|instance| instance.phases);
    each.fold(Phases::NONE, Phases::and)
}

/// The instances of one scope in the order in which they run.
type List = Arc<Listed>;

#[derive(Debug)]
struct Listed {
    instances: Box<[Arc<Instance>]>,
    phases: Phases,
}

/// What a plugin is bound to; nothing for a global one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Scope {
    pub(super) route: Option<Uuid>,
    pub(super) service: Option<Uuid>,
    pub(super) consumer: Option<Uuid>,
    pub(super) group: Option<Uuid>,
}

const ROUTE: usize = 1;
const SERVICE: usize = 2;
const CONSUMER: usize = 4;
const GROUP: usize = 8;
const COMBINATIONS: usize = 16;

/// Which entities a scope is made of, the most specific first: Kong's order.
const SPECIFIC: [usize; 11] = [
    ROUTE | SERVICE | CONSUMER,
    ROUTE | SERVICE | GROUP,
    ROUTE | CONSUMER,
    SERVICE | CONSUMER,
    ROUTE | GROUP,
    SERVICE | GROUP,
    ROUTE | SERVICE,
    CONSUMER,
    GROUP,
    ROUTE,
    SERVICE,
];
/// Lists of a request whose consumer is in no group: one for each combination without one, and the global one.
const LISTS_MAX: usize = 8;

impl Scope {
    fn of(instance: &Instance) -> Self {
        let Instance {
            route,
            service,
            consumer,
            consumer_group: group,
            ..
        } = *instance;
        Self {
            route,
            service,
            consumer,
            group,
        }
    }

    fn parts(&self) -> usize {
        usize::from(self.route.is_some()) * ROUTE
            + usize::from(self.service.is_some()) * SERVICE
            + usize::from(self.consumer.is_some()) * CONSUMER
            + usize::from(self.group.is_some()) * GROUP
    }

    fn only(&self, parts: usize) -> Self {
        Self {
            route: self.route.filter(|_| parts & ROUTE != 0),
            service: self.service.filter(|_| parts & SERVICE != 0),
            consumer: self.consumer.filter(|_| parts & CONSUMER != 0),
            group: self.group.filter(|_| parts & GROUP != 0),
        }
    }
}

/// All plugin instances.
#[derive(Clone, Debug, Default)]
pub(super) struct Plugins {
    instances: OrdMap<Uuid, (Workspace, Arc<Instance>)>,
    global: HashMap<Workspace, List>,
    /// By the parts a scope is made of, so that combinations nobody uses cost nothing.
    scoped: [HashMap<Scope, List>; COMBINATIONS],
    /// Those that are switched off, for who asks why they do not run.
    disabled: OrdMap<Uuid, Arc<Disabled>>,
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
        if !self.disabled.is_empty() {
            self.disabled.remove(&id);
        }
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
            let list = lists.get(key).map(|list| list.instances.to_vec());
            let mut list = list.unwrap_or_default();
            edit(&mut list);
            if list.is_empty() {
                lists.remove(key);
            } else {
                let phases = phases(&list);
                let instances = list.into();
                lists.insert(key.clone(), Arc::new(Listed { instances, phases }));
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

    /// Whether any plugin is bound to a group of consumers.
    pub(super) fn has_grouped(&self) -> bool {
        let grouped = self.scoped.iter().enumerate();
        let mut grouped = grouped.filter(|(parts, _)| parts & GROUP != 0);
        grouped.any(|(_, lists)| !lists.is_empty())
    }

    /// The global plugins of a workspace.
    pub(super) fn global(&self, workspace: &Workspace) -> Chain {
        self.chain(Some(workspace), &Scope::default(), &[])
    }

    /// What is not the same in `next`: the instances before and after.
    pub(super) fn changes<'a>(
        &'a self,
        next: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Instance>, Option<&'a Instance>)> {
        let differences = self.instances.diff(&next.instances);
        differences.map(|difference| match difference {
            DiffItem::Add(_, (_, now)) => (None, Some(&**now)),
            DiffItem::Remove(_, (_, before)) => (Some(&**before), None),
            DiffItem::Update {
                old: (_, (_, before)),
                new: (_, (_, now)),
            } => (Some(&**before), Some(&**now)),
        })
    }

    /// The chain for a request of this scope, whose consumer is in these groups. Without a workspace there are no global
    /// plugins.
    pub(super) fn chain(
        &self,
        workspace: Option<&Workspace>,
        scope: &Scope,
        groups: &[(&str, Uuid)],
    ) -> Chain {
        if !groups.is_empty() {
            return self.grouped_chain(workspace, scope, groups);
        }
        const EMPTY: &[Arc<Instance>] = &[];
        let mut found: [Option<&List>; LISTS_MAX] = [None; LISTS_MAX];
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
            (1, Some(list)) if is_unique(&list.instances) => {
                Chain(Instances::Shared(Arc::clone(list)))
            }
            (_, Some(_)) => {
                let mut rest = found.map(|list| list.map_or(EMPTY, |list| &list.instances));
                Chain::merged(merge(&mut rest[..count]))
            }
        }
    }

    /// The same for a consumer in groups: of several, the first by name is the more specific.
    fn grouped_chain(
        &self,
        workspace: Option<&Workspace>,
        scope: &Scope,
        groups: &[(&str, Uuid)],
    ) -> Chain {
        let parts = scope.parts() | GROUP;
        let mut found: Vec<&[Arc<Instance>]> = Vec::new();
        for wanted in SPECIFIC
            .into_iter()
            .filter(|wanted| parts & wanted == *wanted)
        {
            let lists = &self.scoped[wanted];
            if lists.is_empty() {
                continue;
            }
            let once = if wanted & GROUP == 0 { 1 } else { groups.len() };
            for (_, group) in groups.iter().take(once) {
                let scope = Scope {
                    group: Some(*group),
                    ..*scope
                };
                found.extend(lists.get(&scope.only(wanted)).map(|list| &*list.instances));
            }
        }
        let global = workspace.and_then(|workspace| self.global.get(workspace));
        found.extend(global.map(|list| &*list.instances));
        Chain::merged(merge(&mut found))
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
