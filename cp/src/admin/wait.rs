//! Waiting for data planes: `GET /nodes/wait`, and `Sluice-Wait` on writes.

use super::answer;
use super::endpoint::Verb;
use super::error::Problem;
use super::request::Call;
use crate::fleet::{Outcome, Progress, Quorum, Wanted};
use axum::response::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sluice_replica::log::Bounds;
use sluice_replica::node::Group;
use sluice_schema::version::{Epoch, Version};
use std::time::{Duration, Instant};
use tokio::sync::SemaphorePermit;

/// How long is waited if the caller does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest a caller may wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Callers that may wait at a time.
pub(super) const WAITERS_MAX: usize = 10_000;
/// How long the log may take to say where it ends.
const LATEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes that are named in an answer; all are counted.
const NAMED_MAX: usize = 100;
/// What became of a wait, on the answer to a write.
const RESULT: &str = "sluice-wait-result";
const FORM: &str = "all, N% or N, and perhaps a group and a time: all; group=edge-eu; timeout=30";

/// By how many nodes, of which group, and how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Patience {
    quorum: Quorum,
    group: Option<Group>,
    timeout: Duration,
}

/// What `Sluice-Wait` on a change asks for.
pub(super) fn asked(call: &Call<'_>, verb: Verb) -> Result<Option<Patience>, Problem> {
    let Some(text) = call.header("sluice-wait")?.filter(|_| verb != Verb::Get) else {
        return Ok(None);
    };
    parse(&text).map(Some)
}

fn parse(text: &str) -> Result<Patience, Problem> {
    let bad = || Problem::Header("Sluice-Wait", FORM);
    let mut parts = text.split(';').map(str::trim);
    let quorum = parts.next().unwrap_or_default().parse();
    let (mut group, mut timeout) = (None, TIMEOUT_DEFAULT);
    for part in parts {
        match part.split_once('=').ok_or_else(bad)? {
            ("timeout", value) => timeout = seconds(value).ok_or_else(bad)?,
            ("group", name) if group.is_none() => {
                group = Some(name.parse().map_err(|_| bad())?);
            }
            _ => return Err(bad()),
        }
    }
    Ok(Patience {
        quorum: quorum.map_err(|_| bad())?,
        group,
        timeout,
    })
}

/// `30`, `30s` or `500ms`.
fn seconds(text: &str) -> Option<Duration> {
    let number = |text: &str| text.parse::<u32>().ok().map(u64::from);
    let timeout = match text.strip_suffix("ms") {
        Some(milliseconds) => Duration::from_millis(number(milliseconds)?),
        None => Duration::from_secs(number(text.strip_suffix('s').unwrap_or(text))?),
    };
    (timeout <= TIMEOUT_MAX).then_some(timeout)
}

/// The answer to a write, once the nodes have what was written: as it is, or 202 with who is missing.
pub(super) async fn hold(
    call: &Call<'_>,
    patience: Patience,
    before: Epoch,
    response: Response,
) -> Result<Response, Problem> {
    let written = response.headers().get(answer::SLUICE_VERSION);
    let version = written.and_then(|version| version.to_str().ok()?.parse().ok());
    let (Some(version), true) = (version.map(Version), response.status().is_success()) else {
        return Ok(response);
    };
    let wanted = Wanted {
        version,
        epoch: before,
        quorum: patience.quorum,
        group: patience.group,
        timeout: patience.timeout,
    };
    let waited = wait(call, wanted).await;
    let Progress {
        outcome,
        reached,
        live,
        ..
    } = &waited.progress;
    let result = format!("{}; reached={reached}; live={live}", outcome.as_str());
    if *outcome == Outcome::Converged {
        let mut response = response;
        answer::set(response.headers_mut(), RESULT, &result);
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let body = body.collect().await;
    let body = body.map_err(|error| Problem::Internal(error.to_string()))?;
    let body = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
    let answered = json!({
        "message": format!("stored as version {version}, but {}", waited.message()),
        "version": version.0,
        "wait": waited.show(),
        "result": body,
    });
    head.status = StatusCode::ACCEPTED;
    let mut response = answer::json(StatusCode::ACCEPTED, &answered);
    for name in [http::header::CONTENT_TYPE, http::header::CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    response.headers_mut().extend(head.headers);
    answer::set(response.headers_mut(), RESULT, &result);
    Ok(response)
}

/// `GET /nodes/wait?version=&quorum=&group=&timeout=`.
pub(super) async fn show(call: &Call<'_>) -> Result<Response, Problem> {
    let quorum = call.query.get("quorum").unwrap_or("all");
    let quorum = quorum
        .parse()
        .map_err(|_| Problem::Argument("quorum", "all, N% or N"))?;
    let group = call.query.get("group").map(str::parse).transpose();
    let group = group.map_err(|_| Problem::Argument("group", "1 to 64 of A-Z a-z 0-9 _ -"))?;
    let timeout = match call.query.get("timeout") {
        None => TIMEOUT_DEFAULT,
        Some(text) => seconds(text).ok_or(Problem::Argument("timeout", "seconds, up to 600"))?,
    };
    let version = match call.query.get("version") {
        None | Some("latest") => latest(call).await,
        Some(text) => text
            .parse()
            .map(Version)
            .map_err(|_| Problem::Argument("version", "a whole number or latest"))?,
    };
    let wanted = Wanted {
        version,
        epoch: call.inside.state.epoch(),
        quorum,
        group,
        timeout,
    };
    let _place = place(call)?;
    let waited = wait(call, wanted).await;
    let status = match waited.progress.outcome {
        Outcome::Converged => StatusCode::OK,
        Outcome::NewEpoch => StatusCode::CONFLICT,
        Outcome::Behind | Outcome::NoNodes | Outcome::Listening | Outcome::Unknown => {
            StatusCode::ACCEPTED
        }
    };
    Ok(answer::json(status, &waited.show()))
}

/// Where the log ends; if it does not say, the highest version that was seen of it.
async fn latest(call: &Call<'_>) -> Version {
    let control_plane = &call.admin.control_plane;
    let bounds = tokio::time::timeout(LATEST_TIMEOUT, control_plane.source.log.bounds()).await;
    let seen = control_plane.view.status().seen;
    match bounds {
        Ok(Ok(Bounds { last, .. })) => last.max(seen),
        Ok(Err(_)) | Err(_) => seen,
    }
}

/// A wait that is over.
struct Waited {
    wanted: Wanted,
    progress: Progress,
    took: Duration,
}

/// A place among those who wait. To be had before anything is changed: who is told to try again must have changed nothing.
pub(super) fn place<'a>(call: &Call<'a>) -> Result<SemaphorePermit<'a>, Problem> {
    let place = call.admin.waiters.try_acquire();
    place.map_err(|_| Problem::Busy("too many callers wait for data planes; try again"))
}

