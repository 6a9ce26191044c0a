//! Queues with sinks that take, refuse, hang and change.

use super::*;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a sink took, and how it behaves.
#[derive(Default)]
struct Log {
    taken: Mutex<Vec<Vec<String>>>,
    /// When it was asked, since the beginning of the test.
    asked: Mutex<Vec<Duration>>,
    refuses: std::sync::atomic::AtomicUsize,
    never: bool,
    /// Batches wait for it.
    gate: Option<Semaphore>,
}

struct Fake(Arc<Log>, Instant);

impl Sink for Fake {
    fn deliver<'a>(
        &'a self,
        _: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(async move {
            let log = &self.0;
            log.asked.lock().unwrap().push(self.1.elapsed());
            if let Some(gate) = &log.gate {
                gate.acquire().await.unwrap().forget();
            }
            let left = log.refuses.load(Ordering::SeqCst);
            if left > 0 {
                log.refuses.store(left - 1, Ordering::SeqCst);
                return Err(if log.never {
                    Undelivered::never("no")
                } else {
                    Undelivered::later("not now")
                });
            }
            let texts = batch
                .iter()
                .map(|entry| String::from_utf8_lossy(entry).into_owned());
            log.taken.lock().unwrap().push(texts.collect());
            Ok(())
        })
    }
}

impl Log {
    fn refusing(count: usize) -> Self {
        Self {
            refuses: count.into(),
            ..Self::default()
        }
    }

    fn taken(&self) -> Vec<Vec<String>> {
        self.taken.lock().unwrap().clone()
    }

    fn asked(&self) -> Vec<u128> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(Duration::as_millis)
            .collect()
    }
}

fn sink(log: Log) -> (Arc<Log>, Arc<dyn Sink>) {
    let log = Arc::new(log);
    (Arc::clone(&log), Arc::new(Fake(log, Instant::now())))
}

fn queue(parameters: Parameters, log: Log) -> (Arc<Log>, Arc<Queue>) {
    let (log, sink) = sink(log);
    let form = (parameters, sink);
    let queue = Queue::new(
        (Uuid::nil(), "test"),
        form,
        Arc::default(),
        Some(Handle::current()),
    );
    (log, queue)
}

fn parameters() -> Parameters {
    Parameters {
        batch_max: 3,
        entries_max: 5,
        ..Parameters::default()
    }
}

