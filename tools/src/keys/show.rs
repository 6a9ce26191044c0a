//! `sluice keys show`: what is in a file or directory of keys.

use super::read_ring;
use crate::say;
use anyhow::Context;
use serde_json::{Value, json};
use sluice_replica::keys::{Keyring, PublicLine, RingError, Role, SigningKey, TrustedKeys};
use std::path::{Path, PathBuf};

/// The name of the keyring's file in a directory of keys.
const RING_FILE: &str = "keyring";

/// What was found.
#[derive(Default)]
struct Found {
    lines: Vec<PublicLine>,
    ring: Option<Ring>,
}

struct Ring {
    ring: Keyring,
    signed_by: String,
    /// Whether a root whose public key lies there has signed it; the reason if that is not known.
    checked: Result<(), String>,
}

/// Shows what is at `path`. Never a secret.
pub(super) fn run(path: &Path, json: bool) -> anyhow::Result<()> {
    let found = find(path)?;
    if json {
        return say(&serde_json::to_string_pretty(&as_json(&found))?);
    }
    for line in &found.lines {
        say(&line.to_string())?;
    }
    for PublicLine { role, key, name } in &found.lines {
        let what = match role {
            Role::ControlPlane => "key id",
            Role::Root => "root id",
        };
        say(&format!("# {what} {}  {name}", key.id()))?;
    }
    let Some(Ring {
        ring,
        signed_by,
        checked,
    }) = &found.ring
    else {
        return Ok(());
    };
    let checked = match checked {
        Ok(()) => "its signature is good".to_owned(),
        Err(reason) => format!("NOT CHECKED: {reason}"),
    };
    say(&format!(
        "# keyring {} signed by root {signed_by}; {checked}",
        ring.serial
    ))?;
    for entry in &ring.entries {
        let line = format!(
            "#   {}  {:<8}  {}  {}",
            entry.key.id(),
            entry.standing,
            entry.name,
            entry.note
        );
        say(line.trim_end())?;
    }
    Ok(())
}

fn find(path: &Path) -> anyhow::Result<Found> {
    if path.is_dir() {
        let mut lines = Vec::new();
        for file in public_files(path)? {
            lines.extend(PublicLine::load(&file)?);
        }
        let ring = path.join(RING_FILE);
        let ring = match ring.exists() {
            true => Some(open(&read_ring(&ring)?, &lines)?),
            false => None,
        };
        if lines.is_empty() && ring.is_none() {
            TrustedKeys::load(path)?;
        }
        return Ok(Found { lines, ring });
    }
    if path.extension().is_some_and(|extension| extension == "pub") {
        let lines = PublicLine::load(path)?;
        return Ok(Found { lines, ring: None });
    }
    let bytes = read_ring(path)?;
    match Keyring::peek(&bytes) {
        Ok(_) => {
            // The roots that lie beside it may vouch for it.
            let directory = path.parent().filter(|parent| *parent != Path::new(""));
            let files = public_files(directory.unwrap_or(Path::new(".")))?;
            let lines: Vec<PublicLine> = files
                .iter()
                .filter_map(|file| PublicLine::load(file).ok())
                .flatten()
                .collect();
            Ok(Found {
                lines: Vec::new(),
                ring: Some(open(&bytes, &lines)?),
            })
        }
        Err(RingError::Codec(sluice_schema::codec::CodecError::Magic)) => {
            let key = SigningKey::load(path)?;
            // Its public file knows its name, and whether it is a root.
            let known = PublicLine::load(&path.with_extension("pub")).unwrap_or_default();
            let line = known.into_iter().find(|line| line.key == key.public_key());
            let line = line.unwrap_or_else(|| key.public(Role::ControlPlane, "sluice-cp"));
            Ok(Found {
                lines: vec![line],
                ring: None,
            })
        }
        Err(error) => Err(error).with_context(|| format!("could not read '{}'", path.display())),
    }
}

fn open(sealed: &[u8], lines: &[PublicLine]) -> anyhow::Result<Ring> {
    let (ring, signed_by) = Keyring::peek(sealed).context("the keyring cannot be read")?;
    let checked = match Keyring::open(sealed, &TrustedKeys::of(lines.iter().cloned())) {
        Ok(_) => Ok(()),
        Err(RingError::NoRoot) => Err("there is no root's .pub file beside it".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Ok(Ring {
        ring,
        signed_by,
        checked,
    })
}

fn public_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("could not read '{}'", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pub"));
    files.sort_unstable();
    Ok(files)
}

fn as_json(found: &Found) -> Value {
    let of_role = |role: Role| {
        let lines = found.lines.iter().filter(|line| line.role == role);
        let shown = lines.map(|line| {
            json!({ "id": line.key.id(), "name": line.name, "public_key": line.to_string() })
        });
        shown.collect::<Vec<_>>()
    };
    let ring = found.ring.as_ref().map(|found| {
        let entries = found.ring.entries.iter().map(|entry| {
            json!({
                "id": entry.key.id(),
                "name": entry.name,
                "standing": entry.standing.to_string(),
                "note": entry.note,
            })
        });
        json!({
            "serial": found.ring.serial,
            "made_seconds": found.ring.made.seconds(),
            "signed_by": found.signed_by,
            "signature": found.checked.as_ref().map_or_else(String::as_str, |()| "good"),
            "entries": entries.collect::<Vec<_>>(),
        })
    });
    json!({ "keys": of_role(Role::ControlPlane), "roots": of_role(Role::Root), "keyring": ring })
}
