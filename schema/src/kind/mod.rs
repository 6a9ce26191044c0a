//! The kinds this build knows: for each its descriptor, the typed view the data plane decodes, and rules over several
//! fields.

mod certificate;
pub(crate) mod common;
mod consumer;
mod consumer_group;
mod credential;
mod filter_chain;
mod healthchecks;
mod key;
mod plugin;
mod route;
mod service;
mod upstream;
mod vault;
pub mod workspace;

pub use certificate::{CaCertificate, Certificate, Sni};
pub use consumer::Consumer;
pub use consumer_group::{ConsumerGroup, ConsumerGroupConsumer};
pub use credential::{
    Acl, BasicauthCredential, HmacauthCredential, JwtSecret, KeyauthCredential, Oauth2Credential,
    Oauth2Token, is_password,
};
pub use filter_chain::WASM_DISABLED;
pub use healthchecks::{
    ActiveChecks, ActiveHealthy, ActiveUnhealthy, Healthchecks, PassiveChecks, PassiveHealthy,
    PassiveUnhealthy,
};
pub use plugin::Plugin;
pub use route::{Endpoint, Route};
pub use service::Service;
pub use upstream::{HashFields, Target, Upstream};

use crate::check::{Errors, Shape, Values};
use crate::entity::{Id, KindName};
use crate::entropy::Entropy;
use crate::field::{Check, Field, Foreign, Type};
use crate::version::Time;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A kind this build knows. Parents come before those that refer to them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A certificate that is believed.
    CaCertificate,
    /// A certificate with its private key.
    Certificate,
    /// A server name that a certificate is shown for.
    Sni,
    /// An upstream application.
    Service,
    /// Which requests go to which service.
    Route,
    /// A virtual host that balances over targets.
    Upstream,
    /// One address of an upstream.
    Target,
    /// A user of services.
    Consumer,
    /// Users that are treated alike.
    ConsumerGroup,
    /// That a consumer belongs to a group.
    ConsumerGroupConsumer,
    /// Behaviour added to requests of a scope.
    Plugin,
    /// WebAssembly filters of a route or service.
    FilterChain,
    /// A store of secrets.
    Vault,
    /// Keys that belong together.
    KeySet,
    /// A public or private key.
    Key,
    /// A key-auth credential.
    KeyauthCredential,
    /// A name and password.
    BasicauthCredential,
    /// What a consumer's tokens are verified with.
    JwtSecret,
    /// What a consumer's signatures are verified with.
    HmacauthCredential,
    /// That a consumer has a group's rights.
    Acl,
    /// An OAuth 2.0 application.
    Oauth2Credential,
    /// An OAuth 2.0 token.
    Oauth2Token,
    /// A namespace for entities.
    Workspace,
}

impl Kind {
    /// All of them, parents before those that refer to them.
    pub const ALL: &[Self] = &[
        Self::CaCertificate,
        Self::Certificate,
        Self::Sni,
        Self::Service,
        Self::Route,
        Self::Upstream,
        Self::Target,
        Self::Consumer,
        Self::ConsumerGroup,
        Self::ConsumerGroupConsumer,
        Self::Plugin,
        Self::FilterChain,
        Self::Vault,
        Self::KeySet,
        Self::Key,
        Self::KeyauthCredential,
        Self::BasicauthCredential,
        Self::JwtSecret,
        Self::HmacauthCredential,
        Self::Acl,
        Self::Oauth2Credential,
        Self::Oauth2Token,
        Self::Workspace,
    ];

