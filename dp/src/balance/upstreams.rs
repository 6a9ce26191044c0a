//! All upstreams and names in use: what outlives the configuration.

use super::group::Group;
use super::lineup::bare;
use super::names::{Names, Wish};
use crate::table::{Service, Table, Touched, Upstream};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::mpsc;
use uuid::Uuid;

/// The upstreams of a node, with the health of their targets and the requests that are with them. It does not depend on
/// versions of the configuration: what stays in it keeps its state.
#[derive(Debug)]
pub struct Upstreams {
    groups: Mutex<BTreeMap<Uuid, Arc<Group>>>,
    pub(crate) names: Names,
    watches: mpsc::UnboundedSender<Weak<Group>>,
    work: Mutex<Option<Work>>,
    /// What times of latencies are counted from.
    pub(super) begun: Instant,
}

/// What the keeper is asked for.
#[derive(Debug)]
pub(crate) struct Work {
    /// Names to look up.
    pub(crate) wishes: mpsc::UnboundedReceiver<Wish>,
    /// Groups whose targets are to be checked.
    pub(crate) watches: mpsc::UnboundedReceiver<Weak<Group>>,
}

impl Default for Upstreams {
    fn default() -> Self {
        let (names, wishes) = Names::new();
        let (watches, watched) = mpsc::unbounded_channel();
        let work = Work {
            wishes,
            watches: watched,
        };
        Self {
            groups: Mutex::default(),
            names,
            watches,
            work: Mutex::new(Some(work)),
            begun: Instant::now(),
        }
    }
}

impl Upstreams {
    /// Follows one step of the configuration: `table` is the next one. Called before requests see it, so that they find
    /// everything at hand; what was not announced is made when it is needed.
    pub fn prepare(&self, table: &Table) {
        for change in table.touched() {
            match *change {
                Touched::Service(id) => {
                    if let Some(service) = table.service(id) {
                        self.prepare_service(table, service);
                    }
                }
                Touched::Upstream(id) => match table.upstream_by_id(id) {
                    Some(upstream) => drop(self.group(upstream, false)),
                    None => self.forget(id),
                },
            }
        }
    }

    /// The same for a table of which nothing is known.
    pub fn prepare_all(&self, table: &Table) {
        let here: BTreeSet<Uuid> = table.upstreams().map(|upstream| upstream.id).collect();
        let gone: Vec<Uuid> = {
            let groups = self.lock();
            groups
                .keys()
                .filter(|id| !here.contains(id))
                .copied()
                .collect()
        };
        gone.into_iter().for_each(|id| self.forget(id));
        table
            .upstreams()
            .for_each(|upstream| drop(self.group(upstream, false)));
        table
            .services()
            .for_each(|service| self.prepare_service(table, service));
    }

    fn prepare_service(&self, table: &Table, service: &Service) {
        if let Some(name) = service.name_to_resolve()
            && table.upstream(&service.workspace, name).is_none()
        {
            self.names.find(name, false);
        }
    }

    /// The group of an upstream, in this form or a newer one. `urgent` if a request waits.
    pub(super) fn group(&self, upstream: &Arc<Upstream>, urgent: bool) -> Arc<Group> {
        let group = {
            let mut groups = self.lock();
            Arc::clone(groups.entry(upstream.id).or_insert_with(Group::new))
        };
        group.adopt(upstream, &self.names, urgent);
        if upstream.checks.active.is_some() && !group.is_watched.swap(true, Ordering::AcqRel) {
            // Without a keeper nobody checks: the proxy was never started.
            let _ = self.watches.send(Arc::downgrade(&group));
        }
        group
    }

    /// Forgets upstreams that are neither in the table nor were there when this was last called. A request that began
    /// before an upstream was removed may have made it again.
    pub(crate) fn sweep(&self, table: &Table, suspects: &mut BTreeSet<Uuid>) {
        let ids: BTreeSet<Uuid> = self.lock().keys().copied().collect();
        let absent = ids
            .into_iter()
            .filter(|id| table.upstream_by_id(*id).is_none());
        let absent: BTreeSet<Uuid> = absent.collect();
        absent
            .intersection(suspects)
            .for_each(|id| self.forget(*id));
        *suspects = absent;
    }

    fn forget(&self, id: Uuid) {
        let group = self.lock().remove(&id);
        drop(group);
    }

    pub(super) fn groups(&self) -> Vec<Arc<Group>> {
        self.lock().values().cloned().collect()
    }

    /// What the keeper has to do; only the first one gets it.
    pub(crate) fn take_work(&self) -> Option<Work> {
        self.work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Its host, if that is a name.
    pub(super) fn name_to_resolve(&self) -> Option<&str> {
        bare(&self.host)
            .parse::<IpAddr>()
            .is_err()
            .then_some(&*self.host)
    }
}
