//! Private keys: only their public half is of interest here.

use super::der::{self, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE};
use super::public::{Curve, EC, ED448, ED25519, PublicKey, RSA, RSA_PSS};
use super::{Read, Unreadable};
use p256::elliptic_curve::sec1::ToEncodedPoint;

/// The tags of the optional parts: `[0]` and `[1]`, constructed and, in PKCS#8, not.
const FIRST: u8 = 0xa0;
const SECOND: u8 = 0xa1;
const SECOND_BITS: u8 = 0x81;

const NO_PUBLIC: Unreadable =
    Unreadable("the key does not hold its public half; write it anew with openssl pkey");

/// The public half of the private key in a PEM block; `None` if it holds none.
pub(super) fn public_half(label: &str, bytes: &[u8]) -> Read<PublicKey> {
    match label {
        "PRIVATE KEY" => Some(pkcs8(bytes)),
        "RSA PRIVATE KEY" => Some(pkcs1(bytes)),
        "EC PRIVATE KEY" => Some(Reader::sequence(bytes).and_then(|key| sec1(key, None))),
        "ENCRYPTED PRIVATE KEY" => Some(Err(Unreadable("the key is encrypted"))),
        _ => None,
    }
}

fn pkcs8(bytes: &[u8]) -> Result<PublicKey, Unreadable> {
    let mut outer = Reader::sequence(bytes)?;
    outer.expect(INTEGER)?;
    let mut algorithm = Reader::new(outer.expect(SEQUENCE)?);
    let oid = algorithm.expect(OID)?;
    let key = outer.expect(OCTET_STRING)?;
    match oid {
        RSA | RSA_PSS => pkcs1(key),
        EC => {
            let curve = Curve::from_oid(algorithm.expect(OID)?)?;
            sec1(Reader::sequence(key)?, Some(curve))
        }
        ED25519 => {
            let seed = Reader::new(key).expect(OCTET_STRING)?;
            let seed = seed
                .try_into()
                .map_err(|_| Unreadable("an Ed25519 key has 32 bytes"))?;
            let key = ed25519_dalek::SigningKey::from_bytes(seed);
            PublicKey::ed25519(key.verifying_key().as_bytes())
        }
        ED448 => loop {
            match outer.next()? {
                Some((SECOND_BITS, content)) => return PublicKey::ed448(der::bits(content)?),
                Some(_) => {}
                None => return Err(NO_PUBLIC),
            }
        },
        _ => Err(Unreadable("the key's algorithm is not known")),
    }
}

fn pkcs1(bytes: &[u8]) -> Result<PublicKey, Unreadable> {
    let mut numbers = Reader::sequence(bytes)?;
    numbers.expect(INTEGER)?;
    PublicKey::rsa(numbers)
}

/// An EC key; `curve` if it is known from around it.
fn sec1(mut key: Reader<'_>, curve: Option<Curve>) -> Result<PublicKey, Unreadable> {
    key.expect(INTEGER)?;
    let scalar = key.expect(OCTET_STRING)?;
    let (mut curve, mut public) = (curve, None);
    while let Some((tag, content)) = key.next()? {
        match tag {
            FIRST => curve = Some(Curve::from_oid(Reader::new(content).expect(OID)?)?),
            SECOND => public = Some(Reader::new(content).bits()?),
            _ => {}
        }
    }
    let curve = curve.ok_or(Unreadable("the EC key names no curve"))?;
    let invalid = Unreadable("the EC key is not one of its curve");
    // Calculated, and not read, where we can: whatever stands beside it may be of another key.
    match (curve, public) {
        (Curve::P256, _) => {
            let key = p256::SecretKey::from_slice(scalar).map_err(|_| invalid)?;
            let point = key.public_key().to_encoded_point(false);
            PublicKey::ec(curve, point.as_bytes())
        }
        (Curve::P384, _) => {
            let key = p384::SecretKey::from_slice(scalar).map_err(|_| invalid)?;
            let point = key.public_key().to_encoded_point(false);
            PublicKey::ec(curve, point.as_bytes())
        }
        (Curve::P521, Some(public)) => PublicKey::ec(curve, public),
        (Curve::P521, None) => Err(NO_PUBLIC),
    }
}
