//! The thread that keeps what requests only read: it looks names up and refreshes them, and asks targets for their
//! health. One for all workers.

use super::probe::{self, Prober};
use super::tls::TlsOptions;
use crate::balance::resolve::{Found, LookUp, ResolveError};
use crate::balance::{Answer, DnsOptions, Name, Upstreams, Wish, Work};
use crate::table::Table;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Look-ups at a time.
const LOOKUPS_MAX: usize = 64;
/// Look-ups at a time beyond that which requests wait for.
const URGENT_MAX: usize = 64;
/// The wait after a look-up that failed; twice as long after each further one, up to 32 times.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_DOUBLINGS_MAX: u32 = 5;
/// How long the last answer of a name serves that cannot be looked up any more.
const STALE_MAX: Duration = Duration::from_secs(3600);
/// How often files are looked at.
const FILES_TICK: Duration = Duration::from_secs(5);
/// How often what is not used any more is looked for, in ticks.
const SWEEP_TICKS: u64 = 12;

/// What the keeper works with.
pub(super) struct Keeper {
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) tables: Arc<ArcSwap<Table>>,
    pub(super) dns: DnsOptions,
    pub(super) tls: TlsOptions,
}

impl Keeper {
    /// Starts the thread. It ends when all senders of `workers` are gone.
    pub(super) fn start(self, workers: mpsc::Receiver<()>) -> io::Result<()> {
        let Some(work) = self.upstreams.take_work() else {
            return Ok(());
        };
        std::thread::Builder::new()
            .name("upstreams".into())
            .spawn(move || {
                if let Err(error) = super::block_on(self.run(work, workers)) {
                    tracing::error!(%error, "nobody looks up names or checks health any more");
                }
            })?;
        Ok(())
    }

    async fn run(self, mut work: Work, mut workers: mpsc::Receiver<()>) -> io::Result<()> {
        let mut desk = Desk::new(LookUp::new(self.dns).map_err(io::Error::other)?);
        let prober = Rc::new(Prober::new(Arc::clone(&self.tables), self.tls));
        let mut ticks = tokio::time::interval(FILES_TICK);
        let (mut count, mut suspects) = (0, BTreeSet::<Uuid>::new());
        loop {
            desk.start();
            let due = desk.next_due();
            tokio::select! {
                _ = workers.recv() => return Ok(()),
                Some(wish) = work.wishes.recv() => desk.add(wish),
                Some(group) = work.watches.recv() => {
                    tokio::task::spawn_local(probe::watch(group, Rc::clone(&prober)));
                }
                Some(Ok((name, found))) = desk.running.join_next() => desk.finish(&name, found),
                () = tokio::time::sleep_until(due.into()) => desk.refresh(&self.upstreams),
                _ = ticks.tick() => {
                    if desk.lookup.reload() {
                        desk.refresh_all();
                    }
                    count += 1;
                    if count % SWEEP_TICKS == 0 {
                        self.upstreams.sweep(&self.tables.load(), &mut suspects);
                        self.upstreams.names.prune();
                    }
                }
            }
        }
    }
}

/// Names to look up.
struct Desk {
    lookup: LookUp,
    /// Requests wait for these.
    urgent: VecDeque<Arc<Name>>,
    ordinary: VecDeque<Arc<Name>>,
    running: JoinSet<(Arc<Name>, Result<Found, ResolveError>)>,
    /// Names that are being looked up.
    in_hand: HashSet<Box<str>>,
    /// Names in `due`: each is there once.
    scheduled: HashSet<Box<str>>,
    /// When names are to be looked up again.
    due: BTreeMap<(Instant, u64), Weak<Name>>,
    count: u64,
}

impl Desk {
    fn new(lookup: LookUp) -> Self {
        Self {
            lookup,
            urgent: VecDeque::new(),
            ordinary: VecDeque::new(),
            running: JoinSet::new(),
            in_hand: HashSet::new(),
            scheduled: HashSet::new(),
            due: BTreeMap::new(),
            count: 0,
        }
    }

    fn add(&mut self, wish: Wish) {
        if wish.urgent {
            self.urgent.push_back(wish.name);
        } else {
            self.ordinary.push_back(wish.name);
        }
    }

    /// Starts as many look-ups as may run.
    fn start(&mut self) {
        loop {
            let running = self.running.len();
            let urgent = (running < LOOKUPS_MAX + URGENT_MAX).then(|| self.urgent.pop_front());
            let next = urgent.flatten().or_else(|| {
                let room = running < LOOKUPS_MAX;
                room.then(|| self.ordinary.pop_front()).flatten()
            });
            let Some(name) = next else {
                return;
            };
            // The same name may be wished for more than once.
            if self.scheduled.contains(&name.text) || !self.in_hand.insert(name.text.clone()) {
                continue;
            }
            let found = self.lookup.find(name.text.clone());
            self.running.spawn_local(async move { (name, found.await) });
        }
    }

    fn finish(&mut self, name: &Arc<Name>, found: Result<Found, ResolveError>) {
        self.in_hand.remove(&name.text);
        let again = match found {
            Ok((records, fresh)) => {
                name.failures.store(0, Ordering::Relaxed);
                name.set(Answer::Known(records, Instant::now()));
                fresh
            }
            Err(error) => {
                let failures = name.failures.fetch_add(1, Ordering::Relaxed);
                let known = name.answer();
                let serves = match &*known {
                    Answer::Known(_, confirmed) => confirmed.elapsed() < STALE_MAX,
                    Answer::Pending | Answer::Failed => false,
                };
                let error = &error as &dyn std::error::Error;
                // Once, not each time.
                if failures == 0 {
                    tracing::warn!(
                        name = &*name.text,
                        error,
                        stale = serves,
                        "a name does not resolve"
                    );
                }
                if !serves {
                    name.set(Answer::Failed);
                }
                Instant::now() + RETRY * (1 << failures.min(RETRY_DOUBLINGS_MAX))
            }
        };
        self.count += 1;
        self.scheduled.insert(name.text.clone());
        self.due.insert((again, self.count), Arc::downgrade(name));
    }

    fn next_due(&self) -> Instant {
        let first = self.due.first_key_value();
        first.map_or_else(|| Instant::now() + FILES_TICK, |((at, _), _)| *at)
    }

    /// Looks up again what is due and used.
    fn refresh(&mut self, upstreams: &Upstreams) {
        let later = self.due.split_off(&(Instant::now(), u64::MAX));
        let due = std::mem::replace(&mut self.due, later);
        for name in due.values().filter_map(Weak::upgrade) {
            self.scheduled.remove(&name.text);
            if !upstreams.names.rest(&name) {
                self.ordinary.push_back(name);
            }
        }
    }

    /// Looks up again all that was.
    fn refresh_all(&mut self) {
        let due = std::mem::take(&mut self.due);
        self.scheduled.clear();
        self.ordinary.extend(due.values().filter_map(Weak::upgrade));
    }
}