    /// Its name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CaCertificate => "ca_certificate",
            Self::Certificate => "certificate",
            Self::Sni => "sni",
            Self::Service => "service",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Target => "target",
            Self::Consumer => "consumer",
            Self::ConsumerGroup => "consumer_group",
            Self::ConsumerGroupConsumer => "consumer_group_consumer",
            Self::Plugin => "plugin",
            Self::FilterChain => "filter_chain",
            Self::Vault => "vault",
            Self::KeySet => "key_set",
            Self::Key => "key",
            Self::KeyauthCredential => "keyauth_credential",
            Self::BasicauthCredential => "basicauth_credential",
            Self::JwtSecret => "jwt_secret",
            Self::HmacauthCredential => "hmacauth_credential",
            Self::Acl => "acl",
            Self::Oauth2Credential => "oauth2_credential",
            Self::Oauth2Token => "oauth2_token",
            Self::Workspace => "workspace",
        }
    }

    /// Whether declarative files hold entities of this kind. A file is about the inside of one workspace.
    pub fn in_files(self) -> bool {
        self != Self::Workspace
    }

    /// Its name as part of an entity's key.
    pub const fn key_name(self) -> KindName {
        KindName::known(self.name())
    }

    /// The kind with this name in the log.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The kind with this plural name: `services`, `keyauth_credentials`.
    pub fn from_entity(entity: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.schema().entity == entity)
    }

    /// Its descriptor.
    pub fn schema(self) -> &'static Schema {
        match self {
            Self::CaCertificate => &certificate::CA_SCHEMA,
            Self::Certificate => &certificate::SCHEMA,
            Self::Sni => &certificate::SNI_SCHEMA,
            Self::Service => &service::SCHEMA,
            Self::Route => &route::SCHEMA,
            Self::Upstream => &upstream::SCHEMA,
            Self::Target => &upstream::TARGET_SCHEMA,
            Self::Consumer => &consumer::SCHEMA,
            Self::ConsumerGroup => &consumer_group::SCHEMA,
            Self::ConsumerGroupConsumer => &consumer_group::MEMBER_SCHEMA,
            Self::Plugin => &plugin::SCHEMA,
            Self::FilterChain => &filter_chain::SCHEMA,
            Self::Vault => &vault::SCHEMA,
            Self::KeySet => &key::SET_SCHEMA,
            Self::Key => &key::SCHEMA,
            Self::KeyauthCredential => &credential::KEYAUTH_SCHEMA,
            Self::BasicauthCredential => &credential::BASICAUTH_SCHEMA,
            Self::JwtSecret => &credential::JWT_SCHEMA,
            Self::HmacauthCredential => &credential::HMACAUTH_SCHEMA,
            Self::Acl => &credential::ACL_SCHEMA,
            Self::Oauth2Credential => &credential::OAUTH2_SCHEMA,
            Self::Oauth2Token => &credential::OAUTH2_TOKEN_SCHEMA,
            Self::Workspace => &workspace::SCHEMA,
        }
    }
}

/// The descriptor of a kind.
#[derive(Debug)]
pub struct Schema {
    /// The kind.
    pub kind: Kind,
    /// Kong's plural name, used in errors and declarative files.
    pub entity: &'static str,
    /// The collection's path; `None` if it is only reachable below a parent.
    pub path: Option<&'static str>,
    /// The collection's path below a parent; `None` if it has none.
    pub nested_path: Option<&'static str>,
    /// The unique field that may stand for the id in paths.
    pub endpoint_key: Option<&'static str>,
    /// The fields, without the id.
    pub fields: &'static [Field],
    /// Write-only fields that stand for others.
    pub shorthands: &'static [Field],
    /// The fields that name an entity which a file gives no id, in Kong's order; empty if the endpoint key does.
    pub cache_key: &'static [&'static str],
    /// Lists of ids of other entities.
    pub id_lists: &'static [IdList],
    /// The names of entities that refer to it, read and written with it.
    pub names: Option<&'static Names>,
    /// Other names and forms of lists of it inside an entity it refers to.
    pub inside: &'static [Inside],
    /// What must be unique in a workspace.
    pub unique: &'static [Unique],
    /// Rules over several fields.
    pub checks: &'static [Check],
    /// What of it depends on the entity's `name` or `protocols`.
    pub vary: Option<Vary>,
    /// The field another one depends on as a whole.
    pub variant: Option<Variant>,
    /// Expands shorthands and normalises texts, before anything is checked.
    pub prepare: Option<Prepare>,
    /// Rules that need the time, or what the entity was.
    pub verify: Option<Verify>,
    /// The last step on a valid entity.
    pub finish: Option<Finish>,
}

