//! Signatures of AWS, version 4.

use crate::access_log::Date;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::time::SystemTime;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// What a part of a path or a query is written in.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Who signs.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) key: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Where a signature is good.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) region: String,
    pub(super) service: &'static str,
}

/// One part of a path or a query, encoded.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Signs a request with an absolute target and all its headers. `None` if a credential is no header's value.
pub(super) fn sign<B: AsRef<[u8]>>(
    request: &mut Request<B>,
    credentials: &Credentials,
    scope: &Scope,
    now: SystemTime,
) -> Option<()> {
    let date = Date::of(now).compact();
    let host = request.uri().authority()?.as_str();
    let host = HeaderValue::from_str(host).ok()?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(DATE, HeaderValue::from_str(&date).ok()?);
    if let Some(token) = &credentials.token {
        let mut token = HeaderValue::from_str(token).ok()?;
        token.set_sensitive(true);
        headers.insert(TOKEN, token);
    }
    let (names, lines) = canonical_headers(request.headers());
    let path: Vec<_> = request.uri().path().split('/').map(encode).collect();
    let mut query: Vec<_> = request
        .uri()
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .collect();
    query.sort_unstable();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method(),
        path.join("/"),
        query.join("&"),
        hex(&Sha256::digest(request.body().as_ref())),
    );
    let day = date.get(..8)?;
    let Scope { region, service } = scope;
    let place = format!("{day}/{region}/{service}/aws4_request");
    let text = format!(
        "{ALGORITHM}\n{date}\n{place}\n{}",
        hex(&Sha256::digest(canonical))
    );
    let mut key = format!("AWS4{}", credentials.secret).into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = mac(&key, part)?;
    }
    let signature = hex(&mac(&key, &text)?);
    let value = format!(
        "{ALGORITHM} Credential={}/{place}, SignedHeaders={names}, Signature={signature}",
        credentials.key
    );
    let value = HeaderValue::try_from(value).ok()?;
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Some(())
}

/// The names, and a line for each.
fn canonical_headers(headers: &HeaderMap) -> (String, String) {
    let mut pairs: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    pairs.sort_unstable();
    let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
    let mut lines = String::new();
    for (name, value) in &pairs {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{name}:{}", value.trim());
    }
    (names.join(";"), lines)
}

fn mac(key: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac.finalize().into_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// `get-vanilla` and `get-vanilla-query-order-key-case` of AWS's own test suite.
    #[test]
    fn signatures_are_those_of_the_suite() {
        let check = |target: &str, expected: &str| {
            let mut request = Request::get(format!("https://example.amazonaws.com{target}"))
                .body("")
                .unwrap();
            let credentials = Credentials {
                key: "AKIDEXAMPLE".into(),
                secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
                token: None,
            };
            let scope = Scope {
                region: "us-east-1".into(),
                service: "service",
            };
            // 2015-08-30 12:36:00 UTC
            let now = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
            sign(&mut request, &credentials, &scope, now).unwrap();
            let value = request.headers()["authorization"].to_str().unwrap();
            let place = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
            let rest = format!("SignedHeaders=host;x-amz-date, Signature={expected}");
            assert_eq!(value, format!("{ALGORITHM} Credential={place}, {rest}"));
        };
        check(
            "/",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        );
        check(
            "/?Param2=value2&Param1=value1",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
    }
}
