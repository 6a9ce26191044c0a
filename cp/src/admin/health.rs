//! The health of upstreams and targets, in Kong's form. No data plane checks it yet: what their reports will say belongs
//! into [`Health::of`], the one place that is asked.

use super::answer;
use super::endpoint::Place;
use super::error::Problem;
use super::list::{self, Page, aside};
use super::request::Call;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_schema::decide::{Scope, Selector};
use sluice_schema::entity::Id;
use sluice_schema::kind::Kind;

/// Whether something answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    /// Nobody looks.
    HealthchecksOff,
}

impl Health {
    /// The health of a target of an upstream, or of the upstream as a whole.
    fn of(_upstream: Id, _target: Option<&str>) -> Self {
        Self::HealthchecksOff
    }

    fn name(self) -> &'static str {
        match self {
            Self::HealthchecksOff => "HEALTHCHECKS_OFF",
        }
    }
}

/// `GET /upstreams/:u/health`.
pub(super) async fn show(call: &Call<'_>, upstream: &str) -> Result<Response, Problem> {
    let id = upstream_id(call, upstream)?;
    let node_id = call.admin.control_plane.info.node_id.to_string();
    if call.query.flag("balancer_health")? {
        let health = Health::of(id, None).name();
        let data = json!({ "id": id.to_string(), "health": health, "details": {} });
        return Ok(answer::ok(&json!({ "data": data, "node_id": node_id })));
    }
    let page = Page::parse(&call.query)?;
    let after = page.after_id()?;
    let inside = call.inside.clone();
    let collect = move || {
        let targets = (Kind::Upstream, id);
        let mut ids = inside
            .children(targets, Kind::Target, "upstream", after)
            .peekable();
        let mut data = Vec::new();
        while let Some(target) = ids.next() {
            data.extend(
                inside
                    .show(Kind::Target, target)
                    .map(|target| with_health(id, target)),
            );
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

fn with_health(upstream: Id, mut target: Value) -> Value {
    let health = Health::of(upstream, target["target"].as_str());
    target["health"] = health.name().into();
    target["data"] = json!({ "weight": { "total": target["weight"], "available": target["weight"], "unavailable": 0 } });
    target
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

/// `PUT /upstreams/:u/targets/:t/healthy` and `unhealthy`.
pub(super) fn set(call: &Call<'_>, upstream: &str, target: &str) -> Result<Response, Problem> {
    let id = upstream_id(call, upstream)?;
    let within = Some(("upstream", id));
    let state = &call.inside.state;
    Selector::parse(target)
        .find(state, Kind::Target, &call.inside.workspace, within)
        .ok_or(Problem::NotFound)?;
    let message = "no data plane checks the health of targets yet, so it cannot be set by hand; \
                   give the target weight 0 to take it out";
    Err(Problem::Bad(message.to_owned()))
}

fn upstream_id(call: &Call<'_>, upstream: &str) -> Result<Id, Problem> {
    let selector = Selector::parse(upstream);
    call.inside
        .find(Kind::Upstream, &selector)
        .ok_or(Problem::NotFound)
}
