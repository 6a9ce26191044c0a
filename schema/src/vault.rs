//! References to secrets that are not in the configuration: `{vault://prefix/name}`, or `{vault://prefix/name/key}` for a part
//! of a secret that is JSON.

use crate::check::text::is_vault_reference;
use crate::field::{Field, Type};
use crate::kind::Kind;
use crate::walk::{Next, walk};
use serde_json::{Map, Number, Value};

/// The prefix of the vault that is always there: variables of the process.
pub const ENV: &str = "env";
const SCHEME: &str = "{vault://";
/// What a body holds that refers to a vault.
const NEEDLE: &[u8] = b"{vault://";

/// A reference taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// The prefix of the vault.
    pub vault: String,
    /// The secret.
    pub name: String,
    /// Which of its members, if it is a JSON object.
    pub key: Option<String>,
    /// What the reference itself says of the vault's `prefix` for variables.
    pub prefix: Option<String>,
}

impl Reference {
    /// A text that is a reference; `None` if it has the form of none.
    pub fn parse(text: &str) -> Option<Self> {
        let inside = text.strip_prefix(SCHEME)?.strip_suffix('}')?;
        let (path, query) = inside.split_once('?').unwrap_or((inside, ""));
        let mut segments = path.split('/').map(str::to_owned);
        let (vault, name) = (segments.next()?, segments.next()?);
        let key = segments.next();
        let whole = !vault.is_empty() && !name.is_empty() && segments.next().is_none();
        let prefix = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("prefix="));
        whole.then(|| Self {
            vault,
            name,
            key: key.filter(|key| !key.is_empty()),
            prefix: prefix.map(str::to_owned),
        })
    }

    /// The variable it stands for, with the prefix that its vault has.
    pub fn variable(&self, prefix: Option<&str>) -> String {
        let prefix = self.prefix.as_deref().or(prefix).unwrap_or_default();
        let name = self.name.to_ascii_uppercase().replace('-', "_");
        format!("{}{name}", prefix.to_ascii_uppercase().replace('-', "_"))
    }

    /// The secret, or the member of it that is asked for.
    ///
    /// # Errors
    /// If the secret has no such member. The message does not quote it.
    pub fn pick(&self, secret: &str) -> Result<String, String> {
        let Some(key) = &self.key else {
            return Ok(secret.to_owned());
        };
        let object: Option<Map<String, Value>> = serde_json::from_str(secret).ok();
        match object.as_ref().and_then(|object| object.get(key)) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(_) | None => Err(format!("'{}' has no member '{key}' with a text", self.name)),
        }
    }
}

/// Whether a body may hold references, by its bytes. Says yes a little too often.
pub fn may_refer(body: &[u8]) -> bool {
    body.windows(NEEDLE.len()).any(|window| window == NEEDLE)
}

/// Puts secrets where an entity's body refers to them; `find` looks one up.
///
/// # Errors
/// If one cannot be found, or is not what its field takes. The message names the field and the reference.
pub fn resolve(
    kind: Kind,
    body: &mut Map<String, Value>,
    find: &mut dyn FnMut(&Reference) -> Result<String, String>,
) -> Result<(), String> {
    walk(kind, body, &mut |field, path, value| {
        let Value::String(text) = &*value else {
            return Ok(Next::Inside);
        };
        if !field.referenceable || !is_vault_reference(text) {
            return Ok(Next::Inside);
        }
        let told = |reason: String| format!("{path}: {text}: {reason}");
        let reference = Reference::parse(text);
        let reference = reference.ok_or_else(|| told("not a reference to a vault".to_owned()))?;
        let secret = find(&reference).and_then(|secret| reference.pick(&secret));
        let secret = secret.map_err(told)?;
        let typed = typed(field, secret);
        *value = typed.ok_or_else(|| told("not what the field takes".to_owned()))?;
        Ok(Next::Past)
    })
}

