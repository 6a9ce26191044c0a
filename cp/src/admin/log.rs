//! `/log/...`: the log itself. The only reads that ask it.

use super::answer;
use super::error::{Problem, size_not_a_number, size_out_of_range};
use super::event_view::{self, Detail};
use super::info::synced;
use super::request::Call;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use sluice_replica::log::{LogError, Page, Source};
use sluice_replica::run::Status;
use sluice_schema::version::Version;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SIZE_DEFAULT: usize = 100;
const SIZE_MAX: usize = 1000;
/// How long the log may take to answer.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take where the answer can do without.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Between two signs of life to who watches.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /log/head`: the log's ends, and where this control plane is.
pub(super) async fn head(call: &Call<'_>) -> Response {
    let control_plane = &call.admin.control_plane;
    let status = control_plane.view.status();
    let bounds = tokio::time::timeout(BOUNDS_TIMEOUT, control_plane.source.log.bounds()).await;
    let bounds = bounds.ok().and_then(Result::ok);
    let announced = status.head.as_ref().map(|(head, _)| head.first);
    let first = bounds.map(|bounds| bounds.first).or(announced);
    let last = bounds.map_or(status.seen, |bounds| bounds.last);
    answer::ok(&json!({
        "epoch": status.cursor.epoch.to_string(),
        "version": status.cursor.version.0,
        "chain": status.cursor.chain.to_string(),
        "digest": status.digest.to_string(),
        "entities": status.entities,
        "first": first.map(|version| version.0),
        "last": last.0,
        "phase": status.phase.to_string(),
        "connected": status.connected,
        "synced": synced(&control_plane.info.durability.borrow()),
    }))
}

/// `GET /log/events?from=&size=`, or with `follow=1` for ever.
pub(super) async fn events(call: &Call<'_>) -> Result<Response, Problem> {
    let from = call.query.number("from")?.map(|from| Version(from.max(1)));
    if call.query.flag("follow")? {
        return Ok(follow(call, from));
    }
    let size = match call.query.get("size") {
        None => SIZE_DEFAULT,
        Some(text) => text.parse().map_err(|_| size_not_a_number())?,
    };
    if !(1..=SIZE_MAX).contains(&size) {
        return Err(size_out_of_range(SIZE_MAX));
    }
    let newest = call.inside.state.version();
    let from = from.unwrap_or(Version((newest.0 + 1).saturating_sub(size as u64).max(1)));
    let data = read(&call.admin.control_plane.source, from, size).await?;
    let last = data.last().and_then(|event| event["version"].as_u64());
    let next = last
        .filter(|last| *last < newest.0)
        .map(|last| format!("/log/events?from={}&size={size}", last + 1));
    Ok(answer::ok(&json!({ "data": data, "next": next })))
}

