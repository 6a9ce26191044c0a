//! Public keys, in one form each, so that equal keys are equal.

use super::der::{self, OID, Reader, SEQUENCE};
use super::{Read, Unreadable};
use p256::elliptic_curve::sec1::ToEncodedPoint;

pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub(super) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
pub(super) const ED448: &[u8] = &[0x2b, 0x65, 0x71];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

const UNKNOWN: Unreadable = Unreadable("the key's algorithm is not known");
const NOT_ON_CURVE: Unreadable = Unreadable("the point is not on the curve");

/// A public key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublicKey {
    /// Two numbers, big-endian, without leading zeros.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
    /// A point of a curve, in SEC1 form: not compressed where the curve is one we calculate on.
    Ec {
        /// The curve.
        curve: Curve,
        /// The point.
        point: Vec<u8>,
    },
    /// 32 bytes.
    Ed25519(Vec<u8>),
    /// 57 bytes.
    Ed448(Vec<u8>),
}

/// An elliptic curve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

/// The kind of algorithm a key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyType {
    /// RSA.
    Rsa,
    /// ECDSA.
    Ec,
    /// EdDSA on curve 25519.
    Ed25519,
    /// EdDSA on curve 448.
    Ed448,
}

impl PublicKey {
    /// What it is for.
    pub fn key_type(&self) -> KeyType {
        match self {
            Self::Rsa { .. } => KeyType::Rsa,
            Self::Ec { .. } => KeyType::Ec,
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Ed448(_) => KeyType::Ed448,
        }
    }

    /// Reads a SubjectPublicKeyInfo.
    pub(super) fn from_info(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut info = Reader::sequence(bytes)?;
        let mut algorithm = Reader::new(info.expect(SEQUENCE)?);
        let key = info.bits();
        match algorithm.expect(OID)? {
            RSA | RSA_PSS => Self::rsa(Reader::sequence(key?)?),
            EC => Self::ec(Curve::from_oid(algorithm.expect(OID)?)?, key?),
            ED25519 => Self::ed25519(key?),
            ED448 => Self::ed448(key?),
            _ => Err(UNKNOWN),
        }
    }

    /// Reads modulus and exponent, which come first in both halves of an RSA key but for the version in the private one.
    pub(super) fn rsa(mut numbers: Reader<'_>) -> Result<Self, Unreadable> {
        let (modulus, exponent) = (numbers.unsigned()?, numbers.unsigned()?);
        Self::rsa_numbers(modulus, exponent)
    }

    pub(super) fn rsa_numbers(modulus: &[u8], exponent: &[u8]) -> Result<Self, Unreadable> {
        let modulus = der::without_leading_zeros(modulus);
        let exponent = der::without_leading_zeros(exponent);
        if modulus.is_empty() || exponent.is_empty() {
            return Err(Unreadable("the RSA key has no modulus or no exponent"));
        }
        Ok(Self::Rsa {
            modulus: modulus.to_vec(),
            exponent: exponent.to_vec(),
        })
    }

    pub(super) fn ec(curve: Curve, point: &[u8]) -> Result<Self, Unreadable> {
        let point = match curve {
            Curve::P256 => p256::PublicKey::from_sec1_bytes(point)
                .map_err(|_| NOT_ON_CURVE)?
                .to_encoded_point(false)
                .as_bytes()
                .to_vec(),
            Curve::P384 => p384::PublicKey::from_sec1_bytes(point)
                .map_err(|_| NOT_ON_CURVE)?
                .to_encoded_point(false)
                .as_bytes()
                .to_vec(),
            // 66 bytes a coordinate.
            Curve::P521 if point.len() == 133 && point.first() == Some(&4) => point.to_vec(),
            Curve::P521 => return Err(NOT_ON_CURVE),
        };
        Ok(Self::Ec { curve, point })
    }

    pub(super) fn ed25519(key: &[u8]) -> Result<Self, Unreadable> {
        match key.len() {
            32 => Ok(Self::Ed25519(key.to_vec())),
            _ => Err(Unreadable("an Ed25519 key has 32 bytes")),
        }
    }

    pub(super) fn ed448(key: &[u8]) -> Result<Self, Unreadable> {
        match key.len() {
            57 => Ok(Self::Ed448(key.to_vec())),
            _ => Err(Unreadable("an Ed448 key has 57 bytes")),
        }
    }
}

impl Curve {
    pub(super) fn from_oid(oid: &[u8]) -> Result<Self, Unreadable> {
        match oid {
            P256 => Ok(Self::P256),
            P384 => Ok(Self::P384),
            P521 => Ok(Self::P521),
            _ => Err(Unreadable("the curve is not one of P-256, P-384, P-521")),
        }
    }
}

/// The key in a PEM block; `None` if it holds none.
pub(super) fn from_block(label: &str, bytes: &[u8]) -> Read<PublicKey> {
    match label {
        "PUBLIC KEY" => Some(PublicKey::from_info(bytes)),
        "RSA PUBLIC KEY" => Some(Reader::sequence(bytes).and_then(PublicKey::rsa)),
        _ => None,
    }
}
