//! `sluice keys`: signing keys of control planes.

use anyhow::Context;
use clap::{Args, Subcommand};
use sluice_replica::keys::{SigningKey, TrustedKeys};
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
    /// Show public keys: of a signing key, a .pub file, or all .pub files of a directory
    Show {
        /// Signing key, .pub file or directory
        #[arg(value_name = "PATH", default_value = ".sluice/cp/keys")]
        path: PathBuf,
    },
}

/// Makes or shows keys.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::New { file, name } => {
            let key = SigningKey::create(&file, &name)?;
            println!("{}", key.public_line(&name));
            eprintln!(
                "made {} (secret) and {}; give the .pub file to data planes and other control planes (trusted_keys)",
                file.display(),
                file.with_extension("pub").display()
            );
            Ok(())
        }
        Command::Show { path } => show(&path),
    }
}

fn show(path: &Path) -> anyhow::Result<()> {
    let secret = path.is_file() && path.extension().is_none_or(|extension| extension != "pub");
    if secret {
        let key = SigningKey::load(path)?;
        println!("{}  # key id {}", key.public_line("sluice-cp"), key.id());
        return Ok(());
    }
    let trusted = TrustedKeys::load(path)?;
    let lines = std::fs::read_dir(path)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path())
                .collect::<Vec<_>>()
        })
        .unwrap_or_else(|_| vec![path.to_owned()]);
    for file in lines {
        if file.extension().is_some_and(|extension| extension == "pub") {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("could not read '{}'", file.display()))?;
            print!("{text}");
        }
    }
    for (id, name) in trusted.names() {
        println!("# key id {id}  {name}");
    }
    Ok(())
}
