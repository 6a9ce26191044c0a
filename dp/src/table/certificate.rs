//! Certificates ready for handshakes, the server names they are shown for, and authorities to trust.

use super::entity::Origin;
use imbl::OrdMap;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, SignatureAlgorithm, SignatureScheme};
use sluice_schema::kind;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Says what a certificate or an authority is made of: equal exactly if the contents are.
pub type Fingerprint = [u8; 32];

/// The server name that stands for all, also for clients that name none Kong knows.
const ANY: &str = "*";

/// A certificate with its key, and perhaps the same for another kind of key.
pub struct Certificate {
    fingerprint: Fingerprint,
    /// Those with an elliptic curve first: they cost less.
    keys: Box<[Arc<CertifiedKey>]>,
}

/// Why a certificate cannot be used. Never quotes the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateFault {
    /// There is none, or it is not PEM.
    #[error("the certificate cannot be read")]
    Certificate,
    /// Not PEM, encrypted, or of a kind TLS has no use for.
    #[error("the private key cannot be read or is of a kind that cannot be used for TLS")]
    Key,
    /// They do not belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// Not an authority's certificate.
    #[error("the certificate of the authority cannot be used to verify others")]
    Authority,
}

impl Certificate {
    /// Makes a certificate of pairs of chain and key, all in PEM.
    ///
    /// # Errors
    /// If a pair cannot be read or does not belong together.
    pub fn from_pem(pairs: &[(&str, &str)]) -> Result<Self, CertificateFault> {
        let ders = pairs.iter().map(|(chain, key)| {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
            let chain = chain
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| CertificateFault::Certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
            Ok((chain, key.map_err(|_| CertificateFault::Key)?))
        });
        Self::from_der(ders.collect::<Result<Vec<_>, _>>()?)
    }

    /// The same from DER.
    ///
    /// # Errors
    /// If a pair does not belong together, or its key is of no use for TLS.
    pub fn from_der(
        pairs: Vec<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, CertificateFault> {
        let mut hasher = blake3::Hasher::new();
        let mut keys = Vec::with_capacity(pairs.len());
        for (chain, key) in pairs {
            if chain.is_empty() {
                return Err(CertificateFault::Certificate);
            }
            for certificate in &chain {
                hasher.update(&(certificate.len() as u64).to_le_bytes());
                hasher.update(certificate);
            }
            hasher.update(key.secret_der());
            let key = any_supported_type(&key).map_err(|_| CertificateFault::Key)?;
            keys.push(Arc::new(belonging(CertifiedKey::new(chain, key))?));
        }
        if keys.is_empty() {
            return Err(CertificateFault::Certificate);
        }
        keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        Ok(Self {
            fingerprint: *hasher.finalize().as_bytes(),
            keys: keys.into(),
        })
    }

    pub(super) fn compile(fields: &kind::Certificate) -> Result<Self, String> {
        let main = [(&*fields.cert, &*fields.key)];
        let other = fields.cert_alt.as_deref().zip(fields.key_alt.as_deref());
        let pairs: Vec<_> = main.into_iter().chain(other).collect();
        Self::from_pem(&pairs).map_err(|fault| fault.to_string())
    }

    /// What it is made of.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The certificate a peer can verify that knows these signature schemes.
    pub fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        self.keys.iter().find(fits).cloned()
    }
}

/// Certificates that rustls cannot take apart, such as those of version 1, may be right: it need not to show them.
fn belonging(key: CertifiedKey) -> Result<CertifiedKey, CertificateFault> {
    match key.keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(CertificateFault::Mismatch)
        }
        Err(Error::InvalidCertificate(CertificateError::BadEncoding)) => {
            Err(CertificateFault::Certificate)
        }
        Ok(()) | Err(_) => Ok(key),
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// An authority whose certificates are believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority {
    /// What it is made of.
    pub fingerprint: Fingerprint,
    /// Its name and key.
    pub anchor: TrustAnchor<'static>,
}

