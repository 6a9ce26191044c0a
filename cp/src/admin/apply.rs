//! Whole configurations: `/apply` takes a declarative file as one transaction, `/dump` gives one.

use super::answer;
use super::entities::preview;
use super::error::Problem;
use super::list::aside;
use super::request::{Call, FILE_BYTES_MAX};
use super::warnings;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;
use sluice_schema::decide::{Applied, Command, Outcome, Plan};
use sluice_schema::declare;

/// `POST /apply[?prune=1][&dry_run=1]`. Any content type will do, as `curl --data-binary` names the wrong one.
pub(super) async fn apply(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    if call.content_type()?.starts_with("multipart/") {
        return Err(Problem::UnsupportedMediaType);
    }
    let prune = call.query.flag("prune")?;
    let dry_run = call.query.flag("dry_run")?;
    let request = call.request()?;
    let bytes = call.read(body, FILE_BYTES_MAX).await?;
    let text = String::from_utf8(bytes.into()).map_err(|_| Problem::NotText)?;
    let document = aside(move || declare::read(&text))
        .await?
        .map_err(Problem::Mistaken)?;
    let command = Command::Apply(Box::new(Plan {
        workspace: call.inside.workspace.clone(),
        document,
        prune,
    }));
    let writer = &call.admin.control_plane.writer;
    if dry_run {
        return Ok(preview(call, &writer.preview(command, request).await?));
    }
    let written = writer.write(command, request).await?;
    let mut answered = match written.outcome {
        Outcome::Applied(applied) => counts(applied),
        Outcome::Created(_) | Outcome::Updated(_) | Outcome::Deleted => json!({}),
    };
    answered["version"] = written.version.0.into();
    let mut response = answer::ok(&answered);
    answer::set_version(&mut response, written.version);
    warnings::about_all(&call.inside.of(&written.state), call, &mut response);
    Ok(response)
}

/// What applying a file came to.
pub(super) fn counts(applied: Applied) -> serde_json::Value {
    json!({
        "created": applied.created,
        "updated": applied.updated,
        "deleted": applied.deleted,
        "unchanged": applied.unchanged,
    })
}

/// `GET /dump`.
pub(super) async fn dump(call: &Call<'_>) -> Result<Response, Problem> {
    let inside = call.inside.clone();
    let dump = move || declare::write(&inside.state, &inside.workspace);
    let text = aside(move || format!("{:#}\n", dump())).await?;
    Ok(answer::with_body(
        StatusCode::OK,
        "application/json; charset=utf-8",
        Body::from(text),
    ))
}
