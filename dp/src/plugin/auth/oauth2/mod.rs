//! `oauth2`: who the client is, by a token that its application got from the gateway.
//!
//! Tokens are of two kinds: those that are entities (`oauth2_tokens`, written at the control plane), and those a data plane
//! has given, which it cannot write down and which therefore say themselves what they are (`issuer`). Kong gives no
//! tokens in hybrid mode at all.
//!
//! Deviations from Kong: the client credentials grant is the only one (`unsupported_grant_type`, and `/oauth2/authorize` is
//! a path like any other), so `pkce`, `refresh_token_ttl` and `reuse_refresh_token` have nothing to do; only confidential
//! applications have it. A given token ends with its time, its application, its application's secret, its plugin or the
//! plugin's `provision_key`; it cannot be taken back alone. TLS that a trusted proxy ended is always enough, whatever
//! `accept_http_if_already_terminated` says. Parameters are not read from bodies of `multipart/form-data`, nor from such as
//! are larger than [`BODY_BYTES_MAX`]. An application is found in its workspace only.

mod issuer;
mod parameters;
mod token;

use super::identify::{self, Found, equal};
use super::text::{after_scheme, challenge, header, secret};
use crate::plugin::{
    Access, Answer, Change, Credential, Entity, Flow, Phases, Plugin, Step, Waiting,
};
use crate::table::Credential as Stored;
use http::{HeaderName, HeaderValue, StatusCode, header as name};
use issuer::{Issuers, Key, Unverified};
use parameters::{Form, hide_in_query, in_query};
use serde::Deserialize;
use serde_json::json;
use sluice_schema::kind::{Kind, Oauth2Credential};
use std::sync::Arc;
use uuid::Uuid;

/// The longest body that is read for parameters.
const BODY_BYTES_MAX: usize = 256 * 1024;
const ACCESS_TOKEN: &str = "access_token";
const AUTHENTICATED_SCOPE: HeaderName = HeaderName::from_static("x-authenticated-scope");
const AUTHENTICATED_USERID: HeaderName = HeaderName::from_static("x-authenticated-userid");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    scopes: Vec<String>,
    mandatory_scope: bool,
    provision_key: String,
    token_expiration: f64,
    enable_client_credentials: bool,
    hide_credentials: bool,
    anonymous: Option<String>,
    global_credentials: bool,
    auth_header_name: String,
    realm: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            scopes: Vec::new(),
            mandatory_scope: false,
            provision_key: String::new(),
            token_expiration: 7200.0,
            enable_client_credentials: false,
            hide_credentials: false,
            anonymous: None,
            global_credentials: false,
            auth_header_name: "authorization".into(),
            realm: None,
        }
    }
}

/// The prepared configuration.
pub(crate) struct Oauth2 {
    id: Uuid,
    key: Key,
    provision_key: String,
    scopes: Vec<String>,
    mandatory_scope: bool,
    /// Of a token's life; 0 is for ever.
    token_seconds: u64,
    client_credentials: bool,
    hide: bool,
    anonymous: Option<String>,
    /// Whether tokens are for all services.
    global: bool,
    header: Option<HeaderName>,
    challenge: HeaderValue,
    invalid: HeaderValue,
}

impl std::fmt::Debug for Oauth2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Oauth2({})", self.id)
    }
}

/// Why a request is not authenticated.
enum Refusal {
    Missing,
    Invalid,
}

/// What a good token says.
struct Holder<'t> {
    application: &'t Stored<Oauth2Credential>,
    scope: Option<String>,
    user: Option<String>,
}

impl Plugin for Oauth2 {
    const NAME: &'static str = "oauth2";
    const PRIORITY: i32 = 1400;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = Issuers;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let provision_key = secret(fields.provision_key)?;
        let challenge = challenge("Bearer", fields.realm.as_deref())?;
        let comma = if fields.realm.is_some() { "," } else { "" };
        let invalid =
            format!("{comma} error=\"invalid_token\", error_description=\"{INVALID_DESCRIPTION}\"");
        let invalid = [challenge.as_bytes(), invalid.as_bytes()].concat();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "what is out of range becomes the nearest number in it"
        )]
        let token_seconds = fields.token_expiration as u64;
        Ok(Self {
            id: entity.id,
            key: Key::of(&provision_key),
            provision_key,
            scopes: fields.scopes,
            mandatory_scope: fields.mandatory_scope,
            token_seconds,
            client_credentials: fields.enable_client_credentials,
            hide: fields.hide_credentials,
            anonymous: fields.anonymous,
            global: fields.global_credentials,
            header: fields.auth_header_name.parse().ok(),
            invalid: HeaderValue::from_bytes(&invalid).map_err(|fault| fault.to_string())?,
            challenge,
        })
    }

    fn changed(issuers: &Issuers, change: Change<'_, Self>) {
        let key = |plugin: &Self| plugin.global.then(|| plugin.key.clone());
        match change {
            Change::Created { instance, now } | Change::Updated { instance, now, .. } => {
                issuers.put(instance.id, key(now));
            }
            Change::Deleted { instance, .. } => issuers.put(instance.id, None),
        }
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if token::is_asked(request) {
            return Step::Wait;
        }
        if identify::is_known(request, self.anonymous.as_ref()) {
            return Step::Continue;
        }
        match self.find(request) {
            None if Form::may_be_in(request) => Step::Wait,
            found => self.conclude(request, found.as_deref()).into(),
        }
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let body = match Form::may_be_in(request) {
                // A body that cannot be read holds no parameters.
                true => request.body(BODY_BYTES_MAX).await.unwrap_or_default(),
                false => bytes::Bytes::new(),
            };
            let form = Form::parse(request, &body);
            if token::is_asked(request) {
                return Flow::Answer(token::answer(self, request, &form).await);
            }
            let found = form.find(ACCESS_TOKEN).filter(|token| !token.is_empty());
            if self.hide
                && let Some(kept) = form.without(ACCESS_TOKEN)
            {
                request.set_body(kept);
            }
            self.conclude(request, found.as_deref())
        })
    }
}

