//! The addresses of a source at one moment, prepared for picking. Immutable: when a name resolves otherwise, a target
//! turns unhealthy or the configuration changes, another one takes its place.

use super::group::Group;
use super::member::Member;
use super::names::{Name, Record};
use super::points::{Points, mix};
use super::wheel::Wheel;
use crate::table::{Algorithm, Service, Target, Upstream};
use http::HeaderValue;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The ports that are not written in `Host`.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Addresses that are all looked at for the least loaded. Of more, as many are drawn.
const COMPARED_MAX: usize = 16;
/// What an address counts as that has requests and has not answered any.
const UNKNOWN_LATENCY: f32 = 1.0;

/// One address of a source.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) address: SocketAddr,
    /// Sent upstream as `Host`, unless the client's is; in clear and over TLS.
    hosts: [HeaderValue; 2],
    weight: u32,
    /// Which of the upstream's targets it belongs to.
    pub(crate) target: usize,
    /// Absent if the source is no upstream.
    pub(crate) member: Option<Arc<Member>>,
}

impl Seat {
    /// What it is called in `Host`.
    pub(crate) fn host(&self, tls: bool) -> &HeaderValue {
        &self.hosts[usize::from(tls)]
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.member
            .as_ref()
            .is_none_or(|member| member.health.is_healthy())
    }
}

/// The addresses.
#[derive(Debug)]
pub(crate) struct Lineup {
    pub(super) upstream: Option<Arc<Upstream>>,
    /// Told of changes of health.
    pub(super) group: Weak<Group>,
    pub(super) seats: Arc<[Seat]>,
    /// Those that are well, by weight.
    wheel: Wheel,
    points: Option<Arc<Points>>,
    /// Names that were never resolved yet.
    pub(super) waiting: Arc<[Arc<Name>]>,
    /// Targets whose names do not resolve.
    pub(super) unresolved: Arc<[usize]>,
    /// Whether enough of the weight is well.
    pub(super) is_usable: bool,
    /// Whether all is well.
    pub(super) is_well: bool,
}

/// What a choice depends on besides the lineup.
#[derive(Clone, Copy)]
pub(super) struct Draw<'a> {
    /// Counts up from pick to pick.
    pub(super) position: u64,
    /// Of the request, for consistent hashing.
    pub(super) hash: u64,
    /// Where this request was already.
    pub(super) tried: &'a [SocketAddr],
    /// Since any fixed instant.
    pub(super) now: Duration,
}

impl Lineup {
    /// Of an upstream that is not known yet.
    pub(super) fn empty(group: Weak<Group>) -> Self {
        Self::with_health(
            None,
            group,
            Arc::default(),
            None,
            (Arc::default(), Arc::default()),
        )
    }

    /// The addresses.
    pub(crate) fn seats(&self) -> &Arc<[Seat]> {
        &self.seats
    }

