//! The task: decides what waits, appends it, and finds out what became of it.

use super::append::{append, is, signed, stored};
use super::genesis::Beginning;
use super::reply::{
    answer, answer_after, answer_repeated, ask_again_when_remembered, confirm, unavailable,
};
use super::{
    Ask, Decided, FOLD_TIMEOUT, RACE_TIMEOUT, RETRY_DELAY, WriteError, Written, is_twin, key_range,
    repeatable_id,
};
use crate::permission::barred;
use crate::view::View;
use sluice_replica::environment::Environment;
use sluice_replica::follow::Phase;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::{AppendError, BATCH_EVENTS_MAX, Source};
use sluice_replica::planted::{Bug, planted};
use sluice_replica::run::{Status, chain};
use sluice_schema::decide::{Decision, Refusal, decide};
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Version};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes after which a batch takes no further event.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Events after which a control plane lets others in, if there are others.
const BURST_EVENTS_MAX: usize = 64;
/// How long it lets them in.
const PAUSE: Duration = Duration::from_millis(6);
/// How long the log must be quiet before one that lost a race tries again; up to half as much is added by chance.
const QUIET: Duration = Duration::from_millis(2);
/// How long it waits for that quiet at most.
const QUIET_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long an unknown outcome is looked into before the caller is told that it is unknown.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an event that is in the log may take to come before the log is read for it.
const LOOK_AFTER: Duration = Duration::from_millis(250);
/// How long a control plane that began with nothing listens to the others before it writes.
const LISTEN: Duration = Duration::from_millis(1_500);
/// How long a version that others have signed may take to come here before the log is asked whether it has it.
const KNOWN_WAIT_MAX: Duration = Duration::from_secs(3);

pub(super) struct Task {
    pub(super) source: Source,
    pub(super) view: View,
    pub(super) key: SigningKey,
    pub(super) trusted: watch::Receiver<TrustedKeys>,
    pub(super) others: Box<dyn Fn() -> bool + Send>,
    pub(super) environment: Environment,
    /// The queue, for commands to decide again after a while.
    pub(super) asks: mpsc::WeakSender<Ask>,
    /// Commands to decide again, oldest first.
    pub(super) again: VecDeque<Ask>,
    /// Events appended since the last pause.
    pub(super) burst: usize,
    /// Whether this control plane began with nothing and has not written yet.
    pub(super) fresh: bool,
    /// Why the state here is not all that others have signed.
    pub(super) behind: Option<String>,
}

