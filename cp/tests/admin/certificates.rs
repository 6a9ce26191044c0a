//! Certificates, server names, authorities, keys and vaults.

use crate::server::Server;
use serde_json::{Value, json};

fn pem(name: &str) -> String {
    let path = format!("{}/../schema/tests/pem/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn pair(name: &str) -> Value {
    json!({"cert": pem(&format!("{name}.crt")), "key": pem(&format!("{name}.key"))})
}

fn named(name: &str, snis: Value) -> Value {
    let mut input = pair(name);
    input["snis"] = snis;
    input
}

#[tokio::test]
async fn a_certificate_is_shown_with_its_names_and_reached_by_them() {
    let server = Server::start().await;
    let created = server
        .create("/certificates", named("rsa", json!(["b.test", "a.test"])))
        .await;
    assert_eq!(created["snis"], json!(["a.test", "b.test"]));
    assert_eq!(created["cert_alt"], Value::Null);
    let id = created["id"].as_str().unwrap();
    for path in [
        format!("/certificates/{id}"),
        "/certificates/a.test".to_owned(),
        "/certificates/b.test".to_owned(),
    ] {
        assert_eq!(
            server.check("GET", &path, Value::Null).await,
            (200, created.clone()),
            "{path}"
        );
    }
    let (_, list) = server.check("GET", "/certificates", Value::Null).await;
    assert_eq!(list["data"], json!([created]));
    let (_, snis) = server
        .check("GET", "/certificates/a.test/snis", Value::Null)
        .await;
    assert_eq!(snis["data"].as_array().unwrap().len(), 2);
    server
        .create("/certificates/a.test/snis", json!({"name": "c.test"}))
        .await;
    let before = server.version();
    let (status, patched) = server
        .check("PATCH", "/certificates/c.test", json!({"snis": ["d.test"]}))
        .await;
    assert_eq!((status, &patched["snis"]), (200, &json!(["d.test"])));
    assert_eq!(server.version(), before + 1, "one event");
    let (status, _) = server
        .check("GET", "/snis/d.test/certificate", Value::Null)
        .await;
    assert_eq!(status, 404);
    assert_eq!(
        server
            .check("DELETE", "/certificates/d.test", Value::Null)
            .await
            .0,
        204
    );
    let (_, snis) = server.check("GET", "/snis", Value::Null).await;
    assert_eq!(snis["data"], json!([]));
}

#[tokio::test]
async fn a_form_may_list_names() {
    let server = Server::start().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let mut body = form_urlencoded::Serializer::new(String::new());
    let pair = pair("p256");
    body.append_pair("cert", pair["cert"].as_str().unwrap())
        .append_pair("key", pair["key"].as_str().unwrap())
        .append_pair("snis[]", "a.test")
        .append_pair("snis[]", "b.test");
    let answer = server
        .send_text("POST", "/certificates", &form, &body.finish())
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json()["snis"], json!(["a.test", "b.test"]));
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_told_as_kong_does() {
    let server = Server::start().await;
    let first = server
        .create("/certificates", named("rsa", json!(["a.test"])))
        .await;
    let mut crossed = pair("rsa");
    crossed["key"] = pem("p256.key").into();
    for (path, input, code, fields) in [
        (
            "/certificates",
            json!({}),
            2,
            json!({"cert": "required field missing", "key": "required field missing"}),
        ),
        (
            "/certificates",
            crossed,
            2,
            json!({"@entity": ["certificate does not match key"]}),
        ),
        (
            "/certificates",
            named("p256", json!(["a.test"])),
            2,
            json!({"snis": format!(
                "a.test already associated with existing certificate '{}'",
                first["id"].as_str().unwrap()
            )}),
        ),
        (
            "/snis",
            json!({"name": "a.test", "certificate": first["id"]}),
            2,
            json!({"certificate": {"id": "missing primary key"}}),
        ),
        (
            "/ca_certificates",
            json!({"cert": pem("rsa.crt")}),
            2,
            json!({"@entity": ["certificate does not appear to be a CA because it is missing the \"CA\" basic constraint"]}),
        ),
        (
            "/ca_certificates",
            json!({"cert": pem("expired.crt")}),
            2,
            json!({"@entity": ["certificate expired, \"Not After\" time is in the past"]}),
        ),
        (
            "/vaults",
            json!({"prefix": "my-env", "name": "hcv"}),
            2,
            json!({"name": "vault 'hcv' is not installed"}),
        ),
        (
            "/keys",
            json!({"kid": "1"}),
            2,
            json!({"@entity": ["at least one of these fields must be non-empty: 'jwk', 'pem'"]}),
        ),
    ] {
        let (status, body) = server.check("POST", path, input).await;
        assert_eq!(
            (status, &body["code"], &body["fields"]),
            (400, &json!(code), &fields),
            "{path}: {body}"
        );
    }
}

#[tokio::test]
async fn an_authority_that_a_service_lists_cannot_be_deleted() {
    let server = Server::start().await;
    let ca = server
        .create("/ca_certificates", json!({"cert": pem("ca.crt")}))
        .await;
    assert_eq!(ca["cert_digest"].as_str().unwrap().len(), 64);
    let service = json!({"name": "s", "url": "https://a.test", "ca_certificates": [ca["id"]]});
    let service = server.create("/services", service).await;
    let path = format!("/ca_certificates/{}", ca["id"].as_str().unwrap());
    let (status, body) = server.check("DELETE", &path, Value::Null).await;
    assert_eq!(
        (status, body),
        (
            400,
            json!({
                "code": 19,
                "name": "referenced by others",
                "message": format!(
                    "ca certificate {} is still referenced by services (id = {})",
                    ca["id"].as_str().unwrap(),
                    service["id"].as_str().unwrap()
                ),
            })
        )
    );
    let missing = json!({"ca_certificates": ["00000000-0000-0000-0000-000000000009"]});
    let (status, body) = server.check("PATCH", "/services/s", missing).await;
    assert_eq!((status, &body["code"]), (400, &json!(2)), "{body}");
}

#[tokio::test]
async fn the_certificate_of_a_service_is_reached_through_it() {
    let server = Server::start().await;
    let certificate = server.create("/certificates", pair("ed25519")).await;
    let service = json!({"name": "s", "url": "https://a.test", "client_certificate": {"id": certificate["id"]}});
    server.create("/services", service).await;
    assert_eq!(
        server
            .check("GET", "/services/s/client_certificate", Value::Null)
            .await,
        (200, certificate.clone())
    );
    let id = certificate["id"].as_str().unwrap();
    let (_, users) = server
        .check("GET", &format!("/certificates/{id}/services"), Value::Null)
        .await;
    assert_eq!(users["data"][0]["name"], "s");
    let (status, body) = server
        .check("DELETE", &format!("/certificates/{id}"), Value::Null)
        .await;
    assert_eq!(
        (status, &body["code"], &body["fields"]),
        (400, &json!(4), &json!({"@referenced_by": "services"}))
    );
}

#[tokio::test]
async fn keys_belong_to_sets_and_vaults_have_a_schema() {
    let server = Server::start().await;
    server.create("/key-sets", json!({"name": "s"})).await;
    let key = json!({"name": "k", "kid": "1", "pem": {"public_key": pem("rsa.pub")}});
    let key = server.create("/key-sets/s/keys", key).await;
    for path in ["/keys/k", "/key-sets/s/keys/k"] {
        assert_eq!(
            server.check("GET", path, Value::Null).await,
            (200, key.clone())
        );
    }
    let (_, set) = server.check("GET", "/keys/k/set", Value::Null).await;
    assert_eq!(set["name"], "s");
    let vault = json!({"prefix": "my-env", "name": "env", "config": {"prefix": "A_"}});
    let vault = server.create("/vaults", vault).await;
    assert_eq!(
        server.check("GET", "/vaults/my-env", Value::Null).await,
        (200, vault)
    );
    let (status, schema) = server
        .check("GET", "/schemas/vaults/env", Value::Null)
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        schema["fields"][0]["config"]["fields"][0]["prefix"]["type"],
        "string"
    );
    assert_eq!(
        server
            .check("GET", "/schemas/vaults/hcv", Value::Null)
            .await,
        (404, json!({"message": "No vault named 'hcv'"}))
    );
    let (_, schema) = server.check("GET", "/schemas/keys", Value::Null).await;
    let jwk = &schema["fields"].as_array().unwrap()[4]["jwk"];
    assert_eq!(
        (&jwk["encrypted"], &jwk["referenceable"]),
        (&json!(true), &json!(true))
    );
}

#[tokio::test]
async fn filter_chains_answer_as_where_they_are_switched_off() {
    let server = Server::start().await;
    server
        .create("/services", json!({"name": "s", "host": "a.test"}))
        .await;
    let message = json!({"message": "this endpoint is only available when wasm is enabled"});
    for (method, path) in [
        ("GET", "/filter-chains"),
        ("POST", "/filter-chains"),
        ("GET", "/filter-chains/x"),
        ("GET", "/services/s/filter-chains"),
    ] {
        assert_eq!(
            server.check(method, path, Value::Null).await,
            (400, message.clone()),
            "{method} {path}"
        );
    }
    let (status, schema) = server
        .check("GET", "/schemas/filter_chains", Value::Null)
        .await;
    assert_eq!((status, schema["fields"].is_array()), (200, true));
}