async fn wait(call: &Call<'_>, wanted: Wanted) -> Waited {
    let control_plane = &call.admin.control_plane;
    let began = Instant::now();
    let waiting = control_plane
        .fleet
        .wait(&control_plane.view, wanted.clone());
    let progress = tokio::select! {
        progress = waiting => progress,
        () = call.admin.shutdown.cancelled() => {
            // How it is now: this control plane will not hear of more.
            let now = Wanted { timeout: Duration::ZERO, ..wanted.clone() };
            control_plane.fleet.wait(&control_plane.view, now).await
        }
    };
    Waited {
        wanted,
        progress,
        took: began.elapsed(),
    }
}

impl Waited {
    fn message(&self) -> String {
        let Progress {
            outcome,
            reached,
            needed,
            live,
            behind,
            ..
        } = &self.progress;
        let version = self.wanted.version;
        let group = self.wanted.group.as_ref();
        let of = group.map_or_else(String::new, |group| format!(" of group {group}"));
        match outcome {
            Outcome::Converged => {
                format!("{reached} of {live} live nodes{of} serve version {version}")
            }
            Outcome::Behind => {
                let first = behind.first().map(|node| format!(", not {}", node.node));
                let more = match behind.len() {
                    0 | 1 => String::new(),
                    count => format!(" and {} more", count - 1),
                };
                let first = first.unwrap_or_default();
                format!(
                    "{reached} of {live} live nodes{of} serve version {version} ({needed} wanted){first}{more}"
                )
            }
            Outcome::NoNodes => format!("no data plane{of} is alive"),
            Outcome::Listening => {
                "this control plane has not been connected for long enough to know every data plane"
                    .to_owned()
            }
            Outcome::Unknown => {
                format!("this control plane itself has not reached version {version}")
            }
            Outcome::NewEpoch => "the log has begun a new life; read the version again".to_owned(),
        }
    }

    fn show(&self) -> Value {
        let Wanted {
            version,
            epoch,
            quorum,
            ref group,
            ..
        } = self.wanted;
        let progress = &self.progress;
        let named = progress.behind.iter().take(NAMED_MAX);
        let behind: Vec<Value> = named
            .map(|node| {
                json!({
                    "id": node.node,
                    "hostname": node.hostname,
                    "version": node.version.0,
                    "lag": version.0.saturating_sub(node.version.0),
                    "phase": node.phase,
                    "other_history": node.elsewhere,
                })
            })
            .collect();
        json!({
            "converged": progress.outcome == Outcome::Converged,
            "outcome": progress.outcome.as_str(),
            "message": self.message(),
            "version": version.0,
            "epoch": epoch.to_string(),
            "quorum": quorum.to_string(),
            "group": group.as_ref().map(Group::as_str),
            "reached": progress.reached,
            "needed": progress.needed,
            "live": progress.live,
            "behind": behind,
            "behind_total": progress.behind.len(),
            "gone": progress.gone.iter().take(NAMED_MAX).collect::<Vec<_>>(),
            "gone_total": progress.gone.len(),
            "rejecting": progress.rejecting.iter().take(NAMED_MAX).collect::<Vec<_>>(),
            "waited_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_a_quorum_and_perhaps_a_time() {
        let patience = |quorum, milliseconds| Patience {
            quorum,
            group: None,
            timeout: Duration::from_millis(milliseconds),
        };
        let europe = |patience| Patience {
            group: "edge-eu".parse().ok(),
            ..patience
        };
        let cases = [
            ("all", Some(patience(Quorum::ALL, 30_000))),
            ("80%; timeout=5", Some(patience(Quorum::Percent(80), 5_000))),
            ("3;timeout=10s", Some(patience(Quorum::Count(3), 10_000))),
            ("all; timeout=250ms", Some(patience(Quorum::ALL, 250))),
            ("all; timeout=0", Some(patience(Quorum::ALL, 0))),
            (
                "all; group=edge-eu",
                Some(europe(patience(Quorum::ALL, 30_000))),
            ),
            (
                "2;timeout=1;group=edge-eu",
                Some(europe(patience(Quorum::Count(2), 1_000))),
            ),
            ("all; group=", None),
            ("all; group=a b", None),
            ("all; group=a; group=b", None),
            ("group=a", None),
            ("", None),
            ("some", None),
            ("all; timeout=601", None),
            ("all; timeout=-1", None),
            ("all; patience=3", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }
}
