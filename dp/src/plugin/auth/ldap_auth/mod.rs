//! `ldap-auth`: who the client is, by a username and a password that a directory knows.
//!
//! Deviations from Kong: each question has a connection of its own, so `keepalive` has nothing to do (answers are kept for
//! `cache_ttl`, as in Kong; 0 keeps none). A username ends at its first colon, so that passwords may contain some; it names
//! one entry under `base_dn`, whatever characters it has. Certificates are verified with the machine's authorities.

mod directory;
mod message;

use super::identify;
use super::text::{after_scheme, base64, challenge, header};
use crate::plugin::{
    Access, Answer, Cache, Credential, Entity, Flow, Phases, Plugin, Stamp, Step, Waiting,
};
use directory::{Directory, Tls};
use http::{HeaderValue, StatusCode, header as name};
use serde::Deserialize;
use std::time::Duration;
use uuid::Uuid;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    ldap_host: String,
    ldap_port: u16,
    ldaps: bool,
    start_tls: bool,
    verify_ldap_host: bool,
    base_dn: String,
    attribute: String,
    cache_ttl: f64,
    hide_credentials: bool,
    timeout: f64,
    anonymous: Option<String>,
    header_type: String,
    realm: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            ldap_host: String::new(),
            ldap_port: 389,
            ldaps: false,
            start_tls: false,
            verify_ldap_host: false,
            base_dn: String::new(),
            attribute: String::new(),
            cache_ttl: 60.0,
            hide_credentials: false,
            timeout: 10_000.0,
            anonymous: None,
            header_type: "ldap".into(),
            realm: None,
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct LdapAuth {
    stamp: Stamp,
    directory: Directory,
    cache_seconds: u64,
    hide: bool,
    anonymous: Option<String>,
    scheme: String,
    challenge: HeaderValue,
}

/// Why a request is not authenticated.
enum Refusal {
    /// Nobody has such a password, or none was given.
    Unknown,
    /// The directory does not say.
    Failed,
}

/// What a client says who it is.
struct Claim {
    username: String,
    password: String,
}

/// Whether passwords are right. They are found by hashes; the passwords are not in there.
type Answers = Cache<bool>;

impl Plugin for LdapAuth {
    const NAME: &'static str = "ldap-auth";
    const PRIORITY: i32 = 1200;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = Answers;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let tls = match (fields.ldaps, fields.start_tls) {
            (true, _) => Tls::Always,
            (false, true) => Tls::Asked,
            (false, false) => Tls::Never,
        };
        let connector = (tls != Tls::Never).then(|| directory::connector(fields.verify_ldap_host));
        let scheme = fields.header_type;
        let shown = if scheme == "ldap" { "LDAP" } else { &scheme };
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(Self {
            stamp: entity.stamp,
            directory: Directory {
                host: fields.ldap_host,
                port: fields.ldap_port,
                tls,
                connector: connector.transpose()?,
                timeout: seconds(fields.timeout / 1000.0),
                attribute: fields.attribute,
                base: fields.base_dn,
            },
            cache_seconds: seconds(fields.cache_ttl).as_secs(),
            hide: fields.hide_credentials,
            anonymous: fields.anonymous,
            challenge: challenge(shown, fields.realm.as_deref())?,
            scheme,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if identify::is_known(request, self.anonymous.as_ref()) {
            return Step::Continue;
        }
        let claims = self.claims(request);
        if claims.is_empty() {
            return self.conclude(request, Err(Refusal::Unknown)).into();
        }
        for claim in claims {
            match self.recall(request, &claim) {
                Some(true) => return self.conclude(request, Ok(claim)).into(),
                Some(false) => {}
                None => return Step::Wait,
            }
        }
        self.conclude(request, Err(Refusal::Unknown)).into()
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let mut found = Err(Refusal::Unknown);
            for claim in self.claims(request) {
                match self.ask(request, &claim).await {
                    Ok(true) => {
                        found = Ok(claim);
                        break;
                    }
                    Ok(false) => {}
                    Err(refusal) => found = Err(refusal),
                }
            }
            self.conclude(request, found)
        })
    }
}

impl LdapAuth {
    /// What is said to proxies, then what is said to everybody.
    fn claims(&self, request: &Access<'_>) -> Vec<Claim> {
        let to_proxies = request
            .proxy_authorization
            .and_then(|value| value.to_str().ok());
        let general = header(request.headers, &name::AUTHORIZATION);
        let both = [to_proxies, general].into_iter().flatten();
        both.filter_map(|value| Claim::parse(value, &self.scheme))
            .collect()
    }

    fn recall(&self, request: &Access<'_>, claim: &Claim) -> Option<bool> {
        let answers = request.state::<Self>();
        answers.get(self.stamp, &claim.key(), request.now)
    }

    async fn ask(&self, request: &Access<'_>, claim: &Claim) -> Result<bool, Refusal> {
        if let Some(known) = self.recall(request, claim) {
            return Ok(known);
        }
        let asked = self
            .directory
            .is_password(&claim.username, &claim.password)
            .await;
        let is_so = asked.map_err(|fault| {
            tracing::warn!(
                plugin = Self::NAME,
                id = %self.stamp.id,
                error = &fault as &dyn std::error::Error,
                "a directory does not answer"
            );
            Refusal::Failed
        })?;
        if self.cache_seconds > 0 {
            let ends = request.now.saturating_add(self.cache_seconds);
            request
                .state::<Self>()
                .put(self.stamp, &claim.key(), is_so, ends);
        }
        Ok(is_so)
    }

    fn conclude(&self, request: &mut Access<'_>, found: Result<Claim, Refusal>) -> Flow {
        let found = found.map(|claim| {
            let credential = Credential {
                kind: None,
                id: Uuid::new_v5(&self.stamp.id, claim.username.as_bytes()),
            };
            (credential, HeaderValue::from_str(&claim.username).ok())
        });
        let found = match found {
            Ok(found) => Ok(found),
            Err(Refusal::Unknown) => {
                let answer = Answer::message(StatusCode::UNAUTHORIZED, "Unauthorized");
                Err(answer.with(name::WWW_AUTHENTICATE, self.challenge.clone()))
            }
            // Who might be somebody is not let in as nobody.
            Err(Refusal::Failed) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Flow::Answer(Answer::message(status, "An unexpected error occurred"));
            }
        };
        // Where it says nothing to us it may to another plugin.
        if self.hide && found.is_ok() {
            request.headers.remove(name::AUTHORIZATION);
        }
        identify::conclude_unnamed(request, self.anonymous.as_ref(), found)
    }
}

impl Claim {
    fn parse(value: &str, scheme: &str) -> Option<Self> {
        let coded = after_scheme(value, scheme)?.trim_end();
        let decoded = String::from_utf8(base64(coded)?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        (!username.is_empty() && !password.is_empty()).then(|| Self {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    /// No username contains a colon.
    fn key(&self) -> Vec<u8> {
        [self.username.as_bytes(), b":", self.password.as_bytes()].concat()
    }
}
