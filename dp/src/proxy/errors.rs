//! The one place where a failure becomes a response. Texts and formats are Kong's; internals stay in the log.

use super::body::Body;
use super::headers;
use crate::plugin::{Answer, Content, Origin};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use std::borrow::Cow;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why the gateway answers in place of an upstream.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request breaks HTTP.
    BadRequest,
    /// `CONNECT` or `TRACE`.
    MethodNotAllowed,
    /// The request's target is too long.
    UriTooLong,
    /// The client stopped sending its body.
    RequestTimeout,
    /// The request's body is longer than a plugin allows.
    TooLarge,
    /// No route matches.
    NoRoute,
    /// The route wants TLS: 426, or a redirect to `location`.
    HttpsRequired {
        status: StatusCode,
        location: Option<HeaderValue>,
    },
    /// A gRPC route was asked for something else.
    NotGrpc,
    /// gRPC needs HTTP/2.
    Http2Required,
    /// The route wants gRPC over TLS.
    GrpcsRequired,
    /// A plugin's answer.
    Plugin(Answer),
    /// The route has no service.
    NoService,
    /// The configuration is older than the client asks for.
    TooOld,
    /// The upstream has no target with weight.
    NoPeer,
    /// The upstream's name does not resolve.
    NameResolution,
    /// The service needs a protocol this build does not speak.
    UnsupportedProtocol,
    /// The upstream refused the connection or broke it.
    InvalidResponse,
    /// The upstream did not connect or answer in time.
    UpstreamTimeout,
}

impl Failure {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::HttpsRequired { status, .. } => *status,
            Self::NotGrpc => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Http2Required => StatusCode::UPGRADE_REQUIRED,
            // The rest is in `grpc-status`.
            Self::GrpcsRequired => StatusCode::OK,
            Self::Plugin(answer) => answer.status,
            Self::NoService | Self::TooOld | Self::NoPeer | Self::NameResolution => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UnsupportedProtocol | Self::InvalidResponse => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Who makes the answer.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Plugin(_) => Origin::Plugin,
            Self::BadRequest
            | Self::MethodNotAllowed
            | Self::UriTooLong
            | Self::RequestTimeout
            | Self::TooLarge
            | Self::NoRoute
            | Self::HttpsRequired { .. }
            | Self::NotGrpc
            | Self::Http2Required
            | Self::GrpcsRequired
            | Self::NoService
            | Self::TooOld
            | Self::NoPeer
            | Self::NameResolution
            | Self::UnsupportedProtocol
            | Self::InvalidResponse
            | Self::UpstreamTimeout => Origin::Gateway,
        }
    }

    pub(super) fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::BadRequest => "Bad request",
            Self::MethodNotAllowed => "Method not allowed",
            Self::UriTooLong => "URI too long",
            Self::RequestTimeout => "Request timeout",
            Self::TooLarge => "Request size limit exceeded",
            Self::NoRoute => "no Route matched with those values",
            Self::HttpsRequired { .. } => "Please use HTTPS protocol",
            Self::NotGrpc => "Non-gRPC request matched gRPC route",
            Self::Http2Required => "Please use HTTP2 protocol",
            Self::GrpcsRequired => "gRPC request matched gRPCs route",
            Self::Plugin(Answer {
                content: Content::Message(message),
                ..
            }) => return message.clone(),
            // It is its own body.
            Self::Plugin(_) => "",
            Self::NoService => "no Service found with those values",
            Self::TooOld => "The configuration here is older than Sluice-Min-Version asks for",
            Self::NoPeer => "failure to get a peer from the ring-balancer",
            Self::NameResolution => "name resolution failed",
            Self::UnsupportedProtocol => "The service's protocol is not supported by this gateway",
            Self::InvalidResponse => "An invalid response was received from the upstream server",
            Self::UpstreamTimeout => "The upstream server is timing out",
        })
    }

    /// Headers beyond the common ones.
    fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        let close = (header::CONNECTION, HeaderValue::from_static("close"));
        match self {
            Self::Plugin(answer) => answer.headers,
            Self::HttpsRequired {
                location: Some(location),
                ..
            } => {
                vec![(header::LOCATION, location)]
            }
            Self::HttpsRequired { location: None, .. } => vec![
                (header::CONNECTION, HeaderValue::from_static("Upgrade")),
                (
                    header::UPGRADE,
                    HeaderValue::from_static("TLS/1.2, HTTP/1.1"),
                ),
            ],
            Self::Http2Required => vec![
                (header::CONNECTION, HeaderValue::from_static("Upgrade")),
                (header::UPGRADE, HeaderValue::from_static("HTTP/2")),
            ],
            Self::TooOld => vec![(header::RETRY_AFTER, HeaderValue::from_static("1"))],
            // What follows on such a connection cannot be trusted to be a request.
            Self::BadRequest
            | Self::MethodNotAllowed
            | Self::UriTooLong
            | Self::RequestTimeout
            | Self::TooLarge => {
                vec![close]
            }
            Self::NoRoute
            | Self::GrpcsRequired
            | Self::NotGrpc
            | Self::NoService
            | Self::NoPeer
            | Self::NameResolution
            | Self::UnsupportedProtocol
            | Self::InvalidResponse
            | Self::UpstreamTimeout => Vec::new(),
        }
    }
}

