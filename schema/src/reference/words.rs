//! Types, rules and checks in words.

use crate::field::{Auto, Check, Field, Match, Type};
use serde_json::Value;

/// What a field holds.
pub(super) fn type_words(field: &Field) -> String {
    match field.kind {
        Type::String => "text".to_owned(),
        Type::Integer => "integer".to_owned(),
        Type::Number => "number".to_owned(),
        Type::Boolean => "boolean".to_owned(),
        Type::Array(elements) => format!("list of {}", type_words(elements)),
        Type::Set(elements) => format!("set of {}", type_words(elements)),
        Type::Map { values, .. } => format!("map to {}", type_words(values)),
        Type::Record(_) => "record".to_owned(),
        Type::Foreign(foreign) => {
            let entity = foreign.kind.schema().entity;
            format!("[{entity}](#{entity})")
        }
        Type::Config => "record".to_owned(),
        Type::Json => "any JSON".to_owned(),
    }
}

/// The value a field has if none is given.
pub(super) fn default_words(field: &Field) -> Option<String> {
    field.default.map(|default| code(&default.value()))
}

/// What must hold of a field.
pub(super) fn rule_words(field: &Field) -> String {
    let mut words = Vec::new();
    let mut say = |text: String| words.push(text);
    if field.required && field.default.is_none() && field.auto.is_none() {
        say("required".to_owned());
    }
    if field.unique {
        say("unique".to_owned());
    }
    match field.auto {
        Some(Auto::Created | Auto::CreatedMillis) => say("when it was created".to_owned()),
        Some(Auto::Updated | Auto::UpdatedMillis) => say("when it was last written".to_owned()),
        Some(Auto::Random) => say("made by chance if not given".to_owned()),
        None => {}
    }
    if field.encrypted {
        say("secret".to_owned());
    }
    if field.referenceable {
        say("may refer to a vault".to_owned());
    }
    say_rules(field, &mut say);
    for check in field.checks {
        if let Some(text) = check_words(check) {
            say(text);
        }
    }
    if let Type::Array(elements) | Type::Set(elements) = field.kind {
        let each = rule_words(elements);
        if !each.is_empty() {
            say(format!("each: {each}"));
        }
    }
    words.join("; ")
}

fn say_rules(field: &Field, say: &mut impl FnMut(String)) {
    let rules = &field.rules;
    if let Some(error) = rules.forbidden {
        say(error.to_owned());
    }
    if let Some(options) = rules.one_of {
        let options = options.value();
        let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
        let options: Vec<String> = options.iter().map(code).collect();
        say(format!("one of {}", options.join(", ")));
    }
    if !rules.not_one_of.is_empty() {
        say(format!("not {}", list(rules.not_one_of)));
    }
    if let Some(limit) = rules.gt {
        say(format!("greater than {limit}"));
    }
    if let Some((low, high)) = rules.between {
        say(format!("{low} to {high}"));
    }
    if rules.uuid {
        say("a UUID".to_owned());
    }
    let unit = match field.kind {
        Type::String => "bytes",
        Type::Array(_) | Type::Set(_) | Type::Map { .. } => "elements",
        Type::Integer
        | Type::Number
        | Type::Boolean
        | Type::Record(_)
        | Type::Foreign(_)
        | Type::Config
        | Type::Json => "",
    };
    match rules.len_min {
        Some(0) => say("may be empty".to_owned()),
        Some(least) => say(format!("at least {least} {unit}")),
        None => {}
    }
    if let Some(most) = rules.len_max {
        say(format!("at most {most} {unit}"));
    }
    if let Some(prefix) = rules.starts_with {
        say(format!("begins with `{prefix}`"));
    }
    if let Some(pattern) = rules.pattern {
        say(format!("matches the Lua pattern `{}`", pattern.lua));
    }
    if rules.regex {
        say("a regular expression".to_owned());
    }
    if !rules.exclusive.is_empty() {
        let groups: Vec<String> = rules.exclusive.iter().map(|group| list(group)).collect();
        say(format!("only of one group: {}", groups.join(" / ")));
    }
}

/// A rule over several fields; `None` if it is in code alone.
pub(super) fn check_words(check: &Check) -> Option<String> {
    Some(match check {
        Check::AtLeastOneOf(fields) => format!("at least one of {} has a value", list(fields)),
        Check::OnlyOneOf(fields) => format!("exactly one of {} has a value", list(fields)),
        Check::Distinct(fields) => format!("{} are not the same", list(fields)),
        Check::MutuallyRequired(fields) => format!("all or none of {} have values", list(fields)),
        Check::MutuallyExclusive(fields) => {
            format!("at most one of {} has a value", list(fields))
        }
        Check::Conditional {
            if_field,
            if_match,
            then_field,
            then_match,
            error: _,
        } => {
            let (condition, rule) = (match_words(if_match), match_words(then_match));
            format!("if `{if_field}` {condition}, `{then_field}` {rule}")
        }
        Check::ConditionalAtLeastOneOf { if_field, arms } => {
            let arm = |(if_match, fields, _): &(Match, &[&str], &str)| {
                let condition = match_words(if_match);
                format!(
                    "if `{if_field}` {condition}, at least one of {} has a value",
                    list(fields)
                )
            };
            arms.iter().map(arm).collect::<Vec<_>>().join("; else ")
        }
        Check::Custom { .. } => return None,
    })
}

fn match_words(condition: &Match) -> String {
    match condition {
        Match::Is(value) => format!("is {}", code(&value.value())),
        Match::OneOf(texts) => format!("is one of {}", list(texts)),
        Match::NotOneOf(texts) => format!("is none of {}", list(texts)),
        Match::Gt(limit) => format!("is greater than {limit}"),
        Match::Required => "has a value".to_owned(),
        Match::Text(_) => "has a fitting value".to_owned(),
        Match::Null => "has no value".to_owned(),
        Match::Empty => "is empty".to_owned(),
        Match::Contains(text) => format!("contains `{text}`"),
        Match::All(texts) => format!("has only {}", list(texts)),
        Match::NoneOf(texts) => format!("has none of {}", list(texts)),
    }
}

/// Names in a row.
pub(super) fn list(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn code(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| {
                    item.as_str()
                        .map_or_else(|| item.to_string(), str::to_owned)
                })
                .collect();
            format!("`[{}]`", items.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => format!("`{value}`"),
    }
}
