//! `sluice diff --from V --to V`: what differs between two versions.

use super::is_coloured;
use crate::admin::{Connection, encode, workspace_path};
use crate::apply::plan;
use crate::say;
use serde_json::Value;

/// What is compared.
pub(crate) struct Range<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: Option<&'a str>,
    pub(crate) workspace: Option<&'a str>,
}

/// Shows what differs, and says whether anything does.
pub(crate) fn run(connection: &Connection, range: &Range<'_>, json: bool) -> anyhow::Result<bool> {
    let (from, to) = (encode(range.from), encode(range.to.unwrap_or("latest")));
    let path = format!("/log/diff?from={from}&to={to}");
    // The path of a workspace means that one alone, also for the default one.
    let path = match range.workspace {
        Some(workspace) => format!("{path}&workspace={}", encode(workspace)),
        None => workspace_path(None, &path),
    };
    let answer = connection.get(&path)?;
    match json {
        true => say(&serde_json::to_string_pretty(&answer)?)?,
        false => say(&render(&answer, is_coloured()))?,
    }
    Ok(["created", "updated", "deleted"]
        .iter()
        .any(|name| answer[*name].as_u64() > Some(0)))
}

fn render(answer: &Value, colour: bool) -> String {
    let changes = answer["changes"].as_array().cloned().unwrap_or_default();
    let mut shown = plan::changes(&changes, plan::Fields::Changed, colour);
    let count = |name: &str| answer[name].as_u64().unwrap_or(0);
    let (created, updated, deleted) = (count("created"), count("updated"), count("deleted"));
    let more = (created + updated + deleted).saturating_sub(changes.len() as u64);
    if more > 0 {
        shown += &format!("and {more} more\n");
    }
    if !shown.is_empty() {
        shown.push('\n');
    }
    shown += &format!(
        "from version {} to {}: {created} created, {updated} updated, {deleted} deleted",
        count("from"),
        count("to")
    );
    shown
}
