//! What is told: values that become JSON. No configuration of a plugin is among them, and no header of the request: they may
//! hold secrets.

use crate::table::{Bound, Rejected};
use serde::Serialize;
use sluice_schema::entity::Workspace;
use uuid::Uuid;

/// Why a request goes where it goes.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The version of the configuration that was asked.
    pub version: u64,
    /// The request, as the router sees it; nothing if it does not come that far.
    pub request: Option<Request>,
    /// What becomes of it.
    pub outcome: Outcome,
    /// The route that takes it.
    pub route: Option<Winner>,
    /// The routes that would take it without that one, in this order.
    pub losers: Listed<Other>,
    /// The routes that would take it first if it were a little different.
    pub near_misses: Listed<Other>,
    /// Where the route leads.
    pub service: Option<Service>,
    /// The plugins that run, in order.
    pub plugins: Vec<Plugin>,
    /// The plugins that could run and do not.
    pub plugins_left_out: Vec<LeftOut>,
    /// What is sent, if no plugin changes it.
    pub sent: Option<Sent>,
    /// Whom it is sent to, unless that is the service's own host.
    pub upstream: Option<Upstream>,
    /// Entities that could not be taken up in their newest form, and may have a part in this.
    pub rejected: Listed<RejectedEntity>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// A list that may have been cut.
#[derive(Clone, Debug, Serialize)]
pub struct Listed<T> {
    /// The first of them.
    pub data: Vec<T>,
    /// How many there are.
    pub total: usize,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            total: 0,
        }
    }
}

/// A request, as the router sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// `GET`
    pub method: String,
    /// `http` or `https`
    pub scheme: &'static str,
    /// In lower case, without the port.
    pub host: String,
    /// That of the Host header, else the one connected to.
    pub port: u16,
    /// The canonical path.
    pub path: String,
    /// The server name that the client asks for.
    pub sni: Option<String>,
    /// The client's address.
    pub source: String,
    /// The address connected to.
    pub destination: String,
}

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Outcome {
    /// It is sent to an upstream, unless a plugin answers.
    Sent,
    /// The gateway answers it.
    Answered {
        /// With this status.
        status: u16,
        /// And this message.
        message: String,
        /// And this `Location`.
        location: Option<String>,
    },
}

/// Which entity is spoken of.
#[derive(Clone, Debug, Serialize)]
pub struct Entity {
    /// `route`, `service`, ...
    pub kind: &'static str,
    /// Its workspace.
    pub workspace: String,
    /// Its id.
    pub id: Uuid,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The event that last wrote it.
    pub version: u64,
}

/// The route that takes a request.
#[derive(Clone, Debug, Serialize)]
pub struct Winner {
    /// The route.
    #[serde(flatten)]
    pub entity: Entity,
    /// Its path that fits; nothing if it has none, or an expression.
    pub path: Option<String>,
    /// The part of the request's path that it matched.
    pub matched: String,
    /// What the groups of its regex matched.
    pub captures: Vec<Capture>,
    /// Whether the matched part is not sent.
    pub strip_path: bool,
    /// Whether the client's Host is sent.
    pub preserve_host: bool,
}

/// A group of a regex.
#[derive(Clone, Debug, Serialize)]
pub struct Capture {
    /// Its number; 0 is the whole match.
    pub number: usize,
    /// Its name.
    pub name: Option<String>,
    /// What it matched.
    pub value: String,
}

/// A route that does not take it.
#[derive(Clone, Debug, Serialize)]
pub struct Other {
    /// The route.
    #[serde(flatten)]
    pub entity: Entity,
    /// Why not.
    pub reason: String,
}

/// Where the route leads.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// The service.
    #[serde(flatten)]
    pub entity: Entity,
    /// `http`, `https`, ...
    pub protocol: &'static str,
    /// A host, or an upstream's name.
    pub host: String,
    /// Does not count if `host` names an upstream.
    pub port: u16,
    /// What the path begins with.
    pub path: Option<String>,
    /// Whether requests may use it.
    pub enabled: bool,
    /// Further tries after the first.
    pub retries: u16,
    /// Milliseconds.
    pub connect_timeout: u64,
    /// Milliseconds between two writes.
    pub write_timeout: u64,
    /// Milliseconds between two reads.
    pub read_timeout: u64,
}

