//! The writer: one task that decides, appends, waits and answers.
//!
//! Writes that wait at the same time are decided one on top of the other and appended together: all of them or none
//! (docs/decisions/0002). If another control plane got in between, they are decided again on the newer state.
//!
//! Control planes that write at the same time take turns without talking: each pauses for `PAUSE` after
//! `BURST_EVENTS_MAX` events; one that lost a race waits until the log has been quiet for `QUIET`, which is
//! shorter, and appends then.

use crate::permission::barred;
use crate::view::View;
use sluice_replica::environment::Environment;
use sluice_replica::follow::Phase;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::{
    Append, AppendError, BATCH_EVENTS_MAX, ChunkUse, LogError, Record, Source,
};
use sluice_replica::planted::{Bug, planted};
use sluice_replica::run::{Status, chain};
use sluice_schema::decide::{
    Command, Decision, Origin, Outcome, Proposal, Refusal, decide, genesis,
};
use sluice_schema::event::{Actor, Event, EventId};
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Version};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Commands that may wait for the writer.
const QUEUE_COMMANDS_MAX: usize = 1024;
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
/// How long a command is decided again and again after losing races.
const RACE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an unknown outcome is looked into before the caller is told that it is unknown.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller waits for its event to come back through the log.
const FOLD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an event that is in the log may take to come before the log is read for it.
const LOOK_AFTER: Duration = Duration::from_millis(250);
/// How long a control plane that began with nothing listens to the others before it writes.
const LISTEN: Duration = Duration::from_millis(1_500);
/// How long a version that others have signed may take to come here before it counts as lost.
const KNOWN_WAIT_MAX: Duration = Duration::from_secs(3);
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What a caller tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Who.
    pub actor: Actor,
    /// Why.
    pub reason: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// A key that makes a repeated request answer as the first did.
    pub idempotency_key: Option<String>,
}

/// A command that is done.
#[derive(Clone, Debug)]
pub struct Written {
    /// The version from which on it shows.
    pub version: Version,
    /// The event; `None` if nothing had to change, or if this is the answer to a repeated request.
    pub event: Option<Event>,
    /// What it came to.
    pub outcome: Outcome,
    /// The state right after it.
    pub state: Arc<State>,
}

/// A command that is not done, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not valid; nothing was appended.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log cannot be written now; nothing was appended.
    #[error("the log cannot be written now: {reason}")]
    Unavailable {
        /// What is in the way.
        reason: String,
    },
    /// It may have been appended. Repeating it with the same `Idempotency-Key` is safe.
    #[error("it is not known whether the change was stored: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

struct Ask {
    command: Command,
    /// A repetition with the same key must answer as the first did.
    idempotency_key: Option<String>,
    origin: Origin,
    dry_run: bool,
    arrived: Instant,
    reply: oneshot::Sender<Result<Written, WriteError>>,
}

/// Hands commands to the writer task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    asks: mpsc::Sender<Ask>,
    view: View,
    environment: Environment,
}

impl Writer {
    /// The handle and the task, which runs until `shutdown` and finishes what it has sent. It appends only while
    /// `trusted` believes `key`. `others` says whether there are other control planes.
    pub fn new(
        source: Source,
        view: View,
        key: SigningKey,
        trusted: watch::Receiver<TrustedKeys>,
        others: impl Fn() -> bool + Send + 'static,
        environment: Environment,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (asks, inbox) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let task = Task {
            source,
            view: view.clone(),
            key,
            trusted,
            others: Box::new(others),
            environment: environment.clone(),
            asks: asks.downgrade(),
            again: VecDeque::new(),
            burst: 0,
            fresh: view.state().version() == Version::ZERO,
            lost: None,
        };
        let writer = Self {
            asks,
            view,
            environment,
        };
        (writer, task.run(inbox, shutdown))
    }

    /// Decides, appends, and returns when this control plane's own state has reached the event.
    ///
    /// # Errors
    /// If the command is not valid, or the log cannot be written now.
    pub async fn write(&self, command: Command, request: Request) -> Result<Written, WriteError> {
        self.ask(command, request, false).await
    }

