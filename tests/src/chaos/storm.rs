//! A run: writers write, things go wrong and are made good, and in the end everything is compared.

use super::check::{Summary, Truth, check_history, check_replicas};
use super::history::{Answer, Counts, History};
use super::nemesis::Nemesis;
use super::rig::{LIVENESS, PACE, Rig, Target};
use super::waiter::{Journal, Waits};
use super::writer::{PATIENCE, Writer};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Writers per run.
const WRITERS: usize = 6;
/// Clients per run that wait for data planes.
const WAITERS: usize = 2;
/// Acknowledged writes between two kills.
const BETWEEN_KILLS: usize = 2;
/// Kills between two looks at whether everybody recovers.
const KILLS_PER_RECOVERY: u32 = 10;
/// How long a probing write waits for its answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Kills of brokers, control planes and data planes.
    pub kills: u32,
    /// Freezes and bad wires, one at a time.
    pub faults: u32,
    /// Kills and freezes of a broker of a cluster, mostly the leader.
    pub brokers: u32,
    /// How long a freeze or a bad wire lasts: at least the first, at most the second.
    pub lasting: (Duration, Duration),
    /// When to stop early.
    pub deadline: Option<Instant>,
}

impl Plan {
    /// Nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            kills: 0,
            faults: 0,
            brokers: 0,
            lasting: (Duration::from_millis(500), Duration::from_secs(2)),
            deadline: None,
        }
    }
}

/// What a run has shown.
#[derive(Debug)]
pub struct Outcome {
    /// How often each thing went wrong.
    pub happened: BTreeMap<String, u32>,
    /// From the end of each fault until every control plane had acknowledged a new write and every replica had it.
    pub recoveries: Vec<(String, Duration)>,
    /// How the writes were answered.
    pub counts: Counts,
    /// The longest that a writer waited for an answer.
    pub longest_wait: Duration,
    /// What the comparison found.
    pub summary: Summary,
    /// What those who waited for data planes were told.
    pub waits: Waits,
}

impl Outcome {
    /// A table for people.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (name, count) in &self.happened {
            let _ = writeln!(text, "  {count:5} x {name}");
        }
        let mut times: Vec<_> = self.recoveries.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        if let (Some(max), Some(slowest)) = (
            times.last(),
            self.recoveries.iter().max_by_key(|(_, time)| *time),
        ) {
            let at = |part: usize| times[(times.len() - 1) * part / 100];
            let _ = writeln!(
                text,
                "  {} recoveries: p50 {:.2?}, p99 {:.2?}, max {max:.2?} ({})",
                times.len(),
                at(50),
                at(99),
                slowest.0
            );
        }
        let _ = writeln!(
            text,
            "  {:?}, longest wait {:.1?}",
            self.counts, self.longest_wait
        );
        let _ = writeln!(text, "  {:?}", self.summary);
        let _ = writeln!(text, "  {:?}", self.waits);
        text
    }
}

/// Runs a plan on a rig, and checks everything at its end.
///
/// # Errors
/// With the first promise that does not hold.
pub fn run(rig: &mut Rig, plan: &Plan) -> Result<Outcome> {
    let history = History::default();
    let stop = AtomicBool::new(false);
    let mut random = StdRng::seed_from_u64(plan.seed);
    let urls = rig.admin_urls();
    let mut probe = Writer::new(WRITERS, urls.clone(), random.random(), PROBE_PATIENCE);
    probe.make_counters()?;
    let before = rig.converge(1)?.version;
    let writers: Vec<Writer> = (0..WRITERS)
        .map(|number| Writer::new(number, urls.clone(), random.random(), PATIENCE))
        .collect();
    let (journal, status_urls) = (Journal::default(), rig.status_urls());
    let waiters: Vec<u64> = (0..WAITERS).map(|_| random.random()).collect();
    let (happened, recoveries) = thread::scope(|scope| {
        let (journal, stop, urls) = (&journal, &stop, &urls);
        for (data, url) in status_urls.iter().enumerate() {
            scope.spawn(move || journal.watch(data, url, stop));
        }
        for seed in waiters {
            scope.spawn(move || journal.wait(urls, seed, stop));
        }
        for writer in writers {
            let history = &history;
            scope.spawn(move || writer.run(history, stop));
        }
        let mut storm = Storm {
            rig,
            plan,
            history: &history,
            journal,
            random,
            probe,
            happened: BTreeMap::new(),
            recoveries: Vec::new(),
        };
        let raged = storm.rage();
        stop.store(true, Ordering::Relaxed);
        raged.map(|()| (storm.happened, storm.recoveries))
    })?;
    // Everybody has an answer now. What is still under way will be in the log before this write.
    let last = settle(rig, &history, random_seed(plan.seed))?;
    let seen = rig.converge(last)?;
    let truth = Truth::read(rig.broker_urls(), &rig.trusted()?, seen.version)?;
    let summary = check_history(&history, &truth, before)?;
    check_replicas(rig, &truth)?;
    let waits = journal.check()?;
    Ok(Outcome {
        happened,
        recoveries,
        counts: history.counts(),
        longest_wait: history.longest_wait(),
        summary,
        waits,
    })
}