/// What routes may say: a setting of the control plane. Data planes run both kinds of routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RouterFlavor {
    /// Hosts, paths, methods, headers and so on.
    #[default]
    TraditionalCompatible,
    /// These, or an expression.
    Expressions,
}

impl RouterFlavor {
    /// The setting's name, as Kong has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TraditionalCompatible => "traditional_compatible",
            Self::Expressions => "expressions",
        }
    }

    /// The descriptor of a kind: differs for routes.
    pub fn schema(self, kind: Kind) -> &'static Schema {
        match (self, kind) {
            (Self::Expressions, Kind::Route) => &route::EXPRESSIONS,
            (Self::Expressions | Self::TraditionalCompatible, _) => kind.schema(),
        }
    }
}

impl std::str::FromStr for RouterFlavor {
    type Err = &'static str;

    /// Reads the setting `router_flavor`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "traditional_compatible" => Ok(Self::TraditionalCompatible),
            "expressions" => Ok(Self::Expressions),
            _ => Err("expected traditional_compatible or expressions"),
        }
    }
}

/// Adapts the shape of an entity to its fields; an error if it cannot be told.
pub type Vary = fn(&Map<String, Value>, &mut Shape) -> Result<(), Errors>;

/// Rewrites what a client gave.
pub type Prepare = fn(&mut Map<String, Value>, &mut Errors);
/// Rules on a completed body, given what it was before and the time.
pub type Verify = fn(&Map<String, Value>, Option<&Map<String, Value>>, Time, &mut Errors);
/// Rewrites a valid body.
pub type Finish = fn(&mut Map<String, Value>, Finishing<'_>);

/// What the last step on an entity goes by.
pub struct Finishing<'a> {
    /// What the client gave.
    pub given: &'a Map<String, Value>,
    /// The entity as it was.
    pub before: Option<&'a Map<String, Value>>,
    /// The time that lives count from.
    pub now: Time,
    /// The form of what the client gave.
    pub values: Values,
    /// For salts.
    pub entropy: &'a mut Entropy,
}

impl std::fmt::Debug for Finishing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What the client gave may be a password.
        f.write_str("Finishing")
    }
}

/// A field that lists ids of other entities. Such a field keeps them from being deleted.
#[derive(Clone, Copy, Debug)]
pub struct IdList {
    /// The field.
    pub field: &'static str,
    /// The kind referred to.
    pub kind: Kind,
    /// What that kind is called in messages.
    pub noun: &'static str,
}

/// A list of names that stands for entities of another kind: a certificate's `snis`. It is not stored.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The list, as clients write and read it.
    pub field: &'static Field,
    /// The kind of the named entities.
    pub child: Kind,
    /// Their field that refers back.
    pub by: &'static str,
    /// Their name.
    pub label: &'static str,
}

/// A list inside an entity in a declarative file whose items are only what the listed entities refer to besides: a
/// consumer's `groups`.
#[derive(Clone, Copy, Debug)]
pub struct Inside {
    /// The field that refers to the entity with the list.
    pub by: &'static str,
    /// The name of the list.
    pub list: &'static str,
    /// The field whose value an item is.
    pub item: &'static str,
}

