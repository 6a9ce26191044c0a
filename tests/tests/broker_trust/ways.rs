//! Every way of saying who we are lets a change through.

use crate::support::{
    Authority, Operator, a_change_gets_through, include, nkey_conf, options, shipped,
};
use sluice_replica::log::jetstream::{Identity, Options, Role, Tls};
use sluice_tests::nats::Nats;
use std::time::Duration;

#[tokio::test]
async fn by_a_password_in_the_address_or_in_a_file() {
    let nats =
        Nats::start_with_files(&include("password.conf"), &shipped("password.conf", &[])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "change-me-dp-1\n").unwrap();
    let control = options(nats.url_as("cp", "change-me-cp"), Role::ControlPlane, "cp");
    let data = Options {
        identity: Identity::Password {
            user: "dp-1".into(),
            file,
        },
        ..options(nats.url(), Role::DataPlane, "dp-1")
    };
    a_change_gets_through(control.clone(), data, "dp-1").await;
    let shared = options(nats.url_as("dps", "change-me-dps"), Role::DataPlane, "dps");
    a_change_gets_through(control, shared, "any").await;
}

#[tokio::test]
async fn by_a_password_in_a_cluster_of_three_through_each_broker() {
    let files = shipped("password.conf", &[]);
    let servers = Nats::cluster_with_files(3, &include("password.conf"), &files).unwrap();
    for server in &servers {
        let control = Options {
            replicas: 3,
            ..options(
                servers[0].url_as("cp", "change-me-cp"),
                Role::ControlPlane,
                "cp",
            )
        };
        let data = options(
            server.url_as("dp-1", "change-me-dp-1"),
            Role::DataPlane,
            "dp-1",
        );
        a_change_gets_through(control, data, "dp-1").await;
    }
}

#[tokio::test]
async fn by_a_token() {
    let nats = Nats::start_with("authorization { token: \"s3cr3t token\" }").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cr3t token\n").unwrap();
    let with_token = |role| Options {
        identity: Identity::Token(file.clone()),
        ..options(nats.url(), role, "x")
    };
    a_change_gets_through(
        with_token(Role::ControlPlane),
        with_token(Role::DataPlane),
        "n",
    )
    .await;
}

#[tokio::test]
async fn by_an_nkey() {
    let directory = tempfile::tempdir().unwrap();
    let (files, cp, dp) = nkey_conf(directory.path());
    let nats = Nats::start_with_files(&include("nkey.conf"), &files).unwrap();
    let control = Options {
        identity: cp,
        ..options(nats.url(), Role::ControlPlane, "cp")
    };
    let data = Options {
        identity: dp,
        ..options(nats.url(), Role::DataPlane, "dp-1")
    };
    a_change_gets_through(control, data, "dp-1").await;
}

#[tokio::test]
async fn by_a_credentials_file() {
    let operator = Operator::new();
    let nats = Nats::start_with(&operator.config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let with_file = |role, name: &str| {
        let file = directory.path().join(name);
        operator.credentials(&file, Duration::from_secs(3600));
        Options {
            identity: Identity::Credentials(file),
            ..options(nats.url(), role, name)
        }
    };
    let (control, data) = (
        with_file(Role::ControlPlane, "cp"),
        with_file(Role::DataPlane, "dp"),
    );
    a_change_gets_through(control, data, "n").await;
}

#[tokio::test]
async fn by_a_certificate() {
    let authority = Authority::new();
    authority.issue("cp", &["cp"]);
    authority.issue("dp-1", &["dp-1"]);
    let directory = format!("{}/", authority.directory.path().display());
    let files = shipped("certificate.conf", &[("/etc/nats/tls/", &directory)]);
    let nats = Nats::start_with_files(&include("certificate.conf"), &files).unwrap();
    let url = format!("tls://localhost:{}", nats.client_port());
    let control = Options {
        tls: authority.tls(Some("cp")),
        ..options(url.clone(), Role::ControlPlane, "cp")
    };
    let data = Options {
        tls: authority.tls(Some("dp-1")),
        ..options(url, Role::DataPlane, "dp-1")
    };
    a_change_gets_through(control, data, "dp-1").await;
}

#[tokio::test]
async fn with_tls_from_the_first_byte() {
    let authority = Authority::new();
    let extra = authority.broker_tls("handshake_first: true");
    let nats = Nats::start_with(&extra).unwrap();
    let url = format!("tls://127.0.0.1:{}", nats.client_port());
    let with_tls = |role| Options {
        tls: Tls {
            first: true,
            ..authority.tls(None)
        },
        ..options(url.clone(), role, "x")
    };
    a_change_gets_through(with_tls(Role::ControlPlane), with_tls(Role::DataPlane), "n").await;
}
