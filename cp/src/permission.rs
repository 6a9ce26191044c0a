//! Whether a control plane may write: only while its own key is believed.

use sluice_replica::keys::{Standing, TrustedKeys};

/// Why a control plane may not append with this key, if so: replicas would stop at its events.
pub fn barred(trusted: &TrustedKeys, key_id: &str) -> Option<String> {
    let ring = match trusted.ring_serial() {
        0 => "there is no keyring here yet".to_owned(),
        serial => format!("keyring {serial} is in force"),
    };
    let next = match trusted.standing(key_id) {
        Some(Standing::Active) => return None,
        Some(Standing::Retired) => {
            "is retired: use another control plane, or give this one a new key"
        }
        Some(Standing::Revoked) => {
            "is revoked: give this control plane a new key, and find out who has the old one"
        }
        None => {
            "is not trusted: add its .pub file to the keyring (`sluice keys sign --add`, `sluice keys publish`), or copy it into trusted_keys of every replica"
        }
    };
    Some(format!(
        "this control plane's signing key {key_id} {next} ({ring})"
    ))
}
