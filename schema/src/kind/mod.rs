//! The kinds this build knows: for each its descriptor, the typed view the data plane decodes, and rules over several
//! fields.

pub(crate) mod common;
mod consumer;
mod credential;
mod plugin;
mod route;
mod service;
mod upstream;

pub use consumer::Consumer;
pub use credential::KeyauthCredential;
pub use plugin::Plugin;
pub use route::Route;
pub use service::Service;
pub use upstream::{Target, Upstream};

use crate::check::{Errors, Shape};
use crate::entity::KindName;
use crate::field::{Check, Field, Foreign, Type};
use crate::version::Time;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A kind this build knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
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
    /// Behaviour added to requests of a scope.
    Plugin,
    /// A key-auth credential.
    KeyauthCredential,
}

impl Kind {
    /// All of them, parents before those that refer to them.
    pub const ALL: &[Self] = &[
        Self::Service,
        Self::Route,
        Self::Upstream,
        Self::Target,
        Self::Consumer,
        Self::Plugin,
        Self::KeyauthCredential,
    ];

    /// Its name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Target => "target",
            Self::Consumer => "consumer",
            Self::Plugin => "plugin",
            Self::KeyauthCredential => "keyauth_credential",
        }
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
            Self::Service => &service::SCHEMA,
            Self::Route => &route::SCHEMA,
            Self::Upstream => &upstream::SCHEMA,
            Self::Target => &upstream::TARGET_SCHEMA,
            Self::Consumer => &consumer::SCHEMA,
            Self::Plugin => &plugin::SCHEMA,
            Self::KeyauthCredential => &credential::KEYAUTH_SCHEMA,
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
    /// The collection's path below a parent.
    pub nested_path: &'static str,
    /// The unique field that may stand for the id in paths.
    pub endpoint_key: Option<&'static str>,
    /// The fields, without the id.
    pub fields: &'static [Field],
    /// Write-only fields that stand for others.
    pub shorthands: &'static [Field],
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
    /// The last step on a valid entity: the body, and what the client gave.
    pub finish: Option<Finish>,
}

/// Adapts the shape of an entity to its fields; an error if it cannot be told.
pub type Vary = fn(&Map<String, Value>, &mut Shape) -> Result<(), Errors>;

/// Rewrites what a client gave.
pub type Prepare = fn(&mut Map<String, Value>, &mut Errors);
/// Rewrites a valid body, given what the client gave and the time.
pub type Finish = fn(&mut Map<String, Value>, &Map<String, Value>, Time);

impl Schema {
    /// A descriptor with nothing but names and fields; a kind's own file adds the rest.
    const fn new(kind: Kind, entity: &'static str, fields: &'static [Field]) -> Self {
        Self {
            kind,
            entity,
            path: Some(entity),
            nested_path: entity,
            endpoint_key: Some("name"),
            fields,
            shorthands: &[],
            unique: &[],
            checks: &[],
            vary: None,
            variant: None,
            prepare: None,
            finish: None,
        }
    }

    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
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
            | Type::ForeignUnknown(_)
            | Type::Config => None,
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