const INVALID_DESCRIPTION: &str = "The access token is invalid or has expired";

impl Oauth2 {
    /// The token in query or header.
    fn find(&self, request: &mut Access<'_>) -> Option<String> {
        let in_query = in_query(request, ACCESS_TOKEN).filter(|token| !token.is_empty());
        if in_query.is_some() {
            if self.hide {
                hide_in_query(request, ACCESS_TOKEN);
            }
            return in_query;
        }
        let name = self.header.as_ref()?;
        let value = header(request.headers, name)?;
        let token = after_scheme(value, "bearer").or_else(|| after_scheme(value, "token"));
        let token = token?.trim_end().to_owned();
        if self.hide {
            request.headers.remove(name);
        }
        Some(token)
    }

    fn conclude(&self, request: &mut Access<'_>, token: Option<&str>) -> Flow {
        // What clients say of themselves is nothing.
        request.headers.remove(AUTHENTICATED_SCOPE);
        request.headers.remove(AUTHENTICATED_USERID);
        let holder = token.ok_or(Refusal::Missing);
        let holder = holder.and_then(|token| self.check(request, token).ok_or(Refusal::Invalid));
        let found = holder.and_then(|holder| {
            let consumer = request.table.consumer(holder.application.consumer.id);
            let consumer = Arc::clone(consumer.ok_or(Refusal::Invalid)?);
            let told = [
                (AUTHENTICATED_SCOPE, &holder.scope),
                (AUTHENTICATED_USERID, &holder.user),
            ];
            for (name, text) in told {
                let value = text
                    .as_ref()
                    .and_then(|text| HeaderValue::from_str(text).ok());
                value.map(|value| request.headers.insert(name, value));
            }
            Ok(Found {
                consumer,
                credential: Credential {
                    kind: Some(Kind::Oauth2Credential),
                    id: holder.application.id,
                },
                identifier: HeaderValue::from_str(&holder.application.client_id).ok(),
            })
        });
        let found = found.map_err(|refusal| self.refuse(&refusal));
        identify::conclude(request, self.anonymous.as_ref(), found)
    }

    fn refuse(&self, refusal: &Refusal) -> Answer {
        let (error, description, challenge) = match refusal {
            Refusal::Missing => (
                "invalid_request",
                "The access token is missing",
                &self.challenge,
            ),
            Refusal::Invalid => ("invalid_token", INVALID_DESCRIPTION, &self.invalid),
        };
        let body = json!({ "error": error, "error_description": description });
        Answer::json(StatusCode::UNAUTHORIZED, &body)
            .with(name::WWW_AUTHENTICATE, challenge.clone())
    }

    /// Who holds a token, if it is good for this request.
    fn check<'t>(&self, request: &Access<'t>, token: &str) -> Option<Holder<'t>> {
        let table = request.table;
        let (holder, service) = match table.oauth2_token(request.workspace(), token) {
            Some(stored) if equal(stored.access_token.as_bytes(), token.as_bytes()) => {
                let age = request.now.saturating_sub(stored.created_at);
                let over = |seconds: u64| age > seconds;
                let expires = u64::try_from(stored.expires_in)
                    .ok()
                    .filter(|seconds| *seconds > 0);
                if expires.is_some_and(over) || stored.ttl.is_some_and(over) {
                    return None;
                }
                let holder = Holder {
                    application: table.oauth2_application_by_id(stored.credential.id)?,
                    scope: stored.scope.clone(),
                    user: stored.authenticated_userid.clone(),
                };
                (holder, stored.service.map(|service| service.id))
            }
            Some(_) | None => self.check_given(request, token)?,
        };
        if holder.application.workspace != *request.workspace() {
            return None;
        }
        let is_for = match service {
            Some(service) => request
                .service
                .is_some_and(|of_route| of_route.id == service),
            None => self.global || request.service.is_none(),
        };
        is_for.then_some(holder)
    }

    /// The same for a token that a data plane gave.
    fn check_given<'t>(
        &self,
        request: &Access<'t>,
        token: &str,
    ) -> Option<(Holder<'t>, Option<Uuid>)> {
        let token = Unverified::parse(token)?;
        let issuer = token.grant.plugin;
        let other = (issuer != self.id && self.global)
            .then(|| request.state::<Self>().find(issuer))
            .flatten();
        let key = if issuer == self.id {
            &self.key
        } else {
            other.as_ref()?
        };
        let application = request
            .table
            .oauth2_application_by_id(token.grant.credential)?;
        let grant = token.verify(key, &application.client_secret)?;
        if grant.ends.is_some_and(|ends| request.now >= ends) {
            return None;
        }
        let holder = Holder {
            application,
            scope: grant.scope,
            user: grant.user,
        };
        Some((holder, grant.service))
    }
}
