//! Every value of a body that a descriptor speaks of, with its field and its place.

use crate::field::{Field, Type};
use crate::kind::Kind;
use serde_json::{Map, Value};
use std::fmt;

/// Where a value is in a body: `config.redis.password`, `config.keys[2]`.
pub(crate) struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Name(&'a str),
    Position(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match (&self.step, self.above) {
            (Step::Name(name), None) => f.write_str(name),
            (Step::Name(name), Some(_)) => write!(f, ".{name}"),
            (Step::Position(position), _) => write!(f, "[{position}]"),
        }
    }
}

/// How a walk goes on from a value.
pub(crate) enum Next {
    /// Into it.
    Inside,
    /// Past it.
    Past,
}

/// What is done at each value, from the outside in.
pub(crate) type Visit<'v, E> = &'v mut dyn FnMut(&Field, &Path<'_>, &mut Value) -> Result<Next, E>;

/// Leads `visit` to each value of the body of an entity of `kind`. Fields that this build does not know are passed by.
///
/// # Errors
/// The first of `visit`.
pub(crate) fn walk<E>(
    kind: Kind,
    body: &mut Map<String, Value>,
    visit: Visit<'_, E>,
) -> Result<(), E> {
    let schema = kind.schema();
    let config = schema.variant.and_then(|variant| {
        let name = body.get(variant.key)?.as_str()?;
        Some((variant.record, schema.config(name)?))
    });
    let find = |name: &str| match config {
        Some((record, config)) if record == name => Some(config),
        Some(_) | None => schema.field(name),
    };
    walk_fields(&find, None, body, visit)
}

fn walk_fields<'f, E>(
    find: &dyn Fn(&str) -> Option<&'f Field>,
    above: Option<&Path<'_>>,
    fields: &mut Map<String, Value>,
    visit: Visit<'_, E>,
) -> Result<(), E> {
    for (name, value) in fields {
        if let Some(field) = find(name) {
            let step = Step::Name(name);
            walk_value(field, &Path { above, step }, value, visit)?;
        }
    }
    Ok(())
}

fn walk_value<E>(
    field: &Field,
    path: &Path<'_>,
    value: &mut Value,
    visit: Visit<'_, E>,
) -> Result<(), E> {
    if let Next::Past = visit(field, path, value)? {
        return Ok(());
    }
    let above = Some(path);
    match (field.kind, value) {
        (Type::Record(fields), Value::Object(record)) => {
            let find = |name: &str| fields.iter().find(|field| field.name == name);
            walk_fields(&find, above, record, visit)
        }
        (Type::Array(elements) | Type::Set(elements), Value::Array(items)) => {
            for (position, item) in items.iter_mut().enumerate() {
                let step = Step::Position(position);
                walk_value(elements, &Path { above, step }, item, visit)?;
            }
            Ok(())
        }
        (Type::Map { values, .. }, Value::Object(map)) => {
            let find = |_: &str| Some(values);
            walk_fields(&find, above, map, visit)
        }
        (
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Array(_)
            | Type::Set(_)
            | Type::Map { .. }
            | Type::Record(_)
            | Type::Foreign(_)
            | Type::Config
            | Type::Json,
            _,
        ) => Ok(()),
    }
}
