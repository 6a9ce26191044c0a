//! `sluice log`: prints the log; below it, what auditors and operators do with it.

mod export;
mod import;
mod print;
mod trim;
mod verify;

use clap::{Args, Subcommand};
use std::process::ExitCode;

pub(crate) use export::{about, write_archive};

/// Arguments of `sluice log`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    print: print::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every record, signature and snapshot of the log or of an archive. Exit code 0: good, 1: bad, 2: not read
    Verify(Box<verify::Arguments>),
    /// Write the log, or a part of it, to a file
    Export(Box<export::Arguments>),
    /// Begin a new epoch of the log with the state of an archive
    Import(Box<import::Arguments>),
    /// Remove the beginning of the log, behind a snapshot
    Trim(Box<trim::Arguments>),
}

/// Prints the log, or does what is named.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let done = match &arguments.command {
        None => print::run(&arguments.print),
        Some(Command::Verify(arguments)) => return Ok(verify::run(arguments)),
        Some(Command::Export(arguments)) => export::run(arguments),
        Some(Command::Import(arguments)) => import::run(arguments),
        Some(Command::Trim(arguments)) => trim::run(arguments),
    };
    done.map(|()| ExitCode::SUCCESS)
}
