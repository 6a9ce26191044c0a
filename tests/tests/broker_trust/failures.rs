//! When the broker does not accept us, or we do not accept it: said in time, in words that help, and tried again.

use crate::support::{
    Authority, Operator, Tail, connected, event, include, nkey, nkey_conf, options, shipped,
    wait_for_warning, wait_until,
};
use sluice_replica::log::jetstream::{Identity, JetStream, Options, Role, Tls};
use sluice_replica::log::{Interest, LogError, Source, TailItem};
use sluice_schema::version::Version;
use sluice_tests::nats::Nats;
use std::time::{Duration, Instant};

/// Far below the time after which a request without an answer is given up.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn check(options: Options, parts: &[&str]) {
    drop(failing(options, parts).await);
}

/// Connecting fails with these words, which a call made meanwhile also has.
async fn failing(options: Options, parts: &[&str]) -> (Source, Tail) {
    let source = JetStream::connect(options).await.unwrap();
    let mut tail = source.log.tail(Interest::Follow).await.unwrap();
    wait_until(
        &mut tail,
        |item| matches!(item, TailItem::Warning(text) if parts.iter().all(|part| text.contains(part))),
    )
    .await;
    let error = source.log.read(Version(1)).await.unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{error}");
    }
    (source, tail)
}

async fn wait_for_connection(tail: &mut Tail) {
    wait_until(tail, |item| matches!(item, TailItem::Connected)).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_a_corrected_file_needs_no_restart() {
    let files = shipped("password.conf", &[]);
    let nats = Nats::start_with_files(&include("password.conf"), &files).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "wrong").unwrap();
    let with_file = Options {
        identity: Identity::Password {
            user: "dp-1".into(),
            file: file.clone(),
        },
        ..options(nats.url(), Role::DataPlane, "dp-1")
    };
    let (_source, mut tail) = failing(with_file, &["authorization violation", "password"]).await;
    std::fs::write(&file, "change-me-dp-1").unwrap();
    wait_for_connection(&mut tail).await;
}

#[tokio::test]
async fn credentials_that_are_changed_with_the_broker_away_are_used_when_it_comes_back() {
    let old = shipped("password.conf", &[]);
    let mut nats = Nats::start_with_files(&include("password.conf"), &old).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "change-me-cp").unwrap();
    let with_file = Options {
        identity: Identity::Password {
            user: "cp".into(),
            file: file.clone(),
        },
        ..options(nats.url(), Role::ControlPlane, "cp")
    };
    let source = connected(with_file).await;
    source
        .log
        .append(Version::ZERO, vec![event("one")])
        .await
        .unwrap();
    let mut tail = source.log.tail(Interest::Follow).await.unwrap();
    nats.kill();
    nats.write_files(&shipped("password.conf", &[("change-me-cp", "rotated")]))
        .unwrap();
    nats.restart().unwrap();
    wait_for_warning(&mut tail, "authorization violation").await;
    std::fs::remove_file(&file).unwrap();
    wait_for_warning(&mut tail, "nats_password_file").await;
    std::fs::write(&file, "rotated").unwrap();
    wait_for_connection(&mut tail).await;
    source
        .log
        .append(Version(1), vec![event("two")])
        .await
        .unwrap();
    wait_until(
        &mut tail,
        |item| matches!(item, TailItem::Record(r) if r.version == Version(2)),
    )
    .await;
}

#[tokio::test]
async fn an_unknown_nkey_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _, _) = nkey_conf(directory.path());
    let nats = Nats::start_with_files(&include("nkey.conf"), &files).unwrap();
    let stranger = Options {
        identity: Identity::Nkey(nkey(directory.path(), "stranger").1),
        ..options(nats.url(), Role::DataPlane, "dp-1")
    };
    check(stranger, &["authorization violation", "key"]).await;
}

#[tokio::test]
async fn a_key_for_a_broker_without_keys_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let nats = Nats::start_with("authorization { user: a, password: b }").unwrap();
    let stranger = Options {
        identity: Identity::Nkey(nkey(directory.path(), "stranger").1),
        ..options(nats.url(), Role::DataPlane, "dp-1")
    };
    check(
        stranger,
        &["nats_nkey", "stranger.nk", "no users with keys"],
    )
    .await;
}

