//! Whole configurations: `/apply` takes a declarative file as one transaction, `/dump` gives one.

use super::answer;
use super::error::{Problem, places};
use super::event_view;
use super::list::aside;
use super::request::{Call, FILE_BYTES_MAX};
use super::warnings;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use sluice_schema::decide::{Applied, Command, Mistake, Outcome, Plan};
use sluice_schema::declare;

/// `POST /apply[?prune=1][&dry_run=1]`. Any content type will do, as `curl --data-binary` names the wrong one.
pub(super) async fn apply(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    if call.content_type()?.starts_with("multipart/") {
        return Err(Problem::UnsupportedMediaType);
    }
    let prune = call.query.flag("prune")?;
    let dry_run = call.query.flag("dry_run")?;
    let request = call.request()?;
    // One text of one file, or of several, each a document of its own.
    let bytes = call.read(body, FILE_BYTES_MAX).await?;
    let text = String::from_utf8(bytes.into()).map_err(|_| Problem::NotText)?;
    let mut document = aside(move || declare::read(&text))
        .await?
        .map_err(Problem::Mistaken)?;
    let warnings = std::mem::take(&mut document.warnings);
    let command = Command::Apply(Box::new(Plan {
        workspace: call.inside.workspace.clone(),
        document,
        prune,
    }));
    let writer = &call.admin.control_plane.writer;
    if dry_run {
        let written = writer.preview(command, request).await?;
        let mut shown = aside(move || event_view::previewed(&written)).await?;
        warn(&mut shown, &warnings);
        return Ok(event_view::answer_preview(&shown));
    }
    let written = writer.write(command, request).await?;
    let mut answered = match written.outcome {
        Outcome::Applied(applied) => counts(applied),
        Outcome::Created(_) | Outcome::Updated(_) | Outcome::Deleted => json!({}),
    };
    answered["version"] = written.version.0.into();
    warn(&mut answered, &warnings);
    let mut response = answer::ok(&answered);
    answer::set_version(&mut response, written.version);
    warnings::about_all(&call.inside.of(&written.state), call, &mut response);
    Ok(response)
}

fn warn(answered: &mut Value, warnings: &[Mistake]) {
    if !warnings.is_empty() {
        answered["warnings"] = places(warnings);
    }
}

/// What applying a file came to.
pub(super) fn counts(applied: Applied) -> Value {
    json!({
        "created": applied.created,
        "updated": applied.updated,
        "deleted": applied.deleted,
        "unchanged": applied.unchanged,
    })
}

/// `GET /dump[?format=yaml][&select_tags=a,b]`.
pub(super) async fn dump(call: &Call<'_>) -> Result<Response, Problem> {
    let inside = call.inside.clone();
    let tags = call.query.get("select_tags").unwrap_or_default();
    let tags = tags.split(',').filter(|tag| !tag.is_empty());
    let tags: Vec<String> = tags.map(str::to_owned).collect();
    let dump = move || declare::write_selected(&inside.state, &inside.workspace, &tags);
    let (content_type, text) = match call.query.get("format") {
        None | Some("json") => (
            "application/json; charset=utf-8",
            aside(move || format!("{:#}\n", dump())).await?,
        ),
        Some("yaml") => (
            "application/yaml; charset=utf-8",
            aside(move || declare::to_yaml(&dump())).await?,
        ),
        Some(_) => return Err(Problem::Argument("format", "json or yaml")),
    };
    let body = Body::from(text);
    Ok(answer::with_body(StatusCode::OK, content_type, body))
}
