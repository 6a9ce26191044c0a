//! A request taken apart: query, headers, body.

use super::Admin;
use super::endpoint::{Location, Verb};
use super::error::Problem;
use super::inside::Inside;
use super::tls::Peer;
use crate::access::{Act, Caller, Grants, Reach};
use crate::traces::WriteTrace;
use crate::writer::{Idempotency, Request};
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use futures::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};
use sluice_replica::environment::Environment;
use sluice_schema::check::form_value;
use sluice_schema::decide::{Precondition, Tags};
use sluice_schema::entity::Workspace;
use sluice_schema::event::Actor;
use sluice_schema::kind::{Kind, Schema};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// The longest body of one entity.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest declarative file.
pub(super) const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What stands for a path that names nothing.
pub(super) const NO_SUCH_PATH: &str = "(no such path)";
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Fields of a form: Kong's.
const ARGUMENTS_MAX: usize = 1000;
/// What goes into an event from a header.
const HEADER_BYTES_MAX: usize = 1024;
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Who asks, if nobody says.
const ANONYMOUS: &str = "anonymous";
const VIA: &str = "admin-api";

/// The way a request came, if it was not HTTP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Via(pub(super) &'static str);

/// A request, without its body, and the state it is answered from.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) admin: &'a Admin,
    pub(super) head: Parts,
    /// What it sees; the workspace is `default` until the path has been read.
    pub(super) inside: Inside,
    /// Who asks; nobody who may anything until that was looked up.
    pub(super) caller: Caller,
    pub(super) query: Query,
    pub(super) request_id: String,
    /// The trace it is part of, if it is one that may change something.
    pub(super) trace: WriteTrace,
    /// Whether the caller may do what is asked.
    pub(super) admitted: bool,
    /// What has been read of the body.
    body: Mutex<blake3::Hasher>,
}

