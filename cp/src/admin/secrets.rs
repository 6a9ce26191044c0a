//! `/log/secrets`: what the secrets of the log are sealed with, and sealing them anew.

use super::answer;
use super::error::Problem;
use super::list::aside;
use super::request::Call;
use crate::writer::Request;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_schema::decide::{Command, Reseal};
use sluice_schema::entity::{Body, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::seal::has_secrets;
use sluice_schema::state::State;
use std::time::{Duration, Instant};

/// The most entities of one transaction.
const BATCH_ENTITIES: usize = 500;
/// After this no new transaction is begun for one request.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// `GET /log/secrets`: how many there are, by the key they are sealed with.
pub(super) fn show(call: &Call<'_>) -> Response {
    answer::ok(&counts(&call.inside.state))
}

fn counts(state: &State) -> Value {
    let (ring, secrets) = (state.seals().ring(), state.secrets());
    let used = secrets.by_key.keys().map(String::as_str);
    let unused = ring
        .names()
        .filter(|name| !secrets.by_key.contains_key(*name));
    let keys = used.chain(unused).map(|name| {
        json!({
            "name": name,
            "secrets": secrets.by_key.get(name).copied().unwrap_or_default(),
            "seals": ring.sealing() == Some(name),
            "here": ring.has(name),
        })
    });
    json!({
        "keys": keys.collect::<Vec<_>>(),
        "clear": secrets.clear,
    })
}

/// `POST /log/secrets/reseal`: seals some entities anew that are not sealed with the key that seals; how many are left is in the
/// answer's counts.
pub(super) async fn reseal(call: &Call<'_>) -> Result<Response, Problem> {
    let state = call.inside.state.clone();
    let Some(sealing) = state.seals().ring().sealing().map(str::to_owned) else {
        let message = "this control plane has no keys of secrets: give it a secrets_file";
        return Err(Problem::Bad(message.to_owned()));
    };
    let entities = aside(move || outdated(&state)).await?;
    let request = call.request()?;
    let reason = format!("seal secrets with the key {sealing}");
    let request = Request {
        reason: request.reason.clone().or(Some(reason)),
        // There may be several events, and a repetition finds nothing to do.
        idempotency: None,
        ..request
    };
    let began = Instant::now();
    let mut state = call.inside.state.clone();
    let mut resealed = 0;
    for batch in entities.chunks(BATCH_ENTITIES) {
        let command = Command::Reseal(Box::new(Reseal {
            workspace: Workspace::DEFAULT,
            entities: batch.to_vec(),
        }));
        let writer = &call.admin.control_plane.writer;
        state = writer.write(command, request.clone()).await?.state;
        resealed += batch.len();
        if began.elapsed() > REQUEST_TIME {
            break;
        }
    }
    let mut shown = counts(&state);
    shown["resealed"] = resealed.into();
    let mut response = answer::ok(&shown);
    answer::set_version(&mut response, state.version());
    Ok(response)
}

/// Entities with secrets that can be opened here, and that the key that seals has not sealed.
fn outdated(state: &State) -> Vec<Key> {
    let ring = state.seals().ring();
    let is_outdated = |key: &Key, body: &Body| {
        let kind = Kind::from_name(key.kind.as_str());
        let Some(kind) = kind.filter(|kind| has_secrets(*kind)) else {
            return false;
        };
        let Ok(mut fields) = body.fields() else {
            return false;
        };
        !ring.is_current(kind, &mut fields) && ring.open(kind, key, &mut fields).is_ok()
    };
    let outdated = state
        .iter()
        .filter(|(key, entry)| is_outdated(key, &entry.body));
    let keys = outdated.map(|(key, _)| key.clone());
    keys.collect()
}
