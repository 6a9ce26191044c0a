//! The answers to requests that are not carried out. Everything a client reads as an error is worded here or in the
//! schema's `rejection`; causes inside the program stay in the log.

use super::answer;
use super::endpoint::Verb;
use super::request::Call;
use crate::access::{Act, Reach, Stranger};
use crate::history::HistoryError;
use crate::writer::WriteError;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use sluice_schema::decide::{Mistake, Refusal};
use sluice_schema::rejection::{Code, Rejection};

/// Why a request is not carried out.
#[derive(Debug)]
pub(super) enum Problem {
    /// The command is not valid.
    Rejected(Rejection),
    /// A declarative file is not valid.
    Mistaken(Vec<Mistake>),
    /// Nothing there.
    NotFound,
    /// No schema of that name.
    NoSuchEntity(String),
    /// No plugin of that name.
    NoSuchPlugin(String),
    /// No kind of vault of that name.
    NoSuchVault(String),
    /// Something that is named is not there.
    Missing(String),
    /// The request does not say what it must.
    Bad(String),
    /// The endpoint knows other methods.
    MethodNotAllowed(Vec<Verb>),
    /// The body is of a kind that is not read here.
    UnsupportedMediaType,
    /// The body is not a JSON object.
    NotJson,
    /// The body is not the form that its type says.
    NotMultipart,
    /// The body is not UTF-8.
    NotText,
    /// More fields in a form than are read.
    TooManyArguments,
    /// The body is longer than this.
    TooLarge(usize),
    /// The body did not arrive.
    BodyLost,
    /// The idempotency key stands for another request.
    KeyReused,
    /// A header cannot be understood.
    Header(&'static str, &'static str),
    /// A query argument cannot be understood.
    Argument(&'static str, &'static str),
    /// The request was made for another host.
    ForeignHost(String),
    /// A page of another site made the request.
    CrossSite,
    /// Who asks is not known, and only those who are may.
    Unknowable,
    /// What was shown is nobody's.
    Stranger(Stranger),
    /// Who asks may not do this here.
    Forbidden {
        name: String,
        act: Act,
        reach: Reach,
    },
    /// The keyring is not to be believed, and why.
    Keyring(String),
    /// The log is away; nothing has changed.
    Unavailable(String),
    /// The log is away; it is open whether something has changed.
    Unknown(String),
    /// It would break something; nothing has changed.
    Conflict(String),
    /// More is asked at a time than is carried out; nothing has changed.
    Busy(&'static str),
    /// What is to be brought back does not fit what has come since: in general, and each entity.
    Conflicts(String, Vec<Value>),
    /// It has been there, but can no longer be told.
    Gone(String),
    /// A policy demands a reason for every change.
    NoReason,
    /// Our mistake; the text is for the log.
    Internal(String),
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(Refusal::Rejected(rejection)) => rejection.into(),
            WriteError::Refused(Refusal::Mistaken(mistakes)) => Self::Mistaken(mistakes),
            WriteError::Refused(refusal @ Refusal::Conflicting(_)) => {
                Self::Conflict(refusal.to_string())
            }
            WriteError::Reused => Self::KeyReused,
            WriteError::Unavailable { reason } => Self::Unavailable(reason),
            WriteError::Unknown { reason } => Self::Unknown(reason),
        }
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        let reason = error.to_string();
        match error {
            HistoryError::Building(..) | HistoryError::Log(_) | HistoryError::Damaged(..) => {
                Self::Unavailable(reason)
            }
            HistoryError::NotYet(..) => Self::Missing(reason),
            HistoryError::TooEarly(_) | HistoryError::NoSnapshot | HistoryError::Trimmed(_) => {
                Self::Gone(reason)
            }
            HistoryError::Failed(_) => Self::Internal(reason),
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        // Kong's Admin API says no more than this of what is not there.
        if rejection.code == Code::NotFound {
            Self::NotFound
        } else {
            Self::Rejected(rejection)
        }
    }
}

