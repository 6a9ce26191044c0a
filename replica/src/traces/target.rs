//! Where spans are sent.

use http::header::{CONTENT_TYPE, HOST};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;

/// What OTLP adds to an address that names no path.
const TRACES_PATH: &str = "/v1/traces";

/// The address of a collector that takes OTLP over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) encrypted: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// With the query, if there is one.
    pub(super) path: String,
    /// May hold credentials.
    pub(super) headers: HeaderMap,
}

/// Why an address cannot be one of a collector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a URL.
    #[error("expected a URL such as http://127.0.0.1:4318/v1/traces")]
    Url,
    /// A name in the address would be seen by everybody who sees the settings.
    #[error(
        "credentials do not go into the address, but into the variable OTEL_EXPORTER_OTLP_HEADERS"
    )]
    Credentials,
    /// Not headers.
    #[error("expected headers as name=value, separated by commas")]
    Headers,
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads an address. Without a path it is that of OTLP.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.trim().parse().map_err(|_| TargetError::Url)?;
        let encrypted = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) | None => return Err(TargetError::Url),
        };
        let authority = uri.authority().ok_or(TargetError::Url)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::Credentials);
        }
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| TargetError::Url)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let json = HeaderValue::from_static("application/json");
        Ok(Self {
            encrypted,
            // An IPv6 address stands in brackets.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if encrypted { 443 } else { 80 }),
            path: if path == "/" { TRACES_PATH } else { path }.to_owned(),
            headers: HeaderMap::from_iter([(HOST, host), (CONTENT_TYPE, json)]),
        })
    }
}

impl Target {
    /// The address below which OTLP has its paths.
    ///
    /// # Errors
    /// If it is none.
    pub fn below(base: &str) -> Result<Self, TargetError> {
        let base = base.trim().trim_end_matches('/');
        format!("{base}{TRACES_PATH}").parse()
    }

    /// The whole address.
    #[cfg(test)]
    pub(crate) fn url(&self) -> String {
        format!("{self}{}", self.path)
    }

    /// The same, with headers such as credentials: `name=value`, separated by commas, values percent-encoded.
    ///
    /// # Errors
    /// If they are none.
    pub fn with_headers(mut self, text: &str) -> Result<Self, TargetError> {
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(TargetError::Headers)?;
            let name = HeaderName::try_from(name.trim()).map_err(|_| TargetError::Headers)?;
            let value: Vec<u8> = percent_decode_str(value.trim()).collect();
            let mut value = HeaderValue::try_from(value).map_err(|_| TargetError::Headers)?;
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        Ok(self)
    }
}

/// Without headers, path and query, which may hold secrets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
