//! `/schemas/...`: the descriptors in Kong's form, from which decK takes defaults and kong-manager makes its forms.

use super::answer;
use super::error::Problem;
use super::request::Call;
use axum::body::Body;
use axum::response::Response;
use serde_json::{Map, Value, json};
use sluice_schema::check::{Base, complete, default_of};
use sluice_schema::entropy::Entropy;
use sluice_schema::field::{Check, Field, Foreign, Literal, Match, OnDelete, Rules, Type};
use sluice_schema::kind::Kind;
use sluice_schema::rejection::Rejection;
use uuid::Uuid;

/// `GET /schemas/:entity`.
pub(super) fn entity(call: &Call<'_>, name: &str) -> Result<Response, Problem> {
    let kind = Kind::from_entity(name).ok_or_else(|| Problem::NoSuchEntity(name.to_owned()))?;
    let schema = call.schema(kind);
    let mut fields = vec![json!({ "id": { "type": "string", "uuid": true, "auto": true } })];
    fields.extend(schema.fields.iter().map(named));
    let mut shown = json!({ "fields": fields, "entity_checks": checks(schema.checks) });
    if !schema.shorthands.is_empty() {
        shown["shorthand_fields"] = schema.shorthands.iter().map(named).collect();
    }
    Ok(answer::ok(&shown))
}

/// `GET /schemas/plugins/:name`.
pub(super) fn plugin(name: &str) -> Result<Response, Problem> {
    let no_such = || Problem::NoSuchPlugin(name.to_owned());
    let plugin = sluice_schema::plugin::plugin(name).ok_or_else(no_such)?;
    let schema = Kind::Plugin.schema();
    let scopes = plugin
        .no_scope
        .iter()
        .filter_map(|scope| schema.field(scope));
    let mut fields: Vec<Value> = scopes
        .map(|field| named(&field.forbidden("value must be null")))
        .collect();
    fields.extend([&plugin.protocols, &plugin.config].map(named));
    Ok(answer::ok(
        &json!({ "fields": fields, "entity_checks": checks(plugin.checks) }),
    ))
}

/// `GET /schemas/vaults/:name`.
pub(super) fn vault(name: &str) -> Result<Response, Problem> {
    let config = Kind::Vault.schema().config(name);
    let config = config.ok_or_else(|| Problem::NoSuchVault(name.to_owned()))?;
    Ok(answer::ok(
        &json!({ "fields": [named(config)], "entity_checks": [] }),
    ))
}

/// `POST /schemas/:entity/validate`: whether an entity would be valid, as far as it can be told without the others.
pub(super) async fn validate(call: &Call<'_>, name: &str, body: Body) -> Result<Response, Problem> {
    let kind = Kind::from_entity(name).ok_or_else(|| Problem::NoSuchEntity(name.to_owned()))?;
    let schema = call.schema(kind);
    let mut fields = call.fields(body, schema, || None).await?;
    if let Some(names) = schema.names {
        // Not part of the entity.
        fields.remove(names.field.name);
    }
    if let Some(id) = fields.remove("id")
        && !id.is_null()
        && id.as_str().is_none_or(|id| Uuid::try_parse(id).is_err())
    {
        return Err(Rejection::field("id", "expected a valid UUID").into());
    }
    let mut entropy = Entropy::new(rand::random());
    complete(
        schema,
        fields,
        Base::New,
        sluice_replica::process::now(),
        &mut entropy,
    )?;
    Ok(answer::ok(
        &json!({ "message": "schema validation successful" }),
    ))
}

/// `{"<name>": {"type": ...}}`.
fn named(field: &Field) -> Value {
    json!({ field.name: describe(field) })
}

fn describe(field: &Field) -> Value {
    let mut shown = Map::new();
    describe_type(field, &mut shown);
    let flags = [
        ("required", field.required),
        ("unique", field.unique),
        ("auto", field.auto.is_some()),
        ("referenceable", field.referenceable),
        ("encrypted", field.encrypted),
        ("is_regex", field.rules.regex),
        ("timestamp", field.rules.timestamp),
        ("uuid", field.rules.uuid),
    ];
    for (name, _) in flags.into_iter().filter(|(_, on)| *on) {
        shown.insert(name.to_owned(), true.into());
    }
    if let Some(default) = default_of(field) {
        shown.insert("default".to_owned(), default);
    }
    describe_rules(&field.rules, &mut shown);
    if !field.checks.is_empty() {
        shown.insert("entity_checks".to_owned(), checks(field.checks));
    }
    if !field.aliases.is_empty() {
        let alias = |alias: &sluice_schema::field::Alias| {
            let mut shown = describe(&alias.field);
            if !alias.path.is_empty() {
                shown["deprecation"] = json!({ "replaced_with": [{ "path": alias.path }] });
            }
            json!({ alias.field.name: shown })
        };
        shown.insert(
            "shorthand_fields".to_owned(),
            field.aliases.iter().map(alias).collect(),
        );
    }
    shown.into()
}

