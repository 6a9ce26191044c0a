//! Checks one value against one field, and brings it to its normal form: whole numbers as integers, sets without
//! repetition, references as `{"id"}` alone.

use super::{Errors, regex, rules, text};
use crate::field::{Field, Foreign, ITEMS_MAX, Literal, Rules, STRING_BYTES_MAX, Type};
use serde_json::{Map, Number, Value, json};
use uuid::Uuid;

const REQUIRED: &str = "required field missing";
/// Kong's numbers are doubles; beyond this they are not exact.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Checks every field of an entity or record. Every known field is expected to be there, as a value or null.
pub(super) fn check_fields(fields: &[Field], body: &mut Map<String, Value>, errors: &mut Errors) {
    for (name, value) in body.iter_mut() {
        match fields.iter().find(|field| field.name == name) {
            None => errors.0.insert(name.clone(), "unknown field".into()),
            Some(field) => match check(field, value) {
                Ok(()) => None,
                Err(error) => errors.0.insert(name.clone(), error),
            },
        };
    }
}

/// Checks one value. The error is a text, or a tree that mirrors the value.
pub(super) fn check(field: &Field, value: &mut Value) -> Result<(), Value> {
    if value.is_null() {
        return if field.required {
            Err(REQUIRED.into())
        } else {
            Ok(())
        };
    }
    if let Some(error) = field.rules.forbidden {
        return Err(error.into());
    }
    check_type(field, value)?;
    if field.referenceable && value.as_str().is_some_and(text::is_vault_reference) {
        return Ok(());
    }
    check_rules(field, value)
        .map_err(|error| Value::String(field.rules.error.map_or(error, str::to_owned)))
}

fn check_type(field: &Field, value: &mut Value) -> Result<(), Value> {
    match field.kind {
        Type::String if value.is_string() => Ok(()),
        Type::String => Err("expected a string".into()),
        Type::Boolean if value.is_boolean() => Ok(()),
        Type::Boolean => Err("expected a boolean".into()),
        Type::Integer => match normal_number(value) {
            Some(number) if number.is_i64() => {
                *value = number.into();
                Ok(())
            }
            Some(_) | None => Err("expected an integer".into()),
        },
        Type::Number => {
            *value = normal_number(value).ok_or("expected a number")?.into();
            Ok(())
        }
        Type::Array(elements) => check_list(elements, value, "expected an array"),
        Type::Set(elements) => {
            check_list(elements, value, "expected a set")?;
            if let Value::Array(items) = value {
                drop_repeated(items);
            }
            Ok(())
        }
        Type::Map { keys, values } => check_map(keys, values, value),
        Type::Record(fields) => check_record(field, fields, value),
        Type::Foreign(Foreign {
            kind: _,
            on_delete: _,
        }) => check_reference(value),
        // Replaced by the plugin's or vault's own record before anything is checked.
        Type::Config if value.is_object() => Ok(()),
        Type::Config => Err("expected a record".into()),
        Type::Json => Ok(()),
    }
}

/// A number with integral floats as integers; `None` for other values and for integers that are not exact.
fn normal_number(value: &Value) -> Option<Number> {
    let number = value.as_number()?;
    let float = number.as_f64()?;
    if float.fract() != 0.0 {
        return Some(number.clone());
    }
    if float.abs() > INTEGER_MAX {
        return None;
    }
    number
        .as_i64()
        .map(Number::from)
        .or_else(|| format!("{float:.0}").parse().ok())
}

fn check_list(elements: &Field, value: &mut Value, expected: &str) -> Result<(), Value> {
    if value.as_object().is_some_and(Map::is_empty) {
        // The empty list of clients that cannot tell it from an empty record.
        *value = json!([]);
    }
    let Value::Array(items) = value else {
        return Err(expected.into());
    };
    if items.len() > ITEMS_MAX {
        return Err(format!("length must be at most {ITEMS_MAX}").into());
    }
    let elements = elements.required();
    let mut errors = Vec::new();
    for (index, item) in items.iter_mut().enumerate() {
        if let Err(error) = check(&elements, item) {
            errors.resize(index, Value::Null);
            errors.push(error);
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.into())
    }
}

fn drop_repeated(items: &mut Vec<Value>) {
    let mut seen = std::collections::BTreeSet::new();
    items.retain(|item| seen.insert(item.to_string()));
}

fn check_map(keys: &Field, values: &Field, value: &mut Value) -> Result<(), Value> {
    if value.as_array().is_some_and(Vec::is_empty) {
        *value = json!({});
    }
    let Value::Object(map) = value else {
        return Err("expected a map".into());
    };
    if map.len() > ITEMS_MAX {
        return Err(format!("length must be at most {ITEMS_MAX}").into());
    }
    let (keys, values) = (keys.required(), values.required());
    for (key, value) in map.iter_mut() {
        check(&keys, &mut Value::String(key.clone()))?;
        check(&values, value)?;
    }
    Ok(())
}

