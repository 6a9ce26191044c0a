//! The configuration compiled for requests: immutable, persistent, replaced one entity at a time.
//!
//! A [`Table`] holds one version. [`Table::apply`] gives the next one, sharing all that did not change; a clone costs
//! a few reference counts. Entities refer to each other by id and are resolved when a request needs them, so an edit
//! touches the entity's own entry only. No IO, no clock; nothing here can fail or panic on what the log holds: an
//! entity that cannot be compiled keeps its last good form and is listed as [`Rejected`].

mod apply;
mod certificate;
mod checks;
mod credential;
mod entity;
mod groups;
mod index;
mod names;
mod path;
mod plugins;
mod route;
mod router;
#[cfg(test)]
mod tests;
mod upstream;
mod vaults;

pub use certificate::{Authority, Certificate, CertificateFault, Fingerprint};
pub use checks::{Active, Checks, Limits, Passive, ProbeProtocol, Statuses};
pub use credential::Credential;
pub use entity::{Consumer, Protocol, Service};
pub use path::{PathError, canonical_path, upstream_path};
pub use plugins::Chain;
pub(crate) use plugins::{Bound, Considered, Disabled};
pub use route::Route;
pub use router::{Captures, Match, RequestHead, StreamHead, StreamProtocol};
pub(crate) use router::{Misfit, Ranking};
pub use upstream::{Algorithm, Hash, HashOn, Target, Upstream};
pub use vaults::Variables;

use crate::plugin::{self, Instance, Phases, Registry};
use certificate::Snis;
use credential::Credentials;
use groups::{Groups, Memberships};
use imbl::{HashMap, OrdMap};
use names::Names;
use plugins::{Plugins, Scope};
use router::Router;
use sluice_schema::entity::{Key, Workspace};
use sluice_schema::kind;
use sluice_schema::seal::Seals;
use sluice_schema::version::Version;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;
use vaults::Vaults;

/// The configuration at one version, compiled.
#[derive(Clone)]
pub struct Table {
    version: Version,
    router: Router,
    routes: OrdMap<Uuid, Arc<Route>>,
    services: HashMap<Uuid, Arc<Service>>,
    upstreams: HashMap<Uuid, Arc<Upstream>>,
    upstream_names: Names,
    /// By upstream, whether or not it is here yet.
    targets: HashMap<Uuid, OrdMap<Uuid, Arc<Target>>>,
    /// The upstream of each target.
    target_upstreams: OrdMap<Uuid, Uuid>,
    consumers: HashMap<Uuid, Arc<Consumer>>,
    consumer_names: Names,
    groups: Groups,
    credentials: Credentials,
    /// The groups of consumers by access lists.
    acls: Memberships<Arc<str>>,
    certificates: HashMap<Uuid, Arc<Certificate>>,
    snis: Snis,
    authorities: HashMap<Uuid, Arc<Authority>>,
    plugins: Plugins,
    /// Whether a request must be shown to a plugin before it is routed.
    rewrites: bool,
    vaults: Vaults,
    /// The plugins that entities can name.
    registry: Registry,
    rejected: OrdMap<Key, Arc<Rejected>>,
    touched: Arc<[Touched]>,
}

/// What names addresses, and has been put or removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Touched {
    /// A service.
    Service(Uuid),
    /// An upstream, or a target of it.
    Upstream(Uuid),
}

/// An entity that could not be compiled; what was there before still serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// The entity.
    pub key: Key,
    /// The event that last wrote it.
    pub version: Version,
    /// Why.
    pub reason: String,
}

impl Table {
    /// No configuration.
    pub fn empty() -> Self {
        Self::default()
    }

    /// No configuration, for a build with other plugins than the standard ones.
    pub fn with_plugins(registry: Registry) -> Self {
        Self {
            registry,
            ..Self::default()
        }
    }

    /// No configuration, with the variables that entities may refer to, and what their secrets are sealed with.
    pub fn with_secrets(variables: Variables, seals: Seals) -> Self {
        Self {
            vaults: Vaults::new(variables, seals),
            ..Self::default()
        }
    }

    /// No configuration, for the same plugins, with the same variables and keys of secrets.
    #[must_use]
    pub fn cleared(&self) -> Self {
        Self {
            registry: self.registry,
            vaults: self.vaults.cleared(),
            ..Self::default()
        }
    }

