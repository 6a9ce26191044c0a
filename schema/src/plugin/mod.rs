//! The configuration of each plugin: one file per plugin, one table of fields in it.

mod key_auth;
mod rate_limiting;

use crate::field::{Check, Field};

/// What the control plane knows about a plugin.
#[derive(Debug)]
pub struct PluginSchema {
    /// Its name.
    pub name: &'static str,
    /// Its `config` record.
    pub config: Field,
    /// Its `protocols` field, if it runs on others than HTTP requests.
    pub protocols: Option<Field>,
    /// The scopes it cannot have: `consumer`, `consumer_group`, `service`, `route`.
    pub no_scope: &'static [&'static str],
    /// Rules over several fields; paths begin with `config.`.
    pub checks: &'static [Check],
}

impl PluginSchema {
    /// A plugin on HTTP requests, in any scope. Deprecated names and rules over the record as a whole are the
    /// config field's own.
    const fn new(name: &'static str, config: Field) -> Self {
        Self {
            name,
            config: config.required(),
            protocols: None,
            no_scope: &[],
            checks: &[],
        }
    }

    /// The `config` record with these fields.
    const fn config(fields: &'static [Field]) -> Field {
        Field::record("config", fields)
    }

    /// Not per consumer, nor per group of them: it is what finds the consumer.
    const fn no_consumer(mut self) -> Self {
        self.no_scope = &["consumer", "consumer_group"];
        self
    }

    /// Rules over several fields.
    const fn checks(mut self, checks: &'static [Check]) -> Self {
        self.checks = checks;
        self
    }
}

/// All plugins this build knows, by name.
pub static PLUGINS: &[&PluginSchema] = &[&key_auth::SCHEMA, &rate_limiting::SCHEMA];

/// The plugin with this name.
pub fn plugin(name: &str) -> Option<&'static PluginSchema> {
    PLUGINS.iter().copied().find(|plugin| plugin.name == name)
}

#[cfg(test)]
mod tests;