    /// Decides without appending.
    ///
    /// # Errors
    /// If the command is not valid.
    pub async fn preview(&self, command: Command, request: Request) -> Result<Written, WriteError> {
        self.ask(command, request, true).await
    }

    async fn ask(
        &self,
        command: Command,
        request: Request,
        dry_run: bool,
    ) -> Result<Written, WriteError> {
        let stopping = || WriteError::Unavailable {
            reason: "the control plane is stopping".into(),
        };
        let idempotency_key = request.idempotency_key.clone();
        let origin = origin(request, self.view.state().epoch(), &self.environment);
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            command,
            idempotency_key,
            origin,
            dry_run,
            arrived: Instant::now(),
            reply,
        };
        self.asks.send(ask).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

fn origin(request: Request, epoch: Epoch, environment: &Environment) -> Origin {
    let id = match &request.idempotency_key {
        Some(key) => repeatable_id(epoch, key),
        None => EventId(environment.ordered_uuid()),
    };
    Origin {
        id,
        time: environment.now(),
        actor: request.actor,
        reason: request.reason,
        request_id: request.request_id,
        seed: environment.seed(),
    }
}

/// The id of an event whose request can be repeated.
fn repeatable_id(epoch: Epoch, key: &str) -> EventId {
    EventId(Uuid::new_v5(&epoch.0, key.as_bytes()))
}

/// A command that has been decided, and waits for its event to be appended and folded.
struct Decided {
    ask: Ask,
    proposal: Box<Proposal>,
    outcome: Outcome,
    state: State,
}

struct Task {
    source: Source,
    view: View,
    key: SigningKey,
    trusted: watch::Receiver<TrustedKeys>,
    others: Box<dyn Fn() -> bool + Send>,
    environment: Environment,
    /// The queue, for commands to decide again after a while.
    asks: mpsc::WeakSender<Ask>,
    /// Commands to decide again, oldest first.
    again: VecDeque<Ask>,
    /// Events appended since the last pause.
    burst: usize,
    /// Whether this control plane began with nothing and has not written yet.
    fresh: bool,
    /// A version that is known to have been there and does not come.
    lost: Option<Version>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>, shutdown: CancellationToken) {
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
            let batch = self.decide_batch(&mut inbox).await;
            if !batch.is_empty() {
                self.commit(batch).await;
            }
        }
    }

    /// Waits for what others have signed beyond the state here. If the log does not show it, it has lost it, and what is
    /// appended now would take the place of what was acknowledged.
    async fn catch_up_with_what_is_known(&mut self) {
        if self.fresh && self.view.state().version() > Version::GENESIS {
            // Nothing here says how far the log once went. The others do, every second.
            tokio::time::sleep(LISTEN).await;
        }
        self.fresh = false;
        let Status { cursor, seen, .. } = self.view.status();
        self.lost = None;
        if seen <= cursor.version {
            return;
        }
        let caught_up = catch_up(&self.view, cursor.epoch, seen);
        let _ = tokio::time::timeout(KNOWN_WAIT_MAX, caught_up).await;
        let now = self.view.status().cursor;
        if now.epoch == cursor.epoch && now.version < seen {
            self.lost = Some(seen);
        }
    }

    /// Decides what waits, each command on the state after the one before.
    async fn decide_batch(&mut self, inbox: &mut mpsc::Receiver<Ask>) -> Vec<Decided> {
        let mut tip = self.view.state();
        let mut batch: Vec<Decided> = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(mut ask) = self.again.pop_front().or_else(|| inbox.try_recv().ok()) else {
                break;
            };
            if let Some(key) = &ask.idempotency_key {
                if !ask.dry_run && !self.view.remembers() {
                    let (view, asks) = (self.view.clone(), self.asks.clone());
                    tokio::spawn(ask_again_when_remembered(view, asks, ask));
                    continue;
                }
                // The log may not have been reached when the command came.
                ask.origin.id = repeatable_id(tip.epoch(), key);
            }
            let twin = batch
                .iter()
                .any(|first| first.ask.origin.id == ask.origin.id);
            let decision = decide(&tip, ask.command.clone(), &ask.origin);
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
                        let (source, view) = (self.source.clone(), self.view.clone());
                        tokio::spawn(answer_repeated(source, view, ask, version));
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
                Ok(decision) if !ask.dry_run && decision.event.is_none() => {
                    self.answer_without_effect(&tip, ask, decision).await;
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
        if let Some(lost) = self.lost {
            return Some(format!(
                "version {lost} was signed by a control plane and is not in it: it may have been restored from an old copy"
            ));
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

    /// Answers a command that needs no event: refused, without effect, or only asked for.
    fn answer_now(&self, tip: &State, ask: Ask, decision: Result<Decision, Refusal>) {
        if let Some(version) = self.view.version_of(ask.origin.id) {
            tokio::spawn(answer_repeated(
                self.source.clone(),
                self.view.clone(),
                ask,
                version,
            ));
            return;
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
            },
        );
        let settled = ask.dry_run || (written.is_err() && ask.idempotency_key.is_none());
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

    /// Answers a command that has nothing to change, if that is so at the log's end: another control plane may have
    /// acknowledged what has not come here yet.
    async fn answer_without_effect(&mut self, tip: &State, ask: Ask, decision: Decision) {
        match self.source.log.bounds().await {
            Ok(bounds) if bounds.last <= tip.version() => self.answer_now(tip, ask, Ok(decision)),
            Ok(_) if ask.arrived.elapsed() > RACE_TIMEOUT => {
                answer(ask, Err(unavailable("this control plane is behind it")));
            }
            Ok(bounds) => {
                self.again.push_front(ask);
                let _ =
                    tokio::time::timeout(FOLD_TIMEOUT, self.view.reached(tip.epoch(), bounds.last))
                        .await;
            }
            Err(error) => answer(ask, Err(unavailable(&chain(&error)))),
        }
    }

    /// Appends a batch and sees to it that every command in it gets its answer.
    async fn commit(&mut self, batch: Vec<Decided>) {
        let base = batch[0].proposal.event.previous;
        let last = Version(base.0 + batch.len() as u64);
        let epoch = batch[0].proposal.event.epoch;
        match append(&self.source, &self.key, &batch).await {
            Ok(()) => {
                self.burst += batch.len();
                self.finish(batch);
                self.catch_up_and_let_others_in(epoch, last).await;
            }
            Err(AppendError::Conflict { .. }) => self.lose(batch, base).await,
            Err(AppendError::Unknown { source, .. }) => {
                tracing::warn!(after = %base, reason = %source, "the outcome of an append is unknown; reading the log");
                self.resolve(batch, base, source.to_string()).await;
            }
            Err(error @ AppendError::Refused(_)) => {
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
            ask,
            proposal,
            outcome,
            state,
        } in batch
        {
            let (version, id) = (proposal.cursor.version, proposal.event.id);
            let event = Some(proposal.event);
            let written = Written {
                version,
                event,
                outcome,
                state: Arc::new(state),
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

/// Whether a record is the event that was decided. The same bytes, not the same id: another control plane may have carried
/// out the same request.
fn is(record: &Record, decided: &Decided) -> bool {
    let proposal = &decided.proposal;
    let same_id = planted(Bug::BatchKnownById)
        && Event::decode(&record.event).is_ok_and(|event| event.id == proposal.event.id);
    record.event == proposal.encoded.bytes || same_id
}

/// How many of a batch's events the log has, from the first on, which it has. A broker that loses power while it
/// stores an atomic batch comes back with a part of it.
async fn stored(source: &Source, batch: &[Decided], base: Version) -> Result<usize, LogError> {
    let has = async |at: usize| {
        let record = source.log.get(Version(base.0 + at as u64 + 1)).await?;
        Ok::<_, LogError>(record.is_some_and(|record| is(&record, &batch[at])))
    };
    // The last one is there only if all are, which is the usual case.
    if has(batch.len() - 1).await? {
        return Ok(batch.len());
    }
    for at in 1..batch.len() {
        if !has(at).await? {
            return Ok(at);
        }
    }
    Ok(batch.len())
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

async fn append(source: &Source, key: &SigningKey, batch: &[Decided]) -> Result<(), AppendError> {
    let proposals = batch.iter().map(|decided| &*decided.proposal);
    append_proposals(source, key, proposals.collect()).await
}

fn signed<'a>(key: &SigningKey, proposals: impl Iterator<Item = &'a Proposal>) -> Vec<Append> {
    let sign = |proposal: &Proposal| Append {
        subject: proposal.subject.clone(),
        id: proposal.event.id,
        event: proposal.encoded.bytes.clone().into(),
        signature: key.sign_event(proposal.cursor.chain),
    };
    proposals.map(sign).collect()
}

async fn append_proposals(
    source: &Source,
    key: &SigningKey,
    proposals: Vec<&Proposal>,
) -> Result<(), AppendError> {
    for proposal in &proposals {
        for (hash, content) in &proposal.encoded.chunks {
            source
                .chunks
                .put(ChunkUse::Transaction, *hash, content)
                .await
                .map_err(AppendError::Refused)?;
        }
    }
    let mut events = signed(key, proposals.iter().copied());
    if planted(Bug::BatchCutShort) {
        events.truncate(1);
    }
    let mut expected = proposals
        .first()
        .map_or(Version::ZERO, |first| first.event.previous);
    if planted(Bug::ExpectedVersionIgnored)
        && let Ok(bounds) = source.log.bounds().await
    {
        expected = bounds.last;
    }
    source.log.append(expected, events).await
}

/// Answers once the state has reached what was written, if that is the event there: a broker may lose what it has
/// acknowledged, and another event take its place.
async fn answer_after(view: View, epoch: Epoch, id: EventId, ask: Ask, written: Written) {
    let version = written.version;
    if planted(Bug::AnswerBeforeFold) {
        return answer(ask, Ok(written));
    }
    let reached = tokio::time::timeout(FOLD_TIMEOUT, view.reached(epoch, version)).await;
    let reason = match reached {
        Ok(true) if view.version_of(id) == Some(version) => return answer(ask, Ok(written)),
        Ok(true) => format!("the log has another event at version {version}"),
        Ok(false) => format!("the log has begun a new life after version {version} was stored"),
        Err(_) => format!("version {version} has not come back from the log"),
    };
    answer(ask, Err(WriteError::Unknown { reason }));
}

/// Sees to it that the log has its first event.
struct Beginning {
    source: Source,
    view: View,
    key: SigningKey,
    trusted: watch::Receiver<TrustedKeys>,
    environment: Environment,
}

impl Beginning {
    async fn run(self, shutdown: CancellationToken) {
        while self.view.state().version() == Version::ZERO && !shutdown.is_cancelled() {
            match self.source.log.bounds().await {
                Ok(bounds) if bounds.last == Version::ZERO && self.may_sign() => {
                    self.append_genesis().await;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the log is not there yet"),
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                _ = self.view.reached(Epoch::default(), Version::GENESIS) => {}
                () = tokio::time::sleep(RETRY_DELAY * 5) => {}
            }
        }
    }

    fn may_sign(&self) -> bool {
        self.trusted.borrow().may_sign(self.key.id())
    }

    async fn append_genesis(&self) {
        let actor = Actor {
            name: "sluice-cp".into(),
            via: "start".into(),
            address: None,
        };
        // Ordered by time: a later life of the log has a higher epoch.
        let epoch = Epoch(self.environment.ordered_uuid());
        let id = EventId(self.environment.ordered_uuid());
        let proposal = genesis(epoch, id, self.environment.now(), actor);
        match append_proposals(&self.source, &self.key, vec![&proposal]).await {
            Ok(()) => tracing::info!(%epoch, "began a new log"),
            Err(AppendError::Conflict { .. }) => {
                tracing::info!("another control plane began the log");
            }
            Err(error) => tracing::warn!(error = %chain(&error), "could not begin the log"),
        }
    }
}

/// Answers a command that needs no event, if the state it was decided on is the log's last; else decides it again. The
/// state of a control plane that is cut off says nothing about what is there by now.
async fn confirm(
    source: Source,
    view: View,
    asks: mpsc::WeakSender<Ask>,
    decided_on: Cursor,
    ask: Ask,
    written: Result<Written, WriteError>,
) {
    let last = match source.log.bounds().await {
        Ok(bounds) if bounds.last <= decided_on.version => return answer(ask, written),
        Ok(bounds) => bounds.last,
        Err(error) => return answer(ask, Err(unavailable(&chain(&error)))),
    };
    view.look();
    let reached = view.reached(decided_on.epoch, last);
    let behind = tokio::time::timeout(FOLD_TIMEOUT, reached).await.is_err();
    if behind || ask.arrived.elapsed() > RACE_TIMEOUT {
        let reason = "this control plane has not caught up with it; try again";
        return answer(ask, Err(unavailable(reason)));
    }
    // If the queue is gone, so is the control plane, and the caller is told by the reply that is dropped.
    if let Some(asks) = asks.upgrade() {
        let _ = asks.send(ask).await;
    }
}

/// After a start, and after a snapshot, the recent events must be read before a repeated request can be told from a new
/// one.
async fn ask_again_when_remembered(view: View, asks: mpsc::WeakSender<Ask>, ask: Ask) {
    let known = tokio::time::timeout(FOLD_TIMEOUT, view.remembered()).await;
    if known.is_err() || ask.arrived.elapsed() > RACE_TIMEOUT {
        let reason = "this control plane has not read its recent events yet; try again";
        return answer(ask, Err(unavailable(reason)));
    }
    if let Some(asks) = asks.upgrade() {
        let _ = asks.send(ask).await;
    }
}

/// Answers a request that was already carried out under the same idempotency key.
async fn answer_repeated(source: Source, view: View, ask: Ask, version: Version) {
    let epoch = view.state().epoch();
    view.reached(epoch, version).await;
    let state = view.state();
    let event = match source.log.get(version).await {
        Ok(Some(record)) => Event::decode(&record.event).ok(),
        Ok(None) => None,
        Err(error) => return answer(ask, Err(unavailable(&error.to_string()))),
    };
    let outcome = first_outcome(event.as_ref(), &ask.command);
    answer(
        ask,
        Ok(Written {
            version,
            event: None,
            outcome,
            state,
        }),
    );
}

/// What the first of two equal requests came to, as far as its event tells.
fn first_outcome(event: Option<&Event>, command: &Command) -> Outcome {
    use sluice_schema::decide::Action;
    use sluice_schema::event::Mutations;
    let keys = match event.map(|event| &event.mutations) {
        Some(Mutations::Inline(mutations)) => mutations.as_slice(),
        Some(Mutations::Stored(_)) | None => &[],
    };
    let mut keys = keys.iter().map(sluice_schema::event::Mutation::key);
    match command {
        Command::Write(write) => {
            // What goes with it (a certificate's names) is not what was asked for.
            let key = keys.find(|key| key.kind == write.kind.key_name());
            match (&write.action, key) {
                (Action::Create, Some(key)) => Outcome::Created(key),
                (Action::Replace(_) | Action::Update(_), Some(key)) => Outcome::Updated(key),
                (Action::Delete(_), _) | (_, None) => Outcome::Deleted,
            }
        }
        Command::Membership(_) => keys.next().map_or(Outcome::Deleted, Outcome::Created),
        Command::Apply(_) => Outcome::Applied(sluice_schema::decide::Applied::default()),
    }
}

fn unavailable(reason: &str) -> WriteError {
    WriteError::Unavailable {
        reason: reason.to_owned(),
    }
}

fn answer(ask: Ask, answer: Result<Written, WriteError>) {
    // A caller that has gone away needs no answer.
    let _ = ask.reply.send(answer);
}
