//! Clients: what they ask control planes to write, and what they are told.

use super::dice::Dice;
use super::trace::{Trace, note};
use super::truth::{Truth, write_token};
use serde_json::{Map, Value, json};
use sluice_cp::core::Core;
use sluice_cp::view::View;
use sluice_cp::writer::{Idempotency, Request, WriteError, Written};
use sluice_schema::decide::{Action, Command, Plan, Precondition, Selector, Write};
use sluice_schema::entity::{Key, Workspace};
use sluice_schema::event::Actor;
use sluice_schema::kind::Kind;
use sluice_schema::version::Version;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// How many names clients quarrel about.
const NAMES: u64 = 12;
/// Larger than fits into an event.
const LARGE_BYTES: usize = 600 * 1024;
const WIDE_ENTITIES: usize = 60;
const WIDE_BYTES: usize = 4000;

/// How large a write is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// As usual.
    Usual,
    /// Many entities, of more than one chunk together.
    Wide,
    /// Larger than fits into an event.
    Large,
}

/// One write, asked for once or more often.
#[derive(Clone, Debug)]
struct Ask {
    command: Command,
    idempotency_key: Option<String>,
    /// The entity and the version it must have.
    condition: Option<(Key, Version)>,
    attempts: usize,
    /// Attempts without an answer so far.
    pending: usize,
    /// The only attempt was told that nothing was appended.
    denied: bool,
}

#[derive(Debug, Default)]
struct Inner {
    asks: Vec<Ask>,
    acknowledged: u64,
}

/// All clients. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
    truth: Truth,
}

/// One attempt at a write, on its way.
struct Attempt {
    clients: Clients,
    token: u64,
    control: String,
    view: View,
    condition: Option<(Key, Version)>,
    /// Whether the write was in the log before this attempt.
    repeated: bool,
}

impl Clients {
    pub(crate) fn new(trace: Trace, truth: Truth) -> Self {
        Self {
            inner: Arc::default(),
            trace,
            truth,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many writes were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    /// How many attempts have no answer yet.
    pub(crate) fn pending(&self) -> usize {
        self.lock().asks.iter().map(|ask| ask.pending).sum()
    }

    /// Asks for something new.
    pub(crate) fn write(
        &self,
        dice: &mut Dice,
        control: &str,
        core: &Core,
        gone: &CancellationToken,
        large: Size,
    ) -> u64 {
        let (command, condition) = draw(dice, &core.view, large);
        let token = {
            let mut inner = self.lock();
            let token = inner.asks.len() as u64;
            let idempotency_key = dice.chance(6000).then(|| format!("key {token}"));
            inner.asks.push(Ask {
                command,
                idempotency_key,
                condition,
                attempts: 0,
                pending: 0,
                denied: false,
            });
            token
        };
        self.attempt(token, control, core, gone);
        token
    }

    /// Asks another control plane for the same, if that is safe.
    pub(crate) fn again(&self, token: u64, control: &str, core: &Core, gone: &CancellationToken) {
        let at = usize::try_from(token).unwrap_or(usize::MAX);
        let safe = self
            .lock()
            .asks
            .get(at)
            .is_some_and(|ask| ask.idempotency_key.is_some());
        if safe {
            self.attempt(token, control, core, gone);
        }
    }

    /// Repeats something, if there is anything that may be repeated.
    pub(crate) fn repeat(
        &self,
        dice: &mut Dice,
        control: &str,
        core: &Core,
        gone: &CancellationToken,
    ) {
        let token = {
            let inner = self.lock();
            let safe =
                |(token, ask): (usize, &Ask)| ask.idempotency_key.is_some().then_some(token as u64);
            let tokens: Vec<u64> = inner.asks.iter().enumerate().filter_map(safe).collect();
            let recent = tokens.len().saturating_sub(6);
            dice.pick(&tokens[recent..]).copied()
        };
        if let Some(token) = token {
            self.attempt(token, control, core, gone);
        }
    }

    fn attempt(&self, token: u64, control: &str, core: &Core, gone: &CancellationToken) {
        let Some(ask) = self.begin(token) else { return };
        note!(
            self.trace,
            "client: write {token} by {control}, attempt {}: {}",
            ask.attempts,
            describe(&ask.command)
        );
        let request = Request {
            actor: Actor {
                name: "client".into(),
                via: "simulation".into(),
                address: None,
            },
            reason: Some(write_token(token)),
            idempotency: ask.idempotency_key.map(|key| Idempotency {
                content: [0; 32],
                key,
            }),
            ..Request::default()
        };
        let attempt = Attempt {
            clients: self.clone(),
            token,
            control: control.to_owned(),
            view: core.view.clone(),
            condition: ask.condition,
            repeated: self.truth.lock().keeps(token),
        };
        let (writer, gone, command) = (core.writer.clone(), gone.clone(), ask.command);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = gone.cancelled() => attempt.finish(None),
                answer = writer.write(command, request) => attempt.finish(Some(answer)),
            }
        });
    }

    fn begin(&self, token: u64) -> Option<Ask> {
        let mut inner = self.lock();
        let ask = inner.asks.get_mut(usize::try_from(token).ok()?)?;
        ask.attempts += 1;
        ask.pending += 1;
        ask.denied = false;
        Some(ask.clone())
    }

    /// At the end: what was denied has not happened.
    pub(crate) fn check_denied(&self) {
        let truth = self.truth.lock();
        if truth.damaged() {
            return;
        }
        for (token, ask) in self.lock().asks.iter().enumerate() {
            if let Some(version) = truth.version_of(token as u64)
                && ask.denied
                && ask.attempts == 1
            {
                self.trace.broken(
                    "I4",
                    format!("write {token} was denied, but is in the log at {version}"),
                );
            }
        }
    }
}

