//! One address of an upstream, with what outlives the configuration: its health, the requests with it, how quick it is.

use super::health::Health;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Shared by all workers, for as long as the upstream has it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    pub(crate) health: Health,
    pub(super) load: Load,
    pub(crate) latency: Latency,
}

impl Member {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            health: Health::default(),
            load: Load::default(),
            latency: Latency::default(),
        }
    }
}

/// Requests in flight.
#[derive(Debug, Default)]
pub(super) struct Load(AtomicU32);

impl Load {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A mean of response times that rises at once and sinks over seconds. Both halves of one word: what was measured last
/// may overwrite what another worker measured at the same moment, which is as good.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

/// The time in which a peak sinks to a third.
const DECAY: Duration = Duration::from_secs(10);

impl Latency {
    /// Takes in a response time at `now`, counted from any fixed instant.
    pub(crate) fn observe(&self, took: Duration, now: Duration) {
        let took = took.as_secs_f32();
        let mean = match self.at(now) {
            // The longer ago, the less the old mean counts.
            Some((mean, weight)) if took < mean => took + (mean - took) * weight,
            Some(_) | None => took,
        };
        let word = u64::from(mean.to_bits()) << 32 | u64::from(millis(now));
        self.0.store(word, Ordering::Relaxed);
    }

    /// The mean in seconds, less the longer nothing was heard. `None` if nothing ever was.
    pub(super) fn get(&self, now: Duration) -> Option<f32> {
        self.at(now).map(|(mean, weight)| mean * weight)
    }

    fn at(&self, now: Duration) -> Option<(f32, f32)> {
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 {
            return None;
        }
        let mean = f32::from_bits(u32::try_from(word >> 32).unwrap_or_default());
        let since = u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default();
        let age = Duration::from_millis(millis(now).wrapping_sub(since).into());
        // Another worker may have written after this one looked at the clock.
        let age = if age > Duration::from_secs(3600 * 24) {
            Duration::ZERO
        } else {
            age
        };
        Some((mean, (-age.as_secs_f32() / DECAY.as_secs_f32()).exp()))
    }
}

/// Wraps after 49 days.
fn millis(now: Duration) -> u32 {
    u32::try_from(now.as_millis() & u128::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn close(found: Option<f32>, expected: f32) {
        let found = found.unwrap();
        assert!(
            (found - expected).abs() < expected / 20.0,
            "{found} is not about {expected}"
        );
    }

    #[test]
    fn a_peak_counts_at_once_and_sinks_over_seconds() {
        let latency = Latency::default();
        assert_eq!(latency.get(ms(5)), None);
        latency.observe(ms(100), ms(1000));
        close(latency.get(ms(1000)), 0.1);
        latency.observe(ms(900), ms(1001));
        close(latency.get(ms(1001)), 0.9);
        latency.observe(ms(100), ms(1002));
        close(latency.get(ms(1002)), 0.9);
        close(latency.get(ms(11_002)), 0.9 / std::f32::consts::E);
        latency.observe(ms(100), ms(61_000));
        close(latency.get(ms(61_000)), 0.1);
    }

    #[test]
    fn a_clock_that_seems_to_go_back_or_wraps_does_no_harm() {
        let latency = Latency::default();
        latency.observe(ms(100), ms(5000));
        close(latency.get(ms(4990)), 0.1);
        let end = u64::from(u32::MAX);
        latency.observe(ms(100), ms(end - 5));
        close(latency.get(ms(end + 5)), 0.1);
    }
}
