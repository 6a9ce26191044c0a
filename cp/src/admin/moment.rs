//! Versions and times, and the entities of the past, as requests name them.

use super::endpoint::{Endpoint, Fixed, Verb};
use super::error::Problem;
use super::request::Call;
use crate::history::Reach;
use crate::time::{parse_duration, parse_rfc3339};
use serde_json::{Value, json};
use sluice_schema::decide::Selector;
use sluice_schema::entity::{Key, KindName, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::version::{Time, Version};
use std::time::{SystemTime, UNIX_EPOCH};

const MOMENT: &str =
    "a version, latest, a time (2026-11-23T10:00:00Z) or how long ago (10m, 2h, 7d)";
const TIME: &str = "a time (2026-11-23T10:00:00Z) or how long ago (10m, 2h, 7d)";

/// The version that `text` names: one, `latest`, or the last one that was decided by a time.
pub(super) async fn version(
    call: &Call<'_>,
    name: &'static str,
    text: &str,
) -> Result<Version, Problem> {
    if text == "latest" {
        return Ok(call.admin.control_plane.view.state().version());
    }
    if let Ok(number) = text.parse() {
        return Ok(Version(number));
    }
    let time = parse_time(text).ok_or(Problem::Argument(name, MOMENT))?;
    let history = &call.admin.control_plane.history;
    history.whole().await?;
    let nothing = || Problem::Gone(format!("the history does not reach back to {text}"));
    history.at_time(time).ok_or_else(nothing)
}

/// The query argument that is a time.
pub(super) fn time(call: &Call<'_>, name: &'static str) -> Result<Option<Time>, Problem> {
    let Some(text) = call.query.get(name) else {
        return Ok(None);
    };
    let time = parse_time(text).ok_or(Problem::Argument(name, TIME))?;
    Ok(Some(time))
}

fn parse_time(text: &str) -> Option<Time> {
    // Where a form turns + into a space, the offset of a time has lost its sign.
    let mended = text.replacen(' ', "+", 1);
    let ago = || Some(Time(now().0.saturating_sub(parse_duration(text)?)));
    let given = parse_rfc3339(text);
    given.or_else(|| parse_rfc3339(&mended)).or_else(ago)
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Time(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Lets `call` see what was there at the version or time in its query argument `at`, if it has one.
///
/// # Errors
/// If that cannot be told, or nothing of the past can be seen or done at that endpoint.
pub(super) async fn enter(
    call: &mut Call<'_>,
    endpoint: &Endpoint,
    verb: Verb,
) -> Result<(), Problem> {
    let Some(at) = call.query.get("at").map(str::to_owned) else {
        return Ok(());
    };
    let shows = match endpoint {
        Endpoint::Collection(_)
        | Endpoint::Item(..)
        | Endpoint::Members(..)
        | Endpoint::Member(..)
        | Endpoint::Parent { .. } => true,
        Endpoint::Fixed(fixed, _) => matches!(
            fixed,
            Fixed::Dump
                | Fixed::Config
                | Fixed::Tags
                | Fixed::Tagged
                | Fixed::TargetsAll
                | Fixed::WorkspaceMeta
                | Fixed::LogState
                | Fixed::Blame
        ),
    };
    if verb != Verb::Get || !shows {
        let message = "Invalid query argument 'at': only entities, /dump, /config, /tags and \
                       blame can be read as they were";
        return Err(Problem::Bad(message.to_owned()));
    }
    let version = version(call, "at", &at).await?;
    let history = &call.admin.control_plane.history;
    call.inside.state = history.state_at(version).await?;
    Ok(())
}

/// The kind with this name, also a plural one: `service`, `services`.
pub(super) fn kind(text: &str) -> Option<KindName> {
    let of_path = |kind: &&Kind| kind.schema().path == Some(text);
    let known = Kind::from_name(text).or_else(|| Kind::from_entity(text));
    let known = known.or_else(|| Kind::ALL.iter().find(of_path).copied());
    known.map_or_else(|| KindName::parse(text), |kind| Some(kind.key_name()))
}

/// The entities that have been called this in the workspace of the call: by id that one, by name the one that is called so
/// now, or those that were, the last one first. Empty if there never was one.
pub(super) fn entities(call: &Call<'_>, kind: &KindName, text: &str) -> Vec<Key> {
    let history = &call.admin.control_plane.history;
    let workspace = workspace_of(kind, &call.inside.workspace);
    let key = |id| Key {
        kind: kind.clone(),
        workspace: workspace.clone(),
        id,
    };
    match Selector::parse(text) {
        Selector::Id(id) => vec![key(id)],
        selector @ Selector::Name(_) => {
            let state = call.admin.control_plane.view.state();
            let known = Kind::from_name(kind.as_str());
            let live = known.and_then(|kind| selector.find(&state, kind, &workspace, None));
            let mut keys: Vec<Key> = live.map(key).into_iter().collect();
            let ring = state.seals().ring();
            let sealed = known.map(|kind| ring.sealed_names(kind, &workspace, text));
            let names = sealed.unwrap_or_default().into_iter();
            let named = |name: String| history.named(kind.as_str(), workspace.as_str(), &name);
            let was_called = names.chain([text.to_owned()]).flat_map(named);
            let others = was_called.filter(|found| !keys.contains(found));
            let others: Vec<Key> = others.collect();
            keys.extend(others);
            keys
        }
    }
}

/// Workspaces themselves are in the default one.
fn workspace_of(kind: &KindName, workspace: &Workspace) -> Workspace {
    match Kind::from_name(kind.as_str()) {
        Some(Kind::Workspace) => Workspace::DEFAULT,
        Some(_) | None => workspace.clone(),
    }
}

/// The kind and name in `service/checkout`.
pub(super) fn kind_and_name(text: &str) -> Option<(KindName, &str)> {
    let (kind_text, name) = text.split_once('/')?;
    Some((kind(kind_text)?, name)).filter(|_| !name.is_empty())
}

/// How far back the history reaches, for answers.
pub(super) fn reach(reach: Reach) -> Value {
    json!({
        "first": reach.first.0,
        "last": reach.last.0,
        "earliest_state": reach.earliest.0,
        "complete": reach.complete,
    })
}
