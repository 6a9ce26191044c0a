//! SIGTERM and SIGINT: the first asks for a drain, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Cancels `shutdown` at the first signal and returns at the second.
///
/// # Errors
/// If the process may not listen for signals.
pub async fn watch(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for count in 1..=2 {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        match count {
            1 => tracing::info!(signal = name, "stopping; a second signal ends at once"),
            _ => tracing::warn!(signal = name, "ending at once"),
        }
        shutdown.cancel();
    }
    Ok(())
}
