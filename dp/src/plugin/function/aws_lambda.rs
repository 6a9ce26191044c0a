//! `aws-lambda`: a function on AWS Lambda answers in place of an upstream.
//!
//! Credentials are those of the configuration, or of the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
//! `AWS_SESSION_TOKEN`); the region is configured or that of `AWS_REGION` or `AWS_DEFAULT_REGION`.
//!
//! Deviations: roles (`aws_assume_role_arn`), the metadata of EC2 and ECS and `proxy_url` are refused; the certificate of
//! AWS is verified, which Kong does not do; `skip_large_bodies` leaves out bodies above 8 KiB, which is where Kong's would
//! be on disk; with `empty_arrays_mode` both modes are `correct`, as lists stay lists.

use super::aws_payload::{Forward, described};
use super::aws_sign::{Credentials, Scope, encode, sign};
use super::{ANSWER_BYTES_MAX, Functions, failed, relay_whole};
use crate::plugin::call::{Bounds, Way, milliseconds};
use crate::plugin::{Access, Answer, BodyFault, Entity, Flow, Phases, Plugin, Step, Waiting};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::json;
use std::time::SystemTime;

/// What Kong keeps of a body in memory.
const SMALL_BODY_BYTES: usize = 8 * 1024;
/// What a function takes.
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;
const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(default = "minute")]
    timeout: f64,
    #[serde(default = "minute")]
    keepalive: f64,
    #[serde(default)]
    aws_key: Option<String>,
    #[serde(default)]
    aws_secret: Option<String>,
    #[serde(default)]
    aws_assume_role_arn: Option<String>,
    #[serde(default)]
    aws_region: Option<String>,
    #[serde(default)]
    function_name: Option<String>,
    #[serde(default)]
    qualifier: Option<String>,
    #[serde(default = "request_response")]
    invocation_type: String,
    #[serde(default = "tail")]
    log_type: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    disable_https: bool,
    #[serde(default)]
    unhandled_status: Option<u16>,
    #[serde(default)]
    forward_request_method: bool,
    #[serde(default)]
    forward_request_uri: bool,
    #[serde(default)]
    forward_request_headers: bool,
    #[serde(default)]
    forward_request_body: bool,
    #[serde(default)]
    is_proxy_integration: bool,
    #[serde(default)]
    awsgateway_compatible: bool,
    #[serde(default)]
    proxy_url: Option<String>,
    #[serde(default = "yes")]
    skip_large_bodies: bool,
    #[serde(default = "yes")]
    base64_encode_body: bool,
}

fn minute() -> f64 {
    60_000.0
}

fn request_response() -> String {
    "RequestResponse".into()
}

fn tail() -> String {
    "Tail".into()
}

fn yes() -> bool {
    true
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct AwsLambda {
    uri: Uri,
    headers: HeaderMap,
    credentials: Credentials,
    scope: Scope,
    way: Way,
    bounds: Bounds,
    forward: Forward,
    skip_large: bool,
    unhandled: Option<StatusCode>,
    described: bool,
}

impl Plugin for AwsLambda {
    const NAME: &'static str = "aws-lambda";
    const PRIORITY: i32 = 750;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = Functions;

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        if fields.aws_assume_role_arn.is_some() {
            return Err(
                "aws_assume_role_arn is not supported: give the credentials of the role".into(),
            );
        }
        if fields.proxy_url.is_some() {
            return Err("proxy_url is not supported".into());
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = fields.aws_region.clone();
        let region = region
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"));
        let credentials = match (fields.aws_key.clone(), fields.aws_secret.clone()) {
            (Some(key), Some(secret)) => Some(Credentials {
                key,
                secret,
                token: None,
            }),
            _ => variable("AWS_ACCESS_KEY_ID")
                .zip(variable("AWS_SECRET_ACCESS_KEY"))
                .map(|(key, secret)| Credentials {
                    key,
                    secret,
                    token: variable("AWS_SESSION_TOKEN"),
                }),
        };
        let timeout = milliseconds(fields.timeout);
        Ok(Self {
            uri: target(&fields, region.as_deref())?,
            headers: headers(&fields)?,
            credentials: credentials
                .ok_or("there are no credentials: give aws_key and aws_secret")?,
            scope: Scope {
                region: region.unwrap_or_else(|| "us-east-1".into()),
                service: "lambda",
            },
            way: Way {
                verify: true,
                connect_timeout: timeout,
                keepalive: milliseconds(fields.keepalive),
            },
            bounds: Bounds {
                timeout,
                bytes_max: ANSWER_BYTES_MAX,
            },
            forward: Forward {
                method: fields.forward_request_method,
                uri: fields.forward_request_uri,
                headers: fields.forward_request_headers,
                body: fields.forward_request_body,
                gateway: fields.awsgateway_compatible,
                base64: fields.base64_encode_body,
            },
            skip_large: fields.skip_large_bodies,
            unhandled: fields
                .unhandled_status
                .and_then(|status| StatusCode::from_u16(status).ok()),
            described: fields.is_proxy_integration,
        })
    }

    fn access(&self, _: &mut Access<'_>) -> Step {
        Step::Wait
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move { Flow::Answer(self.ask(request).await) })
    }
}

