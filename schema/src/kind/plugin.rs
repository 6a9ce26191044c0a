//! Plugins: behaviour added to requests of a scope.

use super::common::{CREATED_AT, NAME, PROTOCOL, TAGS, UPDATED_AT};
use super::{Kind, Nulls, Reference, Schema, Unique, Variant};
use crate::check::{Errors, Shape};
use crate::field::{Field, Literal, OnDelete, Type};
use crate::plugin;
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
    /// Scope.
    pub consumer_group: Option<Reference>,
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
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub(super) static SCHEMA: Schema = Schema {
    endpoint_key: Some("instance_name"),
    cache_key: &["name", "route", "service", "consumer"],
    unique: &[
        Unique::field("instance_name", &["instance_name"]),
        Unique {
            name: "scope",
            fields: &["name", "route", "service", "consumer", "consumer_group"],
            nulls: Nulls::Equal,
        },
    ],
    vary: Some(vary),
    variant: Some(Variant {
        key: "name",
        record: "config",
        config,
    }),
    ..Schema::new(Kind::Plugin, "plugins", FIELDS)
};

const FIELDS: &[Field] = &[
    Field::string("name").required(),
    NAME.named("instance_name"),
    CREATED_AT,
    UPDATED_AT,
    Field::foreign("route", Kind::Route, OnDelete::Cascade),
    Field::foreign("service", Kind::Service, OnDelete::Cascade),
    Field::foreign("consumer", Kind::Consumer, OnDelete::Cascade),
    Field::foreign("consumer_group", Kind::ConsumerGroup, OnDelete::Cascade),
    Field::new("config", Type::Config).required(),
    Field::set("protocols", &PROTOCOL)
        .required()
        .default(PROTOCOLS_DEFAULT),
    Field::boolean("enabled")
        .required()
        .default(Literal::Bool(true)),
    TAGS,
];

const PROTOCOLS_DEFAULT: Literal = Literal::Texts(super::common::HTTP_PROTOCOLS);

fn config(name: &str) -> Option<&'static Field> {
    plugin::plugin(name).map(|plugin| &plugin.config)
}

/// Puts the plugin's own rules in place of the general ones.
fn vary(body: &Map<String, Value>, shape: &mut Shape) -> Result<(), Errors> {
    let mut errors = Errors::default();
    let name = match body.get("name") {
        Some(Value::String(name)) => name,
        None | Some(Value::Null) => {
            errors.set("name", "required field missing");
            return Err(errors);
        }
        Some(_) => {
            errors.set("name", "expected a string");
            return Err(errors);
        }
    };
    let Some(plugin) = plugin::plugin(name) else {
        errors.set(
            "name",
            format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property"),
        );
        return Err(errors);
    };
    if let Some(reason) = plugin.refused {
        errors.set("name", format!("plugin '{name}' cannot run: {reason}"));
        return Err(errors);
    }
    shape.refine(plugin.config);
    shape.refine(plugin.protocols);
    for scope in plugin.no_scope {
        if let Some(field) = shape.field(scope) {
            *field = field.forbidden("value must be null");
        }
    }
    shape.checks = plugin.checks;
    Ok(())
}
