//! Where a request is sent.

use super::answer::{self, Address, Entity, Listed, Sent};
use super::question::{HTTP_PORT, HTTPS_PORT, Heading};
use crate::balance::{UpstreamView, Upstreams};
use crate::table::{Match, Service, Target, Upstream, upstream_path};
use std::time::Duration;

/// Targets of an upstream that are listed.
const TARGETS_MAX: usize = 20;

pub(super) fn service(service: &Service) -> answer::Service {
    let Service {
        id,
        version,
        ref workspace,
        ..
    } = *service;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    answer::Service {
        entity: Entity::new("service", workspace, id, service.name.as_deref(), version),
        protocol: service.protocol.name(),
        host: service.host.to_string(),
        port: service.port,
        path: service.path.as_deref().map(str::to_owned),
        enabled: service.enabled,
        retries: service.retries,
        connect_timeout: milliseconds(service.connect_timeout),
        write_timeout: milliseconds(service.write_timeout),
        read_timeout: milliseconds(service.read_timeout),
    }
}

pub(super) fn upstream(upstream: &Upstream) -> answer::Upstream {
    let Upstream {
        id,
        version,
        ref workspace,
        ..
    } = *upstream;
    let target = |target: &Target| answer::Target {
        entity: Entity::new(
            "target",
            workspace,
            target.id,
            Some(&join(&target.host, target.port)),
            target.version,
        ),
        weight: target.weight,
        addresses: None,
    };
    let targets = upstream.targets.iter().take(TARGETS_MAX);
    answer::Upstream {
        entity: Entity::new("upstream", workspace, id, Some(&upstream.name), version),
        algorithm: upstream.algorithm.name(),
        usable: None,
        targets: Listed {
            data: targets.map(|one| target(one)).collect(),
            total: upstream.targets.len(),
        },
    }
}

/// Adds addresses and their health, and says whether any can be used. `None` if the upstream is not in use here yet.
pub(super) fn add_health(upstream: &mut answer::Upstream, upstreams: &Upstreams) -> Option<bool> {
    let view = upstreams.view(upstream.entity.id)?;
    upstream.usable = Some(view.is_usable);
    for target in &mut upstream.targets.data {
        let name = target.entity.name.as_deref().unwrap_or_default();
        target.addresses = Some(addresses(&view, name));
    }
    upstream.usable
}

fn addresses(view: &UpstreamView, target: &str) -> Vec<Address> {
    let own = view.targets.iter().filter(|one| one.target == target);
    own.map(|one| Address {
        address: one.address.map(|address| address.to_string()),
        health: match (one.address, view.is_checked, one.is_healthy) {
            (None, _, _) => "unresolved",
            (Some(_), false, _) => "unchecked",
            (Some(_), true, true) => "healthy",
            (Some(_), true, false) => "unhealthy",
        },
    })
    .collect()
}

/// What is sent.
pub(super) fn sent(
    service: &Service,
    upstream: Option<&std::sync::Arc<Upstream>>,
    found: &Match,
    heading: &Heading,
) -> Sent {
    let path = &heading.path;
    let (matched, strip) = (found.matched(path), found.route.strip_path);
    let target = upstream_path(service.path.as_deref(), path, matched, strip);
    let query = heading.dry.parts().uri.query();
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let usual = match service.protocol.is_tls() {
        true => HTTPS_PORT,
        false => HTTP_PORT,
    };
    let own = match service.port == usual {
        true => bracketed(&service.host),
        false => join(&service.host, service.port),
    };
    let to = upstream.map_or_else(|| own.clone(), |upstream| upstream.name.to_string());
    let host = match (found.route.preserve_host, upstream) {
        (true, _) => Some(heading.dry.authority()),
        (false, Some(upstream)) => upstream.host_header.as_deref().map(str::to_owned),
        (false, None) => Some(own),
    };
    Sent {
        url: format!("{}://{to}{target}{query}", service.protocol.name()),
        host,
    }
}

fn join(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

/// Services have addresses of IPv6 with or without brackets.
fn bracketed(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}
