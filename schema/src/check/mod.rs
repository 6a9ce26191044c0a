//! The engine that turns what a client sent into a complete, valid body, by a [`Schema`]; or into Kong's errors,
//! all of them at once.
//!
//! The steps: expand shorthands, put the input on the entity it changes, fill what the control plane fills, fill
//! defaults, check every field, check rules over several fields. A field that is absent gets its default; a field
//! that is null has no value. Bodies are stored without nulls.

mod fill;
mod form;
mod output;
pub mod path;
pub(crate) mod regex;
mod rules;
pub mod text;
pub(crate) mod url;
mod value;

pub use fill::default_of;
pub(crate) use fill::remove_nulls;
pub use form::form_value;
pub use output::fill_nulls;

use crate::entropy::Entropy;
use crate::field::{Check, Field, Type};
use crate::kind::{Finishing, Schema};
use crate::rejection::{ENTITY_ERRORS, Rejection};
use crate::version::Time;
use serde_json::{Map, Value};

/// What an input is put on.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// Nothing: a new entity.
    New,
    /// An entity whose fields are all replaced. What the control plane filled (`created_at`, a random key) stays
    /// unless the input names it, so that a repeated PUT changes nothing else.
    Replace(&'a Map<String, Value>),
    /// What a file says of an entity that is new or replaced. Its times count from its creation, as stored ones do,
    /// and not from now: the same file always means the same.
    Declare(Option<&'a Map<String, Value>>, Values),
    /// An entity that is patched: records merge field by field, lists are replaced, an explicit null clears.
    Merge(&'a Map<String, Value>),
}

impl<'a> Base<'a> {
    /// The entity as it was.
    fn before(self) -> Option<&'a Map<String, Value>> {
        match self {
            Self::New => None,
            Self::Replace(before) | Self::Merge(before) => Some(before),
            Self::Declare(before, _) => before,
        }
    }
}

/// In which form one-way values are: passwords, secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Values {
    /// As people know them. What is stored of them is a hash.
    #[default]
    Plain,
    /// As they are stored.
    Stored,
}

/// The fields of one entity, and the rules over several of them: a schema's own, and what depends on the entity
/// itself (a plugin's configuration on its name, a route's rules on its protocols).
#[derive(Clone, Debug)]
pub struct Shape {
    /// The fields.
    pub fields: Vec<Field>,
    /// Rules beyond the schema's own.
    pub checks: &'static [Check],
}

impl Shape {
    /// Replaces the field of the same name.
    pub(crate) fn refine(&mut self, field: Field) {
        if let Some(place) = self
            .fields
            .iter_mut()
            .find(|place| place.name == field.name)
        {
            *place = field;
        }
    }

    /// The field with this name.
    pub(crate) fn field(&mut self, name: &str) -> Option<&mut Field> {
        self.fields.iter_mut().find(|field| field.name == name)
    }
}

/// Errors of an entity, gathered: a tree that mirrors it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(Map<String, Value>);

impl Errors {
    /// Records that a field, named by its path, has an error.
    pub fn set(&mut self, path: &str, error: impl Into<Value>) {
        let mut place = &mut self.0;
        let (records, name) = match path.rsplit_once('.') {
            Some((records, name)) => (Some(records), name),
            None => (None, path),
        };
        for record in records.into_iter().flat_map(|records| records.split('.')) {
            let child = place.entry(record).or_insert_with(|| Map::new().into());
            if !child.is_object() {
                // The record as a whole has an error already.
                return;
            }
            place = child.as_object_mut().expect("just seen to be an object");
        }
        place.insert(name.to_owned(), error.into());
    }

