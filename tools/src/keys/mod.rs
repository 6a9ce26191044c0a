//! `sluice keys`: signing keys of control planes, root keys, and the keyring that a root signs.

mod show;
mod sign;

use crate::admin::Connection;
use crate::say;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use sluice_replica::keys::{
    Keyring, PublicLine, RING_BYTES_MAX, RING_NAME, Role, SigningKey, TrustedKeys,
};
use std::path::{Path, PathBuf};

/// Arguments of `sluice keys`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a signing key, and the public key beside it (.pub). A control plane also makes one at its first start
    New {
        /// File for the signing key; refuses to replace one
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Name for people, kept in the public key
        #[arg(long, default_value = "sluice-cp")]
        name: String,
    },
    /// Make a root key, which signs keyrings, and the public key beside it (.pub). Keep it offline
    Root {
        /// File for the root key; refuses to replace one
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Name for people, kept in the public key
        #[arg(long, default_value = "root")]
        name: String,
    },
    /// Make the next keyring: which control planes' keys are believed, signed by a root key
    Sign(sign::Arguments),
    /// Show public keys, roots and the keyring: of a key, a .pub file, a keyring, or a directory
    Show {
        /// Signing key, .pub file, keyring or directory
        #[arg(value_name = "PATH", default_value = ".sluice/cp/keys")]
        path: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a keyring to a control plane, which takes it up at once
    Publish {
        /// The keyring
        #[arg(value_name = "KEYRING")]
        file: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Makes, signs, shows or publishes keys.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::New { file, name } => {
            check_name(&name)?;
            let key = SigningKey::create(&file, &name)?;
            say(&key.public_line(&name))?;
            eprintln!(
                "made {} (secret) and {}; have a root sign it (sluice keys sign --add), or give the .pub file to data planes and other control planes (trusted_keys)",
                file.display(),
                file.with_extension("pub").display()
            );
            Ok(())
        }
        Command::Root { file, name } => {
            check_name(&name)?;
            let key = SigningKey::create_root(&file, &name)?;
            say(&key.public(Role::Root, &name).to_string())?;
            eprintln!(
                "made {} (secret) and {}; give the .pub file to every replica (trusted_keys). Whoever has the secret decides who may change the configuration: keep it offline, never on a control plane or data plane, and a copy in another safe place",
                file.display(),
                file.with_extension("pub").display()
            );
            Ok(())
        }
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Show { path, json } => show::run(&path, json),
        Command::Publish { file, connection } => publish(&file, &connection),
    }
}

/// A name that can stand in a `.pub` file and a keyring.
fn check_name(name: &str) -> anyhow::Result<()> {
    let longest = sluice_replica::keys::NAME_BYTES_MAX;
    let word = !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if !word || name.is_empty() || name.len() > longest {
        bail!("a key's name is one word of 1 to {longest} bytes (--name)");
    }
    Ok(())
}

fn publish(file: &Path, connection: &Connection) -> anyhow::Result<()> {
    let sealed = read_ring(file)?;
    Keyring::peek(&sealed).with_context(|| format!("'{}' is not a keyring", file.display()))?;
    let answer = connection.post("/log/keyring", "application/octet-stream", &[], &sealed)?;
    if answer.status != 200 {
        let message = answer.body["message"].as_str();
        bail!(
            "the control plane answered {}: {}",
            answer.status,
            message.map_or_else(|| answer.body.to_string(), str::to_owned)
        );
    }
    let serial = &answer.body["serial"];
    match answer.body["changed"].as_bool() {
        Some(true) => say(&format!("keyring {serial} is in force there"))?,
        Some(false) | None => say(&format!("keyring {serial} was in force there already"))?,
    }
    if answer.body["may_sign"] == false {
        eprintln!(
            "note: the key of this control plane ({}) is not active in it: it may not write",
            answer.body["signing_key"].as_str().unwrap_or("unknown")
        );
    }
    Ok(())
}

/// A keyring's bytes.
/// The public keys at `path`, and the keyring if it lies there too.
pub(crate) fn load_trusted(path: &Path) -> anyhow::Result<TrustedKeys> {
    let trusted = TrustedKeys::load(path)?;
    let ring = path.join(RING_NAME);
    if !ring.is_file() {
        return Ok(trusted);
    }
    let sealed = read_ring(&ring)?;
    trusted
        .with_ring(&sealed)
        .with_context(|| format!("'{}' cannot be believed", ring.display()))
}

fn read_ring(path: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path);
    let mut sealed = Vec::new();
    file.and_then(|file| {
        file.take(RING_BYTES_MAX as u64 + 1)
            .read_to_end(&mut sealed)
    })
    .with_context(|| format!("could not read '{}'", path.display()))?;
    Ok(sealed)
}

/// The control planes' keys of a `.pub` file.
fn read_control_planes(path: &Path) -> anyhow::Result<Vec<PublicLine>> {
    let lines = PublicLine::load(path)?;
    if lines.is_empty() {
        bail!("there is no key in '{}'", path.display());
    }
    if let Some(root) = lines.iter().find(|line| line.role == Role::Root) {
        bail!(
            "'{}' holds the root key {}: roots are pinned (trusted_keys), never in a keyring",
            path.display(),
            root.key.id()
        );
    }
    Ok(lines)
}
