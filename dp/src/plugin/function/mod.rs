//! Functions of cloud providers, called in place of an upstream.

pub(super) mod aws_lambda;
mod aws_payload;
mod aws_sign;
pub(super) mod azure_functions;

use super::call::{CallError, Caller};
use super::{Answer, Content, Lasting, Surroundings};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};

/// Most bytes of a function's answer.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Headers that are about a connection or a body as it came, and not the client's.
const HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What the plugins of this family keep.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    caller: Caller,
}

impl Lasting for Functions {
    fn start(&self, node: &Surroundings) {
        self.caller.start(node);
    }
}

/// A function's answer for the client.
fn relay(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
    let headers = headers.iter().filter(|(name, _)| !HOP.contains(name));
    Answer {
        status,
        content: Content::Bytes(body),
        headers: headers
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

/// What the client gets if a function could not be called.
fn failed(plugin: &'static str, error: &CallError) -> Answer {
    tracing::warn!(plugin, %error, "a function could not be called");
    Answer::message(
        StatusCode::INTERNAL_SERVER_ERROR,
        "An unexpected error occurred",
    )
}

fn relay_whole(answer: Response<Bytes>) -> Answer {
    let (head, body) = answer.into_parts();
    relay(head.status, &head.headers, body)
}
