//! A thread for what limiting plugins do beside requests, started when there is something to do.

use std::sync::OnceLock;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The thread. It ends with this value.
#[derive(Debug)]
pub(super) struct Background {
    name: &'static str,
    runtime: OnceLock<Option<Handle>>,
    end: CancellationToken,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Background {
    pub(super) fn named(name: &'static str) -> Self {
        Self {
            name,
            runtime: OnceLock::new(),
            end: CancellationToken::new(),
        }
    }

    /// Where to spawn; `None` if the thread cannot be started.
    pub(super) fn handle(&self) -> Option<&Handle> {
        let start = || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.inspect_err(|error| tracing::error!(%error, "no runtime"));
            let runtime = runtime.ok()?;
            let (handle, end) = (runtime.handle().clone(), self.end.clone());
            let thread = std::thread::Builder::new().name(self.name.into());
            let started = thread.spawn(move || {
                runtime.block_on(end.cancelled());
                runtime.shutdown_background();
            });
            let started = started.inspect_err(|error| tracing::error!(%error, "no thread"));
            started.ok().map(|_| handle)
        };
        self.runtime.get_or_init(start).as_ref()
    }
}
