//! Bodies without their secrets, for plans, histories and whatever else people keep and pass on.

use crate::check::text::is_vault_reference;
use crate::field::{Field, Type};
use crate::kind::Kind;
use serde_json::{Map, Value};

/// What stands for a secret.
pub const SECRET: &str = "(secret)";
/// What stands for a secret that is another one than before.
pub const NEW_SECRET: &str = "(another secret)";

/// `body` of an entity of `kind`, with each secret replaced. With `before`, what the entity was, a secret that has
/// changed is told from one that has not. Fields and kinds this build does not know are taken for secrets.
pub fn mask(
    kind: Option<Kind>,
    body: &Map<String, Value>,
    before: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let schema = kind.map(Kind::schema);
    let config = schema.and_then(|schema| {
        let variant = schema.variant?;
        Some((
            variant.record,
            schema.config(body.get(variant.key)?.as_str()?)?,
        ))
    });
    let find = |name: &str| match config {
        Some((record, config)) if record == name => Some(config),
        Some(_) | None => schema.and_then(|schema| schema.field(name)),
    };
    masked_fields(&find, body, before)
}

fn masked_fields<'a>(
    find: &dyn Fn(&str) -> Option<&'a Field>,
    fields: &Map<String, Value>,
    before: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let one = |(name, value): (&String, &Value)| {
        let old = before.and_then(|before| before.get(name));
        let shown = match find(name) {
            Some(field) => masked(field, value, before.is_some(), old),
            None => secret(value, before.is_some(), old),
        };
        (name.clone(), shown)
    };
    fields.iter().map(one).collect()
}

/// `compared` says whether there is a body to compare with, of which `before` is this value.
fn masked(field: &Field, value: &Value, compared: bool, before: Option<&Value>) -> Value {
    if field.encrypted {
        let elsewhere = field.referenceable && value.as_str().is_some_and(is_vault_reference);
        return match elsewhere {
            true => value.clone(),
            false => secret(value, compared, before),
        };
    }
    match (field.kind, value) {
        (Type::Record(fields), Value::Object(record)) => {
            let find = |name: &str| fields.iter().find(|field| field.name == name);
            let old = before.and_then(Value::as_object);
            let empty = Map::new();
            let old = old.or_else(|| compared.then_some(&empty));
            masked_fields(&find, record, old).into()
        }
        (Type::Array(elements) | Type::Set(elements), Value::Array(items)) => {
            let old = |position: usize| before.and_then(|before| before.get(position));
            let one = |(position, item)| masked(elements, item, compared, old(position));
            items.iter().enumerate().map(one).collect()
        }
        (Type::Map { values, .. }, Value::Object(map)) => {
            let old = |name: &str| before.and_then(|before| before.get(name));
            let one = |(name, value): (&String, &Value)| {
                (name.clone(), masked(values, value, compared, old(name)))
            };
            Value::Object(map.iter().map(one).collect())
        }
        // Of a plugin that this build does not know.
        (Type::Config, value) => secret(value, compared, before),
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
            | Type::Json,
            value,
        ) => value.clone(),
    }
}

fn secret(value: &Value, compared: bool, before: Option<&Value>) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    match compared && before != Some(value) {
        true => NEW_SECRET.into(),
        false => SECRET.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: Option<Kind>, body: Value, before: Option<Value>, expected: Value) {
        let before = before.as_ref().and_then(Value::as_object);
        let shown = mask(kind, body.as_object().unwrap(), before);
        assert_eq!(Value::Object(shown), expected);
    }

    #[test]
    fn secrets_are_replaced_wherever_they_are() {
        check(
            Some(Kind::KeyauthCredential),
            json!({"key": "k", "ttl": 5, "tags": ["t"], "from_the_future": 1}),
            None,
            json!({"key": SECRET, "ttl": 5, "tags": ["t"], "from_the_future": SECRET}),
        );
        let session = |secret: &str| {
            let config = json!({"secret": secret, "cookie_name": "c"});
            json!({"name": "session", "config": config})
        };
        for (after, shown) in [
            ("a", SECRET),
            ("b", NEW_SECRET),
            ("{vault://env/x}", "{vault://env/x}"),
        ] {
            let before = Some(session("a"));
            check(Some(Kind::Plugin), session(after), before, session(shown));
        }
        check(
            Some(Kind::Plugin),
            json!({"name": "unheard-of", "config": {"x": 1}, "enabled": true}),
            None,
            json!({"name": "unheard-of", "config": SECRET, "enabled": true}),
        );
        check(
            None,
            json!({"a": 1, "b": null}),
            None,
            json!({"a": SECRET, "b": null}),
        );
        check(
            Some(Kind::Key),
            json!({"pem": {"private_key": "p", "public_key": "q"}}),
            Some(json!({})),
            json!({"pem": {"private_key": NEW_SECRET, "public_key": "q"}}),
        );
    }

    #[test]
    fn every_secret_of_every_plugin_is_masked() {
        let mut secrets = 0;
        for plugin in crate::plugin::PLUGINS {
            let filled = fill(&plugin.config, &mut secrets);
            let body = json!({"name": plugin.name, "config": filled});
            let shown = mask(Some(Kind::Plugin), body.as_object().unwrap(), None);
            let shown = Value::Object(shown).to_string();
            assert!(!shown.contains("hidden"), "{shown}");
        }
        assert!(secrets > 20, "{secrets}");
    }

    /// A value with `hidden` in every secret.
    fn fill(field: &Field, secrets: &mut usize) -> Value {
        if field.encrypted {
            *secrets += 1;
            return "hidden".into();
        }
        match field.kind {
            Type::Record(fields) => {
                let one = |field: &Field| (field.name.to_owned(), fill(field, secrets));
                Value::Object(fields.iter().map(one).collect())
            }
            Type::Array(elements) | Type::Set(elements) => vec![fill(elements, secrets)].into(),
            Type::Map { values, .. } => json!({"x": fill(values, secrets)}),
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Foreign(_)
            | Type::Config
            | Type::Json => "x".into(),
        }
    }
}
