//! `response-ratelimiting`: how much a client may use in each period, as the upstream's answers tell: `X-Kong-Limit: videos=2`
//! uses two of the limit `videos`.
//!
//! The upstream is told what remains (`X-RateLimit-Remaining-videos`); an answer that uses a limit of which nothing remains
//! becomes an empty 429. Where counts are: [`limiter`](super::limiter); they belong to the plugin's entity and outlive its
//! changes. Deviations: none that clients see. An answer whose head is there counts even if its body then breaks off.

use super::counters::Key;
use super::limiter::{Limiter, Place, Policy, Server, Unavailable};
use super::period::{Limits, PERIODS};
use super::rate_limiting::ceiling;
use super::subject::By;
use super::windows::Usage;
use crate::plugin::{
    Access, Answer, BodyFilter, Change, Entity, Flow, Origin, Phases, Plugin, Reply, Step, Waiting,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Answers name the same limit rarely more than once.
const AMOUNT_MAX: u64 = u32::MAX as u64;
/// Counts are told Redis after the answer, and waited for before: there is no interval.
const AT_ONCE: f64 = -1.0;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    header_name: String,
    limit_by: LimitBy,
    policy: Place,
    fault_tolerant: bool,
    redis: Server,
    block_on_first_violation: bool,
    hide_client_headers: bool,
    limits: BTreeMap<String, Allowed>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            header_name: "x-kong-limit".into(),
            limit_by: LimitBy::Consumer,
            policy: Place::Local,
            fault_tolerant: true,
            redis: Server::default(),
            block_on_first_violation: false,
            hide_client_headers: false,
            limits: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LimitBy {
    Consumer,
    Credential,
    Ip,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Allowed {
    second: Option<f64>,
    minute: Option<f64>,
    hour: Option<f64>,
    day: Option<f64>,
    month: Option<f64>,
    year: Option<f64>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct ResponseRatelimiting {
    id: Uuid,
    limits: Vec<Limit>,
    by: By,
    policy: Policy,
    fault_tolerant: bool,
    block: bool,
    client_headers: bool,
    header: HeaderName,
}

/// A limit with a name.
#[derive(Debug)]
struct Limit {
    name: String,
    /// Stands for the plugin in the counts.
    id: Uuid,
    allowed: Limits,
    /// What the upstream is told.
    remaining: HeaderName,
    /// What the client is told, in the order of [`PERIODS`]: what is allowed, what remains.
    told: Vec<(HeaderName, HeaderName)>,
}

/// What was used before the request, for each limit, and by whom.
struct Used {
    plugin: Uuid,
    keys: Vec<Key>,
    usages: Vec<Usage>,
}

impl Plugin for ResponseRatelimiting {
    const NAME: &'static str = "response-ratelimiting";
    const PRIORITY: i32 = 900;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = Limiter;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let limits = fields.limits.into_iter();
        let limits = limits.map(|(name, allowed)| Limit::compile(name, &allowed, entity.id));
        let header = fields.header_name.parse();
        Ok(Self {
            id: entity.id,
            limits: limits.collect::<Result<_, _>>()?,
            by: match fields.limit_by {
                LimitBy::Consumer => By::Consumer,
                LimitBy::Credential => By::Credential,
                LimitBy::Ip => By::Address,
            },
            policy: Policy::compile(fields.policy, fields.redis, AT_ONCE)?,
            fault_tolerant: fields.fault_tolerant,
            block: fields.block_on_first_violation,
            client_headers: !fields.hide_client_headers,
            header: header.map_err(|_| "header_name is no name of a header".to_owned())?,
        })
    }

    fn changed(limiter: &Limiter, change: Change<'_, Self>) {
        limiter.changed(&change, |plugin| &plugin.policy);
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if self.policy.waits() {
            return Step::Wait;
        }
        let (limiter, now) = (request.state::<Self>(), request.now);
        let keys = self.keys(request);
        let limits = self.limits.iter().zip(&keys);
        let look = |(limit, key): (&Limit, &Key)| {
            let allowed = &limit.allowed;
            self.policy.look(limiter, *key, allowed, now)
        };
        let usages = limits.map(look).collect();
        self.judge(request, keys, usages).into()
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let (limiter, now) = (request.state::<Self>(), request.now);
            let keys = self.keys(request);
            let mut usages = Vec::with_capacity(keys.len());
            for (limit, key) in self.limits.iter().zip(&keys) {
                let allowed = &limit.allowed;
                match self.policy.ask(limiter, (*key, false), allowed, now).await {
                    Ok(usage) => usages.push(usage),
                    Err(Unavailable) if self.fault_tolerant => return Flow::Continue,
                    Err(Unavailable) => return Flow::Answer(Unavailable.into()),
                }
            }
            self.judge(request, keys, usages)
        })
    }

    fn response(&self, reply: &mut Reply<'_>) {
        let used = reply.context.shared.get::<Vec<Used>>();
        let used = used.and_then(|all| all.iter().find(|used| used.plugin == self.id));
        let Some(used) = used else { return };
        let told: Vec<_> = reply
            .headers
            .get_all(&self.header)
            .iter()
            .cloned()
            .collect();
        let told = told.iter().filter_map(|value| value.to_str().ok());
        let told: Vec<_> = told.flat_map(|text| text.split(',').map(amount)).collect();
        let (limiter, now) = (reply.state.of::<Limiter>(), reply.now);
        let mut exceeded = false;
        let mut amounts = Vec::new();
        for (limit, usage) in self.limits.iter().zip(&used.usages) {
            // Of one limit that is named twice the last counts, as in Kong.
            let named = told.iter().rev().flatten();
            let mut named = named.filter(|(name, _)| *name == limit.name);
            let amount = named.next().map_or(0, |(_, amount)| *amount);
            amounts.push(amount);
            for ((allowed, before), (limit_name, remaining_name)) in
                limit.allowed.iter().zip(usage.before).zip(&limit.told)
            {
                let Some(allowed) = *allowed else { continue };
                let remaining = allowed.saturating_sub(before);
                exceeded |= amount > 0 && remaining == 0;
                if self.client_headers {
                    let remaining = remaining.saturating_sub(amount);
                    reply.headers.insert(limit_name, HeaderValue::from(allowed));
                    let remaining = HeaderValue::from(remaining);
                    reply.headers.insert(remaining_name, remaining);
                }
            }
        }
        if !exceeded && reply.origin == Origin::Upstream {
            for ((limit, key), amount) in self.limits.iter().zip(&used.keys).zip(amounts) {
                if amount > 0 {
                    let allowed = &limit.allowed;
                    self.policy.add(limiter, *key, allowed, (amount, now));
                }
            }
        }
        reply.headers.remove(&self.header);
        if exceeded {
            *reply.status = StatusCode::TOO_MANY_REQUESTS;
            reply.headers.remove(header::CONTENT_TYPE);
            reply.headers.remove(header::CONTENT_ENCODING);
            reply.filter(Nothing);
        }
    }
}