impl<'a> Call<'a> {
    pub(super) fn new(admin: &'a Admin, head: Parts) -> Self {
        let inside = Inside {
            state: admin.control_plane.view.state(),
            workspace: Workspace::DEFAULT,
            masked: true,
        };
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let given = head
            .headers
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        let fitting = given.filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()));
        let request_id = fitting.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
        let trace = match Verb::parse(&head.method) {
            None | Some(Verb::Get) => WriteTrace::default(),
            Some(Verb::Post | Verb::Put | Verb::Patch | Verb::Delete) => {
                let traces = &admin.control_plane.traces;
                traces.begin(&head.headers, Environment::system())
            }
        };
        Self {
            admin,
            head,
            inside,
            caller: Caller {
                name: None,
                grants: Grants::default(),
            },
            query,
            request_id,
            trace,
            admitted: false,
            body: Mutex::default(),
        }
    }

    /// The path without what varies in it: keys are found by paths, too.
    pub(super) fn template(&self) -> String {
        let template = Location::template(self.head.uri.path());
        template.unwrap_or_else(|| NO_SUCH_PATH.to_owned())
    }

    /// Who asks and why.
    pub(super) fn request(&self) -> Result<Request, Problem> {
        let said = self.header("sluice-actor")?;
        let via = self.via();
        let (name, via) = match (&self.caller.name, said) {
            (None, said) => (said.unwrap_or_else(|| ANONYMOUS.to_owned()), via.to_owned()),
            (Some(name), None) => (name.to_string(), via.to_owned()),
            // Whose token it is is known; for whom it was used is what its owner says.
            (Some(name), Some(said)) => (name.to_string(), format!("{via} for {said}")),
        };
        let peer = self.head.extensions.get::<ConnectInfo<Peer>>();
        let address = peer.map(|ConnectInfo(peer)| peer.address.ip().to_string());
        let reason = self.header("sluice-reason")?;
        let demanded = self.admin.control_plane.info.require_reason;
        if demanded && reason.is_none() && !self.query.flag("dry_run")? {
            return Err(Problem::NoReason);
        }
        Ok(Request {
            actor: Actor { name, via, address },
            reason,
            request_id: Some(self.request_id.clone()),
            idempotency: self.idempotency()?,
            router_flavor: self.admin.control_plane.info.router_flavor,
            trace: self.trace.clone(),
        })
    }

    /// The way it came.
    pub(super) fn via(&self) -> &'static str {
        let via = self.head.extensions.get::<Via>();
        via.map_or(VIA, |Via(name)| *name)
    }

    /// Whether the caller may do this; `Reach::Workspace` is for those that the path does not name.
    ///
    /// # Errors
    /// If not.
    pub(super) fn permit(&self, act: Act, reach: Reach) -> Result<(), Problem> {
        if self.caller.grants.allow(act, &reach) {
            return Ok(());
        }
        Err(match &self.caller.name {
            Some(name) => Problem::Forbidden {
                name: name.to_string(),
                act,
                reach,
            },
            None => Problem::Unknowable,
        })
    }

    /// The descriptor of a kind, as this control plane has it.
    pub(super) fn schema(&self, kind: Kind) -> &'static Schema {
        self.admin.control_plane.info.router_flavor.schema(kind)
    }

    /// What `If-Match` and `If-None-Match` ask for.
    pub(super) fn precondition(&self) -> Result<Precondition, Problem> {
        Ok(Precondition {
            // A weak tag never matches strongly.
            if_match: self.tags("if-match", |tag| (!tag.starts_with("W/")).then_some(tag))?,
            if_none_match: self.tags("if-none-match", |tag| {
                Some(tag.strip_prefix("W/").unwrap_or(tag))
            })?,
        })
    }

    /// The tags in a header. Those without quotes are taken as they are.
    fn tags(
        &self,
        name: &'static str,
        usable: fn(&str) -> Option<&str>,
    ) -> Result<Option<Tags>, Problem> {
        let mut values = self.head.headers.get_all(name).iter().peekable();
        if values.peek().is_none() {
            return Ok(None);
        }
        let mut tags = Vec::new();
        for value in values {
            let text = value.to_str().map_err(|_| Problem::Header(name, "tags"))?;
            for tag in text.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Some(Tags::Any));
                }
                let tag = usable(tag).map(|tag| tag.trim_matches('"').to_owned());
                tags.extend(tag);
            }
        }
        Ok(Some(Tags::Of(tags)))
    }

    /// The key that makes a repetition answer as the first request did, with a hash of what is asked.
    fn idempotency(&self) -> Result<Option<Idempotency>, Problem> {
        let Some(key) = self.header("idempotency-key")? else {
            return Ok(None);
        };
        let mut hasher = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = std::mem::take(&mut *hasher);
        for part in [self.head.method.as_str(), &self.head.uri.to_string()] {
            hasher.update(&[0]);
            hasher.update(part.as_bytes());
        }
        for name in ["if-match", "if-none-match", "content-type"] {
            hasher.update(&[0]);
            if let Some(value) = self.head.headers.get(name) {
                hasher.update(value.as_bytes());
            }
        }
        // It becomes part of the event's id, and bodies may hold secrets that somebody could guess.
        let ring = self.admin.control_plane.view.state().seals().ring();
        let content = ring.veil(*hasher.finalize().as_bytes());
        Ok(Some(Idempotency { key, content }))
    }

    /// The text of a header.
    pub(super) fn header(&self, name: &'static str) -> Result<Option<String>, Problem> {
        let Some(value) = self.head.headers.get(name) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value.as_bytes()).ok().map(str::trim);
        match text {
            Some(text) if text.len() <= HEADER_BYTES_MAX => {
                Ok((!text.is_empty()).then(|| text.to_owned()))
            }
            Some(_) | None => Err(Problem::Header(name, "UTF-8 text of at most 1024 bytes")),
        }
    }

    /// The whole body.
    pub(super) async fn read(&self, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
        let announced = self
            .head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|text| text.to_str().ok());
        let announced = announced.and_then(|text| text.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > bytes_max) {
            return Err(Problem::TooLarge(bytes_max));
        }
        let collected = Limited::new(body, bytes_max).collect();
        match tokio::time::timeout(BODY_TIMEOUT, collected).await {
            Ok(Ok(body)) => {
                let bytes = body.to_bytes();
                if self.head.headers.contains_key("idempotency-key") {
                    let mut hasher = self.body.lock().unwrap_or_else(PoisonError::into_inner);
                    hasher.update(&bytes);
                }
                Ok(bytes)
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(bytes_max)),
            Ok(Err(_)) | Err(_) => Err(Problem::BodyLost),
        }
    }

    /// The fields in the body, typed by `schema` if it is a form. `before` is the entity that is changed, if any.
    pub(super) async fn fields(
        &self,
        body: Body,
        schema: &Schema,
        before: impl FnOnce() -> Option<Map<String, Value>>,
    ) -> Result<Map<String, Value>, Problem> {
        let bytes = self.read(body, BODY_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Ok(Map::new());
        }
        match self.content_type()?.as_str() {
            "application/json" => serde_json::from_slice(&bytes).map_err(|_| Problem::NotJson),
            "application/x-www-form-urlencoded" | "multipart/form-data" => {
                let pairs = self.pairs(bytes).await?;
                Ok(form_value(schema, &pairs, before().as_ref()))
            }
            _ => Err(Problem::UnsupportedMediaType),
        }
    }

    /// The fields of a form, of either kind.
    pub(super) async fn pairs(&self, bytes: Bytes) -> Result<Vec<(String, String)>, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        if self.content_type()? == "application/x-www-form-urlencoded" {
            let parsed = form_urlencoded::parse(&bytes).into_owned();
            pairs.extend(parsed.take(ARGUMENTS_MAX + 1));
        } else {
            let content_type = self.header("content-type")?.unwrap_or_default();
            let boundary = multer::parse_boundary(content_type);
            let boundary = boundary.map_err(|_| Problem::NotMultipart)?;
            let whole = stream::once(async { Ok::<_, Infallible>(bytes) });
            let mut parts = multer::Multipart::new(whole, boundary);
            while pairs.len() <= ARGUMENTS_MAX
                && let Some(part) = parts
                    .next_field()
                    .await
                    .map_err(|_| Problem::NotMultipart)?
            {
                let name = part.name().ok_or(Problem::NotMultipart)?.to_owned();
                let content = part.bytes().await.map_err(|_| Problem::NotMultipart)?;
                let text = String::from_utf8(content.into()).map_err(|_| Problem::NotText)?;
                pairs.push((name, text));
            }
        }
        match pairs.len() > ARGUMENTS_MAX {
            true => Err(Problem::TooManyArguments),
            false => Ok(pairs),
        }
    }

    /// The media type of the body, in lowercase and without parameters.
    pub(super) fn content_type(&self) -> Result<String, Problem> {
        let mut values = self.head.headers.get_all(CONTENT_TYPE).iter();
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::Header("Content-Type", "only one"));
        }
        let text = first
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default();
        Ok(essence.trim().to_ascii_lowercase())
    }
}

/// The decoded query.
#[derive(Clone, Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes()).into_owned();
        Self(pairs.take(ARGUMENTS_MAX).collect())
    }

    /// The first value with this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All names and values, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether something is switched on.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true" | "") => Ok(true),
            Some(_) => Err(Problem::Argument(name, "0 or 1")),
        }
    }

    /// A number.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| Problem::Argument(name, "a whole number"))
    }
}
