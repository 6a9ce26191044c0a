//! The shipped configuration of the broker, and certificates, keys and statements to use it with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use sluice_replica::log::jetstream::{Identity, Options, Role, Tls};
use sluice_replica::log::{Bounds, ChunkUse, Interest, Source, TailItem};
use sluice_schema::hash::Hash32;
use sluice_schema::version::Version;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

pub(crate) use sluice_tests::tail::{PATIENCE, Tail, connected, event, wait_until};

pub(crate) fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/nats");
    std::fs::read_to_string(path.join(name)).unwrap()
}

/// The shipped files, ready to be included: `name` with some of its texts replaced, and what it includes.
pub(crate) fn shipped(name: &str, replaced: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut text = example(name);
    for (old, new) in replaced {
        assert!(text.contains(old), "{name} does not say {old}");
        text = text.replace(old, new);
    }
    vec![
        (name.to_owned(), text),
        ("roles.conf".into(), example("roles.conf")),
    ]
}

pub(crate) fn include(name: &str) -> String {
    format!("include \"{name}\"\n")
}

pub(crate) fn options(url: String, role: Role, user: &str) -> Options {
    Options {
        servers: vec![url],
        cluster: "main".into(),
        inbox_prefix: Some(format!("_INBOX_{user}")),
        ping_interval: Duration::from_millis(500),
        ..Options::new(role, "trust-test")
    }
}

pub(crate) async fn wait_for_warning(tail: &mut Tail, part: &str) {
    wait_until(
        tail,
        |item| matches!(item, TailItem::Warning(text) if text.contains(part)),
    )
    .await;
}

/// The log's ends, once there is one: a new cluster takes its time.
async fn bounds(source: &Source) -> Bounds {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.log.bounds().await {
            Ok(bounds) => return bounds,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A change gets from a control plane to a data plane and its report back, by each of the broker's interfaces they use.
pub(crate) async fn a_change_gets_through(control: Options, data: Options, node: &str) {
    let control = connected(control).await;
    let mut reports = control.log.tail(Interest::FollowAndReports).await.unwrap();
    let at = bounds(&control).await.last;
    let data = connected(data).await;
    let mut tail = data.log.tail(Interest::Follow).await.unwrap();
    // Once this has an answer the subscriptions before it are with the broker.
    data.log.read(Version(1)).await.unwrap();

    let text = format!("event {}", at.next());
    control.log.append(at, vec![event(&text)]).await.unwrap();
    wait_until(
        &mut tail,
        |item| matches!(item, TailItem::Record(record) if record.version == at.next()),
    )
    .await;
    let page = data.log.read(at.next()).await.unwrap();
    assert_eq!(page.records[0].event, text.as_bytes());
    let found = data.log.get(at.next()).await.unwrap().unwrap();
    assert_eq!(found.event, text.as_bytes());
    let hash = Hash32::of(text.as_bytes());
    control
        .chunks
        .put(ChunkUse::Transaction, hash, text.as_bytes())
        .await
        .unwrap();
    assert_eq!(
        data.chunks
            .get(ChunkUse::Transaction, hash)
            .await
            .unwrap()
            .unwrap(),
        text
    );
    control.log.announce("head".into()).await.unwrap();
    wait_until(&mut tail, |item| matches!(item, TailItem::Head(_))).await;
    data.log.report(node, "well".into()).await.unwrap();
    wait_until(&mut reports, |item| matches!(item, TailItem::Report(_))).await;
}

/// A CA and what it vouches for, in a directory of its own.
pub(crate) struct Authority {
    pub(crate) directory: tempfile::TempDir,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    /// A CA that has made `server.pem` for this host.
    pub(crate) fn new() -> Self {
        let authority = Self::without_server();
        authority.issue("server", &["localhost", "127.0.0.1"]);
        authority
    }

    pub(crate) fn without_server() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("test {}", Uuid::now_v7()));
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            directory,
            issuer: Issuer::new(params, key),
        }
    }

    /// Makes `<file>.pem` and `<file>.key` for these names.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The `tls` of a broker that asks for certificates.
    pub(crate) fn broker_tls(&self, more: &str) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, timeout: 5, {more} }}\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem"),
        )
    }

    /// How somebody with the certificate `name` talks to a broker of this CA.
    pub(crate) fn tls(&self, name: Option<&str>) -> Tls {
        let certificate = name.map(|name| {
            (
                self.path(&format!("{name}.pem")),
                self.path(&format!("{name}.key")),
            )
        });
        Tls {
            ca: Some(self.path("ca.pem")),
            certificate,
            first: false,
        }
    }
}

/// A new key of a user: its public form, and the file with its seed.
pub(crate) fn nkey(directory: &Path, name: &str) -> (String, PathBuf) {
    let pair = KeyPair::new_user();
    let file = directory.join(format!("{name}.nk"));
    std::fs::write(&file, pair.seed().unwrap() + "\n").unwrap();
    (pair.public_key(), file)
}

/// The shipped nkey.conf with new keys, and the files of `cp` and `dp-1`.
pub(crate) fn nkey_conf(directory: &Path) -> (Vec<(String, String)>, Identity, Identity) {
    let (cp, cp_file) = nkey(directory, "cp");
    let (dp, dp_file) = nkey(directory, "dp-1");
    let others: Vec<_> = ["dp-2", "dps", "auditor"]
        .iter()
        .map(|name| nkey(directory, name).0)
        .collect();
    let files = shipped(
        "nkey.conf",
        &[
            ("UCP_PUBLIC_KEY", &cp),
            ("UDP1_PUBLIC_KEY", &dp),
            ("UDP2_PUBLIC_KEY", &others[0]),
            ("UDPS_PUBLIC_KEY", &others[1]),
            ("UAUDITOR_PUBLIC_KEY", &others[2]),
        ],
    );
    (files, Identity::Nkey(cp_file), Identity::Nkey(dp_file))
}

/// An operator with one account for Sluice, as `nsc` would make them.
pub(crate) struct Operator {
    account: KeyPair,
    pub(crate) config: String,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let (operator, account, system) = (
            KeyPair::new_operator(),
            KeyPair::new_account(),
            KeyPair::new_account(),
        );
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        });
        let plain = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 });
        let statement = |subject: &KeyPair, claims: Value| jwt(&operator, subject, claims, None);
        let word = statement(
            &operator,
            json!({ "type": "operator", "version": 2, "system_account": system.public_key() }),
        );
        let own = statement(
            &account,
            json!({ "type": "account", "version": 2, "limits": limits }),
        );
        let sys = statement(
            &system,
            json!({ "type": "account", "version": 2, "limits": plain }),
        );
        let config = format!(
            "operator: {word}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {own}, {}: {sys} }}\n",
            system.public_key(),
            account.public_key(),
            system.public_key(),
        );
        Self { account, config }
    }

    /// Writes a .creds file of a user, good for so long.
    pub(crate) fn credentials(&self, file: &Path, good_for: Duration) {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let until = SystemTime::now() + good_for;
        let word = jwt(&self.account, &user, claims, Some(until));
        let seed = user.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{word}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(file, text).unwrap();
    }
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: Value, until: Option<SystemTime>) -> String {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut body = json!({
        "jti": Uuid::now_v7().simple().to_string(),
        "iat": seconds(SystemTime::now()) - 1,
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": "test",
        "nats": claims,
    });
    if let Some(until) = until {
        body["exp"] = json!(seconds(until));
    }
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let signed = format!("{header}.{}", encode(body));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
