//! Clients that wait for convergence while everything goes wrong, and the proof that what they were told was true: what
//! data planes served is watched all the time, and compared afterwards.

use super::rig::Target;
use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at a data plane.
const LOOK: Duration = Duration::from_millis(15);
/// A data plane that has not reported for this long no longer counts: the control plane's lease, and a little more.
const LEASE: Duration = Duration::from_secs(6);
/// What an answer may take beyond the time that was asked for: the log may be asked for its end, and the machine is busy.
const GRACE: Duration = Duration::from_secs(5);
/// When a waiter gives up on a control plane that is frozen.
const GIVE_UP: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
const WAIT_MS_MAX: u64 = 3_000;

/// What a data plane served at a moment between two.
#[derive(Clone, Debug)]
struct Served {
    data: usize,
    node: String,
    version: u64,
    asked: Instant,
    answered: Instant,
}

/// What a waiter was told.
#[derive(Clone, Debug)]
struct Told {
    control: usize,
    asked: Instant,
    answered: Instant,
    timeout: Duration,
    /// The answer; nothing if the connection broke off.
    body: Option<Value>,
}

/// Something that happened to somebody.
#[derive(Clone, Copy, Debug)]
struct Strike {
    target: Target,
    began: Instant,
    ended: Instant,
}

/// Everything that was seen and told during a run.
#[derive(Debug, Default)]
pub struct Journal {
    served: Mutex<Vec<Served>>,
    told: Mutex<Vec<Told>>,
    strikes: Mutex<Vec<Strike>>,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Waits that were answered.
    pub answered: usize,
    /// Of these, those that said "converged".
    pub converged: usize,
    /// Looks at data planes that a "converged" was compared with.
    pub compared: usize,
}

impl Journal {
    /// Something happened to somebody, between two moments.
    pub fn struck(&self, target: Target, began: Instant, ended: Instant) {
        let strike = Strike {
            target,
            began,
            ended,
        };
        lock(&self.strikes).push(strike);
    }

    /// Looks at a data plane until `stop`.
    pub fn watch(&self, data: usize, status_url: &str, stop: &AtomicBool) {
        let agent = agent(Duration::from_secs(1));
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            if let Some(status) = get(&agent, &format!("{status_url}/status"))
                && let (Some(node), Some(version)) = (
                    status["node"]["id"].as_str(),
                    status["log"]["version"].as_u64(),
                )
            {
                let served = Served {
                    data,
                    node: node.to_owned(),
                    version,
                    asked,
                    answered: Instant::now(),
                };
                lock(&self.served).push(served);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for convergence, again and again, until `stop`.
    pub fn wait(&self, controls: &[String], seed: u64, stop: &AtomicBool) {
        let agent = agent(GIVE_UP);
        let mut random = StdRng::seed_from_u64(seed);
        while !stop.load(Ordering::Relaxed) {
            let control = random.random_range(0..controls.len());
            let timeout = Duration::from_millis(random.random_range(0..WAIT_MS_MAX));
            let url = &controls[control];
            let asked = Instant::now();
            let milliseconds = timeout.as_millis();
            let body = get(
                &agent,
                &format!("{url}/nodes/wait?timeout={milliseconds}ms"),
            );
            let told = Told {
                control,
                asked,
                answered: Instant::now(),
                timeout,
                body,
            };
            lock(&self.told).push(told);
            std::thread::sleep(PAUSE);
        }
    }

    /// Compares what waiters were told with what data planes served.
    ///
    /// # Errors
    /// With the first answer that was wrong, or late.
    pub fn check(&self) -> Result<Waits> {
        let (served, told) = (lock(&self.served), lock(&self.told));
        let all: BTreeSet<&str> = served.iter().map(|served| served.node.as_str()).collect();
        let mut waits = Waits::default();
        for told in told.iter() {
            let took = told.answered - told.asked;
            ensure!(
                took <= told.timeout + GRACE || self.was_struck(told),
                "a wait took {took:?}: {told:?}"
            );
            let Some(body) = &told.body else {
                continue;
            };
            waits.answered += 1;
            if body["converged"] != true {
                continue;
            }
            waits.converged += 1;
            let version = body["version"].as_u64().unwrap_or(u64::MAX);
            let gone: BTreeSet<&str> = body["gone"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            // Only if every node is among the live or the gone is it clear who was meant.
            let live = body["live"].as_u64().unwrap_or(0);
            if live + gone.len() as u64 != all.len() as u64 {
                continue;
            }
            let counted = served.iter().filter(|served| {
                let later = served.asked > told.answered;
                later && !gone.contains(served.node.as_str()) && !self.was_restarted(told, served)
            });
            for served in counted {
                waits.compared += 1;
                ensure!(
                    served.version >= version,
                    "told that all serve {version}, and later one served {}: {told:?}, {served:?}",
                    served.version
                );
            }
        }
        Ok(waits)
    }

    /// Whether the control plane was frozen or cut off while it was asked.
    fn was_struck(&self, told: &Told) -> bool {
        let strikes = lock(&self.strikes);
        let target = Target::Control(told.control);
        let meanwhile =
            |strike: &Strike| strike.began <= told.answered && strike.ended + GRACE >= told.asked;
        strikes
            .iter()
            .any(|strike| strike.target == target && meanwhile(strike))
    }

    /// Whether a data plane began a new life after what it last said before the answer: it may begin again with what it
    /// had saved, a moment older, and the control plane counts its last life until it hears of the new one or the lease is
    /// over.
    fn was_restarted(&self, told: &Told, served: &Served) -> bool {
        let strikes = lock(&self.strikes);
        let between =
            |strike: &Strike| strike.began <= served.answered && strike.ended + LEASE >= told.asked;
        strikes
            .iter()
            .any(|strike| strike.target == Target::Data(served.data) && between(strike))
    }
}

fn agent(patience: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .build()
        .into()
}

fn get(agent: &ureq::Agent, url: &str) -> Option<Value> {
    let mut response = agent.get(url).call().ok()?;
    let text = response.body_mut().read_to_string().ok()?;
    serde_json::from_str(&text).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
