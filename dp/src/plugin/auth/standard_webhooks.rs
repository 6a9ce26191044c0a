//! `standard-webhooks`: lets in what is signed as the Standard Webhooks specification says, with one shared secret.
//!
//! Deviations from Kong: of several signatures in the header, as the specification has it while secrets are changed, one
//! must be right; a body has at most [`BODY_BYTES_MAX`] bytes.

use super::text::{base64, header, secret};
use crate::plugin::{Access, Answer, Entity, Flow, Phases, Plugin, Step, Waiting};
use aws_lc_rs::hmac;
use http::{HeaderName, StatusCode};
use serde::Deserialize;

/// The longest body whose signature is verified.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    secret_v1: String,
    #[serde(default = "tolerance")]
    tolerance_second: u64,
}

fn tolerance() -> u64 {
    300
}

/// The prepared configuration.
pub(crate) struct StandardWebhooks {
    key: hmac::Key,
    /// How many seconds old a message may be.
    age_max: u64,
}

impl std::fmt::Debug for StandardWebhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandardWebhooks")
            .field("age_max", &self.age_max)
            .finish_non_exhaustive()
    }
}

impl Plugin for StandardWebhooks {
    const NAME: &'static str = "standard-webhooks";
    const PRIORITY: i32 = 760;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let secret = secret(fields.secret_v1)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            age_max: fields.tolerance_second,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        // A message without a body is refused, and so is one that cannot be right whatever its body is.
        if request.has_body() && self.head(request).is_some() {
            return Step::Wait;
        }
        Step::Answer(refuse())
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let body = match request.body(BODY_BYTES_MAX).await {
                Ok(body) => body,
                Err(fault) => return Flow::Answer(fault.into()),
            };
            let is_signed = self
                .head(request)
                .is_some_and(|(id, timestamp, signatures)| {
                    let message = format!("{id}.{timestamp}.");
                    let message = [message.as_bytes(), &body].concat();
                    let signatures = signatures.split(' ');
                    let mut signatures =
                        signatures.filter_map(|one| base64(one.strip_prefix("v1,")?));
                    signatures.any(|one| hmac::verify(&self.key, &message, &one).is_ok())
                });
            if is_signed && !body.is_empty() {
                Flow::Continue
            } else {
                Flow::Answer(refuse())
            }
        })
    }
}

impl StandardWebhooks {
    /// Id, timestamp and signatures of a message that is not too old.
    fn head<'r>(&self, request: &'r Access<'_>) -> Option<(&'r str, u64, &'r str)> {
        let timestamp: u64 = header(request.headers, &TIMESTAMP)?.trim().parse().ok()?;
        let is_fresh = request.now.saturating_sub(timestamp) <= self.age_max;
        let id = header(request.headers, &ID)?;
        let signatures = header(request.headers, &SIGNATURE)?;
        is_fresh.then_some((id, timestamp, signatures))
    }
}

fn refuse() -> Answer {
    Answer::message(StatusCode::BAD_REQUEST, "Bad request")
}
