//! Which address a request goes to.
//!
//! What is shared by the workers, and survives changes of the configuration, is in [`Upstreams`]: for each upstream
//! the lineup of its addresses (`group`, `lineup`), for each address its health and load (`member`, `health`), for
//! each name what it resolves to (`names`). A worker looks at the newest lineup without waiting for anybody (`Balance`).
//! Looking up names and asking targets for their health is the work of one thread (`proxy::keeper`).

mod group;
mod health;
mod lineup;
mod member;
mod names;
mod points;
pub(crate) mod resolve;
mod upstreams;
mod view;
mod wheel;

pub(crate) use group::Group;
pub(crate) use health::Outcome;
pub(crate) use lineup::{Lineup, Seat};
pub(crate) use names::{Answer, Name, Wish};
pub(crate) use points::hash;
pub use resolve::DnsOptions;
pub use upstreams::Upstreams;
pub(crate) use upstreams::Work;
pub use view::{SetHealthError, TargetView, UpstreamView};

use crate::table::{Algorithm, Service, Upstream};
use arc_swap::{ArcSwap, Cache};
use http::HeaderValue;
use lineup::Draw;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Sources nobody asked for since this are forgotten, with their position.
const UNUSED: Duration = Duration::from_secs(600);

/// Where a service's requests go.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// To the service's own host.
    Service(&'a Arc<Service>),
    /// To the targets of an upstream.
    Upstream(&'a Arc<Upstream>),
}

impl Source<'_> {
    fn id(self) -> Uuid {
        match self {
            Source::Service(service) => service.id,
            Source::Upstream(upstream) => upstream.id,
        }
    }
}

/// A worker's view of all sources in use.
pub(crate) struct Balance {
    sources: RefCell<HashMap<Uuid, Local>>,
    upstreams: Arc<Upstreams>,
    /// The first position of every source, different for each worker, so that they do not move in step.
    start: u64,
    begun: Instant,
    /// Set on a coarse tick.
    now: Cell<Instant>,
}

/// A source as one worker follows it.
struct Local {
    feed: Feed,
    held: Rc<Held>,
    position: u64,
    used: Instant,
}

/// Where the newest lineup comes from.
enum Feed {
    /// From the service, and what its host resolves to.
    Service {
        service: Arc<Service>,
        host: Option<Host>,
    },
    /// From the upstream's group.
    Upstream {
        upstream: Arc<Upstream>,
        lineups: Cache<Arc<ArcSwap<Lineup>>, Arc<Lineup>>,
    },
}

/// The host of a service that is a name.
struct Host {
    name: Arc<Name>,
    answers: Cache<Arc<ArcSwap<Answer>>, Arc<Answer>>,
    /// What the lineup was made from.
    seen: Arc<Answer>,
}

/// A lineup with this worker's own count of who uses it.
struct Held(Arc<Lineup>);

/// What comes of asking for an address.
pub(crate) enum Choice {
    /// This one.
    Seat(Picked),
    /// It is known when one of these names is.
    Wait(Arc<[Arc<Name>]>),
    /// None can be used.
    NoPeer,
    /// The service's name does not resolve.
    Unresolved,
}

/// The address a request goes to.
pub(crate) struct Picked {
    held: Rc<Held>,
    seat: usize,
}

impl Picked {
    pub(crate) fn seat(&self) -> &Seat {
        &self.held.0.seats[self.seat]
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.seat().address
    }

    /// What it is called in `Host`.
    pub(crate) fn host(&self, tls: bool) -> &HeaderValue {
        self.seat().host(tls)
    }

    /// Counts a request as being there, until it is dropped.
    pub(crate) fn fly(&self) -> Flight {
        let flight = Flight {
            held: Rc::clone(&self.held),
            seat: self.seat,
        };
        if let Some(member) = &self.seat().member {
            member.load.add();
        }
        flight
    }

    /// Takes in the status of an answer to a request that was sent at `sent`.
    pub(crate) fn answered(&self, status: u16, sent: Instant, balance: &Balance) {
        let Some(upstream) = &self.held.0.upstream else {
            return;
        };
        if upstream.algorithm == Algorithm::Latency
            && let Some(member) = &self.seat().member
        {
            member
                .latency
                .observe(sent.elapsed(), balance.begun.elapsed());
        }
        if let Some(passive) = &upstream.checks.passive
            && let Some(outcome) = Outcome::of(status, passive)
        {
            self.report(outcome);
        }
    }

    /// Takes in what came of a request.
    pub(crate) fn report(&self, outcome: Outcome) {
        let lineup = &self.held.0;
        let passive = lineup.upstream.as_ref();
        let passive = passive.and_then(|upstream| upstream.checks.passive.as_ref());
        let (Some(passive), Some(member)) = (passive, &self.seat().member) else {
            return;
        };
        if member.health.report(outcome, passive.limits)
            && let Some(group) = lineup.group.upgrade()
        {
            lineup.log_turn(self.seat());
            group.turned();
        }
    }
}

