//! TLS from clients and to upstreams: which certificate is shown, and which is believed.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::secure::*;
use common::*;
use http::Request;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use sluice_dp::proxy::{Options, TlsOptions};
use sluice_dp::table::{Authority, Certificate};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A listener with TLS whose default certificate is `default`.
fn with_default(default: &Pair, entities: &[Entity]) -> Gateway {
    let certificate = Certificate::from_pem(&[(&default.cert, &default.key)]).unwrap();
    let options = Options {
        listen: vec!["127.0.0.1:0 ssl http2".parse().unwrap()],
        tls: TlsOptions {
            default_certificate: Some(Arc::new(certificate)),
            ..TlsOptions::default()
        },
        ..Options::default()
    };
    Gateway::with(options, entities)
}

/// The certificate shown for a name.
async fn shown(gateway: &Gateway, ca: &Ca, name: &str) -> CertificateDer<'static> {
    let stream = handshake(gateway.address, ca.client(), name).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn each_server_name_has_its_certificate() {
    let ca = Ca::new();
    let all = ["a.b.test", "x.b.test", "a.b.example", "other.test"];
    let [default, exact, first, last, any] = [(); 5].map(|()| ca.issue(&all));
    let gateway = with_default(
        &default,
        &[
            exact.entity(1),
            first.entity(2),
            last.entity(3),
            sni(11, 1, "a.b.test"),
            sni(12, 2, "*.b.test"),
            sni(13, 3, "a.b.*"),
        ],
    );
    assert_eq!(shown(&gateway, &ca, "a.b.test").await, exact.der());
    assert_eq!(shown(&gateway, &ca, "x.b.test").await, first.der());
    assert_eq!(shown(&gateway, &ca, "a.b.example").await, last.der());
    assert_eq!(shown(&gateway, &ca, "other.test").await, default.der());
    gateway.apply(&[any.entity(4), sni(14, 4, "*")]);
    assert_eq!(shown(&gateway, &ca, "other.test").await, any.der());
    // The name moves to another certificate: the next handshake sees it.
    gateway.apply(&[sni(11, 2, "a.b.test")]);
    assert_eq!(shown(&gateway, &ca, "a.b.test").await, first.der());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_keeps_its_last_good_form() {
    let ca = Ca::new();
    let [default, good, other] = [(); 3].map(|()| ca.issue(&["a.test"]));
    let gateway = with_default(&default, &[good.entity(1), sni(2, 1, "a.test")]);
    let wrong = Pair {
        key: other.key.clone(),
        ..good.clone()
    };
    let reasons = gateway.try_apply(&[wrong.entity(1)]);
    assert_eq!(
        reasons,
        ["the private key does not belong to the certificate"]
    );
    assert_eq!(shown(&gateway, &ca, "a.test").await, good.der());
    // A new one that was never good is not there: the name falls to the next that fits.
    let unreadable = Pair {
        key: "{vault://env/key}".to_owned(),
        ..other.clone()
    };
    let reasons = gateway.try_apply(&[unreadable.entity(5), sni(6, 5, "a.test")]);
    assert_eq!(reasons.len(), 1);
    gateway.apply(&[sni(2, 5, "b.test"), other.entity(1)]);
    assert_eq!(shown(&gateway, &ca, "a.test").await, default.der());
}

#[tokio::test]
async fn the_clients_signatures_choose_between_rsa_and_curve() {
    let ca = Ca::new();
    let curve = ca.issue(&["a.test"]);
    let rsa = ca.issue_as(&["a.test"], &rcgen::PKCS_RSA_SHA256);
    let gateway = with_default(&curve, &[rsa.entity_with(1, &curve), sni(2, 1, "a.test")]);
    assert_eq!(shown(&gateway, &ca, "a.test").await, curve.der());
    let config = only(&[SignatureScheme::RSA_PSS_SHA256]);
    let error = handshake(gateway.address, config, "a.test").await;
    // It trusts nobody, so it must fail; but by the certificate, which it was shown.
    let error = error.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_start_without_a_certificate_makes_one() {
    let ca = Ca::new();
    let gateway = Gateway::listening("ssl", &[]);
    let error = handshake(gateway.address, ca.client(), "localhost")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn requests_over_tls_are_known_as_such() {
    let ca = Ca::new();
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"], "protocols": ["https"] })),
        route(
            3,
            json!({ "paths": ["/"], "snis": ["b.test"], "strip_path": false }),
        ),
    ];
    let gateway = with_default(&ca.issue(&["a.test", "b.test"]), &entities);
    let stream = handshake(gateway.address, ca.client(), "a.test")
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    let mut client = Client::over(stream).await;
    let reply = client.get("/x").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.received("x-forwarded-proto").as_deref(),
        Some("https")
    );
    let port = gateway.address.port().to_string();
    assert_eq!(reply.received("x-forwarded-port"), Some(port));
    assert_eq!(reply.json()["uri"], "/x");
    let config = with_alpn(ca.client(), &["http/1.1"]);
    let stream = handshake(gateway.address, config, "b.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(Client::over(stream).await.get("/x").await.status, 200);
}

#[tokio::test]
async fn routes_for_server_names_and_https_only_are_told_apart_by_the_connection() {
    let ca = Ca::new();
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let default = ca.issue(&["a.test", "b.test"]);
    let entities = [
        service(1, one.address, json!({})),
        service(4, two.address, json!({})),
        route(
            2,
            json!({ "paths": ["/"], "protocols": ["https"], "https_redirect_status_code": 302 }),
        ),
        route(
            3,
            json!({ "paths": ["/"], "protocols": ["https"], "snis": ["b.test"], "service": reference(4) }),
        ),
    ];
    let certificate = Certificate::from_pem(&[(&default.cert, &default.key)]).unwrap();
    let options = Options {
        listen: ["127.0.0.1:0", "127.0.0.1:0 ssl"]
            .map(|listen| listen.parse().unwrap())
            .into(),
        tls: TlsOptions {
            default_certificate: Some(Arc::new(certificate)),
            ..TlsOptions::default()
        },
        ..Options::default()
    };
    let gateway = Gateway::with(options, &entities);
    let secure = gateway.running.addresses()[1];
    for (name, expected) in [("a.test", "one"), ("b.test", "two")] {
        let stream = handshake(secure, ca.client(), name).await.unwrap();
        assert_eq!(
            Client::over(stream).await.get("/").await.json()["name"],
            expected
        );
    }
    gateway.apply(&[route(3, json!({ "paths": ["/none"] }))]);
    let reply = gateway.get("/a?b").await;
    assert_eq!(reply.status, 302);
    assert_eq!(reply.header("location"), Some("https://gateway.test/a?b"));
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended() {
    let ca = Ca::new();
    let certificate = ca.issue(&["a.test"]);
    let certificate = Certificate::from_pem(&[(&certificate.cert, &certificate.key)]).unwrap();
    let options = Options {
        listen: vec!["127.0.0.1:0 ssl".parse().unwrap()],
        tls: TlsOptions {
            default_certificate: Some(Arc::new(certificate)),
            handshake_timeout: Duration::from_millis(50),
            ..TlsOptions::default()
        },
        ..Options::default()
    };
    let gateway = Gateway::with(options, &[]);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
}

/// A gateway in front of an origin over TLS, with these fields of the service.
async fn secured(
    pair: &Pair,
    clients: Option<&Ca>,
    fields: Value,
    more: &[Entity],
) -> (Gateway, Origin) {
    let manner = Manner {
        tls: Some(pair.server(&[], clients)),
        http2: false,
    };
    let origin = Origin::serve_as(manner, |request| Box::pin(describe(request, "tls"))).await;
    let gateway = Gateway::start(
        &[
            more,
            &[service(1, origin.address, https(fields)), to_upstream()],
        ]
        .concat(),
    );
    (gateway, origin)
}

fn https(mut fields: Value) -> Value {
    fields["protocol"] = "https".into();
    fields["retries"] = 1.into();
    fields
}

/// The host that is asked for is the client's, so that certificates can be for names.
fn to_upstream() -> Entity {
    route(2, json!({ "paths": ["/"], "preserve_host": true }))
}

async fn status(gateway: &Gateway, host: &str) -> u16 {
    let mut client = gateway.client().await;
    client
        .get_with("/", &[("host", host)])
        .await
        .status
        .as_u16()
}

#[tokio::test]
async fn an_upstream_is_believed_without_a_look_unless_the_service_says_otherwise() {
    let ca = Ca::new();
    let (gateway, origin) = secured(&ca.issue(&["a.test"]), None, json!({}), &[]).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let reply = client.get_with("/x", &[("host", "b.test:81")]).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json()["name"], "tls");
        assert_eq!(reply.received("host").as_deref(), Some("b.test:81"));
    }
    assert_eq!(
        origin.accepted.load(Ordering::Relaxed),
        1,
        "connections are kept"
    );
}

#[tokio::test]
async fn a_verified_upstream_has_to_be_the_one_asked_for() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let verified = |authority: u128| json!({ "tls_verify": true, "ca_certificates": [uuid::Uuid::from_u128(authority).to_string()] });
    let authorities = [ca.entity(7), stranger.entity(8)];
    let (gateway, origin) = secured(&ca.issue(&["a.test"]), None, verified(7), &authorities).await;
    assert_eq!(status(&gateway, "a.test").await, 200);
    let mut client = gateway.client().await;
    let reply = client.get_with("/", &[("host", "b.test")]).await;
    assert_eq!(reply.status, 502, "another name");
    assert_eq!(
        reply.message(),
        "An invalid response was received from the upstream server"
    );
    // The open connection of the old setting is not used for the new one.
    gateway.apply(&[service(1, origin.address, https(verified(8)))]);
    assert_eq!(status(&gateway, "a.test").await, 502, "another authority");
    gateway.apply(&[service(
        1,
        origin.address,
        https(json!({ "tls_verify": true })),
    )]);
    assert_eq!(status(&gateway, "a.test").await, 502, "no authority");
    gateway.apply(&[service(1, origin.address, https(verified(99)))]);
    assert_eq!(
        status(&gateway, "a.test").await,
        502,
        "an authority that is not here"
    );
    gateway.apply(&[service(
        1,
        origin.address,
        https(json!({ "tls_verify": false })),
    )]);
    assert_eq!(status(&gateway, "a.test").await, 200);
}

