//! What is shown of upstreams to those who ask, and what they may set by hand.

use super::group::Group;
use super::lineup::{Lineup, Seat};
use super::upstreams::Upstreams;
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// An upstream as it is on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamView {
    /// The entity.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Whether health counts here.
    pub is_checked: bool,
    /// Whether requests find an address.
    pub is_usable: bool,
    /// Its addresses; those of targets that do not resolve are absent.
    pub targets: Vec<TargetView>,
}

/// An address of a target, or a target without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetView {
    /// `host:port`
    pub target: String,
    /// `None` if the name does not resolve.
    pub address: Option<SocketAddr>,
    /// Its share.
    pub weight: u32,
    /// Whether it is well.
    pub is_healthy: bool,
}

/// Why health could not be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetHealthError {
    /// There is no such upstream, target or address.
    #[error("Not found")]
    NotFound,
    /// It would have no effect.
    #[error("the upstream has no health checks, so the health of its targets does not count")]
    NotChecked,
}

impl Upstreams {
    /// The upstreams in use, by id.
    pub fn views(&self) -> Vec<UpstreamView> {
        let groups = self.groups();
        groups
            .iter()
            .filter_map(|group| view(&group.lineup()))
            .collect()
    }

    /// One of them. `None` if it is not in use.
    pub fn view(&self, id: Uuid) -> Option<UpstreamView> {
        let groups = self.groups();
        let mut views = groups.iter().filter_map(|group| {
            let lineup = group.lineup();
            let own = lineup.upstream.as_ref().is_some_and(|one| one.id == id);
            own.then(|| view(&lineup)).flatten()
        });
        views.next()
    }

    /// The same for those of which something is not well; far cheaper where most are.
    pub fn unwell_views(&self) -> Vec<UpstreamView> {
        let lineups = self.groups().into_iter().map(|group| group.lineup());
        let unwell = lineups.filter(|lineup| !lineup.is_well);
        unwell.filter_map(|lineup| view(&lineup)).collect()
    }

    /// Sets the health of a target, or of one of its addresses, on this node. The upstream is given by name or id.
    ///
    /// # Errors
    /// If it is not there, or its health does not count.
    pub fn set_health(
        &self,
        upstream: &str,
        target: &str,
        address: Option<&str>,
        healthy: bool,
    ) -> Result<(), SetHealthError> {
        let groups = self.groups();
        let named = |group: &&Arc<Group>| {
            let lineup = group.lineup();
            let found = lineup.upstream.as_ref();
            found.is_some_and(|found| *found.name == *upstream || found.id.to_string() == upstream)
        };
        let group = groups.iter().find(named).ok_or(SetHealthError::NotFound)?;
        let lineup = group.lineup();
        let checked = lineup
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.checks.is_on);
        let wanted = |seat: &&Seat| {
            let named = lineup.is_target(seat.target, target);
            let own = seat.address;
            let here =
                address.is_none_or(|text| own.to_string() == text || own.ip().to_string() == text);
            named && here
        };
        let mut found = lineup.seats.iter().filter(wanted).peekable();
        found.peek().ok_or(SetHealthError::NotFound)?;
        if !checked {
            return Err(SetHealthError::NotChecked);
        }
        let members = found.filter_map(|seat| seat.member.as_ref());
        if members.filter(|member| member.health.set(healthy)).count() > 0 {
            group.turned();
        }
        Ok(())
    }
}

fn view(lineup: &Lineup) -> Option<UpstreamView> {
    let upstream = lineup.upstream.as_ref()?;
    let is_checked = upstream.checks.is_on;
    let target = |seat: &Seat| TargetView {
        target: lineup.target_name(seat.target),
        address: Some(seat.address),
        weight: seat.weight(),
        is_healthy: seat.is_healthy(),
    };
    let unresolved = lineup.unresolved.iter().map(|index| TargetView {
        target: lineup.target_name(*index),
        address: None,
        weight: 0,
        is_healthy: false,
    });
    Some(UpstreamView {
        id: upstream.id,
        name: upstream.name.to_string(),
        is_checked,
        is_usable: lineup.is_usable,
        targets: lineup.seats.iter().map(target).chain(unresolved).collect(),
    })
}

impl Lineup {
    /// `host:port` of a target, as the Admin API writes it.
    pub(super) fn target_name(&self, index: usize) -> String {
        let upstream = self.upstream.as_ref();
        let target = upstream.and_then(|upstream| upstream.targets.get(index));
        target.map_or_else(String::new, |target| {
            if target.host.contains(':') {
                format!("[{}]:{}", target.host, target.port)
            } else {
                format!("{}:{}", target.host, target.port)
            }
        })
    }

    fn is_target(&self, index: usize, text: &str) -> bool {
        let upstream = self.upstream.as_ref();
        let target = upstream.and_then(|upstream| upstream.targets.get(index));
        let by_id = target.is_some_and(|target| target.id.to_string() == text);
        by_id || self.target_name(index) == text
    }

    /// Says that an address is well or not any more.
    pub(crate) fn log_turn(&self, seat: &Seat) {
        let upstream = self.upstream.as_ref().map_or("", |upstream| &upstream.name);
        let (target, address) = (self.target_name(seat.target), seat.address);
        if seat.is_healthy() {
            tracing::info!(upstream, target, %address, "a target is healthy again");
        } else {
            tracing::warn!(upstream, target, %address, "a target is unhealthy and gets no requests");
        }
    }
}
