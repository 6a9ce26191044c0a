//! `request-termination`: answers in place of the upstream.
//!
//! Deviations from Kong: an echo says of the route and the service their ids and names only, and nothing of the node.

use crate::plugin::{Access, Answer, Entity, Flow, Phases, Plugin, Step, Waiting};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The longest body that is echoed, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    status_code: u16,
    message: Option<String>,
    content_type: Option<String>,
    body: Option<String>,
    echo: bool,
    trigger: Option<String>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct RequestTermination {
    status: StatusCode,
    message: Option<String>,
    body: Option<(HeaderValue, Bytes)>,
    echo: bool,
    trigger: Option<Trigger>,
}

#[derive(Debug)]
struct Trigger {
    argument: String,
    header: Option<HeaderName>,
}

impl Plugin for RequestTermination {
    const NAME: &'static str = "request-termination";
    const PRIORITY: i32 = 2;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let content_type = fields.content_type.as_deref();
        let content_type = content_type.unwrap_or("application/json; charset=utf-8");
        let content_type = HeaderValue::from_str(content_type)
            .map_err(|_| "content_type cannot be a header's value".to_owned())?;
        let trigger = fields.trigger.map(|argument| Trigger {
            header: argument.parse().ok(),
            argument,
        });
        let status = StatusCode::from_u16(fields.status_code);
        Ok(Self {
            status: status.map_err(|error| error.to_string())?,
            message: fields
                .message
                .or_else(|| default_message(fields.status_code).map(str::to_owned)),
            body: fields.body.map(|body| (content_type, body.into())),
            echo: fields.echo,
            trigger,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if let Some(trigger) = &self.trigger
            && !trigger.is_pulled(request)
        {
            return Step::Continue;
        }
        if self.echo {
            return Step::Wait;
        }
        Step::Answer(match (&self.body, &self.message) {
            (Some((content_type, body)), _) => {
                Answer::bytes(self.status, content_type.clone(), body.clone())
            }
            (None, Some(message)) => Answer::json(self.status, &json!({ "message": message })),
            (None, None) => Answer::empty(self.status),
        })
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            // One that cannot be read is not shown.
            let body = request.body(BODY_BYTES_MAX).await.unwrap_or_default();
            let echo = self.echo(request, &body);
            Flow::Answer(Answer::json(self.status, &echo))
        })
    }
}

impl RequestTermination {
    fn echo(&self, request: &Access<'_>, body: &[u8]) -> Value {
        let mut headers = Map::new();
        for (name, value) in &*request.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            add(&mut headers, name.as_str(), &value);
        }
        let mut query = Map::new();
        for (name, value) in form_urlencoded::parse(request.query().unwrap_or_default().as_bytes())
        {
            add(&mut query, &name, &value);
        }
        let captures = request
            .captures
            .into_iter()
            .flat_map(|captures| captures.iter());
        let captures: Map<_, _> = captures
            .map(|(number, name, value)| {
                let name = name.map_or_else(|| number.to_string(), str::to_owned);
                (name, Value::from(value))
            })
            .collect();
        let entity = |id: uuid::Uuid, name: Option<&str>| json!({ "id": id, "name": name });
        let service = request.service;
        json!({
            "message": self.message,
            "request": {
                "scheme": if request.tls { "https" } else { "http" },
                "host": request.host,
                "port": request.local.port(),
                "headers": headers,
                "query": query,
                "raw_body": String::from_utf8_lossy(body),
                "method": request.method.as_str(),
                "path": request.path,
                "uri_captures": captures,
            },
            "matched_route": entity(request.route.id, request.route.name.as_deref()),
            "matched_service": service.map(|service| entity(service.id, service.name.as_deref())),
        })
    }
}

/// Adds a value to those of a name: one as text, several as an array.
fn add(map: &mut Map<String, Value>, name: &str, value: &str) {
    match map.get_mut(name) {
        None => _ = map.insert(name.to_owned(), value.into()),
        Some(Value::Array(values)) => values.push(value.into()),
        Some(one) => *one = json!([one.take(), value]),
    }
}

impl Trigger {
    fn is_pulled(&self, request: &Access<'_>) -> bool {
        let header = self.header.as_ref();
        let query = request.query().unwrap_or_default();
        header.is_some_and(|name| request.headers.contains_key(name))
            || form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == self.argument)
    }
}

fn default_message(status: u16) -> Option<&'static str> {
    Some(match status {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => return None,
    })
}
