//! The writer: one task that decides, appends, waits and answers.
//!
//! It decides on the tip: the folded state plus what it has sent and not yet heard of. So writes that wait at the same
//! time are pipelined, in order. If another control plane gets in between, everything sent after that is refused by
//! the log (docs/decisions/0002) and decided again on the newer state.
//!
//! Control planes that write at the same time take turns without talking: each sends a burst and then pauses for
//! [`PAUSE`]; one that lost a race waits until the log has been quiet for [`QUIET`], which is shorter, and sends then.

use crate::view::View;
use futures::future::{BoxFuture, OptionFuture};
use sluice_replica::keys::SigningKey;
use sluice_replica::log::{Append, AppendError, LogError, Source};
use sluice_replica::run::chain;
use sluice_schema::decide::{
    Command, Decision, Origin, Outcome, Proposal, Refusal, decide, genesis,
};
use sluice_schema::event::{Actor, Event, EventId};
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Time, Version};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Commands that may wait for the writer.
const QUEUE_COMMANDS_MAX: usize = 1024;
/// Appends that may be under way at once.
const PIPELINE_APPENDS_MAX: usize = 128;
/// Appends after which a control plane lets others in, if there are others.
const BURST_APPENDS_MAX: usize = 64;
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
}

impl Writer {
    /// The handle and the task, which runs until `shutdown` and finishes what it has sent. `others` says whether
    /// there are other control planes.
    pub fn new(
        source: Source,
        view: View,
        key: SigningKey,
        others: impl Fn() -> bool + Send + 'static,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (asks, inbox) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let task = Task {
            source,
            view: view.clone(),
            key,
            others: Box::new(others),
            tip: view.state(),
            burst: 0,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            repeated: VecDeque::new(),
        };
        (Self { asks, view }, task.run(inbox, shutdown))
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