    /// Whose they are; `None` if that is no upstream.
    pub(crate) fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.upstream.as_ref()
    }

    /// Whether its targets are asked for their health.
    pub(super) fn is_watched(&self) -> bool {
        let upstream = self.upstream.as_ref();
        upstream.is_some_and(|upstream| upstream.checks.active.is_some())
    }

    /// A service's own host.
    pub(super) fn of_service(
        service: &Service,
        records: &[Record],
        waiting: Option<Arc<Name>>,
    ) -> Self {
        let host = bare(&service.host);
        let seats: Arc<[Seat]> = match host.parse::<IpAddr>() {
            Ok(ip) => {
                let address = SocketAddr::new(ip, service.port);
                Arc::new([Seat::new(address, hosts(&written(ip), service.port))])
            }
            Err(_) => {
                let hosts = hosts(&service.host, service.port);
                let seat = |record: &Record| {
                    let (port, weight) = record.port_and_weight(service.port, 1);
                    let address = SocketAddr::new(record.ip, port);
                    Seat {
                        weight,
                        ..Seat::new(address, hosts.clone())
                    }
                };
                records.iter().map(seat).collect()
            }
        };
        let wheel = Wheel::new(seats.iter().map(|seat| seat.weight.into()));
        Self {
            upstream: None,
            group: Weak::new(),
            seats,
            wheel,
            points: None,
            waiting: waiting.into_iter().collect(),
            unresolved: Arc::default(),
            is_usable: true,
            is_well: true,
        }
    }

    /// An upstream's targets.
    pub(super) fn of_upstream(
        upstream: &Arc<Upstream>,
        group: &Arc<Group>,
        seats: Arc<[Seat]>,
        waiting: Arc<[Arc<Name>]>,
        unresolved: Arc<[usize]>,
    ) -> Self {
        let points = (upstream.algorithm == Algorithm::ConsistentHashing).then(|| {
            let named = seats.iter().map(|seat| (seat.address, seat.weight.into()));
            Arc::new(Points::new(&named.collect::<Vec<_>>(), upstream.slots))
        });
        let group = Arc::downgrade(group);
        Self::with_health(
            Some(Arc::clone(upstream)),
            group,
            seats,
            points,
            (waiting, unresolved),
        )
    }

    /// The same addresses with their health as it is now.
    pub(super) fn renewed(&self) -> Self {
        let names = (Arc::clone(&self.waiting), Arc::clone(&self.unresolved));
        let (upstream, seats) = (self.upstream.clone(), Arc::clone(&self.seats));
        Self::with_health(
            upstream,
            self.group.clone(),
            seats,
            self.points.clone(),
            names,
        )
    }

    fn with_health(
        upstream: Option<Arc<Upstream>>,
        group: Weak<Group>,
        seats: Arc<[Seat]>,
        points: Option<Arc<Points>>,
        (waiting, unresolved): (Arc<[Arc<Name>]>, Arc<[usize]>),
    ) -> Self {
        // Health is read once: all that follows must see the same.
        let well = |seat: &Seat| {
            if seat.is_healthy() {
                seat.weight.into()
            } else {
                0
            }
        };
        let well: Vec<u64> = seats.iter().map(well).collect();
        let (available, all): (u64, u64) = (
            well.iter().sum(),
            seats.iter().map(|seat| u64::from(seat.weight)).sum(),
        );
        let all_healthy = seats.iter().all(Seat::is_healthy);
        let threshold = upstream
            .as_ref()
            .map_or(0.0, |upstream| upstream.checks.threshold);
        let is_usable = percent(available, all) > threshold;
        Self {
            is_well: is_usable && all_healthy && unresolved.is_empty(),
            is_usable,
            upstream,
            group,
            seats,
            wheel: Wheel::new(well.iter().copied()),
            points,
            waiting,
            unresolved,
        }
    }

    /// Whether it was made from this.
    pub(super) fn is_of(&self, upstream: &Arc<Upstream>) -> bool {
        self.upstream
            .as_ref()
            .is_some_and(|own| Arc::ptr_eq(own, upstream))
    }

    /// The index of the seat a request goes to. Those it was at come again only when there is no other. `None` if no
    /// address is well.
    pub(super) fn choose(&self, draw: Draw<'_>) -> Option<usize> {
        if !self.is_usable {
            return None;
        }
        let first = self.wheel.pick(draw.position)?;
        let algorithm = self.upstream.as_ref().map(|upstream| upstream.algorithm);
        let chosen = match algorithm {
            None | Some(Algorithm::RoundRobin) => {
                return Some(self.fresh_from(first, draw.tried));
            }
            Some(Algorithm::LeastConnections) => self.least(first, draw, |seat| {
                let load = seat.member.as_ref().map_or(0, |member| member.load.count());
                f64::from(load + 1) / f64::from(seat.weight.max(1))
            }),
            Some(Algorithm::Latency) => self.quicker(draw),
            Some(Algorithm::ConsistentHashing) => {
                let order = self.points.iter().flat_map(|points| points.from(draw.hash));
                let mut order = order.filter(|index| self.wheel.has_weight(*index));
                match draw.tried {
                    [] => order.next(),
                    tried => order.find(|index| !self.is_tried(*index, tried)),
                }
            }
        };
        chosen.or_else(|| Some(self.fresh_from(first, draw.tried)))
    }

    fn is_tried(&self, index: usize, tried: &[SocketAddr]) -> bool {
        let seat = self.seats.get(index);
        seat.is_some_and(|seat| tried.contains(&seat.address))
    }

    fn is_open(&self, index: usize, tried: &[SocketAddr]) -> bool {
        self.wheel.has_weight(index) && (tried.is_empty() || !self.is_tried(index, tried))
    }

    /// This one, or the next that was not tried, or this one after all.
    fn fresh_from(&self, first: usize, tried: &[SocketAddr]) -> usize {
        if tried.is_empty() || !self.is_tried(first, tried) {
            return first;
        }
        let after = (first + 1..self.seats.len()).chain(0..first);
        let mut open = after.filter(|index| self.is_open(*index, tried));
        open.next().unwrap_or(first)
    }

    /// The seat with the least cost. Of equals the one that comes first after `first`, so that they take turns.
    fn least(&self, first: usize, draw: Draw<'_>, cost: impl Fn(&Seat) -> f64) -> Option<usize> {
        let count = self.seats.len();
        let drawn = |step: usize| {
            if count <= COMPARED_MAX {
                Some((first + step) % count)
            } else {
                self.wheel.pick(draw.position.wrapping_add(step as u64))
            }
        };
        let mut best = None;
        let candidates = (0..count.min(COMPARED_MAX)).filter_map(drawn);
        for index in candidates.filter(|index| self.is_open(*index, draw.tried)) {
            let Some(seat) = self.seats.get(index) else {
                continue;
            };
            let cost = cost(seat);
            if best.is_none_or(|(_, least)| cost < least) {
                best = Some((index, cost));
            }
        }
        best.map(|(index, _)| index)
    }

    /// The quicker of two seats drawn by weight.
    fn quicker(&self, draw: Draw<'_>) -> Option<usize> {
        let mut drawn = [None; 2];
        // More draws than two: the same may come twice.
        for step in 0..COMPARED_MAX as u64 {
            let position = mix(draw
                .position
                .wrapping_mul(COMPARED_MAX as u64)
                .wrapping_add(step));
            let index = self.wheel.pick(position >> 1)?;
            if !self.is_open(index, draw.tried) || drawn[0] == Some(index) {
                continue;
            }
            if drawn[0].is_none() {
                drawn[0] = Some(index);
            } else {
                drawn[1] = Some(index);
                break;
            }
        }
        let cost = |index: usize| {
            self.seats
                .get(index)
                .map_or(f32::MAX, |seat| seat.cost(draw.now))
        };
        match drawn {
            [Some(one), Some(two)] => Some(if cost(two) < cost(one) { two } else { one }),
            [one, _] => one,
        }
    }
}

