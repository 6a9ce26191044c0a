//! `rate-limiting`: how many requests an identity may send in each period.
//!
//! Counts belong to the plugin's entity, and outlive its changes. Where they are: [`limiter`](super::limiter).
//!
//! Deviations: with `policy: redis` and `sync_rate` -1 asking and counting are one step, so that no more requests than the limit
//! pass over all nodes; Kong counts after it has let a request in, and so lets in more.

use super::counters::Key;
use super::limiter::{Limiter, Place, Policy, Server, Unavailable};
use super::period::{Limits, PERIODS, Period};
use super::subject::By;
use super::windows::Usage;
use crate::plugin::{Access, Answer, Change, Entity, Flow, Phases, Plugin, Step, Waiting};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use uuid::Uuid;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const LIMIT_OF: [HeaderName; 6] = [
    HeaderName::from_static("x-ratelimit-limit-second"),
    HeaderName::from_static("x-ratelimit-limit-minute"),
    HeaderName::from_static("x-ratelimit-limit-hour"),
    HeaderName::from_static("x-ratelimit-limit-day"),
    HeaderName::from_static("x-ratelimit-limit-month"),
    HeaderName::from_static("x-ratelimit-limit-year"),
];
const REMAINING_OF: [HeaderName; 6] = [
    HeaderName::from_static("x-ratelimit-remaining-second"),
    HeaderName::from_static("x-ratelimit-remaining-minute"),
    HeaderName::from_static("x-ratelimit-remaining-hour"),
    HeaderName::from_static("x-ratelimit-remaining-day"),
    HeaderName::from_static("x-ratelimit-remaining-month"),
    HeaderName::from_static("x-ratelimit-remaining-year"),
];

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    second: Option<f64>,
    minute: Option<f64>,
    hour: Option<f64>,
    day: Option<f64>,
    month: Option<f64>,
    year: Option<f64>,
    limit_by: LimitBy,
    header_name: Option<String>,
    path: Option<String>,
    policy: Place,
    fault_tolerant: bool,
    redis: Server,
    sync_rate: f64,
    hide_client_headers: bool,
    error_code: u16,
    error_message: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            second: None,
            minute: None,
            hour: None,
            day: None,
            month: None,
            year: None,
            limit_by: LimitBy::Consumer,
            header_name: None,
            path: None,
            policy: Place::Local,
            fault_tolerant: true,
            redis: Server::default(),
            sync_rate: -1.0,
            hide_client_headers: false,
            error_code: 429,
            error_message: "API rate limit exceeded".into(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    Header,
    Path,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct RateLimiting {
    /// The entity: counts are its own.
    id: Uuid,
    /// In the order of [`PERIODS`]; a fractional limit admits as many as its ceiling, as in Kong.
    limits: Limits,
    by: By,
    policy: Policy,
    fault_tolerant: bool,
    client_headers: bool,
    status: StatusCode,
    message: String,
}

impl Plugin for RateLimiting {
    const NAME: &'static str = "rate-limiting";
    const PRIORITY: i32 = 910;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = Limiter;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let limits = [
            fields.second,
            fields.minute,
            fields.hour,
            fields.day,
            fields.month,
            fields.year,
        ];
        let header = fields.header_name.and_then(|name| name.parse().ok());
        let by = match fields.limit_by {
            LimitBy::Consumer => By::Consumer,
            LimitBy::Credential => By::Credential,
            LimitBy::Ip => By::Address,
            LimitBy::Service => By::Service,
            LimitBy::Header => header.map_or(By::Address, By::Header),
            LimitBy::Path => fields.path.map_or(By::Address, By::Path),
        };
        Ok(Self {
            id: entity.id,
            limits: limits.map(|limit| limit.map(ceiling)),
            by,
            policy: Policy::compile(fields.policy, fields.redis, fields.sync_rate)?,
            fault_tolerant: fields.fault_tolerant,
            client_headers: !fields.hide_client_headers,
            status: StatusCode::from_u16(fields.error_code)
                .unwrap_or(StatusCode::TOO_MANY_REQUESTS),
            message: fields.error_message,
        })
    }

    fn changed(limiter: &Limiter, change: Change<'_, Self>) {
        limiter.changed(&change, |plugin| &plugin.policy);
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if self.policy.waits() {
            return Step::Wait;
        }
        let (limiter, key) = (request.state::<Self>(), self.key(request));
        let usage = self.policy.take(limiter, key, &self.limits, request.now);
        self.decide(&usage, request).into()
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let (limiter, key) = (request.state::<Self>(), (self.key(request), true));
            let asked = self.policy.ask(limiter, key, &self.limits, request.now);
            match asked.await {
                Ok(usage) => self.decide(&usage, request),
                Err(Unavailable) if self.fault_tolerant => Flow::Continue,
                Err(Unavailable) => Flow::Answer(Unavailable.into()),
            }
        })
    }
}

impl RateLimiting {
    fn key(&self, request: &Access<'_>) -> Key {
        Key {
            plugin: self.id,
            subject: self.by.subject(request),
        }
    }

    fn decide(&self, usage: &Usage, request: &mut Access<'_>) -> Flow {
        let tightest = self.report(usage, request);
        if usage.allowed {
            return Flow::Continue;
        }
        let mut answer = Answer::message(self.status, self.message.clone());
        if let Some(reset) = tightest.filter(|_| self.client_headers) {
            answer = answer.with(header::RETRY_AFTER, HeaderValue::from(reset));
        }
        Flow::Answer(answer)
    }

    /// Writes the client headers; gives the seconds until the tightest window ends.
    fn report(&self, usage: &Usage, request: &mut Access<'_>) -> Option<u64> {
        // Kong shows the request as counted in all windows if it passes, and in the exceeded one if not.
        let mut tightest: Option<(u64, u64, Period)> = None;
        let (now, headers) = (request.now, &mut *request.response_headers);
        for (index, period) in PERIODS.into_iter().enumerate() {
            let Some(limit) = self.limits[index] else {
                continue;
            };
            let left = limit.saturating_sub(usage.before[index]);
            let remaining = left.saturating_sub(u64::from(usage.allowed));
            if self.client_headers {
                headers.push((LIMIT_OF[index].clone(), HeaderValue::from(limit)));
                headers.push((REMAINING_OF[index].clone(), HeaderValue::from(remaining)));
            }
            // Of equally tight windows the longer one counts.
            if tightest.is_none_or(|(_, least, _)| remaining <= least) {
                tightest = Some((limit, remaining, period));
            }
        }
        tightest.map(|(limit, remaining, period)| {
            let elapsed = now - period.start(now);
            let reset = period.seconds().saturating_sub(elapsed).max(1);
            if self.client_headers {
                headers.push((LIMIT, HeaderValue::from(limit)));
                headers.push((REMAINING, HeaderValue::from(remaining)));
                headers.push((RESET, HeaderValue::from(reset)));
            }
            reset
        })
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from f64 saturates, which is what a limit needs"
)]
pub(super) fn ceiling(limit: f64) -> u64 {
    limit.ceil() as u64
}
