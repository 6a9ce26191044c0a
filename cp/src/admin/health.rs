//! The health of upstreams and targets, in Kong's form: what the live data planes report of what is not well, put together.
//! One that says a target is not well is enough.

use super::answer;
use super::endpoint::Place;
use super::error::Problem;
use super::list::{self, Page, aside};
use super::request::Call;
use crate::fleet::Fleet;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_replica::node::Ailing;
use sluice_schema::decide::{Scope, Selector};
use sluice_schema::entity::Id;
use sluice_schema::kind::{Healthchecks, Kind};

/// Whether something answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    /// Nobody looks.
    HealthchecksOff,
    /// No data plane says otherwise.
    Healthy,
    /// A data plane gives it no requests.
    Unhealthy,
    /// A data plane cannot resolve its name.
    DnsError,
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Self::HealthchecksOff => "HEALTHCHECKS_OFF",
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
            Self::DnsError => "DNS_ERROR",
        }
    }
}

/// What is known of one upstream.
struct Known {
    /// Whether its configuration checks anything, and there is a data plane to do so.
    is_checked: bool,
    /// What live data planes say of it, with the node.
    ailing: Vec<(String, Ailing)>,
}

impl Known {
    fn new(fleet: &Fleet, upstream: Id, checks: &Value) -> Self {
        let checks: Option<Healthchecks> = serde_json::from_value(checks.clone()).ok();
        let (alive, ailing) = fleet.ailing(upstream.0);
        Self {
            is_checked: alive && checks.is_some_and(|checks| checks.is_on()),
            ailing,
        }
    }

    fn base(&self) -> Health {
        if self.is_checked {
            Health::Healthy
        } else {
            Health::HealthchecksOff
        }
    }

    /// The upstream as a whole.
    fn whole(&self) -> (Health, Vec<&str>) {
        let about = self
            .ailing
            .iter()
            .filter(|(_, ailing)| ailing.target.is_none());
        let nodes: Vec<&str> = about.map(|(node, _)| node.as_str()).collect();
        let health = if nodes.is_empty() {
            self.base()
        } else {
            Health::Unhealthy
        };
        (health, nodes)
    }

    /// Adds what is known of a target to it.
    fn show(&self, mut target: Value) -> Value {
        let name = target["target"].as_str();
        let about = self
            .ailing
            .iter()
            .filter(|(_, ailing)| name.is_some() && ailing.target.as_deref() == name);
        let mut health = self.base();
        let mut addresses = Vec::new();
        for (node, ailing) in about {
            let own = if ailing.address.is_some() {
                Health::Unhealthy
            } else {
                Health::DnsError
            };
            if health != Health::Unhealthy {
                health = own;
            }
            addresses
                .push(json!({ "address": ailing.address, "health": own.name(), "node_id": node }));
        }
        let weight = &target["weight"];
        // How many addresses a name has only the data planes know, so that a target counts as a whole.
        let (available, unavailable) = match health {
            Health::Healthy | Health::HealthchecksOff => (weight.clone(), json!(0)),
            Health::Unhealthy | Health::DnsError => (json!(0), weight.clone()),
        };
        let weight = json!({ "total": weight, "available": available, "unavailable": unavailable });
        target["data"] = json!({ "weight": weight, "addresses": addresses });
        target["health"] = health.name().into();
        target
    }
}

/// `GET /upstreams/:u/health`.
pub(super) async fn show(call: &Call<'_>, upstream: &str) -> Result<Response, Problem> {
    let id = upstream_id(call, upstream)?;
    let node_id = call.admin.control_plane.info.node_id.to_string();
    let inside = call.inside.clone();
    let checks = inside.show(Kind::Upstream, id).ok_or(Problem::NotFound)?["healthchecks"].take();
    let known = Known::new(&call.admin.control_plane.fleet, id, &checks);
    if call.query.flag("balancer_health")? {
        let (health, nodes) = known.whole();
        let details = if nodes.is_empty() {
            json!({})
        } else {
            json!({ "unhealthy_on": nodes })
        };
        let data = json!({ "id": id.to_string(), "health": health.name(), "details": details });
        return Ok(answer::ok(&json!({ "data": data, "node_id": node_id })));
    }
    let page = Page::parse(&call.query)?;
    let after = page.after_id()?;
    let collect = move || {
        let targets = (Kind::Upstream, id);
        let mut ids = inside
            .children(targets, Kind::Target, "upstream", after)
            .peekable();
        let mut data = Vec::new();
        while let Some(target) = ids.next() {
            let shown = inside.show(Kind::Target, target);
            data.extend(shown.map(|target| known.show(target)));
            if data.len() == page.size {
                return (data, ids.peek().map(|_| target));
            }
        }
        (data, None)
    };
    let (data, last) = aside(collect).await?;
    let mut body = list::body(call, data, last.map(|id| id.to_string()));
    body["node_id"] = node_id.into();
    Ok(answer::ok(&body))
}

/// `GET /upstreams/:u/targets/all`: nothing is ever hidden, so it is the list of the targets.
pub(super) async fn all(call: &Call<'_>, upstream: &str) -> Result<Response, Problem> {
    let scope = Scope {
        field: "upstream",
        parent: Kind::Upstream,
        selector: Selector::parse(upstream),
    };
    let place = Place {
        kind: Kind::Target,
        scope: Some(scope),
    };
    list::list(call, place).await
}

/// `PUT /upstreams/:u/targets/:t/healthy` and `unhealthy`: as in Kong, that is for a data plane.
pub(super) fn set(call: &Call<'_>, upstream: &str, target: &str) -> Result<Response, Problem> {
    let id = upstream_id(call, upstream)?;
    let within = Some(("upstream", id));
    let state = &call.inside.state;
    Selector::parse(target)
        .find(state, Kind::Target, &call.inside.workspace, within)
        .ok_or(Problem::NotFound)?;
    let message = "health is a matter of each data plane and not of the configuration: send this request to the status \
                   listener of the data plane, or give the target weight 0 to take it out everywhere";
    Err(Problem::Bad(message.to_owned()))
}

fn upstream_id(call: &Call<'_>, upstream: &str) -> Result<Id, Problem> {
    let selector = Selector::parse(upstream);
    call.inside
        .find(Kind::Upstream, &selector)
        .ok_or(Problem::NotFound)
}
