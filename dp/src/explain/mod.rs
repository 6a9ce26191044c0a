//! Why a request goes where it goes: the route that takes it and why the others do not, the plugins that run, and where it is
//! sent. A pure function of a table and a question; on a live node it knows the health of targets, too.
//!
//! What decides is asked of what decides in the proxy, too: the checks of a request's head, the router, the merging of plugins,
//! the path upstream. What the others say is found out by asking each of them, which takes as long as there are routes.

mod answer;
mod destination;
mod plugins;
mod question;
#[cfg(test)]
mod tests;

pub use answer::{
    Address, Capture, Entity, Explanation, LeftOut, Listed, Other, Outcome, Plugin, RejectedEntity,
    Request, Scope, Sent, Service, Target, Upstream, Winner,
};
pub use question::{Asked, Question, QuestionError};

use crate::balance::Upstreams;
use crate::proxy::Refusal;
use crate::table::{Match, Misfit, RequestHead, Route, Table};
use question::Heading;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// Routes that are listed in each list, and entities that were rejected.
const LISTED_MAX: usize = 10;
const UNADMITTED: &str =
    "the answer comes before the plugins' access phase: only their response and log phases run";
/// The kinds that have a part in where a request goes.
const KINDS: [&str; 9] = [
    "route",
    "service",
    "upstream",
    "target",
    "plugin",
    "consumer",
    "consumer_group",
    "consumer_group_consumer",
    "vault",
];

/// Explains a request.
pub fn explain(table: &Table, asked: &Asked) -> Explanation {
    let (heading, head) = match (asked.heading(), asked.head()) {
        (Ok(heading), Some(head)) => (heading, head),
        (Err(refusal), _) => return refused(table, refusal.clone()),
        (Ok(_), None) => return refused(table, Refusal::bad_request()),
    };
    let found = table.find(&head);
    let ranking = table.ranking(&head, LISTED_MAX);
    let mut explanation = Explanation {
        request: Some(request(&head)),
        losers: others(&ranking.losers, ranking.losers_total),
        near_misses: others(&ranking.near, ranking.near_total),
        ..refused(table, Refusal::no_route())
    };
    if head.headers.keys().any(|name| is_of_proxies(name.as_str())) {
        let note = "headers of proxies in front are not followed here: say where the client is with --source";
        explanation.notes.push(note.to_owned());
    }
    if let Some(found) = &found {
        explanation.route = Some(winner(found, head.path, ranking.path));
        follow(&mut explanation, table, (asked, heading), found);
    }
    explanation.rejected = rejected(table, &explanation);
    explanation
}

impl Explanation {
    /// Adds what is known on a live node: addresses and their health.
    pub fn add_health(&mut self, upstreams: &Upstreams) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        if destination::add_health(upstream, upstreams) == Some(false)
            && self.outcome == Outcome::Sent
        {
            self.outcome = answered(Refusal::no_peer());
        }
    }
}

/// What is told of a request that no route takes.
fn refused(table: &Table, refusal: Refusal) -> Explanation {
    Explanation {
        version: table.version().0,
        request: None,
        outcome: answered(refusal),
        route: None,
        losers: Listed::default(),
        near_misses: Listed::default(),
        service: None,
        plugins: Vec::new(),
        plugins_left_out: Vec::new(),
        sent: None,
        upstream: None,
        rejected: Listed::default(),
        notes: Vec::new(),
    }
}

fn answered(refusal: Refusal) -> Outcome {
    let Refusal {
        status,
        message,
        location,
    } = refusal;
    Outcome::Answered {
        status,
        message,
        location,
    }
}

