//! What every program of ours does around its work: settings, logs, signals, exit codes.

pub mod connection;
pub mod logging;
pub mod secrets;
pub mod settings;
pub mod signals;
pub mod traces;
pub mod watched;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};
use logging::{LogLevel, LoggingSettings};
use settings::SettingsError;
use sluice_schema::version::Time;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs a server from its settings to its exit code: 0 after a drain, 64 for settings that cannot be used, 130 after a
/// second signal, 1 for everything else. `arguments` begin with the program's name. `work`
/// may change the log level.
pub fn run<T, W>(
    arguments: impl IntoIterator<Item = OsString>,
    variable_prefix: &str,
    logging: impl FnOnce(&T) -> &LoggingSettings,
    mut runtime: tokio::runtime::Builder,
    work: impl FnOnce(T, LogLevel, CancellationToken) -> W,
) -> ExitCode
where
    T: CommandFactory + FromArgMatches,
    W: Future<Output = anyhow::Result<()>>,
{
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let settings: T = match settings::load(arguments, variables, variable_prefix) {
        Ok(settings) => settings,
        Err(error) => return error.report().into(),
    };
    let log_level = match logging::start(logging(&settings)) {
        Ok(log_level) => log_level,
        Err(error) => {
            eprintln!("error: {error}");
            return settings::USAGE.into();
        }
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "could not start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(until_signalled(|shutdown| {
        work(settings, log_level, shutdown)
    }));
    runtime.shutdown_background();
    code
}

/// The machine's name, for people.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".into(),
        name => name.to_owned(),
    }
}

/// The clock.
pub fn now() -> Time {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

/// Waits for the tasks of a program, each of which gives its name when it ends: until `shutdown`, then for all of them.
///
/// # Errors
/// If one of them ends with an error, or before `shutdown`, which is asked for then.
pub async fn wait_for_tasks(
    program: &str,
    mut tasks: JoinSet<anyhow::Result<&'static str>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        let name = ended.context("a task panicked")??;
        if !shutdown.is_cancelled() {
            shutdown.cancel();
            anyhow::bail!("the {program}'s {name} ended before it should");
        }
    }
    Ok(())
}

/// Runs `work` until it ends; the first signal asks it to, the second does not wait. 64 is the code if it ends with a
/// [`SettingsError`].
pub async fn until_signalled<W>(work: impl FnOnce(CancellationToken) -> W) -> ExitCode
where
    W: Future<Output = anyhow::Result<()>>,
{
    let shutdown = CancellationToken::new();
    tokio::select! {
        ended = work(shutdown.clone()) => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "failed");
                match error.downcast_ref::<SettingsError>() {
                    Some(_) => settings::USAGE.into(),
                    None => ExitCode::FAILURE,
                }
            }
        },
        _ = signals::watch(shutdown.clone()) => signals::INTERRUPTED.into(),
    }
}
