//! A request taken apart: query, headers, body.

use super::Admin;
use super::error::Problem;
use crate::writer::Request;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};
use sluice_schema::check::form_value;
use sluice_schema::event::Actor;
use sluice_schema::kind::{Kind, Schema};
use sluice_schema::state::State;
use sluice_schema::version::Version;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The longest body of one entity.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest declarative file.
pub(super) const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Fields of a form: Kong's.
const ARGUMENTS_MAX: usize = 1000;
/// What goes into an event from a header.
const HEADER_BYTES_MAX: usize = 1024;
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Who asks, if nobody says.
const ANONYMOUS: &str = "anonymous";

/// A request, without its body, and the state it is answered from.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) admin: &'a Admin,
    pub(super) head: Parts,
    pub(super) state: Arc<State>,
    pub(super) query: Query,
    pub(super) request_id: String,
}

impl<'a> Call<'a> {
    pub(super) fn new(admin: &'a Admin, head: Parts) -> Self {
        let state = admin.control_plane.view.state();
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let given = head
            .headers
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        let fitting = given.filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()));
        let request_id = fitting.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
        Self {
            admin,
            head,
            state,
            query,
            request_id,
        }
    }

    /// Who asks and why.
    pub(super) fn request(&self) -> Result<Request, Problem> {
        let name = self
            .header("sluice-actor")?
            .unwrap_or_else(|| ANONYMOUS.to_owned());
        let address = self.head.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Request {
            actor: Actor {
                name,
                via: "admin-api".to_owned(),
                address: address.map(|ConnectInfo(address)| address.ip().to_string()),
            },
            reason: self.header("sluice-reason")?,
            request_id: Some(self.request_id.clone()),
            idempotency_key: self.header("idempotency-key")?,
            router_flavor: self.admin.control_plane.info.router_flavor,
        })
    }

    /// The descriptor of a kind, as this control plane has it.
    pub(super) fn schema(&self, kind: Kind) -> &'static Schema {
        self.admin.control_plane.info.router_flavor.schema(kind)
    }

    /// What `If-Match` asks for.
    pub(super) fn if_match(&self) -> Result<IfMatch, Problem> {
        let Some(text) = self.header("if-match")? else {
            return Ok(IfMatch::Anything);
        };
        let text = text.trim();
        if text == "*" {
            return Ok(IfMatch::Present);
        }
        let tag = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let version = tag.parse().map(Version);
        let version = version
            .map_err(|_| Problem::Header("If-Match", "* or one ETag this Admin API gave out"))?;
        Ok(IfMatch::Version(version))
    }

    fn header(&self, name: &'static str) -> Result<Option<String>, Problem> {
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
            Ok(Ok(body)) => Ok(body.to_bytes()),
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
            "application/x-www-form-urlencoded" => {
                let pairs: Vec<_> = form_urlencoded::parse(&bytes)
                    .into_owned()
                    .take(ARGUMENTS_MAX + 1)
                    .collect();
                if pairs.len() > ARGUMENTS_MAX {
                    return Err(Problem::TooManyArguments);
                }
                Ok(form_value(schema, &pairs, before().as_ref()))
            }
            _ => Err(Problem::UnsupportedMediaType),
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

/// What `If-Match` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IfMatch {
    /// Nothing.
    Anything,
    /// That the entity is there.
    Present,
    /// That the entity is at this version.
    Version(Version),
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