impl Problem {
    /// Logs what an operator should know of.
    pub(super) fn log(&self, call: &Call<'_>) {
        let (request_id, path) = (&call.request_id, call.template());
        match self {
            Self::Internal(reason) => {
                tracing::error!(reason, request_id, path, "could not answer a request");
            }
            Self::Unavailable(reason) | Self::Unknown(reason) => {
                tracing::warn!(reason, request_id, path, "the log is not available");
            }
            Self::ForeignHost(host) => {
                tracing::warn!(host, request_id, path, "refused a request for another host");
            }
            Self::CrossSite => {
                tracing::warn!(request_id, path, "refused a request of another site")
            }
            Self::Stranger(stranger) => {
                tracing::warn!(?stranger, request_id, path, "refused a stranger");
            }
            Self::Forbidden { name, .. } => {
                tracing::warn!(name, request_id, path, "refused what was not granted");
            }
            Self::Rejected(_)
            | Self::Mistaken(_)
            | Self::NotFound
            | Self::NoSuchEntity(_)
            | Self::NoSuchPlugin(_)
            | Self::NoSuchVault(_)
            | Self::Missing(_)
            | Self::Bad(_)
            | Self::MethodNotAllowed(_)
            | Self::UnsupportedMediaType
            | Self::NotJson
            | Self::NotText
            | Self::NotMultipart
            | Self::TooManyArguments
            | Self::TooLarge(_)
            | Self::BodyLost
            | Self::KeyReused
            | Self::Header(..)
            | Self::Argument(..)
            | Self::Unknowable
            | Self::Busy(_)
            | Self::Conflict(_)
            | Self::Conflicts(..)
            | Self::Gone(_)
            | Self::NoReason => {}
            Self::Keyring(reason) => {
                tracing::warn!(reason, request_id, path, "refused a keyring");
            }
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> Response {
        let mut response = answer::json(self.status(), &self.body());
        match self {
            Self::MethodNotAllowed(verbs) => {
                answer::set(response.headers_mut(), "allow", &answer::allow(verbs));
            }
            Self::Unavailable(_) | Self::Unknown(_) | Self::Busy(_) => {
                answer::set(response.headers_mut(), "retry-after", "1");
            }
            Self::Unknowable | Self::Stranger(_) => {
                let challenge = "Bearer realm=\"sluice\"";
                answer::set(response.headers_mut(), "www-authenticate", challenge);
            }
            Self::Rejected(_)
            | Self::Mistaken(_)
            | Self::NotFound
            | Self::NoSuchEntity(_)
            | Self::NoSuchPlugin(_)
            | Self::NoSuchVault(_)
            | Self::Missing(_)
            | Self::Bad(_)
            | Self::UnsupportedMediaType
            | Self::NotJson
            | Self::NotText
            | Self::NotMultipart
            | Self::TooManyArguments
            | Self::TooLarge(_)
            | Self::BodyLost
            | Self::KeyReused
            | Self::Header(..)
            | Self::Argument(..)
            | Self::ForeignHost(_)
            | Self::CrossSite
            | Self::Forbidden { .. }
            | Self::Conflict(_)
            | Self::Conflicts(..)
            | Self::Gone(_)
            | Self::NoReason
            | Self::Keyring(_)
            | Self::Internal(_) => {}
        }
        response
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Rejected(rejection) => StatusCode::from_u16(rejection.code.http_status())
                .unwrap_or(StatusCode::BAD_REQUEST),
            Self::NotFound
            | Self::NoSuchEntity(_)
            | Self::NoSuchPlugin(_)
            | Self::NoSuchVault(_)
            | Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Mistaken(_)
            | Self::Bad(_)
            | Self::NotJson
            | Self::NotText
            | Self::NotMultipart
            | Self::TooManyArguments
            | Self::Header(..)
            | Self::Argument(..)
            | Self::NoReason
            | Self::Keyring(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyLost => StatusCode::REQUEST_TIMEOUT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ForeignHost(_) | Self::CrossSite | Self::Forbidden { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Unknowable | Self::Stranger(_) => StatusCode::UNAUTHORIZED,
            Self::Unavailable(_) | Self::Unknown(_) | Self::Busy(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Conflict(_) | Self::Conflicts(..) => StatusCode::CONFLICT,
            Self::Gone(_) => StatusCode::GONE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn body(&self) -> Value {
        let message = match self {
            Self::Rejected(rejection) => return rejection.body(),
            Self::Mistaken(mistakes) => return mistaken(mistakes),
            Self::NotFound => "Not found".to_owned(),
            Self::NoSuchEntity(name) => format!("No entity named '{name}'"),
            Self::NoSuchPlugin(name) => format!("No plugin named '{name}'"),
            Self::NoSuchVault(name) => format!("No vault named '{name}'"),
            Self::MethodNotAllowed(_) => "Method not allowed".to_owned(),
            Self::UnsupportedMediaType => "Unsupported content type: use application/json, \
                                           application/x-www-form-urlencoded or \
                                           multipart/form-data"
                .to_owned(),
            Self::NotJson => "Cannot parse JSON body".to_owned(),
            Self::NotMultipart => "Cannot parse multipart body".to_owned(),
            Self::NotText => "The body is not UTF-8 text".to_owned(),
            Self::TooManyArguments => "Too many arguments".to_owned(),
            Self::TooLarge(bytes_max) => format!("The body is larger than {bytes_max} bytes"),
            Self::BodyLost => "The body did not arrive in time or was cut off".to_owned(),
            Self::KeyReused => "This Idempotency-Key was used before, by a request with another \
                                method, path, query or body: repeat that one unchanged, or use \
                                a new key"
                .to_owned(),
            Self::Header(name, expected) => format!("Invalid header {name}: expected {expected}"),
            Self::Argument(name, expected) => {
                format!("Invalid query argument '{name}': expected {expected}")
            }
            Self::ForeignHost(host) => format!(
                "This Admin API does not answer for the host '{host}': use its address or \
                 localhost, or add the name to its allowed hosts"
            ),
            Self::CrossSite => "Changes from pages of another site are not allowed: add the \
                                page's host to the allowed hosts"
                .to_owned(),
            Self::Unknowable => {
                "Unauthorized: show a token (Authorization: Bearer, or Kong-Admin-Token) or a \
                                 client certificate"
                    .to_owned()
            }
            Self::Stranger(stranger) => stranger.to_string(),
            Self::Forbidden { name, act, reach } => {
                format!("{name}, you do not have permission to {act} {reach}")
            }
            Self::Keyring(reason) => format!("The keyring is refused: {reason}"),
            Self::Unavailable(reason) => {
                format!("The configuration cannot be changed or its log read now: {reason}")
            }
            Self::Unknown(reason) => format!(
                "It is not known whether the change was stored; read it back, or repeat the \
                 request with the same Idempotency-Key: {reason}"
            ),
            Self::Busy(reason) => (*reason).to_owned(),
            Self::Conflict(reason)
            | Self::Gone(reason)
            | Self::Missing(reason)
            | Self::Bad(reason) => reason.clone(),
            Self::Conflicts(message, conflicts) => {
                return json!({ "message": message, "conflicts": conflicts });
            }
            Self::NoReason => return no_reason().body(),
            Self::Internal(_) => "An unexpected error occurred".to_owned(),
        };
        json!({ "message": message })
    }
}

/// Kong's error of a field that must be given.
fn no_reason() -> Rejection {
    let message =
        "say why in the header Sluice-Reason: this control plane demands a reason for every change";
    Rejection::field("reason", message)
}

/// Kong's error of an invalid declarative file, and all mistakes with their places.
fn mistaken(mistakes: &[Mistake]) -> Value {
    let code = Code::DeclarativeConfig;
    let first = mistakes
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let message = match mistakes.len() {
        1 => format!("declarative config is invalid: {first}"),
        count => format!("declarative config is invalid: {count} mistakes, first {first}"),
    };
    json!({
        "code": code.number(),
        "name": code.name(),
        "message": message,
        "mistakes": places(mistakes),
    })
}

/// Mistakes in a file, or warnings about it, with their places.
pub(super) fn places(mistakes: &[Mistake]) -> Value {
    let place = |mistake: &Mistake| {
        json!({
            "line": mistake.at.line,
            "column": mistake.at.column,
            "path": mistake.path,
            "message": mistake.message,
        })
    };
    mistakes.iter().map(place).collect()
}

/// The page size is not a number.
pub(super) fn size_not_a_number() -> Problem {
    Problem::Rejected(Rejection::new(Code::InvalidSize, "size must be a number"))
}

/// The page size is out of range.
pub(super) fn size_out_of_range(max: usize) -> Problem {
    let message = format!("size must be an integer between 1 and {max}");
    Problem::Rejected(Rejection::new(Code::InvalidSize, message))
}

/// The offset is not one of ours.
pub(super) fn invalid_offset(offset: &str) -> Problem {
    let message = format!("'{offset}' is not a valid offset: bad encoding");
    Problem::Rejected(Rejection::new(Code::InvalidOffset, message))
}

/// The filter by tags cannot be understood.
pub(super) fn invalid_tags() -> Problem {
    invalid_tags_option("invalid filter syntax")
}

/// The filter has too many tags.
pub(super) fn too_many_tags(max: usize) -> Problem {
    invalid_tags_option(&format!("cannot query more than {max} tags"))
}

fn invalid_tags_option(error: &str) -> Problem {
    let message = format!("invalid option (tags: {error})");
    let options = Map::from_iter([("tags".to_owned(), Value::from(error))]);
    Problem::Rejected(Rejection {
        fields: options,
        ..Rejection::new(Code::InvalidOptions, message)
    })
}
