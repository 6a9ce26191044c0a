//! The Admin API over the broker: a message is a request, its answer a message. The same guard, endpoints, validation and
//! errors as over HTTP.

use super::{Admin, answer_request};
use crate::admin::request::Via;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::json;
use sluice_replica::log::jetstream::{Asked, Requests};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Requests that are carried out at a time; further ones wait their turn in the broker's queue of this subscription.
const AT_A_TIME_MAX: usize = 256;
/// What an answer may have if the broker does not say what it takes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What is left of that for headers.
const HEADER_BYTES: usize = 16 << 10;
/// The longest an answer may take, a wait included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(630);
const METHOD: &str = "sluice-method";
const PATH: &str = "sluice-path";
const STATUS: &str = "Sluice-Status";

/// Answers requests until `shutdown`.
pub(super) async fn run(admin: Arc<Admin>, requests: Requests, shutdown: CancellationToken) {
    tracing::info!(
        subject = requests.subject(),
        "whoever may publish on this subject may use the Admin API"
    );
    let places = Arc::new(Semaphore::new(AT_A_TIME_MAX));
    let listening = requests.listen(|asked| {
        let (admin, requests, places) = (admin.clone(), requests.clone(), places.clone());
        tokio::spawn(async move {
            let Ok(_place) = places.try_acquire() else {
                let busy = refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many requests at a time",
                );
                return reply(&requests, &asked, busy).await;
            };
            let response = carry_out(admin, &asked).await;
            reply(&requests, &asked, response).await;
        });
    });
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = listening => {}
    }
}

async fn carry_out(admin: Arc<Admin>, asked: &Asked) -> Response {
    let request = match request(asked) {
        Ok(request) => request,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, reason),
    };
    let answering = answer_request(Shared(admin), request);
    match tokio::time::timeout(ANSWER_TIMEOUT, answering).await {
        Ok(response) => response,
        Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "it took too long"),
    }
}

/// The message as a request.
fn request(asked: &Asked) -> Result<Request<Body>, &'static str> {
    let (mut method, mut path) = (None, None);
    let mut builder = Request::builder();
    let mut typed = false;
    for (name, value) in &asked.headers {
        if name.eq_ignore_ascii_case(METHOD) {
            method = Some(value);
        } else if name.eq_ignore_ascii_case(PATH) {
            path = Some(value);
        } else if !name.to_ascii_lowercase().starts_with("nats-") {
            let name =
                HeaderName::try_from(name.as_str()).map_err(|_| "a header cannot be read")?;
            let value = HeaderValue::try_from(value).map_err(|_| "a header cannot be read")?;
            typed |= name == CONTENT_TYPE;
            builder = builder.header(name, value);
        }
    }
    let path = path
        .ok_or("the header Sluice-Path is missing: the path of the Admin API, such as /services")?;
    let method = method.map_or("GET", String::as_str);
    let method = Method::try_from(method).map_err(|_| "Sluice-Method is no method")?;
    if !typed && !asked.payload.is_empty() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    let body = Body::from(asked.payload.clone());
    let built = builder.method(method).uri(path).body(body);
    let mut request = built.map_err(|_| "Sluice-Path is no path")?;
    request.extensions_mut().insert(Via("nats"));
    Ok(request)
}

fn refusal(status: StatusCode, reason: &str) -> Response {
    super::answer::json(status, &json!({ "message": reason }))
}

async fn reply(requests: &Requests, asked: &Asked, response: Response) {
    let room = requests.answer_bytes_max().unwrap_or(ANSWER_BYTES_MAX);
    let (mut head, body) = fitting(response, room.saturating_sub(HEADER_BYTES)).await;
    head.headers.remove(http::header::CONTENT_LENGTH);
    let mut headers: Vec<(String, String)> = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    let status = head.status.as_u16().to_string();
    let is_error = head.status.is_client_error() || head.status.is_server_error();
    if is_error {
        // As services of NATS tell of errors.
        headers.push(("Nats-Service-Error-Code".to_owned(), status.clone()));
        let reason = head.status.canonical_reason().unwrap_or("error").to_owned();
        headers.push(("Nats-Service-Error".to_owned(), reason));
    }
    headers.push((STATUS.to_owned(), status));
    if let Err(error) = requests.answer(asked, &headers, body, is_error).await {
        tracing::warn!(%error, "could not answer a request over the broker");
    }
}

/// The answer, if it ends and fits into a message.
async fn fitting(response: Response, bytes_max: usize) -> (http::response::Parts, Bytes) {
    let endless = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "text/event-stream" || kind == "application/x-ndjson");
    if endless {
        let reason = "this answer has no end: subscribe to the events, or ask over HTTP";
        return whole(refusal(StatusCode::BAD_REQUEST, reason)).await;
    }
    let (head, body) = response.into_parts();
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => (head, body.to_bytes()),
        Err(_) => {
            let reason =
                "the answer does not fit into a message: ask for less (size=), or over HTTP";
            whole(refusal(StatusCode::INSUFFICIENT_STORAGE, reason)).await
        }
    }
}

/// A refusal is in memory: nothing can happen to its body.
async fn whole(response: Response) -> (http::response::Parts, Bytes) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    (head, body.unwrap_or_default())
}
