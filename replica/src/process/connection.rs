//! The settings of the connection to the broker, the same for every program that has one.

use super::settings::SettingsError;
use crate::log::jetstream::{Identity, Options, Role, Tls, check_address};
use clap::Args;
use std::fmt;
use std::path::PathBuf;

/// How to reach the broker, and as whom. Secrets come from files, or from the address; never from a flag of their own.
#[derive(Clone, Args)]
#[command(next_help_heading = "Broker")]
pub struct ConnectionSettings {
    /// NATS servers, separated by commas: nats://[user:password@]host:port, or tls:// to refuse anything unencrypted
    #[arg(
        long,
        env = "SLUICE_NATS_URL",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "nats://127.0.0.1:4222",
        value_name = "URL"
    )]
    nats_url: Vec<String>,
    /// Name to log in with; needs --nats-password-file
    #[arg(long, env = "SLUICE_NATS_USER", value_name = "NAME")]
    nats_user: Option<String>,
    /// File with the password on its first line
    #[arg(long, env = "SLUICE_NATS_PASSWORD_FILE", value_name = "FILE")]
    nats_password_file: Option<PathBuf>,
    /// File with a token on its first line
    #[arg(long, env = "SLUICE_NATS_TOKEN_FILE", value_name = "FILE")]
    nats_token_file: Option<PathBuf>,
    /// File with the seed of a user's nkey (SU...)
    #[arg(long, env = "SLUICE_NATS_NKEY", value_name = "FILE")]
    nats_nkey: Option<PathBuf>,
    /// Credentials file: a user's JWT and seed, as nsc makes it
    #[arg(long, env = "SLUICE_NATS_CREDS", value_name = "FILE")]
    nats_creds: Option<PathBuf>,
    /// PEM file with the certificates that may vouch for the broker [default: the system's]
    #[arg(long, env = "SLUICE_NATS_TLS_CA", value_name = "FILE")]
    nats_tls_ca: Option<PathBuf>,
    /// PEM file with the certificate to show to the broker; needs --nats-tls-key
    #[arg(long, env = "SLUICE_NATS_TLS_CERT", value_name = "FILE")]
    nats_tls_cert: Option<PathBuf>,
    /// PEM file with that certificate's private key
    #[arg(long, env = "SLUICE_NATS_TLS_KEY", value_name = "FILE")]
    nats_tls_key: Option<PathBuf>,
    /// Begin with TLS at once, for brokers with handshake_first
    #[arg(long, env = "SLUICE_NATS_TLS_FIRST")]
    nats_tls_first: bool,
    /// What reply subjects begin with, as the broker's permissions have it
    #[arg(
        long,
        env = "SLUICE_NATS_INBOX_PREFIX",
        default_value = "_INBOX",
        value_name = "SUBJECT"
    )]
    nats_inbox_prefix: String,
    /// Name of the cluster: part of the stream's name and subjects; A-Z a-z 0-9 _ -
    #[arg(
        long,
        env = "SLUICE_CLUSTER",
        default_value = "main",
        value_name = "NAME"
    )]
    cluster: String,
}

