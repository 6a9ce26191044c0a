//! `sluice bench`: measurements on this machine, with real processes.

mod admin;
mod client;
mod fleet;
mod history;
mod propagate;
mod proxy;
mod recover;
mod relay;
mod rig;
mod usage;

use clap::{Args, Subcommand};
use std::time::Duration;

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
    /// What the Admin API costs as the configuration grows: a large file, lists, a PUT of one entity
    Admin(admin::Arguments),
    /// What proxying a request costs, beside other proxies, with many routes, and while the configuration changes
    Proxy(proxy::Arguments),
    /// How long a fleet of simulated data planes takes to confirm a change, and what that costs a control plane
    Fleet(fleet::Arguments),
    /// What a snapshot costs, and how a data plane comes back: from its store, from nothing, after a gap
    Recover(recover::Arguments),
    /// What looking back costs: the history of one entity among many events, the way back from a change of many
    History(history::Arguments),
}

/// Measures.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Propagate(arguments) => propagate::run(&arguments),
        Command::Admin(arguments) => admin::run(&arguments),
        Command::Proxy(arguments) => proxy::run(&arguments),
        Command::Fleet(arguments) => fleet::run(&arguments),
        Command::Recover(arguments) => recover::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
    }
}

/// The middle one; sorts them.
fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}