impl Task {
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Ask>, shutdown: CancellationToken) {
        let beginning = Beginning {
            source: self.source.clone(),
            view: self.view.clone(),
            key: self.key.clone(),
            trusted: self.trusted.clone(),
            environment: self.environment.clone(),
        };
        tokio::spawn(beginning.run(shutdown.clone()));
        loop {
            if self.again.is_empty() {
                let ask = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => None,
                    ask = inbox.recv() => ask,
                };
                match ask {
                    Some(ask) => self.again.push_back(ask),
                    None => return,
                }
            }
            self.catch_up_with_what_is_known().await;
            let batch = self.decide_batch(&mut inbox);
            if !batch.is_empty() {
                self.commit(batch).await;
            }
        }
    }

    /// Waits for what others have signed beyond the state here. If the log does not have it, it has lost it, and what is
    /// appended now would take the place of what was acknowledged.
    async fn catch_up_with_what_is_known(&mut self) {
        if self.fresh && self.view.state().version() > Version::GENESIS {
            // Nothing here says how far the log once went. The others do, every second.
            tokio::time::sleep(LISTEN).await;
        }
        self.fresh = false;
        self.behind = None;
        let Status { cursor, seen, .. } = self.view.status();
        let is_behind = |view: &View| {
            let now = view.status().cursor;
            now.epoch == cursor.epoch && now.version < seen
        };
        if !is_behind(&self.view) {
            return;
        }
        let caught_up = catch_up(&self.view, cursor.epoch, seen);
        if tokio::time::timeout(KNOWN_WAIT_MAX, caught_up)
            .await
            .is_ok()
            || !is_behind(&self.view)
        {
            return;
        }
        // A machine that is busy is no log that was lost.
        let reason = match self.source.log.bounds().await {
            Ok(bounds) if bounds.last < seen => format!(
                "version {seen} was signed by a control plane and is not in it: it may have been restored from an old copy"
            ),
            Ok(_) => {
                catch_up(&self.view, cursor.epoch, seen).await;
                format!("this control plane has not caught up with version {seen} yet; try again")
            }
            Err(error) => format!(
                "whether version {seen} is in it cannot be told: {}",
                chain(&error)
            ),
        };
        self.behind = is_behind(&self.view).then_some(reason);
    }

    /// Decides what waits, each command on the state after the one before.
    fn decide_batch(&mut self, inbox: &mut mpsc::Receiver<Ask>) -> Vec<Decided> {
        let mut tip = self.view.state();
        let mut batch: Vec<Decided> = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(mut ask) = self.again.pop_front().or_else(|| inbox.try_recv().ok()) else {
                break;
            };
            if let Some(idempotency) = &ask.idempotency {
                if !ask.dry_run && !self.view.remembers() {
                    let (view, asks) = (self.view.clone(), self.asks.clone());
                    tokio::spawn(ask_again_when_remembered(view, asks, ask));
                    continue;
                }
                // The log may not have been reached when the command came.
                ask.origin.id = repeatable_id(tip.epoch(), idempotency);
                let (first, last) = key_range(ask.origin.id);
                let known = self.view.recent_between(first, last);
                if known.is_some_and(|known| known != ask.origin.id) {
                    answer(ask, Err(WriteError::Reused));
                    continue;
                }
            }
            let twin = batch.iter().any(|first| is_twin(&first.ask, &ask));
            ask.steps.begin();
            let decision = decide(&tip, ask.command.clone(), &ask.origin);
            ask.steps.decided(tip.version(), came_to(&decision));
            match decision {
                Ok(Decision {
                    event: Some(proposal),
                    state,
                    outcome,
                }) if !ask.dry_run && !twin => {
                    if let Some(reason) = self.in_the_way(&tip) {
                        answer(ask, Err(unavailable(&reason)));
                        continue;
                    }
                    if let Some(version) = self.view.version_of(ask.origin.id) {
                        self.repeat(ask, version);
                        continue;
                    }
                    bytes += proposal.encoded.bytes.len();
                    tip = Arc::new(state.clone());
                    batch.push(Decided {
                        ask,
                        proposal: Box::new(proposal),
                        outcome,
                        state,
                    });
                }
                // What is answered without an event must rest on folded state only.
                _ if !batch.is_empty() => {
                    self.again.push_front(ask);
                    break;
                }
                decision => self.answer_now(&tip, ask, decision),
            }
        }
        batch
    }

    /// Why nothing can be appended now, if so.
    fn in_the_way(&self, tip: &State) -> Option<String> {
        if let Some(reason) = barred(&self.trusted.borrow(), self.key.id()) {
            return Some(reason);
        }
        if self.behind.is_some() {
            return self.behind.clone();
        }
        match self.view.status().phase {
            Phase::Forked(fork) => Some(format!(
                "this control plane has stopped following it: {fork}"
            )),
            Phase::Disconnected | Phase::Loading | Phase::CatchingUp | Phase::Following => {
                (tip.version() == Version::ZERO).then(|| "it has not been reached yet".to_owned())
            }
        }
    }

    /// Answers a command that was carried out before, at `version`.
    fn repeat(&self, ask: Ask, version: Version) {
        let (source, view) = (self.source.clone(), self.view.clone());
        tokio::spawn(answer_repeated(source, view, ask, version));
    }

    /// Answers a command that needs no event: refused, without effect, or only asked for.
    fn answer_now(&self, tip: &Arc<State>, ask: Ask, decision: Result<Decision, Refusal>) {
        if let Some(version) = self.view.version_of(ask.origin.id) {
            return self.repeat(ask, version);
        }
        let written = decision.map(
            |Decision {
                 event,
                 state,
                 outcome,
             }| Written {
                version: tip.version(),
                event: event.map(|proposal| proposal.event),
                outcome,
                state: Arc::new(state),
                base: ask.dry_run.then(|| tip.clone()),
            },
        );
        let settled = ask.dry_run || (written.is_err() && ask.idempotency.is_none());
        let written = written.map_err(WriteError::Refused);
        if settled {
            return answer(ask, written);
        }
        tokio::spawn(confirm(
            self.source.clone(),
            self.view.clone(),
            self.asks.clone(),
            tip.cursor(),
            ask,
            written,
        ));
    }

    /// Appends a batch and sees to it that every command in it gets its answer.
    async fn commit(&mut self, batch: Vec<Decided>) {
        let base = batch[0].proposal.event.previous;
        let last = Version(base.0 + batch.len() as u64);
        let epoch = batch[0].proposal.event.epoch;
        match append(&self.source, &self.key, &batch).await {
            Ok(()) => {
                let decided = batch.iter().map(|decided| decided.proposal.event.time);
                self.view.counts().acknowledged(decided);
                self.burst += batch.len();
                self.finish(batch);
                self.catch_up_and_let_others_in(epoch, last).await;
            }
            Err(AppendError::Conflict { .. }) => {
                self.view.counts().conflicts.add(1);
                self.lose(batch, base).await;
            }
            Err(AppendError::Unknown { source, .. }) => {
                self.view.counts().unknown.add(1);
                tracing::warn!(after = %base, reason = %source, "the outcome of an append is unknown; reading the log");
                self.resolve(batch, base, source.to_string()).await;
            }
            Err(error @ AppendError::Refused(_)) => {
                self.view.counts().refused.add(1);
                let reason = chain(&error);
                batch
                    .into_iter()
                    .for_each(|decided| answer(decided.ask, Err(unavailable(&reason))));
            }
        }
    }

    /// The events are in the log: answers once they have come back.
    fn finish(&self, batch: Vec<Decided>) {
        for Decided {
            mut ask,
            proposal,
            outcome,
            state,
        } in batch
        {
            ask.steps.appended(&proposal);
            let (version, id) = (proposal.cursor.version, proposal.event.id);
            let event = Some(proposal.event);
            let written = Written {
                version,
                event,
                outcome,
                state: Arc::new(state),
                base: None,
            };
            let epoch = proposal.cursor.epoch;
            tokio::spawn(answer_after(self.view.clone(), epoch, id, ask, written));
        }
    }

    /// The next batch is decided on the folded state, so that must have come this far.
    async fn catch_up_and_let_others_in(&mut self, epoch: Epoch, last: Version) {
        catch_up(&self.view, epoch, last).await;
        if self.burst >= BURST_EVENTS_MAX {
            self.burst = 0;
            if (self.others)() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Another control plane was faster: catches up; everything is decided again.
    async fn lose(&mut self, batch: Vec<Decided>, base: Version) {
        if planted(Bug::DecidedOnStale)
            && let Ok(bounds) = self.source.log.bounds().await
        {
            let events = signed(&self.key, batch.iter().map(|decided| &*decided.proposal));
            if self.source.log.append(bounds.last, events).await.is_ok() {
                return self.finish(batch);
            }
        }
        self.decide_again(batch);
        self.burst = 0;
        let epoch = self.view.state().epoch();
        catch_up(&self.view, epoch, base.next()).await;
        let _ = tokio::time::timeout(
            QUIET_WAIT_MAX,
            wait_for_quiet(&self.view, &self.environment),
        )
        .await;
    }

    fn decide_again(&mut self, batch: Vec<Decided>) {
        for Decided { ask, .. } in batch.into_iter().rev() {
            if ask.arrived.elapsed() > RACE_TIMEOUT {
                let reason = "other control planes were faster each time; try again";
                answer(ask, Err(unavailable(reason)));
            } else {
                self.again.push_front(ask);
            }
        }
    }

    /// Finds out what became of a batch, and sends the same bytes again if the log has nothing in its place.
    async fn resolve(&mut self, batch: Vec<Decided>, base: Version, mut reason: String) {
        if planted(Bug::UnknownTakenForDone) {
            return self.finish(batch);
        }
        let deadline = Instant::now() + RESOLVE_TIMEOUT;
        while Instant::now() < deadline {
            match self.source.log.get(base.next()).await {
                Ok(Some(record)) if !is(&record, &batch[0]) => return self.lose(batch, base).await,
                Ok(Some(_)) => match stored(&self.source, &batch, base).await {
                    Ok(stored) => return self.finish_stored(batch, base, stored).await,
                    Err(error) => reason = error.to_string(),
                },
                Ok(None) => match append(&self.source, &self.key, &batch).await {
                    Ok(()) => return self.finish(batch),
                    Err(error) => reason = chain(&error),
                },
                Err(error) => reason = error.to_string(),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
        for decided in batch {
            answer(
                decided.ask,
                Err(WriteError::Unknown {
                    reason: reason.clone(),
                }),
            );
        }
    }

    /// Answers for what is stored; the rest of a torn batch is decided again.
    async fn finish_stored(&mut self, mut batch: Vec<Decided>, base: Version, stored: usize) {
        let rest = batch.split_off(stored);
        self.finish(batch);
        if !rest.is_empty() {
            let lost = rest.len();
            tracing::warn!(after = %base, stored, lost, "the broker has kept a part of a batch");
            self.decide_again(rest);
            let last = Version(base.0 + stored as u64);
            let epoch = self.view.state().epoch();
            catch_up(&self.view, epoch, last).await;
        }
    }
}

/// What a decision came to, for traces.
fn came_to(decision: &Result<Decision, Refusal>) -> &'static str {
    match decision {
        Ok(Decision { event: Some(_), .. }) => "event",
        Ok(Decision { event: None, .. }) => "nothing",
        Err(_) => "refused",
    }
}

/// Waits for a version that is in the log. Live events can be lost: then it is read.
async fn catch_up(view: &View, epoch: Epoch, version: Version) {
    let deadline = Instant::now() + FOLD_TIMEOUT;
    while Instant::now() < deadline {
        let reached = view.reached(epoch, version);
        if tokio::time::timeout(LOOK_AFTER, reached).await.is_ok() {
            return;
        }
        view.look();
    }
}

/// Returns when no event has come for a while.
async fn wait_for_quiet(view: &View, environment: &Environment) {
    loop {
        let quiet = QUIET + QUIET.mul_f64(environment.fraction() / 2.0);
        let state = view.state();
        let next = view.reached(state.epoch(), state.version().next());
        if tokio::time::timeout(quiet, next).await.is_err() {
            return;
        }
    }
}
