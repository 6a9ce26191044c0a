//! Names to addresses, for one worker. Answers are kept for a while and renewed beside the request that finds them
//! old; only a name's very first request waits.

use futures::future::{FutureExt, LocalBoxFuture, Shared};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer counts as fresh. The system's resolver does not tell the records' own time to live.
const FRESH: Duration = Duration::from_secs(30);
/// How long a failure is remembered.
const FAILURE: Duration = Duration::from_secs(1);
/// How long a single look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Names nobody asked for since this are forgotten.
const UNUSED: Duration = Duration::from_secs(600);
/// More names than this are not kept.
const NAMES_MAX: usize = 10_000;

type Lookup = Shared<LocalBoxFuture<'static, Option<Rc<[IpAddr]>>>>;

/// A worker's names.
#[derive(Default)]
pub(crate) struct Names(RefCell<HashMap<Box<str>, Name>>);

struct Name {
    addresses: Option<Rc<[IpAddr]>>,
    fresh_until: Instant,
    used: Instant,
    next: usize,
    lookup: Option<Lookup>,
}

impl Names {
    /// An address of `host`, in turn.
    pub(crate) fn resolve(self: &Rc<Self>, host: &str, port: u16) -> Resolution {
        let with_port = move |address: &IpAddr| SocketAddr::new(*address, port);
        match self.cached(host) {
            Cached::Known(address) => Resolution::Known(address.as_ref().map(with_port)),
            Cached::Pending(lookup) => {
                let first = lookup.map(move |found| found?.first().map(with_port));
                Resolution::Pending(first.boxed_local())
            }
        }
    }

    fn cached(self: &Rc<Self>, host: &str) -> Cached {
        let now = Instant::now();
        let mut names = self.0.borrow_mut();
        let Some(name) = names.get_mut(host) else {
            if names.len() >= NAMES_MAX {
                names.retain(|_, name| name.lookup.is_some());
            }
            let lookup = self.start(host);
            let name = Name {
                addresses: None,
                fresh_until: now,
                used: now,
                next: 0,
                lookup: Some(lookup.clone()),
            };
            names.insert(host.into(), name);
            return Cached::Pending(lookup);
        };
        name.used = now;
        if now >= name.fresh_until && name.lookup.is_none() {
            name.lookup = Some(self.start(host));
        }
        match (&name.addresses, &name.lookup) {
            (Some(addresses), _) => {
                name.next = name.next.wrapping_add(1);
                Cached::Known(addresses.get(name.next % addresses.len().max(1)).copied())
            }
            (None, Some(lookup)) => Cached::Pending(lookup.clone()),
            (None, None) => Cached::Known(None),
        }
    }

    /// Starts a look-up that writes its answer here; it goes on even if the request that asked is gone.
    fn start(self: &Rc<Self>, host: &str) -> Lookup {
        let (names, host) = (Rc::clone(self), host.to_owned());
        let lookup = async move {
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((&*host, 0)));
            let found = found.await.ok().and_then(Result::ok);
            let found: Option<Rc<[IpAddr]>> =
                found.map(|found| found.map(|address| address.ip()).collect());
            let found = found.filter(|addresses| !addresses.is_empty());
            names.answered(&host, found.clone());
            found
        };
        let lookup = lookup.boxed_local().shared();
        tokio::task::spawn_local(lookup.clone());
        lookup
    }

    fn answered(&self, host: &str, found: Option<Rc<[IpAddr]>>) {
        let mut names = self.0.borrow_mut();
        let Some(name) = names.get_mut(host) else {
            return;
        };
        name.lookup = None;
        let fresh = if found.is_some() { FRESH } else { FAILURE };
        name.fresh_until = Instant::now() + fresh;
        // A name that stops resolving keeps its last addresses.
        if found.is_some() {
            name.addresses = found;
        }
    }

    /// Forgets names that are no longer asked for; called on a coarse tick.
    pub(crate) fn forget_unused(&self, now: Instant) {
        self.0
            .borrow_mut()
            .retain(|_, name| name.lookup.is_some() || now.duration_since(name.used) < UNUSED);
    }
}

/// What is known of a name's addresses; `None` if it does not resolve.
pub(crate) enum Resolution {
    Known(Option<SocketAddr>),
    Pending(LocalBoxFuture<'static, Option<SocketAddr>>),
}

enum Cached {
    Known(Option<IpAddr>),
    Pending(Lookup),
}
