//! The writer: one task that decides, appends, waits and answers.
//!
//! Writes that wait at the same time are decided one on top of the other and appended together: all of them or none
//! (docs/decisions/0002). If another control plane got in between, they are decided again on the newer state.
//!
//! Control planes that write at the same time take turns without talking: each pauses for `PAUSE` after
//! `BURST_EVENTS_MAX` events; one that lost a race waits until the log has been quiet for `QUIET`, which is
//! shorter, and appends then.

use crate::view::View;
use sluice_replica::follow::Phase;
use sluice_replica::keys::SigningKey;
use sluice_replica::log::{Append, AppendError, BATCH_EVENTS_MAX, Source};
use sluice_replica::process::now;
use sluice_replica::run::chain;
use sluice_schema::decide::{
    Command, Decision, Origin, Outcome, Proposal, Refusal, decide, genesis,
};
use sluice_schema::event::{Actor, Event, EventId};
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Version};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
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
            again: VecDeque::new(),
            burst: 0,
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

    async fn ask(
        &self,
        command: Command,
        request: Request,
        dry_run: bool,
    ) -> Result<Written, WriteError> {
        let stopping = || WriteError::Unavailable {
            reason: "the control plane is stopping".into(),
        };
        let origin = origin(request, self.view.state().epoch());
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            command,
            origin,
            dry_run,
            arrived: Instant::now(),
            reply,
        };
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
    others: Box<dyn Fn() -> bool + Send>,
    /// Commands to decide again, oldest first.
    again: VecDeque<Ask>,
    /// Events appended since the last pause.
    burst: usize,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>, shutdown: CancellationToken) {
        let (source, view, key) = (self.source.clone(), self.view.clone(), self.key.clone());
        let token = shutdown.clone();
        tokio::spawn(async move { begin_log(&source, &view, &key, &token).await });
        loop {
            if self.again.is_empty() {
                let ask = tokio::select! {
                    ask = inbox.recv() => ask,
                    () = shutdown.cancelled() => None,
                };
                match ask {
                    Some(ask) => self.again.push_back(ask),
                    None => return,
                }
            }
            let batch = self.decide_batch(&mut inbox);
            if !batch.is_empty() {
                self.commit(batch).await;
            }
        }
    }

    /// Decides what waits, each command on the state after the one before.
    fn decide_batch(&mut self, inbox: &mut mpsc::Receiver<Ask>) -> Vec<Decided> {
        let mut tip = self.view.state();
        let mut batch: Vec<Decided> = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(ask) = self.again.pop_front().or_else(|| inbox.try_recv().ok()) else {
                break;
            };
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
                decision => self.answer_now(&tip, ask, decision),
            }
        }
        batch
    }

    /// Why nothing can be appended now, if so.
    fn in_the_way(&self, tip: &State) -> Option<String> {
        match self.view.status().phase {
            Phase::Forked(fork) => Some(format!(
                "this control plane has stopped following it: {fork}"
            )),
            Phase::Disconnected | Phase::CatchingUp | Phase::Following => {
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
        answer(ask, written.map_err(WriteError::Refused));
    }

    /// Appends a batch and sees to it that every command in it gets its answer.
    async fn commit(&mut self, batch: Vec<Decided>) {
        let base = batch[0].proposal.event.previous;
        let last = Version(base.0 + batch.len() as u64);
        match append(&self.source, &self.key, &batch).await {
            Ok(()) => {
                self.burst += batch.len();
                self.finish(batch);
                self.catch_up_and_let_others_in(last).await;
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
            let version = proposal.cursor.version;
            let event = Some(proposal.event);
            let written = Written {
                version,
                event,
                outcome,
                state: Arc::new(state),
            };
            tokio::spawn(answer_after(self.view.clone(), version, ask, Ok(written)));
        }
    }

    /// The next batch is decided on the folded state, so that must have come this far.
    async fn catch_up_and_let_others_in(&mut self, last: Version) {
        let _ = tokio::time::timeout(FOLD_TIMEOUT, self.view.reached(last)).await;
        if self.burst >= BURST_EVENTS_MAX {
            self.burst = 0;
            if (self.others)() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Another control plane was faster: catches up; everything is decided again.
    async fn lose(&mut self, batch: Vec<Decided>, base: Version) {
        for Decided { ask, .. } in batch.into_iter().rev() {
            if ask.arrived.elapsed() > RACE_TIMEOUT {
                answer(
                    ask,
                    Err(unavailable(
                        "other control planes were faster each time; try again",
                    )),
                );
            } else {
                self.again.push_front(ask);
            }
        }
        self.burst = 0;
        let _ = tokio::time::timeout(FOLD_TIMEOUT, self.view.reached(base.next())).await;
        let _ = tokio::time::timeout(QUIET_WAIT_MAX, wait_for_quiet(&self.view)).await;
    }

    /// Finds out what became of a batch, and sends the same bytes again if the log has nothing in its place.
    async fn resolve(&mut self, batch: Vec<Decided>, base: Version, mut reason: String) {
        let deadline = Instant::now() + RESOLVE_TIMEOUT;
        while Instant::now() < deadline {
            match self.source.log.get(base.next()).await {
                Ok(Some(record)) => {
                    let id = Event::decode(&record.event).map(|event| event.id);
                    let ours = id.is_ok_and(|id| id == batch[0].proposal.event.id);
                    return if ours {
                        self.finish(batch)
                    } else {
                        self.lose(batch, base).await
                    };
                }
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
}

/// Returns when no event has come for a while.
async fn wait_for_quiet(view: &View) {
    loop {
        let quiet = QUIET + QUIET.mul_f64(rand::random::<f64>() / 2.0);
        let next = view.state().version().next();
        if tokio::time::timeout(quiet, view.reached(next))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn append(source: &Source, key: &SigningKey, batch: &[Decided]) -> Result<(), AppendError> {
    let proposals = batch.iter().map(|decided| &*decided.proposal);
    append_proposals(source, key, proposals.collect()).await
}

async fn append_proposals(
    source: &Source,
    key: &SigningKey,
    proposals: Vec<&Proposal>,
) -> Result<(), AppendError> {
    let mut events = Vec::with_capacity(proposals.len());
    for proposal in &proposals {
        for (hash, content) in &proposal.encoded.chunks {
            source
                .chunks
                .put(*hash, content)
                .await
                .map_err(AppendError::Refused)?;
        }
        events.push(Append {
            subject: proposal.subject.clone(),
            id: proposal.event.id,
            event: proposal.encoded.bytes.clone().into(),
            signature: key.sign_event(proposal.cursor.chain),
        });
    }
    let expected = proposals
        .first()
        .map_or(Version::ZERO, |first| first.event.previous);
    source.log.append(expected, events).await
}

/// Answers once the state has reached `version`.
async fn answer_after(view: View, version: Version, ask: Ask, result: Result<Written, WriteError>) {
    match tokio::time::timeout(FOLD_TIMEOUT, view.reached(version)).await {
        Ok(()) => answer(ask, result),
        Err(_) => answer(
            ask,
            Err(WriteError::Unknown {
                reason: format!("version {version} has not come back from the log"),
            }),
        ),
    }
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
    let actor = Actor {
        name: "sluice-cp".into(),
        via: "start".into(),
        address: None,
    };
    let epoch = Epoch(Uuid::new_v4());
    let proposal = genesis(epoch, EventId(Uuid::now_v7()), now(), actor);
    match append_proposals(source, key, vec![&proposal]).await {
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
    let key = match event.map(|event| &event.mutations) {
        Some(Mutations::Inline(mutations)) => {
            mutations.first().map(sluice_schema::event::Mutation::key)
        }
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
    WriteError::Unavailable {
        reason: reason.to_owned(),
    }
}

fn answer(ask: Ask, answer: Result<Written, WriteError>) {
    // A caller that has gone away needs no answer.
    let _ = ask.reply.send(answer);
}