/// Waits until nothing waits; the clock of these tests goes on when all tasks sleep.
async fn settled(queue: &Queue) {
    while !queue.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn push(queue: &Arc<Queue>, entries: &[&'static str]) {
    for entry in entries {
        queue.push(Bytes::from_static(entry.as_bytes()));
    }
}

fn counts(queue: &Queue) -> [u64; 4] {
    let counts = &queue.counts;
    [
        &counts.delivered,
        &counts.overflowed,
        &counts.failed,
        &counts.abandoned,
    ]
    .map(|count| count.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn batches_go_when_they_are_full_or_have_waited() {
    let (log, queue) = queue(parameters(), Log::default());
    push(&queue, &["a", "b", "c", "d"]);
    settled(&queue).await;
    assert_eq!(log.taken(), [vec!["a", "b", "c"], vec!["d"]]);
    assert_eq!(log.asked(), [0, 1000]);
    assert_eq!(counts(&queue), [4, 0, 0, 0]);
    // One that has come to rest begins again.
    push(&queue, &["e"]);
    settled(&queue).await;
    assert_eq!(log.taken().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_wait() {
    let (log, queue) = queue(parameters(), Log::default());
    push(&queue, &["a"]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    push(&queue, &["b", "c"]);
    settled(&queue).await;
    assert_eq!(log.asked(), [100]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_tried_again_with_growing_pauses_until_its_time_is_over() {
    let patient = Parameters {
        retry_delay: Duration::from_millis(10),
        retry_delay_max: Duration::from_millis(50),
        retry_time: Duration::from_millis(200),
        coalescing: Duration::ZERO,
        ..parameters()
    };
    let (log, queue) = queue(patient, Log::refusing(3));
    push(&queue, &["a"]);
    settled(&queue).await;
    assert_eq!(log.asked(), [0, 10, 30, 70]);
    assert_eq!(counts(&queue), [1, 0, 0, 0]);
    assert_eq!(queue.counts.retries.load(Ordering::Relaxed), 3);

    log.refuses.store(usize::MAX, Ordering::SeqCst);
    let already = log.asked().len();
    push(&queue, &["b", "c"]);
    settled(&queue).await;
    // Pauses of 10, 20, 40, 50 and 50 ms; one more would be over the time.
    assert_eq!(log.asked().len() - already, 6);
    assert_eq!(counts(&queue), [1, 0, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_will_never_be_taken_is_not_tried_again() {
    let log = Log {
        never: true,
        ..Log::refusing(1)
    };
    let (log, queue) = queue(parameters(), log);
    push(&queue, &["a", "b", "c"]);
    settled(&queue).await;
    assert_eq!((log.asked().len(), counts(&queue)), (1, [0, 0, 3, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_fills_the_queue_to_its_bounds_and_no_further() {
    let log = Log {
        gate: Some(Semaphore::new(0)),
        ..Log::default()
    };
    let (log, queue) = queue(parameters(), log);
    push(&queue, &["a", "b", "c"]);
    // The first batch is in hand now.
    while log.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    push(&queue, &["d", "e", "f", "g"]);
    assert_eq!(queue.lock().count(), 5);
    assert_eq!(counts(&queue), [0, 2, 0, 0]);
    log.gate.as_ref().unwrap().add_permits(10);
    settled(&queue).await;
    // The oldest that were not in hand went.
    assert_eq!(log.taken(), [vec!["a", "b", "c"], vec!["f", "g"]]);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_too() {
    let bounded = Parameters {
        batch_max: 100,
        entries_max: 100,
        bytes_max: 10,
        ..parameters()
    };
    let (log, queue) = queue(bounded, Log::default());
    push(&queue, &["aaaa", "bbbb", "cccc", "far too long for it"]);
    assert_eq!(queue.lock().bytes, 8);
    settled(&queue).await;
    assert_eq!(log.taken(), [vec!["bbbb", "cccc"]]);
    assert_eq!(counts(&queue), [2, 2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_is_for_what_waits_already() {
    let (old, queue) = queue(parameters(), Log::refusing(usize::MAX));
    push(&queue, &["a", "b", "c", "d", "e"]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (new, sink) = sink(Log::default());
    let smaller = Parameters {
        entries_max: 4,
        batch_max: 1,
        ..parameters()
    };
    queue.update(smaller, sink);
    settled(&queue).await;
    assert!(old.taken().is_empty());
    // `d` was the oldest that was not in hand.
    assert_eq!(new.taken(), [vec!["a", "b", "c"], vec!["e"]]);
    assert_eq!(counts(&queue), [4, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn batches_go_beside_each_other_only_if_told_so() {
    for (concurrency, expected) in [(1, 1), (64, 3)] {
        let log = Log {
            gate: Some(Semaphore::new(0)),
            ..Log::default()
        };
        let one_by_one = Parameters {
            batch_max: 1,
            concurrency,
            ..parameters()
        };
        let (log, queue) = queue(one_by_one, log);
        push(&queue, &["a", "b", "c"]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(log.asked().len(), expected);
        log.gate.as_ref().unwrap().add_permits(3);
        settled(&queue).await;
        assert_eq!(counts(&queue), [3, 0, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_hands_over_at_once_and_gives_up_in_time() {
    let (log, queue) = queue(parameters(), Log::default());
    push(&queue, &["a"]);
    queue.close(Instant::now() + Duration::from_millis(500));
    settled(&queue).await;
    assert_eq!(log.asked(), [0]);

    let hanging = Log {
        gate: Some(Semaphore::new(0)),
        ..Log::default()
    };
    let (log, queue) = self::queue(parameters(), hanging);
    push(&queue, &["a", "b", "c", "d"]);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(100)).await;
    queue.close(Instant::now() + Duration::from_millis(500));
    settled(&queue).await;
    assert_eq!(began.elapsed().as_millis() / 100, 6);
    assert!(log.taken().is_empty());
    assert_eq!(counts(&queue), [0, 0, 0, 4]);
}