impl Schema {
    /// A descriptor with nothing but names and fields; a kind's own file adds the rest.
    const fn new(kind: Kind, entity: &'static str, fields: &'static [Field]) -> Self {
        Self {
            kind,
            entity,
            path: Some(entity),
            nested_path: Some(entity),
            endpoint_key: Some("name"),
            fields,
            shorthands: &[],
            cache_key: &[],
            id_lists: &[],
            names: None,
            inside: &[],
            unique: &[],
            checks: &[],
            vary: None,
            variant: None,
            prepare: None,
            verify: None,
            finish: None,
        }
    }

    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The record that takes the place of the [`Type::Config`] field in an entity of this name.
    pub fn config(&self, name: &str) -> Option<&'static Field> {
        self.variant.and_then(|variant| (variant.config)(name))
    }

    /// All that `fields` refer to: field, kind and id.
    pub fn links(
        &self,
        fields: &Map<String, Value>,
    ) -> impl Iterator<Item = (&'static str, Kind, Id)> {
        let single = self.foreign().filter_map(|(name, foreign)| {
            let id = crate::state::reference_id(fields.get(name)?)?;
            Some((name, foreign.kind, id))
        });
        let listed = self.id_lists.iter().flat_map(|list| {
            let ids = fields.get(list.field).and_then(Value::as_array);
            ids.into_iter().flatten().filter_map(|id| {
                let id = Uuid::try_parse(id.as_str()?).ok()?;
                Some((list.field, list.kind, Id(id)))
            })
        });
        single.chain(listed)
    }

    /// The fields that refer to other entities.
    pub fn foreign(&self) -> impl Iterator<Item = (&'static str, &'static Foreign)> + use<> {
        self.fields.iter().filter_map(|field| match &field.kind {
            Type::Foreign(foreign) => Some((field.name, foreign)),
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Array(_)
            | Type::Set(_)
            | Type::Map { .. }
            | Type::Record(_)
            | Type::Config
            | Type::Json => None,
        })
    }
}

/// A set of fields whose values no two entities of a workspace share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unique {
    /// Its name among those of the kind.
    pub name: &'static str,
    /// The fields.
    pub fields: &'static [&'static str],
    /// What a field without a value means.
    pub nulls: Nulls,
}

impl Unique {
    /// A single unique field that may be null.
    const fn field(name: &'static str, fields: &'static [&'static str]) -> Self {
        Self {
            name,
            fields,
            nulls: Nulls::Distinct,
        }
    }
}

/// What a null means in a [`Unique`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nulls {
    /// The entity is not bound by it.
    Distinct,
    /// A value like another.
    Equal,
}

/// A record whose fields depend on the value of another field: a plugin's `config` on its `name`.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The field that decides.
    pub key: &'static str,
    /// The record.
    pub record: &'static str,
    /// Its fields, by the value of the other.
    pub config: fn(&str) -> Option<&'static Field>,
}

impl Variant {
    /// Whether `input` gives the key another value than `before` has.
    pub(crate) fn changes(&self, before: &Map<String, Value>, input: &Map<String, Value>) -> bool {
        input
            .get(self.key)
            .is_some_and(|key| before.get(self.key) != Some(key))
    }

    /// `before` without the record, which no longer belongs. Unless `input` brings a new one, the old one becomes
    /// part of the input, so that it is checked by the new rules.
    pub(crate) fn separate(
        &self,
        before: &Map<String, Value>,
        input: &mut Map<String, Value>,
    ) -> Map<String, Value> {
        let mut rest = before.clone();
        if let Some(record) = rest.remove(self.record) {
            input.entry(self.record).or_insert(record);
        }
        rest
    }
}

/// A reference to another entity: `{"id": "<uuid>"}` in bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Reference {
    /// The UUID of the entity referred to.
    pub id: Uuid,
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Bodies hold UUIDs as text also in MessagePack, where uuid's own Deserialize expects 16 bytes.
        #[derive(Deserialize)]
        struct Text<'a> {
            #[serde(borrow)]
            id: std::borrow::Cow<'a, str>,
        }
        let text = Text::deserialize(deserializer)?;
        let id = Uuid::try_parse(&text.id).map_err(de::Error::custom)?;
        Ok(Self { id })
    }
}

#[cfg(test)]
mod tests;
