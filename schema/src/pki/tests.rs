use super::*;
use crate::version::Time;

fn file(name: &str) -> String {
    let path = format!("{}/tests/pem/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn told<T>(result: Result<T, Unreadable>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".to_owned())
}

#[test]
fn every_form_of_a_key_has_the_public_half_of_its_certificate() {
    for (certificate, keys, key_type) in [
        ("rsa.crt", &["rsa.key", "rsa.pkcs1.key"][..], KeyType::Rsa),
        (
            "p256.crt",
            &["p256.key", "p256.sec1.key", "p256.bare.key"],
            KeyType::Ec,
        ),
        ("p384.crt", &["p384.key", "p384.bare.key"], KeyType::Ec),
        ("p521.crt", &["p521.key"], KeyType::Ec),
        ("ed25519.crt", &["ed25519.key"], KeyType::Ed25519),
    ] {
        let certificate = Certificate::parse(&file(certificate)).unwrap();
        assert_eq!(certificate.key.key_type(), key_type);
        for key in keys {
            assert_eq!(private_key(&file(key)).unwrap(), certificate.key, "{key}");
        }
    }
    for (public, private) in [
        ("rsa.pub", "rsa.key"),
        ("rsa.pkcs1.pub", "rsa.key"),
        ("p256.pub", "p256.key"),
        ("ed25519.pub", "ed25519.key"),
    ] {
        let public = public_key(&file(public)).unwrap();
        assert_eq!(private_key(&file(private)).unwrap(), public);
        assert_eq!(any_key(&file(private)).unwrap(), public);
    }
    assert_ne!(
        private_key(&file("p256.key")).unwrap(),
        private_key(&file("p384.key")).unwrap()
    );
}

#[test]
fn what_is_not_a_key_is_told_apart() {
    let reason = |name: &str| told(private_key(&file(name)));
    assert_eq!(reason("encrypted.key"), "the key is encrypted");
    assert_eq!(reason("rsa.crt"), "no PEM block of this kind");
    assert_eq!(reason("rsa.pub"), "no PEM block of this kind");
    assert_eq!(
        reason("p521.bare.key"),
        "the key does not hold its public half; write it anew with openssl pkey"
    );
    assert_eq!(
        reason("k256.key"),
        "the curve is not one of P-256, P-384, P-521"
    );
    assert_eq!(told(private_key("")), "no PEM block of this kind");
    assert_eq!(told(Certificate::parse("x")), "no PEM block of this kind");
    // A private key is not taken for a public one.
    assert_eq!(
        told(public_key(&file("rsa.key"))),
        "no PEM block of this kind"
    );
}

#[test]
fn what_a_certificate_says_is_read() {
    let ca = Certificate::parse(&file("ca.crt")).unwrap();
    assert!(ca.is_ca);
    let leaf = Certificate::parse(&file("rsa.crt")).unwrap();
    assert!(!leaf.is_ca);
    assert_eq!(
        leaf.digest,
        "6d43adf9d431d7bfbefa27da9efdad7a09120d44d0498545806a7e0d89841f62"
    );
    let expired = Certificate::parse(&file("expired.crt")).unwrap();
    // 2021-01-01T00:00:00Z
    let end = 1_609_459_200;
    assert_eq!(expired.not_after, end);
    assert!(!expired.is_expired(Time(1_609_459_200_000_000)));
    assert!(expired.is_expired(Time(1_609_459_201_000_000)));
    // Text around the blocks and a chain behind the first do not matter.
    let chain = format!("subject: a\n{}\n{}", file("rsa.crt"), file("ca.crt"));
    assert_eq!(Certificate::parse(&chain).unwrap(), leaf);
    assert_eq!(
        Certificate::parse(&chain.replace('\n', "\r\n")).unwrap(),
        leaf
    );
}

#[test]
fn damaged_keys_and_certificates_are_refused_and_never_panic() {
    for name in [
        "rsa.key",
        "p256.key",
        "p256.sec1.key",
        "ed25519.key",
        "rsa.pub",
        "rsa.crt",
    ] {
        let text = file(name);
        let block = Pem::iter_from_buffer(text.as_bytes())
            .next()
            .unwrap()
            .unwrap();
        let wrap = |bytes: &[u8]| {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!(
                "-----BEGIN {0}-----\n{body}\n-----END {0}-----\n",
                block.label
            )
        };
        let whole = wrap(&block.contents);
        assert!(any_key(&whole).is_ok() || Certificate::parse(&whole).is_ok());
        for cut in 0..block.contents.len() {
            let part = wrap(&block.contents[..cut]);
            assert!(any_key(&part).is_err(), "{name} cut at {cut}");
            assert!(Certificate::parse(&part).is_err(), "{name} cut at {cut}");
            let mut flipped = block.contents.clone();
            flipped[cut] ^= 0x55;
            let flipped = wrap(&flipped);
            // Whatever comes out, it comes out.
            let _ = (any_key(&flipped), Certificate::parse(&flipped));
        }
    }
}
