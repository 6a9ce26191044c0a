//! Who we are to the broker, and how we know the broker: by files, read again at each connection, so that what is
//! renewed in place needs no restart. Their errors name the setting that names the file.

use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{ClientConfig, RootCertStore};
use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};
use nkeys::{KeyPair, KeyPairType};
use percent_encoding::percent_decode_str;
use std::future::ready;
use std::path::{Path, PathBuf};

const JWT_BEGIN: &str = "-----BEGIN NATS USER JWT-----";
const SEED_BEGIN: &str = "-----BEGIN USER NKEY SEED-----";

/// How we say who we are. Holds no secret, only where to find it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Identity {
    /// As the first address with a name says: `nats://user:password@host`, or a token before the `@`. If none has one,
    /// the broker knows us by our certificate or does not ask.
    #[default]
    Address,
    /// By a password (`nats_user`, `nats_password_file`).
    Password {
        /// The name.
        user: String,
        /// The file with the password, on its first line.
        file: PathBuf,
    },
    /// By a token, on the first line of a file (`nats_token_file`).
    Token(PathBuf),
    /// By the key of a user whose seed (`SU...`) is in a file (`nats_nkey`).
    Nkey(PathBuf),
    /// By a `.creds` file: a signed statement who we are, and the seed it is about (`nats_creds`).
    Credentials(PathBuf),
}

impl Identity {
    /// Looks whether the files are there and hold what they should.
    ///
    /// # Errors
    /// In words that name the setting and the file, and hold nothing of what is in it.
    pub fn check(&self) -> Result<(), String> {
        self.answer(b"a nonce").map(|_| ())
    }

    /// What the broker is told at a connection. `nonce` is what it asks to be signed.
    fn answer(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match self {
            Self::Address => {}
            Self::Password { user, file } => {
                auth.username = Some(user.clone());
                auth.password = Some(first_line("nats_password_file", file)?);
            }
            Self::Token(file) => auth.token = Some(first_line("nats_token_file", file)?),
            Self::Nkey(file) => {
                let place = ("nats_nkey", file.as_path());
                let text = read(place.0, place.1)?;
                let seed = text.lines().map(str::trim).find(|line| is_seed(line));
                let pair = key_pair(place, seed)?;
                auth.nkey = Some(pair.public_key());
                auth.signature = Some(sign(place, &pair, nonce)?);
            }
            Self::Credentials(file) => {
                let place = ("nats_creds", file.as_path());
                let text = read(place.0, place.1)?;
                let jwt = after(&text, JWT_BEGIN)
                    .ok_or_else(|| wrong(place, "holds no 'NATS USER JWT'"))?;
                let pair = key_pair(place, after(&text, SEED_BEGIN))?;
                auth.jwt = Some(jwt.to_owned());
                auth.signature = Some(sign(place, &pair, nonce)?);
            }
        }
        Ok(auth)
    }

    /// The client's options with this identity.
    pub(super) fn options(&self, servers: &[ServerAddr]) -> ConnectOptions {
        match self {
            Self::Address => by_address(servers),
            Self::Password { .. } | Self::Token(_) | Self::Nkey(_) | Self::Credentials(_) => {
                let identity = self.clone();
                // Files of a few hundred bytes, at a connection only: not worth a thread.
                ConnectOptions::with_auth_callback(move |nonce| {
                    ready(identity.answer(&nonce).map_err(AuthError::new))
                })
            }
        }
    }
}

/// Whether an address says who we are.
pub(super) fn says_who(server: &ServerAddr) -> bool {
    server.username().is_some() || server.password().is_some()
}

/// The client does not look into addresses for this.
fn by_address(servers: &[ServerAddr]) -> ConnectOptions {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let named = servers
        .iter()
        .find_map(|server| Some((server.username()?, server.password())));
    match named {
        Some((user, Some(password))) => {
            ConnectOptions::with_user_and_password(decode(user), decode(password))
        }
        Some((token, None)) => ConnectOptions::with_token(decode(token)),
        None => ConnectOptions::new(),
    }
}

/// How the connection is encrypted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// The certificates that may vouch for the broker (`nats_tls_ca`, PEM); those of the system if `None`.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key (`nats_tls_cert` and `nats_tls_key`, PEM).
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether to encrypt before the broker has said anything (`nats_tls_first`; its `handshake_first`).
    pub first: bool,
}

impl Tls {
    /// Looks whether the files are there and fit together.
    ///
    /// # Errors
    /// In words that name the setting and the file.
    pub fn check(&self) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca {
            let place = ("nats_tls_ca", file.as_path());
            for certificate in certificates(place)? {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(place, &format!("cannot be used: {error}")))?;
            }
        }
        let Some((certificate, key)) = &self.certificate else {
            return Ok(());
        };
        let chain = certificates(("nats_tls_cert", certificate))?;
        let place = ("nats_tls_key", key.as_path());
        let key = PrivateKeyDer::from_pem_slice(read(place.0, place.1)?.as_bytes())
            .map_err(|_| wrong(place, "holds no private key in PEM form"))?;
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map(|_| ())
            .map_err(|error| wrong(place, &format!("does not fit nats_tls_cert: {error}")))
    }

    /// Adds this to the client's options. Once TLS is asked for anywhere it is required everywhere, also of brokers that
    /// are only heard of from others: a broker that offers none would otherwise be told our password in the clear.
    pub(super) fn add_to(
        &self,
        mut connect: ConnectOptions,
        servers: &[ServerAddr],
    ) -> ConnectOptions {
        if let Some(ca) = &self.ca {
            connect = connect.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            connect = connect.add_client_certificate(certificate.clone(), key.clone());
        }
        if self.first {
            connect = connect.tls_first();
        }
        let asked_for = *self != Self::default() || servers.iter().any(ServerAddr::tls_required);
        connect.require_tls(asked_for)
    }
}

