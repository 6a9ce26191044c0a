//! A router that goes through the versions of a log, and what it makes of one request at each of them.
//!
//! It is the data plane's own table, fed with services and routes alone: nothing else says where a request goes. Plugins
//! that answer in place of the upstream are looked at beside it.

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use sluice_dp::explain::{Asked, Question};
use sluice_dp::plugin::Protocols;
use sluice_dp::table::{Route, Table};
use sluice_schema::entity::{Body, Change, Entry, Id, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::version::Version;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The plugin that answers by itself.
const TERMINATION: &str = "request-termination";
const TERMINATION_STATUS: u64 = 503;

/// A request as it is looked for.
#[derive(Debug)]
pub(super) struct Request(Asked);

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    /// The route it belongs to: name, else id.
    pub(super) route: Option<String>,
    /// The route's id.
    pub(super) id: Option<String>,
    /// What the gateway answers by itself; nothing if the request goes to an upstream.
    pub(super) status: Option<u16>,
}

impl Outcome {
    /// `route checkout`, `404`, ...
    pub(super) fn label(&self) -> String {
        match (&self.route, self.status) {
            (None, _) => "404, no route".to_owned(),
            (Some(route), None) => format!("route {route}"),
            (Some(route), Some(status)) => format!("route {route}, which answers {status}"),
        }
    }
}

impl Request {
    /// Reads `GET https://shop.example/cart?x=1` and headers.
    ///
    /// # Errors
    /// If it is not that, or a request that is answered whatever the configuration.
    pub(super) fn parse(line: &str, headers: &[String]) -> anyhow::Result<Self> {
        let (method, url) = match line.trim().split_once(char::is_whitespace) {
            Some((method, url)) => (method, url.trim()),
            None => ("GET", line.trim()),
        };
        let asked = Asked::parse(&Question {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: read_headers(headers)?,
            ..Question::default()
        })?;
        match asked.refused() {
            Some((status, message)) => {
                bail!("'{url}' is answered with {status} at any version: {message}")
            }
            None => Ok(Self(asked)),
        }
    }
}