impl Authority {
    /// Takes an authority from its certificate.
    ///
    /// # Errors
    /// If it is not the certificate of one.
    pub fn from_der(certificate: &CertificateDer<'_>) -> Result<Self, CertificateFault> {
        let anchor = webpki::anchor_from_trusted_cert(certificate);
        Ok(Self {
            fingerprint: *blake3::hash(certificate).as_bytes(),
            anchor: anchor.map_err(|_| CertificateFault::Authority)?.to_owned(),
        })
    }

    pub(super) fn compile(fields: &kind::CaCertificate) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(fields.cert.as_bytes());
        let certificate = certificate.map_err(|_| CertificateFault::Certificate.to_string())?;
        Self::from_der(&certificate).map_err(|fault| fault.to_string())
    }
}

/// From server names to certificates. A name that two entities have belongs to the one with the lower id, whatever
/// the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Snis {
    certificates: OrdMap<(Box<str>, Uuid), Uuid>,
    names: OrdMap<Uuid, Box<str>>,
}

impl Snis {
    pub(super) fn insert(&mut self, origin: Origin<'_>, fields: &kind::Sni) {
        self.remove(origin.id);
        let name: Box<str> = without_dot(&fields.name).to_ascii_lowercase().into();
        self.certificates
            .insert((name.clone(), origin.id), fields.certificate.id);
        self.names.insert(origin.id, name);
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        if let Some(name) = self.names.remove(&id) {
            self.certificates.remove(&(name, id));
        }
    }

    fn exact(&self, name: &str) -> Option<Uuid> {
        let mut from = self.certificates.range((name.into(), Uuid::nil())..);
        let ((found, _), certificate) = from.next()?;
        (**found == *name).then_some(*certificate)
    }

