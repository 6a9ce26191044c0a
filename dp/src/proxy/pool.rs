//! A worker's connections to upstreams. Idle ones are kept per address and way, the last used first, within limits.
//! Connections that speak HTTP/2 are shared by requests while they are in use.

use super::body::Outgoing;
use super::link::{ConnectError, Link, Sender, Stream};
use super::tls::client::Client;
use hyper::client::conn::http2;
use rustls::pki_types::ServerName;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Requests at a time on one HTTP/2 connection; more open another.
const STREAMS_MAX: usize = 100;
/// Addresses and ways other than HTTP/1.1 in clear whose connections are kept. With `preserve_host` clients choose the
/// names that are asked for, so that there may be any number.
const OTHERS_MAX: usize = 4096;

/// Limits of a worker's pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle connections kept per address.
    pub idle_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle_max: 256,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// How an upstream is spoken to if not by HTTP/1.1 in clear.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// The form of TLS and the name asked for.
    pub(super) tls: Option<(Rc<Client>, ServerName<'static>)>,
    pub(super) http2: bool,
}

/// The connections of a worker.
pub(super) struct Pool {
    /// HTTP/1.1 in clear: most of them, found by the cheapest key.
    slots: RefCell<HashMap<SocketAddr, Rc<Slot>>>,
    others: RefCell<HashMap<(SocketAddr, Way), Rc<Slot>>>,
    limits: PoolLimits,
    /// Set on a coarse tick.
    now: Cell<Instant>,
}

/// The connections to one address by one way.
pub(super) struct Slot {
    pub(super) address: SocketAddr,
    /// `None` is HTTP/1.1 in clear.
    pub(super) way: Option<Way>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared>>,
}

struct Idle {
    link: Link,
    since: Instant,
}

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<Outgoing>,
    /// Counts its requests, besides itself.
    stream: Stream,
    used: Cell<Instant>,
}

impl Pool {
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self {
            slots: RefCell::default(),
            others: RefCell::default(),
            limits,
            now: Cell::new(Instant::now()),
        }
    }

    /// The connections to an address, HTTP/1.1 in clear.
    pub(super) fn slot(&self, address: SocketAddr) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(address);
        Rc::clone(slot.or_insert_with(|| Rc::new(Slot::new(address, None))))
    }

    /// The connections to an address by another way. Beyond [`OTHERS_MAX`] of them, a new one's are for one use.
    pub(super) fn other_slot(&self, address: SocketAddr, way: Way) -> Rc<Slot> {
        let mut others = self.others.borrow_mut();
        let full = others.len() >= OTHERS_MAX;
        match others.entry((address, way)) {
            Entry::Occupied(slot) => Rc::clone(slot.get()),
            Entry::Vacant(place) => {
                let slot = Rc::new(Slot::new(address, Some(place.key().1.clone())));
                if !full {
                    place.insert(Rc::clone(&slot));
                }
                slot
            }
        }
    }

    /// Takes a connection back. Its last response must have been read to the end.
    pub(super) fn put(&self, link: Link) {
        // Shared ones never left.
        let Sender::Http1(_) = link.sender else {
            return;
        };
        let Some(slot) = link.slot.upgrade() else {
            return;
        };
        let mut idle = slot.idle.borrow_mut();
        if idle.len() < self.limits.idle_max && !link.sender.is_closed() {
            idle.push(Idle {
                link,
                since: self.now.get(),
            });
        }
    }

    /// Drops connections that were idle for too long; called on a coarse tick.
    pub(super) fn reap(&self, now: Instant) {
        self.now.set(now);
        let timeout = self.limits.idle_timeout;
        self.slots
            .borrow_mut()
            .retain(|_, slot| slot.reap(now, timeout));
        self.others
            .borrow_mut()
            .retain(|_, slot| slot.reap(now, timeout));
    }

    /// How many connections are idle.
    pub(super) fn idle(&self) -> usize {
        let plain: usize = self.slots.borrow().values().map(|slot| slot.idle()).sum();
        let others: usize = self.others.borrow().values().map(|slot| slot.idle()).sum();
        plain + others
    }
}

