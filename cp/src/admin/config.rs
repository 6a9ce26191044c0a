//! `/config`, as Kong has it without a database: the whole configuration of a workspace read and replaced as one file.

use super::answer;
use super::error::Problem;
use super::list::aside;
use super::request::{Call, FILE_BYTES_MAX};
use super::warnings;
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use sluice_schema::decide::{Command, Plan};
use sluice_schema::declare;

/// `GET /config`.
pub(super) async fn show(call: &Call<'_>) -> Result<Response, Problem> {
    let inside = call.inside.clone();
    let dump = move || declare::write(&inside.state, &inside.workspace);
    let text = aside(move || format!("{:#}\n", dump())).await?;
    Ok(answer::ok(&json!({ "config": text })))
}

/// `POST /config`: replaces everything in the workspace.
pub(super) async fn replace(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    let check_hash = call.query.flag("check_hash")?;
    let bytes = call.read(body, FILE_BYTES_MAX).await?;
    let text = file(call, bytes).await?;
    let document = aside(move || declare::read(&text))
        .await?
        .map_err(Problem::Mistaken)?;
    let command = Command::Apply(Box::new(Plan {
        workspace: call.inside.workspace.clone(),
        document,
        prune: true,
    }));
    let written = call
        .admin
        .control_plane
        .writer
        .write(command, call.request()?)
        .await?;
    if check_hash && written.event.is_none() {
        return Ok(answer::not_modified(None));
    }
    let after = call.inside.of(&written.state);
    let loaded = after.clone();
    let loaded = aside(move || declare::write(&loaded.state, &loaded.workspace)).await?;
    let mut response = answer::json(StatusCode::CREATED, &loaded);
    answer::set_version(&mut response, written.version);
    warnings::about_all(&after, call, &mut response);
    Ok(response)
}

/// The file in a body: the body itself, or the field `config` of a form or an object.
async fn file(call: &Call<'_>, bytes: Bytes) -> Result<String, Problem> {
    let content_type = call.content_type()?;
    if ["application/x-www-form-urlencoded", "multipart/form-data"].contains(&&*content_type) {
        let pairs = call.pairs(bytes).await?;
        let mut pairs = pairs.into_iter();
        let config = pairs.find(|(name, _)| name == "config");
        return config
            .map(|(_, text)| text)
            .ok_or_else(|| Problem::Bad("expected a declarative configuration".to_owned()));
    }
    let text = String::from_utf8(bytes.into()).map_err(|_| Problem::NotText)?;
    if content_type == "application/json"
        && let Ok(Value::Object(object)) = serde_json::from_str::<Value>(&text)
        && let Some(Value::String(config)) = object.get("config")
    {
        return Ok(config.clone());
    }
    Ok(text)
}