    async fn ask(&self, command: Command, request: Request, dry_run: bool) -> Result<Written, WriteError> {
        let stopping = || WriteError::Unavailable { reason: "the control plane is stopping".into() };
        let origin = origin(request, self.view.state().epoch());
        let (reply, answer) = oneshot::channel();
        let ask = Ask { command, origin, dry_run, arrived: Instant::now(), reply };
        self.asks.send(ask).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

fn origin(request: Request, epoch: Epoch) -> Origin {
    let id = match &request.idempotency_key {
        Some(key) => Uuid::new_v5(&epoch.0, key.as_bytes()),
        None => Uuid::now_v7(),
    };
    Origin {
        id: EventId(id),
        time: now(),
        actor: request.actor,
        reason: request.reason,
        request_id: request.request_id,
        seed: rand::random(),
    }
}

/// The clock.
pub(crate) fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

type Outcoming = BoxFuture<'static, Result<(), AppendError>>;

struct InFlight {
    ask: Ask,
    proposal: Box<Proposal>,
    outcome: Outcome,
    state: State,
    ack: Outcoming,
}

struct Task {
    source: Source,
    view: View,
    key: SigningKey,
    others: Box<dyn Fn() -> bool + Send>,
    /// The folded state and everything in flight on top of it.
    tip: Arc<State>,
    /// Appends since the last pause.
    burst: usize,
    in_flight: VecDeque<InFlight>,
    /// Commands to decide again, oldest first.
    again: VecDeque<Ask>,
    /// Commands whose event id is in flight already.
    repeated: VecDeque<Ask>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>, shutdown: CancellationToken) {
        begin_log(&self.source, &self.view, &self.key, &shutdown).await;
        loop {
            if self.in_flight.is_empty() {
                self.again.append(&mut self.repeated);
                self.let_others_in().await;
            }
            let contended = self.burst >= BURST_APPENDS_MAX && (self.others)();
            let room = self.in_flight.len() < PIPELINE_APPENDS_MAX && !contended;
            if room && let Some(ask) = self.again.pop_front() {
                self.take(ask).await;
                continue;
            }
            let front = OptionFuture::from(self.in_flight.front_mut().map(|first| &mut first.ack));
            tokio::select! {
                biased;
                Some(ack) = front => self.settle(ack).await,
                ask = inbox.recv(), if room => match ask {
                    Some(ask) => self.take(ask).await,
                    None => break,
                },
                () = shutdown.cancelled() => break,
            }
        }
        // What was sent is still answered; what was not is told that we stop.
        while let Some(first) = self.in_flight.front_mut() {
            let ack = (&mut first.ack).await;
            self.settle(ack).await;
        }
    }

    async fn let_others_in(&mut self) {
        if self.burst > 0 && (self.others)() {
            tokio::time::sleep(PAUSE).await;
        }
        self.burst = 0;
    }

    /// Decides a command on the tip and sends what comes of it.
    async fn take(&mut self, ask: Ask) {
        if self.in_flight.is_empty() {
            self.tip = self.view.state();
        }
        if self.tip.version() == Version::ZERO && !ask.dry_run {
            return answer(ask, Err(unavailable("the log has not been reached yet")));
        }
        if let Some(version) = self.view.version_of(ask.origin.id) {
            let (source, view) = (self.source.clone(), self.view.clone());
            tokio::spawn(answer_repeated(source, view, ask, version));
            return;
        }
        if self.in_flight.iter().any(|first| first.ask.origin.id == ask.origin.id) {
            return self.repeated.push_back(ask);
        }
        let decision = match decide(&self.tip, ask.command.clone(), &ask.origin) {
            Ok(decision) => decision,
            Err(refusal) => return answer(ask, Err(refusal.into())),
        };
        let Decision { event, state, outcome } = decision;
        match event {
            Some(proposal) if !ask.dry_run => self.send(ask, Box::new(proposal), state, outcome).await,
            event => {
                let version = self.tip.version();
                let event = event.map(|proposal| proposal.event);
                let written = Written { version, event, outcome, state: Arc::new(state) };
                // Nothing to append, but what it rests on may still be under way.
                let view = self.view.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(FOLD_TIMEOUT, view.reached(version)).await;
                    answer(ask, Ok(written));
                });
            }
        }
    }

    async fn send(&mut self, ask: Ask, proposal: Box<Proposal>, state: State, outcome: Outcome) {
        let after = self.in_flight.back().map(|last| last.proposal.event.id);
        match append(&self.source, &self.key, &proposal, after).await {
            Ok(ack) => {
                self.burst += 1;
                self.tip = Arc::new(state.clone());
                self.in_flight.push_back(InFlight { ask, proposal, outcome, state, ack });
            }
            Err(error) => answer(ask, Err(unavailable(&chain(&error)))),
        }
    }

    /// Handles the outcome of the oldest append.
    async fn settle(&mut self, ack: Result<(), AppendError>) {
        let Some(first) = self.in_flight.pop_front() else { return };
        match ack {
            Ok(()) => self.finish(first),
            Err(AppendError::Conflict { .. }) => self.lose(first).await,
            Err(AppendError::Unknown { source, .. }) => self.resolve(first, &source).await,
            Err(error @ AppendError::Refused(_)) => {
                answer(first.ask, Err(unavailable(&chain(&error))));
                self.recall().await;
            }
        }
    }

    /// The event is in the log: answers once it has come back.
    fn finish(&self, done: InFlight) {
        let view = self.view.clone();
        let InFlight { ask, proposal, outcome, state, .. } = done;
        let version = proposal.cursor.version;
        let written = Written { version, event: Some(proposal.event), outcome, state: Arc::new(state) };
        tokio::spawn(async move {
            let folded = tokio::time::timeout(FOLD_TIMEOUT, view.reached(version)).await;
            answer(ask, match folded {
                Ok(()) => Ok(written),
                Err(_) => Err(WriteError::Unknown {
                    reason: format!("version {version} is stored but has not come back from the log"),
                }),
            });
        });
    }

    /// Another control plane was faster: catches up and decides again.
    async fn lose(&mut self, loser: InFlight) {
        let InFlight { ask, proposal, .. } = loser;
        let base = proposal.event.previous;
        if ask.arrived.elapsed() > RACE_TIMEOUT {
            answer(ask, Err(unavailable("other control planes were faster each time; try again")));
        } else {
            self.again.push_front(ask);
        }
        self.recall().await;
        self.burst = 0;
        let _ = tokio::time::timeout(FOLD_TIMEOUT, self.view.reached(base.next())).await;
        let _ = tokio::time::timeout(QUIET_WAIT_MAX, wait_for_quiet(&self.view)).await;
    }

    /// Takes back everything in flight that rested on an append that failed.
    async fn recall(&mut self) {
        let mut kept = VecDeque::new();
        for InFlight { ask, proposal, outcome, state, ack } in std::mem::take(&mut self.in_flight) {
            match ack.await {
                Err(AppendError::Conflict { .. } | AppendError::Refused(_)) => kept.push_back(ask),
                Ok(()) => {
                    // The log took an event whose predecessor it refused. Readers will stop at it.
                    tracing::error!(version = %proposal.cursor.version, "the log broke the append rules");
                    let ack = Box::pin(std::future::ready(Ok(())));
                    self.finish(InFlight { ask, proposal, outcome, state, ack });
                }
                Err(AppendError::Unknown { source, .. }) => {
                    // It cannot have been stored either, but only the log can say so.
                    let ack = Box::pin(std::future::ready(Ok(())));
                    let unknown = InFlight { ask, proposal, outcome, state, ack };
                    if let Some(ask) = self.look_up(unknown, &source).await {
                        kept.push_back(ask);
                    }
                }
            }
        }
        self.again.extend(kept);
    }

    /// The outcome is unknown: asks the log, and sends the same bytes again if it has nothing there.
    async fn resolve(&mut self, unknown: InFlight, source: &LogError) {
        if let Some(ask) = self.look_up(unknown, source).await {
            self.again.push_front(ask);
        }
        self.recall().await;
    }

    /// Finds out what became of an append. Gives the command back if it must be decided again.
    async fn look_up(&mut self, unknown: InFlight, source: &LogError) -> Option<Ask> {
        let deadline = Instant::now() + RESOLVE_TIMEOUT;
        let mut reason = source.to_string();
        let version = unknown.proposal.cursor.version;
        tracing::warn!(%version, reason, "the outcome of an append is unknown; reading the log");
        while Instant::now() < deadline {
            match self.source.log.get(version).await {
                Ok(Some(record)) => {
                    let id = Event::decode(&record.event).map(|event| event.id);
                    if id.is_ok_and(|id| id == unknown.proposal.event.id) {
                        self.finish(unknown);
                        return None;
                    }
                    return Some(unknown.ask);
                }
                Ok(None) => match append(&self.source, &self.key, &unknown.proposal, None).await {
                    Ok(ack) => match ack.await {
                        Ok(()) => {
                            self.finish(unknown);
                            return None;
                        }
                        Err(error) => reason = chain(&error),
                    },
                    Err(error) => reason = chain(&error),
                },
                Err(error) => reason = error.to_string(),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
        answer(unknown.ask, Err(WriteError::Unknown { reason }));
        None
    }
}

/// Returns when no event has come for a while.
async fn wait_for_quiet(view: &View) {
    loop {
        let quiet = QUIET + QUIET.mul_f64(rand::random::<f64>() / 2.0);
        let next = view.state().version().next();
        if tokio::time::timeout(quiet, view.reached(next)).await.is_err() {
            return;
        }
    }
}

async fn append(
    source: &Source,
    key: &SigningKey,
    proposal: &Proposal,
    after: Option<EventId>,
) -> Result<Outcoming, AppendError> {
    for (hash, content) in &proposal.encoded.chunks {
        source.chunks.put(*hash, content).await.map_err(AppendError::Refused)?;
    }
    let append = Append {
        subject: proposal.subject.clone(),
        id: proposal.event.id,
        event: proposal.encoded.bytes.clone().into(),
        signature: key.sign_event(proposal.cursor.chain),
        expected: proposal.event.previous,
        after,
    };
    source.log.append(append).await
}

/// Sees to it that the log has its first event.
async fn begin_log(source: &Source, view: &View, key: &SigningKey, shutdown: &CancellationToken) {
    while view.state().version() == Version::ZERO && !shutdown.is_cancelled() {
        match source.log.bounds().await {
            Ok(bounds) if bounds.last == Version::ZERO => append_genesis(source, key).await,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the log is not there yet"),
        }
        tokio::select! {
            () = view.reached(Version::GENESIS) => {}
            () = tokio::time::sleep(RETRY_DELAY * 5) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn append_genesis(source: &Source, key: &SigningKey) {
    let actor = Actor { name: "sluice-cp".into(), via: "start".into(), address: None };
    let epoch = Epoch(Uuid::new_v4());
    let proposal = genesis(epoch, EventId(Uuid::now_v7()), now(), actor);
    let appended = match append(source, key, &proposal, None).await {
        Ok(ack) => ack.await,
        Err(error) => Err(error),
    };
    match appended {
        Ok(()) => tracing::info!(%epoch, "began a new log"),
        Err(AppendError::Conflict { .. }) => tracing::info!("another control plane began the log"),
        Err(error) => tracing::warn!(error = %chain(&error), "could not begin the log"),
    }
}

/// Answers a request that was already carried out under the same idempotency key.
async fn answer_repeated(source: Source, view: View, ask: Ask, version: Version) {
    view.reached(version).await;
    let state = view.state();
    let event = match source.log.get(version).await {
        Ok(Some(record)) => Event::decode(&record.event).ok(),
        Ok(None) => None,
        Err(error) => return answer(ask, Err(unavailable(&error.to_string()))),
    };
    let outcome = first_outcome(event.as_ref(), &ask.command);
    answer(ask, Ok(Written { version, event: None, outcome, state }));
}

/// What the first of two equal requests came to, as far as its event tells.
fn first_outcome(event: Option<&Event>, command: &Command) -> Outcome {
    use sluice_schema::decide::Action;
    use sluice_schema::event::Mutations;
    let key = match event.map(|event| &event.mutations) {
        Some(Mutations::Inline(mutations)) => mutations.first().map(sluice_schema::event::Mutation::key),
        Some(Mutations::Stored(_)) | None => None,
    };
    match (command, key) {
        (Command::Write(write), Some(key)) => match write.action {
            Action::Create => Outcome::Created(key),
            Action::Replace(_) | Action::Update(_) => Outcome::Updated(key),
            Action::Delete(_) => Outcome::Deleted,
        },
        (Command::Write(_), None) => Outcome::Deleted,
        (Command::Apply(_), _) => Outcome::Applied(sluice_schema::decide::Applied::default()),
    }
}

fn unavailable(reason: &str) -> WriteError {
    WriteError::Unavailable { reason: reason.to_owned() }
}

fn answer(ask: Ask, answer: Result<Written, WriteError>) {
    // A caller that has gone away needs no answer.
    let _ = ask.reply.send(answer);
}
