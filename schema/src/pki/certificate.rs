//! X.509 certificates.

use super::public::PublicKey;
use super::{Unreadable, find};
use crate::version::Time;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// What is asked of a certificate here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The key it speaks of.
    pub key: PublicKey,
    /// The last second of its validity, since the Unix epoch.
    pub not_after: i64,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// SHA-256 of its bytes, in hex.
    pub digest: String,
}

impl Certificate {
    /// The first certificate in a PEM text; what follows it is its chain.
    ///
    /// # Errors
    /// If there is none, or it is not one, or its key is of no kind that is known.
    pub fn parse(pem: &str) -> Result<Self, Unreadable> {
        find(pem, |label, bytes| match label {
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Some(Self::read(bytes)),
            _ => None,
        })
    }

    /// Whether it is no longer valid.
    pub fn is_expired(&self, now: Time) -> bool {
        i64::try_from(now.seconds()).is_ok_and(|now| self.not_after < now)
    }

    fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let broken = Unreadable("the certificate's encoding is broken");
        let (_, certificate) = X509Certificate::from_der(bytes).map_err(|_| broken.clone())?;
        let constraints = certificate.basic_constraints().map_err(|_| broken)?;
        Ok(Self {
            key: PublicKey::from_info(certificate.public_key().raw)?,
            not_after: certificate.validity().not_after.timestamp(),
            is_ca: constraints.is_some_and(|constraints| constraints.value.ca),
            digest: hex(&Sha256::digest(bytes)),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all text");
    }
    text
}