/// Without the addresses, which may hold passwords.
impl fmt::Debug for ConnectionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSettings")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl ConnectionSettings {
    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What these settings say, for a program that is `role` and calls itself `name` to the broker. Looks at every file
    /// that is named.
    ///
    /// # Errors
    /// If settings contradict each other, one lacks its companion, or a file does not hold what it should.
    pub fn options(&self, role: Role, name: &str) -> Result<Options, SettingsError> {
        let identity = self.identity()?;
        let tls = self.tls()?;
        check_prefix(&self.nats_inbox_prefix)?;
        identity.check().map_err(SettingsError::Unusable)?;
        tls.check().map_err(SettingsError::Unusable)?;
        Ok(Options {
            servers: self.nats_url.clone(),
            identity,
            tls,
            cluster: self.cluster.clone(),
            inbox_prefix: Some(self.nats_inbox_prefix.clone()),
            ..Options::new(role, name)
        })
    }

    fn identity(&self) -> Result<Identity, SettingsError> {
        let mut said = Vec::new();
        let mut in_address = false;
        for address in &self.nats_url {
            in_address |=
                check_address(address).map_err(|reason| unusable(format!("nats_url: {reason}")))?;
        }
        if in_address {
            said.push(("nats_url (a name in the address)", Identity::Address));
        }
        match (&self.nats_user, &self.nats_password_file) {
            (Some(user), Some(file)) => {
                let (user, file) = (user.clone(), file.clone());
                said.push(("nats_user", Identity::Password { user, file }));
            }
            (Some(_), None) => return Err(alone("nats_user", "nats_password_file")),
            (None, Some(_)) => return Err(alone("nats_password_file", "nats_user")),
            (None, None) => {}
        }
        let files = [
            (
                "nats_token_file",
                self.nats_token_file.clone().map(Identity::Token),
            ),
            ("nats_nkey", self.nats_nkey.clone().map(Identity::Nkey)),
            (
                "nats_creds",
                self.nats_creds.clone().map(Identity::Credentials),
            ),
        ];
        said.extend(
            files
                .into_iter()
                .filter_map(|(name, identity)| Some((name, identity?))),
        );
        if said.len() > 1 {
            let names: Vec<_> = said.iter().map(|(name, _)| *name).collect();
            return Err(unusable(format!(
                "{} each say who we are: keep one of them",
                names.join(" and ")
            )));
        }
        Ok(said
            .pop()
            .map_or(Identity::Address, |(_, identity)| identity))
    }

    fn tls(&self) -> Result<Tls, SettingsError> {
        let certificate = match (&self.nats_tls_cert, &self.nats_tls_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (Some(_), None) => return Err(alone("nats_tls_cert", "nats_tls_key")),
            (None, Some(_)) => return Err(alone("nats_tls_key", "nats_tls_cert")),
            (None, None) => None,
        };
        Ok(Tls {
            ca: self.nats_tls_ca.clone(),
            certificate,
            first: self.nats_tls_first,
        })
    }
}

fn unusable(reason: String) -> SettingsError {
    SettingsError::Unusable(reason)
}

fn alone(setting: &str, other: &str) -> SettingsError {
    unusable(format!("{setting} is set, and {other} is not"))
}

/// Each part must be one token of a subject that means nothing to the broker.
fn check_prefix(prefix: &str) -> Result<(), SettingsError> {
    let token = |token: &str| {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
        !token.is_empty() && !token.contains(bad)
    };
    if prefix.split('.').all(token) {
        return Ok(());
    }
    Err(unusable(format!(
        "nats_inbox_prefix '{prefix}' must be a subject without wildcards"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Sample {
        #[command(flatten)]
        connection: ConnectionSettings,
    }

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let arguments = std::iter::once(&"sample").chain(arguments);
        let sample = Sample::try_parse_from(arguments).map_err(|error| error.to_string())?;
        let found = sample.connection.options(Role::DataPlane, "sample");
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        let check = |arguments: &[&str], expected: &[&str]| {
            let error = options(arguments).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{arguments:?}: {error}");
            }
            assert!(!error.contains("hush"), "{error}");
        };
        check(&["--nats-user=a"], &["nats_password_file is not"]);
        check(&["--nats-password-file=a"], &["nats_user is not"]);
        check(&["--nats-tls-cert=a"], &["nats_tls_key is not"]);
        check(&["--nats-tls-key=a"], &["nats_tls_cert is not"]);
        check(
            &["--nats-nkey=a", "--nats-creds=b"],
            &["nats_nkey and nats_creds"],
        );
        check(
            &["--nats-url=nats://a:hush@h", "--nats-token-file=b"],
            &["nats_url", "nats_token_file"],
        );
        check(&["--nats-url=nats://a:hush@h:x"], &["nats_url"]);
        check(&["--nats-url=http://a:hush@h"], &["nats_url", "http"]);
        check(&["--nats-url=ws://h"], &["nats_url", "'ws://'"]);
        check(&["--nats-nkey=/nowhere"], &["nats_nkey '/nowhere'"]);
        check(&["--nats-tls-ca=/nowhere"], &["nats_tls_ca '/nowhere'"]);
        check(&["--nats-inbox-prefix=a.*"], &["nats_inbox_prefix"]);
        check(&["--nats-inbox-prefix=a."], &["nats_inbox_prefix"]);
    }

    #[test]
    fn nothing_set_means_a_broker_on_this_host_that_does_not_ask() {
        let found = options(&[]).unwrap();
        assert_eq!(found.servers, ["nats://127.0.0.1:4222"]);
        assert_eq!(found.identity, Identity::Address);
        assert_eq!(found.cluster, "main");
        let found = options(&["--nats-url=tls://a:b@h1,tls://h2"]).unwrap();
        assert_eq!(found.servers.len(), 2);
        assert!(!format!("{found:?}").contains("a:b"));
    }
}
