//! The configuration of sessions, prepared.

use super::data::{Due, Session, Timeouts};
use super::seal::Sealer;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    pub(super) secret: Option<String>,
    pub(super) storage: String,
    pub(super) audience: String,
    idling_timeout: f64,
    rolling_timeout: f64,
    absolute_timeout: f64,
    pub(super) cookie_name: String,
    cookie_path: String,
    cookie_domain: Option<String>,
    cookie_same_site: String,
    cookie_http_only: bool,
    cookie_secure: bool,
    pub(super) remember: bool,
    pub(super) remember_cookie_name: String,
    remember_rolling_timeout: f64,
    remember_absolute_timeout: f64,
    pub(super) response_headers: Vec<Told>,
    pub(super) request_headers: Vec<Told>,
    pub(super) read_body_for_logout: bool,
    logout_methods: Vec<String>,
    pub(super) logout_query_arg: String,
    pub(super) logout_post_arg: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            secret: None,
            storage: "cookie".into(),
            audience: "default".into(),
            idling_timeout: 900.0,
            rolling_timeout: 3600.0,
            absolute_timeout: 86_400.0,
            cookie_name: "session".into(),
            cookie_path: "/".into(),
            cookie_domain: None,
            cookie_same_site: "Strict".into(),
            cookie_http_only: true,
            cookie_secure: true,
            remember: false,
            remember_cookie_name: "remember".into(),
            remember_rolling_timeout: 604_800.0,
            remember_absolute_timeout: 2_592_000.0,
            response_headers: Vec::new(),
            request_headers: Vec::new(),
            read_body_for_logout: false,
            logout_methods: vec!["POST".into(), "DELETE".into()],
            logout_query_arg: "session_logout".into(),
            logout_post_arg: "session_logout".into(),
        }
    }
}

impl Fields {
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            idling: seconds(self.idling_timeout),
            rolling: seconds(self.rolling_timeout),
            absolute: seconds(self.absolute_timeout),
        }
    }

    /// Those of the second cookie, which outlives the browser.
    pub(super) fn remembered(&self) -> Timeouts {
        Timeouts {
            idling: 0,
            rolling: seconds(self.remember_rolling_timeout),
            absolute: seconds(self.remember_absolute_timeout),
        }
    }

    pub(super) fn methods(&self) -> Vec<Method> {
        let methods = self.logout_methods.iter();
        methods.filter_map(|method| method.parse().ok()).collect()
    }

    /// What follows a cookie's value.
    pub(super) fn attributes(&self) -> String {
        let mut text = format!("; Path={}", self.cookie_path);
        if let Some(domain) = self
            .cookie_domain
            .as_ref()
            .filter(|domain| *domain != "localhost")
        {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        if self.cookie_same_site != "Default" {
            text.push_str("; SameSite=");
            text.push_str(&self.cookie_same_site);
        }
        if self.cookie_secure {
            text.push_str("; Secure");
        }
        if self.cookie_http_only {
            text.push_str("; HttpOnly");
        }
        text
    }
}

fn seconds(timeout: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is out of range becomes the nearest number in it"
    )]
    let seconds = timeout as u64;
    seconds
}

/// Something about a session that is told in a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Told {
    Id,
    Audience,
    Subject,
    Timeout,
    IdlingTimeout,
    RollingTimeout,
    AbsoluteTimeout,
}

impl Told {
    fn header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::Id => "session-id",
            Self::Audience => "session-audience",
            Self::Subject => "session-subject",
            Self::Timeout => "session-timeout",
            Self::IdlingTimeout => "session-idling-timeout",
            Self::RollingTimeout => "session-rolling-timeout",
            Self::AbsoluteTimeout => "session-absolute-timeout",
        })
    }

    /// Puts these among headers, or takes them away if there is no session.
    pub(super) fn tell(
        told: &[Self],
        headers: &mut HeaderMap,
        of: Option<(&Session, Timeouts, &str)>,
        now: u64,
    ) {
        for told in told {
            let value = of.and_then(|(session, timeouts, audience)| {
                let [idling, rolling, absolute] = session.left(timeouts, now);
                let least = [idling, rolling, absolute]
                    .into_iter()
                    .filter(|left| *left > 0)
                    .min();
                match told {
                    Self::Id => HeaderValue::from_str(&session.id).ok(),
                    Self::Audience => HeaderValue::from_str(audience).ok(),
                    Self::Subject => HeaderValue::from_str(&session.subject).ok(),
                    Self::Timeout => Some(least.unwrap_or_default().into()),
                    Self::IdlingTimeout => Some(idling.into()),
                    Self::RollingTimeout => Some(rolling.into()),
                    Self::AbsoluteTimeout => Some(absolute.into()),
                }
            });
            match value {
                Some(value) => headers.insert(told.header(), value),
                None => headers.remove(told.header()),
            };
        }
    }
}

/// One of the two cookies.
#[derive(Debug)]
pub(super) struct Cookie {
    pub(super) name: String,
    pub(super) timeouts: Timeouts,
    /// Whether it outlives the browser.
    pub(super) persistent: bool,
    pub(super) sealer: Sealer,
    pub(super) attributes: String,
}

impl Cookie {
    /// The session in one of these values, if it is not over, and what is to be done about it.
    pub(super) fn open<'h>(
        &self,
        mut values: impl Iterator<Item = &'h str>,
        now: u64,
    ) -> Option<(Session, Due)> {
        values.find_map(|value| {
            let session: Session = serde_json::from_slice(&self.sealer.open(value)?).ok()?;
            let due = session.due(self.timeouts, now);
            (due != Due::End).then_some((session, due))
        })
    }

    /// The header that sets it; `None` if there is no room for that session.
    pub(super) fn set(&self, session: &Session) -> Option<HeaderValue> {
        let content = serde_json::to_vec(session).ok()?;
        let Some(sealed) = self.sealer.seal(&content) else {
            tracing::warn!(
                plugin = "session",
                "a session is too large for a cookie and is not kept"
            );
            return None;
        };
        let age = match (self.persistent, self.timeouts.rolling) {
            (false, _) | (true, 0) => String::new(),
            (true, seconds) => format!("; Max-Age={seconds}"),
        };
        let text = format!("{}={sealed}{}{age}", self.name, self.attributes);
        HeaderValue::try_from(text).ok()
    }

    /// The header that takes it away.
    pub(super) fn unset(&self) -> Option<HeaderValue> {
        let over = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:01 GMT";
        HeaderValue::try_from(format!("{}={}{over}", self.name, self.attributes)).ok()
    }
}
