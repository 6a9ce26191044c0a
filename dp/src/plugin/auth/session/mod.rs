//! `session`: who was authenticated once is known by a cookie from then on.
//!
//! The cookie is the session: sealed, with its times in it. Nothing is kept at the gateway, so every data plane knows the
//! sessions of all others, and a cookie that was taken away at a logout is good until it ends if somebody has a copy.
//!
//! Deviations from Kong: storage `kong` is refused, since data planes do not write to the log; so `stale_ttl`, `hash_subject`
//! and `store_metadata` have nothing to do. Cookies are not those of lua-resty-session: sessions begin anew when a client
//! comes from Kong. A session with too many groups for one cookie is not kept (Kong uses several). A session is touched
//! after a quarter of its idling timeout if that is less than the minute after which Kong does it.

mod config;
mod data;
mod seal;

use super::identify::{self, Found, uuid_value};
use super::text::{cookies, secret};
use crate::plugin::{
    Access, Answer, Credential, Entity, Flow, Phases, Plugin, Reply, Step, Waiting,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::{Cookie, Fields, Told};
use data::{Due, Session as Data};
use http::{HeaderValue, Method, StatusCode, header};
use rand::Rng;
use seal::Sealer;
use serde_json::{Map, Value};
use std::sync::Arc;
use uuid::Uuid;

/// The longest body that is read for a logout.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Session {
    cookie: Cookie,
    remember: Option<Cookie>,
    audience: String,
    request_headers: Vec<Told>,
    response_headers: Vec<Told>,
    methods: Vec<Method>,
    query_argument: String,
    /// If bodies are read.
    body_argument: Option<String>,
}

/// What the access phase found, for the response.
#[derive(Default)]
struct Trace {
    session: Option<Data>,
    /// The cookies to set.
    set: Vec<HeaderValue>,
}

impl Plugin for Session {
    const NAME: &'static str = "session";
    const PRIORITY: i32 = 1900;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        if fields.storage != "cookie" {
            let storage = fields.storage;
            return Err(format!(
                "storage `{storage}` would be written by data planes, which write nothing; use `cookie`"
            ));
        }
        let secret = secret(fields.secret.clone().unwrap_or_default())?;
        let cookie = |name: &str, timeouts, persistent| Cookie {
            name: name.to_owned(),
            timeouts,
            persistent,
            sealer: Sealer::new(&secret, name, &fields.audience),
            attributes: fields.attributes(),
        };
        let methods = fields.methods();
        Ok(Self {
            cookie: cookie(&fields.cookie_name, fields.timeouts(), false),
            remember: fields
                .remember
                .then(|| cookie(&fields.remember_cookie_name, fields.remembered(), true)),
            audience: fields.audience,
            request_headers: fields.request_headers,
            response_headers: fields.response_headers,
            methods,
            query_argument: fields.logout_query_arg,
            body_argument: fields
                .read_body_for_logout
                .then_some(fields.logout_post_arg),
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let Some(found) = self.find(request) else {
            Told::tell(&self.request_headers, request.headers, None, request.now);
            return Step::Continue;
        };
        if self.methods.contains(request.method) {
            let query = request.query().unwrap_or_default();
            if has_pair(query.as_bytes(), &self.query_argument) {
                return self.log_out(request).into();
            }
            if self.body_argument.is_some() && request.has_body() {
                return Step::Wait;
            }
        }
        self.resume(request, found).into()
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            // A body that cannot be read asks for nothing.
            let body = request.body(BODY_BYTES_MAX).await.unwrap_or_default();
            let kind = request.headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            let argument = self.body_argument.as_deref().unwrap_or_default();
            let asks = if kind.eq_ignore_ascii_case("application/json") {
                serde_json::from_slice::<Map<String, Value>>(&body)
                    .is_ok_and(|fields| fields.contains_key(argument))
            } else {
                kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
                    && has_pair(&body, argument)
            };
            if asks {
                return self.log_out(request);
            }
            match self.find(request) {
                Some(found) => self.resume(request, found),
                None => Flow::Continue,
            }
        })
    }

    fn response(&self, reply: &mut Reply<'_>) {
        let trace = reply.context.shared.get_mut::<Trace>();
        let mut trace = trace.map(std::mem::take).unwrap_or_default();
        if let Some(session) = self.begin(reply, trace.session.as_ref()) {
            trace.set.clear();
            trace.set.extend(self.cookie.set(&session));
            let remember = self.remember.as_ref();
            trace
                .set
                .extend(remember.and_then(|cookie| cookie.set(&session)));
            trace.session = Some(session);
        }
        for cookie in trace.set.drain(..) {
            reply.headers.append(header::SET_COOKIE, cookie);
        }
        let session = trace.session.as_ref();
        let of = session.map(|session| (session, self.cookie.timeouts, &*self.audience));
        Told::tell(&self.response_headers, reply.headers, of, reply.now);
        reply.context.shared.insert(trace);
    }
}

