//! JSON Web Keys (RFC 7517): RSA, EC and OKP keys, as Kong reads them.

use super::Unreadable;
use super::public::{Curve, PublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The key that a JWK stands for.
///
/// # Errors
/// If it is not a key of a known kind.
pub fn jwk(fields: &Map<String, Value>) -> Result<PublicKey, Unreadable> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let text = text(name).ok_or(Unreadable("a part of the key is missing"))?;
        URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|_| Unreadable("a part of the key is not base64url"))
    };
    match (text("kty"), text("crv")) {
        (Some("RSA"), _) => PublicKey::rsa_numbers(&bytes("n")?, &bytes("e")?),
        (Some("EC"), Some("P-256")) => point(Curve::P256, 32, &bytes("x")?, &bytes("y")?),
        (Some("EC"), Some("P-384")) => point(Curve::P384, 48, &bytes("x")?, &bytes("y")?),
        (Some("EC"), Some("P-521")) => point(Curve::P521, 66, &bytes("x")?, &bytes("y")?),
        (Some("OKP"), Some("Ed25519")) => PublicKey::ed25519(&bytes("x")?),
        (Some("OKP"), Some("Ed448")) => PublicKey::ed448(&bytes("x")?),
        (Some(_) | None, _) => Err(Unreadable("kty and crv name no known kind of key")),
    }
}

fn point(curve: Curve, length: usize, x: &[u8], y: &[u8]) -> Result<PublicKey, Unreadable> {
    if x.len() != length || y.len() != length {
        return Err(Unreadable("a coordinate is of the wrong length"));
    }
    PublicKey::ec(curve, &[&[4], x, y].concat())
}
