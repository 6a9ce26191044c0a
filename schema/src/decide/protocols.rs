//! On which protocols a plugin may be asked to run.

use crate::entity::{Id, Workspace};
use crate::kind::Kind;
use crate::kind::common::HTTP_PROTOCOLS;
use crate::rejection::Rejection;
use crate::state::{State, reference_id};
use serde_json::{Map, Value};

/// Kong runs some plugins on them too.
const CONNECTIONS: &str = "Sluice runs plugins on requests only, not on the connections of routes \
                           with tcp, tls, tls_passthrough or udp";

/// What a plugin and a route have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Common {
    Nothing,
    /// Protocols on which no data plane runs plugins.
    Connections,
    Requests,
}

/// A plugin must share a protocol of requests with its route, or with one route of its service that has any.
pub(super) fn check_plugin(
    state: &State,
    kind: Kind,
    workspace: &Workspace,
    fields: &Map<String, Value>,
) -> Result<(), Rejection> {
    if kind != Kind::Plugin {
        return Ok(());
    }
    let parent = |field: &str| fields.get(field).and_then(reference_id);
    let own = texts(fields.get("protocols"));
    let is_request = |protocol: &String| HTTP_PROTOCOLS.contains(&protocol.as_str());
    let common = |route: Id| {
        let body = state
            .entity(Kind::Route, workspace, route)
            .map(|entry| entry.body.fields());
        let Some(Ok(route)) = body else {
            return Common::Requests;
        };
        let theirs = texts(route.get("protocols"));
        if theirs.is_empty() {
            return Common::Requests;
        }
        let mut shared = theirs.iter().filter(|protocol| own.contains(protocol));
        match (shared.clone().any(is_request), shared.next()) {
            (true, _) => Common::Requests,
            (false, Some(_)) => Common::Connections,
            (false, None) => Common::Nothing,
        }
    };
    let (most, nothing) = if let Some(route) = parent("route") {
        (common(route), "must match the associated route's protocols")
    } else if let Some(service) = parent("service") {
        let routes = state.children(
            (Kind::Service, service),
            workspace,
            Kind::Route,
            "service",
            None,
        );
        (
            routes.map(common).max().unwrap_or(Common::Requests),
            "must match the protocols of at least one route pointing to this Plugin's service",
        )
    } else {
        (Common::Requests, "")
    };
    let never = !own.is_empty() && !own.iter().any(is_request);
    match most {
        Common::Nothing => Err(Rejection::field("protocols", nothing)),
        Common::Connections => Err(Rejection::field("protocols", CONNECTIONS)),
        Common::Requests if never => Err(Rejection::field("protocols", CONNECTIONS)),
        Common::Requests => Ok(()),
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}
