//! The algorithms of tokens (RFC 7518, RFC 8037), by the library that is behind our TLS.

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, EcdsaVerificationAlgorithm, RsaParameters, UnparsedPublicKey};
use sluice_schema::pki::{Curve, PublicKey};

/// How a token is signed.
#[derive(Clone, Copy)]
pub(super) enum Algorithm {
    /// With a shared secret.
    Hmac(hmac::Algorithm),
    /// With a private key.
    Private(Scheme),
}

#[derive(Clone, Copy)]
pub(super) enum Scheme {
    Rsa(&'static RsaParameters),
    Ecdsa(Curve, &'static EcdsaVerificationAlgorithm),
    EdDsa,
}

impl Algorithm {
    /// The algorithm of a name as in a token's `alg`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let scheme = match name {
            "HS256" => return Some(Self::Hmac(hmac::HMAC_SHA256)),
            "HS384" => return Some(Self::Hmac(hmac::HMAC_SHA384)),
            "HS512" => return Some(Self::Hmac(hmac::HMAC_SHA512)),
            "RS256" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Scheme::Ecdsa(Curve::P256, &signature::ECDSA_P256_SHA256_FIXED),
            "ES384" => Scheme::Ecdsa(Curve::P384, &signature::ECDSA_P384_SHA384_FIXED),
            "ES512" => Scheme::Ecdsa(Curve::P521, &signature::ECDSA_P521_SHA512_FIXED),
            "EdDSA" => Scheme::EdDsa,
            _ => return None,
        };
        Some(Self::Private(scheme))
    }
}

/// Whether the owner of a secret signed a message. In constant time.
pub(super) fn is_by_secret(
    algorithm: hmac::Algorithm,
    secret: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key = hmac::Key::new(algorithm, secret);
    hmac::verify(&key, message, signature).is_ok()
}

/// Whether the owner of the other half of a key signed a message. Not if the key is of another kind.
pub(super) fn is_by_key(scheme: Scheme, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let verified = match (scheme, key) {
        (Scheme::Rsa(parameters), PublicKey::Rsa { modulus, exponent }) => PublicKeyComponents {
            n: modulus,
            e: exponent,
        }
        .verify(parameters, message, signature),
        (
            Scheme::Ecdsa(curve, algorithm),
            PublicKey::Ec {
                curve: of_key,
                point,
            },
        ) if curve == *of_key => {
            UnparsedPublicKey::new(algorithm, point).verify(message, signature)
        }
        (Scheme::EdDsa, PublicKey::Ed25519(key)) => {
            UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
        }
        (Scheme::Rsa(_) | Scheme::Ecdsa(..) | Scheme::EdDsa, _) => return false,
    };
    verified.is_ok()
}
