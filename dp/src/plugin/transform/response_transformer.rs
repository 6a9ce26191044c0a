//! `response-transformer`: changes the head of answers and the members of JSON objects in their bodies.
//!
//! Order: remove, rename, replace, add, append. Deviations: a body of more than 8 MiB, or one that is no JSON object, goes on as it is;
//! numbers in `json_types: number` must be ones of JSON.

use super::edits::{BODY_BYTES_MAX, Edits, split};
use crate::plugin::{Collect, Entity, Phases, Plugin, Reply};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// The fields of the entity's `config`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Fields {
    remove: Names,
    rename: Names,
    replace: Values,
    add: Values,
    append: Values,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Names {
    json: Vec<String>,
    headers: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Values {
    json: Vec<String>,
    json_types: Vec<JsonType>,
    headers: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JsonType {
    Boolean,
    Number,
    String,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct ResponseTransformer {
    headers: Headers,
    json: Option<Arc<Json>>,
}

#[derive(Debug)]
struct Headers {
    remove: Vec<HeaderName>,
    rename: Vec<(HeaderName, HeaderName)>,
    replace: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    append: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
struct Json {
    remove: Vec<String>,
    rename: Vec<(String, String)>,
    replace: Vec<(String, Value)>,
    add: Vec<(String, Value)>,
    append: Vec<(String, Value)>,
}

impl Plugin for ResponseTransformer {
    const NAME: &'static str = "response-transformer";
    const PRIORITY: i32 = 800;
    const PHASES: Phases = Phases::RESPONSE;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let names = fields.remove.headers.iter().map(|name| named(name));
        let headers = Headers {
            remove: names.collect::<Result<_, _>>()?,
            rename: renames(&fields.rename.headers)?,
            replace: headers(&fields.replace.headers)?,
            add: headers(&fields.add.headers)?,
            append: headers(&fields.append.headers)?,
        };
        let pair = |pair: &String| {
            let (name, value) = split(pair);
            (name.to_owned(), value.to_owned())
        };
        let json = Json {
            rename: fields.rename.json.iter().map(pair).collect(),
            replace: values(&fields.replace),
            add: values(&fields.add),
            append: values(&fields.append),
            remove: fields.remove.json,
        };
        Ok(Self {
            headers,
            json: (!json.is_empty()).then(|| Arc::new(json)),
        })
    }

    fn response(&self, reply: &mut Reply<'_>) {
        self.headers.apply(reply.headers);
        let Some(json) = &self.json else { return };
        if is_json(reply.headers) {
            let json = Arc::clone(json);
            reply.filter(Collect::new(BODY_BYTES_MAX, move |body| json.apply(body)));
        }
    }
}

impl Headers {
    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (old, new) in &self.rename {
            rename(headers, old, new.clone());
        }
        for (name, value) in &self.replace {
            if headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in &self.add {
            if !headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in &self.append {
            headers.append(name, value.clone());
        }
    }
}

impl Json {
    fn is_empty(&self) -> bool {
        let names = self.remove.is_empty() && self.rename.is_empty();
        names && self.replace.is_empty() && self.add.is_empty() && self.append.is_empty()
    }

    fn apply(&self, body: Bytes) -> Bytes {
        let Ok(Value::Object(mut object)) = serde_json::from_slice(&body) else {
            return body;
        };
        let rename = self.rename.iter();
        let edits = Edits {
            remove: &self.remove,
            rename: rename
                .map(|(old, new)| (old.as_str(), new.clone()))
                .collect(),
            replace: pairs(&self.replace),
            add: pairs(&self.add),
            append: pairs(&self.append),
        };
        edits.apply(&mut object);
        Value::Object(object).to_string().into()
    }
}

fn pairs(pairs: &[(String, Value)]) -> Vec<(&str, Value)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect()
}

/// Moves all values of a header.
pub(super) fn rename(headers: &mut HeaderMap, old: &HeaderName, new: HeaderName) {
    let values: Vec<_> = headers.get_all(old).iter().cloned().collect();
    if values.is_empty() {
        return;
    }
    headers.remove(old);
    headers.remove(&new);
    for value in values {
        headers.append(new.clone(), value);
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content = headers.get(header::CONTENT_TYPE);
    let content = content.and_then(|content| content.to_str().ok());
    content.is_some_and(|content| content.to_ascii_lowercase().contains("application/json"))
}

pub(super) fn named(name: &str) -> Result<HeaderName, String> {
    let parsed = name.parse();
    parsed.map_err(|_| format!("'{name}' is not a valid header"))
}

pub(super) fn renames(pairs: &[String]) -> Result<Vec<(HeaderName, HeaderName)>, String> {
    let pairs = pairs.iter().map(|pair| {
        let (old, new) = split(pair);
        Ok((named(old)?, named(new)?))
    });
    pairs.collect()
}

fn headers(pairs: &[String]) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let pairs = pairs.iter().map(|pair| {
        let (name, value) = split(pair);
        let value = HeaderValue::from_str(value);
        let value = value.map_err(|_| "a value is not valid in a header".to_owned())?;
        Ok((named(name)?, value))
    });
    pairs.collect()
}

/// Values of the types that are given for them; one that is not of its type is left out, as in Kong.
fn values(values: &Values) -> Vec<(String, Value)> {
    let typed = values.json.iter().enumerate().filter_map(|(index, pair)| {
        let (name, text) = split(pair);
        let value = match values.json_types.get(index) {
            Some(JsonType::Boolean) => Value::Bool(text == "true"),
            Some(JsonType::Number) => Value::Number(text.trim().parse().ok()?),
            Some(JsonType::String) | None => Value::String(text.to_owned()),
        };
        Some((name.to_owned(), value))
    });
    typed.collect()
}
