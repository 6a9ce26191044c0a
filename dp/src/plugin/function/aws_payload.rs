//! What a function on AWS is told of a request, and what is made of its answer.

use crate::plugin::{Access, Answer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

/// Types of content that are sent as text.
const TEXT_TYPES: [&str; 5] = [
    "text/plain",
    "text/html",
    "application/xml",
    "text/xml",
    "application/soap+xml",
];

/// What of a request is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forward {
    pub(super) method: bool,
    pub(super) uri: bool,
    pub(super) headers: bool,
    pub(super) body: bool,
    /// As AWS's API Gateway tells it.
    pub(super) gateway: bool,
    /// Bodies of unknown types are in base64.
    pub(super) base64: bool,
}

impl Forward {
    /// The payload of a request with this body.
    pub(super) fn payload(self, request: &Access<'_>, body: &[u8]) -> Value {
        if self.gateway {
            return gateway(request, body, self.base64);
        }
        let query = arguments(request.query().unwrap_or_default());
        let args = body_arguments(request.headers, body);
        if !(self.method || self.uri || self.headers || self.body) {
            let mut all = query;
            all.extend(args.unwrap_or_default());
            return all.into();
        }
        let mut payload = Map::new();
        if self.method {
            payload.insert("request_method".into(), request.method.as_str().into());
        }
        if self.headers {
            payload.insert("request_headers".into(), headers(request.headers).into());
        }
        if self.uri {
            let path = request.uri.path();
            let target = request
                .query()
                .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
            payload.insert("request_uri".into(), target.into());
            payload.insert("request_uri_args".into(), query.into());
        }
        if self.body {
            let text = String::from_utf8_lossy(body);
            let raw = args.is_none() && !is_text(request.headers) && self.base64;
            if raw {
                payload.insert("request_body_base64".into(), true.into());
                payload.insert("request_body".into(), STANDARD.encode(body).into());
            } else {
                payload.insert("request_body".into(), text.into());
            }
            payload.insert("request_body_args".into(), args.unwrap_or_default().into());
        }
        payload.into()
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

fn is_text(headers: &HeaderMap) -> bool {
    TEXT_TYPES.contains(&content_type(headers))
}

/// Text for a name, a list for one that comes more than once, `true` for one without a value.
fn arguments(query: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
            continue;
        };
        let value = if pair.contains('=') {
            Value::from(value)
        } else {
            true.into()
        };
        add(&mut map, name.into_owned(), value);
    }
    map
}

fn add(map: &mut Map<String, Value>, name: String, value: Value) {
    match map.get_mut(&name) {
        None => _ = map.insert(name, value),
        Some(Value::Array(list)) => list.push(value),
        Some(one) => *one = Value::Array(vec![one.take(), value]),
    }
}

/// What a body says by name; `None` if its type is of another kind.
fn body_arguments(headers: &HeaderMap, body: &[u8]) -> Option<Map<String, Value>> {
    match content_type(headers) {
        "application/x-www-form-urlencoded" => Some(arguments(&String::from_utf8_lossy(body))),
        "application/json" => match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Some(map),
            Ok(_) | Err(_) => Some(Map::new()),
        },
        _ => None,
    }
}

fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        add(&mut map, name.as_str().to_owned(), value.into());
    }
    map
}

/// The event of AWS's API Gateway, version 1.0.
fn gateway(request: &Access<'_>, body: &[u8], base64: bool) -> Value {
    let query = arguments(request.query().unwrap_or_default());
    let all_headers = headers(request.headers);
    let one = |map: &Map<String, Value>| -> Map<String, Value> {
        let last = |value: &Value| match value.as_array() {
            Some(list) => list.last().cloned().unwrap_or_default(),
            None => value.clone(),
        };
        map.iter()
            .map(|(name, value)| (name.clone(), last(value)))
            .collect()
    };
    let many = |map: &Map<String, Value>| -> Map<String, Value> {
        let list = |value: &Value| {
            if value.is_array() {
                value.clone()
            } else {
                json!([value])
            }
        };
        map.iter()
            .map(|(name, value)| (name.clone(), list(value)))
            .collect()
    };
    let encoded = base64 && !body.is_empty();
    let body = if encoded {
        STANDARD.encode(body)
    } else {
        String::from_utf8_lossy(body).into_owned()
    };
    json!({
        "version": "1.0",
        "resource": request.path,
        "path": request.path,
        "httpMethod": request.method.as_str(),
        "headers": one(&all_headers),
        "multiValueHeaders": many(&all_headers),
        "pathParameters": {},
        "queryStringParameters": one(&query),
        "multiValueQueryStringParameters": many(&query),
        "body": body,
        "isBase64Encoded": encoded,
        "requestContext": {
            "path": request.path,
            "protocol": "HTTP/1.1",
            "httpMethod": request.method.as_str(),
            "domainName": request.host,
            "requestId": request.request_id.to_str().unwrap_or_default(),
            "identity": {
                "sourceIp": request.client.to_string(),
                "userAgent": all_headers.get("user-agent"),
            },
        },
    })
}

/// The answer that a function describes.
///
/// # Errors
/// Why it describes none.
pub(super) fn described(content: &[u8], around: &HeaderMap) -> Result<Answer, String> {
    let value: Value = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    let status = &value["statusCode"];
    let status = match status.as_str() {
        Some(text) => text.parse::<u16>().ok(),
        None => status.as_u64().and_then(|number| number.try_into().ok()),
    };
    let status = status.filter(|status| (100..600).contains(status));
    let status = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or("statusCode validation failed")?;
    let body = match &value["body"] {
        Value::Null => Bytes::new(),
        Value::String(text) if value["isBase64Encoded"] == true => STANDARD
            .decode(text)
            .map_err(|_| "body must be base64")?
            .into(),
        Value::String(text) => Bytes::copy_from_slice(text.as_bytes()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err("body must be a string".into());
        }
    };
    let mut headers = around.clone();
    for part in ["headers", "multiValueHeaders"] {
        match &value[part] {
            Value::Null => {}
            Value::Object(map) => map
                .iter()
                .for_each(|(name, value)| set(&mut headers, name, value)),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(format!("{part} must be a table"));
            }
        }
    }
    Ok(super::relay(status, &headers, body))
}

/// What cannot be sent is left out.
fn set(headers: &mut HeaderMap, name: &str, value: &Value) {
    let Ok(name) = HeaderName::try_from(name) else {
        return;
    };
    let text = |value: &Value| match value.as_str() {
        Some(text) => HeaderValue::from_str(text).ok(),
        None => HeaderValue::try_from(value.to_string()).ok(),
    };
    headers.remove(&name);
    let list = value.as_array().map(Vec::as_slice);
    let values = list.unwrap_or(std::slice::from_ref(value));
    for value in values.iter().filter_map(text) {
        headers.append(name.clone(), value);
    }
}
