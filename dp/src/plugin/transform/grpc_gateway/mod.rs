//! `grpc-gateway`: clients without gRPC call gRPC services by HTTP and JSON, as a `.proto` file says with the option
//! `google.api.http` of its methods.
//!
//! What the path, the query and the body of a request give are the fields of the message; the messages of the answer are
//! sent as JSON, those of a stream one behind the other as they come. `grpc-status` becomes the HTTP status where it is in
//! the answer's head, which is where servers put it that fail before their first message.
//!
//! `proto` is a path on the data plane's host, or the text of the file itself: what has a line break is a text. A path is
//! read when the plugin is compiled, not for each request; a changed file counts from the plugin's next change. A file that
//! cannot be used puts the plugin into quarantine, where Kong answers each request with 500.
//!
//! Deviations: a field that the path gives cannot be overwritten by the body; parts of the path are decoded; the query counts
//! beside a body that is one field, as the option's documentation has it; `response_body` and `custom` are known; what cannot be
//! a field's value is a 400; bytes are base64, times have their fractions; a failure has a body with `code` and `message`.

mod message;
mod service;
mod template;

use crate::plugin::{
    Access, Answer, BodyFilter, Entity, Flow, Origin, Phases, Plugin, Reply, Step, Waiting,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use message::Messages;
use prost_reflect::MessageDescriptor;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use service::{Found, Rule, Service, Unknown};

/// The longest body that becomes a message.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const ANY: HeaderValue = HeaderValue::from_static("*");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// `INTERNAL`
const INTERNAL: u16 = 13;
/// A client that has gone, in nginx's words.
const CLIENT_CLOSED: u16 = 499;

/// The fields of the entity's `config`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    proto: Option<String>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct GrpcGateway {
    service: Option<Service>,
}

/// How the answer to a request is shown.
struct Call {
    output: MessageDescriptor,
    field: String,
}

impl Plugin for GrpcGateway {
    const NAME: &'static str = "grpc-gateway";
    const PRIORITY: i32 = 998;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let service = fields.proto.as_deref().map(Service::load);
        Ok(Self {
            service: service.transpose()?,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let headers = &mut request.response_headers;
        headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY));
        if *request.method == Method::OPTIONS {
            return Step::Answer(preflight());
        }
        let (rule, fields) = match self.find(request) {
            Ok(found) => found,
            Err(refusal) => return Step::Answer(bad_request(refusal)),
        };
        if !rule.body.is_empty() && request.has_body() {
            return Step::Wait;
        }
        call(request, rule, &fields, None).into()
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let body = match request.body(BODY_BYTES_MAX).await {
                Ok(body) => body,
                Err(fault) => return Flow::Answer(fault.into()),
            };
            let (rule, fields) = match self.find(request) {
                Ok(found) => found,
                Err(refusal) => return Flow::Answer(bad_request(refusal)),
            };
            if body.is_empty() {
                return call(request, rule, &fields, None);
            }
            match serde_json::from_slice(&body) {
                Ok(body) => call(request, rule, &fields, Some(body)),
                Err(error) => {
                    Flow::Answer(bad_request(format!("the body cannot be read: {error}")))
                }
            }
        })
    }

    fn response(&self, reply: &mut Reply<'_>) {
        let Some(call) = reply.context.shared.get::<Call>() else {
            return;
        };
        let grpc = reply.headers.get(header::CONTENT_TYPE);
        let grpc = grpc.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if reply.origin != Origin::Upstream || !grpc {
            return;
        }
        let messages = Messages::new(call.output.clone(), call.field.clone());
        reply.headers.insert(header::CONTENT_TYPE, JSON);
        let failure = Failure::of(reply.headers);
        if let Some(code) = status_of(reply.headers) {
            *reply.status = http_status(code);
        }
        reply.filter(Shown {
            messages: Some(messages),
            failure,
            begun: false,
        });
    }
}

impl GrpcGateway {
    fn find<'a>(&'a self, request: &Access<'_>) -> Result<Found<'a>, String> {
        let service = self.service.as_ref();
        let service =
            service.ok_or("transcoding requests require a .proto file defining the service")?;
        let (method, path) = (&*request.method, request.path);
        service.find(method, path).map_err(|unknown| match unknown {
            Unknown::Method => {
                let method = method.as_str().to_ascii_lowercase();
                format!("failed to transcode .proto file Unknown method {method:?}")
            }
            Unknown::Path => format!("failed to transcode .proto file Unknown path {path:?}"),
        })
    }
}

