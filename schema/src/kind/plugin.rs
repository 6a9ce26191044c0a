//! Plugins: behaviour added to requests of a scope.

use super::Reference;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields of a plugin entity. Without any reference it is global.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Plugin {
    /// Which plugin.
    pub name: String,
    /// A unique name of this instance.
    pub instance_name: Option<String>,
    /// Scope.
    pub route: Option<Reference>,
    /// Scope.
    pub service: Option<Reference>,
    /// Scope.
    pub consumer: Option<Reference>,
    /// Per plugin; see the schema's `plugin` module.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// The protocols it runs on.
    pub protocols: Vec<String>,
    /// Whether it runs.
    pub enabled: bool,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration may hold secrets.
        f.debug_struct("Plugin").field("name", &self.name).finish_non_exhaustive()
    }
}
