//! The thread that writes, and the workers' ends of its queue.

use super::{Destination, Record, Settings};
use crate::metrics::Shard;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes a worker gathers before it hands them over; they wait for a second at most.
const BUFFER_BYTES: usize = 32 * 1024;
/// Buffers that may wait for the writer: 8 MiB.
const QUEUE_MAX: usize = 256;
/// The least time between two warnings that lines are lost.
const WARNING_GAP: Duration = Duration::from_secs(60);
/// How long the end of the log is waited for at shutdown.
const END_TIMEOUT: Duration = Duration::from_secs(5);

enum Message {
    Lines { bytes: Vec<u8>, count: u64 },
    Reopen,
}

/// The log as the process holds it.
#[derive(Clone, Debug)]
pub struct Writer {
    settings: Settings,
    queue: Option<SyncSender<Message>>,
}

/// A worker's end of the queue.
#[derive(Debug)]
pub(crate) struct Log {
    writer: Writer,
    queue: SyncSender<Message>,
    gathered: RefCell<(Vec<u8>, u64)>,
    metrics: Arc<Shard>,
}

/// Ready when everything is written.
#[derive(Debug)]
pub(crate) struct Ended(Option<oneshot::Receiver<()>>);

impl Ended {
    /// Waits for it, but not for ever: a pipe may never be read.
    pub(crate) async fn wait(self) {
        if let Some(ended) = self.0 {
            // Either way there is nothing more to do.
            let _ = tokio::time::timeout(END_TIMEOUT, ended).await;
        }
    }
}

impl Writer {
    /// Opens the log and starts its thread, unless it is off.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread not be started.
    pub(crate) fn start(settings: Settings, metrics: Arc<Shard>) -> io::Result<(Self, Ended)> {
        let output = match &settings.destination {
            Destination::Off => {
                let writer = Self {
                    settings,
                    queue: None,
                };
                return Ok((writer, Ended(None)));
            }
            Destination::Stdout => Output::Stdout,
            Destination::File(path) => Output::File(open(path)?),
        };
        let (sender, queue) = sync_channel(QUEUE_MAX);
        let (done, ended) = oneshot::channel();
        let destination = settings.destination.clone();
        let work = move || {
            write(&queue, output, &destination, &metrics);
            // Nobody may be waiting any more.
            let _ = done.send(());
        };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(work)?;
        let writer = Self {
            settings,
            queue: Some(sender),
        };
        Ok((writer, Ended(Some(ended))))
    }

    /// An end for a worker. `None` if the log is off.
    pub(crate) fn log(&self, metrics: &Arc<Shard>) -> Option<Log> {
        Some(Log {
            writer: self.clone(),
            queue: self.queue.clone()?,
            gathered: RefCell::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Opens the file anew: what is written from now on goes to what has its name now.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            // A full queue means that nothing is written; a later call will do.
            let _ = queue.try_send(Message::Reopen);
        }
    }
}

impl Log {
    /// Adds a line.
    pub(crate) fn add(&self, record: &Record<'_>) {
        let settings = &self.writer.settings;
        let full = {
            let (bytes, count) = &mut *self.gathered.borrow_mut();
            record.write(settings.format, settings.query, bytes);
            *count += 1;
            bytes.len() >= BUFFER_BYTES
        };
        if full {
            self.flush();
        }
    }

    /// Hands over what is gathered, or drops it; called on a coarse tick.
    pub(crate) fn flush(&self) {
        let (bytes, count) = self.gathered.take();
        if count > 0
            && self
                .queue
                .try_send(Message::Lines { bytes, count })
                .is_err()
        {
            self.metrics
                .access_log_dropped
                .fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

enum Output {
    Stdout,
    File(File),
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File(file) => file.write_all(bytes),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("could not open the access log {}: {error}", path.display()),
        )
    })
}

fn write(
    queue: &Receiver<Message>,
    mut output: Output,
    destination: &Destination,
    metrics: &Shard,
) {
    let mut warned: Option<Instant> = None;
    let mut warn = |error: &io::Error| {
        if warned.is_none_or(|at| at.elapsed() >= WARNING_GAP) {
            tracing::warn!(%error, "the access log loses lines; see sluice_dp_access_log_dropped_total");
            warned = Some(Instant::now());
        }
    };
    while let Ok(message) = queue.recv() {
        match (message, destination) {
            (Message::Lines { bytes, count }, _) => {
                if let Err(error) = output.write(&bytes) {
                    metrics
                        .access_log_dropped
                        .fetch_add(count, Ordering::Relaxed);
                    warn(&error);
                }
            }
            (Message::Reopen, Destination::File(path)) => match open(path) {
                Ok(file) => output = Output::File(file),
                Err(error) => warn(&error),
            },
            (Message::Reopen, Destination::Off | Destination::Stdout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::{Format, Query};

    #[test]
    fn a_queue_that_is_full_loses_lines_and_never_waits() {
        let metrics = Arc::<Shard>::default();
        // Nobody reads from it.
        let (queue, _unread) = sync_channel(1);
        let settings = Settings {
            destination: Destination::Stdout,
            format: Format::Text,
            query: Query::Names,
        };
        let writer = Writer {
            settings,
            queue: Some(queue),
        };
        let log = writer.log(&metrics).unwrap();
        for _ in 0..3 {
            log.gathered.borrow_mut().1 = 5;
            log.flush();
        }
        assert_eq!(metrics.access_log_dropped.load(Ordering::Relaxed), 10);
    }
}