impl Attempt {
    /// The answer is here; `None` if the control plane ended first.
    fn finish(self, answer: Option<Result<Written, WriteError>>) {
        let trace = &self.clients.trace;
        let said = match &answer {
            None => "the connection broke".to_owned(),
            Some(Ok(written)) => format!("written at {}", written.version),
            Some(Err(error)) => error.to_string(),
        };
        note!(
            trace,
            "client: write {} by {}: {said}",
            self.token,
            self.control
        );
        let denied = matches!(
            answer,
            Some(Err(WriteError::Refused(_) | WriteError::Unavailable { .. }))
        );
        {
            let mut inner = self.clients.lock();
            inner.acknowledged += u64::from(matches!(answer, Some(Ok(_))));
            let ask = usize::try_from(self.token)
                .ok()
                .and_then(|token| inner.asks.get_mut(token));
            if let Some(ask) = ask {
                ask.pending -= 1;
                ask.denied = denied;
            }
        }
        match &answer {
            Some(Ok(written)) => self.check_written(written),
            Some(Err(WriteError::Refused(_))) if self.must_be_known() => {
                trace.broken(
                    "I4",
                    format!(
                        "write {} was carried out, and refused when it was repeated",
                        self.token
                    ),
                );
            }
            Some(Err(_)) | None => {}
        }
    }

    /// Whether the write was in the log before it was repeated, and still is.
    fn must_be_known(&self) -> bool {
        let truth = self.clients.truth.lock();
        self.repeated && truth.keeps(self.token) && !truth.damaged()
    }

    fn check_written(&self, written: &Written) {
        let trace = &self.clients.trace;
        let shown = self.view.state().version();
        if shown < written.version {
            let (token, version) = (self.token, written.version);
            trace.broken(
                "I1",
                format!(
                    "write {token} was acknowledged at {version}, its control plane shows {shown}"
                ),
            );
        }
        let truth = self.clients.truth.lock();
        if truth.damaged() {
            return;
        }
        match truth.version_of(self.token) {
            Some(version) if version == written.version || version < truth.first => {}
            // Without effect there is no event that a repetition could find.
            Some(version) if written.event.is_none() && written.version < version => {}
            Some(version) => {
                trace.broken(
                    "I4",
                    format!(
                        "write {} is in the log at {version}, the answer says {}",
                        self.token, written.version
                    ),
                );
            }
            None if written.event.is_some() => {
                trace.broken(
                    "I1",
                    format!(
                        "write {} was acknowledged and is not in the log",
                        self.token
                    ),
                );
            }
            None => {}
        }
        if let (Some((key, expected)), Some(event)) = (&self.condition, &written.event) {
            let before = truth.place(event.previous_chain);
            let found = before.and_then(|place| version_in(&place.state, key));
            if found != Some(*expected) {
                trace.broken(
                    "I3",
                    format!(
                        "write {} asked for version {expected}, found {found:?}",
                        self.token
                    ),
                );
            }
        }
    }
}

fn version_in(state: &sluice_schema::state::State, key: &Key) -> Option<Version> {
    state
        .iter()
        .find(|(known, _)| *known == key)
        .map(|(_, entry)| entry.version)
}