    /// The certificates for a server name, the best first. A wildcard stands for one label, as in Kong.
    pub(super) fn find(&self, name: &str) -> impl Iterator<Item = Uuid> {
        let name = without_dot(name).to_ascii_lowercase();
        let first = name.split_once('.').filter(|(_, rest)| rest.contains('.'));
        let first = first.map(|(_, rest)| format!("*.{rest}"));
        let last = name.rsplit_once('.').map(|(rest, _)| format!("{rest}.*"));
        let names = [Some(name), first, last, Some(ANY.to_owned())];
        names.into_iter().filter_map(|name| self.exact(&name?))
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_schema::entity::Workspace;
    use sluice_schema::kind::Reference;
    use sluice_schema::version::Version;

    macro_rules! pem {
        ($name:literal) => {
            include_str!(concat!("../../../schema/tests/pem/", $name))
        };
    }

    fn names(entries: &[(u128, &str, u128)]) -> Snis {
        let mut snis = Snis::default();
        for (id, name, certificate) in entries {
            let origin = Origin {
                id: Uuid::from_u128(*id),
                version: Version::ZERO,
                workspace: &Workspace::DEFAULT,
            };
            let certificate = Reference {
                id: Uuid::from_u128(*certificate),
            };
            let name = (*name).to_owned();
            snis.insert(origin, &kind::Sni { name, certificate });
        }
        snis
    }

    fn found(snis: &Snis, name: &str) -> Vec<u128> {
        snis.find(name).map(|id| id.as_u128()).collect()
    }

    #[test]
    fn a_name_is_looked_for_exactly_then_by_its_first_label_then_by_its_last_then_any() {
        let snis = names(&[
            (1, "a.b.com", 1),
            (2, "*.b.com", 2),
            (3, "a.b.*", 3),
            (4, "*", 4),
            (5, "*.com", 5),
        ]);
        assert_eq!(found(&snis, "a.b.com"), [1, 2, 3, 4]);
        assert_eq!(found(&snis, "A.B.com."), [1, 2, 3, 4]);
        assert_eq!(found(&snis, "x.b.com"), [2, 4]);
        assert_eq!(found(&snis, "a.b.org"), [3, 4]);
        assert_eq!(found(&snis, "x.a.b.com"), [4], "a wildcard is one label");
        assert_eq!(found(&snis, "b.com"), [4], "a wildcard leaves two labels");
        assert_eq!(found(&snis, "com"), [4]);
        assert_eq!(found(&names(&[]), "a"), [0_u128; 0]);
    }

    #[test]
    fn names_move_and_go_without_a_trace() {
        let mut snis = names(&[(1, "a", 1), (1, "b", 2), (2, "b", 3)]);
        assert_eq!(found(&snis, "a"), [0_u128; 0]);
        assert_eq!(found(&snis, "b"), [2], "the lower id has the name");
        snis.remove(Uuid::from_u128(1));
        assert_eq!(found(&snis, "b"), [3]);
        snis.remove(Uuid::from_u128(2));
        assert!(snis.certificates.is_empty() && snis.names.is_empty());
    }

    #[test]
    fn every_form_of_key_that_tls_knows_is_taken() {
        let pairs = [
            (pem!("rsa.crt"), pem!("rsa.key")),
            (pem!("rsa.crt"), pem!("rsa.pkcs1.key")),
            (pem!("p256.crt"), pem!("p256.key")),
            (pem!("p256.crt"), pem!("p256.sec1.key")),
            (pem!("p384.crt"), pem!("p384.key")),
            (pem!("p521.crt"), pem!("p521.key")),
            (pem!("ed25519.crt"), pem!("ed25519.key")),
        ];
        for (number, pair) in pairs.into_iter().enumerate() {
            let made = Certificate::from_pem(&[pair]);
            assert!(made.is_ok(), "{number}: {:?}", made.err());
        }
    }

    #[test]
    fn what_does_not_belong_together_or_cannot_be_read_is_refused() {
        let fault = |cert, key| Certificate::from_pem(&[(cert, key)]).err();
        let p256 = pem!("p256.crt");
        assert_eq!(
            fault(p256, pem!("rsa.key")),
            Some(CertificateFault::Mismatch)
        );
        assert_eq!(
            fault(p256, pem!("encrypted.key")),
            Some(CertificateFault::Key)
        );
        assert_eq!(fault(p256, pem!("k256.key")), Some(CertificateFault::Key));
        assert_eq!(
            fault(p256, "{vault://env/key}"),
            Some(CertificateFault::Key)
        );
        assert_eq!(
            fault("", pem!("p256.key")),
            Some(CertificateFault::Certificate)
        );
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(
            fault(garbage, pem!("p256.key")),
            Some(CertificateFault::Certificate)
        );
    }

    #[test]
    fn the_peers_signatures_choose_between_two_kinds_of_keys() {
        let rsa = (pem!("rsa.crt"), pem!("rsa.key"));
        let curve = (pem!("p256.crt"), pem!("p256.key"));
        let (ecdsa, pss) = (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        );
        for pairs in [[rsa, curve], [curve, rsa]] {
            let both = Certificate::from_pem(&pairs).unwrap();
            let chosen = |schemes: &[_]| both.choose(schemes).map(|key| key.key.algorithm());
            assert_eq!(chosen(&[pss]), Some(SignatureAlgorithm::RSA));
            assert_eq!(chosen(&[pss, ecdsa]), Some(SignatureAlgorithm::ECDSA));
            assert_eq!(chosen(&[SignatureScheme::ED25519]), None);
        }
        let one = |pair| Certificate::from_pem(&[pair]).unwrap().fingerprint();
        assert_eq!(one(rsa), one(rsa));
        assert_ne!(one(rsa), one(curve));
    }

    #[test]
    fn an_authority_is_taken_from_its_certificate() {
        let compile = |cert: &str| {
            Authority::compile(&kind::CaCertificate {
                cert: cert.to_owned(),
                cert_digest: String::new(),
            })
        };
        assert!(compile(pem!("ca.crt")).is_ok());
        assert!(compile("nothing").is_err());
    }
}