impl Session {
    /// The session of a request, what is to be done about it, and by which cookie it was found.
    fn find(&self, request: &Access<'_>) -> Option<(Data, Due, &Cookie)> {
        let both = [Some(&self.cookie), self.remember.as_ref()];
        both.into_iter().flatten().find_map(|cookie| {
            let values = cookies(request.headers, &cookie.name);
            let (session, due) = cookie.open(values, request.now)?;
            Some((session, due, cookie))
        })
    }

    /// The client is who it was.
    fn resume(&self, request: &mut Access<'_>, (found, due, by): (Data, Due, &Cookie)) -> Flow {
        let consumer = request.table.consumer(found.consumer);
        let consumer = consumer.filter(|consumer| consumer.workspace == *request.workspace());
        let Some(consumer) = consumer.map(Arc::clone) else {
            self.end(request);
            return Flow::Continue;
        };
        let mut trace = Trace::default();
        let now = request.now;
        let mut session = found;
        if by.persistent {
            // The browser was closed. The new session has a time of its own, what is remembered keeps its end.
            session.id = new_id();
            session.rolled = now;
            session.touched = now;
            trace.set.extend(by.set(&session));
            session.created = now;
            trace.set.extend(self.cookie.set(&session));
        } else if due != Due::Nothing {
            if due == Due::Roll {
                session.id = new_id();
                session.rolled = now;
            }
            session.touched = now;
            trace.set.extend(self.cookie.set(&session));
        }
        let credential = Credential {
            kind: None,
            id: session.credential,
        };
        let found = Found {
            consumer,
            credential,
            identifier: Some(uuid_value(session.credential)),
        };
        request.context.identity.groups.clone_from(&session.groups);
        let of = Some((&session, self.cookie.timeouts, &*self.audience));
        Told::tell(&self.request_headers, request.headers, of, now);
        trace.session = Some(session);
        request.context.shared.insert(trace);
        identify::conclude(request, None, Ok(found))
    }

    fn log_out(&self, request: &mut Access<'_>) -> Flow {
        self.end(request);
        Flow::Answer(Answer::empty(StatusCode::OK))
    }

    fn end(&self, request: &mut Access<'_>) {
        let both = [Some(&self.cookie), self.remember.as_ref()];
        let set = both.into_iter().flatten().filter_map(Cookie::unset);
        let trace = Trace {
            session: None,
            set: set.collect(),
        };
        request.context.shared.insert(trace);
    }

    /// The session that begins with this response: if the client is somebody, and not who it was.
    fn begin(&self, reply: &Reply<'_>, before: Option<&Data>) -> Option<Data> {
        let identity = &reply.context.identity;
        let (consumer, credential) = identity.consumer.as_ref().zip(identity.credential)?;
        let is_same = |session: &&Data| {
            (session.consumer, session.credential) == (consumer.id, credential.id)
        };
        if before.filter(is_same).is_some() {
            return None;
        }
        let name = consumer.username.as_ref().or(consumer.custom_id.as_ref());
        Some(Data {
            id: new_id(),
            consumer: consumer.id,
            credential: credential.id,
            groups: identity.groups.clone(),
            subject: name
                .cloned()
                .unwrap_or_else(|| Uuid::to_string(&consumer.id)),
            created: reply.now,
            rolled: reply.now,
            touched: reply.now,
        })
    }
}

fn new_id() -> String {
    URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>())
}

fn has_pair(form: &[u8], name: &str) -> bool {
    form_urlencoded::parse(form).any(|(found, _)| found == name)
}
