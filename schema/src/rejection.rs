//! The answer to a command that is refused: Kong's error object.
//!
//! Clients and tests match on codes, names and messages, so these are Kong's own, down to the quotes.

use serde_json::{Map, Value, json};
use std::fmt::Write;
use uuid::Uuid;

/// The key of errors that belong to no single field.
pub const ENTITY_ERRORS: &str = "@entity";

/// What kind of refusal it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Code {
    /// The id is not a UUID.
    InvalidPrimaryKey,
    /// The entity breaks its schema.
    SchemaViolation,
    /// The id is taken.
    PrimaryKeyViolation,
    /// A reference leads nowhere, or the entity is still referred to.
    ForeignKeyViolation,
    /// A unique value is taken.
    UniqueViolation,
    /// There is no such entity.
    NotFound,
    /// The offset of a list is not one this program gave out.
    InvalidOffset,
    /// The page size is out of range.
    InvalidSize,
    /// The value of a unique field is malformed.
    InvalidUnique,
    /// A query option is malformed.
    InvalidOptions,
    /// Not possible here.
    OperationUnsupported,
    /// A reference by name leads nowhere.
    ForeignKeysUnresolved,
    /// A declarative file has errors.
    DeclarativeConfig,
    /// A workspace is not there, or must stay as it is.
    InvalidWorkspace,
    /// The entity is still in a list of others.
    ReferencedByOthers,
    /// The entity is not at the version the caller expected (ours; Kong has no such code).
    PreconditionFailed,
}

impl Code {
    /// Kong's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidPrimaryKey => "invalid primary key",
            Self::SchemaViolation => "schema violation",
            Self::PrimaryKeyViolation => "primary key violation",
            Self::ForeignKeyViolation => "foreign key violation",
            Self::UniqueViolation => "unique constraint violation",
            Self::NotFound => "not found",
            Self::InvalidOffset => "invalid offset",
            Self::InvalidSize => "invalid size",
            Self::InvalidUnique => "invalid unique",
            Self::InvalidOptions => "invalid options",
            Self::OperationUnsupported => "operation unsupported",
            Self::ForeignKeysUnresolved => "foreign keys unresolved",
            Self::DeclarativeConfig => "invalid declarative configuration",
            Self::InvalidWorkspace => "invalid workspace",
            Self::ReferencedByOthers => "referenced by others",
            Self::PreconditionFailed => "precondition failed",
        }
    }

    /// Kong's number for it; ours begin at 100.
    pub fn number(self) -> u16 {
        match self {
            Self::InvalidPrimaryKey => 1,
            Self::SchemaViolation => 2,
            Self::PrimaryKeyViolation => 3,
            Self::ForeignKeyViolation => 4,
            Self::UniqueViolation => 5,
            Self::NotFound => 6,
            Self::InvalidOffset => 7,
            Self::InvalidSize => 9,
            Self::InvalidUnique => 10,
            Self::InvalidOptions => 11,
            Self::OperationUnsupported => 12,
            Self::ForeignKeysUnresolved => 13,
            Self::DeclarativeConfig => 14,
            Self::InvalidWorkspace => 17,
            Self::ReferencedByOthers => 19,
            Self::PreconditionFailed => 100,
        }
    }

    /// The HTTP status it is answered with.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidPrimaryKey
            | Self::SchemaViolation
            | Self::PrimaryKeyViolation
            | Self::ForeignKeyViolation
            | Self::InvalidOffset
            | Self::InvalidSize
            | Self::InvalidUnique
            | Self::InvalidOptions
            | Self::ForeignKeysUnresolved
            | Self::DeclarativeConfig
            | Self::InvalidWorkspace
            | Self::ReferencedByOthers => 400,
            Self::NotFound => 404,
            Self::OperationUnsupported => 405,
            Self::UniqueViolation => 409,
            Self::PreconditionFailed => 412,
        }
    }
}

/// A command that is refused, and why. The caller can fix it.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What kind of refusal it is.
    pub code: Code,
    /// For people; built of `fields` where there are any.
    pub message: String,
    /// Per field; nested as the entity is.
    pub fields: Map<String, Value>,
}

