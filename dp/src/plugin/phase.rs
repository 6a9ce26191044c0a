//! What a plugin is: the phases of a request it may have a part in.

use super::change::Change;
use super::context::Record;
use super::registry::Entity;
use super::reply::Reply;
use super::request::{Access, Rewrite};
use super::state::Lasting;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::pin::Pin;

/// A plugin: a prepared configuration, and what it does in each phase.
///
/// Registered by a line in [`STANDARD`](super::STANDARD). Methods run on the thread of the request; only
/// [`wait`](Self::wait) may take time.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// The `name` of its entities.
    const NAME: &'static str;
    /// Higher runs earlier, in every phase; equal priorities run by name, descending. Kong's numbers.
    const PRIORITY: i32;
    /// The phases it has a part in. Others are not called.
    const PHASES: Phases;
    /// The entity's `config`, which the control plane has checked and filled with defaults.
    type Config: DeserializeOwned;
    /// What outlives configuration; `()` if nothing does. Plugins that name one type share one value.
    type State: Lasting + Default;

    /// Makes the prepared form: once for each change of the entity, off the requests' way. No IO.
    ///
    /// # Errors
    /// Why the configuration cannot be used, for the operator. The last good form stays in use. Must not quote secrets.
    fn compile(config: Self::Config, entity: &Entity<'_>) -> Result<Self, String>;

    /// An entity was created, updated or deleted: called exactly once for each, in the order of versions. For created and
    /// updated ones before the first request that sees the change, for deleted ones after the last request has begun that
    /// does not. Requests that began before go on with the form they have.
    fn changed(_state: &Self::State, _change: Change<'_, Self>) {}

    /// Before routing. Only global instances run.
    fn rewrite(&self, _request: &mut Rewrite<'_>) -> Flow {
        Flow::Continue
    }

    /// After routing, before the upstream is called.
    fn access(&self, _request: &mut Access<'_>) -> Step {
        Step::Continue
    }

    /// What follows [`Step::Wait`]: the same phase, with time. A plugin that never gives `Wait` needs none.
    fn wait<'a>(&'a self, _request: &'a mut Access<'_>) -> Waiting<'a> {
        tracing::error!(plugin = Self::NAME, "a plugin waits without a `wait`");
        // To go on would let in what the plugin meant to judge.
        let answer = Answer::message(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error occurred",
        );
        Box::pin(std::future::ready(Flow::Answer(answer)))
    }

    /// The response's head is here, from the upstream or made by the gateway. Its body can be changed from here, too:
    /// [`Reply::filter`].
    fn response(&self, _reply: &mut Reply<'_>) {}

    /// The response is at its end. Must be quick: it puts what it has to say on a queue.
    fn log(&self, _record: &Record<'_>) {}
}

/// A set of phases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases(u8);

impl Phases {
    /// None.
    pub const NONE: Self = Self(0);
    /// [`Plugin::rewrite`]
    pub const REWRITE: Self = Self(1);
    /// [`Plugin::access`]
    pub const ACCESS: Self = Self(1 << 1);
    /// [`Plugin::response`]
    pub const RESPONSE: Self = Self(1 << 2);
    /// [`Plugin::log`]
    pub const LOG: Self = Self(1 << 3);
    /// Those that come after the upstream was asked.
    pub(crate) const LATER: Self = Self::RESPONSE.and(Self::LOG);

    /// The names of those that are in this set, in the order in which they come.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (Self::REWRITE, "rewrite"),
            (Self::ACCESS, "access"),
            (Self::RESPONSE, "response"),
            (Self::LOG, "log"),
        ];
        let own = all.into_iter().filter(|(phase, _)| self.overlap(*phase));
        own.map(|(_, name)| name).collect()
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is in this set.
    pub const fn overlap(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What follows a plugin's access phase.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// The next plugin, then the upstream.
    Continue,
    /// This answer; neither further plugins nor the upstream are called.
    Answer(Answer),
    /// [`Plugin::wait`].
    Wait,
}

/// What follows a plugin that cannot wait (any more).
#[derive(Debug)]
#[must_use]
pub enum Flow {
    /// The next plugin, then the upstream.
    Continue,
    /// This answer; neither further plugins nor the upstream are called.
    Answer(Answer),
}

/// A wait, and what follows it.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = Flow> + 'a>>;

impl From<Flow> for Step {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::Continue => Self::Continue,
            Flow::Answer(answer) => Self::Answer(answer),
        }
    }
}

/// An answer a plugin gives in place of the upstream. The proxy adds the common headers.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub content: Content,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of an [`Answer`].
#[derive(Debug)]
pub enum Content {
    /// A message in the format of the gateway's own errors, as the client accepts it.
    Message(Cow<'static, str>),
    /// This; its type is among the headers.
    Bytes(Bytes),
}

impl Answer {
    /// An answer in the format of the gateway's own errors.
    pub fn message(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            content: Content::Message(message.into()),
            headers: Vec::new(),
        }
    }

    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            content: Content::Bytes(Bytes::new()),
            headers: Vec::new(),
        }
    }

    /// An answer with this body.
    pub fn bytes(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content: Content::Bytes(body.into()),
            headers: vec![(header::CONTENT_TYPE, content_type)],
        }
    }

    /// An answer of JSON.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        let kind = HeaderValue::from_static("application/json; charset=utf-8");
        Self::bytes(status, kind, body.to_string())
    }

    /// The same with a further header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