#[tokio::test]
async fn expired_credentials_are_named_and_renewed_ones_need_no_restart() {
    let operator = Operator::new();
    let nats = Nats::start_with(&operator.config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("creds");
    operator.credentials(&file, Duration::from_secs(3));
    let with_file = Options {
        identity: Identity::Credentials(file.clone()),
        ..options(nats.url(), Role::DataPlane, "x")
    };
    let source = connected(with_file).await;
    let mut tail = source.log.tail(Interest::Follow).await.unwrap();
    wait_for_warning(&mut tail, "xpired").await;
    wait_for_warning(&mut tail, "authorization violation").await;
    operator.credentials(&file, Duration::from_secs(3600));
    wait_for_connection(&mut tail).await;
}

#[tokio::test]
async fn a_broker_nobody_we_trust_vouches_for_is_not_talked_to() {
    let (authority, other) = (Authority::new(), Authority::without_server());
    let nats = Nats::start_with(&authority.broker_tls("")).unwrap();
    let address = format!("tls://localhost:{}", nats.client_port());
    let distrustful = Options {
        tls: other.tls(None),
        ..options(address.clone(), Role::DataPlane, "x")
    };
    check(distrustful, &["UnknownIssuer", "nats_tls_ca"]).await;
    // Nor by the system's certificates.
    check(
        options(address, Role::DataPlane, "x"),
        &["UnknownIssuer", "nats_tls_ca"],
    )
    .await;
}

#[tokio::test]
async fn a_broker_with_another_hosts_certificate_is_not_talked_to() {
    let authority = Authority::without_server();
    authority.issue("server", &["nats.example.com"]);
    let nats = Nats::start_with(&authority.broker_tls("")).unwrap();
    let mistaken = Options {
        tls: authority.tls(None),
        ..options(
            format!("tls://localhost:{}", nats.client_port()),
            Role::DataPlane,
            "x",
        )
    };
    check(mistaken, &["localhost", "another host", "nats_url"]).await;
}

#[tokio::test]
async fn a_missing_or_strange_client_certificate_is_named() {
    let (authority, other) = (Authority::new(), Authority::without_server());
    other.issue("dp-1", &["dp-1"]);
    authority.issue("nobody", &["nobody"]);
    let directory = format!("{}/", authority.directory.path().display());
    let files = shipped("certificate.conf", &[("/etc/nats/tls/", &directory)]);
    let nats = Nats::start_with_files(&include("certificate.conf"), &files).unwrap();
    let with = |tls| Options {
        tls,
        ..options(
            format!("tls://localhost:{}", nats.client_port()),
            Role::DataPlane,
            "dp-1",
        )
    };
    check(with(authority.tls(None)), &["nats_tls_cert"]).await;
    let strange = Tls {
        ca: Some(authority.path("ca.pem")),
        ..other.tls(Some("dp-1"))
    };
    check(with(strange), &["nats_tls_cert"]).await;
    check(
        with(authority.tls(Some("nobody"))),
        &["authorization violation", "certificate"],
    )
    .await;
}

#[tokio::test]
async fn a_broker_without_tls_gets_no_password_from_who_asked_for_tls() {
    let nats = Nats::start_with("authorization { user: a, password: b }").unwrap();
    let address = format!("tls://a:b@localhost:{}", nats.client_port());
    check(options(address, Role::DataPlane, "x"), &["TLS"]).await;
}

#[tokio::test]
async fn tls_at_the_wrong_moment_is_named() {
    let authority = Authority::new();
    let first = Nats::start_with(&authority.broker_tls("handshake_first: true")).unwrap();
    let later = Nats::start_with(&authority.broker_tls("")).unwrap();
    let with = |nats: &Nats, first| Options {
        tls: Tls {
            first,
            ..authority.tls(None)
        },
        ..options(
            format!("tls://localhost:{}", nats.client_port()),
            Role::DataPlane,
            "x",
        )
    };
    check(with(&later, true), &["nats_tls_first"]).await;
    check(with(&first, false), &["nats_tls_first"]).await;
}

#[tokio::test]
async fn a_call_that_is_not_permitted_fails_at_once_with_the_subject() {
    let files = shipped("password.conf", &[]);
    let nats = Nats::start_with_files(&include("password.conf"), &files).unwrap();
    let url = nats.url_as("dp-1", "change-me-dp-1");
    // It takes itself for a control plane, and so asks for what only these may.
    let source = connected(options(url.clone(), Role::ControlPlane, "dp-1")).await;
    let mut tail = source.log.tail(Interest::FollowAndReports).await.unwrap();
    let began = Instant::now();
    let error = source.log.bounds().await.unwrap_err();
    assert!(matches!(error, LogError::Unusable(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("$JS.API.STREAM.INFO.SLUICE_main"), "{text}");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    wait_for_warning(&mut tail, "permission denied").await;

    // Without its inbox it could not hear any answer.
    let deaf = Options {
        inbox_prefix: Some("_INBOX_other".into()),
        ..options(url, Role::DataPlane, "dp-1")
    };
    let deaf = connected(deaf).await;
    for _ in 0..2 {
        let began = Instant::now();
        let text = deaf.log.read(Version(1)).await.unwrap_err().to_string();
        assert!(
            text.contains("_INBOX_other") && text.contains("nats_inbox_prefix"),
            "{text}"
        );
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        let text = deaf.log.get(Version(1)).await.unwrap_err().to_string();
        assert!(text.contains("nats_inbox_prefix"), "{text}");
    }
}
