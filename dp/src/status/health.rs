//! The health of targets: `/upstreams/{upstream}/health`, setting it by hand, its metrics, and what is reported of it.

use super::{json_response, message};
use crate::balance::{SetHealthError, TargetView, UpstreamView, Upstreams};
use crate::metrics::Writer;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use sluice_replica::node::Ailing;

/// Addresses that are named in the metrics; all are counted.
const NAMED_MAX: usize = 1000;
const NAME: &str = "kong_upstream_target_health";
const STATES: [&str; 4] = ["healthchecks_off", "healthy", "unhealthy", "dns_error"];

/// The answer to a request about upstreams; `None` if it is about something else. PUT alone sets: a page in a browser cannot
/// send it without asking first.
pub(super) fn answer(
    upstreams: &Upstreams,
    (method, path): (&Method, &str),
    from_here: bool,
) -> Option<Response<Full<Bytes>>> {
    let parts: Vec<&str> = path.strip_prefix("/upstreams/")?.split('/').collect();
    let (upstream, target, address, healthy) = match (parts.as_slice(), method) {
        ([upstream, "health"], &Method::GET) => return Some(show(upstreams, upstream)),
        ([upstream, "targets", target, state], &Method::PUT) => {
            (upstream, target, None, parse_state(state)?)
        }
        ([upstream, "targets", target, address, state], &Method::PUT) => {
            (upstream, target, Some(*address), parse_state(state)?)
        }
        _ => return None,
    };
    // Others may read this listener, and not take targets out.
    if !from_here {
        let text = "health can be set from this machine only";
        return Some(message(StatusCode::FORBIDDEN, text));
    }
    Some(
        match upstreams.set_health(upstream, target, address, healthy) {
            Ok(()) => {
                tracing::info!(upstream, target, address, healthy, "health was set by hand");
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Err(SetHealthError::NotFound) => message(StatusCode::NOT_FOUND, "Not found"),
            Err(error @ SetHealthError::NotChecked) => {
                message(StatusCode::BAD_REQUEST, &error.to_string())
            }
        },
    )
}

fn parse_state(text: &str) -> Option<bool> {
    match text {
        "healthy" => Some(true),
        "unhealthy" => Some(false),
        _ => None,
    }
}

fn show(upstreams: &Upstreams, wanted: &str) -> Response<Full<Bytes>> {
    let views = upstreams.views();
    let named = |view: &&UpstreamView| view.name == wanted || view.id.to_string() == wanted;
    let Some(view) = views.iter().find(named) else {
        return message(StatusCode::NOT_FOUND, "Not found");
    };
    let target = |target: &TargetView| {
        json!({
            "target": target.target,
            "address": target.address.map(|address| address.to_string()),
            "weight": target.weight,
            "health": state(view, target).to_ascii_uppercase(),
        })
    };
    let health = match (view.is_checked, view.is_usable) {
        (_, false) => "UNHEALTHY",
        (true, true) => "HEALTHY",
        (false, true) => "HEALTHCHECKS_OFF",
    };
    let targets: Vec<Value> = view.targets.iter().map(target).collect();
    json_response(
        StatusCode::OK,
        &json!({ "id": view.id, "name": view.name, "health": health, "data": targets }),
    )
}

fn state(view: &UpstreamView, target: &TargetView) -> &'static str {
    if target.address.is_none() {
        "dns_error"
    } else if !view.is_checked {
        "healthchecks_off"
    } else if target.is_healthy {
        "healthy"
    } else {
        "unhealthy"
    }
}

/// As Kong writes it: each state of each address, 1 if that is the one it is in.
pub(super) fn metrics(writer: &mut Writer, views: &[UpstreamView]) {
    let mut counts = [0_u64; STATES.len()];
    let all = || {
        views
            .iter()
            .flat_map(|view| view.targets.iter().map(move |target| (view, target)))
    };
    writer.metric(
        NAME,
        "gauge",
        "Health of targets by address; 1 for the state it is in",
    );
    for (view, target) in all().take(NAMED_MAX) {
        let address = target.address.map(|address| address.to_string());
        for name in STATES {
            let labels = [
                ("upstream", &*view.name),
                ("target", &*target.target),
                ("address", address.as_deref().unwrap_or_default()),
                ("state", name),
                ("subsystem", "http"),
            ];
            writer.value(NAME, &labels, u8::from(state(view, target) == name));
        }
    }
    for (view, target) in all() {
        let own = state(view, target);
        if let Some(index) = STATES.iter().position(|name| *name == own) {
            counts[index] += 1;
        }
    }
    let name = "sluice_dp_upstream_targets";
    writer.metric(name, "gauge", "Addresses of targets by state");
    for (state, count) in STATES.iter().zip(counts) {
        writer.value(name, &[("state", *state)], count);
    }
}

/// What is not well, the whole upstreams first.
pub(super) fn ailing(views: &[UpstreamView], max: usize) -> Vec<Ailing> {
    let upstreams = views
        .iter()
        .filter(|view| view.is_checked && !view.is_usable);
    let upstreams = upstreams.map(|view| Ailing {
        upstream: view.id,
        target: None,
        address: None,
    });
    let targets = views.iter().flat_map(|view| {
        let ailing = |target: &&TargetView| {
            target.address.is_none() || (view.is_checked && !target.is_healthy)
        };
        view.targets.iter().filter(ailing).map(|target| Ailing {
            upstream: view.id,
            target: Some(target.target.clone()),
            address: target.address.map(|address| address.to_string()),
        })
    });
    upstreams.chain(targets).take(max).collect()
}
