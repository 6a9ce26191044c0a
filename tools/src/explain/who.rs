//! Who last changed what takes part in an explanation.

use crate::admin::{Connection, workspace_path};
use crate::history::text;
use serde_json::{Value, json};

/// The workspace that paths need not name.
const DEFAULT_WORKSPACE: &str = "default";

/// Adds to each entity that takes part which event last changed it: version, time, actor, reason. If the control plane cannot be
/// asked, a note says so.
pub(super) fn add(connection: &Connection, explanation: &mut Value) {
    let version = explanation["version"].as_u64().unwrap_or_default();
    let mut failed = None;
    for place in places(explanation) {
        let Some(entity) = explanation
            .pointer_mut(&place)
            .filter(|found| found.is_object())
        else {
            continue;
        };
        match changed(connection, entity, version) {
            Ok(changed) => entity["changed"] = changed,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if let (Some(error), Some(notes)) = (failed, explanation["notes"].as_array_mut()) {
        notes.push(json!(format!(
            "who last changed what is not known: {error:#}"
        )));
    }
}

/// Where the entities are that take part, and those that are in their way.
fn places(explanation: &Value) -> Vec<String> {
    let within = |list: &str| {
        let count = explanation
            .pointer(list)
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        let places = (0..count).map(move |place| format!("{list}/{place}"));
        places.collect::<Vec<_>>()
    };
    let mut places = vec![
        "/route".to_owned(),
        "/service".to_owned(),
        "/upstream".to_owned(),
    ];
    for list in ["/upstream/targets/data", "/plugins", "/plugins_left_out"] {
        places.extend(within(list));
    }
    places
}

fn changed(connection: &Connection, entity: &Value, until: u64) -> anyhow::Result<Value> {
    let (kind, id) = (text(&entity["kind"]), text(&entity["id"]));
    let path = format!("/log/history/{kind}/{id}?size=1&to={until}");
    let workspace = Some(text(&entity["workspace"])).filter(|name| *name != DEFAULT_WORKSPACE);
    let answer = connection.get(&workspace_path(workspace, &path))?;
    let newest = &answer["data"][0];
    Ok(match newest.is_object() {
        true => json!({
            "version": newest["version"],
            "time": newest["time"],
            "actor": newest["actor"],
            "reason": newest["reason"],
        }),
        // What was before the log begins.
        false => Value::Null,
    })
}
