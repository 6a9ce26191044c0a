//! A token as it is written (RFC 7519), and what its claims say of time.

use super::signature::Algorithm;
use crate::plugin::auth::text::base64;
use serde::Deserialize;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// A token that is read but not believed.
pub(super) struct Token<'t> {
    /// What is signed.
    pub(super) message: &'t str,
    pub(super) signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    header: Object,
    claims: Object,
}

impl<'t> Token<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with it, in Kong's words.
    pub(super) fn parse(text: &'t str) -> Result<Self, &'static str> {
        const INVALID: &str = "invalid JSON";
        let (header, rest) = text.split_once('.').ok_or(INVALID)?;
        let (claims, signature) = rest.split_once('.').ok_or(INVALID)?;
        let message = text.get(..header.len() + 1 + claims.len()).ok_or(INVALID)?;
        let json = |part| serde_json::from_slice(&base64(part)?).ok();
        let (header, claims): (Value, Value) = json(header).zip(json(claims)).ok_or(INVALID)?;
        let Value::Object(header) = header else {
            return Err("invalid alg");
        };
        match header.get("typ") {
            None => {}
            Some(Value::String(kind)) if kind.eq_ignore_ascii_case("jwt") => {}
            Some(_) => return Err("invalid typ"),
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.and_then(Algorithm::named).ok_or("invalid alg")?;
        let Value::Object(claims) = claims else {
            return Err("invalid claims");
        };
        Ok(Self {
            message,
            signature: base64(signature).ok_or("invalid signature")?,
            algorithm,
            header,
            claims,
        })
    }

    /// The name of its algorithm.
    pub(super) fn alg(&self) -> &str {
        self.header
            .get("alg")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A claim, or else a part of its header.
    pub(super) fn claim_or_header(&self, name: &str) -> Option<&Value> {
        // As in Lua, what is false or null is not there.
        let is_there = |value: &&Value| !matches!(value, Value::Null | Value::Bool(false));
        let claim = self.claims.get(name).filter(is_there);
        claim.or_else(|| self.header.get(name).filter(is_there))
    }

    /// What is wrong with a claim, in Kong's words. Times are in seconds since the Unix epoch.
    pub(super) fn check(&self, claim: Claim, now: u64) -> Option<&'static str> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "seconds are exact for 285 million years"
        )]
        let now = now as f64;
        let Some(time) = self.number(claim.name()) else {
            return Some("must be a number");
        };
        match claim {
            Claim::Exp => (time <= now).then_some("token expired"),
            Claim::Nbf => (time > now).then_some("token not valid yet"),
        }
    }

    /// Whether it ends, and at most so many seconds from now.
    pub(super) fn ends_within(&self, seconds: f64, now: u64) -> bool {
        #[allow(
            clippy::cast_precision_loss,
            reason = "seconds are exact for 285 million years"
        )]
        let now = now as f64;
        self.number(Claim::Exp.name())
            .is_some_and(|end| end - now <= seconds)
    }

    fn number(&self, claim: &str) -> Option<f64> {
        self.claims.get(claim)?.as_f64()
    }
}

/// A claim that can be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Claim {
    Exp,
    Nbf,
}

impl Claim {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exp => "exp",
            Self::Nbf => "nbf",
        }
    }
}
