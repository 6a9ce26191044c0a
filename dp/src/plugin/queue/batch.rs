//! Handing batches over, on the thread of queues.

use super::Queue;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Sees to a queue until it is empty.
pub(super) async fn attend(queue: Arc<Queue>) {
    let mut running = JoinSet::new();
    loop {
        gather(&queue).await;
        let arrived = queue.arrived.notified();
        let (batch, concurrency) = {
            let mut waiting = queue.lock();
            if waiting.entries.is_empty() && running.is_empty() {
                waiting.attended = false;
                return;
            }
            (waiting.take(), waiting.parameters.concurrency)
        };
        if batch.is_empty() {
            tokio::select! {
                _ = running.join_next() => {}
                () = arrived => {}
            }
            continue;
        }
        running.spawn(hand_over(Arc::clone(&queue), batch));
        while running.len() >= concurrency {
            running.join_next().await;
        }
        while running.try_join_next().is_some() {}
    }
}

/// Waits until a batch is full or has waited long enough.
async fn gather(queue: &Queue) {
    let began = Instant::now();
    loop {
        let (arrived, changed) = (queue.arrived.notified(), queue.changed.notified());
        let due = {
            let waiting = queue.lock();
            let count = waiting.entries.len();
            let full = count >= waiting.parameters.batch_max;
            if full || count == 0 || waiting.closing.is_some() {
                return;
            }
            began + waiting.parameters.coalescing
        };
        tokio::select! {
            () = tokio::time::sleep_until(due) => return,
            () = arrived => {}
            () = changed => {}
        }
    }
}

/// Tries a batch until it is taken or its time is over.
async fn hand_over(queue: Arc<Queue>, batch: Vec<Bytes>) {
    let began = Instant::now();
    let mut doublings = 0;
    let lost = loop {
        let changed = queue.changed.notified();
        let (sink, parameters) = {
            let waiting = queue.lock();
            (Arc::clone(&waiting.sink), waiting.parameters)
        };
        let outcome = tokio::select! {
            outcome = sink.deliver(&queue.caller, &batch) => outcome,
            () = ends(&queue) => break Some(&queue.counts.abandoned),
        };
        let Err(error) = outcome else {
            break None;
        };
        let pause = pause(parameters.retry_delay, doublings).min(parameters.retry_delay_max);
        tracing::debug!(plugin = queue.plugin, id = %queue.id, %error, entries = batch.len(), "a batch was not taken");
        if !error.again || began.elapsed() + pause > parameters.retry_time {
            break Some(&queue.counts.failed);
        }
        doublings += 1;
        queue.counts.retries.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Another sink may take it.
            () = changed => {}
            () = ends(&queue) => break Some(&queue.counts.abandoned),
        }
    };
    let entries = batch.len();
    match lost {
        Some(counter) => queue.lose(counter, entries),
        None => {
            _ = queue
                .counts
                .delivered
                .fetch_add(entries as u64, Ordering::Relaxed)
        }
    }
    queue.lock().done(&batch);
}

/// Ready when nothing is to be waited for any more.
async fn ends(queue: &Queue) {
    loop {
        let changed = queue.changed.notified();
        let closing = queue.lock().closing;
        match closing {
            Some(until) => return tokio::time::sleep_until(until).await,
            None => changed.await,
        }
    }
}

fn pause(first: Duration, doublings: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(doublings))
}
