//! The forms a body may have.

use crate::server::Server;
use serde_json::{Value, json};

const BOUNDARY: &str = "-----b";

fn multipart(fields: &[(&str, &str)]) -> String {
    let part = |(name, text): &(&str, &str)| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    };
    let parts: String = fields.iter().map(part).collect();
    format!("{parts}--{BOUNDARY}--\r\n")
}

fn content_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

#[tokio::test]
async fn a_multipart_body_is_a_form() {
    let server = Server::start().await;
    let multipart_type = content_type();
    let headers = [("content-type", multipart_type.as_str())];
    let body = multipart(&[
        ("name", "rate-limiting"),
        ("config.minute", "5"),
        ("config[hour]", "50"),
        ("tags[]", "a"),
        ("tags[]", "b"),
        ("enabled", "false"),
    ]);
    let created = server.send_text("POST", "/plugins", &headers, &body).await;
    let plugin = created.json();
    assert_eq!(created.status, 201, "{plugin}");
    assert_eq!(
        (&plugin["config"]["minute"], &plugin["config"]["hour"]),
        (&json!(5), &json!(50))
    );
    assert_eq!(
        (&plugin["tags"], &plugin["enabled"]),
        (&json!(["a", "b"]), &json!(false))
    );

    let pem = |name: &str| {
        let path = format!("{}/../schema/tests/pem/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let (cert, key) = (pem("p256.crt"), pem("p256.key"));
    let body = multipart(&[("cert", &cert), ("key", &key), ("snis[1]", "a.example")]);
    let created = server
        .send_text("POST", "/certificates", &headers, &body)
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.json()["snis"], json!(["a.example"]));
}

#[tokio::test]
async fn a_multipart_body_that_is_none_is_refused() {
    let server = Server::start().await;
    let before = server.version();
    let good = content_type();
    let many: Vec<(&str, &str)> = (0..1001).map(|_| ("tags[]", "x")).collect();
    let unnamed =
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--\r\n");
    for (content_type, body, message) in [
        (
            "multipart/form-data",
            String::new() + "x",
            "Cannot parse multipart body",
        ),
        (&good, "host=a".to_owned(), "Cannot parse multipart body"),
        (
            &good,
            multipart(&[("host", "a.example")]).replace("--\r\n", ""),
            "Cannot parse multipart body",
        ),
        (&good, unnamed, "Cannot parse multipart body"),
        (&good, multipart(&many), "Too many arguments"),
    ] {
        let headers = [("content-type", content_type)];
        let answer = server.send_text("POST", "/services", &headers, &body).await;
        let refused = (answer.status, answer.json());
        assert_eq!(
            refused,
            (400, json!({ "message": message })),
            "{content_type}"
        );
    }
    let headers = [("content-type", good.as_str())];
    let bytes = multipart(&[("host", "\u{1}")]).into_bytes();
    let bytes: Vec<u8> = bytes
        .into_iter()
        .map(|byte| if byte == 1 { 0xff } else { byte })
        .collect();
    let answer = server
        .send_bytes("POST", "/services", &headers, &bytes)
        .await;
    assert_eq!(answer.status, 400);
    assert_eq!(server.version(), before, "nothing was appended");
}

#[tokio::test]
async fn an_empty_text_in_a_form_clears() {
    let server = Server::start().await;
    let service = json!({"name": "s", "host": "a.example", "path": "/x"});
    server.create("/services", service).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = server
        .send_text("PATCH", "/services/s", &form, "path=&retries=7")
        .await;
    let service = answer.json();
    assert_eq!(answer.status, 200, "{service}");
    assert_eq!(
        (&service["path"], &service["retries"]),
        (&Value::Null, &json!(7))
    );
}