#[tokio::test]
async fn a_chain_may_not_be_longer_than_the_service_says() {
    let ca = Ca::new();
    let (one, two) = (ca.below(), ca.below().below());
    let _ = two;
    let below = one.below();
    let mut pair = below.issue(&["a.test"]);
    pair.cert = format!("{}{}{}", pair.cert, below.pem, one.pem);
    let fields = |depth: Option<u8>| {
        json!({
            "tls_verify": true, "tls_verify_depth": depth,
            "ca_certificates": [uuid::Uuid::from_u128(7).to_string()],
        })
    };
    let (gateway, origin) = secured(&pair, None, fields(Some(2)), &[ca.entity(7)]).await;
    assert_eq!(status(&gateway, "a.test").await, 200);
    for depth in [Some(0), Some(1), None] {
        gateway.apply(&[service(1, origin.address, https(fields(depth)))]);
        assert_eq!(status(&gateway, "a.test").await, 502, "{depth:?}");
    }
}

#[tokio::test]
async fn the_nodes_authorities_verify_where_the_service_names_none() {
    let ca = Ca::new();
    let manner = Manner {
        tls: Some(ca.issue(&["a.test"]).server(&[], None)),
        http2: false,
    };
    let origin = Origin::serve_as(manner, |request| Box::pin(describe(request, "tls"))).await;
    let authority = rustls::pki_types::pem::PemObject::from_pem_slice(ca.pem.as_bytes()).unwrap();
    let options = Options {
        tls: TlsOptions {
            trusted: vec![Authority::from_der(&authority).unwrap()].into(),
            ..TlsOptions::default()
        },
        ..Options::default()
    };
    let fields = https(json!({ "tls_verify": true }));
    let gateway = Gateway::with(
        options,
        &[service(1, origin.address, fields), to_upstream()],
    );
    assert_eq!(status(&gateway, "a.test").await, 200);
    assert_eq!(status(&gateway, "b.test").await, 502);
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_gets_the_services_one() {
    let (servers, clients, stranger) = (Ca::new(), Ca::new(), Ca::new());
    let (right, wrong) = (clients.issue(&["me"]), stranger.issue(&["me"]));
    let fields = json!({ "client_certificate": reference(5) });
    let server = servers.issue(&["a.test"]);
    let (gateway, origin) =
        secured(&server, Some(&clients), fields.clone(), &[right.entity(5)]).await;
    assert_eq!(status(&gateway, "a.test").await, 200);
    let accepted = origin.accepted.load(Ordering::Relaxed);
    // A change of the certificate is a change for new connections, and the old ones are not used again.
    gateway.apply(&[wrong.entity(5)]);
    assert_eq!(status(&gateway, "a.test").await, 502);
    assert!(origin.accepted.load(Ordering::Relaxed) > accepted);
    gateway.apply(&[right.entity(5)]);
    assert_eq!(status(&gateway, "a.test").await, 200);
    gateway.apply(&[service(1, origin.address, https(json!({})))]);
    assert_eq!(status(&gateway, "a.test").await, 502, "none is shown");
    gateway.apply(&[service(
        1,
        origin.address,
        https(json!({ "client_certificate": reference(9) })),
    )]);
    assert_eq!(status(&gateway, "a.test").await, 502, "it is not here");
}

#[tokio::test]
async fn the_usual_port_of_https_is_not_written_in_host() {
    let ca = Ca::new();
    let manner = Manner {
        tls: Some(ca.issue(&["a.test"]).server(&[], None)),
        http2: false,
    };
    let origin = Origin::serve_as(manner, |request| Box::pin(describe(request, "tls"))).await;
    let gateway = Gateway::start(&[
        service(1, origin.address, https(json!({}))),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let reply = gateway.get("/").await;
    assert_eq!(reply.received("host"), Some(origin.address.to_string()));
}

#[tokio::test]
async fn a_session_is_resumed_by_whichever_worker_takes_the_connection() {
    let ca = Ca::new();
    let pair = ca.issue(&["a.test"]);
    let certificate = Certificate::from_pem(&[(&pair.cert, &pair.key)]).unwrap();
    let origin = Origin::echo().await;
    let options = Options {
        workers: 3,
        listen: vec!["127.0.0.1:0 ssl".parse().unwrap()],
        tls: TlsOptions {
            default_certificate: Some(Arc::new(certificate)),
            ..TlsOptions::default()
        },
        ..Options::default()
    };
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options, &entities);
    let config = ca.client();
    for attempt in 0..6 {
        let stream = handshake(gateway.address, config.clone(), "a.test")
            .await
            .unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        let expected = if attempt == 0 {
            rustls::HandshakeKind::Full
        } else {
            rustls::HandshakeKind::Resumed
        };
        assert_eq!(kind, Some(expected), "{attempt}");
        // The answer also brings the tickets for the next ones.
        let mut client = Client::over(stream).await;
        let request = Request::get("/").header("host", "a").body(empty()).unwrap();
        assert_eq!(client.send(request).await.status, 200);
    }
}