    /// The plugins that entities can name.
    pub fn registry(&self) -> Registry {
        self.registry
    }

    /// The last version applied.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The entities that could not be compiled when they last changed.
    pub fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        self.rejected.values().map(|rejected| &**rejected)
    }

    /// The route a request belongs to.
    pub fn find(&self, request: &RequestHead<'_>) -> Option<Match> {
        self.router.find(request)
    }

    /// The route a connection that is no HTTP belongs to.
    pub fn find_stream(&self, stream: &StreamHead<'_>) -> Option<Match> {
        self.router.find_stream(stream)
    }

    /// What all routes say to a request, at most so many of each kind. Linear in the routes.
    pub(crate) fn ranking(&self, request: &RequestHead<'_>, listed_max: usize) -> Ranking {
        Ranking::of(self.routes.values(), request, listed_max)
    }

    /// A route by id.
    pub fn route(&self, id: Uuid) -> Option<&Arc<Route>> {
        self.routes.get(&id)
    }

    /// A service by id.
    pub fn service(&self, id: Uuid) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// The upstream a service's host names.
    pub fn upstream(&self, workspace: &Workspace, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams
            .get(&self.upstream_names.find(workspace, name)?)
    }

    /// An upstream by id.
    pub fn upstream_by_id(&self, id: Uuid) -> Option<&Arc<Upstream>> {
        self.upstreams.get(&id)
    }

    /// What the last [`Table::apply`] put or removed.
    pub fn touched(&self) -> &[Touched] {
        &self.touched
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// All upstreams, in no particular order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// A consumer by id.
    pub fn consumer(&self, id: Uuid) -> Option<&Arc<Consumer>> {
        self.consumers.get(&id)
    }

    /// A consumer by id or username, as the `anonymous` field of plugins gives it.
    pub fn consumer_named(
        &self,
        workspace: &Workspace,
        name_or_id: &str,
    ) -> Option<&Arc<Consumer>> {
        let by_id = Uuid::try_parse(name_or_id)
            .ok()
            .and_then(|id| self.consumer(id));
        by_id
            .filter(|consumer| consumer.workspace == *workspace)
            .or_else(|| self.consumer(self.consumer_names.find(workspace, name_or_id)?))
    }

    /// The key-auth credential a key may belong to. It was found by a hash: the caller compares the keys in constant time.
    pub fn key_credential(
        &self,
        workspace: &Workspace,
        key: &str,
    ) -> Option<&Arc<Credential<kind::KeyauthCredential>>> {
        self.credentials.keys.find(workspace, key)
    }

    /// The basic-auth credential of a username.
    pub fn basic_credential(
        &self,
        workspace: &Workspace,
        username: &str,
    ) -> Option<&Arc<Credential<kind::BasicauthCredential>>> {
        self.credentials.basic.find(workspace, username)
    }

    /// The jwt credential of a key, which tokens name in a claim.
    pub fn jwt_credential(
        &self,
        workspace: &Workspace,
        key: &str,
    ) -> Option<&Arc<Credential<kind::JwtSecret>>> {
        self.credentials.jwt.find(workspace, key)
    }

    /// The hmac-auth credential of a username.
    pub fn hmac_credential(
        &self,
        workspace: &Workspace,
        username: &str,
    ) -> Option<&Arc<Credential<kind::HmacauthCredential>>> {
        self.credentials.hmac.find(workspace, username)
    }

    /// The OAuth 2.0 application of a client id.
    pub fn oauth2_application(
        &self,
        workspace: &Workspace,
        client_id: &str,
    ) -> Option<&Arc<Credential<kind::Oauth2Credential>>> {
        self.credentials.applications.find(workspace, client_id)
    }

    /// An OAuth 2.0 application by id.
    pub fn oauth2_application_by_id(
        &self,
        id: Uuid,
    ) -> Option<&Arc<Credential<kind::Oauth2Credential>>> {
        self.credentials.applications.get(id)
    }

    /// The OAuth 2.0 token a text may be. It was found by a hash: the caller compares the tokens in constant time.
    pub fn oauth2_token(
        &self,
        workspace: &Workspace,
        token: &str,
    ) -> Option<&Arc<Credential<kind::Oauth2Token>>> {
        self.credentials.tokens.find(workspace, token)
    }

    /// The groups of a consumer by access lists, in no particular order.
    pub fn acl_groups(&self, consumer: Uuid) -> &[Arc<str>] {
        self.acls.of(consumer)
    }

    /// The groups of a consumer that plugins can be bound to: names and ids, by name.
    pub fn consumer_groups(&self, consumer: Uuid) -> Vec<(&str, Uuid)> {
        self.groups.of(consumer)
    }

    /// A certificate by id.
    pub fn certificate(&self, id: Uuid) -> Option<&Arc<Certificate>> {
        self.certificates.get(&id)
    }

    /// The certificate for a client that asks for this server name: of that name, of a wildcard for its first label,
    /// of one for its last, of `*`.
    pub fn certificate_for(&self, server_name: &str) -> Option<&Arc<Certificate>> {
        self.snis
            .find(server_name)
            .find_map(|id| self.certificate(id))
    }

    /// An authority by the id of its certificate.
    pub fn authority(&self, id: Uuid) -> Option<&Arc<Authority>> {
        self.authorities.get(&id)
    }

    /// The plugins for a request on these entities, in the order in which they run. The route says which workspace's
    /// global plugins run; without one there are none.
    pub fn scoped(
        &self,
        route: Option<Uuid>,
        service: Option<Uuid>,
        consumer: Option<Uuid>,
    ) -> Chain {
        let workspace = route
            .filter(|_| self.plugins.has_global())
            .and_then(|id| self.route(id))
            .map(|route| &route.workspace);
        let scope = Scope {
            route,
            service,
            consumer,
            group: None,
        };
        self.plugins
            .chain(workspace, &scope, &self.groups_of(consumer))
    }

    /// The plugins for a request on a route that is at hand: [`Table::scoped`] without looking the route up.
    pub fn chain(&self, route: &Route, consumer: Option<Uuid>) -> Chain {
        let scope = Scope {
            route: Some(route.id),
            service: route.service,
            consumer,
            group: None,
        };
        let groups = self.groups_of(consumer);
        self.plugins.chain(Some(&route.workspace), &scope, &groups)
    }

    /// The global plugins of a workspace.
    pub fn global_chain(&self, workspace: &Workspace) -> Chain {
        self.plugins.global(workspace)
    }

    /// Whether there are global plugins of the default workspace with a part before routing.
    pub(crate) fn rewrites(&self) -> bool {
        self.rewrites
    }

    /// What of the plugins is not the same in `next`: the instances before and after.
    pub(crate) fn plugin_changes<'a>(
        &'a self,
        next: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Instance>, Option<&'a Instance>)> {
        self.plugins.changes(&next.plugins)
    }

    /// The groups of a consumer, if any plugin asks for them.
    fn groups_of(&self, consumer: Option<Uuid>) -> Vec<(&str, Uuid)> {
        let consumer = consumer.filter(|_| self.plugins.has_grouped());
        consumer.map_or_else(Vec::new, |id| self.groups.of(id))
    }

    /// Notes what is asked of every request.
    fn note_rewrites(&mut self) {
        let global = self.plugins.global(&Workspace::DEFAULT);
        self.rewrites = global.phases().overlap(Phases::REWRITE);
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            version: Version::ZERO,
            router: Router::default(),
            routes: OrdMap::default(),
            services: HashMap::default(),
            upstreams: HashMap::default(),
            upstream_names: Names::default(),
            targets: HashMap::default(),
            target_upstreams: OrdMap::default(),
            consumers: HashMap::default(),
            consumer_names: Names::default(),
            groups: Groups::default(),
            credentials: Credentials::default(),
            acls: Memberships::default(),
            certificates: HashMap::default(),
            snis: Snis::default(),
            authorities: HashMap::default(),
            plugins: Plugins::default(),
            rewrites: false,
            vaults: Vaults::default(),
            registry: plugin::STANDARD,
            rejected: OrdMap::default(),
            touched: Arc::default(),
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("version", &self.version)
            .field("routes", &self.routes.len())
            .field("services", &self.services.len())
            .field("rejected", &self.rejected.len())
            .finish_non_exhaustive()
    }
}