impl Seat {
    fn new(address: SocketAddr, hosts: [HeaderValue; 2]) -> Self {
        Self {
            address,
            hosts,
            weight: 1,
            target: 0,
            member: None,
        }
    }

    /// One of a target's addresses.
    pub(super) fn of_target(
        upstream: &Upstream,
        index: usize,
        target: &Target,
        record: &Record,
        member: Arc<Member>,
    ) -> Self {
        let (_, weight) = record.port_and_weight(target.port, target.weight.into());
        let address = member.address;
        let hosts = match (&upstream.host_header, &record.srv) {
            (Some(host), _) => fixed_hosts(host),
            (None, Some((port, _, name))) if upstream.use_srv_name => hosts(name, *port),
            (None, _) => match target.host.parse::<IpAddr>() {
                Ok(ip) => hosts(&written(ip), target.port),
                Err(_) => hosts(&target.host, target.port),
            },
        };
        Self {
            address,
            hosts,
            // Without weight it gets nothing, whatever its records say.
            weight: if target.weight == 0 { 0 } else { weight },
            target: index,
            member: Some(member),
        }
    }

    fn cost(&self, now: Duration) -> f32 {
        let Some(member) = &self.member else {
            return 0.0;
        };
        let load = member.load.count();
        match member.latency.get(now) {
            Some(mean) => mean * (f32::from(u16::try_from(load).unwrap_or(u16::MAX)) + 1.0),
            None if load == 0 => 0.0,
            None => UNKNOWN_LATENCY * f32::from(u16::try_from(load).unwrap_or(u16::MAX)),
        }
    }
}

impl Record {
    /// An address that needs no looking up.
    pub(super) fn fixed(ip: IpAddr) -> Self {
        Self { ip, srv: None }
    }

    pub(super) fn port_and_weight(&self, port: u16, weight: u32) -> (u16, u32) {
        match self.srv {
            Some((port, weight, _)) => (port, u32::from(weight).max(1)),
            None => (port, weight),
        }
    }
}

/// A host without the brackets of IPv6: targets come without, services with or without.
pub(super) fn bare(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

fn written(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    }
}

fn hosts(name: &str, port: u16) -> [HeaderValue; 2] {
    [HTTP_PORT, HTTPS_PORT].map(|usual| {
        let value = if port == usual {
            HeaderValue::from_str(name)
        } else {
            HeaderValue::try_from(format!("{name}:{port}"))
        };
        value.unwrap_or(HeaderValue::from_static(""))
    })
}

fn fixed_hosts(host: &str) -> [HeaderValue; 2] {
    let value = HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""));
    [value.clone(), value]
}

/// 0 of nothing.
#[allow(clippy::cast_precision_loss, reason = "weights are far below 2^53")]
fn percent(part: u64, all: u64) -> f64 {
    if all == 0 {
        0.0
    } else {
        part as f64 * 100.0 / all as f64
    }
}
