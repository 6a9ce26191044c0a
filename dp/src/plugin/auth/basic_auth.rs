//! `basic-auth`: who the client is, by a username and a password.

use super::identify::{self, Found};
use crate::plugin::{Access, Answer, Credential, Entity, Phases, Plugin, Step};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use sluice_schema::kind::{Kind, is_password};
use std::sync::Arc;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    anonymous: Option<String>,
    hide_credentials: bool,
    realm: Option<String>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct BasicAuth {
    anonymous: Option<String>,
    hide: bool,
    challenge: HeaderValue,
}

impl Plugin for BasicAuth {
    const NAME: &'static str = "basic-auth";
    const PRIORITY: i32 = 1100;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let realm = fields.realm.as_deref().unwrap_or("service");
        let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\""));
        Ok(Self {
            anonymous: fields.anonymous,
            hide: fields.hide_credentials,
            challenge: challenge.map_err(|_| "the realm cannot be in a header".to_owned())?,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if identify::is_known(request, self.anonymous.as_ref()) {
            return Step::Continue;
        }
        let found = self.authenticate(request).ok_or_else(|| {
            Answer::message(StatusCode::UNAUTHORIZED, "Unauthorized")
                .with(header::WWW_AUTHENTICATE, self.challenge.clone())
        });
        identify::conclude(request, self.anonymous.as_ref(), found).into()
    }
}

impl BasicAuth {
    /// By what is said to proxies, then by what is said to everybody.
    fn authenticate(&self, request: &mut Access<'_>) -> Option<Found> {
        let own = request.proxy_authorization.and_then(parse);
        let found = own.map(|own| lookup(request, &own));
        if let Some(Some(found)) = found {
            return Some(found);
        }
        let general = request.headers.get(header::AUTHORIZATION).and_then(parse);
        if self.hide {
            request.headers.remove(header::AUTHORIZATION);
        }
        lookup(request, &general?)
    }
}

/// The username and the password of a header.
fn parse(value: &HeaderValue) -> Option<(String, String)> {
    let text = value.to_str().ok()?.trim_start();
    let (scheme, coded) = text.split_at_checked("basic".len())?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let coded = coded.trim().trim_end_matches('=');
    let decoded = String::from_utf8(STANDARD_NO_PAD.decode(coded).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    (!username.is_empty()).then(|| (username.to_owned(), password.to_owned()))
}

/// Who has this username and this password. A credential whose consumer cannot be used is worth nothing.
fn lookup(request: &Access<'_>, (username, password): &(String, String)) -> Option<Found> {
    let table = request.table;
    let credential = table.basic_credential(request.workspace(), username)?;
    let owner = credential.consumer.id;
    if credential.username != *username || !is_password(&credential.password, owner, password) {
        return None;
    }
    Some(Found {
        consumer: Arc::clone(table.consumer(owner)?),
        credential: Credential {
            kind: Some(Kind::BasicauthCredential),
            id: credential.id,
        },
        identifier: HeaderValue::from_str(username).ok(),
    })
}