impl Slot {
    fn new(address: SocketAddr, way: Option<Way>) -> Self {
        Self {
            address,
            way,
            idle: RefCell::default(),
            shared: RefCell::default(),
        }
    }

    /// The idle connection used last, if there is one that is still open; a shared one that has room.
    pub(super) fn take(self: &Rc<Self>) -> Option<Link> {
        if self.way.as_ref().is_some_and(|way| way.http2) {
            return self.take_shared();
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut link, .. }) = idle.pop() {
            if !link.sender.is_closed() {
                link.reused = true;
                return Some(link);
            }
        }
        None
    }

    fn take_shared(self: &Rc<Self>) -> Option<Link> {
        let shared = self.shared.borrow();
        let room =
            |shared: &&Shared| !shared.sender.is_closed() && shared.stream.others() < STREAMS_MAX;
        let found = shared.iter().find(room)?;
        found.used.set(Instant::now());
        let sender = Sender::Http2(found.sender.clone(), found.stream.clone());
        Some(Link::new(sender, self, true))
    }

    /// A new connection. One that speaks HTTP/2 is for others too from now on.
    pub(super) async fn connect(
        self: &Rc<Self>,
        timeout: Duration,
        upgrade: bool,
    ) -> Result<Link, ConnectError> {
        let link = Link::connect(self, timeout, upgrade).await?;
        if let Sender::Http2(sender, stream) = &link.sender {
            self.shared.borrow_mut().push(Shared {
                sender: sender.clone(),
                stream: stream.clone(),
                used: Cell::new(Instant::now()),
            });
        }
        Ok(link)
    }

    /// Drops what was idle for too long. Says whether the slot is still of use.
    fn reap(self: &Rc<Self>, now: Instant, timeout: Duration) -> bool {
        self.idle.borrow_mut().retain(|idle| {
            let age = now.duration_since(idle.since);
            age < timeout && !idle.link.sender.is_closed()
        });
        self.shared.borrow_mut().retain(|shared| {
            let busy = shared.stream.others() > 0;
            let fresh = now.duration_since(shared.used.get()) < timeout;
            (busy || fresh) && !shared.sender.is_closed()
        });
        // Connections in use come back to their slot, and those being made too.
        Rc::weak_count(self) > 0 || Rc::strong_count(self) > 1 || !self.shared.borrow().is_empty()
    }

    fn idle(&self) -> usize {
        let shared = self.shared.borrow();
        let unused = shared.iter().filter(|shared| shared.stream.others() == 0);
        self.idle.borrow().len() + unused.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn way() -> Way {
        Way {
            tls: None,
            http2: true,
        }
    }

    fn long_after() -> Instant {
        Instant::now() + 2 * PoolLimits::default().idle_timeout
    }

    #[tokio::test]
    async fn a_slot_stays_while_its_first_connection_is_being_made() {
        let pool = Pool::new(PoolLimits::default());
        let plain = pool.slot(address(1));
        let other = pool.other_slot(address(1), way());
        pool.reap(long_after());
        assert!(Rc::ptr_eq(&plain, &pool.slot(address(1))));
        assert!(Rc::ptr_eq(&other, &pool.other_slot(address(1), way())));
    }

    #[tokio::test]
    async fn a_slot_of_which_nobody_knows_goes() {
        let pool = Pool::new(PoolLimits::default());
        pool.slot(address(1));
        pool.other_slot(address(1), way());
        pool.reap(long_after());
        assert!(pool.slots.borrow().is_empty() && pool.others.borrow().is_empty());
    }

    #[tokio::test]
    async fn names_that_clients_choose_do_not_fill_the_memory() {
        let pool = Pool::new(PoolLimits::default());
        let ports = u16::try_from(OTHERS_MAX).unwrap();
        let known = pool.other_slot(address(ports), way());
        for port in 1..=ports + 10 {
            pool.other_slot(address(port), way());
        }
        assert_eq!(pool.others.borrow().len(), OTHERS_MAX);
        assert!(Rc::ptr_eq(&known, &pool.other_slot(address(ports), way())));
    }
}