/// A request with a target.
pub(crate) struct Flight {
    held: Rc<Held>,
    seat: usize,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(member) = &self.held.0.seats[self.seat].member {
            member.load.remove();
        }
    }
}

impl Balance {
    pub(crate) fn new(upstreams: Arc<Upstreams>, start: u64) -> Self {
        let begun = upstreams.begun.into();
        Self {
            sources: RefCell::default(),
            upstreams,
            start,
            begun,
            now: Cell::new(Instant::now()),
        }
    }

    /// An address for a request. `hash` counts for consistent hashing only. The addresses in `tried` come again only
    /// when there is no other.
    pub(crate) fn pick(&self, source: Source<'_>, hash: u64, tried: &[SocketAddr]) -> Choice {
        let mut sources = self.sources.borrow_mut();
        let local = sources
            .entry(source.id())
            .or_insert_with(|| Local::new(source, &self.upstreams, self.start));
        if !local.feed.is(source) {
            *local = Local::new(source, &self.upstreams, local.position);
        }
        local.used = self.now.get();
        local.follow();
        local.position = local.position.wrapping_add(1);
        let lineup = &local.held.0;
        let timed = lineup.upstream.as_ref();
        let timed = timed.is_some_and(|upstream| upstream.algorithm == Algorithm::Latency);
        let draw = Draw {
            position: local.position,
            hash,
            tried,
            now: if timed {
                self.begun.elapsed()
            } else {
                Duration::ZERO
            },
        };
        match lineup.choose(draw) {
            Some(seat) => Choice::Seat(Picked {
                held: Rc::clone(&local.held),
                seat,
            }),
            None if !lineup.waiting.is_empty() => {
                // Behind all that is only looked up ahead, it would take long.
                lineup
                    .waiting
                    .iter()
                    .for_each(|name| self.upstreams.names.hurry(name));
                Choice::Wait(Arc::clone(&lineup.waiting))
            }
            None if lineup.upstream.is_none() => Choice::Unresolved,
            None => Choice::NoPeer,
        }
    }

    /// Forgets what is no longer used; called on a coarse tick.
    pub(crate) fn tick(&self, now: Instant) {
        self.now.set(now);
        self.sources.borrow_mut().retain(|_, local| {
            // An idle worker must not keep an old lineup alive.
            local.follow();
            now.duration_since(local.used) < UNUSED
        });
    }
}

impl Local {
    fn new(source: Source<'_>, upstreams: &Upstreams, position: u64) -> Self {
        let (feed, lineup) = match source {
            Source::Service(service) => Feed::service(service, upstreams),
            Source::Upstream(upstream) => {
                let group = upstreams.group(upstream, true);
                let mut lineups = Cache::new(Arc::clone(&group.lineup));
                let lineup = Arc::clone(lineups.load());
                let upstream = Arc::clone(upstream);
                (Feed::Upstream { upstream, lineups }, lineup)
            }
        };
        Self {
            feed,
            held: Rc::new(Held(lineup)),
            position,
            used: Instant::now(),
        }
    }

    /// Takes up the newest lineup.
    fn follow(&mut self) {
        match &mut self.feed {
            Feed::Service { host: None, .. } => {}
            Feed::Service {
                service,
                host: Some(host),
            } => {
                let newest = host.answers.load();
                if !Arc::ptr_eq(newest, &host.seen) {
                    host.seen = Arc::clone(newest);
                    self.held = Rc::new(Held(Arc::new(host.lineup(service))));
                }
            }
            Feed::Upstream { lineups, .. } => {
                let newest = lineups.load();
                if !Arc::ptr_eq(newest, &self.held.0) {
                    self.held = Rc::new(Held(Arc::clone(newest)));
                }
            }
        }
    }
}

impl Host {
    fn new(name: Arc<Name>) -> Self {
        let mut answers = Cache::new(name.place());
        let seen = Arc::clone(answers.load());
        Self {
            name,
            answers,
            seen,
        }
    }

    fn lineup(&self, service: &Service) -> Lineup {
        let waiting = self.seen.is_pending().then(|| Arc::clone(&self.name));
        Lineup::of_service(service, self.seen.records(), waiting)
    }
}

impl Feed {
    fn service(service: &Arc<Service>, upstreams: &Upstreams) -> (Self, Arc<Lineup>) {
        let name = service.name_to_resolve();
        let host = name.map(|name| Host::new(upstreams.names.find(name, true)));
        let lineup = match &host {
            Some(host) => host.lineup(service),
            None => Lineup::of_service(service, &[], None),
        };
        let service = Arc::clone(service);
        (Self::Service { service, host }, Arc::new(lineup))
    }

    fn is(&self, source: Source<'_>) -> bool {
        match (self, source) {
            (Self::Service { service, .. }, Source::Service(other)) => Arc::ptr_eq(service, other),
            (Self::Upstream { upstream, .. }, Source::Upstream(other)) => {
                Arc::ptr_eq(upstream, other)
            }
            (Self::Service { .. }, Source::Upstream(_))
            | (Self::Upstream { .. }, Source::Service(_)) => false,
        }
    }
}
