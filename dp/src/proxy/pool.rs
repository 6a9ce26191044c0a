//! A worker's connections to upstreams. Idle ones are kept per address, the last used first, within limits.

use super::body::Outgoing;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// The largest head of a response.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

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

/// The connections of a worker.
pub(super) struct Pool {
    slots: RefCell<HashMap<SocketAddr, Rc<Slot>>>,
    limits: PoolLimits,
    /// Set on a coarse tick.
    now: Cell<Instant>,
}

/// The idle connections to one address.
pub(super) struct Slot {
    address: SocketAddr,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    link: Link,
    since: Instant,
}

/// A connection to an upstream, in use by one request.
pub(super) struct Link {
    pub(super) sender: SendRequest<Outgoing>,
    /// Where it belongs when idle.
    slot: Weak<Slot>,
    /// One timer for the connection's life: moving its deadline further costs far less than a new one per request.
    timer: Pin<Box<Sleep>>,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("could not connect to upstream {0}")]
    Refused(SocketAddr, #[source] io::Error),
    #[error("could not connect to upstream {0} in time")]
    Timeout(SocketAddr),
}

impl Pool {
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self {
            slots: RefCell::default(),
            limits,
            now: Cell::new(Instant::now()),
        }
    }

    /// The connections to an address.
    pub(super) fn slot(&self, address: SocketAddr) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(address);
        Rc::clone(slot.or_insert_with(|| {
            Rc::new(Slot {
                address,
                idle: RefCell::default(),
            })
        }))
    }

    /// Takes a connection back. Its last response must have been read to the end.
    pub(super) fn put(&self, link: Link) {
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
        let keep = |idle: &Idle| {
            let age = now.duration_since(idle.since);
            age < self.limits.idle_timeout && !idle.link.sender.is_closed()
        };
        self.slots.borrow_mut().retain(|_, slot| {
            slot.idle.borrow_mut().retain(keep);
            // Connections in use come back to their slot.
            Rc::weak_count(slot) > 0
        });
    }

    /// How many connections are idle.
    pub(super) fn idle(&self) -> usize {
        self.slots
            .borrow()
            .values()
            .map(|slot| slot.idle.borrow().len())
            .sum()
    }
}

impl Slot {
    /// The idle connection used last, if there is one that is still open.
    pub(super) fn take(&self) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut link, .. }) = idle.pop() {
            if !link.sender.is_closed() {
                link.reused = true;
                return Some(link);
            }
        }
        None
    }
}

impl Link {
    /// A new connection, driven by a task of this thread.
    pub(super) async fn connect(slot: &Rc<Slot>, timeout: Duration) -> Result<Self, ConnectError> {
        let address = slot.address;
        let refused = |error| ConnectError::Refused(address, error);
        let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
            .await
            .map_err(|_| ConnectError::Timeout(address))?
            .map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, connection) = http1::Builder::new()
            .max_header_size(RESPONSE_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| refused(io::Error::other(error)))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "upstream connection ended");
            }
        });
        let timer = Box::pin(tokio::time::sleep(Duration::from_secs(3600)));
        Ok(Self {
            sender,
            slot: Rc::downgrade(slot),
            timer,
            reused: false,
        })
    }

    /// Starts the timer anew.
    pub(super) fn arm(&mut self, now: Instant, timeout: Duration) {
        self.timer.as_mut().reset(now + timeout);
    }

    /// Ready when the timer has run out.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(cx)
    }
}
