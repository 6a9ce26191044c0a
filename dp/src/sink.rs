//! From what the replica applies to the table that requests see.

use crate::balance::Upstreams;
use crate::metrics::Metrics;
use crate::plugin;
use crate::proxy::Shared;
use crate::status::NodeState;
use crate::table::{Rejected, Table};
use arc_swap::ArcSwap;
use sluice_replica::process::now;
use sluice_replica::run::{Arrival, Sink};
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::version::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Entities that are compiled at a time when a whole state is: more would be in memory twice.
const RELOAD_PAGE: usize = 1000;

/// Where the replica puts what it applies: compiles off the request path, then swaps.
#[derive(Clone)]
pub(crate) struct TableSink {
    tables: Arc<ArcSwap<Table>>,
    /// Told before requests see a table.
    upstreams: Arc<Upstreams>,
    /// Told of each plugin that differs.
    plugins: Arc<plugin::State>,
    /// What is being taken up, before any request sees it.
    staged: Option<Table>,
    state: Arc<NodeState>,
    /// Told after each swap.
    swapped: Arc<Notify>,
    metrics: Arc<Metrics>,
    /// Held by who makes one table of another and swaps them.
    changing: Arc<Mutex<()>>,
}

impl TableSink {
    pub(crate) fn new(
        tables: &Arc<ArcSwap<Table>>,
        shared: &Shared,
        state: &Arc<NodeState>,
    ) -> Self {
        Self {
            tables: tables.clone(),
            upstreams: shared.upstreams.clone(),
            plugins: shared.state.clone(),
            staged: None,
            state: state.clone(),
            swapped: shared.swapped.clone(),
            metrics: shared.metrics.clone(),
            changing: Arc::default(),
        }
    }

    /// Compiles again what could not be opened: there are other keys of secrets.
    pub(crate) fn reopen(&self) {
        let _changing = lock(&self.changing);
        let table = self.tables.load();
        let (table, _) = table.apply(table.version(), &[]);
        self.upstreams.prepare(&table);
        let rejected = self.activate(table);
        self.state.update(|facts| facts.rejected = rejected);
    }

    fn swap(&self, table: Table, cursor: Cursor, digest: Digest) {
        let rejected = self.activate(table);
        for entity in rejected
            .iter()
            .filter(|rejected| rejected.version == cursor.version)
        {
            tracing::warn!(entity = %entity.key, reason = entity.reason, "an entity cannot be used; its last good form stays");
        }
        self.state.update(|facts| {
            facts.cursor = cursor;
            facts.digest = digest;
            facts.applied_at = Some(now());
            facts.rejected = rejected;
        });
        tracing::debug!(version = %cursor.version, "active");
    }

    /// Lets requests see a table. Gives what of it cannot be used.
    fn activate(&self, table: Table) -> Vec<Rejected> {
        let rejected = table.rejected().cloned().collect();
        let (before, table) = (self.tables.load_full(), Arc::new(table));
        let swap = || self.tables.store(Arc::clone(&table));
        self.plugins.activate(&before, &table, swap);
        self.swapped.notify_waiters();
        rejected
    }
}

fn lock(changing: &Mutex<()>) -> MutexGuard<'_, ()> {
    changing.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink for TableSink {
    fn change(&mut self, cursor: Cursor, digest: Digest, changes: &[Change], events: &[Arrival]) {
        let changing = Arc::clone(&self.changing);
        let _changing = lock(&changing);
        let (table, _) = self.tables.load().apply(cursor.version, changes);
        self.upstreams.prepare(&table);
        self.swap(table, cursor, digest);
        self.metrics.activated(events);
    }

    fn stage(&mut self, changes: &[Change]) {
        let table = self.staged.take();
        let table = table.unwrap_or_else(|| Table::clone(&self.tables.load()));
        self.staged = Some(table.apply(table.version(), changes).0);
    }

    fn commit(&mut self, cursor: Cursor, digest: Digest) {
        let changing = Arc::clone(&self.changing);
        let _changing = lock(&changing);
        let table = self.staged.take();
        let table = table.unwrap_or_else(|| Table::clone(&self.tables.load()));
        let (table, _) = table.apply(cursor.version, &[]);
        self.upstreams.prepare_all(&table);
        self.swap(table, cursor, digest);
    }

    fn abandon(&mut self) {
        self.staged = None;
    }

    fn reload(
        &mut self,
        cursor: Cursor,
        digest: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    ) {
        let changing = Arc::clone(&self.changing);
        let _changing = lock(&changing);
        let table = self.tables.load().cleared();
        let (mut table, _) = table.apply(cursor.version, &[]);
        loop {
            let page: Vec<Change> = (&mut *entities).take(RELOAD_PAGE).map(added).collect();
            if page.is_empty() {
                break;
            }
            (table, _) = table.apply(cursor.version, &page);
        }
        self.upstreams.prepare_all(&table);
        self.swap(table, cursor, digest);
    }
}

/// An entity that was not there.
pub(crate) fn added((key, entry): (Key, Entry)) -> Change {
    Change {
        key,
        before: None,
        after: Some(entry),
    }
}