fn random_seed(seed: u64) -> u64 {
    StdRng::seed_from_u64(!seed).random()
}

/// A last write through every control plane.
fn settle(rig: &Rig, history: &History, seed: u64) -> Result<u64> {
    let mut probe = Writer::new(WRITERS + 1, rig.admin_urls(), seed, PATIENCE);
    let mut last = 0;
    for control in 0..rig.admin_urls().len() {
        last = probe_surely(&mut probe, control, history)?.max(last);
    }
    Ok(last)
}

/// Writes through a control plane until that is acknowledged.
fn probe_surely(probe: &mut Writer, control: usize, history: &History) -> Result<u64> {
    let deadline = Instant::now() + LIVENESS;
    loop {
        match probe.create(control, history) {
            Answer::Acknowledged(version) => return Ok(version),
            answer @ (Answer::Refused(..) | Answer::Unknown(_)) => ensure!(
                Instant::now() < deadline,
                "control plane {control} takes no writes within {LIVENESS:?}: {answer:?}"
            ),
        }
        thread::sleep(PACE);
    }
}

struct Storm<'a> {
    rig: &'a mut Rig,
    plan: &'a Plan,
    history: &'a History,
    journal: &'a Journal,
    random: StdRng,
    probe: Writer,
    happened: BTreeMap<String, u32>,
    recoveries: Vec<(String, Duration)>,
}

impl Storm<'_> {
    fn rage(&mut self) -> Result<()> {
        for number in 1..=self.plan.kills {
            let nemesis = Nemesis::draw_kill(&mut self.random, self.rig);
            self.strike(nemesis, number, self.plan.kills, false)?;
            match number % KILLS_PER_RECOVERY {
                0 => self.recover(nemesis)?,
                _ => self.wait_for_writes(nemesis)?,
            }
            if self.is_late() {
                break;
            }
        }
        for number in 1..=self.plan.faults {
            let nemesis = Nemesis::draw_fault(&mut self.random, self.rig);
            self.strike(nemesis, number, self.plan.faults, true)?;
            self.recover(nemesis)?;
            if self.is_late() {
                break;
            }
        }
        for number in 1..=self.plan.brokers {
            let nemesis = Nemesis::draw_broker(&mut self.random, self.rig);
            self.strike(nemesis, number, self.plan.brokers, true)?;
            self.recover(nemesis)?;
            if self.is_late() {
                break;
            }
        }
        Ok(())
    }

    fn is_late(&self) -> bool {
        self.plan.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// Lets one thing go wrong for a while.
    fn strike(&mut self, nemesis: Nemesis, number: u32, of: u32, lasting: bool) -> Result<()> {
        *self.happened.entry(nemesis.name()).or_default() += 1;
        let began = Instant::now();
        nemesis.begin(self.rig)?;
        let mut lasts = Duration::ZERO;
        if lasting {
            let (least, most) = self.plan.lasting;
            lasts = self.random.random_range(least..=most);
            thread::sleep(lasts);
        }
        nemesis.end(self.rig)?;
        // Whoever is only frozen or cut off goes on with the life it had.
        if nemesis.ends_a_life() || matches!(nemesis.target(), Target::Control(_)) {
            self.journal.struck(nemesis.target(), began, Instant::now());
        }
        eprintln!(
            "{number}/{of} {nemesis} for {lasts:.1?}; {:?}",
            self.history.counts()
        );
        Ok(())
    }

    /// Waits until some writes have been acknowledged.
    fn wait_for_writes(&self, nemesis: Nemesis) -> Result<()> {
        let target = self.history.counts().acknowledged + BETWEEN_KILLS;
        let history = self.history;
        self.rig
            .wait_until(&format!("writes go on after {nemesis}"), |_| {
                Ok(history.counts().acknowledged >= target)
            })
    }

    /// Waits until every control plane has acknowledged a new write and every replica has it.
    fn recover(&mut self, nemesis: Nemesis) -> Result<()> {
        let began = Instant::now();
        let mut last = 0;
        for control in 0..self.rig.admin_urls().len() {
            let version = probe_surely(&mut self.probe, control, self.history)
                .with_context(|| format!("after {nemesis}\n{}", self.rig.said()))?;
            last = last.max(version);
        }
        self.rig
            .reach(last)
            .with_context(|| format!("after {nemesis}"))?;
        let took = began.elapsed();
        eprintln!("  recovered in {took:.2?}");
        self.recoveries.push((nemesis.to_string(), took));
        Ok(())
    }
}
