//! `/log/keyring`: whose signatures this control plane believes, and a newer keyring for it.

use super::answer;
use super::error::Problem;
use super::list::aside;
use super::request::Call;
use super::time::rfc3339;
use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_replica::keys::{PublicLine, RING_BYTES_MAX, Role};
use sluice_replica::run::chain;
use sluice_schema::hash::Hash32;
use std::collections::BTreeMap;

/// `GET /log/keyring`.
pub(super) fn show(call: &Call<'_>) -> Response {
    answer::ok(&view(call))
}

/// `POST /log/keyring`: takes up a sealed keyring, the bytes of its file. Any content type will do.
pub(super) async fn take_up(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    let sealed = call.read(body, RING_BYTES_MAX).await?;
    let keychain = call.admin.control_plane.keychain.clone();
    let taken = aside(move || keychain.offer(&sealed)).await?;
    let changed = taken.map_err(|error| Problem::Keyring(chain(&error)))?;
    let mut answered = view(call);
    answered["changed"] = changed.into();
    Ok(answer::ok(&answered))
}

/// Every key that is known and how far it is believed.
fn view(call: &Call<'_>) -> Value {
    let control_plane = &call.admin.control_plane;
    let trusted = control_plane.keychain.current();
    let ring = trusted.ring();
    let notes: BTreeMap<String, &str> = ring
        .iter()
        .flat_map(|ring| &ring.entries)
        .map(|entry| (entry.key.id(), entry.note.as_str()))
        .collect();
    let entries = trusted.keys().map(|(id, known)| {
        let line = PublicLine {
            role: Role::ControlPlane,
            key: known.key,
            name: known.name.clone(),
        };
        json!({
            "id": id,
            "name": known.name,
            "standing": known.standing.to_string(),
            "note": notes.get(id).copied().unwrap_or_default(),
            "pinned": known.pinned,
            "in_ring": known.in_ring,
            "public_key": line.to_string(),
        })
    });
    let roots = trusted
        .roots()
        .map(|(id, name)| json!({ "id": id, "name": name }));
    let own = control_plane.info.signing_key.as_str();
    json!({
        "serial": trusted.ring_serial(),
        "made": ring.map(|ring| rfc3339(ring.made)),
        "signed_by": trusted.ring_signer(),
        "hash": trusted.sealed_ring().map(|sealed| Hash32::of(sealed).to_string()),
        "roots": roots.collect::<Vec<_>>(),
        "entries": entries.collect::<Vec<_>>(),
        "signing_key": own,
        "may_sign": trusted.may_sign(own),
    })
}
