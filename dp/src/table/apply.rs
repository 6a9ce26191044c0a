//! From one version of the table to the next.

use super::certificate::{Authority, Certificate};
use super::entity::{Consumer, Origin, Service};
use super::plugins::Bound;
use super::route::Route;
use super::upstream::{Target, Upstream};
use super::{Rejected, Table, Touched};
use crate::plugin::{Entity, Protocols, Stamp};
use serde::Deserialize;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::kind::{self, Kind};
use sluice_schema::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use uuid::Uuid;

/// Longest reason kept, in bytes.
const REASON_BYTES_MAX: usize = 500;
const UDP: &str = "this data plane does not serve udp: no datagram reaches the route";
const SERVICE: &str = "service";

impl Table {
    /// The table after `changes`, which may come in any order. An entity that cannot be compiled keeps its last good
    /// form, or stays out if it is new, and is listed.
    #[must_use]
    pub fn apply(&self, version: Version, changes: &[Change]) -> (Self, Vec<Rejected>) {
        let mut table = self.clone();
        table.version = version;
        let mut rejected = BTreeMap::new();
        // Filled from their targets once, after all changes.
        let mut refill = BTreeSet::new();
        // Or the keys of secrets.
        let mut vaults_changed = table.vaults.take_ring();
        for change in changes {
            // Kinds this build does not know have no part in serving requests.
            let Some(kind) = Kind::from_name(change.key.kind.as_str()) else {
                continue;
            };
            vaults_changed |= kind == Kind::Vault;
            match &change.after {
                Some(entry) => {
                    let outcome = table.put(kind, &change.key, entry, &mut refill);
                    let rejection = table.note(&change.key, entry, outcome);
                    rejected.extend(rejection.map(|rejection| (change.key.clone(), rejection)));
                }
                None => {
                    table.remove(kind, change.key.id.0, &mut refill);
                    table.vaults.forget(&change.key);
                    table.accept(&change.key);
                }
            }
        }
        if vaults_changed {
            for (key, kind, entry) in table.vaults.referring() {
                let outcome = table.put(kind, &key, &entry, &mut refill);
                match table.note(&key, &entry, outcome) {
                    Some(rejection) => rejected.insert(key, rejection),
                    None => rejected.remove(&key),
                };
            }
        }
        table.note_rewrites();
        let services = changes
            .iter()
            .filter(|change| change.key.kind.as_str() == SERVICE);
        let services = services.map(|change| Touched::Service(change.key.id.0));
        let upstreams = refill.iter().map(|id| Touched::Upstream(*id));
        table.touched = services.chain(upstreams).collect();
        refill
            .into_iter()
            .for_each(|upstream| table.refill(upstream));
        (table, rejected.into_values().collect())
    }

    /// Notes what came of an entity. Gives it back if it was rejected.
    fn note(&mut self, key: &Key, entry: &Entry, outcome: Result<(), String>) -> Option<Rejected> {
        let Err(reason) = outcome else {
            self.accept(key);
            return None;
        };
        let refusal = Rejected {
            key: key.clone(),
            version: entry.version,
            reason: shorten(reason),
        };
        self.rejected.insert(key.clone(), Arc::new(refusal.clone()));
        Some(refusal)
    }

    fn accept(&mut self, key: &Key) {
        if !self.rejected.is_empty() {
            self.rejected.remove(key);
        }
    }