/// Reads `NAME: VALUE`.
///
/// # Errors
/// If one is not that.
pub(crate) fn read_headers(headers: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let each = headers.iter().map(|header| {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("'{header}' is not a header: expected NAME: VALUE"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    each.collect()
}

/// An entity, in an event or in a state.
pub(crate) struct Mutation {
    pub(crate) kind: String,
    pub(crate) workspace: Workspace,
    pub(crate) id: Id,
    /// What it is from then on, if it is there.
    pub(crate) body: Option<Map<String, Value>>,
}

impl Mutation {
    /// Reads one as the Admin API shows it with its stored body.
    ///
    /// # Errors
    /// If it is not that.
    pub(crate) fn parse(shown: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| {
            let value = shown[name].as_str();
            value.with_context(|| format!("a change has no {name}"))
        };
        let gone = shown["op"].as_str() == Some("delete");
        let body = shown["body"].as_object().filter(|_| !gone).cloned();
        Ok(Self {
            kind: text("kind")?.to_owned(),
            workspace: Workspace::parse(text("workspace")?)
                .context("a workspace's name is not one")?,
            id: serde_json::from_value(shown["id"].clone()).context("an id is not one")?,
            body,
        })
    }
}

/// The configuration at one version, as far as a request's way depends on it.
pub(super) struct Replay {
    table: Table,
    terminations: BTreeMap<Id, Termination>,
}

/// A plugin that answers by itself.
struct Termination {
    workspace: Workspace,
    route: Option<Id>,
    service: Option<Id>,
    status: u16,
}

impl Replay {
    /// No configuration.
    pub(super) fn new() -> Self {
        Self {
            table: Table::empty(),
            terminations: BTreeMap::new(),
        }
    }

    /// Takes what came at a version, and says whether any of it could matter.
    pub(super) fn apply(&mut self, version: Version, mutations: Vec<Mutation>) -> bool {
        let mut changes = Vec::new();
        let mut matters = false;
        for mutation in mutations {
            let kind = match Kind::from_name(&mutation.kind) {
                Some(kind @ (Kind::Service | Kind::Route)) => kind,
                Some(Kind::Plugin) => {
                    matters |= self.terminate(&mutation);
                    continue;
                }
                Some(_) | None => continue,
            };
            let after = mutation.body.as_ref().map(|body| Entry {
                version,
                body: Body::encode(body),
            });
            let key = Key {
                kind: kind.key_name(),
                workspace: mutation.workspace,
                id: mutation.id,
            };
            changes.push(Change {
                key,
                before: None,
                after,
            });
        }
        if !changes.is_empty() {
            matters = true;
            (self.table, _) = self.table.apply(version, &changes);
        }
        matters
    }

    fn terminate(&mut self, mutation: &Mutation) -> bool {
        let known = self.terminations.remove(&mutation.id).is_some();
        let Some(body) = &mutation.body else {
            return known;
        };
        let off = body.get("enabled").and_then(Value::as_bool) == Some(false);
        let other = body.get("name").and_then(Value::as_str) != Some(TERMINATION);
        let reference = |field: &str| body.get(field).and_then(sluice_schema::state::reference_id);
        // Whether it is for the caller depends on who that is, or on a header.
        let narrowed = reference("consumer").is_some() || reference("consumer_group").is_some();
        let config = body.get("config");
        let narrowed = narrowed || config.is_some_and(|config| config["trigger"].is_string());
        if off || other || narrowed {
            return known;
        }
        let status = config.and_then(|config| config["status_code"].as_u64());
        let status = status.unwrap_or(TERMINATION_STATUS);
        self.terminations.insert(
            mutation.id,
            Termination {
                workspace: mutation.workspace.clone(),
                route: reference("route"),
                service: reference("service"),
                status: u16::try_from(status).unwrap_or(u16::MAX),
            },
        );
        true
    }

    /// What becomes of a request now.
    pub(super) fn find(&self, request: &Request) -> Outcome {
        let head = request.0.head();
        let found = head.and_then(|head| self.table.find(&head));
        let Some(found) = found else {
            return Outcome {
                route: None,
                id: None,
                status: Some(404),
            };
        };
        let route = &found.route;
        let id = route.id.to_string();
        let name = route.name.as_deref().unwrap_or(&id).to_owned();
        Outcome {
            status: self.status(route, request),
            route: Some(name),
            id: Some(id),
        }
    }

    /// What is answered without asking an upstream, in the order in which that is found out.
    fn status(&self, route: &Arc<Route>, request: &Request) -> Option<u16> {
        let service = route
            .service
            .and_then(|service| self.table.service(service));
        if service.is_some_and(|service| !service.enabled) {
            return Some(404);
        }
        let protocols = route.protocols;
        let only_tls = protocols.contains(Protocols::HTTPS) && !protocols.contains(Protocols::HTTP);
        if only_tls && !request.0.is_tls() {
            return Some(route.https_redirect_status_code);
        }
        let terminated = self.termination(route);
        terminated.or_else(|| service.is_none().then_some(503))
    }

    /// Of the plugins that answer by themselves the one that runs: that of the narrowest scope.
    fn termination(&self, route: &Route) -> Option<u16> {
        let here = self.terminations.values().filter(|one| {
            one.workspace == route.workspace
                && one.route.is_none_or(|id| id.0 == route.id)
                && one.service.is_none_or(|id| Some(id.0) == route.service)
        });
        let narrowest = here.max_by_key(|one| (one.route.is_some(), one.service.is_some()));
        narrowest.map(|one| one.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SERVICE: &str = "11111111-1111-4111-8111-111111111111";
    const ROUTE: &str = "22222222-2222-4222-8222-222222222222";
    const PLUGIN: &str = "33333333-3333-4333-8333-333333333333";

    fn put(kind: &str, id: &str, body: Value) -> Value {
        json!({"op": "put", "kind": kind, "workspace": "default", "id": id, "body": body})
    }

    fn service() -> Value {
        json!({
            "name": "s", "protocol": "http", "host": "up.example", "port": 80, "retries": 5, "connect_timeout": 60000,
            "write_timeout": 60000, "read_timeout": 60000, "enabled": true,
        })
    }

    fn route(path: &str) -> Value {
        json!({
            "name": "r", "protocols": ["http", "https"], "paths": [path], "service": {"id": SERVICE},
            "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true, "path_handling": "v0",
            "preserve_host": false, "request_buffering": true, "response_buffering": true,
        })
    }

    #[test]
    fn each_version_says_what_becomes_of_the_request() {
        let request = Request::parse("GET http://shop.example/cart?x=1", &[]).unwrap();
        let mut replay = Replay::new();
        let delete = json!({"op": "delete", "kind": "route", "workspace": "default", "id": ROUTE});
        let terminate =
            json!({"name": "request-termination", "enabled": true, "config": {"status_code": 418}});
        let steps = [
            (vec![put("service", SERVICE, service())], "404, no route"),
            (vec![put("route", ROUTE, route("/cart"))], "route r"),
            (
                vec![put("plugin", PLUGIN, terminate)],
                "route r, which answers 418",
            ),
            (
                vec![put(
                    "plugin",
                    PLUGIN,
                    json!({"name": "cors", "enabled": true}),
                )],
                "route r",
            ),
            (
                vec![put("consumer", PLUGIN, json!({"username": "x"}))],
                "route r",
            ),
            (vec![put("route", ROUTE, route("/other"))], "404, no route"),
            (vec![put("route", ROUTE, route("/"))], "route r"),
            (vec![delete], "404, no route"),
        ];
        for (version, (mutations, expected)) in (1..).zip(steps) {
            let mutations = mutations.iter().map(|one| Mutation::parse(one).unwrap());
            replay.apply(Version(version), mutations.collect());
            assert_eq!(replay.find(&request).label(), expected, "{version}");
        }
    }

    #[test]
    fn a_request_is_a_method_a_url_and_headers() {
        let host = ["Host: Other.Example:81".to_owned()];
        let request = Request::parse("post https://shop.example/a//b", &host).unwrap();
        let head = request.0.head().unwrap();
        assert_eq!((head.method, head.tls, head.path), ("POST", true, "/a/b"));
        assert_eq!((head.host, head.port), ("other.example", 81));
        assert!(Request::parse("GET http://a/%", &[]).is_err());
        assert!(Request::parse("/cart", &[]).is_err());
        assert!(Request::parse("GET /cart", &host).is_ok());
        assert!(Request::parse("GET http://a/", &["nonsense".to_owned()]).is_err());
    }
}
