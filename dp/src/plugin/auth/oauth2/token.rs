//! The endpoint where applications get tokens: `POST` to any path of the route that ends in `/oauth2/token`.

use super::Oauth2;
use super::issuer::Grant;
use super::parameters::{Form, in_query};
use crate::plugin::auth::identify::equal;
use crate::plugin::auth::text::{after_scheme, base64, header};
use crate::plugin::{Access, Answer};
use crate::table::Credential as Stored;
use http::{HeaderName, HeaderValue, Method, StatusCode, header as name};
use serde_json::{Value, json};
use sluice_schema::kind::Oauth2Credential;
use sluice_schema::pki::pbkdf2;
use uuid::Uuid;

const PATH: &str = "/oauth2/token";
const PRAGMA: HeaderName = HeaderName::from_static("pragma");

/// Why there is no token: an error of RFC 6749, and its description.
struct Refusal {
    error: &'static str,
    description: String,
    /// Whether the client came with an `Authorization`.
    by_header: bool,
}

impl Refusal {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            error,
            description: description.into(),
            by_header: false,
        }
    }

    fn client(by_header: bool) -> Self {
        Self {
            by_header,
            ..Self::new("invalid_client", "Invalid client authentication")
        }
    }
}

/// Whether a request is for this endpoint.
pub(super) fn is_asked(request: &Access<'_>) -> bool {
    let path = request.path.strip_suffix('/').unwrap_or(request.path);
    *request.method == Method::POST && path.ends_with(PATH)
}

/// The answer to a request for a token.
pub(super) async fn answer(plugin: &Oauth2, request: &Access<'_>, form: &Form) -> Answer {
    let parameter = |name: &str| form.find(name).or_else(|| in_query(request, name));
    let issued = issue(plugin, request, &parameter).await;
    let state = parameter("state").map(Value::from);
    let (status, mut body, challenge) = match issued {
        Ok(body) => (StatusCode::OK, body, false),
        Err(refusal) => {
            let status = match refusal.by_header {
                true => StatusCode::UNAUTHORIZED,
                false => StatusCode::BAD_REQUEST,
            };
            let body = json!({ "error": refusal.error, "error_description": refusal.description });
            (status, body, refusal.by_header)
        }
    };
    if let (Some(state), Some(fields)) = (state, body.as_object_mut()) {
        fields.insert("state".into(), state);
    }
    let answer = Answer::json(status, &body)
        .with(name::CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with(PRAGMA, HeaderValue::from_static("no-cache"));
    if challenge {
        let challenge = HeaderValue::from_static("Basic realm=\"OAuth2.0\"");
        return answer.with(name::WWW_AUTHENTICATE, challenge);
    }
    answer
}

async fn issue(
    plugin: &Oauth2,
    request: &Access<'_>,
    parameter: &impl Fn(&str) -> Option<String>,
) -> Result<Value, Refusal> {
    if !request.tls {
        return Err(Refusal::new("access_denied", "You must use HTTPS"));
    }
    let grant_type = parameter("grant_type");
    if grant_type.as_deref() != Some("client_credentials") || !plugin.client_credentials {
        return Err(Refusal::new("unsupported_grant_type", "Invalid grant_type"));
    }
    let application = authenticate(plugin, request, parameter).await?;
    if let Some(uri) = parameter("redirect_uri")
        && !application.redirect_uris.contains(&uri)
    {
        let description = "Invalid redirect_uri that does not match with any redirect_uri created with the application";
        return Err(Refusal::new("invalid_request", description));
    }
    let user = parameter("authenticated_userid");
    let provision = parameter("provision_key").unwrap_or_default();
    if user.is_some() && !equal(provision.as_bytes(), plugin.provision_key.as_bytes()) {
        return Err(Refusal::new(
            "invalid_provision_key",
            "Invalid provision_key",
        ));
    }
    let scope = scope(plugin, parameter("scope"))?;
    let seconds = plugin.token_seconds;
    let service = request.service.map(|service| service.id);
    let grant = Grant {
        plugin: plugin.id,
        credential: application.id,
        service: service.filter(|_| !plugin.global),
        scope,
        user,
        ends: (seconds > 0).then(|| request.now.saturating_add(seconds)),
        number: Uuid::new_v4(),
    };
    let token = plugin.key.issue(&grant, &application.client_secret);
    let token = token.ok_or_else(|| Refusal::new("invalid_request", "The token is too long"))?;
    let mut body = json!({ "access_token": token, "token_type": "bearer" });
    if seconds > 0 {
        body["expires_in"] = seconds.into();
    }
    Ok(body)
}

/// The application that asks, by parameters or by `Basic` in the header.
async fn authenticate<'t>(
    plugin: &Oauth2,
    request: &Access<'t>,
    parameter: &impl Fn(&str) -> Option<String>,
) -> Result<&'t Stored<Oauth2Credential>, Refusal> {
    let given = parameter("client_id").zip(parameter("client_secret"));
    let (given, by_header) = match given {
        Some(given) => (Some(given), false),
        None => {
            let value = plugin
                .header
                .as_ref()
                .and_then(|name| header(request.headers, name));
            (value.and_then(basic), value.is_some())
        }
    };
    let (client_id, secret) = given.ok_or_else(|| Refusal::client(by_header))?;
    let application = request
        .table
        .oauth2_application(request.workspace(), &client_id);
    let application = application.ok_or_else(|| Refusal::client(by_header))?;
    let stored = &application.client_secret;
    let is_known = if application.hash_secret {
        // The hash is slow on purpose: not on the thread of all requests.
        let stored = stored.clone();
        let check = tokio::task::spawn_blocking(move || pbkdf2::is_secret(&stored, &secret));
        check.await.unwrap_or(false)
    } else {
        equal(stored.as_bytes(), secret.as_bytes())
    };
    // Who cannot keep a secret is nobody by it (RFC 6749, 4.4).
    if is_known && application.client_type == "confidential" {
        Ok(application)
    } else {
        Err(Refusal::client(by_header))
    }
}

fn basic(value: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(base64(after_scheme(value, "basic")?.trim_end())?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// The scope a token gets.
fn scope(plugin: &Oauth2, asked: Option<String>) -> Result<Option<String>, Refusal> {
    let Some(asked) = asked else {
        return match plugin.mandatory_scope {
            true => Err(Refusal::new("invalid_scope", "You must specify a scope")),
            false => Ok(None),
        };
    };
    let mut words = asked.split_whitespace();
    if plugin.scopes.is_empty() {
        return Ok(None);
    }
    if let Some(word) = words.find(|word| !plugin.scopes.iter().any(|known| known == word)) {
        let description = format!("\"{word}\" is an invalid scope");
        return Err(Refusal::new("invalid_scope", description));
    }
    let words: Vec<_> = asked.split_whitespace().collect();
    match (words.is_empty(), plugin.mandatory_scope) {
        (true, true) => Err(Refusal::new("invalid_scope", "You must specify a scope")),
        (true, false) => Ok(None),
        (false, _) => Ok(Some(words.join(" "))),
    }
}