/// What a plugin is bound to; nothing for a global one.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scope {
    /// Of this route.
    pub route: Option<Uuid>,
    /// Of this service.
    pub service: Option<Uuid>,
    /// Of this consumer.
    pub consumer: Option<Uuid>,
    /// Of this group of consumers.
    pub consumer_group: Option<Uuid>,
}

impl From<Bound> for Scope {
    fn from(bound: Bound) -> Self {
        Self {
            route: bound.route,
            service: bound.service,
            consumer: bound.consumer,
            consumer_group: bound.consumer_group,
        }
    }
}

impl Scope {
    /// `the route and the service`, `everything`
    pub(super) fn words(self) -> String {
        let parts = [
            (self.route, "the route"),
            (self.service, "the service"),
            (self.consumer, "the consumer"),
            (self.consumer_group, "a consumer group"),
        ];
        let bound = parts.into_iter().filter(|(id, _)| id.is_some());
        let words: Vec<&str> = bound.map(|(_, words)| words).collect();
        match words.as_slice() {
            [] => "everything".to_owned(),
            [_, ..] => words.join(" and "),
        }
    }
}

/// A plugin that runs.
#[derive(Clone, Debug, Serialize)]
pub struct Plugin {
    /// The plugin; its name is that of what it does.
    #[serde(flatten)]
    pub entity: Entity,
    /// What it is bound to.
    pub scope: Scope,
    /// The same in words.
    pub of: String,
    /// Higher runs earlier.
    pub priority: i32,
    /// `access`, `response`, ...
    pub phases: Vec<&'static str>,
}

/// A plugin that does not run.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// The plugin.
    #[serde(flatten)]
    pub entity: Entity,
    /// What it is bound to.
    pub scope: Scope,
    /// The same in words.
    pub of: String,
    /// Why not.
    pub reason: String,
}

/// What is sent to the upstream.
#[derive(Clone, Debug, Serialize)]
pub struct Sent {
    /// The URL; its host is an upstream's name if there is one.
    pub url: String,
    /// The `Host`; nothing if it is that of the target.
    pub host: Option<String>,
}

/// Whom it is sent to.
#[derive(Clone, Debug, Serialize)]
pub struct Upstream {
    /// The upstream.
    #[serde(flatten)]
    pub entity: Entity,
    /// How a target is chosen.
    pub algorithm: &'static str,
    /// Whether requests find an address; known on a live node only.
    pub usable: Option<bool>,
    /// Its targets.
    pub targets: Listed<Target>,
}

/// One of the targets.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// The target; its name is host and port.
    #[serde(flatten)]
    pub entity: Entity,
    /// Its share; 0 takes it out.
    pub weight: u16,
    /// Its addresses; known on a live node only.
    pub addresses: Option<Vec<Address>>,
}

/// An address of a target.
#[derive(Clone, Debug, Serialize)]
pub struct Address {
    /// Nothing if the name does not resolve.
    pub address: Option<String>,
    /// `healthy`, `unhealthy`, `unchecked`, `unresolved`
    pub health: &'static str,
}

/// An entity that could not be taken up.
#[derive(Clone, Debug, Serialize)]
pub struct RejectedEntity {
    /// `route`, `plugin`, ...
    pub kind: String,
    /// Its workspace.
    pub workspace: String,
    /// Its id.
    pub id: Uuid,
    /// The event whose form could not be taken up.
    pub version: u64,
    /// Why.
    pub reason: String,
    /// Whether it takes part in its last good form.
    pub takes_part: bool,
}

impl RejectedEntity {
    pub(super) fn of(rejected: &Rejected, takes_part: bool) -> Self {
        let key = &rejected.key;
        Self {
            kind: key.kind.as_str().to_owned(),
            workspace: key.workspace.as_str().to_owned(),
            id: key.id.0,
            version: rejected.version.0,
            reason: rejected.reason.clone(),
            takes_part,
        }
    }
}

impl Entity {
    pub(super) fn new(
        kind: &'static str,
        workspace: &Workspace,
        id: Uuid,
        name: Option<&str>,
        version: sluice_schema::version::Version,
    ) -> Self {
        Self {
            kind,
            workspace: workspace.as_str().to_owned(),
            id,
            name: name.map(str::to_owned),
            version: version.0,
        }
    }
}
