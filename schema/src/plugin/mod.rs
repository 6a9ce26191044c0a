//! The configuration of each plugin: tables of fields, one file per plugin or per family of small ones.
//!
//! The tables say what Kong's plugins of the same name take, also of those no data plane of this build runs. They
//! hold no behaviour, but for what no data plane can do at all: that is refused when it is written, with the reason. There
//! is no Lua: `pre-function`, `post-function` and fields `..._by_lua` are refused; templates are those of
//! [`template`](crate::template).

mod acme;
mod ai;
mod auth;
mod cloud;
mod common;
mod function;
mod grpc;
mod guard;
mod llm;
mod log;
mod metrics;
mod oauth2;
mod proxy_cache;
mod rate_limiting;
mod redis;
mod response;
mod response_ratelimiting;
mod session;
mod tracing;
mod transformer;

use crate::field::{Check, Field, Literal};
use crate::kind::common::{HTTP_PROTOCOLS, PROTOCOL, PROTOCOLS_HTTP};

/// What the control plane knows about a plugin.
#[derive(Debug)]
pub struct PluginSchema {
    /// Its name.
    pub name: &'static str,
    /// Its `config` record.
    pub config: Field,
    /// Its `protocols` field: those it may run on.
    pub protocols: Field,
    /// The scopes it cannot have: `consumer`, `consumer_group`, `service`, `route`.
    pub no_scope: &'static [&'static str],
    /// Rules over several fields; paths begin with `config.`.
    pub checks: &'static [Check],
    /// Why no entity of it is taken, if none is.
    pub refused: Option<&'static str>,
}

impl PluginSchema {
    /// A plugin on HTTP requests, in any scope. Deprecated names and rules over the record as a whole are the
    /// config field's own.
    const fn new(name: &'static str, config: Field) -> Self {
        Self {
            name,
            config: config.required(),
            protocols: PROTOCOLS_HTTP,
            no_scope: &[],
            checks: &[],
            refused: None,
        }
    }

    /// A plugin on HTTP requests, in any scope, with these fields.
    const fn of(name: &'static str, fields: &'static [Field]) -> Self {
        Self::new(name, Self::config(fields))
    }

    /// The `config` record with these fields.
    const fn config(fields: &'static [Field]) -> Field {
        Field::record("config", fields)
    }

    /// Not per consumer or group of consumers.
    const fn no_consumer(mut self) -> Self {
        self.no_scope = &["consumer", "consumer_group"];
        self
    }

    /// For all requests or none.
    const fn global(mut self) -> Self {
        self.no_scope = &["consumer", "consumer_group", "service", "route"];
        self
    }

    /// May run on connections too; on HTTP requests unless told otherwise.
    const fn any_protocol(self) -> Self {
        self.any_protocol_by_default(HTTP_PROTOCOLS)
    }

    /// May run on connections too; on these protocols unless told otherwise.
    const fn any_protocol_by_default(mut self, protocols: &'static [&'static str]) -> Self {
        self.protocols = Field::set("protocols", &PROTOCOL)
            .required()
            .default(Literal::Texts(protocols));
        self
    }

    /// No entity of it is taken.
    const fn refused(mut self, reason: &'static str) -> Self {
        self.refused = Some(reason);
        self
    }

    /// Rules over several fields.
    const fn checks(mut self, checks: &'static [Check]) -> Self {
        self.checks = checks;
        self
    }
}

/// All plugins this build knows, by name.
pub static PLUGINS: &[&PluginSchema] = &[
    &auth::ACL,
    &acme::SCHEMA,
    &ai::PROMPT_DECORATOR,
    &ai::PROMPT_GUARD,
    &ai::PROMPT_TEMPLATE,
    &ai::PROXY,
    &ai::REQUEST_TRANSFORMER,
    &ai::RESPONSE_TRANSFORMER,
    &cloud::AWS_LAMBDA,
    &cloud::AZURE_FUNCTIONS,
    &auth::BASIC_AUTH,
    &guard::BOT_DETECTION,
    &tracing::CORRELATION_ID,
    &guard::CORS,
    &metrics::DATADOG,
    &log::FILE_LOG,
    &grpc::GATEWAY,
    &grpc::WEB,
    &auth::HMAC_AUTH,
    &log::HTTP_LOG,
    &guard::IP_RESTRICTION,
    &auth::JWT,
    &auth::KEY_AUTH,
    &auth::LDAP_AUTH,
    &log::LOGGLY,
    &oauth2::SCHEMA,
    &tracing::OPENTELEMETRY,
    &function::POST_FUNCTION,
    &function::PRE_FUNCTION,
    &metrics::PROMETHEUS,
    &proxy_cache::SCHEMA,
    &rate_limiting::SCHEMA,
    &response::REDIRECT,
    &guard::REQUEST_SIZE_LIMITING,
    &response::REQUEST_TERMINATION,
    &transformer::REQUEST,
    &response_ratelimiting::SCHEMA,
    &transformer::RESPONSE,
    &session::SCHEMA,
    &auth::STANDARD_WEBHOOKS,
    &metrics::STATSD,
    &log::SYSLOG,
    &log::TCP_LOG,
    &log::UDP_LOG,
    &tracing::ZIPKIN,
];

/// Those that entities may be of.
pub fn available() -> impl Iterator<Item = &'static PluginSchema> {
    PLUGINS
        .iter()
        .copied()
        .filter(|plugin| plugin.refused.is_none())
}

/// The plugin with this name.
pub fn plugin(name: &str) -> Option<&'static PluginSchema> {
    PLUGINS.iter().copied().find(|plugin| plugin.name == name)
}

#[cfg(test)]
mod tests;