fn describe(command: &Command) -> String {
    match command {
        Command::Write(write) => {
            let name = write
                .body
                .get("name")
                .or_else(|| write.body.get("username"));
            let condition = write
                .precondition
                .if_match
                .as_ref()
                .map_or_else(String::new, |tags| format!(" if at {tags:?}"));
            format!(
                "{:?} {} {}{condition}",
                write.action,
                write.kind.name(),
                name.and_then(Value::as_str).unwrap_or("")
            )
        }
        Command::Membership(membership) => format!(
            "{:?} {} consumers, {} groups",
            membership.change,
            membership.consumers.len(),
            membership.groups.len()
        ),
        Command::Apply(plan) => format!("apply {} entities", plan.document.desired.len()),
        Command::Restore(restore) => format!("bring back {} entities", restore.entities.len()),
        Command::Reseal(reseal) => format!("seal {} entities anew", reseal.entities.len()),
    }
}

/// What a client wants, and what must be the case for it.
fn draw(dice: &mut Dice, view: &View, large: Size) -> (Command, Option<(Key, Version)>) {
    let name = format!("s{}", dice.below(NAMES));
    let host = format!("h{}.test", dice.below(1000));
    let (action, body) = match dice.below(100) {
        _ if large == Size::Wide => return (draw_wide(dice), None),
        _ if large == Size::Large => {
            let body = json!({ "username": "large", "custom_id": "x".repeat(LARGE_BYTES) });
            return (write(Kind::Consumer, Action::Create, body, None), None);
        }
        0..35 => (Action::Create, json!({ "name": name, "host": host })),
        35..55 => (
            Action::Update(Selector::Name(name)),
            json!({ "host": host, "retries": dice.below(9) }),
        ),
        55..65 => (
            Action::Replace(Selector::Name(name.clone())),
            json!({ "name": name, "host": host }),
        ),
        65..80 => (Action::Delete(Selector::Name(name)), json!({})),
        80..90 => return draw_conditional(dice, view, &host),
        90..95 => {
            let username = format!("c{}", dice.below(NAMES));
            return (
                write(
                    Kind::Consumer,
                    Action::Create,
                    json!({ "username": username }),
                    None,
                ),
                None,
            );
        }
        _ => return (draw_batch(dice), None),
    };
    (write(Kind::Service, action, body, None), None)
}

fn draw_conditional(dice: &mut Dice, view: &View, host: &str) -> (Command, Option<(Key, Version)>) {
    let state = view.state();
    let services: Vec<_> = state
        .iter()
        .filter(|(key, _)| key.kind.as_str() == "service")
        .collect();
    match dice.pick(&services) {
        Some((key, entry)) => {
            let action = match dice.chance(2500) {
                true => Action::Delete(Selector::Id(key.id)),
                false => Action::Update(Selector::Id(key.id)),
            };
            let command = write(
                Kind::Service,
                action,
                json!({ "host": host }),
                Some(entry.version),
            );
            (command, Some(((*key).clone(), entry.version)))
        }
        None => (
            write(
                Kind::Service,
                Action::Create,
                json!({ "name": "s0", "host": host }),
                None,
            ),
            None,
        ),
    }
}

/// A declarative file that changes many entities in one transaction.
fn draw_batch(dice: &mut Dice) -> Command {
    let count = dice.between(3, 12);
    let services: Vec<String> = (0..count)
        .map(|number| {
            format!(
                r#"{{"name":"b{number}","host":"h{}.test"}}"#,
                dice.below(1000)
            )
        })
        .collect();
    let prune = dice.chance(1500);
    apply_services(&services, prune)
}

/// A declarative file of more than a chunk's size.
fn draw_wide(dice: &mut Dice) -> Command {
    let services: Vec<String> = (0..WIDE_ENTITIES)
        .map(|number| {
            let path = "p".repeat(WIDE_BYTES);
            format!(
                r#"{{"name":"w{number}","host":"h{}.test","path":"/{path}"}}"#,
                dice.below(1000)
            )
        })
        .collect();
    apply_services(&services, false)
}

fn apply_services(services: &[String], prune: bool) -> Command {
    let text = format!(
        r#"{{"_format_version":"3.0","services":[{}]}}"#,
        services.join(",")
    );
    let document = sluice_schema::declare::read(&text).unwrap_or_default();
    Command::Apply(Box::new(Plan {
        workspace: Workspace::DEFAULT,
        document,
        prune,
    }))
}

fn write(kind: Kind, action: Action, body: Value, if_match: Option<Version>) -> Command {
    let body: Map<String, Value> = body.as_object().cloned().unwrap_or_default();
    Command::Write(Box::new(Write {
        kind,
        workspace: Workspace::DEFAULT,
        scope: None,
        action,
        body,
        precondition: if_match.map(Precondition::at).unwrap_or_default(),
    }))
}
