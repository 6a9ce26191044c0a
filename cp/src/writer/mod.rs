//! The writer: one task that decides, appends, waits and answers.
//!
//! Writes that wait at the same time are decided one on top of the other and appended together: all of them or none
//! (docs/decisions/0002). If another control plane got in between, they are decided again on the newer state.
//!
//! Control planes that write at the same time take turns without talking: each pauses for `PAUSE` after
//! `BURST_EVENTS_MAX` events; one that lost a race waits until the log has been quiet for `QUIET`, which is
//! shorter, and appends then.

mod append;
mod genesis;
mod reply;
mod task;

use crate::traces::{Steps, WriteTrace};
use crate::view::View;
use sluice_replica::environment::Environment;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::Source;
use sluice_schema::decide::{Command, Origin, Outcome, Proposal, Refusal};
use sluice_schema::event::{Actor, Event, EventId};
use sluice_schema::kind::RouterFlavor;
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Version};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use task::Task;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Commands that may wait for the writer.
const QUEUE_COMMANDS_MAX: usize = 1024;
/// How long a command is decided again and again after losing races.
const RACE_TIMEOUT: Duration = Duration::from_secs(15);
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
    /// Makes a repeated request answer as the first did.
    pub idempotency: Option<Idempotency>,
    /// What routes may say.
    pub router_flavor: RouterFlavor,
    /// The trace it is part of.
    pub trace: WriteTrace,
}

/// What tells a repeated request from a new one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Idempotency {
    /// The caller's name for the request.
    pub key: String,
    /// A hash of what is asked. The key stands for nothing else.
    pub content: [u8; 32],
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
    /// The state it was decided on, if it was only asked for.
    pub base: Option<Arc<State>>,
}

/// A command that is not done, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not valid; nothing was appended.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The idempotency key stands for another request; nothing was appended.
    #[error("the idempotency key was used before for another request")]
    Reused,
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
    idempotency: Option<Idempotency>,
    origin: Origin,
    dry_run: bool,
    arrived: Instant,
    steps: Steps,
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
            behind: None,
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
        let request = Request {
            idempotency: None,
            ..request
        };
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
        let idempotency = request.idempotency.clone();
        let steps = request.trace.steps();
        let origin = Origin {
            trace: steps.context(),
            ..origin(request, self.view.state().epoch(), &self.environment)
        };
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            command,
            idempotency,
            origin,
            dry_run,
            arrived: Instant::now(),
            steps,
            reply,
        };
        self.asks.send(ask).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

fn origin(request: Request, epoch: Epoch, environment: &Environment) -> Origin {
    let id = match &request.idempotency {
        Some(idempotency) => repeatable_id(epoch, idempotency),
        None => EventId(environment.ordered_uuid()),
    };
    Origin {
        id,
        time: environment.now(),
        actor: request.actor,
        reason: request.reason,
        request_id: request.request_id,
        trace: None,
        seed: environment.seed(),
        router_flavor: request.router_flavor,
    }
}

/// The id of an event whose request can be repeated: the first half is the key's, the second that of what is asked.
fn repeatable_id(epoch: Epoch, idempotency: &Idempotency) -> EventId {
    let [key, content] = [idempotency.key.as_bytes(), &idempotency.content]
        .map(|part| Uuid::new_v5(&epoch.0, part).as_u128());
    let mixed = (key & KEY_BITS) | (content >> 64);
    EventId(uuid::Builder::from_custom_bytes(mixed.to_be_bytes()).into_uuid())
}

/// The half of a repeatable event's id that is its key's.
const KEY_BITS: u128 = u128::MAX << 64;

/// The first and the last id that a repeatable event with the same key may have.
fn key_range(id: EventId) -> (EventId, EventId) {
    let key = id.0.as_u128() & KEY_BITS;
    let id = |number| EventId(Uuid::from_u128(number));
    (id(key), id(key | !KEY_BITS))
}

/// Whether only one of two commands can be carried out.
fn is_twin(one: &Ask, other: &Ask) -> bool {
    let repeatable = one.idempotency.is_some() && other.idempotency.is_some();
    one.origin.id == other.origin.id
        || (repeatable && key_range(one.origin.id) == key_range(other.origin.id))
}

/// A command that has been decided, and waits for its event to be appended and folded.
struct Decided {
    ask: Ask,
    proposal: Box<Proposal>,
    outcome: Outcome,
    state: State,
}
