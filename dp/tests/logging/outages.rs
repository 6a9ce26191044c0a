//! Sinks that are down, slow or come and go: requests are not slowed, memory is bounded, nothing is lost uncounted.

use crate::common::*;
use crate::listen::*;
use crate::support::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const REQUESTS: usize = 400;
const ENTRIES_MAX: usize = 50;
/// What a request may take, whatever its sink does. Sinks that hang do so for far longer.
const QUICK: Duration = Duration::from_secs(2);

fn log_to(url: &str) -> Entity {
    let config = json!({
        "http_endpoint": url, "timeout": 60_000,
        "queue": { "max_entries": ENTRIES_MAX, "max_batch_size": 10, "max_coalescing_delay": 0.01, "max_retry_time": 3600, "max_retry_delay": 0.05 },
    });
    global(30, "http-log", config)
}

/// Sends requests one after the other. Gives the slowest.
async fn ask(gateway: &Gateway, from: usize) -> Duration {
    let mut client = gateway.client().await;
    let mut slowest = Duration::ZERO;
    for number in from..from + REQUESTS {
        let began = Instant::now();
        assert_eq!(client.get(&format!("/{number}")).await.status, 200);
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

fn queue_value(metrics: &str, name: &str, reason: &str) -> u64 {
    let reason = if reason.is_empty() {
        String::new()
    } else {
        format!(",reason=\"{reason}\"")
    };
    let id = uuid::Uuid::from_u128(30);
    let line = format!("sluice_dp_plugin_queue_{name}{{plugin=\"http-log\",id=\"{id}\"{reason}}}");
    value(metrics, &line)
}

#[tokio::test]
async fn a_sink_that_is_down_slows_nobody_and_what_is_lost_is_counted() {
    let url = format!("http://{}/", refused().await);
    let (_origin, gateway) = gateway_with(&[log_to(&url)]).await;
    let slowest = ask(&gateway, 0).await;
    assert!(slowest < QUICK, "{slowest:?}");
    let lost = REQUESTS - ENTRIES_MAX;
    let mut text = String::new();
    // The last request's end may come after its answer.
    until(async || {
        text = metrics(&gateway).await;
        queue_value(&text, "dropped_total", "full") == lost as u64
    })
    .await;
    assert_eq!(queue_value(&text, "entries", ""), ENTRIES_MAX as u64);
    assert_eq!(queue_value(&text, "delivered_total", ""), 0);
    // It comes up elsewhere: what waits goes there.
    let sink = HttpSink::start().await;
    gateway.apply(&[log_to(&sink.url("/"))]);
    until(async || sink.entries().len() == ENTRIES_MAX).await;
    let text = metrics(&gateway).await;
    assert_eq!(queue_value(&text, "dropped_total", "full"), lost as u64);
    assert_eq!(queue_value(&text, "dropped_total", "failed"), 0);
}

#[tokio::test]
async fn a_sink_that_hangs_slows_nobody() {
    let sink = HttpSink::start().await;
    sink.set(HANGS);
    let (_origin, gateway) = gateway_with(&[log_to(&sink.url("/"))]).await;
    let slowest = ask(&gateway, 0).await;
    assert!(slowest < QUICK, "{slowest:?}");
    until(async || {
        let text = metrics(&gateway).await;
        let (waiting, lost) = (
            queue_value(&text, "entries", ""),
            queue_value(&text, "dropped_total", "full"),
        );
        assert!(waiting <= ENTRIES_MAX as u64);
        waiting + lost == REQUESTS as u64
    })
    .await;
}

#[tokio::test]
async fn a_sink_that_comes_and_goes_gets_each_entry_once_or_it_is_counted() {
    let sink = HttpSink::start().await;
    let (_origin, gateway) = gateway_with(&[log_to(&sink.url("/"))]).await;
    for round in 0..4 {
        sink.set(if round % 2 == 0 { REFUSES } else { TAKES });
        let slowest = ask(&gateway, round * REQUESTS).await;
        assert!(slowest < QUICK, "{slowest:?}");
    }
    let mut text = String::new();
    until(async || {
        text = metrics(&gateway).await;
        let done =
            queue_value(&text, "delivered_total", "") + queue_value(&text, "dropped_total", "full");
        done == 4 * REQUESTS as u64
    })
    .await;
    let mut seen: Vec<_> = sink
        .entries()
        .iter()
        .map(|entry: &Value| entry["request"]["uri"].clone().to_string())
        .collect();
    assert_eq!(seen.len() as u64, queue_value(&text, "delivered_total", ""));
    assert!(queue_value(&text, "retries_total", "") > 0);
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "an entry came twice");
}

#[tokio::test]
async fn the_end_hands_over_what_waits() {
    let sink = HttpSink::start().await;
    let config = json!({
        "http_endpoint": sink.url("/"),
        "queue": { "max_batch_size": 1000, "max_coalescing_delay": 3600 },
    });
    let (_origin, gateway) = gateway_with(&[global(30, "http-log", config)]).await;
    gateway.get("/last").await;
    gateway.shutdown.cancel();
    gateway.running.stopped().await.unwrap();
    assert_eq!(sink.entries().len(), 1);
}
