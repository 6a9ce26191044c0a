//! Plugins: behaviour a configuration adds to requests. One file per plugin.
//!
//! A plugin entity is compiled once, when it changes, into an [`Instance`]; the table holds instances and merges
//! them into the chain of a request. What must outlive a change of configuration (counters) is not here but in
//! [`State`], keyed by identity.

mod counters;
mod key_auth;
mod phase;
mod rate_limiting;

pub use counters::Counters;
pub use phase::{Access, Answer, Flow, Identity};

use schema::kind;
use schema::version::Version;
use sluice_schema as schema;
use std::sync::Arc;
use uuid::Uuid;

/// A plugin entity compiled for requests. Only enabled entities are compiled.
#[derive(Debug)]
pub struct Instance {
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote it.
    pub version: Version,
    /// Which plugin. At most one instance of a name runs per request.
    pub name: &'static str,
    /// Higher runs earlier; equal priorities run by name, descending.
    pub priority: i32,
    /// Scope.
    pub route: Option<Uuid>,
    /// Scope.
    pub service: Option<Uuid>,
    /// Scope.
    pub consumer: Option<Uuid>,
    /// The protocols it runs on.
    pub protocols: Protocols,
    /// Its prepared configuration.
    pub config: Prepared,
}

/// The plugins of this build, each with its configuration in the form its phases use.
#[derive(Debug)]
pub enum Prepared {
    /// `key-auth`
    KeyAuth(key_auth::Config),
    /// `rate-limiting`
    RateLimiting(rate_limiting::Config),
}

/// State of plugins that outlives configuration: keyed by plugin id and identity, bounded, shared by all workers.
#[derive(Debug, Default)]
pub struct State {
    /// Counters of fixed windows.
    pub counters: Counters,
}

/// The names of the plugins of this build.
pub const NAMES: [&str; 2] = ["key-auth", "rate-limiting"];

/// Why a plugin entity cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// This build has no such plugin.
    #[error("plugin `{name}` is not supported by this build")]
    Unsupported {
        /// The entity's `name`.
        name: String,
    },
    /// The configuration does not have the shape the plugin needs.
    #[error("the configuration of plugin `{name}` cannot be used")]
    Invalid {
        /// The entity's `name`.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Compiles a plugin entity.
///
/// # Errors
/// If the plugin is unknown or its configuration does not decode.
pub fn compile(
    id: Uuid,
    version: Version,
    plugin: &kind::Plugin,
) -> Result<Arc<Instance>, CompileError> {
    let (name, priority, config) = match plugin.name.as_str() {
        "key-auth" => {
            let config = key_auth::Config::compile(decode("key-auth", &plugin.config)?);
            ("key-auth", 1250, Prepared::KeyAuth(config))
        }
        "rate-limiting" => {
            let config = rate_limiting::Config::compile(decode("rate-limiting", &plugin.config)?);
            ("rate-limiting", 910, Prepared::RateLimiting(config))
        }
        other => {
            return Err(CompileError::Unsupported {
                name: other.to_owned(),
            });
        }
    };
    Ok(Arc::new(Instance {
        id,
        version,
        name,
        priority,
        route: plugin.route.map(|reference| reference.id),
        service: plugin.service.map(|reference| reference.id),
        consumer: plugin.consumer.map(|reference| reference.id),
        protocols: Protocols::parse(&plugin.protocols),
        config,
    }))
}

fn decode<T: serde::de::DeserializeOwned>(
    name: &'static str,
    config: &serde_json::Map<String, serde_json::Value>,
) -> Result<T, CompileError> {
    serde_json::from_value(serde_json::Value::Object(config.clone()))
        .map_err(|source| CompileError::Invalid { name, source })
}

impl Instance {
    /// The access phase: after routing, before the upstream is called.
    pub fn access(&self, request: &mut Access<'_, '_>) -> Flow {
        match &self.config {
            Prepared::KeyAuth(config) => config.access(request),
            Prepared::RateLimiting(config) => config.access(self.id, request),
        }
    }
}

/// A set of protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protocols(u16);

impl Protocols {
    /// Plain HTTP.
    pub const HTTP: Self = Self(1);
    /// HTTP over TLS.
    pub const HTTPS: Self = Self(1 << 1);
    /// gRPC.
    pub const GRPC: Self = Self(1 << 2);
    /// gRPC over TLS.
    pub const GRPCS: Self = Self(1 << 3);
    /// gRPC in clear or over TLS.
    pub const GRPC_ANY: Self = Self(Self::GRPC.0 | Self::GRPCS.0);
    /// A raw stream.
    pub const TCP: Self = Self(1 << 4);
    /// A stream over TLS.
    pub const TLS: Self = Self(1 << 5);
    /// Datagrams.
    pub const UDP: Self = Self(1 << 6);
    /// TLS relayed as it is.
    pub const TLS_PASSTHROUGH: Self = Self(1 << 7);
    /// WebSocket.
    pub const WS: Self = Self(1 << 8);
    /// WebSocket over TLS.
    pub const WSS: Self = Self(1 << 9);
    /// All that come as HTTP requests.
    pub const REQUESTS: Self =
        Self(Self::HTTP.0 | Self::HTTPS.0 | Self::GRPC_ANY.0 | Self::WS.0 | Self::WSS.0);

    /// The set of these names; names this build does not know are left out.
    pub fn parse(names: &[String]) -> Self {
        let known = [
            "http",
            "https",
            "grpc",
            "grpcs",
            "tcp",
            "tls",
            "udp",
            "tls_passthrough",
            "ws",
            "wss",
        ];
        let bit = |name: &String| known.iter().position(|known| known == name);
        Self(
            names
                .iter()
                .filter_map(bit)
                .fold(0, |set, bit| set | 1 << bit),
        )
    }

    /// Whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in this set.
    pub fn overlap(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}
