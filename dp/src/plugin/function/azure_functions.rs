//! `azure-functions`: a function on Azure answers in place of an upstream. It gets the request's method, query, body and
//! type of content; the path that would go upstream follows the function's own.
//!
//! Deviations: bodies above 100 MB, which is what Azure takes, are answered with 413.

use super::{ANSWER_BYTES_MAX, Functions, failed, relay_whole};
use crate::plugin::call::{Bounds, Way, milliseconds};
use crate::plugin::{Access, Answer, Entity, Flow, Phases, Plugin, Step, Waiting};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Deserialize;

const BODY_BYTES_MAX: usize = 100 * 1000 * 1000;
const KEY: HeaderName = HeaderName::from_static("x-functions-key");
const CLIENT: HeaderName = HeaderName::from_static("x-functions-clientid");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(default = "ten_minutes")]
    timeout: f64,
    #[serde(default = "minute")]
    keepalive: f64,
    #[serde(default = "yes")]
    https: bool,
    #[serde(default)]
    https_verify: bool,
    #[serde(default)]
    apikey: Option<String>,
    #[serde(default)]
    clientid: Option<String>,
    appname: String,
    #[serde(default = "azure")]
    hostdomain: String,
    #[serde(default)]
    routeprefix: Option<String>,
    functionname: String,
}

fn ten_minutes() -> f64 {
    600_000.0
}

fn minute() -> f64 {
    60_000.0
}

fn yes() -> bool {
    true
}

fn azure() -> String {
    "azurewebsites.net".into()
}

/// The prepared configuration.
pub(crate) struct AzureFunctions {
    /// Scheme, host and path, without a slash at the end.
    base: String,
    headers: HeaderMap,
    way: Way,
    bounds: Bounds,
}

impl Plugin for AzureFunctions {
    const NAME: &'static str = "azure-functions";
    const PRIORITY: i32 = 749;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = Functions;

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(KEY, fields.apikey), (CLIENT, fields.clientid)] {
            if let Some(value) = value {
                let value = HeaderValue::try_from(value);
                let mut value = value.map_err(|_| format!("{name} is no header's value"))?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        let scheme = if fields.https { "https" } else { "http" };
        let mut base = format!("{scheme}://{}.{}", fields.appname, fields.hostdomain);
        let prefix = fields.routeprefix.unwrap_or_else(|| "api".into());
        for part in [&*prefix, &*fields.functionname] {
            let part = part.trim_matches('/');
            if !part.is_empty() {
                base.push('/');
                base.push_str(part);
            }
        }
        base.parse::<Uri>()
            .map_err(|_| "appname, hostdomain, routeprefix and functionname make no URL")?;
        let timeout = milliseconds(fields.timeout);
        Ok(Self {
            base,
            headers,
            way: Way {
                verify: fields.https_verify,
                connect_timeout: timeout,
                keepalive: milliseconds(fields.keepalive),
            },
            bounds: Bounds {
                timeout,
                bytes_max: ANSWER_BYTES_MAX,
            },
        })
    }

    fn access(&self, _: &mut Access<'_>) -> Step {
        Step::Wait
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move { Flow::Answer(self.ask(request).await) })
    }
}

impl AzureFunctions {
    async fn ask(&self, request: &mut Access<'_>) -> Answer {
        let body = match request.body(BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(fault) => return fault.into(),
        };
        let mut target = format!("{}{}", self.base, request.upstream_path());
        if let Some(query) = request.query() {
            target.push('?');
            target.push_str(query);
        }
        let Ok(uri) = target.parse::<Uri>() else {
            return Answer::message(StatusCode::BAD_REQUEST, "Bad request");
        };
        let mut call = Request::new(Full::new(body));
        *call.method_mut() = request.method.clone();
        *call.uri_mut() = uri;
        *call.headers_mut() = self.headers.clone();
        if let Some(kind) = request.headers.get(header::CONTENT_TYPE) {
            call.headers_mut()
                .insert(header::CONTENT_TYPE, kind.clone());
        }
        let state = request.state::<Self>();
        match state.caller.call(self.way, self.bounds, call).await {
            Ok(answer) => relay_whole(answer),
            Err(error) => failed(Self::NAME, &error),
        }
    }
}