/// A setting and the file it names.
type Place<'a> = (&'a str, &'a Path);

fn wrong((setting, file): Place<'_>, what: &str) -> String {
    format!("{setting} '{}' {what}", file.display())
}

fn read(setting: &str, file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file)
        .map_err(|error| wrong((setting, file), &format!("cannot be read: {error}")))
}

fn first_line(setting: &str, file: &Path) -> Result<String, String> {
    let text = read(setting, file)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        Some(_) | None => Err(wrong((setting, file), "has an empty first line")),
    }
}

fn certificates(place: Place<'_>) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(place.0, place.1)?;
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong(place, "is not PEM"))?;
    if found.is_empty() {
        return Err(wrong(place, "holds no certificate in PEM form"));
    }
    Ok(found)
}

/// The line after `begin`.
fn after<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == begin)?;
    lines.next().filter(|line| !line.is_empty())
}

fn is_seed(line: &str) -> bool {
    line.starts_with("SU")
}

/// The key pair of a user. What is wrong with a seed is not said in its own words: they might quote it.
fn key_pair(place: Place<'_>, seed: Option<&str>) -> Result<KeyPair, String> {
    let pair = seed.and_then(|seed| KeyPair::from_seed(seed).ok());
    pair.filter(|pair| matches!(pair.key_pair_type(), KeyPairType::User))
        .ok_or_else(|| wrong(place, "holds no seed of a user (it begins with SU)"))
}

fn sign(place: Place<'_>, pair: &KeyPair, nonce: &[u8]) -> Result<Vec<u8>, String> {
    if nonce.is_empty() {
        return Err(wrong(
            place,
            "is of no use: the broker has no users with keys, and gave nothing to sign",
        ));
    }
    pair.sign(nonce)
        .map_err(|_| wrong(place, "holds a seed that cannot sign"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(identity: impl Fn(PathBuf) -> Identity, content: &str, expected: Result<(), &str>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, content).unwrap();
        match (identity(file).check(), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(
                error.contains(part) && error.contains("/file"),
                "{error}: {part}"
            ),
            (found, expected) => panic!("{content:?}: {found:?}, and not {expected:?}"),
        }
    }

    #[test]
    fn a_file_that_does_not_hold_what_it_should_is_named_with_its_setting() {
        let seed = KeyPair::new_user().seed().unwrap();
        let account = KeyPair::new_account().seed().unwrap();
        let password = |file| Identity::Password {
            user: "anna".into(),
            file,
        };
        check(password, "secret\n", Ok(()));
        check(password, "", Err("nats_password_file"));
        check(password, "\nsecret", Err("empty first line"));
        check(Identity::Token, "", Err("nats_token_file"));
        check(Identity::Nkey, &format!("# mine\n{seed}\n"), Ok(()));
        check(Identity::Nkey, &account, Err("no seed of a user"));
        check(Identity::Nkey, &seed[..20], Err("nats_nkey"));
        let creds = format!("{JWT_BEGIN}\r\nabc\r\n---\n\n{SEED_BEGIN}\n{seed}\n---\n");
        check(Identity::Credentials, &creds, Ok(()));
        check(Identity::Credentials, &seed, Err("no 'NATS USER JWT'"));
        check(
            Identity::Credentials,
            &creds.replace(&seed, ""),
            Err("no seed of a user"),
        );
        let missing = Identity::Token("/nowhere/file".into());
        assert!(missing.check().unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn an_error_does_not_quote_the_secret() {
        let seed = KeyPair::new_user().seed().unwrap().replace('A', "B");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seed");
        std::fs::write(&file, &seed).unwrap();
        let identity = Identity::Nkey(file);
        if let Err(error) = identity.check() {
            assert!(!error.contains(&seed[4..12]), "{error}");
        }
        assert!(!format!("{identity:?}").contains(&seed[4..12]));
    }

    #[test]
    fn certificates_are_looked_at_before_they_are_needed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "nothing").unwrap();
        let tls = Tls {
            ca: Some(file.clone()),
            ..Tls::default()
        };
        let error = tls.check().unwrap_err();
        assert!(
            error.contains("nats_tls_ca") && error.contains("no certificate"),
            "{error}"
        );
        let tls = Tls {
            certificate: Some((file.clone(), file)),
            ..Tls::default()
        };
        assert!(tls.check().unwrap_err().contains("nats_tls_cert"));
        assert_eq!(Tls::default().check(), Ok(()));
    }
}
