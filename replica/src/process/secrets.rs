//! The file with the keys of secrets: what control planes seal with, and data planes open with.

use super::watched;
use crate::files::{create_secret, directory_of, replace_secret, sync_name};
use anyhow::Context;
use clap::Args;
use sluice_schema::seal::{KEY_BYTES, Ring, Seals};
use std::fs;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// What a secrets file begins with.
const HEAD: &str = "# Keys of secrets: the first seals, all open. Whoever has this file can read every secret of the log.\n";

/// Where the keys of secrets are.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Secrets")]
pub struct SecretsSettings {
    /// File with the keys with which secrets are sealed in the log, stores and snapshots (`sluice secrets init`): the same for all
    /// control planes and data planes. Read again when it changes [default: secrets are stored in clear text]
    #[arg(long, env = "SLUICE_SECRETS_FILE", value_name = "FILE")]
    pub secrets_file: Option<PathBuf>,
}

/// The keys of secrets of a process, and the file they come from.
#[derive(Debug, Default)]
pub struct Secrets {
    seals: Seals,
    path: Option<PathBuf>,
    seen: watched::Seen,
}

impl Secrets {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is not a secrets file.
    pub fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let seen = path.as_deref().and_then(watched::look);
        let ring = path.as_deref().map(read).transpose();
        let ring = ring.context("secrets_file")?.unwrap_or_default();
        Ok(Self {
            seals: Seals::new(ring),
            path,
            seen,
        })
    }

    /// Reads the file, which is made with one key if it is not there.
    ///
    /// # Errors
    /// If it can be neither read nor made.
    pub fn open_or_create(path: PathBuf) -> anyhow::Result<Self> {
        if !path.exists() {
            create(&path)?;
        }
        Self::open(Some(path))
    }

    /// What seals and opens. Follows the file if [`Secrets::follow`] runs.
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Takes up changes of the file until `shutdown`, and calls `changed` after each. A file that cannot be used is logged, and
    /// the keys stay as they were.
    pub async fn follow(self, shutdown: CancellationToken, mut changed: impl FnMut()) {
        let Some(path) = self.path else {
            return shutdown.cancelled().await;
        };
        let seals = self.seals;
        let take = |path: &Path| match read(path) {
            Ok(ring) => {
                tracing::info!(path = %path.display(), keys = ?ring, "took up the keys of secrets");
                seals.replace(ring);
                changed();
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "kept the keys of secrets as they were");
            }
        };
        watched::follow(path, self.seen, shutdown, take).await;
    }
}

/// Reads a secrets file.
///
/// # Errors
/// If it cannot be read or understood. The message quotes no key.
pub fn read(path: &Path) -> anyhow::Result<Ring> {
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("could not read {}", path.display()))?;
    Ring::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
}

/// Makes a secrets file with one key, which only its owner can read, and gives the key's name. Refuses to replace a file.
///
/// # Errors
/// If it cannot be written.
pub fn create(path: &Path) -> anyhow::Result<String> {
    let (name, line) = new_key(&Ring::default());
    let text = Zeroizing::new(format!("{HEAD}{}", line.as_str()));
    fs::create_dir_all(directory_of(path))
        .and_then(|()| create_secret(path, text.as_bytes()))
        .and_then(|()| sync_name(path))
        .with_context(|| format!("could not make {}", path.display()))?;
    Ok(name)
}

/// Replaces a secrets file by `text`, if that is one.
///
/// # Errors
/// If it is not, or cannot be written. What was there stays then.
pub fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    Ring::parse(text).with_context(|| format!("{} would not be right", path.display()))?;
    let replaced = replace_secret(path, text.as_bytes());
    replaced.with_context(|| format!("could not write {}", path.display()))
}

/// A new key with a name that `ring` does not have: the name, and its line of a secrets file.
pub fn new_key(ring: &Ring) -> (String, Zeroizing<String>) {
    let mut number = ring.names().count() + 1;
    while ring.has(&format!("k{number}")) {
        number += 1;
    }
    let name = format!("k{number}");
    let bytes: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(rand::random());
    let line = Zeroizing::new(Ring::line(&name, &bytes));
    (name, line)
}
