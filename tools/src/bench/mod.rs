//! `sluice bench`: measurements on this machine, with real processes.

mod propagate;
mod recover;
mod relay;
mod rig;
mod usage;

use clap::{Args, Subcommand};

/// Arguments of `sluice bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From a POST to the first request that shows it: time, bytes to the data plane, CPU of the data plane
    Propagate(propagate::Arguments),
    /// What a snapshot costs, and how a data plane comes back: from its store, from nothing, after a gap
    Recover(recover::Arguments),
}

/// Measures.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Propagate(arguments) => propagate::run(&arguments),
        Command::Recover(arguments) => recover::run(&arguments),
    }
}