    fn put(
        &mut self,
        kind: Kind,
        key: &Key,
        entry: &Entry,
        refill: &mut BTreeSet<Uuid>,
    ) -> Result<(), String> {
        let origin = Origin {
            id: key.id.0,
            version: entry.version,
            workspace: &key.workspace,
        };
        let entry = &*self.vaults.open(kind, key, entry)?;
        let held = &mut self.credentials;
        match kind {
            Kind::Service => {
                let service = Service::compile(origin, decode(entry)?)?;
                self.services.insert(origin.id, Arc::new(service));
            }
            Kind::Route => {
                let route = Route::compile(origin, decode(entry)?, self.router.regexes())?;
                if route.protocols == Protocols::UDP {
                    return Err(UDP.to_owned());
                }
                self.put_route(route);
            }
            Kind::Upstream => {
                let upstream = Upstream::compile(origin, decode(entry)?)?;
                self.remove(kind, origin.id, refill);
                self.upstream_names
                    .insert(origin.workspace, &upstream.name, origin.id);
                self.upstreams.insert(origin.id, Arc::new(upstream));
                refill.insert(origin.id);
            }
            Kind::Target => self.put_target(origin, &decode(entry)?, refill)?,
            Kind::Consumer => self.put_consumer(Consumer::compile(origin, decode(entry)?)),
            Kind::Plugin => {
                self.put_plugin(origin, &decode_secret(entry)?, entry.body.as_bytes())?;
            }
            Kind::KeyauthCredential => held.keys.insert(origin, decode_secret(entry)?),
            Kind::BasicauthCredential => held.basic.insert(origin, decode_secret(entry)?),
            Kind::JwtSecret => held.jwt.insert(origin, decode_secret(entry)?),
            Kind::HmacauthCredential => held.hmac.insert(origin, decode_secret(entry)?),
            Kind::Oauth2Credential => held.applications.insert(origin, decode_secret(entry)?),
            Kind::Oauth2Token => held.tokens.insert(origin, decode_secret(entry)?),
            Kind::Acl => {
                let fields: kind::Acl = decode(entry)?;
                let group = Arc::from(fields.group);
                self.acls.join(origin.id, group, fields.consumer.id);
            }
            Kind::ConsumerGroup => {
                let fields: kind::ConsumerGroup = decode(entry)?;
                self.groups.insert(origin.id, &fields.name);
            }
            Kind::ConsumerGroupConsumer => {
                let fields: kind::ConsumerGroupConsumer = decode(entry)?;
                let (group, consumer) = (fields.consumer_group.id, fields.consumer.id);
                self.groups.members.join(origin.id, group, consumer);
            }
            Kind::Certificate => {
                let certificate = Certificate::compile(&decode_secret(entry)?)?;
                self.certificates.insert(origin.id, Arc::new(certificate));
            }
            Kind::Sni => self.snis.insert(origin, &decode(entry)?),
            Kind::CaCertificate => {
                let authority = Authority::compile(&decode(entry)?)?;
                self.authorities.insert(origin.id, Arc::new(authority));
            }
            Kind::Vault => self
                .vaults
                .insert(origin.id, origin.workspace, decode(entry)?),
            // Not used by any plugin that runs here.
            Kind::FilterChain | Kind::KeySet | Kind::Key | Kind::Workspace => {}
        }
        Ok(())
    }

    fn put_target(
        &mut self,
        origin: Origin<'_>,
        fields: &kind::Target,
        refill: &mut BTreeSet<Uuid>,
    ) -> Result<(), String> {
        let target = Arc::new(Target::compile(origin, fields)?);
        self.remove(Kind::Target, origin.id, refill);
        let upstream = fields.upstream.id;
        self.targets
            .entry(upstream)
            .or_default()
            .insert(origin.id, target);
        self.target_upstreams.insert(origin.id, upstream);
        refill.insert(upstream);
        Ok(())
    }

    fn put_route(&mut self, mut route: Route) {
        self.router.intern(&mut route.criteria);
        let route = Arc::new(route);
        if let Some(before) = self.routes.insert(route.id, Arc::clone(&route)) {
            self.router.remove(&before);
        }
        self.router.insert(&route);
    }

    fn put_plugin(
        &mut self,
        origin: Origin<'_>,
        fields: &kind::Plugin,
        body: &[u8],
    ) -> Result<(), String> {
        if !fields.enabled {
            let id = |reference: &Option<kind::Reference>| reference.as_ref().map(|one| one.id);
            let bound = Bound {
                route: id(&fields.route),
                service: id(&fields.service),
                consumer: id(&fields.consumer),
                consumer_group: id(&fields.consumer_group),
            };
            let named = (&*fields.name, bound);
            self.plugins
                .disable(origin.id, origin.version, origin.workspace, named);
            return Ok(());
        }
        let entity = Entity {
            id: origin.id,
            stamp: Stamp::of(origin.id, origin.version, body),
            workspace: origin.workspace,
            fields,
        };
        let instance = self.registry.compile(&entity);
        // Without its source, which may quote the configuration.
        let instance = instance.map_err(|error| error.to_string())?;
        self.plugins.insert(origin.workspace, instance);
        Ok(())
    }