fn check_record(field: &Field, fields: &[Field], value: &mut Value) -> Result<(), Value> {
    let Value::Object(record) = value else {
        return Err("expected a record".into());
    };
    let mut errors = Errors::default();
    check_fields(fields, record, &mut errors);
    for check in field.checks {
        rules::check(check, fields, record, false, &mut errors);
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.into_fields().into())
    }
}

fn check_reference(value: &mut Value) -> Result<(), Value> {
    let id = match value.get("id") {
        None => return Err(json!({ "id": "missing primary key" })),
        Some(Value::Null) => return Err(json!({ "id": REQUIRED })),
        Some(Value::String(id)) => parse_uuid(id),
        Some(_) => return Err(json!({ "id": "expected a string" })),
    };
    let id = id.ok_or_else(|| json!({ "id": "expected a valid UUID" }))?;
    *value = json!({ "id": id.to_string() });
    Ok(())
}

/// A UUID in its usual form with hyphens, and no other.
fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 {
        Uuid::try_parse(text).ok()
    } else {
        None
    }
}

fn check_rules(field: &Field, value: &Value) -> Result<(), String> {
    let rules = &field.rules;
    if value
        .as_str()
        .is_some_and(|text| rules.not_one_of.contains(&text))
    {
        return Err(format!(
            "must not be one of: {}",
            rules.not_one_of.join(", ")
        ));
    }
    if let Some(options) = rules.one_of {
        check_one_of(options, value)?;
    }
    if let Some(number) = value.as_f64() {
        check_number(rules, number)?;
    }
    let (length, length_min, length_max) = match value {
        // Empty texts are not accepted by default.
        Value::String(text) => (text.len(), 1, STRING_BYTES_MAX),
        Value::Array(items) => (items.len(), 0, ITEMS_MAX),
        Value::Object(fields) => (fields.len(), 0, ITEMS_MAX),
        Value::Null | Value::Bool(_) | Value::Number(_) => (0, 0, 0),
    };
    let length_min = rules.len_min.unwrap_or(length_min);
    let length_max = rules.len_max.unwrap_or(length_max);
    if let Value::String(text) = value
        && rules.uuid
        && parse_uuid(text).is_none()
    {
        return Err("expected a valid UUID".to_owned());
    }
    if length < length_min {
        return Err(format!("length must be at least {length_min}"));
    }
    if length > length_max {
        return Err(format!("length must be at most {length_max}"));
    }
    if let Value::String(text) = value {
        check_text(rules, text)?;
    }
    if let Value::Array(items) = value {
        check_exclusive(rules.exclusive, items)?;
    }
    rules.custom.map_or(Ok(()), |rule| rule(value))
}

fn check_one_of(options: Literal, value: &Value) -> Result<(), String> {
    let options = options.value();
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    if options.contains(value) {
        return Ok(());
    }
    let shown: Vec<_> = options
        .iter()
        .map(|option| option.as_str().map_or(option.to_string(), str::to_owned))
        .collect();
    Err(format!("expected one of: {}", shown.join(", ")))
}

fn check_number(rules: &Rules, number: f64) -> Result<(), String> {
    if let Some(limit) = rules.gt
        && number <= limit
    {
        return Err(format!("value must be greater than {limit}"));
    }
    if rules.timestamp && number <= 0.0 {
        return Err("expected a valid timestamp".to_owned());
    }
    if let Some((low, high)) = rules.between
        && (number < low || number > high)
    {
        // Kong shows the whole part of a limit.
        let (low, high) = (low.trunc(), high.trunc());
        return Err(format!("value should be between {low} and {high}"));
    }
    Ok(())
}

fn check_text(rules: &Rules, text: &str) -> Result<(), String> {
    if let Some(prefix) = rules.starts_with
        && !text.starts_with(prefix)
    {
        return Err(format!("should start with: {prefix}"));
    }
    if let Some(pattern) = rules.pattern
        && !(pattern.matches)(text)
    {
        return Err(format!("invalid value: {text}"));
    }
    if rules.regex {
        regex::plain(text)?;
    }
    rules.text.map_or(Ok(()), |rule| rule(text))
}