impl ResponseRatelimiting {
    fn keys(&self, request: &Access<'_>) -> Vec<Key> {
        let subject = self.by.subject(request);
        let key = |limit: &Limit| Key {
            plugin: limit.id,
            subject,
        };
        self.limits.iter().map(key).collect()
    }

    /// Tells the upstream what remains, and keeps it for the answer.
    fn judge(&self, request: &mut Access<'_>, keys: Vec<Key>, usages: Vec<Usage>) -> Flow {
        for (limit, usage) in self.limits.iter().zip(&usages) {
            let allowed = limit.allowed.iter().zip(usage.before);
            let left =
                allowed.filter_map(|(allowed, before)| Some((*allowed)?.saturating_sub(before)));
            let left = left.min().unwrap_or_default();
            if self.block && left == 0 {
                let status = StatusCode::TOO_MANY_REQUESTS;
                return Flow::Answer(Answer::message(status, "Too many requests"));
            }
            let left = HeaderValue::from(left);
            request.headers.insert(&limit.remaining, left);
        }
        let used = Used {
            plugin: self.id,
            keys,
            usages,
        };
        let shared = &mut request.context.shared;
        match shared.get_mut::<Vec<Used>>() {
            Some(all) => all.push(used),
            None => shared.insert(vec![used]),
        }
        Flow::Continue
    }
}

impl Limit {
    fn compile(name: String, allowed: &Allowed, plugin: Uuid) -> Result<Self, String> {
        let header = |text: String| {
            let parsed = text.parse::<HeaderName>();
            parsed.map_err(|_| format!("'{name}' cannot be part of the name of a header"))
        };
        let told = PERIODS.iter().map(|period| {
            let period = period.name();
            let limit = header(format!("x-ratelimit-limit-{name}-{period}"))?;
            let remaining = header(format!("x-ratelimit-remaining-{name}-{period}"))?;
            Ok((limit, remaining))
        });
        let Allowed {
            second,
            minute,
            hour,
            day,
            month,
            year,
        } = *allowed;
        let allowed = [second, minute, hour, day, month, year];
        Ok(Self {
            id: Uuid::new_v5(&plugin, name.as_bytes()),
            allowed: allowed.map(|allowed| allowed.map(ceiling)),
            remaining: header(format!("x-ratelimit-remaining-{name}"))?,
            told: told.collect::<Result<_, String>>()?,
            name,
        })
    }
}

/// What a part `name=amount` of the upstream's header says.
fn amount(part: &str) -> Option<(&str, u64)> {
    let (name, amount) = part.split_once('=')?;
    let amount = amount.trim().parse::<u64>().ok()?;
    Some((name.trim(), amount.min(AMOUNT_MAX)))
}

/// Drops a body.
struct Nothing;

impl BodyFilter for Nothing {
    fn data(&mut self, _: Bytes) -> Bytes {
        Bytes::new()
    }

    fn end(&mut self, trailers: &mut Option<HeaderMap>) -> Bytes {
        *trailers = None;
        Bytes::new()
    }
}