fn describe_type(field: &Field, shown: &mut Map<String, Value>) {
    let mut add = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    let kind = match field.kind {
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Array(elements) => {
            add("elements", describe(elements));
            "array"
        }
        Type::Set(elements) => {
            add("elements", describe(elements));
            "set"
        }
        Type::Map { keys, values } => {
            add("keys", describe(keys));
            add("values", describe(values));
            "map"
        }
        Type::Record(fields) => {
            add("fields", fields.iter().map(named).collect());
            "record"
        }
        Type::Foreign(Foreign { kind, on_delete }) => {
            add("reference", kind.schema().entity.into());
            if on_delete == OnDelete::Cascade {
                add("on_delete", "cascade".into());
            }
            "foreign"
        }
        Type::Config => {
            add("abstract", true.into());
            "record"
        }
        Type::Json => "json",
    };
    add("type", kind.into());
}

fn describe_rules(rules: &Rules, shown: &mut Map<String, Value>) {
    if rules.forbidden.is_some() {
        shown.insert("eq".to_owned(), Value::Null);
    }
    let described = [
        ("one_of", rules.one_of.map(Literal::value)),
        (
            "not_one_of",
            (!rules.not_one_of.is_empty()).then(|| json!(rules.not_one_of)),
        ),
        ("gt", rules.gt.map(whole)),
        (
            "between",
            rules
                .between
                .map(|(low, high)| json!([whole(low), whole(high)])),
        ),
        ("len_min", rules.len_min.map(Value::from)),
        ("len_max", rules.len_max.map(Value::from)),
        ("starts_with", rules.starts_with.map(Value::from)),
        ("match", rules.pattern.map(|pattern| pattern.lua.into())),
        ("err", rules.error.map(Value::from)),
        (
            "mutually_exclusive_subsets",
            (!rules.exclusive.is_empty()).then(|| json!(rules.exclusive)),
        ),
    ];
    for (name, value) in described {
        if let Some(value) = value {
            shown.insert(name.to_owned(), value);
        }
    }
}

/// A limit; Kong writes whole ones without a point.
fn whole(limit: f64) -> Value {
    match limit.fract() == 0.0 && limit.abs() < 1e15 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "just seen to be whole and small"
        )]
        true => Value::from(limit as i64),
        false => limit.into(),
    }
}

fn checks(checks: &[Check]) -> Value {
    checks.iter().map(check).collect()
}

fn check(check: &Check) -> Value {
    match check {
        Check::AtLeastOneOf(fields) => json!({ "at_least_one_of": fields }),
        Check::OnlyOneOf(fields) => json!({ "only_one_of": fields }),
        Check::Distinct(fields) => json!({ "distinct": fields }),
        Check::MutuallyRequired(fields) => json!({ "mutually_required": fields }),
        Check::MutuallyExclusive(fields) => json!({ "mutually_exclusive": fields }),
        Check::Conditional {
            if_field,
            if_match,
            then_field,
            then_match,
            error,
        } => {
            let mut shown = json!({
                "if_field": if_field,
                "if_match": condition(if_match),
                "then_field": then_field,
                "then_match": condition(then_match),
            });
            if let Some(error) = error {
                shown["then_err"] = (*error).into();
            }
            json!({ "conditional": shown })
        }
        Check::ConditionalAtLeastOneOf { if_field, arms } => {
            let arm = |(if_match, fields, error): &(Match, &[&str], &str)| {
                json!({
                    "if_match": condition(if_match),
                    "then_at_least_one_of": fields,
                    "then_err": error,
                })
            };
            let arms: Vec<Value> = arms.iter().map(arm).collect();
            json!({ "conditional_at_least_one_of": { "if_field": if_field, "arms": arms } })
        }
        Check::Custom { fields, .. } => {
            json!({ "custom_entity_check": { "field_sources": fields } })
        }
    }
}

fn condition(condition: &Match) -> Value {
    match condition {
        Match::Is(value) => json!({ "eq": value.value() }),
        Match::OneOf(texts) => json!({ "one_of": texts }),
        Match::NotOneOf(texts) => json!({ "not_one_of": texts }),
        Match::Gt(limit) => json!({ "gt": whole(*limit) }),
        Match::Required | Match::Text(_) => json!({ "required": true }),
        Match::Null => json!({ "eq": null }),
        Match::Empty => json!({ "len_eq": 0 }),
        Match::Contains(text) => json!({ "contains": text }),
        Match::All(texts) => json!({ "elements": { "one_of": texts } }),
        Match::NoneOf(texts) => json!({ "elements": { "not_one_of": texts } }),
    }
}