fn check_exclusive(groups: &[&[&str]], items: &[Value]) -> Result<(), String> {
    let used: Vec<_> = groups
        .iter()
        .filter(|group| {
            items
                .iter()
                .filter_map(Value::as_str)
                .any(|item| group.contains(&item))
        })
        .map(|group| format!("('{}')", group.join("', '")))
        .collect();
    if used.len() < 2 {
        return Ok(());
    }
    Err(format!(
        "these sets are mutually exclusive: {}",
        used.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fill;
    use crate::entropy::Entropy;
    use crate::field::{Alias, Auto, Check};
    use crate::version::Time;

    fn text() -> Field {
        Field::string("x")
    }

    #[test]
    fn each_rule_tells_what_it_wants() {
        let number = Field::number("x").between_numbers(0.5, 9.5);
        for (field, value, expected) in [
            (
                text().not_one_of(&["a", "b"]),
                json!("b"),
                "must not be one of: a, b",
            ),
            (text().not_one_of(&["a", "b"]), json!("c"), ""),
            (text().regex(), json!("a(b"), "not a valid regex: a(b"),
            (text().regex(), json!("a(b)?"), ""),
            (text().len_max(1).error("too much"), json!("ab"), "too much"),
            (
                text().len_max(1).error("too much"),
                json!(1),
                "expected a string",
            ),
            (number, json!(0.4), "value should be between 0 and 9"),
            (number, json!(9.5), ""),
            (
                text().len_max(1),
                json!("{vault://a/b}"),
                "length must be at most 1",
            ),
            (
                text().len_max(1).referenceable(),
                json!("{vault://a/b}"),
                "",
            ),
            (
                text().len_max(1).referenceable(),
                json!("{vault://a/b"),
                "length must be at most 1",
            ),
        ] {
            let mut given = value.clone();
            let error = check(&field, &mut given).err();
            let error = error.as_ref().and_then(Value::as_str).unwrap_or_default();
            assert_eq!(error, expected, "{value}");
        }
    }

    const PAIR: &[Check] = &[Check::MutuallyRequired(&["name", "inner.key"])];
    const FIELDS: &[Field] = &[Field::record("pair", NAME_AND_INNER)
        .required()
        .checks(PAIR)];
    const NAME_AND_INNER: &[Field] = &[
        Field::string("name"),
        Field::record(
            "inner",
            &[
                Field::string("key").referenceable(),
                Field::string("drawn").auto(Auto::Random),
                Field::array("list", &Field::integer(""))
                    .default(Literal::List(&[Literal::Record(&[("a", Literal::Int(1))])])),
            ],
        )
        .required(),
    ];

    fn errors(pair: Value) -> Errors {
        let mut body = Map::from_iter([("pair".to_owned(), pair)]);
        let mut errors = Errors::default();
        check_fields(FIELDS, &mut body, &mut errors);
        errors
    }

    #[test]
    fn a_rule_waits_while_one_of_its_fields_is_a_reference() {
        assert!(!errors(json!({"inner": {"key": "k"}})).is_empty());
        assert!(errors(json!({"inner": {"key": "{vault://env/k}"}})).is_empty());
        assert!(errors(json!({"inner": {"key": "k"}, "name": "n"})).is_empty());
        // Only where a reference may stand.
        assert!(!errors(json!({"name": "{vault://env/k}"})).is_empty());
    }

    #[test]
    fn values_are_drawn_and_defaults_filled_inside_records() {
        let mut body = Map::new();
        let mut entropy = Entropy::new([1; 32]);
        let before = json!({"inner": {"drawn": "as it was"}});
        let before = before.as_object();
        fill::autos(NAME_AND_INNER, &mut body, before, Time(0), &mut entropy);
        fill::defaults(NAME_AND_INNER, &mut body);
        assert_eq!(body["inner"]["drawn"], "as it was");
        assert_eq!(body["inner"]["list"], json!([{"a": 1}]));
        let mut body = Map::new();
        fill::autos(NAME_AND_INNER, &mut body, None, Time(0), &mut entropy);
        assert_eq!(body["inner"]["drawn"].as_str().map(str::len), Some(32));
    }

    #[test]
    fn an_alias_may_convert_its_value_or_drop_it() {
        const ALIASES: &[Alias] = &[
            Alias::new(Field::integer("old"), &["inner", "key"])
                .convert(|value| value.to_string().into()),
            Alias::dropped(Field::integer("older")),
        ];
        let field = Field::record("pair", NAME_AND_INNER).aliases(ALIASES);
        let mut parent = Map::from_iter([("pair".to_owned(), json!({"old": 5, "older": 6}))]);
        let mut errors = Errors::default();
        fill::expand_aliases(&field, "pair", &mut parent, &mut errors);
        assert_eq!(parent["pair"], json!({"inner": {"key": "5"}}));
        assert!(errors.is_empty());
    }
}
