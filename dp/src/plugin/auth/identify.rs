//! What authentication plugins have in common: who was found, and what the upstream is told of it.

use crate::plugin::{Access, Answer, Credential, Flow};
use crate::table::Consumer;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;
use uuid::Uuid;

const CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CONSUMER_CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL_IDENTIFIER: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS_CONSUMER: HeaderName = HeaderName::from_static("x-anonymous-consumer");

/// Whether another authentication plugin has succeeded: with `anonymous`, either is enough.
pub(in crate::plugin) fn is_known(request: &Access<'_>, anonymous: Option<&String>) -> bool {
    anonymous.is_some() && request.context.identity.credential.is_some()
}

/// The end of a plugin that found who the client is, or why it is nobody: then it is the anonymous consumer, if there is
/// one.
pub(in crate::plugin) fn conclude(
    request: &mut Access<'_>,
    anonymous: Option<&String>,
    found: Result<Found, Answer>,
) -> Flow {
    match (found, anonymous) {
        (Ok(found), _) => {
            identify(
                request,
                Some(found.consumer),
                Some((found.credential, found.identifier)),
            );
            Flow::Continue
        }
        (Err(answer), None) => Flow::Answer(answer),
        (Err(_), Some(name)) => {
            let Some(consumer) = request.table.consumer_named(request.workspace(), name) else {
                let message = format!("anonymous consumer {name} is configured but doesn't exist");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Flow::Answer(Answer::message(status, message));
            };
            identify(request, Some(Arc::clone(consumer)), None);
            Flow::Continue
        }
    }
}

/// Who a client is.
pub(in crate::plugin) struct Found {
    /// The consumer.
    pub(in crate::plugin) consumer: Arc<Consumer>,
    /// What it was authenticated with.
    pub(in crate::plugin) credential: Credential,
    /// How upstreams are told of the credential.
    pub(in crate::plugin) identifier: Option<HeaderValue>,
}

/// The same for who is known but is no consumer.
pub(in crate::plugin) fn conclude_unnamed(
    request: &mut Access<'_>,
    anonymous: Option<&String>,
    found: Result<(Credential, Option<HeaderValue>), Answer>,
) -> Flow {
    match found {
        Ok(found) => {
            identify(request, None, Some(found));
            Flow::Continue
        }
        Err(answer) => conclude(request, anonymous, Err(answer)),
    }
}

/// Tells the upstream and the plugins that follow who the client is.
fn identify(
    request: &mut Access<'_>,
    consumer: Option<Arc<Consumer>>,
    credential: Option<(Credential, Option<HeaderValue>)>,
) {
    let headers = &mut *request.headers;
    let who = consumer.as_deref();
    set(
        headers,
        CONSUMER_ID,
        who.map(|consumer| uuid_value(consumer.id)),
    );
    let text = |text: Option<&String>| text.and_then(|text| HeaderValue::from_str(text).ok());
    let custom_id = who.and_then(|consumer| consumer.custom_id.as_ref());
    set(headers, CONSUMER_CUSTOM_ID, text(custom_id));
    let username = who.and_then(|consumer| consumer.username.as_ref());
    set(headers, CONSUMER_USERNAME, text(username));
    let anonymous = HeaderValue::from_static("true");
    let anonymous = Some(anonymous).filter(|_| credential.is_none());
    set(headers, ANONYMOUS_CONSUMER, anonymous);
    let identity = &mut request.context.identity;
    identity.consumer = consumer;
    let (credential, identifier) = credential.unzip();
    identity.credential = credential;
    set(headers, CREDENTIAL_IDENTIFIER, identifier.flatten());
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

/// An id as a header's value.
pub(in crate::plugin) fn uuid_value(id: Uuid) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("a UUID's text is a valid header value")
}

/// Compares in a time that depends on the lengths only.
pub(in crate::plugin) fn equal(one: &[u8], two: &[u8]) -> bool {
    let difference = one
        .iter()
        .zip(two)
        .fold(0, |difference, (one, two)| difference | (one ^ two));
    one.len() == two.len() && std::hint::black_box(difference) == 0
}
