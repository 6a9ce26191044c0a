//! `grpc-web`: browsers that speak gRPC-Web call gRPC services.
//!
//! `application/grpc-web` and `application/grpc-web-text`, with or without `+proto`. Messages go through as they come; the text form
//! is decoded as a whole. Trailers become the last frame of the body. Deviation: `proto` is not used: messages in JSON are
//! refused like every other type.

use crate::plugin::{
    Access, Answer, BodyFilter, Entity, Flow, Origin, Phases, Plugin, Reply, Step, Waiting,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;

/// Of a request in the text form.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a frame of trailers begins with.
const TRAILERS: u8 = 0x80;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    pass_stripped_path: Option<bool>,
    allow_origin_header: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            pass_stripped_path: None,
            allow_origin_header: "*".into(),
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct GrpcWeb {
    stripped: bool,
    origin: HeaderValue,
}

/// The form in which a request came, and is answered.
#[derive(Clone)]
struct Form {
    content_type: HeaderValue,
    text: bool,
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?;
        let name = content_type.to_str().ok()?.split(';').next()?.trim();
        let text = match name.to_ascii_lowercase().as_str() {
            "application/grpc-web" | "application/grpc-web+proto" => false,
            "application/grpc-web-text" | "application/grpc-web-text+proto" => true,
            _ => return None,
        };
        Some(Self {
            content_type: content_type.clone(),
            text,
        })
    }
}

impl Plugin for GrpcWeb {
    const NAME: &'static str = "grpc-web";
    const PRIORITY: i32 = 3;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let origin = HeaderValue::from_str(&fields.allow_origin_header);
        Ok(Self {
            stripped: fields.pass_stripped_path.unwrap_or_default(),
            origin: origin.map_err(|_| "allow_origin_header is no value of a header".to_owned())?,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let origin = (header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        request.response_headers.push(origin);
        if *request.method == Method::OPTIONS {
            return Step::Answer(preflight());
        }
        let Some(form) = Form::of(request.headers) else {
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            let message = "Unknown Content-Type";
            return Step::Answer(Answer::bytes(StatusCode::BAD_REQUEST, text, message));
        };
        let text = form.text;
        request.context.shared.insert(form);
        request.headers.insert(header::CONTENT_TYPE, GRPC);
        if !self.stripped {
            let path = request.path.to_owned();
            request.set_upstream_path(path);
        }
        if text { Step::Wait } else { Step::Continue }
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let body = match request.body(BODY_BYTES_MAX).await {
                Ok(body) => body,
                Err(fault) => return Flow::Answer(fault.into()),
            };
            let Some(decoded) = decode(&body) else {
                let status = StatusCode::BAD_REQUEST;
                return Flow::Answer(Answer::message(status, "Bad request"));
            };
            request.set_body(decoded);
            Flow::Continue
        })
    }

    fn response(&self, reply: &mut Reply<'_>) {
        let Some(form) = reply.context.shared.get::<Form>().cloned() else {
            return;
        };
        if reply.origin != Origin::Upstream || !reply.status.is_success() {
            return;
        }
        let content_type = form.content_type;
        reply.headers.insert(header::CONTENT_TYPE, content_type);
        // An answer without messages has what is otherwise in trailers in its head.
        let head = [GRPC_STATUS, GRPC_MESSAGE];
        let head = head
            .iter()
            .filter_map(|name| Some((name.clone(), reply.headers.get(name)?.clone())));
        let head = head.collect();
        reply.filter(Frames {
            text: form.text,
            head,
        });
    }
}

fn preflight() -> Answer {
    let kind = HeaderValue::from_static("application/grpc-web-text+proto");
    let methods = HeaderValue::from_static("POST");
    let headers = HeaderValue::from_static("content-type,x-grpc-web,x-user-agent");
    Answer::bytes(StatusCode::OK, kind, Bytes::new())
        .with(header::ACCESS_CONTROL_ALLOW_METHODS, methods)
        .with(header::ACCESS_CONTROL_ALLOW_HEADERS, headers)
}

/// Base64 that may be padded between its parts.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_ascii().chunks(4) {
        STANDARD.decode_vec(four, &mut decoded).ok()?;
    }
    Some(decoded)
}

/// Messages as they come, in the client's form, and trailers as the last frame.
struct Frames {
    text: bool,
    head: HeaderMap,
}

impl Frames {
    fn encode(&self, data: Bytes) -> Bytes {
        if self.text && !data.is_empty() {
            STANDARD.encode(&data).into()
        } else {
            data
        }
    }
}

impl BodyFilter for Frames {
    fn data(&mut self, data: Bytes) -> Bytes {
        self.encode(data)
    }

    fn end(&mut self, trailers: &mut Option<HeaderMap>) -> Bytes {
        let told = trailers
            .take()
            .unwrap_or_else(|| std::mem::take(&mut self.head));
        let mut lines = BytesMut::new();
        for (name, value) in &told {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b":");
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        let length = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let mut frame = BytesMut::with_capacity(lines.len() + 5);
        frame.extend_from_slice(&[TRAILERS]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&lines);
        self.encode(frame.freeze())
    }
}
