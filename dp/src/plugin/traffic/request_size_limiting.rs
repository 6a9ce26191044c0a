//! `request-size-limiting`: how long a request's body may be.
//!
//! A body whose length is not told in advance is read up to the limit before the upstream is asked, or for at most
//! [`READ_BYTES_MAX`]; what is longer is counted on its way, and broken off at the limit.

use crate::plugin::{Access, Answer, BodyFault, Entity, Flow, Phases, Plugin, Step, Waiting};
use crate::proxy;
use http::{StatusCode, header};
use serde::Deserialize;

/// The most that is read of a body of unknown length before the upstream is asked.
const READ_BYTES_MAX: u64 = 64 * 1024;
const EXCEEDED: &str = "Request size limit exceeded";

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    allowed_payload_size: Option<i64>,
    size_unit: Unit,
    require_content_length: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Megabytes,
    Kilobytes,
    Bytes,
}

impl Unit {
    fn bytes(self) -> u64 {
        match self {
            Self::Megabytes => 1 << 20,
            Self::Kilobytes => 1 << 10,
            Self::Bytes => 1,
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct RequestSizeLimiting {
    bytes_max: u64,
    needs_length: bool,
}

/// Whether the body may be a stream that is answered before its end.
fn is_grpc(request: &Access<'_>) -> bool {
    let kind = request.headers.get(header::CONTENT_TYPE);
    kind.is_some_and(proxy::is_grpc)
}

impl Plugin for RequestSizeLimiting {
    const NAME: &'static str = "request-size-limiting";
    const PRIORITY: i32 = 951;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let size = fields.allowed_payload_size.unwrap_or(128);
        let size = u64::try_from(size).unwrap_or_default();
        Ok(Self {
            bytes_max: size.saturating_mul(fields.size_unit.bytes()),
            needs_length: fields.require_content_length,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let length = request.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length > self.bytes_max => {
                let status = if request.expects_continue {
                    StatusCode::EXPECTATION_FAILED
                } else {
                    StatusCode::PAYLOAD_TOO_LARGE
                };
                Step::Answer(Answer::message(status, EXCEEDED))
            }
            Some(_) => Step::Continue,
            None if self.needs_length => {
                let message = "A valid Content-Length header is required";
                Step::Answer(Answer::message(StatusCode::LENGTH_REQUIRED, message))
            }
            None if !request.has_body() => Step::Continue,
            None if self.bytes_max <= READ_BYTES_MAX && !is_grpc(request) => Step::Wait,
            None => {
                request.limit_body(self.bytes_max);
                Step::Continue
            }
        }
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let bytes_max = usize::try_from(self.bytes_max).unwrap_or(usize::MAX);
            match request.body(bytes_max).await {
                Ok(_) => Flow::Continue,
                Err(BodyFault::TooLarge) => {
                    Flow::Answer(Answer::message(StatusCode::PAYLOAD_TOO_LARGE, EXCEEDED))
                }
                Err(fault @ (BodyFault::Broken | BodyFault::Timeout)) => Flow::Answer(fault.into()),
            }
        })
    }
}