impl AwsLambda {
    async fn ask(&self, request: &mut Access<'_>) -> Answer {
        let bytes_max = if self.skip_large {
            SMALL_BODY_BYTES
        } else {
            BODY_BYTES_MAX
        };
        let body = match request.body(bytes_max).await {
            Ok(body) => body,
            Err(BodyFault::TooLarge) if self.skip_large => Bytes::new(),
            Err(fault) => return fault.into(),
        };
        let payload = self.forward.payload(request, &body).to_string();
        let mut call = Request::new(Bytes::from(payload));
        *call.method_mut() = http::Method::POST;
        *call.uri_mut() = self.uri.clone();
        *call.headers_mut() = self.headers.clone();
        if sign(&mut call, &self.credentials, &self.scope, SystemTime::now()).is_none() {
            tracing::warn!("a call of aws-lambda cannot be signed");
            return Answer::message(
                StatusCode::INTERNAL_SERVER_ERROR,
                "An unexpected error occurred",
            );
        }
        let state = request.state::<Self>();
        let answer = state
            .caller
            .call(self.way, self.bounds, call.map(Full::new))
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return failed(Self::NAME, &error),
        };
        if self.described {
            return described(answer.body(), answer.headers()).unwrap_or_else(|error| {
                let error = format!("could not JSON decode Lambda function response: {error}");
                Answer::json(
                    StatusCode::BAD_GATEWAY,
                    &json!({ "message": "Bad Gateway", "error": error }),
                )
            });
        }
        let unhandled = answer
            .headers()
            .get(FUNCTION_ERROR)
            .is_some_and(|error| error == "Unhandled");
        let mut answer = relay_whole(answer);
        if let Some(status) = self.unhandled.filter(|_| unhandled) {
            answer.status = status;
        }
        answer
    }
}

fn target(fields: &Fields, region: Option<&str>) -> Result<Uri, String> {
    let host = fields
        .host
        .clone()
        .or_else(|| Some(format!("lambda.{}.amazonaws.com", region?)));
    let host = host.ok_or("no region or host specified")?;
    let function = fields
        .function_name
        .as_deref()
        .ok_or("function_name is missing")?;
    let (scheme, usual) = if fields.disable_https {
        ("http", 80)
    } else {
        ("https", 443)
    };
    let port = fields.port.unwrap_or(443);
    let port = if port == usual {
        String::new()
    } else {
        format!(":{port}")
    };
    let query = fields
        .qualifier
        .as_ref()
        .map(|qualifier| format!("?Qualifier={}", encode(qualifier)));
    let query = query.unwrap_or_default();
    let function = encode(function);
    let uri = format!("{scheme}://{host}{port}/2015-03-31/functions/{function}/invocations{query}");
    uri.parse().map_err(|_| "host is no host's name".into())
}

fn headers(fields: &Fields) -> Result<HeaderMap, String> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a type is no header's value");
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-target", HeaderValue::from_static("invoke"));
    headers.insert("x-amz-invocation-type", value(&fields.invocation_type)?);
    headers.insert("x-amz-log-type", value(&fields.log_type)?);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-amz-json-1.1"),
    );
    Ok(headers)
}