async fn read(source: &Source, from: Version, size: usize) -> Result<Vec<Value>, Problem> {
    let mut data = Vec::new();
    let mut from = from;
    loop {
        let Page { records, more, .. } = in_time(source.log.read(from)).await?;
        let wanted = records.iter().take(size - data.len());
        data.extend(wanted.map(|record| event_view::record(record, Detail::Summary)));
        match records.last() {
            Some(last) if more && data.len() < size => from = last.version.next(),
            Some(_) | None => return Ok(data),
        }
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, LogError>>) -> Result<T, Problem> {
    match tokio::time::timeout(LOG_TIMEOUT, asking).await {
        Ok(answer) => answer.map_err(|error| Problem::Unavailable(error.to_string())),
        Err(_) => Err(Problem::Unavailable(
            "the log did not answer in time".to_owned(),
        )),
    }
}

/// `GET /log/events/:version`.
pub(super) async fn event(call: &Call<'_>, version: &str) -> Result<Response, Problem> {
    let version = event_view::version(version).ok_or(Problem::NotFound)?;
    let source = &call.admin.control_plane.source;
    let record = in_time(source.log.get(version))
        .await?
        .ok_or(Problem::NotFound)?;
    Ok(answer::ok(&event_view::record(&record, Detail::Full)))
}

/// `GET /log/watch?from=`: server-sent events, one per event of the log, with its version as id. `Last-Event-ID` resumes.
pub(super) fn watch(call: &Call<'_>) -> Result<Response, Problem> {
    let bad = Problem::Header("Last-Event-ID", "the version of an event");
    let last = match call.header("last-event-id")? {
        None => None,
        Some(text) => Some(Version(text.parse().map_err(|_| bad)?).next()),
    };
    let asked = call.query.number("from")?.map(|from| Version(from.max(1)));
    let control_plane = &call.admin.control_plane;
    let follower = Follower {
        source: control_plane.source.clone(),
        status: control_plane.view.watch(),
        shutdown: call.admin.shutdown.clone(),
        from: last.or(asked).unwrap_or(call.inside.state.version().next()),
        form: Form::ServerSent,
    };
    let begin = format!("retry: {}\n\n", RETRY_DELAY.as_millis());
    let begin = stream::once(async { Ok::<_, Infallible>(Bytes::from(begin)) });
    let events = begin.chain(stream::unfold(follower, Follower::next));
    let body = Body::from_stream(events);
    let mut response = answer::with_body(StatusCode::OK, "text/event-stream", body);
    answer::set(response.headers_mut(), "cache-control", "no-cache");
    Ok(response)
}

/// One line of JSON per event, as soon as this control plane has verified and applied it.
fn follow(call: &Call<'_>, from: Option<Version>) -> Response {
    let control_plane = &call.admin.control_plane;
    let follower = Follower {
        source: control_plane.source.clone(),
        status: control_plane.view.watch(),
        shutdown: call.admin.shutdown.clone(),
        from: from.unwrap_or(call.inside.state.version().next()),
        form: Form::Lines,
    };
    let lines = stream::unfold(follower, Follower::next);
    answer::with_body(
        StatusCode::OK,
        "application/x-ndjson",
        Body::from_stream(lines),
    )
}

struct Follower {
    source: Source,
    status: watch::Receiver<Status>,
    shutdown: CancellationToken,
    from: Version,
    form: Form,
}

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// A line of JSON each.
    Lines,
    /// Server-sent events, and a comment from time to time so that nobody between takes the connection for dead.
    ServerSent,
}

impl Form {
    fn write(self, version: Version, event: &Value, text: &mut String) {
        *text += &match self {
            Self::Lines => format!("{event}\n"),
            Self::ServerSent => format!("id: {version}\nevent: change\ndata: {event}\n\n"),
        };
    }
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let shutdown = self.shutdown.clone();
        let lines = tokio::select! {
            () = shutdown.cancelled() => None,
            lines = self.lines() => lines,
        };
        lines.map(|lines| (Ok(lines.into()), self))
    }

    /// The next events; `None` if there will be no more.
    async fn lines(&mut self) -> Option<String> {
        loop {
            let from = self.from;
            let reached = self.status.wait_for(|status| status.cursor.version >= from);
            let reached = match self.form {
                Form::Lines => reached.await,
                Form::ServerSent => match tokio::time::timeout(KEEP_ALIVE, reached).await {
                    Ok(reached) => reached,
                    Err(_) => return Some(": \n\n".to_owned()),
                },
            };
            let applied = reached.ok()?.cursor.version;
            let Ok(Page { records, .. }) = in_time(self.source.log.read(from)).await else {
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            };
            let mut lines = String::new();
            for record in records.iter().filter(|record| record.version <= applied) {
                let event = event_view::record(record, Detail::Summary);
                self.form.write(record.version, &event, &mut lines);
                self.from = record.version.next();
            }
            if !lines.is_empty() {
                return Some(lines);
            }
            // Another server of the broker may be a little behind.
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}
