//! The broker, for commands that read or write the log without a control plane.

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sluice_replica::log::jetstream::{JetStream, Options, Role};
use sluice_replica::log::{LogError, Source};
use sluice_replica::process::connection::ConnectionSettings;
use sluice_replica::process::settings::SettingsError;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// How long a broker may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_PACE: Duration = Duration::from_millis(50);

/// The log, once the broker has answered.
pub(crate) async fn connect(
    settings: &ConnectionSettings,
    role: Role,
    replicas: usize,
) -> anyhow::Result<Source> {
    let options = options(settings, role)?;
    let source = JetStream::connect(Options {
        replicas,
        ..options
    })
    .await
    .context("could not set up the connection to NATS")?;
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match source.chunks.roots().await {
            Ok(_) => return Ok(source),
            Err(LogError::Unavailable(_)) if Instant::now() < deadline => {
                tokio::time::sleep(CONNECT_PACE).await;
            }
            Err(error) => {
                return Err(error).context("could not reach the log (--nats-url, --cluster)");
            }
        }
    }
}

fn options(settings: &ConnectionSettings, role: Role) -> anyhow::Result<Options> {
    match settings.options(role, "sluice") {
        Ok(options) => Ok(options),
        Err(SettingsError::Unusable(reason)) => bail!("{reason}"),
        Err(error) => Err(error.into()),
    }
}

/// Runs something that waits for the broker.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// A bar on a terminal; nothing elsewhere.
pub(crate) fn bar(message: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target).with_message(message.to_owned());
    match ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