    fn remove(&mut self, kind: Kind, id: Uuid, refill: &mut BTreeSet<Uuid>) {
        match kind {
            Kind::Service => {
                self.services.remove(&id);
            }
            Kind::Route => {
                if let Some(route) = self.routes.remove(&id) {
                    self.router.remove(&route);
                }
            }
            Kind::Upstream => {
                if let Some(upstream) = self.upstreams.remove(&id) {
                    self.upstream_names
                        .remove(&upstream.workspace, &upstream.name, id);
                    refill.insert(id);
                }
            }
            Kind::Target => {
                let Some(upstream) = self.target_upstreams.remove(&id) else {
                    return;
                };
                if let Some(targets) = self.targets.get_mut(&upstream) {
                    targets.remove(&id);
                    if targets.is_empty() {
                        self.targets.remove(&upstream);
                    }
                }
                refill.insert(upstream);
            }
            Kind::Consumer => self.remove_consumer(id),
            Kind::Plugin => self.plugins.remove(id),
            Kind::KeyauthCredential => self.credentials.keys.remove(id),
            Kind::BasicauthCredential => self.credentials.basic.remove(id),
            Kind::JwtSecret => self.credentials.jwt.remove(id),
            Kind::HmacauthCredential => self.credentials.hmac.remove(id),
            Kind::Oauth2Credential => self.credentials.applications.remove(id),
            Kind::Oauth2Token => self.credentials.tokens.remove(id),
            Kind::Acl => self.acls.leave(id),
            Kind::ConsumerGroup => self.groups.remove(id),
            Kind::ConsumerGroupConsumer => self.groups.members.leave(id),
            Kind::Certificate => {
                self.certificates.remove(&id);
            }
            Kind::Sni => self.snis.remove(id),
            Kind::CaCertificate => {
                self.authorities.remove(&id);
            }
            Kind::Vault => self.vaults.remove(id),
            // Not used by any plugin that runs here.
            Kind::FilterChain | Kind::KeySet | Kind::Key | Kind::Workspace => {}
        }
    }

    fn put_consumer(&mut self, consumer: Consumer) {
        self.remove_consumer(consumer.id);
        if let Some(username) = &consumer.username {
            self.consumer_names
                .insert(&consumer.workspace, username, consumer.id);
        }
        self.consumers.insert(consumer.id, Arc::new(consumer));
    }

    fn remove_consumer(&mut self, id: Uuid) {
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        if let Some(username) = &consumer.username {
            self.consumer_names
                .remove(&consumer.workspace, username, id);
        }
    }

    /// Gives an upstream its targets as they are now.
    fn refill(&mut self, id: Uuid) {
        let Some(upstream) = self.upstreams.get(&id) else {
            return;
        };
        let mut targets: Vec<_> = self
            .targets
            .get(&id)
            .into_iter()
            .flat_map(|targets| targets.values().cloned())
            .collect();
        targets.sort_unstable();
        let upstream = Upstream {
            targets: targets.into(),
            ..Upstream::clone(upstream)
        };
        self.upstreams.insert(id, Arc::new(upstream));
    }
}

fn decode<'a, T: Deserialize<'a>>(entry: &'a Entry) -> Result<T, String> {
    entry.body.view().map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// For kinds whose fields may be secret: a decoder's message can quote them.
fn decode_secret<'a, T: Deserialize<'a>>(entry: &'a Entry) -> Result<T, String> {
    entry.body.view().map_err(|error| error.to_string())
}

fn shorten(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX)
            .rev()
            .find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or_default());
    }
    reason
}
