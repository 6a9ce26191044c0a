//! `/log/events`: what has happened, filtered, paged, followed.

use super::answer;
use super::error::{Problem, size_not_a_number, size_out_of_range};
use super::event_view::{self, Detail};
use super::log::in_time;
use super::moment;
use super::plan::describe;
use super::request::Call;
use crate::access::{Act, Reach};
use crate::history::{Filter, History};
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use sluice_replica::log::{Page, Record, Source};
use sluice_replica::run::{Status, resolve};
use sluice_schema::entity::{Key, Workspace};
use sluice_schema::event::{Event, Mutation, Mutations};
use sluice_schema::seal::Seals;
use sluice_schema::state::State;
use sluice_schema::version::Version;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SIZE_DEFAULT: usize = 100;
const SIZE_MAX: usize = 1000;
/// Between two signs of life to who watches.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The most mutations of one event that are shown.
const MUTATIONS_SHOWN_MAX: usize = 1000;
const ENTITY: &str = "a kind and a name or id, as in service/checkout";

/// `GET /log/events?from=&to=&size=&newest=` with filters, or with `follow=1` for ever.
pub(super) async fn list(call: &Call<'_>) -> Result<Response, Problem> {
    let newest_first = call.query.flag("newest")?;
    let bodies = call.query.flag("bodies")?;
    if bodies {
        call.permit(Act::Change, Reach::Whole)?;
    }
    let seals = bodies.then(|| call.inside.state.seals().clone());
    let detail = seals.as_ref().map_or(Detail::Summary, Detail::Open);
    let history = &call.admin.control_plane.history;
    let from = call.query.number("from")?.map(|from| Version(from.max(1)));
    let filter = filter(call, from).await?;
    if call.query.flag("follow")? {
        return Ok(follow(call, from, filter, seals));
    }
    let size = page_size(call)?;
    let newest = call.inside.state.version();
    let page = if filter.is_plain() && !newest_first {
        let latest = Version((newest.0 + 1).saturating_sub(size as u64).max(1));
        let to = filter.to.unwrap_or(newest);
        let source = &call.admin.control_plane.source;
        let data = read(source, from.unwrap_or(latest), to, size, detail).await?;
        let last = data.last().and_then(|event| event["version"].as_u64());
        let more = last.filter(|last| *last < newest.0.min(to.0));
        Shown {
            data,
            more: more.map(|last| ("from", last + 1)),
        }
    } else {
        // What is not indexed yet is said below.
        let _ = history.whole().await;
        // Without a beginning it is the newest page, as above, in order.
        let backwards = newest_first || from.is_none();
        let versions = history.select(&filter, backwards, size + 1);
        let mut shown = fetch(
            history,
            &filter,
            versions,
            size,
            (newest_first, backwards),
            detail,
        )
        .await?;
        shown.more = shown.more.filter(|_| newest_first || from.is_some());
        shown
    };
    let next = page.more.map(|(name, value)| next_page(call, name, value));
    Ok(answer::ok(&json!({
        "data": page.data,
        "next": next,
        "history": moment::reach(history.reach()),
    })))
}