/// Makes the request a call of gRPC.
fn call(
    request: &mut Access<'_>,
    rule: &Rule,
    path_fields: &[(&str, String)],
    body: Option<Value>,
) -> Flow {
    let (mut fields, input) = (Map::new(), &rule.input);
    match body {
        Some(Value::Object(all)) if rule.body == "*" => fields = all,
        Some(_) if rule.body == "*" => {
            return Flow::Answer(bad_request("body must be a table".to_owned()));
        }
        Some(value) => message::set_value(&mut fields, input, &rule.body, value),
        None => {}
    }
    if rule.body != "*" {
        let query = request.query().unwrap_or_default().as_bytes();
        for (name, value) in form_urlencoded::parse(query) {
            message::set(&mut fields, input, &name, &value);
        }
    }
    for (name, value) in path_fields {
        message::set(&mut fields, input, name, value);
    }
    let frame = match message::encode(input, fields) {
        Ok(frame) => frame,
        Err(error) => return Flow::Answer(bad_request(error)),
    };
    let headers = &mut *request.headers;
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(header::TE, TRAILERS);
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(GRPC_ACCEPT_ENCODING);
    *request.method = Method::POST;
    request.set_upstream_path(rule.path.clone());
    request.set_query(None);
    request.set_body(frame);
    request.context.shared.insert(Call {
        output: rule.output.clone(),
        field: rule.response_body.clone(),
    });
    Flow::Continue
}

fn preflight() -> Answer {
    let methods = HeaderValue::from_static("GET,POST,PATCH,DELETE");
    let headers = HeaderValue::from_static("content-type");
    Answer::bytes(StatusCode::OK, JSON, "OK")
        .with(header::ACCESS_CONTROL_ALLOW_METHODS, methods)
        .with(header::ACCESS_CONTROL_ALLOW_HEADERS, headers)
}

fn bad_request(reason: String) -> Answer {
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    Answer::bytes(StatusCode::BAD_REQUEST, text, reason)
}

fn status_of(headers: &HeaderMap) -> Option<u16> {
    let status = headers.get(GRPC_STATUS)?.to_str().ok()?;
    // One that is no number is no success either.
    Some(status.parse().unwrap_or(u16::MAX))
}

/// Kong's.
fn http_status(code: u16) -> StatusCode {
    let status = match code {
        0 => 200,
        1 => CLIENT_CLOSED,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Why a call has failed.
#[derive(Debug)]
struct Failure {
    code: u16,
    message: String,
}

impl Failure {
    /// What a head or trailers say.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let code = status_of(headers).filter(|code| *code != 0)?;
        let message = headers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes);
        let message = percent_encoding::percent_decode(message.unwrap_or_default());
        Some(Self {
            code,
            message: message.decode_utf8_lossy().into_owned(),
        })
    }
}

/// The messages of an answer as JSON; if there was none, why the call has failed.
struct Shown {
    /// `None` once something came that is no message.
    messages: Option<Messages>,
    failure: Option<Failure>,
    begun: bool,
}

impl BodyFilter for Shown {
    fn data(&mut self, data: Bytes) -> Bytes {
        let Some(messages) = &mut self.messages else {
            return Bytes::new();
        };
        let (shown, outcome) = messages.add(&data);
        if let Err(fault) = outcome {
            self.messages = None;
            self.failure = Some(Failure {
                code: INTERNAL,
                message: fault.to_owned(),
            });
        }
        self.begun |= !shown.is_empty();
        shown.into()
    }

    fn end(&mut self, trailers: &mut Option<HeaderMap>) -> Bytes {
        let told = trailers.take();
        let failure = self.failure.take();
        let failure = failure.or_else(|| Failure::of(&told.unwrap_or_default()));
        match failure {
            Some(Failure { code, message }) if !self.begun => {
                json!({ "code": code, "message": message })
                    .to_string()
                    .into()
            }
            Some(_) | None => Bytes::new(),
        }
    }
}