    /// Records an error that belongs to no single field.
    pub fn entity(&mut self, error: impl Into<String>) {
        let list = self
            .0
            .entry(ENTITY_ERRORS)
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(errors) = list {
            errors.push(Value::String(error.into()));
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the field with this path has one.
    pub(crate) fn has(&self, path: &str) -> bool {
        let mut place = Some(&self.0);
        for name in path.split('.') {
            match place.and_then(|fields| fields.get(name)) {
                None => return false,
                Some(Value::Object(fields)) => place = Some(fields),
                Some(_) => return true,
            }
        }
        true
    }

    /// As the tree of an error object.
    fn into_fields(self) -> Map<String, Value> {
        self.0
    }
}

/// Completes and checks what a client sent. `input` is without `id`; so is the result, which has no nulls and can be
/// encoded as a body.
///
/// # Errors
/// With every error there is, in Kong's words.
pub fn complete(
    schema: &Schema,
    input: Map<String, Value>,
    base: Base<'_>,
    now: Time,
    entropy: &mut Entropy,
) -> Result<Map<String, Value>, Rejection> {
    let mut errors = Errors::default();
    let given = schema.finish.map(|_| input.clone());
    let mut input = input;
    let kept;
    let base = match (base, schema.variant) {
        (Base::Merge(before), Some(variant)) if variant.changes(before, &input) => {
            kept = variant.separate(before, &mut input);
            Base::Merge(&kept)
        }
        _ => base,
    };
    let shape = shape_of(schema, &input, base)?;
    fill::shorthands(schema, &shape.fields, &mut input, &mut errors);
    let mut body = match base {
        Base::New | Base::Replace(_) | Base::Declare(..) => input,
        Base::Merge(before) => fill::merge(&shape.fields, before, input),
    };
    fill::autos(&shape.fields, &mut body, base.before(), now, entropy);
    fill::defaults(&shape.fields, &mut body);
    value::check_fields(&shape.fields, &mut body, &mut errors);
    let updating = matches!(base, Base::Merge(_));
    for check in schema.checks.iter().chain(shape.checks) {
        rules::check(check, &shape.fields, &body, updating, &mut errors);
    }
    if let Some(verify) = schema.verify {
        verify(&body, base.before(), now, &mut errors);
    }
    if !errors.is_empty() {
        return Err(Rejection::schema(errors.into_fields()));
    }
    if let (Some(finish), Some(given)) = (schema.finish, given) {
        let created = body.get("created_at").and_then(Value::as_u64);
        let now = match (base, created) {
            (Base::Declare(..), Some(seconds)) => Time(seconds.saturating_mul(1_000_000)),
            (Base::New | Base::Replace(_) | Base::Merge(_) | Base::Declare(..), _) => now,
        };
        let values = match base {
            Base::Declare(_, values) => values,
            Base::New | Base::Replace(_) | Base::Merge(_) => Values::Plain,
        };
        let before = base.before();
        finish(
            &mut body,
            Finishing {
                given: &given,
                before,
                now,
                values,
                entropy,
            },
        );
    }
    if let Base::Merge(before) = base {
        fill::keep_unknown(&shape.fields, before, &mut body);
    }
    remove_nulls(&mut body);
    Ok(body)
}

/// The shape of the entity that `input` makes of `base`.
fn shape_of(
    schema: &Schema,
    input: &Map<String, Value>,
    base: Base<'_>,
) -> Result<Shape, Rejection> {
    let mut shape = Shape {
        fields: schema.fields.to_vec(),
        checks: &[],
    };
    let Some(vary) = schema.vary else {
        return Ok(shape);
    };
    let mut probe = Map::new();
    // Only these decide about shapes.
    for name in ["name", "protocols"] {
        let before = match base {
            Base::New | Base::Replace(_) | Base::Declare(..) => None,
            Base::Merge(before) => before.get(name),
        };
        if let Some(value) = input.get(name).or(before) {
            probe.insert(name.to_owned(), value.clone());
        }
    }
    vary(&probe, &mut shape).map_err(|errors| Rejection::schema(errors.into_fields()))?;
    Ok(shape)
}

/// Checks one value against a field that is not one of an entity, and brings it to its normal form.
///
/// # Errors
/// With a text, or a tree that mirrors the value.
pub(crate) fn check_value(field: &Field, value: &mut Value) -> Result<(), Value> {
    if let (Type::Record(fields), Value::Object(record)) = (field.kind, &mut *value) {
        fill::defaults(fields, record);
    }
    value::check(field, value)
}

/// Whether a value counts as given in rules like "at least one of".
fn is_nonempty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::Bool(_) | Value::Number(_)) => true,
    }
}

/// The value at a path like `config.redis.host`; nulls count as absent.
fn lookup<'a>(body: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let first = body.get(names.next()?)?;
    let found = names.try_fold(first, |value, name| value.get(name))?;
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests;
