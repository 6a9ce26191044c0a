//! The keyring over the Admin API, and what a control plane may do that nobody believes any more.

use crate::server::Server;
use serde_json::{Value, json};
use sluice_replica::keys::{Entry, Keychain, Keyring, SigningKey, Standing};
use sluice_schema::version::Time;

fn root() -> SigningKey {
    SigningKey::from_seed([100; 32])
}

/// The control plane's own.
fn own() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

fn sealed(serial: u64, standing: Standing) -> Vec<u8> {
    let entry = Entry {
        key: own().public_key(),
        name: "cp-1".to_owned(),
        standing,
        note: "a note".to_owned(),
    };
    let ring = Keyring {
        serial,
        made: Time(1_700_000_000_000_000),
        entries: vec![entry],
    };
    ring.seal(&root()).unwrap().to_vec()
}

async fn start() -> (Server, Keychain) {
    let keychain = Keychain::fixed(root().trusted_root());
    keychain.offer(&sealed(1, Standing::Active)).unwrap();
    let server = Server::start_with(keychain.clone()).await;
    (server, keychain)
}

async fn publish(server: &Server, ring: &[u8]) -> (u16, Value) {
    let answer = server.send_bytes("POST", "/log/keyring", &[], ring).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn a_published_keyring_is_in_force_at_once_and_shown() {
    let (server, keychain) = start().await;
    let (status, shown) = server.check("GET", "/log/keyring", Value::Null).await;
    assert_eq!((status, &shown["serial"]), (200, &json!(1)));
    assert_eq!(shown["made"], "2023-11-14T22:13:20.000000Z", "{shown}");
    assert_eq!(shown["signed_by"], root().id());
    assert_eq!(shown["roots"][0]["id"], root().id());
    let entry = &shown["entries"][0];
    assert_eq!(
        (&entry["id"], &entry["name"], &entry["standing"]),
        (&json!(own().id()), &json!("cp-1"), &json!("active"))
    );
    assert_eq!(
        (&entry["note"], &entry["pinned"]),
        (&json!("a note"), &json!(false))
    );
    assert_eq!(shown["may_sign"], true);

    let two = sealed(2, Standing::Retired);
    let (status, shown) = publish(&server, &two).await;
    assert_eq!((status, &shown["changed"]), (200, &json!(true)), "{shown}");
    assert_eq!(
        (&shown["serial"], &shown["may_sign"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(keychain.current().ring_serial(), 2);
    let (status, shown) = publish(&server, &two).await;
    assert_eq!((status, &shown["changed"]), (200, &json!(false)));
    let metrics = server.send("GET", "/metrics", &[], Value::Null).await.text;
    assert!(
        metrics.contains("\nsluice_cp_keyring_serial 2\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_keyring_that_is_not_to_be_believed_is_refused_with_the_reason() {
    let (server, keychain) = start().await;
    publish(&server, &sealed(3, Standing::Active)).await;
    let stranger = Keyring {
        serial: 9,
        made: Time(0),
        entries: Vec::new(),
    }
    .seal(&SigningKey::from_seed([66; 32]))
    .unwrap();
    for (ring, reason) in [
        (
            sealed(2, Standing::Active),
            "keyring 2 is not newer than keyring 3",
        ),
        (
            sealed(3, Standing::Revoked),
            "another keyring with serial 3",
        ),
        (stranger.to_vec(), "is not a root key pinned here"),
        (b"nonsense".to_vec(), "could not decode the keyring"),
        (Vec::new(), "could not decode the keyring"),
    ] {
        let (status, answer) = publish(&server, &ring).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(
            status == 400 && message.contains(reason),
            "{status} {answer}"
        );
    }
    let (status, _) = publish(&server, &vec![0; 1 << 20]).await;
    assert_eq!(status, 413);
    assert_eq!(keychain.current().ring_serial(), 3);
}

#[tokio::test]
async fn a_control_plane_whose_key_is_retired_or_revoked_refuses_to_write_and_says_what_to_do() {
    let (server, _) = start().await;
    let body = json!({"name": "shop", "host": "shop.example"});
    server.create("/services", body.clone()).await;
    let before = server.version();
    for (serial, standing) in [(2, Standing::Retired), (3, Standing::Revoked)] {
        publish(&server, &sealed(serial, standing)).await;
        let body = json!({"name": format!("shop-{serial}"), "host": "shop.example"});
        let (status, answer) = server.check("POST", "/services", body.clone()).await;
        let message = answer["message"].as_str().unwrap_or_default();
        let expected = format!("signing key {} is {standing}", own().id());
        assert!(
            status == 503 && message.contains(&expected),
            "{status} {answer}"
        );
        assert!(message.contains("new key"), "{message}");
        // Reading and trying out go on.
        let (status, _) = server.check("GET", "/services/shop", Value::Null).await;
        assert_eq!(status, 200);
        let (status, _) = server.check("POST", "/services?dry_run=1", body).await;
        assert_eq!(status, 200);
    }
    assert_eq!(server.version(), before);
    publish(&server, &sealed(4, Standing::Active)).await;
    server
        .create("/services", json!({"name": "again", "host": "a.example"}))
        .await;
}