/// The response for `failure`, in a format the client accepts.
pub(super) fn respond(
    failure: Failure,
    accept: Option<&HeaderValue>,
    request_id: &HeaderValue,
    grpc: bool,
) -> Response<Body> {
    if grpc {
        return respond_grpc(failure);
    }
    let failure = match own_answer(failure) {
        Ok(response) => return response,
        Err(failure) => failure,
    };
    let format = Format::accepted(accept.and_then(|value| value.to_str().ok()));
    let id = request_id.to_str().unwrap_or_default();
    let body = Bytes::from(format.body(&failure.message(), id));
    let mut response = Response::new(Body::Full(Some(body)));
    *response.status_mut() = failure.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.insert(header::SERVER, headers::SERVER);
    add_headers(headers, failure.headers());
    response
}

/// The response of a plugin that brings its own body.
fn own_answer(failure: Failure) -> Result<Response<Body>, Failure> {
    let Failure::Plugin(Answer {
        status,
        content: Content::Bytes(body),
        headers: added,
    }) = failure
    else {
        return Err(failure);
    };
    let mut response = Response::new(Body::Full(Some(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::SERVER, headers::SERVER);
    for (name, _) in &added {
        headers.remove(name);
    }
    // What a plugin says more than once is sent more than once.
    headers.extend(added);
    Ok(response)
}

/// Adds what plugins and balancing want on a response.
pub(super) fn add_headers(headers: &mut HeaderMap, added: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in added {
        if name == header::SET_COOKIE {
            // Other cookies stay.
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}

/// The response for a client that speaks gRPC: the same status, and what gRPC reads in headers. No body.
fn respond_grpc(failure: Failure) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = failure.status();
    let message = HeaderValue::from_str(&grpc_message(&failure.message()));
    let headers = response.headers_mut();
    headers.insert(header::SERVER, headers::SERVER);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(&failure)));
    headers.insert(
        GRPC_MESSAGE,
        message.unwrap_or(HeaderValue::from_static("")),
    );
    for (name, value) in failure.headers() {
        headers.insert(name, value);
    }
    response
}

/// The status of gRPC for a failure, by Kong's table of HTTP statuses.
fn grpc_status(failure: &Failure) -> u16 {
    if matches!(failure, Failure::GrpcsRequired) {
        return 1;
    }
    match failure.status().as_u16() {
        200..=299 => 0,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        429 => 8,
        400..=499 => 3,
        501 => 12,
        503 => 14,
        504 => 4,
        500..=599 => 13,
        _ => 2,
    }
}

/// A message as `grpc-message` wants it: percent-encoded outside of printable ASCII.
fn grpc_message(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The formats of error bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Json,
    Html,
    Xml,
    Plain,
}

impl Format {
    /// The format with the highest quality among those the client names; JSON if it names none we have.
    fn accepted(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::Json);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default() {
                "application/json" | "application/*" | "*/*" => Self::Json,
                "text/html" | "text/*" => Self::Html,
                "application/xml" | "text/xml" => Self::Xml,
                "text/plain" => Self::Plain,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = quality
                .and_then(|quality| quality.parse::<f32>().ok())
                .unwrap_or(1.0);
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
        })
    }

    fn body(self, message: &str, id: &str) -> String {
        match self {
            Self::Json => {
                let message = serde_json::Value::from(message);
                format!("{{\n  \"message\":{message},\n  \"request_id\":\"{id}\"\n}}")
            }
            Self::Html => {
                let message = escape(message);
                format!(
                    "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  \
                     </head>\n  <body>\n    <h1>Error</h1>\n    <p>{message}.</p>\n    <p>request_id: {id}</p>\n  \
                     </body>\n</html>\n"
                )
            }
            Self::Xml => {
                let message = escape(message);
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{message}</message>\n  \
                     <requestid>{id}</requestid>\n</error>"
                )
            }
            Self::Plain => format!("{message}\nrequest_id: {id}\n"),
        }
    }
}

/// A plugin's message may be a user's text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_format_the_client_prefers() {
        let check = |accept: Option<&str>, expected| {
            assert_eq!(Format::accepted(accept), expected, "{accept:?}");
        };
        check(None, Format::Json);
        check(Some("*/*"), Format::Json);
        check(
            Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Format::Html,
        );
        check(Some("text/plain"), Format::Plain);
        check(
            Some("application/json;q=0.1, application/xml;q=0.5"),
            Format::Xml,
        );
        check(Some("image/png"), Format::Json);
        check(Some("text/html; q=0, text/plain; q=0.3"), Format::Plain);
        check(Some("text/html;q=nonsense;;,"), Format::Html);
    }

    #[test]
    fn grpc_reads_a_failure_in_headers() {
        let statuses = [
            (Failure::NoRoute, 5),
            (Failure::GrpcsRequired, 1),
            (Failure::InvalidResponse, 13),
            (Failure::NameResolution, 14),
            (Failure::UpstreamTimeout, 4),
            (Failure::BadRequest, 3),
        ];
        for (failure, status) in statuses {
            assert_eq!(grpc_status(&failure), status, "{failure:?}");
        }
        assert_eq!(grpc_message("50% of ä"), "50%25 of %C3%A4");
    }

    #[test]
    fn a_users_message_cannot_break_out_of_the_body() {
        let message = "<b>\"no\"";
        let json: serde_json::Value =
            serde_json::from_str(&Format::Json.body(message, "1")).unwrap();
        assert_eq!(json["message"], message);
        assert!(!Format::Html.body(message, "1").contains("<b>"));
        assert!(!Format::Xml.body(message, "1").contains("<b>"));
    }
}
