//! Answers and their headers.

use super::endpoint::Verb;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;
use sluice_schema::version::Version;

/// The version of the state an answer speaks of.
pub(super) const SLUICE_VERSION: &str = "sluice-version";
const JSON: &str = "application/json; charset=utf-8";
/// Set when nothing was appended because the caller asked for that.
pub(super) const SLUICE_DRY_RUN: &str = "sluice-dry-run";
/// What scripts of other origins may read besides the body.
const EXPOSED: &str = "Allow, Deprecation, ETag, Retry-After, Sluice-Dry-Run, Sluice-Version, \
                       Sluice-Wait-Result, Sluice-Warning, Warning, X-Kong-Admin-Latency, X-Request-Id";

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    with_body(status, JSON, Body::from(body.to_string()))
}

/// A 200 with JSON.
pub(super) fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}

/// Any other answer with a body.
pub(super) fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer without a body.
pub(super) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The client has it already.
pub(super) fn not_modified(tag: Option<String>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    set_etag(&mut response, tag);
    response
}

/// Something the caller should know though it worked.
pub(super) fn warn(headers: &mut HeaderMap, warning: &str) {
    set(headers, "warning", &format!("199 sluice \"{warning}\""));
    set(headers, "sluice-warning", warning);
}

/// What may be done with an endpoint, also for a browser that asks before it sends.
pub(super) fn options(verbs: &[Verb], asked: &HeaderMap) -> Response {
    let mut response = no_content();
    let headers = response.headers_mut();
    let allow = allow(verbs);
    set(headers, "allow", &allow);
    set(headers, "access-control-allow-methods", &allow);
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

/// The value of `Allow`.
pub(super) fn allow(verbs: &[Verb]) -> String {
    let methods = verbs.iter().flat_map(|verb| verb.methods()).copied();
    let mut names: Vec<&str> = methods.chain(["OPTIONS"]).collect();
    names.sort_unstable();
    names.join(", ")
}

/// Lets scripts of `origin` read the answer; `None` lets nobody.
pub(super) fn allow_origin(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        set(headers, "access-control-allow-credentials", "true");
        set(headers, "access-control-expose-headers", EXPOSED);
    }
}

/// The entity's `ETag`.
pub(super) fn set_etag(response: &mut Response, tag: Option<String>) {
    if let Some(tag) = tag {
        set(response.headers_mut(), "etag", &format!("\"{tag}\""));
    }
}

/// The version the answer speaks of.
pub(super) fn set_version(response: &mut Response, version: Version) {
    set(response.headers_mut(), SLUICE_VERSION, &version.to_string());
}

/// Sets a header; a value that cannot stand in one is left out.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
