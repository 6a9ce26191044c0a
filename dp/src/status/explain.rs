//! `POST /explain`: why a request goes where it goes, by the configuration that is served now.

use super::{json_response, message};
use crate::balance::Upstreams;
use crate::explain::{Asked, Explanation, Question, explain};
use crate::table::Table;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The path.
pub(super) const PATH: &str = "/explain";
/// Longest question, in bytes.
const QUESTION_BYTES_MAX: usize = 64 << 10;
/// How long a question may take to come.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);
/// Questions that are answered at a time: each takes a thread for as long as there are routes.
const ANSWERED_MAX: usize = 1;
const LOCALHOST: &str = "localhost";

/// Who answers.
#[derive(Debug)]
pub(super) struct Explainer {
    tables: Arc<ArcSwap<Table>>,
    upstreams: Arc<Upstreams>,
    free: Arc<Semaphore>,
}

impl Explainer {
    pub(super) fn new(tables: Arc<ArcSwap<Table>>, upstreams: Arc<Upstreams>) -> Self {
        let free = Arc::new(Semaphore::new(ANSWERED_MAX));
        Self {
            tables,
            upstreams,
            free,
        }
    }

    /// Answers a request to [`PATH`]. Routes and addresses of upstreams are not for everybody who may read metrics.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        from_here: bool,
    ) -> Response<Full<Bytes>> {
        if !from_here || !is_for_here(&request) {
            return message(StatusCode::FORBIDDEN, "this is for this machine only");
        }
        if *request.method() != Method::POST {
            return message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
        }
        let asked = match read(request).await {
            Ok(asked) => asked,
            Err(reason) => return message(StatusCode::BAD_REQUEST, &reason),
        };
        let Ok(turn) = Arc::clone(&self.free).try_acquire_owned() else {
            let busy = "another question is being answered: try again";
            return message(StatusCode::SERVICE_UNAVAILABLE, busy);
        };
        let (table, upstreams) = (self.tables.load_full(), Arc::clone(&self.upstreams));
        let explained = tokio::task::spawn_blocking(move || {
            // Also if nobody waits for the answer any more.
            let _turn = turn;
            live(&table, &upstreams, &asked)
        });
        let shown = explained.await.ok().map(serde_json::to_value);
        match shown {
            Some(Ok(explanation)) => json_response(StatusCode::OK, &explanation),
            Some(Err(_)) | None => message(
                StatusCode::INTERNAL_SERVER_ERROR,
                "An unexpected error occurred",
            ),
        }
    }
}

fn live(table: &Table, upstreams: &Upstreams, asked: &Asked) -> Explanation {
    let mut explanation = explain(table, asked);
    explanation.add_health(upstreams);
    explanation
}

/// Whether the request names this machine and is of nobody else's making. A page whose name somebody has made one of this machine names
/// another; a page in a browser says where it comes from, or sends no JSON; a proxy says for whom it asks.
fn is_for_here(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let json = headers.get(header::CONTENT_TYPE);
    let by_hand = json.is_some_and(|json| json == "application/json");
    let foreign = [
        header::ORIGIN.as_str(),
        "forwarded",
        "x-forwarded-for",
        "via",
    ];
    if !by_hand || foreign.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    let host = request.headers().get(header::HOST);
    let authority = host.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case(LOCALHOST) || address.parse::<IpAddr>().is_ok()
    })
}

async fn read(request: Request<Incoming>) -> Result<Asked, String> {
    let body = Limited::new(request.into_body(), QUESTION_BYTES_MAX).collect();
    let body = tokio::time::timeout(QUESTION_PATIENCE, body).await;
    let body = body.map_err(|_| "the question did not come in time".to_owned())?;
    let body = body.map_err(|_| format!("a question has at most {QUESTION_BYTES_MAX} bytes"))?;
    let question: Question = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| format!("this is not a question: {error}"))?;
    Asked::parse(&question).map_err(|error| error.to_string())
}