/// A secret as a value of its field.
fn typed(field: &Field, secret: String) -> Option<Value> {
    match field.kind {
        Type::Integer => secret.trim().parse::<i64>().ok().map(Value::from),
        Type::Number => {
            let number = secret.trim().parse::<f64>().ok();
            number.and_then(Number::from_f64).map(Value::Number)
        }
        Type::Boolean => secret.trim().parse::<bool>().ok().map(Value::Bool),
        Type::String
        | Type::Array(_)
        | Type::Set(_)
        | Type::Map { .. }
        | Type::Record(_)
        | Type::Foreign(_)
        | Type::Config
        | Type::Json => Some(Value::String(secret)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_taken_apart_as_kong_does() {
        let check = |text: &str, expected: Option<(&str, &str, Option<&str>)>| {
            let found = Reference::parse(text);
            let found = found.as_ref().map(|reference| {
                let key = reference.key.as_deref();
                (reference.vault.as_str(), reference.name.as_str(), key)
            });
            assert_eq!(found, expected, "{text}");
        };
        check("{vault://env/my-secret}", Some(("env", "my-secret", None)));
        check("{vault://my-env/a/b}", Some(("my-env", "a", Some("b"))));
        check("{vault://env/a/}", Some(("env", "a", None)));
        check("{vault://env/a?prefix=X_}", Some(("env", "a", None)));
        for text in [
            "{vault://env}",
            "{vault:///a}",
            "{vault://env/a/b/c}",
            "vault://env/a",
            "{vault://env/a",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn variables_have_the_name_in_capitals_behind_the_prefix() {
        let variable = |text: &str, prefix| Reference::parse(text).unwrap().variable(prefix);
        assert_eq!(variable("{vault://env/my-secret}", None), "MY_SECRET");
        assert_eq!(variable("{vault://env/a}", Some("secure-")), "SECURE_A");
        assert_eq!(
            variable("{vault://env/a?prefix=x_}", Some("secure_")),
            "X_A"
        );
    }

    #[test]
    fn secrets_stand_where_they_were_referred_to() {
        let mut body = json!({ "name": "rate-limiting", "config": {
            "minute": 5, "policy": "redis",
            "redis": { "host": "h", "username": "{vault://env/user}", "password": "{vault://env/login/password}" },
        }});
        let body = body.as_object_mut().unwrap();
        let mut find = |reference: &Reference| match reference.name.as_str() {
            "user" => Ok("anna".to_owned()),
            "login" => Ok("{\"password\": \"p\"}".to_owned()),
            other => Err(format!("no {other}")),
        };
        resolve(Kind::Plugin, body, &mut find).unwrap();
        assert_eq!(body["config"]["redis"]["username"], "anna");
        assert_eq!(body["config"]["redis"]["password"], "p");
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is_quoted() {
        let check = |reference: &str, expected: &str| {
            let mut body = json!({ "name": "session", "config": { "secret": reference } });
            let mut find = |reference: &Reference| match reference.name.as_str() {
                "there" => Ok("geheim".to_owned()),
                _ => Err("the variable is not set".to_owned()),
            };
            let error =
                resolve(Kind::Plugin, body.as_object_mut().unwrap(), &mut find).unwrap_err();
            assert!(
                error.contains(expected) && error.contains("config.secret"),
                "{error}"
            );
            assert!(!error.contains("geheim"), "{error}");
        };
        check("{vault://env/gone}", "the variable is not set");
        check("{vault://env}", "not a reference");
        check("{vault://env/there/member}", "no member 'member'");
    }

    #[test]
    fn what_may_not_refer_is_left_alone() {
        let text = "{vault://env/a}";
        let mut body = json!({ "name": "route", "paths": ["/"], "tags": [text] });
        let body = body.as_object_mut().unwrap();
        resolve(Kind::Route, body, &mut |_| Ok("x".to_owned())).unwrap();
        assert_eq!(body["tags"][0], text);
        assert!(may_refer(text.as_bytes()) && !may_refer(b"{vault:/env}"));
    }
}
