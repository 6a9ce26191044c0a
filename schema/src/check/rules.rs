//! Rules over several fields of an entity or record.

use super::{Errors, is_nonempty, lookup, text as texts};
use crate::field::{Check, Field, Literal, Match, Type};
use serde_json::{Map, Value};

/// Checks one rule over some of `fields`. `updating` words the errors for a patch. A rule does not apply while one of
/// its fields refers to a secret, whose value is not known here.
pub(super) fn check(
    check: &Check,
    fields: &[Field],
    body: &Map<String, Value>,
    updating: bool,
    errors: &mut Errors,
) {
    if names(check).any(|path| is_referred(fields, body, path)) {
        return;
    }
    match *check {
        Check::AtLeastOneOf(names) => {
            let when = if updating { "when updating, " } else { "" };
            let error = format!("{when}at least one of these fields must be non-empty");
            count(body, names, errors, &error, |given, _| given > 0);
        }
        Check::OnlyOneOf(names) => {
            let error = "exactly one of these fields must be non-empty";
            count(body, names, errors, error, |given, _| given == 1);
        }
        Check::MutuallyRequired(names) => {
            let error = "all or none of these fields must be set";
            count(body, names, errors, error, |given, all| {
                given == 0 || given == all
            });
        }
        Check::MutuallyExclusive(names) => {
            let error = "only one or none of these fields must be set";
            count(body, names, errors, error, |given, _| given <= 1);
        }
        Check::Distinct(names) => {
            let values: Vec<_> = given(body, names).map(|name| lookup(body, name)).collect();
            let repeated = |(at, value)| values.iter().skip(at + 1).any(|other| other == value);
            if values.iter().enumerate().any(repeated) {
                let list = quoted(names);
                errors.entity(format!("values of these fields must be distinct: {list}"));
            }
        }
        Check::Conditional {
            if_field,
            if_match,
            then_field,
            then_match,
            error,
        } => {
            let value = lookup(body, if_field);
            if value.is_none() || errors.has(if_field) || matches(if_match, value).is_err() {
                return;
            }
            if let Err(reason) = matches(then_match, lookup(body, then_field)) {
                errors.set(then_field, reason);
                errors.entity(error.map_or_else(
                    || format!("failed conditional validation given value of field '{if_field}'"),
                    str::to_owned,
                ));
            }
        }
        Check::ConditionalAtLeastOneOf { if_field, arms } => {
            let value = lookup(body, if_field);
            let arm = arms.iter().find(|(arm, _, _)| matches(*arm, value).is_ok());
            if let Some((_, names, error)) = arm
                && !errors.has(if_field)
                && given(body, names).next().is_none()
            {
                errors.entity(error.replace("%s", &quoted(names)));
            }
        }
        Check::Custom { fields, test } => {
            if !fields.iter().any(|field| errors.has(field))
                && let Err(error) = test(body)
            {
                errors.entity(error);
            }
        }
    }
}

/// The fields a rule is about.
fn names<'a>(check: &'a Check) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    match check {
        Check::AtLeastOneOf(names)
        | Check::OnlyOneOf(names)
        | Check::Distinct(names)
        | Check::MutuallyRequired(names)
        | Check::MutuallyExclusive(names)
        | Check::Custom { fields: names, .. } => Box::new(names.iter().copied()),
        Check::Conditional {
            if_field,
            then_field,
            ..
        } => Box::new([*if_field, *then_field].into_iter()),
        Check::ConditionalAtLeastOneOf { if_field, arms } => {
            let others = arms.iter().flat_map(|(_, names, _)| names.iter().copied());
            Box::new(std::iter::once(*if_field).chain(others))
        }
    }
}

/// Whether the value at a path is a reference to a secret.
fn is_referred(fields: &[Field], body: &Map<String, Value>, path: &str) -> bool {
    let text = lookup(body, path).and_then(Value::as_str);
    text.is_some_and(texts::is_vault_reference)
        && field_at(fields, path).is_some_and(|field| field.referenceable)
}

fn field_at<'a>(fields: &'a [Field], path: &str) -> Option<&'a Field> {
    let (name, below) = match path.split_once('.') {
        Some((name, below)) => (name, Some(below)),
        None => (path, None),
    };
    let field = fields.iter().find(|field| field.name == name)?;
    match (below, field.kind) {
        (None, _) => Some(field),
        (Some(below), Type::Record(fields)) => field_at(fields, below),
        (
            Some(_),
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Array(_)
            | Type::Set(_)
            | Type::Map { .. }
            | Type::Foreign(_)
            | Type::Config
            | Type::Json,
        ) => None,
    }
}

/// The fields among `names` that have a value.
fn given<'a>(body: &Map<String, Value>, names: &'a [&'a str]) -> impl Iterator<Item = &'a &'a str> {
    names.iter().filter(|name| is_nonempty(lookup(body, name)))
}

/// Checks how many fields have a value, of how many.
fn count(
    body: &Map<String, Value>,
    names: &[&str],
    errors: &mut Errors,
    error: &str,
    allowed: fn(usize, usize) -> bool,
) {
    if !allowed(given(body, names).count(), names.len()) {
        errors.entity(format!("{error}: {}", quoted(names)));
    }
}

/// Whether a value is as wanted; if not, what is wrong with it.
fn matches(wanted: Match, value: Option<&Value>) -> Result<(), String> {
    let list = || {
        value
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    let text = value.and_then(Value::as_str);
    let (holds, error): (bool, String) = match wanted {
        Match::Is(literal) => (
            value.is_some_and(|value| *value == literal.value()),
            format!("value must be {}", shown(literal)),
        ),
        Match::OneOf(options) => (
            // Null is not a value, so there is nothing wrong with it.
            value.is_none() || text.is_some_and(|text| options.contains(&text)),
            format!("expected one of: {}", options.join(", ")),
        ),
        Match::NotOneOf(options) => (
            !text.is_some_and(|text| options.contains(&text)),
            format!("must not be one of: {}", options.join(", ")),
        ),
        Match::Gt(limit) => (
            value
                .and_then(Value::as_f64)
                .is_some_and(|number| number > limit),
            format!("value must be greater than {limit}"),
        ),
        Match::Required => (value.is_some(), "required field missing".to_owned()),
        Match::Text(rule) => match text.map(rule) {
            Some(Ok(())) => (true, String::new()),
            Some(Err(error)) => (false, error),
            None => (false, "required field missing".to_owned()),
        },
        Match::Null => (value.is_none(), "value must be null".to_owned()),
        Match::Empty => (!is_nonempty(value), "length must be 0".to_owned()),
        Match::Contains(item) => (
            // Null is not a value here either.
            value.is_none() || list().iter().any(|found| found == item),
            format!("expected to contain: {item}"),
        ),
        Match::All(options) => (
            is_nonempty(value) && list().iter().all(|item| is_among(item, options)),
            format!("expected one of: {}", options.join(", ")),
        ),
        Match::NoneOf(options) => (
            is_nonempty(value) && !list().iter().any(|item| is_among(item, options)),
            format!("must not be one of: {}", options.join(", ")),
        ),
    };
    if holds { Ok(()) } else { Err(error) }
}

fn is_among(item: &Value, options: &[&str]) -> bool {
    item.as_str().is_some_and(|item| options.contains(&item))
}

fn shown(literal: Literal) -> String {
    let value = literal.value();
    value.as_str().map_or(value.to_string(), str::to_owned)
}

fn quoted(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ")
}
