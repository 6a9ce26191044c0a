//! Plugins that are configured and that no data plane runs: said in the answer to who configures them, and on `/nodes`,
//! so that nobody believes they are active.

use super::answer;
use super::inside::Inside;
use super::request::Call;
use crate::fleet::Fleet;
use axum::response::Response;
use serde::Deserialize;
use sluice_schema::entity::{Entry, Id, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::state::State;
use std::collections::BTreeSet;
use uuid::Uuid;

#[derive(Deserialize)]
struct Configured {
    name: String,
    #[serde(default)]
    enabled: bool,
}

/// The plugin that an entity switches on.
fn switched_on(entry: &Entry) -> Option<String> {
    let plugin: Configured = entry.body.view().ok()?;
    plugin.enabled.then_some(plugin.name)
}

/// The plugins that are switched on in a workspace.
pub(super) fn configured(inside: &Inside) -> BTreeSet<String> {
    let plugins = inside.list(Kind::Plugin, None);
    plugins
        .filter_map(|(_, entry)| switched_on(entry))
        .collect()
}

/// The plugins that are switched on in any workspace.
pub(super) fn configured_anywhere(state: &State) -> BTreeSet<String> {
    let first = Key {
        kind: Kind::Plugin.key_name(),
        workspace: Workspace::first(),
        id: Id(Uuid::nil()),
    };
    let plugins = state.iter_from(Some(&first));
    plugins
        .take_while(|(key, _)| key.kind == Kind::Plugin.key_name())
        .filter_map(|(_, entry)| switched_on(entry))
        .collect()
}

/// The plugins that some live data plane runs.
fn running(fleet: &Fleet) -> BTreeSet<String> {
    let alive = fleet.nodes().into_iter().filter(|node| node.alive);
    alive.flat_map(|node| node.report.plugins).collect()
}

/// What is wrong with these plugins, if anything.
pub(super) fn warning(configured: &BTreeSet<String>, fleet: &Fleet) -> Option<String> {
    let running = running(fleet);
    let missing: Vec<&str> = configured
        .difference(&running)
        .map(String::as_str)
        .collect();
    match missing.as_slice() {
        [] => None,
        [one] => Some(format!(
            "the plugin {one} is stored but not active: no connected data plane runs it"
        )),
        several => Some(format!(
            "the plugins {} are stored but not active: no connected data plane runs them",
            several.join(", ")
        )),
    }
}

/// Warns in the answer to a write of one entity.
pub(super) fn about(inside: &Inside, key: &Key, call: &Call<'_>, response: &mut Response) {
    if key.kind != Kind::Plugin.key_name() {
        return;
    }
    let configured = inside.state.get(key).and_then(switched_on);
    if let Some(warning) = warning(
        &configured.into_iter().collect(),
        &call.admin.control_plane.fleet,
    ) {
        answer::warn(response.headers_mut(), &warning);
    }
}

/// Warns in the answer to a write of many entities.
pub(super) fn about_all(inside: &Inside, call: &Call<'_>, response: &mut Response) {
    if let Some(warning) = warning(&configured(inside), &call.admin.control_plane.fleet) {
        answer::warn(response.headers_mut(), &warning);
    }
}
