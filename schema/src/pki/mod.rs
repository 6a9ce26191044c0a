//! Certificates and keys: taken apart far enough to say what they are and whether they belong together.
//!
//! Nothing is signed, verified or encrypted here. Why these libraries: docs/decisions/0013.

mod certificate;
mod der;
mod jwk;
pub mod pbkdf2;
mod private;
mod public;

pub use certificate::Certificate;
pub use jwk::jwk;
pub use public::{Curve, KeyType, PublicKey};

use x509_parser::pem::Pem;

/// The most PEM blocks that are read of a text.
const BLOCKS_MAX: usize = 16;

/// Why a text is not a certificate or key, for the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub(crate) &'static str);

/// The public half of a private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
///
/// # Errors
/// If there is no such key, or its public half cannot be told.
pub fn private_key(pem: &str) -> Result<PublicKey, Unreadable> {
    find(pem, private::public_half)
}

/// A public key in PEM: SubjectPublicKeyInfo, or PKCS#1 for RSA.
///
/// # Errors
/// If there is no such key.
pub fn public_key(pem: &str) -> Result<PublicKey, Unreadable> {
    find(pem, public::from_block)
}

/// The public half of a key in PEM, whichever half it is.
///
/// # Errors
/// If there is no such key.
pub fn any_key(pem: &str) -> Result<PublicKey, Unreadable> {
    public_key(pem).or_else(|_| private_key(pem))
}

/// What a reader makes of a PEM block; `None` if it has nothing to say about it.
type Read<T> = Option<Result<T, Unreadable>>;

/// What `read` makes of the first PEM block that it has something to say about.
fn find<T>(pem: &str, read: fn(&str, &[u8]) -> Read<T>) -> Result<T, Unreadable> {
    for block in Pem::iter_from_buffer(pem.as_bytes()).take(BLOCKS_MAX) {
        let block = block.map_err(|_| Unreadable("the PEM encoding is broken"))?;
        if let Some(found) = read(&block.label, &block.contents) {
            return found;
        }
    }
    Err(Unreadable("no PEM block of this kind"))
}

#[cfg(test)]
mod tests;