impl Rejection {
    /// A refusal without fields.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            fields: Map::new(),
        }
    }

    /// The entity breaks its schema. `fields` mirrors the entity; what belongs to no field is a list under `@entity`.
    pub fn schema(fields: Map<String, Value>) -> Self {
        let (count, list) = violations(&fields);
        let message = match count {
            1 => format!("schema violation ({list})"),
            _ => format!("{count} schema violations ({list})"),
        };
        Self {
            code: Code::SchemaViolation,
            message,
            fields,
        }
    }

    /// The entity breaks its schema in one field.
    pub fn field(name: &str, error: impl Into<String>) -> Self {
        Self::schema(Map::from_iter([(
            name.to_owned(),
            Value::String(error.into()),
        )]))
    }

    /// A reference by name or other unique field leads nowhere. `fields` mirrors the entity.
    pub fn unresolved(fields: Map<String, Value>) -> Self {
        let (count, list) = violations(&fields);
        let message = match count {
            1 => format!("foreign key unresolved ({list})"),
            _ => format!("{count} foreign keys unresolved ({list})"),
        };
        Self {
            code: Code::ForeignKeysUnresolved,
            message,
            fields,
        }
    }

    /// `field` refers to an `entity` (Kong's plural name) that does not exist.
    pub fn foreign_missing(field: &str, entity: &str, id: &str) -> Self {
        let reference = json!({ "id": id });
        let shown = pretty(&reference);
        Self {
            code: Code::ForeignKeyViolation,
            message: format!(
                "the foreign key '{shown}' does not reference an existing '{entity}' entity."
            ),
            fields: Map::from_iter([(field.to_owned(), reference)]),
        }
    }

    /// A `parent` cannot be deleted because a `child` refers to it (Kong's plural names).
    pub fn referenced_by(parent: &str, child: &str) -> Self {
        Self {
            code: Code::ForeignKeyViolation,
            message: format!("an existing '{child}' entity references this '{parent}' entity"),
            fields: Map::from_iter([("@referenced_by".to_owned(), child.into())]),
        }
    }

    /// An entity (`noun`, as in `ca certificate`) cannot be deleted because the list of a `child` (Kong's plural name) names it.
    pub fn listed_by(noun: &str, id: Uuid, child: &str, child_id: Uuid) -> Self {
        let message = format!("{noun} {id} is still referenced by {child} (id = {child_id})");
        Self::new(Code::ReferencedByOthers, message)
    }

    /// Another entity has the same values in these fields, which must be unique together.
    pub fn unique<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let fields: Map<_, _> = pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let shown = pretty(&Value::Object(fields.clone()));
        let message = format!("UNIQUE violation detected on '{shown}'");
        Self {
            code: Code::UniqueViolation,
            message,
            fields,
        }
    }

    /// An entity with this id exists already.
    pub fn primary_key(id: Uuid) -> Self {
        let (fields, shown) = key_fields(id);
        let message = format!("primary key violation on key '{shown}'");
        Self {
            code: Code::PrimaryKeyViolation,
            message,
            fields,
        }
    }

    /// The id is not a UUID.
    pub fn invalid_primary_key(id: &str) -> Self {
        let shown = pretty(&json!({ "id": id }));
        Self {
            code: Code::InvalidPrimaryKey,
            message: format!("invalid primary key: '{shown}'"),
            fields: Map::from_iter([("id".to_owned(), "expected a valid UUID".into())]),
        }
    }

    /// There is no entity with this id.
    pub fn not_found(id: Uuid) -> Self {
        let (fields, shown) = key_fields(id);
        let message = format!("could not find the entity with primary key '{shown}'");
        Self {
            code: Code::NotFound,
            message,
            fields,
        }
    }

    /// There is no entity with this value in a unique field.
    pub fn not_found_by(field: &str, value: &str) -> Self {
        let fields = Map::from_iter([(field.to_owned(), Value::from(value))]);
        let shown = pretty(&Value::Object(fields.clone()));
        let message = format!("could not find the entity with '{shown}'");
        Self {
            code: Code::NotFound,
            message,
            fields,
        }
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "code": self.code.number(),
            "name": self.code.name(),
            "message": self.message,
        });
        let place = if self.code == Code::InvalidOptions {
            "options"
        } else {
            "fields"
        };
        if !self.fields.is_empty() {
            body[place] = Value::Object(self.fields.clone());
        }
        body
    }
}