/// A page, and where the next one begins.
struct Shown {
    data: Vec<Value>,
    more: Option<(&'static str, u64)>,
}

async fn fetch(
    history: &History,
    filter: &Filter,
    mut versions: Vec<Version>,
    size: usize,
    (newest_first, backwards): (bool, bool),
    detail: Detail<'_>,
) -> Result<Shown, Problem> {
    let next = (versions.len() > size).then(|| versions.pop()).flatten();
    let found = history
        .events(versions, matches!(detail, Detail::Open(_)))
        .await?;
    let accepted = found.iter().filter(|found| filter.accepts(&found.event));
    let mut data: Vec<Value> = accepted
        .map(|found| event_view::decoded(&found.record, &found.event, detail))
        .collect();
    if newest_first {
        data.reverse();
    }
    let name = if backwards { "to" } else { "from" };
    let more = next.map(|version| (name, version.0));
    Ok(Shown { data, more })
}

fn page_size(call: &Call<'_>) -> Result<usize, Problem> {
    let size = match call.query.get("size") {
        None => SIZE_DEFAULT,
        Some(text) => text.parse().map_err(|_| size_not_a_number())?,
    };
    match (1..=SIZE_MAX).contains(&size) {
        true => Ok(size),
        false => Err(size_out_of_range(SIZE_MAX)),
    }
}

/// The same question from another version on.
fn next_page(call: &Call<'_>, name: &str, value: u64) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair(name, &value.to_string());
    for (given, text) in call.query.iter() {
        if given != name {
            query.append_pair(given, text);
        }
    }
    format!("{}?{}", call.head.uri.path(), query.finish())
}

async fn filter(call: &Call<'_>, from: Option<Version>) -> Result<Filter, Problem> {
    let text = |name| call.query.get(name).map(str::to_owned);
    let entity = match call.query.get("entity") {
        None => None,
        Some(text) => Some(entity(call, text).await?),
    };
    let kind = match call.query.get("kind") {
        None => None,
        Some(text) => {
            let kind = moment::kind(text).ok_or(Problem::Argument("kind", "a kind's name"))?;
            Some(kind.as_str().to_owned())
        }
    };
    // A path that begins with a workspace means what is in it.
    let own = &call.inside.workspace;
    let of_path = (*own != Workspace::DEFAULT).then(|| own.as_str().to_owned());
    Ok(Filter {
        entity,
        kind,
        workspace: text("workspace").or(of_path),
        actor: text("actor"),
        reason: text("reason").map(|reason| reason.to_lowercase()),
        since: moment::time(call, "since")?,
        until: moment::time(call, "until")?,
        from: from.unwrap_or(Version::GENESIS),
        to: call.query.number("to")?.map(Version),
    })
}

async fn entity(call: &Call<'_>, text: &str) -> Result<Key, Problem> {
    let named = moment::kind_and_name(text).ok_or(Problem::Argument("entity", ENTITY))?;
    let _ = call.admin.control_plane.history.whole().await;
    let (kind, name) = named;
    let mut keys = moment::entities(call, &kind, name).into_iter();
    let never = || {
        Problem::Missing(format!(
            "There is no {kind} '{name}', and the history knows of none"
        ))
    };
    keys.next().ok_or_else(never)
}

async fn read(
    source: &Source,
    from: Version,
    to: Version,
    size: usize,
    detail: Detail<'_>,
) -> Result<Vec<Value>, Problem> {
    let mut data = Vec::new();
    let mut from = from;
    loop {
        let Page { records, more, .. } = in_time(source.log.read(from)).await?;
        let wanted = records.iter().take_while(|record| record.version <= to);
        for record in wanted.take(size - data.len()) {
            data.push(show(source, record, detail).await?);
        }
        match records.last() {
            Some(last) if more && data.len() < size && last.version < to => {
                from = last.version.next();
            }
            Some(_) | None => return Ok(data),
        }
    }
}

async fn show(source: &Source, record: &Record, detail: Detail<'_>) -> Result<Value, Problem> {
    let event = Event::decode(&record.event).ok();
    let large = |event: &Event| matches!(event.mutations, Mutations::Stored(_));
    match event.filter(|event| matches!(detail, Detail::Open(_)) && large(event)) {
        None => Ok(event_view::record(record, detail)),
        Some(event) => {
            let resolved = resolve(&*source.chunks, event).await;
            let unavailable = |error| Problem::Unavailable(sluice_replica::run::chain(&error));
            let event = resolved.map_err(unavailable)?;
            Ok(event_view::decoded(record, &event, detail))
        }
    }
}

/// `GET /log/events/:version`: with what each entity was before, as far as the history tells.
pub(super) async fn one(call: &Call<'_>, version: &str) -> Result<Response, Problem> {
    let version = event_view::version(version).ok_or(Problem::NotFound)?;
    let control_plane = &call.admin.control_plane;
    let record = in_time(control_plane.source.log.get(version)).await?;
    let record = record.ok_or(Problem::NotFound)?;
    let Ok(event) = Event::decode(&record.event) else {
        return Ok(answer::ok(&event_view::record(&record, Detail::Full)));
    };
    let resolved = resolve(&*control_plane.source.chunks, event).await;
    let resolved =
        resolved.map_err(|error| Problem::Unavailable(sluice_replica::run::chain(&error)));
    let event = resolved?;
    let mut shown = event_view::decoded(&record, &event, Detail::Summary);
    let Mutations::Inline(mutations) = &event.mutations else {
        return Ok(answer::ok(&shown));
    };
    let few = &mutations[..mutations.len().min(MUTATIONS_SHOWN_MAX)];
    let known = before(&control_plane.history, version, few).await;
    let state: &State = &call.inside.state;
    let described = few.iter().enumerate().map(|(position, mutation)| {
        let key = mutation.key();
        let before = known.as_ref().and_then(|known| known[position].as_ref());
        let mut described = describe(&key, before, mutation.body(), [state, state]);
        if known.is_none()
            && let Some(described) = described.as_object_mut()
        {
            described.remove("before");
        }
        described
    });
    shown["mutations"] = described.collect();
    Ok(answer::ok(&shown))
}

/// What the entities of an event were before it, if that can be told.
async fn before(
    history: &History,
    version: Version,
    mutations: &[Mutation],
) -> Option<Vec<Option<sluice_schema::entity::Body>>> {
    history.whole().await.ok()?;
    let previous = Version(version.0.saturating_sub(1));
    let wanted: Vec<(Key, Version)> = mutations
        .iter()
        .map(|mutation| (mutation.key(), previous))
        .collect();
    let values = history.values(&wanted).await.ok()?;
    let bodies = values
        .into_iter()
        .map(|entry| entry.map(|entry| entry.body));
    Some(bodies.collect())
}

/// One line of JSON per event, as soon as this control plane has verified and applied it.
fn follow(
    call: &Call<'_>,
    from: Option<Version>,
    filter: Filter,
    bodies: Option<Seals>,
) -> Response {
    let follower = Follower::new(call, from, filter, bodies, Form::Lines);
    let lines = stream::unfold(follower, Follower::next);
    answer::with_body(
        StatusCode::OK,
        "application/x-ndjson",
        Body::from_stream(lines),
    )
}

/// `GET /log/watch`: server-sent events, one per event of the log, with its version as id, by the same filters. `Last-Event-ID`
/// resumes.
pub(super) async fn watch(call: &Call<'_>) -> Result<Response, Problem> {
    let bad = Problem::Header("Last-Event-ID", "the version of an event");
    let last = match call.header("last-event-id")? {
        None => None,
        Some(text) => Some(Version(text.parse().map_err(|_| bad)?).next()),
    };
    let asked = call.query.number("from")?.map(|from| Version(from.max(1)));
    let from = last.or(asked);
    let filter = filter(call, from).await?;
    let follower = Follower::new(call, from, filter, None, Form::ServerSent);
    let begin = format!("retry: {}\n\n", RETRY_DELAY.as_millis());
    let begin = stream::once(async { Ok::<_, Infallible>(Bytes::from(begin)) });
    let body = Body::from_stream(begin.chain(stream::unfold(follower, Follower::next)));
    let mut response = answer::with_body(StatusCode::OK, "text/event-stream", body);
    answer::set(response.headers_mut(), "cache-control", "no-cache");
    Ok(response)
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

struct Follower {
    source: Source,
    status: watch::Receiver<Status>,
    shutdown: CancellationToken,
    from: Version,
    filter: Filter,
    /// What opens the bodies, if they are wanted.
    bodies: Option<Seals>,
    form: Form,
}

impl Follower {
    fn new(
        call: &Call<'_>,
        from: Option<Version>,
        filter: Filter,
        bodies: Option<Seals>,
        form: Form,
    ) -> Self {
        let control_plane = &call.admin.control_plane;
        Self {
            source: control_plane.source.clone(),
            status: control_plane.view.watch(),
            shutdown: call.admin.shutdown.clone(),
            from: from.unwrap_or(call.inside.state.version().next()),
            filter,
            bodies,
            form,
        }
    }

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
            if self.filter.to.is_some_and(|to| from > to) {
                return None;
            }
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
            let seals = self.bodies.as_ref();
            let detail = seals.map_or(Detail::Summary, Detail::Open);
            for record in records.iter().filter(|record| record.version <= applied) {
                self.from = record.version.next();
                let event = Event::decode(&record.event);
                if event.is_ok_and(|event| !self.filter.accepts(&event)) {
                    continue;
                }
                let Ok(shown) = show(&self.source, record, detail).await else {
                    self.from = record.version;
                    break;
                };
                self.form.write(record.version, &shown, &mut lines);
            }
            if !lines.is_empty() {
                return Some(lines);
            }
            if self.from == from {
                // Another server of the broker may be a little behind.
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}
