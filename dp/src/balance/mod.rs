//! Which address a request goes to. Positions and resolved names live here, per worker and keyed by entity id, and
//! so survive changes of the configuration.

mod dns;
mod wheel;

use crate::table::{Service, Upstream};
pub(crate) use dns::{Names, Resolution};
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;
use wheel::Wheel;

/// Groups nobody asked for since this are forgotten, with their position.
const UNUSED: Duration = Duration::from_secs(600);
/// The ports that are not written in `Host`.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Where a service's requests go.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// To the service's own host.
    Service(&'a Arc<Service>),
    /// To the targets of an upstream.
    Upstream(&'a Arc<Upstream>),
}

/// A worker's view of all sources in use.
pub(crate) struct Balance {
    groups: RefCell<HashMap<Uuid, Group>>,
    /// The first position of every group, different for each worker, so that they do not move in step.
    start: u64,
    /// Set on a coarse tick.
    now: Cell<Instant>,
    pub(crate) names: Rc<Names>,
}

/// A source prepared for picking.
struct Group {
    origin: Origin,
    wheel: Wheel,
    endpoints: Vec<Rc<Endpoint>>,
    position: u64,
    used: Instant,
}

/// What a group was made from; another one means the configuration has changed.
enum Origin {
    Service(Arc<Service>),
    Upstream(Arc<Upstream>),
}

/// One address, or name, of a source.
pub(crate) struct Endpoint {
    /// Which of the source's endpoints this is.
    pub(crate) index: usize,
    /// Sent upstream as `Host`, unless the client's is; in clear and over TLS.
    hosts: [HeaderValue; 2],
    name: Box<str>,
    address: Option<IpAddr>,
    port: u16,
}

impl Endpoint {
    fn new(index: usize, name: &str, port: u16, host: Option<&str>) -> Self {
        // Targets come without the brackets of IPv6, services with or without.
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        let address = bare.parse::<IpAddr>().ok();
        let written = match address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(IpAddr::V4(_)) | None => name.to_owned(),
        };
        let hosts = [HTTP_PORT, HTTPS_PORT].map(|usual| {
            let value = match host {
                Some(host) => HeaderValue::from_str(host),
                None if port == usual => HeaderValue::from_str(&written),
                None => HeaderValue::try_from(format!("{written}:{port}")),
            };
            value.unwrap_or(HeaderValue::from_static(""))
        });
        Self {
            index,
            hosts,
            name: bare.into(),
            address,
            port,
        }
    }

    /// What it is called in `Host`.
    pub(crate) fn host(&self, tls: bool) -> &HeaderValue {
        &self.hosts[usize::from(tls)]
    }

    /// Its address now.
    pub(crate) fn address(&self, names: &Rc<Names>) -> Resolution {
        match self.address {
            Some(address) => Resolution::Known(Some(SocketAddr::new(address, self.port))),
            None => names.resolve(&self.name, self.port),
        }
    }
}

impl Balance {
    pub(crate) fn new(start: u64) -> Self {
        Self {
            groups: RefCell::default(),
            start,
            now: Cell::new(Instant::now()),
            names: Rc::default(),
        }
    }

    /// The next endpoint in turn. Those in `tried` come again only when all have been. `None` if none has weight.
    pub(crate) fn pick(&self, source: Source<'_>, tried: &[usize]) -> Option<Rc<Endpoint>> {
        let mut groups = self.groups.borrow_mut();
        let id = match source {
            Source::Service(service) => service.id,
            Source::Upstream(upstream) => upstream.id,
        };
        let group = groups
            .entry(id)
            .or_insert_with(|| Group::new(source, self.start));
        if !group.origin.is(source) {
            *group = Group::new(source, group.position);
        }
        group.used = self.now.get();
        group.next(tried)
    }

    /// Forgets what is no longer used; called on a coarse tick.
    pub(crate) fn tick(&self, now: Instant) {
        self.now.set(now);
        self.groups
            .borrow_mut()
            .retain(|_, group| now.duration_since(group.used) < UNUSED);
        self.names.forget_unused(now);
    }
}

impl Group {
    fn new(source: Source<'_>, position: u64) -> Self {
        let used = Instant::now();
        match source {
            Source::Service(service) => Self {
                origin: Origin::Service(Arc::clone(service)),
                wheel: Wheel::new([1].into_iter()),
                endpoints: vec![Rc::new(Endpoint::new(0, &service.host, service.port, None))],
                position,
                used,
            },
            Source::Upstream(upstream) => {
                let targets = upstream.targets.iter();
                let host = upstream.host_header.as_deref();
                let endpoint = |(index, target): (usize, &Arc<crate::table::Target>)| {
                    Rc::new(Endpoint::new(index, &target.host, target.port, host))
                };
                Self {
                    origin: Origin::Upstream(Arc::clone(upstream)),
                    wheel: Wheel::new(targets.clone().map(|target| u64::from(target.weight))),
                    endpoints: targets.enumerate().map(endpoint).collect(),
                    position,
                    used,
                }
            }
        }
    }

    fn next(&mut self, tried: &[usize]) -> Option<Rc<Endpoint>> {
        let first = self.step()?;
        let mut index = first;
        if tried.contains(&first) {
            let fresh = |index: &usize| self.wheel.has_weight(*index) && !tried.contains(index);
            index = (first + 1..self.endpoints.len())
                .chain(0..first)
                .find(fresh)
                .unwrap_or(first);
        }
        self.endpoints.get(index).cloned()
    }

    fn step(&mut self) -> Option<usize> {
        let index = self.wheel.pick(self.position)?;
        self.position = self.position.wrapping_add(1);
        Some(index)
    }
}

impl Origin {
    fn is(&self, source: Source<'_>) -> bool {
        match (self, source) {
            (Self::Service(one), Source::Service(two)) => Arc::ptr_eq(one, two),
            (Self::Upstream(one), Source::Upstream(two)) => Arc::ptr_eq(one, two),
            (Self::Service(_), Source::Upstream(_)) | (Self::Upstream(_), Source::Service(_)) => {
                false
            }
        }
    }
}
