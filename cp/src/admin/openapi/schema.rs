//! Descriptors as JSON schemas. They say less than the descriptors: what a schema cannot say is left to the control plane.

use serde_json::{Map, Value, json};
use sluice_schema::field::{Field, Type};
use sluice_schema::kind::{Kind, RouterFlavor, Schema};
use sluice_schema::plugin;

/// All schemas of the document.
pub(super) fn components(flavor: RouterFlavor) -> Value {
    let mut shown = Map::new();
    shown.insert("error".to_owned(), error());
    for kind in Kind::ALL.iter().copied() {
        let schema = flavor.schema(kind);
        shown.insert(schema.entity.to_owned(), entity(kind, schema));
    }
    for plugin in plugin::available() {
        shown.insert(config_name(plugin.name), field(&plugin.config));
    }
    shown.into()
}

/// Where the schema of a kind is.
pub(super) fn reference(kind: Kind) -> String {
    format!("#/components/schemas/{}", kind.schema().entity)
}

fn config_name(plugin: &str) -> String {
    format!("plugin.{plugin}.config")
}

/// The fields a new entity must be given, besides those that the path gives.
pub(super) fn required(kind: Kind, by_path: Option<&str>) -> Vec<&'static str> {
    let schema = kind.schema();
    if !schema.shorthands.is_empty() {
        return Vec::new();
    }
    let given = schema.fields.iter().filter(|field| {
        let filled = field.default.is_some() || field.auto.is_some();
        let elsewhere = matches!(field.kind, Type::Foreign(_) | Type::Record(_));
        field.required && !filled && !elsewhere && Some(field.name) != by_path
    });
    given.map(|field| field.name).collect()
}

fn error() -> Value {
    json!({
        "type": "object",
        "required": ["message"],
        "properties": {
            "message": { "type": "string" },
            "code": { "type": "integer" },
            "name": { "type": "string" },
            "fields": { "type": "object" },
            "options": { "type": "object" },
        },
    })
}

fn entity(kind: Kind, schema: &Schema) -> Value {
    let id = json!({ "type": "string", "format": "uuid", "description": "Made if not given" });
    let mut properties = Map::from_iter([("id".to_owned(), id)]);
    for known in schema.fields {
        let shown = match kind == Kind::Plugin && matches!(known.kind, Type::Config) {
            true => configs(),
            false => field(known),
        };
        properties.insert(known.name.to_owned(), shown);
    }
    if let Some(names) = schema.names {
        properties.insert(names.field.name.to_owned(), field(names.field));
    }
    for shorthand in schema.shorthands {
        let mut shown = field(shorthand);
        shown["writeOnly"] = true.into();
        properties.insert(shorthand.name.to_owned(), shown);
    }
    json!({ "type": "object", "properties": properties })
}

/// The configuration of any plugin.
fn configs() -> Value {
    let reference = |name| json!({ "$ref": format!("#/components/schemas/{}", config_name(name)) });
    let mut any: Vec<Value> = plugin::available()
        .map(|plugin| reference(plugin.name))
        .collect();
    any.push(json!({ "type": "null" }));
    json!({ "anyOf": any, "description": "Depends on the name" })
}

/// A field; null stands for no value.
fn field(field: &Field) -> Value {
    let mut shown = described(field);
    if let Some(name) = shown["type"].as_str().map(str::to_owned) {
        shown["type"] = json!([name, "null"]);
    }
    if let Some(Value::Array(options)) = shown.get_mut("enum") {
        options.push(Value::Null);
    }
    if let Some(default) = field.default {
        shown["default"] = default.value();
    }
    if field.auto.is_some() {
        shown["description"] = "Filled if not given".into();
    }
    shown
}

fn described(field: &Field) -> Value {
    let rules = &field.rules;
    let mut shown = match field.kind {
        Type::String => text(field),
        Type::Integer => json!({ "type": "integer" }),
        Type::Number => json!({ "type": "number" }),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Array(elements) => json!({ "type": "array", "items": described(elements) }),
        Type::Set(elements) => json!({ "type": "array", "items": described(elements) }),
        Type::Map { values, .. } => {
            json!({ "type": "object", "additionalProperties": described(values) })
        }
        Type::Record(fields) => {
            let named = |inner: &Field| (inner.name.to_owned(), self::field(inner));
            let mut properties: Map<String, Value> = fields.iter().map(named).collect();
            for alias in field.aliases {
                let mut old = self::field(&alias.field);
                old["deprecated"] = true.into();
                properties.insert(alias.field.name.to_owned(), old);
            }
            json!({ "type": "object", "properties": properties })
        }
        Type::Foreign(foreign) => {
            let id = json!({ "type": "string", "format": "uuid" });
            let mut properties = Map::from_iter([("id".to_owned(), id)]);
            if let Some(name) = foreign.kind.schema().endpoint_key {
                properties.insert(name.to_owned(), json!({ "type": "string" }));
            }
            json!({ "type": "object", "properties": properties })
        }
        Type::Config => json!({ "type": "object" }),
        Type::Json => json!({}),
    };
    if let Some(options) = rules.one_of {
        shown["enum"] = options.value();
    }
    if let Some((low, high)) = rules.between {
        shown["minimum"] = low.into();
        shown["maximum"] = high.into();
    }
    if let Some(limit) = rules.gt {
        shown["exclusiveMinimum"] = limit.into();
    }
    if matches!(field.kind, Type::Array(_) | Type::Set(_)) {
        if let Some(least) = rules.len_min {
            shown["minItems"] = least.into();
        }
        if let Some(most) = rules.len_max {
            shown["maxItems"] = most.into();
        }
    }
    shown
}

fn text(field: &Field) -> Value {
    let rules = &field.rules;
    let mut shown = json!({ "type": "string" });
    shown["minLength"] = rules.len_min.unwrap_or(1).into();
    if let Some(most) = rules.len_max {
        shown["maxLength"] = most.into();
    }
    if rules.uuid {
        shown["format"] = "uuid".into();
    }
    if let Some(prefix) = rules.starts_with {
        shown["pattern"] = format!("^{prefix}").into();
    }
    shown
}