fn key_fields(id: Uuid) -> (Map<String, Value>, String) {
    let fields = Map::from_iter([("id".to_owned(), Value::String(id.to_string()))]);
    let shown = pretty(&Value::Object(fields.clone()));
    (fields, shown)
}

/// How many errors there are, and all of them in one line: `@entity` first, then by field name.
fn violations(fields: &Map<String, Value>) -> (usize, String) {
    let mut list = Vec::new();
    if let Some(Value::Array(errors)) = fields.get(ENTITY_ERRORS) {
        list.extend(errors.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    for (name, error) in sorted(fields) {
        if name != ENTITY_ERRORS {
            flatten(name, error, &mut list);
        }
    }
    (list.len(), list.join("; "))
}

fn flatten(path: &str, error: &Value, list: &mut Vec<String>) {
    match error {
        Value::Null => {}
        Value::String(text) => list.push(format!("{path}: {text}")),
        Value::Object(fields) => {
            for (name, error) in sorted(fields) {
                flatten(&format!("{path}.{name}"), error, list);
            }
        }
        Value::Array(items) => {
            // Kong counts from 1. Elements without an error are null.
            for (index, error) in items.iter().enumerate() {
                flatten(&format!("{path}.{}", index + 1), error, list);
            }
        }
        Value::Bool(_) | Value::Number(_) => list.push(format!("{path}: {error}")),
    }
}

fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| name.as_str());
    sorted
}

/// `value` the way Kong shows Lua tables in messages: `{id="...",name=null}`.
fn pretty(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut text = String::from("{");
            for (index, (name, value)) in sorted(fields).into_iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                write!(text, "{comma}{name}={}", pretty(value)).expect("a String takes all text");
            }
            text + "}"
        }
        Value::Array(items) => {
            format!(
                "{{{}}}",
                items.iter().map(pretty).collect::<Vec<_>>().join(",")
            )
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rejection: &Rejection, status: u16, body: Value) {
        assert_eq!(rejection.body(), body);
        assert_eq!(rejection.code.http_status(), status);
    }

    #[test]
    fn schema_errors_are_counted_and_listed_with_entity_errors_first() {
        let fields = |value: Value| value.as_object().unwrap().clone();
        let one = fields(json!({"host": "required field missing"}));
        assert_eq!(
            Rejection::schema(one).message,
            "schema violation (host: required field missing)"
        );
        let many = fields(json!({
            "@entity": ["must be so"],
            "paths": [null, "should start with: /"],
            "config": {"second": "expected a number", "redis": {"port": "expected an integer"}},
        }));
        assert_eq!(
            Rejection::schema(many).message,
            "4 schema violations (must be so; config.redis.port: expected an integer; \
             config.second: expected a number; paths.2: should start with: /)"
        );
    }

    #[test]
    fn the_bodies_are_the_ones_clients_know() {
        let id = Uuid::from_u128(5);
        check(
            &Rejection::unique([("name", "x".into()), ("consumer", Value::Null)]),
            409,
            json!({
                "code": 5,
                "name": "unique constraint violation",
                "message": "UNIQUE violation detected on '{consumer=null,name=\"x\"}'",
                "fields": {"name": "x", "consumer": null},
            }),
        );
        check(
            &Rejection::foreign_missing("service", "services", &id.to_string()),
            400,
            json!({
                "code": 4,
                "name": "foreign key violation",
                "message": "the foreign key '{id=\"00000000-0000-0000-0000-000000000005\"}' \
                            does not reference an existing 'services' entity.",
                "fields": {"service": {"id": "00000000-0000-0000-0000-000000000005"}},
            }),
        );
        check(
            &Rejection::referenced_by("services", "routes"),
            400,
            json!({
                "code": 4,
                "name": "foreign key violation",
                "message": "an existing 'routes' entity references this 'services' entity",
                "fields": {"@referenced_by": "routes"},
            }),
        );
        check(
            &Rejection::new(Code::InvalidSize, "size must be a number"),
            400,
            json!({"code": 9, "name": "invalid size", "message": "size must be a number"}),
        );
    }
}