/// Goes on from the route.
fn follow(
    explanation: &mut Explanation,
    table: &Table,
    (asked, heading): (&Asked, &Heading),
    found: &Match,
) {
    let route = &found.route;
    let service = route.service.and_then(|id| table.service(id));
    let upstream = service.and_then(|service| table.upstream(&service.workspace, &service.host));
    explanation.service = service.map(|service| destination::service(service));
    explanation.upstream = upstream.map(|upstream| destination::upstream(upstream));
    plugins::explain(explanation, table, route, asked.consumer.as_deref());
    let admitted = heading
        .dry
        .admit(route, service.map(|service| &**service), asked.tls);
    if admitted.is_err() && !explanation.plugins.is_empty() {
        explanation.notes.push(UNADMITTED.to_owned());
    }
    let sent = admitted.and_then(|()| {
        let service = service.ok_or_else(Refusal::no_service)?;
        if !service.protocol.is_http() {
            return Err(Refusal::unsupported());
        }
        explanation.sent = Some(destination::sent(service, upstream, found, heading));
        let no_weight =
            |targets: &[Arc<crate::table::Target>]| targets.iter().all(|target| target.weight == 0);
        match upstream {
            Some(upstream) if no_weight(&upstream.targets) => Err(Refusal::no_peer()),
            Some(_) | None => Ok(()),
        }
    });
    explanation.outcome = match sent {
        Ok(()) => Outcome::Sent,
        Err(refusal) => answered(refusal),
    };
}

fn request(head: &RequestHead<'_>) -> Request {
    Request {
        method: head.method.to_owned(),
        scheme: if head.tls { "https" } else { "http" },
        host: head.host.to_owned(),
        port: head.port,
        path: head.path.to_owned(),
        sni: head.sni.map(str::to_owned),
        source: head.source.to_string(),
        destination: head.destination.to_string(),
    }
}

fn is_of_proxies(header: &str) -> bool {
    header.starts_with("x-forwarded-") || matches!(header, "forwarded" | "x-real-ip")
}

fn entity(route: &Route) -> Entity {
    let name = route.name.as_deref();
    Entity::new("route", &route.workspace, route.id, name, route.version)
}

fn winner(found: &Match, path: &str, own: Option<String>) -> Winner {
    let route = &found.route;
    let captures = found.captures.iter().flat_map(|captures| captures.iter());
    let captures = captures.map(|(number, name, value)| Capture {
        number,
        name: name.map(str::to_owned),
        value: value.to_owned(),
    });
    Winner {
        entity: entity(route),
        path: own,
        matched: found.matched(path).to_owned(),
        captures: captures.collect(),
        strip_path: route.strip_path,
        preserve_host: route.preserve_host,
    }
}

fn others(misfits: &[Misfit], total: usize) -> Listed<Other> {
    let other = |misfit: &Misfit| Other {
        entity: entity(&misfit.route),
        reason: misfit.reason.clone(),
    };
    Listed {
        data: misfits.iter().map(other).collect(),
        total,
    }
}

/// The entities that could not be taken up: those first that take part as they were.
fn rejected(table: &Table, explanation: &Explanation) -> Listed<RejectedEntity> {
    let taking_part = taking_part(explanation);
    let some = table
        .rejected()
        .filter(|rejected| KINDS.contains(&rejected.key.kind.as_str()));
    let each =
        some.map(|rejected| RejectedEntity::of(rejected, taking_part.contains(&rejected.key.id.0)));
    let mut data: Vec<_> = each.collect();
    data.sort_by_key(|rejected| !rejected.takes_part);
    let total = data.len();
    data.truncate(LISTED_MAX);
    Listed { data, total }
}

fn taking_part(explanation: &Explanation) -> BTreeSet<Uuid> {
    let route = explanation.route.iter().map(|route| &route.entity);
    let service = explanation.service.iter().map(|service| &service.entity);
    let plugins = explanation.plugins.iter().map(|plugin| &plugin.entity);
    let upstream = explanation.upstream.iter().flat_map(|upstream| {
        let targets = upstream.targets.data.iter().map(|target| &target.entity);
        targets.chain([&upstream.entity])
    });
    let all = route.chain(service).chain(plugins).chain(upstream);
    all.map(|entity| entity.id).collect()
}
